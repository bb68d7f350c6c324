//! What several test files need: the project's folders, and Python references run for real.
#![allow(dead_code)] // each test file uses its own part

pub mod program;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

/// libtorch's random generator is one for the process: runs that are compared bit by bit take turns with all that draws
/// from it.
static GENERATOR: Mutex<()> = Mutex::new(());

/// Waits for one's turn.
pub fn turn() -> MutexGuard<'static, ()> {
    GENERATOR.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

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
    assert!(
        folder.join("model.safetensors").exists(),
        "no default teacher in {}: run `make setup` first",
        folder.display()
    );
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

/// A recipe file of the project with settings laid over it.
pub fn recipe(name: &str, settings: &[&str]) -> kd_lib::recipe::Recipe {
    let path = root().join("notebooks/recipes").join(name).with_extension("toml");
    let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
    kd_lib::recipe::Recipe::read(path, "full", &settings).unwrap()
}

/// Settings that make the student small enough for a test.
pub const TINY_STUDENT: [&str; 7] = [
    "model.embedding=12",
    "model.hidden=8",
    "train.epochs=2",
    "train.evaluate_every=200",
    "data.max_tokens=32",
    "device=cpu",
    "train.precision=fp32",
];

/// A BERT checkpoint folder in bert-base-chinese's layout, tiny and random, over the sample's characters.
pub fn tiny_checkpoint(folder: &Path) {
    use kd_lib::models::{Bert, BertConfig, Classifier, Pooling};
    let corpus = kd_lib::data::Corpus::open(sample()).unwrap();
    let characters: std::collections::BTreeSet<String> = corpus
        .train
        .iter()
        .flat_map(|e| e.text.chars())
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_lowercase().to_string())
        .collect();
    let mut pieces: Vec<String> = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned).to_vec();
    pieces.extend(characters);
    let config = BertConfig {
        vocab_size: pieces.len() as i64,
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_position_embeddings: 40,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        hidden_dropout_prob: 0.1,
        attention_probs_dropout_prob: 0.1,
        initializer_range: 0.02,
    };
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("vocab.txt"), pieces.join("\n") + "\n").unwrap();
    kd_lib::files::write_json(&folder.join("config.json"), &config).unwrap();
    Bert::new(&config, Pooling::Cls, 2, tch::Device::Cpu).params().write(&folder.join("model.safetensors")).unwrap();
}
