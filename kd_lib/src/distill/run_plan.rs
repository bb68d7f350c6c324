//! Carries out a whole plan: [`run_stages`] trains its stages once on the corpus's own splits, or,
//! under cross-validation, once per fold, so that every labelled text is tested. Further rounds with
//! other folds follow while the budget lasts. The corpus's own splits count as a round of one fold.
//! At the end the chosen student may be trained again on all labelled texts.

use super::distill_result::{DistillResult, FoldResult};
use super::plan::DistillPlan;
use super::plan_folder::{PlanClock, read_plan, seconds_spent, write_plan};
use super::refit::{all_labelled, refit_recipe};
use super::run_stages::run_stages;
use crate::Result;
use crate::data::Corpus;
use crate::data::splits::folds;
use crate::store::RunStore;
use crate::training::{Progress, ProgressCallback};
use std::path::{Path, PathBuf};

/// Seed of the first round's folds; each further round takes the next number.
pub(super) const FOLD_SEED: u64 = 0;
/// With more rounds the interval becomes no narrower: the number of texts limits it.
const MAX_ROUNDS: u64 = 10;

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
            let trained = run_stages(store, corpus, own_splits, folder, callback)?;
            DistillResult::single(corpus.clone(), trained)
        }
        _ => cross_validate(store, corpus, plan, folder, callback)?,
    };
    if plan.settings.refit {
        let recipe = plan.with_own_paths(refit_recipe(&result));
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
        seconds += results.iter().map(|fold| fold.trained.seconds).sum::<f64>();
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
            // The file of unlabelled texts may be elsewhere by now.
            Some(begun) => match &plan.settings.unlabelled {
                Some(file) => begun.with_unlabelled(file),
                None => begun,
            },
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
        let trained = run_stages(store, &fold.corpus, fold_plan, &place, &mut with_fold)?;
        seconds_left -= trained.seconds;
        results.push(FoldResult {
            corpus: fold.corpus,
            test_rows: fold.test_rows,
            trained,
        });
    }
    Ok(results)
}

/// The folder of a fold; rounds and folds are numbered from 1.
fn fold_folder(folder: &Path, round: u64, fold: usize) -> PathBuf {
    folder.join(format!("round-{round}-fold-{fold}"))
}
