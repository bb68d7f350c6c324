//! The one place where a text becomes ids: characters for the student, word pieces for the teacher.
//! An encoder is saved with its model, so that a text is read at home as it was read in training.

use super::batch::Encoded;
use super::corpus::Example;
use super::pieces::Pieces;
use super::vocabulary::{PAD, Vocabulary};
use crate::Result;
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What is kept of a text that is too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cut {
    /// Its beginning.
    #[default]
    Head,
    /// Its beginning and its end, half of each (Sun et al. 2019, section 5.3.1).
    HeadTail,
}

impl Cut {
    /// Whether the end is simply left off.
    pub fn is_head(&self) -> bool {
        *self == Cut::Head
    }

    /// Cuts a sequence to `max` entries, of which the first `front` and the last `back` are always kept.
    pub fn apply<T: Clone>(self, mut ids: Vec<T>, max: usize, front: usize, back: usize) -> Vec<T> {
        let (length, inner) = (ids.len(), max.saturating_sub(front + back));
        if length > max {
            let tail = if self == Cut::Head { 0 } else { inner / 2 };
            ids.drain(front + inner - tail..length - back - tail);
        }
        ids
    }
}

/// How texts become ids.
#[derive(Debug, Clone)]
pub enum Encoder {
    /// One id a character.
    Characters {
        /// The characters.
        vocabulary: Vocabulary,
        /// Longest sequence.
        max_tokens: usize,
        /// What is kept of a longer one.
        cut: Cut,
    },
    /// A Hugging Face tokenizer's pieces.
    Pieces(Box<Pieces>),
}

impl Encoder {
    /// Ids of each text; none is empty.
    pub fn encode(&self, texts: &[&str]) -> Result<Vec<Vec<i64>>> {
        match self {
            Encoder::Characters { vocabulary, max_tokens, cut } => {
                Ok(texts.iter().map(|t| cut.apply(vocabulary.encode(t), *max_tokens, 0, 0)).collect())
            }
            Encoder::Pieces(pieces) => pieces.encode(texts),
        }
    }

    /// Ids and labels of a split.
    pub fn encode_split(&self, examples: &[Example]) -> Result<Encoded> {
        let texts: Vec<&str> = examples.iter().map(|e| e.text.as_str()).collect();
        let labels = examples.iter().map(|e| e.label as i64).collect();
        Ok(Encoded { ids: self.encode(&texts)?, labels, pad: self.pad() })
    }

    /// The id that fills a short row of a batch.
    pub fn pad(&self) -> i64 {
        match self {
            Encoder::Characters { .. } => PAD,
            Encoder::Pieces(pieces) => pieces.pad(),
        }
    }

    /// Writes the encoder's files beside its model.
    pub fn write(&self, folder: &Path) -> Result<()> {
        match self {
            Encoder::Characters { vocabulary, .. } => vocabulary.write(&folder.join("vocab.txt")),
            Encoder::Pieces(pieces) => pieces.write(folder),
        }
    }

    /// Opens what [`Encoder::write`] wrote; `max_tokens` and `cut` are the characters'.
    pub fn read(folder: &Path, max_tokens: usize, cut: Cut) -> Result<Encoder> {
        let vocabulary = folder.join("vocab.txt");
        if vocabulary.exists() {
            return Ok(Encoder::Characters { vocabulary: Vocabulary::read(&vocabulary)?, max_tokens, cut });
        }
        Ok(Encoder::Pieces(Box::new(Pieces::read(folder)?)))
    }
}
