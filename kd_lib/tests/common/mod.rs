//! What several test files need: the project's folders, small recipes and models, and Python
//! references.
#![allow(dead_code)] // cuda.rs and golden.rs use a part

use kd_lib::data::{Batch, Corpus, Split, SubwordTokenizer, TokenizedSplit, Tokenizer};
use kd_lib::evaluation::to_array;
use kd_lib::models::{
    Architecture, Bert, BertConfig, BertSettings, BiLstmSettings, Checkpoint, Classifier,
    InitialWeights, ModelSizes, Pooling,
};
use kd_lib::store::{Predictor, Recipe, Run, RunStore};
use kd_lib::tch::{Device, Kind, Tensor};
use kd_lib::training::Activity;
use kd_lib::training::progress::{Progress, silent};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard};

/// libtorch has one random generator for the process. Tests that compare runs bit by bit hold this
/// lock, and so do tests that draw random numbers at the same time.
static GENERATOR: Mutex<()> = Mutex::new(());

/// Waits until no other test uses the random generator.
pub fn lock_generator() -> MutexGuard<'static, ()> {
    GENERATOR
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A callback for a run that must be found: it may be prepared, and not trained.
pub fn not_trained(progress: &Progress) -> ControlFlow<()> {
    assert_eq!(progress.activity, Activity::Preparing, "trained again");
    ControlFlow::Continue(())
}

/// The project's root: the folder of `Cargo.lock` above the tested package.
pub fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_workspace = |folder: &&Path| folder.join("Cargo.lock").exists();
    package.ancestors().find(is_workspace).expect("a workspace")
}

/// The hand-written corpus.
pub fn sample() -> PathBuf {
    root().join("data/sample")
}

/// The default teacher's weights, which `make setup` converts.
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
    assert!(
        python.exists(),
        "no virtual environment: run `make setup` first"
    );
    let script = root().join("kd_lib/tests/reference").join(script);
    let output = Command::new(python)
        .arg(&script)
        .args(arguments)
        .output()
        .expect("python starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:\n{errors}", script.display());
}

/// Largest absolute difference of two tensors.
pub fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a.to_kind(Kind::Double) - b.to_kind(Kind::Double))
        .abs()
        .max()
        .double_value(&[])
}

/// A batch of these ids, padded with 0.
pub fn batch(ids: &[Vec<i64>]) -> Batch {
    let split = TokenizedSplit {
        ids: ids.to_vec(),
        labels: Vec::new(),
        ..TokenizedSplit::default()
    };
    Batch::collate(&split, &(0..ids.len()).collect::<Vec<_>>(), Device::Cpu)
}

/// A recipe file of the project with settings that override its keys.
pub fn recipe(name: &str, settings: &[&str]) -> Recipe {
    let path = root()
        .join("notebooks/recipes")
        .join(format!("{name}.toml"));
    let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
    Recipe::read(path, "full", &settings).unwrap()
}

/// Settings that make the student small enough for a test.
pub const TINY_STUDENT: [&str; 7] = [
    "model.embedding_dim=12",
    "model.hidden_size=8",
    "train.epochs=2",
    "train.eval_every_samples=200",
    "data.max_length=32",
    "device=cpu",
    "train.precision=fp32",
];

/// Settings of a teacher on the checkpoint of [`tiny_checkpoint`] in the folder `tiny`.
pub const TINY_TEACHER: [&str; 6] = [
    "model.checkpoint=tiny",
    "model.pooling=cls",
    "model.prefix=",
    "train.epochs=1",
    "data.max_length=32",
    "device=cpu",
];

/// A BiLSTM's settings for tests of the network itself.
pub fn bilstm_settings(embedding_dim: i64, hidden_size: i64, dropout: f64) -> BiLstmSettings {
    BiLstmSettings {
        embedding_dim,
        hidden_size,
        dropout,
        vocab_size: 60,
        ..BiLstmSettings::default()
    }
}

/// The BERT of a checkpoint folder with a new head of `num_labels` classes. It keeps the embedding
/// rows that the tokenizer keeps.
pub fn pretrained_bert(
    folder: &Path,
    pooling: Pooling,
    num_labels: i64,
    tokenizer: &SubwordTokenizer,
) -> Box<dyn Classifier> {
    let settings = BertSettings {
        checkpoint: folder.display().to_string(),
        pooling,
        prefix: String::new(),
        prune_vocab: tokenizer.kept_ids().is_some(),
        vocab_size: None,
        vocab_texts: None,
        pretrained: true,
        keep_layers: None,
        init_from_teacher: false,
        init_head_from_probe: false,
    };
    let checkpoint = Checkpoint::open(folder, &settings.checkpoint).unwrap();
    let tokenizer = Tokenizer::Subword(Box::new(tokenizer.clone()));
    let sizes = ModelSizes {
        vocab_size: tokenizer
            .vocab_size()
            .unwrap_or(checkpoint.config.vocab_size),
        num_labels,
        checkpoint: Some(checkpoint.config.clone()),
    };
    let model = settings.build(&sizes, Device::Cpu).unwrap();
    let sources = InitialWeights {
        checkpoint: Some(&checkpoint),
        teacher: None,
    };
    settings
        .initialize(model.as_ref(), &tokenizer, &sources)
        .unwrap();
    model
}

/// A BERT checkpoint folder in bert-base-chinese's layout: tiny and random, over the sample's
/// characters.
pub fn tiny_checkpoint(folder: &Path) {
    let corpus = kd_lib::data::Corpus::open(sample()).unwrap();
    let characters: std::collections::BTreeSet<String> = corpus
        .train
        .iter()
        .flat_map(|e| e.text.chars())
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_lowercase().to_string())
        .collect();
    let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let mut subwords: Vec<String> = special.map(str::to_owned).to_vec();
    subwords.extend(characters);
    let config = BertConfig {
        vocab_size: subwords.len() as i64,
        hidden_size: 16,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        intermediate_size: 32,
        max_position_embeddings: 40,
        first_position: 0,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        hidden_dropout_prob: 0.1,
        attention_probs_dropout_prob: 0.1,
        initializer_range: 0.02,
    };
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("vocab.txt"), subwords.join("\n") + "\n").unwrap();
    kd_lib::files::write_json(&folder.join("config.json"), &config).unwrap();
    let model = Bert::new(&config, Pooling::Cls, 2, Device::Cpu);
    // A pretrained checkpoint has no classification head.
    let encoder = model
        .params()
        .iter()
        .filter(|p| !p.name.starts_with("classifier."));
    let tensors = encoder.map(|p| (p.name.clone(), &p.master));
    kd_lib::files::write_tensors(&folder.join("model.safetensors"), tensors).unwrap();
}

/// Writes a corpus of pairs: two neighbouring headlines of the sample, and whether they have the
/// same class.
pub fn pair_corpus(folder: &Path) {
    let corpus = kd_lib::data::Corpus::open(sample()).unwrap();
    std::fs::write(folder.join("labels.txt"), "different\nsame\n").unwrap();
    let splits = [
        ("train", &corpus.train),
        ("dev", &corpus.dev),
        ("test", &corpus.test),
    ];
    for (name, examples) in splits {
        let mut lines = "text_pair,label,text\n".to_owned();
        for (first, second) in examples.iter().zip(examples.iter().skip(1)) {
            let label = if first.label == second.label {
                "same"
            } else {
                "different"
            };
            lines += &format!("\"{}\",{label},\"{}\"\n", second.text, first.text);
        }
        std::fs::write(folder.join(format!("{name}.csv")), lines).unwrap();
    }
}

/// A student's recipe with a teacher of [`TINY_TEACHER`].
pub fn of_tiny_teacher(student: Recipe) -> Recipe {
    Recipe {
        teacher: Some(Box::new(recipe("teacher", &TINY_TEACHER))),
        ..student
    }
}

/// Distils a student of a tiny checkpoint, and once more with a stop at its third update: both runs
/// have the same bytes, and the saved model has the logits that the run stored.
pub fn assert_distilled_resumed_and_predicts(student: &Recipe) {
    let _turn = lock_generator();
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let corpus = Corpus::open(sample()).unwrap();
    tiny_checkpoint(&whole.path().join("tiny"));
    let expected = RunStore::new(whole.path())
        .run(student, &corpus, &mut silent)
        .unwrap();
    assert!(expected.curve().unwrap().iter().all(|p| p.soft_loss > 0.0));

    std::os::unix::fs::symlink(whole.path().join("tiny"), stopped.path().join("tiny")).unwrap();
    let store = RunStore::new(stopped.path());
    let is_student = |p: &Progress| p.run.starts_with(&student.name) && p.loss.is_some();
    let mut stop = |p: &Progress| {
        if is_student(p) && p.done == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    store.run(student, &corpus, &mut stop).unwrap_err();
    let resumed = store.run(student, &corpus, &mut silent).unwrap();
    for file in ["model.safetensors", "curve.csv", "test.safetensors"] {
        let bytes = |run: &Run| std::fs::read(run.folder().unwrap().join(file)).unwrap();
        assert!(bytes(&resumed) == bytes(&expected), "{file} differs");
    }
    let texts: Vec<&str> = corpus.test.iter().map(|e| e.text.as_str()).collect();
    let predicted = Predictor::open(&resumed).unwrap().logits(&texts).unwrap();
    assert_eq!(
        to_array(&predicted).unwrap(),
        resumed.logits(Split::Test).unwrap().logits
    );
}
