//! Names that version 0.1 used in recipes, and what replaces each. A retired key is refused with
//! its replacement. `kd convert` translates recipes and runs by the same table.

use crate::{Error, Result};
use std::path::Path;
use toml::{Table, Value};

/// A retired name and its replacement.
#[derive(Debug, Clone, Copy)]
pub struct Retired {
    /// Dotted key in version 0.1.
    pub old: &'static str,
    /// Dotted key now; empty if the key is gone.
    pub new: &'static str,
}

const fn key(old: &'static str, new: &'static str) -> Retired {
    Retired { old, new }
}

/// Keys of a recipe.
pub const KEYS: &[Retired] = &[
    key("data.max_tokens", "data.max_length"),
    key("data.cut", "data.truncation"),
    key("data.train_examples", "data.max_train_samples"),
    key("data.dev_examples", "data.max_dev_samples"),
    key("data.labelled", "data.label_fraction"),
    key("data.fold", "data.holdout_fold"),
    key("data.blind", "data.skip_test"),
    key("model.weights", "model.checkpoint"),
    key("model.prune", "model.prune_vocab"),
    key("model.embedding", "model.embedding_dim"),
    key("model.hidden", "model.hidden_size"),
    key("model.vocabulary", "model.vocab_size"),
    key("model.vocabulary_file", "model.vocab_file"),
    key("model.embedding_spread", "model.embedding_init_std"),
    key("model.word_vectors", "model.pretrained_embeddings"),
    key("objective.hard", "objective.hard_weight"),
    key("objective.soft", "objective.soft_weight"),
    key("objective.target", "objective.alpha"),
    key("objective.others", "objective.beta"),
    key("objective.inter", "objective.beta"),
    key("objective.intra", "objective.gamma"),
    key("attack.kind", "adversarial.kind"),
    key("attack.epsilon", "adversarial.epsilon"),
    key("attack.alpha", "adversarial.alpha"),
    key("attack.steps", "adversarial.steps"),
    key("attack.scope", "adversarial.norm_over"),
    key("attack", "adversarial"),
    key("teaching.seeds", "ensemble.seeds"),
    key("teaching.folds", "ensemble.out_of_fold"),
    key("teaching", "ensemble"),
    key("transfer.file", "transfer.unlabelled_file"),
    key("transfer.rest", "transfer.unlabelled_train"),
    key("transfer.made", "transfer.augmentations_per_text"),
    key("transfer.ways", "transfer.augmentations"),
    key("transfer.keep_labels", "transfer.augmentations_keep_label"),
    key("train.batch", "train.batch_size"),
    key("train.accumulation", "train.gradient_accumulation_steps"),
    key("train.bucketed", "train.group_by_length"),
    key("train.evaluate_every", "train.eval_every_samples"),
    key("train.stretch", ""),
    key("optimiser.epsilon", "optimizer.eps"),
    key("optimiser.warmup", "optimizer.warmup_ratio"),
    key("optimiser.clip", "optimizer.max_grad_norm"),
    key("optimiser.learning_rate", "optimizer.learning_rate"),
    key("optimiser.betas", "optimizer.betas"),
    key("optimiser.weight_decay", "optimizer.weight_decay"),
    key("optimiser", "optimizer"),
];

/// Values of `objective.kind`.
pub const OBJECTIVES: &[Retired] = &[
    key("distillation", "kd"),
    key("decoupled", "dkd"),
    key("relational", "dist"),
    key("distillation_per_element", "kd_as_published"),
];

/// Values of `transfer.augmentations`.
pub const AUGMENTATIONS: &[Retired] = &[
    key("crop", "span_crop"),
    key("splice", "crossover"),
    key("swap", "rotation"),
    key("graft", "span_replacement"),
];

/// The entry of a retired name in a table of names.
pub fn find(names: &[Retired], old: &str) -> Option<Retired> {
    names.iter().copied().find(|name| name.old == old)
}

/// Refuses a retired dotted key, with or without `teacher.` in front.
pub(crate) fn refuse_key(dotted: &str) -> Result<()> {
    let own = dotted.strip_prefix("teacher.").unwrap_or(dotted);
    match find(KEYS, own) {
        Some(name) => Err(Error::recipe(dotted, "a name of version 0.1", fix(name))),
        None => Ok(()),
    }
}

/// Refuses a table with retired keys or values; `path` is its file.
pub(crate) fn refuse_keys(table: &Table, path: &Path) -> Result<()> {
    let refuse = |what: String, name: Retired| {
        let problem = format!("{what} is a name of version 0.1");
        let fix = format!("{}, or run `kd convert {}`", fix(name), path.display());
        Err(Error::file(path, problem, fix))
    };
    for (group, value) in table {
        if let Some(name) = find(KEYS, group) {
            return refuse(group.clone(), name);
        }
        let Value::Table(settings) = value else {
            continue;
        };
        if group == "teacher" {
            refuse_keys(settings, path)?;
        }
        for setting in settings.keys() {
            let dotted = format!("{group}.{setting}");
            if let Some(name) = find(KEYS, &dotted) {
                return refuse(dotted, name);
            }
        }
    }
    let value = |group: &str, key: &str| table.get(group).and_then(|group| group.get(key));
    if let Some(kind) = value("objective", "kind").and_then(Value::as_str)
        && let Some(name) = find(OBJECTIVES, kind)
    {
        return refuse(format!("objective.kind = {kind:?}"), name);
    }
    let kinds = value("transfer", "augmentations").and_then(Value::as_array);
    for kind in kinds.into_iter().flatten().filter_map(Value::as_str) {
        if let Some(name) = find(AUGMENTATIONS, kind) {
            return refuse(format!("transfer.augmentations: {kind:?}"), name);
        }
    }
    Ok(())
}

fn fix(name: Retired) -> String {
    match name.new {
        "" => "leave it out and multiply train.epochs by it: epochs may be a fraction".to_owned(),
        new => format!("write {new}"),
    }
}
