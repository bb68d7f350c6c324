//! What a person asks for: a TOML file, read strictly (an unknown key is an error). A profile
//! (`smoke`, `quick`, `full`) and `key=value` settings override its keys before it is read
//! ([`super::overrides`]). [`super::planned_run`] applies it to a corpus.

use super::overrides::{self, read_extended, read_with_profile, set};
use super::retired;
use crate::data::{DataConfig, TransferConfig};
use crate::models::ModelConfig;
use crate::objectives::ObjectiveConfig;
use crate::training::{Adversarial, OptimizerConfig, TrainConfig};
use crate::{Error, Result, error::BUG};
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use toml::Value;

/// A training run as it was asked for.
#[serde_inline_default]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Row name in tables, and the first half of the run's folder name.
    pub name: String,
    /// Decides initial weights, the order of examples, and dropout.
    #[serde_inline_default(123)]
    pub seed: u64,
    /// `auto`, `cpu` or `cuda:N`.
    #[serde_inline_default("auto".into())]
    pub device: String,
    /// Which texts, and how much of each.
    pub data: DataConfig,
    /// Which network.
    pub model: ModelConfig,
    /// What is minimised.
    pub objective: ObjectiveConfig,
    /// Adversarial training; none if absent.
    // Keys that were added later are left out if absent, so that older runs keep their ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adversarial: Option<Adversarial>,
    /// The teacher of a distillation; in a file, the path of the teacher's recipe.
    pub teacher: Option<Box<Recipe>>,
    /// Instead of a teacher: a file with the logits of a teacher from anywhere
    /// ([`super::labelled_texts`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher_logits: Option<PathBuf>,
    /// Several teachers of that recipe instead of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ensemble: Option<Ensemble>,
    /// Texts in addition to the labelled ones; none if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transfer: Option<TransferConfig>,
    /// How long to train, and in which batches.
    pub train: TrainConfig,
    /// The optimizer.
    pub optimizer: OptimizerConfig,
}

/// Several teachers of one recipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ensemble {
    /// The mean of the logits of the teachers trained with these seeds.
    Seeds(Vec<u64>),
    /// Out-of-fold logits: of n teachers, each trained without one of n folds, each text gets the
    /// logits of the teacher that was not trained on it.
    OutOfFold(usize),
}

impl Ensemble {
    fn validate(&self) -> Result<()> {
        let enough = match self {
            Ensemble::OutOfFold(folds) => *folds > 1,
            Ensemble::Seeds(seeds) => {
                let distinct: HashSet<&u64> = seeds.iter().collect();
                !seeds.is_empty() && distinct.len() == seeds.len()
            }
        };
        if enough {
            return Ok(());
        }
        let fix = "give seeds that differ, or out_of_fold = 2 or more";
        Err(Error::recipe("ensemble", format!("{self:?}"), fix))
    }
}

impl Recipe {
    /// Reads a recipe, applies a profile (`profiles/NAME.toml` in its folder) and then `key=value`
    /// settings. A teacher that it names is read with the same profile and with the settings that
    /// begin with `teacher.`.
    pub fn read(path: impl AsRef<Path>, profile: &str, settings: &[String]) -> Result<Recipe> {
        let path = path.as_ref();
        let mut table = read_with_profile(path, profile)?;
        let mut for_teacher = Vec::new();
        for setting in settings {
            for setting in overrides::one_key_each(setting)? {
                match setting.strip_prefix("teacher.") {
                    Some(setting) => for_teacher.push(setting.to_owned()),
                    None => set(&mut table, &setting)?,
                }
            }
        }
        if let Some(Value::String(teacher)) = table.get("teacher") {
            let teacher_path = path.with_file_name(teacher);
            if read_extended(&teacher_path)?.contains_key("teacher") {
                let problem = "a teacher that has a teacher";
                return Err(Error::file(
                    &teacher_path,
                    problem,
                    "name a recipe without one",
                ));
            }
            let teacher = Recipe::read(teacher_path, profile, &for_teacher)?;
            let teacher = Value::try_from(teacher).map_err(Error::in_file(path, BUG))?;
            table.insert("teacher".into(), teacher);
        } else if let Some(Value::Table(teacher)) = table.get_mut("teacher") {
            // A recipe that a plan wrote holds its teacher's.
            for setting in &for_teacher {
                set(teacher, setting)?;
            }
        } else if let Some(setting) = for_teacher.first() {
            let key = format!("teacher.{setting}");
            return Err(Error::recipe(
                &key,
                "this recipe has no teacher",
                "leave it out",
            ));
        }
        retired::refuse_keys(&table, path)?;
        serde_path_to_error::deserialize(Value::Table(table)).map_err(|e| {
            let fix = "correct it in this recipe, in the one that it extends, in the profile or \
                       in --set";
            Error::file(path, format!("{}: {}", e.path(), e.inner().message()), fix)
        })
    }

    /// The recipes of the teachers: none, one, or those of the [`Ensemble`].
    pub fn teachers(&self) -> Vec<Recipe> {
        let Some(teacher) = self.teacher.as_deref() else {
            return Vec::new();
        };
        match &self.ensemble {
            None => vec![teacher.clone()],
            Some(Ensemble::Seeds(seeds)) => seeds
                .iter()
                .map(|&seed| teacher.clone().with_seed(seed))
                .collect(),
            Some(Ensemble::OutOfFold(folds)) => {
                let without_fold = |fold| {
                    let mut recipe = teacher.clone();
                    recipe.data.holdout_fold = Some([*folds, fold]);
                    recipe
                };
                (0..*folds).map(without_fold).collect()
            }
        }
    }

    /// The same recipe with another seed.
    pub fn with_seed(mut self, seed: u64) -> Recipe {
        self.seed = seed;
        self
    }

    /// Checks the settings, the teacher's too, before anything is computed. Each group of settings
    /// validates itself; here are the rules between groups.
    ///
    /// # Errors
    /// If a value is out of range or contradicts another one.
    pub fn validate(&self) -> Result<()> {
        if let Some(teacher) = &self.teacher {
            teacher.validate()?;
        }
        let valid = |c: char| c.is_alphanumeric() || "-_+.()=".contains(c);
        if self.name.is_empty() || !self.name.chars().all(valid) {
            let fix = "it names a folder: use letters, digits and -_+.()=";
            return Err(Error::recipe("name", format!("{:?}", self.name), fix));
        }
        let objective = self.objective.objective()?;
        objective.validate()?;
        if self.teacher_logits.is_some() {
            let key = "teacher_logits";
            if self.teacher.is_some() {
                let fix = "leave one of the two out";
                return Err(Error::recipe(key, "with a teacher's recipe", fix));
            }
            if !objective.hidden_layers().teacher.is_empty() {
                let fix = "choose an objective on logits: the file holds no hidden states";
                return Err(Error::recipe(key, "with hidden states", fix));
            }
        }
        let has_teacher = self.teacher.is_some() || self.teacher_logits.is_some();
        if objective.needs_teacher() != has_teacher {
            let problem = if has_teacher { "given" } else { "missing" };
            let fix = "an objective on a teacher's logits needs teacher or teacher_logits, any other \
                       takes neither";
            return Err(Error::recipe("teacher", problem, fix));
        }
        if let Some(ensemble) = &self.ensemble {
            if self.teacher.is_none() {
                let fix = "an ensemble needs a teacher's recipe";
                return Err(Error::recipe("ensemble", "no teacher", fix));
            }
            ensemble.validate()?;
            if !objective.hidden_layers().teacher.is_empty() {
                let fix = "an objective on hidden states takes one teacher: leave the ensemble out";
                return Err(Error::recipe("ensemble", "several teachers", fix));
            }
        }
        if let Some(transfer) = &self.transfer {
            transfer.validate(has_teacher)?;
        }
        if let Some(adversarial) = self.adversarial {
            adversarial.validate()?;
        }
        self.data.validate()?;
        let architecture = self.model.architecture()?;
        architecture.validate(&self.data)?;
        if architecture.initializes_from_teacher() && self.teacher.is_none() {
            let fix = "a model that is initialised from its teacher needs a teacher's recipe";
            return Err(Error::recipe("teacher", "missing", fix));
        }
        self.train.validate(objective)?;
        self.optimizer.validate()
    }
}
