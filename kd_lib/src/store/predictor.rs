//! Classifies texts with a finished run's best model. Nothing is trained or written here.

use super::recipe::Recipe;
use super::run::Run;
use super::saved_model::{LoadedModel, SavedModel};
use crate::data::batch::eval_batches;
use crate::data::lines::normalize;
use crate::data::{TextInput, TokenizedSplit, Tokenizer};
use crate::evaluation::{SplitPass, argmax, first_row_not_finite, probabilities, to_array};
use crate::models::{ForwardPass, ModelOutput, hidden_width};
use crate::precision::Precision;
use crate::{Error, Result, device};
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use tch::{Device, Kind, Tensor};

/// A model with all that it needs to classify a text.
#[derive(Debug)]
pub struct Predictor {
    model: LoadedModel,
    tokenizer: Tokenizer,
    labels: Vec<String>,
    precision: Precision,
    recipe: Recipe,
    reads_pairs: bool,
    folder: PathBuf,
}

/// The prediction of one text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The text as it was given.
    pub text: String,
    /// The second text of a pair.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<String>,
    /// Whether the text was empty. The model then reads its prefix alone, or one unknown
    /// character.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty: bool,
    /// Whether the text was longer than the model's longest sequence, so that a part of it was not
    /// read.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// The most probable class.
    pub label: String,
    /// Its probability.
    pub probability: f64,
    /// Probability of every class.
    pub probabilities: BTreeMap<String, f64>,
}

impl Predictor {
    /// Loads a finished run's best model.
    pub fn open(run: &Run) -> Result<Predictor> {
        let folder = run.folder()?;
        let recipe = run.report.recipe.clone();
        // A run that was trained on a GPU predicts without one too. Where the native precision is
        // fp32 it predicts in fp32, elsewhere in the precision of its training.
        let device = device::choose(if recipe.device == "cpu" {
            "cpu"
        } else {
            "auto"
        })?;
        let precision = match Precision::native(device) {
            Precision::Fp32 => Precision::Fp32,
            _ => run.report.precision,
        };
        let model = SavedModel::load(folder, &recipe.model, device)?;
        if model.classes != run.labels.len() as i64 {
            let problem = format!(
                "{} class names for {} classes",
                run.labels.len(),
                model.classes
            );
            let fix = "restore labels.json of this run, or remove the run";
            return Err(Error::file(folder, problem, fix));
        }
        model.network.params().round(precision);
        let tokenizer = Tokenizer::read(folder, &recipe.data)?;
        Ok(Predictor {
            model,
            tokenizer,
            labels: run.labels.clone(),
            precision,
            recipe,
            reads_pairs: run.report.text_pairs,
            folder: folder.to_path_buf(),
        })
    }

    /// Whether the model was trained on text pairs.
    pub fn reads_pairs(&self) -> bool {
        self.reads_pairs
    }

    /// Logits `[text, class]` in the order of the texts or text pairs, fp32 on the CPU. Texts are
    /// normalized as those of a corpus are.
    ///
    /// # Errors
    /// If the model reads pairs and a text is single, or the other way round.
    pub fn logits<'a, T: Into<TextInput<'a>> + Copy>(&self, texts: &[T]) -> Result<Tensor> {
        Ok(self.outputs(texts, &[])?.logits)
    }

    /// Logits, and the pooled states `[text, width]` of these layers.
    pub fn outputs<'a, T: Into<TextInput<'a>> + Copy>(
        &self,
        texts: &[T],
        hidden_layers: &[usize],
    ) -> Result<ModelOutput> {
        self.compute(texts, hidden_layers, |pass| Ok(pass.outputs()))
    }

    /// Outputs of these texts, from a function that computes the pass over them.
    pub(crate) fn compute<'a, T: Into<TextInput<'a>> + Copy>(
        &self,
        texts: &[T],
        hidden_layers: &[usize],
        compute_pass: impl FnOnce(&SplitPass) -> Result<ModelOutput>,
    ) -> Result<ModelOutput> {
        let mut widths = Vec::new();
        for &layer in hidden_layers {
            let whose = self.folder.display().to_string();
            widths.push(hidden_width(self.model.network.as_ref(), layer, &whose)?);
        }
        if texts.is_empty() {
            let none = |width: i64| Tensor::zeros([0, width], (Kind::Float, Device::Cpu));
            return Ok(ModelOutput {
                logits: none(self.labels.len() as i64),
                hidden: widths.into_iter().map(none).collect(),
            });
        }
        let tokenized = self.tokenize(texts)?;
        let output = self.outputs_of(&tokenized, hidden_layers, compute_pass)?;
        self.refuse_not_finite(texts, &output.logits)?;
        Ok(output)
    }

    /// The texts as tokens, normalized as those of training are.
    fn tokenize<'a, T: Into<TextInput<'a>> + Copy>(&self, texts: &[T]) -> Result<TokenizedSplit> {
        let mut normalized = Vec::new();
        for &text in texts {
            let input: TextInput = text.into();
            if input.text_pair.is_some() != self.reads_pairs {
                return Err(self.other_input(input));
            }
            normalized.push((normalize(input.text), input.text_pair.map(normalize)));
        }
        let inputs = normalized.iter().map(|(text, text_pair)| TextInput {
            text,
            text_pair: text_pair.as_deref(),
        });
        self.tokenizer.encode(&Vec::from_iter(inputs))
    }

    /// Outputs of tokenized texts; the logits are divided by the run's temperature, if it has one.
    fn outputs_of(
        &self,
        tokenized: &TokenizedSplit,
        hidden_layers: &[usize],
        compute_pass: impl FnOnce(&SplitPass) -> Result<ModelOutput>,
    ) -> Result<ModelOutput> {
        let train = &self.recipe.train;
        let device = self.model.network.params().device();
        let mut output = compute_pass(&SplitPass {
            model: self.model.network.as_ref(),
            split: tokenized,
            batches: &eval_batches(tokenized, train.batch_size, train.group_by_length, device),
            forward: ForwardPass {
                hidden_layers,
                ..ForwardPass::evaluation(self.precision)
            },
        })?;
        if let Some(temperature) = self.model.temperature {
            output.logits /= temperature;
        }
        Ok(output)
    }

    fn refuse_not_finite<'a, T: Into<TextInput<'a>> + Copy>(
        &self,
        texts: &[T],
        logits: &Tensor,
    ) -> Result<()> {
        let Some(row) = first_row_not_finite(logits)? else {
            return Ok(());
        };
        let input: TextInput = texts[row].into();
        let problem = format!("the logits of {:?} are not finite", input.text);
        let fix = "train the run again with a lower learning rate or in fp32";
        Err(Error::file(&self.folder, problem, fix))
    }

    /// Predictions in the order of the texts or text pairs.
    pub fn predict<'a, T: Into<TextInput<'a>> + Copy>(
        &self,
        texts: &[T],
    ) -> Result<Vec<Prediction>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let tokenized = self.tokenize(texts)?;
        let output = self.outputs_of(&tokenized, &[], |pass| Ok(pass.outputs()))?;
        self.refuse_not_finite(texts, &output.logits)?;
        let truncated: HashSet<usize> = tokenized.truncated.iter().copied().collect();
        let logits = to_array(&output.logits)?;
        let probabilities = probabilities(logits.view());
        let mut predictions = Vec::new();
        for (row, &text) in texts.iter().enumerate() {
            let input: TextInput = text.into();
            let best = argmax(logits.row(row));
            let text_probabilities = probabilities.row(row);
            predictions.push(Prediction {
                text: input.text.to_owned(),
                text_pair: input.text_pair.map(str::to_owned),
                truncated: truncated.contains(&row),
                empty: input.texts().all(|text| normalize(text).is_empty()),
                label: self.labels[best].clone(),
                probability: text_probabilities[best],
                probabilities: self
                    .labels
                    .iter()
                    .cloned()
                    .zip(text_probabilities.iter().copied())
                    .collect(),
            });
        }
        Ok(predictions)
    }

    fn other_input(&self, input: TextInput) -> Error {
        let (problem, fix) = if self.reads_pairs {
            (
                "is one text, and this model reads pairs",
                "add the text_pair",
            )
        } else {
            (
                "is a pair, and this model reads one text",
                "leave the text_pair out",
            )
        };
        Error::Input {
            text: input.text.to_owned(),
            problem: problem.to_owned(),
            fix: fix.to_owned(),
        }
    }
}
