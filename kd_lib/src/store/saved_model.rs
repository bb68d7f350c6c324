//! The saved model in a run's folder: `model.json` and `model.safetensors`.
//! [`super::model_factory`] builds new models.

use super::run_files;
use crate::models::{Classifier, ModelConfig, ModelSizes};
use crate::{Error, Result, files};
use serde::{Deserialize, Serialize};
use std::path::Path;
use tch::Device;

/// What a model can be built from again: `model.json` in a run's folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedModel {
    pub model: ModelConfig,
    pub sizes: ModelSizes,
    /// Divides the logits of the network (temperature scaling, Guo et al. 2017).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
}

/// A saved model, built.
#[derive(Debug)]
pub(crate) struct LoadedModel {
    pub network: Box<dyn Classifier>,
    /// Number of classes.
    pub classes: i64,
    /// Divides the logits of the network.
    pub temperature: Option<f64>,
}

impl SavedModel {
    /// Builds the model of a run's folder with its weights. `config` is the run's model with its
    /// code, which `model.json` does not have of a custom model.
    pub fn load(folder: &Path, config: &ModelConfig, device: Device) -> Result<LoadedModel> {
        if !folder.join(run_files::WEIGHTS).exists() {
            let fix = "restore model.safetensors, or remove the folder and train its recipe again";
            return Err(Error::file(
                folder,
                "the weights of this run were removed",
                fix,
            ));
        }
        let saved: SavedModel = files::read_json(&folder.join("model.json"))?;
        let config = if saved.model == *config {
            config
        } else {
            &saved.model
        };
        let network = config.architecture()?.build(&saved.sizes, device)?;
        network.params().read(&folder.join(run_files::WEIGHTS))?;
        Ok(LoadedModel {
            network,
            classes: saved.sizes.num_labels,
            temperature: saved.temperature,
        })
    }
}
