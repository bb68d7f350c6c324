//! The gradients of one update. Each micro-batch of an accumulation group goes through these steps:
//!
//! 1. The forward pass runs in the run's precision.
//! 2. The objective computes the loss.
//! 3. The loss is multiplied by the micro-batch's share of the group's *examples* and by the loss
//!    scale.
//! 4. The backward pass adds to the gradients.
//! 5. The adversarial passes follow. Their perturbation is computed from the embedding gradient of
//!    *this* micro-batch.
//!
//! For a loss that is a mean over examples the sum is the gradient of one large batch, also if the
//! last micro-batch is smaller. DIST's correlations, dropout and perturbations still act on one
//! micro-batch. All randomness of a pass is a function of (seed, step, micro-batch, pass).
//! [`super::trainer`] applies the gradients.

use super::adversarial::Adversarial;
use super::pooled_states::PooledStates;
use crate::Result;
use crate::data::{Batch, TokenizedSplit};
use crate::models::{Classifier, ForwardPass, Mode, ModelOutput, Perturbation};
use crate::objectives::{HiddenLayers, Loss, LossInputs, Objective};
use crate::precision::{self, Parts, Precision, to_full_precision};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// How the gradients of one update are computed.
#[derive(Debug, Clone, Copy)]
pub struct StepConfig<'a> {
    /// What is minimised.
    pub objective: &'a dyn Objective,
    /// The objective's own parameters.
    pub objective_parameters: &'a [Tensor],
    /// Dtype of matrix products.
    pub precision: Precision,
    /// Adversarial passes, if any.
    pub adversarial: Option<Adversarial>,
    /// Seed of the run, from which dropout's seeds are computed.
    pub seed: u64,
    /// Number of the update, from 0.
    pub step: usize,
    /// Factor on the loss.
    pub loss_scale: f64,
}

/// The texts of a run as token ids, and what its teacher computed for them.
#[derive(Debug)]
pub struct TrainData {
    /// The training texts, the transfer set at the end.
    pub train: TokenizedSplit,
    /// The texts that choose the best weights.
    pub dev: TokenizedSplit,
    /// The teacher's logits `[example, class]` in the order of `train`.
    pub teacher_logits: Option<Tensor>,
    /// The teacher's pooled states of each layer that the objective names, in the same order.
    pub teacher_hidden: Vec<PooledStates>,
    /// Line of each labelled training text in its file: errors name it.
    pub lines: Vec<usize>,
    /// The weight of each class in the hard loss `[classes]`, if they differ.
    pub class_weights: Option<Tensor>,
}

/// What adversarial training did in one update.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct AdversarialMetrics {
    /// Loss under the last perturbation.
    pub loss: f64,
    /// L2 norm of that perturbation as the forward pass reads it.
    pub perturbation_norm: f64,
    /// Its cosine to the intended perturbation.
    pub perturbation_cosine: f64,
}

/// What one update did. The losses and the adversarial values are means over the examples of its
/// accumulation group.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Micro-batches of the group.
    pub micro_batches: usize,
    /// The dtype that the encoder's input, an operand of the first matmul, was observed to have.
    pub compute_dtype: Option<Precision>,
    /// Loss of the clean passes.
    pub loss: f64,
    /// Hard loss, before the objective weights it.
    pub hard_loss: f64,
    /// Soft loss: unweighted if it is one term, the weighted sum if it has several.
    pub soft_loss: f64,
    /// What adversarial training did, if there was any.
    pub adversarial: Option<AdversarialMetrics>,
}

/// The gradients of an accumulation group, and its metrics.
#[derive(Debug)]
pub struct GroupGradients {
    /// Of the model's parameters, then of the objective's, in their order; undefined for a
    /// parameter that the loss does not depend on.
    pub gradients: Vec<Tensor>,
    /// What was measured.
    pub metrics: StepMetrics,
}

impl AdversarialMetrics {
    /// Adds another one's values times `weight`.
    pub(crate) fn add(&mut self, other: AdversarialMetrics, weight: f64) {
        self.loss += other.loss * weight;
        self.perturbation_norm += other.perturbation_norm * weight;
        self.perturbation_cosine += other.perturbation_cosine * weight;
    }
}

impl StepMetrics {
    fn record_clean(&mut self, loss: &Loss, share: f64) {
        self.loss += loss.total.double_value(&[]) * share;
        self.hard_loss += loss.hard.double_value(&[]) * share;
        self.soft_loss += loss.soft.double_value(&[]) * share;
    }

    fn record_adversarial(&mut self, metrics: AdversarialMetrics, share: f64) {
        self.adversarial.get_or_insert_default().add(metrics, share);
    }

    /// Whether all values are finite.
    pub(crate) fn is_finite(&self) -> bool {
        let adversarial = self.adversarial.unwrap_or_default();
        self.loss.is_finite()
            && adversarial.loss.is_finite()
            && adversarial.perturbation_norm.is_finite()
            && adversarial.perturbation_cosine.is_finite()
    }

    /// Adds another update's values, for a mean over updates.
    pub(crate) fn add_update(&mut self, other: StepMetrics) {
        self.micro_batches = self.micro_batches.max(other.micro_batches);
        self.compute_dtype = other.compute_dtype;
        self.loss += other.loss;
        self.hard_loss += other.hard_loss;
        self.soft_loss += other.soft_loss;
        if let Some(adversarial) = other.adversarial {
            self.record_adversarial(adversarial, 1.0);
        }
    }
}

/// The gradients of (clean loss + loss of the last adversarial pass) × the loss scale. Both losses
/// are means over the accumulation group: each micro-batch counts by its share of the examples.
/// `group` holds the indices in `data.train` of each micro-batch's examples.
pub fn group_gradients(
    config: &StepConfig,
    model: &dyn Classifier,
    data: &TrainData,
    group: &[Vec<usize>],
) -> Result<GroupGradients> {
    interruptible_gradients(config, model, data, group, &mut || Ok(()))
}

/// Like [`group_gradients`]. `check_stop` is called between two passes, forward or backward; its
/// error ends the work.
pub(crate) fn interruptible_gradients(
    config: &StepConfig,
    model: &dyn Classifier,
    data: &TrainData,
    group: &[Vec<usize>],
    check_stop: &mut dyn FnMut() -> Result<()>,
) -> Result<GroupGradients> {
    let model_params = model.params().iter().map(|p| &p.tensor);
    let params: Vec<&Tensor> = model_params.chain(config.objective_parameters).collect();
    let group_rows: usize = group.iter().map(Vec::len).sum();
    let mut sums = GroupGradients {
        gradients: params.iter().map(|_| Tensor::new()).collect(),
        metrics: StepMetrics {
            micro_batches: group.len(),
            ..StepMetrics::default()
        },
    };
    for (number, rows) in group.iter().enumerate() {
        if number > 0 {
            check_stop()?;
        }
        let share = rows.len() as f64 / group_rows as f64;
        let micro_batch = MicroBatch::new(config, model, data, rows, number);
        match config.adversarial {
            None => sums.accumulate_clean(&micro_batch, &params, share, check_stop)?,
            Some(adversarial) => {
                sums.accumulate_adversarial(&micro_batch, adversarial, &params, share, check_stop)?;
            }
        }
    }
    Ok(sums)
}

impl GroupGradients {
    /// Adds the gradients of a micro-batch that has this share of the group's rows.
    fn accumulate_clean(
        &mut self,
        micro_batch: &MicroBatch,
        params: &[&Tensor],
        share: f64,
        check_stop: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let clean = micro_batch.compute_loss(0, None)?;
        check_stop()?;
        self.metrics.compute_dtype = Some(clean.compute_dtype);
        self.metrics.record_clean(&clean.loss, share);
        let weight = share * micro_batch.config.loss_scale;
        self.accumulate(differentiate(&clean.loss, weight, params)?);
        Ok(())
    }

    /// Adds the gradients of the clean pass over a micro-batch, and of the pass under the last
    /// adversarial perturbation.
    fn accumulate_adversarial(
        &mut self,
        micro_batch: &MicroBatch,
        adversarial: Adversarial,
        params: &[&Tensor],
        share: f64,
        check_stop: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let weight = share * micro_batch.config.loss_scale;
        let embedding = micro_batch.model.word_embedding();
        let zero = adversarial.zero_perturbation(embedding, &micro_batch.batch);
        let clean = micro_batch.compute_loss(0, Some(&zero))?;
        check_stop()?;
        self.metrics.record_clean(&clean.loss, share);
        let inputs: Vec<&Tensor> = params.iter().copied().chain([&zero.values]).collect();
        let mut gradients = differentiate(&clean.loss, weight, &inputs)?;
        let perturbation_gradient = gradients.remove(params.len());
        self.accumulate(gradients);

        let mut loss_under = |perturbation: &Perturbation, pass| {
            check_stop()?;
            let perturbed = micro_batch.compute_loss(pass, Some(perturbation))?;
            check_stop()?;
            Ok(perturbed)
        };
        let last = adversarial_passes(
            adversarial,
            &zero,
            &perturbation_gradient,
            weight,
            &mut loss_under,
        )?;
        self.metrics.compute_dtype = Some(last.pass.compute_dtype);
        self.accumulate(differentiate(&last.pass.loss, weight, params)?);
        let metrics = micro_batch.adversarial_metrics(&last);
        self.metrics.record_adversarial(metrics, share);
        Ok(())
    }

    /// Adds gradients to the sums. Not in place: libtorch may return one tensor for two parameters.
    fn accumulate(&mut self, gradients: Vec<Tensor>) {
        for (sum, gradient) in self.gradients.iter_mut().zip(gradients) {
            if !gradient.defined() {
                continue;
            }
            *sum = if sum.defined() {
                to_full_precision(sum) + to_full_precision(&gradient)
            } else {
                gradient
            };
        }
    }
}

/// Computes the last perturbation and the forward pass under it. The passes before it differentiate
/// their loss with respect to the perturbation only; the caller differentiates the loss of the last
/// one with respect to the parameters. `loss_under` computes the pass of this number under a
/// perturbation.
fn adversarial_passes(
    adversarial: Adversarial,
    zero: &Perturbation,
    perturbation_gradient: &Tensor,
    weight: f64,
    loss_under: &mut dyn FnMut(&Perturbation, usize) -> Result<PassLoss>,
) -> Result<PerturbedPass> {
    let mut perturbation = adversarial.next_perturbation(zero, perturbation_gradient);
    for pass in 1..adversarial.passes() {
        let perturbed = loss_under(&perturbation, pass)?;
        let gradient = differentiate(&perturbed.loss, weight, &[&perturbation.values])?.remove(0);
        perturbation = adversarial.next_perturbation(&perturbation, &gradient);
    }
    let pass = loss_under(&perturbation, adversarial.passes())?;
    Ok(PerturbedPass { perturbation, pass })
}

/// The last adversarial pass.
struct PerturbedPass {
    perturbation: Perturbation,
    pass: PassLoss,
}

/// One micro-batch, and all that its passes need.
struct MicroBatch<'a> {
    config: &'a StepConfig<'a>,
    model: &'a dyn Classifier,
    batch: Batch,
    teacher: Option<ModelOutput>,
    class_weights: Option<Tensor>,
    /// Its number in the accumulation group.
    number: usize,
}

/// The loss of one forward pass.
struct PassLoss {
    loss: Loss,
    /// The dtype that the encoder's input was observed to have.
    compute_dtype: Precision,
}

impl<'a> MicroBatch<'a> {
    fn new(
        config: &'a StepConfig,
        model: &'a dyn Classifier,
        data: &TrainData,
        rows: &[usize],
        number: usize,
    ) -> MicroBatch<'a> {
        let batch = Batch::collate(&data.train, rows, model.params().device());
        let teacher = data.teacher_logits.as_ref().map(|logits| {
            let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
            let logits = logits.index_select(0, &Tensor::from_slice(&rows));
            let device = batch.ids.device();
            let hidden = data.teacher_hidden.iter();
            ModelOutput {
                logits: logits.to_device(device),
                hidden: hidden
                    .map(|states| states.rows(&batch.rows, device))
                    .collect(),
            }
        });
        let weights = data.class_weights.as_ref();
        MicroBatch {
            config,
            model,
            teacher,
            class_weights: weights.map(|w| w.to_device(batch.ids.device())),
            batch,
            number,
        }
    }

    /// The loss of a pass. Pass 0 is the clean pass. The later, adversarial passes read
    /// each input as a rounded value and a rounded remainder, so that rounding does not remove the
    /// perturbation: see [`Parts::Two`].
    fn compute_loss(&self, pass: usize, perturbation: Option<&Perturbation>) -> Result<PassLoss> {
        let StepConfig {
            precision,
            objective,
            objective_parameters,
            seed,
            step,
            ..
        } = *self.config;
        let HiddenLayers {
            student: layers, ..
        } = objective.hidden_layers();
        tch::manual_seed(dropout_seed(seed, step, self.number, pass));
        let embedded = self.model.embed(&self.batch, Mode::Train, perturbation);
        let parts = if pass == 0 { Parts::One } else { Parts::Two };
        let inputs = precision.round_inputs(&embedded, parts);
        let compute_dtype = precision.observed(&inputs);
        let forward_pass = ForwardPass {
            mode: Mode::Train,
            precision,
            hidden_layers: &layers,
        };
        let student = self.model.forward(&inputs, &self.batch, &forward_pass);
        let loss = objective.loss(&LossInputs {
            student: &student,
            teacher: self.teacher.as_ref(),
            labels: &self.batch.labels,
            parameters: objective_parameters,
            class_weights: self.class_weights.as_ref(),
        })?;
        Ok(PassLoss {
            loss,
            compute_dtype,
        })
    }

    /// The loss of the last adversarial pass, and norm and cosine of its perturbation as the first
    /// matmul reads it, after rounding.
    fn adversarial_metrics(&self, last: &PerturbedPass) -> AdversarialMetrics {
        let perturbation = &last.perturbation;
        let _guard = tch::no_grad_guard();
        let before = self.model.embed(&self.batch, Mode::Eval, None);
        let after = self
            .model
            .embed(&self.batch, Mode::Eval, Some(perturbation));
        let width = after.size()[2];
        let rounded = |x: &Tensor| {
            let parts = self.config.precision.round_inputs(x, Parts::Two);
            precision::combine_parts(&parts, width)
        };
        let intended = (&after - &before).flatten(0, -1);
        let seen = (rounded(&after) - rounded(&before)).flatten(0, -1);
        let intended_norm = intended.norm().double_value(&[]);
        let seen_norm = seen.norm().double_value(&[]);
        let dot = intended.dot(&seen).double_value(&[]);
        AdversarialMetrics {
            loss: last.pass.loss.total.double_value(&[]),
            perturbation_norm: perturbation.norm() * seen_norm
                / intended_norm.max(f64::MIN_POSITIVE),
            perturbation_cosine: dot / (intended_norm * seen_norm).max(f64::MIN_POSITIVE),
        }
    }
}

/// The gradients of a loss times `weight` with respect to `inputs`.
fn differentiate(loss: &Loss, weight: f64, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    Ok(Tensor::f_run_backward(
        &[&loss.total * weight],
        inputs,
        false,
        false,
    )?)
}

/// The seed of one pass's dropout: equal arguments give equal draws, whatever happened before.
fn dropout_seed(seed: u64, step: usize, micro_batch: usize, pass: usize) -> i64 {
    let mut hasher = blake3::Hasher::new();
    for value in [seed, step as u64, micro_batch as u64] {
        hasher.update(&value.to_le_bytes());
    }
    if pass > 0 {
        hasher.update(&(pass as u64).to_le_bytes());
    }
    let hash = hasher.finalize();
    i64::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[i])) & i64::MAX
}
