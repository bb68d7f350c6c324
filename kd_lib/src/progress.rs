//! What a training run says while it runs: one [`Tick`] an update, and a watcher that prints a whole line now and
//! then. Whole lines, since a notebook cell shows nothing less. A watcher may answer that it is enough: the run then saves
//! where it is and stops.

use std::io::Write;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// The state of a run after one update or one evaluation, or of a teacher that answers texts.
#[derive(Debug, Clone, Copy)]
pub struct Tick<'a> {
    /// The run's name.
    pub run: &'a str,
    /// Updates made, or texts answered.
    pub step: usize,
    /// Updates planned, or texts to answer.
    pub steps: usize,
    /// Loss of this update; none where a teacher answers.
    pub loss: Option<f64>,
    /// Examples a second since the run began or resumed.
    pub speed: f64,
    /// Time left at that speed.
    pub left: Duration,
    /// Accuracy and macro-F1 on dev, where this tick follows an evaluation.
    pub dev: Option<[f64; 2]>,
}

/// Something that looks at ticks.
pub type Watch<'a> = &'a mut dyn FnMut(&Tick) -> ControlFlow<()>;

/// Looks at nothing.
pub fn silent(_: &Tick) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A watcher that prints to `out` at most one line in `every`, and every evaluation.
pub fn lines(mut out: impl Write, every: Duration) -> impl FnMut(&Tick) -> ControlFlow<()> {
    let mut last: Option<Instant> = None;
    move |tick| {
        if tick.dev.is_none() && last.is_some_and(|t| t.elapsed() < every) {
            return ControlFlow::Continue(());
        }
        last = Some(Instant::now());
        let dev = |[accuracy, f1]: [f64; 2]| format!(" · dev accuracy {accuracy:.4}, macro-F1 {f1:.4}");
        let dev = tick.dev.map_or(String::new(), dev);
        let Tick { run, step, steps, loss, speed, .. } = tick;
        let answered = || format!("{step} of {steps} texts answered");
        let doing = loss.map_or_else(answered, |loss| format!("step {step}/{steps} · loss {loss:.4}"));
        let left = tick.left.as_secs();
        let hours = if left < 3600 { String::new() } else { format!("{}:", left / 3600) };
        // A closed pipe must not end a training run.
        let (minutes, seconds) = (left / 60 % 60, left % 60);
        let _ = writeln!(out, "{run}: {doing} · {speed:.0} examples/s · {hours}{minutes:02}:{seconds:02} left{dev}");
        ControlFlow::Continue(())
    }
}
