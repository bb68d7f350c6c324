//! Texts that arrive line by line, through a pipe: each is read as soon as its line ends, and a
//! line that cannot be read costs that line alone. Files of texts are read by
//! [`super::text_files`].

use super::text_files::{split_lines, split_pair, without_mark};
use super::text_input::TextInput;
use crate::{Error, Result};
use std::io::{self, BufRead};
use std::path::Path;

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

/// Passes each line on when its end has been read, without the LF, CRLF or CR that ends it. A
/// failure to read is passed on too and ends the stream, as does a `false` of `send`.
pub fn for_each_line(mut input: impl BufRead, mut send: impl FnMut(io::Result<Vec<u8>>) -> bool) {
    loop {
        let mut read = Vec::new();
        match input.read_until(b'\n', &mut read) {
            Ok(0) => return,
            Ok(_) => {
                if read.ends_with(b"\n") {
                    read.pop();
                }
                if read.ends_with(b"\r") {
                    read.pop();
                }
                for line in split_lines(&read) {
                    if !send(Ok(line.to_vec())) {
                        return;
                    }
                }
            }
            Err(error) => {
                send(Err(error));
                return;
            }
        }
    }
}
