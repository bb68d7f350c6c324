//! The one training loop, for teacher and student, with and without a teacher's logits. Its order is the
//! contract: the gradients of a window ([`crate::update`]); then unscale → finite? → clip → step; then look at dev if
//! that is due, keep the best weights, save where to go on; then hear whether to stop.

use crate::data::{Batch, Encoded, batch};
use crate::metrics::Scores;
use crate::models::{Classifier, Mode};
use crate::optim::{self, AdamW};
use crate::plan::Plan;
use crate::progress::{Tick, Watch};
use crate::recipe::Train;
use crate::run::{self, CurvePoint};
use crate::state::State;
use crate::strategies::{LossScale, Precision};
use crate::update::{self, Did, Material};
use crate::{Error, Result};
use std::path::Path;
use std::time::{Duration, Instant};
use tch::{Device, Tensor};

/// Curve points over a whole run, beside those of the evaluations.
const POINTS: usize = 200;

/// How a run ended: the best weights are in the model.
#[derive(Debug)]
pub struct Outcome {
    /// The update whose weights were kept.
    pub best_step: usize,
    /// The training curve.
    pub curve: Vec<CurvePoint>,
    /// Seconds of training and evaluation, resumed parts included.
    pub seconds: f64,
}

/// Trains `model` by `plan`, going on from what `folder` holds; leaves the best weights in the model.
pub fn train(plan: &Plan, model: &dyn Classifier, material: &Material, folder: &Path, watch: Watch) -> Result<Outcome> {
    let mut optimiser = AdamW::new(plan.recipe.optimiser, model.params());
    let mut state = State::resume(folder, plan.precision, model.params(), &mut optimiser)?;
    round(plan, model);
    let (started, before, first) = (Instant::now(), state.seconds, state.examples);
    let mut order = (usize::MAX, Vec::new());
    while state.step < plan.steps {
        let window = window(plan, &material.train, &mut order, state.step);
        let rate = optim::learning_rate(plan.recipe.optimiser.learning_rate, state.step, plan.warmup(), plan.steps);
        let did = update(plan, model, &mut optimiser, material, window, (state.step, rate), &mut state.scale)?;
        let loss = did.loss;
        let due = state.note(window.iter().map(Vec::len).sum(), did, plan);
        let dev = due.then(|| look(plan, model, &material.dev)).transpose()?;
        if due || state.step.is_multiple_of(plan.steps.div_ceil(POINTS)) {
            state.point(rate, dev);
        }
        let elapsed = started.elapsed().as_secs_f64();
        state.seconds = before + elapsed;
        if let Some([_, macro_f1]) = dev {
            state.keep_best(macro_f1, model.params());
            state.save(model.params(), &optimiser, folder)?;
        }
        let speed = (state.examples - first) as f64 / elapsed;
        let to_come = (plan.steps - state.step) as f64 * state.examples as f64 / state.step as f64;
        let left = Duration::from_secs_f64(to_come / speed);
        let tick = Tick { run: &plan.id, step: state.step, steps: plan.steps, loss: Some(loss), speed, left, dev };
        if watch(&tick).is_break() {
            state.save(model.params(), &optimiser, folder)?;
            return Err(Error::Stopped { run: plan.id.clone(), step: state.step, steps: plan.steps });
        }
    }
    let best_step = state.best.map_or(0, |b| b.0);
    state.take_best(model.params());
    round(plan, model);
    Ok(Outcome { best_step, curve: state.curve, seconds: state.seconds })
}

/// The micro-batches of update `step`; `order` holds the epoch they belong to. A window never reaches into the
/// next epoch: the last of each may be short.
pub(crate) fn window<'a>(
    plan: &Plan,
    split: &Encoded,
    order: &'a mut (usize, Vec<Vec<usize>>),
    step: usize,
) -> &'a [Vec<usize>] {
    let (epoch, within) = (step / plan.steps_per_epoch, step % plan.steps_per_epoch);
    if order.0 != epoch {
        let Train { batch, bucketed, .. } = plan.recipe.train;
        *order = (epoch, batch::epoch(split, batch, bucketed, plan.recipe.seed, epoch));
    }
    order.1.chunks(plan.recipe.train.accumulation).nth(within).unwrap_or_default()
}

/// Accuracy and macro-F1 on dev.
fn look(plan: &Plan, model: &dyn Classifier, dev: &Encoded) -> Result<[f64; 2]> {
    let labels: Vec<usize> = dev.labels.iter().map(|&l| l as usize).collect();
    let logits = evaluate(model, dev, &plan.evaluation(dev), plan.precision);
    let scores = Scores::of(run::to_array(&logits)?.view(), &labels);
    Ok([scores.accuracy, scores.macro_f1])
}

/// One update at learning rate `rate`, the `step`-th, from one window of micro-batches; says what it did.
pub(crate) fn update(
    plan: &Plan,
    model: &dyn Classifier,
    optimiser: &mut AdamW,
    material: &Material,
    window: &[Vec<usize>],
    (step, rate): (usize, f64),
    scale: &mut LossScale,
) -> Result<Did> {
    let (did, gradients) = update::gradients(&plan.seats(step), model, material, window, step, scale.scale)?;
    let mut gradients = optimiser.gather(gradients);
    optim::unscale(&mut gradients, scale.scale);
    let norm = optim::gradient_norm(&gradients);
    let finite = did.loss.is_finite() && norm.double_value(&[]).is_finite();
    scale.settle(finite);
    if !finite && (!scale.dynamic || scale.scale < 1.0) {
        let what = if did.loss.is_finite() { "gradient" } else { "loss" };
        let texts = plan.corpus.train.len();
        let told = |&row: &usize| match plan.corpus.train.get(row) {
            Some(example) => format!("line {}", example.line),
            None => format!("transfer text {}", row - texts + 1),
        };
        let examples = window.iter().flatten().map(told).collect::<Vec<_>>().join(", ");
        return Err(Error::NotFinite { step: step + 1, what, lr: rate, examples, fix: NOT_FINITE });
    }
    if finite {
        let shrink = plan.recipe.optimiser.clip.map(|limit| optim::clip(&norm, limit));
        optimiser.update(&gradients, rate, shrink.as_ref());
        round(plan, model);
    }
    Ok(did)
}

/// Rounds the weights for the passes to come. Not where an attack reads inputs in two parts: their gradients of one weight
/// must add up in fp32.
pub(crate) fn round(plan: &Plan, model: &dyn Classifier) {
    if plan.recipe.attack.is_none() {
        model.params().round(plan.precision);
    }
}

/// What to do about a loss or gradient that is not a number.
const NOT_FINITE: &str = "lower the learning rate, set optimiser.clip, or look at these lines (under fp16: train in bf16); the last saved state is kept";

/// Logits `[example, class]` of a whole split read in these batches, in the split's order, fp32 on the CPU.
pub fn evaluate(model: &dyn Classifier, split: &Encoded, batches: &[Vec<usize>], precision: Precision) -> Tensor {
    let _guard = tch::no_grad_guard();
    let order: Vec<i64> = batches.iter().flatten().map(|&r| r as i64).collect();
    let device = model.params().device();
    let logits = |rows: &Vec<usize>| model.logits(&Batch::collate(split, rows, device), Mode::Eval, precision);
    let parts = batches.iter().map(|rows| logits(rows).to_device(Device::Cpu));
    let sorted = Tensor::cat(&parts.collect::<Vec<_>>(), 0);
    sorted.zeros_like().index_copy(0, &Tensor::from_slice(&order), &sorted)
}
