//! Matching the teacher's logits (Tang et al. 2019, equation 3).

use super::{Loss, LossInputs, Objective, check_weights};
use crate::Result;
use serde::{Deserialize, Serialize};
use tch::Reduction;

/// `hard_weight · CE(s, y) + soft_weight · mean((s − t)²)` over examples and classes, on the logits
/// themselves. There is no temperature.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogitMse {
    /// Weight of the hard loss.
    pub hard_weight: f64,
    /// Weight of the soft loss.
    pub soft_weight: f64,
}

impl Objective for LogitMse {
    fn validate(&self) -> Result<()> {
        check_weights(&[
            ("soft_weight", self.soft_weight),
            ("hard_weight", self.hard_weight),
        ])
    }

    fn loss(&self, inputs: &LossInputs) -> Result<Loss> {
        let teacher = inputs.teacher_logits()?;
        let soft = inputs.student_logits().mse_loss(&teacher, Reduction::Mean);
        let hard = inputs.hard_loss();
        let total = &hard * self.hard_weight + &soft * self.soft_weight;
        Ok(Loss { total, hard, soft })
    }
}
