//! The one place where a text becomes token ids: characters or subwords. A tokenizer is saved with
//! its model, so that a text is read in use as it was read in training.

use super::batch::TokenizedSplit;
use super::char_tokenizer::{CharTokenizer, Vocabulary};
use super::config::DataConfig;
use super::subword_tokenizer::SubwordTokenizer;
use super::text_files::Example;
use super::text_input::TextInput;
use crate::Result;
use std::path::Path;

/// Turns texts into token ids.
#[derive(Debug, Clone)]
pub enum Tokenizer {
    /// One token a character.
    Char(CharTokenizer),
    /// The subwords of a Hugging Face tokenizer.
    Subword(Box<SubwordTokenizer>),
}

impl Tokenizer {
    /// Texts or text pairs as token ids, without labels.
    ///
    /// # Errors
    /// If a pair is given to a vocabulary without a separator, or the tokenizer's file is damaged.
    pub fn encode<'a, T: Into<TextInput<'a>> + Copy>(&self, texts: &[T]) -> Result<TokenizedSplit> {
        match self {
            Tokenizer::Char(tokenizer) => tokenizer.encode(texts),
            Tokenizer::Subword(tokenizer) => tokenizer.encode(texts),
        }
    }

    /// Ids and labels of a split.
    pub fn encode_split(&self, examples: &[Example]) -> Result<TokenizedSplit> {
        let inputs: Vec<TextInput> = examples.iter().map(Example::input).collect();
        Ok(TokenizedSplit {
            labels: examples.iter().map(|e| e.label as i64).collect(),
            ..self.encode(&inputs)?
        })
    }

    /// Number of rows of the embedding that this tokenizer needs, if the tokenizer decides it. A
    /// subword tokenizer that keeps all rows leaves the number to the checkpoint.
    pub fn vocab_size(&self) -> Option<i64> {
        match self {
            Tokenizer::Char(tokenizer) => Some(tokenizer.vocabulary.entries().len() as i64),
            Tokenizer::Subword(tokenizer) => tokenizer.vocab_size(),
        }
    }

    /// Writes the tokenizer's files into the folder of its model.
    pub fn write(&self, folder: &Path) -> Result<()> {
        match self {
            Tokenizer::Char(tokenizer) => tokenizer.vocabulary.write(&folder.join("vocab.txt")),
            Tokenizer::Subword(tokenizer) => tokenizer.write(folder),
        }
    }

    /// Opens what [`Tokenizer::write`] wrote, for a run with these `[data]` settings.
    pub fn read(folder: &Path, data: &DataConfig) -> Result<Tokenizer> {
        let vocabulary = folder.join("vocab.txt");
        if vocabulary.exists() {
            return Ok(Tokenizer::Char(CharTokenizer {
                vocabulary: Vocabulary::read(&vocabulary)?,
                max_length: data.max_length,
                truncation: data.truncation,
            }));
        }
        Ok(Tokenizer::Subword(Box::new(SubwordTokenizer::read(
            folder,
        )?)))
    }
}
