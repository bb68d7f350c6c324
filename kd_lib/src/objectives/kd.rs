//! Knowledge distillation with a temperature (Hinton, Vinyals & Dean 2015, section 2).

use super::{
    Loss, LossInputs, Objective, check_kd_settings, kl_divergence, softened_log_probabilities,
};
use crate::Result;
use serde::{Deserialize, Serialize};

/// `hard_weight · CE(s, y) + soft_weight · T² · KL(softmax(t/T) ‖ softmax(s/T))` of student logits
/// s, teacher logits t and labels y. The KL is summed over classes and averaged over examples; T²
/// roughly keeps the size of the soft loss's gradient when T changes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kd {
    /// T, above 0: how far both distributions are softened.
    pub temperature: f64,
    /// Weight of the hard loss.
    pub hard_weight: f64,
    /// Weight of the soft loss.
    pub soft_weight: f64,
}

impl Objective for Kd {
    fn validate(&self) -> Result<()> {
        check_kd_settings(self.temperature, self.hard_weight, self.soft_weight)
    }

    fn temperature(&self) -> Option<f64> {
        Some(self.temperature)
    }

    fn with_temperature(&self, temperature: f64) -> Option<Box<dyn Objective>> {
        Some(Box::new(Kd {
            temperature,
            ..*self
        }))
    }

    fn loss(&self, inputs: &LossInputs) -> Result<Loss> {
        let temperature = self.temperature;
        let logits = inputs.student_logits();
        let batch_size = logits.size()[0] as f64;
        let student = softened_log_probabilities(&logits, temperature);
        let teacher = softened_log_probabilities(&inputs.teacher_logits()?, temperature);
        let soft = kl_divergence(&student, &teacher) * (temperature * temperature / batch_size);
        let hard = inputs.hard_loss();
        let total = &hard * self.hard_weight + &soft * self.soft_weight;
        Ok(Loss { total, hard, soft })
    }
}
