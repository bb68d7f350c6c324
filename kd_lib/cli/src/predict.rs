//! `kd predict`: texts in, one JSON line each out, in order. `kd evaluate --data`: the predictions
//! of a file's texts, scored.

use crate::project::open_predictor;
use crate::quoted;
use anyhow::{Context, Result, bail, ensure};
use kd_lib::data::text_files::{FileFormat, read_examples};
use kd_lib::data::text_stream::{StreamedText, for_each_line};
use kd_lib::data::{Example, TextInput, import};
use kd_lib::evaluation::{Scores, to_array};
use kd_lib::store::{Prediction, Predictor, Run};
use kd_lib::tch::Tensor;
use serde_json::json;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// Most lines that are predicted at a time: memory stays bounded however many there are.
const LINES_AT_ONCE: usize = 4096;
/// Labelled texts that are scored at a time, so that progress can be said.
const TEXTS_AT_ONCE: usize = 1024;
/// Between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// What is said once of texts that are JSON objects.
const JSON_NOTICE: &str = "a JSON object is classified as a text, with its braces and keys; to classify \
                           a value, give the value alone";

/// What is said once of lines with tabs, for a model of single texts.
const TAB_NOTICE: &str = "a line with a tab is classified as one text; if a label stands before or \
                          behind the tab, remove it";

/// Which notices about texts were printed: each is, once.
#[derive(Default)]
struct Notices {
    json: bool,
    tab: bool,
}

impl Notices {
    fn print_for(&mut self, line: &[u8], reads_pairs: bool) {
        if !self.json && is_json(line) {
            note!("{JSON_NOTICE}");
            self.json = true;
        }
        if !self.tab && !reads_pairs && line.contains(&b'\t') {
            note!("{TAB_NOTICE}");
            self.tab = true;
        }
    }
}

/// Whether a line is a JSON object, behind a byte-order mark or not.
fn is_json(line: &[u8]) -> bool {
    let line = line.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(line);
    line.trim_ascii_start().starts_with(b"{")
        && serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line).is_ok()
}

/// Predicts texts, or the lines of standard input if the texts are "-". A model that reads pairs
/// takes `text<TAB>text_pair`, or one text with its `text_pair`.
pub fn predict(run: &Run, texts: &[String], text_pair: Option<&str>) -> Result<()> {
    if texts == ["-"] {
        ensure!(
            text_pair.is_none(),
            "give pairs as lines text<TAB>text_pair of standard input"
        );
        return predict_lines(&open_predictor(run)?);
    }
    if texts.iter().any(|text| text == "-") {
        bail!("\"-\" reads standard input and stands alone; leave the other texts out");
    }
    for text in texts.iter().filter(|text| Path::new(text).is_file()) {
        let file = quoted(text.as_ref());
        note!("{text:?} is classified as a text; to classify the file: kd predict RUN - < {file}");
    }
    let predictor = open_predictor(run)?;
    if let Some(text_pair) = text_pair {
        let [text] = texts else {
            bail!(
                "--text-pair goes with one text; give pairs as lines text<TAB>text_pair of \
                 standard input"
            );
        };
        let text_pair = Some(text_pair);
        return print_predictions(predictor.predict(&[TextInput { text, text_pair }])?);
    }
    let mut streamed = Vec::new();
    let mut notices = Notices::default();
    for (number, text) in (1..).zip(texts) {
        let reads_pairs = predictor.reads_pairs();
        notices.print_for(text.as_bytes(), reads_pairs);
        let text = StreamedText::parse(text.as_bytes(), reads_pairs, "argument", number)?;
        streamed.push(text);
    }
    let inputs: Vec<TextInput> = streamed.iter().map(StreamedText::input).collect();
    print_predictions(predictor.predict(&inputs)?)
}

/// Answers each line of standard input as it arrives; lines that are there already form a batch. A
/// line that cannot be read is answered by `{"line": N, "error": …}`.
fn predict_lines(predictor: &Predictor) -> Result<()> {
    let (sender, lines) = sync_channel(LINES_AT_ONCE);
    // Ends with the program, or with the input.
    std::thread::spawn(move || {
        for_each_line(std::io::stdin().lock(), |line| sender.send(line).is_ok());
    });
    let (mut number, mut failed) = (1, 0);
    let mut notices = Notices::default();
    while let Ok(first) = lines.recv() {
        let mut batch = Vec::new();
        for line in std::iter::once(first).chain(lines.try_iter().take(LINES_AT_ONCE - 1)) {
            let line = line.context("standard input")?;
            notices.print_for(&line, predictor.reads_pairs());
            batch.push(line);
        }
        failed += answer(predictor, &batch, number)?;
        number += batch.len();
    }
    ensure!(
        failed == 0,
        "{failed} of {} lines have no prediction",
        number - 1
    );
    Ok(())
}

/// Prints the answers to these lines, the first of which has this number. Returns how many have no
/// prediction.
fn answer(predictor: &Predictor, lines: &[Vec<u8>], first: usize) -> Result<usize> {
    let mut texts = Vec::new();
    for (number, line) in (first..).zip(lines) {
        let read = StreamedText::parse(line, predictor.reads_pairs(), "standard input", number);
        texts.push(read.map_err(|error| error.to_string()));
    }
    let inputs: Vec<TextInput> = texts.iter().flatten().map(StreamedText::input).collect();
    let mut predictions = predict_each(predictor, &inputs).into_iter();
    let mut failed = 0;
    for (number, text) in (first..).zip(&texts) {
        let prediction = match text {
            Ok(_) => predictions.next().context("a prediction for each text")?,
            Err(error) => Err(error.clone()),
        };
        failed += usize::from(prediction.is_err());
        match prediction {
            Ok(prediction) => print_line(&serde_json::to_string(&prediction)?)?,
            Err(error) => print_line(&json!({ "line": number, "error": error }).to_string())?,
        }
    }
    std::io::stdout().flush()?;
    Ok(failed)
}

/// Predictions in batches, or one by one if a text of the batch has none.
fn predict_each(
    predictor: &Predictor,
    inputs: &[TextInput],
) -> Vec<std::result::Result<Prediction, String>> {
    match predictor.predict(inputs) {
        Ok(predictions) => predictions.into_iter().map(Ok).collect(),
        Err(error) if inputs.len() == 1 => vec![Err(error.to_string())],
        Err(_) => {
            let single = |input: &TextInput| predict_each(predictor, &[*input]);
            inputs.iter().flat_map(single).collect()
        }
    }
}

fn print_predictions(predictions: Vec<Prediction>) -> Result<()> {
    for prediction in predictions {
        print_line(&serde_json::to_string(&prediction)?)?;
    }
    Ok(())
}

/// Prints a line. A reader that has closed the pipe has read enough.
fn print_line(line: &str) -> Result<()> {
    match writeln!(std::io::stdout().lock(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        written => Ok(written?),
    }
}

/// Scores on the labelled texts of a file. The format is detected if absent.
pub fn score_file(run: &Run, file: &Path, format: Option<FileFormat>) -> Result<Scores> {
    ensure!(
        !file.is_dir(),
        "{} is a folder; name one of its files, for example {}",
        file.display(),
        file.join("test.txt").display()
    );
    ensure!(
        file.is_file() || !file.exists(),
        "{} is not a regular file: save what it gives in a file, and name that",
        file.display()
    );
    let examples = match format {
        Some(format) => read_examples(file, format, &run.labels)?,
        None => {
            let read = import::read_labelled_file(file, &run.labels)?;
            for notice in read.notices {
                note!("{notice}");
            }
            read.examples
        }
    };
    if import::fingerprint_of_file(file)? == run.report.corpus_fingerprint {
        note!(
            "{}: the file that this run was trained on, so the scores are too good",
            file.display()
        );
    }
    let predictor = open_predictor(run)?;
    let is_other = |example: &&Example| example.text_pair.is_some() != predictor.reads_pairs();
    if let Some(example) = examples.iter().find(is_other) {
        let problem = if predictor.reads_pairs() {
            "one text, and this model reads pairs; add a column text_pair"
        } else {
            "a pair, and this model reads one text; remove the column of second texts"
        };
        bail!("{}:{}: {problem}", file.display(), example.line);
    }
    let labels: Vec<usize> = examples.iter().map(|e| e.label).collect();
    let logits = logits_with_progress(&predictor, &examples)?;
    Ok(Scores::of(to_array(&logits)?.view(), &labels))
}

/// The logits of many texts. How many are done is said every few seconds.
fn logits_with_progress(predictor: &Predictor, examples: &[Example]) -> Result<Tensor> {
    let mut parts = Vec::new();
    let (mut done, mut said) = (0, Instant::now());
    for part in examples.chunks(TEXTS_AT_ONCE) {
        let texts: Vec<TextInput> = part.iter().map(Example::input).collect();
        parts.push(predictor.logits(&texts)?);
        done += part.len();
        if said.elapsed() > PROGRESS_INTERVAL && done < examples.len() {
            said = Instant::now();
            note!("{done} of {} texts", examples.len());
        }
    }
    Ok(Tensor::cat(&parts, 0))
}
