//! What a model reads of one example: a text, and a second one where the task compares two (a
//! question and an answer, two sentences). Two inputs are equal if both of their texts are, in this
//! order. This module knows no tokens.

/// A text, and the second text of a pair.
///
/// ```
/// use kd_lib::data::TextInput;
/// let single = TextInput::from("足球");
/// let pair = TextInput { text: "足球", text_pair: Some("篮球") };
/// assert!(single.text_pair.is_none() && single != pair);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TextInput<'a> {
    /// The text, or the first of a pair.
    pub text: &'a str,
    /// The second text of a pair.
    pub text_pair: Option<&'a str>,
}

impl<'a> From<&'a str> for TextInput<'a> {
    fn from(text: &'a str) -> TextInput<'a> {
        TextInput {
            text,
            text_pair: None,
        }
    }
}

/// 128 bits of an input's hash: what caches and folds know it by.
pub type TextKey = [i64; 2];

impl<'a> TextInput<'a> {
    /// Its one or two texts.
    pub fn texts(self) -> impl Iterator<Item = &'a str> {
        std::iter::once(self.text).chain(self.text_pair)
    }

    /// Whether there is nothing to read.
    pub fn is_empty(self) -> bool {
        self.texts().all(str::is_empty)
    }

    /// Bytes of its texts.
    pub fn len(self) -> usize {
        self.texts().map(str::len).sum()
    }

    /// Its key.
    pub fn key(self) -> TextKey {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.text.as_bytes());
        if let Some(second) = self.text_pair {
            // No text of a corpus has a control character, so this cannot be a text's own.
            hasher.update(b"\0");
            hasher.update(second.as_bytes());
        }
        let hash = hasher.finalize();
        [0, 8].map(|at| i64::from_le_bytes(std::array::from_fn(|i| hash.as_bytes()[at + i])))
    }

    /// The fold, of `folds`, that it belongs to: a function of its texts alone.
    pub fn fold(self, folds: usize) -> usize {
        self.key()[0].rem_euclid(folds.max(1) as i64) as usize
    }
}
