//! Logit standardization in knowledge distillation (Sun et al. 2024, "Logit Standardization in
//! Knowledge Distillation", equation 6 and algorithm 1): the logits of each example are
//! standardized before the softmax, so that the student need not match the teacher's scale.

use super::{
    Loss, LossInputs, Objective, check_kd_settings, check_three_classes, kl_divergence,
    softened_log_probabilities,
};
use crate::Result;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Added to the standard deviation of an example's logits, which is 0 if they are equal.
const EPS: f64 = 1e-7;

/// `hard_weight · CE(s, y) + soft_weight · T² · KL(softmax(Z(t)/T) ‖ softmax(Z(s)/T))` with the
/// z-score `Z(x) = (x − mean(x)) / (std(x) + 1e-7)` of an example's logits (std: unbiased). T is
/// the base temperature: each example's temperature is T times the standard deviation of its
/// logits.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KdStandardized {
    /// T, above 0.
    pub temperature: f64,
    /// Weight of the hard loss.
    pub hard_weight: f64,
    /// Weight of the soft loss.
    pub soft_weight: f64,
}

impl Objective for KdStandardized {
    fn validate(&self) -> Result<()> {
        check_kd_settings(self.temperature, self.hard_weight, self.soft_weight)
    }

    /// Of two logits standardization leaves only which one is larger, so that the gradient is zero.
    fn validate_classes(&self, classes: usize) -> Result<()> {
        let because = "two standardized logits are always 1 and -1";
        check_three_classes("kd_standardized", classes, because)
    }

    fn temperature(&self) -> Option<f64> {
        Some(self.temperature)
    }

    fn with_temperature(&self, temperature: f64) -> Option<Box<dyn Objective>> {
        Some(Box::new(KdStandardized {
            temperature,
            ..*self
        }))
    }

    fn loss(&self, inputs: &LossInputs) -> Result<Loss> {
        let temperature = self.temperature;
        let student = standardize(&inputs.student_logits());
        let teacher = standardize(&inputs.teacher_logits()?);
        let batch_size = student.size()[0] as f64;
        let student = softened_log_probabilities(&student, temperature);
        let teacher = softened_log_probabilities(&teacher, temperature);
        let soft = kl_divergence(&student, &teacher) * (temperature * temperature / batch_size);
        let hard = inputs.hard_loss();
        let total = &hard * self.hard_weight + &soft * self.soft_weight;
        Ok(Loss { total, hard, soft })
    }
}

/// Logits `[batch, classes]` with mean 0 and standard deviation 1 for each example. The deviation
/// is the unbiased one, as in the paper's published code.
fn standardize(logits: &Tensor) -> Tensor {
    let last = [-1i64];
    let mean = logits.mean_dim(last.as_slice(), true, logits.kind());
    let deviation = logits.std_dim(last.as_slice(), true, true);
    (logits - mean) / (deviation + EPS)
}
