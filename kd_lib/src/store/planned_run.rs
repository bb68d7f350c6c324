//! A recipe applied to a corpus: every number resolved, every setting checked (`RunStore::plan`
//! validates the recipe first), no model built yet.
//! The run's id is the recipe's name and a hash of the experiment's definition: settings, seed,
//! resolved precision, corpus, files, teachers. The id does not contain the processor, the version
//! of kd_lib, the number of threads and the device: the first three only change the rounding, and a
//! GPU also draws other dropout masks. The report records them.

use super::recipe::Recipe;
use crate::data::{Corpus, Example, TextInput, TransferText};
use crate::models::Checkpoint;
use crate::precision::Precision;
use crate::threads::ThreadPolicy;
use crate::training::Schedule;
use crate::{Error, Result, device, files};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tch::Device;

/// Increase this number when a change of the code makes the same recipe another experiment. A
/// change that only rounds differently raises the crate's version instead; every report names that version.
const ID_FORMAT: u32 = 6;
/// Digits of a hash in an id.
pub const HASH_DIGITS: usize = 12;

/// The resolved recipe.
#[derive(Debug, Clone)]
pub struct PlannedRun {
    /// `NAME-HASH`, the run's folder name.
    pub id: String,
    /// The recipe as read, with its profile and overrides.
    pub recipe: Recipe,
    /// Where it is computed.
    pub device: Device,
    /// Dtype of matrix products.
    pub precision: Precision,
    /// The checkpoint that the model is initialised from, if there is one.
    pub checkpoint: Option<Checkpoint>,
    /// The corpus as it is trained on: leaks dropped, training examples subsampled.
    pub corpus: Corpus,
    /// The unfiltered corpus; `model.prune_vocab` keeps every token that occurs in it.
    pub full_corpus: Corpus,
    /// Texts that are trained on in addition to the corpus's own.
    pub transfer_set: Vec<TransferText>,
    /// Ids of the teachers' runs.
    pub teachers: Vec<String>,
    /// Number of updates and the learning-rate schedule.
    pub schedule: Schedule,
    /// Warnings about dropped or unused texts, and about classes without training texts.
    pub notices: Vec<String>,
    /// Who decides the number of threads.
    pub threads: ThreadPolicy,
}

impl PlannedRun {
    /// Resolves a recipe against a corpus. `checkpoint` is the one that the recipe's model names;
    /// `teachers` are the ids of the teachers' runs.
    pub fn resolve(
        recipe: &Recipe,
        corpus: &Corpus,
        checkpoint: Option<Checkpoint>,
        teachers: Vec<String>,
    ) -> Result<PlannedRun> {
        recipe
            .objective
            .objective()?
            .validate_classes(corpus.labels.len())?;
        let device = device::choose(&recipe.device)?;
        let precision = recipe.train.precision.resolve(device);
        let id = run_id(&IdKey {
            recipe,
            precision,
            corpus_fingerprint: &corpus.fingerprint,
            files: &file_hashes(recipe, checkpoint.as_ref())?,
            teachers: &teachers,
        })?;
        let full_corpus = corpus.clone();
        let selection = recipe.data.select(corpus)?;
        let mut notices = selection.notices;
        // Of a checkpoint that only gives word vectors, nothing else is expected to be read.
        let is_student = recipe.model.architecture()?.student_embedding().is_some();
        if let Some(checkpoint) = checkpoint.as_ref().filter(|_| !is_student) {
            notices.extend(checkpoint.unread_head()?);
        }
        let mut transfer_set = Vec::new();
        if let Some(transfer) = &recipe.transfer {
            let set =
                transfer.build_with_notices(&selection.corpus, &selection.unlabelled_train)?;
            transfer_set = set.texts;
            notices.extend(set.notices);
        }
        let texts = selection.corpus.train.len() + transfer_set.len();
        Ok(PlannedRun {
            id,
            recipe: recipe.clone(),
            device,
            precision,
            checkpoint,
            corpus: selection.corpus,
            full_corpus,
            schedule: schedule(recipe, texts),
            transfer_set,
            teachers,
            notices,
            threads: ThreadPolicy::Unchanged,
        })
    }

    /// The texts that a teacher labels: those of training and of the transfer set.
    pub fn texts_to_label(&self) -> Vec<TextInput<'_>> {
        let labelled = self.corpus.train.iter().map(Example::input);
        labelled
            .chain(self.transfer_set.iter().map(TransferText::input))
            .collect()
    }
}

/// The number of updates over `texts` texts, and the learning-rate schedule.
pub fn schedule(recipe: &Recipe, texts: usize) -> Schedule {
    let batches = texts.div_ceil(recipe.train.batch_size);
    let steps_per_epoch = batches.div_ceil(recipe.train.gradient_accumulation_steps);
    let total_steps = (steps_per_epoch as f64 * recipe.train.epochs)
        .round()
        .max(1.0);
    let warmup_steps = (total_steps * recipe.optimizer.warmup_ratio).round();
    Schedule {
        steps_per_epoch,
        total_steps: total_steps as usize,
        warmup_steps: warmup_steps as usize,
    }
}

/// What defines a run. Its id is its name and a hash of this, without name, device and paths.
#[derive(Debug)]
pub struct IdKey<'a> {
    /// The recipe as read, with its profile and overrides.
    pub recipe: &'a Recipe,
    /// The resolved dtype.
    pub precision: Precision,
    /// Hash of the corpus's files and of how they were read.
    pub corpus_fingerprint: &'a str,
    /// Hashes of other files by what they are for (see [`file_hashes`]).
    pub files: &'a BTreeMap<String, String>,
    /// Ids of the teachers' runs.
    pub teachers: &'a [String],
}

/// The id of a run, `NAME-HASH`. The hash covers the settings, the contents of files, and the name
/// and version of a custom model or objective. It does not cover the recipe's name, the device and
/// the paths of files: a run on another GPU, or with another path to the same file, is the same
/// run. A renamed recipe has another NAME, so it is another run.
pub fn run_id(key: &IdKey) -> Result<String> {
    let bug = |e: serde_json::Error| Error::recipe("recipe", e.to_string(), crate::error::BUG);
    let mut recipe = serde_json::to_value(key.recipe).map_err(bug)?;
    // The hashes of the checkpoint's files cover both keys, `tokenizer` and
    // `pretrained_embeddings`. If a tokenizer is set, these hashes do not tell whether the embedding starts from
    // the checkpoint's vectors too, so one flag stands for both keys.
    if recipe["model"].get("tokenizer").is_some() {
        let vectors = recipe["model"].get("pretrained_embeddings").is_some();
        recipe["model"]["tokenizer"] = json!({ "pretrained_embeddings": vectors });
    }
    for path in [
        "name",
        "device",
        "teacher",
        "train.precision",
        "model.checkpoint",
        "model.vocab_file",
        "model.vocab_texts",
        "model.pretrained_embeddings",
        "transfer.unlabelled_file",
        "teacher_logits",
    ] {
        remove(&mut recipe, path);
    }
    let teachers: Vec<&str> = key.teachers.iter().map(|id| hash_of(id)).collect();
    let hashed = json!({
        "format": ID_FORMAT,
        "recipe": recipe,
        "precision": key.precision,
        "corpus": key.corpus_fingerprint,
        "files": key.files,
        "teachers": teachers,
    });
    let hash = blake3::hash(hashed.to_string().as_bytes()).to_hex();
    Ok(format!("{}-{}", key.recipe.name, &hash[..HASH_DIGITS]))
}

/// The hash at the end of an id.
pub fn hash_of(id: &str) -> &str {
    id.rsplit('-').next().unwrap_or(id)
}

/// Removes a dotted key from a JSON object.
fn remove(value: &mut Value, dotted: &str) {
    let (group, key) = dotted.split_once('.').unwrap_or(("", dotted));
    let object = match group {
        "" => value.as_object_mut(),
        group => value.get_mut(group).and_then(Value::as_object_mut),
    };
    if let Some(object) = object {
        object.remove(key);
    }
}

/// Hashes of the files, other than the corpus, whose bytes are part of the id: the checkpoint's, the
/// model's own (`model.vocab_file`, `model.vocab_texts`), the file of teacher logits, and the file
/// of unlabelled texts.
pub fn file_hashes(
    recipe: &Recipe,
    checkpoint: Option<&Checkpoint>,
) -> Result<BTreeMap<String, String>> {
    let mut hashes = BTreeMap::new();
    if let Some(checkpoint) = checkpoint {
        for (name, hash) in checkpoint.file_hashes()? {
            hashes.insert(format!("checkpoint/{name}"), hash.clone());
        }
    }
    for (number, path) in recipe.model.architecture()?.files().iter().enumerate() {
        hashes.insert(format!("model/{number}"), files::hash_file(path)?);
    }
    if let Some(path) = &recipe.teacher_logits {
        hashes.insert("teacher_logits".to_owned(), files::hash_file(path)?);
    }
    let unlabelled = recipe
        .transfer
        .as_ref()
        .and_then(|t| t.unlabelled_file.as_ref());
    if let Some(path) = unlabelled {
        hashes.insert("unlabelled".to_owned(), files::hash_file(path)?);
    }
    Ok(hashes)
}
