//! Texts that are nearly equal: the same sentence with other punctuation, another number or a word
//! changed. A split must not separate them, and a data report counts them. Candidates are found by
//! MinHash (Broder 1997) over character trigrams and then compared exactly.

use std::collections::{HashMap, HashSet};

/// Texts with at least this Jaccard similarity of their trigrams are nearly equal.
pub const SIMILARITY: f64 = 0.8;
/// A signature has this many bands of [`ROWS`] hashes. Two texts of similarity 0.8 share a band
/// with a probability of 0.9998.
const BANDS: usize = 16;
const ROWS: usize = 4;
/// A text is compared with this many texts of a band at most, so that thousands of equal texts cost
/// no millions of comparisons.
const COMPARED: usize = 32;

/// The group of each text. Each text of a group is nearly equal to another one of it. A group's
/// number is that of its first text.
///
/// ```
/// use kd_lib::data::near_duplicates::groups;
/// let texts = ["Who wrote the novel Emma?", "who wrote the novel, Emma", "How far is the moon?"];
/// assert_eq!(groups(&texts), [0, 0, 2]);
/// ```
pub fn groups(texts: &[&str]) -> Vec<usize> {
    let trigrams: Vec<HashSet<u64>> = texts.iter().map(|text| trigrams(text)).collect();
    let mut parents: Vec<usize> = (0..texts.len()).collect();
    for band in 0..BANDS {
        let mut buckets: HashMap<[u64; ROWS], Vec<usize>> = HashMap::new();
        for (text, grams) in trigrams.iter().enumerate() {
            let signature = std::array::from_fn(|row| smallest(grams, (band * ROWS + row) as u64));
            let bucket = buckets.entry(signature).or_default();
            for &other in bucket.iter().take(COMPARED) {
                let (a, b) = (root(&mut parents, text), root(&mut parents, other));
                if a != b && jaccard(grams, &trigrams[other]) >= SIMILARITY {
                    parents[a.max(b)] = a.min(b);
                }
            }
            bucket.push(text);
        }
    }
    (0..texts.len())
        .map(|text| root(&mut parents, text))
        .collect()
}

/// The first text of a text's group.
fn root(parents: &mut [usize], mut text: usize) -> usize {
    while parents[text] != text {
        parents[text] = parents[parents[text]];
        text = parents[text];
    }
    text
}

/// Hashes of a text's character trigrams, without case, punctuation and spaces. A text of fewer
/// than three letters is one gram.
fn trigrams(text: &str) -> HashSet<u64> {
    let lower = text.to_lowercase();
    let letters: Vec<char> = lower.chars().filter(|c| c.is_alphanumeric()).collect();
    match letters.len() {
        0 => HashSet::from([hash(text.chars())]),
        1 | 2 => HashSet::from([hash(letters.into_iter())]),
        _ => letters
            .windows(3)
            .map(|gram| hash(gram.iter().copied()))
            .collect(),
    }
}

/// FNV-1a over characters: the same on every machine and in every version.
fn hash(characters: impl Iterator<Item = char>) -> u64 {
    characters.fold(0xcbf2_9ce4_8422_2325, |hash, character| {
        (hash ^ u64::from(u32::from(character))).wrapping_mul(0x0100_0000_01b3)
    })
}

/// The smallest value of one of the MinHash functions over a set.
fn smallest(grams: &HashSet<u64>, function: u64) -> u64 {
    let mix = |gram: &u64| {
        // The finaliser of SplitMix64.
        let mut z = gram ^ (function + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    grams.iter().map(mix).min().unwrap_or_default()
}

fn jaccard(a: &HashSet<u64>, b: &HashSet<u64>) -> f64 {
    let common = a.intersection(b).count();
    common as f64 / (a.len() + b.len() - common).max(1) as f64
}
