//! Distillation of hidden states. A learned matrix projects the student's pooled states to the
//! teacher's width. Two distances are added to [`super::Kd`]: the mean squared error (Romero et al.
//! 2015, FitNets, equation 3) and the cosine distance (Sanh et al. 2019, DistilBERT). Teacher and
//! student split texts into different tokens, so only states that are pooled over a text can be
//! compared.

use super::{
    HiddenLayers, HiddenWidths, Kd, Loss, LossInputs, Objective, ObjectiveParameter,
    check_temperature, check_weights,
};
use crate::models::layers::uniform;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Reduction, Tensor};

/// `KD(s, t, y) + Σ over pairs of layers (mse_weight · mean((W h_s − h_t)²) + cosine_weight ·
/// mean(1 − cos(W h_s, h_t)))` with pooled states h of a pair of layers and a matrix W that is
/// learned for each pair (the paper's regressor). The means are over examples (and values for the
/// squared error); the paper takes half of the squared norm instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HiddenStates {
    /// T of the soft loss on logits, above 0.
    pub temperature: f64,
    /// Weight of the hard loss.
    pub hard_weight: f64,
    /// Weight of the soft loss on logits.
    pub soft_weight: f64,
    /// Weight of the squared error of the states.
    pub mse_weight: f64,
    /// Weight of the cosine distance of the states.
    pub cosine_weight: f64,
    /// The student's layers; 0 is the embedding.
    pub student_layers: Vec<usize>,
    /// The teacher's layers, one for each of the student's.
    pub teacher_layers: Vec<usize>,
}

impl HiddenStates {
    fn kd(&self) -> Kd {
        Kd {
            temperature: self.temperature,
            hard_weight: self.hard_weight,
            soft_weight: self.soft_weight,
        }
    }
}

impl Objective for HiddenStates {
    fn validate(&self) -> Result<()> {
        check_temperature(self.temperature)?;
        check_weights(&[
            ("mse_weight", self.mse_weight),
            ("cosine_weight", self.cosine_weight),
            ("soft_weight", self.soft_weight),
            ("hard_weight", self.hard_weight),
        ])?;
        if self.mse_weight == 0.0 && self.cosine_weight == 0.0 {
            let fix = "raise it or cosine_weight, or choose kd, which needs no hidden states";
            return Err(Error::recipe("objective.mse_weight", "0", fix));
        }
        let pairs = self.student_layers.len();
        if pairs == 0 || pairs != self.teacher_layers.len() {
            let problem = format!("{pairs} and {} layers", self.teacher_layers.len());
            let fix = "name as many teacher_layers as student_layers, at least one";
            return Err(Error::recipe("objective.student_layers", problem, fix));
        }
        Ok(())
    }

    fn hidden_layers(&self) -> HiddenLayers {
        HiddenLayers {
            student: self.student_layers.clone(),
            teacher: self.teacher_layers.clone(),
        }
    }

    /// A matrix `[teacher width, student width]` for each pair of layers, with PyTorch's initial
    /// values of a linear map.
    fn parameters(&self, widths: &HiddenWidths) -> Vec<ObjectiveParameter> {
        let mut parameters = Vec::new();
        for (pair, (student, teacher)) in widths.student.iter().zip(&widths.teacher).enumerate() {
            let bound = 1.0 / (*student as f64).sqrt();
            parameters.push(ObjectiveParameter {
                name: format!("projection{pair}.weight"),
                values: uniform(&[*teacher, *student], bound),
            });
        }
        parameters
    }

    fn temperature(&self) -> Option<f64> {
        Some(self.temperature)
    }

    fn with_temperature(&self, temperature: f64) -> Option<Box<dyn Objective>> {
        Some(Box::new(HiddenStates {
            temperature,
            ..self.clone()
        }))
    }

    fn loss(&self, inputs: &LossInputs) -> Result<Loss> {
        let Loss { total, hard, soft } = self.kd().loss(inputs)?;
        let (student, teacher) = (&inputs.student.hidden, &inputs.teacher()?.hidden);
        let pairs = self.student_layers.len();
        let found = [student.len(), teacher.len(), inputs.parameters.len()];
        if found != [pairs; 3] {
            let problem = format!("{found:?} states and projections for {pairs} pairs of layers");
            return Err(Error::recipe(
                "objective.student_layers",
                problem,
                crate::error::BUG,
            ));
        }
        let mut hidden = total.zeros_like();
        for pair in 0..pairs {
            let projected = student[pair].linear(&inputs.parameters[pair], None::<Tensor>);
            let error = projected.mse_loss(&teacher[pair], Reduction::Mean);
            let cosine = Tensor::cosine_similarity(&projected, &teacher[pair], 1, 1e-8);
            let distance = 1 - cosine.mean(cosine.kind());
            hidden = hidden + error * self.mse_weight + distance * self.cosine_weight;
        }
        Ok(Loss {
            total: total + &hidden,
            hard,
            soft: soft * self.soft_weight + hidden,
        })
    }
}
