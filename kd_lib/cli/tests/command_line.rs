//! `kd` as a user meets it: runs from the shell, predictions in order, errors with a fix and a
//! non-zero exit code.

use crate::common::{TINY_STUDENT, pair_corpus, root, sample, tiny_checkpoint};
use crate::program::{finish, kd_output, kd_train, text, train_student};
use std::path::Path;
use std::process::Command;

#[test]
fn a_run_is_evaluated_listed_and_predicts_a_thousand_lines_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("checkpoints");
    std::fs::create_dir(folder.path().join("notebooks")).unwrap();
    let run = train_student(&checkpoints);
    assert!(run.join("report.json").exists());
    let path = run.to_str().unwrap();

    let line = |i| match i % 100 {
        7 => String::new(),
        _ => format!("第{i}条 基金净值上涨"),
    };
    let lines: Vec<String> = (0..1000).map(line).collect();
    let output = kd_output(
        &checkpoints,
        &["predict", path, "-"],
        &(lines.join("\n") + "\n"),
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let predictions = json_lines(&output.stdout);
    let texts: Vec<&str> = predictions
        .iter()
        .map(|p| p["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, lines);
    for prediction in &predictions {
        assert_eq!(prediction["probabilities"].as_object().unwrap().len(), 10);
        assert!(prediction["probability"].as_f64().unwrap() > 0.0);
    }

    let name = run.file_name().unwrap().to_str().unwrap();
    let error = text(&kd_output(&checkpoints, &["predict", "student", "文本"], "").stderr);
    let similar = format!("similar names: {name}");
    assert!(
        error.contains("no such run") && error.contains(&similar),
        "{error}"
    );
    assert!(text(&kd_output(&checkpoints, &["runs"], "").stdout).contains(name));
    assert!(text(&kd_output(&checkpoints, &["table"], "").stdout).contains("student"));
    let stored = kd_output(&checkpoints, &["evaluate", name], "");
    let file = sample().join("test.txt");
    let arguments = ["evaluate", name, "--data", file.to_str().unwrap()];
    let computed = kd_output(&checkpoints, &arguments, "");
    let scores = text(&stored.stdout);
    assert!(
        scores.contains("entertainment") && scores.contains("accuracy"),
        "{scores}"
    );
    assert_eq!(scores, text(&computed.stdout));

    // A text is normalized as those of a corpus are: trimmed, and a tab becomes a blank.
    let arguments = ["predict", name, "基金 净值", "\u{3000}基金\t净值 "];
    let predictions = json_lines(&kd_output(&checkpoints, &arguments, "").stdout);
    assert_eq!(
        predictions[0]["probabilities"],
        predictions[1]["probabilities"]
    );

    // A file that holds something else is not written over, and not after hours of computing.
    let texts = folder.path().join("texts.jsonl");
    let logits = folder.path().join("logits.jsonl");
    std::fs::write(&texts, "{\"text\": \"基金净值\"}\n").unwrap();
    std::fs::write(&logits, "notes\n").unwrap();
    let (texts, into) = (texts.to_str().unwrap(), logits.to_str().unwrap());
    let label = || {
        kd_output(
            &checkpoints,
            &["teacher-logits", name, texts, "--into", into],
            "",
        )
    };
    let refused = label();
    let error = text(&refused.stderr);
    assert!(!refused.status.success());
    assert!(
        error.contains("does not hold the logits of these texts"),
        "{error}"
    );
    assert_eq!(std::fs::read_to_string(&logits).unwrap(), "notes\n");
    std::fs::remove_file(&logits).unwrap();
    assert!(label().status.success());
    assert!(label().status.success(), "the same logits again");

    // A run among the stored results has its scores, and no weights.
    let output = kd_output(&checkpoints, &["results", "add", name], "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let results = folder.path().join("notebooks/results");
    assert_eq!(
        Path::new(text(&output.stdout).trim())
            .canonicalize()
            .unwrap(),
        results
            .join(format!("added/runs-{name}.safetensors"))
            .canonicalize()
            .unwrap()
    );
    let stored = kd_lib::store::StoredResults::open(results)
        .unwrap()
        .set("runs")
        .remove(0);
    let opened = kd_lib::store::Run::open(&run).unwrap();
    assert_eq!(stored.report, opened.report);
    let error = kd_lib::store::Predictor::open(&stored)
        .unwrap_err()
        .to_string();
    assert!(error.contains("without weights"), "{error}");

    let mut by_variable = Command::new(env!("CARGO_BIN_EXE_kd"));
    let by_variable = by_variable
        .arg("table")
        .env("KD_CHECKPOINTS", &checkpoints)
        .output()
        .unwrap();
    let table = kd_output(&checkpoints, &["table"], "");
    assert_eq!(text(&by_variable.stdout), text(&table.stdout));
    let nowhere = kd_output(&checkpoints.join("nowhere"), &["table"], "");
    let error = text(&nowhere.stderr);
    assert!(
        !nowhere.status.success() && error.contains("nowhere: no such folder"),
        "{error}"
    );
}

#[test]
fn pairs_are_predicted_from_two_texts_or_from_lines_with_a_tab() {
    let folder = tempfile::tempdir().unwrap();
    pair_corpus(folder.path());
    let checkpoints = folder.path().join("checkpoints");
    std::fs::create_dir(&checkpoints).unwrap();
    let recipe = root().join("notebooks/recipes/student.toml");
    let (recipe, data) = (recipe.to_str().unwrap(), folder.path().to_str().unwrap());
    let mut arguments = vec!["train", recipe, "--data", data];
    for setting in &TINY_STUDENT {
        arguments.extend(["--set", setting]);
    }
    let output = kd_output(&checkpoints, &arguments, "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let run = text(&output.stdout).trim().to_owned();

    let predict = |arguments: &[&str], input: &str| {
        kd_output(
            &checkpoints,
            &[&["predict", &run], arguments].concat(),
            input,
        )
    };
    let by_option = predict(&["主队夺冠", "--text-pair", "球迷庆祝"], "");
    let by_argument = predict(&["主队夺冠\t球迷庆祝"], "");
    let by_line = predict(&["-"], "主队夺冠\t球迷庆祝\n");
    assert_eq!(json_lines(&by_option.stdout)[0]["text_pair"], "球迷庆祝");
    assert_eq!(by_option.stdout, by_argument.stdout);
    assert_eq!(by_option.stdout, by_line.stdout);

    let answers = json_lines(&predict(&["-"], "甲\t乙\n没有第二句\n").stdout);
    assert_eq!(
        (&answers[0]["text"], &answers[1]["line"]),
        (&"甲".into(), &2.into())
    );
    let error = answers[1]["error"].as_str().unwrap();
    assert!(error.contains("standard input:2"), "{error}");
    let error = text(&predict(&["甲", "乙", "--text-pair", "丙"], "").stderr);
    assert!(error.contains("--text-pair goes with one text"), "{error}");
    let file = folder.path().join("test.csv");
    let scored = kd_output(
        &checkpoints,
        &["evaluate", &run, "--data", file.to_str().unwrap()],
        "",
    );
    let stored = kd_output(&checkpoints, &["evaluate", &run], "");
    assert_eq!(text(&scored.stdout), text(&stored.stdout));
}

fn json_lines(bytes: &[u8]) -> Vec<serde_json::Value> {
    text(bytes)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_run_that_skips_test_is_evaluated_on_dev_alone() {
    let store = tempfile::tempdir().unwrap();
    let settings = [&TINY_STUDENT[..], &["data.skip_test=true"]].concat();
    let run = finish(&mut kd_train(store.path(), "student", &settings));
    let name = run.file_name().unwrap().to_str().unwrap();
    let output = |arguments: &[&str]| {
        let output = kd_output(store.path(), arguments, "");
        text(&output.stdout) + &text(&output.stderr)
    };
    assert!(output(&["runs"]).contains("dev accuracy"));
    assert!(output(&["evaluate", name]).contains("skipped test"));
    assert!(output(&["evaluate", name, "--split", "dev"]).contains("accuracy"));
}

#[test]
fn help_shows_the_first_steps() {
    let help = text(&kd_output(Path::new("."), &["--help"], "").stdout);
    for part in ["kd train", "kd predict", "First steps", "Train a recipe"] {
        assert!(help.contains(part), "{help}");
    }
}

#[test]
fn every_recipe_of_the_published_tables_has_a_dry_run_on_the_cnews_layout() {
    let Some(data) = std::env::var_os("KD_DATA").map(|d| Path::new(&d).join("cnews")) else {
        println!("not run: KD_DATA names no folder with cnews");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let documents = std::fs::read_to_string(data.join("cnews.test.sample.txt")).unwrap();
    let present = |label: &&str| {
        documents
            .lines()
            .any(|l| l.split('\t').next() == Some(label))
    };
    let all = std::fs::read_to_string(data.join("cnews.labels")).unwrap();
    let labels: Vec<&str> = all.lines().filter(present).collect(); // the sample has two classes
    let texts = format!("({} training texts, ", documents.lines().count());
    assert!(documents.lines().count() > 100);
    let corpus = folder.path().join("cnews");
    std::fs::create_dir(&corpus).unwrap();
    std::fs::write(corpus.join("cnews.labels"), labels.join("\n")).unwrap();
    for split in ["train", "val", "test"] {
        std::fs::write(corpus.join(format!("cnews.{split}.txt")), &documents).unwrap();
    }
    tiny_checkpoint(&folder.path().join("bert-base-chinese"));
    let table = std::fs::read_to_string(root().join("notebooks/published.csv")).unwrap();
    let recipes: Vec<&str> = table
        .lines()
        .skip(1)
        .map(|l| l.split(',').nth(2).unwrap())
        .collect();
    assert_eq!(recipes.len(), 18);
    for recipe in recipes {
        let path = format!("notebooks/recipes/{recipe}.toml");
        let mut arguments = vec![
            "train",
            &path,
            "--dry-run",
            "--data",
            corpus.to_str().unwrap(),
        ];
        let vocabulary = format!(
            "model.vocab_file={}",
            data.join("cnews.vocab.txt").display()
        );
        let bert = [
            "model.checkpoint=bert-base-chinese",
            "model.pooling=cls",
            "model.prefix=",
            "data.max_length=40",
        ];
        let student = [
            vocabulary.as_str(),
            "model.embedding_dim=12",
            "model.hidden_size=8",
            "data.max_length=256",
        ];
        let teacher_lines: Vec<String> = bert
            .iter()
            .chain(&["data.drop_leaks=false"])
            .map(|s| format!("teacher.{s}"))
            .collect();
        let settings = if recipe.starts_with("bert") {
            bert
        } else {
            student
        };
        settings
            .iter()
            .chain(&["data.drop_leaks=false"])
            .for_each(|s| arguments.extend(["--set", s]));
        teacher_lines
            .iter()
            .filter(|_| recipe.contains("kd"))
            .for_each(|s| arguments.extend(["--set", s]));
        let output = kd_output(folder.path(), &arguments, "");
        assert!(
            output.status.success(),
            "{recipe}: {}",
            text(&output.stderr)
        );
        let lines = text(&output.stdout);
        for part in [
            "updates: ",
            "time: about ",
            "mean of 4 just made",
            "memory: ",
            &texts,
        ] {
            assert!(lines.contains(part), "{recipe}: no {part:?} in\n{lines}");
        }
        assert!(
            !folder.path().join("runs").exists(),
            "a dry run writes nothing"
        );
    }
}

#[test]
fn kd_distill_trains_teacher_student_and_distilled_student() {
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(&folder.path().join("checkpoints/e5-small"));
    let recipes = folder.path().join("notebooks/recipes");
    std::fs::create_dir_all(recipes.join("profiles")).unwrap();
    for name in ["teacher.toml", "student.toml", "distilled.toml"] {
        std::fs::copy(
            root().join("notebooks/recipes").join(name),
            recipes.join(name),
        )
        .unwrap();
    }
    let tiny = "[bert.model]\npooling = \"cls\"\nprefix = \"\"\n[bert.data]\nmax_length = 32\n\
                [bilstm.model]\nembedding_dim = 12\nhidden_size = 8\n";
    std::fs::write(recipes.join("profiles/tiny.toml"), tiny).unwrap();
    let checkpoints = folder.path().join("checkpoints");
    let corpus = sample();
    let distill = ["distill", corpus.to_str().unwrap(), "--profile", "tiny"];
    let output = kd_output(&checkpoints, &distill, "");
    let table = text(&output.stderr);
    assert!(output.status.success(), "{table}");
    for row in ["teacher ", "student ", "distilled "] {
        assert!(table.lines().any(|line| line.starts_with(row)), "{table}");
    }
    let printed = text(&output.stdout);
    let run = printed.lines().last().unwrap();
    assert!(
        printed.contains("entertainment") && run.contains("distilled-"),
        "{printed}"
    );
    let added = text(&kd_output(&checkpoints, &["results", "add", run], "").stdout);
    let added = kd_lib::files::TensorFile::read(Path::new(added.trim())).unwrap();
    assert!(added.tensors.contains_key("logits"));
    assert!(Path::new(run).join("log.txt").exists());

    // A BERT of the user's own is a setting of the teacher, for the teacher's row and behind the
    // distilled student.
    tiny_checkpoint(&checkpoints.join("my-bert"));
    let distill = |setting: &str| {
        kd_output(
            &checkpoints,
            &[&distill[..], &["--set", setting]].concat(),
            "",
        )
    };
    let runs = || std::fs::read_dir(checkpoints.join("runs")).unwrap().count();
    assert!(
        distill("transfer={augmentations_per_text=1}")
            .status
            .success()
    );
    assert_eq!(
        runs(),
        4,
        "augmentation concerns the distilled student only"
    );
    let (before, wrong) = (runs(), distill("model.checkpoint=my-bert"));
    let error = text(&wrong.stderr);
    assert!(
        error.contains("student.toml: model: unknown field `checkpoint`"),
        "{error}"
    );
    assert_eq!(
        runs(),
        before,
        "what cannot be done is refused before anything is trained"
    );
    assert!(distill("teacher.model.checkpoint=my-bert").status.success());
    assert_eq!(
        runs(),
        before + 2,
        "one more teacher and its student; the plain student is found"
    );
}

#[test]
fn a_damaged_run_is_left_out_of_lists_and_named() {
    let checkpoints = tempfile::tempdir().unwrap();
    let run = train_student(checkpoints.path());
    let other = checkpoints.path().join("runs/other");
    std::fs::create_dir(&other).unwrap();
    let files = std::fs::read_dir(&run).unwrap().map(|e| e.unwrap().path());
    for file in files.filter(|p| p.is_file()) {
        std::fs::copy(&file, other.join(file.file_name().unwrap())).unwrap();
    }
    std::fs::write(other.join("curve.csv"), "step\n").unwrap();
    for verb in ["runs", "table"] {
        let output = kd_output(checkpoints.path(), &[verb], "");
        assert!(output.status.success() && text(&output.stdout).contains("student"));
        let errors = text(&output.stderr);
        let named = errors.contains("left out") && errors.contains("other/curve.csv: damaged");
        assert!(named, "{errors}");
    }
}

#[test]
fn retired_verbs_and_options_are_refused_with_their_replacement() {
    let store = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str); 7] = [
        (
            &["--threads", "1", "run", "student"],
            "`run` is a name of version 0.1: write `kd train RECIPE`",
        ),
        (
            &["run", "notebooks/recipes/student.toml"],
            "`run` is a name of version 0.1: write `kd train RECIPE`",
        ),
        (
            &["test", "student-0"],
            "`test` is a name of version 0.1: write `kd evaluate RUN`",
        ),
        (
            &["list"],
            "`list` is a name of version 0.1: write `kd runs`",
        ),
        (
            &["keep", "student-0"],
            "`keep` is a name of version 0.1: write `kd results add RUN…`",
        ),
        (
            &["fetch", "thucnews-title"],
            "`fetch` is a name of version 0.1: write `kd download NAME`",
        ),
        (
            &["evaluate", "student-0", "--dev"],
            "`--dev` is a name of version 0.1: write `--split dev`",
        ),
    ];
    for (arguments, expected) in cases {
        let output = kd_output(store.path(), arguments, "");
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    assert_eq!(
        std::fs::read_dir(store.path()).unwrap().count(),
        0,
        "nothing is written"
    );
}
