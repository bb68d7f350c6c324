//! Calibration: how well probabilities match accuracy. Reliability diagrams, expected calibration
//! error, and temperature scaling (Guo et al. 2017). See [`super::metrics`] for accuracy.

use super::predictions::{argmax, probabilities};
use crate::{Error, Result};
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

/// Bins of the reliability diagram and of the calibration error.
pub const BINS: usize = 15;
/// Bisections of the inverse temperature: more than the logits' precision asks for.
const BISECTIONS: usize = 60;

/// Which temperature divides a trained model's logits: `train.temperature_scaling` in a recipe. No
/// prediction changes, only its probability.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TemperatureScaling {
    /// A known one, above 0.
    Fixed(f64),
    /// The one that suits a split: [`fit_smoothed_temperature`].
    FitOn(CalibrationSplit),
}

/// The split that a temperature is fit on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CalibrationSplit {
    /// The dev split; test must not decide anything.
    Dev,
}

impl TemperatureScaling {
    /// Refuses a temperature that is not a number above 0.
    pub fn validate(&self) -> Result<()> {
        match *self {
            TemperatureScaling::Fixed(temperature)
                if !(temperature > 0.0 && temperature.is_finite()) =>
            {
                let fix = "choose a number above 0, or \"dev\"";
                let key = "train.temperature_scaling";
                Err(Error::recipe(key, temperature.to_string(), fix))
            }
            _ => Ok(()),
        }
    }

    /// The temperature for a model with these logits `[example, class]` and labels on dev.
    pub fn temperature(&self, dev_logits: ArrayView2<f32>, dev_labels: &[usize]) -> f64 {
        match *self {
            TemperatureScaling::Fixed(temperature) => temperature,
            TemperatureScaling::FitOn(CalibrationSplit::Dev) => {
                fit_smoothed_temperature(dev_logits, dev_labels)
            }
        }
    }
}

/// One bin of a reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ReliabilityBin {
    /// Examples whose highest probability falls into the bin.
    pub count: usize,
    /// Their mean highest probability.
    pub confidence: f64,
    /// Their fraction of correct predictions.
    pub accuracy: f64,
}

/// The temperature that maximises the likelihood of labels (Guo et al. 2017, section 4.2). Fit it
/// on dev and divide other logits by it. The negative log-likelihood has one minimum in 1/T, which
/// bisection finds.
///
/// ```
/// // 98 % confident and correct three times in four: T lowers the confidence to 75 %.
/// let logits = ndarray::array![[4.0f32, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]];
/// let t = kd_lib::evaluation::fit_temperature(logits.view(), &[0, 0, 0, 1]);
/// assert!((t - 4.0 / 3f64.ln()).abs() < 1e-6);
/// ```
pub fn fit_temperature(logits: ArrayView2<f32>, labels: &[usize]) -> f64 {
    fit_to_certainty(logits, labels, 1.0)
}

/// Like [`fit_temperature`], but each label counts with probability (n + 1) / (n + 2) instead of 1,
/// where n is the number of texts (after Platt 1999, who counts those of a class). Otherwise a model
/// without mistakes on few texts would get a temperature near 0. 1 if there are no texts.
pub fn fit_smoothed_temperature(logits: ArrayView2<f32>, labels: &[usize]) -> f64 {
    if labels.is_empty() {
        return 1.0;
    }
    let texts = labels.len() as f64;
    fit_to_certainty(logits, labels, (texts + 1.0) / (texts + 2.0))
}

/// The temperature that minimises the cross-entropy to targets in which each label has the
/// probability `certainty`, and the other classes share the rest.
fn fit_to_certainty(logits: ArrayView2<f32>, labels: &[usize], certainty: f64) -> f64 {
    let wide = logits.mapv(f64::from);
    let others = (wide.ncols().max(2) - 1) as f64;
    let target_logits: f64 = wide
        .outer_iter()
        .zip(labels)
        .map(|(row, &label)| {
            let mean_other_logit = (row.sum() - row[label]) / others;
            certainty * row[label] + (1.0 - certainty) * mean_other_logit
        })
        .sum();
    // Derivative of the negative log-likelihood with respect to 1/T.
    let slope = |inverse_temperature: f64| -> f64 {
        let scaled = wide.mapv(|logit| (logit * inverse_temperature) as f32);
        (&probabilities(scaled.view()) * &wide).sum() - target_logits
    };
    let (mut low, mut high) = (1e-3, 1e3);
    for _ in 0..BISECTIONS {
        let middle = f64::sqrt(low * high);
        if slope(middle) < 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    1.0 / f64::sqrt(low * high)
}

/// The [`BINS`] bins of a reliability diagram, equal in width.
pub fn reliability_bins(logits: ArrayView2<f32>, labels: &[usize]) -> Vec<ReliabilityBin> {
    let mut bins = vec![ReliabilityBin::default(); BINS];
    let probabilities = probabilities(logits);
    let rows = probabilities.outer_iter().zip(logits.outer_iter());
    for ((row, logits), &label) in rows.zip(labels) {
        let predicted = argmax(logits);
        let confidence = row[predicted];
        let bin = &mut bins[((confidence * BINS as f64) as usize).min(BINS - 1)];
        bin.count += 1;
        bin.confidence += confidence;
        if predicted == label {
            bin.accuracy += 1.0;
        }
    }
    for bin in bins.iter_mut().filter(|b| b.count > 0) {
        bin.confidence /= bin.count as f64;
        bin.accuracy /= bin.count as f64;
    }
    bins
}

/// Expected calibration error: the mean distance of confidence and accuracy over all examples
/// (Guo et al. 2017, equation 3).
pub fn expected_calibration_error(bins: &[ReliabilityBin], examples: usize) -> f64 {
    let share = |bin: &ReliabilityBin| bin.count as f64 / examples.max(1) as f64;
    bins.iter()
        .map(|bin| share(bin) * (bin.accuracy - bin.confidence).abs())
        .sum()
}
