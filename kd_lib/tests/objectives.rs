//! Soft losses against their papers' definitions, computed row by row in plain numbers.

use kd_lib::models::ModelOutput;
use kd_lib::objectives::{
    CrossEntropy, Dist, Dkd, Kd, KdStandardized, LogitMse, Loss, LossInputs, Objective, UNLABELLED,
    loss_of_logits,
};
use kd_lib::training::ClassWeights;
use tch::{Kind, Tensor};

const STUDENT: [[f64; 3]; 3] = [[0.2, -0.1, 0.4], [1.5, 0.3, -0.7], [-0.4, 0.9, 0.1]];
const TEACHER: [[f64; 3]; 3] = [[2.0, -2.0, 0.5], [1.0, 0.0, -1.5], [-3.0, 3.0, 0.2]];
const LABELS: [i64; 3] = [2, 0, 1];

fn softened(logits: [f64; 3], temperature: f64) -> [f64; 3] {
    let powers = logits.map(|l| (l / temperature).exp());
    powers.map(|p| p / powers.iter().sum::<f64>())
}

fn divergence(p: &[f64], q: &[f64]) -> f64 {
    p.iter().zip(q).map(|(p, q)| p * (p / q).ln()).sum()
}

/// Both parts of DKD for one row: the target class against the others, and among the others.
fn parts(student: [f64; 3], teacher: [f64; 3], target: usize, temperature: f64) -> [f64; 2] {
    let [p, q] = [teacher, student].map(|logits| softened(logits, temperature));
    let pair = |p: [f64; 3]| [p[target], 1.0 - p[target]];
    let others = |p: [f64; 3]| -> Vec<f64> {
        (0..3)
            .filter(|&c| c != target)
            .map(|c| p[c] / (1.0 - p[target]))
            .collect()
    };
    [
        divergence(&pair(p), &pair(q)),
        divergence(&others(p), &others(q)),
    ]
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| {
        a.iter()
            .zip(b)
            .map(|(a, b)| f(a - mean_a, b - mean_b))
            .sum::<f64>()
    };
    sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
}

/// The loss of the three rows with these labels.
fn loss(objective: &dyn Objective, labels: &[i64]) -> Loss {
    let (student, teacher) = (Tensor::from_slice2(&STUDENT), Tensor::from_slice2(&TEACHER));
    loss_of_logits(
        objective,
        &student,
        &Tensor::from_slice(labels),
        Some(&teacher),
    )
    .unwrap()
}

fn soft(objective: &dyn Objective, labels: &[i64]) -> f64 {
    loss(objective, labels).soft.double_value(&[])
}

fn near(found: f64, expected: f64) {
    let close = (found - expected).abs() <= 1e-12 * expected.abs().max(1.0);
    assert!(close, "{found} is not {expected}");
}

#[test]
fn dkd_weighs_the_target_class_and_the_others_separately() {
    for temperature in [1.0, 4.0] {
        let rows = (0..3).map(|r| parts(STUDENT[r], TEACHER[r], LABELS[r] as usize, temperature));
        let mean = rows.fold(0.0, |sum, [target, others]| {
            sum + 1.5 * target + 8.0 * others
        }) / 3.0;
        let objective = Dkd {
            temperature,
            hard_weight: 1.0,
            alpha: 1.5,
            beta: 8.0,
        };
        near(soft(&objective, &LABELS), temperature * temperature * mean);
    }
}

#[test]
fn the_parts_of_dkd_sum_to_the_kl_divergence() {
    // Equation 5 of the paper: KL = target part + (1 − teacher's probability of the target) · part
    // among the others.
    let textbook =
        |row: usize| divergence(&softened(TEACHER[row], 1.0), &softened(STUDENT[row], 1.0));
    for (row, label) in LABELS.iter().enumerate() {
        let target = *label as usize;
        let [of_target, of_others] = parts(STUDENT[row], TEACHER[row], target, 1.0);
        near(
            of_target + (1.0 - softened(TEACHER[row], 1.0)[target]) * of_others,
            textbook(row),
        );
    }
    let whole = (0..3).map(textbook).sum::<f64>() / 3.0;
    let objective = Kd {
        temperature: 1.0,
        hard_weight: 0.0,
        soft_weight: 1.0,
    };
    near(soft(&objective, &LABELS), whole);
}

#[test]
fn dist_is_one_minus_pearsons_correlation_of_rows_and_of_columns() {
    let temperature = 3.0;
    let [p, q] = [TEACHER, STUDENT].map(|logits| logits.map(|row| softened(row, temperature)));
    let column = |m: [[f64; 3]; 3], c: usize| m.map(|row| row[c]);
    let rows = (0..3).map(|r| 1.0 - pearson(&q[r], &p[r])).sum::<f64>() / 3.0;
    let columns = (0..3)
        .map(|c| 1.0 - pearson(&column(q, c), &column(p, c)))
        .sum::<f64>()
        / 3.0;
    let objective = Dist {
        temperature,
        hard_weight: 1.0,
        beta: 2.0,
        gamma: 0.5,
    };
    near(
        soft(&objective, &LABELS),
        temperature * temperature * (2.0 * rows + 0.5 * columns),
    );
}

#[test]
fn the_total_is_the_weighted_sum_of_its_two_parts() {
    let objective = Kd {
        temperature: 3.0,
        hard_weight: 0.25,
        soft_weight: 4.0,
    };
    let loss = loss(&objective, &LABELS);
    near(
        loss.total.double_value(&[]),
        0.25 * loss.hard.double_value(&[]) + 4.0 * loss.soft.double_value(&[]),
    );
}

/// Two of three labelled texts have class 0, so that its weight is 3 / (2 · 2) and that of class 1
/// is 3 / (2 · 1). Class 2 has no text.
#[test]
fn balanced_class_weights_count_a_rare_class_more() {
    let labels = [0, 1, 0, UNLABELLED];
    let weights = ClassWeights::Balanced.weights(&labels, 3);
    let found: Vec<f64> = Vec::try_from(&weights).unwrap();
    assert_eq!(found, [0.75, 1.5, 1.0]);
    let logits = [
        [1.0, 0.2, -0.5],
        [0.1, 0.3, 0.2],
        [-1.0, 0.0, 2.0],
        [0.0; 3],
    ];
    let student = ModelOutput::from_logits(&Tensor::from_slice2(&logits));
    let loss = CrossEntropy {}.loss(&LossInputs {
        student: &student,
        teacher: None,
        labels: &Tensor::from_slice(&labels),
        parameters: &[],
        class_weights: Some(&weights),
    });
    let row_loss = |row: usize, class: usize| -softened(logits[row], 1.0)[class].ln();
    let expected = (0.75 * row_loss(0, 0) + 1.5 * row_loss(1, 1) + 0.75 * row_loss(2, 0)) / 4.0;
    near(loss.unwrap().hard.double_value(&[]), expected);
}

#[test]
fn a_row_without_a_label_has_only_a_soft_loss() {
    let objective = Dkd {
        temperature: 1.0,
        hard_weight: 1.0,
        alpha: 1.0,
        beta: 1.0,
    };
    let loss = |labels: [i64; 3]| loss(&objective, &labels);
    let first = -softened(STUDENT[0], 1.0)[2].ln();
    near(
        loss([2, UNLABELLED, UNLABELLED]).hard.double_value(&[]),
        first / 3.0,
    );
    near(loss([UNLABELLED; 3]).hard.double_value(&[]), 0.0);
    // DKD then takes the teacher's most probable class as the target: 0, 0 and 1.
    near(
        loss([UNLABELLED; 3]).soft.double_value(&[]),
        loss([0, 0, 1]).soft.double_value(&[]),
    );
}

#[test]
fn losses_without_a_meaning_for_two_classes_are_refused() {
    let dkd = Dkd {
        temperature: 1.0,
        hard_weight: 1.0,
        alpha: 1.0,
        beta: 1.0,
    };
    let dist = Dist {
        temperature: 1.0,
        hard_weight: 1.0,
        beta: 1.0,
        gamma: 1.0,
    };
    let standardized = KdStandardized {
        temperature: 1.0,
        hard_weight: 1.0,
        soft_weight: 1.0,
    };
    for objective in [&dkd as &dyn Objective, &dist, &standardized] {
        let error = objective.validate_classes(2).unwrap_err().to_string();
        assert!(error.contains("with 2 classes"), "{error}");
        objective.validate_classes(3).unwrap();
        objective.validate().unwrap();
    }
    LogitMse {
        hard_weight: 0.0,
        soft_weight: 1.0,
    }
    .validate_classes(2)
    .unwrap();
    let nothing = Dkd {
        temperature: 1.0,
        hard_weight: 0.0,
        alpha: 0.0,
        beta: 0.0,
    };
    assert!(nothing.validate().is_err());
}

#[test]
fn gradients_match_finite_differences() {
    let teacher = Tensor::from_slice2(&TEACHER);
    let labels = Tensor::from_slice(&LABELS);
    let dkd = Dkd {
        temperature: 2.0,
        hard_weight: 0.5,
        alpha: 1.0,
        beta: 3.0,
    };
    let dist = Dist {
        temperature: 2.0,
        hard_weight: 0.5,
        beta: 1.0,
        gamma: 1.0,
    };
    for objective in [&dkd as &dyn Objective, &dist] {
        let total = |student: &Tensor| {
            loss_of_logits(objective, student, &labels, Some(&teacher))
                .unwrap()
                .total
        };
        let student = Tensor::from_slice2(&STUDENT).set_requires_grad(true);
        total(&student).backward();
        for at in 0..9 {
            let change = Tensor::zeros([9], (Kind::Double, tch::Device::Cpu)).index_fill(
                0,
                &Tensor::from(at),
                1e-6,
            );
            let moved = |sign: f64| {
                total(&(student.detach() + change.view([3, 3]) * sign)).double_value(&[])
            };
            let slope = (moved(1.0) - moved(-1.0)) / 2e-6;
            assert!(
                (slope - student.grad().view(-1).double_value(&[at])).abs() < 1e-7,
                "{objective:?} {at}"
            );
        }
    }
}
