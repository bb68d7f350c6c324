//! In which numbers the encoder's matrix products are computed (Micikevicius et al. 2018, mixed precision
//! training). Weights, optimiser state, the inside of layer norms, the heads, logits and losses stay fp32 under every
//! precision; activations between products take the precision's own numbers. Where a processor does not multiply
//! them, the products are imitated: factors and results are rounded, and multiplied in fp32, which is what such a
//! product is (its sums are fp32 everywhere). The figures mean the same; the time does not.

use crate::device;
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
    /// The kind of these numbers.
    pub fn kind(self) -> Kind {
        match self {
            Precision::Fp32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::Fp16 => Kind::Half,
        }
    }

    /// Rounds `x` to these numbers, held in their own kind where the device multiplies them and in fp32 where it
    /// does not; the gradient is rounded on its way back. Under fp32 `x` itself.
    pub fn cast(self, x: &Tensor) -> Tensor {
        if self == Precision::Fp32 {
            return x.shallow_clone();
        }
        let rounded = x.to_kind(self.kind());
        if device::multiplies(x.device(), self) { rounded } else { rounded.to_kind(Kind::Float) }
    }

    /// Of which numbers a product's factor is seen to be made: these, or fp32 where one of them is not.
    pub fn seen(self, factor: &Tensor) -> Precision {
        let holds = || factor.equal(&factor.to_kind(self.kind()).to_kind(factor.kind()));
        if factor.kind() == self.kind() || holds() { self } else { Precision::Fp32 }
    }

    /// Rounds `x [.., width]` to what the first products read; the gradient comes back in fp32. With `fine` it
    /// becomes two parts side by side, `[.., 2 · width]`, whose sum is `x` to twice the digits: bf16 has 8
    /// binary digits, which would swallow an adversarial perturbation a thousandth of the vector it moves.
    pub fn round(self, x: &Tensor, fine: bool) -> Tensor {
        if self == Precision::Fp32 {
            return x.shallow_clone();
        }
        let coarse = self.cast(x);
        if !fine {
            return coarse;
        }
        let rest = self.cast(&(x - coarse.to_kind(Kind::Float)));
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

/// The same numbers in fp32, or in f64 where they are that.
pub(crate) fn wide(x: &Tensor) -> Tensor {
    if x.kind() == Kind::Double { x.shallow_clone() } else { x.to_kind(Kind::Float) }
}
