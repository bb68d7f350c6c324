//! `kd run --dry-run`: what a recipe would do, and how long it would take by a few updates just made. Nothing is written.

use kd_lib::Result;
use kd_lib::data::Corpus;
use kd_lib::lab::Lab;
use kd_lib::plan::Plan;
use kd_lib::recipe::Recipe;

/// Updates timed to say how long one takes, after one that warms up and is not counted.
const UPDATES: usize = 4;

/// What would happen, in lines that a person reads.
pub fn describe(lab: &Lab, recipe: &Recipe, corpus: &Corpus) -> Result<String> {
    let mut lines = Vec::new();
    for teacher in recipe.teachers() {
        let plan = lab.plan(&teacher, corpus)?;
        // A copy on the shelf of results has no weights, so it cannot teach.
        let state = if lab.is_finished(&plan) { "finished" } else { "not trained yet: it comes first" };
        lines.push(format!("teacher: {} ({state})", plan.id));
    }
    let mut rehearsal = lab.rehearse(recipe, corpus)?;
    rehearsal.update()?;
    let seconds = (0..UPDATES).map(|_| Ok(rehearsal.update()?.0)).sum::<Result<f64>>()? / UPDATES as f64;
    let Plan { id, steps, steps_per_epoch, precision, device, corpus, extras, recipe, .. } = &rehearsal.plan;
    lines.push(format!("run: {id}"));
    lines.push(format!(
        "corpus: {} ({} training texts, {} more to learn from)",
        corpus.name,
        corpus.train.len(),
        extras.len()
    ));
    let millions = rehearsal.parameters() as f64 / 1e6;
    lines.push(format!("model: {millions:.1} M parameters, {precision:?} on {device:?}"));
    let rate = recipe.optimiser.learning_rate;
    lines.push(format!(
        "updates: {steps} ({steps_per_epoch} an epoch, {} of warm-up to {rate:e})",
        rehearsal.plan.warmup()
    ));
    let total = seconds * *steps as f64;
    let total = if total < 100.0 { format!("{total:.0} s") } else { format!("{:.0} min", total / 60.0) };
    let basis = format!(
        "{seconds:.3} s an update, over {UPDATES} just made, beside whatever else runs here; evaluation comes on top"
    );
    lines.push(format!("time: about {total} of training ({basis})"));
    let peak = peak_memory().map_or_else(|| "unknown".into(), |gib| format!("{gib:.2} GiB"));
    lines.push(format!("memory: {peak} at most so far"));
    Ok(lines.join("\n"))
}

/// The process's largest resident memory so far, in GiB.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / (1024.0 * 1024.0))
}
