//! The chosen student again, on all labelled texts (`--refit`): its recipe and its corpus.

use super::distill_result::{DistillResult, mean};
use super::planner::round_to_thousandths;
use super::run_stages::TrainedStages;
use crate::data::Corpus;
use crate::evaluation::TemperatureScaling;
use crate::store::planned_run::schedule;
use crate::store::{Recipe, Run};

/// An evaluation interval so long that only the last update is followed by an evaluation.
const ONLY_AT_THE_END: usize = 1_000_000_000;

/// The candidate with the highest mean macro-F1 on dev over all folds (the first wins a tie),
/// as one run per fold. It is of the side that dev prefers. Candidates that a fold skipped do not
/// count.
fn chosen_candidate(result: &DistillResult) -> Vec<&Run> {
    let side = result.preferred_side();
    let folds: Vec<&TrainedStages> = result.folds().map(|fold| &fold.trained).collect();
    let (mut best, mut highest) = (vec![result.student()], f64::NEG_INFINITY);
    for candidate in &folds[0].candidates {
        let name = &candidate.run.report.recipe.name;
        let all = folds.iter().flat_map(|fold| &fold.candidates);
        let same_name = all.filter(|other| other.run.report.recipe.name == *name);
        let runs: Vec<&Run> = same_name.map(|candidate| &candidate.run).collect();
        let scores: Vec<f64> = runs.iter().map(|run| run.report.dev.macro_f1).collect();
        let in_all = candidate.side == side && runs.len() == folds.len();
        if in_all && mean(&scores) > highest {
            (best, highest) = (runs, mean(&scores));
        }
    }
    best
}

/// The recipe of the chosen candidate for all labelled texts. No held-out text remains for
/// selecting weights or fitting a temperature. So the run is as long as the candidate's was up to
/// its best weights, on average over the folds, and the temperature is their geometric mean.
pub(super) fn refit_recipe(result: &DistillResult) -> Recipe {
    let runs = chosen_candidate(result);
    let mut recipe = for_all_texts(&runs[0].report.recipe);
    recipe.train.epochs = mean_best_epochs(&runs);
    let temperatures = runs.iter().filter_map(|run| run.report.temperature);
    let logarithms: Vec<f64> = temperatures.map(f64::ln).collect();
    if !logarithms.is_empty() {
        let temperature = mean(&logarithms).exp();
        recipe.train.temperature_scaling = Some(TemperatureScaling::Fixed(temperature));
    }
    let teachers: Vec<&Run> = result
        .folds()
        .filter_map(|fold| fold.trained.teacher.as_ref())
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
    round_to_thousandths(mean(&epochs.collect::<Vec<_>>()))
}

/// All labelled texts for training. Dev texts are among them: their score says nothing.
pub(super) fn all_labelled(corpus: &Corpus) -> Corpus {
    let name = format!("{} all labelled texts", corpus.fingerprint);
    Corpus {
        name: format!("{} (all labelled texts)", corpus.name),
        train: corpus.examples().cloned().collect(),
        test: Vec::new(),
        fingerprint: blake3::hash(name.as_bytes()).to_hex().to_string(),
        ..corpus.clone()
    }
}
