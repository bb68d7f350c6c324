//! Complete runs, small enough for a test: found again, resumed to the same bytes, distilled from
//! cached logits of a teacher.

use crate::common::{
    TINY_STUDENT, TINY_TEACHER, lock_generator, not_trained, recipe, root, sample, tiny_checkpoint,
};
use kd_lib::data::{Corpus, Split};
use kd_lib::evaluation::TemperatureScaling;
use kd_lib::files::TensorFile;
use kd_lib::objectives::{Kd, Objective};
use kd_lib::store::{Logits, Predictor, Recipe, Run, RunStore};
use kd_lib::training::progress::{Progress, silent};
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
    let weights = format!("model.checkpoint={}", weights.display());
    let settings = [
        "model.pooling=cls",
        "model.prefix=",
        "train.epochs=1",
        "train.eval_every_samples=200",
        "data.max_length=32",
        "device=cpu",
        &weights,
    ];
    let teacher = recipe("teacher", &settings);
    Recipe {
        teacher: Some(Box::new(teacher)),
        ..recipe("distilled", &TINY_STUDENT)
    }
}

fn bytes(run: &Run, name: &str) -> Vec<u8> {
    std::fs::read(run.folder().unwrap().join(name)).unwrap()
}

#[test]
fn a_corpus_built_by_hand_is_refused_if_it_cannot_be_scored() {
    let store = RunStore::new(tempfile::tempdir().unwrap().path());
    let refused = |change: fn(&mut Corpus), settings: &[&str]| {
        let mut corpus = corpus();
        change(&mut corpus);
        let plan = store.plan(&tiny_student(settings), &corpus);
        plan.err().map(|error| error.to_string())
    };
    let problem = refused(|corpus| corpus.dev.clear(), &[]).unwrap();
    assert!(problem.contains("there is no dev text"), "{problem}");
    let problem = refused(|corpus| corpus.test.clear(), &[]).unwrap();
    assert!(problem.contains("data.skip_test"), "{problem}");
    let without_test = refused(|corpus| corpus.test.clear(), &["data.skip_test=true"]);
    assert_eq!(without_test, None);
    let problem = refused(|corpus| corpus.test[3].label = 10, &[]).unwrap();
    assert!(problem.contains("class index 10"), "{problem}");
}

#[test]
fn a_finished_run_is_found_again_and_not_trained_twice() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let store = RunStore::new(folder.path());
    let mut updates = 0;
    let first = store
        .run(&tiny_student(&[]), &corpus(), &mut |progress: &Progress| {
            updates += usize::from(progress.loss.is_some());
            silent(progress)
        })
        .unwrap();
    assert_eq!(updates, first.report.steps);
    let again = store
        .run(&tiny_student(&[]), &corpus(), &mut not_trained)
        .unwrap();
    assert_eq!(again.report, first.report);
    assert_eq!(store.runs().unwrap().len(), 1);
    let other = store
        .run(&tiny_student(&["seed=5"]), &corpus(), &mut silent)
        .unwrap();
    assert_ne!(other.report.id, first.report.id);
    assert_ne!(
        bytes(&other, "model.safetensors"),
        bytes(&first, "model.safetensors")
    );
}

/// After one update at a learning rate that moves nothing, only the beginning counts.
#[test]
fn a_head_that_begins_as_a_linear_probe_knows_the_classes_before_training() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let store = RunStore::new(folder.path()).with_pretrained(root().join("checkpoints"));
    let dev_accuracy = |more: &[&str]| {
        let settings = [
            "data.max_length=32",
            "data.skip_test=true",
            "train.epochs=0.01",
            "optimizer.learning_rate=1e-9",
            "device=cpu",
            // In bf16 the smallest change of a weight can move a prediction.
            "train.precision=fp32",
        ];
        let recipe = recipe("teacher", &[&settings[..], more].concat());
        let run = store.run(&recipe, &corpus(), &mut silent)?;
        Ok::<f64, kd_lib::Error>(run.report.dev.accuracy)
    };
    let probed = dev_accuracy(&["model.init_head_from_probe=true"]).unwrap();
    let random = dev_accuracy(&[]).unwrap();
    assert!(probed > 0.7 && random < 0.4, "{probed} and {random}");
    // An update that ruins the model: the weights from before it are kept.
    let ruinous = [
        "model.init_head_from_probe=true",
        "optimizer.learning_rate=0.1",
    ];
    assert_eq!(dev_accuracy(&ruinous).unwrap(), probed);
    let with_pooler = ["model.init_head_from_probe=true", "model.pooling=cls"];
    let error = dev_accuracy(&with_pooler).unwrap_err().to_string();
    assert!(error.contains("model.init_head_from_probe"), "{error}");
}

#[test]
fn class_weights_change_a_run_on_unbalanced_classes_alone() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let store = RunStore::new(folder.path());
    let train = |corpus: &Corpus, more: &[&str]| {
        let run = store.run(&tiny_student(more), corpus, &mut silent);
        bytes(&run.unwrap(), "model.safetensors")
    };
    let weighted = ["train.class_weights=balanced"];
    let balanced = corpus();
    assert!(train(&balanced, &[]) == train(&balanced, &weighted));
    let mut unbalanced = corpus();
    let first_of_class_0 = unbalanced.train.iter().position(|e| e.label == 0);
    unbalanced.train.remove(first_of_class_0.unwrap());
    unbalanced.fingerprint = "one text less".into();
    assert!(train(&unbalanced, &[]) != train(&unbalanced, &weighted));
}

/// With a learning rate that moves nothing the first evaluation is the best one.
#[test]
fn a_training_ends_after_two_evaluations_without_a_better_score() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let store = RunStore::new(folder.path());
    let evaluations = |more: &[&str]| {
        let flat = ["optimizer.learning_rate=1e-12", "train.epochs=4"];
        let recipe = tiny_student(&[&flat[..], more].concat());
        let run = store.run(&recipe, &corpus(), &mut silent).unwrap();
        let curve = run.curve().unwrap();
        let evaluated = curve.iter().filter(|point| point.dev_macro_f1.is_some());
        (evaluated.count(), run.report.steps)
    };
    let (all_evaluations, all_steps) = evaluations(&[]);
    let (evaluations_when_stopped, steps) = evaluations(&["train.early_stopping_patience=2"]);
    assert!(
        all_evaluations > 3 && evaluations_when_stopped == 3,
        "{all_evaluations}, {evaluations_when_stopped}"
    );
    assert!(steps < all_steps, "{steps} of {all_steps}");
}

#[test]
fn an_interrupted_run_ends_with_the_bytes_of_an_uninterrupted_one() {
    let _lock = lock_generator();
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let recipe = tiny_student(&["train.gradient_accumulation_steps=2"]);
    let expected = RunStore::new(whole.path())
        .run(&recipe, &corpus(), &mut silent)
        .unwrap();
    for stop in [1, 5, 8] {
        let interrupted = catch_unwind(AssertUnwindSafe(|| {
            RunStore::new(broken.path()).run(&recipe, &corpus(), &mut |progress: &Progress| {
                if progress.loss.is_some() && progress.done == stop {
                    panic!("interrupted")
                }
                silent(progress)
            })
        }));
        assert!(interrupted.is_err(), "the run did not reach step {stop}");
    }
    let mut first_step = None;
    let resumed = RunStore::new(broken.path())
        .run(&recipe, &corpus(), &mut |progress: &Progress| {
            if progress.loss.is_some() {
                first_step.get_or_insert(progress.done);
            }
            silent(progress)
        })
        .unwrap();
    assert!(
        first_step.unwrap() > 1,
        "the run continued from a saved state"
    );
    for name in [
        "model.safetensors",
        "curve.csv",
        "dev.safetensors",
        "test.safetensors",
    ] {
        assert!(
            bytes(&resumed, name) == bytes(&expected, name),
            "{name} differs"
        );
    }
    let left = std::fs::read_dir(resumed.folder().unwrap())
        .unwrap()
        .map(|e| e.unwrap().file_name());
    assert!(
        !left
            .into_iter()
            .any(|n| n.to_string_lossy().starts_with("state-")),
        "a finished run keeps no training state"
    );
}

#[test]
fn a_run_that_is_asked_to_stop_saves_its_state_and_continues_with_the_next_update() {
    let _lock = lock_generator();
    let (whole, stopped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let recipe = tiny_student(&["train.eval_every_samples=100000"]);
    let expected = RunStore::new(whole.path())
        .run(&recipe, &corpus(), &mut silent)
        .unwrap();
    let store = RunStore::new(stopped.path());
    let stop = |progress: &Progress| {
        if progress.loss.is_some() && progress.done == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let error = store.run(&recipe, &corpus(), &mut { stop }).unwrap_err();
    assert!(error.to_string().contains("stopped at 3 of"), "{error}");
    let mut steps = Vec::new();
    let mut note = |progress: &Progress| {
        if progress.loss.is_some() {
            steps.push(progress.done);
        }
        silent(progress)
    };
    let resumed = store.run(&recipe, &corpus(), &mut note).unwrap();
    assert_eq!(steps[0], 4);
    assert!(bytes(&resumed, "model.safetensors") == bytes(&expected, "model.safetensors"));
    assert!(bytes(&resumed, "curve.csv") == bytes(&expected, "curve.csv"));
}

#[test]
fn a_distillation_trains_its_teacher_once_and_caches_its_logits() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(&folder.path().join("tiny"));
    let recipe = tiny_distillation(&folder.path().join("tiny"));
    let store = RunStore::new(folder.path().join("store"));
    let distilled = store.run(&recipe, &corpus(), &mut silent).unwrap();
    let teacher = store
        .run(
            recipe.teacher.as_ref().unwrap(),
            &corpus(),
            &mut not_trained,
        )
        .unwrap();
    assert_eq!(
        distilled.report.teachers,
        std::slice::from_ref(&teacher.report.id)
    );
    assert!(
        distilled
            .curve()
            .unwrap()
            .iter()
            .all(|p| p.soft_loss > 0.0 && p.hard_loss > 0.0)
    );
    let cached = |run: &Run| {
        std::fs::read_dir(run.folder().unwrap().join("predictions"))
            .unwrap()
            .filter(|e| e.as_ref().unwrap().path().extension().is_some())
            .count()
    };
    assert_eq!(cached(&teacher), 1);
    store
        .run(&recipe.with_seed(9), &corpus(), &mut silent)
        .unwrap();
    assert_eq!(cached(&teacher), 1, "another seed uses the same logits");
}

#[test]
fn stored_logits_are_those_of_the_saved_model() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let run = RunStore::new(folder.path())
        .run(&tiny_student(&[]), &corpus(), &mut silent)
        .unwrap();
    let Logits {
        logits: stored,
        labels,
    } = run.logits(Split::Test).unwrap();
    let corpus = corpus();
    let texts: Vec<&str> = corpus.test.iter().map(|e| e.text.as_str()).collect();
    let predictor = Predictor::open(&run).unwrap();
    let computed = kd_lib::evaluation::to_array(&predictor.logits(&texts).unwrap()).unwrap();
    assert_eq!(stored, computed);
    assert_eq!(
        labels,
        corpus.test.iter().map(|e| e.label).collect::<Vec<_>>()
    );
    assert_eq!(
        kd_lib::evaluation::Scores::of(stored.view(), &labels),
        run.report.test
    );
}

#[test]
fn temperature_scaling_divides_the_logits_and_changes_no_weight() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let store = RunStore::new(folder.path());
    let train = |more: &[&str]| store.run(&tiny_student(more), &corpus(), &mut silent);
    let plain = train(&[]).unwrap();
    let scaled = train(&["train.temperature_scaling=dev"]).unwrap();
    let temperature = scaled.report.temperature.unwrap();
    assert!((temperature - 1.0).abs() > 0.01, "{temperature}");
    assert!(bytes(&plain, "model.safetensors") == bytes(&scaled, "model.safetensors"));
    let corpus = corpus();
    for split in [Split::Dev, Split::Test] {
        let texts: Vec<&str> = corpus
            .split(split)
            .iter()
            .map(|e| e.text.as_str())
            .collect();
        let logits = |run: &Run| {
            let predicted = Predictor::open(run).unwrap().logits(&texts).unwrap();
            kd_lib::evaluation::to_array(&predicted).unwrap()
        };
        let stored = scaled.logits(split).unwrap().logits;
        assert_eq!(logits(&scaled), stored);
        let expected = logits(&plain).mapv(|logit| (f64::from(logit) / temperature) as f32);
        assert!((expected - stored).iter().all(|odd| odd.abs() < 1e-5));
    }
    let fixed = train(&["train.temperature_scaling=0.25"]).unwrap();
    assert_eq!(fixed.report.temperature, Some(0.25));
    let mut odd = tiny_student(&[]);
    for temperature in [0.0, -1.0, f64::INFINITY, f64::NAN] {
        odd.train.temperature_scaling = Some(TemperatureScaling::Fixed(temperature));
        let error = odd.validate().unwrap_err().to_string();
        assert!(error.contains("train.temperature_scaling"), "{error}");
    }
}

#[test]
fn initial_word_vectors_have_the_requested_standard_deviation() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let vectors = |setting: &str| {
        let recipe = tiny_student(&["train.epochs=1", "optimizer.learning_rate=1e-12", setting]);
        let run = RunStore::new(folder.path())
            .run(&recipe, &corpus(), &mut silent)
            .unwrap();
        let path = run.folder().unwrap().join("model.safetensors");
        TensorFile::read(&path)
            .unwrap()
            .take(&path, "embedding.weight")
            .unwrap()
    };
    let (wide, narrow) = (
        vectors("model.embedding_init_std=1.0"),
        vectors("model.embedding_init_std=0.1"),
    );
    assert!((wide.std(false).double_value(&[]) - 1.0).abs() < 0.02);
    assert!(crate::common::distance(&(&wide * 0.1), &narrow) < 1e-6);
    // A checkpoint's vectors: other values, and another run for each checkpoint.
    let checkpoint = folder.path().join("tiny");
    crate::common::tiny_checkpoint(&checkpoint);
    let pretrained = vectors("model.pretrained_embeddings=tiny");
    assert!(crate::common::distance(&pretrained, &wide) > 0.5);
    tch::manual_seed(99);
    crate::common::tiny_checkpoint(&checkpoint); // other random weights
    assert!(
        crate::common::distance(&pretrained, &vectors("model.pretrained_embeddings=tiny")) > 0.5
    );
    let nowhere = tiny_student(&["model.pretrained_embeddings=nowhere"]);
    let message = RunStore::new(folder.path())
        .plan(&nowhere, &corpus())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("nowhere: no such checkpoint, neither in"),
        "{message}"
    );
}

#[test]
fn a_loss_that_is_not_finite_stops_the_run_with_step_learning_rate_and_lines() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let recipe = tiny_student(&["optimizer.learning_rate=1e30", "optimizer.warmup_ratio=0.0"]);
    let error = RunStore::new(folder.path())
        .run(&recipe, &corpus(), &mut silent)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("is not finite")
            && error.contains("learning rate ")
            && error.contains("examples: line "),
        "{error}"
    );
}

#[test]
fn a_loss_scale_below_one_stops_the_run_and_the_error_names_the_fix() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let settings = [
        "train.precision=fp16",
        "train.batch_size=4",
        "optimizer.learning_rate=1e30",
        "optimizer.warmup_ratio=0.0",
    ];
    let error = RunStore::new(folder.path())
        .run(&tiny_student(&settings), &corpus(), &mut silent)
        .unwrap_err()
        .to_string();
    let step: usize = error
        .split("step ")
        .nth(1)
        .unwrap()
        .split(':')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(
        error.contains("under fp16: train in bf16") && (17..30).contains(&step),
        "17 halvings from 65536: {error}"
    );
}

#[test]
fn settings_without_a_meaning_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let refusals = [
        (
            "train.gradient_accumulation_steps=0",
            "train.gradient_accumulation_steps",
        ),
        ("train.batch_size=0", "train.batch_size"),
        ("optimizer.learning_rate=-1.0", "optimizer.learning_rate"),
        ("optimizer.warmup_ratio=1.5", "optimizer.warmup_ratio"),
        ("model.dropout=1.0", "model.dropout"),
        ("device=tpu", "device"),
        ("device=cuda1", "device"),
        ("name=../elsewhere", "name"),
        ("optimizer.betas=[1.0,1.0]", "optimizer.betas"),
        ("optimizer.weight_decay=-1.0", "optimizer.weight_decay"),
        (
            "objective={kind=\"kd\",temperature=4.0,hard_weight=0.5,soft_weight=0.5}",
            "teacher",
        ),
    ];
    for (setting, key) in refusals {
        let error = RunStore::new(folder.path())
            .run(&tiny_student(&[setting]), &corpus(), &mut silent)
            .unwrap_err()
            .to_string();
        assert!(error.contains(key), "{setting}: {error}");
    }
    // An invalid student is refused before its teacher is trained.
    let mut distillation = tiny_distillation(Path::new("nowhere"));
    distillation.train.batch_size = 0;
    let error = RunStore::new(folder.path())
        .run(&distillation, &corpus(), &mut silent)
        .unwrap_err()
        .to_string();
    assert!(error.contains("train.batch_size"), "{error}");
    for [temperature, hard_weight, soft_weight] in [
        [0.0, 0.5, 0.5],
        [-1.0, 0.5, 0.5],
        [4.0, -0.1, 0.5],
        [4.0, 0.0, 0.0],
        [f64::NAN, 0.5, 0.5],
    ] {
        assert!(
            Kd {
                temperature,
                hard_weight,
                soft_weight
            }
            .validate()
            .is_err()
        );
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn three_texts_train_under_every_objective_in_batches_larger_than_the_corpus_and_of_one_row() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(&folder.path().join("tiny"));
    let store = RunStore::new(folder.path()).with_pretrained(root().join("checkpoints"));
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let mut train = "甲乙\t0\n丙丁\t1\n戊己\t2\n".to_owned();
    let teacher = recipe(
        "teacher",
        &[&TINY_TEACHER[..], &["train.precision=fp32"]].concat(),
    );
    for [batch_size, accumulation] in [[512, 64], [1, 1], [2, 1]] {
        std::fs::write(data.join("class.txt"), "a\nb\nc\n").unwrap();
        std::fs::write(data.join("train.txt"), &train).unwrap();
        std::fs::write(data.join("dev.txt"), "甲丙\t0\n").unwrap();
        std::fs::write(data.join("test.txt"), "丁乙\t1\n").unwrap();
        let corpus = Corpus::open(&data).unwrap();
        for name in [
            "student",
            "bilstm+fgm",
            "bilstm+pgd",
            "distilled",
            "bilstm+kd-standardized",
            "bilstm+kd-hidden",
            "bilstm+kd-published-t5",
            "bilstm+logit-mse",
            "bilstm+aug-dist",
            "bilstm+aug-dkd",
            "bilstm+oof",
        ] {
            let batches = [
                format!("train.batch_size={batch_size}"),
                format!("train.gradient_accumulation_steps={accumulation}"),
            ];
            let settings: Vec<&str> = TINY_STUDENT
                .into_iter()
                .chain(batches.iter().map(String::as_str))
                .collect();
            let layer = ["objective.teacher_layers=[1]"];
            let settings = match name {
                "bilstm+kd-hidden" => [&settings[..], &layer].concat(),
                _ => settings,
            };
            let mut recipe = recipe(name, &settings);
            if recipe.teacher.is_some() {
                recipe.teacher = Some(Box::new(teacher.clone()));
            }
            let run = store.run(&recipe, &corpus, &mut silent).unwrap();
            let curve = run.curve().unwrap();
            assert!(curve.iter().all(|point| point.loss.is_finite()), "{name}");
        }
        // The last batch of two has one row.
        train += "庚辛\t1\n壬癸\t2\n";
    }
}
