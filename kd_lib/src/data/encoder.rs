//! The one place where a text becomes ids: characters for the student, word pieces for the teacher.
//! An encoder is saved with its model, so that a text is read at home as it was read in training.

use super::batch::Encoded;
use super::corpus::Example;
use super::pieces::Pieces;
use super::vocabulary::{PAD, Vocabulary};
use crate::Result;
use std::path::Path;

/// How texts become ids.
#[derive(Debug, Clone)]
pub enum Encoder {
    /// One id a character, cut after `max_tokens`.
    Characters {
        /// The characters.
        vocabulary: Vocabulary,
        /// Longest sequence.
        max_tokens: usize,
    },
    /// A Hugging Face tokenizer's pieces.
    Pieces(Box<Pieces>),
}

impl Encoder {
    /// Ids of each text; none is empty.
    pub fn encode(&self, texts: &[&str]) -> Result<Vec<Vec<i64>>> {
        match self {
            Encoder::Characters { vocabulary, max_tokens } => {
                Ok(texts.iter().map(|t| vocabulary.encode(t, *max_tokens)).collect())
            }
            Encoder::Pieces(pieces) => pieces.encode(texts),
        }
    }

    /// Ids and labels of a split.
    pub fn encode_split(&self, examples: &[Example]) -> Result<Encoded> {
        let texts: Vec<&str> = examples.iter().map(|e| e.text.as_str()).collect();
        Ok(Encoded {
            ids: self.encode(&texts)?,
            labels: examples.iter().map(|e| e.label as i64).collect(),
            pad: self.pad(),
        })
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

    /// Opens what [`Encoder::write`] wrote; `max_tokens` is the characters' cut.
    pub fn read(folder: &Path, max_tokens: usize) -> Result<Encoder> {
        let vocabulary = folder.join("vocab.txt");
        if vocabulary.exists() {
            return Ok(Encoder::Characters { vocabulary: Vocabulary::read(&vocabulary)?, max_tokens });
        }
        Ok(Encoder::Pieces(Box::new(Pieces::read(folder)?)))
    }
}
