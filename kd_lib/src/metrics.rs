//! Figures of merit from logits and labels, in f64: accuracy, macro precision / recall / F1 (over all classes; one that
//! is never predicted counts 0, as in scikit-learn with `labels` and `zero_division=0`), confusion, calibration.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

/// Bins of the reliability diagram and of the calibration error.
pub const BINS: usize = 15;

/// All figures of one model on one split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Number of examples.
    pub examples: usize,
    /// Share of right answers.
    pub accuracy: f64,
    /// Mean precision over classes.
    pub macro_precision: f64,
    /// Mean recall over classes.
    pub macro_recall: f64,
    /// Mean F1 over classes.
    pub macro_f1: f64,
    /// Expected calibration error over [`BINS`] bins (Guo et al. 2017, equation 3).
    pub calibration_error: f64,
    /// By class index.
    pub classes: Vec<ClassScores>,
    /// `confusion[label][prediction]`, counts.
    pub confusion: Vec<Vec<usize>>,
}

/// One class's figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// Right among predicted.
    pub precision: f64,
    /// Right among labelled.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// Examples with this label.
    pub support: usize,
}

/// One bin of a reliability diagram.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Bin {
    /// Examples whose highest probability falls into the bin.
    pub count: usize,
    /// Their mean highest probability.
    pub confidence: f64,
    /// Their share of right answers.
    pub accuracy: f64,
}

impl Scores {
    /// Whether nothing was scored.
    pub fn is_empty(&self) -> bool {
        self.examples == 0
    }

    /// Scores of logits `[example, class]` against labels `[example]`.
    ///
    /// ```
    /// use kd_lib::metrics::Scores;
    /// let logits = ndarray::array![[2.0f32, 0.0], [0.0, 1.0], [3.0, 1.0]];
    /// let scores = Scores::of(logits.view(), &[0, 1, 1]);
    /// assert_eq!(scores.accuracy, 2.0 / 3.0);
    /// assert_eq!(scores.confusion, [[1, 0], [1, 1]]);
    /// ```
    pub fn of(logits: ArrayView2<f32>, labels: &[usize]) -> Scores {
        let classes = logits.ncols();
        let mut confusion = vec![vec![0; classes]; classes];
        for (row, &label) in logits.outer_iter().zip(labels) {
            confusion[label][argmax(row)] += 1;
        }
        let per_class: Vec<ClassScores> = (0..classes).map(|class| class_scores(&confusion, class)).collect();
        let mean = |f: fn(&ClassScores) -> f64| per_class.iter().map(f).sum::<f64>() / classes.max(1) as f64;
        let right: usize = (0..classes).map(|c| confusion[c][c]).sum();
        Scores {
            examples: labels.len(),
            accuracy: ratio(right, labels.len()),
            macro_precision: mean(|c| c.precision),
            macro_recall: mean(|c| c.recall),
            macro_f1: mean(|c| c.f1),
            calibration_error: calibration_error(&reliability(logits, labels), labels.len()),
            classes: per_class,
            confusion,
        }
    }
}

/// Index of the highest value; the first of equals.
pub fn argmax(row: ArrayView1<f32>) -> usize {
    row.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (i, &v)| if v > best.1 { (i, v) } else { best }).0
}

/// Softmax of each row, in f64.
pub fn probabilities(logits: ArrayView2<f32>) -> Array2<f64> {
    let logits = logits.mapv(f64::from);
    let highest = logits.fold_axis(Axis(1), f64::NEG_INFINITY, |a, b| a.max(*b)).insert_axis(Axis(1));
    let odds = (logits - highest).exp();
    let sums = odds.sum_axis(Axis(1)).insert_axis(Axis(1));
    odds / sums
}

/// The temperature that makes logits likeliest to be right about these labels (Guo et al. 2017, section 4.2); fit it
/// on dev, divide other logits by it. The negative log-likelihood has one minimum in 1/T, found here by bisection.
///
/// ```
/// // Sure of itself (98 %) and right three times in four: T brings it down to 75 %.
/// let logits = ndarray::array![[4.0f32, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]];
/// let t = kd_lib::metrics::best_temperature(logits.view(), &[0, 0, 0, 1]);
/// assert!((t - 4.0 / 3f64.ln()).abs() < 1e-6);
/// ```
pub fn best_temperature(logits: ArrayView2<f32>, labels: &[usize]) -> f64 {
    let slope = |coldness: f64| -> f64 {
        let p = probabilities(logits.mapv(|v| (f64::from(v) * coldness) as f32).view());
        let expected = (&p * &logits.mapv(f64::from)).sum();
        expected - logits.outer_iter().zip(labels).map(|(row, &label)| f64::from(row[label])).sum::<f64>()
    };
    let (mut low, mut high) = (1e-3, 1e3);
    for _ in 0..60 {
        let middle = f64::sqrt(low * high);
        *(if slope(middle) < 0.0 { &mut low } else { &mut high }) = middle;
    }
    1.0 / f64::sqrt(low * high)
}

/// The reliability diagram's [`BINS`] bins, equal in width.
pub fn reliability(logits: ArrayView2<f32>, labels: &[usize]) -> Vec<Bin> {
    let mut bins = vec![Bin::default(); BINS];
    for ((row, logit_row), &label) in probabilities(logits).outer_iter().zip(logits.outer_iter()).zip(labels) {
        let guess = argmax(logit_row);
        let bin = &mut bins[((row[guess] * BINS as f64) as usize).min(BINS - 1)];
        bin.count += 1;
        bin.confidence += row[guess];
        bin.accuracy += f64::from(u8::from(guess == label));
    }
    for bin in bins.iter_mut().filter(|b| b.count > 0) {
        bin.confidence /= bin.count as f64;
        bin.accuracy /= bin.count as f64;
    }
    bins
}

/// Share of examples on which two models answer alike.
pub fn agreement(a: ArrayView2<f32>, b: ArrayView2<f32>) -> f64 {
    let same = a.outer_iter().zip(b.outer_iter()).filter(|(x, y)| argmax(*x) == argmax(*y)).count();
    ratio(same, a.nrows())
}

fn calibration_error(bins: &[Bin], examples: usize) -> f64 {
    bins.iter().map(|b| b.count as f64 / examples.max(1) as f64 * (b.accuracy - b.confidence).abs()).sum()
}

fn class_scores(confusion: &[Vec<usize>], class: usize) -> ClassScores {
    let right = confusion[class][class];
    let predicted: usize = confusion.iter().map(|row| row[class]).sum();
    let support: usize = confusion[class].iter().sum();
    ClassScores {
        precision: ratio(right, predicted),
        recall: ratio(right, support),
        f1: ratio(2 * right, predicted + support),
        support,
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
