//! Hidden-state distillation: the loss by hand, and a run whose projection is learned, saved and
//! resumed.

use crate::common::{lock_generator, recipe, sample, tiny_checkpoint};
use kd_lib::data::{Corpus, Example, TextInput};
use kd_lib::files::TensorFile;
use kd_lib::models::ModelOutput;
use kd_lib::objectives::{HiddenStates, LossInputs, Objective};
use kd_lib::store::teacher_logits::teacher_logits;
use kd_lib::store::{Recipe, Run, RunStore};
use kd_lib::training::progress::{Progress, silent};
use std::collections::HashSet;
use std::ops::ControlFlow;
use tch::Tensor;

fn objective() -> HiddenStates {
    HiddenStates {
        temperature: 2.0,
        hard_weight: 0.0,
        soft_weight: 1.0,
        mse_weight: 1.0,
        cosine_weight: 0.5,
        student_layers: vec![1],
        teacher_layers: vec![2],
    }
}

#[test]
fn the_states_loss_is_the_squared_error_and_the_cosine_distance_of_projected_states() {
    let student_states = [[1.0, 0.0], [0.5, -0.5], [0.0, 2.0]];
    let teacher_states = [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0], [2.0, 0.0, 0.0]];
    let projection = [[1.0, 0.5], [0.0, -1.0], [0.5, 0.0]];
    let (mut squares, mut cosines) = (0.0, 0.0);
    for (state, target) in student_states.iter().zip(&teacher_states) {
        let projected: [f64; 3] = projection.map(|w: [f64; 2]| w[0] * state[0] + w[1] * state[1]);
        let dot = |a: &[f64; 3], b: &[f64; 3]| (0..3).map(|i| a[i] * b[i]).sum::<f64>();
        squares += (0..3)
            .map(|i| (projected[i] - target[i]).powi(2))
            .sum::<f64>();
        let norms = (dot(&projected, &projected) * dot(target, target)).sqrt();
        cosines += dot(&projected, target) / norms;
    }
    let expected = squares / 9.0 + 0.5 * (1.0 - cosines / 3.0);
    // Equal logits, so that the loss on logits is zero.
    let logits = [[1.0, 0.2, -0.5], [0.1, 0.3, 0.2], [-1.0, 0.0, 2.0]];
    let output = |states: Tensor| ModelOutput {
        logits: Tensor::from_slice2(&logits),
        hidden: vec![states],
    };
    let student = output(Tensor::from_slice2(&student_states));
    let teacher = output(Tensor::from_slice2(&teacher_states));
    let inputs = LossInputs {
        student: &student,
        teacher: Some(&teacher),
        labels: &Tensor::from_slice(&[0i64, 2, 2]),
        parameters: &[Tensor::from_slice2(&projection)],
        class_weights: None,
    };
    let loss = objective().loss(&inputs).unwrap();
    assert!((loss.total.double_value(&[]) - expected).abs() < 1e-12);
}

#[test]
fn layers_come_in_pairs() {
    let alone = HiddenStates {
        teacher_layers: vec![],
        ..objective()
    };
    assert!(
        alone
            .validate()
            .unwrap_err()
            .to_string()
            .contains("student_layers")
    );
    objective().validate().unwrap();
}

/// A tiny student that learns from layer `teacher_layer` of a tiny teacher.
fn tiny(teacher_layer: usize) -> Recipe {
    let teacher = recipe("teacher", &crate::common::TINY_TEACHER);
    let layer = format!("objective.teacher_layers=[{teacher_layer}]");
    let settings = [&crate::common::TINY_STUDENT[..], &[layer.as_str()]].concat();
    Recipe {
        teacher: Some(Box::new(teacher)),
        ..recipe("bilstm+kd-hidden", &settings)
    }
}

#[test]
fn a_run_caches_the_states_once_learns_its_projection_and_resumes_to_the_same_bytes() {
    let _turn = lock_generator();
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let corpus = Corpus::open(sample()).unwrap();
    tiny_checkpoint(&whole.path().join("tiny"));
    std::os::unix::fs::symlink(whole.path().join("tiny"), stopped.path().join("tiny")).unwrap();
    let store = RunStore::new(whole.path());
    let expected = store.run(&tiny(2), &corpus, &mut silent).unwrap();
    let curve = expected.curve().unwrap();
    assert!(
        curve.last().unwrap().soft_loss < curve[0].soft_loss,
        "the states come nearer"
    );
    let teacher = store
        .run_folder(&expected.report.teachers[0])
        .join("predictions");
    let cached = |prefix: &str| {
        let names = std::fs::read_dir(&teacher)
            .unwrap()
            .map(|e| e.unwrap().file_name());
        names
            .filter(|name| name.to_string_lossy().starts_with(prefix))
            .count()
    };
    assert_eq!((cached("layer2-"), cached("part-")), (1, 1));
    store
        .run(&tiny(2).with_seed(9), &corpus, &mut silent)
        .unwrap();
    assert_eq!(
        (cached("layer2-"), cached("part-")),
        (1, 1),
        "another seed takes the cached states"
    );

    let store = RunStore::new(stopped.path());
    let is_student = |p: &Progress| p.run.starts_with("bilstm") && p.loss.is_some();
    let mut stop = |p: &Progress| {
        if is_student(p) && p.done == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    store.run(&tiny(2), &corpus, &mut stop).unwrap_err();
    let resumed = store.run(&tiny(2), &corpus, &mut silent).unwrap();
    for name in ["model.safetensors", "curve.csv", "test.safetensors"] {
        let bytes = |run: &Run| std::fs::read(run.folder().unwrap().join(name)).unwrap();
        assert!(bytes(&resumed) == bytes(&expected), "{name} differs");
    }
}

#[test]
fn a_layer_that_the_model_does_not_have_is_refused() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(&folder.path().join("tiny"));
    let store = RunStore::new(folder.path());
    let corpus = Corpus::open(sample()).unwrap();
    let error = store
        .run(&tiny(7), &corpus, &mut silent)
        .unwrap_err()
        .to_string();
    assert!(error.contains("no layer 7"), "{error}");
}

#[test]
fn logits_that_are_cached_are_not_stored_again_beside_the_states() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(&folder.path().join("tiny"));
    let store = RunStore::new(folder.path());
    let corpus = Corpus::open(sample()).unwrap();
    let recipe = tiny(2);
    let teacher = recipe.teachers().remove(0);
    let teacher = store.run(&teacher, &corpus, &mut silent).unwrap();
    let some: Vec<TextInput> = corpus.train.iter().take(50).map(Example::input).collect();
    let _ = teacher_logits(&teacher, &some, &mut silent).unwrap();
    store.run(&recipe, &corpus, &mut silent).unwrap();
    let mut stored = Vec::new();
    for entry in std::fs::read_dir(teacher.folder().unwrap().join("predictions")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .file_name()
            .unwrap()
            .to_string_lossy()
            .starts_with("part-")
        {
            let keys = TensorFile::read_one(&path, "keys").unwrap();
            stored.extend(Vec::<Vec<i64>>::try_from(keys).unwrap());
        }
    }
    let distinct: HashSet<&Vec<i64>> = stored.iter().collect();
    assert!(stored.len() >= 250 && stored.len() == distinct.len());
}
