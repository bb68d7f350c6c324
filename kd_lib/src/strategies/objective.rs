//! What is minimised. Every loss is computed in fp32 (f64 from f64 logits), is a mean over the rows of its
//! micro-batch, and names its parts. A row without a label ([`UNLABELLED`]) has no hard loss: it counts as zero.

use super::precision::wide;
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
    /// Zhao et al. 2022 (decoupled KD, DKD), equation 7: `hard · CE(s, y) + target · T² · KL(b_t ‖ b_s) + others · T² ·
    /// KL(q_t ‖ q_s)`, where b is the pair (p_y, 1 − p_y) of the softened distribution p and q is p over the other
    /// classes alone. For a row without a label, y is the teacher's likeliest class.
    Decoupled {
        /// T, above 0.
        temperature: f64,
        /// Weight of the hard loss.
        hard: f64,
        /// Weight of the part on the target class against the rest, α.
        target: f64,
        /// Weight of the part among the other classes, β.
        others: f64,
    },
    /// Huang et al. 2022 (DIST), the overall loss: `hard · CE(s, y) + inter · T² · mean(1 − ρ(row)) + intra · T² ·
    /// mean(1 − ρ(column))`, with Pearson's ρ between student and teacher: of the softened distributions of a row,
    /// and of one class's probabilities over the rows of a micro-batch.
    Relational {
        /// T, above 0.
        temperature: f64,
        /// Weight of the hard loss.
        hard: f64,
        /// Weight of the relations among classes, β.
        inter: f64,
        /// Weight of the relations among rows, γ.
        intra: f64,
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

/// The label of a row that has none.
pub const UNLABELLED: i64 = -100;

/// A loss and its parts, each a scalar tensor. A part that does not apply is zero.
#[derive(Debug)]
pub struct Loss {
    /// What is differentiated.
    pub total: Tensor,
    /// Cross-entropy against the labels, unweighted.
    pub hard: Tensor,
    /// The teacher's part: unweighted where it is one, the weighted sum where it has two.
    pub soft: Tensor,
}

impl Objective {
    /// Whether a teacher's logits are needed.
    pub fn needs_teacher(self) -> bool {
        !matches!(self, Objective::CrossEntropy {})
    }

    /// T, the weight of the hard loss, and the weights of the soft one by name.
    fn settings(self) -> (f64, f64, Vec<(&'static str, f64)>) {
        match self {
            Objective::CrossEntropy {} => (1.0, 1.0, vec![]),
            Objective::LogitMse { hard, soft } => (1.0, hard, vec![("soft", soft)]),
            Objective::Distillation { temperature, hard, soft }
            | Objective::DistillationPerElement { temperature, hard, soft } => {
                (temperature, hard, vec![("soft", soft)])
            }
            Objective::Decoupled { temperature, hard, target, others } => {
                (temperature, hard, vec![("target", target), ("others", others)])
            }
            Objective::Relational { temperature, hard, inter, intra } => {
                (temperature, hard, vec![("inter", inter), ("intra", intra)])
            }
        }
    }

    /// The same at another temperature, where it has one.
    pub fn at_temperature(mut self, value: f64) -> Objective {
        match &mut self {
            Objective::Distillation { temperature, .. }
            | Objective::DistillationPerElement { temperature, .. }
            | Objective::Decoupled { temperature, .. }
            | Objective::Relational { temperature, .. } => *temperature = value,
            Objective::CrossEntropy {} | Objective::LogitMse { .. } => {}
        }
        self
    }

    /// T; 1 where there is none.
    pub fn temperature(self) -> f64 {
        self.settings().0
    }

    /// Refuses settings without a meaning.
    pub fn check(self) -> Result<()> {
        let (temperature, hard, mut weights) = self.settings();
        let bad =
            |key: &str, value: f64, fix: &str| Err(Error::recipe(&format!("objective.{key}"), value.to_string(), fix));
        if !(temperature > 0.0 && temperature.is_finite()) {
            return bad("temperature", temperature, "choose a number above 0; 1 leaves the distributions as they are");
        }
        weights.push(("hard", hard));
        if let Some(&(key, weight)) = weights.iter().find(|(_, weight)| !(*weight >= 0.0 && weight.is_finite())) {
            return bad(key, weight, "choose a weight of 0 or more");
        }
        if weights.iter().all(|(_, weight)| *weight == 0.0) {
            return bad(weights[0].0, 0.0, "with all weights 0 there is nothing to learn: raise one");
        }
        Ok(())
    }

    /// Refuses an objective that says nothing about this many classes.
    pub fn check_classes(self, classes: usize) -> Result<()> {
        let needs_three = matches!(self, Objective::Decoupled { .. } | Objective::Relational { .. });
        if needs_three && classes < 3 {
            let fix = "with two classes nothing is left beside the target, and ρ of any two distributions is 1 or -1: choose distillation or logit_mse";
            return Err(Error::recipe("objective.kind", format!("{self:?}"), fix));
        }
        Ok(())
    }

    /// The loss of one micro-batch: `student [batch, classes]`, `labels [batch]` int64, and `teacher
    /// [batch, classes]` where the objective needs one.
    ///
    /// # Errors
    /// If the objective needs a teacher and there is none.
    pub fn loss(self, student: &Tensor, labels: &Tensor, teacher: Option<&Tensor>) -> Result<Loss> {
        let (student, rows) = (wide(student), student.size()[0] as f64);
        let hard = student.cross_entropy_loss::<Tensor>(labels, None, Reduction::Sum, UNLABELLED, 0.0) / rows;
        let (temperature, by_hard, weights) = self.settings();
        if weights.is_empty() {
            return Ok(Loss { total: hard.shallow_clone(), soft: hard.zeros_like(), hard });
        }
        let missing = || Error::recipe("teacher", "none", "distillation needs a teacher's recipe under [teacher]");
        let teacher = teacher.map(wide).ok_or_else(missing)?;
        let softened = || [&student, &teacher].map(|t| (t / temperature).log_softmax(-1, t.kind()));
        let (textbook, only) = (temperature * temperature / rows, weights[0].1);
        let (soft, by_soft) = match self {
            Objective::CrossEntropy {} | Objective::Distillation { .. } => (divergence(softened()) * textbook, only),
            Objective::DistillationPerElement { .. } => (divergence(softened()) * (1.0 / student.numel() as f64), only),
            Objective::LogitMse { .. } => (student.mse_loss(&teacher, Reduction::Mean), only),
            Objective::Decoupled { target, others, .. } => {
                let [of_target, of_others] = decoupled(softened(), labels);
                ((of_target * target + of_others * others) * textbook, 1.0)
            }
            Objective::Relational { inter, intra, .. } => {
                let [student, teacher] = softened().map(|t| t.exp());
                let distance = |over: i64| 1 - correlation(&student, &teacher, over).mean(student.kind());
                ((distance(1) * inter + distance(0) * intra) * (temperature * temperature), 1.0)
            }
        };
        Ok(Loss { total: &hard * by_hard + &soft * by_soft, hard, soft })
    }
}

/// KL(teacher ‖ student) of log-probabilities `[student, teacher]`, summed over classes and rows.
fn divergence([student, teacher]: [Tensor; 2]) -> Tensor {
    student.kl_div(&teacher, Reduction::Sum, true)
}

/// The two parts of KL(teacher ‖ student): target against the rest, and among the rest; each summed over rows.
fn decoupled(log: [Tensor; 2], labels: &Tensor) -> [Tensor; 2] {
    let likeliest = log[1].argmax(-1, false);
    let target = labels.where_self(&labels.ne(UNLABELLED), &likeliest).unsqueeze(1);
    let others = log[0].ones_like().to_kind(Kind::Bool).scatter_value(1, &target, 0);
    let classes = log[0].size()[1];
    let rest = log.each_ref().map(|log| log.masked_select(&others).view([-1, classes - 1]));
    let pair = |log: &Tensor, rest: &Tensor| {
        Tensor::cat(&[log.gather(1, &target, false), rest.logsumexp([1i64].as_slice(), true)], 1)
    };
    let pairs = [pair(&log[0], &rest[0]), pair(&log[1], &rest[1])];
    [divergence(pairs), divergence(rest.map(|rest| rest.log_softmax(-1, rest.kind())))]
}

/// Pearson's ρ of two matrices along a dimension.
fn correlation(a: &Tensor, b: &Tensor, over: i64) -> Tensor {
    let centred = |x: &Tensor| x - x.mean_dim([over].as_slice(), true, x.kind());
    Tensor::cosine_similarity(&centred(a), &centred(b), over, 1e-8)
}
