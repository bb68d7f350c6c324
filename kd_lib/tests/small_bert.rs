//! A small BERT that begins from its teacher's layers: its initial weights, whole runs of it, and
//! settings that are refused.

use crate::common::{
    assert_distilled_resumed_and_predicts, distance, lock_generator, recipe, sample,
    tiny_checkpoint,
};
use kd_lib::data::{Corpus, Split};
use kd_lib::files::TensorFile;
use kd_lib::store::{Recipe, Run, RunStore};
use kd_lib::tch::Tensor;
use kd_lib::training::progress::silent;

const TINY: [&str; 8] = [
    "model.checkpoint=tiny",
    "model.pooling=cls",
    "model.prefix=",
    "train.epochs=1",
    "train.eval_every_samples=200",
    "train.precision=fp32",
    "data.max_length=32",
    "device=cpu",
];

/// The student of `bert-3layers+kd` that keeps these of its teacher's two layers.
fn student(keep_layers: &str, more: &[&str]) -> Recipe {
    let kept = format!("model.keep_layers={keep_layers}");
    let settings = [&TINY[..], &["model.init_from_teacher=true", &kept], more].concat();
    Recipe {
        teacher: Some(Box::new(recipe("bert", &TINY))),
        ..recipe("bert-3layers+kd", &settings)
    }
}

fn weights(run: &Run) -> std::collections::HashMap<String, Tensor> {
    let path = run.folder().unwrap().join("model.safetensors");
    TensorFile::read(&path)
        .unwrap()
        .tensors
        .into_iter()
        .collect()
}

#[test]
fn a_small_bert_begins_with_the_named_layers_and_the_head_of_its_teacher() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let (store, corpus) = (
        RunStore::new(folder.path()),
        Corpus::open(sample()).unwrap(),
    );
    tiny_checkpoint(&folder.path().join("tiny"));
    // At this learning rate a run ends where it began.
    let still = ["optimizer.learning_rate=1e-12"];
    let all_layers = store
        .run(&student("[1,2]", &still), &corpus, &mut silent)
        .unwrap();
    let last_layer = store
        .run(&student("[2]", &still), &corpus, &mut silent)
        .unwrap();
    let teacher = store
        .run(&recipe("bert", &TINY), &corpus, &mut silent)
        .unwrap();
    let logits = |run: &Run| {
        let logits = run.logits(Split::Test).unwrap().logits;
        Tensor::from_slice(logits.as_slice().unwrap())
    };
    assert!(distance(&logits(&all_layers), &logits(&teacher)) < 1e-5);

    let (theirs, ours) = (weights(&teacher), weights(&last_layer));
    for (name, tensor) in &ours {
        let source = name.replace("encoder.layer.0.", "encoder.layer.1.");
        assert!(distance(tensor, &theirs[&source]) < 1e-6, "{name}");
    }
    assert!(!ours.keys().any(|name| name.contains("layer.1.")));
}

#[test]
fn a_small_bert_is_distilled_resumes_to_the_same_bytes_and_predicts() {
    assert_distilled_resumed_and_predicts(&student("[2]", &[]));
}

#[test]
fn layers_that_do_not_exist_and_teachers_that_cannot_lend_weights_are_refused() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let (store, corpus) = (
        RunStore::new(folder.path()),
        Corpus::open(sample()).unwrap(),
    );
    tiny_checkpoint(&folder.path().join("tiny"));
    let refused = |recipe: &Recipe, key: &str| {
        let error = store.run(recipe, &corpus, &mut silent).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    };
    for layers in ["[]", "[0]", "[2,1]", "[1,1]", "[3]"] {
        refused(&student(layers, &[]), "model.keep_layers");
    }
    let mut alone = student("[2]", &[]);
    alone.teacher = None;
    refused(&alone, "teacher");
    let random = ["model.pretrained=false"];
    refused(&student("[2]", &random), "model.init_from_teacher");
    let whole_vocabulary = ["model.prune_vocab=false"];
    refused(&student("[2]", &whole_vocabulary), "other rows");
    let mut bilstm = student("[2]", &[]);
    let settings = ["model.embedding_dim=8", "train.epochs=1", "device=cpu"];
    bilstm.teacher = Some(Box::new(recipe("bilstm", &settings)));
    refused(&bilstm, "is no BERT");
}
