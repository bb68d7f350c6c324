//! What a person asked for: a TOML file, read strictly (an unknown key is an error). A profile (`smoke`,
//! `quick`, `full`) and `key=value` settings are laid over it before it is read, never looked up later.
//! What will happen is [`crate::plan`]'s business, the last reader of a recipe.

use crate::data::{Cut, Transfer};
use crate::layers::{read_extended, read_with_profile, set};
use crate::models::Pooling;
use crate::strategies::{Attack, Objective};
use crate::{Error, Result, error::BUG};
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;
use std::path::{Path, PathBuf};
use toml::Value;

/// A training run as it was asked for.
#[serde_inline_default]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Row name in tables, and the first half of the run's folder name.
    pub name: String,
    /// Decides first weights, order and dropout.
    #[serde_inline_default(123)]
    pub seed: u64,
    /// `auto`, `cpu` or `cuda:N`.
    #[serde_inline_default("auto".into())]
    pub device: String,
    /// Which texts, and how much of each.
    pub data: Data,
    /// Which network.
    pub model: Model,
    /// What is minimised.
    pub objective: Objective,
    /// Adversarial passes; none where absent.
    // Keys that came later are left out where absent, so that older runs keep their ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attack: Option<Attack>,
    /// Whose logits a distillation learns from; in a file, the path of the teacher's recipe.
    pub teacher: Option<Box<Recipe>>,
    /// Several teachers of that recipe instead of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teaching: Option<Teaching>,
    /// Texts beside the labelled ones; none where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<Transfer>,
    /// How long, in which portions.
    pub train: Train,
    /// How gradients become weights.
    pub optimiser: Optimiser,
}

/// Whose logits are learned from, where it is not the one teacher's alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Teaching {
    /// The mean of the logits of the teacher trained under each of these seeds.
    Seeds(Vec<u64>),
    /// Out-of-fold logits: of n teachers, each trained without its own n-th of the texts, a text is answered by the
    /// one that was not trained on it.
    Folds(usize),
}

/// Which texts, and how much of each.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Longest sequence, special tokens included; the rest of a text is cut off.
    pub max_tokens: usize,
    /// What is kept of a text that is longer.
    #[serde(default, skip_serializing_if = "Cut::is_head")]
    pub cut: Cut,
    /// Train on this many examples, drawn by a fixed seed; all where absent.
    pub train_examples: Option<usize>,
    /// Train on the labels of this share of them, drawn by a fixed seed; the other texts may join the transfer set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labelled: Option<f64>,
    /// Look at this many dev examples, drawn by a fixed seed; all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dev_examples: Option<usize>,
    /// `[n, k]`: train without the k-th of n parts of the training texts; how out-of-fold teachers differ.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fold: Option<[usize; 2]>,
    /// Leave the test split alone: what a search over settings must do.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blind: bool,
    /// Drop training texts that recur in dev or test.
    #[serde(default = "yes")]
    pub drop_leaks: bool,
}

/// Which network.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Model {
    /// A BERT checkpoint with a fresh classification head.
    Bert {
        /// Checkpoint folder: a name under `checkpoints/`, or a path.
        weights: String,
        /// How token states become one vector.
        pooling: Pooling,
        /// Text put before every input, as the checkpoint was trained with.
        #[serde(default)]
        prefix: String,
        /// Keep only the embedding rows that the corpus uses.
        #[serde(default = "yes")]
        prune: bool,
        /// Begin from the checkpoint's weights; `false` takes its sizes alone, as the published teacher did.
        #[serde(default = "yes", skip_serializing_if = "bool::clone")]
        pretrained: bool,
    },
    /// Characters → embedding → bidirectional LSTM → max over time → linear.
    Bilstm {
        /// Embedding width.
        embedding: i64,
        /// Hidden width of each direction.
        hidden: i64,
        /// Dropout on embedded characters and pooled features.
        dropout: f64,
        /// Entries of the vocabulary built from the training texts.
        vocabulary: usize,
        /// Read the vocabulary from this file instead: `<PAD>`, `<UNK>`, then a character a line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        vocabulary_file: Option<PathBuf>,
        /// Let the maximum over time see the zeros of padding, as the published student does.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        pool_padding: bool,
        /// Standard deviation of the first word vectors; 1, as PyTorch has it, where absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        embedding_spread: Option<f64>,
        /// Checkpoint folder whose vectors of single characters the student begins with, on their principal components.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        word_vectors: Option<String>,
    },
}

/// How long, in which portions.
#[serde_inline_default]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Passes over the training examples.
    pub epochs: usize,
    /// Make this many times the updates of these epochs: what a rung needs that is not a profile's to say.
    #[serde_inline_default(1.0)]
    #[serde(skip_serializing_if = "is_once")]
    pub stretch: f64,
    /// Rows of a micro-batch.
    pub batch: usize,
    /// Micro-batches of one update.
    #[serde_inline_default(1)]
    pub accumulation: usize,
    /// In which numbers: `auto` is bf16 where the processor multiplies it natively, else fp32.
    #[serde(default)]
    pub precision: PrecisionChoice,
    /// Look at dev each time this many examples more have been seen.
    pub evaluate_every: usize,
    /// Move the objective's temperature to this one, in a straight line from the first update to the run's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_temperature: Option<f64>,
    /// Put texts of like length together; `false` takes them as they come, in training and in evaluation.
    #[serde(default = "yes", skip_serializing_if = "bool::clone")]
    pub bucketed: bool,
}

/// In which numbers the products are computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// bf16 where the processor multiplies it natively, else fp32.
    #[default]
    Auto,
    /// 32-bit floats.
    Fp32,
    /// bfloat16 products.
    Bf16,
    /// IEEE half-precision products with loss scaling: made for GPUs, slow elsewhere.
    Fp16,
}

/// AdamW and its schedule.
#[serde_inline_default]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Optimiser {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay of the two moments.
    #[serde_inline_default([0.9, 0.98])]
    pub betas: [f64; 2],
    /// Added to the denominator.
    #[serde_inline_default(1e-8)]
    pub epsilon: f64,
    /// Decoupled weight decay; biases and layer norms are spared.
    #[serde_inline_default(0.01)]
    pub weight_decay: f64,
    /// Share of all updates over which the rate rises from 0.
    #[serde_inline_default(0.1)]
    pub warmup: f64,
    /// Largest global gradient norm; no clipping where absent.
    pub clip: Option<f64>,
}

impl Recipe {
    /// Reads a recipe, lays a profile over it (`profiles/NAME.toml` beside it) and then `key=value` settings.
    /// A teacher named in it is read with the same profile, and with the settings that begin with `teacher.`.
    pub fn read(path: impl AsRef<Path>, profile: &str, settings: &[String]) -> Result<Recipe> {
        let path = path.as_ref();
        let mut table = read_with_profile(path, profile)?;
        let mut for_teacher = Vec::new();
        for setting in settings {
            match setting.strip_prefix("teacher.") {
                Some(setting) => for_teacher.push(setting.to_owned()),
                None => set(&mut table, setting)?,
            }
        }
        if let Some(Value::String(teacher)) = table.get("teacher") {
            let teacher_path = path.with_file_name(teacher);
            if read_extended(&teacher_path)?.contains_key("teacher") {
                return Err(Error::file(&teacher_path, "a teacher that has a teacher", "name a recipe without one"));
            }
            let teacher = Recipe::read(teacher_path, profile, &for_teacher)?;
            table.insert("teacher".into(), Value::try_from(teacher).map_err(Error::said(path, BUG))?);
        } else if let Some(setting) = for_teacher.first() {
            return Err(Error::recipe(&format!("teacher.{setting}"), "this recipe has no teacher", "leave it out"));
        }
        serde_path_to_error::deserialize(Value::Table(table)).map_err(|e| {
            let fix = "correct it where it stands: here, in what this extends, in the profile or in --set";
            Error::file(path, format!("{}: {}", e.path(), e.inner().message()), fix)
        })
    }

    /// The recipes whose runs teach this one: none, one, or several of [`Teaching`].
    pub fn teachers(&self) -> Vec<Recipe> {
        let Some(teacher) = self.teacher.as_deref() else { return Vec::new() };
        let without = |k, n| Recipe { data: Data { fold: Some([n, k]), ..teacher.data }, ..teacher.clone() };
        match &self.teaching {
            None => vec![teacher.clone()],
            Some(Teaching::Seeds(seeds)) => seeds.iter().map(|&seed| teacher.clone().with_seed(seed)).collect(),
            Some(Teaching::Folds(n)) => (0..*n).map(|k| without(k, *n)).collect(),
        }
    }

    /// The same recipe under another seed.
    pub fn with_seed(mut self, seed: u64) -> Recipe {
        self.seed = seed;
        self
    }
}

fn yes() -> bool {
    true
}

fn is_once(value: &f64) -> bool {
    *value == 1.0
}
