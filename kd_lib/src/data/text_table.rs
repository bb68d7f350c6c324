//! A file as rows of named or numbered columns: CSV, TSV, JSON lines and Parquet. Nothing here knows which
//! column is a text and which is a label; [`super::columns`] decides that.

use super::text_files::{check_quotes, read_lines, utf8_fix, without_mark};
use crate::{Error, Result};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;

/// Rows of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextTable {
    /// Column names; none if the file has no header.
    pub header: Option<Vec<String>>,
    /// The rows, each with as many fields as there are columns.
    pub rows: Vec<TableRow>,
}

/// One row and its place in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableRow {
    /// Line, from 1.
    pub line: usize,
    /// The fields.
    pub fields: Vec<String>,
}

/// How a file separates its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Fields between these bytes, in quotation marks where needed.
    Csv(u8),
    /// Fields between tabs; a quotation mark is text.
    Tsv,
    /// One JSON object a line, or one array of objects.
    Json,
}

impl TextTable {
    /// Reads a file. Its ending decides the layout: `csv`, `tsv`, `jsonl`, `ndjson`, `json`,
    /// `parquet`; of another ending, the first line decides. The first row counts as a row, unless the
    /// layout names its columns itself; see [`TextTable::take_header`]. Objects inside JSON objects
    /// give columns like `data.text`.
    pub fn read(path: &Path) -> Result<TextTable> {
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        if ending == "parquet" {
            return read_parquet(path);
        }
        if ending == "json"
            && let Some(objects) = json_array(path)?
        {
            return json_rows(path, objects);
        }
        let lines = read_lines(path)?;
        if lines.is_empty() {
            return Err(Error::file(path, "an empty file", "name a file with texts"));
        }
        match layout(path, &lines) {
            Layout::Json => read_json(path, &lines),
            Layout::Tsv => read_tsv(path, &lines),
            Layout::Csv(separator) => read_csv(path, &lines.join("\n"), separator),
        }
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        let of_rows = self.rows.first().map_or(0, |row| row.fields.len());
        self.header.as_ref().map_or(of_rows, Vec::len)
    }

    /// The fields of a column.
    pub fn column(&self, number: usize) -> impl Iterator<Item = &str> {
        self.rows.iter().map(move |row| row.fields[number].as_str())
    }

    /// Makes the first row the header.
    pub fn take_header(&mut self) {
        if self.header.is_none() && !self.rows.is_empty() {
            let first = self.rows.remove(0);
            self.header = Some(first.fields.iter().map(|f| f.trim().to_owned()).collect());
        }
    }
}

fn layout(path: &Path, lines: &[String]) -> Layout {
    let ending = path.extension().and_then(|ending| ending.to_str());
    match ending.unwrap_or_default().to_ascii_lowercase().as_str() {
        "csv" => Layout::Csv(separator(lines)),
        "tsv" | "tab" => tab_separated(lines),
        "json" | "jsonl" | "ndjson" => Layout::Json,
        _ if lines[0].trim_start().starts_with('{') => Layout::Json,
        _ if lines.iter().all(|line| line.contains('\t')) => tab_separated(lines),
        _ => Layout::Csv(separator(lines)),
    }
}

/// Fields between tabs. Some programs quote a field that has a quotation mark, and write the mark
/// twice; then each field that begins with a mark ends with one.
fn tab_separated(lines: &[String]) -> Layout {
    let fields = lines.iter().flat_map(|line| line.split('\t'));
    let (mut doubled, mut well_formed) = (false, true);
    for field in fields.filter(|field| field.starts_with('"')) {
        let inner = field
            .strip_prefix('"')
            .and_then(|rest| rest.strip_suffix('"'));
        let inner = inner.map(|inner| inner.replace("\"\"", ""));
        well_formed &= inner.as_ref().is_some_and(|inner| !inner.contains('"'));
        doubled |= inner.is_some_and(|inner| inner.len() + 2 < field.len());
    }
    match doubled && well_formed {
        true => Layout::Csv(b'\t'),
        false => Layout::Tsv,
    }
}

/// The first of comma, semicolon, tab and bar that the first line has.
fn separator(lines: &[String]) -> u8 {
    let has = |mark: &u8| lines[0].contains(char::from(*mark));
    *b",;\t|".iter().find(|mark| has(mark)).unwrap_or(&b',')
}

fn read_tsv(path: &Path, lines: &[String]) -> Result<TextTable> {
    let rows = (1..).zip(lines).map(|(line, text)| TableRow {
        line,
        fields: text.split('\t').map(str::to_owned).collect(),
    });
    let rows: Vec<TableRow> = rows.collect();
    let columns = rows[0].fields.len();
    for row in &rows {
        if row.fields.len() != columns {
            let problem = format!("{} columns, line 1 has {columns}", row.fields.len());
            let fix = "write as many tabs in each line, none inside a text";
            return Err(Error::line(path, row.line, problem, fix));
        }
    }
    Ok(TextTable { header: None, rows })
}

fn read_csv(path: &Path, text: &str, separator: u8) -> Result<TextTable> {
    check_quotes(path, text, char::from(separator))?;
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .delimiter(separator)
        .from_reader(text.as_bytes());
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|e| {
            let line = e.position().map_or(1, |p| p.line() as usize);
            let fix = "write as many fields in each row, and a field with a separator in \
                       quotation marks";
            Error::line(path, line, e.to_string(), fix)
        })?;
        rows.push(TableRow {
            line: record.position().map_or(0, |p| p.line() as usize),
            fields: record.iter().map(str::to_owned).collect(),
        });
    }
    Ok(TextTable { header: None, rows })
}

/// A Parquet file. Numbers are written in digits; a row counts as a line.
fn read_parquet(path: &Path) -> Result<TextTable> {
    let fix =
        "write it with Snappy or no compression (pandas: df.to_parquet(path)), or as JSON lines";
    let bad = |e: ParquetError| Error::file(path, e.to_string(), fix);
    let file = File::open(path).map_err(Error::io(path))?;
    let reader = SerializedFileReader::new(file).map_err(bad)?;
    let schema = reader.metadata().file_metadata().schema();
    let header: Vec<String> = schema
        .get_fields()
        .iter()
        .map(|f| f.name().to_owned())
        .collect();
    let mut rows = Vec::new();
    for (line, row) in (1..).zip(reader.get_row_iter(None).map_err(bad)?) {
        let mut fields = Vec::new();
        for (name, field) in row.map_err(bad)?.get_column_iter() {
            fields.push(match field {
                Field::Null => String::new(),
                Field::Str(text) => text.clone(),
                Field::Double(number) => number.to_string(),
                Field::Float(number) => number.to_string(),
                Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
                    Ok(text) => text.to_owned(),
                    Err(_) => {
                        let problem = format!("column {name:?} is not UTF-8");
                        let fix = "write the column as text";
                        return Err(Error::line(path, line, problem, fix));
                    }
                },
                other => other.to_string(),
            });
        }
        rows.push(TableRow { line, fields });
    }
    if rows.is_empty() {
        return Err(Error::file(path, "an empty file", "name a file with texts"));
    }
    Ok(TextTable {
        header: Some(header),
        rows,
    })
}

/// How to write JSON that is read.
const JSON_FIX: &str = "write one JSON object a line, or one array of objects";

/// The objects of a file that is one array, however long its lines are.
fn json_array(path: &Path) -> Result<Option<Vec<(usize, Value)>>> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let text = std::str::from_utf8(&bytes).map_err(Error::in_file(path, utf8_fix(&bytes)))?;
    let text = without_mark(text);
    if !text.trim_start().starts_with('[') {
        return Ok(None);
    }
    let list: Vec<Value> = serde_json::from_str(text)
        .map_err(|e| Error::line(path, e.line(), e.to_string(), JSON_FIX))?;
    Ok(Some((1..).zip(list).collect()))
}

fn read_json(path: &Path, lines: &[String]) -> Result<TextTable> {
    let mut objects: Vec<(usize, Value)> = Vec::new();
    for (line, text) in (1..).zip(lines).filter(|(_, text)| !text.trim().is_empty()) {
        let object = serde_json::from_str(text)
            .map_err(|e| Error::line(path, line, e.to_string(), JSON_FIX))?;
        objects.push((line, object));
    }
    json_rows(path, objects)
}

/// JSON objects as rows; a key that an object lacks is an empty field.
fn json_rows(path: &Path, objects: Vec<(usize, Value)>) -> Result<TextTable> {
    let mut flat = Vec::new();
    for (line, object) in objects {
        let Value::Object(object) = object else {
            return Err(Error::line(path, line, "not a JSON object", JSON_FIX));
        };
        let mut fields = BTreeMap::new();
        flatten(object, "", &mut fields);
        flat.push((line, fields));
    }
    let keys: BTreeSet<&String> = flat.iter().flat_map(|(_, fields)| fields.keys()).collect();
    let header: Vec<String> = keys.into_iter().cloned().collect();
    let rows = flat.iter().map(|(line, fields)| TableRow {
        line: *line,
        fields: header
            .iter()
            .map(|key| fields.get(key).cloned().unwrap_or_default())
            .collect(),
    });
    Ok(TextTable {
        rows: rows.collect(),
        header: Some(header),
    })
}

/// The values of an object by key; of an object inside it by `outer.inner`.
fn flatten(object: Map<String, Value>, prefix: &str, fields: &mut BTreeMap<String, String>) {
    for (key, value) in object {
        let key = format!("{prefix}{key}");
        let text = match value {
            Value::Object(inner) => {
                flatten(inner, &format!("{key}."), fields);
                continue;
            }
            Value::String(text) => text,
            Value::Null => String::new(),
            other => other.to_string(),
        };
        fields.insert(key, text);
    }
}
