//! The references of a report: models that are no students. A student that does no better was not
//! worth its training.
//!
//! The linear probe is trained on the teacher before fine-tuning: a linear layer on the last pooled
//! state of its checkpoint. If a student is no better, the checkpoint knows the classes already.

use super::data_report::ngram_settings;
use super::distill_result::FoldResult;
use super::facts::MAX_PROBED_DEV_TEXTS;
use super::ngram_model::NgramModel;
use super::plan::DistillPlan;
use crate::Result;
use crate::data::splits::draw_at_most;
use crate::data::{Corpus, Example, TextInput};
use crate::store::pretrained_states::forget_pretrained_states;
use crate::store::{Recipe, RunStore};
use crate::training::linear_probe::{LabelledStates, MAX_PROBE_TEXTS, PROBE_FOLDS, probe_progress};
use crate::training::{Activity, Progress, ProgressCallback};
use std::path::Path;
use tch::{Kind, Tensor};

/// The accuracy of a reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReferenceScores {
    /// On dev, or on some of its texts. Conclusions are drawn from this.
    pub dev: f64,
    /// On test.
    pub test: f64,
}

/// The references, from the cheapest to the dearest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct References {
    /// The most frequent training class.
    pub majority: ReferenceScores,
    /// A linear model over n-grams.
    pub linear: ReferenceScores,
    /// A linear probe of the teacher before fine-tuning.
    pub linear_probe: ReferenceScores,
}

impl References {
    /// Trains them on the folds of a round. `folder` keeps what an interruption leaves.
    pub(super) fn of(
        store: &RunStore,
        plan: &DistillPlan,
        round: &[FoldResult],
        folder: &Path,
        callback: ProgressCallback,
    ) -> Result<References> {
        let teacher = &plan.settings.teacher;
        Ok(References {
            majority: mean_over_folds(round, |fold| Ok(majority_scores(&fold.corpus)))?,
            linear: mean_over_folds(round, |fold| {
                // A linear model is trained in one piece: a signal need not wait for it.
                Progress::begin(&fold.corpus.name, Activity::Preparing).send(callback)?;
                linear_scores(&fold.corpus, plan.facts.has_words)
            })?,
            linear_probe: mean_over_folds(round, |fold| {
                probe_scores(store, teacher, fold, folder, callback)
            })?,
        })
    }
}

/// The mean over folds; each counts as often as it has texts.
fn mean_over_folds(
    round: &[FoldResult],
    mut scores: impl FnMut(&FoldResult) -> Result<ReferenceScores>,
) -> Result<ReferenceScores> {
    let (mut dev, mut test) = (0.0, 0.0);
    let (mut dev_texts, mut test_texts) = (0.0, 0.0);
    for fold in round {
        let fold_scores = scores(fold)?;
        let (dev_count, test_count) = (fold.corpus.dev.len(), fold.corpus.test.len());
        dev += fold_scores.dev * dev_count as f64;
        test += fold_scores.test * test_count as f64;
        dev_texts += dev_count as f64;
        test_texts += test_count as f64;
    }
    Ok(ReferenceScores {
        dev: dev / f64::max(dev_texts, 1.0),
        test: test / f64::max(test_texts, 1.0),
    })
}

fn majority_scores(corpus: &Corpus) -> ReferenceScores {
    let count = |examples: &[Example], class| examples.iter().filter(|e| e.label == class).count();
    let most = (0..corpus.labels.len()).max_by_key(|&class| count(&corpus.train, class));
    let share = |examples: &[Example]| {
        let class_examples = most.map_or(0, |class| count(examples, class));
        class_examples as f64 / examples.len().max(1) as f64
    };
    ReferenceScores {
        dev: share(&corpus.dev),
        test: share(&corpus.test),
    }
}

fn linear_scores(corpus: &Corpus, has_words: bool) -> Result<ReferenceScores> {
    let train = corpus.clone().without_leaks().train;
    let linear = NgramModel::train(&train, ngram_settings(has_words))?;
    Ok(ReferenceScores {
        dev: linear.accuracy(&corpus.dev),
        test: linear.accuracy(&corpus.test),
    })
}

fn probe_scores(
    store: &RunStore,
    teacher: &Recipe,
    fold: &FoldResult,
    folder: &Path,
    callback: ProgressCallback,
) -> Result<ReferenceScores> {
    let corpus = fold.corpus.clone().without_leaks();
    let train: Vec<&Example> = draw_at_most(corpus.train.iter(), MAX_PROBE_TEXTS).collect();
    let dev: Vec<&Example> = draw_at_most(corpus.dev.iter(), MAX_PROBED_DEV_TEXTS).collect();
    let test: Vec<&Example> = corpus.test.iter().collect();
    let examples = train.iter().chain(&dev).chain(&test);
    let texts: Vec<TextInput> = examples.map(|e| e.input()).collect();
    let states = store.pretrained_states(teacher, &corpus, &texts, folder, callback)?;
    let classes = corpus.labels.len() as i64;
    let trained = train.len() as i64;
    let train_states = states.narrow(0, 0, trained);
    let labels: Vec<i64> = train.iter().map(|e| e.label as i64).collect();
    let folds: Vec<usize> = train.iter().map(|e| e.input().fold(PROBE_FOLDS)).collect();
    let labelled = LabelledStates {
        states: &train_states,
        labels: &labels,
        folds: &folds,
        classes,
    };
    let progress = probe_progress(&corpus.name, train.len());
    let probe = labelled.probe(&mut || progress.send(callback))?;
    forget_pretrained_states(folder)?;
    let accuracy = |examples: &[&Example], first: i64| {
        let split_states = states.narrow(0, first, examples.len() as i64);
        let predicted = probe.logits(&split_states).argmax(1, false);
        let labels: Vec<i64> = examples.iter().map(|e| e.label as i64).collect();
        let correct = predicted.eq_tensor(&Tensor::from_slice(&labels));
        correct.mean(Kind::Double).double_value(&[])
    };
    Ok(ReferenceScores {
        dev: accuracy(&dev, trained),
        test: accuracy(&test, trained + dev.len() as i64),
    })
}
