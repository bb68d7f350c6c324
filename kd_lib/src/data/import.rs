//! A corpus from files of any of the known layouts: one file, or a folder with a file for each
//! split. Class names come from the data. A split that is given is kept; what is missing is drawn
//! from the training texts with a fixed seed, stratified, and near-duplicates stay together.
//! [`super::corpus`] reads the folders that state their class names in a file.

use super::columns::{ColumnOptions, Columns};
use super::corpus::{Corpus, Split, corpus_files, has_label_file, name_of};
use super::csv_rows::TableRow;
use super::lines::normalize;
use super::splits::held_out;
use super::text_files::{Example, FileFormat, index_of, read_examples};
use super::text_table::TextTable;
use crate::{Error, Result, files};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use tokenizers::normalizers::NFKD;
use tokenizers::{NormalizedString, Normalizer};

/// Decides which texts become dev and test, where a corpus has no such split.
const SPLIT_SEED: u64 = 0;
/// Endings of the files that are read.
const ENDINGS: [&str; 8] = [
    "csv", "tsv", "tab", "jsonl", "ndjson", "json", "parquet", "txt",
];
/// With more classes than this, and fewer than two texts for each, the labels are those of a wrong
/// column.
const MANY_CLASSES: usize = 20;
/// The same if the user named the column.
const MOST_CLASSES: usize = 1000;
/// What programs write where a value is missing.
const MISSING: [&str; 6] = ["nan", "none", "null", "na", "n/a", "<na>"];
/// Endings of copies that editors leave.
const BACKUP_ENDINGS: [&str; 4] = ["bak", "orig", "swp", "tmp"];
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
    /// Whether the test split was drawn here, not given.
    pub test_is_drawn: bool,
}

/// A row whose label is still a name.
struct NamedExample {
    text: String,
    text_pair: Option<String>,
    label: String,
    line: usize,
    split: Option<Split>,
}

impl NamedExample {
    /// The example with the index of its class; `file` is only for the message.
    fn with_class(self, file: &Path, index: &HashMap<&str, usize>) -> Result<Example> {
        let Some(&label) = index.get(self.label.as_str()) else {
            let problem = format!(
                "class {:?} is not among the {} known",
                self.label,
                index.len()
            );
            let fix = "correct the label, or name a file with the classes of this run";
            return Err(Error::line(file, self.line, problem, fix));
        };
        Ok(Example {
            text: self.text,
            text_pair: self.text_pair,
            label,
            line: self.line,
        })
    }
}

/// Reads a file, or a folder with a file for each split. A folder that states its class names in a
/// file has one of the layouts of [`Corpus::open`], unless columns are named.
pub fn import(path: &Path, options: &ColumnOptions) -> Result<Imported> {
    if *options == ColumnOptions::default() && has_label_file(path) {
        return open_with_notices(path);
    }
    if path.exists() && !path.is_file() && !path.is_dir() {
        let fix = "save what it gives in a file, and name that";
        return Err(Error::file(path, "not a regular file", fix));
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
        hash_split(&mut hasher, &file, split)?;
        rows.extend(read_rows(&file, split, options, &mut notices)?);
    }
    hasher.update(format!("{options:?}").as_bytes());
    let labels = class_names(path, &rows, options.label.is_some())?;
    note_similar_classes(&labels, &mut notices);
    let mut corpus = Corpus {
        name: name_of(path)?,
        fingerprint: hasher.finalize().to_hex().to_string(),
        ..in_splits(path, rows, labels)?
    };
    let test_is_drawn = corpus.test.is_empty();
    hold_out(path, &mut corpus, &mut notices)?;
    corpus.check(path)?;
    Ok(Imported {
        corpus,
        notices,
        test_is_drawn,
    })
}

/// The fingerprint of the corpus that [`import`] makes of one file whose columns are detected.
pub fn fingerprint_of_file(file: &Path) -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    hash_split(&mut hasher, file, None)?;
    hasher.update(format!("{:?}", ColumnOptions::default()).as_bytes());
    Ok(hasher.finalize().to_hex().to_string())
}

fn hash_split(hasher: &mut blake3::Hasher, file: &Path, split: Option<Split>) -> Result<()> {
    hasher.update(files::hash_file(file)?.as_bytes());
    hasher.update(format!("{split:?}").as_bytes());
    Ok(())
}

/// The rows as a corpus without a name. Rows without a split are for training.
fn in_splits(path: &Path, rows: Vec<NamedExample>, labels: Vec<String>) -> Result<Corpus> {
    let mut corpus = Corpus::default();
    let index = index_of(&labels);
    for row in rows {
        let split = match row.split {
            None | Some(Split::Train) => &mut corpus.train,
            Some(Split::Dev) => &mut corpus.dev,
            Some(Split::Test) => &mut corpus.test,
        };
        split.push(row.with_class(path, &index)?);
    }
    corpus.labels = labels;
    Ok(corpus)
}

/// A folder that states its class names in a file. Files beside its splits are named, or refused if
/// their names tell a split.
fn open_with_notices(path: &Path) -> Result<Imported> {
    let corpus = Corpus::open(path)?;
    let own_files = corpus_files(path)?;
    let mut notices = Vec::new();
    for file in files::sorted_entries(path)? {
        if own_files.contains(&file) || is_left_out(&file) {
            continue;
        }
        if is_table(&file)
            && let Some(split) = split_of(&file)?
        {
            let problem = format!("a second file of the split {split:?}, which is not read");
            let fix = "move it out of the folder, or join it with the split's file";
            return Err(Error::file(&file, problem, fix));
        }
        notices.push(format!("{}: not read", file.display()));
    }
    for split in [Split::Train, Split::Dev, Split::Test] {
        let empty = corpus.split(split).iter().filter(|e| e.input().is_empty());
        let lines: Vec<usize> = empty.map(|example| example.line).collect();
        if let Some(first) = lines.first() {
            notices.push(format!(
                "{split:?}: {} empty texts, the first in line {first}",
                lines.len()
            ));
        }
    }
    Ok(Imported {
        corpus,
        notices,
        test_is_drawn: false,
    })
}

/// The labelled texts of one file, and how they were read.
#[derive(Debug, Clone)]
pub struct LabelledFile {
    /// The texts.
    pub examples: Vec<Example>,
    /// What was detected, in sentences.
    pub notices: Vec<String>,
}

/// Reads a file of labelled texts whose classes are known, in any layout.
///
/// # Errors
/// If a label is none of the classes, or if a column tells splits: only some rows are meant then.
pub fn read_labelled_file(file: &Path, labels: &[String]) -> Result<LabelledFile> {
    let mut notices = Vec::new();
    if let Some(format) = FileFormat::detect(file, labels)? {
        let examples = read_examples(file, format, labels)?;
        return Ok(LabelledFile { examples, notices });
    }
    let index = index_of(labels);
    let mut examples = Vec::new();
    for row in read_rows(file, None, &ColumnOptions::default(), &mut notices)? {
        if row.split.is_some() {
            let fix = "keep the rows of one split, and remove the column";
            return Err(Error::line(file, 1, "a column of splits", fix));
        }
        examples.push(row.with_class(file, &index)?);
    }
    Ok(LabelledFile { examples, notices })
}

/// The files to read, and the split that each name tells.
fn split_files(path: &Path, notices: &mut Vec<String>) -> Result<Vec<(PathBuf, Option<Split>)>> {
    if path.is_file() {
        return Ok(vec![(path.to_path_buf(), None)]);
    }
    let mut found = Vec::new();
    for file in files::sorted_entries(path)? {
        if is_left_out(&file) {
            continue;
        }
        let split = split_of(&file)?;
        if !is_table(&file) {
            if split.is_some() {
                let fix = format!(
                    "make it a file with one of the endings {}, or move it out of the folder",
                    ENDINGS.join(", ")
                );
                return Err(Error::file(&file, "a split that is not read", fix));
            }
            notices.push(format!("{}: not read", file.display()));
            continue;
        }
        match split {
            Some(split) => found.push((file, Some(split))),
            None => notices.push(format!(
                "{}: not read, its name says neither train, dev nor test",
                file.display()
            )),
        }
    }
    let endings: BTreeSet<String> = found
        .iter()
        .filter_map(|(file, _)| Some(file.extension()?.to_string_lossy().to_lowercase()))
        .collect();
    if endings.len() > 1 {
        let problem = format!("splits in several layouts: {endings:?}");
        let fix = "keep the files of one layout in the folder, or name a single file";
        return Err(Error::file(path, problem, fix));
    }
    refuse_second_files(&found)?;
    if !found.iter().any(|(_, split)| *split == Some(Split::Train)) {
        let fix = "name a file with texts and labels, or a folder with train.csv (or .tsv, .jsonl, \
                   .txt) and, if you have them, dev and test";
        return Err(Error::file(path, "no training texts", fix));
    }
    Ok(found)
}

/// Refuses two files of one split, unless they are its numbered parts: their names differ in digits
/// alone, as `train-00000-of-00002.csv` does.
fn refuse_second_files(found: &[(PathBuf, Option<Split>)]) -> Result<()> {
    let without_digits = |file: &Path| {
        let name = files::file_name(file).to_lowercase();
        name.replace(|c: char| c.is_ascii_digit(), "")
    };
    for (at, (file, split)) in found.iter().enumerate() {
        let before = &found[..at];
        let other = before.iter().find(|(other, other_split)| {
            other_split == split && without_digits(other) != without_digits(file)
        });
        if let Some((other, _)) = other {
            let problem = format!("a second file of its split, beside {}", other.display());
            let fix = "move one of them out of the folder, or join them";
            return Err(Error::file(file, problem, fix));
        }
    }
    Ok(())
}

/// Whether a file has an ending of the files that are read.
fn is_table(file: &Path) -> bool {
    file.is_file() && ENDINGS.iter().any(|ending| has_ending(file, ending))
}

fn has_ending(file: &Path, ending: &str) -> bool {
    file.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case(ending))
}

/// Whether a file is hidden or a copy that an editor left.
fn is_left_out(file: &Path) -> bool {
    let is_backup = BACKUP_ENDINGS.iter().any(|ending| has_ending(file, ending));
    is_backup || files::file_name(file).starts_with('.')
}

/// The split that a file's name tells: `train.csv`, `NAME.dev.txt`, `test-00000-of-00001.jsonl`.
///
/// # Errors
/// If it tells two.
fn split_of(file: &Path) -> Result<Option<Split>> {
    let name = files::file_name(file).to_lowercase();
    let words: Vec<&str> = name.split(|c: char| !c.is_alphabetic()).collect();
    let named = SPLIT_NAMES.iter().filter(|(name, _)| words.contains(name));
    let mut splits: Vec<Split> = named.map(|(_, split)| *split).collect();
    splits.dedup();
    match splits.as_slice() {
        [] => Ok(None),
        [split] => Ok(Some(*split)),
        _ => {
            let fix = "name one split in the file's name, as in train.csv or NAME.dev.csv";
            Err(Error::file(
                file,
                format!("the name tells two splits: {splits:?}"),
                fix,
            ))
        }
    }
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
    let separator = match table.separator {
        Some(',') | None => String::new(),
        Some(separator) => format!(", separated by {separator:?}"),
    };
    let split_name = split.map_or(String::new(), |split| format!(" ({split:?})"));
    notices.push(format!(
        "{}{split_name}: {} rows, {header}{separator}; {}",
        file.display(),
        table.rows.len(),
        columns.describe(&table)
    ));
    let mut rows = Vec::new();
    for row in &table.rows {
        rows.push(named_example(file, row, &columns, split)?);
    }
    let mut count = |what: &str, lines: Vec<usize>| {
        if let Some(first) = lines.first() {
            let (file, number) = (file.display(), lines.len());
            notices.push(format!(
                "{file}: {number} {what}, the first in line {first}"
            ));
        }
    };
    let lines_where = |is: &dyn Fn(&NamedExample) -> bool| -> Vec<usize> {
        let found = rows.iter().filter(|row| is(row));
        found.map(|row| row.line).collect()
    };
    count(
        "labels that look like missing ones (nan, none, null)",
        lines_where(&|row| MISSING.contains(&row.label.to_lowercase().as_str())),
    );
    count("empty texts", lines_where(&|row| row.text.is_empty()));
    count(
        "pairs without a second text",
        lines_where(&|row| {
            !row.text.is_empty() && row.text_pair.as_deref().is_some_and(str::is_empty)
        }),
    );
    let several_lines = table.rows.iter();
    let several_lines = several_lines.filter(|row| row.fields[columns.text].contains('\n'));
    count(
        "texts of several lines",
        several_lines.map(|row| row.line).collect(),
    );
    Ok(rows)
}

fn named_example(
    file: &Path,
    row: &TableRow,
    columns: &Columns,
    file_split: Option<Split>,
) -> Result<NamedExample> {
    let label = normalize(&row.fields[columns.label]);
    if label.is_empty() {
        let fix = "label the text, or remove the row (texts without labels: --unlabelled)";
        return Err(Error::line(file, row.line, "no label", fix));
    }
    let split = match columns.split {
        None => file_split,
        Some(column) => {
            let name = row.fields[column].trim().to_lowercase();
            let known = SPLIT_NAMES.iter().find(|(known, _)| *known == name);
            let (_, split) = known.ok_or_else(|| {
                let problem = format!("split {name:?}");
                Error::line(file, row.line, problem, "write train, dev or test")
            })?;
            if let Some(file_split) = file_split.filter(|file_split| file_split != split) {
                let problem = format!("split {name:?} in a file of the split {file_split:?}");
                let fix = "keep one of both: rename the file, or remove the column";
                return Err(Error::line(file, row.line, problem, fix));
            }
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

/// The class names: by value if all are whole numbers, else by code point.
fn class_names(path: &Path, rows: &[NamedExample], is_named: bool) -> Result<Vec<String>> {
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
    let limit = if is_named { MOST_CLASSES } else { MANY_CLASSES };
    if names.len() > limit && names.len() * 2 > rows.len() {
        let problem = format!("{} classes for {} texts", names.len(), rows.len());
        let fix = "name the column of labels by --label, or give each class more texts";
        return Err(Error::file(path, problem, fix));
    }
    if names.iter().all(|name| name.parse::<i64>().is_ok()) {
        names.sort_by_key(|name| name.parse::<i64>().unwrap_or_default());
    }
    Ok(names)
}

/// Names classes whose names may be meant as one.
fn note_similar_classes(labels: &[String], notices: &mut Vec<String>) {
    // Composed and decomposed accents are alike without their marks.
    let is_mark =
        |c: char| matches!(c, '\u{300}'..='\u{36F}' | '\u{200B}'..='\u{200F}' | '\u{2060}');
    let simplified = |name: &str| match name.parse::<f64>() {
        Ok(number) => number.to_string(),
        Err(_) => {
            let letters = decomposed(&name.to_lowercase());
            letters.replace(|c: char| is_mark(c) || " -_".contains(c), "")
        }
    };
    let mut groups: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for label in labels {
        groups.entry(simplified(label)).or_default().push(label);
    }
    for same in groups.values().filter(|same| same.len() > 1) {
        notices.push(format!(
            "{same:?} are different classes here; if they are meant as one, write them alike"
        ));
    }
}

/// A name in which accents stand apart from their letters, and full width is narrow (NFKD).
fn decomposed(name: &str) -> String {
    let mut name = NormalizedString::from(name);
    match NFKD.normalize(&mut name) {
        Ok(()) => name.get().to_owned(),
        Err(_) => name.get_original().to_owned(),
    }
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
    let drawn = held_out(
        &corpus.train,
        corpus.labels.len(),
        missing.len(),
        SPLIT_SEED,
    );
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
