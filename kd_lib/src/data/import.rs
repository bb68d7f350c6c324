//! A corpus from files of any of the known layouts: one file, or a folder with a file for each
//! split. Class names come from the data. A split that is given is kept; what is missing is drawn
//! from the training texts with a fixed seed, stratified, and near-duplicates stay together.
//! [`super::corpus`] reads the folders that state their class names in a file.

use super::columns::{ColumnOptions, Columns};
use super::corpus::{Corpus, Split, has_label_file, name_of};
use super::near_duplicates;
use super::text_files::{Example, normalize};
use super::text_table::{TableRow, TextTable};
use crate::{Error, Result, files};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// The fraction of the texts that dev and test each get, where a corpus has no such split.
const HELD_OUT: f64 = 0.1;
/// Decides which texts these are.
const SPLIT_SEED: u64 = 0;
/// Endings of the files that are read.
const ENDINGS: [&str; 7] = ["csv", "tsv", "jsonl", "ndjson", "json", "parquet", "txt"];
/// Names of the splits in files and in a column `split`.
const SPLIT_NAMES: [(&str, Split); 6] = [
    ("train", Split::Train),
    ("dev", Split::Dev),
    ("val", Split::Dev),
    ("valid", Split::Dev),
    ("validation", Split::Dev),
    ("test", Split::Test),
];

/// A corpus, and how its files were read.
#[derive(Debug, Clone)]
pub struct Imported {
    /// The corpus.
    pub corpus: Corpus,
    /// What was detected, drawn or merged, in sentences.
    pub notices: Vec<String>,
}

/// A row whose label is still a name.
struct NamedExample {
    text: String,
    text_pair: Option<String>,
    label: String,
    line: usize,
    split: Option<Split>,
}

/// Reads a file, or a folder with a file for each split. A folder that states its class names in a
/// file has one of the layouts of [`Corpus::open`], unless columns are named.
pub fn import(path: &Path, options: &ColumnOptions) -> Result<Imported> {
    if *options == ColumnOptions::default() && has_label_file(path) {
        return Ok(Imported {
            corpus: Corpus::open(path)?,
            notices: Vec::new(),
        });
    }
    if !path.exists() {
        let fix = "name a file with texts and labels, or a folder of such files; `make corpus` \
                   creates data/default";
        return Err(Error::file(path, "no such file or folder", fix));
    }
    let mut notices = Vec::new();
    let mut hasher = blake3::Hasher::new();
    let mut rows = Vec::new();
    for (file, split) in split_files(path, &mut notices)? {
        hasher.update(files::hash_file(&file)?.as_bytes());
        hasher.update(format!("{split:?}").as_bytes());
        rows.extend(read_rows(&file, split, options, &mut notices)?);
    }
    hasher.update(format!("{options:?}").as_bytes());
    let labels = class_names(path, &rows)?;
    let mut corpus = Corpus {
        name: name_of(path)?,
        labels,
        train: Vec::new(),
        dev: Vec::new(),
        test: Vec::new(),
        fingerprint: hasher.finalize().to_hex().to_string(),
    };
    for row in rows {
        let known = corpus.labels.iter().position(|label| *label == row.label);
        let example = Example {
            text: row.text,
            text_pair: row.text_pair,
            label: known.unwrap_or_default(),
            line: row.line,
        };
        match row.split {
            None | Some(Split::Train) => corpus.train.push(example),
            Some(Split::Dev) => corpus.dev.push(example),
            Some(Split::Test) => corpus.test.push(example),
        }
    }
    hold_out(path, &mut corpus, &mut notices)?;
    corpus.check(path)?;
    Ok(Imported { corpus, notices })
}

/// The files to read, and the split that each name tells.
fn split_files(path: &Path, notices: &mut Vec<String>) -> Result<Vec<(PathBuf, Option<Split>)>> {
    if path.is_file() {
        return Ok(vec![(path.to_path_buf(), None)]);
    }
    let is_table = |file: &PathBuf| {
        let ending = file.extension().and_then(|ending| ending.to_str());
        ending.is_some_and(|ending| ENDINGS.contains(&ending.to_ascii_lowercase().as_str()))
    };
    let mut found = Vec::new();
    for file in files::sorted_entries(path)?.into_iter().filter(is_table) {
        match split_of(&file) {
            Some(split) => found.push((file, Some(split))),
            None => notices.push(format!(
                "{}: not read, its name says neither train, dev nor test",
                file.display()
            )),
        }
    }
    let endings: BTreeSet<&OsStr> = found
        .iter()
        .filter_map(|(file, _)| file.extension())
        .collect();
    if endings.len() > 1 {
        let problem = format!("splits in several layouts: {endings:?}");
        let fix = "keep the files of one layout in the folder, or name a single file";
        return Err(Error::file(path, problem, fix));
    }
    if !found.iter().any(|(_, split)| *split == Some(Split::Train)) {
        let fix = "name a file with texts and labels, or a folder with train.csv (or .tsv, .jsonl, \
                   .txt) and, if you have them, dev and test";
        return Err(Error::file(path, "no training texts", fix));
    }
    Ok(found)
}

/// The split that a file's name tells: `train.csv`, `NAME.dev.txt`, `test-00000-of-00001.jsonl`.
fn split_of(file: &Path) -> Option<Split> {
    let stem = file.file_stem()?.to_string_lossy().to_lowercase();
    let words: Vec<&str> = stem.split(|c: char| !c.is_alphabetic()).collect();
    let named = SPLIT_NAMES.iter().find(|(name, _)| words.contains(name));
    named.map(|(_, split)| *split)
}

fn read_rows(
    file: &Path,
    split: Option<Split>,
    options: &ColumnOptions,
    notices: &mut Vec<String>,
) -> Result<Vec<NamedExample>> {
    let mut table = TextTable::read(file)?;
    options.settle_header(file, &mut table)?;
    let columns = options.find(file, &table)?;
    let header = match table.header {
        Some(_) => "with a header",
        None => "without a header",
    };
    notices.push(format!(
        "{}: {} rows, {header}; {}",
        file.display(),
        table.rows.len(),
        columns.describe(&table)
    ));
    let mut rows = Vec::new();
    for row in &table.rows {
        rows.push(named_example(file, row, &columns, split)?);
    }
    Ok(rows)
}

fn named_example(
    file: &Path,
    row: &TableRow,
    columns: &Columns,
    split: Option<Split>,
) -> Result<NamedExample> {
    let label = normalize(&row.fields[columns.label]);
    if label.is_empty() {
        let fix = "label the text, or remove the row (texts without labels: --unlabelled)";
        return Err(Error::line(file, row.line, "no label", fix));
    }
    let split = match columns.split {
        None => split,
        Some(column) => {
            let name = row.fields[column].trim().to_lowercase();
            let known = SPLIT_NAMES.iter().find(|(known, _)| *known == name);
            let (_, split) = known.ok_or_else(|| {
                let problem = format!("split {name:?}");
                Error::line(file, row.line, problem, "write train, dev or test")
            })?;
            Some(*split)
        }
    };
    Ok(NamedExample {
        text: normalize(&row.fields[columns.text]),
        text_pair: columns
            .text_pair
            .map(|column| normalize(&row.fields[column])),
        label,
        line: row.line,
        split,
    })
}

/// The class names: numbers by their value, other names by code point.
fn class_names(path: &Path, rows: &[NamedExample]) -> Result<Vec<String>> {
    let distinct: BTreeSet<&str> = rows.iter().map(|row| row.label.as_str()).collect();
    let mut names: Vec<String> = distinct.into_iter().map(str::to_owned).collect();
    if names.len() < 2 {
        let problem = format!("{} classes", names.len());
        return Err(Error::file(
            path,
            problem,
            "label the texts with at least two",
        ));
    }
    if names.iter().all(|name| name.parse::<i64>().is_ok()) {
        names.sort_by_key(|name| name.parse::<i64>().unwrap_or_default());
    }
    Ok(names)
}

/// Draws dev and test from the training texts, as far as they are missing.
fn hold_out(path: &Path, corpus: &mut Corpus, notices: &mut Vec<String>) -> Result<()> {
    let missing: Vec<Split> = [Split::Dev, Split::Test]
        .into_iter()
        .filter(|&split| corpus.split(split).is_empty())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let before = corpus.train.len();
    let drawn = draw_groups(&corpus.train, corpus.labels.len(), missing.len());
    let train = std::mem::take(&mut corpus.train);
    for (example, part) in train.into_iter().zip(drawn) {
        match part.and_then(|part| missing.get(part)) {
            None => corpus.train.push(example),
            Some(Split::Dev) => corpus.dev.push(example),
            Some(_) => corpus.test.push(example),
        }
    }
    for split in missing {
        let texts = corpus.split(split).len();
        if texts == 0 {
            let problem = format!(
                "no text for a {split:?} split: {before} texts are too few, or are nearly equal"
            );
            let fix = "add texts, or give the splits as files";
            return Err(Error::file(path, problem, fix));
        }
        notices.push(format!(
            "{split:?}: {texts} of {before} texts, drawn by class with a fixed seed; near-duplicates \
             stay on one side"
        ));
    }
    Ok(())
}

/// For each example the held-out part that it goes to, if any. Each part gets [`HELD_OUT`] of the
/// texts of each class. Groups of near-duplicates stay together; a group belongs to the class of its
/// first text. A class keeps a training text in any case.
fn draw_groups(examples: &[Example], classes: usize, parts: usize) -> Vec<Option<usize>> {
    let texts: Vec<String> = examples
        .iter()
        .map(|e| e.input().texts().collect::<Vec<_>>().join(" "))
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut members: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (example, group) in near_duplicates::groups(&texts).into_iter().enumerate() {
        members.entry(group).or_default().push(example);
    }
    let mut drawn = vec![None; examples.len()];
    let mut left = TextsLeft(vec![0; classes]);
    examples.iter().for_each(|e| left.0[e.label] += 1);
    let mut random = ChaCha8Rng::seed_from_u64(SPLIT_SEED);
    for class in 0..classes {
        let of_class = |group: &&Vec<usize>| examples[group[0]].label == class;
        let mut groups: Vec<&Vec<usize>> = members.values().filter(of_class).collect();
        groups.shuffle(&mut random);
        let texts: usize = groups.iter().map(|group| group.len()).sum();
        let wanted = (texts as f64 * HELD_OUT).round().max(1.0) as usize;
        let mut counts = vec![0; parts];
        for group in groups {
            // A group that is too large for what is still wanted stays in training.
            let part = counts
                .iter()
                .position(|count| count + group.len() <= wanted);
            let Some(part) = part.filter(|_| left.can_spare(examples, group)) else {
                continue;
            };
            counts[part] += group.len();
            left.remove(examples, group);
            for &example in group {
                drawn[example] = Some(part);
            }
        }
    }
    drawn
}

/// Training texts of each class that are left.
struct TextsLeft(Vec<usize>);

impl TextsLeft {
    /// Whether each class keeps a training text without these examples.
    fn can_spare(&self, examples: &[Example], group: &[usize]) -> bool {
        let mut left = self.0.clone();
        group.iter().for_each(|&e| left[examples[e].label] -= 1);
        group.iter().all(|&e| left[examples[e].label] > 0)
    }

    fn remove(&mut self, examples: &[Example], group: &[usize]) {
        group.iter().for_each(|&e| self.0[examples[e].label] -= 1);
    }
}
