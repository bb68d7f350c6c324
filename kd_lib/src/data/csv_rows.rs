//! A CSV file as rows of fields. The csv crate reads the fields; this module refuses what that crate
//! would take for one long text.

use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;

/// How to write rows of CSV.
const CSV_FIX: &str =
    "write as many fields in each row, and a field with a separator in quotation marks";

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
