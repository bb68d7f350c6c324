//! A recipe tried out: a few updates on real texts, timed, with nothing written. What a dry run and a comparison of
//! costs are made from; neither is made here.

use crate::models::Classifier;
use crate::optim::AdamW;
use crate::plan::Plan;
use crate::strategies::LossScale;
use crate::update::Material;
use crate::{Result, train};
use std::time::Instant;

/// A recipe with its model, ready to make updates.
#[derive(Debug)]
pub struct Rehearsal {
    /// What would happen.
    pub plan: Plan,
    model: Box<dyn Classifier>,
    optimiser: AdamW,
    material: Material,
    /// The loss scale after the updates made.
    pub scale: LossScale,
    made: usize,
}

impl Rehearsal {
    pub(crate) fn new(plan: Plan, model: Box<dyn Classifier>, material: Material) -> Rehearsal {
        let optimiser = AdamW::new(plan.recipe.optimiser, model.params());
        train::round(&plan, model.as_ref());
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

    /// Number of trained scalars.
    pub fn parameters(&self) -> usize {
        self.model.params().count()
    }
}
