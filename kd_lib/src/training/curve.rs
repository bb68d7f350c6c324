//! The training curve: what a run measured of itself, point by point. [`crate::store`] writes it to
//! files.

use crate::precision::Precision;
use serde::{Deserialize, Serialize};

/// One line of the training curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Updates made.
    pub step: usize,
    /// Training examples processed.
    pub examples: usize,
    /// Learning rate of the last update.
    pub learning_rate: f64,
    /// Mean loss since the previous point.
    pub loss: f64,
    /// Mean hard loss, before the objective weights it.
    pub hard_loss: f64,
    /// Mean soft loss: unweighted if it is one term, the weighted sum if it has several.
    pub soft_loss: f64,
    /// Dev accuracy, if this point follows an evaluation.
    pub dev_accuracy: Option<f64>,
    /// Dev macro-F1, if this point follows an evaluation.
    pub dev_macro_f1: Option<f64>,
    /// Micro-batches of an update; the most since the previous point.
    #[serde(default)]
    pub micro_batches: usize,
    /// The dtype that the encoder's input was observed to have.
    pub compute_dtype: Option<Precision>,
    /// Loss under the last adversarial perturbation.
    pub adversarial_loss: Option<f64>,
    /// L2 norm of the perturbation as the first matmul reads it, after rounding.
    pub perturbation_norm: Option<f64>,
    /// Cosine of that perturbation to the intended one.
    pub perturbation_cosine: Option<f64>,
    /// Loss scale, under fp16.
    pub loss_scale: Option<f64>,
    /// Updates skipped so far because a gradient overflowed, under fp16.
    pub skipped: Option<usize>,
}
