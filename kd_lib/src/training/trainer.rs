//! The training loop. Its order is fixed: the gradients of an accumulation group
//! ([`super::gradients`]); then unscale → finite? → clip → step; then evaluate on dev if that is
//! due, keep the best weights, save the state; then ask the progress callback whether to stop. The
//! callback is also asked between the passes of an update and the batches of an evaluation.

use super::adversarial::Adversarial;
use super::curve::CurvePoint;
use super::gradients::{StepConfig, StepMetrics, TrainData, interruptible_gradients};
use super::optimizer::{self, AdamW};
use super::progress::{DevScores, Progress, ProgressCallback, Stage, TextClock, save_if_stopped};
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

/// Points of a curve over a whole run, beside those of the evaluations.
const CURVE_POINTS: usize = 200;

/// How many updates there are, and which learning rate each has.
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
    pub run: &'a str,
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
    /// Evaluations in a row without a better score after which training ends, if it may end early.
    pub early_stopping_patience: Option<usize>,
    /// Number of updates and learning rates.
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
    /// The update whose weights were kept.
    pub best_step: usize,
    /// The training curve.
    pub curve: Vec<CurvePoint>,
    /// Seconds of training and evaluation, resumed parts included.
    pub seconds: f64,
    /// The numbers of threads that the run had, by update.
    pub thread_changes: Vec<ThreadChange>,
}

/// The micro-batches of one epoch, in their order.
#[derive(Debug, Default)]
pub(crate) struct EpochOrder {
    epoch: Option<usize>,
    batches: Vec<Vec<usize>>,
}

impl Trainer<'_> {
    /// Trains the model, continuing from the state that `folder` holds. The best weights by dev
    /// macro-F1 are left in the model.
    pub fn train(&self, folder: &Path, progress: ProgressCallback) -> Result<TrainingOutcome> {
        let params = self.trained_params();
        let mut optimizer = AdamW::new(self.optimizer, &params);
        let mut state = TrainState::resume(folder, self.precision, &params, &mut optimizer)?;
        self.refresh_rounded_weights();
        let saved_threads = Some(state.threads).filter(|&threads| threads > 0);
        let mut threads = ThreadControl::start(self.threads, saved_threads);
        state.record_threads(threads.threads());
        let mut clock = Clock::start(&state);
        let mut order = EpochOrder::default();
        while self.continues(&state) {
            let mut loss = None;
            // A run that was stopped in an evaluation begins with it.
            if !state.evaluation_due {
                let group = self.accumulation_group(&mut order, state.step);
                let before = clock.progress(self, &state, None, None);
                let mut poll = || before.report(progress);
                let scaler = &mut state.scaler;
                let updated = self.update(&mut optimizer, scaler, group, before.done, &mut poll);
                let save = || state.save(&params, &optimizer, folder);
                let metrics = save_if_stopped(updated, save)?;
                let rows: usize = group.iter().map(Vec::len).sum();
                state.record_step(rows, metrics, self.eval_every_samples);
                state.evaluation_due |= state.step == self.schedule.total_steps;
                loss = Some(metrics.loss);
            }

            let mut dev = None;
            if state.evaluation_due {
                state.seconds = clock.total_seconds();
                let evaluated = self.evaluate_dev(folder, state.step, progress);
                let save = || state.save(&params, &optimizer, folder);
                dev = Some(save_if_stopped(evaluated, save)?);
                state.evaluation_due = false;
            }
            if dev.is_some() || self.curve_point_due(state.step) {
                state.log_point(self.learning_rate(state.step - 1), dev);
            }
            state.seconds = clock.total_seconds();
            if let Some(dev) = dev {
                state.keep_best(dev.macro_f1, &params);
                state.save(&params, &optimizer, folder)?;
            }
            // Other threads give other bits, so the number changes at a saved state only.
            if threads.reconsider() {
                state.record_threads(threads.threads());
                state.save(&params, &optimizer, folder)?;
                threads.apply();
            }
            let report = clock.progress(self, &state, loss, dev);
            let save = || state.save(&params, &optimizer, folder);
            save_if_stopped(report.report(progress), save)?;
        }
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

    /// Whether an update or an evaluation is still to be made.
    fn continues(&self, state: &TrainState) -> bool {
        let patience = self.early_stopping_patience.unwrap_or(usize::MAX);
        let flat = state.evaluations_since_best() >= patience;
        state.evaluation_due || (state.step < self.schedule.total_steps && !flat)
    }

    /// The parameters that the optimizer updates: the model's, then the objective's.
    pub fn trained_params(&self) -> Params {
        Params::joined(&[self.model.params(), self.objective_params])
    }

    /// One update, number `step` from 0, from an accumulation group. `between_passes` is called
    /// between its passes; its error ends the update, and nothing has changed.
    pub fn update(
        &self,
        optimizer: &mut AdamW,
        scaler: &mut GradScaler,
        group: &[Vec<usize>],
        step: usize,
        between_passes: &mut dyn FnMut() -> Result<()>,
    ) -> Result<StepMetrics> {
        let annealed = self.objective_at(step);
        let of_objective = self.objective_params.iter();
        let objective_parameters: Vec<Tensor> =
            of_objective.map(|p| p.tensor.shallow_clone()).collect();
        let config = StepConfig {
            objective: annealed.as_deref().unwrap_or(self.objective),
            objective_parameters: &objective_parameters,
            precision: self.precision,
            adversarial: self.adversarial,
            seed: self.seed,
            step,
            loss_scale: scaler.scale,
        };
        let computed =
            interruptible_gradients(&config, self.model, self.data, group, between_passes)?;
        let metrics = computed.metrics;
        let mut gradients = optimizer.flatten(computed.gradients);
        optimizer::unscale(&mut gradients, scaler.scale);
        let norm = optimizer::gradient_norm(&gradients);
        let finite = metrics.loss.is_finite() && norm.double_value(&[]).is_finite();
        scaler.update(finite);
        if !finite && (!scaler.dynamic || scaler.scale < 1.0) {
            return Err(self.not_finite(metrics, group, step));
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
        progress: ProgressCallback,
    ) -> Result<DevScores> {
        let dev = &self.data.dev;
        let pass = SplitPass {
            model: self.model,
            split: dev,
            batches: &eval_batches(dev, self.batch_size, self.group_by_length),
            pass: ForwardPass::evaluation(self.precision),
        };
        let mut clock = TextClock::new(self.run, Stage::Evaluating, dev.ids.len());
        let mut after_batch = |done| clock.at(done).report(progress);
        let name = format!("dev-{step:08}");
        let output = pass.resumable_outputs(folder, &name, &mut after_batch)?;
        let scores = evaluation::score(&output.logits, &dev.labels)?;
        Ok(DevScores {
            accuracy: scores.accuracy,
            macro_f1: scores.macro_f1,
        })
    }

    /// The objective of an update if its temperature is annealed: linearly, to the final one.
    fn objective_at(&self, step: usize) -> Option<Box<dyn Objective>> {
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
        order: &'o mut EpochOrder,
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

    /// Copies the fp32 master weights, rounded to the run's precision, into the leaves that the
    /// forward pass reads. Not under adversarial training, which splits each input into a rounded
    /// value and a rounded remainder ([`crate::precision::Parts::Two`]): each weight then has two
    /// gradients, which must add up in fp32.
    pub(crate) fn refresh_rounded_weights(&self) {
        if self.adversarial.is_none() {
            self.model.params().round(self.precision);
        }
    }

    fn curve_point_due(&self, step: usize) -> bool {
        step.is_multiple_of(self.schedule.total_steps.div_ceil(CURVE_POINTS))
    }

    fn not_finite(&self, metrics: StepMetrics, group: &[Vec<usize>], step: usize) -> Error {
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

    fn total_seconds(&mut self) -> f64 {
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
            ..Progress::begin(trainer.run, Stage::Training)
        }
    }
}
