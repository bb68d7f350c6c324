//! Two classifiers behind one trait: [`bert`] (the teacher) and [`bilstm`] (the student), their parameters
//! by name, and pretrained weights in and out. Nothing here knows a loss, a corpus or a run.

pub mod bert;
pub mod bilstm;
pub mod params;

pub use bert::{Bert, BertConfig, Pooling};
pub use bilstm::{BiLstm, BiLstmConfig};
pub use params::{Param, Params};

use crate::data::Batch;
use crate::strategies::{Perturbation, Precision};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Whether dropout acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Dropout acts; draws come from libtorch's generator, which the loop seeds before every pass.
    Train,
    /// No dropout.
    Eval,
}

impl Mode {
    /// Dropout with probability `p`, to 1 / 65536, under [`Mode::Train`]; the input itself under [`Mode::Eval`]. A
    /// draw of 64 bits decides on four values: libtorch's own dropout draws for each, on one thread.
    pub fn dropout(self, x: &Tensor, p: f64) -> Tensor {
        if self == Mode::Eval || p == 0.0 {
            return x.shallow_clone();
        }
        let draws = Tensor::empty([(x.numel() as i64 + 3) / 4], (Kind::Int64, x.device()));
        let bits = draws.shallow_clone().random_from_(i64::MIN, None).view_dtype(Kind::Int16);
        let kept = bits.narrow(0, 0, x.numel() as i64).view_as(x).ge((p * 65536.0).round() as i64 - 32768);
        // A product with 0 or 1 takes half the time of filling, which asks of each value anew.
        x * kept.to_kind(x.kind()) / (1.0 - p)
    }
}

/// A text classifier: ids in, logits out, in two halves with the rounding to a precision between them.
pub trait Classifier: std::fmt::Debug + Send {
    /// What the first product reads, before any rounding: fp32 `[batch, seq, width]`. A perturbation is added to
    /// the word vectors.
    fn embed(&self, batch: &Batch, mode: Mode, perturbation: Option<&Perturbation>) -> Tensor;

    /// Logits `[batch, classes]`, always in fp32, from embedded tokens that [`Precision::round`] has rounded; the
    /// encoder's products are computed in the same precision.
    fn classify(&self, inputs: &Tensor, batch: &Batch, mode: Mode, precision: Precision) -> Tensor;

    /// The parameter that an attack moves, `[vocabulary, width]`.
    fn word_embedding(&self) -> &Tensor;

    /// All parameters, by the name that the reference implementation gives them.
    fn params(&self) -> &Params;

    /// Logits `[batch, classes]`: both halves in a row.
    fn logits(&self, batch: &Batch, mode: Mode, precision: Precision) -> Tensor {
        self.classify(&precision.round(&self.embed(batch, mode, None), false), batch, mode, precision)
    }
}

/// The vectors `[batch, seq, width]` of `ids [batch, seq]` in `table [vocabulary, width]`, a perturbation added.
pub fn words(table: &Tensor, ids: &Tensor, perturbation: Option<&Perturbation>) -> Tensor {
    let words = Tensor::embedding(table, ids, -1, false, false);
    perturbation.map_or_else(|| words.shallow_clone(), |p| &words + p.rows(ids))
}

/// `x · wᵀ + b` in a precision: the fp32 weights are cast inside the graph, so gradients arrive in fp32. Where `x`
/// is in two parts (see [`Precision::round`]), both meet the same weights.
pub(crate) fn linear(x: &Tensor, [weight, bias]: &[Tensor; 2], precision: Precision) -> Tensor {
    let x = precision.cast(x);
    let [weight, bias] = [&for_parts(weight, &x), bias].map(|w| precision.cast(w).to_kind(x.kind()));
    precision.cast(&x.linear(&weight, Some(bias)))
}

/// `weight [outputs, inputs]`, once for each part of `x [.., parts · inputs]`.
pub(crate) fn for_parts(weight: &Tensor, x: &Tensor) -> Tensor {
    match x.size().last().map_or(1, |width| width / weight.size()[1]) {
        1 => weight.shallow_clone(),
        parts => weight.repeat([1, parts]),
    }
}

/// All that is needed to build a model again: what stands in a run's `model.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Blueprint {
    /// The teacher.
    Bert {
        /// Sizes; `vocab_size` is the number of embedding rows kept.
        config: BertConfig,
        /// How token states become one vector.
        pooling: Pooling,
        /// Number of classes.
        classes: i64,
    },
    /// The student.
    Bilstm {
        /// Sizes.
        config: BiLstmConfig,
    },
}

impl Blueprint {
    /// The model with random first values, drawn from libtorch's generator.
    pub fn build(&self, device: Device) -> Box<dyn Classifier> {
        match self {
            Blueprint::Bert { config, pooling, classes } => Box::new(Bert::new(config, *pooling, *classes, device)),
            Blueprint::Bilstm { config } => Box::new(BiLstm::new(config, device)),
        }
    }
}
