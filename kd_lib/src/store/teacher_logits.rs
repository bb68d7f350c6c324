//! The cache of what teachers computed: the logits of each text, and pooled hidden states of the
//! layers that an objective names. Each is computed once for a teacher's weights and a text,
//! whatever the temperature, the objective and the student's seed. The files stand in the teacher's
//! folder and hold at most 1,024 texts; states (f16) have a file for each layer. An output is found
//! by the hash of its text. A killed pass continues with its next file. Nothing is trained here.

use super::predictor::Predictor;
use super::recipe::Ensemble;
use super::run::Run;
use super::run_files;
use crate::data::text_input::{TextInput, TextKey};
use crate::evaluation::split_pass::remove_interrupted;
use crate::files::{self, MappedMatrix, TensorFile};
use crate::models::ModelOutput;
use crate::threads::{ThreadControl, ThreadPolicy};
use crate::training::pooled_states::{PooledStates, StatePlace};
use crate::training::progress::TextClock;
use crate::training::{Activity, Progress, ProgressCallback};
use crate::{Error, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Texts of a file: what a pass loses at most if it is killed (one that is asked to stop loses
/// nothing), and how long it keeps its number of threads.
const TEXTS_PER_FILE: usize = 1024;
/// The cache's folder, in the teacher's.
const FOLDER: &str = "predictions";

/// Logits `[text, class]` to learn from: those of the one teacher, or of the ensemble.
pub fn logits_to_learn(
    ensemble: Option<&Ensemble>,
    teachers: &[Run],
    texts: &[TextInput],
    threads: ThreadPolicy,
    callback: ProgressCallback,
) -> Result<Tensor> {
    if let Some(Ensemble::OutOfFold(folds)) = ensemble {
        return out_of_fold_logits(*folds, teachers, texts, threads, callback);
    }
    let mut logits = Vec::new();
    for teacher in teachers {
        logits.push(cached_or_computed_logits(
            teacher, texts, threads, callback,
        )?);
    }
    Ok(logits.iter().sum::<Tensor>() / logits.len() as f64)
}

/// The logits of each text from the teacher that was trained without the text's fold.
fn out_of_fold_logits(
    folds: usize,
    teachers: &[Run],
    texts: &[TextInput],
    threads: ThreadPolicy,
    callback: ProgressCallback,
) -> Result<Tensor> {
    let (mut rows, mut fold_logits) = (Vec::new(), Vec::new());
    for (fold, teacher) in teachers.iter().enumerate() {
        let mut held_out = Vec::new();
        for (row, text) in texts.iter().enumerate() {
            if text.fold(folds) == fold {
                rows.push(row as i64);
                held_out.push(*text);
            }
        }
        if !held_out.is_empty() {
            fold_logits.push(cached_or_computed_logits(
                teacher, &held_out, threads, callback,
            )?);
        }
    }
    let logits = Tensor::cat(&fold_logits, 0);
    Ok(logits
        .zeros_like()
        .index_copy(0, &Tensor::from_slice(&rows), &logits))
}

/// Logits `[text, class]` of a teacher. The teacher's `log.txt` states how many were computed and
/// how many were cached. If all are cached, this does not wait for another process that computes
/// further ones.
pub fn teacher_logits(
    teacher: &Run,
    texts: &[TextInput],
    callback: ProgressCallback,
) -> Result<Tensor> {
    cached_or_computed_logits(teacher, texts, ThreadPolicy::Unchanged, callback)
}

/// Like [`teacher_logits`]; this policy decides the number of threads.
fn cached_or_computed_logits(
    teacher: &Run,
    texts: &[TextInput],
    threads: ThreadPolicy,
    callback: ProgressCallback,
) -> Result<Tensor> {
    if texts.is_empty() {
        let size = [0, teacher.labels.len() as i64];
        return Ok(Tensor::zeros(size, (Kind::Float, Device::Cpu)));
    }
    let teacher_folder = teacher.folder()?;
    let folder = teacher_folder.join(FOLDER);
    let weights = weights_hash_of(teacher)?;
    // A teacher that was trained again may have other weights under the same id.
    let prefix = format!("part-{weights}-");
    let read = || Cache::read(&folder, &prefix);
    let has = |cache: &Cache, key: &TextKey| cache.rows.contains_key(key);
    let ReadCache {
        mut cache,
        missing,
        _lock,
    } = read_and_lock(teacher, &folder, texts, read, has, callback)?;
    log_request(teacher, "logits", missing.len(), texts.len())?;
    if !missing.is_empty() {
        let job = LogitsJob {
            teacher,
            weights: &weights,
            layers: &[],
            missing: &missing,
            threads,
        };
        job.compute(callback, &mut |keys, output| {
            cache.write_file(&folder, &prefix, keys, &output.logits)
        })?;
    }
    let rows: Vec<i64> = texts.iter().map(|text| cache.rows[&text.key()]).collect();
    Ok(Tensor::cat(&cache.files, 0).index_select(0, &Tensor::from_slice(&rows)))
}

/// A teacher's pooled states of these layers for these texts; logits that are computed on the way
/// are cached too.
pub fn pooled_states(
    teacher: &Run,
    layers: &[usize],
    texts: &[TextInput],
    threads: ThreadPolicy,
    callback: ProgressCallback,
) -> Result<Vec<PooledStates>> {
    if layers.is_empty() {
        return Ok(Vec::new());
    }
    let teacher_folder = teacher.folder()?;
    let folder = teacher_folder.join(FOLDER);
    let weights = weights_hash_of(teacher)?;
    let read = || -> Result<Vec<StateCache>> {
        layers
            .iter()
            .map(|layer| StateCache::read(&folder, *layer, &weights))
            .collect()
    };
    let has = |caches: &Vec<StateCache>, key: &TextKey| {
        caches.iter().all(|cache| cache.places.contains_key(key))
    };
    let ReadCache {
        cache: mut caches,
        missing,
        _lock,
    } = read_and_lock(teacher, &folder, texts, read, has, callback)?;
    log_request(teacher, "hidden states", missing.len(), texts.len())?;
    if !missing.is_empty() {
        let prefix = format!("part-{weights}-");
        let mut logits = Cache::read(&folder, &prefix)?;
        let numbers_of_files = caches.iter().map(|cache| cache.files.len());
        let mut next_file = numbers_of_files.max().unwrap_or(0);
        let job = LogitsJob {
            teacher,
            weights: &weights,
            layers,
            missing: &missing,
            threads,
        };
        job.compute(callback, &mut |keys, output| {
            let without_logits = logits.missing(keys)?;
            if !without_logits.is_empty() {
                let rows = Tensor::from_slice(&without_logits);
                let keys = keys.index_select(0, &rows);
                let missing_logits = output.logits.index_select(0, &rows);
                logits.write_file(&folder, &prefix, &keys, &missing_logits)?;
            }
            for (layer, states) in layers.iter().zip(&output.hidden) {
                StateCache::write_file(&folder, *layer, &weights, next_file, keys, states)?;
            }
            next_file += 1;
            Ok(())
        })?;
        caches = read()?;
    }
    let states = |cache: StateCache| PooledStates {
        width: cache.files.first().map_or(0, |file| file.width),
        places: texts.iter().map(|text| cache.places[&text.key()]).collect(),
        files: cache.files,
    };
    Ok(caches.into_iter().map(states).collect())
}

/// A cache as it was read, and the texts that it lacks. If it lacks some, no other process computes
/// for this teacher until the lock is dropped.
struct ReadCache<'a, C> {
    cache: C,
    missing: Vec<(TextKey, TextInput<'a>)>,
    _lock: Option<File>,
}

/// Reads a cache, and once more after the wait for the lock: another process may have computed what
/// was missing.
fn read_and_lock<'a, C>(
    teacher: &Run,
    folder: &Path,
    texts: &[TextInput<'a>],
    read: impl Fn() -> Result<C>,
    has: impl Fn(&C, &TextKey) -> bool,
    callback: ProgressCallback,
) -> Result<ReadCache<'a, C>> {
    let cache = read()?;
    let missing = missing_texts(texts, |key| !has(&cache, key));
    if missing.is_empty() {
        return Ok(ReadCache {
            cache,
            missing,
            _lock: None,
        });
    }
    let waiting = Progress::begin(&teacher.report.id, Activity::Waiting);
    let lock = files::lock_folder(folder, &mut || waiting.send(callback))?;
    files::remove_temporary_files(folder)?;
    let cache = read()?;
    Ok(ReadCache {
        missing: missing_texts(texts, |key| !has(&cache, key)),
        cache,
        _lock: Some(lock),
    })
}

/// The texts whose keys `is_missing` names, each once. Texts of similar length stand together, in an
/// order that does not depend on the request's.
fn missing_texts<'a>(
    texts: &[TextInput<'a>],
    is_missing: impl Fn(&TextKey) -> bool,
) -> Vec<(TextKey, TextInput<'a>)> {
    let distinct: HashMap<TextKey, TextInput> =
        texts.iter().map(|text| (text.key(), *text)).collect();
    let mut missing: Vec<(TextKey, TextInput)> = distinct
        .into_iter()
        .filter(|(key, _)| is_missing(key))
        .collect();
    missing.sort_by_key(|(key, text)| (text.len(), *key));
    missing
}

/// First digits of the hash of a teacher's weights.
fn weights_hash_of(teacher: &Run) -> Result<String> {
    let folder = teacher.folder()?;
    let none = || {
        Error::file(
            folder,
            "no weights to compute logits with",
            "train its recipe",
        )
    };
    run_files::weights_hash(folder).ok_or_else(none)
}

/// What a teacher has not yet computed.
struct LogitsJob<'a> {
    teacher: &'a Run,
    /// First digits of the hash of its weights.
    weights: &'a str,
    layers: &'a [usize],
    missing: &'a [(TextKey, TextInput<'a>)],
    threads: ThreadPolicy,
}

impl LogitsJob<'_> {
    /// Computes it file by file; `store` writes each. A file at which the computation was
    /// interrupted is continued by the next request for the same texts. The number of threads may
    /// change between two files, so an interrupted and continued file may have two; the teacher's
    /// log names each number.
    fn compute(
        &self,
        callback: ProgressCallback,
        store: &mut dyn FnMut(&Tensor, &ModelOutput) -> Result<()>,
    ) -> Result<()> {
        let predictor = Predictor::open(self.teacher)?;
        let folder = self.teacher.folder()?.join(FOLDER);
        let total = self.missing.len();
        let mut clock = TextClock::new(&self.teacher.report.id, Activity::TeacherLogits, total);
        let mut threads = ThreadControl::start(self.threads, None);
        let mut computed = 0;
        let mut changed = true;
        for file_texts in self.missing.chunks(TEXTS_PER_FILE) {
            if changed {
                let threads = threads.threads();
                log(
                    self.teacher,
                    &format!("from text {computed} on, threads: {threads}"),
                )?;
            }
            let texts: Vec<TextInput> = file_texts.iter().map(|(_, text)| *text).collect();
            let keys: Vec<i64> = file_texts.iter().flat_map(|(key, _)| *key).collect();
            let mut check_stop = |done| clock.at(computed + done).send(callback);
            let name = pass_name(self.weights, self.layers, &keys);
            let output = predictor.compute(&texts, self.layers, |pass| {
                pass.resumable_outputs(&folder, &name, &mut check_stop)
            })?;
            store(&Tensor::from_slice(&keys).view([-1, 2]), &output)?;
            computed += file_texts.len();
            changed = threads.reconsider();
            threads.apply();
        }
        remove_interrupted(&folder)
    }
}

/// A name for a file's interrupted pass: what it computes, of which texts.
fn pass_name(weights: &str, layers: &[usize], keys: &[i64]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{weights} {layers:?} {keys:?}").as_bytes());
    hasher.finalize().to_hex()[..16].to_owned()
}

/// Appends to the teacher's log how many outputs were requested, and how many had to be computed.
/// A teacher whose folder cannot be written can still give what it has computed.
fn log_request(teacher: &Run, what: &str, missing: usize, requested: usize) -> Result<()> {
    let line = format!("{what} of {requested} texts requested, {missing} to compute");
    match log(teacher, &line) {
        Err(_) if missing == 0 => Ok(()),
        logged => logged,
    }
}

/// Appends a line to the teacher's log.
fn log(teacher: &Run, line: &str) -> Result<()> {
    let path = teacher.folder()?.join(run_files::LOG);
    let mut log = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(Error::io(&path))?;
    writeln!(log, "{}: {line}", teacher.report.id).map_err(Error::io(&path))
}

/// Cached logits: the tensor of each file, and each text's row over all files.
#[derive(Default)]
struct Cache {
    rows: HashMap<TextKey, i64>,
    files: Vec<Tensor>,
}

impl Cache {
    /// Reads the files of a folder. The texts of a damaged file are computed again.
    fn read(folder: &Path, prefix: &str) -> Result<Cache> {
        let mut cache = Cache::default();
        for path in files::content_addressed(folder, prefix) {
            if files::matches_its_name(&path) {
                let mut file = TensorFile::read(&path)?;
                let keys = file.take(&path, "keys")?;
                cache.add_file(&keys, file.take(&path, "logits")?)?;
            }
        }
        Ok(cache)
    }

    /// Positions of the keys whose logits are not cached.
    fn missing(&self, keys: &Tensor) -> Result<Vec<i64>> {
        let keys = Vec::<i64>::try_from(keys.view(-1))?;
        let numbered = (0..).zip(keys.chunks_exact(2));
        let missing = numbered.filter(|(_, key)| !self.rows.contains_key(&[key[0], key[1]]));
        Ok(missing.map(|(position, _)| position).collect())
    }

    fn write_file(
        &mut self,
        folder: &Path,
        prefix: &str,
        keys: &Tensor,
        logits: &Tensor,
    ) -> Result<()> {
        let path = folder.join(format!("{prefix}{:06}.safetensors", self.files.len()));
        let tensors = [("keys".to_owned(), keys), ("logits".to_owned(), logits)];
        files::write_content_addressed(&path, tensors, HashMap::new())?;
        self.add_file(keys, logits.shallow_clone())
    }

    fn add_file(&mut self, keys: &Tensor, logits: Tensor) -> Result<()> {
        let first_row: i64 = self.files.iter().map(|file| file.size()[0]).sum();
        let keys = Vec::<i64>::try_from(keys.view(-1))?;
        for (row, key) in (first_row..).zip(keys.chunks_exact(2)) {
            self.rows.insert([key[0], key[1]], row);
        }
        self.files.push(logits);
        Ok(())
    }
}

/// Cached pooled states of one layer: files on disk, and each text's place.
#[derive(Default)]
struct StateCache {
    places: HashMap<TextKey, StatePlace>,
    files: Vec<Arc<MappedMatrix>>,
}

impl StateCache {
    fn prefix(layer: usize, weights: &str) -> String {
        format!("layer{layer}-{weights}-")
    }

    /// Maps the files of a layer. The texts of a damaged file are computed again.
    fn read(folder: &Path, layer: usize, weights: &str) -> Result<StateCache> {
        let mut cache = StateCache::default();
        for path in files::content_addressed(folder, &StateCache::prefix(layer, weights)) {
            if !files::matches_its_name(&path) {
                continue;
            }
            let keys = TensorFile::read_one(&path, "keys")?;
            let keys = Vec::<i64>::try_from(keys.view(-1))?;
            let number = cache.files.len();
            for (row, key) in keys.chunks_exact(2).enumerate() {
                cache
                    .places
                    .insert([key[0], key[1]], StatePlace { file: number, row });
            }
            cache
                .files
                .push(Arc::new(MappedMatrix::open(&path, "states")?));
        }
        Ok(cache)
    }

    fn write_file(
        folder: &Path,
        layer: usize,
        weights: &str,
        number: usize,
        keys: &Tensor,
        states: &Tensor,
    ) -> Result<()> {
        let prefix = StateCache::prefix(layer, weights);
        let path = folder.join(format!("{prefix}{number:06}.safetensors"));
        let states = states.to_kind(Kind::Half);
        let tensors = [("keys".to_owned(), keys), ("states".to_owned(), &states)];
        files::write_content_addressed(&path, tensors, HashMap::new()).map(drop)
    }
}
