//! Which columns of a table are the text, the second text and the label. The user names them;
//! otherwise they are inferred from the columns' names or from their content. If two readings fit,
//! the table is refused, and the error names the option that decides. [`super::text_table`] reads
//! the table.

use super::csv_rows::TableRow;
use super::text_table::TextTable;
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// Names that text columns have.
const TEXT_NAMES: [&str; 16] = [
    "text",
    "sentence",
    "content",
    "review",
    "question",
    "query",
    "utterance",
    "message",
    "body",
    "comment",
    "title",
    "headline",
    "tweet",
    "document",
    "文本",
    "内容",
];
/// Names of the two columns of a pair, first and second.
const PAIR_NAMES: [(&str, &str); 7] = [
    ("text", "text_pair"),
    ("text_a", "text_b"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "answer"),
    ("query", "passage"),
];
/// Names that label columns have.
const LABEL_NAMES: [&str; 13] = [
    "label",
    "class",
    "category",
    "intent",
    "target",
    "sentiment",
    "topic",
    "labels",
    "tag",
    "label_text",
    "标签",
    "类别",
    "分类",
];
/// Name of a column that says which split a row belongs to.
const SPLIT_NAME: &str = "split";
/// Columns that a message lists.
const LISTED_COLUMNS: usize = 20;
/// A longer value is no class name.
const LONGEST_LABEL: usize = 64;
/// A label column repeats its values this often in the mean.
const LEAST_REPETITION: usize = 3;
/// A text column is longer than every other candidate by this factor.
const CLEARLY_LONGER: f64 = 1.5;

/// A user's choice of a table's columns. A column is named by its name, or by its number from 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ColumnOptions {
    /// The column of texts.
    pub text: Option<String>,
    /// The column of second texts.
    pub text_pair: Option<String>,
    /// The column of labels.
    pub label: Option<String>,
    /// Whether the first row names the columns.
    pub header: Option<bool>,
}

/// The columns of a table, by number from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Columns {
    /// Of texts.
    pub text: usize,
    /// Of second texts.
    pub text_pair: Option<usize>,
    /// Of labels.
    pub label: usize,
    /// Of split names.
    pub split: Option<usize>,
}

impl ColumnOptions {
    /// Decides whether the first row is a header, and takes it off the rows if it is.
    pub fn settle_header(&self, path: &Path, table: &mut TextTable) -> Result<()> {
        if table.header.is_some() {
            return Ok(());
        }
        let is_header = match self.header {
            Some(stated) => stated,
            None => self.detect_header(path, table)?,
        };
        if is_header {
            table.take_header();
            refuse_second_header(path, table)?;
        }
        if table.rows.is_empty() {
            return Err(Error::file(path, "no rows below the header", "add texts"));
        }
        Ok(())
    }

    fn detect_header(&self, path: &Path, table: &TextTable) -> Result<bool> {
        let Some(first) = table.rows.first() else {
            return Ok(false);
        };
        let named = [&self.text, &self.text_pair, &self.label];
        // A number names a column whether there is a header or not.
        let is_name = |name: &&str| column_numbered(table, name).is_none();
        let asked = named.iter().filter_map(|name| name.as_deref());
        let asked: Vec<&str> = asked.filter(is_name).collect();
        for (number, field) in first.fields.iter().enumerate() {
            let name = field.trim().to_lowercase();
            if asked.contains(&field.trim()) {
                return Ok(true);
            }
            let known = TEXT_NAMES.contains(&name.as_str()) || LABEL_NAMES.contains(&name.as_str());
            // In files that were joined with their headers, the whole line recurs.
            let others = table.rows.iter().skip(1);
            let recurs = others
                .filter(|row| row.fields != first.fields)
                .any(|row| row.fields[number] == *field);
            if known && !recurs {
                return Ok(true);
            }
        }
        // A column of few values, of which the first row's occurs once: a class with one text, or
        // the column's name.
        let alone = (0..table.columns()).find(|&number| {
            let rest: Vec<&str> = table.column(number).skip(1).collect();
            let label = self
                .label
                .as_deref()
                .and_then(|name| column_numbered(table, name));
            let may_be_label = is_label_like(&rest) || label == Some(number);
            may_be_label && !rest.contains(&first.fields[number].as_str())
        });
        match alone {
            None => Ok(false),
            Some(number) => {
                let value = &first.fields[number];
                let problem = format!("line 1 may be a header: {value:?} occurs in no other row");
                Err(Error::line(
                    path,
                    1,
                    problem,
                    "say --header yes or --header no",
                ))
            }
        }
    }

    /// Finds the columns of a table whose header is settled.
    pub fn find(&self, path: &Path, table: &TextTable) -> Result<Columns> {
        let named = |option: &Option<String>, flag: &str| -> Result<Option<usize>> {
            let Some(name) = option else { return Ok(None) };
            let found = column_named(table, name).or_else(|| column_numbered(table, name));
            found.map(Some).ok_or_else(|| {
                let problem = format!("no column {name:?}");
                let fix = format!("name one by {flag}: {}", list_columns(table));
                Error::file(path, problem, fix)
            })
        };
        let mut text = named(&self.text, "--text")?;
        let mut text_pair = named(&self.text_pair, "--text-pair")?;
        let label = named(&self.label, "--label")?;
        let split = column_named(table, SPLIT_NAME);
        if text.is_none() && text_pair.is_none() {
            let free = |name: &str| column_named(table, name).filter(|&n| Some(n) != label);
            let both = |(a, b): &(&str, &str)| free(a).zip(free(b));
            if let Some((first, second)) = PAIR_NAMES.iter().find_map(both) {
                (text, text_pair) = (Some(first), Some(second));
            }
        }
        let taken = [text, text_pair, label, split];
        let label = match label {
            Some(label) => label,
            None => find_label(path, table, &taken)?,
        };
        let text = match text {
            Some(text) => text,
            None => find_text(path, table, &[text_pair, Some(label), split])?,
        };
        let columns = Columns {
            text,
            text_pair,
            label,
            split,
        };
        columns.refuse_equal(path, table)?;
        columns.refuse_unusable(path, table)?;
        self.refuse_repeated_names(path, table, &columns)?;
        Ok(columns)
    }

    /// Refuses a column that was found by its name if another one has the same name.
    fn refuse_repeated_names(
        &self,
        path: &Path,
        table: &TextTable,
        columns: &Columns,
    ) -> Result<()> {
        let Some(header) = &table.header else {
            return Ok(());
        };
        let named = [&self.text, &self.text_pair, &self.label];
        for number in columns.all() {
            let by_number = |name: &&String| column_numbered(table, name) == Some(number);
            if named
                .iter()
                .filter_map(|name| name.as_ref())
                .any(|name| by_number(&name))
            {
                continue;
            }
            let is_same = |other: &&String| other.to_lowercase() == header[number].to_lowercase();
            if header.iter().filter(is_same).count() > 1 {
                let problem = format!("several columns {:?}", header[number]);
                let fix = "rename them, or name the column by its number, as in --text 1";
                return Err(Error::file(path, problem, fix));
            }
        }
        Ok(())
    }
}

/// Refuses a row that equals the header: files that were joined have one each.
fn refuse_second_header(path: &Path, table: &TextTable) -> Result<()> {
    let Some(header) = &table.header else {
        return Ok(());
    };
    let is_header = |row: &&TableRow| {
        let fields = row.fields.iter().map(|field| field.trim());
        fields.eq(header.iter().map(String::as_str))
    };
    match table.rows.iter().find(is_header) {
        None => Ok(()),
        Some(row) => {
            let fix = "remove this line: files that are joined keep one header";
            Err(Error::line(path, row.line, "the header once more", fix))
        }
    }
}

impl Columns {
    /// Refuses a column that has two meanings.
    fn refuse_equal(&self, path: &Path, table: &TextTable) -> Result<()> {
        let used = self.all();
        let twice = used
            .iter()
            .enumerate()
            .find(|(at, number)| used[..*at].contains(number));
        let Some((_, &number)) = twice else {
            return Ok(());
        };
        let problem = format!(
            "{} is to be two of text, second text and label",
            column_name(table, number)
        );
        let fix = "name different columns by --text, --text-pair and --label";
        Err(Error::file(path, problem, fix))
    }

    fn all(&self) -> Vec<usize> {
        let all = [
            Some(self.text),
            self.text_pair,
            Some(self.label),
            self.split,
        ];
        all.into_iter().flatten().collect()
    }

    /// Refuses a column with a value that can be neither a text nor a class.
    fn refuse_unusable(&self, path: &Path, table: &TextTable) -> Result<()> {
        for number in self.all() {
            if let Some(value) = table.unusable.get(&number) {
                let problem = format!("{} holds {}", column_name(table, number), value.reason.what);
                return Err(Error::line(path, value.line, problem, value.reason.fix));
            }
        }
        Ok(())
    }

    /// The columns in words, for a report.
    pub fn describe(&self, table: &TextTable) -> String {
        let name = |number: usize| column_name(table, number);
        let mut words = format!("text: {}, label: {}", name(self.text), name(self.label));
        if let Some(second) = self.text_pair {
            words += &format!(", second text: {}", name(second));
        }
        if let Some(split) = self.split {
            words += &format!(", split: {}", name(split));
        }
        let used = self.all();
        let unused: Vec<usize> = (0..table.columns()).filter(|n| !used.contains(n)).collect();
        if !unused.is_empty() {
            let shown: Vec<String> = unused
                .iter()
                .take(LISTED_COLUMNS)
                .map(|n| name(*n))
                .collect();
            words += &format!("; not read: {}", shown.join(", "));
            if unused.len() > shown.len() {
                words += &format!(" and {} more", unused.len() - shown.len());
            }
        }
        words
    }
}

fn column_named(table: &TextTable, name: &str) -> Option<usize> {
    let header = table.header.as_ref()?;
    let exact = header.iter().position(|column| column == name);
    exact.or_else(|| {
        let lower = name.to_lowercase();
        header
            .iter()
            .position(|column| column.to_lowercase() == lower)
    })
}

/// The column with this number, counted from 1.
fn column_numbered(table: &TextTable, name: &str) -> Option<usize> {
    let number = name.parse::<usize>().ok()?.checked_sub(1)?;
    (number < table.columns()).then_some(number)
}

fn column_name(table: &TextTable, number: usize) -> String {
    match &table.header {
        Some(header) => format!("{:?}", header[number]),
        None => format!("column {}", number + 1),
    }
}

fn list_columns(table: &TextTable) -> String {
    let names = (0..table.columns()).map(|number| column_name(table, number));
    let mut listed: Vec<String> = names.take(LISTED_COLUMNS).collect();
    if table.columns() > LISTED_COLUMNS {
        listed.push(format!("and {} more", table.columns() - LISTED_COLUMNS));
    }
    listed.join(", ")
}

/// The columns that this list names. If one has the list's first name, it is that one alone.
fn by_name(table: &TextTable, names: &[&str], taken: &[Option<usize>]) -> Vec<usize> {
    let free = |number: &usize| !taken.contains(&Some(*number));
    let mut found = Vec::new();
    for (place, name) in names.iter().enumerate() {
        if let Some(number) = column_named(table, name).filter(free) {
            if place == 0 {
                return vec![number];
            }
            found.push(number);
        }
    }
    found
}

fn find_label(path: &Path, table: &TextTable, taken: &[Option<usize>]) -> Result<usize> {
    let mut found = by_name(table, &LABEL_NAMES, taken);
    if found.is_empty() {
        let free = (0..table.columns()).filter(|number| !taken.contains(&Some(*number)));
        found = free
            .filter(|&number| is_label_like(&table.column(number).collect::<Vec<_>>()))
            .collect();
    }
    only_one(path, table, &found, "labels", "--label")
}

fn find_text(path: &Path, table: &TextTable, taken: &[Option<usize>]) -> Result<usize> {
    let mut found = by_name(table, &TEXT_NAMES, taken);
    if found.is_empty() {
        let free = (0..table.columns()).filter(|number| !taken.contains(&Some(*number)));
        let mut lengths: Vec<(usize, f64)> = Vec::new();
        for number in free {
            let values: Vec<&str> = table.column(number).collect();
            if is_text_like(&values) {
                let characters: usize = values.iter().map(|value| value.chars().count()).sum();
                lengths.push((number, characters as f64 / values.len() as f64));
            }
        }
        lengths.sort_by(|a, b| b.1.total_cmp(&a.1));
        let clear = match lengths.as_slice() {
            [longest, next, ..] => longest.1 >= CLEARLY_LONGER * next.1,
            _ => true,
        };
        lengths.truncate(if clear { 1 } else { lengths.len() });
        found = lengths.into_iter().map(|(number, _)| number).collect();
    }
    only_one(path, table, &found, "texts", "--text")
}

fn only_one(
    path: &Path,
    table: &TextTable,
    found: &[usize],
    what: &str,
    option: &str,
) -> Result<usize> {
    let problem = match found {
        [one] => return Ok(*one),
        [] => format!("no column looks like {what}"),
        _ => {
            let names: Vec<String> = found.iter().map(|&n| column_name(table, n)).collect();
            format!(
                "{} columns may hold the {what}: {}",
                found.len(),
                names.join(", ")
            )
        }
    };
    let fix = format!(
        "name it by {option}; the columns are {}",
        list_columns(table)
    );
    Err(Error::file(path, problem, fix))
}

/// Whether values are those of a class: short, and each repeated.
fn is_label_like(values: &[&str]) -> bool {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for value in values {
        if value.chars().count() > LONGEST_LABEL {
            return false;
        }
        *counts.entry(value.trim()).or_default() += 1;
    }
    counts.len() >= 2 && counts.len() * LEAST_REPETITION <= values.len()
}

/// Whether values are texts: most differ, and they are no numbers.
fn is_text_like(values: &[&str]) -> bool {
    let distinct: std::collections::HashSet<&&str> = values.iter().collect();
    let numbers = values
        .iter()
        .filter(|value| value.trim().parse::<f64>().is_ok());
    distinct.len() * 2 > values.len() && numbers.count() * 2 < values.len()
}
