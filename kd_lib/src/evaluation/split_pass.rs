//! A forward pass over a whole split, batch by batch. It may stop between two batches, be saved,
//! and continue later with the same batches, so that a long evaluation is not computed again.

use crate::data::{Batch, TokenizedSplit};
use crate::files::{self, TensorFile};
use crate::models::{Classifier, ForwardPass, ModelOutput};
use crate::precision::Parts;
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Tensor};

/// How the file of an interrupted pass begins. Checksums skip it.
const PREFIX: &str = ".interrupted-";

/// A forward pass of a model over a split, in fixed batches.
#[derive(Debug)]
pub struct SplitPass<'a> {
    /// The model.
    pub model: &'a dyn Classifier,
    /// The texts.
    pub split: &'a TokenizedSplit,
    /// Indices of each batch's examples in the split: see [`crate::data::batch::eval_batches`].
    pub batches: &'a [Vec<usize>],
    /// Mode, dtype and hidden layers.
    pub forward: ForwardPass<'a>,
}

/// Outputs of the batches that are done.
#[derive(Debug, Default)]
struct OutputsSoFar {
    batches: usize,
    logits: Vec<Tensor>,
    /// Of each hidden layer.
    hidden: Vec<Vec<Tensor>>,
}

impl SplitPass<'_> {
    /// Logits `[example, class]` and pooled states `[example, width]`, in the split's order, fp32
    /// on the CPU.
    pub fn outputs(&self) -> ModelOutput {
        let mut outputs = self.empty_outputs();
        while outputs.batches < self.batches.len() {
            self.compute_batch(&mut outputs);
        }
        self.in_split_order(&outputs)
    }

    /// Like [`SplitPass::outputs`], but it continues the interrupted pass of this name in `folder`,
    /// if there is one. `check_stop` is called before the first batch and after each, with the
    /// number of texts that are done. If it returns an error, what is done is saved under the name.
    pub fn resumable_outputs(
        &self,
        folder: &Path,
        name: &str,
        check_stop: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<ModelOutput> {
        let prefix = format!("{PREFIX}{name}-");
        let outputs = self.resume_and_compute(folder, &prefix, check_stop)?;
        remove(folder, &prefix)?;
        Ok(self.in_split_order(&outputs))
    }

    /// Like [`SplitPass::resumable_outputs`], but what was computed stays saved until
    /// [`remove_kept`]: for outputs that are not yet used up when the pass ends.
    pub fn kept_outputs(
        &self,
        folder: &Path,
        name: &str,
        check_stop: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<ModelOutput> {
        let prefix = format!("{PREFIX}{name}-");
        let outputs = self.resume_and_compute(folder, &prefix, check_stop)?;
        save(&outputs, folder, &prefix)?;
        Ok(self.in_split_order(&outputs))
    }

    fn resume_and_compute(
        &self,
        folder: &Path,
        prefix: &str,
        check_stop: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<OutputsSoFar> {
        let mut outputs = self.resume(folder, prefix)?;
        loop {
            if let Err(stopped) = check_stop(self.texts_of(outputs.batches)) {
                save(&outputs, folder, prefix)?;
                return Err(stopped);
            }
            if outputs.batches == self.batches.len() {
                return Ok(outputs);
            }
            self.compute_batch(&mut outputs);
        }
    }

    fn compute_batch(&self, outputs: &mut OutputsSoFar) {
        let _guard = tch::no_grad_guard();
        let device = self.model.params().device();
        let batch = Batch::collate(self.split, &self.batches[outputs.batches], device);
        let embedded = self.model.embed(&batch, self.forward.mode, None);
        let inputs = self.forward.precision.round_inputs(&embedded, Parts::One);
        let output = self.model.forward(&inputs, &batch, &self.forward);
        outputs.logits.push(output.logits.to_device(Device::Cpu));
        for (parts, states) in outputs.hidden.iter_mut().zip(output.hidden) {
            parts.push(states.to_device(Device::Cpu));
        }
        outputs.batches += 1;
    }

    fn empty_outputs(&self) -> OutputsSoFar {
        OutputsSoFar {
            hidden: self
                .forward
                .hidden_layers
                .iter()
                .map(|_| Vec::new())
                .collect(),
            ..OutputsSoFar::default()
        }
    }

    fn texts_of(&self, batches: usize) -> usize {
        self.batches[..batches].iter().map(Vec::len).sum()
    }

    fn in_split_order(&self, outputs: &OutputsSoFar) -> ModelOutput {
        let order: Vec<i64> = self
            .batches
            .iter()
            .flatten()
            .map(|&row| row as i64)
            .collect();
        let order = Tensor::from_slice(&order);
        let reorder = |parts: &Vec<Tensor>| {
            let in_batch_order = Tensor::cat(parts, 0);
            in_batch_order
                .zeros_like()
                .index_copy(0, &order, &in_batch_order)
        };
        ModelOutput {
            logits: reorder(&outputs.logits),
            hidden: outputs.hidden.iter().map(reorder).collect(),
        }
    }

    /// What an interrupted pass saved. A damaged file is ignored, and so is one whose
    /// number of rows fits no number of these batches.
    fn resume(&self, folder: &Path, prefix: &str) -> Result<OutputsSoFar> {
        for path in files::content_addressed(folder, prefix) {
            if !files::matches_its_name(&path) {
                continue;
            }
            let mut file = TensorFile::read(&path)?;
            let batches = file.metadata.get("batches").and_then(|n| n.parse().ok());
            let batches = batches.filter(|&n: &usize| n <= self.batches.len());
            let logits = file.take(&path, "logits")?;
            let rows = logits.size()[0] as usize;
            let Some(batches) = batches.filter(|&n| self.texts_of(n) == rows) else {
                continue;
            };
            let mut outputs = self.empty_outputs();
            outputs.batches = batches;
            outputs.logits.push(logits);
            for (number, parts) in outputs.hidden.iter_mut().enumerate() {
                parts.push(file.take(&path, &format!("hidden.{number}"))?);
            }
            return Ok(outputs);
        }
        Ok(self.empty_outputs())
    }
}

/// Saves the outputs so far and removes what was saved before them.
fn save(outputs: &OutputsSoFar, folder: &Path, prefix: &str) -> Result<()> {
    if outputs.batches == 0 {
        return Ok(());
    }
    let mut tensors = vec![("logits".to_owned(), Tensor::cat(&outputs.logits, 0))];
    for (number, parts) in outputs.hidden.iter().enumerate() {
        tensors.push((format!("hidden.{number}"), Tensor::cat(parts, 0)));
    }
    let tensors = tensors.iter().map(|(name, tensor)| (name.clone(), tensor));
    let metadata = HashMap::from([("batches".to_owned(), outputs.batches.to_string())]);
    let before = files::content_addressed(folder, prefix);
    // The name's own hash comes last, so a name without one ends in the prefix's hyphen.
    let path = folder.join(format!("{}.safetensors", prefix.trim_end_matches('-')));
    let saved = files::write_content_addressed(&path, tensors, metadata)?;
    for stale in before.into_iter().filter(|path| *path != saved) {
        std::fs::remove_file(&stale).map_err(Error::io(&stale))?;
    }
    Ok(())
}

/// Removes what interrupted passes saved whose names begin with `prefix`.
fn remove(folder: &Path, prefix: &str) -> Result<()> {
    for path in files::content_addressed(folder, prefix) {
        std::fs::remove_file(&path).map_err(Error::io(&path))?;
    }
    Ok(())
}

/// Removes the kept outputs whose name begins with `name`.
pub fn remove_kept(folder: &Path, name: &str) -> Result<()> {
    remove(folder, &format!("{PREFIX}{name}-"))
}

/// Removes what all interrupted passes saved in a folder.
pub fn remove_interrupted(folder: &Path) -> Result<()> {
    remove(folder, PREFIX)
}
