//! Times updates of a recipe on real texts and writes nothing. Dry runs and comparisons of costs
//! use it.

use super::model_factory::{build_objective_params, build_trainer};
use super::planned_run::PlannedRun;
use crate::Result;
use crate::data::Batch;
use crate::models::layers::Mode;
use crate::models::{Classifier, Params};
use crate::training::trainer::EpochBatches;
use crate::training::{AdamW, GradScaler, TrainData, Trainer};
use std::time::Instant;
use tch::Device;

/// Passes of which the median counts as the time for one text.
const TIMED_PASSES: usize = 21;

/// A recipe with its model, ready to make updates.
#[derive(Debug)]
pub struct StepTimer {
    /// The resolved recipe.
    pub plan: PlannedRun,
    model: Box<dyn Classifier>,
    data: TrainData,
    objective_params: Params,
    optimizer: AdamW,
    /// The loss scale after the updates made.
    pub scaler: GradScaler,
    step: usize,
}

/// The duration of one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepTime {
    /// Seconds.
    pub seconds: f64,
    /// What the update processed.
    pub size: StepSize,
}

/// The texts of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepSize {
    /// Number of texts.
    pub texts: usize,
    /// Their tokens, padding included.
    pub padded_tokens: usize,
}

impl StepTimer {
    pub(crate) fn new(
        plan: PlannedRun,
        model: Box<dyn Classifier>,
        data: TrainData,
    ) -> Result<StepTimer> {
        let objective_params = build_objective_params(&plan, model.as_ref(), &data)?;
        let trainer = build_trainer(&plan, model.as_ref(), &data, &objective_params)?;
        trainer.refresh_rounded_weights();
        let optimizer = AdamW::new(plan.recipe.optimizer, &trainer.trained_params());
        let scaler = GradScaler::new(plan.precision);
        Ok(StepTimer {
            plan,
            model,
            data,
            objective_params,
            optimizer,
            scaler,
            step: 0,
        })
    }

    /// Makes the next update of the first epoch, at the scheduled learning rate.
    pub fn time_step(&mut self) -> Result<StepTime> {
        let trainer = build_trainer(
            &self.plan,
            self.model.as_ref(),
            &self.data,
            &self.objective_params,
        )?;
        let mut order = EpochBatches::default();
        let step = self.step % self.plan.schedule.steps_per_epoch;
        let group = trainer.accumulation_group(&mut order, step).to_vec();
        let start = Instant::now();
        let (optimizer, scaler) = (&mut self.optimizer, &mut self.scaler);
        trainer.update(optimizer, scaler, &group, step, &mut || Ok(()))?;
        self.step += 1;
        Ok(StepTime {
            seconds: start.elapsed().as_secs_f64(),
            size: self.size(&group),
        })
    }

    /// The updates of the first epoch together. An update's time follows its padded tokens, so a
    /// few timed updates tell the epoch's.
    pub fn epoch_size(&self) -> Result<StepSize> {
        let trainer = self.trainer()?;
        let mut order = EpochBatches::default();
        let mut epoch = StepSize::default();
        for step in 0..self.plan.schedule.steps_per_epoch {
            let size = self.size(trainer.accumulation_group(&mut order, step));
            epoch.texts += size.texts;
            epoch.padded_tokens += size.padded_tokens;
        }
        Ok(epoch)
    }

    /// Seconds that the model takes to classify the longest training text alone: the median of some
    /// passes.
    pub fn time_one_text(&self) -> f64 {
        let length = |row: &usize| self.data.train.ids[*row].len();
        let longest = (0..self.data.train.ids.len()).max_by_key(length);
        let rows: Vec<usize> = longest.into_iter().collect();
        let device = self.model.params().device();
        let batch = Batch::collate(&self.data.train, &rows, device);
        let _guard = tch::no_grad_guard();
        let mut seconds: Vec<f64> = (0..TIMED_PASSES)
            .map(|_| {
                let start = Instant::now();
                let logits = self.model.logits(&batch, Mode::Eval, self.plan.precision);
                let _ = logits.to_device(Device::Cpu);
                start.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_unstable_by(f64::total_cmp);
        seconds[TIMED_PASSES / 2]
    }

    fn trainer(&self) -> Result<Trainer<'_>> {
        build_trainer(
            &self.plan,
            self.model.as_ref(),
            &self.data,
            &self.objective_params,
        )
    }

    fn size(&self, group: &[Vec<usize>]) -> StepSize {
        let mut size = StepSize::default();
        for rows in group {
            let lengths = rows.iter().map(|&row| self.data.train.ids[row].len());
            size.texts += rows.len();
            size.padded_tokens += rows.len() * lengths.max().unwrap_or(0);
        }
        size
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        self.model.params().count()
    }
}
