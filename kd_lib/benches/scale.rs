//! How cost grows with the corpus and with the number of augmented texts. Each size runs in its own
//! process, on the given lines repeated with changed characters. Prints a table.
//!
//!     cargo bench --profile dev -p kd_lib --bench scale -- CORPUS

mod common;

use anyhow::{Context, Result, ensure};
use common::{peak_memory, recipe, root, store};
use kd_lib::data::{Corpus, Example};
use kd_lib::store::Table;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Training lines, and augmented texts of each.
const SIZES: [(usize, usize); 7] = [
    (1_000, 0),
    (10_000, 0),
    (40_000, 0),
    (180_000, 0),
    (10_000, 1),
    (10_000, 2),
    (10_000, 5),
];
const UPDATES: usize = 100;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    if let [command, corpus, lines, augmented] = &arguments[..] {
        ensure!(command == "measure", "what is {command}?");
        return measure(Path::new(corpus), lines.parse()?, augmented.parse()?);
    }
    let given = PathBuf::from(arguments.first().map_or("data/default", String::as_str));
    let corpus = if given.exists() {
        given
    } else {
        root().join(given)
    };
    let mut table = Table::new(&[
        "lines",
        "augmented texts of each",
        "texts",
        "preparation, µs a text",
        "update, µs a text",
        "MiB",
    ]);
    for (lines, augmented) in SIZES {
        let mut command = Command::new(std::env::current_exe()?);
        let output = command
            .arg("measure")
            .arg(&corpus)
            .args([lines, augmented].map(|n| n.to_string()))
            .output()?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let cells = String::from_utf8(output.stdout)?;
        table
            .rows
            .push(cells.trim().split('\t').map(Into::into).collect());
        eprintln!("{}", cells.trim());
    }
    print!("{}", table.text());
    Ok(())
}

/// Prints one line of the table: the preparation of corpus, token ids and transfer set, then
/// updates.
fn measure(corpus: &Path, lines: usize, augmented: usize) -> Result<()> {
    let mut corpus = Corpus::open(corpus)?;
    corpus.train = repeated(&corpus.train, lines);
    let settings = [
        format!("transfer.augmentations_per_text={augmented}"),
        "transfer.augmentations_keep_label=true".into(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let recipe = recipe("student", if augmented > 0 { &settings } else { &[] })?;
    let start = Instant::now();
    let mut timer = store().step_timer(&recipe, &corpus)?;
    let texts = timer.planned.corpus.train.len() + timer.planned.transfer_set.len();
    let prepared = start.elapsed().as_secs_f64() / texts as f64;
    let (mut seconds, mut trained) = (0.0, 0);
    for _ in 0..UPDATES {
        let update = timer.time_step()?;
        seconds += update.seconds;
        trained += update.size.texts;
    }
    let update = seconds / trained as f64;
    let memory = peak_memory().context("memory")?;
    let (prepared, update) = (1e6 * prepared, 1e6 * update);
    println!("{lines}\t{augmented}\t{texts}\t{prepared:.1}\t{update:.0}\t{memory:.0}");
    Ok(())
}

/// As many lines; in each copy of a text one character is replaced by one of another text.
fn repeated(texts: &[Example], lines: usize) -> Vec<Example> {
    let make = |at: usize| {
        let (copy, mut example) = (at / texts.len(), texts[at % texts.len()].clone());
        if copy > 0 {
            let other: Vec<char> = texts[(at * 7 + copy) % texts.len()].text.chars().collect();
            let mut characters: Vec<char> = example.text.chars().collect();
            let position = copy % characters.len();
            characters[position] = other[copy % other.len()];
            example.text = characters.into_iter().collect();
        }
        example
    };
    (0..lines).map(make).collect()
}
