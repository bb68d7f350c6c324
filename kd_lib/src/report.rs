//! Finished runs → rows of a table: mean ± sd over the seeds of one recipe on one corpus, as text for a
//! terminal and as HTML for a notebook.

use crate::metrics::Scores;
use crate::run::{Report, Run};
use std::fmt::Write;

/// The four figures of the published tables.
pub const FIGURES: [&str; 4] = ["accuracy", "macro P", "macro R", "macro F1"];

/// One recipe's runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The recipe's name.
    pub name: String,
    /// The corpus, and how many of its texts were trained on.
    pub corpus: String,
    /// Number of seeds.
    pub seeds: usize,
    /// Mean and sample standard deviation of each of [`FIGURES`] on test; no deviation from one seed.
    pub test: [(f64, Option<f64>); 4],
}

impl Row {
    /// The row of runs that differ in their seed alone.
    pub fn of(runs: &[Run]) -> Row {
        let column = |figure: fn(&Scores) -> f64| {
            mean_and_deviation(&runs.iter().map(|r| figure(&r.report.test)).collect::<Vec<_>>())
        };
        let of_first = |text: fn(&Report) -> String| runs.first().map_or(String::new(), |r| text(&r.report));
        Row {
            name: of_first(|r| r.recipe.name.clone()),
            corpus: of_first(|r| format!("{} ({})", r.corpus, r.train_examples)),
            seeds: runs.len(),
            test: [
                column(|s| s.accuracy),
                column(|s| s.macro_precision),
                column(|s| s.macro_recall),
                column(|s| s.macro_f1),
            ],
        }
    }
}

/// One row for each group of runs that differ in their seed alone, in order of first appearance.
pub fn rows(runs: &[Run]) -> Vec<Row> {
    let key = |run: &Run| {
        let Report { recipe, corpus_fingerprint, precision, environment, teacher, .. } = run.report.clone();
        (recipe.with_seed(0), corpus_fingerprint, precision, environment.device, teacher)
    };
    let mut groups: Vec<Vec<Run>> = Vec::new();
    for run in runs {
        match groups.iter_mut().find(|group| key(&group[0]) == key(run)) {
            Some(group) => group.push(run.clone()),
            None => groups.push(vec![run.clone()]),
        }
    }
    groups.iter().map(|group| Row::of(group)).collect()
}

/// A table for a terminal.
pub fn text(rows: &[Row]) -> String {
    let widest = |cell: fn(&Row) -> &str| rows.iter().map(|r| cell(r).chars().count()).max().unwrap_or(0).max(6);
    let (first, second) = (widest(|r| &r.name), widest(|r| &r.corpus));
    let mut out = format!("{:first$}  {:second$}  seeds", "model", "corpus");
    FIGURES.iter().for_each(|f| out.push_str(&format!("  {f:<15}")));
    for Row { name, corpus, seeds, test } in rows {
        let cells: String = test.iter().map(|&cell| format!("  {:<15}", figure(cell))).collect();
        let _ = write!(out, "\n{name:first$}  {corpus:second$}  {seeds:<5}{cells}");
    }
    out.lines().map(|l| l.trim_end().to_owned() + "\n").collect()
}

/// A table for a notebook; the best value of each column is bold.
pub fn html(rows: &[Row]) -> String {
    let head: String = ["model", "corpus", "seeds"].iter().chain(&FIGURES).map(|h| format!("<th>{h}</th>")).collect();
    let best: Vec<f64> =
        (0..FIGURES.len()).map(|c| rows.iter().map(|r| r.test[c].0).fold(f64::NEG_INFINITY, f64::max)).collect();
    let line = |row: &Row| {
        let cell = |(c, &value): (usize, &(f64, Option<f64>))| {
            if value.0 == best[c] {
                format!("<td><b>{}</b></td>", figure(value))
            } else {
                format!("<td>{}</td>", figure(value))
            }
        };
        let cells: String = row.test.iter().enumerate().map(cell).collect();
        format!("<tr><td>{}</td><td>{}</td><td>{}</td>{cells}</tr>", escape(&row.name), escape(&row.corpus), row.seeds)
    };
    format!("<table><thead><tr>{head}</tr></thead><tbody>{}</tbody></table>", rows.iter().map(line).collect::<String>())
}

/// Share of the teacher–student gap that distillation closes: (distilled − student) / (teacher − student).
pub fn gap_recovered(teacher: f64, student: f64, distilled: f64) -> f64 {
    (distilled - student) / (teacher - student)
}

/// Precision, recall and F1 of every class, for a terminal.
pub fn per_class(scores: &Scores, labels: &[String]) -> String {
    let width = labels.iter().map(|l| l.chars().count()).max().unwrap_or(0).max(8);
    let mut out = format!("{:width$}  precision  recall  F1      support\n", "class");
    for (label, c) in labels.iter().zip(&scores.classes) {
        let _ = writeln!(out, "{label:width$}  {:.4}     {:.4}  {:.4}  {}", c.precision, c.recall, c.f1, c.support);
    }
    let Scores { macro_precision, macro_recall, macro_f1, examples, accuracy, .. } = scores;
    let _ = writeln!(
        out,
        "{:width$}  {macro_precision:.4}     {macro_recall:.4}  {macro_f1:.4}  {examples}\naccuracy {accuracy:.4}",
        "macro"
    );
    out
}

/// Text as HTML shows it.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn figure((mean, deviation): (f64, Option<f64>)) -> String {
    deviation.map_or_else(|| format!("{mean:.4}"), |d| format!("{mean:.4} ± {d:.4}"))
}

fn mean_and_deviation(values: &[f64]) -> (f64, Option<f64>) {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let deviation = (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0)).sqrt();
    (mean, (values.len() > 1).then_some(deviation))
}
