//! Whether the delivered student's probabilities can be trusted: calibration, and accuracy against
//! coverage. Temperature and thresholds come from dev.

use crate::Result;
use crate::distill::document::Document;
use crate::distill::evidence::{Evidence, Tested};
use crate::evaluation::calibration::expected_calibration_error;
use crate::evaluation::{probabilities, reliability_bins};
use crate::store::Table;
use ndarray::Array2;

/// Shares of the dev texts that the student would answer.
const COVERAGES: [f64; 5] = [1.0, 0.95, 0.9, 0.8, 0.7];

pub(super) fn add_confidence(document: &mut Document, evidence: &Evidence) -> Result<()> {
    document.heading("Can its probabilities be trusted?");
    let student = &evidence.delivered_side()[0];
    let labels: Vec<usize> = evidence.corpus.test.iter().map(|e| e.label).collect();
    document.paragraph(calibration(student, &labels));
    document.table(accuracy_against_coverage(student)?);
    Ok(())
}

/// The calibration error on test, after and before temperature scaling.
fn calibration(student: &Tested, labels: &[usize]) -> String {
    let error = |logits: &Array2<f32>| {
        let bins = reliability_bins(logits.view(), labels);
        expected_calibration_error(&bins, labels.len())
    };
    let temperatures = student.runs.iter().filter_map(|run| run.report.temperature);
    let temperatures: Vec<String> = temperatures.map(|t| format!("{t:.2}")).collect();
    let mut text = format!(
        "Expected calibration error of the delivered student on test: {:.4}.",
        error(&student.logits)
    );
    if !temperatures.is_empty() {
        text += &format!(
            " Its logits are divided by a temperature that fits dev ({}); without that, the error is \
             {:.4}.",
            temperatures.join(", "),
            error(&student.unscaled_logits)
        );
    }
    text
}

/// Accuracy on test of the texts whose highest probability reaches a threshold. Each threshold is
/// the one that a share of the dev texts reaches.
fn accuracy_against_coverage(student: &Tested) -> Result<Table> {
    let mut dev_confidences = confidences(&student.dev_logits()?);
    dev_confidences.sort_by(|a, b| b.total_cmp(a));
    let test_confidences = confidences(&student.logits);
    let mut table = Table::new(&[
        "abstain below probability",
        "answered on test",
        "accuracy of the answers",
    ]);
    for coverage in COVERAGES {
        let threshold = if coverage < 1.0 {
            let answered = (dev_confidences.len() as f64 * coverage).ceil().max(1.0);
            dev_confidences[answered as usize - 1]
        } else {
            0.0
        };
        let (mut answers, mut correct_answers) = (0.0, 0.0);
        for (confidence, is_correct) in test_confidences.iter().zip(&student.correct) {
            if *confidence >= threshold {
                answers += 1.0;
                correct_answers += f64::from(*is_correct);
            }
        }
        let texts = test_confidences.len().max(1) as f64;
        table.push([
            format!("{threshold:.3}"),
            format!("{:.1} %", 100.0 * answers / texts),
            format!("{:.4}", correct_answers / f64::max(answers, 1.0)),
        ]);
    }
    Ok(table)
}

/// The highest probability of each text, from logits `[text, class]`.
fn confidences(logits: &Array2<f32>) -> Vec<f64> {
    let highest = |row: ndarray::ArrayView1<f64>| row.iter().copied().fold(0.0, f64::max);
    let probabilities = probabilities(logits.view());
    probabilities.outer_iter().map(highest).collect()
}
