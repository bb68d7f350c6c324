//! Files as lines of UTF-8, and texts as a corpus holds them. What a line means is decided by
//! [`super::text_files`] and [`super::text_table`].

use crate::{Error, Result};
use std::ops::Range;
use std::path::Path;

/// Bytes at the beginning of a file by which UTF-16 without a mark is recognized.
const HEAD: usize = 4096;
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
fn split_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
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
pub(super) fn excerpt(text: &str) -> String {
    text.chars().take(40).collect()
}
