//! Texts that arrive line by line, through a pipe: each is read as soon as its line ends, and a
//! line that cannot be read costs that line alone. Files of texts are read by
//! [`super::text_files`].

use super::lines::{split_pair, without_mark};
use super::text_input::TextInput;
use crate::{Error, Result};
use std::io::{self, BufRead};
use std::path::Path;

/// Bytes of a line that is still taken for a text.
const LONGEST_LINE: usize = 1 << 24;

/// A text, and the second of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamedText {
    text: String,
    text_pair: Option<String>,
}

impl StreamedText {
    /// Reads a line: a text, or `text<TAB>text_pair` for a model that reads pairs. A byte-order
    /// mark at its beginning is dropped. `origin` and `number` say where it stands.
    ///
    /// # Errors
    /// If the line is not UTF-8 or looks like UTF-16, or if it is no pair where one is expected.
    ///
    /// ```
    /// use kd_lib::data::text_stream::StreamedText;
    /// let pair = StreamedText::parse("问\t答".as_bytes(), true, "standard input", 1).unwrap();
    /// assert_eq!(pair.input().text_pair, Some("答"));
    /// ```
    pub fn parse(
        line: &[u8],
        reads_pairs: bool,
        origin: &str,
        number: usize,
    ) -> Result<StreamedText> {
        let origin = Path::new(origin);
        if line.len() > LONGEST_LINE {
            let problem = format!("more than {LONGEST_LINE} bytes");
            let fix = "give one text a line";
            return Err(Error::line(origin, number, problem, fix));
        }
        let line = std::str::from_utf8(line).map_err(|e| {
            let problem = format!("not UTF-8 at byte {} of the line", e.valid_up_to());
            Error::line(
                origin,
                number,
                problem,
                "convert it, for example with iconv",
            )
        })?;
        if line.matches('\0').count() * 3 > line.len() {
            let problem = "mostly zero bytes, as in UTF-16";
            let fix = "convert it to UTF-8, for example with iconv -f UTF-16";
            return Err(Error::line(origin, number, problem, fix));
        }
        let line = without_mark(line);
        if !reads_pairs {
            return Ok(StreamedText {
                text: line.to_owned(),
                text_pair: None,
            });
        }
        let (text, text_pair) = split_pair(origin, number, line)?;
        Ok(StreamedText {
            text,
            text_pair: Some(text_pair),
        })
    }

    /// What a model reads.
    pub fn input(&self) -> TextInput<'_> {
        TextInput {
            text: &self.text,
            text_pair: self.text_pair.as_deref(),
        }
    }
}

/// Passes each line on when its end has been read, without the LF, CRLF or CR that ends it. Of a line
/// that is too long the beginning is passed on, which [`StreamedText::parse`] refuses. A failure to
/// read is passed on too and ends the stream, as does a `false` of `send`.
pub fn for_each_line(mut input: impl BufRead, mut send: impl FnMut(io::Result<Vec<u8>>) -> bool) {
    let mut line = Vec::new();
    let mut after_cr = false;
    loop {
        let bytes = match input.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                send(Err(error));
                return;
            }
        };
        let Some(&first) = bytes.first() else {
            if !line.is_empty() {
                send(Ok(line));
            }
            return;
        };
        // The second byte of a CRLF.
        if std::mem::take(&mut after_cr) && first == b'\n' {
            input.consume(1);
            continue;
        }
        let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let part = &bytes[..end.unwrap_or(bytes.len())];
        let room = (LONGEST_LINE + 1).saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let Some(end) = end else {
            let length = bytes.len();
            input.consume(length);
            continue;
        };
        after_cr = bytes[end] == b'\r';
        input.consume(end + 1);
        if !send(Ok(std::mem::take(&mut line))) {
            return;
        }
    }
}
