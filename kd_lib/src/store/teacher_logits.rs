//! The cache of teachers' logits: one forward pass per (teacher's weights, text), ever. Logits are
//! stored beside the teacher in parts and found by the text's hash. A killed pass continues with
//! its next part, and every temperature, objective and seed uses the same logits. Nothing is
//! trained here.

use super::predictor::Predictor;
use super::recipe::Ensemble;
use super::run::Run;
use crate::data::corpus::{fold_of, text_key};
use crate::files::{self, TensorFile};
use crate::training::{Progress, ProgressCallback};
use crate::{Error, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use tch::Tensor;

/// Texts of a part: what a killed pass loses at most.
const PART_SIZE: usize = 4096;
/// The cache's folder beside the teacher.
const FOLDER: &str = "predictions";

type TextKey = [i64; 2];

/// Logits `[text, class]` to learn from: those of the one teacher, or of the ensemble.
pub fn ensemble_logits(
    ensemble: Option<&Ensemble>,
    teachers: &[Run],
    texts: &[&str],
    progress: ProgressCallback,
) -> Result<Tensor> {
    if let Some(Ensemble::OutOfFold(folds)) = ensemble {
        return out_of_fold_logits(*folds, teachers, texts, progress);
    }
    let mut logits = Vec::new();
    for teacher in teachers {
        logits.push(teacher_logits(teacher, texts, progress)?);
    }
    Ok(logits.iter().sum::<Tensor>() / logits.len() as f64)
}

/// The logits of each text from the teacher that was trained without the text's fold.
fn out_of_fold_logits(
    folds: usize,
    teachers: &[Run],
    texts: &[&str],
    progress: ProgressCallback,
) -> Result<Tensor> {
    let (mut rows, mut parts) = (Vec::new(), Vec::new());
    for (fold, teacher) in teachers.iter().enumerate() {
        let mut held_out = Vec::new();
        for (row, text) in texts.iter().enumerate() {
            if fold_of(text, folds) == fold {
                rows.push(row as i64);
                held_out.push(*text);
            }
        }
        if !held_out.is_empty() {
            parts.push(teacher_logits(teacher, &held_out, progress)?);
        }
    }
    let logits = Tensor::cat(&parts, 0);
    Ok(logits
        .zeros_like()
        .index_copy(0, &Tensor::from_slice(&rows), &logits))
}

/// Logits `[text, class]` of a teacher. The teacher's `log.txt` states how many were computed and
/// how many were cached. If all are cached, this does not wait for another process that computes
/// further ones.
pub fn teacher_logits(teacher: &Run, texts: &[&str], progress: ProgressCallback) -> Result<Tensor> {
    let teacher_folder = teacher.folder()?;
    let folder = teacher_folder.join(FOLDER);
    let weights = files::weights_hash(teacher_folder).ok_or_else(|| {
        Error::file(
            teacher_folder,
            "no weights to compute logits with",
            "train its recipe",
        )
    })?;
    // A teacher that was trained again may have other weights under the same id.
    let prefix = format!("part-{weights}-");
    let wanted: HashMap<TextKey, &str> = texts.iter().map(|text| (text_key(text), *text)).collect();
    let mut cache = Cache::read(&folder, &prefix)?;
    let mut _lock = None;
    if !cache.has_all(&wanted) {
        _lock = Some(files::lock_folder(&folder)?);
        files::remove_temporary_files(&folder)?;
        cache = Cache::read(&folder, &prefix)?;
    }
    let mut missing: Vec<(TextKey, &str)> = Vec::new();
    for (key, text) in wanted {
        if !cache.rows.contains_key(&key) {
            missing.push((key, text));
        }
    }
    // Texts of similar length together, in an order that does not depend on the request's.
    missing.sort_by_key(|(key, text)| (text.len(), *key));
    log_request(teacher, missing.len(), texts.len())?;
    if !missing.is_empty() {
        compute(teacher, &missing, &folder, &prefix, &mut cache, progress)?;
    }
    let rows: Vec<i64> = texts
        .iter()
        .map(|text| cache.rows[&text_key(text)])
        .collect();
    Ok(Tensor::cat(&cache.parts, 0).index_select(0, &Tensor::from_slice(&rows)))
}

/// Computes and stores the logits of texts that are not cached, part by part.
fn compute(
    teacher: &Run,
    missing: &[(TextKey, &str)],
    folder: &Path,
    prefix: &str,
    cache: &mut Cache,
    progress: ProgressCallback,
) -> Result<()> {
    let predictor = Predictor::open(teacher)?;
    let started = Instant::now();
    let mut computed = 0;
    for part in missing.chunks(PART_SIZE) {
        let texts: Vec<&str> = part.iter().map(|(_, text)| *text).collect();
        let keys: Vec<i64> = part.iter().flat_map(|(key, _)| *key).collect();
        let logits = predictor.logits(&texts)?;
        let keys = Tensor::from_slice(&keys).view([-1, 2]);
        let path = folder.join(format!("{prefix}{:06}.safetensors", cache.parts.len()));
        let tensors = [("keys".to_owned(), &keys), ("logits".to_owned(), &logits)];
        files::write_content_addressed(&path, tensors, HashMap::new())?;
        cache.add_part(&keys, logits)?;
        computed += part.len();
        let examples_per_second = computed as f64 / started.elapsed().as_secs_f64();
        let left = (missing.len() - computed) as f64 / examples_per_second;
        let report = Progress {
            run: &teacher.report.id,
            step: computed,
            total_steps: missing.len(),
            loss: None,
            examples_per_second,
            time_left: Duration::from_secs_f64(left),
            dev: None,
        };
        if progress(&report).is_break() {
            return Err(Error::Stopped {
                run: teacher.report.id.clone(),
                step: computed,
                total: missing.len(),
            });
        }
    }
    Ok(())
}

/// Appends to the teacher's log how many logits were requested, and how many had to be computed.
fn log_request(teacher: &Run, missing: usize, requested: usize) -> Result<()> {
    let path = teacher.folder()?.join("log.txt");
    let mut log = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .map_err(Error::io(&path))?;
    let id = &teacher.report.id;
    writeln!(
        log,
        "{id}: logits of {requested} texts requested, {missing} to compute"
    )
    .map_err(Error::io(&path))
}

/// Cached logits: parts of rows, and each text's row over all parts.
#[derive(Default)]
struct Cache {
    rows: HashMap<TextKey, i64>,
    parts: Vec<Tensor>,
}

impl Cache {
    /// Reads the parts of a folder. The texts of a damaged part are computed again.
    fn read(folder: &Path, prefix: &str) -> Result<Cache> {
        let mut cache = Cache::default();
        for path in files::content_addressed(folder, prefix) {
            if files::matches_its_name(&path) {
                let mut file = TensorFile::read(&path)?;
                let keys = file.take(&path, "keys")?;
                cache.add_part(&keys, file.take(&path, "logits")?)?;
            }
        }
        Ok(cache)
    }

    fn has_all(&self, wanted: &HashMap<TextKey, &str>) -> bool {
        wanted.keys().all(|key| self.rows.contains_key(key))
    }

    fn add_part(&mut self, keys: &Tensor, logits: Tensor) -> Result<()> {
        let first_row: i64 = self.parts.iter().map(|part| part.size()[0]).sum();
        let keys = Vec::<i64>::try_from(keys.view(-1))?;
        for (row, key) in (first_row..).zip(keys.chunks_exact(2)) {
            self.rows.insert([key[0], key[1]], row);
        }
        self.parts.push(logits);
        Ok(())
    }
}
