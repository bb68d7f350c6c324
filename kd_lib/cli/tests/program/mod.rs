//! The program `kd` as tests start it, and the files of a run that must not differ.

use crate::common::{TINY_STUDENT, root, sample};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Settings of a teacher on the tiny checkpoint of [`crate::common::tiny_checkpoint`].
pub const TINY_TEACHER: [&str; 6] = [
    "model.checkpoint=tiny",
    "model.pooling=cls",
    "model.prefix=",
    "data.max_length=32",
    "device=cpu",
    "train.eval_every_samples=100",
];

/// `kd` with this folder of checkpoints, in the project's root, on one thread like every process of
/// these tests.
pub fn kd(checkpoints: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kd"));
    command
        .env("OMP_NUM_THREADS", "1")
        .env_remove("KD_CHECKPOINTS")
        .current_dir(root());
    command.arg("--checkpoints").arg(checkpoints);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// `kd train` of a small recipe on the sample.
pub fn kd_train(checkpoints: &Path, recipe: &str, settings: &[&str]) -> Command {
    let mut command = kd(checkpoints);
    command
        .args([
            "train",
            &format!("notebooks/recipes/{recipe}.toml"),
            "--data",
        ])
        .arg(sample());
    command.args(settings.iter().flat_map(|s| ["--set", s]));
    command
}

/// What `kd` prints for these arguments and this standard input.
pub fn kd_output(checkpoints: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = kd(checkpoints)
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Trains a tiny student; returns its folder.
pub fn train_student(checkpoints: &Path) -> PathBuf {
    finish(&mut kd_train(checkpoints, "student", &TINY_STUDENT))
}

/// Runs a command that trains; returns the run's folder, which is the last line of its output.
pub fn finish(command: &mut Command) -> PathBuf {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    PathBuf::from(text(&output.stdout).lines().last().unwrap())
}

/// The contents of a run's files that must not differ. The seconds that a run took are no part of
/// its result.
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
    let mut all = Vec::new();
    for name in names.iter().filter(|name| run.join(name).exists()) {
        all.push(((*name).to_owned(), std::fs::read(run.join(name)).unwrap()));
    }
    let report = std::fs::read_to_string(run.join("report.json")).unwrap();
    let is_result = |line: &&str| !line.trim().starts_with("\"seconds\"");
    let report: String = report.lines().filter(is_result).collect();
    all.push(("report.json".into(), report.into_bytes()));
    all
}
