//! `kd predict`: texts in, one JSON line each out, in order.

use anyhow::Result;
use kd_lib::predict::Predictor;
use kd_lib::run::Run;
use std::io::{BufRead, ErrorKind, Write};

/// Lines answered at a time: memory stays bounded however many there are.
const PORTION: usize = 4096;

/// Answers these texts, or the lines of standard input where they are "-".
pub fn predict(run: &Run, texts: &[String]) -> Result<()> {
    let predictor = Predictor::open(run)?;
    if texts != ["-"] {
        return answer(&predictor, texts);
    }
    let mut lines = std::io::stdin().lock().lines();
    loop {
        let portion: Vec<String> = lines.by_ref().take(PORTION).collect::<std::io::Result<_>>()?;
        if portion.is_empty() {
            return Ok(());
        }
        answer(&predictor, &portion)?;
    }
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
