//! Standardized logits against the paper's definition, row by row in plain numbers.

use kd_lib::objectives::{Kd, KdStandardized, Objective, loss_of_logits};
use tch::Tensor;

const STUDENT: [[f64; 3]; 3] = [[1.0, 0.2, -0.5], [0.1, 0.3, 0.2], [-1.0, 0.0, 2.0]];
const TEACHER: [[f64; 3]; 3] = [[3.0, 1.0, -2.0], [-1.0, 0.0, 2.0], [-2.0, 1.0, 1.5]];
const LABELS: [i64; 3] = [0, 2, 2];

fn standardized(row: [f64; 3]) -> [f64; 3] {
    let mean = row.iter().sum::<f64>() / 3.0;
    let squares: f64 = row.iter().map(|logit| (logit - mean).powi(2)).sum();
    let deviation = (squares / 2.0).sqrt();
    row.map(|logit| (logit - mean) / (deviation + 1e-7))
}

fn softmax(row: [f64; 3], temperature: f64) -> [f64; 3] {
    let odds = row.map(|logit| (logit / temperature).exp());
    odds.map(|value| value / odds.iter().sum::<f64>())
}

fn total(objective: &dyn Objective, student: &Tensor, teacher: &Tensor) -> f64 {
    let labels = Tensor::from_slice(&LABELS);
    let loss = loss_of_logits(objective, student, &labels, Some(teacher)).unwrap();
    loss.total.double_value(&[])
}

#[test]
fn the_loss_is_the_divergence_of_standardized_logits() {
    let objective = KdStandardized {
        temperature: 2.0,
        hard_weight: 0.0,
        soft_weight: 1.0,
    };
    let mut expected = 0.0;
    for (student, teacher) in STUDENT.into_iter().zip(TEACHER) {
        let p = softmax(standardized(teacher), 2.0);
        let q = softmax(standardized(student), 2.0);
        expected += (0..3).map(|c| p[c] * (p[c] / q[c]).ln()).sum::<f64>() * 4.0 / 3.0;
    }
    let (student, teacher) = (Tensor::from_slice2(&STUDENT), Tensor::from_slice2(&TEACHER));
    assert!((total(&objective, &student, &teacher) - expected).abs() < 1e-12);
}

#[test]
fn the_scale_of_logits_does_not_matter_and_equal_logits_give_no_division_by_zero() {
    let objective = KdStandardized {
        temperature: 2.0,
        hard_weight: 0.0,
        soft_weight: 1.0,
    };
    let plain = Kd {
        temperature: 2.0,
        hard_weight: 0.0,
        soft_weight: 1.0,
    };
    let (student, teacher) = (Tensor::from_slice2(&STUDENT), Tensor::from_slice2(&TEACHER));
    let scaled = &teacher * 10.0 + 3.0;
    let change = |objective: &dyn Objective| {
        (total(objective, &student, &scaled) - total(objective, &student, &teacher)).abs()
    };
    assert!(change(&objective) < 1e-6 && change(&plain) > 1.0);
    assert!(total(&objective, &student.zeros_like(), &teacher).is_finite());
    assert!(
        KdStandardized {
            temperature: 0.0,
            ..objective
        }
        .validate()
        .is_err()
    );
}
