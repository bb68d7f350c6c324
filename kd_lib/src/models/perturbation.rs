//! An adversarial perturbation of word embeddings, as a forward pass takes it.
//! [`crate::training::adversarial`] computes it.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// Over which values the L2 norm of a perturbation is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormOver {
    /// The whole word-embedding matrix, as in the published experiment. The larger the batch, the
    /// smaller the share of each text.
    #[default]
    Matrix,
    /// Each example's own word vectors, as in the papers.
    Example,
}

/// What is added to word vectors in a pass. It is a leaf of the graph, so that the backward pass
/// gives its gradient, from which the next perturbation is made.
#[derive(Debug)]
pub struct Perturbation {
    /// `[vocab, width]` under [`NormOver::Matrix`], `[batch, seq, width]` under
    /// [`NormOver::Example`].
    pub values: Tensor,
    /// Over which values its norm is taken.
    pub norm_over: NormOver,
}

impl Perturbation {
    /// A leaf with these values.
    pub fn new(values: &Tensor, norm_over: NormOver) -> Perturbation {
        let values = values.detach().set_requires_grad(true);
        Perturbation { values, norm_over }
    }

    /// What is added to the vectors of `ids [batch, seq]`: `[batch, seq, width]`.
    pub fn rows(&self, ids: &Tensor) -> Tensor {
        match self.norm_over {
            NormOver::Matrix => Tensor::embedding(&self.values, ids, -1, false, false),
            NormOver::Example => self.values.shallow_clone(),
        }
    }

    /// L2 norm; under [`NormOver::Example`] the mean over the examples.
    pub fn norm(&self) -> f64 {
        self.norm_over
            .norm(&self.values)
            .mean(Kind::Double)
            .double_value(&[])
    }
}

impl NormOver {
    /// The L2 norm of `values`, in a shape that broadcasts over them.
    pub fn norm(self, values: &Tensor) -> Tensor {
        let dimensions: &[i64] = match self {
            NormOver::Matrix => &[0, 1],
            NormOver::Example => &[1, 2],
        };
        values.norm_scalaropt_dim(2, dimensions, true)
    }
}
