//! The student: characters → embedding → one bidirectional LSTM → max over time → linear.
//!
//! Padding is exact: each direction is a unidirectional pass over right-padded rows, the backward one over
//! the row reversed *within its length*, and pooling sees real positions only. That keeps libtorch on its
//! fused LSTM, which packed sequences leave, and makes a text's logits independent of its batch-mates.

use super::bert::word_vectors;
use super::{Classifier, Mode, Params, for_parts, linear, words};
use crate::Result;
use crate::data::{Batch, Cut, Pieces, Vocabulary};
use crate::strategies::{Perturbation, Precision};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Sizes of the student.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BiLstmConfig {
    /// Vocabulary entries.
    pub vocabulary: i64,
    /// Embedding width.
    pub embedding: i64,
    /// Hidden width of each direction.
    pub hidden: i64,
    /// Number of classes.
    pub classes: i64,
    /// Dropout on the embedded characters and on the pooled features.
    pub dropout: f64,
    /// Let the maximum see a zero for each padding position, as the published student does: the logits of a text
    /// then depend on its batch-mates.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pool_padding: bool,
}

/// The student network.
#[derive(Debug)]
pub struct BiLstm {
    params: Params,
    config: BiLstmConfig,
    embedding: Tensor,
    /// `[w_ih, w_hh, b_ih, b_hh]` of the forward and of the backward direction.
    directions: [[Tensor; 4]; 2],
    classifier: [Tensor; 2],
}

impl BiLstm {
    /// A fresh student, initialised like PyTorch's modules: embedding N(0, 1), LSTM U(±1/√hidden), linear
    /// U(±1/√fan-in). Draws come from libtorch's generator.
    pub fn new(config: &BiLstmConfig, device: Device) -> BiLstm {
        let mut params = Params::on(device);
        let uniform =
            |size: &[i64], bound: f64| Tensor::empty(size, (Kind::Float, Device::Cpu)).uniform_(-bound, bound);
        let (inner, gates) = (config.hidden, 4 * config.hidden);
        let vectors = Tensor::randn([config.vocabulary, config.embedding], (Kind::Float, Device::Cpu));
        let embedding = params.add("embedding.weight", vectors, true);
        let bound = 1.0 / (inner as f64).sqrt();
        let directions = ["", "_reverse"].map(|suffix| {
            [
                params.add(format!("lstm.weight_ih_l0{suffix}"), uniform(&[gates, config.embedding], bound), true),
                params.add(format!("lstm.weight_hh_l0{suffix}"), uniform(&[gates, inner], bound), true),
                params.add(format!("lstm.bias_ih_l0{suffix}"), uniform(&[gates], bound), false),
                params.add(format!("lstm.bias_hh_l0{suffix}"), uniform(&[gates], bound), false),
            ]
        });
        let bound = 1.0 / (2.0 * inner as f64).sqrt();
        let classifier = [
            params.add("classifier.weight", uniform(&[config.classes, 2 * inner], bound), true),
            params.add("classifier.bias", uniform(&[config.classes], bound), false),
        ];
        params.mark_products(|name| name.starts_with("lstm."));
        BiLstm { params, config: *config, embedding, directions, classifier }
    }

    /// Begins with a checkpoint's vectors of single characters, on their first principal components, at a standard
    /// deviation of 1. What there is no component for stays random, and so does a character that the checkpoint's
    /// tokenizer does not know.
    pub fn begin_with(&self, folder: &Path, vocabulary: &Vocabulary) -> Result<()> {
        let pieces = Pieces::open(folder, "", 8, Cut::Head)?;
        let known = |(row, entry): (usize, &String)| Some((row as i64, pieces.of_character(entry)?));
        let known = vocabulary.entries().iter().enumerate().skip(2).filter_map(known);
        let (rows, ids): (Vec<i64>, Vec<u32>) = known.unzip();
        let vectors = word_vectors(folder, &ids)?.to_kind(Kind::Double);
        let centred = &vectors - vectors.mean_dim([0i64].as_slice(), true, Kind::Double);
        let (_, _, components) = centred.f_svd(true, true)?;
        let width = self.embedding.size()[1].min(components.size()[1]);
        let projected = centred.matmul(&components.narrow(1, 0, width));
        let scaled = (&projected / projected.std(false)).to_kind(Kind::Float);
        let [rows, scaled] = [Tensor::from_slice(&rows), scaled].map(|t| t.to_device(self.embedding.device()));
        let _guard = tch::no_grad_guard();
        let _ = self.embedding.narrow(1, 0, width).index_copy_(0, &rows, &scaled);
        Ok(())
    }

    /// Hidden states of each direction from rounded inputs, `[batch, seq, hidden]`: the first in text order, the
    /// second in the order in which it read, from the row's last character to its first. Past a row's length
    /// undefined.
    pub fn states(&self, inputs: &Tensor, batch: &Batch, precision: Precision) -> [Tensor; 2] {
        [self.direction(0, inputs, precision), self.direction(1, &reversed(inputs, batch), precision)]
    }

    fn direction(&self, which: usize, inputs: &Tensor, precision: Precision) -> Tensor {
        let [input, hidden, bias_ih, bias_hh] = &self.directions[which];
        let weights = [&for_parts(input, inputs), hidden, bias_ih, bias_hh];
        let weights = weights.map(|w| precision.cast(w).to_kind(inputs.kind()));
        let weights = if inputs.device().is_cuda() { in_one_memory(&weights) } else { weights.into() };
        let zero = Tensor::zeros([1, inputs.size()[0], self.config.hidden], (inputs.kind(), inputs.device()));
        precision.cast(&inputs.lstm(&[zero.shallow_clone(), zero], &weights, true, 1, 0.0, true, false, true).0)
    }

    /// The maximum over time of `states [batch, seq, hidden]`, `[batch, hidden]`. libtorch's own for one dimension goes
    /// value by value; that for pictures, here one row of `seq` with `hidden` channels, takes many channels at once.
    fn pooled(&self, states: &Tensor, batch: &Batch) -> Tensor {
        let mask = batch.mask.unsqueeze(2);
        let states = match self.config.pool_padding {
            true => states * mask.to_kind(states.kind()),
            false => states + mask.to_kind(states.kind()).log(),
        };
        let (seq, stride) = (states.size()[1], [1i64; 0]);
        let channels = states.contiguous().transpose(1, 2).unsqueeze(2);
        channels.max_pool2d([1, seq], stride, [0, 0], [1, 1], false).flatten(1, -1)
    }
}

impl Classifier for BiLstm {
    fn embed(&self, batch: &Batch, mode: Mode, perturbation: Option<&Perturbation>) -> Tensor {
        mode.dropout(&words(&self.embedding, &batch.ids, perturbation), self.config.dropout)
    }

    fn classify(&self, inputs: &Tensor, batch: &Batch, mode: Mode, precision: Precision) -> Tensor {
        // A maximum over time does not ask for an order, so the backward states need no turning back.
        let states = self.states(inputs, batch, precision);
        let pooled = states.map(|states| self.pooled(&states, batch));
        let pooled = Tensor::cat(&pooled, 1).to_kind(Kind::Float);
        let pooled = mode.dropout(&pooled, self.config.dropout);
        linear(&pooled, &self.classifier, Precision::Fp32)
    }

    fn word_embedding(&self) -> &Tensor {
        &self.embedding
    }

    fn params(&self) -> &Params {
        &self.params
    }
}

/// The same weights one behind another, as cuDNN reads them: else it puts them so at each call, and says so each time.
fn in_one_memory(weights: &[Tensor]) -> Vec<Tensor> {
    let sizes: Vec<i64> = weights.iter().map(|w| w.numel() as i64).collect();
    let joined = Tensor::cat(&weights.iter().map(|w| w.flatten(0, -1)).collect::<Vec<_>>(), 0);
    joined.split_with_sizes(&sizes, 0).iter().zip(weights).map(|(part, w)| part.view_as(w)).collect()
}

/// Each row of `x [batch, seq, width]` reversed within its length; padding stays where it is.
fn reversed(x: &Tensor, batch: &Batch) -> Tensor {
    let (rows, seq) = (x.size()[0], x.size()[1]);
    let range = |n: i64| Tensor::arange(n, (Kind::Int64, x.device()));
    let turned = (batch.lengths.unsqueeze(1) - 1 - range(seq)).where_self(&batch.mask, &range(seq));
    let within_all = turned + range(rows).unsqueeze(1) * seq;
    x.flatten(0, 1).index_select(0, &within_all.flatten(0, 1)).view_as(x)
}
