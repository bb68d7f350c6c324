//! The transfer set: texts that a student reads in addition to the labelled ones (Hinton et al.
//! 2015, section 2; Tang et al. 2019, section 3.3). A teacher labels them, augmented
//! texts keep the label of their source, or both. It holds unlabelled lines of a file, training texts whose labels are
//! not used, and augmented texts, which are made of others character by character or word by word.
//! Augmentation changes one text of a pair: first texts are made of first texts, second texts of
//! second texts. The augmented texts depend on all texts of the run and on its `[transfer]`
//! settings, not on its seed. So a teacher computes each text's logits once for all seeds.

use super::config::check_count;
use super::corpus::Corpus;
use super::splits::draw_at_most;
use super::text_files::Example;
use super::text_input::{TextInput, TextKey};
use super::transfer_text::TransferText;
use super::unlabelled::UnlabelledFile;
use crate::{Error, Result};
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::hash::Hash;
use std::path::PathBuf;

/// Stands for a masked character or word. It is rare in texts; most tokenizers read it as unknown.
const MASK: char = '\u{25A1}';
/// An augmented text whose bigram Jaccard similarity to its source exceeds this teaches little.
const MAX_SIMILARITY: f64 = 0.9;
/// Longest replaced span: a Chinese word seldom has more characters.
const MAX_SPAN: usize = 4;
/// Attempts to make an augmented text that is new.
const ATTEMPTS: usize = 8;

/// Which texts join the labelled ones: `[transfer]` in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TransferConfig {
    /// A file of unlabelled texts, one per line; of pairs `text<TAB>text_pair`.
    pub unlabelled_file: Option<PathBuf>,
    /// Take at most this many texts of the file, drawn with a fixed seed; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unlabelled_samples: Option<usize>,
    /// Add the training texts whose labels `data.label_fraction` leaves unused.
    #[serde(default)]
    pub unlabelled_train: bool,
    /// Augmented texts to make of each text.
    #[serde(default)]
    pub augmentations_per_text: usize,
    /// The kinds of augmentation; each attempt to make an augmented text draws one of them.
    #[serde(default = "default_augmentations")]
    pub augmentations: Vec<Augmentation>,
    /// What augmentation masks, moves and replaces.
    #[serde(default, skip_serializing_if = "AugmentationUnit::is_character")]
    pub augmentation_unit: AugmentationUnit,
    /// Give an augmented text the label of its source. Otherwise only the teacher labels it.
    #[serde(default)]
    pub augmentations_keep_label: bool,
}

/// What augmentation masks, moves and replaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AugmentationUnit {
    /// Characters, for texts without spaces between words.
    #[default]
    Character,
    /// Words, which spaces separate.
    Word,
}

impl AugmentationUnit {
    /// Whether it is [`AugmentationUnit::Character`].
    pub fn is_character(&self) -> bool {
        *self == AugmentationUnit::Character
    }
}

/// One way to make an augmented text. Below, "unit" is a character or a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Augmentation {
    /// Masks one unit, and each other unit with probability 1/6.
    Mask,
    /// Keeps a span of half to nine tenths of the text, rounded up.
    SpanCrop,
    /// The beginning of the text, followed by the end of a text drawn at random (it can be the same
    /// one), cut at the same relative position.
    Crossover,
    /// Rotates the text at a random position: the second part comes first.
    Rotation,
    /// Replaces a span of one to four units by a span of a text drawn at random.
    SpanReplacement,
}

fn default_augmentations() -> Vec<Augmentation> {
    vec![
        Augmentation::Mask,
        Augmentation::SpanCrop,
        Augmentation::Crossover,
        Augmentation::Rotation,
    ]
}

/// A transfer set, and what was left out of it.
#[derive(Debug, Clone)]
pub struct TransferSet {
    /// The texts.
    pub texts: Vec<TransferText>,
    /// What became of the unlabelled lines, in sentences.
    pub notices: Vec<String>,
}

/// What texts are made of: characters or words.
trait Unit: Clone + Eq + Hash {
    fn mask() -> Self;
    fn split(text: &str) -> Vec<Self>;
    fn join(units: &[Self]) -> String;
}

impl Unit for char {
    fn mask() -> char {
        MASK
    }

    fn split(text: &str) -> Vec<char> {
        text.chars().collect()
    }

    fn join(units: &[char]) -> String {
        units.iter().collect()
    }
}

impl Unit for String {
    fn mask() -> String {
        MASK.to_string()
    }

    fn split(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn join(units: &[String]) -> String {
        units.join(" ")
    }
}

/// A text or pair that augmentations start from.
struct Source<U> {
    /// Units of its one or two texts.
    texts: Vec<Vec<U>>,
    label: Option<usize>,
}

/// No texts.
impl Default for TransferConfig {
    fn default() -> TransferConfig {
        TransferConfig {
            unlabelled_file: None,
            max_unlabelled_samples: None,
            unlabelled_train: false,
            augmentations_per_text: 0,
            augmentations: default_augmentations(),
            augmentation_unit: AugmentationUnit::Character,
            augmentations_keep_label: false,
        }
    }
}

impl TransferConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// If a value is out of range or contradicts another one.
    pub fn validate(&self, has_teacher: bool) -> Result<()> {
        check_count("transfer.augmentations", self.augmentations.len())?;
        let most = self.max_unlabelled_samples.unwrap_or(1);
        check_count("transfer.max_unlabelled_samples", most)?;
        let only_teacher_labels = self.unlabelled_file.is_some()
            || self.unlabelled_train
            || !self.augmentations_keep_label;
        if !has_teacher && only_teacher_labels {
            let fix = "only a teacher labels these texts: name one, or set \
                       transfer.augmentations_keep_label = true";
            return Err(Error::recipe("transfer", "no teacher", fix));
        }
        Ok(())
    }

    /// The transfer set of a corpus whose training split is labelled. `unlabelled_train` are the
    /// training texts whose labels are not used. No two texts of the set are equal. None equals a
    /// training, dev or test text after trimming.
    pub fn build(
        &self,
        corpus: &Corpus,
        unlabelled_train: &[Example],
    ) -> Result<Vec<TransferText>> {
        Ok(self.build_with_notices(corpus, unlabelled_train)?.texts)
    }

    /// The transfer set with a notice that counts the lines of the file of unlabelled texts.
    pub fn build_with_notices(
        &self,
        corpus: &Corpus,
        unlabelled_train: &[Example],
    ) -> Result<TransferSet> {
        let mut existing: HashSet<TextKey> = corpus.examples().map(|e| e.input().key()).collect();
        let mut notices = Vec::new();
        let mut set =
            self.unlabelled_texts(corpus, unlabelled_train, &mut existing, &mut notices)?;
        match self.augmentation_unit {
            AugmentationUnit::Character => self.add_augmented::<char>(corpus, existing, &mut set),
            AugmentationUnit::Word => self.add_augmented::<String>(corpus, existing, &mut set),
        }
        Ok(TransferSet {
            texts: set,
            notices,
        })
    }

    /// Adds augmented texts, of the training texts and of those of the set. None of them is
    /// among the `existing` texts.
    fn add_augmented<U: Unit>(
        &self,
        corpus: &Corpus,
        mut existing: HashSet<TextKey>,
        set: &mut Vec<TransferText>,
    ) {
        let mut sources: Vec<Source<U>> = Vec::new();
        for example in &corpus.train {
            let label = self.augmentations_keep_label.then_some(example.label);
            sources.push(Source::new(example.input(), label));
        }
        for text in set.iter() {
            sources.push(Source::new(text.input(), None));
        }
        // Texts of a corpus and unlabelled texts are trimmed, so an augmented text is trimmed too
        // before it is compared with them: whitespace at an end must not hide a dev or test text.
        // Augmented texts are compared with one another as they are: trimming them here as well
        // could change the texts of stored runs, whose ids would stay the same.
        let originals = existing.clone();
        let mut random = ChaCha8Rng::seed_from_u64(0);
        for _ in 0..self.augmentations_per_text {
            for source in &sources {
                for _ in 0..ATTEMPTS {
                    let Some(augmented) = self.augment(source, &sources, &mut random) else {
                        continue;
                    };
                    let trimmed = TextInput {
                        text: augmented.text.trim(),
                        text_pair: augmented.text_pair.as_deref().map(str::trim),
                    };
                    if originals.contains(&trimmed.key())
                        || !existing.insert(augmented.input().key())
                    {
                        continue;
                    }
                    set.push(augmented);
                    break;
                }
            }
        }
    }

    /// Unlabelled texts of the file and of the training split that were not seen before.
    fn unlabelled_texts(
        &self,
        corpus: &Corpus,
        unlabelled_train: &[Example],
        seen: &mut HashSet<TextKey>,
        notices: &mut Vec<String>,
    ) -> Result<Vec<TransferText>> {
        let mut texts = Vec::new();
        if let Some(path) = &self.unlabelled_file {
            let file = UnlabelledFile::open(path, corpus)?;
            let mut usable = file.usable(seen)?;
            let number = usable.len();
            self.draw_unlabelled(&mut usable);
            for at in usable {
                texts.push(file.text(at)?);
            }
            notices.push(format!(
                "unlabelled texts: {} lines; {} are empty, repeat another or are in the labelled \
                 texts, {} are over transfer.max_unlabelled_samples, {} are used",
                file.lines(),
                file.lines() - number,
                number - texts.len(),
                texts.len()
            ));
        }
        if self.unlabelled_train {
            for example in unlabelled_train {
                let (text, text_pair) = (example.text.clone(), example.text_pair.clone());
                let text = TransferText::unlabelled(text, text_pair);
                if text.insert_if_new(seen) {
                    texts.push(text);
                }
            }
        }
        Ok(texts)
    }

    /// Keeps `max_unlabelled_samples` lines in their order.
    fn draw_unlabelled(&self, lines: &mut Vec<usize>) {
        if let Some(most) = self.max_unlabelled_samples {
            *lines = draw_at_most(std::mem::take(lines).into_iter(), most).collect();
        }
    }

    /// One attempt at an augmented text. None if the source has fewer than two units, if there is
    /// no augmentation to draw, or if the result is nearly equal to the source.
    fn augment<U: Unit>(
        &self,
        source: &Source<U>,
        all: &[Source<U>],
        random: &mut ChaCha8Rng,
    ) -> Option<TransferText> {
        // Which text of a pair is changed.
        let changed = match source.texts.len() {
            1 => 0,
            texts => random.random_range(0..texts),
        };
        let text = &source.texts[changed];
        if text.len() < 2 {
            return None;
        }
        // Only crossover and rotation use it, but it is drawn for every kind: another order of
        // draws would give stored runs other texts, and their ids would stay the same.
        let cut = random.random_range(1..text.len());
        let augmented = match self.augmentations.choose(random)? {
            Augmentation::Mask => mask(text, random),
            Augmentation::SpanCrop => span_crop(text, random),
            Augmentation::Crossover => crossover(text, cut, &all.choose(random)?.texts[changed]),
            Augmentation::Rotation => [&text[cut..], &text[..cut]].concat(),
            Augmentation::SpanReplacement => {
                let other = &all.choose(random)?.texts[changed];
                span_replacement(text, other, random)
            }
        };
        let differs_enough = bigram_jaccard(text, &augmented) <= MAX_SIMILARITY;
        if !differs_enough {
            return None;
        }
        let mut texts: Vec<String> = Vec::new();
        for (number, original) in source.texts.iter().enumerate() {
            let is_changed = number == changed;
            texts.push(U::join(if is_changed { &augmented } else { original }));
        }
        let mut texts = texts.into_iter();
        Some(TransferText {
            text: texts.next()?,
            text_pair: texts.next(),
            label: source.label,
            augmented: true,
        })
    }
}

impl<U: Unit> Source<U> {
    fn new(input: TextInput, label: Option<usize>) -> Source<U> {
        Source {
            texts: input.texts().map(U::split).collect(),
            label,
        }
    }
}

fn mask<U: Unit>(text: &[U], random: &mut ChaCha8Rng) -> Vec<U> {
    let always_masked = random.random_range(0..text.len());
    let mut masked = text.to_vec();
    for (at, unit) in masked.iter_mut().enumerate() {
        if at == always_masked || random.random_ratio(1, 6) {
            *unit = U::mask();
        }
    }
    masked
}

fn span_crop<U: Unit>(text: &[U], random: &mut ChaCha8Rng) -> Vec<U> {
    let kept = (text.len() as f64 * random.random_range(0.5..0.9)).ceil() as usize;
    let start = random.random_range(0..=text.len() - kept);
    text[start..start + kept].to_vec()
}

/// The text up to `cut`, and the other text from the same relative position.
fn crossover<U: Unit>(text: &[U], cut: usize, other: &[U]) -> Vec<U> {
    [&text[..cut], &other[other.len() * cut / text.len()..]].concat()
}

fn span_replacement<U: Unit>(text: &[U], other: &[U], random: &mut ChaCha8Rng) -> Vec<U> {
    let widest = MAX_SPAN.min(text.len() - 1).min(other.len());
    // 0 only if the other text has no unit.
    let width = random.random_range(widest.min(1)..=widest);
    let from = random.random_range(0..=other.len() - width);
    let to = random.random_range(0..=text.len() - width);
    [&text[..to], &other[from..from + width], &text[to + width..]].concat()
}

/// Jaccard similarity of two texts' sets of neighbouring pairs.
fn bigram_jaccard<U: Unit>(a: &[U], b: &[U]) -> f64 {
    let (a, b): (HashSet<&[U]>, HashSet<&[U]>) = (a.windows(2).collect(), b.windows(2).collect());
    let common = a.intersection(&b).count();
    common as f64 / (a.len() + b.len() - common).max(1) as f64
}
