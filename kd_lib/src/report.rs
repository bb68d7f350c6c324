//! Finished runs → rows of a table: mean ± sd over the seeds of one recipe on one corpus.

use crate::grid::{Cell, Grid};
use crate::metrics::Scores;
use crate::run::{Report, Run};

/// The four figures of the published tables.
pub const FIGURES: [&str; 4] = ["accuracy", "macro P", "macro R", "macro F1"];

/// One recipe's runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The recipe's name.
    pub name: String,
    /// The first run's folder name.
    pub id: String,
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
        let figures: [fn(&Scores) -> f64; 4] =
            [|s| s.accuracy, |s| s.macro_precision, |s| s.macro_recall, |s| s.macro_f1];
        let of_first = |text: fn(&Report) -> String| runs.first().map_or(String::new(), |r| text(&r.report));
        Row {
            name: of_first(|r| r.recipe.name.clone()),
            id: of_first(|r| r.id.clone()),
            corpus: of_first(|r| format!("{} ({})", r.corpus, r.train_examples)),
            seeds: runs.len(),
            test: figures.map(column),
        }
    }
}

/// One row for each group of runs that differ in their seed alone, in order of first appearance; runs that left test
/// alone have none.
pub fn rows(runs: &[Run]) -> Vec<Row> {
    let key = |run: &Run| {
        let Report { recipe, corpus_fingerprint, precision, environment, teacher, .. } = run.report.clone();
        (recipe.with_seed(0), corpus_fingerprint, precision, environment.device, teacher)
    };
    let mut groups: Vec<Vec<Run>> = Vec::new();
    for run in runs.iter().filter(|run| !run.report.test.is_empty()) {
        match groups.iter_mut().find(|group| key(&group[0]) == key(run)) {
            Some(group) => group.push(run.clone()),
            None => groups.push(vec![run.clone()]),
        }
    }
    groups.iter().map(|group| Row::of(group)).collect()
}

/// Rows as a table; the best of each figure on one corpus is marked, rows of one name are told apart by their runs' ids.
pub fn table(rows: &[Row]) -> Grid {
    let mut grid = Grid::new(&[&["model", "corpus", "seeds"], &FIGURES[..]].concat());
    for Row { name, id, corpus, seeds, test } in rows {
        let rivals: Vec<&Row> = rows.iter().filter(|r| r.corpus == *corpus).collect();
        let name = if rows.iter().filter(|r| r.name == *name).count() > 1 { id } else { name };
        let mut cells: Vec<Cell> = vec![name.as_str().into(), corpus.as_str().into(), seeds.to_string().into()];
        let marked = |(c, &value): (usize, &(f64, Option<f64>))| Cell {
            text: figure(value),
            strong: rivals.len() > 1 && rivals.iter().all(|r| r.test[c].0 <= value.0),
        };
        cells.extend(test.iter().enumerate().map(marked));
        grid.rows.push(cells);
    }
    grid
}

/// Share of the teacher–student gap that distillation closes: (distilled − student) / (teacher − student).
pub fn gap_recovered(teacher: f64, student: f64, distilled: f64) -> f64 {
    (distilled - student) / (teacher - student)
}

/// Precision, recall and F1 of every class, and their means.
pub fn per_class(scores: &Scores, labels: &[String]) -> Grid {
    let mut grid = Grid::new(&["class", "precision", "recall", "F1", "texts"]);
    let mut line = |name: &str, figures: [f64; 3], texts: usize| {
        let figures = figures.map(|f| Cell::from(format!("{f:.4}")));
        grid.rows.push([&[name.into()], &figures[..], &[texts.to_string().into()]].concat());
    };
    for (label, c) in labels.iter().zip(&scores.classes) {
        line(label, [c.precision, c.recall, c.f1], c.support);
    }
    line("macro", [scores.macro_precision, scores.macro_recall, scores.macro_f1], scores.examples);
    line("accuracy", [scores.accuracy; 3], scores.examples);
    grid
}

/// Mean ± standard deviation, or the mean alone where there is one seed.
pub fn figure((mean, deviation): (f64, Option<f64>)) -> String {
    deviation.map_or_else(|| format!("{mean:.4}"), |d| format!("{mean:.4} ± {d:.4}"))
}

fn mean_and_deviation(values: &[f64]) -> (f64, Option<f64>) {
    let values = ndarray::aview1(values);
    (values.mean().unwrap_or(f64::NAN), (values.len() > 1).then(|| values.std(1.0)))
}
