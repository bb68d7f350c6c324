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
    /// IEEE half-precision products; their range is short, so the loss is scaled ([`super::LossScale`]).
    Fp16,
}

impl Precision {
    /// The kind of tensor that the products read.
    pub fn kind(self) -> Kind {
        match self {
            Precision::Fp32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::Fp16 => Kind::Half,
        }
    }

    /// The precision whose products read this kind of tensor.
    pub fn of(kind: Kind) -> Option<Precision> {
        [Precision::Fp32, Precision::Bf16, Precision::Fp16].into_iter().find(|p| p.kind() == kind)
    }

    /// Rounds `x [.., width]` to what the first products read; the gradient comes back in fp32. With `fine` it
    /// becomes two parts side by side, `[.., 2 · width]`, whose sum is `x` to twice the digits: bf16 has 8
    /// binary digits, which would swallow an adversarial perturbation a thousandth of the vector it moves.
    pub fn round(self, x: &Tensor, fine: bool) -> Tensor {
        if self == Precision::Fp32 {
            return x.shallow_clone();
        }
        let coarse = x.to_kind(self.kind());
        if !fine {
            return coarse;
        }
        let rest = (x - coarse.to_kind(Kind::Float)).to_kind(self.kind());
        Tensor::cat(&[coarse, rest], -1)
    }
}

/// The numbers `[.., width]` that rounded ones stand for, in one part or two; fp32 where they were shorter.
pub fn value(rounded: &Tensor, width: i64) -> Tensor {
    if rounded.size().last() == Some(&width) && matches!(rounded.kind(), Kind::Float | Kind::Double) {
        return rounded.shallow_clone();
    }
    rounded.to_kind(Kind::Float).unflatten(-1, [-1, width]).sum_dim_intlist([-2i64].as_slice(), false, None)
}
