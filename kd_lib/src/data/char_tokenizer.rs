//! A student's tokenizer: one token a character. The vocabulary's first entry is `<PAD>`, its
//! second `<UNK>`, and its third `<SEP>` if it was built from text pairs: it stands between the two
//! texts of a pair. Its file has one entry per line. See
//! [`super::subword_tokenizer`] for subwords.

use super::batch::TokenizedSplit;
use super::text_input::TextInput;
use super::truncation::{SpecialTokens, Truncation, longest_first};
use crate::{Error, Result, files};
use std::collections::HashMap;
use std::path::Path;

/// Id of the padding entry.
pub const PAD: i64 = 0;
/// Id of the unknown entry.
pub const UNK: i64 = 1;
/// The entry between the two texts of a pair.
const SEPARATOR: &str = "<SEP>";

/// Characters and their ids.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    entries: Vec<String>,
    index: HashMap<String, i64>,
}

impl Vocabulary {
    /// The most frequent characters of `texts` (ties in code-point order), after `<PAD>`, `<UNK>`
    /// and, if a text is a pair, `<SEP>`; `size` entries at most.
    ///
    /// ```
    /// use kd_lib::data::Vocabulary;
    /// let vocabulary = Vocabulary::build(["足球足球", "足"], 3);
    /// assert_eq!(vocabulary.encode("足球"), [2, 1]);
    /// assert_eq!(vocabulary.encode(""), [1]); // an empty text is one unknown character
    /// ```
    pub fn build<'a, T: Into<TextInput<'a>>>(
        texts: impl IntoIterator<Item = T>,
        size: usize,
    ) -> Vocabulary {
        let mut counts: HashMap<char, usize> = HashMap::new();
        let mut has_pairs = false;
        for input in texts {
            let input: TextInput = input.into();
            has_pairs |= input.text_pair.is_some();
            for character in input.texts().flat_map(str::chars) {
                if !character.is_control() {
                    *counts.entry(character).or_default() += 1;
                }
            }
        }
        let mut characters: Vec<(char, usize)> = counts.into_iter().collect();
        characters.sort_by_key(|&(character, count)| (std::cmp::Reverse(count), character));
        let mut entries = vec!["<PAD>".to_owned(), "<UNK>".to_owned()];
        if has_pairs {
            entries.push(SEPARATOR.to_owned());
        }
        let frequent = characters
            .into_iter()
            .take(size.saturating_sub(entries.len()));
        entries.extend(frequent.map(|(character, _)| character.to_string()));
        Vocabulary::from_entries(entries)
    }

    /// Reads a vocabulary file.
    pub fn read(path: &Path) -> Result<Vocabulary> {
        // Not as a text file is read: a mark (U+FEFF) is a character of a vocabulary like any
        // other.
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let entries: Vec<String> = text.lines().map(str::to_owned).collect();
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

    /// Id of the separator, if the vocabulary has one.
    pub fn separator(&self) -> Option<i64> {
        self.index.get(SEPARATOR).copied()
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
    /// Ids of each text, without labels. A pair is its first text, the separator and its second
    /// text; of a pair that is too long the longer text is cut first.
    ///
    /// # Errors
    /// If a pair is given and the vocabulary has no separator.
    pub fn encode<'a, T: Into<TextInput<'a>> + Copy>(&self, texts: &[T]) -> Result<TokenizedSplit> {
        let mut split = TokenizedSplit {
            pad_id: PAD,
            ..TokenizedSplit::default()
        };
        for (row, &text) in texts.iter().enumerate() {
            let input: TextInput = text.into();
            let first = self.vocabulary.encode(input.text);
            let mut length = first.len();
            let ids = match input.text_pair {
                Some(second) => {
                    let second = self.vocabulary.encode(second);
                    length += 1 + second.len();
                    self.join(first, second)?
                }
                None => self
                    .truncation
                    .apply(first, self.max_length, SpecialTokens::NONE),
            };
            if ids.len() < length {
                split.truncated.push(row);
            }
            split.ids.push(ids);
        }
        Ok(split)
    }

    fn join(&self, mut first: Vec<i64>, mut second: Vec<i64>) -> Result<Vec<i64>> {
        let separator = self.vocabulary.separator().ok_or_else(|| {
            let fix = "train on text pairs, or write <SEP> into the third line of \
                       model.vocab_file";
            Error::recipe("text_pair", "the vocabulary has no <SEP>", fix)
        })?;
        let kept = longest_first(first.len(), second.len(), self.max_length.saturating_sub(1));
        first.truncate(kept.first);
        second.truncate(kept.second);
        first.push(separator);
        first.append(&mut second);
        Ok(first)
    }
}
