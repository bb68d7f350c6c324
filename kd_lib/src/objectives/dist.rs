//! Distillation from a stronger teacher by correlations, DIST (Huang et al. 2022).

use super::{
    Loss, LossInputs, Objective, check_temperature, check_three_classes, check_weights,
    softened_log_probabilities,
};
use crate::Result;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// `hard_weight · CE(s, y) + β · T² · mean(1 − ρ(example)) + γ · T² · mean(1 − ρ(class))` with
/// Pearson's ρ between the softened probabilities of student and teacher. ρ(example) is taken over
/// the classes of an example (inter-class relation), ρ(class) over the examples of a micro-batch
/// for one class (intra-class relation).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dist {
    /// T, above 0.
    pub temperature: f64,
    /// Weight of the hard loss.
    pub hard_weight: f64,
    /// β: weight of the inter-class relation.
    pub beta: f64,
    /// γ: weight of the intra-class relation.
    pub gamma: f64,
}

impl Objective for Dist {
    fn validate(&self) -> Result<()> {
        check_temperature(self.temperature)?;
        check_weights(&[
            ("beta", self.beta),
            ("gamma", self.gamma),
            ("hard_weight", self.hard_weight),
        ])
    }

    fn validate_classes(&self, classes: usize) -> Result<()> {
        let because = "the correlation of an example's two probabilities is always 1 or -1";
        check_three_classes("dist", classes, because)
    }

    fn temperature(&self) -> Option<f64> {
        Some(self.temperature)
    }

    fn with_temperature(&self, temperature: f64) -> Option<Box<dyn Objective>> {
        Some(Box::new(Dist {
            temperature,
            ..*self
        }))
    }

    fn loss(&self, inputs: &LossInputs) -> Result<Loss> {
        let temperature = self.temperature;
        let logits = inputs.student_logits();
        let student = softened_log_probabilities(&logits, temperature).exp();
        let teacher = softened_log_probabilities(&inputs.teacher_logits()?, temperature).exp();
        let distance = |over: i64| 1 - correlation(&student, &teacher, over).mean(student.kind());
        let inter_class = distance(1);
        let intra_class = distance(0);
        let soft =
            (inter_class * self.beta + intra_class * self.gamma) * (temperature * temperature);
        let hard = inputs.hard_loss();
        let total = &hard * self.hard_weight + &soft;
        Ok(Loss { total, hard, soft })
    }
}

/// Pearson's ρ of two matrices along a dimension.
fn correlation(a: &Tensor, b: &Tensor, over: i64) -> Tensor {
    let centred = |x: &Tensor| x - x.mean_dim([over].as_slice(), true, x.kind());
    Tensor::cosine_similarity(&centred(a), &centred(b), over, 1e-8)
}
