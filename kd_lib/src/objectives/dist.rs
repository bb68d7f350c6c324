//! Distillation from a stronger teacher by correlations, DIST (Huang et al. 2022).

use super::{
    Loss, LossInputs, Objective, check_temperature, check_three_classes, check_weights,
    softened_log_probabilities,
};
use crate::Result;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// The dimension of the examples in logits and probabilities.
const EXAMPLES: i64 = 0;
/// The dimension of the classes.
const CLASSES: i64 = 1;

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
        let distance = |dimension: i64| {
            1 - pearson_correlation(&student, &teacher, dimension).mean(student.kind())
        };
        let inter_class = distance(CLASSES);
        let intra_class = distance(EXAMPLES);
        let soft =
            (inter_class * self.beta + intra_class * self.gamma) * (temperature * temperature);
        let hard = inputs.hard_loss();
        let total = &hard * self.hard_weight + &soft;
        Ok(Loss { total, hard, soft })
    }
}

/// Pearson's ρ of two matrices of probabilities `[example, class]` along a dimension:
/// [`CLASSES`] gives `[example]`, [`EXAMPLES`] gives `[class]`.
fn pearson_correlation(student: &Tensor, teacher: &Tensor, dimension: i64) -> Tensor {
    let centred = |x: &Tensor| x - x.mean_dim([dimension].as_slice(), true, x.kind());
    Tensor::cosine_similarity(&centred(student), &centred(teacher), dimension, 1e-8)
}
