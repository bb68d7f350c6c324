//! The trials of a plan. A large corpus has one, on its own splits. A small corpus has one on each
//! fold of cross-validation, so that every labelled text is tested; further rounds with other folds
//! follow while the budget lasts. At the end the chosen student may be trained again on all
//! labelled texts. [`super::execute`](mod@super::execute) carries out one trial.

use super::execute::{Outcome, PlanClock, execute, read_plan, seconds_spent, write_plan};
use super::plan::{DistillPlan, Side, round3};
use crate::Result;
use crate::data::Corpus;
use crate::data::splits::folds;
use crate::evaluation::TemperatureScaling;
use crate::store::plan::schedule;
use crate::store::{Recipe, Run, RunStore};
use crate::training::{Progress, ProgressCallback};
use std::path::Path;

/// Seed of the first round's folds; each further round takes the next number.
pub(super) const FIRST_ROUND: u64 = 0;
/// More rounds make the interval no narrower: the number of texts decides then.
const MOST_ROUNDS: u64 = 10;
/// So many samples between two evaluations that only the last update is followed by one.
const ONLY_AT_THE_END: usize = 1_000_000_000;

/// A corpus with its splits, and what was trained on it.
#[derive(Debug)]
pub struct Trial {
    /// The corpus, or a fold of it.
    pub corpus: Corpus,
    /// Of each test text, its number among the texts that all trials of a round test.
    pub test_rows: Vec<usize>,
    /// What was trained.
    pub outcome: Outcome,
}

/// The result of a plan.
#[derive(Debug)]
pub struct Trials {
    /// One trial, or rounds of a trial for each fold.
    pub rounds: Vec<Vec<Trial>>,
    /// The chosen student, trained on all labelled texts.
    pub refit: Option<Run>,
    /// Seconds in all, over all invocations.
    pub seconds: f64,
}

impl Trials {
    /// The result of a plan without folds and refit.
    pub fn single(corpus: Corpus, outcome: Outcome) -> Trials {
        Trials {
            seconds: outcome.seconds,
            refit: None,
            rounds: vec![vec![Trial {
                test_rows: (0..corpus.test.len()).collect(),
                corpus,
                outcome,
            }]],
        }
    }

    /// The student that is delivered: of the side that dev prefers.
    pub fn student(&self) -> &Run {
        let first = &self.rounds[0][0].outcome;
        let of_side = match self.preferred_side() {
            Side::Distilled => &first.distilled[0],
            _ => &first.baseline[0],
        };
        self.refit.as_ref().unwrap_or(of_side)
    }

    /// The side whose students have the higher macro-F1 on dev, on average over trials and seeds; if
    /// both have the same, the distilled one.
    pub fn preferred_side(&self) -> Side {
        match self.dev_macro_f1(Side::Baseline) > self.dev_macro_f1(Side::Distilled) {
            true => Side::Baseline,
            false => Side::Distilled,
        }
    }

    /// Macro-F1 on dev of a side's chosen students, on average over trials and seeds.
    pub fn dev_macro_f1(&self, side: Side) -> f64 {
        let outcomes = self.rounds.iter().flatten().map(|trial| &trial.outcome);
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
pub fn run_trials(
    store: &RunStore,
    corpus: &Corpus,
    plan: &DistillPlan,
    folder: &Path,
    callback: ProgressCallback,
) -> Result<Trials> {
    plan.refuse_other_corpus(corpus, folder)?;
    let mut trials = match plan.settings.folds {
        0 => {
            let own_splits = plan.of_trial(&corpus.fingerprint, plan.seconds_for_trials());
            let outcome = execute(store, corpus, own_splits, folder, callback)?;
            Trials::single(corpus.clone(), outcome)
        }
        _ => cross_validate(store, corpus, plan, folder, callback)?,
    };
    if plan.settings.refit {
        let recipe = refit_recipe(&trials);
        let mut clock = PlanClock::open(folder)?;
        let before = clock.seconds();
        let mut timed = |progress: &Progress| {
            // A clock that cannot be written must not end a training.
            let _ = clock.write_if_due();
            callback(progress)
        };
        let run = store.run(&recipe, &all_labelled(corpus), &mut timed)?;
        clock.write()?;
        trials.seconds += clock.seconds() - before;
        trials.refit = Some(run);
    }
    Ok(trials)
}

/// Rounds of trials, one on each fold. A fold gets its part of the time that is left.
fn cross_validate(
    store: &RunStore,
    corpus: &Corpus,
    plan: &DistillPlan,
    folder: &Path,
    callback: ProgressCallback,
) -> Result<Trials> {
    let budget = plan.seconds_for_trials();
    let mut seconds = seconds_spent(folder)?;
    let mut rounds: Vec<Vec<Trial>> = Vec::new();
    for round in 0..MOST_ROUNDS {
        let place = |fold: usize| folder.join(format!("round-{}-fold-{}", round + 1, fold + 1));
        let of_round = seconds / rounds.len().max(1) as f64;
        let is_begun = round == 0 || place(0).exists();
        if !is_begun && seconds + of_round > budget {
            break;
        }
        let mut trials = Vec::new();
        let folds = folds(corpus, plan.settings.folds, FIRST_ROUND + round)?;
        let number = folds.len();
        for (at, fold) in folds.into_iter().enumerate() {
            let place = place(at);
            let of_fold = match read_plan(&place)? {
                Some(begun) => begun,
                None => {
                    let left = (budget - seconds).max(0.0) / (number - at) as f64;
                    let of_fold = plan.of_trial(&fold.corpus.fingerprint, left);
                    write_plan(&of_fold, &place, 0.0)?;
                    of_fold
                }
            };
            let mut with_fold = |progress: &Progress| {
                let of_round = format!("round {}, fold {} of {number}", round + 1, at + 1);
                let run = format!("{of_round}, {}", progress.run);
                callback(&Progress {
                    run: &run,
                    ..*progress
                })
            };
            let outcome = execute(store, &fold.corpus, of_fold, &place, &mut with_fold)?;
            seconds += outcome.seconds;
            trials.push(Trial {
                corpus: fold.corpus,
                test_rows: fold.test_rows,
                outcome,
            });
        }
        rounds.push(trials);
    }
    Ok(Trials {
        rounds,
        refit: None,
        seconds,
    })
}

/// The runs of a candidate, one a trial: of the side that dev prefers, the candidate with the highest
/// macro-F1 on dev, averaged over all trials; of equal ones, the first. Candidates that a trial left
/// out do not count.
fn chosen_candidate(trials: &Trials) -> Vec<&Run> {
    let side = trials.preferred_side();
    let outcomes: Vec<&Outcome> = trials
        .rounds
        .iter()
        .flatten()
        .map(|trial| &trial.outcome)
        .collect();
    let (mut best, mut highest) = (vec![trials.student()], f64::NEG_INFINITY);
    for candidate in &outcomes[0].candidates {
        let name = &candidate.run.report.recipe.name;
        let all = outcomes.iter().flat_map(|outcome| &outcome.candidates);
        let of_name = all.filter(|other| other.run.report.recipe.name == *name);
        let runs: Vec<&Run> = of_name.map(|candidate| &candidate.run).collect();
        let scores: Vec<f64> = runs.iter().map(|run| run.report.dev.macro_f1).collect();
        let in_all = candidate.side == side && runs.len() == outcomes.len();
        if in_all && mean(&scores) > highest {
            (best, highest) = (runs, mean(&scores));
        }
    }
    best
}

/// The recipe of the chosen candidate for all labelled texts. No text is left to choose weights or a
/// temperature by: the training is as long as the candidate's was up to its best weights, on average
/// over the trials, and the temperature is their geometric mean.
fn refit_recipe(trials: &Trials) -> Recipe {
    let runs = chosen_candidate(trials);
    let mut recipe = for_all_texts(&runs[0].report.recipe);
    recipe.train.epochs = mean_best_epochs(&runs);
    let temperatures = runs.iter().filter_map(|run| run.report.temperature);
    let logarithms: Vec<f64> = temperatures.map(f64::ln).collect();
    if !logarithms.is_empty() {
        let temperature = mean(&logarithms).exp();
        recipe.train.temperature_scaling = Some(TemperatureScaling::Fixed(temperature));
    }
    let all = trials.rounds.iter().flatten();
    let teachers: Vec<&Run> = all.filter_map(|t| t.outcome.teacher.as_ref()).collect();
    if let Some(teacher) = recipe.teacher.take() {
        let mut teacher = for_all_texts(&teacher);
        if !teachers.is_empty() {
            teacher.train.epochs = mean_best_epochs(&teachers);
        }
        recipe.teacher = Some(Box::new(teacher));
    }
    recipe
}

/// The same recipe without what needs texts that were not trained on.
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
    let all = [&corpus.train, &corpus.dev, &corpus.test];
    Corpus {
        name: format!("{} (all labelled texts)", corpus.name),
        train: all.into_iter().flatten().cloned().collect(),
        test: Vec::new(),
        fingerprint: blake3::hash(name.as_bytes()).to_hex().to_string(),
        ..corpus.clone()
    }
}
