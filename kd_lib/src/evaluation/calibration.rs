//! Calibration: how well probabilities match accuracy. Reliability diagrams, expected calibration
//! error, and temperature scaling (Guo et al. 2017). See [`super::metrics`] for accuracy.

use super::predictions::{argmax, probabilities};
use ndarray::ArrayView2;

/// Bins of the reliability diagram and of the calibration error.
pub const BINS: usize = 15;
/// Bisections of the inverse temperature: enough for every digit of an f64.
const BISECTIONS: usize = 60;

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
    let wide = logits.mapv(f64::from);
    let of_labels: f64 = wide
        .outer_iter()
        .zip(labels)
        .map(|(row, &label)| row[label])
        .sum();
    // Derivative of the negative log-likelihood with respect to 1/T.
    let slope = |inverse_temperature: f64| -> f64 {
        let scaled = wide.mapv(|logit| (logit * inverse_temperature) as f32);
        (&probabilities(scaled.view()) * &wide).sum() - of_labels
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
