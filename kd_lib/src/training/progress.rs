//! What a run reports while it works. A [`ProgressCallback`] gets a [`Progress`] after each update,
//! between the passes of an update, after each batch of an evaluation, and during the wait for
//! another process. The callback may ask the run to save what it has and stop. Progress is printed
//! in whole lines, because a notebook cell displays only complete lines.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// Scores on dev.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct DevScores {
    /// Accuracy.
    pub accuracy: f64,
    /// Macro-F1, which chooses the best weights.
    pub macro_f1: f64,
}

/// What a run, or a teacher that computes logits, is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Waits for another process that works in the same folder.
    Waiting,
    /// Reads and tokenizes texts, and builds the model. Nothing is lost if the process ends before
    /// the next report.
    Preparing,
    /// A teacher computes logits; counts texts.
    TeacherLogits,
    /// Trains; counts updates.
    Training,
    /// Evaluates the weights on dev; counts texts.
    Evaluating,
    /// Scores the best weights on dev and test; counts texts.
    Scoring,
    /// Reads texts with a pretrained model, for a linear probe; counts texts.
    Probing,
    /// Reads texts with a finished model, for a report; counts texts.
    Reporting,
}

/// Where a run, or a teacher that computes logits, stands.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The run's id; in a distillation, its place in the plan and the id.
    pub run: &'a str,
    /// What it is doing.
    pub activity: Activity,
    /// Updates or texts, as the activity says, that are done.
    pub done: usize,
    /// Updates or texts of this activity in all.
    pub total: usize,
    /// Loss of the update that has just been made.
    pub loss: Option<f64>,
    /// Examples per second since the activity began or resumed.
    pub examples_per_second: f64,
    /// Time left at that speed.
    pub time_left: Duration,
    /// Scores on dev, if this follows an evaluation.
    pub dev: Option<DevScores>,
}

/// A function that sees progress. [`ControlFlow::Break`] stops the run after its state is saved.
pub type ProgressCallback<'a> = &'a mut dyn FnMut(&Progress) -> ControlFlow<()>;

impl<'a> Progress<'a> {
    /// The beginning of an activity whose length is not known.
    pub fn begin(run: &'a str, activity: Activity) -> Progress<'a> {
        Progress {
            run,
            activity,
            done: 0,
            total: 0,
            loss: None,
            examples_per_second: 0.0,
            time_left: Duration::ZERO,
            dev: None,
        }
    }

    /// Gives this to the callback.
    ///
    /// # Errors
    /// [`Error::Stopped`] if it asks the run to stop.
    pub fn send(&self, callback: ProgressCallback) -> Result<()> {
        if callback(self).is_continue() {
            return Ok(());
        }
        let Progress { done, total, .. } = self;
        let place = match self.activity {
            Activity::Waiting => "in the wait for another process".to_owned(),
            Activity::Preparing => "before its first step".to_owned(),
            Activity::TeacherLogits => format!("at {done} of {total} texts' logits"),
            Activity::Training => format!("at {done} of {total} updates"),
            Activity::Evaluating => format!("in an evaluation, at {done} of {total} texts"),
            Activity::Scoring => format!("in the final scoring, at {done} of {total} texts"),
            Activity::Probing => format!("at the linear probe, {done} of {total} texts read"),
            Activity::Reporting => format!("in the report, at {done} of {total} texts"),
        };
        Err(Error::Stopped {
            run: self.run.to_owned(),
            place,
        })
    }
}

/// Measures the speed of an activity that counts texts.
#[derive(Debug)]
pub struct TextClock<'a> {
    run: &'a str,
    activity: Activity,
    total: usize,
    /// Texts that were done before, and when counting began.
    start: Option<(usize, Instant)>,
}

impl<'a> TextClock<'a> {
    /// A clock for `total` texts. It starts with the first call of [`TextClock::at`].
    pub fn new(run: &'a str, activity: Activity, total: usize) -> TextClock<'a> {
        TextClock {
            run,
            activity,
            total,
            start: None,
        }
    }

    /// Progress when `done` texts are done.
    pub fn at(&mut self, done: usize) -> Progress<'a> {
        let (before, started) = *self.start.get_or_insert_with(|| (done, Instant::now()));
        let speed = (done - before) as f64 / started.elapsed().as_secs_f64();
        let left = (self.total - done) as f64 / speed;
        Progress {
            done,
            total: self.total,
            examples_per_second: speed,
            // Not known yet (NaN or infinite): zero.
            time_left: Duration::try_from_secs_f64(left).unwrap_or_default(),
            ..Progress::begin(self.run, self.activity)
        }
    }
}

/// Passes a result on. If it says that the run was stopped, `save` is called first.
pub fn save_if_stopped<T>(result: Result<T>, save: impl FnOnce() -> Result<()>) -> Result<T> {
    if let Err(Error::Stopped { .. }) = &result {
        save()?;
    }
    result
}

/// Reports nothing.
pub fn silent(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A callback that prints at most one line per `interval` to `out`, and besides every evaluation's
/// scores and the beginning of every wait. The first line of a training waits for the end of an
/// update, so that it has a loss, but not longer than `interval`.
pub fn print_lines(
    mut out: impl Write,
    interval: Duration,
) -> impl FnMut(&Progress) -> ControlFlow<()> {
    let begun = Instant::now();
    let mut last: Option<Instant> = None;
    let mut waiting = false;
    move |progress| {
        let within_update = progress.activity == Activity::Training && progress.loss.is_none();
        let since = last.or(within_update.then_some(begun));
        let recent = since.is_some_and(|time| time.elapsed() < interval);
        let begins_to_wait = progress.activity == Activity::Waiting && !waiting;
        waiting = progress.activity == Activity::Waiting;
        if progress.activity == Activity::Preparing {
            return ControlFlow::Continue(());
        }
        if progress.dev.is_some() || begins_to_wait || !recent {
            last = Some(Instant::now());
            // A closed pipe must not end a training run.
            let _ = writeln!(out, "{}", line(progress));
        }
        ControlFlow::Continue(())
    }
}

fn line(progress: &Progress) -> String {
    let Progress {
        run,
        done,
        total,
        examples_per_second,
        ..
    } = progress;
    let work = match (progress.activity, progress.loss) {
        (Activity::Waiting, _) => return format!("{run}: waits for another process to finish it"),
        (Activity::Preparing, _) => return format!("{run}: prepares texts and model"),
        (Activity::TeacherLogits, _) => format!("logits of {done} of {total} texts computed"),
        (Activity::Evaluating, _) => format!("dev: {done} of {total} texts evaluated"),
        (Activity::Scoring, _) => format!("dev and test: {done} of {total} texts scored"),
        (Activity::Probing, _) => format!("for the linear probe: {done} of {total} texts read"),
        (Activity::Reporting, _) => format!("for the report: {done} of {total} texts read"),
        (Activity::Training, None) => format!("step {done}/{total}"),
        (Activity::Training, Some(loss)) => format!("step {done}/{total} · loss {loss:.4}"),
    };
    let speed = if *examples_per_second > 0.0 {
        format!(
            " · {examples_per_second:.0} examples/s · {} left",
            clock(progress.time_left)
        )
    } else {
        String::new()
    };
    let dev = progress.dev.map_or(String::new(), |dev| {
        format!(
            " · dev accuracy {:.4}, macro-F1 {:.4}",
            dev.accuracy, dev.macro_f1
        )
    });
    format!("{run}: {work}{speed}{dev}")
}

/// A duration as `mm:ss`, or `h:mm:ss` from an hour on.
fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours == 0 {
        format!("{minutes:02}:{seconds:02}")
    } else {
        format!("{hours}:{minutes:02}:{seconds:02}")
    }
}
