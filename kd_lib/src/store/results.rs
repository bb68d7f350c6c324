//! Stored results: what tables need of finished runs, in few files that fit into a repository.
//!
//! | file | content |
//! |---|---|
//! | `reports.jsonl` | one JSON object per run: its set, class names, teachers' weights, report |
//! | `curves.csv` | the training curves of these runs |
//! | `predictions-HASH.safetensors` | predicted classes as u8 `[run, example]`, one file per test set |
//! | `added/SET-ID.safetensors` | one run that was added later, with its test logits in f16 |
//!
//! The first three files are written once. A run that is added later is one more file, and no
//! other file changes. Weights are not stored.

use super::run::{Predictions, Run, RunReport, StoredRun, TaughtBy};
use crate::data::Split;
use crate::evaluation::{argmax, to_array};
use crate::files::{self, TensorFile};
use crate::training::CurvePoint;
use crate::{Error, Result, error::BUG};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Kind, Tensor};

const REPORTS: &str = "reports.jsonl";
const CURVES: &str = "curves.csv";
const PREDICTIONS: &str = "predictions-";
const ADDED: &str = "added";
/// Largest file of an added run, in bytes.
const MAX_ADDED: usize = 250_000;
/// More bytes than the header of an added file has beside its metadata.
const HEADER_BYTES: usize = 512;
/// The set of runs that tables are made of.
pub const MAIN_SET: &str = "runs";

/// A run in `reports.jsonl` or in the file of an added run.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    set: String,
    labels: Vec<String>,
    #[serde(default, skip_serializing_if = "TaughtBy::is_empty")]
    taught_by: TaughtBy,
    report: RunReport,
}

/// A run's place in the stored results.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct RunKey {
    set: String,
    id: String,
}

/// The stored results in a folder.
#[derive(Debug)]
pub struct StoredResults {
    folder: PathBuf,
    runs: Vec<Arc<StoredRun>>,
}

impl StoredResults {
    /// Reads the stored results of a folder; none if there is no such folder.
    pub fn open(folder: impl Into<PathBuf>) -> Result<StoredResults> {
        let folder = folder.into();
        let mut runs = Vec::new();
        if folder.join(REPORTS).exists() {
            runs = read_main_files(&folder)?;
        }
        let added = folder.join(ADDED);
        if added.is_dir() {
            for path in files::sorted_entries(&added)? {
                if path
                    .extension()
                    .is_some_and(|extension| extension == "safetensors")
                {
                    runs.push(read_added(&path)?);
                }
            }
        }
        let runs = runs.into_iter().map(Arc::new).collect();
        Ok(StoredResults { folder, runs })
    }

    /// The runs of a set, in the order in which they were stored.
    pub fn set(&self, set: &str) -> Vec<Run> {
        let in_set = self.runs.iter().filter(|run| run.set == set);
        in_set.map(|run| Run::stored(run.clone())).collect()
    }

    /// The run of a set with this id, if there is one. Of two, the one that was added last.
    pub fn find(&self, set: &str, id: &str) -> Option<Run> {
        let found = self
            .runs
            .iter()
            .rev()
            .find(|run| run.set == set && run.report.id == id);
        found.map(|run| Run::stored(run.clone()))
    }

    /// Adds a finished run to a set: one new file. Returns its path.
    ///
    /// # Errors
    /// If the run has no folder, if its file would be larger than 250 kB, if it has more than 256
    /// classes, if the set's name cannot be part of a file name, or if the set has other results of
    /// this run.
    pub fn add(&self, set: &str, run: &Run) -> Result<PathBuf> {
        if set.is_empty() || set.contains(['/', ',', '\n']) {
            let fix = "name a set without / and commas";
            return Err(Error::option("set", format!("{set:?}"), fix));
        }
        if run.labels.len() > 256 {
            let problem = format!("{} classes", run.labels.len());
            let fix = "stored results hold classes as one byte: 256 at most";
            return Err(Error::recipe("labels", problem, fix));
        }
        let path = self
            .folder
            .join(ADDED)
            .join(format!("{set}-{}.safetensors", run.report.id));
        let entry = Entry {
            set: set.to_owned(),
            labels: run.labels.clone(),
            taught_by: run.taught_by()?,
            report: run.report.clone(),
        };
        let json = |value: serde_json::Result<String>| value.map_err(Error::in_file(&path, BUG));
        if path.exists() {
            if read_added(&path)?.report == run.report {
                return Ok(path);
            }
            let fix = "remove the file, or add the run to another set";
            return Err(Error::file(&path, "holds other results of this run", fix));
        }
        let mut metadata = HashMap::new();
        metadata.insert("run".to_owned(), json(serde_json::to_string(&entry))?);
        metadata.insert("curve".to_owned(), curve_to_csv(&run.curve()?, &path)?);
        let mut tensors = Vec::new();
        if !run.report.test.is_empty() {
            let test = run.logits(Split::Test)?;
            let (rows, columns) = test.logits.dim();
            let values: Vec<f32> = test.logits.iter().copied().collect();
            let logits = Tensor::from_slice(&values).view([rows as i64, columns as i64]);
            tensors.push(("logits".to_owned(), logits.to_kind(Kind::Half)));
            tensors.push(("labels".to_owned(), classes_to_tensor(&test.labels)));
        }
        let bytes = |tensor: &Tensor| tensor.numel() * tensor.kind().elt_size_in_bytes();
        let tensor_bytes: usize = tensors.iter().map(|(_, tensor)| bytes(tensor)).sum();
        // The header of the file holds the metadata as JSON, and a few numbers for each tensor.
        let header_bytes = json(serde_json::to_string(&metadata))?.len() + HEADER_BYTES;
        let size = header_bytes + tensor_bytes;
        if size > MAX_ADDED {
            let problem = format!("{size} bytes, stored results have {MAX_ADDED} at most");
            return Err(Error::file(
                &path,
                problem,
                "store a run with a smaller test set",
            ));
        }
        let tensors = tensors.iter().map(|(name, tensor)| (name.clone(), tensor));
        files::write_tensors_with_metadata(&path, tensors, metadata)?;
        Ok(path)
    }

    /// Whether [`StoredResults::write`] writes files of this name.
    pub fn is_main_file(name: &str) -> bool {
        [REPORTS, CURVES].contains(&name) || name.starts_with(PREDICTIONS)
    }

    /// Writes runs as the main files of a folder. Used once, when results are converted.
    pub fn write(folder: &Path, runs: &[(String, Run)]) -> Result<()> {
        write_reports(folder, runs)?;
        write_curves(folder, runs)?;
        write_predictions(folder, runs)
    }
}

fn read_main_files(folder: &Path) -> Result<Vec<StoredRun>> {
    let mut curves = read_curves(&folder.join(CURVES))?;
    let mut predictions = HashMap::new();
    for path in files::sorted_entries(folder)? {
        if files::file_name(&path).starts_with(PREDICTIONS) {
            predictions.extend(read_predictions(&path)?);
        }
    }
    let path = folder.join(REPORTS);
    let file = std::fs::File::open(&path).map_err(Error::io(&path))?;
    let mut runs = Vec::new();
    for (at, line) in std::io::BufReader::new(file).lines().enumerate() {
        let line = line.map_err(Error::io(&path))?;
        let bad = |e: serde_json::Error| {
            Error::line(
                &path,
                at + 1,
                e.to_string(),
                "restore the file from the repository",
            )
        };
        let entry: Entry = serde_json::from_str(&line).map_err(bad)?;
        let key = RunKey {
            set: entry.set,
            id: entry.report.id.clone(),
        };
        runs.push(StoredRun {
            file: path.clone(),
            curve: curves.remove(&key).unwrap_or_default(),
            test: predictions.remove(&key),
            test_logits: None,
            set: key.set,
            report: entry.report,
            labels: entry.labels,
            taught_by: entry.taught_by,
        });
    }
    Ok(runs)
}

fn read_added(path: &Path) -> Result<StoredRun> {
    let fix = "restore the file from the repository, or add the run again";
    let mut file = TensorFile::read(path)?;
    let metadata = |key: &str| file.metadata.get(key).cloned().unwrap_or_default();
    let entry: Entry = serde_json::from_str(&metadata("run")).map_err(Error::in_file(path, fix))?;
    let curve = curve_from_csv(&metadata("curve"), path)?;
    let (mut test, mut test_logits) = (None, None);
    if file.tensors.contains_key("logits") {
        let logits = to_array(&file.take(path, "logits")?)?;
        let labels = tensor_to_classes(&file.take(path, "labels")?)?;
        let classes = logits.outer_iter().map(argmax).collect();
        test = Some(Predictions { classes, labels });
        test_logits = Some(logits);
    }
    Ok(StoredRun {
        file: path.to_path_buf(),
        set: entry.set,
        report: entry.report,
        labels: entry.labels,
        taught_by: entry.taught_by,
        curve,
        test,
        test_logits,
    })
}

fn write_reports(folder: &Path, runs: &[(String, Run)]) -> Result<()> {
    let path = folder.join(REPORTS);
    let mut lines = String::new();
    for (set, run) in runs {
        let entry = Entry {
            set: set.clone(),
            labels: run.labels.clone(),
            taught_by: run.taught_by()?,
            report: run.report.clone(),
        };
        lines += &serde_json::to_string(&entry).map_err(Error::in_file(&path, BUG))?;
        lines.push('\n');
    }
    files::write_text(&path, &lines)
}

/// One line per run and point: the run's set and id, and the point's values.
fn write_curves(folder: &Path, runs: &[(String, Run)]) -> Result<()> {
    let path = folder.join(CURVES);
    let mut text = String::new();
    for (set, run) in runs {
        let curve = curve_to_csv(&run.curve()?, &path)?;
        let mut lines = curve.lines();
        let header = lines.next().unwrap_or_default();
        if text.is_empty() {
            text += &format!("set,id,{header}\n");
        }
        for line in lines {
            text += &format!("{set},{},{line}\n", run.report.id);
        }
    }
    files::write_text(&path, &text)
}

fn read_curves(path: &Path) -> Result<HashMap<RunKey, Vec<CurvePoint>>> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let header = header.strip_prefix("set,id,").unwrap_or(header);
    let mut texts: HashMap<RunKey, String> = HashMap::new();
    for (at, line) in lines.enumerate() {
        let mut fields = line.splitn(3, ',');
        let (Some(set), Some(id), Some(values)) = (fields.next(), fields.next(), fields.next())
        else {
            let fix = "restore the file from the repository";
            return Err(Error::line(path, at + 2, "fewer than three fields", fix));
        };
        let key = RunKey {
            set: set.to_owned(),
            id: id.to_owned(),
        };
        let text = texts.entry(key).or_insert_with(|| format!("{header}\n"));
        text.push_str(values);
        text.push('\n');
    }
    let parse = |(key, text): (RunKey, String)| Ok((key, curve_from_csv(&text, path)?));
    texts.into_iter().map(parse).collect()
}

fn curve_to_csv(curve: &[CurvePoint], path: &Path) -> Result<String> {
    let bad = |e: csv::Error| Error::file(path, e.to_string(), BUG);
    let mut writer = csv::Writer::from_writer(Vec::new());
    for point in curve {
        writer.serialize(point).map_err(bad)?;
    }
    let bytes = writer
        .into_inner()
        .map_err(|e| Error::file(path, e.to_string(), BUG))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn curve_from_csv(text: &str, path: &Path) -> Result<Vec<CurvePoint>> {
    let bad =
        |e: csv::Error| Error::file(path, e.to_string(), "restore the file from the repository");
    let rows = csv::Reader::from_reader(text.as_bytes()).into_deserialize();
    rows.map(|row| row.map_err(bad)).collect()
}

/// One file for each list of test labels.
fn write_predictions(folder: &Path, runs: &[(String, Run)]) -> Result<()> {
    let mut test_sets: Vec<TestSet> = Vec::new();
    for (set, run) in runs.iter().filter(|(_, run)| !run.report.test.is_empty()) {
        let Predictions { classes, labels } = run.predictions(Split::Test)?;
        let key = RunKey {
            set: set.clone(),
            id: run.report.id.clone(),
        };
        let known = test_sets
            .iter()
            .position(|test_set| test_set.labels == labels);
        let at = known.unwrap_or_else(|| {
            test_sets.push(TestSet {
                labels,
                runs: Vec::new(),
                predictions: Vec::new(),
            });
            test_sets.len() - 1
        });
        test_sets[at].runs.push(key);
        test_sets[at].predictions.push(classes_to_tensor(&classes));
    }
    for test_set in test_sets {
        let labels = classes_to_tensor(&test_set.labels);
        let bytes: Vec<u8> = test_set.labels.iter().map(|&label| label as u8).collect();
        let hash = blake3::hash(&bytes).to_hex();
        let path = folder.join(format!("{PREDICTIONS}{}.safetensors", &hash[..8]));
        let runs = serde_json::to_string(&test_set.runs).map_err(Error::in_file(&path, BUG))?;
        let predictions = Tensor::stack(&test_set.predictions, 0);
        let tensors = [
            ("labels".to_owned(), &labels),
            ("predictions".to_owned(), &predictions),
        ];
        let metadata = HashMap::from([("runs".to_owned(), runs)]);
        files::write_tensors_with_metadata(&path, tensors, metadata)?;
    }
    Ok(())
}

/// A test set's labels, and the predictions of the runs that were scored on it.
struct TestSet {
    labels: Vec<usize>,
    runs: Vec<RunKey>,
    predictions: Vec<Tensor>,
}

fn read_predictions(path: &Path) -> Result<HashMap<RunKey, Predictions>> {
    let fix = "restore the file from the repository";
    let mut file = TensorFile::read(path)?;
    let text = file.metadata.get("runs").cloned().unwrap_or_default();
    let keys: Vec<RunKey> = serde_json::from_str(&text).map_err(Error::in_file(path, fix))?;
    let labels = tensor_to_classes(&file.take(path, "labels")?)?;
    let table = file.take(path, "predictions")?;
    if table.size() != [keys.len() as i64, labels.len() as i64] {
        let problem = format!("{} runs and {} labels do not fit", keys.len(), labels.len());
        return Err(Error::file(path, problem, fix));
    }
    let mut predictions = HashMap::new();
    for (row, key) in keys.into_iter().enumerate() {
        let classes = tensor_to_classes(&table.get(row as i64))?;
        predictions.insert(
            key,
            Predictions {
                classes,
                labels: labels.clone(),
            },
        );
    }
    Ok(predictions)
}

fn classes_to_tensor(classes: &[usize]) -> Tensor {
    let bytes: Vec<u8> = classes.iter().map(|&class| class as u8).collect();
    Tensor::from_slice(&bytes)
}

fn tensor_to_classes(tensor: &Tensor) -> Result<Vec<usize>> {
    let bytes = Vec::<u8>::try_from(tensor.contiguous())?;
    Ok(bytes.into_iter().map(usize::from).collect())
}
