//! Reads one file of labelled texts, with a line number in every error. The three formats are
//! `label<TAB>text`, `text<TAB>class index`, and CSV with a header `text,label` or
//! `text,text_pair,label`. [`super::corpus`]
//! finds the file of each split.

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
    /// Guesses the format of a single file: from its name, or from whether its first line begins
    /// with a class name.
    pub fn guess(path: &Path, labels: &[String]) -> Result<FileFormat> {
        if path.extension().is_some_and(|e| e == "csv") {
            return Ok(FileFormat::Csv);
        }
        let lines = read_lines(path)?;
        let head = lines
            .first()
            .and_then(|line| line.split_once('\t'))
            .map_or("", |(head, _)| head.trim());
        Ok(if labels.iter().any(|label| label == head) {
            FileFormat::LabelText
        } else {
            FileFormat::TextIndex
        })
    }
}

/// Longer lines are refused: a file that has one is not a corpus.
const LONGEST_LINE: usize = 1 << 20;

/// Reads UTF-8 lines. A byte-order mark, carriage returns and empty lines at the end are dropped;
/// everything else is kept.
pub fn read_lines(path: &Path) -> Result<Vec<String>> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
    let mut lines = Vec::new();
    for (at, line) in bytes.split(|&b| b == b'\n').enumerate() {
        if line.len() > LONGEST_LINE {
            let fix = "a corpus has one text a line: split it";
            let problem = format!("{} bytes in one line (limit {LONGEST_LINE})", line.len());
            return Err(Error::line(path, at + 1, problem, fix));
        }
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = std::str::from_utf8(line).map_err(|e| {
            let problem = format!("not UTF-8 at byte {} of the line", e.valid_up_to());
            Error::line(
                path,
                at + 1,
                problem,
                "convert the file to UTF-8, for example with iconv",
            )
        })?;
        lines.push(text.to_owned());
    }
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    Ok(lines)
}

/// Reads the class names, one a line.
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
            "name at least two, one a line",
        ));
    }
    Ok(labels)
}

/// Reads one split.
pub fn read_examples(path: &Path, format: FileFormat, labels: &[String]) -> Result<Vec<Example>> {
    let index: HashMap<&str, usize> = labels
        .iter()
        .enumerate()
        .map(|(i, l)| (l.as_str(), i))
        .collect();
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

fn parse_line(
    path: &Path,
    line: usize,
    text: &str,
    format: FileFormat,
    index: &HashMap<&str, usize>,
) -> Result<Example> {
    let layout = if format == FileFormat::LabelText {
        "label<TAB>text"
    } else {
        "text<TAB>class index"
    };
    let fields = if format == FileFormat::LabelText {
        text.split_once('\t')
    } else {
        text.rsplit_once('\t')
    };
    let (left, right) = fields.ok_or_else(|| {
        let fix = if text.trim().is_empty() {
            "remove the empty line".into()
        } else {
            format!("write it as {layout}")
        };
        Error::line(path, line, format!("no tab in {:?}", excerpt(text)), fix)
    })?;
    let (text, label) = if format == FileFormat::LabelText {
        (right, find(path, line, left, index)?)
    } else {
        (left, parse_index(path, line, right, index.len())?)
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
    let fix = "the file needs a header line with the columns text and label, \
            and as many fields in each row";
    let bad = |e: csv::Error| {
        Error::line(
            path,
            e.position().map_or(1, |p| p.line() as usize),
            e.to_string(),
            fix,
        )
    };
    let text = read_lines(path)?.join("\n");
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().map_err(bad)?.clone();
    let column = |name: &str| {
        let found = header.iter().position(|h| h.trim() == name);
        found.ok_or_else(|| Error::line(path, 1, format!("no column {name:?}"), fix))
    };
    let (text_column, label_column) = (column("text")?, column("label")?);
    let pair_column = header.iter().position(|h| h.trim() == "text_pair");
    let mut examples = Vec::new();
    for record in reader.records() {
        let record = record.map_err(bad)?;
        let line = record.position().map_or(0, |p| p.line() as usize);
        let label = find(path, line, &record[label_column], index)?;
        examples.push(Example {
            text: normalize(&record[text_column]),
            text_pair: pair_column.map(|column| normalize(&record[column])),
            label,
            line,
        });
    }
    Ok(examples)
}

/// The two texts of a line `text<TAB>text_pair`.
pub fn split_pair(path: &Path, line: usize, content: &str) -> Result<(String, String)> {
    let mut fields = content.split('\t');
    let (Some(first), Some(second), None) = (fields.next(), fields.next(), fields.next()) else {
        let problem = format!("{:?} is no pair of texts", excerpt(content));
        let fix = "write the two texts with one tab between them";
        return Err(Error::line(path, line, problem, fix));
    };
    Ok((normalize(first), normalize(second)))
}

/// A text with control characters (line breaks, tabs) replaced by blanks, trimmed: a vocabulary
/// file has one character a line.
pub fn normalize(text: &str) -> String {
    text.replace(char::is_control, " ").trim().to_owned()
}

/// The first characters of a value, for a message.
fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}
