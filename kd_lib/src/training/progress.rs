//! What a run reports while it works. A [`ProgressCallback`] gets a [`Progress`] after each update,
//! evaluation and part of a teacher's logits; it may ask the run to save its state and stop.
//! Progress is printed in whole lines, because a notebook cell shows nothing less.

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

/// Where a run, or a teacher that computes logits, stands.
#[derive(Debug, Clone, Copy)]
pub struct Progress<'a> {
    /// The run's name.
    pub run: &'a str,
    /// Updates made, or texts whose logits were computed.
    pub step: usize,
    /// Updates in all, or texts in all.
    pub total_steps: usize,
    /// Loss of this update; none while a teacher computes logits.
    pub loss: Option<f64>,
    /// Examples per second since the run began or resumed.
    pub examples_per_second: f64,
    /// Time left at that speed.
    pub time_left: Duration,
    /// Scores on dev, if this follows an evaluation.
    pub dev: Option<DevScores>,
}

/// A function that sees progress. [`ControlFlow::Break`] stops the run after its state is saved.
pub type ProgressCallback<'a> = &'a mut dyn FnMut(&Progress) -> ControlFlow<()>;

/// Reports nothing.
pub fn silent(_: &Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A callback that prints at most one line per `interval`, and every evaluation, to `out`.
pub fn print_lines(
    mut out: impl Write,
    interval: Duration,
) -> impl FnMut(&Progress) -> ControlFlow<()> {
    let mut last: Option<Instant> = None;
    move |progress| {
        let recent = last.is_some_and(|printed| printed.elapsed() < interval);
        if progress.dev.is_some() || !recent {
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
        step,
        total_steps,
        examples_per_second,
        ..
    } = progress;
    let work = match progress.loss {
        Some(loss) => format!("step {step}/{total_steps} · loss {loss:.4}"),
        None => format!("logits of {step} of {total_steps} texts computed"),
    };
    let left = clock(progress.time_left);
    let dev = progress.dev.map_or(String::new(), |dev| {
        format!(
            " · dev accuracy {:.4}, macro-F1 {:.4}",
            dev.accuracy, dev.macro_f1
        )
    });
    format!("{run}: {work} · {examples_per_second:.0} examples/s · {left} left{dev}")
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
