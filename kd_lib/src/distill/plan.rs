//! The plan of a distillation: which recipes are trained, in which order, and how long each is
//! expected to take. [`super::planner`] makes it; [`super::run_plan`](mod@super::run_plan) carries
//! it out.

use super::budget::duration;
use super::facts::{CorpusFacts, MAX_PROBED_DEV_TEXTS, PlanSettings, SecondsPerText};
use super::recipes::TransferTexts;
use crate::data::Corpus;
use crate::models::ModelConfig;
use crate::store::Recipe;
use crate::store::planned_run::schedule;
use crate::training::linear_probe::MAX_PROBE_TEXTS;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Version of the plan's file.
pub const FORMAT: u32 = 2;
/// Share of the budget that no stage gets: it pays for the report.
pub(super) const RESERVE: f64 = 0.1;
/// Seconds that no stage gets: loading, tokenizing and the report of a small corpus.
pub(super) const FIXED_SECONDS: f64 = 10.0;

/// In the four recorded runs with fewer updates, the distilled student was not significantly better
/// than its baseline (docs/distill-runs.md).
pub(super) const MIN_DISTILLED_UPDATES: usize = 300;

/// A side of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// A student without a teacher.
    Baseline,
    /// A student that learns from the teacher.
    Distilled,
}

impl Side {
    /// `baseline` or `distilled`.
    pub fn name(self) -> &'static str {
        match self {
            Side::Baseline => "baseline",
            Side::Distilled => "distilled",
        }
    }
}

/// One training run of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// What is trained.
    pub recipe: Recipe,
    /// Expected seconds, the teacher's logits included.
    pub seconds: f64,
}

/// A baseline and a distilled student with the same network, tokenizer and seed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudentPair {
    /// The student without a teacher. It is trained first.
    pub baseline: Stage,
    /// The student that learns from the teacher.
    pub distilled: Stage,
    /// Whether the pair may be skipped if the time is short. The distilled student is skipped
    /// first.
    pub optional: bool,
}

impl StudentPair {
    /// Expected seconds of both.
    pub fn seconds(&self) -> f64 {
        self.baseline.seconds + self.distilled.seconds
    }
}

/// The two students that dev chooses, with another seed. Both are left out if the time is short.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FurtherSeed {
    /// The seed.
    pub seed: u64,
    /// Expected seconds of the baseline, if the first candidate is chosen.
    pub baseline_seconds: f64,
    /// Expected seconds of the distilled student, if the first candidate is chosen. The teacher's
    /// logits exist by then and are not included.
    pub distilled_seconds: f64,
    /// Whether it is beyond the budget by the plan's own estimate: it is trained if the candidates
    /// take less time than expected.
    pub spare: bool,
}

impl FurtherSeed {
    /// Expected seconds of both students.
    pub fn seconds(&self) -> f64 {
        self.baseline_seconds + self.distilled_seconds
    }
}

/// What is trained, and how long it takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DistillPlan {
    /// Version of this file.
    pub format: u32,
    /// The corpus's name.
    pub corpus: String,
    /// Hash of its files.
    pub corpus_fingerprint: String,
    /// What was asked for.
    pub settings: PlanSettings,
    /// The corpus in numbers.
    pub facts: CorpusFacts,
    /// This machine's speed.
    pub speed: SecondsPerText,
    /// The teacher; none if its logits come from a file. Under cross-validation each fold has its
    /// own teacher, candidates and further seeds.
    pub teacher: Option<Stage>,
    /// The students that are tried with the first seed. Pairs that are not optional come first.
    pub candidates: Vec<StudentPair>,
    /// Further seeds of the chosen students.
    pub further_seeds: Vec<FurtherSeed>,
    /// Expected seconds of training the chosen student again on all labelled texts, if that is
    /// asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refit_seconds: Option<f64>,
}

impl DistillPlan {
    /// The same plan without its teacher: the distilled students learn from a file of logits. It
    /// has no folds and no refit, since the file holds the texts of the corpus's own splits.
    pub fn with_teacher_logits(mut self, file: &Path) -> DistillPlan {
        self.teacher = None;
        self.settings.folds = 0;
        self.settings.refit = false;
        self.refit_seconds = None;
        for pair in &mut self.candidates {
            pair.distilled.recipe.teacher = None;
            pair.distilled.recipe.teacher_logits = Some(file.to_path_buf());
        }
        self
    }

    /// The same plan with another path to the file of unlabelled texts, if it has such a file.
    pub fn with_unlabelled(mut self, file: &Path) -> DistillPlan {
        let distilled = self.candidates.iter_mut().map(|pair| &mut pair.distilled);
        for stage in distilled.chain(&mut self.teacher) {
            set_unlabelled(&mut stage.recipe, file);
        }
        replace(&mut self.settings.unlabelled, file);
        self
    }

    /// A recipe of this plan with the plan's paths to files. A run that was finished before a file
    /// was moved still has the old path.
    pub(super) fn with_own_paths(&self, mut recipe: Recipe) -> Recipe {
        if let Some(file) = &self.settings.unlabelled {
            set_unlabelled(&mut recipe, file);
        }
        let own = self.distilled_recipe();
        if let Some(file) = own.and_then(|own| own.teacher_logits.as_ref()) {
            replace(&mut recipe.teacher_logits, file);
        }
        recipe
    }

    /// The teacher and the candidates, in the order of training.
    pub fn stages(&self) -> impl Iterator<Item = &Stage> {
        let pairs = self.candidates.iter();
        let students = pairs.flat_map(|pair| [&pair.baseline, &pair.distilled]);
        self.teacher.iter().chain(students)
    }

    /// The recipe of the first distilled student.
    pub fn distilled_recipe(&self) -> Option<&Recipe> {
        self.candidates.first().map(|pair| &pair.distilled.recipe)
    }

    /// Updates of the first distilled student.
    pub fn distilled_updates(&self) -> usize {
        self.distilled_recipe().map_or(0, |recipe| {
            let texts = TransferTexts::of(recipe, &self.facts).texts_per_epoch(&self.facts);
            schedule(recipe, texts as usize).total_steps
        })
    }

    /// Expected seconds of the stages, of the refit, and of loading, without the reserve (which
    /// pays for the report) and without the spare seeds.
    pub fn seconds(&self) -> f64 {
        self.settings.fold_runs() as f64 * self.seconds_per_fold()
            + self.refit_seconds.unwrap_or_default()
    }

    /// Expected seconds of the stages of one fold, and of loading.
    pub fn seconds_per_fold(&self) -> f64 {
        let stage_seconds: f64 = self.stages().map(|stage| stage.seconds).sum();
        let planned = self.further_seeds.iter().filter(|further| !further.spare);
        let further_seed_seconds: f64 = planned.map(FurtherSeed::seconds).sum();
        stage_seconds + further_seed_seconds + FIXED_SECONDS
    }

    /// Expected seconds of a fold's part of the report.
    pub fn report_seconds(&self) -> f64 {
        report_seconds(&self.facts, &self.speed)
    }

    /// Seconds of the budget for all folds; a refit gets the rest.
    pub fn seconds_for_folds(&self) -> f64 {
        let refit_share = self.refit_seconds.unwrap_or_default() / (1.0 - RESERVE);
        self.settings.budget.seconds - refit_share
    }

    /// Refuses a corpus that the plan was not made for. `folder` is the plan's.
    pub fn refuse_other_corpus(&self, corpus: &Corpus, folder: &Path) -> Result<()> {
        if self.corpus_fingerprint == corpus.fingerprint {
            return Ok(());
        }
        let problem = format!("a plan for another corpus ({})", self.corpus);
        let fix = "name the corpus that it was made for, or plan anew";
        Err(Error::file(folder, problem, fix))
    }

    /// The plan of one fold: the same stages on another corpus, within `seconds`.
    pub fn for_fold(&self, corpus_fingerprint: &str, seconds: f64) -> DistillPlan {
        let mut plan = self.clone();
        plan.corpus_fingerprint = corpus_fingerprint.to_owned();
        plan.settings.budget.seconds = seconds;
        plan.settings.folds = 0;
        plan.settings.refit = false;
        plan.refit_seconds = None;
        plan
    }

    /// The plan in lines for a person.
    pub fn describe(&self) -> String {
        let facts = &self.facts;
        let mut lines = vec![format!(
            "{}: {} training texts, {} unlabelled, {} dev, {} test, {} classes; sequences of {} \
             tokens ({:.1} % of the texts are longer)",
            self.corpus,
            facts.train_texts,
            facts.unlabelled_texts,
            facts.dev_texts,
            facts.test_texts,
            facts.classes,
            facts.max_length,
            100.0 * facts.truncated
        )];
        if self.settings.folds > 0 {
            lines.push(format!(
                "Cross-validation, instead of the test split above: each of {} folds is tested by models \
                 of the others. The next lines are of one fold.",
                self.settings.folds
            ));
        }
        lines.extend(
            self.teacher
                .iter()
                .map(|teacher| self.describe_stage(teacher, "")),
        );
        for pair in &self.candidates {
            let note = if pair.optional {
                " (left out if time is short)"
            } else {
                ""
            };
            for stage in [&pair.baseline, &pair.distilled] {
                lines.push(self.describe_stage(stage, note));
            }
        }
        for further in &self.further_seeds {
            let note = if further.spare {
                "only if time is left"
            } else {
                "left out if time is short"
            };
            lines.push(format!(
                "{:>8}  the chosen baseline and distilled student again, seed {} ({note})",
                duration(further.seconds()),
                further.seed
            ));
        }
        if let Some(seconds) = self.refit_seconds {
            lines.push(format!(
                "{:>8}  teacher and chosen student again, on all labelled texts",
                duration(seconds)
            ));
        }
        lines.push(format!(
            "{:>8}  of {} in all",
            duration(self.seconds()),
            self.settings.budget
        ));
        lines.join("\n")
    }

    /// A stage in one line: seconds, name, seed, epochs and texts.
    fn describe_stage(&self, stage: &Stage, note: &str) -> String {
        let recipe = &stage.recipe;
        let mut augmented = String::new();
        if recipe.transfer.is_some() {
            let texts = TransferTexts::of(recipe, &self.facts);
            augmented = format!(
                ", {} unlabelled texts, {} augmented texts of each",
                texts.unlabelled, texts.augmentations_per_text
            );
        }
        let sampled = match recipe.data.max_train_samples {
            Some(texts) => format!(" over {texts} of the training texts"),
            None => String::new(),
        };
        format!(
            "{:>8}  {}, seed {}: {}{sampled}{augmented}{note}",
            duration(stage.seconds),
            recipe.name,
            recipe.seed,
            epochs(recipe.train.epochs)
        )
    }
}

/// Replaces the path to the file of unlabelled texts in a recipe and in its teacher's.
fn set_unlabelled(recipe: &mut Recipe, file: &Path) {
    if let Some(teacher) = &mut recipe.teacher {
        set_unlabelled(teacher, file);
    }
    if let ModelConfig::Bert(bert) = &mut recipe.model {
        replace(&mut bert.vocab_texts, file);
    }
    if let Some(transfer) = &mut recipe.transfer {
        replace(&mut transfer.unlabelled_file, file);
    }
}

fn replace(path: &mut Option<PathBuf>, file: &Path) {
    if path.is_some() {
        *path = Some(file.to_path_buf());
    }
}

/// Seconds of the report: forward passes of the teacher over test, and of the linear probe over
/// test, some dev and some training texts. Students are fast.
pub(super) fn report_seconds(facts: &CorpusFacts, speed: &SecondsPerText) -> f64 {
    let probed_texts =
        facts.train_texts.min(MAX_PROBE_TEXTS) + facts.dev_texts.min(MAX_PROBED_DEV_TEXTS);
    (probed_texts + 2 * facts.test_texts) as f64 * speed.teacher_forward
}

/// A number of epochs, rounded for the reader; the recipe has more digits.
fn epochs(number: f64) -> String {
    match (number * 10.0).round() / 10.0 {
        1.0 => "1 epoch".into(),
        rounded => format!("{rounded} epochs"),
    }
}
