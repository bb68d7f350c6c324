//! The dtype of the encoder's matrix products: mixed-precision training (Micikevicius et al. 2018).
//! Master weights, optimizer state, layer norms, the classification head, logits and losses stay in
//! fp32 under every precision; matmuls read a rounded copy of the weights. Where a processor does
//! not multiply the format in hardware, or only slowly ([`crate::device::multiplies`]), matmuls are
//! emulated: the operands are rounded to the format and multiplied in fp32, and the result is
//! rounded to the format. Emulation gives nearly the same accuracy (the state inside an LSTM stays
//! fp32) and no speed. See [`crate::training::GradScaler`] for loss scaling.

use crate::device;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// The dtype of matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats throughout.
    Fp32,
    /// bfloat16 matmuls over fp32 weights. bfloat16 has fp32's range: no loss scaling.
    Bf16,
    /// IEEE half-precision matmuls with loss scaling. Made for GPUs, slow elsewhere.
    Fp16,
}

/// The precision that a recipe asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionSetting {
    /// bf16 if the device multiplies it no slower than fp32, else fp32.
    #[default]
    Auto,
    /// 32-bit floats.
    Fp32,
    /// bfloat16 matmuls.
    Bf16,
    /// IEEE half-precision matmuls with loss scaling.
    Fp16,
}

impl PrecisionSetting {
    /// The precision on a device.
    pub fn resolve(self, device: Device) -> Precision {
        match self {
            PrecisionSetting::Auto => Precision::native(device),
            PrecisionSetting::Fp32 => Precision::Fp32,
            PrecisionSetting::Bf16 => Precision::Bf16,
            PrecisionSetting::Fp16 => Precision::Fp16,
        }
    }
}

/// How many 16-bit numbers hold one input value of the encoder, see [`Precision::round_inputs`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// One number: the rounded value. The clean pass of training and all evaluation use it.
    One,
    /// Two numbers: the rounded value, and what the rounding removed from it, rounded too. Their
    /// sum has about twice as many digits as one number. The adversarial passes use it, because a
    /// perturbation is small compared with the word vector that it is added to: bf16 has 8 binary
    /// digits, and a single rounding would remove most of the perturbation.
    Two,
}

impl Precision {
    /// The fastest precision of a device.
    pub fn native(device: Device) -> Precision {
        if device::multiplies(device, Kind::BFloat16) {
            Precision::Bf16
        } else {
            Precision::Fp32
        }
    }

    /// The tensor kind of this format.
    pub fn kind(self) -> Kind {
        match self {
            Precision::Fp32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::Fp16 => Kind::Half,
        }
    }

    /// Rounds `x` to this format. The result is held in the format's own kind if the device
    /// multiplies it, and in fp32 otherwise. The gradient is rounded on its way back. Under fp32
    /// the result is `x` itself.
    pub fn cast(self, x: &Tensor) -> Tensor {
        if self == Precision::Fp32 {
            return x.shallow_clone();
        }
        let rounded = x.to_kind(self.kind());
        if device::multiplies(x.device(), self.kind()) {
            rounded
        } else {
            rounded.to_kind(Kind::Float)
        }
    }

    /// The format that an operand of a matmul is observed to have: this one, or fp32 if any of its
    /// values does not fit this format.
    pub fn observed(self, factor: &Tensor) -> Precision {
        let fits = || factor.equal(&factor.to_kind(self.kind()).to_kind(factor.kind()));
        if factor.kind() == self.kind() || fits() {
            self
        } else {
            Precision::Fp32
        }
    }

    /// Rounds the encoder's inputs `x [.., width]` to this format. The gradient comes back in fp32.
    /// Under fp32 nothing is rounded, and the result is `x` itself. [`Parts::One`] gives
    /// `[.., width]`. [`Parts::Two`] gives `[.., 2 · width]`: the rounded values, then the rounded
    /// remainders. The first layer multiplies both parts by the same weights and adds the results.
    pub fn round_inputs(self, x: &Tensor, parts: Parts) -> Tensor {
        if self == Precision::Fp32 {
            return x.shallow_clone();
        }
        let coarse = self.cast(x);
        if parts == Parts::One {
            return coarse;
        }
        let rest = self.cast(&(x - coarse.to_kind(Kind::Float)));
        Tensor::cat(&[coarse, rest], -1)
    }
}

/// The values `[.., width]` of rounded inputs in fp32: the inputs themselves if they have one part,
/// the sum of the parts if they have two.
pub fn combine_parts(rounded: &Tensor, width: i64) -> Tensor {
    let full = matches!(rounded.kind(), Kind::Float | Kind::Double);
    if rounded.size().last() == Some(&width) && full {
        return rounded.shallow_clone();
    }
    rounded
        .to_kind(Kind::Float)
        .unflatten(-1, [-1, width])
        .sum_dim_intlist([-2i64].as_slice(), false, None)
}

/// The same values in fp32, or in f64 if they are f64.
pub fn to_full_precision(x: &Tensor) -> Tensor {
    if x.kind() == Kind::Double {
        x.shallow_clone()
    } else {
        x.to_kind(Kind::Float)
    }
}
