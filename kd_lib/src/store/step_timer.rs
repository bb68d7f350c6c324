//! Times updates of a recipe on real texts and writes nothing. Dry runs and comparisons of costs
//! use it.

use super::model_factory::{
    build_data, build_objective_params, build_random_model, build_tokenizer, build_trainer,
};
use super::planned_run::PlannedRun;
use super::recipe::Recipe;
use super::run_store::RunStore;
use crate::Result;
use crate::data::{Batch, Corpus};
use crate::models::layers::Mode;
use crate::models::{Classifier, Params, hidden_width};
use crate::training::trainer::EpochBatches;
use crate::training::{AdamW, GradScaler, PooledStates, TrainData, Trainer, progress};
use std::time::Instant;
use tch::{Device, Kind, Tensor};

/// Passes of which the median counts as the time for one text.
const TIMED_PASSES: usize = 21;

/// A recipe with its model, ready to make updates.
#[derive(Debug)]
pub struct StepTimer {
    /// The resolved recipe.
    pub planned: PlannedRun,
    model: Box<dyn Classifier>,
    data: TrainData,
    objective_params: Params,
    optimizer: AdamW,
    /// The loss scale after the updates made.
    pub scaler: GradScaler,
    step: usize,
    epoch_batches: EpochBatches,
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

impl RunStore {
    /// A timer of a recipe's updates. Nothing is written. The teacher's logits are zeros, which
    /// cost the same.
    pub fn step_timer(&self, recipe: &Recipe, corpus: &Corpus) -> Result<StepTimer> {
        let planned = self.plan(recipe, corpus)?;
        let tokenizer = build_tokenizer(&planned)?;
        let mut data = build_data(&planned, &tokenizer, &[], &mut progress::silent)?;
        if recipe.teacher.is_some() {
            let size = [data.train.ids.len() as i64, corpus.labels.len() as i64];
            data.teacher_logits = Some(Tensor::zeros(size, (Kind::Float, Device::Cpu)));
            data.teacher_hidden = self.zero_teacher_states(recipe, corpus)?;
        }
        let built = build_random_model(&planned, &tokenizer)?;
        StepTimer::new(planned, built.model, data)
    }

    /// Zeros for the teacher's pooled states that an objective names, for timing.
    fn zero_teacher_states(&self, recipe: &Recipe, corpus: &Corpus) -> Result<Vec<PooledStates>> {
        let layers = recipe.objective.objective()?.hidden_layers().teacher;
        let Some(teacher) = recipe
            .teachers()
            .into_iter()
            .next()
            .filter(|_| !layers.is_empty())
        else {
            return Ok(Vec::new());
        };
        let planned = self.plan(&teacher, corpus)?;
        let tokenizer = build_tokenizer(&planned)?;
        let built = build_random_model(&planned, &tokenizer)?;
        let mut states = Vec::new();
        for layer in layers {
            let width = hidden_width(built.model.as_ref(), layer, "the teacher")?;
            states.push(PooledStates::zeros(width as usize));
        }
        Ok(states)
    }
}

impl StepTimer {
    pub(crate) fn new(
        planned: PlannedRun,
        model: Box<dyn Classifier>,
        data: TrainData,
    ) -> Result<StepTimer> {
        let objective_params = build_objective_params(&planned, model.as_ref(), &data)?;
        let trainer = build_trainer(&planned, model.as_ref(), &data, &objective_params)?;
        trainer.refresh_rounded_weights();
        let optimizer = AdamW::new(planned.recipe.optimizer, &trainer.trained_params());
        let scaler = GradScaler::new(planned.precision);
        Ok(StepTimer {
            planned,
            model,
            data,
            objective_params,
            optimizer,
            scaler,
            step: 0,
            epoch_batches: EpochBatches::default(),
        })
    }

    /// Makes the next update of the first epoch, at the scheduled learning rate.
    pub fn time_step(&mut self) -> Result<StepTime> {
        let trainer = build_trainer(
            &self.planned,
            self.model.as_ref(),
            &self.data,
            &self.objective_params,
        )?;
        let step = self.step % self.planned.schedule.steps_per_epoch;
        let group = trainer.accumulation_group(&mut self.epoch_batches, step);
        let start = Instant::now();
        let (optimizer, scaler) = (&mut self.optimizer, &mut self.scaler);
        trainer.update(optimizer, scaler, group, step, &mut || Ok(()))?;
        let seconds = start.elapsed().as_secs_f64();
        let size = group_size(&self.data, group);
        self.step += 1;
        Ok(StepTime { seconds, size })
    }

    /// Classifies the texts of the next update of the first epoch, without gradients.
    pub fn time_forward(&mut self) -> Result<StepTime> {
        let trainer = build_trainer(
            &self.planned,
            self.model.as_ref(),
            &self.data,
            &self.objective_params,
        )?;
        let step = self.step % self.planned.schedule.steps_per_epoch;
        let group = trainer.accumulation_group(&mut self.epoch_batches, step);
        let (size, group) = (group_size(&self.data, group), group.to_vec());
        let start = Instant::now();
        for rows in &group {
            self.pass(rows);
        }
        let seconds = start.elapsed().as_secs_f64();
        self.step += 1;
        Ok(StepTime { seconds, size })
    }

    /// The updates of the first epoch together. An update's time follows its padded tokens, so a
    /// few timed updates tell the epoch's.
    pub fn epoch_size(&self) -> Result<StepSize> {
        let trainer = self.trainer()?;
        let mut order = EpochBatches::default();
        let mut epoch = StepSize::default();
        for step in 0..self.planned.schedule.steps_per_epoch {
            let size = group_size(&self.data, trainer.accumulation_group(&mut order, step));
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
        let mut seconds: Vec<f64> = (0..TIMED_PASSES)
            .map(|_| {
                let start = Instant::now();
                self.pass(&rows);
                start.elapsed().as_secs_f64()
            })
            .collect();
        seconds.sort_unstable_by(f64::total_cmp);
        seconds[TIMED_PASSES / 2]
    }

    /// Classifies training texts, and waits for the result.
    fn pass(&self, rows: &[usize]) {
        let device = self.model.params().device();
        let batch = Batch::collate(&self.data.train, rows, device);
        let _guard = tch::no_grad_guard();
        let (mode, precision) = (Mode::Eval, self.planned.precision);
        let logits = self.model.logits(&batch, mode, precision);
        let _ = logits.to_device(Device::Cpu);
    }

    fn trainer(&self) -> Result<Trainer<'_>> {
        build_trainer(
            &self.planned,
            self.model.as_ref(),
            &self.data,
            &self.objective_params,
        )
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        self.model.params().count()
    }
}

/// The texts of an accumulation group.
fn group_size(data: &TrainData, group: &[Vec<usize>]) -> StepSize {
    let mut size = StepSize::default();
    for rows in group {
        let lengths = rows.iter().map(|&row| data.train.ids[row].len());
        size.texts += rows.len();
        size.padded_tokens += rows.len() * lengths.max().unwrap_or(0);
    }
    size
}
