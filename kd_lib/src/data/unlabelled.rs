//! A file of unlabelled texts, one per line, and which of them a transfer set may use. A file that
//! holds more than texts is refused. [`super::transfer_set`] decides how many are used.

use super::corpus::Corpus;
use super::lines::{TextLines, normalize, split_pair};
use super::text_input::TextKey;
use super::transfer_text::TransferText;
use crate::{Error, Result};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Endings of files that hold more than one text a line.
const OTHER_LAYOUTS: [&str; 6] = ["csv", "json", "jsonl", "ndjson", "parquet", "gz"];
/// What stands before a label in a file for fastText.
const FASTTEXT_LABEL: &str = "__label__";
/// Lines that are looked at for labels.
const CHECKED_LINES: usize = 1000;

/// The lines of a file of unlabelled texts. Of a million lines a plan may use some thousands, so a
/// line becomes a text only when it is asked for.
pub(crate) struct UnlabelledFile {
    path: PathBuf,
    lines: TextLines,
    /// Whether the corpus holds text pairs; each line is then `text<TAB>text_pair`.
    pairs: bool,
}

impl UnlabelledFile {
    /// Opens the file for a corpus.
    pub fn open(path: &Path, corpus: &Corpus) -> Result<UnlabelledFile> {
        let pairs = corpus.has_pairs();
        Ok(UnlabelledFile {
            path: path.to_path_buf(),
            lines: read_lines_alone(path, &corpus.labels, pairs)?,
            pairs,
        })
    }

    /// Number of lines.
    pub fn lines(&self) -> usize {
        self.lines.len()
    }

    /// The text of the line with this index, from 0.
    pub fn text(&self, at: usize) -> Result<TransferText> {
        let line = self.lines.line(at);
        if !self.pairs {
            return Ok(TransferText::unlabelled(normalize(line), None));
        }
        let (text, text_pair) = split_pair(&self.path, at + 1, line)?;
        Ok(TransferText::unlabelled(text, Some(text_pair)))
    }

    /// Adds the texts of all lines to `seen`. Returns the indices of the lines that were new and
    /// not empty.
    pub fn usable(&self, seen: &mut HashSet<TextKey>) -> Result<Vec<usize>> {
        let mut usable = Vec::new();
        for at in 0..self.lines.len() {
            if self.text(at)?.insert_if_new(seen) {
                usable.push(at);
            }
        }
        Ok(usable)
    }
}

/// The lines of a file of texts without labels.
///
/// # Errors
/// If there is none, if they are JSON objects or another layout's, if most have more tabs than a
/// text or pair has, or if most begin or end with a class: a label would be read as part of the text.
fn read_lines_alone(path: &Path, classes: &[String], pairs: bool) -> Result<TextLines> {
    let fix = "write the texts alone, one per line (of pairs text<TAB>text_pair)";
    let ending = path.extension().unwrap_or_default().to_ascii_lowercase();
    if OTHER_LAYOUTS.iter().any(|other| ending == *other) {
        let problem = format!(
            "{} is not read as unlabelled texts",
            ending.to_string_lossy()
        );
        return Err(Error::file(path, problem, fix));
    }
    let lines = TextLines::read(path)?;
    let Some(first) = lines.iter().find(|line| !line.trim().is_empty()) else {
        return Err(Error::file(path, "no text", fix));
    };
    if serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(first).is_ok() {
        return Err(Error::file(path, "the first text is a JSON object", fix));
    }
    let ends_with_class = |line: &&str| {
        let last = line.rsplit(['\t', ',', ';']).next().unwrap_or_default();
        let is_class = classes
            .iter()
            .any(|class| class == last.trim().trim_matches('"'));
        is_class && last.len() < line.len()
    };
    let begins_with_class = |line: &&str| {
        let first = line.split(['\t', ',', ';', ' ']).next().unwrap_or_default();
        let name = first.strip_prefix(FASTTEXT_LABEL).unwrap_or(first);
        let is_class = classes.iter().any(|class| class == name.trim_matches('"'));
        let is_field = !line[first.len()..].starts_with(' ') || first != name;
        is_class && is_field && first.len() < line.len()
    };
    let expected_tabs = usize::from(pairs);
    let has_more_columns = |line: &&str| line.matches('\t').count() > expected_tabs;
    let beginning = || lines.iter().take(CHECKED_LINES);
    let most = |is_such: &dyn Fn(&&str) -> bool| {
        beginning().filter(|line| is_such(line)).count() * 2 > beginning().count()
    };
    if most(&ends_with_class) {
        let problem = "most lines end with the name of a class";
        return Err(Error::file(path, problem, fix));
    }
    if most(&begins_with_class) {
        let problem = "most lines begin with the name of a class";
        return Err(Error::file(path, problem, fix));
    }
    if most(&has_more_columns) {
        let problem = "most lines have further columns, behind a tab";
        return Err(Error::file(path, problem, fix));
    }
    Ok(lines)
}
