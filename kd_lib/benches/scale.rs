//! How cost grows with the corpus and with the augmentation factor: each size in a process of its own, from the given
//! lines repeated with changed characters. Prints a table.
//!
//!     cargo bench --profile dev -p kd_lib --bench scale -- CORPUS

mod common;

use anyhow::{Context, Result, ensure};
use common::{peak, recipe, root};
use kd_lib::data::{Corpus, Example};
use kd_lib::grid::Grid;
use kd_lib::lab::Lab;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Training lines, and texts made of each.
const SIZES: [(usize, usize); 7] =
    [(1_000, 0), (10_000, 0), (40_000, 0), (180_000, 0), (10_000, 1), (10_000, 2), (10_000, 5)];
const UPDATES: usize = 100;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if let [command, corpus, lines, made] = &arguments[..] {
        ensure!(command == "measure", "what is {command}?");
        return measure(Path::new(corpus), lines.parse()?, made.parse()?);
    }
    let given = PathBuf::from(arguments.first().map_or("data/default", String::as_str));
    let corpus = if given.exists() { given } else { root().join(given) };
    let mut table = Grid::new(&["lines", "made of each", "texts", "prepare, µs a text", "update, µs a text", "MiB"]);
    for (lines, made) in SIZES {
        let mut command = Command::new(std::env::current_exe()?);
        let output = command.arg("measure").arg(&corpus).args([lines, made].map(|n| n.to_string())).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let cells = String::from_utf8(output.stdout)?;
        table.rows.push(cells.trim().split('\t').map(Into::into).collect());
        eprintln!("{}", cells.trim());
    }
    print!("{}", table.text());
    Ok(())
}

/// Prints one line of the table: corpus, encodings and transfer set prepared, then a stretch of updates.
fn measure(corpus: &Path, lines: usize, made: usize) -> Result<()> {
    let mut corpus = Corpus::open(corpus)?;
    corpus.train = repeated(&corpus.train, lines);
    let settings = [format!("transfer.made={made}"), "transfer.keep_labels=true".into()];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let recipe = recipe("student", if made > 0 { &settings } else { &[] })?;
    let start = Instant::now();
    let mut rehearsal = Lab::at(root().join("checkpoints")).rehearse(&recipe, &corpus)?;
    let texts = rehearsal.plan.corpus.train.len() + rehearsal.plan.extras.len();
    let prepared = start.elapsed().as_secs_f64() / texts as f64;
    let (mut seconds, mut learned) = (0.0, 0);
    for _ in 0..UPDATES {
        let update = rehearsal.update()?;
        (seconds, learned) = (seconds + update.0, learned + update.1);
    }
    let update = seconds / learned as f64;
    println!("{lines}\t{made}\t{texts}\t{:.1}\t{:.0}\t{:.0}", 1e6 * prepared, 1e6 * update, peak().context("memory")?);
    Ok(())
}

/// As many lines, each copy of a text with one character of another text put in.
fn repeated(texts: &[Example], lines: usize) -> Vec<Example> {
    let make = |at: usize| {
        let (copy, mut example) = (at / texts.len(), texts[at % texts.len()].clone());
        if copy > 0 {
            let other: Vec<char> = texts[(at * 7 + copy) % texts.len()].text.chars().collect();
            let mut characters: Vec<char> = example.text.chars().collect();
            let place = copy % characters.len();
            characters[place] = other[copy % other.len()];
            example.text = characters.into_iter().collect();
        }
        example
    };
    (0..lines).map(make).collect()
}
