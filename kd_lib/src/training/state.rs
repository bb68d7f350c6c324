//! Where an interrupted run continues: weights, the best weights so far, optimizer moments,
//! counters and the curve, in one file whose name contains the hash of its bytes. The state before
//! it is kept too, in case the last one is damaged. [`super::trainer`] decides when to save.

use super::curve::CurvePoint;
use super::grad_scaler::GradScaler;
use super::gradients::StepMetrics;
use super::optimizer::AdamW;
use super::progress::DevScores;
use crate::error::BUG;
use crate::files::{self, TensorFile};
use crate::models::Params;
use crate::precision::Precision;
use crate::threads::ThreadChange;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

/// Version of the state's file.
const VERSION: u32 = 5;
/// Versions that can be resumed. Version 4 has no field `evaluation_due`, which then counts as
/// false.
const READABLE: [u32; 2] = [4, VERSION];
/// Saved states that are kept: if the newest is damaged, the one before it is used.
const KEPT: usize = 2;
/// How a state's file name begins.
pub(crate) const PREFIX: &str = "state-";

/// The best weights' update and score.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    pub step: usize,
    pub macro_f1: f64,
}

/// What is saved in addition to weights and moments.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct TrainState {
    version: u32,
    pub step: usize,
    /// States saved so far, this one included. Several may have the same step.
    #[serde(default)]
    saves: usize,
    pub examples: usize,
    pub seconds: f64,
    /// Threads of the updates to come; 0 in files that were written before this field existed.
    #[serde(default)]
    pub threads: usize,
    /// The numbers of threads that the run had, by update.
    #[serde(default)]
    pub thread_changes: Vec<ThreadChange>,
    /// Whether these weights are still to be evaluated on dev.
    #[serde(default)]
    pub evaluation_due: bool,
    pub best: Option<Best>,
    /// The best weights, in the parameters' order.
    #[serde(skip)]
    best_weights: Vec<Tensor>,
    pub curve: Vec<CurvePoint>,
    pub scaler: GradScaler,
    /// Sums over the updates since the last curve point.
    sums: StepMetrics,
    summed_updates: f64,
}

/// What to do if no state can be read.
const RESTART: &str = "remove the run's folder to train from the start";

/// The newest undamaged state in a run's folder; none if no state was saved.
///
/// # Errors
/// If states were saved and all are damaged.
fn newest_intact_state(folder: &Path) -> Result<Option<PathBuf>> {
    let newest_first = files::content_addressed(folder, PREFIX);
    let Some(newest) = newest_first.first() else {
        return Ok(None);
    };
    let mut intact = newest_first.iter();
    match intact.find(|path| files::matches_its_name(path)) {
        Some(intact) => Ok(Some(intact.clone())),
        None => {
            let problem = "damaged, like every state saved before it";
            Err(Error::file(newest, problem, RESTART))
        }
    }
}

impl TrainState {
    /// Evaluations on dev after the best one.
    pub fn evaluations_since_best(&self) -> usize {
        let best = self.best.map_or(0, |best| best.step);
        let after_best = |point: &&CurvePoint| point.dev_macro_f1.is_some() && point.step > best;
        self.curve.iter().filter(after_best).count()
    }

    /// Restores weights and moments to the last intact state in `folder`; a new state if none was
    /// saved.
    ///
    /// # Errors
    /// If states were saved and all are damaged.
    pub fn resume(
        folder: &Path,
        precision: Precision,
        params: &Params,
        optimizer: &mut AdamW,
    ) -> Result<TrainState> {
        let Some(path) = newest_intact_state(folder)? else {
            return Ok(TrainState {
                scaler: GradScaler::new(precision),
                ..TrainState::default()
            });
        };
        let path = path.as_path();
        let mut file = TensorFile::read(path)?;
        let mut state = TrainState::from_metadata(path, &file)?;
        params.assign(path, &mut file, "weight.")?;
        for (param, moments) in params.iter().zip(&mut optimizer.moments) {
            let mut saved = |kind: &str| -> Result<Tensor> {
                let moment = file.take(path, &format!("{kind}.{}", param.name))?;
                Ok(moment.to_kind(Kind::Float))
            };
            moments.mean.copy_(&saved("mean")?);
            moments.square.copy_(&saved("square")?);
        }
        if state.best.is_some() {
            for param in params.iter() {
                let best = file.take(path, &format!("best.{}", param.name))?;
                state.best_weights.push(best.to_device(params.device()));
            }
        }
        optimizer.step = (state.step - state.scaler.skipped) as i64;
        Ok(state)
    }

    /// The part of a state that is no tensor.
    fn from_metadata(path: &Path, file: &TensorFile) -> Result<TrainState> {
        let none = |e: serde_json::Error| {
            Error::file(path, format!("no training state in it ({e})"), RESTART)
        };
        let text = file.metadata.get("state").cloned().unwrap_or_default();
        let metadata: serde_json::Value = serde_json::from_str(&text).map_err(none)?;
        let version = &metadata["version"];
        if !READABLE.iter().any(|readable| *version == *readable) {
            let problem = format!("state version {version}, this program reads {READABLE:?}");
            return Err(Error::file(path, problem, RESTART));
        }
        serde_json::from_value(metadata).map_err(none)
    }

    /// Counts an update of this many `examples`. An evaluation is due if the run has
    /// passed a multiple of `eval_every_samples`.
    pub fn record_step(
        &mut self,
        examples: usize,
        metrics: StepMetrics,
        eval_every_samples: usize,
    ) {
        let evaluations_before = self.examples / eval_every_samples;
        self.step += 1;
        self.examples += examples;
        // An update under fp16 whose loss overflowed would spoil the mean.
        if metrics.is_finite() {
            self.sums.add_update(metrics);
            self.summed_updates += 1.0;
        }
        self.evaluation_due = evaluations_before != self.examples / eval_every_samples;
    }

    /// Notes the number of threads of the updates to come.
    pub fn record_threads(&mut self, threads: usize) {
        if self.threads != threads {
            self.threads = threads;
            let step = self.step;
            self.thread_changes.push(ThreadChange { step, threads });
        }
    }

    /// Adds a point to the curve: means since the last point.
    pub fn log_point(&mut self, learning_rate: f64, dev: Option<DevScores>) {
        let sums = std::mem::take(&mut self.sums);
        let updates = std::mem::take(&mut self.summed_updates).max(1.0);
        let adversarial = sums.adversarial;
        let scaler = self.scaler;
        self.curve.push(CurvePoint {
            step: self.step,
            examples: self.examples,
            learning_rate,
            loss: sums.loss / updates,
            hard_loss: sums.hard_loss / updates,
            soft_loss: sums.soft_loss / updates,
            dev_accuracy: dev.map(|dev| dev.accuracy),
            dev_macro_f1: dev.map(|dev| dev.macro_f1),
            micro_batches: sums.micro_batches,
            compute_dtype: sums.compute_dtype,
            adversarial_loss: adversarial.map(|sum| sum.loss / updates),
            perturbation_norm: adversarial.map(|sum| sum.perturbation_norm / updates),
            perturbation_cosine: adversarial.map(|sum| sum.perturbation_cosine / updates),
            loss_scale: scaler.dynamic.then_some(scaler.scale),
            skipped: scaler.dynamic.then_some(scaler.skipped),
        });
    }

    /// Keeps these weights if their score is the best so far; the first of equals stays.
    pub fn keep_best(&mut self, macro_f1: f64, params: &Params) {
        if self.best.is_none_or(|best| macro_f1 > best.macro_f1) {
            self.best = Some(Best {
                step: self.step,
                macro_f1,
            });
            self.best_weights = params.iter().map(|p| p.master.copy()).collect();
        }
    }

    /// Puts the best weights into the model.
    pub fn restore_best(&self, params: &Params) {
        let _guard = tch::no_grad_guard();
        for (param, best) in params.iter().zip(&self.best_weights) {
            param.master.shallow_clone().copy_(best);
        }
    }

    /// Saves the state, then removes all but the last two.
    pub fn save(&mut self, params: &Params, optimizer: &AdamW, folder: &Path) -> Result<()> {
        self.version = VERSION;
        self.saves += 1;
        // In the order in which they are saved: before and after an evaluation the step is the
        // same.
        let name = format!("{PREFIX}{:08}-{:06}.safetensors", self.step, self.saves);
        let path = folder.join(name);
        let text = serde_json::to_string(&self).map_err(Error::in_file(&path, BUG))?;
        let mut tensors = Vec::new();
        for (param, moments) in params.iter().zip(&optimizer.moments) {
            tensors.push((format!("weight.{}", param.name), &param.master));
            tensors.push((format!("mean.{}", param.name), &moments.mean));
            tensors.push((format!("square.{}", param.name), &moments.square));
        }
        for (param, best) in params.iter().zip(&self.best_weights) {
            tensors.push((format!("best.{}", param.name), best));
        }
        let metadata = HashMap::from([("state".into(), text)]);
        files::write_content_addressed(&path, tensors, metadata)?;
        let newest_first = files::content_addressed(folder, PREFIX);
        for stale in newest_first.into_iter().skip(KEPT) {
            std::fs::remove_file(&stale).map_err(Error::io(&stale))?;
        }
        Ok(())
    }
}
