//! The student's vocabulary: one entry a character, `<PAD>` first and `<UNK>` second, one a line in its file.

use super::format::read_lines;
use crate::{Error, Result, files};
use std::collections::HashMap;
use std::path::Path;

/// Id of the padding entry.
pub const PAD: i64 = 0;
/// Id of the unknown entry.
pub const UNK: i64 = 1;

/// Characters and their ids.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    entries: Vec<String>,
    index: HashMap<String, i64>,
}

impl Vocabulary {
    /// The `size − 2` most frequent characters of `texts` (ties in code-point order), after `<PAD>` and `<UNK>`.
    ///
    /// ```
    /// use kd_lib::data::Vocabulary;
    /// let vocabulary = Vocabulary::build(["足球足球", "足"], 3);
    /// assert_eq!(vocabulary.encode("足球"), [2, 1]);
    /// assert_eq!(vocabulary.encode(""), [1]); // an empty text is one unknown character
    /// ```
    pub fn build<'a>(texts: impl IntoIterator<Item = &'a str>, size: usize) -> Vocabulary {
        let mut counts: HashMap<char, usize> = HashMap::new();
        for character in texts.into_iter().flat_map(str::chars).filter(|c| !c.is_control()) {
            *counts.entry(character).or_default() += 1;
        }
        let mut characters: Vec<(char, usize)> = counts.into_iter().collect();
        characters.sort_by_key(|&(character, count)| (std::cmp::Reverse(count), character));
        let frequent = characters.into_iter().take(size.saturating_sub(2)).map(|(c, _)| c.to_string());
        Vocabulary::from_entries(["<PAD>".to_owned(), "<UNK>".to_owned()].into_iter().chain(frequent).collect())
    }

    /// Reads a vocabulary file.
    pub fn read(path: &Path) -> Result<Vocabulary> {
        let entries = read_lines(path)?;
        for (at, expected) in ["<PAD>", "<UNK>"].iter().enumerate() {
            let found = entries.get(at).map_or("nothing", String::as_str);
            if found != *expected {
                let fix = "the first two lines of a vocabulary are <PAD> and <UNK>";
                return Err(Error::line(path, at + 1, format!("{found:?} where {expected} must stand"), fix));
            }
        }
        Ok(Vocabulary::from_entries(entries))
    }

    /// Writes the vocabulary file.
    pub fn write(&self, path: &Path) -> Result<()> {
        files::write_text(path, &(self.entries.join("\n") + "\n"))
    }

    /// Ids of the characters; an empty text is one `<UNK>`.
    pub fn encode(&self, text: &str) -> Vec<i64> {
        let mut buffer = [0; 4];
        let id = |c: char| self.index.get(c.encode_utf8(&mut buffer) as &str).copied().unwrap_or(UNK);
        let mut ids: Vec<i64> = text.chars().map(id).collect();
        ids.resize(ids.len().max(1), UNK);
        ids
    }

    /// All entries, by id, `<PAD>` and `<UNK>` included.
    pub fn entries(&self) -> &[String] {
        &self.entries
    }

    fn from_entries(entries: Vec<String>) -> Vocabulary {
        let index = entries.iter().enumerate().map(|(i, e)| (e.clone(), i as i64)).collect();
        Vocabulary { entries, index }
    }
}
