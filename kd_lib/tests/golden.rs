//! A hundred updates of a small student, compared with a recorded curve. The comparison is exact if
//! the processor, the threads and libtorch are the same, and within a thousandth elsewhere. After a
//! change that is meant to change numbers, `KD_GOLDEN=write cargo test -p kd_lib --test golden`
//! records the curve again.

mod common;

use common::{TINY_STUDENT, recipe, root, sample};
use kd_lib::data::Corpus;
use kd_lib::device::Environment;
use kd_lib::store::RunStore;
use kd_lib::training::progress::silent;
use serde::{Deserialize, Serialize};

/// Where a curve was recorded, and its losses.
#[derive(Serialize, Deserialize)]
struct Golden {
    environment: Environment,
    loss: Vec<f64>,
}

#[test]
fn the_losses_of_a_hundred_updates_are_the_recorded_ones() {
    tch::set_num_threads(1); // this file's only test, so no other is affected
    let recipe = recipe(
        "student",
        &[
            &TINY_STUDENT[..],
            &["train.epochs=10", "train.batch_size=30"],
        ]
        .concat(),
    );
    let (folder, corpus) = (
        tempfile::tempdir().unwrap(),
        Corpus::open(sample()).unwrap(),
    );
    let run = RunStore::new(folder.path())
        .run(&recipe, &corpus, &mut silent)
        .unwrap();
    let now = Golden {
        environment: run.report.environment.clone(),
        loss: run.curve().unwrap().iter().map(|p| p.loss).collect(),
    };
    assert_eq!(now.loss.len(), 100);
    let path = root().join("kd_lib/tests/golden/student.json");
    if std::env::var_os("KD_GOLDEN").is_some() {
        return kd_lib::files::write_json(&path, &now).unwrap();
    }
    let recorded: Golden = kd_lib::files::read_json(&path).unwrap();
    if now.environment == recorded.environment {
        assert_eq!(now.loss, recorded.loss, "bit for bit");
        return println!("compared exactly: the same processor, threads and libtorch");
    }
    println!(
        "compared within a thousandth: recorded on {:?}",
        recorded.environment
    );
    for (step, (ours, theirs)) in now.loss.iter().zip(&recorded.loss).enumerate() {
        assert!(
            (ours / theirs - 1.0).abs() < 1e-3,
            "step {}: {ours} where {theirs} was recorded",
            step + 1
        );
    }
}
