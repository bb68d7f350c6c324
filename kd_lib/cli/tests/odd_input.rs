//! Input as it comes out of editors, spreadsheets and pipes, and runs from other folders: what a
//! user would expect happens, or one sentence says what to do.

use crate::common::{TINY_STUDENT, root, sample};
use crate::program::{finish, kd, kd_output, text, train_student};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// `kd predict RUN -` on these bytes.
fn predict_bytes(checkpoints: &Path, run: &str, input: &[u8]) -> Output {
    let mut child = kd(checkpoints)
        .args(["predict", run, "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn json_lines(bytes: &[u8]) -> Vec<Value> {
    let lines = text(bytes);
    lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Asserts that answers are the same. Lines that arrive together form a batch, and another batch
/// rounds differently in the last digits.
fn assert_same(answers: &[Value], expected: &[Value]) {
    assert_eq!(answers.len(), expected.len());
    for (answer, expected) in answers.iter().zip(expected) {
        assert_eq!(answer["text"], expected["text"]);
        assert_eq!(answer["label"], expected["label"]);
        let probability = |value: &Value| value["probability"].as_f64().unwrap();
        assert!((probability(answer) - probability(expected)).abs() < 1e-6);
    }
}

#[test]
fn a_mark_or_another_line_end_changes_no_prediction_and_a_bad_line_costs_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let run = train_student(folder.path());
    let run = run.to_str().unwrap();
    let plain = predict_bytes(
        folder.path(),
        run,
        "球队比赛获胜\n基金净值上涨\n".as_bytes(),
    );
    assert!(plain.status.success(), "{}", text(&plain.stderr));
    for other in [
        "\u{FEFF}球队比赛获胜\n基金净值上涨\n",
        "\u{FEFF}球队比赛获胜\r\n基金净值上涨\r\n",
        "球队比赛获胜\r基金净值上涨",
        "球队比赛获胜\n\u{FEFF}基金净值上涨\n",
    ] {
        let output = predict_bytes(folder.path(), run, other.as_bytes());
        assert_same(&json_lines(&output.stdout), &json_lines(&plain.stdout));
    }

    let mut bytes = "球队比赛获胜\n".as_bytes().to_vec();
    bytes.extend(b"\xff\xfe\n");
    bytes.extend("a\u{2028}b\u{85}c\n基金净值上涨\n".as_bytes());
    let output = predict_bytes(folder.path(), run, &bytes);
    let answers = json_lines(&output.stdout);
    assert_eq!(answers.len(), 4, "U+2028 and U+0085 end no line");
    let expected = json_lines(&plain.stdout);
    assert_same(&answers[..1], &expected[..1]);
    assert_eq!(answers[1]["line"], 2);
    assert!(
        answers[1]["error"]
            .as_str()
            .unwrap()
            .contains("not UTF-8 at byte 0")
    );
    assert_same(&answers[3..], &expected[1..]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("1 of 4 lines have no prediction"));

    // UTF-16 without a mark, and a labelled file.
    let output = predict_bytes(folder.path(), run, b"h\0e\0\n\0");
    let answers = json_lines(&output.stdout);
    assert!(
        answers[0]["error"]
            .as_str()
            .unwrap()
            .contains("as in UTF-16")
    );
    let output = predict_bytes(folder.path(), run, "足球\n球队\t1\n基金\t0\n".as_bytes());
    let said = text(&output.stderr);
    assert_eq!(
        said.matches("a line with a tab is classified as one text")
            .count(),
        1
    );
    let output = predict_bytes(
        folder.path(),
        run,
        "\u{FEFF}{\"text\": \"球队\"}\n".as_bytes(),
    );
    assert!(text(&output.stderr).contains("a JSON object is classified as a text"));

    // A line that is no text, and one that is longer than what the model reads.
    let mut bytes = vec![b'a'; (1 << 24) + 1];
    bytes.extend(format!("\n{}\n球队比赛获胜\n", "球".repeat(300)).as_bytes());
    let output = predict_bytes(folder.path(), run, &bytes);
    let answers = json_lines(&output.stdout);
    assert_eq!(answers.len(), 3);
    let error = answers[0]["error"].as_str().unwrap();
    assert!(error.contains("more than 16777216 bytes"), "{error}");
    assert_eq!(answers[1]["truncated"], true);
    assert_same(&answers[2..], &expected[..1]);
    assert!(answers[2].get("truncated").is_none());
}

#[test]
fn a_line_is_answered_while_the_input_is_still_open() {
    let folder = tempfile::tempdir().unwrap();
    let run = train_student(folder.path());
    let mut child = kd(folder.path())
        .args(["predict", run.to_str().unwrap(), "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (sender, answers) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in output.lines() {
            let _ = sender.send(line.unwrap());
        }
    });
    for line in ["球队比赛获胜\n", "基金净值上涨\n"] {
        input.write_all(line.as_bytes()).unwrap();
        let answer = answers
            .recv_timeout(Duration::from_secs(120))
            .expect("an answer");
        assert!(answer.contains(line.trim()), "{answer}");
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn arguments_of_predict_mean_what_they_look_like() {
    let folder = tempfile::tempdir().unwrap();
    let run = train_student(folder.path());
    let predict = |arguments: &[&str]| {
        let arguments = [&["predict", run.to_str().unwrap()], arguments].concat();
        kd_output(folder.path(), &arguments, "")
    };
    // A text that looks like an option is refused with the spelling that makes it a text.
    let error = text(&predict(&["-5 度"]).stderr);
    assert!(error.contains("-- -5"), "{error}");
    let output = predict(&["--", "-5 度", "足球"]);
    assert_eq!(json_lines(&output.stdout)[0]["text"], "-5 度");
    let error = text(&predict(&["足球", "-"]).stderr);
    assert!(
        error.contains("\"-\" reads standard input and stands alone"),
        "{error}"
    );
    let output = predict(&["README.md"]);
    assert_eq!(json_lines(&output.stdout)[0]["text"], "README.md");
    assert!(
        text(&output.stderr).contains("- < README.md"),
        "{}",
        text(&output.stderr)
    );
    let sample = sample();
    let arguments = [
        "evaluate",
        run.to_str().unwrap(),
        "--data",
        sample.to_str().unwrap(),
    ];
    let error = text(&kd_output(folder.path(), &arguments, "").stderr);
    assert!(
        error.contains("is a folder; name one of its files"),
        "{error}"
    );
}

/// A corpus in the layout `text<TAB>index` with these class names; classes take turns.
fn corpus(folder: &Path, classes: &[&str]) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("class.txt"), classes.join("\n")).unwrap();
    for split in ["train", "dev", "test"] {
        let line = |i: usize| format!("{split}第{i}条 {}\t{}\n", i * 7, i % classes.len());
        let lines: String = (0..12).map(line).collect();
        std::fs::write(folder.join(format!("{split}.txt")), lines).unwrap();
    }
}

/// `kd train` of the tiny student on a corpus.
fn train(checkpoints: &Path, data: &Path, more: &[&str]) -> Command {
    let mut command = kd(checkpoints);
    command
        .args(["train", "notebooks/recipes/student.toml", "--data"])
        .arg(data);
    for setting in TINY_STUDENT.iter().chain(more) {
        command.args(["--set", setting]);
    }
    command
}

#[test]
fn a_class_that_loses_its_training_texts_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (data, checkpoints) = (
        folder.path().join("data"),
        folder.path().join("checkpoints"),
    );
    corpus(&data, &["good", "bad", "spam"]);
    std::fs::create_dir(&checkpoints).unwrap();
    let train_lines = std::fs::read_to_string(data.join("train.txt")).unwrap();
    let spam: Vec<&str> = train_lines
        .lines()
        .filter(|line| line.ends_with('2'))
        .collect();
    let test = std::fs::read_to_string(data.join("test.txt")).unwrap();
    std::fs::write(data.join("test.txt"), test + &spam.join("\n")).unwrap();

    let output = train(&checkpoints, &data, &[]).output().unwrap();
    let notices = text(&output.stderr);
    assert!(output.status.success(), "{notices}");
    let run = text(&output.stdout).trim().to_owned();
    let report = std::fs::read_to_string(Path::new(&run).join("report.json")).unwrap();
    let log = std::fs::read_to_string(Path::new(&run).join("log.txt")).unwrap();
    for said in [&notices, &report.replace("\\\"", "\""), &log] {
        assert!(
            said.contains("4 of 12 training texts recur in dev or test"),
            "{said}"
        );
        assert!(
            said.contains("class \"spam\" has no training text left"),
            "{said}"
        );
    }
}

#[test]
fn the_layout_of_a_file_is_detected_from_all_its_lines() {
    let folder = tempfile::tempdir().unwrap();
    let (data, checkpoints) = (
        folder.path().join("data"),
        folder.path().join("checkpoints"),
    );
    std::fs::create_dir(&checkpoints).unwrap();
    corpus(&data, &["0", "1"]);
    let run = finish(&mut train(&checkpoints, &data, &[]));
    let run = run.to_str().unwrap();
    let file = folder.path().join("a.txt");
    let evaluate = |lines: &str, more: &[&str]| {
        std::fs::write(&file, lines).unwrap();
        let arguments = ["evaluate", run, "--data", file.to_str().unwrap()];
        kd_output(&checkpoints, &[&arguments, more].concat(), "")
    };
    let error = text(&evaluate("1\t0\n0\t1\n1\t0\n", &[]).stderr);
    assert!(
        error.contains("--format label-text or --format text-index"),
        "{error}"
    );
    let output = evaluate("1\t0\n0\t1\n1\t0\n", &["--format", "text-index"]);
    let supports: Vec<String> = text(&output.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().last().map(str::to_owned))
        .collect();
    assert_eq!(supports[1..3], ["2", "1"], "{}", text(&output.stdout));
    let error = text(&evaluate("7\t球队\t0\n8\t基金\t1\n", &[]).stderr);
    assert!(error.contains("three columns or more"), "{error}");
    let error = text(&evaluate("\n", &[]).stderr);
    assert!(error.contains("an empty file"), "{error}");
    // The first text is the name of a class, and the others are not.
    let output = evaluate("0\t0\n球队赢了\t0\n基金\t1\n", &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));

    // Names of classes that are other classes' indices.
    let stars = folder.path().join("stars");
    corpus(&stars, &["1", "2"]);
    let of_stars = finish(&mut train(&checkpoints, &stars, &[]));
    std::fs::write(&file, "球队赢了\t1\n基金\t1\n").unwrap();
    let arguments = [
        "evaluate",
        of_stars.to_str().unwrap(),
        "--data",
        file.to_str().unwrap(),
    ];
    let error = text(&kd_output(&checkpoints, &arguments, "").stderr);
    assert!(
        error.contains("a.txt:1: \"1\" is the name of a class"),
        "{error}"
    );

    let by_label = folder.path().join("labels");
    corpus(&by_label, &["sports", "finance"]);
    let run = finish(&mut train(&checkpoints, &by_label, &[]));
    std::fs::write(&file, "sport\t球队\nfinance\t基金\n").unwrap();
    let arguments = [
        "evaluate",
        run.to_str().unwrap(),
        "--data",
        file.to_str().unwrap(),
    ];
    let error = text(&kd_output(&checkpoints, &arguments, "").stderr);
    assert!(
        error.contains("a.txt:1") && error.contains("\"sport\""),
        "{error}"
    );
}

#[test]
fn scores_on_the_file_that_was_trained_on_are_said_to_be_too_good() {
    let folder = tempfile::tempdir().unwrap();
    let (file, other) = (folder.path().join("my.csv"), folder.path().join("new.csv"));
    let line = |i: usize| format!("第{i}条 {},{}\n", i * 7, ["good", "bad"][i % 2]);
    let lines: String = (0..60).map(line).collect();
    std::fs::write(&file, format!("text,label\n{lines}")).unwrap();
    std::fs::write(&other, "text,label\n新的一条,good\n").unwrap();
    let run = finish(&mut train(folder.path(), &file, &[]));
    let evaluate = |file: &Path| {
        let arguments = ["evaluate", run.to_str().unwrap(), "--data"];
        let arguments = [&arguments[..], &[file.to_str().unwrap()]].concat();
        text(&kd_output(folder.path(), &arguments, "").stderr)
    };
    let said = "my.csv: the file that this run was trained on";
    assert!(evaluate(&file).contains(said), "{}", evaluate(&file));
    assert!(!evaluate(&other).contains("trained on"));
}

#[test]
fn a_run_answers_by_its_path_from_any_folder() {
    let folder = tempfile::tempdir().unwrap();
    let run = train_student(folder.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kd"))
        .args(["predict", run.to_str().unwrap(), "足球"])
        .env("OMP_NUM_THREADS", "1")
        .env_remove("KD_CHECKPOINTS")
        .current_dir(elsewhere.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    let inside = Command::new(env!("CARGO_BIN_EXE_kd"))
        .args(["predict", ".", "足球"])
        .env("OMP_NUM_THREADS", "1")
        .env("KD_CHECKPOINTS", folder.path())
        .current_dir(&run)
        .output()
        .unwrap();
    assert_same(&json_lines(&inside.stdout), &json_lines(&output.stdout));
}

#[test]
fn pretrained_checkpoints_of_the_project_are_found_from_another_store() {
    let store = tempfile::tempdir().unwrap();
    let arguments = [
        "train",
        "notebooks/recipes/teacher.toml",
        "--dry-run",
        "--data",
    ];
    let mut command = kd(store.path());
    command
        .args(arguments)
        .arg(sample())
        .args(["--profile", "smoke"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));

    let output = Command::new(env!("CARGO_BIN_EXE_kd"))
        .arg("runs")
        .env("KD_CHECKPOINTS", "")
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn the_projects_libtorch_is_used_whichever_one_the_shell_names_and_git_is_not_needed() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("other.c");
    std::fs::write(&source, "int another_libtorch(void) { return 1; }\n").unwrap();
    let library = folder.path().join("libtorch_cpu.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wl,-soname,libtorch_cpu.so", "-o"])
        .arg(&library)
        .arg(&source)
        .status();
    assert!(built.expect("a C compiler named cc").success());
    let data = folder.path().join("data");
    corpus(&data, &["a", "b"]);
    let output = train(folder.path(), &data, &[])
        .env("LD_LIBRARY_PATH", folder.path())
        .env("PATH", "/nowhere")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn odd_characters_come_back_unchanged_with_finite_probabilities() {
    let folder = tempfile::tempdir().unwrap();
    let run = train_student(folder.path());
    let long = "长".repeat(350_000);
    let texts = [
        "😀😀",
        "👩\u{200D}🔬 测试",
        "𠀀𠀁",
        "ＡＢＣ１２３",
        "零\u{200B}宽",
        "a\u{0}b",
        "行\u{2028}分\u{0085}隔",
        "[SEP] <s>",
        &long,
    ];
    let output = predict_bytes(
        folder.path(),
        run.to_str().unwrap(),
        texts.join("\n").as_bytes(),
    );
    let answers = json_lines(&output.stdout);
    assert_eq!(answers.len(), texts.len(), "{}", text(&output.stderr));
    for (answer, text) in answers.iter().zip(texts) {
        assert_eq!(answer["text"], text);
        let probability = answer["probability"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&probability), "{probability}");
    }
}
