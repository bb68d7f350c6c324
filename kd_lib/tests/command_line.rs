//! `kd` as a user meets it: a run from the shell, answers in order, errors with a cure and a non-zero exit.

mod common;

use common::{TINY_STUDENT, root, sample};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn kd(checkpoints: &Path, arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kd"));
    command.arg("--checkpoints").arg(checkpoints).args(arguments).current_dir(root());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Trains a tiny student; its folder is the last line on stdout.
fn trained(checkpoints: &Path) -> String {
    let data = sample();
    let mut arguments = vec!["run", "notebooks/recipes/student.toml", "--data", data.to_str().unwrap()];
    TINY_STUDENT.iter().for_each(|s| arguments.extend(["--set", s]));
    let output = kd(checkpoints, &arguments, "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout).lines().last().unwrap().to_owned()
}

#[test]
fn a_run_is_tested_listed_tabled_and_answers_a_thousand_lines_in_order() {
    let checkpoints = tempfile::tempdir().unwrap();
    let run = trained(checkpoints.path());
    assert!(Path::new(&run).join("report.json").exists());

    let lines: Vec<String> =
        (0..1000).map(|i| if i % 100 == 7 { String::new() } else { format!("第{i}条 基金净值上涨") }).collect();
    let output = kd(checkpoints.path(), &["predict", &run, "-"], &(lines.join("\n") + "\n"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let answers: Vec<serde_json::Value> =
        text(&output.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(answers.iter().map(|a| a["text"].as_str().unwrap()).collect::<Vec<_>>(), lines);
    assert!(
        answers
            .iter()
            .all(|a| a["probabilities"].as_object().unwrap().len() == 10 && a["probability"].as_f64().unwrap() > 0.0)
    );

    let name = Path::new(&run).file_name().unwrap().to_str().unwrap();
    assert!(text(&kd(checkpoints.path(), &["list"], "").stdout).contains(name));
    assert!(text(&kd(checkpoints.path(), &["table"], "").stdout).contains("bilstm"));
    let stored = kd(checkpoints.path(), &["test", name], "");
    let again = kd(checkpoints.path(), &["test", name, "--data", sample().join("test.txt").to_str().unwrap()], "");
    assert!(text(&stored.stdout).contains("entertainment") && text(&stored.stdout).contains("accuracy"));
    assert_eq!(text(&stored.stdout), text(&again.stdout));
}

#[test]
fn mistakes_get_a_sentence_and_a_failing_exit() {
    let checkpoints = tempfile::tempdir().unwrap();
    let recipe = "notebooks/recipes/student.toml";
    let cases: [(&[&str], &str); 5] = [
        (&["run", recipe, "--set", "train.epoch=3"], "train"),
        (&["run", recipe, "--data", "data/nowhere"], "data/nowhere: no such folder"),
        (&["run", recipe, "--profile", "huge"], "huge.toml"),
        (&["predict", "no-such-run", "文本"], "not a finished run"),
        (
            &["run", "notebooks/recipes/teacher.toml", "--data", "data/sample", "--set", "model.weights=nothing"],
            "no model.safetensors",
        ),
    ];
    for (arguments, part) in cases {
        let output = kd(checkpoints.path(), arguments, "");
        assert!(!output.status.success());
        assert!(text(&output.stderr).contains(part), "{}", text(&output.stderr));
    }
    assert_eq!(std::fs::read_dir(checkpoints.path()).unwrap().count(), 0, "nothing was written");
}

#[test]
fn help_teaches_the_first_steps() {
    let help = text(&kd(Path::new("."), &["--help"], "").stdout);
    assert!(["kd run", "kd predict", "First steps", "Train a recipe"].iter().all(|part| help.contains(part)), "{help}");
}
