//! The teacher: a BERT encoder (Devlin et al. 2019, post-layer-norm) with a classification head;
//! also a student that keeps some of its teacher's layers (Sanh et al. 2019, section 3). Parameters
//! have the reference implementation's names, so that any BERT checkpoint loads. RoBERTa (Liu et
//! al. 2019) and XLM-R (Conneau et al. 2020) have the same encoder and begin their positions later.
//! Dropout acts on embeddings, attention weights, both residual branches and the pooled vector.

use super::checkpoint::{BertConfig, Checkpoint, EncoderWeights, WORD_EMBEDDINGS};
use super::layers::{LayerNorm, Linear, Mode, embed_tokens, mean_over_tokens};
use super::{
    Architecture, Classifier, ForwardPass, InitialWeights, ModelOutput, ModelSizes, Params,
    Perturbation, ProbedHead, TokenizerTexts, check_vocab_size,
};
use crate::data::lines::TextLines;
use crate::data::splits::draw_at_most;
use crate::data::{Batch, DataConfig, SubwordTokenizer, TextInput, Tokenizer};
use crate::precision::{self, Precision};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// A BERT's `[model]` settings.
#[serde_inline_default]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BertSettings {
    /// Checkpoint folder: a name under `checkpoints/`, or a path.
    pub checkpoint: String,
    /// How token states become one vector.
    pub pooling: Pooling,
    /// Text put before every input, as the checkpoint was trained with; of a pair, before its first
    /// text.
    #[serde(default)]
    pub prefix: String,
    /// Keep only the embedding rows that the corpus uses, dev and test included; other pieces become
    /// unknown. The teachers of this project's stored results do so.
    #[serde_inline_default(true)]
    pub prune_vocab: bool,
    /// Instead of `prune_vocab`: entries of the vocabulary, at most. The tokenizer keeps the pieces
    /// that training texts use most; others are split into smaller ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// With `vocab_size`: a file of texts, one per line, whose pieces count like those of training
    /// texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vocab_texts: Option<PathBuf>,
    /// Begin from the checkpoint's weights. `false` takes only its sizes, as the published teacher
    /// did.
    #[serde_inline_default(true)]
    #[serde(skip_serializing_if = "bool::clone")]
    pub pretrained: bool,
    /// Encoder layers to keep, from 1, ascending; all if absent. A small student names a few.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_layers: Option<Vec<usize>>,
    /// Begin from the trained weights of the teacher, head included, instead of the checkpoint's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init_from_teacher: bool,
    /// Begin with a head that is a linear probe on the checkpoint's states (linear probing, then
    /// fine-tuning: Kumar et al. 2022), instead of a random one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub init_head_from_probe: bool,
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

/// A BERT's special tokens and prefix need this many tokens.
const MIN_SEQUENCE_LENGTH: usize = 8;
/// Most lines of `vocab_texts` whose pieces are counted, drawn at random with a fixed seed. More
/// lines hardly change the frequent pieces, and each start would read all of them.
const MOST_VOCAB_TEXTS: usize = 100_000;

impl Architecture for BertSettings {
    fn validate(&self, data: &DataConfig) -> Result<()> {
        if data.max_length < MIN_SEQUENCE_LENGTH {
            let problem = data.max_length.to_string();
            let fix = "a BERT's special tokens and prefix need 8 or more";
            return Err(Error::recipe("data.max_length", problem, fix));
        }
        if let Some(layers) = &self.keep_layers {
            let ascending = layers.windows(2).all(|pair| pair[0] < pair[1]);
            if layers.first().is_none_or(|first| *first == 0) || !ascending {
                let fix = "name one layer or more, ascending; the first layer is 1";
                return Err(Error::recipe(
                    "model.keep_layers",
                    format!("{layers:?}"),
                    fix,
                ));
            }
        }
        self.vocab_size.map_or(Ok(()), check_vocab_size)?;
        if self.vocab_size.is_some() && self.prune_vocab {
            let fix = "set prune_vocab = false, or leave vocab_size out";
            return Err(Error::recipe("model.vocab_size", "with prune_vocab", fix));
        }
        if self.vocab_texts.is_some() && self.vocab_size.is_none() {
            let fix = "set vocab_size too, or leave vocab_texts out";
            return Err(Error::recipe("model.vocab_texts", "no vocab_size", fix));
        }
        if self.init_from_teacher && !self.pretrained {
            let problem = "true, with pretrained = false";
            let fix = "set one of the two: a student is initialised from its teacher or at random";
            return Err(Error::recipe("model.init_from_teacher", problem, fix));
        }
        if self.init_head_from_probe {
            let mean = self.pooling == Pooling::Mean;
            if !mean || !self.pretrained || self.init_from_teacher {
                let problem = "true, for a model whose first states are not a checkpoint's means";
                let fix = "set pooling = \"mean\", pretrained = true and init_from_teacher = false, or \
                           leave it out";
                return Err(Error::recipe("model.init_head_from_probe", problem, fix));
            }
        }
        Ok(())
    }

    fn initializes_from_teacher(&self) -> bool {
        self.init_from_teacher
    }

    fn probed_head(&self, sizes: &ModelSizes) -> Option<ProbedHead> {
        let config = sizes
            .checkpoint
            .as_ref()
            .filter(|_| self.init_head_from_probe)?;
        Some(ProbedHead {
            layer: self.layers_of(config),
            weight: "classifier.weight",
            bias: "classifier.bias",
        })
    }

    fn checkpoint(&self) -> Option<&str> {
        Some(&self.checkpoint)
    }

    fn files(&self) -> Vec<PathBuf> {
        self.vocab_texts.iter().cloned().collect()
    }

    fn tokenizer(
        &self,
        data: &DataConfig,
        texts: &TokenizerTexts,
        checkpoint: Option<&Checkpoint>,
    ) -> Result<Tokenizer> {
        let checkpoint = required(checkpoint)?;
        let longest = checkpoint.config.longest_sequence();
        if data.max_length as i64 > longest {
            let fix = format!("the checkpoint has {longest} positions: choose that or less");
            return Err(Error::recipe(
                "data.max_length",
                data.max_length.to_string(),
                fix,
            ));
        }
        let whole = checkpoint.tokenizer()?;
        let tokenizer = whole.with_limit(&self.prefix, data.max_length, data.truncation);
        let tokenizer = match (self.vocab_size, self.prune_vocab) {
            (Some(size), _) => self.shrunk(&tokenizer, texts, size)?,
            (None, true) => tokenizer.keep_used_rows(texts.full_corpus)?,
            (None, false) => {
                checkpoint.refuse_ids_without_rows(&tokenizer)?;
                tokenizer
            }
        };
        self.refuse_long_prefix(&tokenizer, data.max_length)?;
        let first = texts.full_corpus.first().copied();
        let encoded = tokenizer.encode(&Vec::from_iter(first))?;
        let types = encoded
            .token_types
            .iter()
            .flatten()
            .max()
            .map_or(1, |highest| highest + 1);
        let known = checkpoint.config.type_vocab_size;
        if types > known {
            let problem =
                format!("text pairs have {types} token types, the checkpoint has {known}");
            let fix = "choose a checkpoint that was trained on text pairs";
            return Err(Error::recipe("model.checkpoint", problem, fix));
        }
        Ok(Tokenizer::Subword(Box::new(tokenizer)))
    }

    fn build(&self, sizes: &ModelSizes, device: Device) -> Result<Box<dyn Classifier>> {
        let config = sizes.checkpoint.clone().ok_or_else(no_checkpoint)?;
        let config = BertConfig {
            vocab_size: sizes.vocab_size,
            num_hidden_layers: self.layers_of(&config),
            ..config
        };
        Ok(Box::new(Bert::new(
            &config,
            self.pooling,
            sizes.num_labels,
            device,
        )))
    }

    fn initialize(
        &self,
        model: &dyn Classifier,
        tokenizer: &Tokenizer,
        sources: &InitialWeights,
    ) -> Result<()> {
        if !self.pretrained {
            return Ok(());
        }
        let Tokenizer::Subword(tokenizer) = tokenizer else {
            let problem = "a tokenizer of characters";
            return Err(Error::recipe(
                "model.checkpoint",
                problem,
                crate::error::BUG,
            ));
        };
        let (mut weights, except) = match self.init_from_teacher {
            true => (teacher_weights(sources.teacher, tokenizer)?, &[][..]),
            // A checkpoint's pooler, if there is one, is taken too; its head is for another task.
            false => {
                let checkpoint = required(sources.checkpoint)?;
                let rows = checkpoint.rows_of(tokenizer)?;
                (checkpoint.weights(rows.as_deref())?, &["classifier."][..])
            }
        };
        if let Some(layers) = &self.keep_layers {
            weights.keep_layers(layers)?;
        }
        weights.assign(model.params(), except)
    }
}

impl BertSettings {
    /// Layers of the model, of a checkpoint with this config.
    fn layers_of(&self, config: &BertConfig) -> usize {
        let kept = self.keep_layers.as_ref().map(Vec::len);
        kept.unwrap_or(config.num_hidden_layers)
    }

    /// Refuses a prefix that leaves no room for a text's own tokens.
    fn refuse_long_prefix(&self, tokenizer: &SubwordTokenizer, max_length: usize) -> Result<()> {
        let without_text = tokenizer.encode(&[""])?.ids[0].len();
        if without_text < max_length {
            return Ok(());
        }
        let problem = format!("it fills all {max_length} tokens of a sequence");
        let fix = "shorten the prefix, or raise data.max_length";
        Err(Error::recipe("model.prefix", problem, fix))
    }

    /// A tokenizer of `size` pieces for training texts and those of `vocab_texts`, of a large file a
    /// part.
    fn shrunk(
        &self,
        tokenizer: &SubwordTokenizer,
        texts: &TokenizerTexts,
        size: usize,
    ) -> Result<SubwordTokenizer> {
        let training = texts.train.iter().chain(texts.unlabelled).copied();
        let mut texts: Vec<TextInput> = training.collect();
        let lines = self.vocab_texts.as_deref().map(TextLines::read);
        let lines = lines.transpose()?;
        if let Some(lines) = &lines {
            let counted = draw_at_most(0..lines.len(), MOST_VOCAB_TEXTS);
            texts.extend(counted.map(|at| TextInput::from(lines.line(at))));
        }
        tokenizer.shrink_vocabulary(&texts, size)
    }
}

/// The weights of the teacher's run. Both models must have the same rows of the word embedding.
fn teacher_weights(folder: Option<&Path>, tokenizer: &SubwordTokenizer) -> Result<EncoderWeights> {
    let key = "model.init_from_teacher";
    let Some(folder) = folder else {
        return Err(Error::recipe(key, "no teacher", "name a BERT as teacher"));
    };
    if !SubwordTokenizer::is_in(folder) {
        let problem = format!("{} is no BERT", folder.display());
        return Err(Error::recipe(key, problem, "name a BERT as teacher"));
    }
    if !SubwordTokenizer::read(folder)?.has_rows_of(tokenizer) {
        let problem = "the teacher's word embedding has other rows";
        let fix = "give both the same data.max_length, checkpoint, prefix and prune_vocab";
        return Err(Error::recipe(key, problem, fix));
    }
    EncoderWeights::read(folder)
}

fn required(checkpoint: Option<&Checkpoint>) -> Result<&Checkpoint> {
    checkpoint.ok_or_else(no_checkpoint)
}

fn no_checkpoint() -> Error {
    Error::recipe(
        "model.checkpoint",
        "no checkpoint",
        "name a BERT checkpoint folder",
    )
}

#[derive(Debug)]
struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
}

/// The BERT network: a teacher, or a student with fewer layers.
#[derive(Debug)]
pub struct Bert {
    params: Params,
    config: BertConfig,
    word: Tensor,
    position: Tensor,
    token_type: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
    pooler: Option<Linear>,
    classifier: Linear,
}

/// Creates parameters with BERT's initial values.
struct ParamInit<'a> {
    params: Params,
    config: &'a BertConfig,
}

impl ParamInit<'_> {
    fn normal(&mut self, name: &str, size: &[i64]) -> Tensor {
        let std = self.config.initializer_range;
        let values = Tensor::randn(size, (Kind::Float, Device::Cpu)) * std;
        self.params.add(name, values, true)
    }

    fn linear(&mut self, name: &str, outputs: i64, inputs: i64) -> Linear {
        let zeros = Tensor::zeros([outputs], (Kind::Float, Device::Cpu));
        Linear {
            weight: self.normal(&format!("{name}.weight"), &[outputs, inputs]),
            bias: self.params.add(format!("{name}.bias"), zeros, false),
        }
    }

    fn layer_norm(&mut self, name: &str) -> LayerNorm {
        let options = (Kind::Float, Device::Cpu);
        let (ones, zeros) = (
            Tensor::ones([self.config.hidden_size], options),
            Tensor::zeros([self.config.hidden_size], options),
        );
        LayerNorm {
            weight: self.params.add(format!("{name}.weight"), ones, false),
            bias: self.params.add(format!("{name}.bias"), zeros, false),
            eps: self.config.layer_norm_eps,
        }
    }

    fn layer(&mut self, at: usize) -> Layer {
        let (width, inner) = (self.config.hidden_size, self.config.intermediate_size);
        let name = |part: &str| format!("encoder.layer.{at}.{part}");
        Layer {
            query: self.linear(&name("attention.self.query"), width, width),
            key: self.linear(&name("attention.self.key"), width, width),
            value: self.linear(&name("attention.self.value"), width, width),
            attention_output: self.linear(&name("attention.output.dense"), width, width),
            attention_norm: self.layer_norm(&name("attention.output.LayerNorm")),
            intermediate: self.linear(&name("intermediate.dense"), inner, width),
            output: self.linear(&name("output.dense"), width, inner),
            output_norm: self.layer_norm(&name("output.LayerNorm")),
        }
    }
}

impl Bert {
    /// A network with random weights.
    pub fn new(config: &BertConfig, pooling: Pooling, num_labels: i64, device: Device) -> Bert {
        let mut init = ParamInit {
            params: Params::on(device),
            config,
        };
        let width = config.hidden_size;
        let positions = [config.max_position_embeddings, width];
        let types = [config.type_vocab_size, width];
        let word = init.normal(WORD_EMBEDDINGS, &[config.vocab_size, width]);
        let position = init.normal("embeddings.position_embeddings.weight", &positions);
        let token_type = init.normal("embeddings.token_type_embeddings.weight", &types);
        let norm = init.layer_norm("embeddings.LayerNorm");
        let layers = (0..config.num_hidden_layers)
            .map(|at| init.layer(at))
            .collect();
        let pooler = match pooling {
            Pooling::Cls => Some(init.linear("pooler.dense", width, width)),
            Pooling::Mean => None,
        };
        let classifier = init.linear("classifier", num_labels, width);
        let mut params = init.params;
        params.mark_matmul_weights(|name| {
            name.starts_with("encoder.") && !name.contains("LayerNorm")
        });
        Bert {
            params,
            config: config.clone(),
            word,
            position,
            token_type,
            norm,
            layers,
            pooler,
            classifier,
        }
    }

    /// Token states `[batch, seq, width]` after each layer, from rounded inputs; `visit` gets the
    /// layer's number, from 1, and its states. Returns the last states.
    pub fn encode(
        &self,
        inputs: &Tensor,
        batch: &Batch,
        pass: &ForwardPass,
        visit: &mut dyn FnMut(usize, &Tensor),
    ) -> Tensor {
        let ForwardPass {
            mode, precision, ..
        } = *pass;
        let dropout = self.config.hidden_dropout_prob;
        let padding = batch.mask.logical_not().unsqueeze(1).unsqueeze(2);
        let attention_bias = Tensor::zeros(padding.size(), (inputs.kind(), inputs.device()))
            .masked_fill(&padding, f64::NEG_INFINITY);
        let width = self.config.hidden_size;
        let mut states = if inputs.size()[2] == width {
            inputs.shallow_clone()
        } else {
            precision::combine_parts(inputs, width)
        };
        for (at, layer) in self.layers.iter().enumerate() {
            // The first layer's matmuls read inputs that may have two parts.
            let layer_input = if at == 0 { inputs } else { &states };
            let attended = self.attend(layer, layer_input, &attention_bias, pass);
            states = precision.cast(&layer.attention_norm.forward(&(attended + &states)));
            let inner = layer.intermediate.forward(&states, precision).gelu("none");
            let inner = mode.dropout(&layer.output.forward(&inner, precision), dropout);
            states = precision.cast(&layer.output_norm.forward(&(inner + &states)));
            visit(at + 1, &states);
        }
        states
    }

    /// Self-attention over `inputs`, which may have two parts.
    fn attend(&self, layer: &Layer, inputs: &Tensor, bias: &Tensor, pass: &ForwardPass) -> Tensor {
        let ForwardPass {
            mode, precision, ..
        } = *pass;
        let (rows, seq) = (inputs.size()[0], inputs.size()[1]);
        let (width, heads) = (self.config.hidden_size, self.config.num_attention_heads);
        let head_width = width / heads;
        let per_head = |linear: &Linear| {
            linear
                .forward(inputs, precision)
                .view([rows, seq, heads, head_width])
                .transpose(1, 2)
        };
        let query = per_head(&layer.query);
        let key = per_head(&layer.key);
        let value = per_head(&layer.value);
        let attended = match mode {
            Mode::Eval => Tensor::scaled_dot_product_attention(
                &query,
                &key,
                &value,
                Some(bias),
                0.0,
                false,
                None,
                false,
            ),
            Mode::Train => {
                let scale = (head_width as f64).sqrt();
                let scores = query.matmul(&key.transpose(2, 3)) / scale + bias;
                let weights = scores.softmax(-1, None::<Kind>);
                mode.dropout(&weights, self.config.attention_probs_dropout_prob)
                    .matmul(&value)
            }
        };
        let joined = attended
            .transpose(1, 2)
            .contiguous()
            .view([rows, seq, width]);
        let output = layer.attention_output.forward(&joined, precision);
        mode.dropout(&output, self.config.hidden_dropout_prob)
    }
}

impl Classifier for Bert {
    fn embed(&self, batch: &Batch, mode: Mode, perturbation: Option<&Perturbation>) -> Tensor {
        let words = embed_tokens(&self.word, &batch.ids, perturbation);
        let first = self.config.first_position;
        let positions = self.position.narrow(0, first, batch.ids.size()[1]);
        let types = match &batch.token_types {
            Some(types) => Tensor::embedding(&self.token_type, types, -1, false, false),
            None => self.token_type.get(0),
        };
        let summed = words + positions + types;
        mode.dropout(&self.norm.forward(&summed), self.config.hidden_dropout_prob)
    }

    fn forward(&self, inputs: &Tensor, batch: &Batch, pass: &ForwardPass) -> ModelOutput {
        let mut pooled_layers = Vec::new();
        let mut visit = |layer: usize, states: &Tensor| {
            if pass.hidden_layers.contains(&layer) {
                pooled_layers.push((layer, mean_over_tokens(states, &batch.mask)));
            }
        };
        if pass.hidden_layers.contains(&0) {
            let embedded = precision::combine_parts(inputs, self.config.hidden_size);
            visit(0, &embedded);
        }
        let states = self.encode(inputs, batch, pass, &mut visit);
        let pooled = match &self.pooler {
            Some(pooler) => {
                let first_token = states.select(1, 0).to_kind(Kind::Float);
                pooler.forward(&first_token, Precision::Fp32).tanh()
            }
            None => mean_over_tokens(&states, &batch.mask),
        };
        let pooled = pass.mode.dropout(&pooled, self.config.hidden_dropout_prob);
        let logits = self.classifier.forward(&pooled, Precision::Fp32);
        let hidden = pass.hidden_layers.iter().filter_map(|layer| {
            let (_, pooled) = pooled_layers.iter().find(|(at, _)| at == layer)?;
            Some(pooled.shallow_clone())
        });
        ModelOutput {
            logits,
            hidden: hidden.collect(),
        }
    }

    fn hidden_width(&self, layer: usize) -> Option<i64> {
        (layer <= self.layers.len()).then_some(self.config.hidden_size)
    }

    fn word_embedding(&self) -> &Tensor {
        &self.word
    }

    fn params(&self) -> &Params {
        &self.params
    }
}
