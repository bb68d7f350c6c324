//! The speed of kd_lib and of PyTorch on the same batches. The programs take turns, one round each,
//! so that timing noise affects all alike. Prints a table with the processor's name.
//!
//!     cargo bench --profile dev -p kd_lib --bench race -- CORPUS [ROUNDS [PRECISION]]
//!
//! Each program is a process that reads a number of batches and prints the seconds, the texts and
//! its largest memory. Those in Python are in `benches/peer`; ours is this program, started again
//! with `contend`.

mod common;
#[path = "race/first.rs"]
mod first;
#[path = "../cli/src/memory.rs"]
mod memory;
#[path = "race/ours.rs"]
mod ours;
#[path = "race/works.rs"]
mod works;

use anyhow::{Context, Result, bail};
use common::root;
use kd_lib::data::Corpus;
use kd_lib::device::Environment;
use kd_lib::precision::Precision;
use kd_lib::store::Table;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use works::Work;

/// What a program prints after a round.
#[derive(Debug, Serialize, Deserialize)]
pub struct RoundResult {
    seconds: f64,
    texts: usize,
    peak: f64,
}

/// A running program, and the speed of its rounds.
struct Contender {
    name: &'static str,
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    texts_per_second: Vec<f64>,
    peak: f64,
}

impl Contender {
    fn start(name: &'static str, mut command: Command) -> Result<Contender> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            bail!("no pipes")
        };
        Ok(Contender {
            name,
            child,
            input,
            output: BufReader::new(output),
            texts_per_second: Vec::new(),
            peak: 0.0,
        })
    }

    /// One round of `batches`.
    fn round(&mut self, batches: usize) -> Result<()> {
        writeln!(self.input, "{batches}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let result: RoundResult = serde_json::from_str(&line)
            .with_context(|| format!("{} printed {line:?}", self.name))?;
        self.texts_per_second
            .push(result.texts as f64 / result.seconds);
        self.peak = result.peak;
        Ok(())
    }

    fn end(self) -> Result<(&'static str, f64, f64)> {
        let Contender {
            name,
            mut child,
            input,
            mut texts_per_second,
            peak,
            ..
        } = self;
        let peak = on_gpu(child.id()).unwrap_or(peak);
        drop(input); // the program ends at the end of its input
        child.wait()?;
        texts_per_second.remove(0); // the first round warms up
        texts_per_second.sort_by(f64::total_cmp);
        Ok((name, texts_per_second[texts_per_second.len() / 2], peak))
    }
}

/// MiB that a process holds on a GPU, if there is one.
fn on_gpu(process: u32) -> Option<f64> {
    let output = Command::new("nvidia-smi")
        .args([
            "--query-compute-apps=pid,used_memory",
            "--format=csv,noheader,nounits",
        ])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines().filter_map(|line| line.split_once(", "));
    lines
        .find(|(pid, _)| *pid == process.to_string())?
        .1
        .trim()
        .parse()
        .ok()
}

/// What all comparisons share.
struct Settings {
    corpus: PathBuf,
    rounds: usize,
    precision: String,
    /// Operations a second of a matrix product in fp32 and in 16 bits.
    peaks: [f64; 2],
}

/// Times one kind of work; a line of the table for each program. Returns texts a second of kd_lib,
/// of PyTorch with our optimizations (strong) and of PyTorch as in the original code (weak).
fn race(work: &Work, settings: &Settings, table: &mut Table) -> Result<[f64; 3]> {
    let Settings {
        corpus,
        rounds,
        precision,
        peaks,
    } = settings;
    let folder = tempfile::tempdir()?;
    let inputs = folder.path().join("inputs.json");
    let flops = work.write_inputs(corpus, precision, &inputs)?;
    let mut contenders = vec![Contender::start(
        "kd_lib",
        ours::command(work, corpus, precision)?,
    )?];
    for form in ["strong", "weak"] {
        let mut command = Command::new(root().join(".venv/bin/python"));
        command
            .arg(root().join("kd_lib/benches/peer").join(work.script))
            .arg(&inputs)
            .arg(form)
            .args(work.mode());
        contenders.push(Contender::start(
            if form == "weak" {
                "PyTorch, weak"
            } else {
                "PyTorch, strong"
            },
            command,
        )?);
    }
    for round in 0..=*rounds {
        eprintln!("{}: round {round} of {rounds}", work.name);
        contenders
            .iter_mut()
            .try_for_each(|contender| contender.round(work.batches))?;
    }
    let results = contenders
        .into_iter()
        .map(Contender::end)
        .collect::<Result<Vec<_>>>()?;
    let (_, ours, our_peak) = results[0];
    let speeds = std::array::from_fn(|at| results[at].1);
    for (name, speed, peak) in results {
        let ratio = |value: f64| format!("{value:.2}");
        let share = 100.0 * speed * flops / peaks[usize::from(name != "PyTorch, weak")];
        let cells = [
            work.name.into(),
            name.into(),
            format!("{speed:.0}"),
            ratio(ours / speed),
            format!("{share:.0} %"),
            format!("{peak:.0}"),
            ratio(our_peak / peak),
        ];
        table.push(cells);
    }
    Ok(speeds)
}

fn main() -> Result<()> {
    memory::keep_freed_memory();
    let mut arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    if arguments.first().is_some_and(|a| a == "contend") {
        return ours::contend(&arguments[1], Path::new(&arguments[2]), &arguments[3]);
    }
    let corpus = PathBuf::from(if arguments.is_empty() {
        "data/default".into()
    } else {
        arguments.remove(0)
    });
    let corpus = if corpus.exists() {
        corpus
    } else {
        root().join(corpus)
    };
    let rounds: usize = arguments.first().map_or(Ok(5), |n| n.parse())?;
    let precision = arguments.get(1).map_or("auto", String::as_str).to_owned();
    let device = kd_lib::device::choose("auto")?;
    let half = if precision == "fp16" {
        Precision::Fp16
    } else {
        Precision::Bf16
    };
    let settings = Settings {
        peaks: ours::matrix_products(device, half),
        corpus,
        rounds,
        precision,
    };
    let mut table = Table::new(&[
        "work",
        "contender",
        "texts/s",
        "kd_lib / it",
        "of the product's rate",
        "MiB",
        "kd_lib / it",
    ]);
    let mut speeds = Vec::new();
    for work in &works::WORKS {
        speeds.push(race(work, &settings, &mut table)?);
    }
    let Settings {
        corpus,
        rounds,
        peaks,
        ..
    } = settings;
    let Environment {
        processor,
        threads,
        instructions,
        libtorch,
        ..
    } = Environment::of(device);
    println!(
        "{processor}, {threads} threads, {}; libtorch {libtorch}",
        instructions.join(" ")
    );
    println!(
        "matrix product 2048 × 768 × 3072: fp32 {:.0}, {half:?} {:.0} GFLOP/s\n",
        peaks[0] / 1e9,
        peaks[1] / 1e9
    );
    println!("{}", table.text());
    println!("{}\n", first::race(&corpus, rounds)?);
    println!(
        "{}",
        temperature_study(&speeds, Corpus::open(&corpus)?.train.len() as f64)
    );
    Ok(())
}

/// The time of the temperature study (two epochs of the teacher, four temperatures of six epochs
/// each), extrapolated from the measured speeds: ours, where the teacher's logits are computed
/// once, and the original's, where they are computed again for every batch of every epoch.
fn temperature_study(speeds: &[[f64; 3]], texts: f64) -> String {
    let seconds = |which: usize, work: usize, times: f64| times * texts / speeds[work][which];
    let [student, teacher, logits] = [0, 1, 3];
    let (ours, weak) = (0, 2);
    let once =
        seconds(ours, teacher, 2.0) + seconds(ours, logits, 1.0) + seconds(ours, student, 24.0);
    let again =
        seconds(weak, teacher, 2.0) + seconds(weak, logits, 24.0) + seconds(weak, student, 24.0);
    format!(
        "temperature study on {texts} texts, extrapolated: ours {:.0} min (teacher {:.0}, its logits {:.0}, students {:.0}), the original's procedure {:.0} min (teacher {:.0}, its logits in every step {:.0}, students {:.0}): {:.1} times",
        once / 60.0,
        seconds(ours, teacher, 2.0) / 60.0,
        seconds(ours, logits, 1.0) / 60.0,
        seconds(ours, student, 24.0) / 60.0,
        again / 60.0,
        seconds(weak, teacher, 2.0) / 60.0,
        seconds(weak, logits, 24.0) / 60.0,
        seconds(weak, student, 24.0) / 60.0,
        again / once
    )
}
