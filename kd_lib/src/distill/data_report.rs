//! What a person should know of a corpus before it is trained on: balance, lengths, duplicates,
//! leaks. Nothing is removed here. [`super::suspicious_labels`] adds labels that are likely to be
//! wrong; [`crate::data::data_quality`] counts equal texts, and this module finds nearly equal ones
//! too.

use super::facts::CorpusFacts;
use super::ngram_model::{NgramModel, NgramSettings, NgramUnit};
use super::suspicious_labels::{LEAST_TEXTS, SuspiciousLabels};
use crate::Result;
use crate::data::data_quality::{DataQuality, SplitCounts};
use crate::data::{Corpus, Example, near_duplicates};
use crate::store::Table;
use std::collections::{HashMap, HashSet};

/// Findings about a corpus.
#[derive(Debug, Clone)]
pub struct DataReport {
    /// Texts of each class.
    pub classes: Vec<SplitCounts>,
    /// Equal texts of different splits.
    pub quality: DataQuality,
    /// Labelled texts that repeat another, in whatever split.
    pub repeated: usize,
    /// Distinct labelled texts that carry two labels or more.
    pub contradictions: usize,
    /// Labelled texts that are nearly equal to another, which is counted too.
    pub near_duplicates: usize,
    /// Groups of nearly equal texts that carry two labels or more.
    pub near_contradictions: usize,
    /// Training texts that are nearly equal to a text of dev or test.
    pub near_leaks: usize,
    /// Labels that are likely to be wrong, once they were searched for.
    pub suspicious: Option<SuspiciousLabels>,
    /// Accuracy of the linear model on dev.
    pub linear_dev: f64,
}

/// The linear model for a corpus.
pub fn ngram_settings(has_words: bool) -> NgramSettings {
    NgramSettings {
        unit: if has_words {
            NgramUnit::Words
        } else {
            NgramUnit::Characters
        },
        longest: if has_words { 2 } else { 3 },
        epochs: 15,
        buckets: 200_000,
        width: 20,
    }
}

impl DataReport {
    /// Examines a corpus.
    pub fn of(corpus: &Corpus, has_words: bool) -> Result<DataReport> {
        let mut classes = vec![SplitCounts::default(); corpus.labels.len()];
        corpus
            .train
            .iter()
            .for_each(|e| classes[e.label].train += 1);
        corpus.dev.iter().for_each(|e| classes[e.label].dev += 1);
        corpus.test.iter().for_each(|e| classes[e.label].test += 1);
        let near = near_texts(corpus);
        let all_splits = all_in_training(corpus).data_quality();
        let settings = ngram_settings(has_words);
        let linear = NgramModel::train(&corpus.clone().without_leaks().train, settings)?;
        Ok(DataReport {
            classes,
            quality: corpus.data_quality(),
            repeated: all_splits.repeated.train,
            contradictions: all_splits.contradictions,
            near_duplicates: near.in_all,
            near_contradictions: near.contradictions,
            near_leaks: near.in_held_out,
            suspicious: None,
            linear_dev: linear.accuracy(&corpus.dev),
        })
    }

    /// The findings as a table.
    pub fn table(&self, corpus: &Corpus, facts: &CorpusFacts) -> Table {
        let mut table = Table::new(&["finding", "value"]);
        let mut row = |name: &str, value: String| table.push([name.to_owned(), value]);
        let [train, dev, test] = [&corpus.train, &corpus.dev, &corpus.test].map(Vec::len);
        row(
            "texts: training, dev, test",
            format!("{train}, {dev}, {test}"),
        );
        row("classes", corpus.labels.len().to_string());
        row(
            "largest class / smallest class",
            format!("{:.1}", facts.imbalance),
        );
        let small = self.classes.iter().zip(&corpus.labels);
        let small: Vec<&str> = small
            .filter(|(texts, _)| texts.train < LEAST_TEXTS)
            .map(|(_, name)| name.as_str())
            .collect();
        if !small.is_empty() {
            row(
                "classes with fewer than five training texts",
                small.join(", "),
            );
        }
        row(
            "longer than the longest sequence",
            format!(
                "{:.1} % (of {} tokens)",
                100.0 * facts.truncated,
                facts.max_length
            ),
        );
        row(
            "tokens that the teacher's tokenizer does not know",
            format!("{:.2} %", 100.0 * facts.unknown),
        );
        row("texts that repeat another", self.repeated.to_string());
        row(
            "texts nearly equal to another",
            self.near_duplicates.to_string(),
        );
        row("texts with two labels", self.contradictions.to_string());
        row(
            "groups of nearly equal texts with two labels",
            self.near_contradictions.to_string(),
        );
        row(
            "training texts that are in dev or test (left out)",
            (self.quality.train_in_dev + self.quality.train_in_test).to_string(),
        );
        row(
            "training texts nearly equal to one of dev or test",
            self.near_leaks.to_string(),
        );
        row(
            "texts in dev and in test",
            self.quality.dev_in_test.to_string(),
        );
        row("empty texts", self.quality.empty.to_string());
        row(
            "linear model over n-grams: accuracy on dev",
            format!("{:.4}", self.linear_dev),
        );
        if let Some(found) = &self.suspicious {
            if let Some(accuracy) = found.held_out_accuracy {
                row(
                    "linear probe of the teacher before fine-tuning: accuracy on held-out texts",
                    format!("{accuracy:.4}"),
                );
            }
            row(
                "labels that are likely to be wrong",
                format!(
                    "{} of {} that were searched",
                    found.labels.len(),
                    found.searched
                ),
            );
        }
        table
    }
}

/// The corpus with all its texts in the training split.
fn all_in_training(corpus: &Corpus) -> Corpus {
    Corpus {
        train: corpus.examples().cloned().collect(),
        dev: Vec::new(),
        test: Vec::new(),
        ..corpus.clone()
    }
}

struct NearTexts {
    /// Texts that are nearly equal to another.
    in_all: usize,
    /// Groups of nearly equal texts that carry two labels or more.
    contradictions: usize,
    /// Training texts that are nearly equal to one of dev or test.
    in_held_out: usize,
}

/// Counts texts that are nearly equal to others.
fn near_texts(corpus: &Corpus) -> NearTexts {
    let all: Vec<&Example> = corpus.examples().collect();
    let texts = all.iter().map(|e| e.input().texts().collect::<Vec<_>>());
    let texts: Vec<String> = texts.map(|texts| texts.join(" ")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let groups = near_duplicates::groups(&texts);
    let (train, held_out) = groups.split_at(corpus.train.len());
    let held_out: HashSet<usize> = held_out.iter().copied().collect();
    let mut labels_of: HashMap<usize, Vec<usize>> = HashMap::new();
    for (group, example) in groups.iter().zip(&all) {
        labels_of.entry(*group).or_default().push(example.label);
    }
    let sizes = labels_of.values().map(Vec::len);
    let differ = |labels: &&Vec<usize>| labels.iter().any(|label| *label != labels[0]);
    NearTexts {
        in_all: sizes.filter(|size| *size > 1).sum(),
        contradictions: labels_of.values().filter(differ).count(),
        in_held_out: train
            .iter()
            .filter(|group| held_out.contains(group))
            .count(),
    }
}
