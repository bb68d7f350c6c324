//! The training loop. Its order is fixed:
//!
//! 1. The gradients of an accumulation group are computed ([`super::gradients`]).
//! 2. They are divided by the loss scale, checked to be finite, and clipped.
//! 3. The optimizer makes its step.
//! 4. If an evaluation is due, the model is evaluated on dev, the best weights are kept and the
//!    state is saved.
//! 5. The number of threads changes if other processes have freed or taken cores.
//! 6. The progress callback says whether to stop. It is also asked between the passes of an update
//!    and the batches of an evaluation.

use super::adversarial::Adversarial;
use super::curve::CurvePoint;
use super::gradients::{StepConfig, StepMetrics, TrainData, interruptible_gradients};
use super::optimizer::{self, AdamW};
use super::progress::{
    Activity, DevScores, Progress, ProgressCallback, TextClock, save_if_stopped,
};
use super::state::TrainState;
use super::{GradScaler, OptimizerConfig};
use crate::data::batch::{epoch_batches, eval_batches};
use crate::evaluation::{self, SplitPass};
use crate::models::{Classifier, ForwardPass, Params};
use crate::objectives::Objective;
use crate::precision::Precision;
use crate::threads::{ThreadChange, ThreadControl, ThreadPolicy};
use crate::{Error, Result};
use std::path::Path;
use std::time::{Duration, Instant};
use tch::Tensor;

/// Points of a curve over a whole run, in addition to those of the evaluations.
const CURVE_POINTS: usize = 200;

/// How many updates are made. [`optimizer::learning_rate`] computes the learning rate of each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Updates of one epoch; the last group of an epoch may be smaller.
    pub steps_per_epoch: usize,
    /// Updates in all.
    pub total_steps: usize,
    /// Updates over which the learning rate rises.
    pub warmup_steps: usize,
}

/// Trains one model: plain values, resolved before training begins.
#[derive(Debug)]
pub struct Trainer<'a> {
    /// Id of the run, for progress and errors.
    pub run_id: &'a str,
    /// The model to train.
    pub model: &'a dyn Classifier,
    /// What it learns from.
    pub data: &'a TrainData,
    /// What is minimised.
    pub objective: &'a dyn Objective,
    /// The objective's own parameters; most have none.
    pub objective_params: &'a Params,
    /// The objective's temperature after the last update, if it changes.
    pub final_temperature: Option<f64>,
    /// Adversarial passes, if any.
    pub adversarial: Option<Adversarial>,
    /// Dtype of matrix products.
    pub precision: Precision,
    /// Decides the order of examples and dropout.
    pub seed: u64,
    /// Examples of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of an update.
    pub gradient_accumulation_steps: usize,
    /// Whether texts of similar length share a batch.
    pub group_by_length: bool,
    /// Evaluate each time this many more examples have been processed.
    pub eval_every_samples: usize,
    /// Whether dev is also evaluated before the first update: the initial weights may be the best.
    pub evaluate_before_training: bool,
    /// Evaluations in a row without a better score after which training ends, if it may end early.
    pub early_stopping_patience: Option<usize>,
    /// How many updates are made.
    pub schedule: Schedule,
    /// The optimizer's settings.
    pub optimizer: OptimizerConfig,
    /// Who decides the number of threads.
    pub threads: ThreadPolicy,
}

/// How training ended. The best weights are in the model.
#[derive(Debug)]
pub struct TrainingOutcome {
    /// Updates made.
    pub steps: usize,
    /// The update whose weights were kept; 0 if the initial weights were.
    pub best_step: usize,
    /// The training curve.
    pub curve: Vec<CurvePoint>,
    /// Seconds of training and evaluation, resumed parts included.
    pub seconds: f64,
    /// The numbers of threads that the run had, by update.
    pub thread_changes: Vec<ThreadChange>,
}

/// The micro-batches of one epoch, in their order, kept until another epoch is asked for.
#[derive(Debug, Default)]
pub(crate) struct EpochBatches {
    /// The epoch that is kept; none yet at the beginning.
    epoch: Option<usize>,
    batches: Vec<Vec<usize>>,
}

/// A training run that is under way: all that changes from update to update.
struct ActiveRun<'a> {
    folder: &'a Path,
    params: Params,
    optimizer: AdamW,
    state: TrainState,
    order: EpochBatches,
    clock: Clock,
    threads: ThreadControl,
}

impl ActiveRun<'_> {
    fn save(&mut self) -> Result<()> {
        self.state.save(&self.params, &self.optimizer, self.folder)
    }

    /// Changes the number of threads if other processes have freed or taken cores. The number
    /// changes rounding, so it changes at a saved state only.
    fn reconsider_threads(&mut self) -> Result<()> {
        if self.threads.reconsider() {
            self.state.record_threads(self.threads.threads());
            self.save()?;
            self.threads.apply();
        }
        Ok(())
    }
}

impl Trainer<'_> {
    /// Trains the model, continuing from the state that `folder` holds. The best weights by dev
    /// macro-F1 are left in the model.
    pub fn train(&self, folder: &Path, callback: ProgressCallback) -> Result<TrainingOutcome> {
        let mut run = self.resume(folder)?;
        while self.has_work_left(&run.state) {
            let (mut loss, mut dev) = (None, None);
            // A run that was stopped in an evaluation begins with it.
            if !run.state.evaluation_due {
                loss = Some(self.train_group(&mut run, callback)?);
            }
            if run.state.evaluation_due {
                dev = Some(self.make_due_evaluation(&mut run, callback)?);
            }
            self.log_point_if_due(&mut run.state, dev);
            run.state.seconds = run.clock.total_seconds();
            if let Some(dev) = dev {
                run.state.keep_best(dev.macro_f1, &run.params);
                run.save()?;
            }
            run.reconsider_threads()?;
            let progress = run.clock.progress(self, &run.state, loss, dev);
            save_if_stopped(progress.send(callback), || run.save())?;
        }
        let ActiveRun { params, state, .. } = run;
        state.restore_best(&params);
        self.refresh_rounded_weights();
        Ok(TrainingOutcome {
            steps: state.step,
            best_step: state.best.map_or(0, |best| best.step),
            curve: state.curve,
            seconds: state.seconds,
            thread_changes: state.thread_changes,
        })
    }

    /// The run from the state that `folder` holds, or a new one.
    fn resume<'f>(&self, folder: &'f Path) -> Result<ActiveRun<'f>> {
        let params = self.trained_params();
        let mut optimizer = AdamW::new(self.optimizer, &params);
        let mut state = TrainState::resume(folder, self.precision, &params, &mut optimizer)?;
        self.refresh_rounded_weights();
        let is_new = state.step == 0 && state.best.is_none();
        state.evaluation_due |= is_new && self.evaluate_before_training;
        let saved_threads = Some(state.threads).filter(|&threads| threads > 0);
        let threads = ThreadControl::start(self.threads, saved_threads);
        state.record_threads(threads.threads());
        Ok(ActiveRun {
            folder,
            params,
            optimizer,
            order: EpochBatches::default(),
            clock: Clock::start(&state),
            state,
            threads,
        })
    }

    /// Makes one update from the next accumulation group. Returns its loss.
    fn train_group(&self, run: &mut ActiveRun, callback: ProgressCallback) -> Result<f64> {
        let step = run.state.step;
        let group = self.accumulation_group(&mut run.order, step);
        let examples: usize = group.iter().map(Vec::len).sum();
        let progress = run.clock.progress(self, &run.state, None, None);
        let mut check_stop = || progress.send(callback);
        let (optimizer, scaler) = (&mut run.optimizer, &mut run.state.scaler);
        let updated = self.update(optimizer, scaler, group, step, &mut check_stop);
        let metrics = save_if_stopped(updated, || run.save())?;
        run.state
            .record_step(examples, metrics, self.eval_every_samples);
        run.state.evaluation_due |= run.state.step == self.schedule.total_steps;
        Ok(metrics.loss)
    }

    /// Makes the evaluation on dev that is due.
    fn make_due_evaluation(
        &self,
        run: &mut ActiveRun,
        callback: ProgressCallback,
    ) -> Result<DevScores> {
        run.state.seconds = run.clock.total_seconds();
        let evaluated = self.evaluate_dev(run.folder, run.state.step, callback);
        let dev = save_if_stopped(evaluated, || run.save())?;
        run.state.evaluation_due = false;
        Ok(dev)
    }

    /// Adds a point to the curve after each evaluation, and at regular updates. Before the first
    /// update there is no loss to log.
    fn log_point_if_due(&self, state: &mut TrainState, dev: Option<DevScores>) {
        let point_due = dev.is_some() || self.curve_point_due(state.step);
        if point_due && state.step > 0 {
            state.log_point(self.learning_rate(state.step - 1), dev);
        }
    }

    /// Whether an update or an evaluation is still to be made.
    fn has_work_left(&self, state: &TrainState) -> bool {
        if state.evaluation_due {
            return true;
        }
        if let Some(patience) = self.early_stopping_patience
            && state.evaluations_since_best() >= patience
        {
            return false;
        }
        state.step < self.schedule.total_steps
    }

    /// The parameters that the optimizer updates: the model's, then the objective's.
    pub fn trained_params(&self) -> Params {
        Params::joined(&[self.model.params(), self.objective_params])
    }

    /// One update, number `step` from 0, from an accumulation group. `check_stop` is called between
    /// its passes; its error ends the update, and nothing has changed. Under fp16 a gradient that
    /// is not finite leaves the weights as they are and halves the loss scale.
    ///
    /// # Errors
    /// [`Error::NotFinite`] if the loss or the gradient is not finite, under fp16 once the loss
    /// scale is below 1; and the error of `check_stop`.
    pub fn update(
        &self,
        optimizer: &mut AdamW,
        scaler: &mut GradScaler,
        group: &[Vec<usize>],
        step: usize,
        check_stop: &mut dyn FnMut() -> Result<()>,
    ) -> Result<StepMetrics> {
        let annealed = self.annealed_objective(step);
        let objective_tensors: Vec<Tensor> = self
            .objective_params
            .iter()
            .map(|param| param.tensor.shallow_clone())
            .collect();
        let config = StepConfig {
            objective: annealed.as_deref().unwrap_or(self.objective),
            objective_parameters: &objective_tensors,
            precision: self.precision,
            adversarial: self.adversarial,
            seed: self.seed,
            step,
            loss_scale: scaler.scale,
        };
        let computed = interruptible_gradients(&config, self.model, self.data, group, check_stop)?;
        let metrics = computed.metrics;
        let mut gradients = optimizer.flatten(computed.gradients);
        optimizer::unscale(&mut gradients, scaler.scale);
        let norm = optimizer::gradient_norm(&gradients);
        let finite = metrics.loss.is_finite() && norm.double_value(&[]).is_finite();
        scaler.update(finite);
        if !finite && (!scaler.dynamic || scaler.scale < 1.0) {
            return Err(self.not_finite_error(metrics, group, step));
        }
        if finite {
            let limit = self.optimizer.max_grad_norm;
            let factor = limit.map(|limit| optimizer::clip_factor(&norm, limit));
            optimizer.step(&gradients, self.learning_rate(step), factor.as_ref());
            self.refresh_rounded_weights();
        }
        Ok(metrics)
    }

    /// Accuracy and macro-F1 on dev after `step` updates. It continues an interrupted evaluation of
    /// this step that `folder` holds.
    pub fn evaluate_dev(
        &self,
        folder: &Path,
        step: usize,
        callback: ProgressCallback,
    ) -> Result<DevScores> {
        let dev = &self.data.dev;
        let pass = SplitPass {
            model: self.model,
            split: dev,
            batches: &eval_batches(
                dev,
                self.batch_size,
                self.group_by_length,
                self.model.params().device(),
            ),
            forward: ForwardPass::evaluation(self.precision),
        };
        let mut clock = TextClock::new(self.run_id, Activity::Evaluating, dev.ids.len());
        let mut check_stop = |done| clock.at(done).send(callback);
        let name = format!("dev-{step:08}");
        let output = pass.resumable_outputs(folder, &name, &mut check_stop)?;
        let scores = evaluation::score(&output.logits, &dev.labels)?;
        Ok(DevScores {
            accuracy: scores.accuracy,
            macro_f1: scores.macro_f1,
        })
    }

    /// The objective of an update if its temperature is annealed: linearly, to the final one.
    fn annealed_objective(&self, step: usize) -> Option<Box<dyn Objective>> {
        let (first, last) = (self.objective.temperature()?, self.final_temperature?);
        let done = step as f64 / self.schedule.total_steps.max(1) as f64;
        self.objective
            .with_temperature(first + (last - first) * done)
    }

    fn learning_rate(&self, step: usize) -> f64 {
        let Schedule {
            warmup_steps,
            total_steps,
            ..
        } = self.schedule;
        optimizer::learning_rate(
            self.optimizer.learning_rate,
            step,
            warmup_steps,
            total_steps,
        )
    }

    /// The micro-batches of update `step`. A group never crosses the end of an epoch: the last one
    /// of each may be smaller.
    pub(crate) fn accumulation_group<'o>(
        &self,
        order: &'o mut EpochBatches,
        step: usize,
    ) -> &'o [Vec<usize>] {
        let epoch = step / self.schedule.steps_per_epoch;
        let within_epoch = step % self.schedule.steps_per_epoch;
        if order.epoch != Some(epoch) {
            order.batches = epoch_batches(
                &self.data.train,
                self.batch_size,
                self.group_by_length,
                self.seed,
                epoch,
            );
            order.epoch = Some(epoch);
        }
        let mut groups = order.batches.chunks(self.gradient_accumulation_steps);
        groups.nth(within_epoch).unwrap_or_default()
    }

    /// Copies the fp32 master weights, rounded to the run's precision, into the 16-bit copies that
    /// the forward pass reads. Skipped with adversarial training: there the first layer
    /// multiplies two parts of its inputs ([`crate::precision::Parts::Two`]) by the same weights, and
    /// the gradients of both must be summed in fp32.
    pub(crate) fn refresh_rounded_weights(&self) {
        if self.adversarial.is_none() {
            self.model.params().round(self.precision);
        }
    }

    fn curve_point_due(&self, step: usize) -> bool {
        step.is_multiple_of(self.schedule.total_steps.div_ceil(CURVE_POINTS))
    }

    fn not_finite_error(&self, metrics: StepMetrics, group: &[Vec<usize>], step: usize) -> Error {
        let labelled = self.data.lines.len();
        let describe = |&row: &usize| match self.data.lines.get(row) {
            Some(line) => format!("line {line}"),
            None => format!("transfer text {}", row - labelled + 1),
        };
        let examples: Vec<String> = group.iter().flatten().map(describe).collect();
        Error::NotFinite {
            step: step + 1,
            what: if metrics.loss.is_finite() {
                "gradient"
            } else {
                "loss"
            },
            learning_rate: self.learning_rate(step),
            examples: examples.join(", "),
            fix: "lower the learning rate, set optimizer.max_grad_norm, or look at these lines \
                  (under fp16: train in bf16); the last saved state is kept",
        }
    }
}

/// Measures a run's time over interruptions.
struct Clock {
    started: Instant,
    seconds_before: f64,
    examples_before: usize,
}

impl Clock {
    fn start(state: &TrainState) -> Clock {
        Clock {
            started: Instant::now(),
            seconds_before: state.seconds,
            examples_before: state.examples,
        }
    }

    fn total_seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    fn progress<'p>(
        &self,
        trainer: &'p Trainer,
        state: &TrainState,
        loss: Option<f64>,
        dev: Option<DevScores>,
    ) -> Progress<'p> {
        let elapsed = self.started.elapsed().as_secs_f64();
        let examples_per_second = (state.examples - self.examples_before) as f64 / elapsed;
        let steps_left = (trainer.schedule.total_steps - state.step) as f64;
        let examples_left = steps_left * state.examples as f64 / state.step as f64;
        let seconds_left = examples_left / examples_per_second;
        Progress {
            done: state.step,
            total: trainer.schedule.total_steps,
            loss,
            examples_per_second,
            // Not known yet (NaN or infinite): zero.
            time_left: Duration::try_from_secs_f64(seconds_left).unwrap_or_default(),
            dev,
            ..Progress::begin(trainer.run_id, Activity::Training)
        }
    }
}
