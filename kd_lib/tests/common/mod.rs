//! What several test files need: the project's folders, and Python references run for real.
#![allow(dead_code)] // each test file uses its own part

use std::path::{Path, PathBuf};
use std::process::Command;

/// The project's root.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The hand-written corpus.
pub fn sample() -> PathBuf {
    root().join("data/sample")
}

/// The default teacher's weights, which set-up converts.
pub fn teacher_weights() -> PathBuf {
    let folder = root().join("checkpoints/e5-small");
    assert!(folder.join("model.safetensors").exists(), "no default teacher in {}: run `make setup` first", folder.display());
    folder
}

/// Runs a script of `tests/reference` in the project's virtual environment.
pub fn reference(script: &str, arguments: &[&Path]) {
    let python = root().join(".venv/bin/python");
    assert!(python.exists(), "no virtual environment: run `make setup` first");
    let script = root().join("kd_lib/tests/reference").join(script);
    let output = Command::new(python).arg(&script).args(arguments).output().expect("python starts");
    assert!(output.status.success(), "{}:\n{}", script.display(), String::from_utf8_lossy(&output.stderr));
}

/// Largest absolute difference of two tensors.
pub fn distance(a: &tch::Tensor, b: &tch::Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a.to_kind(tch::Kind::Double) - b.to_kind(tch::Kind::Double)).abs().max().double_value(&[])
}

/// A batch of these ids, padded with 0.
pub fn batch(ids: &[Vec<i64>]) -> kd_lib::data::Batch {
    let split = kd_lib::data::Encoded { ids: ids.to_vec(), labels: Vec::new(), pad: 0 };
    kd_lib::data::Batch::collate(&split, &(0..ids.len()).collect::<Vec<_>>(), tch::Device::Cpu)
}
