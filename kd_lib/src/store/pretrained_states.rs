//! What a pretrained checkpoint computes from texts before any training.

use super::model_factory::{self, StatePass};
use super::recipe::Recipe;
use super::run_store::RunStore;
use crate::data::{Corpus, TextInput};
use crate::evaluation::remove_kept;
use crate::models::last_layer;
use crate::training::{Activity, Progress, ProgressCallback};
use crate::{Error, Result};
use std::path::Path;
use tch::Tensor;

/// Prefix of the file names of kept states.
const PRETRAINED: &str = "pretrained";

/// Removes the states that [`RunStore::pretrained_states`] keeps in a folder.
pub(crate) fn forget_pretrained_states(folder: &Path) -> Result<()> {
    remove_kept(folder, PRETRAINED)
}

impl RunStore {
    /// Pooled states `[text, width]` of the last layer of a recipe's checkpoint before any
    /// training. `folder` keeps them until [`forget_pretrained_states`], also in parts after an
    /// interruption.
    ///
    /// # Errors
    /// If the recipe's model has no checkpoint.
    pub(crate) fn pretrained_states(
        &self,
        recipe: &Recipe,
        corpus: &Corpus,
        texts: &[TextInput],
        folder: &Path,
        callback: ProgressCallback,
    ) -> Result<Tensor> {
        Progress::begin(&recipe.name, Activity::Preparing).send(callback)?;
        let planned = self.plan(recipe, corpus)?;
        if planned.checkpoint.is_none() {
            let fix = "name a recipe of a BERT";
            return Err(Error::recipe("model", "no pretrained checkpoint", fix));
        }
        let tokenizer = model_factory::build_tokenizer(&planned)?;
        let built = model_factory::build_model(&planned, &tokenizer, &[])?;
        let split = tokenizer.encode(texts)?;
        let pass = StatePass {
            planned: &planned,
            model: built.model.as_ref(),
            split: &split,
            layer: last_layer(built.model.as_ref()),
        };
        pass.states(folder, &format!("{PRETRAINED}-{}", planned.id), callback)
    }
}
