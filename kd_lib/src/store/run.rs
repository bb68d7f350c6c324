//! A finished run, and how its files are read. Nothing is trained here.
//!
//! | file in a run's folder | content |
//! |---|---|
//! | `report.json` | scores, recipe, environment |
//! | `curve.csv` | loss and learning rate by step, dev scores after each evaluation |
//! | `curve.tfevents` | the same for TensorBoard |
//! | `model.safetensors`, `model.json`, `labels.json` and the tokenizer's files | the best model |
//! | `dev.safetensors`, `test.safetensors` | logits `[example, class]` and labels, in the corpus's order |
//! | `taught_by.json` | of a distilled run: its teachers' weights, by the hash of their bytes |
//! | `b3sums` | checksums of all these, written last: the run is finished if it exists |
//! | `state-STEP-NUMBER-CHECKSUM.safetensors` | while training: where to continue, the last two |

use super::recipe::Recipe;
use super::run_files::{self, REPORT, TAUGHT_BY};
use crate::data::Split;
use crate::device::Environment;
use crate::evaluation::{Scores, argmax, to_array};
use crate::files::{self, TensorFile};
use crate::models::ModelConfig;
use crate::precision::Precision;
use crate::threads::ThreadChange;
use crate::training::CurvePoint;
use crate::{Error, Result};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::Tensor;

/// Version of a finished run's files.
pub const FORMAT: u32 = 2;

/// The hash of each teacher's weights, by the teacher's id.
pub type TaughtBy = BTreeMap<String, String>;

/// What a finished run reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Version of the run's files.
    pub format: u32,
    /// The run's folder name.
    pub id: String,
    /// The id that version 0.1 gave to this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_id: Option<String>,
    /// The recipe as read, with its profile and overrides.
    pub recipe: Recipe,
    /// Name of the corpus.
    pub corpus: String,
    /// Hash of its files.
    pub corpus_fingerprint: String,
    /// Whether the examples are text pairs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub text_pairs: bool,
    /// Labelled examples that were trained on, leaks dropped.
    pub train_examples: usize,
    /// Texts of the transfer set that were trained on.
    #[serde(default)]
    pub transfer_examples: usize,
    /// Ids of the teachers' runs.
    #[serde(default)]
    pub teachers: Vec<String>,
    /// Warnings about dropped or unused texts, and about classes without training texts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// Number of trained values.
    pub parameters: usize,
    /// Updates made.
    pub steps: usize,
    /// The update whose weights were kept: the best macro-F1 on dev.
    pub best_step: usize,
    /// Dtype of matrix products.
    pub precision: Precision,
    /// What the run was computed on.
    pub environment: Environment,
    /// The numbers of threads that the run had, by update, if there were several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub thread_changes: Vec<ThreadChange>,
    /// The project's commit, if it is known.
    pub commit: Option<String>,
    /// Seconds of training and evaluation, resumed parts included.
    pub seconds: f64,
    /// The temperature that divides the network's logits, if the recipe asks for temperature
    /// scaling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Scores on dev.
    pub dev: Scores,
    /// Scores on test; of no examples, and absent from the file, if the recipe skips test.
    #[serde(default, skip_serializing_if = "Scores::is_empty")]
    pub test: Scores,
}

/// Logits and labels of a split, in the corpus's order.
#[derive(Debug, Clone, PartialEq)]
pub struct Logits {
    /// `[example, class]`.
    pub logits: Array2<f32>,
    /// Class index of each example.
    pub labels: Vec<usize>,
}

/// Predicted classes and labels of a split, in the corpus's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Predictions {
    /// Predicted class index of each example.
    pub classes: Vec<usize>,
    /// Class index of each example.
    pub labels: Vec<usize>,
}

impl Predictions {
    /// Whether each prediction is correct.
    pub fn correct(&self) -> Vec<bool> {
        let pairs = self.classes.iter().zip(&self.labels);
        pairs.map(|(class, label)| class == label).collect()
    }
}

/// A finished run: a folder, whose weights may have been removed, or a stored result without
/// weights.
#[derive(Debug, Clone)]
pub struct Run {
    /// Its report.
    pub report: RunReport,
    /// Class names, by index.
    pub labels: Vec<String>,
    source: Source,
}

/// A run among the stored results.
#[derive(Debug, Clone)]
pub(crate) struct StoredRun {
    /// The file that holds it.
    pub file: PathBuf,
    /// The set that it belongs to.
    pub set: String,
    pub report: RunReport,
    pub labels: Vec<String>,
    pub taught_by: TaughtBy,
    pub curve: Vec<CurvePoint>,
    /// Predicted classes of test, unless the recipe skips test.
    pub test: Option<Predictions>,
    /// Test logits of a run that was added later.
    pub test_logits: Option<Array2<f32>>,
}

#[derive(Debug, Clone)]
enum Source {
    Folder(PathBuf),
    Stored(Arc<StoredRun>),
}

impl Run {
    /// Opens a finished run's folder.
    pub fn open(path: impl AsRef<Path>) -> Result<Run> {
        let folder = path.as_ref().to_path_buf();
        if !run_files::has_checksums(&folder) {
            let problem = if folder.is_dir() {
                "not a finished run (no b3sums)"
            } else {
                "no such run"
            };
            let fix = "`kd runs` lists the finished ones; train the recipe again to finish its run";
            return Err(Error::file(&folder, problem, fix));
        }
        run_files::verify_checksums(&folder)?;
        let path = folder.join(REPORT);
        let report: serde_json::Value = files::read_json(&path)?;
        if report["format"] == 1 {
            let fix = format!("run `kd convert {}`", folder.display());
            return Err(Error::file(&folder, "a run of version 0.1", fix));
        }
        if report["format"] != FORMAT {
            let problem = format!("format {}, this program reads {FORMAT}", report["format"]);
            return Err(Error::file(
                &folder,
                problem,
                "open it with the program that wrote it",
            ));
        }
        let report = serde_json::from_value(report)
            .map_err(Error::in_file(&path, "train the recipe again"))?;
        let labels = files::read_json(&folder.join("labels.json"))?;
        Ok(Run {
            report,
            labels,
            source: Source::Folder(folder),
        })
    }

    /// The same run with the code of a custom model, if the run was trained with this model. A
    /// report stores a custom model's name, version and settings, which alone decide whether two
    /// are equal.
    pub(crate) fn with_custom_code(mut self, model: &ModelConfig) -> Run {
        if self.report.recipe.model == *model {
            self.report.recipe.model = model.clone();
        }
        self
    }

    /// A stored result as a run.
    pub(crate) fn stored(stored: Arc<StoredRun>) -> Run {
        Run {
            report: stored.report.clone(),
            labels: stored.labels.clone(),
            source: Source::Stored(stored),
        }
    }

    /// Its folder.
    ///
    /// # Errors
    /// If this is a stored result, which has no weights.
    pub fn folder(&self) -> Result<&Path> {
        match &self.source {
            Source::Folder(folder) => Ok(folder),
            Source::Stored(stored) => {
                let problem = format!("{} is a stored result without weights", self.report.id);
                Err(Error::file(&stored.file, problem, "train its recipe"))
            }
        }
    }

    /// Whether this is a stored result.
    pub fn is_stored(&self) -> bool {
        matches!(self.source, Source::Stored(_))
    }

    /// Writes a run's report and, last of all, the checksums that mark it as finished.
    pub(crate) fn write_report(folder: &Path, report: &RunReport) -> Result<()> {
        files::write_json(&folder.join(REPORT), report)?;
        run_files::write_checksums(folder)
    }

    /// The training curve.
    pub fn curve(&self) -> Result<Vec<CurvePoint>> {
        match &self.source {
            Source::Stored(stored) => Ok(stored.curve.clone()),
            Source::Folder(folder) => {
                let path = folder.join("curve.csv");
                let bad = |e: csv::Error| {
                    Error::file(&path, e.to_string(), "remove the run and train again")
                };
                let rows = csv::Reader::from_path(&path)
                    .map_err(bad)?
                    .into_deserialize();
                rows.map(|row| row.map_err(bad)).collect()
            }
        }
    }

    /// Logits and labels of dev or test.
    ///
    /// # Errors
    /// If this is a stored result that has predicted classes alone.
    pub fn logits(&self, split: Split) -> Result<Logits> {
        if let Source::Stored(stored) = &self.source
            && let (Some(logits), Some(test), Split::Test) =
                (&stored.test_logits, &stored.test, split)
        {
            return Ok(Logits {
                logits: logits.clone(),
                labels: test.labels.clone(),
            });
        }
        let path = self.folder()?.join(logit_file(split));
        let mut file = TensorFile::read(&path)?;
        let labels = Vec::<i64>::try_from(file.take(&path, "labels")?)?;
        Ok(Logits {
            logits: to_array(&file.take(&path, "logits")?)?,
            labels: labels.into_iter().map(|label| label as usize).collect(),
        })
    }

    /// Predicted classes and labels of dev or test. A stored result has those of test alone.
    pub fn predictions(&self, split: Split) -> Result<Predictions> {
        if let Source::Stored(stored) = &self.source
            && let (Some(test), Split::Test) = (&stored.test, split)
        {
            return Ok(test.clone());
        }
        let Logits { logits, labels } = self.logits(split)?;
        let classes = logits.outer_iter().map(argmax).collect();
        Ok(Predictions { classes, labels })
    }

    /// The weights that taught this run; empty if it had no teacher or does not state them.
    pub fn taught_by(&self) -> Result<TaughtBy> {
        match &self.source {
            Source::Stored(stored) => Ok(stored.taught_by.clone()),
            Source::Folder(folder) => {
                let path = folder.join(TAUGHT_BY);
                if path.exists() {
                    files::read_json(&path)
                } else {
                    Ok(TaughtBy::new())
                }
            }
        }
    }
}

/// Writes logits and labels of a split.
pub(crate) fn write_logits(
    folder: &Path,
    split: Split,
    logits: &Tensor,
    labels: &[i64],
) -> Result<()> {
    let labels = Tensor::from_slice(labels);
    let tensors = [
        ("logits".to_owned(), logits),
        ("labels".to_owned(), &labels),
    ];
    files::write_tensors(&folder.join(logit_file(split)), tensors)
}

/// Writes rows as CSV.
pub(crate) fn write_csv(path: &Path, rows: impl IntoIterator<Item = impl Serialize>) -> Result<()> {
    let bad = |e: csv::Error| Error::file(path, e.to_string(), "check that the disk is not full");
    files::write_atomically(path, |temporary| {
        let mut writer = csv::Writer::from_path(temporary).map_err(bad)?;
        for row in rows {
            writer.serialize(row).map_err(bad)?;
        }
        writer.flush().map_err(Error::io(path))
    })
}

fn logit_file(split: Split) -> &'static str {
    match split {
        Split::Train => "train.safetensors",
        Split::Dev => "dev.safetensors",
        Split::Test => "test.safetensors",
    }
}
