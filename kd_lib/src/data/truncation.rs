//! Which part of a sequence is kept if it is longer than the model's maximum length. The
//! tokenizers call it.

use serde::{Deserialize, Serialize};

/// The part of a too long sequence that is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Truncation {
    /// Its beginning.
    #[default]
    Head,
    /// Its beginning and its end, half of each (Sun et al. 2019, section 5.3.1).
    HeadTail,
}

/// How many entries at each end of a sequence are special tokens, which truncation keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// At the beginning.
    pub front: usize,
    /// At the end.
    pub back: usize,
}

impl SpecialTokens {
    /// A character sequence has none.
    pub const NONE: SpecialTokens = SpecialTokens { front: 0, back: 0 };
    /// A BERT sequence begins with one and ends with one.
    pub const BERT: SpecialTokens = SpecialTokens { front: 1, back: 1 };
}

/// How many tokens of each text of a pair are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairLengths {
    /// Of the first text.
    pub first: usize,
    /// Of the second text.
    pub second: usize,
}

/// The lengths that fit into `budget` tokens if the longer text is cut first (`longest_first` of
/// Hugging Face's tokenizers). Where both must be cut, each gets half; the longer text gets the odd
/// token.
pub fn longest_first(first: usize, second: usize, budget: usize) -> PairLengths {
    let (shorter, longer) = (first.min(second), first.max(second));
    let (mut short, mut long) = (shorter, longer.min(budget.saturating_sub(shorter)));
    if long < short {
        short = budget / 2;
        long = budget - short;
    }
    if first > second {
        PairLengths {
            first: long,
            second: short,
        }
    } else {
        PairLengths {
            first: short,
            second: long,
        }
    }
}

impl Truncation {
    /// Whether only the beginning is kept.
    pub fn is_head(&self) -> bool {
        *self == Truncation::Head
    }

    /// Truncates a sequence to `max_length` entries; special tokens are always kept.
    pub fn apply<T: Clone>(
        self,
        mut ids: Vec<T>,
        max_length: usize,
        special: SpecialTokens,
    ) -> Vec<T> {
        let length = ids.len();
        if length <= max_length {
            return ids;
        }
        let inner = max_length.saturating_sub(special.front + special.back);
        let tail = match self {
            Truncation::Head => 0,
            Truncation::HeadTail => inner / 2,
        };
        ids.drain(special.front + inner - tail..length - special.back - tail);
        ids
    }
}
