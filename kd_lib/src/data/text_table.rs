//! A file as rows of named or numbered columns: CSV, TSV, JSON lines and Parquet. Nothing here
//! knows which column is a text and which is a label; [`super::columns`] decides that.

use super::csv_rows::{TableRow, csv_rows};
use super::lines::{read_lines, utf8_fix, without_mark};
use crate::{Error, Result};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Formatter;
use std::fs::File;
use std::panic::catch_unwind;
use std::path::Path;

/// Rows of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextTable {
    /// Column names; none if the file has no header.
    pub header: Option<Vec<String>>,
    /// The rows, each with as many fields as there are columns.
    pub rows: Vec<TableRow>,
    /// What separates the fields; none if the layout names each value itself.
    pub separator: Option<char>,
    /// Columns with a value that is neither text nor a class, and the first such value.
    pub unusable: BTreeMap<usize, UnusableValue>,
}

/// Why a value can be neither a text nor a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unusable {
    /// What it is.
    pub what: &'static str,
    /// What to write instead.
    pub fix: &'static str,
}

const LIST: Unusable = Unusable {
    what: "a list or an object",
    fix: "write one text and one class in each row",
};
const NOT_UTF8: Unusable = Unusable {
    what: "bytes that are not UTF-8",
    fix: "write the column as text",
};
const DATE: Unusable = Unusable {
    what: "dates or times",
    fix: "write them as text",
};
const LONG_NUMBER: Unusable = Unusable {
    what: "a number with more digits than are read exactly",
    fix: "write it in quotation marks",
};

/// A place with such a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnusableValue {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong with the value.
    pub reason: Unusable,
}

/// Endings of JSON files.
const JSON_ENDINGS: [&str; 3] = ["json", "jsonl", "ndjson"];
/// What may stand between the fields of a CSV file.
const SEPARATORS: [u8; 4] = *b",;\t|";
/// Larger numbers lose digits.
const EXACT: f64 = (1u64 << 53) as f64;

/// How a file separates its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// Fields between these bytes, in quotation marks where needed.
    Csv(u8),
    /// Fields between tabs; a quotation mark is text.
    Tsv,
    /// One JSON object per line, or one array of objects.
    Json,
}

impl TextTable {
    /// Reads a file. Its ending decides the layout: `csv`, `tsv`, `jsonl`, `ndjson`, `json`,
    /// `parquet`; of another ending, the first line decides. The first row counts as a row, unless
    /// the layout names its columns itself; see [`TextTable::take_header`]. Objects inside JSON
    /// objects give columns like `data.text`.
    pub fn read(path: &Path) -> Result<TextTable> {
        let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
        if ending == "parquet" {
            return read_parquet(path);
        }
        if JSON_ENDINGS.iter().any(|json| ending == *json)
            && let Some(objects) = json_array(path)?
        {
            return json_rows(path, objects);
        }
        let mut lines = read_lines(path)?;
        if lines.is_empty() {
            return Err(Error::file(path, "an empty file", "name a file with texts"));
        }
        match layout(path, &mut lines)? {
            Layout::Json => read_json(path, &lines),
            Layout::Tsv => read_tsv(path, &lines),
            Layout::Csv(separator) => {
                let rows = csv_rows(path, &lines, separator)?;
                Ok(TextTable::separated(rows, separator))
            }
        }
    }

    fn separated(rows: Vec<TableRow>, separator: u8) -> TextTable {
        TextTable {
            header: None,
            rows,
            separator: Some(char::from(separator)),
            unusable: BTreeMap::new(),
        }
    }

    /// Number of columns.
    pub fn columns(&self) -> usize {
        let first_row_fields = self.rows.first().map_or(0, |row| row.fields.len());
        self.header.as_ref().map_or(first_row_fields, Vec::len)
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

fn layout(path: &Path, lines: &mut [String]) -> Result<Layout> {
    let ending = path.extension().and_then(|ending| ending.to_str());
    let ending = ending.unwrap_or_default().to_ascii_lowercase();
    Ok(match ending.as_str() {
        "csv" => Layout::Csv(separator(path, lines)?),
        "tsv" | "tab" => tab_separated(lines),
        ending if JSON_ENDINGS.contains(&ending) => Layout::Json,
        _ if lines[0].trim_start().starts_with('{') => Layout::Json,
        _ if lines.iter().all(|line| line.contains('\t')) => tab_separated(lines),
        _ => Layout::Csv(separator(path, lines)?),
    })
}

/// Fields between tabs. Some programs quote every field of a column, or each field that has a
/// quotation mark, and write that mark twice; then each field that begins with a mark ends with
/// one.
fn tab_separated(lines: &[String]) -> Layout {
    let (mut doubled, mut well_formed) = (false, true);
    let mut quoted_lines: BTreeMap<usize, usize> = BTreeMap::new();
    // The first line may be a header without marks.
    for (column, field) in lines
        .iter()
        .skip(1)
        .flat_map(|line| (0..).zip(line.split('\t')))
    {
        let Some(rest) = field.strip_prefix('"') else {
            continue;
        };
        let inner = rest
            .strip_suffix('"')
            .map(|inner| inner.replace("\"\"", ""));
        well_formed &= inner.as_ref().is_some_and(|inner| !inner.contains('"'));
        doubled |= inner.is_some_and(|inner| inner.len() + 2 < field.len());
        *quoted_lines.entry(column).or_default() += 1;
    }
    let rows = lines.len() - 1;
    let whole_column = rows > 0 && quoted_lines.values().any(|quoted| *quoted == rows);
    if (doubled || whole_column) && well_formed {
        Layout::Csv(b'\t')
    } else {
        Layout::Tsv
    }
}

/// The one of comma, semicolon, tab and bar that divides all rows into as many fields. If none
/// does, the first that the first line has. Excel's line `sep=;` names it, and is emptied.
fn separator(path: &Path, lines: &mut [String]) -> Result<u8> {
    let stated = lines[0].trim_matches('"').strip_prefix("sep=");
    if let Some(&[mark]) = stated.map(str::as_bytes) {
        lines[0].clear();
        return Ok(mark);
    }
    let candidates: Vec<u8> = SEPARATORS
        .into_iter()
        .filter(|mark| lines[0].contains(char::from(*mark)))
        .collect();
    if candidates.len() < 2 {
        return Ok(candidates.first().copied().unwrap_or(b','));
    }
    let divides =
        |mark: &u8| csv_rows(path, lines, *mark).is_ok_and(|rows| rows[0].fields.len() > 1);
    let dividing: Vec<u8> = candidates.iter().copied().filter(divides).collect();
    match dividing.as_slice() {
        [] => Ok(candidates[0]),
        [one] => Ok(*one),
        [first, second, ..] => {
            let problem = format!(
                "{:?} and {:?} both divide each row into columns",
                char::from(*first),
                char::from(*second)
            );
            let fix =
                "put the texts in quotation marks, or write sep=; (or sep=,) as the first line";
            Err(Error::file(path, problem, fix))
        }
    }
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
    Ok(TextTable::separated(rows, b'\t'))
}

/// A Parquet file. Numbers are written in digits; a row counts as a line.
fn read_parquet(path: &Path) -> Result<TextTable> {
    // The crate panics on some values and types, for example on intervals.
    let fix = "keep the columns of texts and labels alone";
    let panicked = |_| Err(Error::file(path, "a Parquet file that cannot be read", fix));
    catch_unwind(|| read_parquet_rows(path)).unwrap_or_else(panicked)
}

/// The text of a value, or why it has none.
fn parquet_text(field: &Field) -> std::result::Result<String, Unusable> {
    match field {
        Field::Null => Ok(String::new()),
        // pandas writes a missing number so.
        Field::Double(number) if number.is_nan() => Ok(String::new()),
        Field::Float(number) if number.is_nan() => Ok(String::new()),
        Field::Str(text) => Ok(text.clone()),
        Field::Double(number) => Ok(number.to_string()),
        Field::Float(number) => Ok(number.to_string()),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes.data()) {
            Ok(text) => Ok(text.to_owned()),
            Err(_) => Err(NOT_UTF8),
        },
        Field::ListInternal(_) | Field::MapInternal(_) | Field::Group(_) => Err(LIST),
        Field::Bool(_)
        | Field::Byte(_)
        | Field::Short(_)
        | Field::Int(_)
        | Field::Long(_)
        | Field::UByte(_)
        | Field::UShort(_)
        | Field::UInt(_)
        | Field::ULong(_)
        | Field::Float16(_)
        | Field::Decimal(_) => Ok(field.to_string()),
        _ => Err(DATE),
    }
}

fn read_parquet_rows(path: &Path) -> Result<TextTable> {
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
    let (mut rows, mut unusable) = (Vec::new(), BTreeMap::new());
    for (line, row) in (1..).zip(reader.get_row_iter(None).map_err(bad)?) {
        let mut fields = Vec::new();
        for (_, field) in row.map_err(bad)?.get_column_iter() {
            fields.push(parquet_text(field).unwrap_or_else(|reason| {
                let value = UnusableValue { line, reason };
                unusable.entry(fields.len()).or_insert(value);
                String::new()
            }));
        }
        rows.push(TableRow { line, fields });
    }
    if rows.is_empty() {
        return Err(Error::file(path, "an empty file", "name a file with texts"));
    }
    Ok(TextTable {
        header: Some(header),
        rows,
        separator: None,
        unusable,
    })
}

/// How to write JSON that is read.
const JSON_FIX: &str = "write one JSON object per line, or one array of objects";

/// The objects of a file that is one array, however long its lines are.
fn json_array(path: &Path) -> Result<Option<Vec<(usize, JsonObject)>>> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    let content = bytes.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(&bytes);
    if !content.trim_ascii_start().starts_with(b"[") {
        return Ok(None);
    }
    let text = std::str::from_utf8(&bytes).map_err(Error::in_file(path, utf8_fix(&bytes)))?;
    Ok(Some(array_objects(path, without_mark(text))?))
}

/// The objects of an array, each with the line in which it begins; with its number from 1 if some
/// share a line.
fn array_objects(path: &Path, text: &str) -> Result<Vec<(usize, JsonObject)>> {
    let line_of = |end: usize| 1 + text[..end].matches('\n').count();
    let bad = |at: usize, problem: &str| Err(Error::line(path, line_of(at), problem, JSON_FIX));
    let blanks = |at: usize| text[at..].len() - text[at..].trim_ascii_start().len();
    let mut objects = Vec::new();
    let mut at = text.find('[').map_or(0, |bracket| bracket + 1);
    let (mut line, mut counted) = (1, 0);
    loop {
        at += blanks(at);
        if objects.is_empty() && text[at..].starts_with(']') {
            at += 1;
            break;
        }
        line += text[counted..at].matches('\n').count();
        counted = at;
        let mut stream = serde_json::Deserializer::from_str(&text[at..]).into_iter();
        match stream.next() {
            Some(Ok(object)) => objects.push((line, object)),
            Some(Err(error)) => {
                // What the crate says of the place counts from the object.
                let problem = error.to_string();
                let problem = problem.split(" at line ").next().unwrap_or_default();
                let line = line + error.line().saturating_sub(1);
                return Err(Error::line(path, line, problem, JSON_FIX));
            }
            None => return bad(at, "the array does not end"),
        }
        at += stream.byte_offset();
        at += blanks(at);
        match text[at..].chars().next() {
            Some(',') => at += 1,
            Some(']') => {
                at += 1;
                break;
            }
            _ => {
                return bad(
                    at,
                    "neither a comma nor the end of the array behind an object",
                );
            }
        }
    }
    if !text[at..].trim_ascii().is_empty() {
        return bad(at + blanks(at), "something behind the array");
    }
    let lines_differ = objects.is_sorted_by(|(line, _), (next, _)| line < next);
    if !lines_differ {
        // In an array of one line, the number of an object says more than its line.
        for (number, (line, _)) in (1..).zip(&mut objects) {
            *line = number;
        }
    }
    Ok(objects)
}

fn read_json(path: &Path, lines: &[String]) -> Result<TextTable> {
    let mut objects: Vec<(usize, JsonObject)> = Vec::new();
    for (line, text) in (1..).zip(lines).filter(|(_, text)| !text.trim().is_empty()) {
        let object = serde_json::from_str(text)
            .map_err(|e| Error::line(path, line, e.to_string(), JSON_FIX))?;
        objects.push((line, object));
    }
    json_rows(path, objects)
}

/// JSON objects as rows; a key that an object lacks is an empty field.
fn json_rows(path: &Path, objects: Vec<(usize, JsonObject)>) -> Result<TextTable> {
    let (mut flat, mut unusable_keys) = (Vec::new(), BTreeMap::new());
    for (line, JsonObject(object)) in objects {
        let mut fields = BTreeMap::new();
        for (key, value) in object {
            let repeated = |key: String| {
                let fix = "write each key once";
                Error::line(path, line, format!("the key {key:?} twice"), fix)
            };
            flatten(key, value, &mut fields).map_err(repeated)?;
        }
        for (key, field) in &fields {
            if let Some(reason) = field.unusable {
                let value = UnusableValue { line, reason };
                unusable_keys.entry(key.clone()).or_insert(value);
            }
        }
        flat.push((line, fields));
    }
    let keys: BTreeSet<&String> = flat.iter().flat_map(|(_, fields)| fields.keys()).collect();
    let header: Vec<String> = keys.into_iter().cloned().collect();
    let rows = flat.iter().map(|(line, fields)| TableRow {
        line: *line,
        fields: header
            .iter()
            .map(|key| fields.get(key).map(|field| field.text.clone()))
            .map(Option::unwrap_or_default)
            .collect(),
    });
    let rows = rows.collect();
    let unusable = (0..).zip(&header);
    let unusable = unusable.filter_map(|(column, key)| Some((column, unusable_keys.remove(key)?)));
    Ok(TextTable {
        unusable: unusable.collect(),
        rows,
        header: Some(header),
        separator: None,
    })
}

/// The keys and values of an object in their order, so that a key that is there twice is noticed.
struct JsonObject(Vec<(String, JsonValue)>);

/// A value of a [`JsonObject`].
#[derive(Deserialize)]
#[serde(untagged)]
enum JsonValue {
    Object(JsonObject),
    Other(Value),
}

impl<'de> Deserialize<'de> for JsonObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = JsonObject;

            fn expecting(&self, f: &mut Formatter) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<JsonObject, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(JsonObject(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// The value of a key.
#[derive(Default)]
struct JsonField {
    text: String,
    unusable: Option<Unusable>,
}

/// Adds a value under its key; those of an object inside an object under `outer.inner`. Returns a
/// key that is there already.
fn flatten(
    key: String,
    value: JsonValue,
    fields: &mut BTreeMap<String, JsonField>,
) -> std::result::Result<(), String> {
    let mut unusable = None;
    let value = match value {
        JsonValue::Object(JsonObject(inner)) => {
            for (inner_key, value) in inner {
                flatten(format!("{key}.{inner_key}"), value, fields)?;
            }
            return Ok(());
        }
        JsonValue::Other(value) => value,
    };
    let text = match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => {
            let number = other.as_f64().filter(|_| other.is_f64());
            if other.is_array() {
                unusable = Some(LIST);
            } else if number.is_some_and(|number| number.abs() >= EXACT) {
                unusable = Some(LONG_NUMBER);
            }
            other.to_string()
        }
    };
    match fields.insert(key.clone(), JsonField { text, unusable }) {
        None => Ok(()),
        Some(_) => Err(key),
    }
}
