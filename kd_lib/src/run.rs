//! A run directory: what one training run leaves behind, and how it is read again. Nothing is trained here.
//!
//! | file | what |
//! |---|---|
//! | `report.json` | scores, recipe, environment |
//! | `curve.csv` | loss and learning rate by step, dev figures where dev was looked at |
//! | `curve.tfevents` | the same for TensorBoard |
//! | `model.safetensors`, `model.json`, `labels.json` and the encoder's files | the best model, ready to leave home |
//! | `dev.safetensors`, `test.safetensors` | logits `[example, class]` and labels, in the corpus's order |
//! | `taught_by.json` | of a distilled one: its teachers' weights, by the hash of their bytes |
//! | `b3sums` | hashes of all these, written last: where it stands, the run is finished; checked at each opening, but for weights that are away |
//! | `state-STEP-HASH.safetensors` | while it trains: where to go on, the last two |

use crate::data::Split;
use crate::device::Environment;
use crate::files::{self, TensorFile};
use crate::metrics::{Scores, argmax};
use crate::recipe::Recipe;
use crate::strategies::Precision;
use crate::{Error, Result};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use tch::{Kind, Tensor};

const REPORT: &str = "report.json";
/// Says of a run whose weights taught it.
pub(crate) const TAUGHT_BY: &str = "taught_by.json";
/// Version of a finished run's files; another one is not read.
pub(crate) const FORMAT: u32 = 1;

/// One line of the training curve.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Updates made.
    pub step: usize,
    /// Training examples seen.
    pub examples: usize,
    /// Learning rate of the last update.
    pub learning_rate: f64,
    /// Mean loss since the point before.
    pub loss: f64,
    /// Its hard part, unweighted.
    pub hard: f64,
    /// Its soft part, unweighted.
    pub soft: f64,
    /// Dev accuracy, where dev was looked at.
    pub dev_accuracy: Option<f64>,
    /// Dev macro-F1, where dev was looked at.
    pub dev_macro_f1: Option<f64>,
    /// Micro-batches of an update; the most since the point before.
    #[serde(default)]
    pub micro_batches: usize,
    /// In which numbers the products were seen to be computed.
    pub products: Option<Precision>,
    /// Loss under the attack's last perturbation.
    pub adversarial_loss: Option<f64>,
    /// The perturbation's L2 norm as the first product saw it, after rounding.
    pub perturbation_norm: Option<f64>,
    /// Cosine of that to the perturbation that was meant.
    pub perturbation_cosine: Option<f64>,
    /// Loss scale, under fp16.
    pub loss_scale: Option<f64>,
    /// Updates left out so far because a gradient overflowed, under fp16.
    pub skipped: Option<usize>,
}

/// What a finished run says of itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Version of the run's files.
    pub format: u32,
    /// The run's folder name.
    pub id: String,
    /// What was asked for.
    pub recipe: Recipe,
    /// Name of the corpus.
    pub corpus: String,
    /// Fingerprint of its files.
    pub corpus_fingerprint: String,
    /// Examples trained on, after leaks were dropped.
    pub train_examples: usize,
    /// Texts of the transfer set trained on beside them.
    #[serde(default)]
    pub transfer_examples: usize,
    /// The teacher's run, where there was one; several joined by `+`.
    pub teacher: Option<String>,
    /// Number of trained scalars.
    pub parameters: usize,
    /// Updates made.
    pub steps: usize,
    /// The update whose weights were kept: the best macro-F1 on dev.
    pub best_step: usize,
    /// Precision of the products.
    pub precision: Precision,
    /// What it was computed on.
    pub environment: Environment,
    /// The project's commit, where it is known.
    pub commit: Option<String>,
    /// Seconds of training and evaluation, resumed parts included.
    pub seconds: f64,
    /// Scores on dev.
    pub dev: Scores,
    /// Scores on test; of no examples, and absent from the file, where the recipe left test alone.
    #[serde(default, skip_serializing_if = "Scores::is_empty")]
    pub test: Scores,
}

/// A finished run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its directory.
    pub path: PathBuf,
    /// Its report.
    pub report: Report,
    /// Class names, by index.
    pub labels: Vec<String>,
}

impl Run {
    /// Opens a finished run.
    pub fn open(path: impl AsRef<Path>) -> Result<Run> {
        let path = path.as_ref().to_path_buf();
        if !files::is_sealed(&path) {
            let problem = if path.is_dir() { "not a finished run (no b3sums)" } else { "no such run" };
            let fix = "`kd list` names the finished ones; start a recipe again to finish its run";
            return Err(Error::file(&path, problem, fix));
        }
        files::check_seal(&path, REPORT)?;
        let report: serde_json::Value = files::read_json(&path.join(REPORT))?;
        if report["format"] != FORMAT {
            let problem = format!("a report of format {}, this program reads {FORMAT}", report["format"]);
            return Err(Error::file(&path, problem, "read it with the program that wrote it"));
        }
        let report = serde_json::from_value(report).map_err(Error::said(&path.join(REPORT), "train it again"))?;
        let labels = files::read_json(&path.join("labels.json"))?;
        Ok(Run { path, report, labels })
    }

    /// Writes a run's report and, last of all, the list that says that it is finished.
    pub(crate) fn write_report(folder: &Path, report: &Report) -> Result<()> {
        files::write_json(&folder.join(REPORT), report)?;
        files::seal(folder, REPORT)
    }

    /// The training curve.
    pub fn curve(&self) -> Result<Vec<CurvePoint>> {
        let path = self.path.join("curve.csv");
        let bad = |e: csv::Error| Error::file(&path, e.to_string(), "remove the run and train again");
        csv::Reader::from_path(&path).map_err(bad)?.deserialize().map(|row| row.map_err(bad)).collect()
    }

    /// Logits `[example, class]` and labels of dev or test, in the corpus's order.
    pub fn logits(&self, split: Split) -> Result<(Array2<f32>, Vec<usize>)> {
        let path = self.path.join(logit_file(split));
        let mut file = TensorFile::read(&path)?;
        let labels = Vec::<i64>::try_from(file.take(&path, "labels")?)?;
        Ok((to_array(&file.take(&path, "logits")?)?, labels.into_iter().map(|l| l as usize).collect()))
    }

    /// Predicted class and label of each example of a split, in the corpus's order. A run on the shelf of results
    /// has these alone, of the test split, and no logits.
    pub fn answers(&self, split: Split) -> Result<(Vec<usize>, Vec<usize>)> {
        let path = self.path.join("test.csv");
        if split != Split::Test || !path.exists() {
            let (logits, labels) = self.logits(split)?;
            return Ok((logits.outer_iter().map(argmax).collect(), labels));
        }
        let bad = |e: csv::Error| Error::file(&path, e.to_string(), "fetch the file again");
        let rows = csv::Reader::from_path(&path).map_err(bad)?.into_deserialize();
        rows.map(|row| row.map(|a: Answer| (a.answer, a.label)).map_err(bad)).collect()
    }

    /// Copies what a table needs (no weights and no logits; test answers where test was looked at) to `shelf`; returns the copy.
    pub fn keep(&self, shelf: &Path) -> Result<Run> {
        let folder = shelf.join(&self.report.id);
        if !self.report.test.is_empty() {
            let (answers, labels) = self.answers(Split::Test)?;
            let rows = answers.iter().zip(&labels).map(|(&answer, &label)| Answer { label, answer });
            write_csv(&folder.join("test.csv"), rows)?;
        }
        write_csv(&folder.join("curve.csv"), self.curve()?)?;
        files::write_json(&folder.join("labels.json"), &self.labels)?;
        let taught_by = self.path.join(TAUGHT_BY);
        let said: Option<serde_json::Value> = taught_by.exists().then(|| files::read_json(&taught_by)).transpose()?;
        said.map(|said| files::write_json(&folder.join(TAUGHT_BY), &said)).transpose()?;
        Run::write_report(&folder, &self.report)?;
        Run::open(folder)
    }
}

/// One line of `test.csv` on the shelf of results.
#[derive(Serialize, Deserialize)]
struct Answer {
    label: usize,
    answer: usize,
}

/// `[rows, columns]` in fp32 as an array.
pub fn to_array(tensor: &Tensor) -> Result<Array2<f32>> {
    let (rows, columns) = tensor.size2()?;
    let values = Vec::<f32>::try_from(tensor.to_device(tch::Device::Cpu).to_kind(Kind::Float).contiguous().view(-1))?;
    Array2::from_shape_vec((rows as usize, columns as usize), values).map_err(|e| Error::Figure(e.to_string()))
}

/// Writes logits and labels of a split.
pub(crate) fn write_logits(folder: &Path, split: Split, logits: &Tensor, labels: &[i64]) -> Result<()> {
    let labels = Tensor::from_slice(labels);
    let tensors = [("logits".to_owned(), logits), ("labels".to_owned(), &labels)];
    files::write_tensors(&folder.join(logit_file(split)), tensors)
}

/// Writes rows as CSV.
pub(crate) fn write_csv(path: &Path, rows: impl IntoIterator<Item = impl Serialize>) -> Result<()> {
    let bad = |e: csv::Error| Error::file(path, e.to_string(), "is the disk full?");
    files::write_atomically(path, |temporary| {
        let mut writer = csv::Writer::from_path(temporary).map_err(bad)?;
        for row in rows {
            writer.serialize(row).map_err(bad)?;
        }
        writer.flush().map_err(Error::io(path))
    })
}

fn logit_file(split: Split) -> String {
    format!("{split:?}.safetensors").to_lowercase()
}
