//! The student's tokenizer: one token a character. The vocabulary's first entry is `<PAD>`, its
//! second `<UNK>`, and its file has one entry a line. See
//! [`super::subword_tokenizer`] for subwords.

use super::text_files::read_lines;
use super::truncation::{SpecialTokens, Truncation};
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
    /// The `size − 2` most frequent characters of `texts` (ties in code-point order), after `<PAD>`
    /// and `<UNK>`.
    ///
    /// ```
    /// use kd_lib::data::Vocabulary;
    /// let vocabulary = Vocabulary::build(["足球足球", "足"], 3);
    /// assert_eq!(vocabulary.encode("足球"), [2, 1]);
    /// assert_eq!(vocabulary.encode(""), [1]); // an empty text is one unknown character
    /// ```
    pub fn build<'a>(texts: impl IntoIterator<Item = &'a str>, size: usize) -> Vocabulary {
        let mut counts: HashMap<char, usize> = HashMap::new();
        for character in texts.into_iter().flat_map(str::chars) {
            if !character.is_control() {
                *counts.entry(character).or_default() += 1;
            }
        }
        let mut characters: Vec<(char, usize)> = counts.into_iter().collect();
        characters.sort_by_key(|&(character, count)| (std::cmp::Reverse(count), character));
        let mut entries = vec!["<PAD>".to_owned(), "<UNK>".to_owned()];
        let frequent = characters.into_iter().take(size.saturating_sub(2));
        entries.extend(frequent.map(|(character, _)| character.to_string()));
        Vocabulary::from_entries(entries)
    }

    /// Reads a vocabulary file.
    pub fn read(path: &Path) -> Result<Vocabulary> {
        let entries = read_lines(path)?;
        for (at, expected) in ["<PAD>", "<UNK>"].iter().enumerate() {
            let found = entries.get(at).map_or("nothing", String::as_str);
            if found != *expected {
                let problem = format!("{found:?} where {expected} is expected");
                let fix = "the first two lines of a vocabulary are <PAD> and <UNK>";
                return Err(Error::line(path, at + 1, problem, fix));
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
        let mut ids = Vec::new();
        for character in text.chars() {
            let known = self.index.get(character.encode_utf8(&mut buffer) as &str);
            ids.push(known.copied().unwrap_or(UNK));
        }
        if ids.is_empty() {
            ids.push(UNK);
        }
        ids
    }

    /// All entries by id, `<PAD>` and `<UNK>` included.
    pub fn entries(&self) -> &[String] {
        &self.entries
    }

    fn from_entries(entries: Vec<String>) -> Vocabulary {
        let numbered = entries.iter().enumerate();
        let index = numbered
            .map(|(id, entry)| (entry.clone(), id as i64))
            .collect();
        Vocabulary { entries, index }
    }
}

/// A tokenizer whose tokens are characters.
#[derive(Debug, Clone)]
pub struct CharTokenizer {
    /// The characters.
    pub vocabulary: Vocabulary,
    /// Longest sequence.
    pub max_length: usize,
    /// The part of a longer text that is kept.
    pub truncation: Truncation,
}

impl CharTokenizer {
    /// Ids of each text; none is empty.
    pub fn encode(&self, texts: &[&str]) -> Vec<Vec<i64>> {
        let encode = |text: &&str| {
            let ids = self.vocabulary.encode(text);
            self.truncation
                .apply(ids, self.max_length, SpecialTokens::NONE)
        };
        texts.iter().map(encode).collect()
    }
}
