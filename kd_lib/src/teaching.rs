//! What a teacher says of the texts of a run: one pass per (teacher, text), ever. Answers lie beside the teacher in
//! portions, found again by the text's hash whatever run asks, so that a killed pass goes on with its next portion
//! and every temperature, objective and seed shares one. Nothing is trained here.

use crate::data::corpus::{fold, key};
use crate::files::{self, TensorFile, lock};
use crate::predict::Predictor;
use crate::progress::{Tick, Watch};
use crate::recipe::Teaching;
use crate::run::Run;
use crate::{Error, Result};
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};
use tch::Tensor;

/// Texts of a portion: what a killed pass loses at most.
const PORTION: usize = 4096;
type Rows = HashMap<[i64; 2], i64>;

/// Logits `[text, class]` to learn from, of a recipe's teachers.
pub fn taught(teaching: &Option<Teaching>, teachers: &[Run], texts: &[&str], watch: Watch) -> Result<Tensor> {
    let Some(Teaching::Folds(folds)) = *teaching else {
        let answers = teachers.iter().map(|teacher| logits(teacher, texts, watch)).collect::<Result<Vec<_>>>()?;
        return Ok(answers.iter().sum::<Tensor>() / answers.len() as f64);
    };
    let (mut rows, mut answers) = (Vec::new(), Vec::new());
    for (k, teacher) in teachers.iter().enumerate().filter(|(k, _)| texts.iter().any(|t| fold(t, folds) == *k)) {
        let of_fold = texts.iter().enumerate().filter(|(_, text)| fold(text, folds) == k);
        let (of_fold, left_out): (Vec<i64>, Vec<&str>) = of_fold.map(|(row, text)| (row as i64, *text)).unzip();
        rows.extend(of_fold);
        answers.push(logits(teacher, &left_out, watch)?);
    }
    let answers = Tensor::cat(&answers, 0);
    Ok(answers.zeros_like().index_copy(0, &Tensor::from_slice(&rows), &answers))
}

/// Logits `[text, class]` of a teacher for these texts; its `log.txt` tells how many it had to read. Whoever needs
/// nothing new does not wait for another run that makes the teacher read.
pub fn logits(teacher: &Run, texts: &[&str], watch: Watch) -> Result<Tensor> {
    let folder = teacher.path.join("answers");
    // A teacher trained again may have other weights under the same id: what was said before is not its.
    let none = || Error::file(&teacher.path, "a copy without weights, which cannot answer", "run its recipe");
    let part = format!("part-{}-", files::weights_hash(&teacher.path).ok_or_else(none)?);
    let mut wanted: HashMap<[i64; 2], &str> = texts.iter().map(|t| (key(t), *t)).collect();
    let (mut known, mut tables) = said(&folder, &part)?;
    let lock = if wanted.keys().all(|key| known.contains_key(key)) { None } else { Some(lock(&folder)?) };
    if lock.is_some() {
        files::sweep(&folder)?;
        (known, tables) = said(&folder, &part)?;
    }
    wanted.retain(|key, _| !known.contains_key(key));
    let mut missing: Vec<([i64; 2], &str)> = wanted.into_iter().collect();
    missing.sort_by_key(|(key, text)| (text.len(), *key)); // of like length together, in an order of their own
    note(teacher, missing.len(), texts.len())?;
    let predictor = if missing.is_empty() { None } else { Some(Predictor::open(teacher)?) };
    let (started, mut answered) = (Instant::now(), 0);
    for (predictor, portion) in predictor.iter().flat_map(|p| missing.chunks(PORTION).map(move |c| (p, c))) {
        let answers = predictor.logits(&portion.iter().map(|p| p.1).collect::<Vec<_>>())?;
        let keys = Tensor::from_slice(&portion.iter().flat_map(|p| p.0).collect::<Vec<_>>()).view([-1, 2]);
        let path = folder.join(format!("{part}{:06}.safetensors", tables.len()));
        let tensors = [("keys".to_owned(), &keys), ("logits".to_owned(), &answers)];
        files::write_sealed_tensors(&path, tensors, HashMap::new())?;
        take(keys, answers, &mut known, &mut tables)?;
        answered += portion.len();
        let speed = answered as f64 / started.elapsed().as_secs_f64();
        let left = Duration::from_secs_f64((missing.len() - answered) as f64 / speed);
        let (run, steps) = (&teacher.report.id, missing.len());
        if watch(&Tick { run, step: answered, steps, loss: None, speed, left, dev: None }).is_break() {
            return Err(Error::Stopped { run: run.clone(), step: answered, steps });
        }
    }
    let rows: Vec<i64> = texts.iter().map(|t| known[&key(t)]).collect();
    Ok(Tensor::cat(&tables, 0).index_select(0, &Tensor::from_slice(&rows)))
}

/// Writes to the teacher's log how many texts were asked about, and how many of them it had not read before.
fn note(teacher: &Run, unread: usize, asked: usize) -> Result<()> {
    let path = teacher.path.join("log.txt");
    let mut log = File::options().create(true).append(true).open(&path).map_err(Error::io(&path))?;
    writeln!(log, "{}: {unread} texts to read of {asked} asked about", teacher.report.id).map_err(Error::io(&path))
}

/// What a teacher has said: a text's row by its key, through all portions. A damaged one's texts are answered again.
fn said(folder: &Path, part: &str) -> Result<(Rows, Vec<Tensor>)> {
    let (mut known, mut tables) = (Rows::new(), Vec::new());
    for path in files::sealed(folder, part).into_iter().filter(|path| files::is_sound(path)) {
        let mut file = TensorFile::read(&path)?;
        take(file.take(&path, "keys")?, file.take(&path, "logits")?, &mut known, &mut tables)?;
    }
    Ok((known, tables))
}

/// Adds a portion: its rows by key, counted through all tables.
fn take(keys: Tensor, logits: Tensor, known: &mut Rows, tables: &mut Vec<Tensor>) -> Result<()> {
    let before: i64 = tables.iter().map(|t| t.size()[0]).sum();
    let keys = Vec::<i64>::try_from(keys.view(-1))?;
    known.extend(keys.chunks_exact(2).zip(before..).map(|(key, row)| ([key[0], key[1]], row)));
    tables.push(logits);
    Ok(())
}
