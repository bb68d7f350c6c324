//! Carries out a whole plan: [`super::execute`](mod@super::execute) runs once on the corpus's own
//! splits, or, under cross-validation, once per fold, so that every labelled text is tested.
//! Further rounds with other folds follow while the budget lasts. The corpus's own splits count as
//! a round of one fold. At the end the chosen student may be trained again on all labelled texts.

use super::execute::{Outcome, PlanClock, execute, read_plan, seconds_spent, write_plan};
use super::plan::{DistillPlan, Side};
use super::planner::round3;
use crate::Result;
use crate::data::Corpus;
use crate::data::splits::folds;
use crate::evaluation::TemperatureScaling;
use crate::store::planned_run::schedule;
use crate::store::{Recipe, Run, RunStore};
use crate::training::{Progress, ProgressCallback};
use std::path::{Path, PathBuf};

/// Seed of the first round's folds; each further round takes the next number.
pub(super) const FOLD_SEED: u64 = 0;
/// With more rounds the interval becomes no narrower: the number of texts limits it.
const MAX_ROUNDS: u64 = 10;
/// An evaluation interval so long that only the last update is followed by an evaluation.
const ONLY_AT_THE_END: usize = 1_000_000_000;

/// A fold, and what was trained on it.
#[derive(Debug)]
pub struct FoldResult {
    /// The fold's splits; without folds, the corpus.
    pub corpus: Corpus,
    /// Of each test text, its number: among all labelled texts if there are folds, else among the
    /// test texts.
    pub test_rows: Vec<usize>,
    /// What was trained.
    pub outcome: Outcome,
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
    pub fn single(corpus: Corpus, outcome: Outcome) -> DistillResult {
        DistillResult {
            seconds: outcome.seconds,
            refit: None,
            rounds: vec![vec![FoldResult {
                test_rows: (0..corpus.test.len()).collect(),
                corpus,
                outcome,
            }]],
        }
    }

    /// All folds of all rounds.
    pub fn folds(&self) -> impl Iterator<Item = &FoldResult> {
        self.rounds.iter().flatten()
    }

    /// The student that is delivered: of the side that dev prefers.
    pub fn student(&self) -> &Run {
        let first = &self.rounds[0][0].outcome;
        let preferred_run = match self.preferred_side() {
            Side::Distilled => &first.distilled[0],
            _ => &first.baseline[0],
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
        let outcomes = self.folds().map(|fold| &fold.outcome);
        let runs = outcomes.flat_map(|outcome| match side {
            Side::Teacher => &[][..],
            Side::Baseline => &outcome.baseline,
            Side::Distilled => &outcome.distilled,
        });
        mean(&runs.map(|run| run.report.dev.macro_f1).collect::<Vec<_>>())
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Carries a plan out. `folder` is the plan's.
pub fn run_plan(
    store: &RunStore,
    corpus: &Corpus,
    plan: &DistillPlan,
    folder: &Path,
    callback: ProgressCallback,
) -> Result<DistillResult> {
    plan.refuse_other_corpus(corpus, folder)?;
    let mut result = match plan.settings.folds {
        0 => {
            let own_splits = plan.for_fold(&corpus.fingerprint, plan.seconds_for_folds());
            let outcome = execute(store, corpus, own_splits, folder, callback)?;
            DistillResult::single(corpus.clone(), outcome)
        }
        _ => cross_validate(store, corpus, plan, folder, callback)?,
    };
    if plan.settings.refit {
        let recipe = refit_recipe(&result);
        let mut clock = PlanClock::open(folder)?;
        let before = clock.seconds();
        let mut timed = |progress: &Progress| {
            // A clock that cannot be written must not end a training.
            let _ = clock.write_if_due();
            callback(progress)
        };
        let run = store.run(&recipe, &all_labelled(corpus), &mut timed)?;
        clock.add_and_write()?;
        result.seconds += clock.seconds() - before;
        result.refit = Some(run);
    }
    Ok(result)
}

/// Rounds of cross-validation, as many as the time allows.
fn cross_validate(
    store: &RunStore,
    corpus: &Corpus,
    plan: &DistillPlan,
    folder: &Path,
    callback: ProgressCallback,
) -> Result<DistillResult> {
    let budget = plan.seconds_for_folds();
    let seconds_for_report = plan.settings.folds as f64 * plan.report_seconds();
    let mut seconds = seconds_spent(folder)?;
    let mut rounds: Vec<Vec<FoldResult>> = Vec::new();
    for round in 1..=MAX_ROUNDS {
        let seconds_per_round = seconds / rounds.len().max(1) as f64;
        let has_time = seconds + seconds_per_round + seconds_for_report <= budget;
        let is_begun = fold_folder(folder, round, 1).exists();
        if round > 1 && !has_time && !is_begun {
            break;
        }
        let left = budget - seconds;
        let results = run_round(store, corpus, plan, folder, round, left, callback)?;
        seconds += results.iter().map(|fold| fold.outcome.seconds).sum::<f64>();
        rounds.push(results);
    }
    Ok(DistillResult {
        rounds,
        refit: None,
        seconds,
    })
}

/// One round, numbered from 1. Each fold gets an equal part of the seconds that are left.
fn run_round(
    store: &RunStore,
    corpus: &Corpus,
    plan: &DistillPlan,
    folder: &Path,
    round: u64,
    mut seconds_left: f64,
    callback: ProgressCallback,
) -> Result<Vec<FoldResult>> {
    let folds = folds(corpus, plan.settings.folds, FOLD_SEED + round - 1)?;
    let number_of_folds = folds.len();
    let mut results = Vec::new();
    for (done, fold) in folds.into_iter().enumerate() {
        let place = fold_folder(folder, round, done + 1);
        let seconds = seconds_left.max(0.0) / (number_of_folds - done) as f64;
        let fold_plan = match read_plan(&place)? {
            Some(begun) => begun,
            None => {
                let fold_plan = plan.for_fold(&fold.corpus.fingerprint, seconds);
                write_plan(&fold_plan, &place, 0.0)?;
                fold_plan
            }
        };
        let mut with_fold = |progress: &Progress| {
            let run = format!(
                "round {round}, fold {} of {number_of_folds}, {}",
                done + 1,
                progress.run
            );
            callback(&Progress {
                run: &run,
                ..*progress
            })
        };
        let outcome = execute(store, &fold.corpus, fold_plan, &place, &mut with_fold)?;
        seconds_left -= outcome.seconds;
        results.push(FoldResult {
            corpus: fold.corpus,
            test_rows: fold.test_rows,
            outcome,
        });
    }
    Ok(results)
}

/// The folder of a fold; rounds and folds are numbered from 1.
fn fold_folder(folder: &Path, round: u64, fold: usize) -> PathBuf {
    folder.join(format!("round-{round}-fold-{fold}"))
}

/// The candidate with the highest mean macro-F1 on dev over all folds (of equal ones, the first),
/// as one run per fold. It is of the side that dev prefers. Candidates that a fold skipped do not
/// count.
fn chosen_candidate(result: &DistillResult) -> Vec<&Run> {
    let side = result.preferred_side();
    let outcomes: Vec<&Outcome> = result.folds().map(|fold| &fold.outcome).collect();
    let (mut best, mut highest) = (vec![result.student()], f64::NEG_INFINITY);
    for candidate in &outcomes[0].candidates {
        let name = &candidate.run.report.recipe.name;
        let all = outcomes.iter().flat_map(|outcome| &outcome.candidates);
        let same_name = all.filter(|other| other.run.report.recipe.name == *name);
        let runs: Vec<&Run> = same_name.map(|candidate| &candidate.run).collect();
        let scores: Vec<f64> = runs.iter().map(|run| run.report.dev.macro_f1).collect();
        let in_all = candidate.side == side && runs.len() == outcomes.len();
        if in_all && mean(&scores) > highest {
            (best, highest) = (runs, mean(&scores));
        }
    }
    best
}

/// The recipe of the chosen candidate for all labelled texts. No held-out text remains for
/// selecting weights or fitting a temperature. So the run is as long as the candidate's was up to
/// its best weights, on average over the folds, and the temperature is their geometric mean.
fn refit_recipe(result: &DistillResult) -> Recipe {
    let runs = chosen_candidate(result);
    let mut recipe = for_all_texts(&runs[0].report.recipe);
    recipe.train.epochs = mean_best_epochs(&runs);
    let temperatures = runs.iter().filter_map(|run| run.report.temperature);
    let logarithms: Vec<f64> = temperatures.map(f64::ln).collect();
    if !logarithms.is_empty() {
        let temperature = mean(&logarithms).exp();
        recipe.train.temperature_scaling = Some(TemperatureScaling::Fixed(temperature));
    }
    let outcomes = result.folds().map(|fold| &fold.outcome);
    let teachers: Vec<&Run> = outcomes
        .filter_map(|outcome| outcome.teacher.as_ref())
        .collect();
    if let Some(teacher) = recipe.teacher.take() {
        let mut teacher = for_all_texts(&teacher);
        if !teachers.is_empty() {
            teacher.train.epochs = mean_best_epochs(&teachers);
        }
        recipe.teacher = Some(Box::new(teacher));
    }
    recipe
}

/// The recipe without leak removal, intermediate evaluations and temperature fitting.
fn for_all_texts(recipe: &Recipe) -> Recipe {
    let mut recipe = recipe.clone();
    recipe.name = format!("{}-refit", recipe.name);
    recipe.data.drop_leaks = false;
    recipe.train.eval_every_samples = ONLY_AT_THE_END;
    recipe.train.temperature_scaling = None;
    recipe
}

/// After how many epochs the runs had their best weights, on average.
fn mean_best_epochs(runs: &[&Run]) -> f64 {
    let epochs = runs.iter().map(|run| {
        let report = &run.report;
        let texts = report.train_examples + report.transfer_examples;
        report.best_step as f64 / schedule(&report.recipe, texts).steps_per_epoch as f64
    });
    round3(mean(&epochs.collect::<Vec<_>>()))
}

/// All labelled texts for training. Dev texts are among them: their score says nothing.
fn all_labelled(corpus: &Corpus) -> Corpus {
    let name = format!("{} all labelled texts", corpus.fingerprint);
    Corpus {
        name: format!("{} (all labelled texts)", corpus.name),
        train: corpus.examples().cloned().collect(),
        test: Vec::new(),
        fingerprint: blake3::hash(name.as_bytes()).to_hex().to_string(),
        ..corpus.clone()
    }
}
