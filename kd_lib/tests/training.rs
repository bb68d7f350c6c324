//! Whole runs, small enough for a test: found again, resumed to the same bits, taught by a cached teacher.

mod common;

use common::{TINY_STUDENT, recipe, sample, tiny_checkpoint, turn};
use kd_lib::data::{Corpus, Split};
use kd_lib::files::TensorFile;
use kd_lib::lab::Lab;
use kd_lib::progress::{Tick, silent};
use kd_lib::recipe::Recipe;
use kd_lib::run::Run;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

fn corpus() -> Corpus {
    Corpus::open(sample()).unwrap()
}

fn tiny_student(more: &[&str]) -> Recipe {
    recipe("student", &[&TINY_STUDENT[..], more].concat())
}

/// A tiny teacher's recipe, and a tiny student's that learns from it.
fn tiny_distillation(weights: &Path) -> Recipe {
    let weights = format!("model.weights={}", weights.display());
    let settings = [
        "model.pooling=cls",
        "model.prefix=",
        "train.epochs=1",
        "train.evaluate_every=200",
        "data.max_tokens=32",
        "device=cpu",
        &weights,
    ];
    let teacher = recipe("teacher", &settings);
    Recipe { teacher: Some(Box::new(teacher)), ..recipe("distilled", &TINY_STUDENT) }
}

fn bytes(run: &Run, name: &str) -> Vec<u8> {
    std::fs::read(run.path.join(name)).unwrap()
}

#[test]
fn a_finished_run_is_found_again_and_not_trained_twice() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let lab = Lab::at(folder.path());
    let mut updates = 0;
    let first = lab
        .run(&tiny_student(&[]), &corpus(), &mut |tick: &Tick| {
            updates += 1;
            silent(tick)
        })
        .unwrap();
    assert_eq!(updates, first.report.steps);
    let again = lab.run(&tiny_student(&[]), &corpus(), &mut |_: &Tick| panic!("trained again")).unwrap();
    assert_eq!(again.report, first.report);
    assert_eq!(lab.runs().len(), 1);
    let other = lab.run(&tiny_student(&["seed=5"]), &corpus(), &mut silent).unwrap();
    assert_ne!(other.report.id, first.report.id);
    assert_ne!(bytes(&other, "model.safetensors"), bytes(&first, "model.safetensors"));
}

#[test]
fn an_interrupted_run_ends_with_the_bytes_of_an_uninterrupted_one() {
    let _turn = turn();
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let recipe = tiny_student(&["train.accumulation=2"]);
    let expected = Lab::at(whole.path()).run(&recipe, &corpus(), &mut silent).unwrap();
    for stop in [1, 5, 8] {
        let interrupted = catch_unwind(AssertUnwindSafe(|| {
            Lab::at(broken.path()).run(&recipe, &corpus(), &mut |tick: &Tick| {
                if tick.step == stop {
                    panic!("interrupted")
                }
                silent(tick)
            })
        }));
        assert!(interrupted.is_err(), "the run did not reach step {stop}");
    }
    let mut first_step = None;
    let resumed = Lab::at(broken.path())
        .run(&recipe, &corpus(), &mut |tick: &Tick| {
            first_step.get_or_insert(tick.step);
            silent(tick)
        })
        .unwrap();
    assert!(first_step.unwrap() > 1, "went on from a saved state");
    for name in ["model.safetensors", "curve.csv", "dev.safetensors", "test.safetensors"] {
        assert!(bytes(&resumed, name) == bytes(&expected, name), "{name} differs");
    }
    let left = std::fs::read_dir(&resumed.path).unwrap().map(|e| e.unwrap().file_name());
    assert!(
        !left.into_iter().any(|n| n.to_string_lossy().starts_with("state-")),
        "a finished run keeps no training state"
    );
}

#[test]
fn a_run_that_is_asked_to_stop_saves_that_very_update_and_goes_on_from_it() {
    let _turn = turn();
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let recipe = tiny_student(&["train.evaluate_every=100000"]);
    let expected = Lab::at(whole.path()).run(&recipe, &corpus(), &mut silent).unwrap();
    let lab = Lab::at(stopped.path());
    let stop = |tick: &Tick| if tick.step == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    let error = lab.run(&recipe, &corpus(), &mut { stop }).unwrap_err();
    assert!(matches!(error, kd_lib::Error::Stopped { step: 3, .. }), "{error}");
    let mut steps = Vec::new();
    let mut note = |tick: &Tick| {
        steps.push(tick.step);
        silent(tick)
    };
    let resumed = lab.run(&recipe, &corpus(), &mut note).unwrap();
    assert_eq!(steps[0], 4);
    assert!(bytes(&resumed, "model.safetensors") == bytes(&expected, "model.safetensors"));
    assert!(bytes(&resumed, "curve.csv") == bytes(&expected, "curve.csv"));
}

#[test]
fn a_distillation_trains_its_teacher_once_and_learns_from_it() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(&folder.path().join("tiny"));
    let recipe = tiny_distillation(&folder.path().join("tiny"));
    let lab = Lab::at(folder.path().join("lab"));
    let distilled = lab.run(&recipe, &corpus(), &mut silent).unwrap();
    let teacher = lab
        .run(recipe.teacher.as_ref().unwrap(), &corpus(), &mut |_: &Tick| panic!("the teacher was trained twice"))
        .unwrap();
    assert_eq!(distilled.report.teacher, Some(teacher.report.id.clone()));
    assert!(distilled.curve().unwrap().iter().all(|p| p.soft > 0.0 && p.hard > 0.0));
    let cached = |run: &Run| {
        std::fs::read_dir(run.path.join("answers"))
            .unwrap()
            .filter(|e| e.as_ref().unwrap().path().extension().is_some())
            .count()
    };
    assert_eq!(cached(&teacher), 1);
    lab.run(&recipe.with_seed(9), &corpus(), &mut silent).unwrap();
    assert_eq!(cached(&teacher), 1, "another seed learns from the same logits");
}

#[test]
fn stored_logits_are_what_the_saved_model_answers() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let run = Lab::at(folder.path()).run(&tiny_student(&[]), &corpus(), &mut silent).unwrap();
    let (stored, labels) = run.logits(Split::Test).unwrap();
    let corpus = corpus();
    let texts: Vec<&str> = corpus.test.iter().map(|e| e.text.as_str()).collect();
    let predictor = kd_lib::predict::Predictor::open(&run).unwrap();
    let answered = kd_lib::run::to_array(&predictor.logits(&texts).unwrap()).unwrap();
    assert_eq!(stored, answered);
    assert_eq!(labels, corpus.test.iter().map(|e| e.label).collect::<Vec<_>>());
    assert_eq!(kd_lib::metrics::Scores::of(stored.view(), &labels), run.report.test);
}

#[test]
fn the_first_word_vectors_have_the_spread_that_was_asked_for() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let vectors = |spread: &str| {
        let recipe = tiny_student(&["train.epochs=1", "optimiser.learning_rate=1e-12", spread]);
        let path = Lab::at(folder.path()).run(&recipe, &corpus(), &mut silent).unwrap().path.join("model.safetensors");
        TensorFile::read(&path).unwrap().take(&path, "embedding.weight").unwrap()
    };
    let (wide, narrow) = (vectors("model.embedding_spread=1.0"), vectors("model.embedding_spread=0.1"));
    assert!((wide.std(false).double_value(&[]) - 1.0).abs() < 0.02);
    assert!(common::distance(&(&wide * 0.1), &narrow) < 1e-6);
    // Borrowed ones: other values, and an experiment of its own for every checkpoint.
    let checkpoint = folder.path().join("tiny");
    common::tiny_checkpoint(&checkpoint);
    let borrowed = vectors("model.word_vectors=tiny");
    assert!(common::distance(&borrowed, &wide) > 0.5);
    tch::manual_seed(99);
    common::tiny_checkpoint(&checkpoint); // other random weights
    assert!(common::distance(&borrowed, &vectors("model.word_vectors=tiny")) > 0.5);
    let nowhere = tiny_student(&["model.word_vectors=nowhere"]);
    let message = Lab::at(folder.path()).plan(&nowhere, &corpus()).unwrap_err().to_string();
    assert!(message.contains("nowhere: no model.safetensors"), "{message}");
}

#[test]
fn a_loss_that_is_not_a_number_stops_with_step_rate_and_lines() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_student(&["optimiser.learning_rate=1e30", "optimiser.warmup=0.0"]);
    let error = Lab::at(folder.path()).run(&recipe, &corpus(), &mut silent).unwrap_err().to_string();
    assert!(
        error.contains("is not finite") && error.contains("learning rate ") && error.contains("examples: line "),
        "{error}"
    );
}

#[test]
fn a_loss_scale_that_collapses_stops_the_run_with_advice() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let settings = ["train.precision=fp16", "train.batch=4", "optimiser.learning_rate=1e30", "optimiser.warmup=0.0"];
    let error = Lab::at(folder.path()).run(&tiny_student(&settings), &corpus(), &mut silent).unwrap_err().to_string();
    let step: usize = error.split("step ").nth(1).unwrap().split(':').next().unwrap().parse().unwrap();
    assert!(error.contains("under fp16: train in bf16") && (17..30).contains(&step), "17 halvings from 65536: {error}");
}

#[test]
fn settings_without_a_meaning_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let refusals = [
        ("train.accumulation=0", "train.accumulation"),
        ("train.batch=0", "train.batch"),
        ("optimiser.learning_rate=-1.0", "optimiser.learning_rate"),
        ("optimiser.warmup=1.5", "optimiser.warmup"),
        ("model.dropout=1.0", "model"),
        ("device=tpu", "device"),
        ("device=cuda1", "device"),
        ("name=../elsewhere", "name"),
        ("optimiser.betas=[1.0,1.0]", "optimiser.betas"),
        ("optimiser.weight_decay=-1.0", "optimiser.weight_decay"),
        ("objective={kind=\"distillation\",temperature=4.0,hard=0.5,soft=0.5}", "teacher"),
    ];
    for (setting, key) in refusals {
        let error =
            Lab::at(folder.path()).run(&tiny_student(&[setting]), &corpus(), &mut silent).unwrap_err().to_string();
        assert!(error.contains(key), "{setting}: {error}");
    }
    // A student that cannot be is refused before its teacher has been trained.
    let mut distillation = tiny_distillation(Path::new("nowhere"));
    distillation.train.batch = 0;
    let error = Lab::at(folder.path()).run(&distillation, &corpus(), &mut silent).unwrap_err().to_string();
    assert!(error.contains("train.batch"), "{error}");
    for [temperature, hard, soft] in
        [[0.0, 0.5, 0.5], [-1.0, 0.5, 0.5], [4.0, -0.1, 0.5], [4.0, 0.0, 0.0], [f64::NAN, 0.5, 0.5]]
    {
        assert!(kd_lib::strategies::Objective::Distillation { temperature, hard, soft }.check().is_err());
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
