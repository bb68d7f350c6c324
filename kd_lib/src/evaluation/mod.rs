//! From a model to scores: logits of a split ([`split_pass`]), [`metrics`], [`calibration`], and
//! whether a difference between runs is statistically distinguishable ([`significance`]). Nothing
//! is trained here.

pub mod calibration;
pub mod metrics;
pub mod predictions;
pub mod significance;
pub mod split_pass;

pub use calibration::{
    CalibrationSplit, ReliabilityBin, TemperatureScaling, fit_smoothed_temperature,
    fit_temperature, reliability_bins,
};
pub use metrics::{ClassScores, Scores, agreement};
pub use predictions::{argmax, probabilities};
pub use split_pass::{SplitPass, remove_kept};

use crate::{Error, Result};
use ndarray::Array2;
use tch::{Device, Kind, Tensor};

/// Scores of logits `[example, class]` against a split's labels.
pub fn score(logits: &Tensor, labels: &[i64]) -> Result<Scores> {
    let labels: Vec<usize> = labels.iter().map(|&label| label as usize).collect();
    Ok(Scores::of(to_array(logits)?.view(), &labels))
}

/// The first row of logits `[example, class]` with a value that is infinite or not a number.
pub fn first_row_not_finite(logits: &Tensor) -> Result<Option<usize>> {
    let finite = Vec::<bool>::try_from(logits.isfinite().all_dim(1, false))?;
    Ok(finite.iter().position(|finite| !finite))
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
