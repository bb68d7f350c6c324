//! Scores the models of all folds on texts that they did not see. A report is made from these
//! scores. Under cross-validation the predictions of a round's folds are put together, so that a
//! round covers all tested texts, as a seed does otherwise.

use super::distill_result::{DistillResult, FoldResult};
use super::plan::{DistillPlan, Side};
use super::references::References;
use crate::data::{Corpus, Example, Split, TextInput};
use crate::evaluation::{Scores, argmax, to_array};
use crate::store::{Predictor, Run, RunStore};
use crate::training::progress::TextClock;
use crate::training::{Activity, Progress, ProgressCallback};
use crate::{Error, Result};
use ndarray::{Array2, ArrayView2, Axis, concatenate};
use std::path::Path;
use std::time::Instant;

/// Texts of which each is classified alone, to time it.
const TIMED_TEXTS: usize = 50;

/// Results of teacher, baseline and distilled student on the tested texts.
pub(super) struct Evidence {
    /// The tested texts, and the training texts of the first fold.
    pub corpus: Corpus,
    /// One entry per round; none if the teacher's logits come from a file.
    pub teacher: Vec<Tested>,
    /// One entry per seed or round.
    pub baseline: Vec<Tested>,
    /// One entry per seed or round.
    pub distilled: Vec<Tested>,
    /// The side that dev prefers: its student is delivered.
    pub delivered: Side,
    /// The models that a student must beat.
    pub references: References,
}

/// A side of the comparison on the tested texts: one model, or one for each fold.
pub(super) struct Tested {
    pub name: &'static str,
    /// One run per fold.
    pub runs: Vec<Run>,
    /// `[example, class]`.
    pub logits: Array2<f32>,
    /// The same before temperature scaling.
    pub unscaled_logits: Array2<f32>,
    pub scores: Scores,
    pub correct: Vec<bool>,
    pub seconds_per_text: f64,
    pub texts_per_second: f64,
}

impl Evidence {
    /// Scores models on the test splits, which no model read before.
    pub fn of(
        store: &RunStore,
        plan: &DistillPlan,
        result: &DistillResult,
        folder: &Path,
        callback: ProgressCallback,
    ) -> Result<Evidence> {
        let first = &result.rounds[0];
        let mut evidence = Evidence {
            corpus: tested_corpus(first),
            teacher: Vec::new(),
            baseline: Vec::new(),
            distilled: Vec::new(),
            delivered: result.preferred_side(),
            references: References::of(store, plan, first, folder, callback)?,
        };
        for round in &result.rounds {
            let teachers = round.iter().filter_map(|fold| fold.trained.teacher.clone());
            let teachers: Vec<Run> = teachers.collect();
            if teachers.len() == round.len() {
                evidence
                    .teacher
                    .push(tested("teacher", round, teachers, callback)?);
            }
            let baselines = |fold: &FoldResult| fold.trained.baseline.clone();
            for runs in by_seed(round, baselines) {
                evidence
                    .baseline
                    .push(tested("baseline", round, runs, callback)?);
            }
            let distilled = |fold: &FoldResult| fold.trained.distilled.clone();
            for runs in by_seed(round, distilled) {
                evidence
                    .distilled
                    .push(tested("distilled", round, runs, callback)?);
            }
        }
        Ok(evidence)
    }

    /// The chosen students of the side that dev prefers, one entry per seed or round.
    pub fn delivered_side(&self) -> &[Tested] {
        match self.delivered {
            Side::Distilled => &self.distilled,
            Side::Baseline => &self.baseline,
        }
    }

    /// Teacher, baseline, distilled student.
    pub fn sides(&self) -> [&[Tested]; 3] {
        [&self.teacher, &self.baseline, &self.distilled]
    }
}

impl Tested {
    /// Mean accuracy on dev over its runs.
    pub fn dev_accuracy(&self) -> f64 {
        let accuracies = self.runs.iter().map(|run| run.report.dev.accuracy);
        accuracies.sum::<f64>() / self.runs.len() as f64
    }

    /// The logits `[example, class]` of the dev texts of each run.
    pub fn dev_logits(&self) -> Result<Array2<f32>> {
        let logits = self
            .runs
            .iter()
            .map(|run| Ok(run.logits(Split::Dev)?.logits))
            .collect::<Result<Vec<Array2<f32>>>>()?;
        joined(logits.iter().map(Array2::view))
    }
}

/// The runs of each seed, one per fold. Seeds that a fold lacks are left out.
fn by_seed(round: &[FoldResult], runs_of: impl Fn(&FoldResult) -> Vec<Run>) -> Vec<Vec<Run>> {
    let fold_runs: Vec<Vec<Run>> = round.iter().map(runs_of).collect();
    let seeds = fold_runs.iter().map(Vec::len).min().unwrap_or_default();
    (0..seeds)
        .map(|seed| fold_runs.iter().map(|runs| runs[seed].clone()).collect())
        .collect()
}

/// What one run computed for the test texts of its fold.
struct TestedFold {
    /// `[text, class]`.
    logits: Array2<f32>,
    /// The same before temperature scaling.
    unscaled_logits: Array2<f32>,
    /// Seconds of each text that was classified alone.
    seconds_alone: Vec<f64>,
    /// Seconds of the pass over all texts, as far as it was not done in an earlier process.
    seconds: f64,
    /// The texts of these seconds.
    texts_computed: usize,
}

/// Classifies a fold's test texts: the first `timed_texts` alone, then all of them in batches.
fn test_fold(
    run: &Run,
    fold: &FoldResult,
    timed_texts: usize,
    callback: ProgressCallback,
) -> Result<TestedFold> {
    let predictor = Predictor::open(run)?;
    let texts: Vec<TextInput> = fold.corpus.test.iter().map(Example::input).collect();
    let mut seconds_alone = Vec::new();
    for text in texts.iter().take(timed_texts) {
        Progress::begin(&run.report.id, Activity::Reporting).send(callback)?;
        let started = Instant::now();
        let _ = predictor.logits(&[*text])?;
        seconds_alone.push(started.elapsed().as_secs_f64());
    }
    let mut clock = TextClock::new(&run.report.id, Activity::Reporting, texts.len());
    let mut first_computed = None;
    let mut check_stop = |done| {
        first_computed.get_or_insert(done);
        clock.at(done).send(callback)
    };
    let started = Instant::now();
    let output = predictor.compute(&texts, &[], |pass| {
        pass.resumable_outputs(run.folder()?, "report", &mut check_stop)
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let logits = to_array(&output.logits)?;
    Ok(TestedFold {
        unscaled_logits: &logits * run.report.temperature.unwrap_or(1.0) as f32,
        logits,
        seconds_alone,
        seconds,
        texts_computed: texts.len() - first_computed.unwrap_or_default(),
    })
}

/// One run for each fold of a round, on the fold's test texts.
fn tested(
    name: &'static str,
    round: &[FoldResult],
    runs: Vec<Run>,
    callback: ProgressCallback,
) -> Result<Tested> {
    let mut folds = Vec::new();
    for (fold, run) in round.iter().zip(&runs) {
        folds.push(test_fold(run, fold, TIMED_TEXTS / round.len(), callback)?);
    }
    let mut seconds_alone: Vec<f64> = folds
        .iter()
        .flat_map(|fold| fold.seconds_alone.iter().copied())
        .collect();
    seconds_alone.sort_by(f64::total_cmp);
    let median = seconds_alone.get(seconds_alone.len() / 2);
    let seconds: f64 = folds.iter().map(|fold| fold.seconds).sum();
    let texts_computed: usize = folds.iter().map(|fold| fold.texts_computed).sum();
    let order = by_row(round);
    let logits = joined(folds.iter().map(|fold| fold.logits.view()))?;
    let logits = logits.select(Axis(0), &order);
    let unscaled_logits = joined(folds.iter().map(|fold| fold.unscaled_logits.view()))?;
    let labels = labels_by_row(round);
    let correct = logits
        .outer_iter()
        .zip(&labels)
        .map(|(row, &label)| argmax(row) == label);
    Ok(Tested {
        name,
        correct: correct.collect(),
        scores: Scores::of(logits.view(), &labels),
        logits,
        unscaled_logits: unscaled_logits.select(Axis(0), &order),
        seconds_per_text: median.copied().unwrap_or_default(),
        texts_per_second: texts_computed as f64 / seconds,
        runs,
    })
}

/// Rows of several arrays, one below the other.
fn joined<'a>(parts: impl Iterator<Item = ArrayView2<'a, f32>>) -> Result<Array2<f32>> {
    concatenate(Axis(0), &parts.collect::<Vec<_>>()).map_err(|odd| Error::Shape(odd.to_string()))
}

/// The test examples of a round in the order of their rows, as positions in the folds' test splits
/// one after another.
fn by_row(round: &[FoldResult]) -> Vec<usize> {
    let rows: Vec<usize> = round.iter().flat_map(|t| t.test_rows.clone()).collect();
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&position| rows[position]);
    order
}

fn examples_by_row(round: &[FoldResult]) -> Vec<&Example> {
    let examples: Vec<&Example> = round.iter().flat_map(|t| &t.corpus.test).collect();
    by_row(round).into_iter().map(|at| examples[at]).collect()
}

fn labels_by_row(round: &[FoldResult]) -> Vec<usize> {
    examples_by_row(round)
        .into_iter()
        .map(|e| e.label)
        .collect()
}

fn tested_corpus(round: &[FoldResult]) -> Corpus {
    Corpus {
        test: examples_by_row(round).into_iter().cloned().collect(),
        ..round[0].corpus.clone()
    }
}
