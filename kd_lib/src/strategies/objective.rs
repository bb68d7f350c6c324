//! What is minimised. Every loss is computed in fp32 from fp32 logits, is a mean over the rows of its
//! micro-batch, and names its parts.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Kind, Reduction, Tensor};

/// A loss function with its settings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Objective {
    /// −log p(label): the hard loss alone.
    CrossEntropy {},
    /// Hinton et al. 2015, section 2: `hard · CE(s, y) + soft · T² · KL(softmax(t/T) ‖ softmax(s/T))`, with
    /// student logits s, teacher logits t and labels y. The KL is summed over classes and averaged over
    /// rows; T² keeps the soft gradient's size when T changes.
    Distillation {
        /// T, above 0: how far both distributions are softened.
        temperature: f64,
        /// Weight of the hard loss.
        hard: f64,
        /// Weight of the soft loss.
        soft: f64,
    },
}

/// A loss and its parts, each a scalar tensor. A part that does not apply is zero.
#[derive(Debug)]
pub struct Loss {
    /// What is differentiated.
    pub total: Tensor,
    /// Cross-entropy against the labels, unweighted.
    pub hard: Tensor,
    /// The teacher's part, unweighted.
    pub soft: Tensor,
}

impl Objective {
    /// Whether a teacher's logits are needed.
    pub fn needs_teacher(self) -> bool {
        matches!(self, Objective::Distillation { .. })
    }

    /// Refuses settings without a meaning.
    pub fn check(self) -> Result<()> {
        let Objective::Distillation { temperature, hard, soft } = self else { return Ok(()) };
        let bad =
            |key: &str, value: f64, fix: &str| Err(Error::recipe(&format!("objective.{key}"), value.to_string(), fix));
        if !(temperature > 0.0 && temperature.is_finite()) {
            return bad("temperature", temperature, "choose a number above 0; 1 leaves the distributions as they are");
        }
        for (key, weight) in [("hard", hard), ("soft", soft)] {
            if !(weight >= 0.0 && weight.is_finite()) {
                return bad(key, weight, "choose a weight of 0 or more");
            }
        }
        if hard == 0.0 && soft == 0.0 {
            return bad("soft", soft, "with both weights 0 there is nothing to learn: raise one");
        }
        Ok(())
    }

    /// The loss of one micro-batch: `student [batch, classes]`, `labels [batch]` int64, and `teacher
    /// [batch, classes]` where the objective needs one.
    ///
    /// # Errors
    /// If the objective needs a teacher and there is none.
    pub fn loss(self, student: &Tensor, labels: &Tensor, teacher: Option<&Tensor>) -> Result<Loss> {
        let student = student.to_kind(Kind::Float);
        let hard = student.cross_entropy_loss::<Tensor>(labels, None, Reduction::Mean, -100, 0.0);
        match self {
            Objective::CrossEntropy {} => Ok(Loss { total: hard.shallow_clone(), soft: hard.zeros_like(), hard }),
            Objective::Distillation { temperature, hard: hard_weight, soft: soft_weight } => {
                let missing =
                    || Error::recipe("teacher", "none", "distillation needs a teacher's recipe under [teacher]");
                let soft = soft_loss(&student, &teacher.ok_or_else(missing)?.to_kind(Kind::Float), temperature);
                Ok(Loss { total: &hard * hard_weight + &soft * soft_weight, hard, soft })
            }
        }
    }
}

/// T² · KL(softmax(teacher/T) ‖ softmax(student/T)), summed over classes, averaged over rows.
fn soft_loss(student: &Tensor, teacher: &Tensor, temperature: f64) -> Tensor {
    let log_student = (student / temperature).log_softmax(-1, Kind::Float);
    let log_teacher = (teacher / temperature).log_softmax(-1, Kind::Float);
    let divergence = log_student.kl_div(&log_teacher, Reduction::Sum, true);
    divergence * (temperature * temperature / student.size()[0] as f64)
}
