//! A text of the transfer set: unlabelled or augmented. [`super::transfer_set`] builds it.

use super::text_input::{TextInput, TextKey};
use std::collections::HashSet;

/// A text of the transfer set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferText {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub text_pair: Option<String>,
    /// Its class, if it has one.
    pub label: Option<usize>,
    /// Whether it is augmented, that is, made of another text.
    pub augmented: bool,
}

impl TransferText {
    /// What a model reads of it.
    pub fn input(&self) -> TextInput<'_> {
        TextInput {
            text: &self.text,
            text_pair: self.text_pair.as_deref(),
        }
    }

    /// A real text without a class.
    pub(crate) fn unlabelled(text: String, text_pair: Option<String>) -> TransferText {
        TransferText {
            text,
            text_pair,
            label: None,
            augmented: false,
        }
    }

    /// Adds the text to `seen`. Returns whether it is new and not empty.
    pub(crate) fn insert_if_new(&self, seen: &mut HashSet<TextKey>) -> bool {
        !self.input().is_empty() && seen.insert(self.input().key())
    }
}
