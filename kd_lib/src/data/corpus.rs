//! A corpus: class names and three splits of labelled texts, found in a folder by their file names.
//!
//! | in the folder | format |
//! |---|---|
//! | `class.txt` + `train.txt`, `dev.txt`, `test.txt` | `text<TAB>class index` |
//! | `labels.txt` or `NAME.labels` + `train.txt`, … (or `NAME.train.txt`, …) | `label<TAB>text` |
//! | `labels.txt` + `train.csv`, `dev.csv`, `test.csv` | CSV: `text`, `label` (and `text_pair`) |
//!
//! `val` is read where `dev` is missing. This module holds texts;
//! [`super::tokenizer`] turns them into token ids.

use super::text_files::{Example, FileFormat, read_examples, read_labels};
use super::text_input::TextInput;
use crate::{Error, Result, files};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Names of the files of each split: training, dev, test.
const SPLIT_FILES: [&[&str]; 3] = [&["train"], &["dev", "val"], &["test"]];

/// The three parts of a corpus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Trained on.
    Train,
    /// Evaluated while training, to choose weights and settings.
    Dev,
    /// Evaluated once, at the end.
    Test,
}

/// Class names and labelled texts.
#[derive(Debug, Clone, Default)]
pub struct Corpus {
    /// The name of its folder, or of its file without the ending.
    pub name: String,
    /// Class names, by index.
    pub labels: Vec<String>,
    /// Training examples.
    pub train: Vec<Example>,
    /// Development examples.
    pub dev: Vec<Example>,
    /// Test examples.
    pub test: Vec<Example>,
    /// A BLAKE3 hash as hex: of a folder's class file and split files; of imported files, of their
    /// bytes, splits and column options; of a fold, of its corpus, its number, the number of folds
    /// and the seed. A program that builds or changes a corpus must set a new one: two corpora with
    /// one fingerprint share their runs.
    pub fingerprint: String,
}

impl Corpus {
    /// All labelled texts: training, then dev, then test.
    pub fn examples(&self) -> impl Iterator<Item = &Example> {
        self.train.iter().chain(&self.dev).chain(&self.test)
    }

    /// Opens a folder in one of the documented layouts.
    pub fn open(folder: impl AsRef<Path>) -> Result<Corpus> {
        let folder = folder.as_ref();
        if !folder.is_dir() {
            let fix = "name a corpus folder, or run `make corpus`, which creates data/default";
            return Err(Error::file(folder, "no such folder", fix));
        }
        let label_file = find_label_file(folder)?;
        let labels = read_labels(&label_file)?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(files::hash_file(&label_file)?.as_bytes());
        let mut read = |names: &[&str]| -> Result<Vec<Example>> {
            let file = find_split(folder, names)?;
            let format = if file.is_csv {
                FileFormat::Csv
            } else if label_file.ends_with("class.txt") {
                FileFormat::TextIndex
            } else {
                FileFormat::LabelText
            };
            hasher.update(files::hash_file(&file.path)?.as_bytes());
            read_examples(&file.path, format, &labels)
        };
        let [train, dev, test] = SPLIT_FILES;
        let (train, dev, test) = (read(train)?, read(dev)?, read(test)?);
        let corpus = Corpus {
            name: name_of(folder)?,
            labels,
            train,
            dev,
            test,
            fingerprint: hasher.finalize().to_hex().to_string(),
        };
        corpus.check(folder)?;
        Ok(corpus)
    }

    /// Refuses a corpus that cannot be trained on. `source` is where it was read from.
    pub(crate) fn check(&self, source: &Path) -> Result<()> {
        self.refuse_missing_class(source)?;
        self.refuse_mixed_inputs(source)
    }

    /// The examples of a split.
    pub fn split(&self, split: Split) -> &[Example] {
        match split {
            Split::Train => &self.train,
            Split::Dev => &self.dev,
            Split::Test => &self.test,
        }
    }

    /// Whether its examples are text pairs.
    pub fn has_pairs(&self) -> bool {
        self.train.iter().any(|example| example.text_pair.is_some())
    }

    /// The corpus without the training texts that recur in dev or test. A pair recurs if both of
    /// its texts do, in this order.
    pub fn without_leaks(mut self) -> Corpus {
        let held_out = self.dev.iter().chain(&self.test);
        let held_out: HashSet<TextInput> = held_out.map(Example::input).collect();
        self.train.retain(|e| !held_out.contains(&e.input()));
        self
    }

    fn refuse_mixed_inputs(&self, folder: &Path) -> Result<()> {
        let is_pair = |split: &[Example]| split.iter().any(|e| e.text_pair.is_some());
        let splits = [&self.train, &self.dev, &self.test].map(|split| is_pair(split));
        if splits.iter().all(|is_pair| *is_pair == splits[0]) {
            return Ok(());
        }
        let problem = "some splits have the column text_pair, others do not";
        let fix = "give all three splits the same columns";
        Err(Error::file(folder, problem, fix))
    }

    fn refuse_missing_class(&self, folder: &Path) -> Result<()> {
        let is_absent = |class: &usize| self.train.iter().all(|e| e.label != *class);
        let Some(class) = (0..self.labels.len()).find(is_absent) else {
            return Ok(());
        };
        let held_out = [("dev", &self.dev), ("test", &self.test)];
        let mut place = String::new();
        for (split, examples) in held_out {
            if let Some(first) = examples.iter().find(|e| e.label == class) {
                place += &format!(", but {split} has one in line {}", first.line);
            }
        }
        let problem = format!(
            "class {:?} has no training example{place}",
            self.labels[class]
        );
        let fix = if has_label_file(folder) {
            "add some, or remove the class from the file of class names"
        } else {
            "add some, or remove the texts of this class"
        };
        Err(Error::file(folder, problem, fix))
    }
}

/// The name of a file or folder without its ending, whatever the path to it is.
pub(crate) fn name_of(path: &Path) -> Result<String> {
    let full = path.canonicalize().map_err(Error::io(path))?;
    let name = if full.is_file() {
        full.file_stem()
    } else {
        full.file_name()
    };
    Ok(name.map_or_else(|| "corpus".into(), |n| n.to_string_lossy().into_owned()))
}

/// Whether a folder states its class names in a file.
pub(crate) fn has_label_file(folder: &Path) -> bool {
    files::sorted_entries(folder).is_ok_and(|paths| paths.iter().any(|path| is_label_file(path)))
}

fn is_label_file(path: &Path) -> bool {
    let named = ["class.txt", "labels.txt"]
        .iter()
        .any(|name| path.ends_with(name));
    named || path.extension().is_some_and(|ending| ending == "labels")
}

fn find_label_file(folder: &Path) -> Result<PathBuf> {
    let mut candidates = files::sorted_entries(folder)?;
    candidates.retain(|path| is_label_file(path));
    let fix = match candidates.as_slice() {
        [only] => return Ok(only.clone()),
        [] => "add class.txt (for lines text<TAB>index) or labels.txt (for lines label<TAB>text)",
        _ => "keep one of class.txt, labels.txt, NAME.labels",
    };
    Err(Error::file(
        folder,
        format!("{} files of class names", candidates.len()),
        fix,
    ))
}

/// The files that [`Corpus::open`] reads of a folder.
pub(crate) fn corpus_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![find_label_file(folder)?];
    for names in SPLIT_FILES {
        files.push(find_split(folder, names)?.path);
    }
    Ok(files)
}

/// The file of a split.
#[derive(Clone)]
struct SplitFile {
    path: PathBuf,
    is_csv: bool,
}

/// The file of the split that has one of these names: `NAME.csv`, `NAME.txt`, `CORPUS.NAME.txt`.
///
/// # Errors
/// If no file or more than one has the split's name.
fn find_split(folder: &Path, names: &[&str]) -> Result<SplitFile> {
    let mut found = Vec::new();
    for path in files::sorted_entries(folder)? {
        for ending in ["csv", "txt"] {
            let is_split = |name: &&str| {
                let wanted = format!("{name}.{ending}");
                let file = files::file_name(&path);
                file == wanted || file.ends_with(&format!(".{wanted}"))
            };
            if names.iter().any(is_split) {
                found.push(SplitFile {
                    path: path.clone(),
                    is_csv: ending == "csv",
                });
            }
        }
    }
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => {
            let fix = format!(
                "add {}.txt or {}.csv; JSON lines, TSV and Parquet go into a folder without a file of \
                 class names",
                names[0], names[0]
            );
            Err(Error::file(folder, format!("no {} split", names[0]), fix))
        }
        [first, second, ..] => {
            let problem = format!(
                "{} and {} are both the {} split",
                files::file_name(&first.path),
                files::file_name(&second.path),
                names[0]
            );
            Err(Error::file(
                folder,
                problem,
                "move one of them out of the folder",
            ))
        }
    }
}
