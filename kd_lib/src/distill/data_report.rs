//! What a person should know of a corpus before it is trained on: balance, lengths, duplicates, leaks,
//! labels that are likely to be wrong. Nothing is removed here. [`crate::data::data_quality`] counts
//! equal texts; this module finds nearly equal ones too.

use super::facts::CorpusFacts;
use super::ngram_model::{NgramModel, NgramSettings, NgramUnit};
use crate::Result;
use crate::data::data_quality::DataQuality;
use crate::data::{Corpus, Example, near_duplicates};
use crate::store::Table;
use std::collections::HashMap;

/// Folds of the search for suspicious labels: each text is judged by a model that did not see it.
const FOLDS: usize = 5;
/// A label is suspicious if another class has at least this probability.
const CERTAIN: f64 = 0.9;
/// Suspicious labels are looked for among so many training texts: the search takes seconds then.
const SEARCHED_TEXTS: usize = 20_000;
/// Suspicious labels that are listed.
const LISTED: usize = 30;
/// A class with fewer training texts than this cannot be judged.
const LEAST_TEXTS: usize = 5;

/// Findings about a corpus.
#[derive(Debug, Clone)]
pub struct DataReport {
    /// Texts of each class: training, dev, test.
    pub classes: Vec<[usize; 3]>,
    /// Equal texts.
    pub quality: DataQuality,
    /// Training texts that are nearly equal to another training text.
    pub near_duplicates: usize,
    /// Training texts that are nearly equal to a text of dev or test.
    pub near_leaks: usize,
    /// Training texts whose label is suspicious, the most suspicious first.
    pub suspicious: Vec<SuspiciousLabel>,
    /// Accuracy of the linear model on dev.
    pub linear_dev: f64,
}

/// A training text whose label does not fit its n-grams.
#[derive(Debug, Clone, PartialEq)]
pub struct SuspiciousLabel {
    /// Line in its file.
    pub line: usize,
    /// The text.
    pub text: String,
    /// Its label.
    pub label: usize,
    /// Class that a linear model predicts that did not train on this text.
    pub predicted: usize,
    /// Its probability.
    pub probability: f64,
}

/// The linear model for a corpus.
pub fn ngram_settings(has_words: bool) -> NgramSettings {
    NgramSettings {
        unit: match has_words {
            true => NgramUnit::Words,
            false => NgramUnit::Characters,
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
        let mut classes = vec![[0; 3]; corpus.labels.len()];
        for (split, examples) in [&corpus.train, &corpus.dev, &corpus.test]
            .into_iter()
            .enumerate()
        {
            examples.iter().for_each(|e| classes[e.label][split] += 1);
        }
        let near = near_texts(corpus);
        let settings = ngram_settings(has_words);
        let linear = NgramModel::train(&corpus.clone().without_leaks().train, settings)?;
        Ok(DataReport {
            classes,
            quality: corpus.data_quality(),
            near_duplicates: near.in_train,
            near_leaks: near.in_held_out,
            suspicious: suspicious_labels(corpus, settings)?,
            linear_dev: linear.accuracy(&corpus.dev),
        })
    }

    /// The largest class's training texts divided by the smallest one's.
    pub fn imbalance(&self) -> f64 {
        let counts = self.classes.iter().map(|[train, ..]| *train);
        let smallest = counts.clone().min().unwrap_or_default().max(1);
        counts.max().unwrap_or_default() as f64 / smallest as f64
    }

    /// The findings as a table.
    pub fn table(&self, corpus: &Corpus, facts: &CorpusFacts) -> Table {
        let mut table = Table::new(&["finding", "value"]);
        let mut row = |name: &str, value: String| table.rows.push(vec![name.into(), value.into()]);
        let [train, dev, test] = [&corpus.train, &corpus.dev, &corpus.test].map(Vec::len);
        row(
            "texts: training, dev, test",
            format!("{train}, {dev}, {test}"),
        );
        row("classes", corpus.labels.len().to_string());
        row(
            "largest class / smallest class",
            format!("{:.1}", self.imbalance()),
        );
        let small = self.classes.iter().zip(&corpus.labels);
        let small: Vec<&str> = small
            .filter(|([train, ..], _)| *train < LEAST_TEXTS)
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
        row(
            "training texts that repeat another",
            self.quality.repeated.train.to_string(),
        );
        row(
            "training texts nearly equal to another",
            self.near_duplicates.to_string(),
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
        row(
            "training texts with two labels",
            self.quality.contradictions.to_string(),
        );
        row("empty texts", self.quality.empty.to_string());
        row(
            "labels that are likely to be wrong",
            self.suspicious.len().to_string(),
        );
        row(
            "linear model over n-grams: accuracy on dev",
            format!("{:.4}", self.linear_dev),
        );
        table
    }

    /// The most suspicious labels as a table.
    pub fn suspicious_table(&self, corpus: &Corpus) -> Table {
        let mut table = Table::new(&["line", "text", "label", "n-grams say", "probability"]);
        for suspicious in self.suspicious.iter().take(LISTED) {
            table.rows.push(vec![
                suspicious.line.to_string().into(),
                suspicious.text.chars().take(160).collect::<String>().into(),
                corpus.labels[suspicious.label].as_str().into(),
                corpus.labels[suspicious.predicted].as_str().into(),
                format!("{:.3}", suspicious.probability).into(),
            ]);
        }
        table
    }
}

struct NearTexts {
    in_train: usize,
    in_held_out: usize,
}

/// Counts training texts that are nearly equal to others.
fn near_texts(corpus: &Corpus) -> NearTexts {
    let all = [&corpus.train, &corpus.dev, &corpus.test]
        .into_iter()
        .flatten();
    let texts: Vec<String> = all
        .map(|e| e.input().texts().collect::<Vec<_>>().join(" "))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let groups = near_duplicates::groups(&texts);
    let (mut of_train, mut of_held_out) = (HashMap::new(), HashMap::new());
    for (at, group) in groups.iter().enumerate() {
        let counts = match at < corpus.train.len() {
            true => &mut of_train,
            false => &mut of_held_out,
        };
        *counts.entry(*group).or_insert(0) += 1;
    }
    let train = &groups[..corpus.train.len()];
    NearTexts {
        in_train: train.iter().filter(|group| of_train[*group] > 1).count(),
        in_held_out: train
            .iter()
            .filter(|group| of_held_out.contains_key(*group))
            .count(),
    }
}

/// Training texts to which a linear model that was trained on other texts gives another class, and
/// is certain of it (confident learning, Northcutt et al. 2021, in its simplest form).
fn suspicious_labels(corpus: &Corpus, settings: NgramSettings) -> Result<Vec<SuspiciousLabel>> {
    let searched: Vec<Example> = corpus.train.iter().take(SEARCHED_TEXTS).cloned().collect();
    let mut found = Vec::new();
    for fold in 0..FOLDS {
        let in_fold = |example: &Example| example.input().fold(FOLDS) == fold;
        let (held_out, rest): (Vec<Example>, Vec<Example>) =
            searched.iter().cloned().partition(in_fold);
        if held_out.is_empty() || rest.is_empty() {
            continue;
        }
        let mut known = vec![0; corpus.labels.len()];
        rest.iter().for_each(|example| known[example.label] += 1);
        let model = NgramModel::train(&rest, settings)?;
        for example in held_out {
            let Some(prediction) = model.predict(&example) else {
                continue;
            };
            let can_be_judged = known[example.label] >= LEAST_TEXTS;
            let other = prediction.class != example.label;
            if can_be_judged && other && prediction.probability >= CERTAIN {
                found.push(SuspiciousLabel {
                    line: example.line,
                    label: example.label,
                    predicted: prediction.class,
                    probability: prediction.probability,
                    text: example.text,
                });
            }
        }
    }
    found.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    Ok(found)
}
