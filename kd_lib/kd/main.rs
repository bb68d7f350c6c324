//! `kd`: the crate's verbs on the command line. Each arm reads its arguments and calls the library once.

mod arguments;
mod distill;
mod dry_run;
mod fetch;
mod memory;
mod predict;
mod project;

use anyhow::{Result, bail, ensure};
use arguments::{Arguments, Verb};
use clap::Parser;
use kd_lib::data::Corpus;
use kd_lib::lab::Lab;
use kd_lib::progress::{self, Tick};
use kd_lib::recipe::Recipe;
use kd_lib::report;
use kd_lib::run::Run;
use project::{find, open_lab, recipes};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use std::fmt::Display;
use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Exit code of a run that a signal stopped: what was done is saved, the same command goes on (EX_TEMPFAIL).
const STOPPED: u8 = 75;

fn main() -> ExitCode {
    memory::keep_what_is_freed();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            match error.downcast_ref() {
                Some(kd_lib::Error::Stopped { .. }) => ExitCode::from(STOPPED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run() -> Result<()> {
    let arguments = Arguments::parse();
    let lab = open_lab(arguments.checkpoints);
    match arguments.verb {
        Verb::Run { recipe, data, profile, mut set, seed, dry_run } => {
            set.extend(seed.map(|s| format!("seed={s}")));
            let recipe = Recipe::read(recipe, &profile, &set)?;
            let corpus = Corpus::open(data)?;
            if dry_run {
                return say(dry_run::describe(&lab?, &recipe, &corpus)?);
            }
            let run = train(&lab?, &recipe, &corpus, &*asked_to_stop()?)?;
            eprintln!("{}", report::table(&report::rows(std::slice::from_ref(&run))).text());
            say(run.path.display())?;
        }
        Verb::Distill { data, profile, set, seed } => {
            let (lab, corpus) = (lab?, Corpus::open(data)?);
            let three = distill::recipes(&recipes(&lab)?, &profile, &set, seed)?;
            // What cannot be done is said before hours of training, not between them.
            three.iter().try_for_each(|recipe| lab.plan(recipe, &corpus).map(drop))?;
            let asked = asked_to_stop()?;
            let runs = three.iter().map(|recipe| train(&lab, recipe, &corpus, &asked)).collect::<Result<Vec<_>>>()?;
            eprintln!("{}", report::table(&report::rows(&runs)).text());
            say(report::per_class(&runs[2].report.test, &runs[2].labels).text().trim_end())?;
            say(runs[2].path.display())?;
        }
        Verb::Test { run, dev, data } => {
            let run = find(&lab?, &run)?;
            let scores = match data {
                None if dev => run.report.dev.clone(),
                None if run.report.test.is_empty() => {
                    bail!("{}: left test alone (data.blind); ask --dev", run.report.id)
                }
                None => run.report.test.clone(),
                Some(file) => predict::score(&run, &file)?,
            };
            say(report::per_class(&scores, &run.labels).text().trim_end())?;
        }
        Verb::Predict { run, texts } => predict::predict(&find(&lab?, &run)?, &texts)?,
        Verb::Table => say(report::table(&report::rows(&readable(&lab?)?)).text().trim_end())?,
        Verb::List => {
            for Run { report, .. } in readable(&lab?)? {
                let blind = report.test.is_empty();
                let (split, scores) = if blind { ("dev", &report.dev) } else { ("test", &report.test) };
                say(format_args!("{}\t{split} accuracy {:.4}\t{}", report.id, scores.accuracy, report.corpus))?;
            }
        }
        Verb::Keep { runs } => {
            let lab = lab?;
            for run in runs {
                say(lab.keep(&find(&lab, &run)?)?.path.display())?;
            }
        }
        Verb::Fetch { name, hub, into } => say(match name.contains('/') {
            true => fetch::fetch_checkpoint(&name, &hub, lab?.checkpoints())?.display().to_string(),
            false => fetch::fetch(&name, &into)?.display().to_string(),
        })?,
    }
    Ok(())
}

/// All finished runs that can be read; what is wrong with the others goes to stderr.
fn readable(lab: &Lab) -> Result<Vec<Run>> {
    ensure!(lab.checkpoints().is_dir(), "{}: no such folder", lab.checkpoints().display());
    Ok(lab.runs().into_iter().filter_map(|run| run.map_err(|error| eprintln!("left out: {error}")).ok()).collect())
}

/// Prints a line; a reader that has closed the pipe has read enough.
fn say(line: impl Display) -> Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

/// Whether a signal has come; of one process, so that a signal between two trainings stops the second.
fn asked_to_stop() -> Result<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGUSR1] {
        // A second signal ends the process at once.
        signal_hook::flag::register_conditional_shutdown(signal, i32::from(STOPPED), asked.clone())?;
        signal_hook::flag::register(signal, asked.clone())?;
    }
    Ok(asked)
}

fn train(lab: &Lab, recipe: &Recipe, corpus: &Corpus, asked: &AtomicBool) -> Result<Run> {
    let mut show = progress::lines(std::io::stderr(), Duration::from_secs(5));
    let mut watch = |tick: &Tick| match asked.load(Ordering::Relaxed) {
        true => ControlFlow::Break(()),
        false => show(tick),
    };
    Ok(lab.run(recipe, corpus, &mut watch)?)
}
