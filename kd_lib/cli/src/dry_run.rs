//! `kd train --dry-run`: what a recipe would do, and how long it would take by a few updates that
//! are timed. Nothing is written.

use kd_lib::Result;
use kd_lib::data::Corpus;
use kd_lib::store::{PlannedRun, Recipe, RunStore};

/// Updates that are timed, after one that warms up and is not counted.
const UPDATES: usize = 4;

/// What would happen, in lines for a person.
pub fn describe(store: &RunStore, recipe: &Recipe, corpus: &Corpus) -> Result<String> {
    let mut lines = Vec::new();
    for teacher in recipe.teachers() {
        let planned = store.plan(&teacher, corpus)?;
        // A stored result has no weights, so it cannot teach.
        let state = if store.is_finished(&planned) {
            "finished"
        } else {
            "not trained yet: it is trained first"
        };
        lines.push(format!("teacher: {} ({state})", planned.id));
    }
    let mut timer = store.step_timer(recipe, corpus)?;
    timer.time_step()?;
    let mut seconds = 0.0;
    for _ in 0..UPDATES {
        seconds += timer.time_step()?.seconds / UPDATES as f64;
    }
    let PlannedRun {
        id,
        schedule,
        precision,
        device,
        corpus,
        transfer_set,
        recipe,
        notices,
        ..
    } = &timer.planned;
    lines.extend(notices.iter().map(|notice| format!("note: {notice}")));
    let state = if store.is_finished(&timer.planned) {
        " (finished)"
    } else {
        ""
    };
    lines.push(format!("run: {id}{state}"));
    lines.push(format!(
        "corpus: {} ({} training texts, {} texts in the transfer set)",
        corpus.name,
        corpus.train.len(),
        transfer_set.len()
    ));
    let millions = timer.parameters() as f64 / 1e6;
    lines.push(format!(
        "model: {millions:.1} M parameters, {precision:?} on {device:?}"
    ));
    lines.push(format!(
        "updates: {} ({} per epoch, {} of warmup to {:e})",
        schedule.total_steps,
        schedule.steps_per_epoch,
        schedule.warmup_steps,
        recipe.optimizer.learning_rate
    ));
    let total = seconds * schedule.total_steps as f64;
    let total = if total < 100.0 {
        format!("{total:.0} s")
    } else {
        format!("{:.0} min", total / 60.0)
    };
    lines.push(format!(
        "time: about {total} of training ({seconds:.3} s an update, the mean of {UPDATES} just \
         made, with whatever else runs here); evaluation is not included"
    ));
    let peak = peak_memory().map_or_else(|| "unknown".into(), |gib| format!("{gib:.2} GiB"));
    lines.push(format!("memory: {peak} at most so far"));
    Ok(lines.join("\n"))
}

/// The process's largest resident memory so far, in GiB.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / (1024.0 * 1024.0))
}
