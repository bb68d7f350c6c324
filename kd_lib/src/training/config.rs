//! The settings of `[train]` in a recipe, and their validation.

use super::class_weights::ClassWeights;
use crate::data::config::check_count;
use crate::evaluation::TemperatureScaling;
use crate::objectives::Objective;
use crate::precision::PrecisionSetting;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;

/// How long a run trains, and in which batches.
#[serde_inline_default]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Passes over the training texts, the transfer set included. May be a fraction.
    pub epochs: f64,
    /// Examples of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of one update.
    #[serde_inline_default(1)]
    pub gradient_accumulation_steps: usize,
    /// Dtype of matrix products.
    #[serde(default)]
    pub precision: PrecisionSetting,
    /// Evaluate on dev each time this many more examples have been processed.
    pub eval_every_samples: usize,
    /// Stops after this many evaluations in a row without a higher macro-F1 on dev. If absent, the
    /// run trains all its epochs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping_patience: Option<usize>,
    /// Anneals the objective's temperature T linearly towards this value: update k of N, from 0,
    /// has T + (final − T) · k/N.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub final_temperature: Option<f64>,
    /// Weights of the classes in the hard loss. If absent, all count alike.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeights>,
    /// Divides the trained model's logits by a temperature: `"dev"` fits it on dev, a number is a
    /// known one. If absent, the logits are not divided. A student of this model learns from the
    /// divided logits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature_scaling: Option<TemperatureScaling>,
    /// Put texts of similar length into one batch. `false` takes them in random order in training
    /// and in their own order in evaluation.
    #[serde_inline_default(true)]
    #[serde(skip_serializing_if = "bool::clone")]
    pub group_by_length: bool,
}

impl TrainConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// If a value is out of range or contradicts another one.
    pub fn validate(&self, objective: &dyn Objective) -> Result<()> {
        check_count("train.batch_size", self.batch_size)?;
        let steps = self.gradient_accumulation_steps;
        check_count("train.gradient_accumulation_steps", steps)?;
        check_count("train.eval_every_samples", self.eval_every_samples)?;
        if let Some(patience) = self.early_stopping_patience {
            check_count("train.early_stopping_patience", patience)?;
        }
        if let Some(scaling) = self.temperature_scaling {
            scaling.validate()?;
        }
        if !(self.epochs > 0.0 && self.epochs <= 1e9) {
            let fix = "choose a number above 0, a billion at most";
            return Err(Error::recipe("train.epochs", self.epochs.to_string(), fix));
        }
        if let Some(last) = self.final_temperature
            && !(last > 0.0 && last.is_finite() && can_anneal(objective, last))
        {
            let fix = "choose a number above 0, with an objective that has a temperature";
            return Err(Error::recipe(
                "train.final_temperature",
                last.to_string(),
                fix,
            ));
        }
        Ok(())
    }
}

/// Whether the temperature of an objective can be changed to this one while it trains.
fn can_anneal(objective: &dyn Objective, last: f64) -> bool {
    objective.temperature().is_some() && objective.with_temperature(last).is_some()
}
