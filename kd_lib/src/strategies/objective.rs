//! What is minimised. Every loss is computed in fp32 (f64 from f64 logits), is a mean over the rows of its
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
    /// Tang et al. 2019, equation 3: `hard · CE(s, y) + soft · mean((s − t)²)` over rows and classes, on the logits
    /// themselves; no temperature.
    LogitMse {
        /// Weight of the hard loss.
        hard: f64,
        /// Weight of the soft loss.
        soft: f64,
    },
    /// The published experiment's loss: `hard · CE(s, y) + soft · mean(KL)`, the KL averaged over *all elements*,
    /// rows and classes alike, and without T²: 1/(C·T²) of the textbook's for C classes, so that it fades.
    DistillationPerElement {
        /// T, above 0.
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
        !matches!(self, Objective::CrossEntropy {})
    }

    /// Refuses settings without a meaning.
    pub fn check(self) -> Result<()> {
        let (temperature, hard, soft) = match self {
            Objective::CrossEntropy {} => return Ok(()),
            Objective::LogitMse { hard, soft } => (1.0, hard, soft),
            Objective::Distillation { temperature, hard, soft }
            | Objective::DistillationPerElement { temperature, hard, soft } => (temperature, hard, soft),
        };
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
        let student = wide(student);
        let hard = student.cross_entropy_loss::<Tensor>(labels, None, Reduction::Mean, -100, 0.0);
        let missing = || Error::recipe("teacher", "none", "distillation needs a teacher's recipe under [teacher]");
        let teacher = || teacher.map(wide).ok_or_else(missing);
        let sum = |[by_hard, by_soft]: [f64; 2], soft: Tensor, hard: Tensor| {
            Ok(Loss { total: &hard * by_hard + &soft * by_soft, hard, soft })
        };
        match self {
            Objective::CrossEntropy {} => Ok(Loss { total: hard.shallow_clone(), soft: hard.zeros_like(), hard }),
            Objective::Distillation { temperature, hard: by_hard, soft: by_soft } => {
                let per_row = temperature * temperature / student.size()[0] as f64;
                sum([by_hard, by_soft], divergence(&student, &teacher()?, temperature) * per_row, hard)
            }
            Objective::LogitMse { hard: by_hard, soft: by_soft } => {
                sum([by_hard, by_soft], student.mse_loss(&teacher()?, Reduction::Mean), hard)
            }
            Objective::DistillationPerElement { temperature, hard: by_hard, soft: by_soft } => {
                let per_element = 1.0 / student.numel() as f64;
                sum([by_hard, by_soft], divergence(&student, &teacher()?, temperature) * per_element, hard)
            }
        }
    }
}

/// KL(softmax(teacher/T) ‖ softmax(student/T)), summed over classes and rows.
fn divergence(student: &Tensor, teacher: &Tensor, temperature: f64) -> Tensor {
    let [log_student, log_teacher] = [student, teacher].map(|t| (t / temperature).log_softmax(-1, t.kind()));
    log_student.kl_div(&log_teacher, Reduction::Sum, true)
}

/// Logits in the numbers of a loss.
fn wide(logits: &Tensor) -> Tensor {
    if logits.kind() == Kind::Double { logits.shallow_clone() } else { logits.to_kind(Kind::Float) }
}
