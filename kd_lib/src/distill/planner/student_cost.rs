//! How long a student's training takes, and how long a training fits into a number of seconds.

use super::round_to_thousandths;
use crate::distill::facts::SecondsPerText;
use crate::distill::recipes::StudentKind;
use crate::store::Recipe;

/// Most evaluations of a student on dev.
const MAX_EVALUATIONS: f64 = 15.0;
/// Fewest evaluations of a student on dev.
const MIN_EVALUATIONS: f64 = 2.0;
/// Largest share of a student's time for its evaluations.
pub(super) const EVALUATION_SHARE: f64 = 0.1;

/// How long the training run of a student takes.
pub(super) struct StudentCost<'a> {
    pub speed: &'a SecondsPerText,
    /// Texts of an evaluation.
    pub dev_texts: usize,
    /// Seconds per example of an update.
    pub update_seconds: f64,
    /// Seconds per text of an evaluation.
    pub forward_seconds: f64,
    /// Labelled, unlabelled and augmented texts that the student reads in an epoch.
    pub texts_per_epoch: f64,
    /// The longest run, in examples over all epochs.
    pub max_examples: f64,
}

impl StudentCost<'_> {
    /// The cost of a student of this kind, instead of a BiLSTM over subwords.
    pub fn scaled_for(self, kind: StudentKind) -> Self {
        let factor = match kind {
            StudentKind::Bilstm | StudentKind::BilstmClassWeights => 1.0,
            StudentKind::Textcnn => self.speed.textcnn_factor,
            StudentKind::BilstmCharacters => self.speed.characters_factor,
            StudentKind::Fasttext => self.speed.fasttext_factor,
        };
        StudentCost {
            update_seconds: self.update_seconds * factor,
            forward_seconds: self.forward_seconds * factor,
            ..self
        }
    }

    /// The examples of a run of this length, evaluations included.
    pub fn examples_within(&self, seconds: f64) -> f64 {
        let fewest_evaluations = MIN_EVALUATIONS * self.evaluation_seconds();
        let for_updates = (seconds * (1.0 - EVALUATION_SHARE)).min(seconds - fewest_evaluations);
        (for_updates.max(0.0) / self.update_seconds).min(self.max_examples)
    }

    /// Seconds of one evaluation on dev.
    fn evaluation_seconds(&self) -> f64 {
        self.dev_texts as f64 * self.forward_seconds
    }

    /// Number of evaluations in a run over `examples`.
    fn evaluations(&self, examples: f64) -> f64 {
        let for_evaluations = examples * self.update_seconds * EVALUATION_SHARE;
        let affordable = for_evaluations / self.evaluation_seconds();
        affordable.clamp(MIN_EVALUATIONS, MAX_EVALUATIONS)
    }

    /// Seconds of a run over `examples`, evaluations included.
    pub fn seconds(&self, examples: f64) -> f64 {
        examples * self.update_seconds + self.evaluations(examples) * self.evaluation_seconds()
    }

    /// Gives a recipe the length that fits into `seconds`; returns the expected seconds.
    pub fn set_length(&self, recipe: &mut Recipe, seconds: f64) -> f64 {
        let examples = self.examples_within(seconds);
        recipe.train.epochs = round_to_thousandths(examples / self.texts_per_epoch);
        let interval = examples / self.evaluations(examples);
        recipe.train.eval_every_samples = interval.ceil() as usize;
        self.seconds(examples)
    }
}
