//! Adversarial training (Goodfellow et al. 2015; for text Miyato et al. 2017). After the clean
//! pass, further passes over the same micro-batch read word vectors that are moved in the direction
//! that raises the loss. A perturbation is an input of the forward pass and not a change of the
//! weights, so nothing must be restored. [`super::gradients`] runs the passes in their order.

use crate::data::Batch;
use crate::data::config::check_count;
use crate::models::{NormOver, Perturbation};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// How word vectors are moved: `[adversarial]` in a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Adversarial {
    /// FGM (Miyato et al. 2017, equation 5): one step, `r = ε · g / ‖g‖`, where g is the gradient
    /// of the loss with respect to the word vectors. The weights' gradient is that of the clean
    /// pass plus that of the perturbed one.
    Fgm {
        /// ε: L2 norm of the perturbation.
        epsilon: f64,
        /// Over which values the norm is taken.
        #[serde(default)]
        norm_over: NormOver,
    },
    /// PGD (Madry et al. 2018, section 2.1) in L2: K steps `r ← Π(r + α · g / ‖g‖)` from r = 0,
    /// where Π projects onto `‖r‖ ≤ ε`, and g is the gradient at r. The weights' gradient is that
    /// of the clean pass plus that of the last pass.
    Pgd {
        /// ε: radius of the ball.
        epsilon: f64,
        /// α: length of a step.
        alpha: f64,
        /// K, at least 1. If K · α ≤ ε, the projection never acts.
        steps: usize,
        /// Over which values the norm is taken.
        #[serde(default)]
        norm_over: NormOver,
    },
}

impl Adversarial {
    /// Checks the settings.
    ///
    /// # Errors
    /// If ε or α is not a number above 0, or K is 0.
    pub fn validate(self) -> Result<()> {
        let positive = |key: &str, value: f64| {
            if value > 0.0 && value.is_finite() {
                return Ok(());
            }
            Err(Error::recipe(
                key,
                value.to_string(),
                "choose a number above 0",
            ))
        };
        match self {
            Adversarial::Fgm { epsilon, .. } => positive("adversarial.epsilon", epsilon),
            Adversarial::Pgd {
                epsilon,
                alpha,
                steps,
                ..
            } => {
                positive("adversarial.epsilon", epsilon)?;
                positive("adversarial.alpha", alpha)?;
                check_count("adversarial.steps", steps)
            }
        }
    }

    /// Number of passes after the clean one.
    pub fn passes(self) -> usize {
        match self {
            Adversarial::Fgm { .. } => 1,
            Adversarial::Pgd { steps, .. } => steps,
        }
    }

    fn norm_over(self) -> NormOver {
        match self {
            Adversarial::Fgm { norm_over, .. } | Adversarial::Pgd { norm_over, .. } => norm_over,
        }
    }

    /// A perturbation of zero; a pass with it is the clean pass. `embedding [vocab, width]` is the
    /// matrix that is perturbed. The perturbation has the size of this matrix; with
    /// `norm_over = "example"` it is `[batch, seq, width]`.
    pub fn zero_perturbation(self, embedding: &Tensor, batch: &Batch) -> Perturbation {
        let norm_over = self.norm_over();
        let size = match norm_over {
            NormOver::Matrix => embedding.size(),
            NormOver::Example => [batch.ids.size(), embedding.size()[1..].to_vec()].concat(),
        };
        let values = Tensor::zeros(size, (embedding.kind(), embedding.device()));
        Perturbation::new(&values, norm_over)
    }

    /// The next perturbation, from the last pass's perturbation and the loss's gradient with
    /// respect to it. PGD's is projected onto the ball here.
    pub fn next_perturbation(self, last: &Perturbation, gradient: &Tensor) -> Perturbation {
        let _guard = tch::no_grad_guard();
        let norm = |values: &Tensor| last.norm_over.norm(values);
        // A gradient of zero has no direction: no step, rather than a division by zero.
        let direction = gradient / norm(gradient).clamp_min(1e-12);
        let values = match self {
            Adversarial::Fgm { epsilon, .. } => direction * epsilon,
            Adversarial::Pgd { epsilon, alpha, .. } => {
                let moved = &last.values + direction * alpha;
                // Π: shorter perturbations stay as they are, longer ones get the norm ε.
                let shrink_factor = (epsilon / norm(&moved)).clamp_max(1.0);
                moved * shrink_factor
            }
        };
        Perturbation::new(&values, last.norm_over)
    }
}
