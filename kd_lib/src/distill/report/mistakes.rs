//! The test texts that the delivered student got wrong and was most certain of: errors of the
//! labels are often among them.

use super::SHOWN_CHARACTERS;
use crate::distill::data_report::DataReport;
use crate::distill::document::Document;
use crate::distill::evidence::{Evidence, Tested};
use crate::distill::suspicious_labels::shortened;
use crate::evaluation::{argmax, probabilities};
use crate::store::Table;
use std::collections::HashSet;

/// Misclassified texts that are shown.
const SHOWN_MISTAKES: usize = 15;

/// A test text whose class the student got wrong.
struct Mistake {
    /// The text's row in the test split.
    row: usize,
    /// The class that the student gave it.
    predicted: usize,
    /// The student's probability of that class.
    probability: f64,
}

pub(super) fn add_mistakes(document: &mut Document, evidence: &Evidence, data: &DataReport) {
    document.heading("Mistakes that the delivered student was most certain of");
    let corpus = &evidence.corpus;
    let found = data.suspicious.iter().flat_map(|found| &found.labels);
    let suspicious: HashSet<(usize, &str)> = found.map(|l| (l.line, l.text.as_str())).collect();
    let mut table = Table::new(&[
        "line",
        "text",
        "label",
        "predicted",
        "probability",
        "label likely to be wrong",
    ]);
    for mistake in mistakes(&evidence.delivered_side()[0])
        .into_iter()
        .take(SHOWN_MISTAKES)
    {
        let example = &corpus.test[mistake.row];
        let texts: Vec<&str> = example.input().texts().collect();
        let is_suspicious = suspicious.contains(&(example.line, example.text.as_str()));
        table.push([
            example.line.to_string(),
            shortened(&texts.join(" / "), SHOWN_CHARACTERS),
            corpus.labels[example.label].clone(),
            corpus.labels[mistake.predicted].clone(),
            format!("{:.3}", mistake.probability),
            if is_suspicious { "yes" } else { "" }.to_owned(),
        ]);
    }
    document.table(table);
}

/// A student's mistakes, the most certain first.
fn mistakes(student: &Tested) -> Vec<Mistake> {
    let probabilities = probabilities(student.logits.view());
    let mut mistakes = Vec::new();
    for (row, correct) in student.correct.iter().enumerate() {
        if !correct {
            let predicted = argmax(student.logits.row(row));
            mistakes.push(Mistake {
                row,
                predicted,
                probability: probabilities[[row, predicted]],
            });
        }
    }
    mistakes.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    mistakes
}
