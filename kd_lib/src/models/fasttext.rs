//! A student without hidden layers (after fastText, Joulin et al. 2017): the vectors of a text's
//! tokens and n-grams are added and divided by the number of tokens, and a linear map gives the
//! logits. (The paper divides by the number of tokens and n-grams.) N-grams have no vocabulary:
//! each is hashed to one of a fixed number of vectors, and some share one. It is by far the fastest
//! student. The order of tokens counts within an n-gram alone.

use super::layers::{Linear, Mode, embed_tokens, mean_embedding, new_linear};
use super::{
    Architecture, Classifier, ForwardPass, ModelOutput, ModelSizes, NormOver, Params, Perturbation,
    StudentEmbedding, check_dropout, check_width,
};
use crate::data::{Batch, DataConfig};
use crate::precision::Precision;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Longest n-gram in tokens.
const MAX_NGRAM: usize = 8;
/// Most vectors of n-grams.
const MAX_BUCKETS: i64 = 10_000_000;
/// The n-gram's number is that of the n-gram before its last token, times this, plus the token's id
/// and 1, modulo a prime. Factor and prime are below 2³¹, so that no product overflows.
const HASH_FACTOR: i64 = 1_000_000_007;
const HASH_PRIME: i64 = 2_147_483_647;

/// A fastText's `[model]` settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FastTextSettings {
    /// Width of a vector.
    pub embedding_dim: i64,
    /// Tokens of the longest n-gram; 1: tokens alone.
    pub longest_ngram: usize,
    /// Vectors that the n-grams share.
    pub ngram_buckets: i64,
    /// Dropout on each token's sum of vectors.
    pub dropout: f64,
    /// Entries of the vocabulary that is built from the training texts, at most.
    pub vocab_size: usize,
    /// Standard deviation of the initial vectors; 1, as in PyTorch, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_init_std: Option<f64>,
    /// Checkpoint folder whose word vectors the tokens begin with, projected on their principal
    /// components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrained_embeddings: Option<String>,
    /// Checkpoint folder whose subwords split the texts; characters if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
}

impl FastTextSettings {
    fn embedding(&self) -> StudentEmbedding<'_> {
        StudentEmbedding {
            vocab_size: self.vocab_size,
            vocab_file: None,
            tokenizer: self.tokenizer.as_deref(),
            pretrained_embeddings: self.pretrained_embeddings.as_deref(),
            embedding_init_std: self.embedding_init_std,
        }
    }
}

impl Architecture for FastTextSettings {
    fn validate(&self, _: &DataConfig) -> Result<()> {
        check_width("model.embedding_dim", self.embedding_dim)?;
        if !(1..=MAX_NGRAM).contains(&self.longest_ngram) {
            let (key, value) = ("model.longest_ngram", self.longest_ngram.to_string());
            return Err(Error::recipe(key, value, "choose 1 to 8 tokens"));
        }
        if !(1..=MAX_BUCKETS).contains(&self.ngram_buckets) {
            let (key, value) = ("model.ngram_buckets", self.ngram_buckets.to_string());
            return Err(Error::recipe(key, value, "choose 1 to 10,000,000"));
        }
        check_dropout(self.dropout)?;
        self.embedding().validate()
    }

    fn student_embedding(&self) -> Option<StudentEmbedding<'_>> {
        Some(self.embedding())
    }

    fn build(&self, sizes: &ModelSizes, device: Device) -> Result<Box<dyn Classifier>> {
        Ok(Box::new(FastText::new(
            self,
            sizes.vocab_size,
            sizes.num_labels,
            device,
        )))
    }
}

/// The student without hidden layers.
#[derive(Debug)]
pub struct FastText {
    params: Params,
    dropout: f64,
    longest_ngram: usize,
    vocab_size: i64,
    /// `[vocab + buckets, width]`: vectors of tokens, then those of n-grams.
    vectors: Tensor,
    classifier: Linear,
}

impl FastText {
    /// A new student: vectors N(0, 1), linear U(±1/√inputs), from libtorch's generator.
    pub fn new(
        settings: &FastTextSettings,
        vocab_size: i64,
        num_labels: i64,
        device: Device,
    ) -> FastText {
        let width = settings.embedding_dim;
        let buckets = match settings.longest_ngram {
            1 => 0,
            _ => settings.ngram_buckets,
        };
        let mut params = Params::on(device);
        let size = [vocab_size + buckets, width];
        let vectors = Tensor::randn(size, (Kind::Float, Device::Cpu));
        let vectors = params.add("embedding.weight", vectors, true);
        let classifier = new_linear(&mut params, "classifier", num_labels, width);
        FastText {
            params,
            dropout: settings.dropout,
            longest_ngram: settings.longest_ngram,
            vocab_size,
            vectors,
            classifier,
        }
    }

    /// For n from 2 on, the row of the n-gram that ends at each token, `[batch, seq - n + 1]`.
    fn ngram_rows(&self, ids: &Tensor) -> Vec<Tensor> {
        let length = ids.size()[1];
        let buckets = self.vectors.size()[0] - self.vocab_size;
        let mut hash = ids + 1;
        let mut rows = Vec::new();
        for n in 2..=self.longest_ngram.min(length as usize) as i64 {
            let last = ids.narrow(1, n - 1, length - n + 1) + 1;
            let before = hash.narrow(1, 0, length - n + 1);
            hash = (before * HASH_FACTOR + last).remainder(HASH_PRIME);
            rows.push(hash.remainder(buckets) + self.vocab_size);
        }
        rows
    }
}

impl Classifier for FastText {
    /// At each token its vector, plus those of the n-grams that end there. A perturbation of the
    /// matrix acts on both, one of each example's own vectors on the sum.
    fn embed(&self, batch: &Batch, mode: Mode, perturbation: Option<&Perturbation>) -> Tensor {
        let mut sum = embed_tokens(&self.vectors, &batch.ids, perturbation);
        let matrix_perturbation = perturbation.filter(|p| p.norm_over == NormOver::Matrix);
        for rows in self.ngram_rows(&batch.ids) {
            let ngrams = embed_tokens(&self.vectors, &rows, matrix_perturbation);
            let before = batch.ids.size()[1] - rows.size()[1];
            sum += ngrams.constant_pad_nd([0, 0, before, 0]);
        }
        mode.dropout(&sum, self.dropout)
    }

    /// Hidden layer 0 is the mean over the tokens.
    fn forward(&self, inputs: &Tensor, batch: &Batch, pass: &ForwardPass) -> ModelOutput {
        let mean = mean_embedding(inputs, &self.vectors, &batch.mask);
        let logits = self.classifier.forward(&mean, Precision::Fp32);
        let wanted = pass.hidden_layers.iter().filter(|&&layer| layer == 0);
        ModelOutput {
            logits,
            hidden: wanted.map(|_| mean.shallow_clone()).collect(),
        }
    }

    fn hidden_width(&self, layer: usize) -> Option<i64> {
        (layer == 0).then(|| self.vectors.size()[1])
    }

    fn word_embedding(&self) -> &Tensor {
        &self.vectors
    }

    fn params(&self) -> &Params {
        &self.params
    }
}
