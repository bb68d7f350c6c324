//! Times by criterion: updates of the student, the teacher and the distilled student; logits of
//! texts with either model; one prediction, with and without loading the model. The comparison with
//! PyTorch is in `race`.
//!
//!     cargo bench --profile dev -p kd_lib --bench steps -- [FILTER]

#![allow(missing_docs)] // of the functions that the macros at the end write

mod common;

use common::{recipe, root, short_run, store};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use kd_lib::data::Corpus;
use kd_lib::store::{Predictor, Run, RunStore};

fn corpus() -> Corpus {
    let default = root().join("data/default");
    Corpus::open(if default.exists() {
        default
    } else {
        root().join("data/sample")
    })
    .expect("a corpus")
}

/// Updates of a recipe, one after the other.
fn updates(criterion: &mut Criterion) {
    let (store, corpus) = (store(), corpus());
    let mut group = criterion.benchmark_group("update");
    group.throughput(Throughput::Elements(32)).sample_size(20);
    for name in ["student", "teacher", "distilled"] {
        let recipe = recipe(name, &[]).expect(name);
        let mut timer = store.step_timer(&recipe, &corpus).expect(name);
        group.bench_function(name, |bencher| bencher.iter(|| timer.time_step()));
    }
}

/// Logits of texts, as distillation and evaluation compute them.
fn predictions(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = RunStore::new(folder.path());
    let texts: Vec<String> = corpus()
        .test
        .iter()
        .cycle()
        .take(1000)
        .map(|e| e.text.clone())
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for name in ["student", "teacher"] {
        let run = short_run(&store, name, &corpus()).expect(name);
        let predictor = Predictor::open(&run).expect(name);
        let mut group = criterion.benchmark_group(format!("{name} predicts"));
        group
            .sample_size(10)
            .throughput(Throughput::Elements(texts.len() as u64));
        group.bench_function("1000 texts", |bencher| {
            bencher.iter(|| predictor.logits(&texts))
        });
        group.throughput(Throughput::Elements(1));
        group.bench_function("one text", |bencher| {
            bencher.iter(|| predictor.predict(&texts[..1]))
        });
        let path = run.folder().expect(name).to_path_buf();
        let first = || Run::open(&path).and_then(|run| Predictor::open(&run)?.predict(&texts[..1]));
        group.bench_function("one text, with loading", |bencher| {
            bencher.iter_batched(|| (), |()| first(), BatchSize::PerIteration)
        });
    }
}

criterion_group!(benches, updates, predictions);
criterion_main!(benches);
