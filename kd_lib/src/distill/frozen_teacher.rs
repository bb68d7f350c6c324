//! A reference of a report: the teacher's checkpoint as it is, with a linear layer on its last pooled
//! state (a linear probe, Alain & Bengio 2016). If a student is no better than this, the checkpoint
//! knows the classes already and the texts are easy. The checkpoint is not fine-tuned here.

use super::trials::Trial;
use crate::data::{Example, TextInput};
use crate::store::{Recipe, RunStore};
use crate::training::ProgressCallback;
use crate::{Error, Result};
use std::path::Path;
use tch::nn::{Adam, OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};

/// Training texts at most, evenly spread: more change a linear layer of some hundred weights a class
/// little, and each costs a pass through the teacher.
const MOST_TEXTS: usize = 5000;
/// Updates, each over all texts. The loss is convex, and so many suffice.
const UPDATES: usize = 300;
const LEARNING_RATE: f64 = 0.01;
const WEIGHT_DECAY: f64 = 1e-3;

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
    let texts: Vec<TextInput> = train
        .iter()
        .copied()
        .chain(&corpus.test)
        .map(Example::input)
        .collect();
    let states = store.pretrained_states(teacher, &corpus, &texts, folder, callback)?;
    let (trained, tested) = (train.len() as i64, corpus.test.len() as i64);
    let labels = |examples: &mut dyn Iterator<Item = &Example>| {
        Tensor::from_slice(&examples.map(|e| e.label as i64).collect::<Vec<_>>())
    };
    let of_train = labels(&mut train.iter().copied());
    let of_test = labels(&mut corpus.test.iter());
    let logits = linear_logits(
        &states.narrow(0, 0, trained),
        &of_train,
        &states.narrow(0, trained, tested),
        corpus.labels.len() as i64,
    )?;
    let correct = logits.argmax(1, false).eq_tensor(&of_test).sum(Kind::Int64);
    Ok(correct.int64_value(&[]) as usize)
}

/// Logits `[test text, class]` of a linear layer that was trained on states `[training text, width]`.
/// It starts from zeros, so that no chance is involved.
fn linear_logits(train: &Tensor, labels: &Tensor, test: &Tensor, classes: i64) -> Result<Tensor> {
    let mean = train.mean_dim(0, true, Kind::Float);
    let deviation = train.std_dim(0, false, true).clamp_min(1e-6);
    let standardized = |states: &Tensor| (states - &mean) / &deviation;
    let variables = VarStore::new(Device::Cpu);
    let weight = variables
        .root()
        .zeros("weight", &[classes, train.size()[1]]);
    let bias = variables.root().zeros("bias", &[classes]);
    let mut optimizer = Adam {
        wd: WEIGHT_DECAY,
        ..Adam::default()
    }
    .build(&variables, LEARNING_RATE)
    .map_err(Error::from)?;
    let train = standardized(train);
    for _ in 0..UPDATES {
        let logits = train.linear(&weight, Some(&bias));
        optimizer.backward_step(&logits.cross_entropy_for_logits(labels));
    }
    Ok(standardized(test).linear(&weight, Some(&bias)).detach())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linear_layer_separates_states_that_a_line_separates() {
        let states = |rows: &[[f32; 2]]| Tensor::from_slice2(rows);
        let train = states(&[[0.0, 5.0], [1.0, 6.0], [4.0, 1.0], [5.0, 0.0]]);
        let labels = Tensor::from_slice(&[1i64, 1, 0, 0]);
        let test = states(&[[0.5, 5.5], [4.5, 0.5]]);
        let logits = linear_logits(&train, &labels, &test, 2).unwrap();
        let predicted: Vec<i64> = logits.argmax(1, false).try_into().unwrap();
        assert_eq!(predicted, [1, 0]);
    }
}
