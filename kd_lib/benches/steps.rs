//! How long the parts of a day's work take here, by criterion: updates of the student, the teacher and the distilled
//! student, reading texts with either, one answer, and a first answer with loading. What others' programs take is
//! `race`'s business.
//!
//!     cargo bench --profile dev -p kd_lib --bench steps -- [FILTER]

#![allow(missing_docs)] // the macros at the end write functions without them

mod common;

use common::{brief, lab, recipe, root};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kd_lib::data::Corpus;
use kd_lib::lab::Lab;
use kd_lib::predict::Predictor;
use kd_lib::run::Run;
use std::path::PathBuf;

fn corpus() -> Corpus {
    let default = root().join("data/default");
    Corpus::open(if default.exists() { default } else { root().join("data/sample") }).expect("a corpus")
}

/// Updates of a recipe, one after the other.
fn updates(criterion: &mut Criterion) {
    let (lab, corpus) = (lab(), corpus());
    let mut group = criterion.benchmark_group("update");
    group.throughput(Throughput::Elements(32)).sample_size(20);
    for name in ["student", "teacher", "distilled"] {
        let mut rehearsal = lab.rehearse(&recipe(name, &[]).expect(name), &corpus).expect(name);
        group.bench_function(name, |bencher| bencher.iter(|| rehearsal.update()));
    }
}

/// Texts read by either model, as for the logits that a distillation learns from and for every evaluation.
fn reading(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let lab = Lab::at(folder.path());
    let texts: Vec<String> = corpus().test.iter().cycle().take(1000).map(|e| e.text.clone()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for name in ["student", "teacher"] {
        let run = brief(&lab, name, &corpus()).expect(name);
        let predictor = Predictor::open(&run).expect(name);
        let mut group = criterion.benchmark_group(format!("{name} reads"));
        group.sample_size(10).throughput(Throughput::Elements(texts.len() as u64));
        group.bench_function("1000 texts", |bencher| bencher.iter(|| predictor.logits(&texts)));
        group.throughput(Throughput::Elements(1));
        group.bench_function("one text", |bencher| bencher.iter(|| predictor.predict(&texts[..1])));
        let path: PathBuf = run.path.clone();
        let first = || Run::open(&path).and_then(|run| Predictor::open(&run)?.predict(&texts[..1]));
        group.bench_function("one text, loading first", |bencher| {
            bencher.iter_batched(|| (), |()| first(), BatchSize::PerIteration)
        });
    }
}

criterion_group!(benches, updates, reading);
criterion_main!(benches);
