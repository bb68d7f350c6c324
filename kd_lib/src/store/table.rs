//! Tables: finished runs → rows of mean ± sd over the seeds of one recipe on one corpus, and their
//! aligned text. [`crate::evaluation::significance`] tests whether a difference is statistically
//! distinguishable.

use super::recipe::Recipe;
use super::run::{Run, RunReport};
use crate::evaluation::Scores;
use comfy_table::{CellAlignment, ContentArrangement, TableComponent};

/// The four metrics of the published tables.
pub const METRICS: [&str; 4] = ["accuracy", "macro P", "macro R", "macro F1"];

/// A table of text cells.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    /// Column names.
    pub head: Vec<String>,
    /// Cells by row; as many as there are columns.
    pub rows: Vec<Vec<Cell>>,
}

/// A cell's text, and whether it is emphasised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    /// Its text.
    pub text: String,
    /// Starred in text, bold in a notebook.
    pub strong: bool,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell {
            text: text.into(),
            strong: false,
        }
    }
}

impl Table {
    /// An empty table with these columns.
    pub fn new(head: &[&str]) -> Table {
        Table {
            head: head.iter().map(|h| (*h).to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub fn push<T: Into<Cell>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The table as aligned text. Chinese characters are two columns wide.
    ///
    /// ```
    /// use kd_lib::store::Table;
    /// let mut table = Table::new(&["class", "F1"]);
    /// table.push(["体育", "0.9"]);
    /// assert_eq!(table.text(), "class  F1\n体育   0.9\n");
    /// ```
    pub fn text(&self) -> String {
        let mut table = comfy_table::Table::new();
        table
            .load_preset(comfy_table::presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(&self.head);
        table.remove_style(TableComponent::VerticalLines);
        for row in &self.rows {
            let star = |cell: &Cell| if cell.strong { "*" } else { "" };
            table.add_row(
                row.iter()
                    .map(|cell| format!("{}{}", cell.text, star(cell))),
            );
        }
        for column in table.column_iter_mut() {
            column
                .set_padding((0, 2))
                .set_cell_alignment(CellAlignment::Left);
        }
        table
            .lines()
            .map(|line| line.trim_end().to_owned() + "\n")
            .collect()
    }
}

/// A mean over seeds, and the sample standard deviation if there are two or more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanSd {
    /// Mean.
    pub mean: f64,
    /// Sample standard deviation; none of one value.
    pub sd: Option<f64>,
}

impl MeanSd {
    /// Mean and deviation of values.
    pub fn of(values: &[f64]) -> MeanSd {
        let values = ndarray::aview1(values);
        MeanSd {
            mean: values.mean().unwrap_or(f64::NAN),
            sd: (values.len() > 1).then(|| values.std(1.0)),
        }
    }
}

impl std::fmt::Display for MeanSd {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self.sd {
            Some(sd) => write!(f, "{:.4} ± {sd:.4}", self.mean),
            None => write!(f, "{:.4}", self.mean),
        }
    }
}

/// The test metrics of one recipe's runs.
#[derive(Debug, Clone, PartialEq)]
pub struct TableRow {
    /// The recipe's name.
    pub name: String,
    /// The first run's id.
    pub id: String,
    /// The corpus, and the number of labelled texts that were trained on.
    pub corpus: String,
    /// Hash of the corpus's files.
    pub corpus_fingerprint: String,
    /// Number of seeds.
    pub seeds: usize,
    /// Each of [`METRICS`] on test.
    pub test: [MeanSd; 4],
}

impl TableRow {
    /// The row of runs that differ in their seed alone.
    pub fn from_runs(runs: &[Run]) -> TableRow {
        let over_seeds = |metric: fn(&Scores) -> f64| {
            let values: Vec<f64> = runs.iter().map(|run| metric(&run.report.test)).collect();
            MeanSd::of(&values)
        };
        let first_run = |text: fn(&RunReport) -> String| {
            runs.first().map_or(String::new(), |run| text(&run.report))
        };
        TableRow {
            name: first_run(|r| r.recipe.name.clone()),
            id: first_run(|r| r.id.clone()),
            corpus: first_run(|r| format!("{} ({})", r.corpus, r.train_examples)),
            corpus_fingerprint: first_run(|r| r.corpus_fingerprint.clone()),
            seeds: runs.len(),
            test: [
                over_seeds(|s| s.accuracy),
                over_seeds(|s| s.macro_precision),
                over_seeds(|s| s.macro_recall),
                over_seeds(|s| s.macro_f1),
            ],
        }
    }
}

/// One row for each group of runs that differ in their seed alone, in order of first appearance.
/// Runs that skipped test have none.
pub fn rows(runs: &[Run]) -> Vec<TableRow> {
    let mut groups: Vec<Vec<Run>> = Vec::new();
    for run in runs.iter().filter(|run| !run.report.test.is_empty()) {
        // Two runs with the same seed read different files, so they belong to different rows.
        let other_seed = |group: &[Run]| {
            group
                .iter()
                .all(|known| known.report.recipe.seed != run.report.recipe.seed)
        };
        match groups
            .iter_mut()
            .find(|group| differ_in_seed_alone(&group[0], run) && other_seed(group))
        {
            Some(group) => group.push(run.clone()),
            None => groups.push(vec![run.clone()]),
        }
    }
    groups
        .iter()
        .map(|group| TableRow::from_runs(group))
        .collect()
}

fn differ_in_seed_alone(a: &Run, b: &Run) -> bool {
    let (a, b) = (&a.report, &b.report);
    without_seed_and_device(&a.recipe) == without_seed_and_device(&b.recipe)
        && a.corpus_fingerprint == b.corpus_fingerprint
        && a.precision == b.precision
        && a.environment.device == b.environment.device
        && a.teachers == b.teachers
}

/// The recipe without what is not part of an experiment, or is compared apart: the seed, the device
/// as it is written (a report names the device), and `./` before a path.
fn without_seed_and_device(recipe: &Recipe) -> Recipe {
    let mut recipe = recipe.clone().with_seed(0);
    recipe.device.clear();
    if let Some(teacher) = &mut recipe.teacher {
        teacher.device.clear();
    }
    let file = recipe
        .transfer
        .as_mut()
        .and_then(|transfer| transfer.unlabelled_file.as_mut());
    for path in file.into_iter().chain(&mut recipe.teacher_logits) {
        if let Ok(plain) = path.strip_prefix(".") {
            *path = plain.to_path_buf();
        }
    }
    recipe
}

/// Digits of a fingerprint that tell two corpora of one name apart.
const FINGERPRINT_DIGITS: usize = 8;

/// Rows as a table. The best value of each metric on one corpus is emphasised; rows of one name are
/// distinguished by their runs' ids, and corpora of one name by their fingerprints.
pub fn table(rows: &[TableRow]) -> Table {
    let mut table = Table::new(&[&["model", "corpus", "seeds"], &METRICS[..]].concat());
    for row in rows {
        let same_corpus_name = rows.iter().filter(|r| r.corpus == row.corpus);
        let same_corpus: Vec<&TableRow> = same_corpus_name
            .clone()
            .filter(|r| r.corpus_fingerprint == row.corpus_fingerprint)
            .collect();
        let digits = row.corpus_fingerprint.len().min(FINGERPRINT_DIGITS);
        let corpus = if same_corpus_name.count() > same_corpus.len() {
            format!("{} {}", row.corpus, &row.corpus_fingerprint[..digits])
        } else {
            row.corpus.clone()
        };
        let same_row_name = rows.iter().filter(|r| r.name == row.name).count();
        let name = if same_row_name > 1 {
            &row.id
        } else {
            &row.name
        };
        let mut cells: Vec<Cell> = vec![
            name.as_str().into(),
            corpus.as_str().into(),
            row.seeds.to_string().into(),
        ];
        for (metric, value) in row.test.iter().enumerate() {
            let is_best = same_corpus
                .iter()
                .all(|r| r.test[metric].mean <= value.mean);
            cells.push(Cell {
                text: value.to_string(),
                strong: same_corpus.len() > 1 && is_best,
            });
        }
        table.push(cells);
    }
    table
}

/// Share of the gap between teacher and student that distillation recovers:
/// (distilled − student) / (teacher − student).
pub fn gap_recovered(teacher: f64, student: f64, distilled: f64) -> f64 {
    (distilled - student) / (teacher - student)
}

/// Precision, recall and F1 of every class, and their means.
pub fn per_class(scores: &Scores, labels: &[String]) -> Table {
    let mut table = Table::new(&["class", "precision", "recall", "F1", "texts"]);
    let mut add = |name: &str, metrics: [f64; 3], texts: usize| {
        let mut cells: Vec<Cell> = vec![name.into()];
        cells.extend(metrics.map(|metric| Cell::from(format!("{metric:.4}"))));
        cells.push(texts.to_string().into());
        table.push(cells);
    };
    for (label, class) in labels.iter().zip(&scores.classes) {
        add(
            label,
            [class.precision, class.recall, class.f1],
            class.support,
        );
    }
    let macro_means = [scores.macro_precision, scores.macro_recall, scores.macro_f1];
    let without_text = scores.classes.iter().filter(|class| class.support == 0);
    let name = match without_text.count() {
        0 => "macro".to_owned(),
        count => format!("macro ({count} of {} classes without a text)", labels.len()),
    };
    add(&name, macro_means, scores.examples);
    add("accuracy", [scores.accuracy; 3], scores.examples);
    table
}
