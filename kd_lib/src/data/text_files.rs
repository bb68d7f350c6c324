//! Reads one file of labelled texts; an error of a line names the line. The three formats are
//! `label<TAB>text`, `text<TAB>class index`, and CSV with a header `text,label` or
//! `text,text_pair,label`. [`super::corpus`] finds the file of each split.

use super::csv_rows::csv_rows;
use super::lines::{excerpt, normalize, read_lines};
use super::text_input::TextInput;
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// One labelled text and its place in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The text, trimmed; it may be empty.
    pub text: String,
    /// The second text of a pair.
    pub text_pair: Option<String>,
    /// Index into the class names.
    pub label: usize,
    /// Line in its file, from 1.
    pub line: usize,
}

impl Example {
    /// What a model reads of it.
    pub fn input(&self) -> TextInput<'_> {
        TextInput {
            text: &self.text,
            text_pair: self.text_pair.as_deref(),
        }
    }
}

/// How a file's lines are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// `label<TAB>text` (cnews).
    LabelText,
    /// `text<TAB>class index` (thucnews-title).
    TextIndex,
    /// CSV with the columns `text` and `label`, and `text_pair` if each example has two texts.
    Csv,
}

impl FileFormat {
    /// Detects the format of a single file: the one in which all lines can be read, otherwise the
    /// one in which most lines can. None if no line can, or if the file's ending is that of a table:
    /// [`super::import::read_labelled_file`] reads tables.
    ///
    /// # Errors
    /// If all lines fit both formats, or a number at their ends can be a class's name and another
    /// class's index, or if they have more columns than a format.
    pub fn detect(path: &Path, labels: &[String]) -> Result<Option<FileFormat>> {
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        let is = |endings: &[&str]| endings.iter().any(|other| ending == *other);
        if is(&["csv", "json", "jsonl", "ndjson", "parquet"]) {
            return Ok(None);
        }
        let (lines, index) = (read_lines(path)?, index_of(labels));
        if lines.is_empty() {
            let fix = "name a file with texts and labels";
            return Err(Error::file(path, "an empty file", fix));
        }
        if lines.iter().all(|line| line.matches('\t').count() > 1) {
            if is(&["tsv", "tab"]) {
                return Ok(None);
            }
            let problem = "each line has three columns or more";
            let fix = "keep text and label, or name the format: --format label-text or \
                       --format text-index, which read further tabs as part of the text";
            return Err(Error::file(path, problem, fix));
        }
        let fitting = |format| {
            let numbered = (1..).zip(&lines);
            numbered
                .filter(|(at, line)| parse_line(path, *at, line, format, &index).is_ok())
                .count()
        };
        let label_text = fitting(FileFormat::LabelText);
        let text_index = fitting(FileFormat::TextIndex);
        if label_text == lines.len() && text_index == lines.len() {
            let problem = "each line fits label<TAB>text and text<TAB>class index";
            let fix = "name the format: --format label-text or --format text-index";
            return Err(Error::file(path, problem, fix));
        }
        let first_fits = |format| parse_line(path, 1, &lines[0], format, &index).is_ok();
        let begins_with_header = |format, fitting: usize| {
            is(&["tsv", "tab"]) && fitting + 1 == lines.len() && !first_fits(format)
        };
        if begins_with_header(FileFormat::LabelText, label_text)
            || begins_with_header(FileFormat::TextIndex, text_index)
            || (label_text == 0 && text_index == 0)
        {
            return Ok(None);
        }
        if label_text > text_index {
            return Ok(Some(FileFormat::LabelText));
        }
        for (number, line) in (1..).zip(&lines) {
            let last = line.rsplit('\t').next().unwrap_or_default().trim();
            if index
                .get(last)
                .is_some_and(|named| last != named.to_string())
            {
                let problem = format!("{last:?} is the name of a class, and may be an index");
                let fix = "write names of classes as CSV with the columns text and label; for \
                           indices say --format text-index";
                return Err(Error::line(path, number, problem, fix));
            }
        }
        Ok(Some(FileFormat::TextIndex))
    }
}

/// Reads the class names, one per line.
pub fn read_labels(path: &Path) -> Result<Vec<String>> {
    let labels: Vec<String> = read_lines(path)?
        .into_iter()
        .map(|l| l.trim().to_owned())
        .collect();
    for (at, label) in labels.iter().enumerate() {
        if label.is_empty() {
            return Err(Error::line(
                path,
                at + 1,
                "an empty class name",
                "remove the line",
            ));
        }
        if labels[..at].contains(label) {
            let fix = "remove one of the two lines";
            return Err(Error::line(
                path,
                at + 1,
                format!("class {label:?} is listed twice"),
                fix,
            ));
        }
    }
    if labels.len() < 2 {
        return Err(Error::file(
            path,
            format!("{} classes", labels.len()),
            "name at least two, one per line",
        ));
    }
    Ok(labels)
}

/// Reads one split.
pub fn read_examples(path: &Path, format: FileFormat, labels: &[String]) -> Result<Vec<Example>> {
    let index = index_of(labels);
    let examples = match format {
        FileFormat::Csv => read_csv(path, &index)?,
        _ => {
            let lines = read_lines(path)?.into_iter().enumerate();
            lines
                .map(|(at, line)| parse_line(path, at + 1, &line, format, &index))
                .collect::<Result<Vec<_>>>()?
        }
    };
    if examples.is_empty() {
        return Err(Error::file(
            path,
            "no examples",
            "a split needs at least one line",
        ));
    }
    Ok(examples)
}

/// Index of each class name.
pub(crate) fn index_of(labels: &[String]) -> HashMap<&str, usize> {
    let numbered = labels.iter().enumerate();
    numbered.map(|(at, label)| (label.as_str(), at)).collect()
}

fn parse_line(
    path: &Path,
    line: usize,
    text: &str,
    format: FileFormat,
    index: &HashMap<&str, usize>,
) -> Result<Example> {
    let without_tab = |layout: &str| {
        let fix = if text.trim().is_empty() {
            "remove the empty line".into()
        } else {
            format!("write it as {layout}")
        };
        Error::line(path, line, format!("no tab in {:?}", excerpt(text)), fix)
    };
    let (text, label) = if format == FileFormat::LabelText {
        let fields = text.split_once('\t');
        let (label, text) = fields.ok_or_else(|| without_tab("label<TAB>text"))?;
        (text, find(path, line, label, index)?)
    } else {
        let fields = text.rsplit_once('\t');
        let (text, class) = fields.ok_or_else(|| without_tab("text<TAB>class index"))?;
        (text, parse_index(path, line, class, index.len())?)
    };
    Ok(Example {
        text: normalize(text),
        text_pair: None,
        label,
        line,
    })
}

fn parse_index(path: &Path, line: usize, field: &str, classes: usize) -> Result<usize> {
    field
        .trim()
        .parse()
        .ok()
        .filter(|&index| index < classes)
        .ok_or_else(|| {
            let fix = format!("write a whole number from 0 to {}", classes - 1);
            Error::line(
                path,
                line,
                format!("{:?} is not a class index", excerpt(field)),
                fix,
            )
        })
}

fn find(path: &Path, line: usize, label: &str, index: &HashMap<&str, usize>) -> Result<usize> {
    index.get(label.trim()).copied().ok_or_else(|| {
        let fix = "correct it, or add it to the file of class names \
            (for lines text<TAB>index: class.txt)";
        Error::line(
            path,
            line,
            format!(
                "class {:?} is not among the {} known",
                excerpt(label),
                index.len()
            ),
            fix,
        )
    })
}

fn read_csv(path: &Path, index: &HashMap<&str, usize>) -> Result<Vec<Example>> {
    let mut rows = csv_rows(path, &read_lines(path)?, b',')?.into_iter();
    let Some(header) = rows.next() else {
        return Ok(Vec::new());
    };
    let column = |name: &str| {
        let mut found = (0..).zip(&header.fields).filter(|(_, h)| h.trim() == name);
        let first = found.next().map(|(number, _)| number);
        match found.next() {
            None => Ok(first),
            Some(_) => {
                let problem = format!("two columns {name:?}");
                Err(Error::line(
                    path,
                    header.line,
                    problem,
                    "rename one of them",
                ))
            }
        }
    };
    let needed = |name: &str| {
        let fix = "the file needs a header line with the columns text and label";
        let missing = || Error::line(path, header.line, format!("no column {name:?}"), fix);
        column(name)?.ok_or_else(missing)
    };
    let (text_column, label_column) = (needed("text")?, needed("label")?);
    let pair_column = column("text_pair")?;
    let mut examples = Vec::new();
    for row in rows {
        examples.push(Example {
            label: find(path, row.line, &row.fields[label_column], index)?,
            text: normalize(&row.fields[text_column]),
            text_pair: pair_column.map(|column| normalize(&row.fields[column])),
            line: row.line,
        });
    }
    Ok(examples)
}
