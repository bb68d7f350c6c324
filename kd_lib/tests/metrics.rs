//! Metrics on rows that a reader can compute by hand. The comparison with scikit-learn is in
//! `parity.rs`.

use kd_lib::evaluation::calibration::BINS;
use kd_lib::evaluation::significance::{difference, share_of_gap};
use kd_lib::evaluation::{
    CalibrationSplit, Scores, TemperatureScaling, agreement, argmax, fit_temperature,
    probabilities, reliability_bins,
};
use ndarray::{Array2, array};

fn near(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-9, "{a} is not {b}");
}

/// Logits whose softmax is these probabilities.
fn logits<const N: usize>(rows: [[f64; N]; 4]) -> Array2<f32> {
    Array2::from_shape_fn((4, N), |(r, c)| rows[r][c].ln() as f32)
}

#[test]
fn softmax_is_correct_for_large_logits() {
    let p = probabilities(
        array![
            [0f32, 3f32.ln()],
            [1000.0, 1000.0 + 3f32.ln()],
            [-1000.0, -1000.0]
        ]
        .view(),
    );
    for (row, high) in [(0, 0.75), (1, 0.75), (2, 0.5)] {
        assert!(
            (p[[row, 1]] - high).abs() < 1e-5 && (p.row(row).sum() - 1.0).abs() < 1e-12,
            "{p}"
        );
    }
}

#[test]
fn the_first_of_equal_logits_is_the_prediction() {
    assert_eq!(argmax(array![1f32, 2.0, 2.0].view()), 1);
    assert_eq!(
        argmax(array![f32::NEG_INFINITY, f32::NEG_INFINITY].view()),
        0
    );
}

#[test]
fn scores_are_empty_if_and_only_if_there_are_no_examples() {
    let nothing = Scores::of(Array2::zeros((0, 2)).view(), &[]);
    assert!(nothing.is_empty() && nothing.accuracy == 0.0 && nothing.calibration_error == 0.0);
    assert!(!Scores::of(array![[0f32, 1.0]].view(), &[1]).is_empty());
}

#[test]
fn without_a_seed_there_is_no_difference_and_no_share_of_a_gap() {
    assert!(difference(&[vec![true]], &[]).is_none());
    assert!(share_of_gap(&[vec![true]], &[], &[true]).is_none());
}

#[test]
fn fit_temperature_finds_temperatures_above_and_below_one() {
    // Correct three times in four. A confidence of 98 % is lowered to 75 %, one of 62 % is raised.
    for gap in [4.0, 0.5] {
        let found = fit_temperature(
            Array2::from_shape_fn((4, 2), |(_, c)| if c == 0 { gap } else { 0.0 }).view(),
            &[0, 0, 0, 1],
        );
        assert!((found - f64::from(gap) / 3f64.ln()).abs() < 1e-5, "{found}");
    }
    // Logits of several sizes: at the temperature found, the likelihood is higher than a hundredth
    // to either side.
    let (z, labels) = (
        array![
            [3f32, 0.0, -1.0],
            [0.5, 1.5, 0.0],
            [2.0, 1.0, 0.0],
            [0.0, 0.2, 0.1]
        ],
        [0, 1, 1, 2],
    );
    let found = fit_temperature(z.view(), &labels);
    let likelihood = |t: f64| {
        let p = probabilities(z.mapv(|v| (f64::from(v) / t) as f32).view());
        labels
            .iter()
            .enumerate()
            .map(|(row, &label)| p[[row, label]].ln())
            .sum::<f64>()
    };
    assert!(
        likelihood(found) > likelihood(found * 1.01)
            && likelihood(found) > likelihood(found / 1.01),
        "{found}"
    );
}

/// Eight texts, all right: each label counts as 9/10 certain, so the gap of 2 becomes ln 9.
#[test]
fn temperature_scaling_does_not_take_a_small_split_for_proof() {
    let dev = Array2::from_shape_fn((8, 2), |(_, class)| 2.0 * class as f32);
    let on_dev = TemperatureScaling::FitOn(CalibrationSplit::Dev);
    let found = on_dev.temperature(dev.view(), &[1; 8]);
    assert!((found - 2.0 / 9f64.ln()).abs() < 1e-5, "{found}");
    near(
        TemperatureScaling::Fixed(0.5).temperature(dev.view(), &[1; 8]),
        0.5,
    );
}

#[test]
fn reliability_bins_group_rows_by_confidence() {
    // Confidences .9, .9, .55 and 1 (the last bin's edge); right, wrong, right, right.
    let rows = logits([[0.9, 0.1], [0.9, 0.1], [0.45, 0.55], [1.0, 1e-30]]);
    let bins = reliability_bins(rows.view(), &[0, 1, 1, 0]);
    assert_eq!(
        bins.iter().map(|b| b.count).collect::<Vec<_>>(),
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 2, 1]
    );
    let [nine, half, last] = [13, 8, BINS - 1].map(|bin| bins[bin]);
    assert!((nine.confidence - 0.9).abs() < 1e-6 && nine.accuracy == 0.5);
    assert!(
        (half.confidence - 0.55).abs() < 1e-6 && half.accuracy == 1.0 && last.confidence == 1.0
    );
    let error = Scores::of(rows.view(), &[0, 1, 1, 0]).calibration_error;
    assert!((error - (0.5 * 0.4 + 0.25 * 0.45)).abs() < 1e-6, "{error}");
}

#[test]
fn agreement_is_the_fraction_of_equal_predictions() {
    let (a, b) = (
        array![[1f32, 0.0], [0.0, 1.0], [2.0, 1.0], [0.0, 3.0]],
        array![[5f32, 0.0], [1.0, 0.0], [9.0, 1.0], [0.0, 1.0]],
    );
    near(agreement(a.view(), b.view()), 0.75);
    near(
        agreement(a.slice(ndarray::s![..0, ..]), b.slice(ndarray::s![..0, ..])),
        0.0,
    );
}
