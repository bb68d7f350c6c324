//! The transfer set, and the cached logits of teachers: a text is augmented once, its logits are
//! computed once, and nothing is lost.

use crate::common::{
    TINY_STUDENT, bilstm_settings, distance, lock_generator, recipe, sample, tiny_checkpoint,
};
use kd_lib::Error;
use kd_lib::data::{
    Augmentation, AugmentationUnit, Corpus, Example, Split, TextInput, TokenizedSplit,
    TransferConfig, TransferText,
};
use kd_lib::models::BiLstm;
use kd_lib::precision::Precision;
use kd_lib::store::teacher_logits::{logits_to_learn, teacher_logits};
use kd_lib::store::{Recipe, Run, RunStore, StoredResults, run_files};
use kd_lib::threads::ThreadPolicy;
use kd_lib::training::gradients::group_gradients;
use kd_lib::training::progress::{Progress, silent};
use kd_lib::training::{AdamW, GradScaler, StepConfig, TrainData, Trainer};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// Every augmentation.
const ALL_KINDS: [Augmentation; 5] = [
    Augmentation::Mask,
    Augmentation::SpanCrop,
    Augmentation::Crossover,
    Augmentation::Rotation,
    Augmentation::SpanReplacement,
];

/// The transfer set of a corpus: `per_text` augmented texts of each, of these kinds.
fn augmented(corpus: &Corpus, per_text: usize, kinds: &[Augmentation]) -> Vec<TransferText> {
    let config = TransferConfig {
        augmentations_per_text: per_text,
        augmentations: kinds.to_vec(),
        ..TransferConfig::default()
    };
    config.build(corpus, &[]).unwrap()
}

#[test]
fn words_are_augmented_as_whole_words() {
    let texts = [
        "how many people live in the largest city of Europe",
        "who wrote the first long novel of the nineteenth century",
    ];
    let mut corpus = Corpus::open(sample()).unwrap();
    corpus.train.truncate(texts.len());
    for (example, text) in corpus.train.iter_mut().zip(texts) {
        example.text = text.to_owned();
    }
    let words: HashSet<&str> = texts.iter().flat_map(|text| text.split(' ')).collect();
    for kind in ALL_KINDS {
        let config = TransferConfig {
            augmentations_per_text: 10,
            augmentations: vec![kind],
            augmentation_unit: AugmentationUnit::Word,
            ..TransferConfig::default()
        };
        let set = config.build(&corpus, &[]).unwrap();
        assert!(set.len() > 5, "{kind:?}: {} texts", set.len());
        for augmented in set {
            let whole = |word: &str| words.contains(word) || word == "□";
            assert!(augmented.text.split(' ').all(whole), "{}", augmented.text);
        }
    }
}

#[test]
fn an_augmented_text_is_new_and_comes_from_its_source() {
    let corpus = Corpus::open(sample()).unwrap();
    let corpus_texts: HashSet<&str> = [Split::Train, Split::Dev, Split::Test]
        .iter()
        .flat_map(|&s| corpus.split(s))
        .map(|e| e.text.as_str())
        .collect();
    for kind in ALL_KINDS {
        let set = augmented(&corpus, 3, &[kind]);
        let texts: HashSet<&str> = set.iter().map(|t| t.text.as_str()).collect();
        assert!(
            set.len() > 2 * corpus.train.len(),
            "{kind:?}: {} texts",
            set.len()
        );
        assert_eq!(texts.len(), set.len(), "{kind:?}: no text occurs twice");
        assert!(
            texts.is_disjoint(&corpus_texts),
            "{kind:?}: no text of the corpus"
        );
        let only_teacher_labels = set.iter().all(|t| t.augmented && t.label.is_none());
        assert!(only_teacher_labels, "the teacher alone labels them");
        assert_eq!(
            set,
            augmented(&corpus, 3, &[kind]),
            "the same texts each time"
        );
    }
    let sources: Vec<&str> = corpus.train.iter().map(|e| e.text.as_str()).collect();
    let crops = augmented(&corpus, 1, &[Augmentation::SpanCrop]);
    assert!(
        crops
            .iter()
            .all(|crop| sources.iter().any(|s| s.contains(&crop.text)))
    );
    // Span replacement replaces at most four characters in a row by as many of another text.
    for replaced in augmented(&corpus, 1, &[Augmentation::SpanReplacement]) {
        let text: Vec<char> = replaced.text.chars().collect();
        let characters = sources.iter().map(|s| s.chars().collect::<Vec<char>>());
        let from_one = characters.into_iter().any(|source| {
            let differs: Vec<usize> = (0..text.len())
                .filter(|&at| source.get(at) != text.get(at))
                .collect();
            let ends = differs.first().zip(differs.last());
            let span = ends.map_or(0, |(first, last)| last - first + 1);
            let start = differs.first().copied().unwrap_or(0);
            let new: String = text[start..][..span].iter().collect();
            source.len() == text.len()
                && span <= 4
                && sources.iter().any(|other| other.contains(&new))
        });
        assert!(from_one, "{}", replaced.text);
    }
}

#[test]
fn an_augmented_text_is_no_held_out_text_with_a_blank_at_an_end() {
    let mut corpus = Corpus::open(sample()).unwrap();
    let texts = ["甲乙 丙丁", "甲乙", "丙丁", "甲 丁", "丙丁 甲乙"];
    let example = |(line, text): (usize, &&str)| Example {
        text: (*text).into(),
        text_pair: None,
        label: 0,
        line,
    };
    let examples: Vec<Example> = texts.iter().enumerate().map(example).collect();
    corpus.train = examples[..1].to_vec();
    corpus.dev = examples[1..3].to_vec();
    corpus.test = examples[3..].to_vec();
    for kind in [
        Augmentation::SpanCrop,
        Augmentation::Crossover,
        Augmentation::Rotation,
        Augmentation::SpanReplacement,
    ] {
        let set = augmented(&corpus, 50, &[kind]);
        assert!(
            set.iter().all(|t| !texts.contains(&t.text.trim())),
            "{kind:?}: {set:?}"
        );
    }
}

#[test]
fn unused_training_texts_and_a_file_join_the_transfer_set_without_labels() {
    let corpus = Corpus::open(sample()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let lines = folder.path().join("lines.txt");
    let held_out = corpus.test[0].text.replace(' ', "\t");
    std::fs::write(
        &lines,
        format!("从未见过\t的一行\n\n{held_out}\n从未见过 的一行\n"),
    )
    .unwrap();
    let fraction = format!("data.label_fraction={}", 40.0 / corpus.train.len() as f64);
    let file = format!("transfer.unlabelled_file={}", lines.display());
    let settings = [
        "transfer.unlabelled_train=true",
        &fraction,
        "data.drop_leaks=false",
        "train.epochs=2.5",
        &file,
        "objective={kind=\"logit_mse\",hard_weight=0.0,soft_weight=1.0}",
    ];
    let recipe = Recipe {
        teacher: pair(&[]).teacher,
        ..recipe("student", &settings)
    };
    let plan = store(folder.path()).plan(&recipe, &corpus).unwrap();
    let set = &plan.transfer_set;
    assert_eq!(plan.corpus.train.len(), 40);
    assert_eq!(
        set[0].text, "从未见过 的一行",
        "once, and neither the empty line nor a test text"
    );
    assert!(
        set.iter()
            .all(|t| corpus.test.iter().all(|held_out| held_out.text != t.text))
    );
    assert!(set.iter().all(|t| t.label.is_none() && !t.augmented));
    let distinct: HashSet<&str> = corpus.train.iter().map(|e| e.text.as_str()).collect();
    let quality = corpus.data_quality();
    let leaks = quality.train_in_dev + quality.train_in_test;
    assert!(set.len() > distinct.len() - 41 - leaks);
    let steps_per_epoch = (40 + set.len()).div_ceil(recipe.train.batch_size);
    assert_eq!(plan.schedule.steps_per_epoch, steps_per_epoch);
    let expected = (2.5 * steps_per_epoch as f64).round() as usize;
    assert_eq!(
        plan.schedule.total_steps, expected,
        "epochs may be a fraction"
    );
}

/// A tiny student's recipe with a tiny teacher.
#[test]
fn every_unlabelled_line_is_used_or_counted() {
    let corpus = Corpus::open(sample()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("more.txt");
    let test = &corpus.test[0].text;
    let lines = [
        "新的一条",
        "",
        "新的一条",
        test,
        "另一条",
        "第三条",
        "第四条",
    ];
    std::fs::write(&file, lines.join("\n")).unwrap();
    let config = TransferConfig {
        unlabelled_file: Some(file),
        max_unlabelled_samples: Some(3),
        ..TransferConfig::default()
    };
    let set = config.build_with_notices(&corpus, &[]).unwrap();
    assert_eq!(set.texts.len(), 3);
    let notice = &set.notices[0];
    for part in ["7 lines", "3 are empty, repeat", "1 are over", "3 are used"] {
        assert!(notice.contains(part), "{notice}");
    }
    assert_eq!(
        config.build(&corpus, &[]).unwrap(),
        set.texts,
        "drawn with a fixed seed"
    );
}

#[test]
fn a_file_that_holds_more_than_texts_is_refused_as_unlabelled() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = Corpus::open(sample()).unwrap();
    let class = &corpus.labels[0];
    let cases = [
        ("texts.csv", "text,label\n".to_owned(), "csv is not read"),
        (
            "objects.txt",
            "{\"text\": \"新的一条\"}\n".to_owned(),
            "a JSON object",
        ),
        ("empty.txt", "\n\n".to_owned(), "no text"),
        (
            "labelled.txt",
            format!("新的一条\t{class}\n另一条\t{class}\n第三条\n"),
            "most lines end with the name of a class",
        ),
        (
            "fasttext.txt",
            format!("__label__{class} 新的一条\n__label__{class} 另一条\n第三条\n"),
            "most lines begin with the name of a class",
        ),
        (
            "before.txt",
            format!("{class}\t新的一条\n{class},另一条\n第三条\n"),
            "most lines begin with the name of a class",
        ),
        (
            "indices.txt",
            "新的一条\t0\n另一条\t3\n".to_owned(),
            "most lines have further columns",
        ),
    ];
    for (name, content, part) in cases {
        let file = folder.path().join(name);
        std::fs::write(&file, content).unwrap();
        let config = TransferConfig {
            unlabelled_file: Some(file),
            ..TransferConfig::default()
        };
        let error = config.build(&corpus, &[]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(part), "{error}");
    }
}

fn pair(settings: &[&str]) -> Recipe {
    let teacher = [
        "model.checkpoint=tiny",
        "model.pooling=cls",
        "model.prefix=",
        "data.max_length=32",
        "device=cpu",
        "train.epochs=1",
        "train.precision=fp32",
        "data.max_train_samples=64",
    ];
    let student = [
        "objective={kind=\"logit_mse\",hard_weight=0.0,soft_weight=1.0}",
        "data.max_train_samples=64",
    ];
    Recipe {
        teacher: Some(Box::new(recipe("teacher", &teacher))),
        ..recipe("student", &[&TINY_STUDENT, &student[..], settings].concat())
    }
}

fn store(folder: &Path) -> RunStore {
    tiny_checkpoint(&folder.join("tiny"));
    RunStore::new(folder)
}

/// Requests for a teacher's logits by its log: texts requested, and texts to compute.
fn requests(teacher: &Run) -> Vec<(usize, usize)> {
    let log = std::fs::read_to_string(teacher.folder().unwrap().join("log.txt")).unwrap();
    let mut requests = Vec::new();
    for line in log.lines() {
        let Some((_, rest)) = line.split_once(": logits of ") else {
            continue;
        };
        let Some((requested, rest)) = rest.split_once(" texts requested, ") else {
            continue;
        };
        let computed = rest.strip_suffix(" to compute").unwrap();
        requests.push((requested.parse().unwrap(), computed.parse().unwrap()));
    }
    requests
}

fn taught_by(run: &Run) -> String {
    std::fs::read_to_string(run.folder().unwrap().join("taught_by.json")).unwrap()
}

#[test]
fn a_teachers_logits_of_a_text_are_computed_once_for_all_runs() {
    let _turn = lock_generator();
    let (folder, corpus) = (
        tempfile::tempdir().unwrap(),
        Corpus::open(sample()).unwrap(),
    );
    let store = store(folder.path());
    let twice = "transfer.augmentations_per_text=2";
    let recipes = [pair(&[]), pair(&[twice]), pair(&[twice, "seed=5"])];
    for recipe in &recipes {
        store.run(recipe, &corpus, &mut silent).unwrap();
    }
    let teacher_recipe = recipes[0].teacher.as_ref().unwrap();
    let teacher = store.run(teacher_recipe, &corpus, &mut silent).unwrap();
    let augmented = store.plan(&recipes[1], &corpus).unwrap().transfer_set.len();
    let all = 64 + augmented;
    assert_eq!(requests(&teacher), [(64, 64), (all, augmented), (all, 0)]);

    // One bit of a part changes: the texts of this part alone are computed again.
    let texts: Vec<TextInput> = corpus.train.iter().take(50).map(Example::input).collect();
    let before = teacher_logits(&teacher, &texts, &mut silent).unwrap();
    let cache = teacher.folder().unwrap().join("predictions");
    let mut parts = std::fs::read_dir(&cache)
        .unwrap()
        .map(|e| e.unwrap().path());
    let first = parts
        .find(|p| p.to_string_lossy().contains("-000000-"))
        .unwrap();
    let mut bytes = std::fs::read(&first).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&first, bytes).unwrap();
    let after = teacher_logits(&teacher, &texts, &mut silent).unwrap();
    assert!(distance(&before, &after) < 1e-5);
    let computed: Vec<usize> = requests(&teacher)
        .iter()
        .skip(3)
        .map(|(_, computed)| *computed)
        .collect();
    let in_all: usize = computed.iter().sum();
    assert!(
        computed[1] > 0 && in_all == 50,
        "first the new ones, then the lost ones: {computed:?}"
    );

    // While another run holds the cache's lock, a request whose texts are all cached does not wait.
    let lock = std::fs::File::open(cache.join(".lock")).unwrap();
    lock.lock().unwrap();
    let (sender, receiver) = std::sync::mpsc::channel();
    let examples = corpus.train.clone();
    std::thread::spawn(move || {
        let texts: Vec<TextInput> = examples.iter().take(50).map(Example::input).collect();
        sender
            .send(teacher_logits(&teacher, &texts, &mut silent))
            .unwrap();
    });
    let meanwhile = receiver
        .recv_timeout(Duration::from_secs(60))
        .expect("it waits")
        .unwrap();
    assert_eq!(meanwhile, after);

    drop(lock);
    // A teacher whose log cannot be written gives what it has computed, and nothing else.
    let teacher = store.run(teacher_recipe, &corpus, &mut silent).unwrap();
    let log = teacher.folder().unwrap().join("log.txt");
    std::fs::remove_file(&log).unwrap();
    std::fs::create_dir(&log).unwrap();
    assert_eq!(
        teacher_logits(&teacher, &texts, &mut silent).unwrap(),
        after
    );
    let unseen = TextInput::from("没有算过的文本");
    let error = teacher_logits(&teacher, &[unseen], &mut silent).unwrap_err();
    assert!(error.to_string().contains("log.txt"), "{error}");
}

#[test]
fn a_teacher_that_was_trained_again_is_not_taken_for_the_former_one() {
    let _turn = lock_generator();
    let (folder, corpus) = (
        tempfile::tempdir().unwrap(),
        Corpus::open(sample()).unwrap(),
    );
    let store = store(folder.path());
    let [student, longer] = ["train.epochs=2", "train.epochs=4"].map(|setting| pair(&[setting]));
    let teacher = *student.teacher.clone().unwrap();
    let [first, other] = [teacher.clone(), teacher.with_seed(7)]
        .map(|recipe| store.run(&recipe, &corpus, &mut silent).unwrap());
    let finished = store.run(&student, &corpus, &mut silent).unwrap();
    let taught = taught_by(&finished);
    assert!(taught.contains(&first.report.id));
    let id = store.plan(&longer, &corpus).unwrap().id;
    let mut stop = |progress: &Progress| {
        if progress.run == id && progress.loss.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    assert!(matches!(
        store.run(&longer, &corpus, &mut stop),
        Err(Error::Stopped { .. })
    ));
    let texts = ["基金净值上涨", "球队晋级决赛"].map(TextInput::from);
    let [of_first, of_other] =
        [&first, &other].map(|run| teacher_logits(run, &texts, &mut silent).unwrap());
    assert!(distance(&of_first, &of_other) > 1e-3);

    // As if it had been trained again where results round otherwise: other weights, the same id.
    let weights = |run: &Run| run.folder().unwrap().join("model.safetensors");
    std::fs::copy(weights(&other), weights(&first)).unwrap();
    run_files::write_checksums(first.folder().unwrap()).unwrap();
    let again = teacher_logits(&first, &texts, &mut silent).unwrap();
    assert!(
        distance(&again, &of_other) < 1e-5,
        "cached logits are those of the former weights"
    );
    for recipe in [&student, &longer] {
        let run = store.run(recipe, &corpus, &mut silent).map(Some);
        for refused in [run, store.find_finished(recipe, &corpus)] {
            let error = refused.unwrap_err().to_string();
            assert!(
                error.contains("trained again") && error.contains(&first.report.id),
                "{error}"
            );
        }
    }

    // A run without a saved state has learned nothing of its teacher.
    for entry in std::fs::read_dir(store.run_folder(&id))
        .unwrap()
        .map(Result::unwrap)
    {
        if entry.file_name().to_string_lossy().starts_with("state-") {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let from_other = store.run(&longer, &corpus, &mut silent).unwrap();
    assert_ne!(taught_by(&from_other), taught);

    // Stored results say which weights taught a run. A run may be added twice.
    let results = folder.path().join("results");
    for _ in 0..2 {
        StoredResults::open(&results)
            .unwrap()
            .add("runs", &finished)
            .unwrap();
    }
    let stored = StoredResults::open(&results).unwrap().set("runs");
    assert_eq!(stored.len(), 1);
    assert_eq!(
        stored[0].taught_by().unwrap(),
        finished.taught_by().unwrap()
    );
    assert_eq!(taught_by(&finished), taught);
}

#[test]
fn a_teacher_without_weights_teaches_with_its_cached_logits() {
    let _turn = lock_generator();
    let (folder, corpus) = (
        tempfile::tempdir().unwrap(),
        Corpus::open(sample()).unwrap(),
    );
    let store = store(folder.path());
    let student = pair(&[]);
    let finished = store.run(&student, &corpus, &mut silent).unwrap();
    let teacher = store
        .run(student.teacher.as_ref().unwrap(), &corpus, &mut silent)
        .unwrap();
    std::fs::remove_file(teacher.folder().unwrap().join("model.safetensors")).unwrap();
    let longer = store
        .run(&pair(&["train.epochs=4"]), &corpus, &mut silent)
        .unwrap();
    assert_eq!(taught_by(&longer), taught_by(&finished));
    let error = teacher_logits(&teacher, &["没有见过的一行".into()], &mut silent)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("the weights of this run were removed"),
        "{error}"
    );
}

#[test]
fn an_ensemble_gives_mean_logits_or_out_of_fold_logits() {
    let _turn = lock_generator();
    let (folder, corpus) = (
        tempfile::tempdir().unwrap(),
        Corpus::open(sample()).unwrap(),
    );
    let store = store(folder.path());
    let averaged = pair(&["ensemble={seeds=[1,2]}"]);
    let mean = store.run(&averaged, &corpus, &mut silent).unwrap();
    assert_eq!(mean.report.teachers.len(), 2);
    let out_of_fold = pair(&["ensemble={out_of_fold=2}"]);
    store.run(&out_of_fold, &corpus, &mut silent).unwrap();
    // The texts that each out-of-fold teacher was trained on.
    let mut trained_on: Vec<HashSet<String>> = Vec::new();
    for teacher in out_of_fold.teachers() {
        let plan = store.plan(&teacher, &corpus).unwrap();
        trained_on.push(plan.corpus.train.into_iter().map(|e| e.text).collect());
    }
    assert!(trained_on[0].is_disjoint(&trained_on[1]));
    assert!(trained_on.iter().all(|texts| texts.len() > 16));
    let mut requested_in_all = 0;
    for (teacher, own) in out_of_fold.teachers().iter().zip(&trained_on) {
        let teacher = store.run(teacher, &corpus, &mut silent).unwrap();
        let (requested, computed) = requests(&teacher)[0];
        assert_eq!(requested, computed);
        assert!(
            computed + own.len() <= 64,
            "no logits of a text that it was trained on"
        );
        requested_in_all += computed;
    }
    assert_eq!(
        requested_in_all,
        trained_on.iter().map(HashSet::len).sum::<usize>()
    );

    let texts = trained_on.iter().flatten().map(String::as_str);
    let texts: Vec<TextInput> = texts.map(TextInput::from).collect();
    let logits_of = |recipe: &Recipe| {
        let run = store.run(recipe, &corpus, &mut silent).unwrap();
        teacher_logits(&run, &texts, &mut silent).unwrap()
    };
    let ensemble_logits = |recipe: &Recipe| {
        let mut teachers = Vec::new();
        for teacher in recipe.teachers() {
            teachers.push(store.run(&teacher, &corpus, &mut silent).unwrap());
        }
        logits_to_learn(
            recipe.ensemble.as_ref(),
            &teachers,
            &texts,
            ThreadPolicy::Unchanged,
            &mut silent,
        )
        .unwrap()
    };
    let [of_seeds, of_folds] =
        [&averaged, &out_of_fold].map(|recipe| [0, 1].map(|at| logits_of(&recipe.teachers()[at])));
    assert!(
        distance(&of_seeds[0], &of_seeds[1]) > 1e-3,
        "equal teachers would prove nothing"
    );
    let expected = (&of_seeds[0] + &of_seeds[1]) / 2.0;
    assert!(distance(&ensemble_logits(&averaged), &expected) < 1e-6);
    let found = ensemble_logits(&out_of_fold);
    for (row, text) in texts.iter().enumerate() {
        // Teacher k was trained without fold k.
        let teacher = usize::from(trained_on[0].contains(text.text));
        let expected = of_folds[teacher].get(row as i64);
        assert!(
            distance(&found.get(row as i64), &expected) < 1e-6,
            "{text:?}"
        );
    }
    let mut few = corpus.clone();
    few.train.truncate(8);
    let many_folds = pair(&["ensemble={out_of_fold=8}"]);
    assert!(
        store.run(&many_folds, &few, &mut silent).is_ok(),
        "a fold may be empty"
    );
}

#[test]
fn a_run_that_skips_test_has_no_test_scores() {
    let _turn = lock_generator();
    let (folder, corpus) = (
        tempfile::tempdir().unwrap(),
        Corpus::open(sample()).unwrap(),
    );
    let recipe = recipe(
        "student",
        &[&TINY_STUDENT, &["data.skip_test=true"][..]].concat(),
    );
    let run = RunStore::new(folder.path())
        .run(&recipe, &corpus, &mut silent)
        .unwrap();
    let report = std::fs::read_to_string(run.folder().unwrap().join("report.json")).unwrap();
    assert!(
        report.contains("\"dev\": {") && !report.contains("\"test\""),
        "{report}"
    );
    assert!(!run.folder().unwrap().join("test.safetensors").exists());
    assert!(run.logits(Split::Dev).is_ok());
    let results = folder.path().join("results");
    StoredResults::open(&results)
        .unwrap()
        .add("runs", &run)
        .unwrap();
    let stored = StoredResults::open(&results).unwrap().set("runs").remove(0);
    assert!(stored.report == run.report && stored.predictions(Split::Test).is_err());
}

#[test]
fn the_temperature_moves_linearly_to_its_final_value() {
    let _turn = lock_generator();
    let (folder, corpus) = (
        tempfile::tempdir().unwrap(),
        Corpus::open(sample()).unwrap(),
    );
    let objective = "objective={kind=\"kd\",temperature=8.0,hard_weight=0.5,soft_weight=0.5}";
    let store = store(folder.path());
    let recipe = pair(&[objective, "train.final_temperature=2.0"]);
    let plan = store.plan(&recipe, &corpus).unwrap();
    let total = plan.schedule.total_steps;
    assert!(total.is_multiple_of(2));

    let ids: Vec<Vec<i64>> = (0..8)
        .map(|row| (0..3 + row % 4).map(|i| 7 * row + i).collect())
        .collect();
    let labels = (0..8).map(|row| row % 3).collect();
    let logits = Tensor::arange(24, (Kind::Float, Device::Cpu))
        .view([8, 3])
        .sin()
        * 3;
    let data = TrainData {
        train: TokenizedSplit {
            ids,
            labels,
            ..TokenizedSplit::default()
        },
        dev: TokenizedSplit::default(),
        teacher_logits: Some(logits),
        teacher_hidden: Vec::new(),
        lines: (1..=8).collect(),
        class_weights: None,
    };
    let group = [(0..8).collect::<Vec<usize>>()];
    for (step, temperature) in [(0, 8.0), (total / 2, 5.0), (total, 2.0)] {
        tch::manual_seed(3);
        let model = BiLstm::new(&bilstm_settings(8, 8, 0.0), 60, 3, Device::Cpu);
        let fixed = recipe.objective.objective().unwrap();
        let fixed = fixed.with_temperature(temperature).unwrap();
        let config = StepConfig {
            objective_parameters: &[],
            objective: fixed.as_ref(),
            precision: Precision::Fp32,
            adversarial: None,
            seed: recipe.seed,
            step,
            loss_scale: 1.0,
        };
        let expected = group_gradients(&config, &model, &data, &group)
            .unwrap()
            .metrics;
        let trainer = Trainer {
            evaluate_before_training: false,
            run_id: "run",
            model: &model,
            data: &data,
            objective: recipe.objective.objective().unwrap(),
            objective_params: &kd_lib::models::Params::on(Device::Cpu),
            final_temperature: recipe.train.final_temperature,
            adversarial: None,
            precision: Precision::Fp32,
            seed: recipe.seed,
            batch_size: 8,
            gradient_accumulation_steps: 1,
            group_by_length: true,
            early_stopping_patience: None,
            eval_every_samples: 8,
            schedule: plan.schedule,
            optimizer: recipe.optimizer,
            threads: ThreadPolicy::Unchanged,
        };
        let mut optimizer =
            AdamW::new(recipe.optimizer, kd_lib::models::Classifier::params(&model));
        let mut scaler = GradScaler::new(Precision::Fp32);
        let found = trainer
            .update(&mut optimizer, &mut scaler, &group, step, &mut || Ok(()))
            .unwrap();
        assert_eq!(found.soft_loss, expected.soft_loss, "step {step}");
    }
    let refused = pair(&[objective, "train.final_temperature=0.0"]);
    assert!(store.plan(&refused, &corpus).is_err());
}

#[test]
fn a_run_has_one_id_however_its_files_are_named() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let corpus = Corpus::open(sample()).unwrap();
    let tiny = folder.path().join("tiny").display().to_string();
    let more = folder.path().join("more.txt");
    std::fs::write(&more, "球队今日训练\n基金经理离任\n").unwrap();
    let (more, dotted) = (more.display(), folder.path().join("./more.txt"));
    let mut teachers = Vec::new();
    let mut students = Vec::new();
    for checkpoint in ["tiny", "tiny/", &tiny] {
        for file in [more.to_string(), dotted.display().to_string()] {
            let mut recipe = pair(&[&format!("transfer.unlabelled_file=\"{file}\"")]);
            let teacher_recipe = format!("model.checkpoint={checkpoint}");
            let settings = [
                "model.pooling=cls",
                "model.prefix=",
                "device=cpu",
                &teacher_recipe,
            ];
            recipe.teacher = Some(Box::new(crate::common::recipe("teacher", &settings)));
            let plan = store.plan(&recipe, &corpus).unwrap();
            teachers.push(plan.teachers[0].clone());
            students.push(plan.id);
        }
    }
    for ids in [teachers, students] {
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
}
