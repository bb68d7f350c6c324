//! From a model to scores: logits of a split, [`metrics`], [`calibration`], and whether a
//! difference between runs is statistically distinguishable ([`significance`]). Nothing is trained
//! here.

pub mod calibration;
pub mod logits;
pub mod metrics;
pub mod significance;

pub use calibration::{ReliabilityBin, fit_temperature, reliability_bins};
pub use logits::{argmax, probabilities};
pub use metrics::{ClassScores, Scores, agreement};

use crate::data::{Batch, TokenizedSplit};
use crate::models::{Classifier, ForwardPass, ModelOutput};
use crate::precision::{Parts, Precision};
use crate::{Error, Result};
use ndarray::Array2;
use tch::{Device, Kind, Tensor};

/// Logits `[example, class]` of a split, in the split's order, fp32 on the CPU. `batches` holds the
/// indices of each batch's examples in the split (see [`crate::data::batch::eval_batches`]).
pub fn predict_logits(
    model: &dyn Classifier,
    split: &TokenizedSplit,
    batches: &[Vec<usize>],
    precision: Precision,
) -> Tensor {
    let pass = ForwardPass::evaluation(precision);
    predict_outputs(model, split, batches, &pass).logits
}

/// Logits `[example, class]` and pooled states `[example, width]` of a split, in the split's order,
/// fp32 on the CPU.
pub fn predict_outputs(
    model: &dyn Classifier,
    split: &TokenizedSplit,
    batches: &[Vec<usize>],
    pass: &ForwardPass,
) -> ModelOutput {
    let _guard = tch::no_grad_guard();
    let device = model.params().device();
    let mut logits = Vec::new();
    let mut hidden: Vec<Vec<Tensor>> = pass.hidden_layers.iter().map(|_| Vec::new()).collect();
    for rows in batches {
        let batch = Batch::collate(split, rows, device);
        let embedded = model.embed(&batch, pass.mode, None);
        let inputs = pass.precision.round_inputs(&embedded, Parts::One);
        let output = model.forward(&inputs, &batch, pass);
        logits.push(output.logits.to_device(Device::Cpu));
        for (parts, states) in hidden.iter_mut().zip(output.hidden) {
            parts.push(states.to_device(Device::Cpu));
        }
    }
    let order: Vec<i64> = batches.iter().flatten().map(|&row| row as i64).collect();
    let order = Tensor::from_slice(&order);
    let in_split_order = |parts: &Vec<Tensor>| {
        let in_batch_order = Tensor::cat(parts, 0);
        in_batch_order
            .zeros_like()
            .index_copy(0, &order, &in_batch_order)
    };
    ModelOutput {
        logits: in_split_order(&logits),
        hidden: hidden.iter().map(in_split_order).collect(),
    }
}

/// Scores of logits `[example, class]` against a split's labels.
pub fn score(logits: &Tensor, labels: &[i64]) -> Result<Scores> {
    let labels: Vec<usize> = labels.iter().map(|&label| label as usize).collect();
    Ok(Scores::of(to_array(logits)?.view(), &labels))
}

/// A tensor `[rows, columns]` as an fp32 array.
pub fn to_array(tensor: &Tensor) -> Result<Array2<f32>> {
    let (rows, columns) = tensor.size2()?;
    let flat = tensor
        .to_device(Device::Cpu)
        .to_kind(Kind::Float)
        .contiguous()
        .view(-1);
    let values = Vec::<f32>::try_from(flat)?;
    Array2::from_shape_vec((rows as usize, columns as usize), values)
        .map_err(|e| Error::Shape(e.to_string()))
}
