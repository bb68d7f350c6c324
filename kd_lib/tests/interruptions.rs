//! A run may be stopped wherever it reports: in an update, an evaluation, a teacher's logits, the
//! final scoring, the wait for a lock. It continues there, and ends with the bytes of an
//! undisturbed run.

use crate::common::{TINY_STUDENT, lock_generator, recipe, sample, tiny_checkpoint};
use kd_lib::data::Corpus;
use kd_lib::store::{Recipe, Run, RunStore};
use kd_lib::training::progress::silent;
use kd_lib::training::{Activity, Progress};
use kd_lib::{Error, files};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A distillation whose passes over dev, test and the teacher's texts have several batches.
fn distillation() -> Recipe {
    let batches = ["train.batch_size=8", "train.group_by_length=false"];
    let teacher = [
        "model.checkpoint=tiny",
        "model.pooling=cls",
        "model.prefix=",
        "data.max_length=32",
        "device=cpu",
        "train.epochs=1",
        "train.gradient_accumulation_steps=4",
        "train.eval_every_samples=40",
    ];
    let teacher = recipe("teacher", &[&teacher[..], &batches].concat());
    let student = ["train.epochs=2", "train.eval_every_samples=40"];
    Recipe {
        teacher: Some(Box::new(teacher)),
        ..recipe(
            "distilled",
            &[&TINY_STUDENT[..], &batches, &student].concat(),
        )
    }
}

/// The contents of a finished run's files, the seconds left out.
fn contents(run: &Run) -> Vec<(String, Vec<u8>)> {
    let mut contents = Vec::new();
    for path in files::sorted_entries(run.folder().unwrap()).unwrap() {
        let name = files::file_name(&path).to_owned();
        if path.is_dir() || ["b3sums", "log.txt", ".lock"].contains(&name.as_str()) {
            continue;
        }
        let mut bytes = std::fs::read(&path).unwrap();
        if name == "report.json" {
            let text = String::from_utf8(bytes).unwrap();
            let lines = text.lines().filter(|line| !line.contains("\"seconds\""));
            bytes = lines.collect::<String>().into_bytes();
        }
        contents.push((name, bytes));
    }
    contents
}

/// What interrupted passes have saved in a store.
fn saved_passes(store: &Path) -> Vec<PathBuf> {
    let mut saved = Vec::new();
    for run in files::sorted_entries(&store.join("runs")).unwrap() {
        for folder in [run.clone(), run.join("predictions")] {
            saved.extend(files::content_addressed(&folder, ".interrupted-"));
        }
    }
    saved
}

#[test]
fn a_run_that_is_stopped_anywhere_ends_with_the_bytes_of_an_undisturbed_run() {
    let _turn = lock_generator();
    let (whole, broken) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tiny_checkpoint(&whole.path().join("tiny"));
    std::os::unix::fs::symlink(whole.path().join("tiny"), broken.path().join("tiny")).unwrap();
    let (recipe, corpus) = (distillation(), Corpus::open(sample()).unwrap());
    let expected = RunStore::new(whole.path());
    let expected_run = expected.run(&recipe, &corpus, &mut silent).unwrap();
    let teacher = recipe.teacher.as_ref().unwrap();
    let expected_teacher = expected.run(teacher, &corpus, &mut silent).unwrap();

    let store = RunStore::new(broken.path());
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let mut stopped_in: Vec<Activity> = Vec::new();
    let run = loop {
        // Far enough to get on, near enough to be stopped often.
        let mut left = random.random_range(5..16);
        let mut last = Activity::Preparing;
        let mut stop = |progress: &Progress| {
            last = progress.activity;
            left -= 1;
            match left {
                0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        };
        match store.run(&recipe, &corpus, &mut stop) {
            Ok(run) => break run,
            Err(Error::Stopped { .. }) => stopped_in.push(last),
            Err(error) => panic!("{error}"),
        }
        assert!(stopped_in.len() < 1000, "the run does not get on");
        // Now and then a file of an interrupted pass is damaged: the pass begins again.
        if stopped_in.len().is_multiple_of(20) {
            for path in saved_passes(broken.path()) {
                let mut bytes = std::fs::read(&path).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
        }
    };
    for activity in [
        Activity::Training,
        Activity::Evaluating,
        Activity::TeacherLogits,
        Activity::Scoring,
    ] {
        let times = stopped_in
            .iter()
            .filter(|&&other| other == activity)
            .count();
        assert!(times > 2, "stopped {times} times in {activity:?}");
    }
    let teacher = store.run(teacher, &corpus, &mut silent).unwrap();
    for (ours, theirs) in [(&run, &expected_run), (&teacher, &expected_teacher)] {
        for ((name, ours), (expected_name, theirs)) in contents(ours).iter().zip(contents(theirs)) {
            assert_eq!(*name, expected_name);
            assert!(*ours == theirs, "{name} differs");
        }
    }
    assert_eq!(saved_passes(broken.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_pass_that_was_stopped_continues_where_it_was() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(&folder.path().join("tiny"));
    let store = RunStore::new(folder.path());
    let corpus = Corpus::open(sample()).unwrap();
    let mut updates = Vec::new();
    for activity in [
        Activity::Evaluating,
        Activity::TeacherLogits,
        Activity::Scoring,
    ] {
        let mut stop = |progress: &Progress| {
            if progress.loss.is_some() {
                updates.push((progress.run.to_owned(), progress.done));
            }
            if progress.activity == activity && progress.done > 16 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        let error = store.run(&distillation(), &corpus, &mut stop).unwrap_err();
        assert!(error.to_string().contains("at 24 of"), "{error}");
        let mut first = None;
        let mut note = |progress: &Progress| {
            if progress.loss.is_some() {
                updates.push((progress.run.to_owned(), progress.done));
            }
            if progress.activity == activity {
                first.get_or_insert(progress.done);
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        };
        store.run(&distillation(), &corpus, &mut note).unwrap_err();
        assert_eq!(first, Some(24), "{activity:?}");
    }
    let distinct: HashSet<&(String, usize)> = updates.iter().collect();
    assert_eq!(distinct.len(), updates.len(), "no update is made twice");
}

#[test]
fn a_run_that_waits_for_another_process_says_so_and_can_be_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let store = RunStore::new(folder.path());
    let corpus = Corpus::open(sample()).unwrap();
    let student = recipe("student", &TINY_STUDENT);
    let id = store.plan(&student, &corpus).unwrap().id;
    let _held = files::lock_folder(&store.run_folder(&id), &mut || panic!("free")).unwrap();
    let mut waited = 0;
    let mut stop = |progress: &Progress| {
        if progress.activity == Activity::Preparing {
            return ControlFlow::Continue(());
        }
        assert_eq!((progress.activity, progress.run), (Activity::Waiting, &*id));
        waited += 1;
        match waited {
            3 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    };
    let error = store.run(&student, &corpus, &mut stop).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("in the wait for another process"),
        "{error}"
    );
}
