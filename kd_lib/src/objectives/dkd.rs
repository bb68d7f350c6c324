//! Decoupled knowledge distillation, DKD (Zhao et al. 2022, equation 7).

use super::{
    Loss, LossInputs, Objective, UNLABELLED, check_temperature, check_three_classes, check_weights,
    kl_divergence, softened_log_probabilities,
};
use crate::Result;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// `hard_weight · CE(s, y) + α · T² · TCKD + β · T² · NCKD`.
///
/// Target-class distillation: `TCKD = KL(b_t ‖ b_s)`, where b is the pair (p_y, 1 − p_y) of the
/// softened distribution p. Non-target-class distillation: `NCKD = KL(q_t ‖ q_s)`, where q is p
/// over the other classes only. For a text without a label, y is the teacher's most probable class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dkd {
    /// T, above 0.
    pub temperature: f64,
    /// Weight of the hard loss.
    pub hard_weight: f64,
    /// α: weight of the target class against the rest.
    pub alpha: f64,
    /// β: weight of the distribution over the other classes.
    pub beta: f64,
}

impl Objective for Dkd {
    fn validate(&self) -> Result<()> {
        check_temperature(self.temperature)?;
        check_weights(&[
            ("alpha", self.alpha),
            ("beta", self.beta),
            ("hard_weight", self.hard_weight),
        ])
    }

    fn validate_classes(&self, classes: usize) -> Result<()> {
        check_three_classes("dkd", classes, "no class is left but the target")
    }

    fn temperature(&self) -> Option<f64> {
        Some(self.temperature)
    }

    fn with_temperature(&self, temperature: f64) -> Option<Box<dyn Objective>> {
        Some(Box::new(Dkd {
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
        let likeliest = teacher.argmax(-1, false);
        let labelled = inputs.labels.ne(UNLABELLED);
        let target = inputs.labels.where_self(&labelled, &likeliest).unsqueeze(1);
        let student = Decoupled::new(&student, &target);
        let teacher = Decoupled::new(&teacher, &target);
        let tckd = kl_divergence(&student.target, &teacher.target);
        let nckd = kl_divergence(&student.others, &teacher.others);
        let weighted = tckd * self.alpha + nckd * self.beta;
        let soft = weighted * (temperature * temperature / batch_size);
        let hard = inputs.hard_loss();
        let total = &hard * self.hard_weight + &soft;
        Ok(Loss { total, hard, soft })
    }
}

/// The two parts of a distribution, as log-probabilities.
struct Decoupled {
    /// `[batch, 2]`: the target class and the rest.
    target: Tensor,
    /// `[batch, classes − 1]`: the other classes among themselves.
    others: Tensor,
}

impl Decoupled {
    /// Decouples log-probabilities `[batch, classes]` at the classes `target [batch, 1]`.
    fn new(log_probabilities: &Tensor, target: &Tensor) -> Decoupled {
        let classes = log_probabilities.size()[1];
        let is_other = log_probabilities
            .ones_like()
            .to_kind(Kind::Bool)
            .scatter_value(1, target, 0);
        let others = log_probabilities
            .masked_select(&is_other)
            .view([-1, classes - 1]);
        let target_log_probability = log_probabilities.gather(1, target, false);
        let others_log_probability = others.logsumexp([1i64].as_slice(), true);
        Decoupled {
            target: Tensor::cat(&[target_log_probability, others_log_probability], 1),
            others: others.log_softmax(-1, others.kind()),
        }
    }
}
