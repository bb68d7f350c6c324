//! A recipe met with a corpus: every number resolved, every setting checked, nothing computed yet.
//! The plan's id is a hash of all that decides the result, so one experiment has one folder.

use crate::data::{Corpus, Example};
use crate::models::{BertConfig, Pooling};
use crate::recipe::{Model, PrecisionChoice, Recipe};
use crate::strategies::Precision;
use crate::{Error, Result, device, files};
use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::path::{Path, PathBuf};
use tch::Device;

/// Raised whenever the same recipe would train to another result.
const FORMAT: u32 = 1;
/// Which examples `data.train_examples` draws must not depend on the recipe's seed.
const SUBSET_SEED: u64 = 0;

/// What will happen.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `NAME-HASH`, the run's folder name.
    pub id: String,
    /// What was asked for.
    pub recipe: Recipe,
    /// Where it is computed.
    pub device: Device,
    /// In which numbers.
    pub precision: Precision,
    /// Checkpoint folder and sizes, for a BERT.
    pub checkpoint: Option<(PathBuf, BertConfig)>,
    /// The corpus as it is trained on: leaks dropped, examples drawn.
    pub corpus: Corpus,
    /// Updates of one epoch; the last may be short.
    pub steps_per_epoch: usize,
    /// Updates in all.
    pub steps: usize,
    /// Updates over which the learning rate rises.
    pub warmup: usize,
}

impl Plan {
    /// Resolves a recipe against a corpus; `checkpoints` is where named weights lie, `teacher` the id of the
    /// finished teacher where the recipe names one.
    pub fn resolve(recipe: &Recipe, corpus: &Corpus, checkpoints: &Path, teacher: Option<&str>) -> Result<Plan> {
        check(recipe)?;
        let device = device::choose(&recipe.device)?;
        let precision = match recipe.train.precision {
            PrecisionChoice::Auto => device::native_precision(device),
            PrecisionChoice::Fp32 => Precision::Fp32,
            PrecisionChoice::Bf16 => Precision::Bf16,
        };
        let checkpoint = match &recipe.model {
            Model::Bert { weights, .. } => Some(open_checkpoint(checkpoints, weights, recipe.data.max_tokens)?),
            Model::Bilstm { .. } => None,
        };
        let weights =
            checkpoint.as_ref().map(|(folder, _)| files::hash_file(&folder.join("model.safetensors"))).transpose()?;
        let key = json!({ "format": FORMAT, "recipe": without_labels(recipe), "precision": precision, "cuda": device.is_cuda(),
            "corpus": corpus.fingerprint, "weights": weights, "teacher": teacher });
        let id = format!("{}-{}", recipe.name, &blake3::hash(key.to_string().as_bytes()).to_hex()[..12]);
        let corpus = select(corpus, recipe);
        let batches = corpus.train.len().div_ceil(recipe.train.batch);
        let steps_per_epoch = batches.div_ceil(recipe.train.accumulation);
        let steps = steps_per_epoch * recipe.train.epochs;
        let warmup = (steps as f64 * recipe.optimiser.warmup).round() as usize;
        Ok(Plan { id, recipe: recipe.clone(), device, precision, checkpoint, corpus, steps_per_epoch, steps, warmup })
    }
}

/// The recipe less what does not decide the result: names, and the teacher, which its own id stands for.
fn without_labels(recipe: &Recipe) -> Recipe {
    Recipe { name: String::new(), device: String::new(), teacher: None, ..recipe.clone() }
}

fn select(corpus: &Corpus, recipe: &Recipe) -> Corpus {
    let mut corpus = if recipe.data.drop_leaks { corpus.clone().without_leaks() } else { corpus.clone() };
    draw(&mut corpus.train, recipe.data.train_examples);
    draw(&mut corpus.dev, recipe.data.dev_examples);
    corpus
}

/// Keeps `wanted` examples in their order.
fn draw(examples: &mut Vec<Example>, wanted: Option<usize>) {
    let Some(wanted) = wanted.filter(|&n| n < examples.len()) else { return };
    let mut rows = sample(&mut ChaCha8Rng::seed_from_u64(SUBSET_SEED), examples.len(), wanted).into_vec();
    rows.sort_unstable();
    *examples = rows.into_iter().map(|r| examples[r].clone()).collect();
}

fn open_checkpoint(checkpoints: &Path, weights: &str, max_tokens: usize) -> Result<(PathBuf, BertConfig)> {
    let named = checkpoints.join(weights);
    let folder = if named.is_dir() { named } else { PathBuf::from(weights) };
    if !folder.join("model.safetensors").exists() {
        let fix = "run `make setup` for the default teacher, or put config.json, model.safetensors and the tokenizer of a BERT checkpoint there";
        return Err(Error::file(&folder, "no model.safetensors", fix));
    }
    let config = BertConfig::read(&folder.join("config.json"))?;
    if max_tokens as i64 > config.max_position_embeddings {
        let fix = format!("the checkpoint reads {} at most", config.max_position_embeddings);
        return Err(Error::recipe("data.max_tokens", max_tokens.to_string(), fix));
    }
    Ok((folder, config))
}

fn check(recipe: &Recipe) -> Result<()> {
    recipe.objective.check()?;
    if recipe.objective.needs_teacher() != recipe.teacher.is_some() {
        let fix = "distillation needs a teacher's recipe, cross-entropy takes none";
        return Err(Error::recipe("teacher", if recipe.teacher.is_some() { "given" } else { "missing" }, fix));
    }
    let train = &recipe.train;
    let counts =
        [("data.max_tokens", recipe.data.max_tokens), ("train.epochs", train.epochs), ("train.batch", train.batch)];
    let counts = counts
        .into_iter()
        .chain([("train.accumulation", train.accumulation), ("train.evaluate_every", train.evaluate_every)]);
    let drawn = [("data.train_examples", recipe.data.train_examples), ("data.dev_examples", recipe.data.dev_examples)];
    let counts = counts.chain(drawn.map(|(key, count)| (key, count.unwrap_or(1))));
    for (key, count) in counts {
        if count == 0 {
            return Err(Error::recipe(key, "0", "choose 1 or more"));
        }
    }
    let optimiser = &recipe.optimiser;
    for (key, value) in [
        ("learning_rate", optimiser.learning_rate),
        ("epsilon", optimiser.epsilon),
        ("clip", optimiser.clip.unwrap_or(1.0)),
    ] {
        if !(value > 0.0 && value.is_finite()) {
            return Err(Error::recipe(&format!("optimiser.{key}"), value.to_string(), "choose a number above 0"));
        }
    }
    if !(0.0..=1.0).contains(&optimiser.warmup) {
        return Err(Error::recipe(
            "optimiser.warmup",
            optimiser.warmup.to_string(),
            "it is a share of all updates: choose 0 to 1",
        ));
    }
    let Model::Bilstm { embedding, hidden, dropout, vocabulary } = recipe.model else { return Ok(()) };
    if embedding < 1 || hidden < 1 || vocabulary < 3 || !(0.0..1.0).contains(&dropout) {
        let problem = "a size below 1, or a dropout outside [0, 1)";
        return Err(Error::recipe("model", problem, "correct the BiLSTM's sizes; a vocabulary has 3 entries or more"));
    }
    Ok(())
}

/// How token states are pooled, for a plan's blueprint.
pub(crate) fn pooling(recipe: &Recipe) -> Pooling {
    match recipe.model {
        Model::Bert { pooling, .. } => pooling,
        Model::Bilstm { .. } => Pooling::Mean,
    }
}
