//! A teacher from anywhere: its file of logits teaches exactly what the teacher itself would, and a
//! row that is missing, repeated, edited or not finite is refused where it stands.

use crate::common::{TINY_STUDENT, TINY_TEACHER, lock_generator, recipe, sample, tiny_checkpoint};
use kd_lib::data::{Corpus, TextInput, TransferConfig};
use kd_lib::evaluation::to_array;
use kd_lib::store::labelled_texts::{
    ExportedText, read_logits, read_texts, write_logits, write_texts,
};
use kd_lib::store::teacher_logits::teacher_logits;
use kd_lib::store::{Recipe, RunStore};
use kd_lib::training::progress::silent;
use std::path::Path;
use tch::Tensor;

#[test]
fn exported_texts_with_the_logits_of_the_same_teacher_give_the_same_student() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(&folder.path().join("tiny"));
    let store = RunStore::new(folder.path());
    let corpus = Corpus::open(sample()).unwrap();
    let teacher = recipe("teacher", &TINY_TEACHER);
    let student = Recipe {
        teacher: Some(Box::new(teacher.clone())),
        transfer: Some(TransferConfig {
            augmentations_per_text: 2,
            ..TransferConfig::default()
        }),
        ..recipe("distilled", &TINY_STUDENT)
    };
    let expected = store.run(&student, &corpus, &mut silent).unwrap();

    let (texts, logits) = (
        folder.path().join("texts.jsonl"),
        folder.path().join("l.jsonl"),
    );
    let plan = store.plan(&student, &corpus).unwrap();
    let written = write_texts(&texts, &plan.texts_to_label()).unwrap();
    assert!(
        written > 2 * corpus.train.len(),
        "augmented texts are exported too"
    );
    let exported = read_texts(&texts).unwrap();
    let inputs: Vec<TextInput> = exported.iter().map(ExportedText::input).collect();
    let teacher_run = store.run(&teacher, &corpus, &mut silent).unwrap();
    let values = teacher_logits(&teacher_run, &inputs, &mut silent).unwrap();
    write_logits(&logits, &inputs, &values, &corpus.labels).unwrap();
    let from_file = Recipe {
        teacher: None,
        teacher_logits: Some(logits),
        ..student.clone()
    };
    let run = store.run(&from_file, &corpus, &mut silent).unwrap();
    assert_ne!(
        run.report.id, expected.report.id,
        "the file is another teacher"
    );
    let weights = |run: &kd_lib::store::Run| {
        std::fs::read(run.folder().unwrap().join("model.safetensors")).unwrap()
    };
    assert!(weights(&run) == weights(&expected), "byte for byte");

    let both = Recipe {
        teacher: Some(Box::new(teacher)),
        ..from_file
    };
    assert!(
        both.validate()
            .unwrap_err()
            .to_string()
            .contains("teacher_logits")
    );
}

/// What reading these rows for two texts says.
fn error_of(rows: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logits.jsonl");
    std::fs::write(&path, rows.join("\n")).unwrap();
    match read(&path) {
        Ok(_) => panic!("accepted: {rows:?}"),
        Err(error) => error.to_string(),
    }
}

fn read(path: &Path) -> kd_lib::Result<Tensor> {
    read_logits(
        path,
        &["a".into(), "b".into()],
        &["no".into(), "yes".into()],
    )
}

#[test]
fn rows_that_are_missing_repeated_edited_or_not_finite_are_refused_where_they_stand() {
    let a = r#"{"text": "a", "logits": [1.5, -2]}"#;
    let b = r#"{"text": "b", "label": "yes"}"#;
    for (second, line, words) in [
        (r#"{"text": "a", "logits": [1, 2]}"#, ":2:", "line 1 again"),
        (
            r#"{"text": "b ", "logits": [1, 2]}"#,
            ":2:",
            "none of the texts",
        ),
        (
            r#"{"text": "b", "logits": [1, 2, 3]}"#,
            ":2:",
            "order: no, yes",
        ),
        (r#"{"text": "b", "logits": [1, 1e99]}"#, ":2:", "inf"),
        (r#"{"text": "b", "logits": [1, null]}"#, ":2:", "null"),
        (r#"{"text": "b", "label": "maybe"}"#, ":2:", "no, yes"),
        (r#"{"text": "b"}"#, ":2:", "label"),
        (r#"{"text": "b", "logit": [1, 2]}"#, ":2:", "logit"),
    ] {
        let error = error_of(&[a, second]);
        assert!(
            error.contains(line) && error.contains(words),
            "{second}: {error}"
        );
    }
    let missing = error_of(&[a]);
    assert!(
        missing.contains("\"b\"") && missing.contains("logits.jsonl"),
        "{missing}"
    );

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logits.jsonl");
    std::fs::write(&path, [b, a].join("\n")).unwrap();
    let logits = to_array(&read(&path).unwrap()).unwrap();
    assert_eq!(
        logits.row(0).to_vec(),
        [1.5, -2.0],
        "the order does not matter"
    );
    let odds = (logits[[1, 1]] - logits[[1, 0]]).exp();
    assert!(
        (odds - 9.0).abs() < 1e-4,
        "a class alone stands for a probability of 0.9"
    );
}

#[test]
fn logits_stand_in_the_order_of_the_classes_that_their_file_names() {
    let rows = [
        r#"{"classes": ["yes", "no"]}"#,
        r#"{"text": "a", "logits": [3, 1]}"#,
        r#"{"text": "b", "label": "no"}"#,
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logits.jsonl");
    std::fs::write(&path, rows.join("\n")).unwrap();
    let logits = to_array(&read(&path).unwrap()).unwrap();
    assert_eq!(logits.row(0).to_vec(), [1.0, 3.0]);
    assert!(logits[[1, 0]] > logits[[1, 1]], "the class is no");
    for classes in [r#"["yes", "perhaps"]"#, r#"["yes", "no", "perhaps"]"#] {
        let first = format!("{{\"classes\": {classes}}}");
        let error = error_of(&[&first, rows[1], rows[2]]);
        assert!(error.contains(":1: the classes yes"), "{error}");
        assert!(error.contains("corpus: no, yes"), "{error}");
    }
}

#[test]
fn probabilities_are_not_taken_for_logits() {
    let a = r#"{"text": "a", "logits": [0.97, 0.03]}"#;
    let error = error_of(&[a, r#"{"text": "b", "logits": [0.5, 0.5]}"#]);
    assert!(error.contains("are probabilities"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("logits.jsonl");
    let rows = [a, r#"{"text": "b", "logits": [0.5, 0.6]}"#];
    std::fs::write(&path, rows.join("\n")).unwrap();
    assert_eq!(read(&path).unwrap().size(), [2, 2]);
}

#[test]
fn an_export_overwrites_no_other_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my.csv");
    std::fs::write(&path, "text,label\n").unwrap();
    let texts: [TextInput; 2] = ["one".into(), "two".into()];
    let error = write_texts(&path, &texts).unwrap_err().to_string();
    assert!(error.contains("my.csv: exists"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "text,label\n");
    let other = folder.path().join("texts.jsonl");
    write_texts(&other, &texts).unwrap();
    write_texts(&other, &texts).unwrap(); // the same command again
    assert!(write_texts(Path::new("/dev/null"), &texts).is_err());
}
