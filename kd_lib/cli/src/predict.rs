//! `kd predict`: texts in, one JSON line each out, in order. `kd evaluate --data`: the predictions
//! of a file's texts, scored.

use crate::project::open_predictor;
use anyhow::{Context, Result, bail};
use kd_lib::data::text_files::{FileFormat, read_examples, split_pair};
use kd_lib::data::{Example, TextInput};
use kd_lib::evaluation::{Scores, to_array};
use kd_lib::store::{Predictor, Run};
use std::io::{BufRead, ErrorKind, Write};
use std::path::Path;

/// Lines that are read at a time: memory stays bounded however many there are.
const LINES_AT_ONCE: usize = 4096;

/// Predicts texts, or the lines of standard input if the texts are "-". A model that reads pairs
/// takes `text<TAB>text_pair`, or one text with its `text_pair`.
pub fn predict(run: &Run, texts: &[String], text_pair: Option<&str>) -> Result<()> {
    let predictor = open_predictor(run)?;
    if let Some(text_pair) = text_pair {
        let [text] = texts else {
            bail!(
                "--text-pair goes with one text; give pairs as lines text<TAB>text_pair of \
                   standard input"
            );
        };
        let text_pair = Some(text_pair);
        return print_inputs(&predictor, &[TextInput { text, text_pair }]);
    }
    if texts != ["-"] {
        return print_predictions(&predictor, texts, "argument", 1);
    }
    let mut lines = std::io::stdin().lock().lines().enumerate();
    let mut first_line = 1;
    loop {
        let mut texts = Vec::new();
        for (at, line) in lines.by_ref().take(LINES_AT_ONCE) {
            texts.push(line.with_context(|| {
                let number = at + 1;
                format!(
                    "standard input, line {number}: not UTF-8; convert it, for example with iconv"
                )
            })?);
        }
        if texts.is_empty() {
            return Ok(());
        }
        print_predictions(&predictor, &texts, "standard input", first_line)?;
        first_line += texts.len();
    }
}

/// Scores on the labelled lines of a file.
pub fn score_file(run: &Run, file: &Path) -> Result<Scores> {
    let format = FileFormat::guess(file, &run.labels)?;
    let examples = read_examples(file, format, &run.labels)?;
    let texts: Vec<TextInput> = examples.iter().map(Example::input).collect();
    let labels: Vec<usize> = examples.iter().map(|e| e.label).collect();
    let logits = open_predictor(run)?.logits(&texts)?;
    Ok(Scores::of(to_array(&logits)?.view(), &labels))
}

/// Prints the predictions of lines, which came from `origin`, the first with this number.
fn print_predictions(
    predictor: &Predictor,
    lines: &[String],
    origin: &str,
    first_line: usize,
) -> Result<()> {
    if !predictor.reads_pairs() {
        let texts: Vec<TextInput> = lines.iter().map(|line| line.as_str().into()).collect();
        return print_inputs(predictor, &texts);
    }
    let mut pairs = Vec::new();
    for (number, line) in (first_line..).zip(lines) {
        pairs.push(split_pair(Path::new(origin), number, line)?);
    }
    let inputs = pairs.iter().map(|(text, text_pair)| TextInput {
        text,
        text_pair: Some(text_pair),
    });
    print_inputs(predictor, &Vec::from_iter(inputs))
}

fn print_inputs(predictor: &Predictor, texts: &[TextInput]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for prediction in predictor.predict(texts)? {
        match writeln!(out, "{}", serde_json::to_string(&prediction)?) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
            written => written?,
        }
    }
    Ok(())
}
