//! Draws the splits that a corpus lacks, and folds for cross-validation: by class, with a fixed
//! seed. Near-duplicates stay together, so that no text is tested whose twin was trained on.

use super::corpus::Corpus;
use super::near_duplicates;
use super::text_files::Example;
use crate::{Error, Result};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand::seq::index::sample;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// The fraction of the texts of a class that each held-out split gets.
const HELD_OUT: f64 = 0.1;
/// Seed of the samples of texts: which ones are drawn must not depend on a recipe's seed.
const SAMPLE_SEED: u64 = 0;

/// One fold of a corpus: its texts are the test split, the others are for training and dev.
#[derive(Debug, Clone)]
pub struct Fold {
    /// The corpus with the fold's splits.
    pub corpus: Corpus,
    /// Of each test text, its number among all labelled texts: training, dev, then test texts.
    pub test_rows: Vec<usize>,
}

/// `wanted` of `rows` row numbers, drawn with a fixed seed.
pub(crate) fn sample_rows(rows: usize, wanted: usize) -> HashSet<usize> {
    let mut random = ChaCha8Rng::seed_from_u64(SAMPLE_SEED);
    sample(&mut random, rows, wanted).into_iter().collect()
}

/// At most `most` of these items, drawn with a fixed seed and kept in their order. Every n-th one
/// could miss a class, if a file names its classes in turn.
pub(crate) fn draw_at_most<T>(
    items: impl ExactSizeIterator<Item = T>,
    most: usize,
) -> impl Iterator<Item = T> {
    let drawn = sample_rows(items.len(), most.min(items.len()));
    let numbered = items.enumerate();
    numbered.filter_map(move |(row, item)| drawn.contains(&row).then_some(item))
}

/// The folds of all labelled texts of a corpus. Each text is tested in one fold, except that a
/// class of a single text, or of near-duplicates of one, always stays in training.
///
/// # Errors
/// If there are fewer than two folds, or a fold has no text for dev or test.
pub fn folds(corpus: &Corpus, number: usize, seed: u64) -> Result<Vec<Fold>> {
    if number < 2 {
        let fix = "choose 2 or more, or 0 for the test split alone";
        return Err(Error::option("folds", number.to_string(), fix));
    }
    let all: Vec<&Example> = corpus.examples().collect();
    let fold_of = assign_folds(&all, corpus.labels.len(), number, seed);
    let mut folds = Vec::new();
    for fold in 0..number {
        let (mut rest, mut test, mut test_rows) = (Vec::new(), Vec::new(), Vec::new());
        for (row, &example) in all.iter().enumerate() {
            if fold_of[row] == Some(fold) {
                test.push(example.clone());
                test_rows.push(row);
            } else {
                rest.push(example.clone());
            }
        }
        let name = format!("{} fold {fold} of {number} seed {seed}", corpus.fingerprint);
        let fold_corpus = Corpus {
            name: corpus.name.clone(),
            labels: corpus.labels.clone(),
            fingerprint: blake3::hash(name.as_bytes()).to_hex().to_string(),
            test,
            ..with_drawn_dev(rest, corpus.labels.len(), seed)
        };
        if fold_corpus.dev.is_empty() || fold_corpus.test.is_empty() {
            let problem = format!("{} texts are too few for {number} folds", all.len());
            return Err(Error::option(
                "folds",
                problem,
                "add texts, or choose fewer",
            ));
        }
        fold_corpus.check(Path::new(&fold_corpus.name))?;
        folds.push(Fold {
            corpus: fold_corpus,
            test_rows,
        });
    }
    Ok(folds)
}

/// The fold in which each example is tested; none of a class of a single group. Each group of
/// near-duplicates goes to the fold that has the fewest texts of its class.
fn assign_folds(
    examples: &[&Example],
    classes: usize,
    number: usize,
    seed: u64,
) -> Vec<Option<usize>> {
    let mut fold_of = vec![None; examples.len()];
    for class in Groups::of(examples, classes, seed).by_class {
        if class.len() < 2 {
            continue;
        }
        let mut sizes = vec![0; number];
        for group in class {
            let smallest = (0..number).min_by_key(|&fold| sizes[fold]);
            let Some(fold) = smallest else { continue };
            sizes[fold] += group.len();
            group.iter().for_each(|&row| fold_of[row] = Some(fold));
        }
    }
    fold_of
}

/// The examples as training and dev splits of a corpus without a name.
fn with_drawn_dev(examples: Vec<Example>, classes: usize, seed: u64) -> Corpus {
    let drawn = held_out(&examples, classes, 1, seed);
    let mut corpus = Corpus::default();
    for (example, part) in examples.into_iter().zip(drawn) {
        match part {
            Some(_) => corpus.dev.push(example),
            None => corpus.train.push(example),
        }
    }
    corpus
}

/// For each example the held-out part that it goes to, if any. Each part gets [`HELD_OUT`] of the
/// texts of each class. A class keeps a training text in any case.
pub(crate) fn held_out(
    examples: &[Example],
    classes: usize,
    parts: usize,
    seed: u64,
) -> Vec<Option<usize>> {
    let examples: Vec<&Example> = examples.iter().collect();
    let mut drawn = vec![None; examples.len()];
    let mut left = TextsLeft(vec![0; classes]);
    examples.iter().for_each(|e| left.0[e.label] += 1);
    for groups in Groups::of(&examples, classes, seed).by_class {
        let texts: usize = groups.iter().map(Vec::len).sum();
        let wanted = (texts as f64 * HELD_OUT).round().max(1.0) as usize;
        let mut counts = vec![0; parts];
        for group in groups {
            // A group that is too large for what is still wanted stays in training.
            let part = counts
                .iter()
                .position(|count| count + group.len() <= wanted);
            let Some(part) = part.filter(|_| left.can_spare(&examples, &group)) else {
                continue;
            };
            counts[part] += group.len();
            left.remove(&examples, &group);
            for example in group {
                drawn[example] = Some(part);
            }
        }
    }
    drawn
}

/// Groups of near-duplicates, shuffled within each class. A group belongs to the class of its first
/// text.
struct Groups {
    by_class: Vec<Vec<Vec<usize>>>,
}

impl Groups {
    fn of(examples: &[&Example], classes: usize, seed: u64) -> Groups {
        let texts: Vec<String> = examples
            .iter()
            .map(|e| e.input().texts().collect::<Vec<_>>().join(" "))
            .collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (example, group) in near_duplicates::groups(&texts).into_iter().enumerate() {
            members.entry(group).or_default().push(example);
        }
        let mut by_class = vec![Vec::new(); classes];
        for group in members.into_values() {
            by_class[examples[group[0]].label].push(group);
        }
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        for groups in &mut by_class {
            groups.shuffle(&mut random);
        }
        Groups { by_class }
    }
}

/// Training texts of each class that are left.
struct TextsLeft(Vec<usize>);

impl TextsLeft {
    /// Whether each class keeps a training text without these examples.
    fn can_spare(&self, examples: &[&Example], group: &[usize]) -> bool {
        let mut removed: HashMap<usize, usize> = HashMap::new();
        for &row in group {
            *removed.entry(examples[row].label).or_default() += 1;
        }
        let keeps_one = |(&class, &texts): (&usize, &usize)| self.0[class] > texts;
        removed.iter().all(keeps_one)
    }

    fn remove(&mut self, examples: &[&Example], group: &[usize]) {
        group.iter().for_each(|&e| self.0[examples[e].label] -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawn_sample_keeps_the_order_and_does_not_miss_a_class_of_a_file_that_alternates() {
        let drawn: Vec<usize> = draw_at_most(0..1000, 100).collect();
        assert_eq!(drawn.len(), 100);
        assert!(drawn.is_sorted());
        // Of a file whose lines alternate between two classes, every second line has one class.
        let even = drawn.iter().filter(|line| *line % 2 == 0).count();
        assert!((30..=70).contains(&even), "{even} of 100");
        assert!(draw_at_most(0..1000, 100).eq(drawn), "the same each time");
        assert!(draw_at_most(0..3, 100).eq(0..3));
    }
}
