//! `kd`: the library's commands on the command line. Each function reads its arguments and calls
//! the library. Signals, the allocator and standard output are handled here. The library formats
//! progress lines and opens no terminal.

/// Prints a line to stderr. If nobody reads it any more, the work goes on: `eprintln!` would panic.
macro_rules! note {
    ($($part:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($part)*);
    }};
}

mod arguments;
mod convert;
mod distill_budget;
mod distill_profile;
mod download;
mod dry_run;
mod memory;
mod predict;
mod project;
mod signals;
mod threads;

use anyhow::{Result, bail, ensure};
use arguments::{
    Arguments, ColumnArguments, DistillArguments, DownloadArguments, EvaluateArguments, KdCommand,
    ResultsCommand, SplitName, TrainArguments,
};
use clap::Parser;
use kd_lib::data::text_files::FileFormat;
use kd_lib::data::{Corpus, import};
use kd_lib::evaluation::Scores;
use kd_lib::store::{Recipe, Run, RunStore, table};
use kd_lib::threads::ThreadPolicy;
use kd_lib::training::Activity;
use kd_lib::training::progress::{Progress, print_lines};
use project::{find_run, open_store, recipes_folder};
use signals::{STOPPED, StopSignals};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Where checkpoints are downloaded from.
const DEFAULT_HUB: &str = "https://huggingface.co";

fn main() -> ExitCode {
    memory::keep_freed_memory();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note!("Error: {error:#}");
            match error.downcast_ref() {
                Some(kd_lib::Error::Stopped { .. }) => ExitCode::from(STOPPED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run() -> Result<()> {
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    if let Some(message) = arguments::message_for_old_name(&words.collect::<Vec<_>>()) {
        bail!(message);
    }
    let arguments = Arguments::parse();
    threads::reexec_with_short_spin(&arguments.command);
    let policy = threads::policy(arguments.threads)?;
    // Not an error yet: a run's folder needs no store.
    let store = open_store(arguments.checkpoints).map(|store| store.with_threads(policy));
    match arguments.command {
        KdCommand::Train(arguments) => train_command(store, arguments),
        KdCommand::Distill(mut arguments) => match arguments.profile.take() {
            Some(profile) => distill_recipes(&store?, &profile, arguments),
            None => distill_within_budget(store?, policy, arguments),
        },
        KdCommand::Evaluate(arguments) => {
            let run = find_run(store, &arguments.run)?;
            threads::set_once(policy);
            print_scores(&run, arguments)
        }
        KdCommand::Predict(arguments) => {
            let run = find_run(store, &arguments.run)?;
            threads::set_once(policy);
            predict::predict(&run, &arguments.texts, arguments.text_pair.as_deref())
        }
        KdCommand::TeacherLogits(arguments) => {
            let stop = StopSignals::catch()?;
            let run = find_run(store, &arguments.run)?;
            threads::set_once(policy);
            distill_budget::write_teacher_logits(&run, &arguments.texts, &arguments.into, &stop)
        }
        KdCommand::Table => print_table(&readable_runs(&store?)?),
        KdCommand::Runs => readable_runs(&store?)?.iter().try_for_each(print_run),
        KdCommand::Results {
            command: ResultsCommand::Add { runs, set },
        } => add_to_results(&store?, &runs, &set),
        KdCommand::Download(arguments) => download(store, &arguments),
        KdCommand::Convert { paths } => {
            let checkpoints = store.ok().map(|store| store.checkpoints().to_path_buf());
            let checkpoints = checkpoints.unwrap_or_default();
            paths
                .iter()
                .try_for_each(|path| print(convert::convert(path, &checkpoints)?))
        }
    }
}

fn train_command(store: Result<RunStore>, arguments: TrainArguments) -> Result<()> {
    let stop = StopSignals::catch()?;
    let mut set = arguments.set;
    set.extend(arguments.seed.map(|seed| format!("seed={seed}")));
    let recipe = Recipe::read(arguments.recipe, &arguments.profile, &set)?;
    let corpus = read_corpus(&arguments.data, arguments.columns)?;
    let store = store?;
    if arguments.dry_run {
        return print(dry_run::describe(&store, &recipe, &corpus)?);
    }
    let run = train(&store, &recipe, &corpus, &stop)?;
    note!(
        "{}",
        table::table(&table::rows(std::slice::from_ref(&run))).text()
    );
    print(run.folder()?.display())
}

/// `kd distill --profile`: trains teacher.toml, student.toml and distilled.toml of the project.
fn distill_recipes(store: &RunStore, profile: &str, arguments: DistillArguments) -> Result<()> {
    let stop = StopSignals::catch()?;
    let corpus = read_corpus(&arguments.data, arguments.columns)?;
    let folder = recipes_folder(store)?;
    let recipes = distill_profile::recipes(&folder, profile, &arguments.set, arguments.seed)?;
    let in_order = [&recipes.teacher, &recipes.student, &recipes.distilled];
    // What cannot be done is reported before hours of training, not between them.
    for recipe in in_order {
        store.check(recipe, &corpus)?;
    }
    let mut runs = Vec::new();
    for recipe in in_order {
        runs.push(train(store, recipe, &corpus, &stop)?);
    }
    note!("{}", table::table(&table::rows(&runs)).text());
    if let Some(distilled) = runs.last() {
        let report = &distilled.report;
        // data.skip_test leaves no scores on test.
        let scores = if report.test.is_empty() {
            note!(
                "{}: skipped test (data.skip_test); scores on dev:",
                report.id
            );
            &report.dev
        } else {
            &report.test
        };
        print(
            table::per_class(scores, &distilled.labels)
                .text()
                .trim_end(),
        )?;
        print(distilled.folder()?.display())?;
    }
    Ok(())
}

/// `kd distill --budget`: plans the recipes from the corpus, the machine's speed and the budget.
fn distill_within_budget(
    store: RunStore,
    policy: ThreadPolicy,
    arguments: DistillArguments,
) -> Result<()> {
    let stop = StopSignals::catch()?;
    let recipes_folder = recipes_folder(&store)?;
    let request = distill_budget::Request {
        imported: import(&arguments.data, &arguments.columns.into())?,
        teacher: distill_budget::read_teacher_recipe(
            &recipes_folder,
            &arguments.set,
            arguments.seed,
        )?,
        budget: arguments.budget,
        max_megabytes: arguments.max_size,
        max_latency: arguments.max_latency,
        unlabelled: arguments.unlabelled,
        folds: arguments.folds.map(usize::from),
        refit: arguments.refit,
        dry_run: arguments.dry_run,
        plan: arguments.plan,
        export_texts: arguments.export_texts,
        teacher_logits: arguments.teacher_logits,
        policy,
    };
    distill_budget::distill(store, request, &stop)
}

/// Prints the scores of the report, or those on a file of labelled texts.
fn print_scores(run: &Run, arguments: EvaluateArguments) -> Result<()> {
    let scores = match arguments.data {
        Some(file) => predict::score_file(run, &file, arguments.format.map(FileFormat::from))?,
        None => {
            for notice in &run.report.notices {
                note!("{notice}");
            }
            stored_scores(run, arguments.split)?
        }
    };
    print(table::per_class(&scores, &run.labels).text().trim_end())
}

fn print_table(runs: &[Run]) -> Result<()> {
    let without_test = runs.iter().filter(|run| run.report.test.is_empty()).count();
    if without_test > 0 {
        note!(
            "runs that skipped test (data.skip_test) and are not in the table: {without_test}; kd runs \
             lists them"
        );
    }
    print(table::table(&table::rows(runs)).text().trim_end())
}

fn add_to_results(store: &RunStore, runs: &[PathBuf], set: &str) -> Result<()> {
    for run in runs {
        let run = find_run(Ok(store.clone()), run)?;
        print(store.add_to_results(set, &run)?.display())?;
    }
    Ok(())
}

fn download(store: Result<RunStore>, arguments: &DownloadArguments) -> Result<()> {
    let name = &arguments.name;
    let folder = if name.contains('/') {
        ensure!(
            arguments.into.is_none(),
            "--into: the folder of corpora; {name} is a checkpoint: name its folder with --checkpoints"
        );
        let checkpoints = store?.checkpoints().to_path_buf();
        let revision = arguments.revision.as_deref().unwrap_or("main");
        let hub = arguments.hub.as_deref().unwrap_or(DEFAULT_HUB);
        download::download_checkpoint(name, revision, hub, &checkpoints)?
    } else {
        ensure!(
            arguments.revision.is_none() && arguments.hub.is_none(),
            "--revision and --hub are for checkpoints (OWNER/NAME); {name} is a corpus: leave them out"
        );
        let into = arguments.into.as_deref().unwrap_or(Path::new("data"));
        download::download_corpus(name, into)?
    };
    print(folder.display())
}

/// Reads a corpus; what was detected or drawn goes to stderr.
fn read_corpus(path: &Path, columns: ColumnArguments) -> Result<Corpus> {
    let imported = import(path, &columns.into())?;
    for notice in imported.notices {
        note!("{notice}");
    }
    Ok(imported.corpus)
}

/// The scores that a run's report holds.
fn stored_scores(run: &Run, split: SplitName) -> Result<Scores> {
    match split {
        SplitName::Dev => Ok(run.report.dev.clone()),
        SplitName::Test => {
            let skipped = run.report.test.is_empty();
            ensure!(
                !skipped,
                "{}: skipped test (data.skip_test); use --split dev",
                run.report.id
            );
            Ok(run.report.test.clone())
        }
    }
}

fn print_run(run: &Run) -> Result<()> {
    let report = &run.report;
    let (split, scores) = if report.test.is_empty() {
        ("dev", &report.dev)
    } else {
        ("test", &report.test)
    };
    let (id, accuracy, corpus) = (&report.id, scores.accuracy, &report.corpus);
    print(format_args!(
        "{id}\t{split} accuracy {accuracy:.4}\t{corpus}"
    ))
}

/// All finished runs that can be read; what is wrong with the others goes to stderr.
fn readable_runs(store: &RunStore) -> Result<Vec<Run>> {
    let folder: &Path = store.checkpoints();
    ensure!(folder.is_dir(), "{}: no such folder", folder.display());
    let mut runs = Vec::new();
    for run in store.runs()? {
        match run {
            Ok(run) => runs.push(run),
            Err(error) => note!("left out: {error}"),
        }
    }
    Ok(runs)
}

/// A word of a command line as a shell reads it.
fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    shlex::try_quote(&word).map_or_else(|_| word.to_string(), |quoted| quoted.into_owned())
}

/// Prints a line. A reader that has closed the pipe has read enough.
fn print(line: impl Display) -> Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Trains a recipe, or finds its finished run. Notices about its texts and its teachers' go to
/// stderr.
fn train(store: &RunStore, recipe: &Recipe, corpus: &Corpus, stop: &StopSignals) -> Result<Run> {
    let mut callback = progress_callback(stop);
    Progress::begin(&recipe.name, Activity::Preparing).send(&mut callback)?;
    let mut said = HashSet::new();
    // The recipe before its teachers: planning it refuses teachers that do not fit.
    for planned in [recipe].into_iter().chain(&recipe.teachers()) {
        for notice in store.plan(planned, corpus)?.notices {
            note!("{}: {notice}", planned.name);
            said.insert(notice);
        }
    }
    let run = store.run(recipe, corpus, &mut callback)?;
    for notice in run.report.notices.iter().filter(|n| !said.contains(*n)) {
        note!("{}: {notice}", recipe.name);
    }
    Ok(run)
}

/// A callback that prints progress to stderr, and asks the run to stop after a signal.
fn progress_callback(stop: &StopSignals) -> impl FnMut(&Progress) -> ControlFlow<()> {
    let mut print_progress = print_lines(std::io::stderr(), Duration::from_secs(5));
    move |progress: &Progress| {
        if stop.requested_at(progress.activity) {
            ControlFlow::Break(())
        } else {
            print_progress(progress)
        }
    }
}
