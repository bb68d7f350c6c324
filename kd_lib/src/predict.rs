//! A finished run, answering: texts in, labels and probabilities out. Nothing is trained or written here.

use crate::data::format::one_line;
use crate::data::{Encoded, Encoder};
use crate::metrics::{argmax, probabilities};
use crate::models::{Blueprint, Classifier};
use crate::recipe::Recipe;
use crate::run::{Run, to_array};
use crate::strategies::Precision;
use crate::train::evaluate;
use crate::{Result, device, files, plan};
use serde::Serialize;
use std::collections::BTreeMap;
use tch::Tensor;

/// A model with all that it needs to read a text.
#[derive(Debug)]
pub struct Predictor {
    model: Box<dyn Classifier>,
    encoder: Encoder,
    labels: Vec<String>,
    precision: Precision,
    recipe: Recipe,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The text as it was given.
    pub text: String,
    /// Whether there was nothing to read: the answer is then that of a prompt alone or, by a student, of one unknown character.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty: bool,
    /// The likeliest class.
    pub label: String,
    /// Its probability.
    pub probability: f64,
    /// Probability of every class.
    pub probabilities: BTreeMap<String, f64>,
}

impl Predictor {
    /// Loads a finished run's best model.
    pub fn open(run: &Run) -> Result<Predictor> {
        // A run that was trained on a GPU answers without one too, in the numbers that are native here.
        let device = device::choose(if run.report.recipe.device == "cpu" { "cpu" } else { "auto" })?;
        let native = device::native_precision(device);
        let precision = if native == Precision::Fp32 { native } else { run.report.precision };
        let blueprint: Blueprint = files::read_json(&run.path.join("model.json"))?;
        let model = blueprint.build(device);
        model.params().read(&run.path.join("model.safetensors"))?;
        model.params().round(precision);
        let recipe = run.report.recipe.clone();
        let encoder = Encoder::read(&run.path, recipe.data.max_tokens, recipe.data.cut)?;
        Ok(Predictor { model, encoder, labels: run.labels.clone(), precision, recipe })
    }

    /// Logits `[text, class]`, in order, fp32 on the CPU; texts are trimmed and their tabs blanked, as a corpus's are.
    pub fn logits(&self, texts: &[&str]) -> Result<Tensor> {
        let texts: Vec<String> = texts.iter().map(|text| one_line(text)).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let encoded = Encoded { ids: self.encoder.encode(&texts)?, labels: Vec::new(), pad: self.encoder.pad() };
        Ok(evaluate(self.model.as_ref(), &encoded, &plan::evaluation(&self.recipe, &encoded), self.precision))
    }

    /// Answers, in order; of an empty text as [`Prediction::empty`] says.
    pub fn predict(&self, texts: &[&str]) -> Result<Vec<Prediction>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let logits = to_array(&self.logits(texts)?)?;
        let shares = probabilities(logits.view());
        let answer = |((text, row), logits): ((&&str, ndarray::ArrayView1<f64>), ndarray::ArrayView1<f32>)| {
            let best = argmax(logits);
            Prediction {
                text: (*text).to_owned(),
                empty: one_line(text).is_empty(),
                label: self.labels[best].clone(),
                probability: row[best],
                probabilities: self.labels.iter().cloned().zip(row.iter().copied()).collect(),
            }
        };
        Ok(texts.iter().zip(shares.outer_iter()).zip(logits.outer_iter()).map(answer).collect())
    }
}
