//! What a plan is made from: what was asked for, the corpus in numbers, the speed of this machine.
//! [`super::measure`](mod@super::measure) fills the last two in.

use super::budget::Budget;
use crate::store::Recipe;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Time of a student's forward pass, as a share of the time of an update. An update under FGM reads
/// its texts twice; without FGM the share is 0.18.
pub const STUDENT_FORWARD_SHARE: f64 = 0.15;

/// At most this many dev texts are classified by the linear probe of the report, drawn at random.
pub(super) const MAX_PROBED_DEV_TEXTS: usize = 1000;

/// The request of a user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanSettings {
    /// Seconds in all.
    pub budget: Budget,
    /// Largest student in megabytes of fp32 weights.
    pub max_megabytes: f64,
    /// Longest time in milliseconds that a student may take for one text on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_latency: Option<f64>,
    /// The teacher's recipe; the plan sets its length. Its seed is the first seed of the plan.
    pub teacher: Recipe,
    /// A file of texts without labels, one per line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unlabelled: Option<PathBuf>,
    /// Folds of cross-validation; 0 if the corpus's own test split is the evidence.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub folds: usize,
    /// Whether the student that is delivered is trained again on all labelled texts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refit: bool,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl PlanSettings {
    /// How many times the stages of a plan are carried out.
    pub fn fold_runs(&self) -> usize {
        self.folds.max(1)
    }
}

/// A corpus in numbers; under cross-validation, its first fold.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CorpusFacts {
    /// Labelled training texts, leaks dropped.
    pub train_texts: usize,
    /// Lines of the file of unlabelled texts that are neither empty nor repeat another text.
    #[serde(default)]
    pub unlabelled_texts: usize,
    /// Development texts.
    pub dev_texts: usize,
    /// Test texts.
    pub test_texts: usize,
    /// Number of classes.
    pub classes: usize,
    /// Longest sequence in the teacher's tokens, special tokens included.
    pub max_length: usize,
    /// Share of the measured training texts that are longer than `max_length`.
    pub truncated: f64,
    /// Share of the measured texts' tokens that the teacher's tokenizer does not know.
    #[serde(default)]
    pub unknown: f64,
    /// Whether whitespace separates words.
    pub has_words: bool,
    /// Training texts of the largest class, divided by those of the smallest.
    #[serde(default = "one")]
    pub imbalance: f64,
    /// Number of network widths, widest first, that exceed the latency limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub too_slow_networks: usize,
}

fn one() -> f64 {
    1.0
}

/// This machine's speed on texts of this corpus.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SecondsPerText {
    /// Threads of the measurement, and of the plan.
    pub threads: usize,
    /// Seconds per text of an update of the teacher.
    pub teacher_update: f64,
    /// Seconds per text of the teacher's forward pass.
    pub teacher_forward: f64,
    /// Seconds per text of an update of a student, FGM included.
    pub student_update: f64,
    /// Time of a student that reads characters, relative to one that reads subwords.
    #[serde(default = "one")]
    pub characters_factor: f64,
    /// Time of a TextCNN, relative to a BiLSTM.
    #[serde(default = "one")]
    pub textcnn_factor: f64,
    /// Time of a fastText, relative to a BiLSTM. It has no FGM.
    #[serde(default = "one")]
    pub fasttext_factor: f64,
}

impl SecondsPerText {
    /// Seconds per text of a student's forward pass.
    pub fn student_forward(&self) -> f64 {
        self.student_update * STUDENT_FORWARD_SHARE
    }
}
