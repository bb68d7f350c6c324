//! The transfer set: texts beside the labelled ones, for a teacher to label (Hinton et al. 2015, section 2; Tang et
//! al. 2019, section 3.3). Unlabelled lines of a file, training texts whose labels are left out, and texts made of
//! others, character by character. Which texts are made is a function of their sources alone, not of a run's
//! seed, so that a teacher reads each once for all seeds.

use super::corpus::{Corpus, Example};
use super::format::{one_line, read_lines};
use crate::Result;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::PathBuf;

/// Stands for a masked character; texts seldom have it, so that encoders read an unknown one.
const MASK: char = '\u{25A1}';
/// A made text that shares more of its pairs of neighbours with its source than this teaches little new.
const TOO_LIKE: f64 = 0.9;
/// Characters of a graft: a word has seldom more.
const LONGEST_GRAFT: usize = 4;
/// Attempts at a text that is new.
const ATTEMPTS: usize = 8;

/// Which texts join the labelled ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// A file of unlabelled texts, one a line.
    pub file: Option<PathBuf>,
    /// The training texts whose labels `data.labelled` leaves out.
    #[serde(default)]
    pub rest: bool,
    /// Texts to make of each text.
    #[serde(default)]
    pub made: usize,
    /// How: each made text draws one of these.
    #[serde(default = "all_ways")]
    pub ways: Vec<Way>,
    /// Give a made text the label of its source; else none has a label but the teacher's.
    #[serde(default)]
    pub keep_labels: bool,
}

/// One way to make a text of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// A sixth of the characters is masked, one at least.
    Mask,
    /// A span of half to nine tenths of it.
    Crop,
    /// Its beginning, followed by the end of another text.
    Splice,
    /// Its two parts, the second first.
    Swap,
    /// A span of one to four characters from another text in place of as many of its own.
    Graft,
}

fn all_ways() -> Vec<Way> {
    vec![Way::Mask, Way::Crop, Way::Splice, Way::Swap]
}

/// A text of the transfer set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extra {
    /// The text.
    pub text: String,
    /// Its class, where it has one.
    pub label: Option<usize>,
    /// Whether it was made of another.
    pub made: bool,
}

impl Transfer {
    /// The transfer set of a corpus, whose training split is what is labelled; `rest` are texts whose labels are left out. No
    /// text recurs in it, nor in training or among the texts held out, with a blank at an end or without.
    pub fn gather(&self, corpus: &Corpus, rest: &[Example]) -> Result<Vec<Extra>> {
        let examples = corpus.train.iter().chain(&corpus.dev).chain(&corpus.test);
        let mut seen: HashSet<String> = examples.map(|e| e.text.clone()).collect();
        let from_file = self.file.as_ref().map(|path| read_lines(path)).transpose()?.unwrap_or_default();
        let from_rest = rest.iter().filter(|_| self.rest).map(|e| e.text.clone());
        let unlabelled = from_file.into_iter().map(|line| one_line(&line)).chain(from_rest);
        let unlabelled = unlabelled.filter(|text| !text.is_empty() && seen.insert(text.clone()));
        let mut extras: Vec<Extra> = unlabelled.map(|text| Extra { text, label: None, made: false }).collect();
        let labelled = corpus.train.iter().map(|e| (e.text.as_str(), Some(e.label).filter(|_| self.keep_labels)));
        let sources: Vec<(Vec<char>, Option<usize>)> = labelled
            .chain(extras.iter().map(|e| (e.text.as_str(), None)))
            .map(|(text, label)| (text.chars().collect(), label))
            .collect();
        let (given, mut random) = (seen.clone(), ChaCha8Rng::seed_from_u64(0));
        for _ in 0..self.made {
            for (source, label) in &sources {
                let mut attempt = || self.make(source, &sources, &mut random);
                let mut is_new = |text: &String| !given.contains(text.trim()) && seen.insert(text.clone());
                let new = (0..ATTEMPTS).find_map(|_| attempt().filter(&mut is_new));
                extras.extend(new.map(|text| Extra { text, label: *label, made: true }));
            }
        }
        Ok(extras)
    }

    /// A text made of `source`, if it is neither empty nor nearly the same.
    fn make(&self, source: &[char], all: &[(Vec<char>, Option<usize>)], random: &mut impl Rng) -> Option<String> {
        let length = source.len();
        let cut = if length < 2 { return None } else { random.random_range(1..length) };
        let made: Vec<char> = match self.ways.choose(random)? {
            Way::Mask => {
                let always = random.random_range(0..length);
                let hidden = |at: usize, random: &mut _| at == always || Rng::random_ratio(random, 1, 6);
                source.iter().enumerate().map(|(at, &c)| if hidden(at, random) { MASK } else { c }).collect()
            }
            Way::Crop => {
                let kept = (length as f64 * random.random_range(0.5..0.9)).ceil() as usize;
                let start = random.random_range(0..=length - kept);
                source[start..start + kept].to_vec()
            }
            Way::Splice => {
                let other = &all.choose(random)?.0;
                [&source[..cut], &other[other.len() * cut / length..]].concat()
            }
            Way::Graft => {
                let other = &all.choose(random)?.0;
                let widest = LONGEST_GRAFT.min(length - 1).min(other.len());
                let width = random.random_range(widest.min(1)..=widest);
                let from = random.random_range(0..=other.len() - width);
                let to = random.random_range(0..=length - width);
                [&source[..to], &other[from..from + width], &source[to + width..]].concat()
            }
            Way::Swap => [&source[cut..], &source[..cut]].concat(),
        };
        (likeness(source, &made) <= TOO_LIKE).then(|| made.into_iter().collect())
    }
}

/// Share of neighbouring pairs of characters that two texts have in common (Jaccard).
fn likeness(a: &[char], b: &[char]) -> f64 {
    let pairs = |text: &[char]| text.windows(2).map(|w| [w[0], w[1]]).collect::<HashSet<_>>();
    let (a, b) = (pairs(a), pairs(b));
    let common = a.intersection(&b).count();
    common as f64 / (a.len() + b.len() - common).max(1) as f64
}
