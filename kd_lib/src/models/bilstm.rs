//! A BiLSTM student: characters or subwords → embedding → one bidirectional LSTM → max over time →
//! linear.
//!
//! Padding is exact. Each direction is a unidirectional pass over right-padded rows; the backward
//! one reads each row reversed *within its length*, and pooling ignores padding. libtorch then uses
//! its fused LSTM, which it does not for packed sequences, and a text's logits do not depend on its
//! neighbours in the batch.

use super::layers::{
    Linear, Mode, embed_tokens, mean_embedding, new_linear, repeat_for_parts, uniform,
};
use super::{
    Architecture, Classifier, ForwardPass, ModelOutput, ModelSizes, Params, Perturbation,
    StudentEmbedding, check_dropout, check_width,
};
use crate::Result;
use crate::data::{Batch, DataConfig};
use crate::precision::Precision;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};

/// A BiLSTM's `[model]` settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BiLstmSettings {
    /// Width of a word vector: of a character's or a subword's.
    pub embedding_dim: i64,
    /// Hidden width of each direction.
    pub hidden_size: i64,
    /// Dropout on embedded tokens and pooled features.
    pub dropout: f64,
    /// Entries of the vocabulary that is built from the training texts, at most.
    pub vocab_size: usize,
    /// Read the vocabulary from this file instead: `<PAD>`, `<UNK>`, then one character a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocab_file: Option<PathBuf>,
    /// Let the maximum over time include a zero for each padding position, as the published
    /// student does. A text's logits then depend on its neighbours in the batch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pool_padding: bool,
    /// Standard deviation of the initial word vectors; 1, as in PyTorch, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding_init_std: Option<f64>,
    /// Checkpoint folder whose word vectors initialise the embedding, projected on their principal
    /// components.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretrained_embeddings: Option<String>,
    /// Checkpoint folder whose subwords split the texts; characters if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
}

/// The sizes of the project's student.
impl Default for BiLstmSettings {
    fn default() -> BiLstmSettings {
        BiLstmSettings {
            embedding_dim: 300,
            hidden_size: 384,
            dropout: 0.3,
            vocab_size: 5000,
            vocab_file: None,
            pool_padding: false,
            embedding_init_std: None,
            pretrained_embeddings: None,
            tokenizer: None,
        }
    }
}

impl BiLstmSettings {
    fn embedding(&self) -> StudentEmbedding<'_> {
        StudentEmbedding {
            vocab_size: self.vocab_size,
            vocab_file: self.vocab_file.as_deref(),
            tokenizer: self.tokenizer.as_deref(),
            pretrained_embeddings: self.pretrained_embeddings.as_deref(),
            embedding_init_std: self.embedding_init_std,
        }
    }
}

impl Architecture for BiLstmSettings {
    fn validate(&self, _: &DataConfig) -> Result<()> {
        check_width("model.embedding_dim", self.embedding_dim)?;
        check_width("model.hidden_size", self.hidden_size)?;
        check_dropout(self.dropout)?;
        self.embedding().validate()
    }

    fn student_embedding(&self) -> Option<StudentEmbedding<'_>> {
        Some(self.embedding())
    }

    fn build(&self, sizes: &ModelSizes, device: Device) -> Result<Box<dyn Classifier>> {
        Ok(Box::new(BiLstm::new(
            self,
            sizes.vocab_size,
            sizes.num_labels,
            device,
        )))
    }
}

/// The student network.
#[derive(Debug)]
pub struct BiLstm {
    params: Params,
    dropout: f64,
    hidden_size: i64,
    pool_padding: bool,
    embedding: Tensor,
    forward: LstmWeights,
    backward: LstmWeights,
    classifier: Linear,
}

/// One direction's parameters, named as in PyTorch.
#[derive(Debug)]
struct LstmWeights {
    /// `[4 · hidden, embedding]`.
    weight_ih: Tensor,
    /// `[4 · hidden, hidden]`.
    weight_hh: Tensor,
    /// `[4 · hidden]`.
    bias_ih: Tensor,
    /// `[4 · hidden]`.
    bias_hh: Tensor,
}

/// Hidden states `[batch, seq, hidden]` of both directions, undefined past a row's length.
pub struct BiLstmStates {
    /// In text order.
    pub forward: Tensor,
    /// In the order in which the backward direction reads: from a row's last token to its first.
    pub backward: Tensor,
}

impl LstmWeights {
    fn new(params: &mut Params, suffix: &str, inputs: i64, hidden: i64) -> LstmWeights {
        let bound = 1.0 / (hidden as f64).sqrt();
        let mut add = |name: &str, size: &[i64], decay: bool| {
            params.add(
                format!("lstm.{name}_l0{suffix}"),
                uniform(size, bound),
                decay,
            )
        };
        LstmWeights {
            weight_ih: add("weight_ih", &[4 * hidden, inputs], true),
            weight_hh: add("weight_hh", &[4 * hidden, hidden], true),
            bias_ih: add("bias_ih", &[4 * hidden], false),
            bias_hh: add("bias_hh", &[4 * hidden], false),
        }
    }
}

impl BiLstm {
    /// A new student with PyTorch's initial values: embedding N(0, 1), LSTM U(±1/√hidden), linear
    /// U(±1/√inputs), from libtorch's generator.
    pub fn new(
        settings: &BiLstmSettings,
        vocab_size: i64,
        num_labels: i64,
        device: Device,
    ) -> BiLstm {
        let BiLstmSettings {
            embedding_dim,
            hidden_size,
            dropout,
            pool_padding,
            ..
        } = *settings;
        let mut params = Params::on(device);
        let vectors = Tensor::randn([vocab_size, embedding_dim], (Kind::Float, Device::Cpu));
        let embedding = params.add("embedding.weight", vectors, true);
        let forward = LstmWeights::new(&mut params, "", embedding_dim, hidden_size);
        let backward = LstmWeights::new(&mut params, "_reverse", embedding_dim, hidden_size);
        let classifier = new_linear(&mut params, "classifier", num_labels, 2 * hidden_size);
        params.mark_matmul_weights(|name| name.starts_with("lstm."));
        BiLstm {
            params,
            dropout,
            hidden_size,
            pool_padding,
            embedding,
            forward,
            backward,
            classifier,
        }
    }

    /// Hidden states of each direction, from rounded inputs.
    pub fn states(&self, inputs: &Tensor, batch: &Batch, precision: Precision) -> BiLstmStates {
        let reversed = reverse_within_length(inputs, batch);
        BiLstmStates {
            forward: self.run_direction(&self.forward, inputs, precision),
            backward: self.run_direction(&self.backward, &reversed, precision),
        }
    }

    fn run_direction(&self, lstm: &LstmWeights, inputs: &Tensor, precision: Precision) -> Tensor {
        let weight_ih = repeat_for_parts(&lstm.weight_ih, inputs);
        let weights = [&weight_ih, &lstm.weight_hh, &lstm.bias_ih, &lstm.bias_hh];
        let mut weights: Vec<Tensor> = weights
            .iter()
            .map(|w| precision.cast(w).to_kind(inputs.kind()))
            .collect();
        if inputs.device().is_cuda() {
            weights = in_one_memory(&weights);
        }
        let options = (inputs.kind(), inputs.device());
        let zero = Tensor::zeros([1, inputs.size()[0], self.hidden_size], options);
        let initial = [zero.shallow_clone(), zero];
        let (states, _, _) = inputs.lstm(&initial, &weights, true, 1, 0.0, true, false, true);
        precision.cast(&states)
    }

    /// Maximum over time of `states [batch, seq, hidden]` → `[batch, hidden]`. libtorch's maximum
    /// over one dimension computes value by value. Its pooling for pictures computes many channels
    /// at once: here a text is a picture of height 1, width `seq` and `hidden` channels.
    fn max_over_time(&self, states: &Tensor, batch: &Batch) -> Tensor {
        let mask = batch.mask.unsqueeze(2).to_kind(states.kind());
        let states = if self.pool_padding {
            states * mask
        } else {
            states + mask.log()
        };
        let (seq, no_stride) = (states.size()[1], [1i64; 0]);
        let channels = states.contiguous().transpose(1, 2).unsqueeze(2);
        channels
            .max_pool2d([1, seq], no_stride, [0, 0], [1, 1], false)
            .flatten(1, -1)
    }
}

impl Classifier for BiLstm {
    fn embed(&self, batch: &Batch, mode: Mode, perturbation: Option<&Perturbation>) -> Tensor {
        let words = embed_tokens(&self.embedding, &batch.ids, perturbation);
        mode.dropout(&words, self.dropout)
    }

    /// Hidden layer 0 is the mean of the embedded tokens, layer 1 the pooled LSTM states.
    fn forward(&self, inputs: &Tensor, batch: &Batch, pass: &ForwardPass) -> ModelOutput {
        // The maximum over time does not depend on the order of the backward states.
        let states = self.states(inputs, batch, pass.precision);
        let forward = self.max_over_time(&states.forward, batch);
        let backward = self.max_over_time(&states.backward, batch);
        let pooled = Tensor::cat(&[forward, backward], 1).to_kind(Kind::Float);
        let features = pass.mode.dropout(&pooled, self.dropout);
        let logits = self.classifier.forward(&features, Precision::Fp32);
        let hidden = pass.hidden_layers.iter().filter_map(|layer| match layer {
            0 => Some(mean_embedding(inputs, &self.embedding, &batch.mask)),
            1 => Some(pooled.shallow_clone()),
            _ => None,
        });
        ModelOutput {
            logits,
            hidden: hidden.collect(),
        }
    }

    fn hidden_width(&self, layer: usize) -> Option<i64> {
        match layer {
            0 => Some(self.embedding.size()[1]),
            1 => Some(2 * self.hidden_size),
            _ => None,
        }
    }

    fn word_embedding(&self) -> &Tensor {
        &self.embedding
    }

    fn params(&self) -> &Params {
        &self.params
    }
}

/// The same weights one behind another in one memory, as cuDNN reads them. Otherwise cuDNN copies
/// them at each call and prints a warning each time.
fn in_one_memory(weights: &[Tensor]) -> Vec<Tensor> {
    let sizes: Vec<i64> = weights.iter().map(|w| w.numel() as i64).collect();
    let flat: Vec<Tensor> = weights.iter().map(|w| w.flatten(0, -1)).collect();
    let parts = Tensor::cat(&flat, 0).split_with_sizes(&sizes, 0);
    parts
        .iter()
        .zip(weights)
        .map(|(part, w)| part.view_as(w))
        .collect()
}

/// Each row of `x [batch, seq, width]` reversed within its length; padding stays in place.
fn reverse_within_length(x: &Tensor, batch: &Batch) -> Tensor {
    let (rows, seq) = (x.size()[0], x.size()[1]);
    let range = |n: i64| Tensor::arange(n, (Kind::Int64, x.device()));
    let reversed =
        (batch.lengths.unsqueeze(1) - 1 - range(seq)).where_self(&batch.mask, &range(seq));
    let flat_index = reversed + range(rows).unsqueeze(1) * seq;
    x.flatten(0, 1)
        .index_select(0, &flat_index.flatten(0, 1))
        .view_as(x)
}
