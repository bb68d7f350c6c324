//! A pretrained checkpoint folder of a BERT, RoBERTa or XLM-R: `config.json`, `model.safetensors`
//! and a tokenizer. This module reads it; the networks decide what they take from it.

use super::params::Params;
use crate::data::{SubwordTokenizer, Tokenizer};
use crate::files::{TensorFile, file_name, hash_file, read_json};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tch::Tensor;

/// The files of a checkpoint folder that decide a result.
const FILES: [&str; 5] = [
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
];

/// A config of a larger network is taken for a typing error: memory would not suffice.
const MAX_PARAMETERS: f64 = 2e9;

/// Name of the word embedding in a checkpoint.
pub(crate) const WORD_EMBEDDINGS: &str = "embeddings.word_embeddings.weight";

/// A checkpoint's `config.json`, as far as the encoder needs it. A key that is absent or null has
/// the default that transformers gives it.
#[serde_inline_default]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // the names are the checkpoint format's own
pub struct BertConfig {
    #[serde_inline_default(30_522)]
    pub vocab_size: i64,
    #[serde_inline_default(768)]
    pub hidden_size: i64,
    #[serde_inline_default(12)]
    pub num_hidden_layers: usize,
    #[serde_inline_default(12)]
    pub num_attention_heads: i64,
    #[serde_inline_default(3072)]
    pub intermediate_size: i64,
    #[serde_inline_default(512)]
    pub max_position_embeddings: i64,
    #[serde_inline_default(2)]
    pub type_vocab_size: i64,
    #[serde_inline_default(1e-12)]
    pub layer_norm_eps: f64,
    #[serde_inline_default(0.1)]
    pub hidden_dropout_prob: f64,
    #[serde_inline_default(0.1)]
    pub attention_probs_dropout_prob: f64,
    #[serde_inline_default(0.02)]
    pub initializer_range: f64,
    /// Row of the position embedding that the first token reads. BERT begins with row 0; RoBERTa
    /// and XLM-R begin behind the row of the padding token.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub first_position: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Kinds of checkpoint whose encoder is BERT's with other positions.
const ROBERTA: [&str; 2] = ["roberta", "xlm-roberta"];

impl BertConfig {
    /// Reads and checks a checkpoint's `config.json`.
    pub fn read(path: &Path) -> Result<BertConfig> {
        let mut stated: serde_json::Value = read_json(path)?;
        if let Some(keys) = stated.as_object_mut() {
            keys.retain(|_, value| !value.is_null());
        }
        // The encoder does not compute other values of these keys: such a checkpoint would load
        // and give wrong outputs.
        let kind = stated["model_type"].as_str().unwrap_or("bert").to_owned();
        if kind != "bert" && !ROBERTA.contains(&kind.as_str()) {
            let fix =
                "this encoder computes bert, roberta and xlm-roberta; choose another checkpoint";
            return Err(Error::file(path, format!("model_type is {kind:?}"), fix));
        }
        let supported = [
            ("hidden_act", "gelu"),
            ("position_embedding_type", "absolute"),
        ];
        for (key, value) in supported {
            if let Some(other) = stated[key].as_str().filter(|&stated| stated != value) {
                let fix = format!("this encoder needs {key} {value:?}; choose another checkpoint");
                return Err(Error::file(path, format!("{key} is {other:?}"), fix));
            }
        }
        if stated["is_decoder"] == true {
            let fix = "this encoder reads texts in both directions; choose another checkpoint";
            return Err(Error::file(path, "is_decoder is true", fix));
        }
        let not_a_config = Error::in_file(path, "use a BERT checkpoint's config.json");
        let padding = stated["pad_token_id"].as_i64().unwrap_or(1);
        let mut config: BertConfig = serde_json::from_value(stated).map_err(not_a_config)?;
        if ROBERTA.contains(&kind.as_str()) {
            let positions = config.max_position_embeddings;
            if !(0..positions).contains(&padding) {
                let problem = format!(
                    "pad_token_id is {padding} and max_position_embeddings is {positions}, but the \
                     positions of a RoBERTa begin behind pad_token_id"
                );
                return Err(Error::file(path, problem, "correct the two numbers"));
            }
            config.first_position = padding + 1;
        }
        config.check_sizes(path)?;
        let (width, heads) = (config.hidden_size, config.num_attention_heads);
        if heads < 1 || width % heads != 0 {
            let problem =
                format!("hidden_size {width} does not divide by num_attention_heads {heads}");
            return Err(Error::file(
                path,
                problem,
                "use a BERT checkpoint's config.json",
            ));
        }
        Ok(config)
    }

    fn check_sizes(&self, path: &Path) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.longest_sequence()),
            ("type_vocab_size", self.type_vocab_size),
        ];
        let fix = "use a BERT checkpoint's config.json";
        for (key, size) in sizes {
            if size < 1 {
                return Err(Error::file(path, format!("{key} is {size}"), fix));
            }
        }
        let parameters = self.parameters();
        if parameters > MAX_PARAMETERS {
            let problem = format!("its sizes make a network of {parameters:.0e} parameters");
            let fix = "correct the sizes: 2e9 parameters are the most that is read";
            return Err(Error::file(path, problem, fix));
        }
        let dropouts = [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            (
                "attention_probs_dropout_prob",
                self.attention_probs_dropout_prob,
            ),
        ];
        for (key, share) in dropouts {
            if !(0.0..1.0).contains(&share) {
                return Err(Error::file(path, format!("{key} is {share}"), fix));
            }
        }
        Ok(())
    }

    /// Number of values of the embeddings and layers, biases aside.
    fn parameters(&self) -> f64 {
        let width = self.hidden_size as f64;
        let rows = [
            self.vocab_size,
            self.max_position_embeddings,
            self.type_vocab_size,
        ];
        let embeddings: f64 = rows.iter().map(|&rows| rows as f64 * width).sum();
        let layer = 4.0 * width * width + 2.0 * width * self.intermediate_size as f64;
        embeddings + self.num_hidden_layers as f64 * layer
    }

    /// Longest sequence in tokens.
    pub fn longest_sequence(&self) -> i64 {
        self.max_position_embeddings - self.first_position
    }
}

/// An opened checkpoint folder.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The folder.
    pub folder: PathBuf,
    /// Its `config.json`.
    pub config: BertConfig,
    read: Arc<OnceRead>,
}

/// Parts of a checkpoint that are read when they are first needed. Clones share them.
#[derive(Debug, Default)]
struct OnceRead {
    tokenizer: OnceLock<SubwordTokenizer>,
    hashes: OnceLock<BTreeMap<String, String>>,
}

/// Word vectors of a checkpoint for some rows of a student's vocabulary.
pub struct PretrainedRows {
    /// Vocabulary row of each vector.
    pub rows: Vec<i64>,
    /// `[rows, width]`.
    pub vectors: Tensor,
}

impl Checkpoint {
    /// Opens a checkpoint: a folder of this name in `checkpoints`, or a path.
    pub fn open(checkpoints: &Path, name: &str) -> Result<Checkpoint> {
        let named = checkpoints.join(name);
        let folder = if named.is_dir() {
            named
        } else {
            PathBuf::from(name)
        };
        if !folder.join("model.safetensors").exists() {
            return Err(no_weights(&folder, checkpoints));
        }
        let config = BertConfig::read(&folder.join("config.json"))?;
        Ok(Checkpoint {
            folder,
            config,
            read: Arc::default(),
        })
    }

    /// Its whole tokenizer, without a prefix and a limit.
    pub fn tokenizer(&self) -> Result<&SubwordTokenizer> {
        match self.read.tokenizer.get() {
            Some(tokenizer) => Ok(tokenizer),
            None => {
                let tokenizer = SubwordTokenizer::open(&self.folder)?;
                Ok(self.read.tokenizer.get_or_init(|| tokenizer))
            }
        }
    }

    /// The hash of each file that decides a result, by the file's name.
    pub fn file_hashes(&self) -> Result<&BTreeMap<String, String>> {
        if let Some(hashes) = self.read.hashes.get() {
            return Ok(hashes);
        }
        let mut hashes = BTreeMap::new();
        for path in self.files() {
            hashes.insert(file_name(&path).to_owned(), hash_file(&path)?);
        }
        Ok(self.read.hashes.get_or_init(|| hashes))
    }

    /// The files that decide a result.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = FILES.iter().map(|name| self.folder.join(name)).collect();
        paths.retain(|path| path.exists());
        paths
    }

    /// Names the weights of a trained head, which nothing here reads. Those of pretraining are
    /// harmless and not mentioned.
    pub fn unread_head(&self) -> Result<Option<String>> {
        let path = self.folder.join("model.safetensors");
        let known = ["embeddings.", "encoder.", "pooler.", "cls.", "lm_head."];
        let is_unread = |name: &String| {
            let part = ["bert.", "roberta."]
                .iter()
                .find_map(|prefix| name.strip_prefix(prefix))
                .unwrap_or(name);
            !known.iter().any(|start| part.starts_with(start))
        };
        let mut names = TensorFile::names(&path)?;
        names.retain(is_unread);
        Ok(names.first().map(|first| {
            format!(
                "weights of the checkpoint that are not read: {} ({first:?} and the like). A \
                 classification head is trained anew",
                names.len()
            )
        }))
    }

    /// The checkpoint's encoder weights. `kept_ids` are the rows of the word embedding to take; all
    /// if absent.
    pub fn weights(&self, kept_ids: Option<&[u32]>) -> Result<EncoderWeights> {
        let mut weights = EncoderWeights::read(&self.folder)?;
        let is_roberta = self.config.first_position > 0;
        let (is_other, named) = match weights.prefix {
            "roberta." => (!is_roberta, "roberta"),
            "bert." => (is_roberta, "bert"),
            _ => (false, ""),
        };
        if is_other {
            let problem = format!("weights of {named}, but config.json has another model_type");
            let fix = "correct model_type in config.json: positions begin elsewhere in a RoBERTa";
            return Err(Error::file(&weights.path, problem, fix));
        }
        let word = format!("{}{WORD_EMBEDDINGS}", weights.prefix);
        let table = weights.file.take(&weights.path, &word)?;
        let table = select_rows(&weights.path, table, kept_ids)?;
        weights.file.tensors.insert(word, table);
        Ok(weights)
    }

    /// Refuses a tokenizer with an id beyond the word embedding.
    pub fn refuse_ids_without_rows(&self, tokenizer: &SubwordTokenizer) -> Result<()> {
        let available = self.config.vocab_size;
        let Some(beyond) = tokenizer
            .highest_id()
            .filter(|&id| i64::from(id) >= available)
        else {
            return Ok(());
        };
        Err(id_without_row(&self.folder, beyond, available))
    }

    /// The rows of the word embedding that a tokenizer of this checkpoint needs, in the order of
    /// its ids; none if it needs all.
    ///
    /// # Errors
    /// If the tokenizer has a piece that this checkpoint does not know.
    pub fn rows_of(&self, tokenizer: &SubwordTokenizer) -> Result<Option<Vec<u32>>> {
        if !tokenizer.is_shrunk() {
            return Ok(tokenizer.kept_ids().map(<[u32]>::to_vec));
        }
        let own = self.tokenizer()?;
        let mut rows = Vec::new();
        for piece in tokenizer.pieces() {
            rows.push(own.id_of_piece(&piece).ok_or_else(|| {
                let problem = format!("its tokenizer has no piece {piece:?}");
                Error::file(
                    &self.folder,
                    problem,
                    "name the checkpoint of the tokenizer",
                )
            })?);
        }
        Ok(Some(rows))
    }

    /// The word vectors of the characters or pieces of a student's tokenizer that the checkpoint's
    /// tokenizer knows.
    pub fn pretrained_rows(&self, tokenizer: &Tokenizer) -> Result<PretrainedRows> {
        let own = self.tokenizer()?;
        let (mut rows, mut ids) = (Vec::new(), Vec::new());
        let mut add = |row: usize, id: Option<u32>| {
            if let Some(id) = id {
                rows.push(row as i64);
                ids.push(id);
            }
        };
        match tokenizer {
            Tokenizer::Char(tokenizer) => {
                let characters = tokenizer.vocabulary.entries().iter().enumerate().skip(2);
                characters.for_each(|(row, character)| add(row, own.id_of_character(character)));
            }
            Tokenizer::Subword(tokenizer) => {
                let pieces = tokenizer.pieces();
                let numbered = pieces.iter().enumerate();
                numbered.for_each(|(row, piece)| add(row, own.id_of_piece(piece)));
            }
        }
        let mut weights = self.weights(Some(&ids))?;
        let word = format!("{}{WORD_EMBEDDINGS}", weights.prefix);
        let vectors = weights.file.take(&weights.path, &word)?;
        Ok(PretrainedRows { rows, vectors })
    }
}

/// A BERT's trained weights in a folder: a checkpoint's, or those of a finished run.
pub struct EncoderWeights {
    path: PathBuf,
    file: TensorFile,
    /// What precedes the encoder's parameter names.
    prefix: &'static str,
}

impl EncoderWeights {
    /// Reads a folder's `model.safetensors`.
    pub fn read(folder: &Path) -> Result<EncoderWeights> {
        let path = folder.join("model.safetensors");
        let mut file = TensorFile::read(&path)?;
        // The first BERT checkpoints say gamma and beta.
        let modern = |name: String| {
            name.replace("LayerNorm.gamma", "LayerNorm.weight")
                .replace("LayerNorm.beta", "LayerNorm.bias")
        };
        let tensors = std::mem::take(&mut file.tensors).into_iter();
        file.tensors = tensors
            .map(|(name, tensor)| (modern(name), tensor))
            .collect();
        let begins = |prefix: &&str| file.tensors.keys().any(|name| name.starts_with(*prefix));
        let prefix = ["bert.", "roberta."].into_iter().find(begins).unwrap_or("");
        Ok(EncoderWeights { path, file, prefix })
    }

    /// Keeps these encoder layers, counted from 1, and numbers them anew in this order.
    ///
    /// # Errors
    /// If there is no such layer.
    pub fn keep_layers(&mut self, layers: &[usize]) -> Result<()> {
        let start = format!("{}encoder.layer.", self.prefix);
        let mut kept = Vec::new();
        for (place, layer) in layers.iter().enumerate() {
            let layer_prefix = format!("{start}{}.", layer - 1);
            let before = kept.len();
            for (name, tensor) in &self.file.tensors {
                if let Some(part) = name.strip_prefix(&layer_prefix) {
                    kept.push((format!("{start}{place}.{part}"), tensor.shallow_clone()));
                }
            }
            if kept.len() == before {
                let problem = format!("{layer}, but {} has no such layer", self.path.display());
                let fix = "name layers of the encoder, from 1";
                return Err(Error::recipe("model.keep_layers", problem, fix));
            }
        }
        self.file
            .tensors
            .retain(|name, _| !name.starts_with(&start));
        self.file.tensors.extend(kept);
        Ok(())
    }

    /// Assigns the weights to parameters of the same names; parameters whose names begin with one
    /// of `except` stay as they are.
    ///
    /// # Errors
    /// If a weight is missing, has another shape, or would have to be ignored.
    pub fn assign(&mut self, params: &Params, except: &[&str]) -> Result<()> {
        let pooler = format!("{}pooler.dense.weight", self.prefix);
        let needs_pooler = params.iter().any(|p| p.name == "pooler.dense.weight");
        if needs_pooler && !self.file.tensors.contains_key(&pooler) {
            let fix = "set model.pooling = \"mean\", or use a checkpoint with a pooler";
            return Err(Error::file(
                &self.path,
                "no pooler, which model.pooling = \"cls\" needs",
                fix,
            ));
        }
        let spared = |name: &str| except.iter().any(|start| name.starts_with(start));
        for param in params.iter().filter(|p| spared(&p.name)) {
            let name = format!("{}{}", self.prefix, param.name);
            self.file.tensors.insert(name, param.tensor.detach().copy());
        }
        params.assign(&self.path, &mut self.file, self.prefix)?;
        self.refuse_unused()
    }

    /// Refuses weights of the embedding or encoder that no parameter took: the reference model
    /// computes with them, so that outputs would differ.
    fn refuse_unused(&self) -> Result<()> {
        let is_encoder_weight = |name: &&String| {
            let part = name.strip_prefix(self.prefix).unwrap_or(name);
            let read = part.starts_with("embeddings.") || part.starts_with("encoder.");
            // These two are 0, 1, 2, … and zeros in every file.
            let constants = ["embeddings.position_ids", "embeddings.token_type_ids"];
            read && !constants.contains(&part)
        };
        let unused: Vec<&String> = self.file.tensors.keys().filter(is_encoder_weight).collect();
        let Some(first) = unused.first() else {
            return Ok(());
        };
        let problem = format!(
            "{} weights that this encoder does not compute with, {first:?} among them",
            unused.len()
        );
        let fix = "use a BERT checkpoint; if it has more layers than config.json says, correct \
                   num_hidden_layers or name some in model.keep_layers";
        Err(Error::file(&self.path, problem, fix))
    }
}

/// Says what a folder without `model.safetensors` holds instead.
fn no_weights(folder: &Path, checkpoints: &Path) -> Error {
    if !folder.is_dir() {
        let problem = format!(
            "no such checkpoint, neither in {} nor in the working directory",
            checkpoints.display()
        );
        let fix = "run `make setup` for the default teacher, or name the folder of a BERT \
                   checkpoint (config.json, model.safetensors and a tokenizer)";
        return Error::file(folder, problem, fix);
    }
    let shards = folder.join("model.safetensors.index.json").exists();
    let pickled = folder.join("pytorch_model.bin").exists();
    let (problem, fix) = match (shards, pickled) {
        (true, _) => (
            "the weights are in several files, which are not read",
            "save the checkpoint in one file: transformers' save_pretrained with \
             max_shard_size=\"100GB\"",
        ),
        (_, true) => (
            "the weights are in pytorch_model.bin, which can run code when it is read",
            "convert them: transformers' save_pretrained writes model.safetensors",
        ),
        _ => (
            "no model.safetensors",
            "run `make setup` for the default teacher, or put config.json, model.safetensors and \
             the tokenizer of a BERT checkpoint there",
        ),
    };
    Error::file(folder, problem, fix)
}

fn id_without_row(path: &Path, id: u32, rows: i64) -> Error {
    let problem = format!("the tokenizer has id {id}, the embedding has {rows} rows");
    let fix = "use the tokenizer that the checkpoint came with";
    Error::file(path, problem, fix)
}

/// The rows of an embedding table with these ids; all rows if there are no ids.
fn select_rows(path: &Path, table: Tensor, ids: Option<&[u32]>) -> Result<Tensor> {
    let Some(ids) = ids else { return Ok(table) };
    let available = table.size()[0];
    if let Some(beyond) = ids.iter().find(|&&id| i64::from(id) >= available) {
        return Err(id_without_row(path, *beyond, available));
    }
    let ids: Vec<i64> = ids.iter().map(|&id| id.into()).collect();
    Ok(table.index_select(0, &Tensor::from_slice(&ids)))
}
