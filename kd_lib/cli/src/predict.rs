//! `kd predict`: texts in, one JSON line each out, in order. `kd evaluate --data`: the predictions
//! of a file's texts, scored.

use crate::project::open_predictor;
use anyhow::{Context, Result};
use kd_lib::data::text_files::{FileFormat, read_examples};
use kd_lib::evaluation::{Scores, to_array};
use kd_lib::store::{Predictor, Run};
use std::io::{BufRead, ErrorKind, Write};
use std::path::Path;

/// Lines that are read at a time: memory stays bounded however many there are.
const LINES_AT_ONCE: usize = 4096;

/// Predicts texts, or the lines of standard input if the texts are "-".
pub fn predict(run: &Run, texts: &[String]) -> Result<()> {
    let predictor = open_predictor(run)?;
    if texts != ["-"] {
        return print_predictions(&predictor, texts);
    }
    let mut lines = std::io::stdin().lock().lines().enumerate();
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
        print_predictions(&predictor, &texts)?;
    }
}

/// Scores on the labelled lines of a file.
pub fn score_file(run: &Run, file: &Path) -> Result<Scores> {
    let format = FileFormat::guess(file, &run.labels)?;
    let examples = read_examples(file, format, &run.labels)?;
    let texts: Vec<&str> = examples.iter().map(|e| e.text.as_str()).collect();
    let labels: Vec<usize> = examples.iter().map(|e| e.label).collect();
    let logits = open_predictor(run)?.logits(&texts)?;
    Ok(Scores::of(to_array(&logits)?.view(), &labels))
}

fn print_predictions(predictor: &Predictor, texts: &[String]) -> Result<()> {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let mut out = std::io::stdout().lock();
    for prediction in predictor.predict(&texts)? {
        match writeln!(out, "{}", serde_json::to_string(&prediction)?) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
            written => written?,
        }
    }
    Ok(())
}
