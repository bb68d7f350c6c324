//! Two classifiers behind one trait: [`bert`] (the teacher) and [`bilstm`] (the student), their parameters
//! by name, and pretrained weights in and out. Nothing here knows a loss, a corpus or a run.

pub mod bert;
pub mod bilstm;
pub mod e5;
pub mod params;

pub use bert::{Bert, BertConfig, Pooling};
pub use bilstm::{BiLstm, BiLstmConfig};
pub use params::{Param, Params};

use crate::data::Batch;
use crate::strategies::Precision;
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

/// Whether dropout acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Dropout acts; draws come from libtorch's generator, which the loop seeds before every pass.
    Train,
    /// No dropout.
    Eval,
}

impl Mode {
    /// Dropout with probability `p` under [`Mode::Train`]; the input itself under [`Mode::Eval`].
    pub fn dropout(self, x: &Tensor, p: f64) -> Tensor {
        if self == Mode::Train && p > 0.0 { x.dropout(p, true) } else { x.shallow_clone() }
    }
}

/// A text classifier: ids in, logits out.
pub trait Classifier: std::fmt::Debug + Send {
    /// Logits `[batch, classes]`, always in fp32, whatever the precision inside.
    fn logits(&self, batch: &Batch, mode: Mode, precision: Precision) -> Tensor;

    /// All parameters, by the name that the reference implementation gives them.
    fn params(&self) -> &Params;
}

/// `x · wᵀ + b` in the precision of `x`: the fp32 weights are cast inside the graph, so gradients arrive in fp32.
pub(crate) fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
    x.linear(&weight.to_kind(x.kind()), Some(bias.to_kind(x.kind())))
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
