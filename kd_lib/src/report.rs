//! Finished runs → rows of a table: mean ± sd over the seeds of one recipe on one corpus, as text for a
//! terminal and as HTML for a notebook.

use crate::metrics::Scores;
use crate::recipe::Recipe;
use crate::run::Run;
use std::fmt::Write;

/// The four figures of the published tables.
pub const FIGURES: [&str; 4] = ["accuracy", "macro P", "macro R", "macro F1"];

/// One recipe's runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The recipe's name.
    pub name: String,
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
        Row {
            name: runs.first().map_or(String::new(), |r| r.report.recipe.name.clone()),
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

/// One row for each recipe and corpus among these runs, in order of first appearance.
pub fn rows(runs: &[Run]) -> Vec<Row> {
    let mut groups: Vec<(Recipe, &str, Vec<Run>)> = Vec::new();
    for run in runs {
        let key = (run.report.recipe.clone().with_seed(0), run.report.corpus_fingerprint.as_str());
        match groups.iter_mut().find(|(recipe, corpus, _)| (recipe, *corpus) == (&key.0, key.1)) {
            Some((.., group)) => group.push(run.clone()),
            None => groups.push((key.0, key.1, vec![run.clone()])),
        }
    }
    groups.iter().map(|(.., group)| Row::of(group)).collect()
}

/// A table for a terminal.
pub fn text(rows: &[Row]) -> String {
    let width = rows.iter().map(|r| r.name.chars().count()).max().unwrap_or(0).max(5);
    let mut out = format!("{:width$}  seeds", "model");
    FIGURES.iter().for_each(|f| out.extend(format!("  {f:<14}").chars()));
    for row in rows {
        let cells: String = row.test.iter().map(|&cell| format!("  {:<14}", figure(cell))).collect();
        let _ = write!(out, "\n{:width$}  {:<5}{cells}", row.name, row.seeds);
    }
    out.lines().map(|l| l.trim_end().to_owned() + "\n").collect()
}

/// A table for a notebook; the best value of each column is bold.
pub fn html(rows: &[Row]) -> String {
    let head: String = ["model", "seeds"].iter().chain(&FIGURES).map(|h| format!("<th>{h}</th>")).collect();
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
        format!("<tr><td>{}</td><td>{}</td>{cells}</tr>", escape(&row.name), row.seeds)
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
