//! From logits to predicted classes and probabilities. See [`super::metrics`] for scores.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};

/// Index of the highest value; the first of equals.
pub fn argmax(row: ArrayView1<f32>) -> usize {
    row.iter()
        .enumerate()
        .fold((0, f32::NEG_INFINITY), |best, (i, &v)| {
            if v > best.1 { (i, v) } else { best }
        })
        .0
}

/// Softmax of each example's logits `[example, class]`, in f64.
pub fn probabilities(logits: ArrayView2<f32>) -> Array2<f64> {
    let logits = logits.mapv(f64::from);
    let highest = logits
        .fold_axis(Axis(1), f64::NEG_INFINITY, |a, b| a.max(*b))
        .insert_axis(Axis(1));
    let exponentials = (logits - highest).exp();
    let sums = exponentials.sum_axis(Axis(1)).insert_axis(Axis(1));
    exponentials / sums
}
