//! A recipe tried out: a few updates on real texts, timed, with nothing written. What a dry run and a comparison of
//! costs are made from.

use crate::Result;
use crate::models::Classifier;
use crate::optim::AdamW;
use crate::plan::Plan;
use crate::strategies::LossScale;
use crate::train;
use crate::update::Material;
use std::time::Instant;

/// A recipe with its model, ready to make updates.
#[derive(Debug)]
pub struct Rehearsal {
    /// What would happen.
    pub plan: Plan,
    model: Box<dyn Classifier>,
    optimiser: AdamW,
    material: Material,
    scale: LossScale,
    made: usize,
}

impl Rehearsal {
    pub(crate) fn new(plan: Plan, model: Box<dyn Classifier>, material: Material) -> Rehearsal {
        let optimiser = AdamW::new(plan.recipe.optimiser, model.params());
        Rehearsal { scale: LossScale::of(plan.precision), plan, model, optimiser, material, made: 0 }
    }

    /// Makes the next update of the first epoch; returns its seconds and the texts that it learned from.
    pub fn update(&mut self) -> Result<(f64, usize)> {
        let mut order = (usize::MAX, Vec::new());
        let step = self.made % self.plan.steps_per_epoch;
        let window = train::window(&self.plan, &self.material.train, &mut order, step);
        let (place, rate) = (self.made, self.plan.recipe.optimiser.learning_rate);
        let start = Instant::now();
        let model = self.model.as_ref();
        train::update(&self.plan, model, &mut self.optimiser, &self.material, window, (place, rate), &mut self.scale)?;
        self.made += 1;
        Ok((start.elapsed().as_secs_f64(), window.iter().map(Vec::len).sum()))
    }

    /// The loss scale after the updates made.
    pub fn scale(&self) -> LossScale {
        self.scale
    }

    /// What would happen, in lines that a person reads; makes `updates` updates to say how long it would take.
    pub fn describe(&mut self, updates: usize) -> Result<String> {
        let seconds = (0..updates).map(|_| Ok(self.update()?.0)).sum::<Result<f64>>()? / updates.max(1) as f64;
        let Plan { id, steps, steps_per_epoch, warmup, precision, device, corpus, recipe, .. } = &self.plan;
        let (millions, texts) = (self.model.params().count() as f64 / 1e6, corpus.train.len());
        let minutes = seconds * *steps as f64 / 60.0;
        let peak = peak_memory().map_or_else(|| "unknown".into(), |gib| format!("{gib:.2} GiB"));
        let rate = recipe.optimiser.learning_rate;
        Ok(format!(
            "run: {id}\ncorpus: {} ({texts} training texts)\nmodel: {millions:.1} M parameters, {precision:?} on {device:?}\nupdates: {steps} ({steps_per_epoch} an epoch, {warmup} of warm-up to {rate:e})\ntime: about {minutes:.0} min of training ({seconds:.3} s an update, over {updates} just made; evaluation comes on top)\nmemory: {peak} at most so far",
            corpus.name
        ))
    }
}

/// The process's largest resident memory so far, in GiB.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<f64>().ok()? / (1024.0 * 1024.0))
}
