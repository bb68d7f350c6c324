//! The layers that the networks share: dropout, word embedding, linear map, layer norm, pooling.
//! Each is a function of plain tensors under a precision.

use super::{Params, Perturbation};
use crate::precision::{Precision, combine_parts};
use tch::{Device, Kind, Tensor};

/// Whether dropout acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Dropout acts. It draws from libtorch's generator, which the loop seeds before every pass.
    Train,
    /// No dropout.
    Eval,
}

impl Mode {
    /// Dropout with probability `p` (in steps of 1/65536) under [`Mode::Train`]; the input itself
    /// under [`Mode::Eval`]. One 64-bit draw decides on four values: libtorch's own dropout draws
    /// for each value, on one thread.
    pub fn dropout(self, x: &Tensor, p: f64) -> Tensor {
        if self == Mode::Eval || p == 0.0 {
            return x.shallow_clone();
        }
        let values = x.numel() as i64;
        let draws = Tensor::empty([(values + 3) / 4], (Kind::Int64, x.device()));
        let bits = draws
            .shallow_clone()
            .random_from_(i64::MIN, None)
            .view_dtype(Kind::Int16);
        let threshold = (p * 65536.0).round() as i64 - 32768;
        let kept = bits.narrow(0, 0, values).view_as(x).ge(threshold);
        // A product with 0 or 1 takes half the time of `masked_fill`.
        x * kept.to_kind(x.kind()) / (1.0 - p)
    }
}

/// A linear map `x · wᵀ + b`.
#[derive(Debug)]
pub struct Linear {
    /// `[outputs, inputs]`.
    pub weight: Tensor,
    /// `[outputs]`.
    pub bias: Tensor,
}

impl Linear {
    /// `[.., inputs]` → `[.., outputs]` in a precision. The weights are cast inside the graph if
    /// they are not rounded yet (see [`super::Params::round`]), and their gradients have the format
    /// of the leaf. If `x` has two parts (see [`Precision::round_inputs`]), both are multiplied by
    /// the same weights.
    pub fn forward(&self, x: &Tensor, precision: Precision) -> Tensor {
        let x = precision.cast(x);
        let weight = precision
            .cast(&repeat_for_parts(&self.weight, &x))
            .to_kind(x.kind());
        let bias = precision.cast(&self.bias).to_kind(x.kind());
        precision.cast(&x.linear(&weight, Some(bias)))
    }
}

/// Layer normalization over the last dimension.
#[derive(Debug)]
pub struct LayerNorm {
    /// `[width]`.
    pub weight: Tensor,
    /// `[width]`.
    pub bias: Tensor,
    /// Added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// In fp32 whatever the input's kind: GPUs refuse bf16 input with fp32 weights.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let width = self.weight.size();
        x.to_kind(Kind::Float).layer_norm(
            width,
            Some(&self.weight),
            Some(&self.bias),
            self.eps,
            false,
        )
    }
}

/// The vectors `[batch, seq, width]` of `ids [batch, seq]` in `table [vocab, width]`, plus a
/// perturbation.
pub fn embed_tokens(table: &Tensor, ids: &Tensor, perturbation: Option<&Perturbation>) -> Tensor {
    let words = Tensor::embedding(table, ids, -1, false, false);
    match perturbation {
        Some(perturbation) => &words + perturbation.rows(ids),
        None => words,
    }
}

/// Mean over real tokens in fp32: `states [batch, seq, width]`, `mask [batch, seq]` →
/// `[batch, width]`.
pub fn mean_over_tokens(states: &Tensor, mask: &Tensor) -> Tensor {
    let states = states.to_kind(Kind::Float);
    let weights = mask.to_kind(Kind::Float).unsqueeze(2);
    let sums = (states * &weights).sum_dim_intlist([1i64].as_slice(), false, None);
    sums / weights.sum_dim_intlist([1i64].as_slice(), false, None)
}

/// Mean `[batch, width]` of the embedded tokens of each text: the pooled state of layer 0. `inputs`
/// are the rounded word vectors of one part or two, `embedding` is `[vocab, width]`.
pub fn mean_embedding(inputs: &Tensor, embedding: &Tensor, mask: &Tensor) -> Tensor {
    let embedded = combine_parts(inputs, embedding.size()[1]);
    mean_over_tokens(&embedded, mask)
}

/// `weight [outputs, inputs]`, repeated for each part of `x [.., parts · inputs]`.
pub fn repeat_for_parts(weight: &Tensor, x: &Tensor) -> Tensor {
    let parts = x.size().last().map_or(1, |width| width / weight.size()[1]);
    if parts == 1 {
        return weight.shallow_clone();
    }
    weight.repeat([1, parts])
}

/// A tensor of values drawn uniformly from ±`bound`, on the CPU.
pub fn uniform(size: &[i64], bound: f64) -> Tensor {
    Tensor::empty(size, (Kind::Float, Device::Cpu)).uniform_(-bound, bound)
}

/// A linear map with PyTorch's initial values: weight and bias from U(±1/√inputs).
pub fn new_linear(params: &mut Params, name: &str, outputs: i64, inputs: i64) -> Linear {
    let bound = 1.0 / (inputs as f64).sqrt();
    Linear {
        weight: params.add(
            format!("{name}.weight"),
            uniform(&[outputs, inputs], bound),
            true,
        ),
        bias: params.add(format!("{name}.bias"), uniform(&[outputs], bound), false),
    }
}
