//! `kd` as a user meets it: a run from the shell, answers in order, errors with a cure and a non-zero exit.

mod common;

use common::{TINY_STUDENT, root, sample, tiny_checkpoint};
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
    let folder = tempfile::tempdir().unwrap();
    let checkpoints = folder.path().join("checkpoints");
    let run = trained(&checkpoints);
    assert!(Path::new(&run).join("report.json").exists());

    let lines: Vec<String> =
        (0..1000).map(|i| if i % 100 == 7 { String::new() } else { format!("第{i}条 基金净值上涨") }).collect();
    let output = kd(&checkpoints, &["predict", &run, "-"], &(lines.join("\n") + "\n"));
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
    let short = text(&kd(&checkpoints, &["predict", "bilstm", "文本"], "").stderr);
    assert!(short.contains("no such run") && short.contains(&format!("there are: {name}")), "{short}");
    assert!(text(&kd(&checkpoints, &["list"], "").stdout).contains(name));
    assert!(text(&kd(&checkpoints, &["table"], "").stdout).contains("bilstm"));
    let stored = kd(&checkpoints, &["test", name], "");
    let again = kd(&checkpoints, &["test", name, "--data", sample().join("test.txt").to_str().unwrap()], "");
    assert!(text(&stored.stdout).contains("entertainment") && text(&stored.stdout).contains("accuracy"));
    assert_eq!(text(&stored.stdout), text(&again.stdout));

    // A text is read as a corpus's would be: trimmed, its tabs blanks.
    let answers = kd(&checkpoints, &["predict", name, "基金 净值", "\u{3000}基金\t净值 "], "").stdout;
    let answers: Vec<serde_json::Value> = text(&answers).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(answers[0]["probabilities"], answers[1]["probabilities"]);

    // A copy on the shelf of results has its figures, and cannot answer.
    let kept = text(&kd(&checkpoints, &["keep", name], "").stdout);
    assert_eq!(text(&kd(&checkpoints, &["test", kept.trim()], "").stdout), text(&stored.stdout));
    assert!(text(&kd(&checkpoints, &["predict", kept.trim(), "文本"], "").stderr).contains("without weights"));
    let mut by_variable = Command::new(env!("CARGO_BIN_EXE_kd"));
    let by_variable = by_variable.arg("table").env("KD_CHECKPOINTS", &checkpoints).output().unwrap();
    assert_eq!(text(&by_variable.stdout), text(&kd(&checkpoints, &["table"], "").stdout));
    let nowhere = kd(&checkpoints.join("nowhere"), &["table"], "");
    assert!(!nowhere.status.success() && text(&nowhere.stderr).contains("nowhere: no such folder"));
}

#[test]
fn help_teaches_the_first_steps() {
    let help = text(&kd(Path::new("."), &["--help"], "").stdout);
    assert!(["kd run", "kd predict", "First steps", "Train a recipe"].iter().all(|part| help.contains(part)), "{help}");
}

#[test]
fn every_recipe_of_the_tables_can_be_rehearsed_on_the_cnews_layout() {
    let Some(data) = std::env::var_os("KD_DATA").map(|d| Path::new(&d).join("cnews")) else {
        println!("not run: KD_DATA names no folder with cnews");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let documents = std::fs::read_to_string(data.join("cnews.test.sample.txt")).unwrap();
    let present = |label: &&str| documents.lines().any(|l| l.split('\t').next() == Some(label));
    let all = std::fs::read_to_string(data.join("cnews.labels")).unwrap();
    let labels: Vec<&str> = all.lines().filter(present).collect(); // the documents at hand are of two classes
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
    let recipes: Vec<&str> = table.lines().skip(1).map(|l| l.split(',').nth(2).unwrap()).collect();
    assert_eq!(recipes.len(), 18);
    for recipe in recipes {
        let path = format!("notebooks/recipes/{recipe}.toml");
        let mut arguments = vec!["run", &path, "--dry-run", "--data", corpus.to_str().unwrap()];
        let vocabulary = format!("model.vocabulary_file={}", data.join("cnews.vocab.txt").display());
        let bert = ["model.weights=bert-base-chinese", "model.pooling=cls", "model.prefix=", "data.max_tokens=40"];
        let student = [vocabulary.as_str(), "model.embedding=12", "model.hidden=8", "data.max_tokens=256"];
        let of_teacher: Vec<String> =
            bert.iter().chain(&["data.drop_leaks=false"]).map(|s| format!("teacher.{s}")).collect();
        let settings = if recipe.starts_with("bert") { bert } else { student };
        settings.iter().chain(&["data.drop_leaks=false"]).for_each(|s| arguments.extend(["--set", s]));
        of_teacher.iter().filter(|_| recipe.contains("kd")).for_each(|s| arguments.extend(["--set", s]));
        let output = kd(folder.path(), &arguments, "");
        assert!(output.status.success(), "{recipe}: {}", text(&output.stderr));
        let said = text(&output.stdout);
        for part in ["updates: ", "time: about ", "over 4 just made", "memory: ", &texts] {
            assert!(said.contains(part), "{recipe}: no {part:?} in\n{said}");
        }
        assert!(!folder.path().join("runs").exists(), "a dry run writes nothing");
    }
}

#[test]
fn a_folder_of_texts_becomes_a_distilled_student_by_one_command() {
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(&folder.path().join("checkpoints/e5-small"));
    let recipes = folder.path().join("notebooks/recipes");
    std::fs::create_dir_all(recipes.join("profiles")).unwrap();
    for name in ["teacher.toml", "student.toml", "distilled.toml"] {
        std::fs::copy(root().join("notebooks/recipes").join(name), recipes.join(name)).unwrap();
    }
    let tiny = "[bert.model]\npooling = \"cls\"\nprefix = \"\"\n[bert.data]\nmax_tokens = 32\n[bilstm.model]\nembedding = 12\nhidden = 8\n";
    std::fs::write(recipes.join("profiles/tiny.toml"), tiny).unwrap();
    let checkpoints = folder.path().join("checkpoints");
    let output = kd(&checkpoints, &["distill", sample().to_str().unwrap(), "--profile", "tiny"], "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    for row in ["bert ", "bilstm ", "bilstm+kd "] {
        assert!(text(&output.stderr).lines().any(|l| l.starts_with(row)), "{}", text(&output.stderr));
    }
    let said = text(&output.stdout);
    assert!(said.contains("entertainment") && said.lines().last().unwrap().contains("bilstm+kd-"));
    let run = said.lines().last().unwrap();
    let kept = text(&kd(&checkpoints, &["keep", run], "").stdout);
    assert!(Path::new(kept.trim()).join("test.csv").exists());
    assert!(Path::new(run).join("log.txt").exists());

    // A BERT of one's own is the teacher's setting, in its own row and behind the distilled student alike.
    tiny_checkpoint(&checkpoints.join("my-bert"));
    let distill = ["distill", sample().to_str().unwrap(), "--profile", "tiny", "--set"].map(str::to_owned);
    let distill =
        |setting: &str| kd(&checkpoints, &[&distill.each_ref().map(String::as_str)[..], &[setting]].concat(), "");
    let runs = || std::fs::read_dir(checkpoints.join("runs")).unwrap().count();
    assert!(distill("transfer={made=1}").status.success());
    assert_eq!(runs(), 4, "made texts are the distilled student's: the student alone is found");
    let (before, wrong) = (runs(), distill("model.weights=my-bert"));
    assert!(text(&wrong.stderr).contains("student.toml: model: unknown field `weights`"), "{}", text(&wrong.stderr));
    assert_eq!(runs(), before, "what cannot be done is said before anything is trained");
    assert!(distill("teacher.model.weights=my-bert").status.success());
    assert_eq!(runs(), before + 2, "one more teacher and its student; the student alone is found");
}

/// What `kd` answers to these arguments where `curl` does as this script says.
fn with_curl(script: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("curl");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    Command::new(env!("CARGO_BIN_EXE_kd")).args(arguments).env("PATH", path).output().unwrap()
}

#[test]
fn a_fetched_file_with_another_blob_id_is_not_kept_and_no_network_is_said() {
    let data = tempfile::tempdir().unwrap();
    let into = data.path().to_str().unwrap();
    let fetch = |curl: &str| text(&with_curl(curl, &["fetch", "thucnews-title", "--into", into]).stderr);
    // The fake writes where --output says: the argument before the address.
    let forged = fetch("while [ $# -gt 2 ]; do shift; done; printf forged > \"$1\"");
    assert!(forged.contains("train.txt") && forged.contains("blob id") && forged.contains("not kept"), "{forged}");
    let none = fetch("echo 'Could not resolve host' >&2; exit 6");
    assert!(none.contains("Could not resolve host") && none.contains("is there a network?"), "{none}");
    assert!(!data.path().join("thucnews-title").exists(), "a corpus is there whole or not at all");
    assert!(!data.path().join(".thucnews-title/train.txt").exists());
}

#[test]
fn a_checkpoint_comes_from_a_hub_whole_or_not_at_all() {
    let checkpoints = tempfile::tempdir().unwrap();
    let lab = checkpoints.path().to_str().unwrap();
    // The fake tells the address that it was asked for, and fails for one file.
    let fetch_from = |owner: &str, missing: &str, says: &str| {
        let script = format!(
            "for last; do :; done; case \"$last\" in *{missing}) echo '{says}' >&2; exit 22;; esac\nwhile [ $# -gt 2 ]; do shift; done; printf %s \"$2\" > \"$1\""
        );
        let name = format!("{owner}/tiny");
        with_curl(&script, &["--checkpoints", lab, "fetch", &name, "--hub", "https://a.mirror"])
    };
    let fetch = |missing: &str| fetch_from("someone", missing, "error: 404");
    let without = fetch("model.safetensors");
    let said = text(&without.stderr);
    assert!(!without.status.success() && said.contains("someone/tiny: weights as safetensors"), "{said}");
    assert!(!checkpoints.path().join("tiny").exists());
    let broken = fetch_from("someone", "tokenizer_config.json", "error: 503");
    assert!(!broken.status.success(), "that a line broke does not mean that there is no such file");
    assert!(!checkpoints.path().join("tiny").exists());
    let whole = fetch("vocab.txt");
    assert!(whole.status.success(), "{}", text(&whole.stderr));
    let another = fetch_from("another", "vocab.txt", "error: 404");
    let said = text(&another.stderr);
    assert!(!another.status.success() && said.contains("holds someone/tiny"), "{said}");
    let weights = std::fs::read_to_string(checkpoints.path().join("tiny/model.safetensors")).unwrap();
    assert_eq!(weights, "https://a.mirror/someone/tiny/resolve/main/model.safetensors");
}

#[test]
fn a_damaged_run_is_left_out_of_lists_and_named() {
    let checkpoints = tempfile::tempdir().unwrap();
    let run = trained(checkpoints.path());
    let other = checkpoints.path().join("runs/other");
    std::fs::create_dir(&other).unwrap();
    for entry in std::fs::read_dir(&run).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()) {
        std::fs::copy(&entry, other.join(entry.file_name().unwrap())).unwrap();
    }
    std::fs::write(other.join("curve.csv"), "step\n").unwrap();
    for verb in ["list", "table"] {
        let output = kd(checkpoints.path(), &[verb], "");
        assert!(output.status.success() && text(&output.stdout).contains("bilstm"));
        let said = text(&output.stderr);
        assert!(said.contains("left out") && said.contains("other/curve.csv: damaged"), "{said}");
    }
}
