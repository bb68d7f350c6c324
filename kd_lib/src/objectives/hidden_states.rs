//! Distillation of hidden states: a learned projection of the student's pooled states onto the
//! teacher's (Romero et al. 2015, FitNets, equation 3), with a mean squared error and a cosine
//! distance (the latter from Sanh et al. 2019, DistilBERT), beside the loss on logits of
//! [`super::Kd`]. Teacher and student split texts into different tokens, so that only states that
//! are pooled over a text can be compared.

use super::{
    HiddenLayers, HiddenWidths, Kd, Loss, LossInputs, Objective, ObjectiveParameter, check_weights,
};
use crate::models::layers::uniform;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Reduction, Tensor};

/// `KD(s, t, y) + Σ over pairs of layers (mse_weight · mean((W h_s − h_t)²) + cosine_weight ·
/// mean(1 − cos(W h_s, h_t)))` with pooled states h of a pair of layers and a matrix W that is
/// learned for each pair. The means are over examples (and values for the squared error).
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
        self.kd().validate()?;
        check_weights(&[
            ("mse_weight", self.mse_weight),
            ("cosine_weight", self.cosine_weight),
        ])?;
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
        let mut states = total.zeros_like();
        let teacher = inputs.teacher.map_or(&[][..], |teacher| &teacher.hidden);
        for ((student, teacher), projection) in inputs
            .student
            .hidden
            .iter()
            .zip(teacher)
            .zip(inputs.parameters)
        {
            let projected = student.linear(projection, None::<Tensor>);
            let error = projected.mse_loss(teacher, Reduction::Mean);
            let cosine = Tensor::cosine_similarity(&projected, teacher, 1, 1e-8);
            let distance = 1 - cosine.mean(cosine.kind());
            states = states + error * self.mse_weight + distance * self.cosine_weight;
        }
        Ok(Loss {
            total: total + &states,
            hard,
            soft: soft * self.soft_weight + states,
        })
    }
}
