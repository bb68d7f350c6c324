//! Counts what can mislead an experiment: repeated texts, texts that leak from one split into
//! another, equal texts with different labels, empty texts. A pair counts as one text. This module
//! removes nothing; [`Corpus::without_leaks`] does.

use super::corpus::{Corpus, Split};
use super::text_files::Example;
use super::text_input::TextInput;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// Counts of suspicious lines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataQuality {
    /// Lines that repeat an earlier line of the same split.
    pub repeated: SplitCounts,
    /// Training lines whose text is in dev too.
    pub train_in_dev: usize,
    /// Training lines whose text is in test too.
    pub train_in_test: usize,
    /// Development lines whose text is in test too.
    pub dev_in_test: usize,
    /// Distinct training texts that carry two labels or more.
    pub contradictions: usize,
    /// Empty texts over all splits; a student reads one unknown character, a BERT its prefix alone.
    pub empty: usize,
}

/// A count for each split.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitCounts {
    /// Of the training split.
    pub train: usize,
    /// Of the development split.
    pub dev: usize,
    /// Of the test split.
    pub test: usize,
}

impl Corpus {
    /// Duplicates, leaks and contradictions over all three splits.
    pub fn data_quality(&self) -> DataQuality {
        let texts = |split| {
            self.split(split)
                .iter()
                .map(Example::input)
                .collect::<HashSet<_>>()
        };
        let (train, dev, test) = (texts(Split::Train), texts(Split::Dev), texts(Split::Test));
        let recur = |split, other: &HashSet<TextInput>| {
            self.split(split)
                .iter()
                .filter(|e| other.contains(&e.input()))
                .count()
        };
        DataQuality {
            repeated: SplitCounts {
                train: self.train.len() - train.len(),
                dev: self.dev.len() - dev.len(),
                test: self.test.len() - test.len(),
            },
            train_in_dev: recur(Split::Train, &dev),
            train_in_test: recur(Split::Train, &test),
            dev_in_test: recur(Split::Dev, &test),
            contradictions: contradictions(&self.train),
            empty: self.examples().filter(|e| e.input().is_empty()).count(),
        }
    }
}

fn contradictions(examples: &[Example]) -> usize {
    let mut labels: HashMap<TextInput, HashSet<usize>> = HashMap::new();
    examples
        .iter()
        .for_each(|e| _ = labels.entry(e.input()).or_default().insert(e.label));
    labels.values().filter(|l| l.len() > 1).count()
}
