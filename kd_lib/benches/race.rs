//! Our steps beside PyTorch's on the same batches, in turns: one round of each contender, then the next, so that a slow
//! moment of the machine hits all alike. Prints a table with its processor's name; `make bench` keeps it.
//!
//!     cargo bench --profile dev -p kd_lib --bench race -- CORPUS [ROUNDS [PRECISION]]
//!
//! Each contender is a process of its own that answers a number of batches with seconds, texts and its largest memory;
//! those in Python are in `benches/peer`, ours is this program, started again with `contend`.

mod common;
#[path = "race/first.rs"]
mod first;
#[path = "../kd/memory.rs"]
mod memory;
#[path = "race/ours.rs"]
mod ours;
#[path = "race/works.rs"]
mod works;

use anyhow::{Context, Result, bail};
use common::root;
use kd_lib::data::Corpus;
use kd_lib::device::Environment;
use kd_lib::grid::Grid;
use kd_lib::strategies::Precision;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use works::Work;

/// A contender's answer to one line.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    seconds: f64,
    texts: usize,
    peak: f64,
}

/// A running contender, and how fast its rounds were.
struct Contender {
    name: &'static str,
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    texts_per_second: Vec<f64>,
    peak: f64,
}

impl Contender {
    fn start(name: &'static str, mut command: Command) -> Result<Contender> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (Some(asks), Some(answers)) = (child.stdin.take(), child.stdout.take()) else { bail!("no pipes") };
        Ok(Contender { name, child, asks, answers: BufReader::new(answers), texts_per_second: Vec::new(), peak: 0.0 })
    }

    /// One round of so many batches.
    fn round(&mut self, batches: usize) -> Result<()> {
        writeln!(self.asks, "{batches}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Answer = serde_json::from_str(&line).with_context(|| format!("{} said {line:?}", self.name))?;
        self.texts_per_second.push(answer.texts as f64 / answer.seconds);
        self.peak = answer.peak;
        Ok(())
    }

    fn end(self) -> Result<(&'static str, f64, f64)> {
        let Contender { name, mut child, asks, mut texts_per_second, peak, .. } = self;
        let peak = on_gpu(child.id()).unwrap_or(peak);
        drop(asks); // the end of its input is the end of its work
        child.wait()?;
        texts_per_second.remove(0); // the first round warms up
        texts_per_second.sort_by(f64::total_cmp);
        Ok((name, texts_per_second[texts_per_second.len() / 2], peak))
    }
}

/// MiB that a process holds on a GPU, where there is one.
fn on_gpu(process: u32) -> Option<f64> {
    let output = Command::new("nvidia-smi")
        .args(["--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines().filter_map(|line| line.split_once(", "));
    lines.find(|(pid, _)| *pid == process.to_string())?.1.trim().parse().ok()
}

/// What all races share.
struct Entry {
    corpus: PathBuf,
    rounds: usize,
    precision: String,
    /// Operations a second of a matrix product in fp32 and in 16 bits.
    peaks: [f64; 2],
}

/// Races one work; a line of the table for each contender. Returns texts a second: ours, PyTorch strong, weak.
fn race(work: &Work, entry: &Entry, table: &mut Grid) -> Result<[f64; 3]> {
    let Entry { corpus, rounds, precision, peaks } = entry;
    let folder = tempfile::tempdir()?;
    let inputs = folder.path().join("inputs.json");
    let flops = work.write_inputs(corpus, precision, &inputs)?;
    let mut contenders = vec![Contender::start("kd_lib", ours::command(work, corpus, precision)?)?];
    for form in ["strong", "weak"] {
        let mut command = Command::new(root().join(".venv/bin/python"));
        command.arg(root().join("kd_lib/benches/peer").join(work.script)).arg(&inputs).arg(form).args(work.mode());
        contenders.push(Contender::start(if form == "weak" { "PyTorch, weak" } else { "PyTorch, strong" }, command)?);
    }
    for round in 0..=*rounds {
        eprintln!("{}: round {round} of {rounds}", work.name);
        contenders.iter_mut().try_for_each(|contender| contender.round(work.batches))?;
    }
    let results = contenders.into_iter().map(Contender::end).collect::<Result<Vec<_>>>()?;
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
        table.rows.push(cells.map(Into::into).to_vec());
    }
    Ok(speeds)
}

fn main() -> Result<()> {
    memory::keep_what_is_freed();
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if arguments.first().is_some_and(|a| a == "contend") {
        return ours::contend(&arguments[1], Path::new(&arguments[2]), &arguments[3]);
    }
    let corpus = PathBuf::from(if arguments.is_empty() { "data/default".into() } else { arguments.remove(0) });
    let corpus = if corpus.exists() { corpus } else { root().join(corpus) };
    let rounds: usize = arguments.first().map_or(Ok(5), |n| n.parse())?;
    let precision = arguments.get(1).map_or("auto", String::as_str).to_owned();
    let device = kd_lib::device::choose("auto")?;
    let half = if precision == "fp16" { Precision::Fp16 } else { Precision::Bf16 };
    let entry = Entry { peaks: ours::matrix_products(device, half), corpus, rounds, precision };
    let mut table =
        Grid::new(&["work", "contender", "texts/s", "ours / it", "of the product's rate", "MiB", "ours / it"]);
    let mut speeds = Vec::new();
    for work in &works::WORKS {
        speeds.push(race(work, &entry, &mut table)?);
    }
    let Entry { corpus, rounds, peaks, .. } = entry;
    let Environment { processor, threads, instructions, libtorch, .. } = Environment::of(device);
    println!("{processor}, {threads} threads, {}; libtorch {libtorch}", instructions.join(" "));
    println!("matrix product 2048 × 768 × 3072: fp32 {:.0}, {half:?} {:.0} GFLOP/s\n", peaks[0] / 1e9, peaks[1] / 1e9);
    println!("{}", table.text());
    println!("{}\n", first::race(&corpus, rounds)?);
    println!("{}", study(&speeds, Corpus::open(&corpus)?.train.len() as f64));
    Ok(())
}

/// The temperature study, four temperatures of six epochs each beside two epochs of the teacher, from the speeds just
/// measured: ours, where the teacher speaks once, and the original's, where it reads every batch of every epoch again.
fn study(speeds: &[[f64; 3]], texts: f64) -> String {
    let seconds = |which: usize, work: usize, times: f64| times * texts / speeds[work][which];
    let [student, teacher, reads] = [0, 1, 3];
    let (ours, weak) = (0, 2);
    let once = seconds(ours, teacher, 2.0) + seconds(ours, reads, 1.0) + seconds(ours, student, 24.0);
    let again = seconds(weak, teacher, 2.0) + seconds(weak, reads, 24.0) + seconds(weak, student, 24.0);
    format!(
        "temperature study on {texts} texts, extrapolated: ours {:.0} min (teacher {:.0}, its logits {:.0}, students {:.0}), the original's procedure {:.0} min (teacher {:.0}, its logits in every step {:.0}, students {:.0}): {:.1} times",
        once / 60.0,
        seconds(ours, teacher, 2.0) / 60.0,
        seconds(ours, reads, 1.0) / 60.0,
        seconds(ours, student, 24.0) / 60.0,
        again / 60.0,
        seconds(weak, teacher, 2.0) / 60.0,
        seconds(weak, reads, 24.0) / 60.0,
        seconds(weak, student, 24.0) / 60.0,
        again / once
    )
}
