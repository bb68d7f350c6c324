//! The one training loop, for teacher and student, with and without a teacher's logits. Its order is the
//! contract: for each micro-batch of a window: forward under the precision → objective → × the micro-batch's
//! share of the window's rows → backward; then finite? → clip → step; then look at dev if that is due, keep the
//! best weights, save where to go on. All randomness of a step is a function of (seed, step, micro-batch).

use crate::data::{Batch, Encoded, batch};
use crate::files::{self, TensorFile};
use crate::metrics::Scores;
use crate::models::{Classifier, Mode};
use crate::optim::{self, AdamW};
use crate::plan::Plan;
use crate::progress::{Tick, Watch};
use crate::run::{self, CurvePoint};
use crate::strategies::{Loss, Precision};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// Curve points over a whole run, beside those of the evaluations.
const POINTS: usize = 200;
/// Rows of an evaluation batch: large, since nothing is kept for a backward pass.
const EVALUATION_BATCH: usize = 128;
/// Version of `state.safetensors`; another one is not resumed from.
const STATE_VERSION: u32 = 1;

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

/// What is saved beside the weights and moments.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    version: u32,
    step: usize,
    examples: usize,
    seconds: f64,
    best: Option<(usize, f64)>,
    curve: Vec<CurvePoint>,
    /// Sums since the last curve point: total, hard and soft loss, and the number of updates.
    sums: [f64; 4],
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
    let mut state = resume(folder, model, &mut optimiser)?;
    let (started, before, first) = (Instant::now(), state.seconds, state.examples);
    let dev_labels: Vec<usize> = material.dev.labels.iter().map(|&l| l as usize).collect();
    let settings = &plan.recipe.train;
    let mut epoch = (usize::MAX, Vec::new());
    while state.step < plan.steps {
        let at = state.step / plan.steps_per_epoch;
        if epoch.0 != at {
            epoch = (at, batch::epoch(&material.train, settings.batch, plan.recipe.seed, at));
        }
        let within = state.step % plan.steps_per_epoch;
        let window = epoch.1.chunks(settings.accumulation).nth(within).unwrap_or_default();
        let rate = optim::learning_rate(plan.recipe.optimiser.learning_rate, state.step, plan.warmup, plan.steps);
        let losses = update(plan, model, &mut optimiser, material, window, state.step, rate)?;
        let seen = state.examples;
        state.note(window, losses);
        state.seconds = before + started.elapsed().as_secs_f64();
        let due =
            seen / settings.evaluate_every != state.examples / settings.evaluate_every || state.step == plan.steps;
        let mut dev = None;
        if due {
            let logits = evaluate(model, &material.dev, plan.precision, model.params().device());
            let scores = Scores::of(run::to_array(&logits)?.view(), &dev_labels);
            dev = Some([scores.accuracy, scores.macro_f1]);
            state.point(rate, dev);
            state.keep_best(scores.macro_f1, model, folder)?;
            state.seconds = before + started.elapsed().as_secs_f64();
            state.save(model, &optimiser, folder)?;
        } else if state.step.is_multiple_of(plan.steps.div_ceil(POINTS)) {
            state.point(rate, None);
        }
        let speed = (state.examples - first) as f64 / started.elapsed().as_secs_f64();
        let left = (plan.recipe.train.epochs * material.train.ids.len()).saturating_sub(state.examples) as f64 / speed;
        watch(&Tick {
            run: &plan.id,
            step: state.step,
            steps: plan.steps,
            loss: losses[0],
            speed,
            left: Duration::from_secs_f64(left),
            dev,
        });
    }
    let best_step = state.best.map_or(0, |b| b.0);
    model.params().read(&best_path(folder, best_step))?;
    Ok(Outcome { best_step, curve: state.curve, seconds: state.seconds })
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

impl State {
    fn note(&mut self, window: &[Vec<usize>], losses: [f64; 3]) {
        self.step += 1;
        self.examples += window.iter().map(Vec::len).sum::<usize>();
        for (sum, loss) in self.sums.iter_mut().zip(losses.into_iter().chain([1.0])) {
            *sum += loss;
        }
    }

    fn point(&mut self, learning_rate: f64, dev: Option<[f64; 2]>) {
        let [loss, hard, soft, updates] = std::mem::take(&mut self.sums);
        let mean = |sum: f64| sum / updates;
        let (step, examples) = (self.step, self.examples);
        let (dev_accuracy, dev_macro_f1) = (dev.map(|d| d[0]), dev.map(|d| d[1]));
        self.curve.push(CurvePoint {
            step,
            examples,
            learning_rate,
            loss: mean(loss),
            hard: mean(hard),
            soft: mean(soft),
            dev_accuracy,
            dev_macro_f1,
        });
    }

    /// Keeps these weights if they are the best so far; the first of equals stays.
    fn keep_best(&mut self, score: f64, model: &dyn Classifier, folder: &Path) -> Result<()> {
        if self.best.is_none_or(|(_, best)| score > best) {
            self.best = Some((self.step, score));
            model.params().write(&best_path(folder, self.step))?;
        }
        Ok(())
    }

    /// Saves where to go on, then forgets best weights that nothing points to any more.
    fn save(&mut self, model: &dyn Classifier, optimiser: &AdamW, folder: &Path) -> Result<()> {
        self.version = STATE_VERSION;
        let path = folder.join("state.safetensors");
        let notes =
            serde_json::to_string(&self).map_err(|e| Error::file(&path, e.to_string(), "report this as a bug"))?;
        let weights = model.params().iter().map(|p| (format!("weight.{}", p.name), &p.tensor));
        let moments = model.params().iter().zip(&optimiser.moments);
        let moments = moments.flat_map(|(p, [mean, square])| {
            [(format!("mean.{}", p.name), mean), (format!("square.{}", p.name), square)]
        });
        files::write_tensors(&path, weights.chain(moments), HashMap::from([("state".into(), notes)]))?;
        let kept = self.best.map(|b| best_path(folder, b.0));
        for stale in best_files(folder).into_iter().filter(|p| Some(p) != kept.as_ref()) {
            std::fs::remove_file(&stale).map_err(Error::io(&stale))?;
        }
        Ok(())
    }
}

/// Puts weights and moments back to where `folder` says; a fresh state where it says nothing.
fn resume(folder: &Path, model: &dyn Classifier, optimiser: &mut AdamW) -> Result<State> {
    let path = folder.join("state.safetensors");
    if !path.exists() {
        return Ok(State::default());
    }
    let mut file = TensorFile::read(&path)?;
    let fix = "remove the run's folder to train from the start";
    let notes = file.metadata.get("state").cloned().unwrap_or_default();
    let state: State =
        serde_json::from_str(&notes).map_err(|e| Error::file(&path, format!("no training state in it ({e})"), fix))?;
    if state.version != STATE_VERSION {
        return Err(Error::file(
            &path,
            format!("state version {}, this program reads {STATE_VERSION}", state.version),
            fix,
        ));
    }
    model.params().assign(&path, &mut file, "weight.")?;
    for (param, moments) in model.params().iter().zip(&mut optimiser.moments) {
        for (kind, moment) in ["mean", "square"].into_iter().zip(moments) {
            moment.copy_(&file.take(&path, &format!("{kind}.{}", param.name))?.to_kind(Kind::Float));
        }
    }
    optimiser.step = state.step as i64;
    Ok(state)
}

fn best_path(folder: &Path, step: usize) -> PathBuf {
    folder.join(format!("best-{step:08}.safetensors"))
}

/// All kept-best files of a run.
pub(crate) fn best_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(|e| e.ok().map(|e| e.path()));
    entries.filter(|p| p.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("best-"))).collect()
}
