//! In which numbers the encoder's matrix products are computed (Micikevicius et al. 2018, mixed precision
//! training). Weights, optimiser state, the inside of layer norms, the heads, logits and losses stay fp32 under every
//! precision; activations between products take the precision's own kind.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

/// The numbers of the products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats throughout.
    Fp32,
    /// bfloat16 products over fp32 weights; its range is fp32's, so the loss needs no scaling.
    Bf16,
}

impl Precision {
    /// Casts activations before the products; the gradient comes back in fp32.
    pub fn cast(self, x: &Tensor) -> Tensor {
        match self {
            Precision::Fp32 => x.shallow_clone(),
            Precision::Bf16 => x.to_kind(Kind::BFloat16),
        }
    }
}
