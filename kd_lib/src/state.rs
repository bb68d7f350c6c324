//! Where an interrupted run goes on: weights, the best ones so far, moments, counters and the curve, in one file whose
//! name holds the hash of its bytes. The state before it is kept too, for the day when the last one is damaged. What a
//! state leads to is decided in [`crate::train`].

use crate::files::{self, TensorFile};
use crate::models::{Param, Params};
use crate::optim::AdamW;
use crate::plan::Plan;
use crate::run::CurvePoint;
use crate::strategies::{LossScale, Precision};
use crate::update::Did;
use crate::{Error, Result, error::BUG};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use tch::{Kind, Tensor};

/// Version of the state's file; another one is not resumed from.
const VERSION: u32 = 3;
/// States kept.
const KEPT: usize = 2;

/// What is saved beside the weights and moments.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct State {
    version: u32,
    pub step: usize,
    pub examples: usize,
    pub seconds: f64,
    /// Update and score of the best weights.
    pub best: Option<(usize, f64)>,
    /// The best weights themselves, in the parameters' order.
    #[serde(skip)]
    best_weights: Vec<Tensor>,
    pub curve: Vec<CurvePoint>,
    pub scale: LossScale,
    /// What was done since the last curve point, summed, and in how many updates.
    sums: Did,
    updates: f64,
}

impl State {
    /// Puts weights and moments back to where `folder` says; a fresh state where it says nothing.
    pub fn resume(folder: &Path, precision: Precision, params: &Params, optimiser: &mut AdamW) -> Result<State> {
        let states = files::sealed(folder, "state-");
        if states.is_empty() {
            return Ok(State { scale: LossScale::of(precision), ..State::default() });
        }
        let fix = "remove the run's folder to train from the start";
        let Some(path) = states.iter().find(|path| files::is_sound(path)) else {
            return Err(Error::file(&states[0], "damaged, like every state saved before it", fix));
        };
        let mut file = TensorFile::read(path)?;
        let notes = file.metadata.get("state").cloned().unwrap_or_default();
        let mut state: State = serde_json::from_str(&notes)
            .map_err(|e| Error::file(path, format!("no training state in it ({e})"), fix))?;
        if state.version != VERSION {
            let problem = format!("state version {}, this program reads {VERSION}", state.version);
            return Err(Error::file(path, problem, fix));
        }
        params.assign(path, &mut file, "weight.")?;
        for (param, moments) in params.iter().zip(&mut optimiser.moments) {
            for (kind, moment) in ["mean", "square"].into_iter().zip(moments) {
                moment.copy_(&file.take(path, &format!("{kind}.{}", param.name))?.to_kind(Kind::Float));
            }
        }
        if state.best.is_some() {
            let best = |p: &Param| Ok(file.take(path, &format!("best.{}", p.name))?.to_device(params.device()));
            state.best_weights = params.iter().map(best).collect::<Result<_>>()?;
        }
        optimiser.step = (state.step - state.scale.skipped) as i64;
        Ok(state)
    }

    /// Counts an update over `rows` examples; says whether dev is to be looked at.
    pub fn note(&mut self, rows: usize, did: Did, plan: &Plan) -> bool {
        let portion = plan.recipe.train.evaluate_every;
        let before = self.examples / portion;
        self.step += 1;
        self.examples += rows;
        // Figures that are no numbers, as of an update under fp16 whose loss overflowed, would spoil the mean.
        if did.finite() {
            self.sums.add_update(did);
            self.updates += 1.0;
        }
        before != self.examples / portion || self.step == plan.steps
    }

    /// Adds a point to the curve.
    pub fn point(&mut self, learning_rate: f64, dev: Option<[f64; 2]>) {
        let Did { micro_batches, products, loss, hard, soft, attack } = std::mem::take(&mut self.sums);
        let updates = std::mem::take(&mut self.updates).max(1.0);
        let attack = attack.map(|sums| sums.map(|sum| sum / updates));
        let scaled = self.scale.dynamic;
        self.curve.push(CurvePoint {
            step: self.step,
            examples: self.examples,
            learning_rate,
            loss: loss / updates,
            hard: hard / updates,
            soft: soft / updates,
            dev_accuracy: dev.map(|d| d[0]),
            dev_macro_f1: dev.map(|d| d[1]),
            micro_batches,
            products,
            adversarial_loss: attack.map(|a| a[0]),
            perturbation_norm: attack.map(|a| a[1]),
            perturbation_cosine: attack.map(|a| a[2]),
            loss_scale: scaled.then_some(self.scale.scale),
            skipped: scaled.then_some(self.scale.skipped),
        });
    }

    /// Keeps these weights if they are the best so far; the first of equals stays.
    pub fn keep_best(&mut self, score: f64, params: &Params) {
        if self.best.is_none_or(|(_, best)| score > best) {
            self.best = Some((self.step, score));
            self.best_weights = params.iter().map(|p| p.master.copy()).collect();
        }
    }

    /// Puts the best weights into the model.
    pub fn take_best(&self, params: &Params) {
        let _guard = tch::no_grad_guard();
        params.iter().zip(&self.best_weights).for_each(|(p, best)| p.master.shallow_clone().copy_(best));
    }

    /// Saves where to go on, then forgets the states before the last two.
    pub fn save(&mut self, params: &Params, optimiser: &AdamW, folder: &Path) -> Result<()> {
        self.version = VERSION;
        let path = folder.join(format!("state-{:08}.safetensors", self.step));
        let note = serde_json::to_string(&self).map_err(Error::said(&path, BUG))?;
        let weights = params.iter().map(|p| (format!("weight.{}", p.name), &p.master));
        let best = params.iter().zip(&self.best_weights).map(|(p, best)| (format!("best.{}", p.name), best));
        let moments = params.iter().zip(&optimiser.moments);
        let moments = moments.flat_map(|(p, [mean, square])| {
            [(format!("mean.{}", p.name), mean), (format!("square.{}", p.name), square)]
        });
        let tensors = weights.chain(best).chain(moments);
        files::write_sealed_tensors(&path, tensors, HashMap::from([("state".into(), note)]))?;
        for stale in files::sealed(folder, "state-").into_iter().skip(KEPT) {
            std::fs::remove_file(&stale).map_err(Error::io(&stale))?;
        }
        Ok(())
    }
}
