//! `kd predict`: texts in, one JSON line each out, in order. `kd test` on a file: the same answers, scored.

use crate::project::opened;
use anyhow::{Context, Result};
use kd_lib::data::format::{Format, read_examples};
use kd_lib::metrics::Scores;
use kd_lib::predict::Predictor;
use kd_lib::run::{Run, to_array};
use std::io::{BufRead, ErrorKind, Write};
use std::path::Path;

/// Lines answered at a time: memory stays bounded however many there are.
const PORTION: usize = 4096;

/// Answers these texts, or the lines of standard input where they are "-".
pub fn predict(run: &Run, texts: &[String]) -> Result<()> {
    let predictor = opened(run)?;
    if texts != ["-"] {
        return answer(&predictor, texts);
    }
    let mut lines = std::io::stdin().lock().lines();
    let mut read = 0;
    loop {
        let portion: Vec<String> =
            lines.by_ref().take(PORTION).map(|line| numbered(&mut read, line)).collect::<Result<_>>()?;
        if portion.is_empty() {
            return Ok(());
        }
        answer(&predictor, &portion)?;
    }
}

/// Scores on the labelled lines of a file.
pub fn score(run: &Run, file: &Path) -> Result<Scores> {
    let examples = read_examples(file, Format::guess(file, &run.labels)?, &run.labels)?;
    let (texts, labels): (Vec<&str>, Vec<usize>) = examples.iter().map(|e| (e.text.as_str(), e.label)).unzip();
    Ok(Scores::of(to_array(&opened(run)?.logits(&texts)?)?.view(), &labels))
}

/// The next line; one that cannot be read is named by its number.
fn numbered(read: &mut usize, line: std::io::Result<String>) -> Result<String> {
    *read += 1;
    line.with_context(|| {
        format!("standard input, line {read}: not readable as UTF-8; convert it, for example with iconv")
    })
}

fn answer(predictor: &Predictor, texts: &[String]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    for answer in predictor.predict(&texts.iter().map(String::as_str).collect::<Vec<_>>())? {
        match writeln!(out, "{}", serde_json::to_string(&answer)?) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
            written => written?,
        }
    }
    Ok(())
}
