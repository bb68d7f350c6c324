//! Adversarial training (Goodfellow et al. 2015; for text Miyato et al. 2017): after the clean pass, further
//! passes over the same micro-batch with its word embedding moved in the direction that raises the loss.
//! A perturbation is an input of the forward pass, not a change of the weights, so there is nothing to put back.
//! Which passes there are, and in which order, is the loop's business.

use crate::data::Batch;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// How the word embedding is moved.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Attack {
    /// Miyato et al. 2017, equation 5: one step, r = ε · g / ‖g‖.
    Fgm {
        /// ε, the perturbation's L2 norm.
        epsilon: f64,
        /// What is moved as one.
        #[serde(default)]
        scope: Scope,
    },
    /// Madry et al. 2018, equation 3, in L2: K steps r ← Π(r + α · g / ‖g‖), where Π projects onto ‖r‖ ≤ ε.
    /// The weights' gradient is that of the clean pass and of the last one.
    Pgd {
        /// ε, the ball's radius.
        epsilon: f64,
        /// α, the length of a step.
        alpha: f64,
        /// K, at least 1. With K · α ≤ ε the projection never acts.
        steps: usize,
        /// What is moved as one.
        #[serde(default)]
        scope: Scope,
    },
}

/// Over what an attack's L2 norm is taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The whole word-embedding matrix, as in the published experiment: a larger batch gets a smaller share each.
    #[default]
    Matrix,
    /// Each example's own word vectors, as in the papers.
    Example,
}

/// What is added to word vectors during a pass: a leaf that collects the gradient of the next step.
#[derive(Debug)]
pub struct Perturbation {
    /// `[vocabulary, width]` under [`Scope::Matrix`], `[batch, seq, width]` under [`Scope::Example`].
    pub values: Tensor,
    scope: Scope,
}

impl Perturbation {
    fn leaf(values: Tensor, scope: Scope) -> Perturbation {
        Perturbation { values: values.detach().set_requires_grad(true), scope }
    }

    /// What is added to the vectors of `ids [batch, seq]`, `[batch, seq, width]`.
    pub fn rows(&self, ids: &Tensor) -> Tensor {
        match self.scope {
            Scope::Matrix => Tensor::embedding(&self.values, ids, -1, false, false),
            Scope::Example => self.values.shallow_clone(),
        }
    }

    /// L2 norm; under [`Scope::Example`] the mean over the examples'.
    pub fn norm(&self) -> f64 {
        norm(&self.values, self.scope).mean(Kind::Double).double_value(&[])
    }
}

impl Attack {
    /// ε, α and K; of one step its length is ε.
    pub fn settings(self) -> (f64, f64, usize) {
        match self {
            Attack::Fgm { epsilon, .. } => (epsilon, epsilon, 1),
            Attack::Pgd { epsilon, alpha, steps, .. } => (epsilon, alpha, steps),
        }
    }

    /// Passes after the clean one.
    pub fn passes(self) -> usize {
        self.settings().2
    }

    /// No perturbation yet; a pass with it is the clean pass. `embedding [vocabulary, width]` is what is attacked.
    pub fn start(self, embedding: &Tensor, batch: &Batch) -> Perturbation {
        let (Attack::Fgm { scope, .. } | Attack::Pgd { scope, .. }) = self;
        let (rows, width) = embedding.size2().unwrap_or_default();
        let options = (embedding.kind(), embedding.device());
        let values = match scope {
            Scope::Matrix => Tensor::zeros([rows, width], options),
            Scope::Example => Tensor::zeros([batch.ids.size()[0], batch.ids.size()[1], width], options),
        };
        Perturbation::leaf(values, scope)
    }

    /// The next perturbation, from the one of the last pass and the loss's gradient with respect to it.
    pub fn step(self, from: &Perturbation, gradient: &Tensor) -> Perturbation {
        let _guard = tch::no_grad_guard();
        // A gradient of zero, or one whose squares are, points nowhere: no step, rather than a division by zero.
        let direction = gradient / norm(gradient, from.scope).clamp_min(1e-12);
        let moved = match self {
            Attack::Fgm { epsilon, .. } => direction * epsilon,
            Attack::Pgd { epsilon, alpha, .. } => {
                let moved = &from.values + direction * alpha;
                let shrink = (epsilon / norm(&moved, from.scope)).clamp_max(1.0);
                moved * shrink
            }
        };
        Perturbation::leaf(moved, from.scope)
    }
}

/// L2 norm over what is moved as one, in a shape that broadcasts over `values`.
fn norm(values: &Tensor, scope: Scope) -> Tensor {
    let over: &[i64] = if scope == Scope::Matrix { &[0, 1] } else { &[1, 2] };
    values.norm_scalaropt_dim(2, over, true)
}
