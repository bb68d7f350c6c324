//! The teacher: a BERT encoder (Devlin et al. 2019, post-layer-norm) with a classification head, written
//! after the reference implementation's parameter names, so that any BERT checkpoint folder loads.
//! Dropout acts on embeddings, attention weights, both residual branches and the pooled vector.

use super::{Classifier, Mode, Params, linear, words};
use crate::data::{Batch, Pieces};
use crate::files::{TensorFile, read_json};
use crate::strategies::{Perturbation, Precision, precision};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

const WORDS: &str = "embeddings.word_embeddings.weight";

/// A checkpoint's `config.json`, as far as the encoder needs it.
#[serde_inline_default]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are the checkpoint format's own
pub struct BertConfig {
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub num_hidden_layers: usize,
    pub num_attention_heads: i64,
    pub intermediate_size: i64,
    pub max_position_embeddings: i64,
    pub type_vocab_size: i64,
    pub layer_norm_eps: f64,
    #[serde_inline_default(0.1)]
    pub hidden_dropout_prob: f64,
    #[serde_inline_default(0.1)]
    pub attention_probs_dropout_prob: f64,
    #[serde_inline_default(0.02)]
    pub initializer_range: f64,
}

/// How token states become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// tanh of a linear map of the first token's state, as BERT was trained.
    Cls,
    /// Mean over real tokens, as sentence encoders are trained.
    Mean,
}

impl BertConfig {
    /// Reads and checks a checkpoint's `config.json`.
    pub fn read(path: &Path) -> Result<BertConfig> {
        let stated: serde_json::Value = read_json(path)?;
        // What this encoder does not compute would load all the same and be silently wrong.
        for (key, known) in [("model_type", "bert"), ("hidden_act", "gelu"), ("position_embedding_type", "absolute")] {
            if let Some(other) = stated[key].as_str().filter(|&value| value != known) {
                let fix = format!("this encoder needs {key} {known:?}; choose another checkpoint");
                return Err(Error::file(path, format!("{key} is {other:?}"), fix));
            }
        }
        let config: BertConfig = read_json(path)?;
        let (width, heads) = (config.hidden_size, config.num_attention_heads);
        if heads < 1 || width % heads != 0 {
            let problem = format!("hidden_size {width} does not divide by num_attention_heads {heads}");
            return Err(Error::file(path, problem, "is this a BERT checkpoint's config.json?"));
        }
        Ok(config)
    }
}

#[derive(Debug)]
struct Layer {
    query: [Tensor; 2],
    key: [Tensor; 2],
    value: [Tensor; 2],
    attention_out: [Tensor; 2],
    attention_norm: [Tensor; 2],
    up: [Tensor; 2],
    down: [Tensor; 2],
    norm: [Tensor; 2],
}

/// The teacher network.
#[derive(Debug)]
pub struct Bert {
    params: Params,
    config: BertConfig,
    word: Tensor,
    position: Tensor,
    token_type: Tensor,
    norm: [Tensor; 2],
    layers: Vec<Layer>,
    pooler: Option<[Tensor; 2]>,
    classifier: [Tensor; 2],
}

/// Makes parameters with BERT's own first values.
struct Maker {
    params: Params,
    spread: f64,
}

impl Maker {
    fn normal(&mut self, name: &str, size: &[i64]) -> Tensor {
        let values = Tensor::randn(size, (Kind::Float, Device::Cpu)) * self.spread;
        self.params.add(name, values, true)
    }

    fn linear(&mut self, name: &str, outputs: i64, inputs: i64) -> [Tensor; 2] {
        let weight = self.normal(&format!("{name}.weight"), &[outputs, inputs]);
        [weight, self.params.add(format!("{name}.bias"), Tensor::zeros([outputs], (Kind::Float, Device::Cpu)), false)]
    }

    fn norm(&mut self, name: &str, width: i64) -> [Tensor; 2] {
        let options = (Kind::Float, Device::Cpu);
        let weight = self.params.add(format!("{name}.weight"), Tensor::ones([width], options), false);
        [weight, self.params.add(format!("{name}.bias"), Tensor::zeros([width], options), false)]
    }

    fn layer(&mut self, at: usize, width: i64, inner: i64) -> Layer {
        let name = |part: &str| format!("encoder.layer.{at}.{part}");
        Layer {
            query: self.linear(&name("attention.self.query"), width, width),
            key: self.linear(&name("attention.self.key"), width, width),
            value: self.linear(&name("attention.self.value"), width, width),
            attention_out: self.linear(&name("attention.output.dense"), width, width),
            attention_norm: self.norm(&name("attention.output.LayerNorm"), width),
            up: self.linear(&name("intermediate.dense"), inner, width),
            down: self.linear(&name("output.dense"), width, inner),
            norm: self.norm(&name("output.LayerNorm"), width),
        }
    }
}

impl Bert {
    /// A teacher with random weights: BERT's architecture alone.
    pub fn new(config: &BertConfig, pooling: Pooling, classes: i64, device: Device) -> Bert {
        let mut make = Maker { params: Params::on(device), spread: config.initializer_range };
        let width = config.hidden_size;
        let word = make.normal(WORDS, &[config.vocab_size, width]);
        let position = make.normal("embeddings.position_embeddings.weight", &[config.max_position_embeddings, width]);
        let token_type = make.normal("embeddings.token_type_embeddings.weight", &[config.type_vocab_size, width]);
        let norm = make.norm("embeddings.LayerNorm", width);
        let layers = (0..config.num_hidden_layers).map(|at| make.layer(at, width, config.intermediate_size)).collect();
        let pooler = (pooling == Pooling::Cls).then(|| make.linear("pooler.dense", width, width));
        let classifier = make.linear("classifier", classes, width);
        make.params.mark_products(|name| name.starts_with("encoder.") && !name.contains("LayerNorm"));
        let (params, config) = (make.params, config.clone());
        Bert { params, config, word, position, token_type, norm, layers, pooler, classifier }
    }

    /// A teacher on a checkpoint's encoder, with a fresh head. Where `pieces` dropped tokenizer ids, their
    /// embedding rows are dropped too, and `config.vocab_size` must be the number of rows kept.
    pub fn pretrained(
        folder: &Path,
        config: &BertConfig,
        pooling: Pooling,
        classes: i64,
        pieces: &Pieces,
        device: Device,
    ) -> Result<Bert> {
        let model = Bert::new(config, pooling, classes, device);
        let (path, mut file, prefix) = open(folder)?;
        // The first BERT checkpoints say gamma and beta.
        let modern = |name: String| {
            name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        };
        file.tensors = file.tensors.into_iter().map(|(name, tensor)| (modern(name), tensor)).collect();
        for name in ["classifier.weight", "classifier.bias"] {
            file.tensors.remove(name);
            file.tensors.insert(format!("{prefix}{name}"), find(&model.params, name));
        }
        let word = format!("{prefix}{WORDS}");
        let rows = file.take(&path, &word)?;
        file.tensors.insert(word, keep_rows(&path, rows, pieces.kept())?);
        model.params.assign(&path, &mut file, prefix)?;
        Ok(model)
    }

    /// Token states `[batch, seq, hidden]` of the last layer, from rounded inputs.
    pub fn states(&self, inputs: &Tensor, batch: &Batch, mode: Mode, precision: Precision) -> Tensor {
        let kind = inputs.kind();
        let blocked = batch.mask.logical_not().unsqueeze(1).unsqueeze(2);
        let bias = Tensor::zeros(blocked.size(), (kind, inputs.device())).masked_fill(&blocked, f64::NEG_INFINITY);
        let in_parts = inputs.size()[2] != self.config.hidden_size;
        let mut states =
            if in_parts { precision::value(inputs, self.config.hidden_size) } else { inputs.shallow_clone() };
        for (at, layer) in self.layers.iter().enumerate() {
            let from = if at == 0 { inputs } else { &states };
            let mixed = self.attend(layer, from, &bias, mode, precision);
            states = precision.cast(&self.layer_norm(&(mixed + &states), &layer.attention_norm));
            let inner = linear(&states, &layer.up, precision).gelu("none");
            let inner = mode.dropout(&linear(&inner, &layer.down, precision), self.config.hidden_dropout_prob);
            states = precision.cast(&self.layer_norm(&(inner + &states), &layer.norm));
        }
        states
    }

    /// Self-attention over `inputs`, which may be in two parts.
    fn attend(&self, layer: &Layer, inputs: &Tensor, bias: &Tensor, mode: Mode, precision: Precision) -> Tensor {
        let [rows, seq] = [inputs.size()[0], inputs.size()[1]];
        let (width, heads) = (self.config.hidden_size, self.config.num_attention_heads);
        let split = |weights: &[Tensor; 2]| {
            linear(inputs, weights, precision).view([rows, seq, heads, width / heads]).transpose(1, 2)
        };
        let (query, key, value) = (split(&layer.query), split(&layer.key), split(&layer.value));
        let mixed = match mode {
            Mode::Eval => {
                Tensor::scaled_dot_product_attention(&query, &key, &value, Some(bias), 0.0, false, None, false)
            }
            Mode::Train => {
                let scores = query.matmul(&key.transpose(2, 3)) / ((width / heads) as f64).sqrt() + bias;
                let shares = scores.softmax(-1, None::<Kind>);
                mode.dropout(&shares, self.config.attention_probs_dropout_prob).matmul(&value)
            }
        };
        let joined = mixed.transpose(1, 2).contiguous().view([rows, seq, width]);
        mode.dropout(&linear(&joined, &layer.attention_out, precision), self.config.hidden_dropout_prob)
    }

    /// In fp32 whatever comes in: GPUs refuse bf16 input beside fp32 weights.
    fn layer_norm(&self, x: &Tensor, [weight, bias]: &[Tensor; 2]) -> Tensor {
        let (width, epsilon) = ([self.config.hidden_size], self.config.layer_norm_eps);
        x.to_kind(Kind::Float).layer_norm(width, Some(weight), Some(bias), epsilon, false)
    }
}

impl Classifier for Bert {
    fn embed(&self, batch: &Batch, mode: Mode, perturbation: Option<&Perturbation>) -> Tensor {
        let words = words(&self.word, &batch.ids, perturbation);
        let summed = words + self.position.narrow(0, 0, batch.ids.size()[1]) + self.token_type.get(0);
        mode.dropout(&self.layer_norm(&summed, &self.norm), self.config.hidden_dropout_prob)
    }

    fn classify(&self, inputs: &Tensor, batch: &Batch, mode: Mode, precision: Precision) -> Tensor {
        let states = self.states(inputs, batch, mode, precision);
        let pooled = match &self.pooler {
            Some(pooler) => linear(&states.select(1, 0).to_kind(Kind::Float), pooler, Precision::Fp32).tanh(),
            None => mean_over_tokens(&states, &batch.mask),
        };
        let pooled = mode.dropout(&pooled, self.config.hidden_dropout_prob);
        linear(&pooled, &self.classifier, Precision::Fp32)
    }

    fn word_embedding(&self) -> &Tensor {
        &self.word
    }

    fn params(&self) -> &Params {
        &self.params
    }
}

/// Mean of the real tokens' states in fp32, `[batch, seq, hidden]` → `[batch, hidden]`.
pub fn mean_over_tokens(states: &Tensor, mask: &Tensor) -> Tensor {
    let (states, weights) = (states.to_kind(Kind::Float), mask.to_kind(Kind::Float).unsqueeze(2));
    (states * &weights).sum_dim_intlist([1i64].as_slice(), false, None)
        / weights.sum_dim_intlist([1i64].as_slice(), false, None)
}

/// A checkpoint's word vectors `[ids, hidden]`.
pub(crate) fn word_vectors(folder: &Path, ids: &[u32]) -> Result<Tensor> {
    let (path, mut file, prefix) = open(folder)?;
    keep_rows(&path, file.take(&path, &format!("{prefix}{WORDS}"))?, Some(ids))
}

/// A checkpoint's weights, and what stands before the encoder's names in it.
fn open(folder: &Path) -> Result<(PathBuf, TensorFile, &'static str)> {
    let path = folder.join("model.safetensors");
    let file = TensorFile::read(&path)?;
    let prefix = if file.tensors.keys().any(|k| k.starts_with("bert.")) { "bert." } else { "" };
    Ok((path, file, prefix))
}

fn find(params: &Params, name: &str) -> Tensor {
    let param = params.iter().find(|p| p.name == name);
    param.map_or_else(Tensor::new, |p| p.tensor.detach().copy())
}

fn keep_rows(path: &Path, rows: Tensor, kept: Option<&[u32]>) -> Result<Tensor> {
    let Some(kept) = kept else { return Ok(rows) };
    let available = rows.size()[0];
    if let Some(beyond) = kept.iter().find(|&&id| i64::from(id) >= available) {
        let fix = "use the tokenizer that the checkpoint came with";
        let problem = format!("the tokenizer knows id {beyond}, the embedding has {available} rows");
        return Err(Error::file(path, problem, fix));
    }
    let index: Vec<i64> = kept.iter().map(|&id| id.into()).collect();
    Ok(rows.index_select(0, &Tensor::from_slice(&index)))
}
