//! The settings of `[data]` in a recipe, their validation, and the selection of examples that they
//! describe. [`super::corpus`] reads the files.

use super::corpus::{Corpus, Split};
use super::splits::sample_rows;
use super::text_files::Example;
use super::text_input::TextInput;
use super::truncation::Truncation;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;
use std::collections::HashSet;

/// A count above this is a typing error.
pub(crate) const MAX_COUNT: usize = 1_000_000_000;

/// Which texts a run uses, and how much of each.
#[serde_inline_default]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// Longest sequence in tokens, special tokens included. The rest of a text is truncated.
    pub max_length: usize,
    /// The part of a longer text that is kept.
    #[serde(default, skip_serializing_if = "Truncation::is_head")]
    pub truncation: Truncation,
    /// Train on at most this many examples, drawn with a fixed seed; all if absent.
    pub max_train_samples: Option<usize>,
    /// Use the labels of only this fraction of the selected training examples, drawn with a fixed
    /// seed. The other texts may join the transfer set as unlabelled ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_fraction: Option<f64>,
    /// Evaluate on at most this many dev examples, drawn with a fixed seed; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_dev_samples: Option<usize>,
    /// `[n, k]`: train without fold k of n, counted from 0. Out-of-fold teachers differ in this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holdout_fold: Option<[usize; 2]>,
    /// Do not evaluate on test. A search over settings must set this.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_test: bool,
    /// Drop training texts that recur in dev or test.
    #[serde_inline_default(true)]
    pub drop_leaks: bool,
}

/// The examples that a run uses.
#[derive(Debug, Clone)]
pub struct Selection {
    /// The corpus with the selected training and dev examples.
    pub corpus: Corpus,
    /// Training examples whose labels `label_fraction` leaves unused.
    pub unlabelled_train: Vec<Example>,
    /// What was left out and is likely to be missed, in sentences.
    pub notices: Vec<String>,
}

impl DataConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// If a value is out of range or contradicts another one.
    pub fn validate(&self) -> Result<()> {
        check_count("data.max_length", self.max_length)?;
        check_count(
            "data.max_train_samples",
            self.max_train_samples.unwrap_or(1),
        )?;
        check_count("data.max_dev_samples", self.max_dev_samples.unwrap_or(1))?;
        if let Some(fraction) = self.label_fraction
            && !(fraction > 0.0 && fraction <= 1.0)
        {
            let fix = "it is a fraction: choose a number above 0, at most 1";
            return Err(Error::recipe(
                "data.label_fraction",
                fraction.to_string(),
                fix,
            ));
        }
        if let Some([folds, held_out]) = self.holdout_fold
            && (folds < 2 || held_out >= folds)
        {
            let fix = "it is [n, k]: choose n above 1, and k below n";
            let problem = format!("[{folds}, {held_out}]");
            return Err(Error::recipe("data.holdout_fold", problem, fix));
        }
        Ok(())
    }

    /// Selects the examples that a run uses from a corpus.
    ///
    /// # Errors
    /// If no training text is left, or `head_tail` truncation is set for text pairs.
    pub fn select(&self, corpus: &Corpus) -> Result<Selection> {
        if corpus.has_pairs() && !self.truncation.is_head() {
            let problem = format!("{:?}, with text pairs", self.truncation);
            let fix = "leave it out: the longer text of a pair is cut at its end";
            return Err(Error::recipe("data.truncation", problem, fix));
        }
        self.refuse_unusable(corpus)?;
        let mut corpus = corpus.clone();
        let mut notices = Vec::new();
        let mut classes = TrainingClasses::of(&corpus);
        if self.drop_leaks {
            let before = corpus.train.len();
            corpus = corpus.without_leaks();
            let dropped = before - corpus.train.len();
            if dropped > 0 {
                notices.push(format!(
                    "{dropped} of {before} training texts recur in dev or test and are left out"
                ));
            }
            classes.note_lost(
                &corpus,
                "recurs in dev or test (data.drop_leaks)",
                &mut notices,
            );
        } else {
            note_kept_leaks(&corpus, &mut notices);
        }
        draw(&mut corpus.train, self.max_train_samples);
        classes.note_lost(
            &corpus,
            "is not drawn (data.max_train_samples)",
            &mut notices,
        );
        let labelled = self
            .label_fraction
            .map(|fraction| (fraction * corpus.train.len() as f64).ceil() as usize);
        let unlabelled_train = draw(&mut corpus.train, labelled);
        classes.note_lost(
            &corpus,
            "has no label left (data.label_fraction)",
            &mut notices,
        );
        draw(&mut corpus.dev, self.max_dev_samples);
        if let Some([folds, held_out]) = self.holdout_fold {
            corpus.train.retain(|e| e.input().fold(folds) != held_out);
            classes.note_lost(&corpus, "is in the fold (data.holdout_fold)", &mut notices);
        }
        if corpus.train.is_empty() {
            let problem = "no training text is left: all recur in dev or test, or are in the fold";
            let fix = "set data.drop_leaks = false, give splits that differ, or use fewer folds";
            return Err(Error::recipe("data", problem, fix));
        }
        Ok(Selection {
            corpus,
            unlabelled_train,
            notices,
        })
    }

    /// Refuses what a corpus that was built by hand can contain, and a corpus from files cannot.
    fn refuse_unusable(&self, corpus: &Corpus) -> Result<()> {
        for split in [Split::Train, Split::Dev, Split::Test] {
            let is_unknown = |example: &&Example| example.label >= corpus.labels.len();
            if let Some(example) = corpus.split(split).iter().find(is_unknown) {
                let problem = format!(
                    "{:?} in {split:?} has the class index {}, but the corpus has {} classes",
                    example.text,
                    example.label,
                    corpus.labels.len()
                );
                return Err(Error::recipe("data", problem, "correct Example::label"));
            }
        }
        let pairs = |example: &&Example| example.text_pair.is_some() != corpus.has_pairs();
        if let Some(example) = corpus.examples().find(pairs) {
            let problem = format!("pairs and single texts, {:?} among them", example.text);
            let fix = "give Example::text_pair to all texts or to none";
            return Err(Error::recipe("data", problem, fix));
        }
        if corpus.dev.is_empty() {
            let fix = "give the corpus dev texts: they choose the weights";
            return Err(Error::recipe("data", "there is no dev text", fix));
        }
        if corpus.test.is_empty() && !self.skip_test {
            let fix = "give the corpus test texts, or set data.skip_test = true";
            return Err(Error::recipe("data", "there is no test text", fix));
        }
        Ok(())
    }
}

/// Says how many texts of dev and test are trained on.
fn note_kept_leaks(corpus: &Corpus, notices: &mut Vec<String>) {
    let train: HashSet<TextInput> = corpus.train.iter().map(Example::input).collect();
    for split in [Split::Dev, Split::Test] {
        let texts = corpus.split(split);
        let trained_on = texts.iter().filter(|e| train.contains(&e.input())).count();
        if trained_on > 0 {
            notices.push(format!(
                "{trained_on} of {} texts of {split:?} are trained on, so its scores are too high",
                texts.len()
            ));
        }
    }
}

/// The classes that have a training text.
struct TrainingClasses {
    present: Vec<bool>,
}

impl TrainingClasses {
    fn of(corpus: &Corpus) -> TrainingClasses {
        let mut present = vec![false; corpus.labels.len()];
        for example in &corpus.train {
            present[example.label] = true;
        }
        TrainingClasses { present }
    }

    /// Says which classes the last selection left without a training text.
    fn note_lost(&mut self, corpus: &Corpus, why: &str, notices: &mut Vec<String>) {
        let now = TrainingClasses::of(corpus);
        for (class, name) in corpus.labels.iter().enumerate() {
            if self.present[class] && !now.present[class] {
                notices.push(format!(
                    "class {name:?} has no training text left: each of them {why}"
                ));
            }
        }
        *self = now;
    }
}

/// Keeps `wanted` examples in their order and returns the others.
fn draw(examples: &mut Vec<Example>, wanted: Option<usize>) -> Vec<Example> {
    let Some(wanted) = wanted.filter(|&n| n < examples.len()) else {
        return Vec::new();
    };
    let drawn = sample_rows(examples.len(), wanted);
    let mut others = Vec::new();
    for (row, example) in std::mem::take(examples).into_iter().enumerate() {
        if drawn.contains(&row) {
            examples.push(example);
        } else {
            others.push(example);
        }
    }
    others
}

/// Refuses a count of 0 and one that no memory can hold.
pub(crate) fn check_count(key: &str, count: usize) -> Result<()> {
    if (1..=MAX_COUNT).contains(&count) {
        return Ok(());
    }
    Err(Error::recipe(
        key,
        count.to_string(),
        "choose 1 or more, a billion at most",
    ))
}
