//! The one training loop, for teacher and student, with and without a teacher's logits. Its order is the
//! contract: for each micro-batch of a window: forward under the precision → objective → × the micro-batch's
//! share of the window's rows → backward; then finite? → clip → step; then look at dev if that is due, keep the
//! best weights, save where to go on. All randomness of a step is a function of (seed, step, micro-batch).

use crate::data::{Batch, Encoded, batch};
use crate::metrics::Scores;
use crate::models::{Classifier, Mode};
use crate::optim::{self, AdamW};
use crate::plan::Plan;
use crate::progress::{Tick, Watch};
use crate::run::{self, CurvePoint};
use crate::state::{self, State};
use crate::strategies::{Loss, Precision};
use crate::{Error, Result};
use std::path::Path;
use std::time::{Duration, Instant};
use tch::{Device, Tensor};

/// Curve points over a whole run, beside those of the evaluations.
const POINTS: usize = 200;
/// Rows of an evaluation batch: large, since nothing is kept for a backward pass.
const EVALUATION_BATCH: usize = 128;

/// The texts of a run as ids, and the teacher's logits `[example, class]` over the training split.
#[derive(Debug)]
pub struct Material {
    /// Trained on.
    pub train: Encoded,
    /// Looked at to choose the best weights.
    pub dev: Encoded,
    /// In the order of `train`.
    pub teacher: Option<Tensor>,
}

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
    let mut state = State::resume(folder, model.params(), &mut optimiser)?;
    let (started, before, first) = (Instant::now(), state.seconds, state.examples);
    let mut order = (usize::MAX, Vec::new());
    while state.step < plan.steps {
        let window = window(plan, &material.train, &mut order, state.step);
        let rate = optim::learning_rate(plan.recipe.optimiser.learning_rate, state.step, plan.warmup, plan.steps);
        let losses = update(plan, model, &mut optimiser, material, window, state.step, rate)?;
        let due = state.note(window.iter().map(Vec::len).sum(), losses, plan);
        let dev = due.then(|| look(plan, model, &material.dev)).transpose()?;
        if due || state.step.is_multiple_of(plan.steps.div_ceil(POINTS)) {
            state.point(rate, dev);
        }
        let elapsed = started.elapsed().as_secs_f64();
        state.seconds = before + elapsed;
        if let Some([_, macro_f1]) = dev {
            state.keep_best(macro_f1, model.params(), folder)?;
            state.save(model.params(), &optimiser, folder)?;
        }
        let speed = (state.examples - first) as f64 / elapsed;
        let to_come = (plan.recipe.train.epochs * material.train.ids.len()).saturating_sub(state.examples);
        let left = Duration::from_secs_f64(to_come as f64 / speed);
        watch(&Tick { run: &plan.id, step: state.step, steps: plan.steps, loss: losses[0], speed, left, dev });
    }
    let best_step = state.best.map_or(0, |b| b.0);
    model.params().read(&state::best_path(folder, best_step))?;
    Ok(Outcome { best_step, curve: state.curve, seconds: state.seconds })
}

/// The micro-batches of update `step`; `order` holds the epoch they belong to. A window never reaches into the
/// next epoch: the last of each may be short.
fn window<'a>(plan: &Plan, split: &Encoded, order: &'a mut (usize, Vec<Vec<usize>>), step: usize) -> &'a [Vec<usize>] {
    let (epoch, within) = (step / plan.steps_per_epoch, step % plan.steps_per_epoch);
    if order.0 != epoch {
        *order = (epoch, batch::epoch(split, plan.recipe.train.batch, plan.recipe.seed, epoch));
    }
    order.1.chunks(plan.recipe.train.accumulation).nth(within).unwrap_or_default()
}

/// Accuracy and macro-F1 on dev.
fn look(plan: &Plan, model: &dyn Classifier, dev: &Encoded) -> Result<[f64; 2]> {
    let labels: Vec<usize> = dev.labels.iter().map(|&l| l as usize).collect();
    let logits = evaluate(model, dev, plan.precision, model.params().device());
    let scores = Scores::of(run::to_array(&logits)?.view(), &labels);
    Ok([scores.accuracy, scores.macro_f1])
}

/// One update from one window of micro-batches; returns the mean total, hard and soft loss over its rows.
fn update(
    plan: &Plan,
    model: &dyn Classifier,
    optimiser: &mut AdamW,
    material: &Material,
    window: &[Vec<usize>],
    step: usize,
    rate: f64,
) -> Result<[f64; 3]> {
    let rows: usize = window.iter().map(Vec::len).sum();
    let mut sums = [0.0; 3];
    model.params().zero_grad();
    for (at, micro) in window.iter().enumerate() {
        let batch = Batch::collate(&material.train, micro, model.params().device());
        let teacher = material.teacher.as_ref().map(|logits| rows_of(logits, &batch));
        tch::manual_seed(mix(plan.recipe.seed, step, at));
        let logits = model.logits(&batch, Mode::Train, plan.precision);
        let loss = plan.recipe.objective.loss(&logits, &batch.labels, teacher.as_ref())?;
        let share = micro.len() as f64 / rows as f64;
        (&loss.total * share).f_backward()?;
        add(&mut sums, &loss, share);
    }
    let norm = optim::gradient_norm(model.params());
    for (what, value) in [("loss", sums[0]), ("gradient", norm.double_value(&[]))] {
        if !value.is_finite() {
            let examples = window.iter().flatten().map(|&r| plan.corpus.train[r].line).collect();
            let fix =
                "lower the learning rate, set optimiser.clip, or look at these lines; the last saved state is kept";
            return Err(Error::NotFinite { step: step + 1, what, lr: rate, examples, fix });
        }
    }
    if let Some(limit) = plan.recipe.optimiser.clip {
        optim::clip(model.params(), &norm, limit);
    }
    optimiser.update(model.params(), rate);
    Ok(sums)
}

fn add(sums: &mut [f64; 3], loss: &Loss, share: f64) {
    for (sum, part) in sums.iter_mut().zip([&loss.total, &loss.hard, &loss.soft]) {
        *sum += part.double_value(&[]) * share;
    }
}

/// The teacher's logits for a micro-batch, `[batch, classes]`.
fn rows_of(logits: &Tensor, batch: &Batch) -> Tensor {
    let rows: Vec<i64> = batch.rows.iter().map(|&r| r as i64).collect();
    logits.index_select(0, &Tensor::from_slice(&rows)).to_device(batch.ids.device())
}

/// Logits `[example, class]` of a whole split, in its order, fp32 on the CPU.
pub fn evaluate(model: &dyn Classifier, split: &Encoded, precision: Precision, device: Device) -> Tensor {
    let _guard = tch::no_grad_guard();
    let batches = batch::by_length(split, EVALUATION_BATCH);
    let order: Vec<i64> = batches.iter().flatten().map(|&r| r as i64).collect();
    let parts: Vec<Tensor> = batches
        .iter()
        .map(|rows| model.logits(&Batch::collate(split, rows, device), Mode::Eval, precision).to_device(Device::Cpu))
        .collect();
    let sorted = Tensor::cat(&parts, 0);
    sorted.zeros_like().index_copy(0, &Tensor::from_slice(&order), &sorted)
}

/// A seed for one pass: equal inputs give equal draws, whatever happened before.
fn mix(seed: u64, step: usize, micro: usize) -> i64 {
    let mut bytes = [0; 24];
    for (part, value) in bytes.chunks_mut(8).zip([seed, step as u64, micro as u64]) {
        part.copy_from_slice(&value.to_le_bytes());
    }
    let hash = blake3::hash(&bytes);
    i64::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[i])) & i64::MAX
}
