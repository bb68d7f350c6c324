//! The soft loss of the published BERT → BiLSTM experiment
//! (taishan1994/pytorch_knowledge_distillation, commit 884833c): averaged over all elements and
//! without T². With C classes it is 1/(C·T²) of [`super::Kd`]'s, so it fades as T grows.

use super::{
    Loss, LossInputs, Objective, check_kd_settings, kl_divergence, softened_log_probabilities,
};
use crate::Result;
use serde::{Deserialize, Serialize};

/// `hard_weight · CE(s, y) + soft_weight · mean(KL(softmax(t/T) ‖ softmax(s/T)))`, the mean over
/// examples and classes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KdAsPublished {
    /// T, above 0.
    pub temperature: f64,
    /// Weight of the hard loss.
    pub hard_weight: f64,
    /// Weight of the soft loss.
    pub soft_weight: f64,
}

impl Objective for KdAsPublished {
    fn validate(&self) -> Result<()> {
        check_kd_settings(self.temperature, self.hard_weight, self.soft_weight)
    }

    fn temperature(&self) -> Option<f64> {
        Some(self.temperature)
    }

    fn with_temperature(&self, temperature: f64) -> Option<Box<dyn Objective>> {
        Some(Box::new(KdAsPublished {
            temperature,
            ..*self
        }))
    }

    fn loss(&self, inputs: &LossInputs) -> Result<Loss> {
        let logits = inputs.student_logits();
        let student = softened_log_probabilities(&logits, self.temperature);
        let teacher = softened_log_probabilities(&inputs.teacher_logits()?, self.temperature);
        let soft = kl_divergence(&student, &teacher) * (1.0 / logits.numel() as f64);
        let hard = inputs.hard_loss();
        let total = &hard * self.hard_weight + &soft * self.soft_weight;
        Ok(Loss { total, hard, soft })
    }
}
