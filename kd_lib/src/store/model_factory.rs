//! From a planned run to the objects that training needs: the tokenizer, the model with its initial
//! weights, the tokenized data with the teacher's logits.

use super::labelled_texts;
use super::planned_run::PlannedRun;
use super::run::Run;
use super::saved_model::SavedModel;
use super::teacher_logits;
use crate::data::batch::eval_batches;
use crate::data::splits::draw_at_most;
use crate::data::{Example, TextInput, TokenizedSplit, Tokenizer, TransferText};
use crate::evaluation::{SplitPass, remove_kept};
use crate::models::{
    self, Classifier, ForwardPass, InitialWeights, ModelSizes, Params, TokenizerTexts,
};
use crate::objectives::{HiddenWidths, UNLABELLED};
use crate::training::linear_probe::{LabelledStates, MAX_PROBE_TEXTS, PROBE_FOLDS, probe_progress};
use crate::training::progress::TextClock;
use crate::training::{Activity, ProgressCallback, TrainData, Trainer};
use crate::{Error, Result};
use std::path::Path;
use tch::Tensor;

/// Name under which the states for a head's linear probe are kept.
const HEAD: &str = "head";

/// A model, and what it can be built from again.
#[derive(Debug)]
pub(crate) struct BuiltModel {
    pub model: Box<dyn Classifier>,
    pub saved: SavedModel,
}

/// The tokenizer of a planned run's model.
pub(crate) fn build_tokenizer(planned: &PlannedRun) -> Result<Tokenizer> {
    let full_corpus = planned.full_corpus.examples();
    let full_corpus: Vec<TextInput> = full_corpus.map(Example::input).collect();
    let train: Vec<TextInput> = planned.corpus.train.iter().map(Example::input).collect();
    let real = planned.transfer_set.iter().filter(|t| !t.augmented);
    let unlabelled: Vec<TextInput> = real.map(TransferText::input).collect();
    let texts = TokenizerTexts {
        train: &train,
        unlabelled: &unlabelled,
        full_corpus: &full_corpus,
    };
    let architecture = planned.recipe.model.architecture()?;
    architecture.tokenizer(&planned.recipe.data, &texts, planned.checkpoint.as_ref())
}

/// The planned run's model with random weights, which the recipe's seed decides.
pub(crate) fn build_random_model(
    planned: &PlannedRun,
    tokenizer: &Tokenizer,
) -> Result<BuiltModel> {
    let checkpoint = planned.checkpoint.as_ref();
    let checkpoint_vocab_size = checkpoint.map(|checkpoint| checkpoint.config.vocab_size);
    let no_size = || Error::recipe("model", "no vocabulary size", crate::error::BUG);
    let sizes = ModelSizes {
        vocab_size: tokenizer
            .vocab_size()
            .or(checkpoint_vocab_size)
            .ok_or_else(no_size)?,
        num_labels: planned.corpus.labels.len() as i64,
        checkpoint: checkpoint.map(|checkpoint| checkpoint.config.clone()),
    };
    let architecture = planned.recipe.model.architecture()?;
    tch::manual_seed(planned.recipe.seed as i64);
    let model = architecture.build(&sizes, planned.device)?;
    let saved = SavedModel {
        model: planned.recipe.model.clone(),
        sizes,
        temperature: None,
    };
    Ok(BuiltModel { model, saved })
}

/// The planned run's model with its initial weights. If it is initialised from its teacher, those
/// are the weights of the first of `teachers`.
pub(crate) fn build_model(
    planned: &PlannedRun,
    tokenizer: &Tokenizer,
    teachers: &[Run],
) -> Result<BuiltModel> {
    let built = build_random_model(planned, tokenizer)?;
    let sources = InitialWeights {
        checkpoint: planned.checkpoint.as_ref(),
        teacher: teachers.first().map(Run::folder).transpose()?,
    };
    let architecture = planned.recipe.model.architecture()?;
    architecture.initialize(built.model.as_ref(), tokenizer, &sources)?;
    Ok(built)
}

/// Builds the tokenizer and the model of a planned run, and drops them: what cannot be built is said
/// before the teacher is trained. Weights that come from the teacher are not there yet.
pub(crate) fn check_can_be_built(planned: &PlannedRun) -> Result<()> {
    let tokenizer = build_tokenizer(planned)?;
    let architecture = planned.recipe.model.architecture()?;
    if architecture.initializes_from_teacher() {
        build_random_model(planned, &tokenizer)?;
    } else {
        build_model(planned, &tokenizer, &[])?;
    }
    Ok(())
}

/// Initialises the classification head from a linear probe on the model's own states, if the recipe
/// asks for it. `folder` keeps what an interruption leaves.
pub(crate) fn initialize_head_from_probe(
    planned: &PlannedRun,
    built: &BuiltModel,
    data: &TrainData,
    folder: &Path,
    callback: ProgressCallback,
) -> Result<()> {
    let architecture = planned.recipe.model.architecture()?;
    let Some(head) = architecture.probed_head(&built.saved.sizes) else {
        return Ok(());
    };
    let labelled = &planned.corpus.train;
    let mut split = TokenizedSplit {
        pad_id: data.train.pad_id,
        ..TokenizedSplit::default()
    };
    let mut folds = Vec::new();
    for row in draw_at_most(0..labelled.len(), MAX_PROBE_TEXTS) {
        split.ids.push(data.train.ids[row].clone());
        split
            .token_types
            .extend(data.train.token_types.get(row).cloned());
        split.labels.push(data.train.labels[row]);
        folds.push(labelled[row].input().fold(PROBE_FOLDS));
    }
    let pass = StatePass {
        planned,
        model: built.model.as_ref(),
        split: &split,
        layer: head.layer,
    };
    let states = LabelledStates {
        states: &pass.states(folder, HEAD, callback)?,
        labels: &split.labels,
        folds: &folds,
        classes: planned.corpus.labels.len() as i64,
    };
    let progress = probe_progress(&planned.id, split.labels.len());
    let probed = states.probe(&mut || progress.send(callback))?.head();
    remove_kept(folder, HEAD)?;
    for (name, values) in [(head.weight, probed.weight), (head.bias, probed.bias)] {
        let params = built.model.params();
        let missing = || Error::recipe("model", format!("no parameter {name}"), crate::error::BUG);
        let param = params.iter().find(|p| p.name == name).ok_or_else(missing)?;
        tch::no_grad(|| param.tensor.shallow_clone().copy_(&values));
    }
    Ok(())
}

/// A pass over texts for the pooled states of one layer.
pub(crate) struct StatePass<'a> {
    pub planned: &'a PlannedRun,
    pub model: &'a dyn Classifier,
    pub split: &'a TokenizedSplit,
    pub layer: usize,
}

impl StatePass<'_> {
    /// States `[text, width]`. `folder` keeps them, also in parts after an interruption, under this
    /// name until [`remove_kept`].
    pub fn states(&self, folder: &Path, name: &str, callback: ProgressCallback) -> Result<Tensor> {
        models::hidden_width(self.model, self.layer, "the model")?;
        let train = &self.planned.recipe.train;
        let pass = SplitPass {
            model: self.model,
            split: self.split,
            batches: &eval_batches(
                self.split,
                train.batch_size,
                train.group_by_length,
                self.planned.device,
            ),
            forward: ForwardPass {
                hidden_layers: &[self.layer],
                ..ForwardPass::evaluation(self.planned.precision)
            },
        };
        let mut clock = TextClock::new(&self.planned.id, Activity::Probing, self.split.ids.len());
        let mut check_stop = |done| clock.at(done).send(callback);
        let mut output = pass.kept_outputs(folder, name, &mut check_stop)?;
        Ok(output.hidden.remove(0))
    }
}

/// The planned run's texts as token ids, and the teachers' logits of them.
pub(crate) fn build_data(
    planned: &PlannedRun,
    tokenizer: &Tokenizer,
    teachers: &[Run],
    callback: ProgressCallback,
) -> Result<TrainData> {
    let mut train = tokenizer.encode_split(&planned.corpus.train)?;
    let transfer: Vec<TextInput> = planned
        .transfer_set
        .iter()
        .map(TransferText::input)
        .collect();
    let label_of = |text: &TransferText| text.label.map_or(UNLABELLED, |label| label as i64);
    train.append(TokenizedSplit {
        labels: planned.transfer_set.iter().map(label_of).collect(),
        ..tokenizer.encode(&transfer)?
    });
    let texts = planned.texts_to_label();
    let class_weights = planned.recipe.train.class_weights;
    let mut data = TrainData {
        class_weights: class_weights
            .map(|kind| kind.weights(&train.labels, planned.corpus.labels.len())),
        train,
        dev: tokenizer.encode_split(&planned.corpus.dev)?,
        teacher_logits: None,
        teacher_hidden: Vec::new(),
        lines: planned.corpus.train.iter().map(|e| e.line).collect(),
    };
    if let Some(path) = &planned.recipe.teacher_logits {
        let classes = &planned.corpus.labels;
        data.teacher_logits = Some(labelled_texts::read_logits(path, &texts, classes)?);
    }
    if !teachers.is_empty() {
        // The states first: the pass that computes them caches the logits too.
        let layers = planned
            .recipe
            .objective
            .objective()?
            .hidden_layers()
            .teacher;
        data.teacher_hidden = teacher_logits::pooled_states(
            &teachers[0],
            &layers,
            &texts,
            planned.threads,
            callback,
        )?;
        let ensemble = planned.recipe.ensemble.as_ref();
        let threads = planned.threads;
        let logits =
            teacher_logits::logits_to_learn(ensemble, teachers, &texts, threads, callback)?;
        data.teacher_logits = Some(logits);
    }
    Ok(data)
}

/// The objective's own parameters with their initial values, which the recipe's seed decides.
pub(crate) fn build_objective_params(
    planned: &PlannedRun,
    model: &dyn Classifier,
    data: &TrainData,
) -> Result<Params> {
    let objective = planned.recipe.objective.objective()?;
    let mut widths = HiddenWidths::default();
    for layer in objective.hidden_layers().student {
        widths
            .student
            .push(models::hidden_width(model, layer, "the student")?);
    }
    widths.teacher = data
        .teacher_hidden
        .iter()
        .map(|states| states.width as i64)
        .collect();
    // Not the model's seed: equal draws would tie the two initial values together.
    tch::manual_seed(planned.recipe.seed as i64 ^ 0x6f62_6a65);
    let mut params = Params::on(planned.device);
    for parameter in objective.parameters(&widths) {
        let _ = params.add(
            format!("objective.{}", parameter.name),
            parameter.values,
            true,
        );
    }
    Ok(params)
}

/// The trainer of a planned run.
pub(crate) fn build_trainer<'a>(
    planned: &'a PlannedRun,
    model: &'a dyn Classifier,
    data: &'a TrainData,
    objective_params: &'a Params,
) -> Result<Trainer<'a>> {
    let recipe = &planned.recipe;
    Ok(Trainer {
        run_id: &planned.id,
        model,
        data,
        objective: recipe.objective.objective()?,
        objective_params,
        final_temperature: recipe.train.final_temperature,
        adversarial: recipe.adversarial,
        precision: planned.precision,
        seed: recipe.seed,
        batch_size: recipe.train.batch_size,
        gradient_accumulation_steps: recipe.train.gradient_accumulation_steps,
        group_by_length: recipe.train.group_by_length,
        eval_every_samples: recipe.train.eval_every_samples,
        evaluate_before_training: false,
        early_stopping_patience: recipe.train.early_stopping_patience,
        schedule: planned.schedule,
        optimizer: recipe.optimizer,
        threads: planned.threads,
    })
}
