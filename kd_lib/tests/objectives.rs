//! Soft losses against their papers' definitions, worked out row by row in plain numbers.

use kd_lib::strategies::Objective;
use kd_lib::strategies::objective::UNLABELLED;
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

/// Both parts of DKD for one row: the target against the rest, and among the rest.
fn parts(student: [f64; 3], teacher: [f64; 3], target: usize, temperature: f64) -> [f64; 2] {
    let [p, q] = [teacher, student].map(|logits| softened(logits, temperature));
    let pair = |p: [f64; 3]| [p[target], 1.0 - p[target]];
    let rest =
        |p: [f64; 3]| -> Vec<f64> { (0..3).filter(|&c| c != target).map(|c| p[c] / (1.0 - p[target])).collect() };
    [divergence(&pair(p), &pair(q)), divergence(&rest(p), &rest(q))]
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (of_a, of_b) = (mean(a), mean(b));
    let sum = |f: &dyn Fn(f64, f64) -> f64| a.iter().zip(b).map(|(a, b)| f(a - of_a, b - of_b)).sum::<f64>();
    sum(&|a, b| a * b) / (sum(&|a, _| a * a) * sum(&|_, b| b * b)).sqrt()
}

fn soft(objective: Objective, labels: &[i64]) -> f64 {
    let (student, teacher) = (Tensor::from_slice2(&STUDENT), Tensor::from_slice2(&TEACHER));
    objective.loss(&student, &Tensor::from_slice(labels), Some(&teacher)).unwrap().soft.double_value(&[])
}

fn near(ours: f64, by_hand: f64) {
    assert!((ours - by_hand).abs() <= 1e-12 * by_hand.abs().max(1.0), "{ours} is not {by_hand}");
}

#[test]
fn decoupled_distillation_weighs_target_and_others_apart() {
    for temperature in [1.0, 4.0] {
        let rows = (0..3).map(|r| parts(STUDENT[r], TEACHER[r], LABELS[r] as usize, temperature));
        let mean = rows.fold(0.0, |sum, [target, others]| sum + 1.5 * target + 8.0 * others) / 3.0;
        let objective = Objective::Decoupled { temperature, hard: 1.0, target: 1.5, others: 8.0 };
        near(soft(objective, &LABELS), temperature * temperature * mean);
    }
}

#[test]
fn decoupled_parts_add_up_to_the_textbook_divergence() {
    // Equation 5 of the paper: KL = target part + (1 − teacher's probability of the target) · part among the others.
    let textbook = |row: usize| divergence(&softened(TEACHER[row], 1.0), &softened(STUDENT[row], 1.0));
    for (row, label) in LABELS.iter().enumerate() {
        let target = *label as usize;
        let [of_target, of_others] = parts(STUDENT[row], TEACHER[row], target, 1.0);
        near(of_target + (1.0 - softened(TEACHER[row], 1.0)[target]) * of_others, textbook(row));
    }
    let whole = (0..3).map(textbook).sum::<f64>() / 3.0;
    near(soft(Objective::Distillation { temperature: 1.0, hard: 0.0, soft: 1.0 }, &LABELS), whole);
}

#[test]
fn relational_distillation_is_one_less_pearsons_correlation_of_rows_and_of_columns() {
    let temperature = 3.0;
    let [p, q] = [TEACHER, STUDENT].map(|logits| logits.map(|row| softened(row, temperature)));
    let column = |m: [[f64; 3]; 3], c: usize| m.map(|row| row[c]);
    let rows = (0..3).map(|r| 1.0 - pearson(&q[r], &p[r])).sum::<f64>() / 3.0;
    let columns = (0..3).map(|c| 1.0 - pearson(&column(q, c), &column(p, c))).sum::<f64>() / 3.0;
    let objective = Objective::Relational { temperature, hard: 1.0, inter: 2.0, intra: 0.5 };
    near(soft(objective, &LABELS), temperature * temperature * (2.0 * rows + 0.5 * columns));
}

#[test]
fn the_total_weighs_its_two_parts() {
    let (student, teacher) = (Tensor::from_slice2(&STUDENT), Tensor::from_slice2(&TEACHER));
    let objective = Objective::Distillation { temperature: 3.0, hard: 0.25, soft: 4.0 };
    let loss = objective.loss(&student, &Tensor::from_slice(&LABELS), Some(&teacher)).unwrap();
    near(loss.total.double_value(&[]), 0.25 * loss.hard.double_value(&[]) + 4.0 * loss.soft.double_value(&[]));
}

#[test]
fn a_row_without_a_label_has_a_soft_loss_alone() {
    let (student, teacher) = (Tensor::from_slice2(&STUDENT), Tensor::from_slice2(&TEACHER));
    let objective = Objective::Decoupled { temperature: 1.0, hard: 1.0, target: 1.0, others: 1.0 };
    let loss = |labels: [i64; 3]| objective.loss(&student, &Tensor::from_slice(&labels), Some(&teacher)).unwrap();
    let first = -softened(STUDENT[0], 1.0)[2].ln();
    near(loss([2, UNLABELLED, UNLABELLED]).hard.double_value(&[]), first / 3.0);
    near(loss([UNLABELLED; 3]).hard.double_value(&[]), 0.0);
    // Decoupled distillation then takes the teacher's likeliest class for the target: 0, 0 and 1.
    near(loss([UNLABELLED; 3]).soft.double_value(&[]), loss([0, 0, 1]).soft.double_value(&[]));
}

#[test]
fn what_says_nothing_about_two_classes_is_refused() {
    let of_two = |objective: Objective| objective.check_classes(2).map_err(|e| e.to_string());
    let decoupled = Objective::Decoupled { temperature: 1.0, hard: 1.0, target: 1.0, others: 1.0 };
    let relational = Objective::Relational { temperature: 1.0, hard: 1.0, inter: 1.0, intra: 1.0 };
    for objective in [decoupled, relational] {
        assert!(of_two(objective).unwrap_err().contains("two classes"));
        objective.check_classes(3).unwrap();
        objective.check().unwrap();
    }
    of_two(Objective::LogitMse { hard: 0.0, soft: 1.0 }).unwrap();
    assert!(Objective::Decoupled { temperature: 1.0, hard: 0.0, target: 0.0, others: 0.0 }.check().is_err());
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let teacher = Tensor::from_slice2(&TEACHER);
    let labels = Tensor::from_slice(&LABELS);
    let objectives = [
        Objective::Decoupled { temperature: 2.0, hard: 0.5, target: 1.0, others: 3.0 },
        Objective::Relational { temperature: 2.0, hard: 0.5, inter: 1.0, intra: 1.0 },
    ];
    for objective in objectives {
        let total = |student: &Tensor| objective.loss(student, &labels, Some(&teacher)).unwrap().total;
        let student = Tensor::from_slice2(&STUDENT).set_requires_grad(true);
        total(&student).backward();
        for at in 0..9 {
            let nudge = Tensor::zeros([9], (Kind::Double, tch::Device::Cpu)).index_fill(0, &Tensor::from(at), 1e-6);
            let moved = |sign: f64| total(&(student.detach() + nudge.view([3, 3]) * sign)).double_value(&[]);
            let slope = (moved(1.0) - moved(-1.0)) / 2e-6;
            assert!((slope - student.grad().view(-1).double_value(&[at])).abs() < 1e-7, "{objective:?} {at}");
        }
    }
}
