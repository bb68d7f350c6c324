//! The gradients of one update. The order is the contract: for each micro-batch of a window: forward under the
//! precision → objective → × the micro-batch's share of the window's *rows* (so that a ragged last one stays
//! exact) × the loss scale → backward, all as without an attack → the attack's passes, inputs in two parts, each
//! against *this* micro-batch's gradient, not against what earlier ones left. All randomness of a pass is a function
//! of (seed, step, micro-batch, pass). What becomes of the gradients is [`crate::train`]'s business.

use crate::Result;
use crate::data::{Batch, Encoded};
use crate::models::{Classifier, Mode};
use crate::strategies::precision::{self, wide};
use crate::strategies::{Attack, Loss, Objective, Perturbation, Precision};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Who sits in the seats of the loop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seats {
    /// What is minimised.
    pub objective: Objective,
    /// In which numbers.
    pub precision: Precision,
    /// Which further passes there are.
    pub attack: Option<Attack>,
    /// What dropout draws from.
    pub seed: u64,
}

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

/// What one update did: means over the rows of its window.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Did {
    /// Micro-batches of its window.
    pub micro_batches: usize,
    /// In which numbers the products were seen to be computed.
    pub products: Option<Precision>,
    /// Loss of the clean passes.
    pub loss: f64,
    /// Its hard part, unweighted.
    pub hard: f64,
    /// Its soft part, unweighted.
    pub soft: f64,
    /// Loss under the attack's last perturbation, and that one's norm and cosine as the forward saw it.
    pub attack: Option<[f64; 3]>,
}

impl Did {
    fn add_clean(&mut self, loss: &Loss, share: f64) {
        let sums = [&mut self.loss, &mut self.hard, &mut self.soft];
        let parts = [&loss.total, &loss.hard, &loss.soft].map(|part| part.double_value(&[]) * share);
        sums.into_iter().zip(parts).for_each(|(sum, part)| *sum += part);
    }

    fn add_attack(&mut self, figures: [f64; 3], share: f64) {
        let sums = self.attack.get_or_insert_default();
        sums.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure * share);
    }

    /// Whether all figures are numbers.
    pub(crate) fn finite(&self) -> bool {
        self.loss.is_finite() && self.attack.iter().flatten().all(|figure| figure.is_finite())
    }

    /// Adds another update's figures.
    pub(crate) fn add_update(&mut self, other: Did) {
        self.micro_batches = self.micro_batches.max(other.micro_batches);
        self.products = other.products;
        (self.loss, self.hard, self.soft) = (self.loss + other.loss, self.hard + other.hard, self.soft + other.soft);
        if let Some(figures) = other.attack {
            self.add_attack(figures, 1.0);
        }
    }
}

/// The gradients of a window's mean loss times `scale`, in the parameters' order (undefined where one has no part in the
/// loss): of the clean loss and, under an attack, of the loss of its last pass, added. `step` decides what dropout draws.
pub fn gradients(
    seats: &Seats,
    model: &dyn Classifier,
    material: &Material,
    window: &[Vec<usize>],
    step: usize,
    scale: f64,
) -> Result<(Did, Vec<Tensor>)> {
    let rows: usize = window.iter().map(Vec::len).sum();
    let mut did = Did { micro_batches: window.len(), ..Did::default() };
    let params: Vec<&Tensor> = model.params().iter().map(|p| &p.tensor).collect();
    let mut sums: Vec<Tensor> = params.iter().map(|_| Tensor::new()).collect();
    for (at, micro) in window.iter().enumerate() {
        let batch = Batch::collate(&material.train, micro, model.params().device());
        let teacher = material.teacher.as_ref().map(|logits| rows_of(logits, &batch));
        let mut pass = |number: usize, perturbation: Option<&Perturbation>| -> Result<Loss> {
            tch::manual_seed(mix([seats.seed as usize, step, at, number]));
            let embedded = model.embed(&batch, Mode::Train, perturbation);
            let inputs = seats.precision.round(&embedded, number > 0);
            did.products = Some(seats.precision.seen(&inputs));
            let logits = model.classify(&inputs, &batch, Mode::Train, seats.precision);
            seats.objective.loss(&logits, &batch.labels, teacher.as_ref())
        };
        let share = micro.len() as f64 / rows as f64;
        let clean = seats.attack.map(|attack| (attack, attack.start(model.word_embedding(), &batch)));
        let loss = pass(0, clean.as_ref().map(|c| &c.1))?;
        let inputs = params.iter().copied().chain(clean.as_ref().map(|c| &c.1.values));
        let mut found = of(&loss, share * scale, &inputs.collect::<Vec<_>>())?;
        let direction = found.split_off(params.len()).pop();
        add(&mut sums, found);
        let clean = clean.zip(direction);
        let attacked = clean.map(|((attack, r), to)| attacked(attack, r, to, share * scale, &mut pass)).transpose()?;
        did.add_clean(&loss, share);
        if let Some((perturbation, loss)) = attacked {
            add(&mut sums, of(&loss, share * scale, &params)?);
            let [norm, cosine] = as_seen(model, &batch, &perturbation, seats.precision);
            did.add_attack([loss.total.double_value(&[]), norm, cosine], share);
        }
    }
    Ok((did, sums))
}

/// The gradients of a loss, times its weight, with respect to `inputs`.
fn of(loss: &Loss, weight: f64, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    Ok(Tensor::f_run_backward(&[&loss.total * weight], inputs, false, false)?)
}

/// Adds further gradients to those so far. Not in place: libtorch may hand out one tensor for two parameters.
fn add(sums: &mut [Tensor], found: Vec<Tensor>) {
    let pairs = sums.iter_mut().zip(found).filter(|(_, more)| more.defined());
    pairs.for_each(|(sum, more)| *sum = if sum.defined() { wide(sum) + wide(&more) } else { more });
}

/// The attack's passes up to the forward of its last one: the final perturbation, and the loss under it. The passes
/// between differentiate the perturbation alone; the weights' gradients stay as they are.
fn attacked(
    attack: Attack,
    clean: Perturbation,
    gradient: Tensor,
    weight: f64,
    pass: &mut dyn FnMut(usize, Option<&Perturbation>) -> Result<Loss>,
) -> Result<(Perturbation, Loss)> {
    let mut perturbation = attack.step(&clean, &gradient);
    for number in 1..attack.passes() {
        let loss = pass(number, Some(&perturbation))?;
        let gradient = of(&loss, weight, &[&perturbation.values])?.remove(0);
        perturbation = attack.step(&perturbation, &gradient);
    }
    let loss = pass(attack.passes(), Some(&perturbation))?;
    Ok((perturbation, loss))
}

/// A perturbation as the first product sees it, after rounding: its L2 norm, and its cosine to what was meant.
fn as_seen(model: &dyn Classifier, batch: &Batch, perturbation: &Perturbation, precision: Precision) -> [f64; 2] {
    let _guard = tch::no_grad_guard();
    let [before, after] = [None, Some(perturbation)].map(|p| model.embed(batch, Mode::Eval, p));
    let width = after.size()[2];
    let seen = |x: &Tensor| precision::value(&precision.round(x, true), width);
    let (meant, seen) = ((&after - &before).flatten(0, -1), (seen(&after) - seen(&before)).flatten(0, -1));
    let [length, seen_length] = [&meant, &seen].map(|t| t.norm().double_value(&[]));
    let cosine = meant.dot(&seen).double_value(&[]) / (length * seen_length).max(f64::MIN_POSITIVE);
    [perturbation.norm() * seen_length / length.max(f64::MIN_POSITIVE), cosine]
}

/// The teacher's logits for a micro-batch, `[batch, classes]`.
fn rows_of(logits: &Tensor, batch: &Batch) -> Tensor {
    let rows: Vec<i64> = batch.rows.iter().map(|&r| r as i64).collect();
    logits.index_select(0, &Tensor::from_slice(&rows)).to_device(batch.ids.device())
}

/// A seed for one pass: equal inputs give equal draws, whatever happened before.
fn mix([seed, step, micro, pass]: [usize; 4]) -> i64 {
    let mut hasher = blake3::Hasher::new();
    for value in [seed, step, micro].into_iter().chain((pass > 0).then_some(pass)) {
        hasher.update(&(value as u64).to_le_bytes());
    }
    let hash = hasher.finalize();
    i64::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[i])) & i64::MAX
}
