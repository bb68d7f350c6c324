//! `kd distill` within a budget, as a person types it: killed once and continued.

use crate::common::{root, sample};
use crate::program::{kd, kd_output, text};
use kd_lib::distill::Budget;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

fn distill(checkpoints: &Path, more: &[&str]) -> Command {
    let mut command = kd(checkpoints);
    command.arg("distill").arg(sample()).args(more);
    command
}

fn link_default_teacher(checkpoints: &Path) {
    let teacher = root().join("checkpoints/e5-small");
    std::os::unix::fs::symlink(teacher, checkpoints.join("e5-small")).unwrap();
}

/// The one folder in a folder.
fn only_entry(folder: &Path) -> PathBuf {
    let mut entries = std::fs::read_dir(folder).unwrap();
    let entry = entries.next().unwrap().unwrap().path();
    assert!(
        entries.next().is_none(),
        "one folder in {}",
        folder.display()
    );
    entry
}

/// A teacher that keeps two of its layers: a minute is enough for it on a slow machine too.
const SMALL_TEACHER: [&str; 4] = ["--set", "teacher.model.keep_layers=[1, 2]", "--seed", "7"];

/// Starts a distillation and kills it at its first update. Returns its budget and what it said. On
/// a machine with much else to do a minute is too short: the error says what is enough, but each
/// start measures again.
fn start_and_kill(checkpoints: &Path) -> (String, String) {
    let mut budget = "1m".to_owned();
    for _ in 0..6 {
        let mut command = distill(checkpoints, &["--budget", &budget]);
        let mut child = command.args(SMALL_TEACHER).spawn().unwrap();
        let mut said = String::new();
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            said += &format!("{}\n", line.unwrap());
            if said.contains("step ") {
                child.kill().unwrap();
                child.wait().unwrap();
                return (budget, said);
            }
        }
        assert!(!child.wait().unwrap().success(), "{said}");
        println!("{said}");
        let enough = said
            .split("allow ")
            .nth(1)
            .expect("a budget that is enough");
        let enough: Budget = enough.split(" or more").next().unwrap().parse().unwrap();
        budget = format!("{}s", (1.25 * enough.seconds).ceil());
    }
    panic!("no budget is enough");
}

/// A second process with the same command waits as long as the folder of the plan is locked.
fn waits_for_another_process(place: &Path, mut command: Command) {
    let lock = kd_lib::files::lock_folder(place, &mut || panic!("nobody holds it")).unwrap();
    let mut second = command.args(SMALL_TEACHER).spawn().unwrap();
    let lines = BufReader::new(second.stderr.take().unwrap()).lines();
    let said: Vec<String> = lines
        .map(Result::unwrap)
        .take_while(|line| !line.contains("waits for another process"))
        .collect();
    assert!(second.try_wait().unwrap().is_none(), "{said:?}");
    second.kill().unwrap();
    second.wait().unwrap();
    drop(lock);
}

#[test]
fn a_minute_gives_a_plan_a_report_and_a_student_even_if_the_program_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path();
    link_default_teacher(checkpoints);
    let mut dry_run = distill(checkpoints, &["--budget", "30m", "--dry-run"]);
    let dry = dry_run.args(SMALL_TEACHER).output().unwrap();
    assert!(dry.status.success(), "{}", text(&dry.stderr));
    assert!(text(&dry.stderr).contains("baseline-bilstm, seed 7"));
    let forecast = "Expected gain of the distilled student over the baseline: ";
    assert!(text(&dry.stderr).contains(forecast));
    assert!(
        !checkpoints.join("distilled").exists(),
        "a dry run writes nothing"
    );

    let (budget, said) = start_and_kill(checkpoints);
    assert!(said.contains("training 1 of "), "{said}");
    assert!(said.contains("suspicious_labels.json"), "{said}");
    let place = only_entry(&checkpoints.join("distilled"));
    let plan = std::fs::read(place.join("plan.json")).unwrap();

    waits_for_another_process(&place, distill(checkpoints, &["--budget", &budget]));
    let mut again = distill(checkpoints, &["--budget", &budget]);
    let output = again.args(SMALL_TEACHER).output().unwrap();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(only_entry(&checkpoints.join("distilled")), place);
    assert_eq!(
        std::fs::read(place.join("plan.json")).unwrap(),
        plan,
        "the plan is kept"
    );
    let report = std::fs::read_to_string(place.join("report.md")).unwrap();
    for part in [
        "Scores on test",
        "linear model over n-grams",
        "## The texts",
        "kd predict",
    ] {
        assert!(report.contains(part), "{part} in {report}");
    }
    assert!(place.join("report.html").exists());
    let elapsed: serde_json::Value = kd_lib::files::read_json(&place.join("elapsed.json")).unwrap();
    println!("a budget of {budget} took {} s", elapsed["seconds"]);

    let plan = place.join("plan.json");
    let (plan, texts) = (plan.to_str().unwrap(), checkpoints.join("texts"));
    let export = ["--plan", plan, "--export-texts", texts.to_str().unwrap()];
    let other = kd(checkpoints)
        .args(["distill", "data/tickets/tickets.csv"])
        .args(export)
        .output()
        .unwrap();
    assert!(text(&other.stderr).contains("a plan for another corpus"));
    assert!(!texts.exists(), "nothing is exported");

    let student = text(&output.stdout);
    let student = student.lines().last().unwrap();
    let predicted = kd_output(checkpoints, &["predict", student, "球队赢得冠军"], "");
    let prediction: serde_json::Value = serde_json::from_slice(&predicted.stdout).unwrap();
    assert!(prediction["label"].is_string());
}

#[test]
fn a_budget_without_a_unit_and_a_setting_of_a_student_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (more, fix) in [
        (["--budget", "30"], "30m"),
        (["--budget", "1s"], "allow"),
        (["--folds", "1"], "2 or more"),
        (["--set", "model.hidden_size=8"], "--profile"),
    ] {
        let output = distill(folder.path(), &more).output().unwrap();
        let error = text(&output.stderr);
        assert!(
            !output.status.success() && error.contains(fix),
            "{more:?}: {error}"
        );
    }
}

#[test]
fn texts_for_a_teacher_from_elsewhere_are_exported_and_a_missing_row_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path();
    link_default_teacher(checkpoints);
    let (texts, logits) = (checkpoints.join("texts"), checkpoints.join("logits"));
    let file = texts.to_str().unwrap();
    let output = distill(checkpoints, &["--export-texts", file])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("finance, "),
        "the order of the classes"
    );
    let rows = std::fs::read_to_string(&texts).unwrap();
    assert!(rows.lines().count() > 300, "the training texts and more");

    let labelled = |row: &str| row.replacen('{', r#"{"label":"game","#, 1);
    let all_but_one: Vec<String> = rows.lines().skip(1).map(labelled).collect();
    std::fs::write(&logits, all_but_one.join("\n")).unwrap();
    let file = logits.to_str().unwrap();
    let output = distill(checkpoints, &["--teacher-logits", file])
        .output()
        .unwrap();
    let error = text(&output.stderr);
    assert!(!output.status.success());
    assert!(
        error.contains("1 texts are missing") && error.contains(file),
        "{error}"
    );
    assert!(!checkpoints.join("runs").exists(), "nothing is trained");
}
