//! What a person may get wrong, one thing at a time, as `kd` answers it: a failing exit, a message with the file, the
//! line, the value and the cure, and nothing written.

mod common;

use common::{root, sample, tiny_checkpoint};
use std::path::Path;
use std::process::Command;

/// A file of a corpus, and what stands in it.
type Replaced<'a> = (&'a str, Vec<u8>);
/// What a message must hold.
type Parts<'a> = &'a [&'a str];

/// A corpus of two classes in the layout `text<TAB>index`, with some files replaced.
fn corpus(folder: &Path, replaced: &[Replaced]) {
    std::fs::create_dir_all(folder).unwrap();
    let lines = (0..12).map(|i| format!("第{i}条标题\t{}\n", i % 2)).collect::<String>();
    for name in ["train.txt", "dev.txt", "test.txt"] {
        std::fs::write(folder.join(name), lines.replace('第', &name[..2])).unwrap();
    }
    std::fs::write(folder.join("class.txt"), "a\nb\n").unwrap();
    for (name, bytes) in replaced {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

/// Runs `kd`, asserts that it fails with one line that holds all parts, and that nothing was written in the lab.
fn refused(lab: &Path, arguments: &[&str], parts: &[&str]) {
    let before = listing(lab);
    let mut command = Command::new(env!("CARGO_BIN_EXE_kd"));
    command.env("OMP_NUM_THREADS", "1").current_dir(root()).arg("--checkpoints").arg(lab).args(arguments);
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert!(parts.iter().all(|part| said.contains(part)), "{arguments:?}: {parts:?} expected, said: {said}");
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(listing(lab), before, "{arguments:?} wrote something");
}

/// The files below a folder; a lock and an empty log say that a run was tried, and nothing else.
fn listing(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    let mut names: Vec<String> =
        entries.flat_map(|p| if p.is_dir() { listing(&p) } else { vec![p.to_string_lossy().into_owned()] }).collect();
    names.retain(|name| !name.ends_with("/.lock") && !name.ends_with("/log.txt"));
    names.sort();
    names
}

#[test]
fn a_corpus_with_a_fault_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let lab = folder.path().join("checkpoints");
    std::fs::create_dir(&lab).unwrap();
    let text = |text: &str| text.as_bytes().to_vec();
    let csv = |rows: &str| text(&format!("text,label\n{rows}"));
    let cases: [(&[Replaced], Parts); 10] = [
        (&[("train.txt", b"a\t0\n\xff\xfe\t1\n".to_vec())], &["train.txt:2", "not UTF-8 at byte 0", "iconv"]),
        (&[("train.txt", text("甲\t0\n乙 1\n"))], &["train.txt:2", "no tab", "乙 1", "text<TAB>class index"]),
        (&[("train.txt", text("甲\t0\n\n乙\t1\n"))], &["train.txt:2", "no tab", "remove the empty line"]),
        (&[("dev.txt", text("甲\t0\n乙\t7\n"))], &["dev.txt:2", "\"7\" is no class index", "from 0 to 1"]),
        (&[("test.txt", Vec::new())], &["test.txt", "no examples", "at least one line"]),
        (&[("train.txt", vec![b'x'; 10 << 20])], &["train.txt:1", "10485760 bytes in one line", "split it"]),
        (&[("train.txt", text("甲\t0\n乙\t0\n"))], &["class \"b\" has no training example", "remove the class"]),
        (&[("train.csv", csv("甲,c\n"))], &["train.csv:2", "class \"c\"", "file of class names"]),
        (&[("train.csv", csv("甲,a\n乙,b,3\n"))], &["train.csv:3", "3 fields", "as many fields in each row"]),
        (&[("x.labels", text("a\nb\n"))], &["2 files of class names", "keep one"]),
    ];
    for (at, (replaced, parts)) in cases.into_iter().enumerate() {
        let data = folder.path().join(format!("corpus-{at}"));
        corpus(&data, replaced);
        refused(&lab, &["run", "notebooks/recipes/student.toml", "--data", data.to_str().unwrap()], parts);
    }
}

#[test]
fn a_recipe_with_a_fault_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (lab, two) = (folder.path().join("checkpoints"), folder.path().join("two"));
    tiny_checkpoint(&lab.join("e5-small"));
    corpus(&two, &[]);
    let vocabulary = folder.path().join("vocab.txt");
    std::fs::write(&vocabulary, "<PAD>\n人\n").unwrap();
    let vocabulary = format!("model.vocabulary_file={}", vocabulary.display());
    let cases: [(&str, &str, Parts); 30] = [
        ("student", "train.epoch=3", &["student.toml", "unknown field", "epoch"]),
        ("student", "train.epochs=many", &["student.toml", "train.epochs", "many"]),
        ("student", "train.epochs", &["train.epochs", "no '='", "--set key=value"]),
        ("student", "train.accumulation=0", &["train.accumulation", "0", "1 or more"]),
        ("student", "train.epochs=4000000000000", &["train.epochs", "4000000000000", "1 or more"]),
        ("student", "train.batch=4000000000000", &["train.batch", "4000000000000", "1 or more"]),
        ("student", "model.embedding=1000000000000", &["model.embedding", "1000000000000", "10,000"]),
        ("student", "optimiser.learning_rate=nan", &["optimiser.learning_rate", "NaN", "above 0"]),
        ("student", "device=cuda:x", &["device", "cuda:x", "auto, cpu or cuda:N"]),
        ("student", "data.max_tokens=0", &["data.max_tokens", "0"]),
        ("student", &vocabulary, &["vocab.txt:2", "<UNK>"]),
        ("student", "model.vocabulary=2", &["model.vocabulary", "2", "3 or more"]),
        ("student", "data.fold=[2,2]", &["data.fold", "2", "k below n"]),
        ("distilled", "teaching={folds=1}", &["teaching", "1", "2 folds or more"]),
        ("distilled", "teaching={seeds=[]}", &["teaching", "0", "seeds that differ"]),
        ("distilled", "teaching={seeds=[1,1]}", &["teaching", "2", "seeds that differ"]),
        ("student", "teaching={seeds=[1]}", &["teaching", "it takes a teacher"]),
        ("student", "train.final_temperature=2.0", &["train.final_temperature", "if the objective has a temperature"]),
        ("distilled", "objective.temperature=0", &["objective.temperature", "0"]),
        ("distilled", "objective.hard=-1", &["objective.hard", "-1"]),
        (
            "distilled",
            "objective={kind=\"distillation\",temperature=4.0,hard=0.0,soft=0.0}",
            &["all weights 0", "raise one"],
        ),
        ("bilstm+made-dkd", "teacher.data.max_tokens=32", &["Decoupled", "two classes"]),
        ("student", "teacher.train.epochs=1", &["teacher.train.epochs=1", "no teacher", "leave it out"]),
        ("bilstm+fgm", "attack.epsilon=0.0", &["attack.epsilon", "0", "above 0"]),
        ("bilstm+pgd", "attack.alpha=-1.0", &["attack.alpha", "-1", "above 0"]),
        ("bilstm+pgd", "attack.epsilon=inf", &["attack.epsilon", "inf", "above 0"]),
        ("bilstm+pgd", "attack.steps=0", &["attack.steps", "0", "1 or more"]),
        ("student", "transfer={made=1}", &["transfer", "no teacher", "keep_labels"]),
        ("student", "transfer={rest=true,keep_labels=true}", &["transfer", "only a teacher labels"]),
        ("student", "name=../elsewhere", &["name", "../elsewhere", "it names a folder"]),
    ];
    for (recipe, setting, parts) in cases {
        let recipe = format!("notebooks/recipes/{recipe}.toml");
        refused(&lab, &["run", &recipe, "--data", two.to_str().unwrap(), "--set", setting], parts);
    }
    refused(
        &lab,
        &["run", "notebooks/recipes/none.toml", "--data", two.to_str().unwrap()],
        &["none.toml", "correct the name"],
    );
    let typo = ["run", "notebooks/recipes/student.toml", "--data", two.to_str().unwrap(), "--profile", "quik"];
    refused(&lab, &typo, &["no profile \"quik\"", "smoke, quick or full"]);
    refused(
        &lab,
        &["run", "notebooks/recipes/student.toml", "--data", "nowhere"],
        &["nowhere: no such folder", "make"],
    );
    refused(&lab, &["predict", "bilstm-0", "文本"], &["bilstm-0", "no such run", "kd list"]);
}

#[test]
fn a_checkpoint_with_a_fault_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (lab, data) = (folder.path().join("checkpoints"), sample());
    let run = ["run", "notebooks/recipes/teacher.toml", "--data", data.to_str().unwrap()];
    let tiny: Vec<&str> = ["model.weights=tiny", "model.pooling=cls", "model.prefix=", "data.max_tokens=32"]
        .iter()
        .flat_map(|setting| ["--set", setting])
        .collect();
    let run = [&run[..], &tiny].concat();
    let header =
        |text: &str, data: usize| [&(text.len() as u64).to_le_bytes()[..], text.as_bytes(), &vec![0; data]].concat();
    let tensor = |from: usize, to: usize| format!("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[{from},{to}]");
    let overlapping = format!("{{\"a\":{{{}}},\"b\":{{{}}}}}", tensor(0, 8), tensor(4, 12));
    let beyond = format!("{{\"a\":{{{}}}}}", tensor(0, 8));
    let other = header("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
    let cases: [(&str, Option<Vec<u8>>, Parts); 9] = [
        ("model.safetensors", None, &["no model.safetensors", "make setup"]),
        ("model.safetensors", Some(vec![0; 5]), &["model.safetensors", "not a sound safetensors file"]),
        ("model.safetensors", Some(u64::MAX.to_le_bytes().to_vec()), &["not a sound safetensors file"]),
        ("model.safetensors", Some(header(&overlapping, 12)), &["not a sound safetensors file"]),
        ("model.safetensors", Some(header(&beyond, 4)), &["not a sound safetensors file"]),
        ("model.safetensors", Some(other), &["model.safetensors", "no tensor named", "another architecture"]),
        ("config.json", Some(b"{".to_vec()), &["config.json"]),
        ("vocab.txt", None, &["no tokenizer.json and no vocab.txt", "copy the one"]),
        ("vocab.txt", Some(b"[PAD]\n[CLS]\n[SEP]\n".to_vec()), &["no unknown token", "the checkpoint came with"]),
    ];
    for (name, bytes, parts) in cases {
        let _ = std::fs::remove_dir_all(&lab);
        tiny_checkpoint(&lab.join("tiny"));
        let path = lab.join("tiny").join(name);
        match bytes {
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        refused(&lab, &run, parts);
    }
}
