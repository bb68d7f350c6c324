//! Cross-entropy: the hard loss alone, `−log p(label)`.

use super::{Loss, LossInputs, Objective};
use crate::Result;
use serde::{Deserialize, Serialize};

/// `CE(s, y)` of student logits s and labels y.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrossEntropy {}

impl Objective for CrossEntropy {
    fn needs_teacher(&self) -> bool {
        false
    }

    fn validate(&self) -> Result<()> {
        Ok(())
    }

    fn loss(&self, inputs: &LossInputs) -> Result<Loss> {
        let hard = inputs.hard_loss();
        Ok(Loss {
            total: hard.shallow_clone(),
            soft: hard.zeros_like(),
            hard,
        })
    }
}
