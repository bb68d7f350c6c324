//! Metrics from logits and labels, in f64: accuracy, macro precision, recall and F1, and the
//! confusion matrix. The macro mean is over all classes, and a class that is never predicted counts
//! as 0, as in scikit-learn with `labels` and `zero_division=0`. See [`super::calibration`] for
//! calibration.

use super::calibration::{expected_calibration_error, reliability_bins};
use super::predictions::argmax;
use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

/// All metrics of one model on one split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Number of examples.
    pub examples: usize,
    /// Fraction of correct predictions.
    pub accuracy: f64,
    /// Mean precision over classes.
    pub macro_precision: f64,
    /// Mean recall over classes.
    pub macro_recall: f64,
    /// Mean F1 over classes.
    pub macro_f1: f64,
    /// Expected calibration error over [`super::calibration::BINS`] bins (Guo et al. 2017,
    /// equation 3).
    pub calibration_error: f64,
    /// By class index.
    pub classes: Vec<ClassScores>,
    /// `confusion[label][prediction]`, counts.
    pub confusion: Vec<Vec<usize>>,
}

/// One class's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ClassScores {
    /// Correct ones among the predicted.
    pub precision: f64,
    /// Correct ones among the labelled.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// Examples with this label.
    pub support: usize,
}

impl Scores {
    /// Whether nothing was scored.
    pub fn is_empty(&self) -> bool {
        self.examples == 0
    }

    /// Scores of logits `[example, class]` against labels `[example]`.
    ///
    /// ```
    /// use kd_lib::evaluation::Scores;
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
        let per_class: Vec<ClassScores> = (0..classes)
            .map(|class| class_scores(&confusion, class))
            .collect();
        let mean = |f: fn(&ClassScores) -> f64| {
            per_class.iter().map(f).sum::<f64>() / classes.max(1) as f64
        };
        let correct: usize = (0..classes).map(|c| confusion[c][c]).sum();
        Scores {
            examples: labels.len(),
            accuracy: ratio(correct, labels.len()),
            macro_precision: mean(|c| c.precision),
            macro_recall: mean(|c| c.recall),
            macro_f1: mean(|c| c.f1),
            calibration_error: expected_calibration_error(
                &reliability_bins(logits, labels),
                labels.len(),
            ),
            classes: per_class,
            confusion,
        }
    }
}

/// Fraction of examples on which two models predict the same class.
pub fn agreement(a: ArrayView2<f32>, b: ArrayView2<f32>) -> f64 {
    let same = a
        .outer_iter()
        .zip(b.outer_iter())
        .filter(|(x, y)| argmax(*x) == argmax(*y))
        .count();
    ratio(same, a.nrows())
}

fn class_scores(confusion: &[Vec<usize>], class: usize) -> ClassScores {
    let correct = confusion[class][class];
    let predicted: usize = confusion.iter().map(|row| row[class]).sum();
    let support: usize = confusion[class].iter().sum();
    ClassScores {
        precision: ratio(correct, predicted),
        recall: ratio(correct, support),
        f1: ratio(2 * correct, predicted + support),
        support,
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}
