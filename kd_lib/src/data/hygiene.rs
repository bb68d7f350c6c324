//! What a careful reader checks before training: texts that stand twice, texts that leak from one split
//! into another, and equal texts with different labels. This module counts; it removes nothing.

use super::corpus::{Corpus, Example, Split};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// Counts of lines that should make a reader pause.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hygiene {
    /// Lines that repeat an earlier line of the same split: train, dev, test.
    pub repeated: [usize; 3],
    /// Training lines whose text stands in dev too.
    pub train_in_dev: usize,
    /// Training lines whose text stands in test too.
    pub train_in_test: usize,
    /// Development lines whose text stands in test too.
    pub dev_in_test: usize,
    /// Distinct training texts that carry two labels or more.
    pub contradictions: usize,
    /// Empty texts over all splits; a student reads one unknown character, a BERT its prefix alone.
    pub empty: usize,
}

impl Corpus {
    /// Duplicates, leaks and contradictions over all three splits.
    pub fn hygiene(&self) -> Hygiene {
        let texts = |split| self.split(split).iter().map(|e| e.text.as_str()).collect::<HashSet<_>>();
        let (train, dev, test) = (texts(Split::Train), texts(Split::Dev), texts(Split::Test));
        let recur =
            |split, other: &HashSet<&str>| self.split(split).iter().filter(|e| other.contains(&*e.text)).count();
        Hygiene {
            repeated: [self.train.len() - train.len(), self.dev.len() - dev.len(), self.test.len() - test.len()],
            train_in_dev: recur(Split::Train, &dev),
            train_in_test: recur(Split::Train, &test),
            dev_in_test: recur(Split::Dev, &test),
            contradictions: contradictions(&self.train),
            empty: self.train.iter().chain(&self.dev).chain(&self.test).filter(|e| e.text.is_empty()).count(),
        }
    }
}

fn contradictions(examples: &[Example]) -> usize {
    let mut labels: HashMap<&str, HashSet<usize>> = HashMap::new();
    examples.iter().for_each(|e| _ = labels.entry(&e.text).or_default().insert(e.label));
    labels.values().filter(|l| l.len() > 1).count()
}
