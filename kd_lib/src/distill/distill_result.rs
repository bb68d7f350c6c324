//! What a plan trained, and which student of it is delivered.

use super::plan::Side;
use super::run_stages::TrainedStages;
use crate::data::Corpus;
use crate::store::Run;

/// A fold, and what was trained on it.
#[derive(Debug)]
pub struct FoldResult {
    /// The fold's splits; without folds, the corpus.
    pub corpus: Corpus,
    /// Of each test text, its number: among all labelled texts if there are folds, else among the
    /// test texts.
    pub test_rows: Vec<usize>,
    /// What was trained.
    pub trained: TrainedStages,
}

/// What a plan trained.
#[derive(Debug)]
pub struct DistillResult {
    /// The folds of each round; without folds, one round of one.
    pub rounds: Vec<Vec<FoldResult>>,
    /// The chosen student, trained on all labelled texts.
    pub refit: Option<Run>,
    /// Seconds in all, over all invocations.
    pub seconds: f64,
}

impl DistillResult {
    /// The result of a plan without folds and refit.
    pub fn single(corpus: Corpus, trained: TrainedStages) -> DistillResult {
        DistillResult {
            seconds: trained.seconds,
            refit: None,
            rounds: vec![vec![FoldResult {
                test_rows: (0..corpus.test.len()).collect(),
                corpus,
                trained,
            }]],
        }
    }

    /// All folds of all rounds.
    pub fn folds(&self) -> impl Iterator<Item = &FoldResult> {
        self.rounds.iter().flatten()
    }

    /// The student that is delivered: of the side that dev prefers.
    pub fn student(&self) -> &Run {
        let first = &self.rounds[0][0].trained;
        let preferred_run = match self.preferred_side() {
            Side::Distilled => &first.distilled[0],
            Side::Baseline => &first.baseline[0],
        };
        self.refit.as_ref().unwrap_or(preferred_run)
    }

    /// The side whose students have the higher macro-F1 on dev, on average over folds and seeds; if
    /// both have the same, the distilled one.
    pub fn preferred_side(&self) -> Side {
        if self.dev_macro_f1(Side::Baseline) > self.dev_macro_f1(Side::Distilled) {
            Side::Baseline
        } else {
            Side::Distilled
        }
    }

    /// Macro-F1 on dev of a side's chosen students, on average over folds and seeds.
    pub fn dev_macro_f1(&self, side: Side) -> f64 {
        let folds = self.folds().map(|fold| &fold.trained);
        let runs = folds.flat_map(|fold| match side {
            Side::Baseline => &fold.baseline,
            Side::Distilled => &fold.distilled,
        });
        mean(&runs.map(|run| run.report.dev.macro_f1).collect::<Vec<_>>())
    }
}

pub(super) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
