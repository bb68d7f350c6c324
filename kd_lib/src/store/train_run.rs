//! Trains the model of a planned run in the run's folder, and writes the files of the finished run.

use super::model_factory::{self, BuiltModel};
use super::planned_run::PlannedRun;
use super::recipe::Recipe;
use super::run::{self, Run, RunReport, TaughtBy};
use super::run_files;
use super::score_splits::{SplitScores, score_splits};
use super::tensorboard;
use crate::data::{TokenizedSplit, Tokenizer};
use crate::device::Environment;
use crate::training::{
    Activity, Progress, ProgressCallback, Trainer, TrainingOutcome, progress, state,
};
use crate::{Error, Result, files};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// Between two lines of a run's `log.txt`, evaluations aside.
const LOG_INTERVAL: Duration = Duration::from_secs(30);

/// Trains the model, or continues, and writes the run's files. `taught_by` are the hashes of the
/// teachers' weights, `commit` is that of the project.
pub(super) fn train_run(
    planned: &PlannedRun,
    folder: &Path,
    teachers: &[Run],
    taught_by: &TaughtBy,
    commit: Option<String>,
    callback: ProgressCallback,
) -> Result<()> {
    files::remove_temporary_files(folder)?;
    if !taught_by.is_empty() {
        files::write_json(&folder.join(run_files::TAUGHT_BY), taught_by)?;
    }
    let path = folder.join(run_files::LOG);
    let log = File::options().create(true).append(true).open(&path);
    let mut log = log.map_err(Error::io(&path))?;
    for notice in &planned.notices {
        writeln!(log, "{}: {notice}", planned.id).map_err(Error::io(&path))?;
    }
    let mut to_log = progress::print_lines(log, LOG_INTERVAL);
    let mut callback = |progress: &Progress| {
        let _ = to_log(progress);
        callback(progress)
    };

    let preparing = Progress::begin(&planned.id, Activity::Preparing);
    preparing.send(&mut callback)?;
    let tokenizer = model_factory::build_tokenizer(planned)?;
    let data = model_factory::build_data(planned, &tokenizer, teachers, &mut callback)?;
    let mut notices = planned.notices.clone();
    notices.extend(truncation_notice(&data.train, &planned.recipe));
    preparing.send(&mut callback)?;
    let mut built = model_factory::build_model(planned, &tokenizer, teachers)?;
    if files::content_addressed(folder, state::PREFIX).is_empty() {
        model_factory::initialize_head_from_probe(planned, &built, &data, folder, &mut callback)?;
    }
    let model = built.model.as_ref();
    let objective_params = model_factory::build_objective_params(planned, model, &data)?;
    let architecture = planned.recipe.model.architecture()?;
    let trainer = Trainer {
        // Fine-tuning on few texts can make a linear probe worse.
        evaluate_before_training: architecture.probed_head(&built.saved.sizes).is_some(),
        ..model_factory::build_trainer(planned, model, &data, &objective_params)?
    };
    let outcome = trainer.train(folder, &mut callback)?;
    let scores = score_splits(planned, folder, &tokenizer, model, &mut callback)?;
    built.saved.temperature = scores.temperature;
    let trained = Trained {
        tokenizer,
        train_examples: data.lines.len(),
        notices,
        outcome,
        scores,
        commit,
    };
    write_run(planned, folder, &built, trained)
}

/// Says how many texts are not read to their end.
fn truncation_notice(train: &TokenizedSplit, recipe: &Recipe) -> Option<String> {
    let (truncated, texts) = (train.truncated.len(), train.ids.len());
    let limit = recipe.data.max_length;
    (truncated > 0).then(|| {
        format!(
            "{truncated} of {texts} texts that are trained on have more than {limit} tokens \
             (data.max_length): the rest of each is not read"
        )
    })
}

/// Writes the files of a finished run, the checksums last.
fn write_run(
    planned: &PlannedRun,
    folder: &Path,
    built: &BuiltModel,
    trained: Trained,
) -> Result<()> {
    let Trained {
        tokenizer,
        train_examples,
        notices,
        outcome,
        scores,
        commit,
    } = trained;
    run::write_csv(&folder.join("curve.csv"), &outcome.curve)?;
    tensorboard::write(&folder.join("curve.tfevents"), &outcome.curve)?;
    tokenizer.write(folder)?;
    files::write_json(&folder.join("model.json"), &built.saved)?;
    files::write_json(&folder.join("labels.json"), &planned.corpus.labels)?;
    built
        .model
        .params()
        .write(&folder.join(run_files::WEIGHTS))?;
    let report = RunReport {
        format: run::FORMAT,
        id: planned.id.clone(),
        previous_id: None,
        recipe: planned.recipe.clone(),
        corpus: planned.corpus.name.clone(),
        corpus_fingerprint: planned.corpus.fingerprint.clone(),
        text_pairs: planned.corpus.has_pairs(),
        train_examples,
        transfer_examples: planned.transfer_set.len(),
        teachers: planned.teachers.clone(),
        notices,
        parameters: built.model.params().count(),
        steps: outcome.steps,
        best_step: outcome.best_step,
        precision: planned.precision,
        environment: Environment::of(planned.device),
        thread_changes: match outcome.thread_changes.len() {
            1 => Vec::new(), // `environment` says it
            _ => outcome.thread_changes,
        },
        commit,
        seconds: outcome.seconds,
        temperature: scores.temperature,
        dev: scores.dev,
        test: scores.test,
    };
    Run::write_report(folder, &report)
}

/// What a run's files are written from, in addition to its plan and model.
struct Trained {
    tokenizer: Tokenizer,
    train_examples: usize,
    notices: Vec<String>,
    outcome: TrainingOutcome,
    scores: SplitScores,
    commit: Option<String>,
}
