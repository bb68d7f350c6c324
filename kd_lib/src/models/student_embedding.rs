//! How a student reads a text, and which word vectors initialise its embedding: characters of the
//! training texts or subwords of a pretrained checkpoint; random vectors or those of the
//! checkpoint. The students' settings name the choice; this module carries it out for all of them.

use super::checkpoint::Checkpoint;
use super::{TokenizerTexts, check_embedding_init_std, check_vocab_size};
use crate::data::{CharTokenizer, DataConfig, TextInput, Tokenizer, Vocabulary};
use crate::{Error, Result};
use std::path::Path;
use tch::{Kind, Tensor};

/// The part of a student's settings that this module needs.
#[derive(Debug, Clone, Copy)]
pub struct StudentEmbedding<'a> {
    /// Entries of the vocabulary, at most.
    pub vocab_size: usize,
    /// A file of characters to use instead of those of the training texts.
    pub vocab_file: Option<&'a Path>,
    /// Checkpoint whose subwords split the texts; characters if absent.
    pub tokenizer: Option<&'a str>,
    /// Checkpoint whose word vectors initialise the embedding; random ones if absent.
    pub pretrained_embeddings: Option<&'a str>,
    /// Standard deviation of the initial word vectors; 1 if absent.
    pub embedding_init_std: Option<f64>,
}

impl<'a> StudentEmbedding<'a> {
    /// Checks the settings.
    ///
    /// # Errors
    /// If a value is out of range or contradicts another one.
    pub fn validate(&self) -> Result<()> {
        check_vocab_size(self.vocab_size)?;
        check_embedding_init_std(self.embedding_init_std.unwrap_or(1.0))?;
        let Some(tokenizer) = self.tokenizer else {
            return Ok(());
        };
        if self.vocab_file.is_some() {
            let fix = "leave one of the two out: a vocabulary file lists characters";
            return Err(Error::recipe(
                "model.vocab_file",
                "with model.tokenizer",
                fix,
            ));
        }
        match self.pretrained_embeddings {
            Some(other) if other != tokenizer => {
                let fix = "name the same checkpoint in both: its vectors belong to its subwords";
                let key = "model.pretrained_embeddings";
                Err(Error::recipe(
                    key,
                    format!("{other:?}, with tokenizer {tokenizer:?}"),
                    fix,
                ))
            }
            _ => Ok(()),
        }
    }

    /// Name of the checkpoint that is needed.
    pub fn checkpoint(&self) -> Option<&'a str> {
        self.tokenizer.or(self.pretrained_embeddings)
    }

    /// The tokenizer for these training texts, labelled and unlabelled. Dev and test do not count.
    pub fn build_tokenizer(
        &self,
        data: &DataConfig,
        texts: &TokenizerTexts,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Tokenizer> {
        let texts: Vec<TextInput> = texts
            .train
            .iter()
            .chain(texts.unlabelled)
            .copied()
            .collect();
        if let (Some(_), Some(checkpoint)) = (self.tokenizer, checkpoint) {
            let whole = checkpoint.tokenizer()?;
            let whole = whole.with_limit("", data.max_length, data.truncation);
            let shrunk = whole.shrink_vocabulary(&texts, self.vocab_size)?;
            // Special tokens separate the two texts of a pair; a single text needs none.
            let has_pairs = texts.iter().any(|text| text.text_pair.is_some());
            let tokenizer = if has_pairs {
                shrunk
            } else {
                shrunk.without_special_tokens()
            };
            return Ok(Tokenizer::Subword(Box::new(tokenizer)));
        }
        let vocabulary = match self.vocab_file {
            Some(path) => Vocabulary::read(path)?,
            None => Vocabulary::build(texts, self.vocab_size),
        };
        Ok(Tokenizer::Char(CharTokenizer {
            vocabulary,
            max_length: data.max_length,
            truncation: data.truncation,
        }))
    }

    /// Gives the embedding, drawn from N(0, 1), its initial values. Its first rows are those of the
    /// vocabulary.
    pub fn initialize(
        &self,
        embedding: &Tensor,
        tokenizer: &Tokenizer,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<()> {
        if let (Some(_), Some(checkpoint)) = (self.pretrained_embeddings, checkpoint) {
            copy_pretrained(embedding, checkpoint, tokenizer)?;
        }
        let _guard = tch::no_grad_guard();
        let std = self.embedding_init_std.unwrap_or(1.0);
        let _ = embedding.shallow_clone().g_mul_scalar_(std);
        Ok(())
    }
}

/// Sets word vectors to a checkpoint's vectors of the same characters or pieces, projected on their
/// first principal components and scaled to a standard deviation of 1. Dimensions without a
/// component and rows that the checkpoint does not know stay random.
fn copy_pretrained(
    embedding: &Tensor,
    checkpoint: &Checkpoint,
    tokenizer: &Tokenizer,
) -> Result<()> {
    let known = checkpoint.pretrained_rows(tokenizer)?;
    if known.rows.len() < 2 {
        let problem = format!(
            "knows {} of the student's characters or pieces, too few for its word vectors",
            known.rows.len()
        );
        let fix = "name another checkpoint, or leave model.pretrained_embeddings out";
        return Err(Error::file(&checkpoint.folder, problem, fix));
    }
    let vectors = known.vectors.to_kind(Kind::Double);
    let centred = &vectors - vectors.mean_dim([0i64].as_slice(), true, Kind::Double);
    let (_, _, components) = centred.f_svd(true, true)?;
    let width = embedding.size()[1].min(components.size()[1]);
    let projected = centred.matmul(&components.narrow(1, 0, width));
    let scaled = (&projected / projected.std(false)).to_kind(Kind::Float);
    let rows = Tensor::from_slice(&known.rows).to_device(embedding.device());
    let _guard = tch::no_grad_guard();
    let _ =
        embedding
            .narrow(1, 0, width)
            .index_copy_(0, &rows, &scaled.to_device(embedding.device()));
    Ok(())
}
