//! From the start of a process to its first prediction: `kd predict`, and Python with the same
//! student, in turns.

use super::common::{root, short_run};
use anyhow::{Context, Result, ensure};
use kd_lib::data::Corpus;
use kd_lib::store::RunStore;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

const TEXT: &str = "两市高开高走 沪指涨逾百分之二";

/// The program `kd` of the same build.
fn kd() -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let kd = this
        .ancestors()
        .nth(2)
        .context("no target folder")?
        .join("kd");
    ensure!(
        kd.exists(),
        "{}: not built; run `cargo build -p kd`",
        kd.display()
    );
    Ok(kd)
}

/// Times both; a sentence with their median seconds.
pub fn race(corpus: &Path, rounds: usize) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let run = short_run(
        &RunStore::new(folder.path()),
        "student",
        &Corpus::open(corpus)?,
    )?;
    let mut ours = Command::new(kd()?);
    ours.arg("predict").arg(run.folder()?).arg(TEXT);
    let mut python = Command::new(root().join(".venv/bin/python"));
    python
        .arg(root().join("kd_lib/benches/peer/answer.py"))
        .arg(run.folder()?)
        .arg(TEXT);
    let mut seconds = [Vec::new(), Vec::new()];
    for _ in 0..=rounds {
        for (command, seconds) in [&mut ours, &mut python].into_iter().zip(&mut seconds) {
            let start = Instant::now();
            let output = command.output()?;
            ensure!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    let [ours, python] = seconds.map(|mut s| {
        s.remove(0); // the first round fills the page cache
        s.sort_by(f64::total_cmp);
        s[s.len() / 2]
    });
    Ok(format!(
        "first prediction of a new process: kd_lib {ours:.2} s, Python {python:.2} s, {:.1} times as long",
        python / ours
    ))
}
