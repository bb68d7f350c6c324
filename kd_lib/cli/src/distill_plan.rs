//! `kd distill` with a budget: measures, plans, trains, reports. The plan's folder is
//! `checkpoints/distilled/CORPUS-HASH`; the same command continues what is there.

use crate::distill;
use crate::signals::StopSignals;
use crate::{print, report_progress};
use anyhow::{Context, Result, bail};
use kd_lib::data::import::Imported;
use kd_lib::data::{Corpus, TextInput};
use kd_lib::distill::execute::{count_seconds, read_plan, write_plan};
use kd_lib::distill::plan::plan;
use kd_lib::distill::report::report_files;
use kd_lib::distill::suspicious_labels;
use kd_lib::distill::{
    Budget, DataReport, DistillPlan, Forecast, PlanSettings, Report, SuspiciousLabels, measure,
    run_trials,
};
use kd_lib::files::hash_file;
use kd_lib::store::teacher_logits::teacher_logits;
use kd_lib::store::{Recipe, Run, RunStore, labelled_texts};
use kd_lib::threads::{ThreadControl, ThreadPolicy};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Settings of the teacher that a plan chooses, and those that select texts, which would not reach the
/// students.
const PLANNED: [&str; 8] = [
    "epochs",
    "eval_every_samples",
    "seed",
    "max_length",
    "max_train_samples",
    "max_dev_samples",
    "label_fraction",
    "holdout_fold",
];
/// Below so many labelled texts a test split says little, and cross-validation tests all of them.
const SMALL_CORPUS: usize = 3000;
/// Folds of cross-validation.
const FOLDS: usize = 5;
/// With fewer updates a fold's students are weak, and the student that is delivered gains more from the
/// whole budget (docs/distill-runs.md). Few runs are behind the number.
const LEAST_UPDATES_OF_FOLD: usize = 300;
/// A test split with fewer texts says so little that weak students of folds say more.
const LEAST_TEST_TEXTS: usize = 100;
/// Labels that are likely to be wrong, in the printed data report.
const PRINTED_LABELS: usize = 10;
/// Characters of each of their texts.
const PRINTED_CHARACTERS: usize = 60;
/// Digits of the hash in a plan's folder name.
const HASH_DIGITS: usize = 12;

/// What the command line asks for.
pub struct Request {
    pub corpus: Imported,
    pub teacher: Recipe,
    pub budget: Budget,
    pub max_megabytes: f64,
    pub max_latency: Option<f64>,
    pub unlabelled: Option<PathBuf>,
    pub folds: Option<usize>,
    pub refit: bool,
    pub dry_run: bool,
    pub plan: Option<PathBuf>,
    pub export_texts: Option<PathBuf>,
    pub teacher_logits: Option<PathBuf>,
    pub policy: ThreadPolicy,
}

/// The teacher's recipe with the settings that begin with `teacher.`.
pub fn teacher(recipes: &Path, set: &[String]) -> Result<Recipe> {
    if let Some(other) = set
        .iter()
        .find(|setting| !setting.trim_start().starts_with("teacher."))
    {
        bail!(
            "--set {other}: a plan chooses the students' settings; set those of the teacher \
             (teacher.…), or name a --profile"
        );
    }
    for setting in set {
        let key = setting.split('=').next().unwrap_or_default().trim();
        if PLANNED
            .iter()
            .any(|planned| key.ends_with(&format!(".{planned}")))
        {
            bail!("--set {setting}: the plan chooses {key}; leave it out, or name a --profile");
        }
    }
    Ok(distill::recipes(recipes, "full", set, None)?.teacher)
}

/// Plans, or continues the plan that is there, and prints the student's folder.
pub fn distill(store: RunStore, request: Request) -> Result<()> {
    let started = Instant::now();
    let Imported {
        corpus,
        mut notices,
        test_is_drawn,
    } = request.corpus;
    for notice in &notices {
        eprintln!("{notice}");
    }
    let is_small = corpus.train.len() + corpus.dev.len() + corpus.test.len() < SMALL_CORPUS;
    let from_elsewhere = request.export_texts.is_some() || request.teacher_logits.is_some();
    let default_folds = match is_small && test_is_drawn && !from_elsewhere {
        true => FOLDS,
        false => 0,
    };
    let settings = PlanSettings {
        budget: request.budget,
        max_megabytes: request.max_megabytes,
        max_latency: request.max_latency,
        teacher: request.teacher,
        unlabelled: request.unlabelled,
        folds: request.folds.unwrap_or(default_folds),
        refit: request.refit,
    };
    let unlabelled = settings.unlabelled.as_deref().map(hash_file).transpose()?;
    let key = serde_json::to_string(&(&settings, &corpus.fingerprint, unlabelled))?;
    let hash = blake3::hash(key.as_bytes()).to_hex();
    let given = match &request.plan {
        Some(file) => {
            Some(read_plan(file)?.with_context(|| format!("{}: no plan", file.display()))?)
        }
        None => None,
    };
    let name = match &given {
        Some(plan) => format!("{}-plan-{}", corpus.name, &plan_hash(plan)?[..HASH_DIGITS]),
        None => format!("{}-{}", corpus.name, &hash[..HASH_DIGITS]),
    };
    let folder = store.checkpoints().join("distilled").join(name);
    let found = read_plan(&folder)?;
    let is_new = found.is_none();
    let plan: DistillPlan = match found.or(given) {
        Some(plan) => plan,
        None => {
            ThreadControl::start(request.policy, None);
            let planned = new_plan(&store, &corpus, &settings);
            let chosen_here = settings.folds > 0 && request.folds.is_none();
            match why_not_folds(&planned, corpus.test.len()).filter(|_| chosen_here) {
                None => planned?,
                Some(reason) => {
                    let notice = format!("Without cross-validation: {reason}");
                    eprintln!("{notice}");
                    notices.push(notice);
                    let settings = PlanSettings {
                        folds: 0,
                        ..settings
                    };
                    new_plan(&store, &corpus, &settings)?
                }
            }
        }
    };
    if let Some(file) = &request.export_texts {
        if is_new {
            write_plan(&plan, &folder, started.elapsed().as_secs_f64())?;
        }
        return export_texts(&store, &corpus, &plan, file, &folder);
    }
    let (plan, folder, is_new) = match &request.teacher_logits {
        None => (plan, folder, is_new),
        Some(file) => {
            let mut name = folder.file_name().unwrap_or_default().to_owned();
            name.push(format!("-logits-{}", &hash_file(file)?[..HASH_DIGITS]));
            let folder = folder.with_file_name(name);
            let is_new = read_plan(&folder)?.is_none();
            (
                plan.with_teacher_logits(&file.canonicalize()?),
                folder,
                is_new,
            )
        }
    };
    eprintln!("{}", plan.describe());
    let mut data = DataReport::of(&corpus, plan.facts.has_words)?;
    let store = store.with_threads(ThreadPolicy::Fixed(plan.speed.threads));
    let stop = StopSignals::catch()?;
    let mut progress = report_progress(&stop);
    if request.dry_run {
        let nowhere = tempfile::tempdir()?;
        let found = SuspiciousLabels::find(&store, &plan, &corpus, nowhere.path(), &mut progress)?;
        data.suspicious = Some(found);
        print_data_report(&data, &corpus, &plan);
        print_forecast(Forecast::of(&data));
        return Ok(());
    }
    if is_new {
        write_plan(&plan, &folder, started.elapsed().as_secs_f64())?;
    }
    let searching = Instant::now();
    let found = SuspiciousLabels::find(&store, &plan, &corpus, &folder, &mut progress)?;
    count_seconds(&folder, searching.elapsed().as_secs_f64())?;
    data.suspicious = Some(found);
    print_data_report(&data, &corpus, &plan);
    eprintln!(
        "All of them: {}",
        folder.join(suspicious_labels::FILE).display()
    );
    let forecast = Forecast::find(&data, &folder)?;
    print_forecast(forecast);
    let trials = run_trials(&store, &corpus, &plan, &folder, &mut progress)?;
    let command: Vec<String> = std::env::args().collect();
    let report = Report {
        corpus: &corpus,
        plan: &plan,
        trials: &trials,
        data: &data,
        forecast,
        notices: &notices,
        command: &command.join(" "),
    };
    let reporting = Instant::now();
    let findings = report.write(&store, &folder, &mut progress)?;
    count_seconds(&folder, reporting.elapsed().as_secs_f64())?;
    eprintln!("{}", findings.verdict());
    for file in report_files(&folder) {
        eprintln!("{}", file.display());
    }
    print(trials.student().folder()?.display())
}

/// Why a plan with folds is worse than one that tests so many texts; none if it is not.
fn why_not_folds(planned: &Result<DistillPlan>, test_texts: usize) -> Option<String> {
    let plan = match planned {
        Ok(plan) => plan,
        Err(error) => return Some(error.to_string()),
    };
    let updates = plan.distilled_updates();
    let is_worse = updates < LEAST_UPDATES_OF_FOLD && test_texts >= LEAST_TEST_TEXTS;
    is_worse.then(|| {
        format!(
            "the distilled student of each fold would have {updates} updates. Allow more time, or \
             say --folds {FOLDS}"
        )
    })
}

/// Measures and plans.
fn new_plan(store: &RunStore, corpus: &Corpus, settings: &PlanSettings) -> Result<DistillPlan> {
    let (facts, speed) = measure(store, corpus, settings)?;
    let settings = settings.clone();
    Ok(plan(
        &corpus.name,
        &corpus.fingerprint,
        settings,
        facts,
        speed,
    )?)
}

/// Writes the texts that the plan's distilled students learn from, for a teacher from elsewhere.
fn export_texts(
    store: &RunStore,
    corpus: &Corpus,
    plan: &DistillPlan,
    file: &Path,
    folder: &Path,
) -> Result<()> {
    let recipe = plan
        .distilled_recipe()
        .context("the plan has no distilled student")?;
    let resolved = store.plan(recipe, corpus)?;
    let number = labelled_texts::write_texts(file, &resolved.texts_to_label())?;
    eprintln!(
        "{number} texts for the teacher. Give each line \"logits\", one number a class in this \
         order, or \"label\": {}",
        corpus.labels.join(", ")
    );
    eprintln!(
        "Then: kd distill DATA --plan {} --teacher-logits FILE",
        folder.join("plan.json").display()
    );
    print(file.display())
}

/// Writes the logits that a run of this project gives exported texts.
pub fn write_teacher_logits(run: &Run, texts: &Path, into: &Path) -> Result<()> {
    let stop = StopSignals::catch()?;
    let texts = labelled_texts::read_texts(texts)?;
    let inputs: Vec<TextInput> = texts
        .iter()
        .map(|(text, text_pair)| TextInput {
            text,
            text_pair: text_pair.as_deref(),
        })
        .collect();
    let logits = teacher_logits(run, &inputs, &mut report_progress(&stop))?;
    labelled_texts::write_logits(into, &inputs, &logits)?;
    print(into.display())
}

/// The findings about the texts, with the labels that are most likely to be wrong.
fn print_data_report(data: &DataReport, corpus: &Corpus, plan: &DistillPlan) {
    eprintln!("\n{}", data.table(corpus, &plan.facts).text());
    let found = data.suspicious.as_ref();
    if let Some(found) = found.filter(|found| !found.labels.is_empty()) {
        eprintln!("Labels that are likely to be wrong, the most certain first:\n");
        eprintln!("{}", found.table(PRINTED_LABELS, PRINTED_CHARACTERS).text());
    }
}

fn print_forecast(forecast: Option<Forecast>) {
    if let Some(forecast) = forecast {
        eprintln!("Expected gain of the distilled student over the baseline: {forecast}");
        eprintln!("(A rough forecast, often wrong: docs/distill.md.)");
    }
}

fn plan_hash(plan: &DistillPlan) -> Result<String> {
    let text = serde_json::to_string(plan)?;
    Ok(blake3::hash(text.as_bytes()).to_hex().to_string())
}
