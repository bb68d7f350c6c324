//! `kd distill` with a budget: measures, plans, trains, reports. The plan's folder is
//! `checkpoints/distilled/CORPUS-HASH`; the same command continues what is there.

use crate::distill_profile;
use crate::signals::StopSignals;
use crate::threads;
use crate::{print, progress_callback, quoted};
use anyhow::{Context, Result, anyhow, bail, ensure};
use kd_lib::data::import::Imported;
use kd_lib::data::{Corpus, TextInput};
use kd_lib::distill::folds::{reason_against_folds, suggested_folds};
use kd_lib::distill::plan_folder::{add_seconds, read_plan, write_plan};
use kd_lib::distill::report::report_files;
use kd_lib::distill::run_stages::check_stages;
use kd_lib::distill::suspicious_labels;
use kd_lib::distill::{
    Budget, DataReport, DistillPlan, Forecast, PlanSettings, Report, SuspiciousLabels, make_plan,
    measure, run_plan,
};
use kd_lib::files::{self, hash_file};
use kd_lib::store::labelled_texts::ExportedText;
use kd_lib::store::teacher_logits::teacher_logits;
use kd_lib::store::{Recipe, Run, RunStore, labelled_texts, overrides};
use kd_lib::threads::ThreadPolicy;
use kd_lib::training::{Activity, Progress, ProgressCallback};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Settings of the teacher that a plan chooses, and those that select texts, which would not reach
/// the students.
const PLANNED: [&str; 13] = [
    "name",
    "skip_test",
    "prune_vocab",
    "vocab_size",
    "vocab_texts",
    "init_head_from_probe",
    "epochs",
    "eval_every_samples",
    "max_length",
    "max_train_samples",
    "max_dev_samples",
    "label_fraction",
    "holdout_fold",
];
/// Labels that are likely to be wrong, in the printed data report.
const PRINTED_LABELS: usize = 10;
/// Characters of each of their texts.
const PRINTED_CHARACTERS: usize = 60;
/// Digits of the hash in a plan's folder name.
const HASH_DIGITS: usize = 12;

/// What the command line asks for.
pub struct Request {
    pub imported: Imported,
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

/// The teacher's recipe with the settings that begin with `teacher.`, and its seed, the first of
/// the plan.
pub fn read_teacher_recipe(
    recipes_folder: &Path,
    set: &[String],
    seed: Option<u64>,
) -> Result<Recipe> {
    for setting in set {
        for key in overrides::keys(setting)? {
            if !key.starts_with("teacher.") {
                bail!(
                    "--set {setting}: a plan chooses the students' settings; set those of the teacher \
                     (teacher.…), or name a --profile"
                );
            }
            let is_planned = |planned: &&str| key.ends_with(&format!(".{planned}"));
            if PLANNED.iter().any(is_planned) {
                bail!("--set {setting}: the plan chooses {key}; leave it out, or name a --profile");
            }
        }
    }
    let mut set = set.to_vec();
    set.extend(seed.map(|seed| format!("teacher.seed={seed}")));
    Ok(distill_profile::recipes(recipes_folder, "full", &set, None)?.teacher)
}

/// Plans, or continues the plan that is there, and prints the student's folder.
pub fn distill(store: RunStore, request: Request, stop: &StopSignals) -> Result<()> {
    let started = Instant::now();
    let mut callback = progress_callback(stop);
    for notice in &request.imported.notices {
        note!("{notice}");
    }
    let mut found = PlanInFolder::find(&store, &request)?;
    let corpus = &request.imported.corpus;
    found.plan.refuse_other_corpus(corpus, &found.folder)?;
    if request.dry_run {
        let store = with_threads_of(&found.plan, store, request.policy);
        let described = describe(&store, corpus, &found.plan, &mut callback);
        return described.map_err(|error| match error.downcast_ref() {
            Some(kd_lib::Error::Stopped { .. }) => anyhow!("stopped; a dry run saves nothing"),
            _ => error,
        });
    }
    let preparation = started.elapsed().as_secs_f64();
    let folder_name = found.folder.file_name().unwrap_or_default();
    let folder_name = folder_name.to_string_lossy().into_owned();
    let waiting = Progress::begin(&folder_name, Activity::Waiting);
    let _lock = files::lock_folder(&found.folder, &mut || waiting.send(&mut callback))?;
    found.read_or_write(&request, preparation)?;
    if let Some(file) = &request.export_texts {
        return export_texts(&store, corpus, &found.plan, file, &found.folder);
    }
    note!("{}", found.plan.describe());
    let store = with_threads_of(&found.plan, store, request.policy);
    found.train_and_report(&store, &request, &mut callback)
}

/// A plan and its folder.
struct PlanInFolder {
    plan: DistillPlan,
    folder: PathBuf,
    /// What reading the corpus and planning had to say.
    notices: Vec<String>,
}

impl PlanInFolder {
    /// The plan that an earlier invocation or `--plan` left, or a new one. Nothing is written.
    fn find(store: &RunStore, request: &Request) -> Result<PlanInFolder> {
        let corpus = &request.imported.corpus;
        let uses_external_teacher =
            request.export_texts.is_some() || request.teacher_logits.is_some();
        let default_folds = if uses_external_teacher {
            0
        } else {
            suggested_folds(corpus, request.imported.test_is_drawn)
        };
        let settings = PlanSettings {
            budget: request.budget,
            max_megabytes: request.max_megabytes,
            max_latency: request.max_latency,
            teacher: request.teacher.clone(),
            unlabelled: request.unlabelled.as_deref().map(absolute).transpose()?,
            folds: request.folds.unwrap_or(default_folds),
            refit: request.refit,
        };
        let given = match &request.plan {
            Some(file) => {
                let plan = read_plan(file)?;
                Some(plan.with_context(|| format!("{}: no plan", file.display()))?)
            }
            None => None,
        };
        let name = folder_name(corpus, &settings, given.as_ref())?;
        let base = store.checkpoints().join("distilled").join(name);
        let folder = match &request.teacher_logits {
            Some(file) => with_hash_of_logits(&base, file)?,
            None => base.clone(),
        };
        let mut notices = request.imported.notices.clone();
        let plan = match read_plan(&folder)?.or(read_plan(&base)?).or(given) {
            Some(plan) => plan,
            None => {
                threads::set_once(request.policy);
                let folds_are_default = request.folds.is_none();
                new_plan(store, corpus, settings, folds_are_default, &mut notices)?
            }
        };
        if request.unlabelled.is_some() && plan.settings.unlabelled.is_none() {
            bail!("--unlabelled: the plan has no unlabelled texts; make a new one without --plan");
        }
        if request.teacher_logits.is_some() && (plan.settings.folds > 0 || plan.settings.refit) {
            note!(
                "With --teacher-logits, the plan's cross-validation and the training on all labelled \
                 texts are left out: the file has no logits for them"
            );
        }
        Ok(PlanInFolder {
            plan: with_files_of(plan, request)?,
            folder,
            notices,
        })
    }

    /// Writes the plan; or reads it again, if the folder has one by now: another process may have
    /// written it while this one measured. `preparation` is in seconds.
    fn read_or_write(&mut self, request: &Request, preparation: f64) -> Result<()> {
        match read_plan(&self.folder)? {
            Some(plan) => {
                add_seconds(&self.folder, preparation)?;
                self.plan = with_files_of(plan, request)?;
            }
            None => write_plan(&self.plan, &self.folder, preparation)?,
        }
        Ok(())
    }

    /// Reports on the texts, trains, writes the report, and prints the student's folder.
    fn train_and_report(
        &self,
        store: &RunStore,
        request: &Request,
        callback: ProgressCallback,
    ) -> Result<()> {
        let (corpus, plan, folder) = (&request.imported.corpus, &self.plan, &self.folder);
        let clock = Instant::now();
        for notice in check_stages(store, corpus, plan, callback)? {
            note!("{notice}");
        }
        let mut data = DataReport::of(corpus, plan.facts.has_words)?;
        let found = SuspiciousLabels::find(store, plan, corpus, folder, callback);
        // What a signal ended has taken its time too.
        add_seconds(folder, clock.elapsed().as_secs_f64())?;
        data.suspicious = Some(found?);
        print_data_report(&data, corpus, plan);
        let labels = folder.join(suspicious_labels::FILE);
        note!("All of them: {}", labels.display());
        let forecast = Forecast::find(&data, plan, folder)?;
        print_forecast(forecast);
        let result = run_plan(store, corpus, plan, folder, callback)?;
        let command: Vec<String> = std::env::args_os().map(|word| quoted(&word)).collect();
        let report = Report {
            corpus,
            plan,
            result: &result,
            data: &data,
            forecast,
            notices: &self.notices,
            command: &command.join(" "),
        };
        let clock = Instant::now();
        let findings = report.write(store, folder, callback);
        add_seconds(folder, clock.elapsed().as_secs_f64())?;
        note!("{}", findings?.verdict());
        for file in report_files(folder) {
            note!("{}", file.display());
        }
        print(result.student().folder()?.display())
    }
}

/// The plan with the files that the command line names: those of an earlier invocation may be
/// elsewhere by now.
fn with_files_of(plan: DistillPlan, request: &Request) -> Result<DistillPlan> {
    let plan = match &request.unlabelled {
        Some(file) => plan.with_unlabelled(&absolute(file)?),
        None => plan,
    };
    Ok(match &request.teacher_logits {
        Some(file) => plan.with_teacher_logits(&absolute(file)?),
        None => plan,
    })
}

/// The path as the plan keeps it: the plan may be carried out from another folder.
fn absolute(file: &Path) -> Result<PathBuf> {
    file.canonicalize()
        .with_context(|| file.display().to_string())
}

/// The name of a plan's folder: the corpus, and a hash of the settings. The number of threads is not
/// hashed.
fn folder_name(
    corpus: &Corpus,
    settings: &PlanSettings,
    given: Option<&DistillPlan>,
) -> Result<String> {
    if let Some(plan) = given {
        let hash = plan_hash(plan)?;
        return Ok(format!("{}-plan-{}", corpus.name, &hash[..HASH_DIGITS]));
    }
    let unlabelled = settings.unlabelled.as_deref().map(hash_file).transpose()?;
    // The file's content counts, not how its path is written.
    let settings = PlanSettings {
        unlabelled: None,
        ..settings.clone()
    };
    let key = serde_json::to_string(&(settings, &corpus.fingerprint, unlabelled))?;
    let hash = blake3::hash(key.as_bytes()).to_hex();
    Ok(format!("{}-{}", corpus.name, &hash[..HASH_DIGITS]))
}

/// The folder of a distillation whose teacher's logits come from a file.
fn with_hash_of_logits(folder: &Path, logits: &Path) -> Result<PathBuf> {
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push(format!("-logits-{}", &hash_file(logits)?[..HASH_DIGITS]));
    Ok(folder.with_file_name(name))
}

/// From now on the number of threads that the plan was measured with.
fn with_threads_of(plan: &DistillPlan, store: RunStore, asked: ThreadPolicy) -> RunStore {
    let threads = plan.speed.threads;
    let cores = std::thread::available_parallelism().map_or(threads, usize::from);
    if threads > cores {
        note!(
            "The plan was made with {threads} threads, so it is carried out with as many; this machine \
             has {cores} cores, so it takes longer than planned"
        );
    }
    if let ThreadPolicy::Fixed(asked) = asked
        && asked != threads
    {
        note!(
            "The plan was made with {threads} threads, so it is carried out with as many; --threads \
             and OMP_NUM_THREADS have no effect on it"
        );
    }
    let policy = ThreadPolicy::Fixed(threads);
    threads::set_once(policy);
    store.with_threads(policy)
}

/// Prints the plan and what was found in the texts. No run is trained, nothing is written.
fn describe(
    store: &RunStore,
    corpus: &Corpus,
    plan: &DistillPlan,
    callback: ProgressCallback,
) -> Result<()> {
    note!("{}", plan.describe());
    for notice in check_stages(store, corpus, plan, callback)? {
        note!("{notice}");
    }
    let nowhere = tempfile::tempdir()?;
    let mut data = DataReport::of(corpus, plan.facts.has_words)?;
    let found = SuspiciousLabels::find(store, plan, corpus, nowhere.path(), callback)?;
    data.suspicious = Some(found);
    print_data_report(&data, corpus, plan);
    print_forecast(Forecast::of(&data, plan));
    Ok(())
}

/// Measures and plans. If the folds are the default and would make the students weak, the plan has
/// none, and a notice says why.
fn new_plan(
    store: &RunStore,
    corpus: &Corpus,
    settings: PlanSettings,
    folds_are_default: bool,
    notices: &mut Vec<String>,
) -> Result<DistillPlan> {
    let measured = |settings: PlanSettings| {
        let (facts, speed) = measure(store, corpus, &settings)?;
        make_plan(&corpus.name, &corpus.fingerprint, settings, facts, speed)
    };
    let planned = measured(settings.clone());
    if settings.folds == 0 || !folds_are_default {
        return Ok(planned?);
    }
    let Some(reason) = reason_against_folds(&planned, corpus.test.len()) else {
        return Ok(planned?);
    };
    let notice = format!("Without cross-validation: {reason}");
    note!("{notice}");
    notices.push(notice);
    let without_folds = PlanSettings {
        folds: 0,
        ..settings
    };
    Ok(measured(without_folds)?)
}

/// Writes the texts that the plan's distilled students learn from, for an external teacher.
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
    let planned = store.plan(recipe, corpus)?;
    let number = labelled_texts::write_texts(file, &planned.texts_to_label())?;
    note!(
        "{number} texts for the teacher. Give each line \"logits\", one number per class in this \
         order, or \"label\": {}",
        corpus.labels.join(", ")
    );
    note!(
        "Then: kd distill DATA --plan {} --teacher-logits FILE",
        quoted(folder.join("plan.json").as_os_str())
    );
    print(file.display())
}

/// Writes the logits that a run of this project gives exported texts.
pub fn write_teacher_logits(
    run: &Run,
    texts: &Path,
    into: &Path,
    stop: &StopSignals,
) -> Result<()> {
    let file = texts;
    for path in [file, into] {
        ensure!(
            path.as_os_str() != "-",
            "-: the texts are read again and the logits are written as a whole; name files"
        );
    }
    // Before hours of computing.
    let folder = files::parent_as_written(into);
    ensure!(
        folder.as_os_str().is_empty() || folder.is_dir(),
        "{}: no such folder; make it, or name another file",
        folder.display()
    );
    // Reading a pipe would wait for ever.
    ensure!(
        into.is_file() || !into.exists(),
        "{}: not a regular file; name a new file",
        into.display()
    );
    let texts = labelled_texts::read_texts(file)?;
    ensure!(!texts.is_empty(), "{}: no text", file.display());
    let inputs: Vec<TextInput> = texts.iter().map(ExportedText::input).collect();
    if into.symlink_metadata().is_ok() {
        if let Err(problem) = labelled_texts::read_logits(into, &inputs, &run.labels) {
            bail!(
                "{}: exists and does not hold the logits of these texts ({problem}); remove it, or \
                 name a new file",
                into.display()
            );
        }
        note!(
            "{}: exists; it is an error if the logits are others",
            into.display()
        );
    }
    let logits = teacher_logits(run, &inputs, &mut progress_callback(stop))?;
    labelled_texts::write_logits(into, &inputs, &logits, &run.labels)?;
    print(into.display())
}

/// The findings about the texts, with the labels that are most likely to be wrong.
fn print_data_report(data: &DataReport, corpus: &Corpus, plan: &DistillPlan) {
    note!("\n{}", data.table(corpus, &plan.facts).text());
    let found = data.suspicious.as_ref();
    if let Some(found) = found.filter(|found| !found.labels.is_empty()) {
        note!("Labels that are likely to be wrong, the most certain first:\n");
        note!("{}", found.table(PRINTED_LABELS, PRINTED_CHARACTERS).text());
    }
}

fn print_forecast(forecast: Option<Forecast>) {
    if let Some(forecast) = forecast {
        note!("Expected gain of the distilled student over the baseline: {forecast}");
        note!("(A rough forecast, often wrong: docs/distill.md.)");
    }
}

fn plan_hash(plan: &DistillPlan) -> Result<String> {
    let text = serde_json::to_string(plan)?;
    Ok(blake3::hash(text.as_bytes()).to_hex().to_string())
}
