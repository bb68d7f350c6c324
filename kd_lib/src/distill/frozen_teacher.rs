//! A reference of a report: the teacher's checkpoint as it is, with a linear layer on its last pooled
//! state. If a student is no better than this, the checkpoint knows the classes already. The
//! checkpoint is not fine-tuned here.

use super::linear_probe::{FOLDS, LabelledStates, LinearProbe};
use super::trials::Trial;
use crate::Result;
use crate::data::{Example, TextInput};
use crate::store::{Recipe, RunStore};
use crate::training::ProgressCallback;
use std::path::Path;
use tch::{Kind, Tensor};

/// Training texts at most, evenly spread: more change a linear layer of some hundred weights a class
/// little, and each costs a pass through the teacher.
const MOST_TEXTS: usize = 5000;

/// Test texts of a trial that the frozen teacher classifies correctly. `folder` keeps what an
/// interruption leaves.
pub(super) fn correct_on_test(
    store: &RunStore,
    teacher: &Recipe,
    trial: &Trial,
    folder: &Path,
    callback: ProgressCallback,
) -> Result<usize> {
    let corpus = trial.corpus.clone().without_leaks();
    let step = corpus.train.len().div_ceil(MOST_TEXTS).max(1);
    let train: Vec<&Example> = corpus.train.iter().step_by(step).collect();
    let examples = train.iter().copied().chain(&corpus.test);
    let texts: Vec<TextInput> = examples.map(Example::input).collect();
    let states = store.pretrained_states(teacher, &corpus, &texts, folder, callback)?;
    let (trained, tested) = (train.len() as i64, corpus.test.len() as i64);
    let classes = corpus.labels.len() as i64;
    let of_train = states.narrow(0, 0, trained);
    let labels: Vec<i64> = train.iter().map(|e| e.label as i64).collect();
    let folds: Vec<usize> = train.iter().map(|e| e.input().fold(FOLDS)).collect();
    let labelled = LabelledStates {
        states: &of_train,
        labels: &labels,
        folds: &folds,
        classes,
    };
    let weight_decay = labelled.held_out()?.weight_decay;
    let labels = Tensor::from_slice(&labels);
    let probe = LinearProbe::fit(&of_train, &labels, classes, weight_decay)?;
    let predicted = probe
        .logits(&states.narrow(0, trained, tested))
        .argmax(1, false);
    let labels: Vec<i64> = corpus.test.iter().map(|e| e.label as i64).collect();
    let correct = predicted.eq_tensor(&Tensor::from_slice(&labels));
    Ok(correct.sum(Kind::Int64).int64_value(&[]) as usize)
}
