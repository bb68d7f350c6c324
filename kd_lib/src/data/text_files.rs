//! Reads one file of labelled texts; an error of a line names the line. The three formats are
//! `label<TAB>text`, `text<TAB>class index`, and CSV with a header `text,label` or
//! `text,text_pair,label`. [`super::corpus`] finds the file of each split.

use super::text_input::TextInput;
use crate::{Error, Result};
use std::collections::HashMap;
use std::ops::Range;
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
        if !is(&["tsv", "tab"]) && lines.iter().all(|line| line.matches('\t').count() > 1) {
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

/// Bytes at the beginning of a file by which UTF-16 without a mark is recognized.
const HEAD: usize = 4096;
/// How to write rows of CSV.
const CSV_FIX: &str =
    "write as many fields in each row, and a field with a separator in quotation marks";
/// Longer lines are refused: a file that has one is not a corpus.
const LONGEST_LINE: usize = 1 << 20;

/// A line without the byte-order mark that may begin it: editors write one at the beginning of a
/// file, and joined files have one in the middle.
pub fn without_mark(line: &str) -> &str {
    line.strip_prefix('\u{FEFF}').unwrap_or(line)
}

/// Reads UTF-8 lines, which LF, CRLF or CR end. Byte-order marks and empty lines at the end are
/// dropped; everything else is kept.
pub fn read_lines(path: &Path) -> Result<Vec<String>> {
    let file = TextLines::read(path)?;
    Ok(file.iter().map(str::to_owned).collect())
}

/// The lines of a file of texts, as [`read_lines`] reads them, in the memory of the file: a file of
/// a million texts is kept as it is.
#[derive(Debug)]
pub struct TextLines {
    text: String,
    /// Where each line is in the text.
    places: Vec<Range<usize>>,
}

impl TextLines {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<TextLines> {
        let bytes = std::fs::read(path).map_err(Error::io(path))?;
        let places = line_places(path, &bytes)?;
        // Each line is UTF-8, and so are the line endings between them.
        let text = String::from_utf8(bytes).map_err(Error::in_file(path, crate::error::BUG))?;
        Ok(TextLines { text, places })
    }

    /// Number of lines.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The line with this index, from 0.
    pub fn line(&self, index: usize) -> &str {
        &self.text[self.places[index].clone()]
    }

    /// The lines.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.places.iter().map(|place| &self.text[place.clone()])
    }
}

/// Where each line of a file is.
fn line_places(path: &Path, bytes: &[u8]) -> Result<Vec<Range<usize>>> {
    let mut places: Vec<Range<usize>> = Vec::new();
    let head = &bytes[..bytes.len().min(HEAD)];
    if head.iter().filter(|byte| **byte == 0).count() * 4 > head.len() {
        let fix = "convert the file: iconv -f UTF-16LE -t UTF-8, or UTF-16BE";
        return Err(Error::file(
            path,
            "every other byte is zero, as in UTF-16",
            fix,
        ));
    }
    for (at, line) in split_lines(bytes).enumerate() {
        if line.len() > LONGEST_LINE {
            let fix = "a corpus has one text a line: split it";
            let problem = format!("{} bytes in one line (limit {LONGEST_LINE})", line.len());
            return Err(Error::line(path, at + 1, problem, fix));
        }
        let text = std::str::from_utf8(line).map_err(|e| {
            let problem = format!("not UTF-8 at byte {} of the line", e.valid_up_to());
            Error::line(path, at + 1, problem, utf8_fix(bytes))
        })?;
        let end = line.as_ptr() as usize - bytes.as_ptr() as usize + line.len();
        places.push(end - without_mark(text).len()..end);
    }
    while places.last().is_some_and(Range::is_empty) {
        places.pop();
    }
    Ok(places)
}

/// What to do with a file that is not UTF-8, by its first bytes.
pub(super) fn utf8_fix(bytes: &[u8]) -> &'static str {
    match bytes {
        [b'P', b'K', 3, 4, ..] => {
            "unpack the archive; save a sheet of an Excel workbook as CSV (UTF-8)"
        }
        [0x1f, 0x8b, ..] => "unpack the file with gunzip",
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => {
            "convert the file: iconv -f UTF-32 -t UTF-8"
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "convert the file: iconv -f UTF-16 -t UTF-8",
        _ => "convert the file to UTF-8, for example with iconv",
    }
}

/// Bytes as lines, which LF, CRLF or CR end.
pub fn split_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest?;
        let Some(end) = bytes.iter().position(|&b| b == b'\n' || b == b'\r') else {
            rest = None;
            return Some(bytes);
        };
        let ending = if bytes[end..].starts_with(b"\r\n") {
            2
        } else {
            1
        };
        rest = Some(&bytes[end + ending..]);
        Some(&bytes[..end])
    })
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
    if column("split")?.is_some() {
        let fix = "keep the rows of one split, and remove the column";
        return Err(Error::line(path, header.line, "a column split", fix));
    }
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

/// One row of a CSV file, or of another table, and its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRow {
    /// Line, from 1.
    pub line: usize,
    /// The fields.
    pub fields: Vec<String>,
}

/// The rows of a CSV file, its header among them. Empty lines are no rows.
///
/// # Errors
/// If a quotation mark is not closed, if rows have different numbers of fields, or if a quoted text
/// holds what looks like rows.
pub fn csv_rows(path: &Path, lines: &[String], separator: u8) -> Result<Vec<TableRow>> {
    let text = lines.join("\n");
    check_quotes(path, &text, char::from(separator))?;
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .delimiter(separator)
        .from_reader(text.as_bytes());
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| {
            let line = e
                .position()
                .map_or(1, |p| row_line(lines, p.line() as usize));
            Error::line(path, line, e.to_string(), CSV_FIX)
        })?;
        rows.push(TableRow {
            line: record
                .position()
                .map_or(0, |p| row_line(lines, p.line() as usize)),
            fields: record.iter().map(str::to_owned).collect(),
        });
    }
    refuse_swallowed_rows(path, &rows, separator)?;
    Ok(rows)
}

/// The csv crate counts the empty lines before a row to the row.
fn row_line(lines: &[String], from: usize) -> usize {
    let empty = lines
        .iter()
        .skip(from - 1)
        .take_while(|line| line.is_empty());
    from + empty.count()
}

/// Refuses a quoted field that holds lines which look like rows: a stray quotation mark before them
/// joins all rows up to the next one. A line looks like a row if it has as many fields and one of
/// them recurs in its column.
fn refuse_swallowed_rows(path: &Path, rows: &[TableRow], separator: u8) -> Result<()> {
    let suspects = rows
        .iter()
        .filter(|row| row.fields.iter().any(|f| f.contains('\n')));
    let mut counts: Option<HashMap<(usize, &str), usize>> = None;
    for row in suspects {
        let counts = counts.get_or_insert_with(|| {
            let mut counts = HashMap::new();
            for (column, field) in rows.iter().flat_map(|row| (0..).zip(&row.fields)) {
                *counts.entry((column, field.as_str())).or_default() += 1;
            }
            counts
        });
        for inner in row
            .fields
            .iter()
            .filter(|f| f.contains('\n'))
            .flat_map(|f| f.split('\n'))
        {
            let fields: Vec<&str> = inner.split(char::from(separator)).collect();
            let recurs = |(column, field): (usize, &&str)| {
                !field.is_empty() && counts.get(&(column, *field)).is_some_and(|&n| n > 1)
            };
            if fields.len() == row.fields.len() && (0..).zip(&fields).any(recurs) {
                let problem = format!("a quotation mark joins this row with {inner:?}");
                let fix =
                    "close it, or write a mark that belongs to the text twice in a quoted field";
                return Err(Error::line(path, row.line, problem, fix));
            }
        }
    }
    Ok(())
}

/// Refuses a quotation mark that opens a field and is not closed where the field ends. The csv
/// crate takes the end of the file for the closing mark, and all lines in between for one text.
fn check_quotes(path: &Path, text: &str, separator: char) -> Result<()> {
    /// Where in a field a character stands.
    #[derive(PartialEq)]
    enum Place {
        Start,
        Unquoted,
        Quoted,
        AfterQuote,
    }
    let (mut place, mut line, mut opened) = (Place::Start, 1, 1);
    let unclosed = |opened| {
        let fix = "close it, or write a mark that belongs to the text twice in a quoted field";
        Error::line(
            path,
            opened,
            "a quotation mark opens here and is not closed",
            fix,
        )
    };
    for character in text.chars() {
        place = match (place, character) {
            (Place::Start, '"') => {
                opened = line;
                Place::Quoted
            }
            (Place::Quoted, '"') => Place::AfterQuote,
            (Place::AfterQuote, '"') | (Place::Quoted, _) => Place::Quoted,
            (_, '\n') => Place::Start,
            (_, other) if other == separator => Place::Start,
            (Place::AfterQuote, _) => return Err(unclosed(opened)),
            _ => Place::Unquoted,
        };
        line += usize::from(character == '\n');
    }
    match place {
        Place::Quoted => Err(unclosed(opened)),
        _ => Ok(()),
    }
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

/// A text with control characters (line breaks, tabs) replaced by spaces, trimmed: a vocabulary
/// file has one character a line.
pub fn normalize(text: &str) -> String {
    text.replace(char::is_control, " ").trim().to_owned()
}

/// The first characters of a value, for a message.
fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}
