//! The `kd` program as the tests of trust start it, and what of a run must not differ.

use super::{root, sample};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Settings of a teacher on the tiny checkpoint of [`super::tiny_checkpoint`].
pub const TINY_TEACHER: [&str; 6] = [
    "model.weights=tiny",
    "model.pooling=cls",
    "model.prefix=",
    "data.max_tokens=32",
    "device=cpu",
    "train.evaluate_every=100",
];

/// A command that trains something small in `lab`, one thread, like every process of these tests.
pub fn kd(lab: &Path, recipe: &str, settings: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kd"));
    command.env("OMP_NUM_THREADS", "1").current_dir(root()).arg("--checkpoints").arg(lab);
    command.args(["run", &format!("notebooks/recipes/{recipe}.toml"), "--data"]).arg(sample());
    command.args(settings.iter().flat_map(|s| ["--set", s]));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What must not differ, by file; the seconds that a run took are no part of its result.
pub fn result(run: &Path) -> Vec<(String, Vec<u8>)> {
    let names = [
        "model.safetensors",
        "curve.csv",
        "curve.tfevents",
        "dev.safetensors",
        "test.safetensors",
        "model.json",
        "vocab.txt",
    ];
    let files = names.iter().filter(|name| run.join(name).exists());
    let mut all: Vec<_> = files.map(|name| ((*name).to_owned(), std::fs::read(run.join(name)).unwrap())).collect();
    let report = std::fs::read_to_string(run.join("report.json")).unwrap();
    let timeless: String = report.lines().filter(|l| !l.trim().starts_with("\"seconds\"")).collect();
    all.push(("report.json".into(), timeless.into_bytes()));
    all
}

pub fn finished(command: &mut Command) -> PathBuf {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().lines().last().unwrap())
}
