//! A recipe met with a corpus: every number resolved, every setting checked, nothing computed yet.
//! The plan's id is a hash of all that decides the result, so one experiment has one folder.

use crate::data::{Corpus, Encoded, Example, Extra, Transfer, batch, corpus};
use crate::models::BertConfig;
use crate::recipe::{Model, Optimiser, PrecisionChoice, Recipe, Teaching, Train};
use crate::strategies::{Attack, Precision};
use crate::update::Seats;
use crate::{Error, Result, device, files};
use rand::SeedableRng;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use tch::Device;

/// Raised whenever the same recipe would be another experiment: of a run without a teacher, and of one with. What merely
/// rounds otherwise raises the crate's version, which reports name; processors round differently too.
const FORMAT: [u32; 2] = [4, 5];
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
    /// Checkpoint folder and sizes, where the model begins from one.
    pub checkpoint: Option<(PathBuf, BertConfig)>,
    /// The corpus as it is trained on: leaks dropped, examples drawn.
    pub corpus: Corpus,
    /// The transfer set, trained on beside the corpus's own texts.
    pub extras: Vec<Extra>,
    /// The teachers' runs, where there are any.
    pub teachers: Vec<String>,
    /// The corpus as it was given: what word pieces are kept for.
    pub whole: Corpus,
    /// Updates of one epoch; the last may be short.
    pub steps_per_epoch: usize,
    /// Updates in all.
    pub steps: usize,
}

impl Plan {
    /// Resolves a recipe against a corpus; `checkpoints` is where named weights lie, `teachers` the ids of the
    /// finished teachers where the recipe names one.
    pub fn resolve(recipe: &Recipe, corpus: &Corpus, checkpoints: &Path, teachers: Vec<String>) -> Result<Plan> {
        recipe.objective.check_classes(corpus.labels.len())?;
        let device = device::choose(&recipe.device)?;
        let precision = match recipe.train.precision {
            PrecisionChoice::Auto => device::native_precision(device),
            PrecisionChoice::Fp32 => Precision::Fp32,
            PrecisionChoice::Bf16 => Precision::Bf16,
            PrecisionChoice::Fp16 => Precision::Fp16,
        };
        let weights = match &recipe.model {
            Model::Bert { weights, .. } => Some((weights, recipe.data.max_tokens)),
            Model::Bilstm { word_vectors, .. } => word_vectors.as_ref().map(|weights| (weights, 0)),
        };
        let checkpoint = weights.map(|(w, length)| open_checkpoint(checkpoints, w, length)).transpose()?;
        let ingredients = ingredients(recipe, checkpoint.as_ref().map(|(folder, _)| folder.as_path()))?;
        // Not the device: a teacher from a GPU teaches where there is none. (`cuda` stays for the ids that exist.)
        let teacher = (!teachers.is_empty()).then(|| teachers.join("+"));
        let key = json!({ "format": FORMAT[usize::from(teacher.is_some())], "recipe": without_labels(recipe), "precision": precision, "cuda": false,
            "corpus": corpus.fingerprint, "ingredients": ingredients, "teacher": teacher });
        let id = format!("{}-{}", recipe.name, &blake3::hash(key.to_string().as_bytes()).to_hex()[..12]);
        let (whole, (corpus, rest)) = (corpus.clone(), select(corpus, recipe));
        let extras = recipe.transfer.as_ref().map(|t| t.gather(&corpus, &rest)).transpose()?.unwrap_or_default();
        if corpus.train.is_empty() {
            let fix = "set data.drop_leaks = false, give splits that differ, or ask for fewer folds of more texts";
            let problem = "no training text is left: all recur in dev or test, or none is in this fold";
            return Err(Error::recipe("data", problem, fix));
        }
        let batches = (corpus.train.len() + extras.len()).div_ceil(recipe.train.batch);
        let steps_per_epoch = batches.div_ceil(recipe.train.accumulation);
        let steps = ((steps_per_epoch * recipe.train.epochs) as f64 * recipe.train.stretch).round() as usize;
        let (recipe, steps) = (recipe.clone(), steps.max(1));
        Ok(Plan { id, recipe, device, precision, checkpoint, corpus, extras, teachers, whole, steps_per_epoch, steps })
    }

    /// Updates over which the learning rate rises.
    pub fn warmup(&self) -> usize {
        (self.steps as f64 * self.recipe.optimiser.warmup).round() as usize
    }

    /// Who sits in the loop's seats at an update; the temperature goes in a straight line to its last value.
    pub fn seats(&self, step: usize) -> Seats {
        let Recipe { objective, attack, seed, .. } = self.recipe;
        let (first, gone) = (objective.temperature(), step as f64 / self.steps.max(1) as f64);
        let at = |last: f64| objective.at_temperature(first + (last - first) * gone);
        let objective = self.recipe.train.final_temperature.map_or(objective, at);
        Seats { objective, precision: self.precision, attack, seed }
    }

    /// The batches in which a split is evaluated.
    pub fn evaluation(&self, split: &Encoded) -> Vec<Vec<usize>> {
        evaluation(&self.recipe, split)
    }
}

/// The batches in which a recipe's model is evaluated: large, of like length, unless it trains on texts as they come.
pub(crate) fn evaluation(recipe: &Recipe, split: &Encoded) -> Vec<Vec<usize>> {
    match recipe.train.bucketed {
        true => batch::by_length(split),
        false => batch::as_they_come(split, recipe.train.batch),
    }
}

/// The recipe less what does not decide the result, or is resolved elsewhere in the key.
fn without_labels(recipe: &Recipe) -> Recipe {
    let train = Train { precision: PrecisionChoice::Auto, ..recipe.train.clone() };
    Recipe { name: String::new(), device: String::new(), teacher: None, train, ..recipe.clone() }
}

/// Hashes of the files beside the corpus that decide the result: a checkpoint's, or a vocabulary's.
fn ingredients(recipe: &Recipe, checkpoint: Option<&Path>) -> Result<Vec<String>> {
    let of_checkpoint = ["model.safetensors", "config.json", "tokenizer.json", "vocab.txt", "tokenizer_config.json"];
    let files = checkpoint.into_iter().flat_map(|folder| of_checkpoint.map(|name| folder.join(name)));
    let vocabulary = match &recipe.model {
        Model::Bilstm { vocabulary_file, .. } => vocabulary_file.clone(),
        Model::Bert { .. } => None,
    };
    let unlabelled = recipe.transfer.as_ref().and_then(|t| t.file.clone());
    files.filter(|p| p.exists()).chain(vocabulary).chain(unlabelled).map(|path| files::hash_file(&path)).collect()
}

/// The corpus as it is trained on, and the training texts whose labels are left out.
fn select(corpus: &Corpus, recipe: &Recipe) -> (Corpus, Vec<Example>) {
    let mut corpus = if recipe.data.drop_leaks { corpus.clone().without_leaks() } else { corpus.clone() };
    draw(&mut corpus.train, recipe.data.train_examples);
    let labelled = recipe.data.labelled.map(|share| (share * corpus.train.len() as f64).ceil() as usize);
    let rest = draw(&mut corpus.train, labelled);
    draw(&mut corpus.dev, recipe.data.dev_examples);
    if let Some([folds, left_out]) = recipe.data.fold {
        corpus.train.retain(|e| corpus::fold(&e.text, folds) != left_out);
    }
    (corpus, rest)
}

/// Keeps `wanted` examples in their order; returns the others.
fn draw(examples: &mut Vec<Example>, wanted: Option<usize>) -> Vec<Example> {
    let Some(wanted) = wanted.filter(|&n| n < examples.len()) else { return Vec::new() };
    let drawn = sample(&mut ChaCha8Rng::seed_from_u64(SUBSET_SEED), examples.len(), wanted).into_iter();
    let drawn: HashSet<usize> = drawn.collect();
    let (kept, rest): (Vec<_>, Vec<_>) =
        std::mem::take(examples).into_iter().enumerate().partition(|(row, _)| drawn.contains(row));
    *examples = kept.into_iter().map(|(_, example)| example).collect();
    rest.into_iter().map(|(_, example)| example).collect()
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

/// Refuses settings without a meaning, the teacher's too, before anything is computed.
pub fn check(recipe: &Recipe) -> Result<()> {
    if let Some(teacher) = &recipe.teacher {
        check(teacher)?;
    }
    recipe.objective.check()?;
    if recipe.name.is_empty() || !recipe.name.chars().all(|c| c.is_alphanumeric() || "-_+.()=".contains(c)) {
        let fix = "it names a folder: use letters, digits and -_+.()=";
        return Err(Error::recipe("name", format!("{:?}", recipe.name), fix));
    }
    if recipe.objective.needs_teacher() != recipe.teacher.is_some() {
        let fix = "distillation needs a teacher's recipe, cross-entropy takes none";
        return Err(Error::recipe("teacher", if recipe.teacher.is_some() { "given" } else { "missing" }, fix));
    }
    let unlabelled = |t: &Transfer| t.file.is_some() || t.rest || !t.keep_labels;
    if recipe.teacher.is_none() && recipe.transfer.as_ref().is_some_and(unlabelled) {
        let fix = "only a teacher labels these texts: name one, or keep made texts' labels (transfer.keep_labels)";
        return Err(Error::recipe("transfer", "no teacher", fix));
    }
    let lowest = if matches!(recipe.model, Model::Bert { .. }) { 8 } else { 1 };
    let few = "a BERT's special tokens and prefix need 8 or more";
    let tokens = ("data.max_tokens", recipe.data.max_tokens as f64, recipe.data.max_tokens >= lowest, few);
    let most = |key: &str| if key.starts_with("model.") { 10_000 } else { 1_000_000_000 };
    let fix = "choose 1 or more, a billion at most (a width: 10,000)";
    let counts = counts(recipe).map(|(key, n)| (key, n as f64, (1..=most(key)).contains(&n), fix));
    match counts.into_iter().chain(numbers(recipe)).chain([tokens]).find(|rule| !rule.2) {
        Some((key, value, _, fix)) => Err(Error::recipe(key, value.to_string(), fix)),
        None => Ok(()),
    }
}

/// What must be 1 or more, and no number that memory or arithmetic cannot hold.
fn counts(recipe: &Recipe) -> [(&'static str, usize); 11] {
    let Recipe { data, train, .. } = recipe;
    let (embedding, hidden) = match recipe.model {
        Model::Bilstm { embedding, hidden, .. } => (embedding, hidden),
        Model::Bert { .. } => (1, 1),
    };
    let size = |size: i64| usize::try_from(size).unwrap_or(0);
    [
        ("data.max_tokens", data.max_tokens),
        ("data.train_examples", data.train_examples.unwrap_or(1)),
        ("data.dev_examples", data.dev_examples.unwrap_or(1)),
        ("train.epochs", train.epochs),
        ("train.batch", train.batch),
        ("train.accumulation", train.accumulation),
        ("train.evaluate_every", train.evaluate_every),
        ("attack.steps", recipe.attack.map_or(1, Attack::passes)),
        ("transfer.ways", recipe.transfer.as_ref().map_or(1, |t| t.ways.len())),
        ("model.embedding", size(embedding)),
        ("model.hidden", size(hidden)),
    ]
}

/// What must lie in a range: key, value, whether it does, and what to do.
fn numbers(recipe: &Recipe) -> [(&'static str, f64, bool, &'static str); 17] {
    let Optimiser { learning_rate, betas, epsilon, weight_decay, warmup, clip } = recipe.optimiser;
    let (dropout, spread, entries) = match recipe.model {
        Model::Bilstm { dropout, embedding_spread, vocabulary, .. } => {
            (dropout, embedding_spread.unwrap_or(1.0), vocabulary)
        }
        Model::Bert { .. } => (0.0, 1.0, 3),
    };
    let (teachers, enough) = match &recipe.teaching {
        Some(Teaching::Folds(n)) => (*n, *n > 1),
        Some(Teaching::Seeds(seeds)) => (seeds.len(), seeds.iter().collect::<HashSet<_>>().len() == seeds.len().max(1)),
        None => (1, true),
    };
    let taught = recipe.teaching.is_none() || recipe.teacher.is_some();
    let [folds, left_out] = recipe.data.fold.unwrap_or([2, 0]);
    let (radius, step, _) = recipe.attack.map_or((1.0, 1.0, 1), Attack::settings);
    let labelled = recipe.data.labelled.unwrap_or(1.0);
    let cools = recipe.train.final_temperature.is_none() || recipe.objective.at_temperature(2.0).temperature() == 2.0;
    let last = recipe.train.final_temperature.unwrap_or(1.0);
    let above_zero = |value: f64| value > 0.0 && value.is_finite();
    let (positive, share) = ("choose a number above 0", "choose 0 or more, below 1");
    [
        ("optimiser.learning_rate", learning_rate, above_zero(learning_rate), positive),
        ("optimiser.epsilon", epsilon, above_zero(epsilon), positive),
        ("optimiser.clip", clip.unwrap_or(1.0), above_zero(clip.unwrap_or(1.0)), "choose above 0, or leave it out"),
        ("optimiser.betas", betas[0], (0.0..1.0).contains(&betas[0]), share),
        ("optimiser.betas", betas[1], (0.0..1.0).contains(&betas[1]), share),
        ("optimiser.weight_decay", weight_decay, (0.0..f64::INFINITY).contains(&weight_decay), "choose 0 or more"),
        ("optimiser.warmup", warmup, (0.0..=1.0).contains(&warmup), "it is a share of all updates: choose 0 to 1"),
        ("attack.epsilon", radius, above_zero(radius), positive),
        ("attack.alpha", step, above_zero(step), positive),
        ("teaching", teachers as f64, enough && taught, "it takes a teacher, and seeds that differ or 2 folds or more"),
        ("data.fold", left_out as f64, folds > 1 && left_out < folds, "it is [n, k]: choose n above 1, k below n"),
        ("model.vocabulary", entries as f64, entries > 2, "choose 3 or more: padding and unknown characters take two"),
        ("data.labelled", labelled, labelled > 0.0 && labelled <= 1.0, "it is a share: choose above 0, at most 1"),
        ("train.stretch", recipe.train.stretch, above_zero(recipe.train.stretch), positive),
        ("train.final_temperature", last, cools && above_zero(last), "above 0, if the objective has a temperature"),
        ("model.embedding_spread", spread, above_zero(spread), positive),
        ("model.dropout", dropout, (0.0..1.0).contains(&dropout), share),
    ]
}
