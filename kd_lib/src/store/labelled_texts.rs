//! An external teacher: the texts that it should label are written to a file, and its logits or
//! classes are read back. Both files have one JSON object per line. Every text must come back once,
//! unchanged; the order does not matter. A first line `{"classes": […]}` says in which order the
//! logits stand; without it, they stand in the order of the corpus's classes. The teachers that this
//! crate trains need neither file ([`super::teacher_logits`]).

use crate::data::lines::read_lines;
use crate::data::text_input::{TextInput, TextKey};
use crate::error::BUG;
use crate::{Error, Result, files};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use tch::Tensor;

/// A class without numbers becomes a distribution: this probability for the class, the rest shared
/// equally by the others (label smoothing).
const PROBABILITY_OF_CLASS: f64 = 0.9;

/// The line that names the classes of the logits.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassesLine {
    classes: Vec<String>,
}

/// Logits sum to 1 within this distance and are not negative: then they are probabilities.
const PROBABILITY_TOLERANCE: f32 = 1e-3;

/// A line of either file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    text_pair: Option<Cow<'a, str>>,
    /// One number per class, in the order of the file's classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    logits: Option<Vec<f64>>,
    /// The name of a class, from a teacher that gives no numbers.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    label: Option<Cow<'a, str>>,
}

impl Row<'_> {
    fn input(&self) -> TextInput<'_> {
        TextInput {
            text: &self.text,
            text_pair: self.text_pair.as_deref(),
        }
    }
}

/// Writes texts to be labelled, each once; returns their number.
///
/// # Errors
/// If another file of that name is there.
pub fn write_texts(path: &Path, texts: &[TextInput]) -> Result<usize> {
    write_rows(path, String::new(), texts, |_| None)
}

/// Writes texts with a teacher's logits `[text, class]`, each text once; returns their number. The
/// first line names the classes.
pub fn write_logits(
    path: &Path,
    texts: &[TextInput],
    logits: &Tensor,
    classes: &[String],
) -> Result<usize> {
    let logits = crate::evaluation::to_array(logits)?;
    let classes = ClassesLine {
        classes: classes.to_vec(),
    };
    let first_line = serde_json::to_string(&classes).map_err(Error::in_file(path, BUG))?;
    write_rows(path, first_line + "\n", texts, |at| {
        Some(
            logits
                .row(at)
                .iter()
                .map(|&value| f64::from(value))
                .collect(),
        )
    })
}

fn write_rows(
    path: &Path,
    mut lines: String,
    texts: &[TextInput],
    logits_of: impl Fn(usize) -> Option<Vec<f64>>,
) -> Result<usize> {
    let mut written = HashMap::new();
    for (at, text) in texts.iter().enumerate() {
        if written.insert(text.key(), at).is_some() {
            continue;
        }
        let row = Row {
            text: text.text.into(),
            text_pair: text.text_pair.map(Into::into),
            logits: logits_of(at),
            label: None,
        };
        lines += &serde_json::to_string(&row).map_err(Error::in_file(path, BUG))?;
        lines.push('\n');
    }
    files::write_export(path, &lines)?;
    Ok(written.len())
}

/// A text that [`write_texts`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedText {
    /// The text.
    pub text: String,
    /// The second text of a pair.
    pub text_pair: Option<String>,
}

impl ExportedText {
    /// The text or the pair, for a model.
    pub fn input(&self) -> TextInput<'_> {
        TextInput {
            text: &self.text,
            text_pair: self.text_pair.as_deref(),
        }
    }
}

/// The texts that [`write_texts`] wrote.
pub fn read_texts(path: &Path) -> Result<Vec<ExportedText>> {
    let mut texts = Vec::new();
    for (number, line) in (1..).zip(read_lines(path)?) {
        let row = parse(path, number, &line)?;
        texts.push(ExportedText {
            text: row.text.to_string(),
            text_pair: row.text_pair.as_ref().map(|text| text.to_string()),
        });
    }
    Ok(texts)
}

fn parse<'a>(path: &Path, number: usize, line: &'a str) -> Result<Row<'a>> {
    serde_json::from_str(line).map_err(|error| {
        let fix =
            r#"write {"text": …, "logits": [one number per class]} or {"text": …, "label": …}"#;
        Error::line(path, number, error.to_string(), fix)
    })
}

/// The logits `[text, class]` of these texts in a teacher's file. A class alone stands for a
/// probability of 0.9.
///
/// # Errors
/// If a row is missing, repeated or edited, if its numbers are not finite or not one per class, if
/// the file names other classes, or if all its numbers are probabilities.
pub fn read_logits(path: &Path, texts: &[TextInput], classes: &[String]) -> Result<Tensor> {
    let wanted: HashMap<TextKey, usize> = (0..).zip(texts).map(|(at, t)| (t.key(), at)).collect();
    let mut found: HashMap<TextKey, (usize, Vec<f32>)> = HashMap::new();
    let lines = read_lines(path)?;
    let stated = match lines.first().map(|first| serde_json::from_str(first)) {
        Some(Ok(ClassesLine { classes })) => Some(classes),
        _ => None,
    };
    let order = match &stated {
        Some(stated) => Some(order_of(path, stated, classes)?),
        None => None,
    };
    let rows = (1..).zip(&lines).skip(usize::from(stated.is_some()));
    let (mut rows_of_numbers, mut rows_of_probabilities) = (0, 0);
    for (number, line) in rows {
        let row = parse(path, number, line)?;
        let key = row.input().key();
        if !wanted.contains_key(&key) {
            let problem = format!("{:?} is none of the texts to label", row.text);
            let fix = "give each exported text back unchanged, and no other";
            return Err(Error::line(path, number, problem, fix));
        }
        let mut logits = logits_of(path, number, &row, stated.as_deref().unwrap_or(classes))?;
        if row.logits.is_some() {
            rows_of_numbers += 1;
            rows_of_probabilities += usize::from(are_probabilities(&logits));
        }
        if let Some(order) = &order {
            logits = order.iter().map(|&place| logits[place]).collect();
        }
        match found.entry(key) {
            Entry::Vacant(place) => place.insert((number, logits)),
            Entry::Occupied(first) => {
                let problem = format!("the text of line {} again", first.get().0);
                let fix = "give each exported text once";
                return Err(Error::line(path, number, problem, fix));
            }
        };
    }
    if rows_of_numbers > 0 && rows_of_probabilities == rows_of_numbers {
        let problem = "the numbers of each row are probabilities: they sum to 1";
        let fix = "write logits, or the natural logarithm of each probability";
        return Err(Error::file(path, problem, fix));
    }
    let mut values = Vec::with_capacity(texts.len() * classes.len());
    for text in texts {
        let Some((_, logits)) = found.get(&text.key()) else {
            let missing = wanted.len() - found.len();
            let problem = format!("no row for {:?} ({missing} texts are missing)", text.text);
            return Err(Error::file(path, problem, "label every exported text"));
        };
        values.extend_from_slice(logits);
    }
    let size = [texts.len() as i64, classes.len() as i64];
    Ok(Tensor::from_slice(&values).view(size))
}

/// For each class of the corpus, its place among the classes that the file states.
///
/// # Errors
/// If the two name different classes.
fn order_of(path: &Path, stated: &[String], classes: &[String]) -> Result<Vec<usize>> {
    let place = |class: &String| stated.iter().position(|other| other == class);
    let places: Option<Vec<usize>> = classes.iter().map(place).collect();
    let same_number = stated.len() == classes.len();
    places.filter(|_| same_number).ok_or_else(|| {
        let problem = format!("the classes {}", stated.join(", "));
        let fix = format!("name those of the corpus: {}", classes.join(", "));
        Error::line(path, 1, problem, fix)
    })
}

fn are_probabilities(values: &[f32]) -> bool {
    let sum: f32 = values.iter().sum();
    values.iter().all(|value| *value >= 0.0) && (sum - 1.0).abs() < PROBABILITY_TOLERANCE
}

fn logits_of(path: &Path, number: usize, row: &Row, classes: &[String]) -> Result<Vec<f32>> {
    let error = |problem: String, fix: &str| Err(Error::line(path, number, problem, fix));
    match (&row.logits, &row.label) {
        (Some(logits), None) => {
            if logits.len() != classes.len() {
                let problem = format!("{} numbers for {} classes", logits.len(), classes.len());
                let fix = format!(
                    "give one number per class, in this order: {}",
                    classes.join(", ")
                );
                return error(problem, &fix);
            }
            let logits: Vec<f32> = logits.iter().map(|&value| value as f32).collect();
            match logits.iter().find(|value| !value.is_finite()) {
                Some(value) => error(format!("the logit {value}"), "give finite numbers"),
                None => Ok(logits),
            }
        }
        (None, Some(label)) => {
            let Some(class) = classes.iter().position(|class| class == label) else {
                let fix = format!("name one of {}", classes.join(", "));
                return error(format!("the class {label:?}"), &fix);
            };
            let others = (1.0 - PROBABILITY_OF_CLASS) / (classes.len() - 1).max(1) as f64;
            let mut logits = vec![0.0; classes.len()];
            logits[class] = (PROBABILITY_OF_CLASS / others).ln() as f32;
            Ok(logits)
        }
        _ => error(
            "neither numbers nor a class, or both".into(),
            r#"give "logits" or "label""#,
        ),
    }
}
