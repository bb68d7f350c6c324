//! Mistakes of a user, one at a time: `kd` exits with an error that names the file, the line, the
//! value and the fix, and writes nothing.

use crate::common::{root, sample, tiny_checkpoint};
use crate::program::{kd, kd_output, text as utf8};
use kd_lib::files::{TensorFile, write_tensors};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A file of a corpus, and its contents.
type Replaced<'a> = (&'a str, Vec<u8>);
/// What a message must contain.
type Parts<'a> = &'a [&'a str];

/// A corpus of two classes in the layout `text<TAB>index`, with some files replaced.
fn corpus(folder: &Path, replaced: &[Replaced]) {
    std::fs::create_dir_all(folder).unwrap();
    let lines = (0..12)
        .map(|i| format!("第{i}条标题\t{}\n", i % 2))
        .collect::<String>();
    for name in ["train.txt", "dev.txt", "test.txt"] {
        std::fs::write(folder.join(name), lines.replace('第', &name[..2])).unwrap();
    }
    std::fs::write(folder.join("class.txt"), "a\nb\n").unwrap();
    for (name, bytes) in replaced {
        if let Some(split) = name.strip_suffix(".csv") {
            std::fs::remove_file(folder.join(format!("{split}.txt"))).unwrap();
        }
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

/// Runs `kd`; asserts that it fails with a message that contains all parts, and that nothing was
/// written in the store.
fn refused(store: &Path, arguments: &[&str], parts: &[&str]) {
    let before = listing(store);
    let output = kd_output(store, arguments, "");
    let error = utf8(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
    for part in parts {
        assert!(
            error.contains(part),
            "{arguments:?}: no {part:?} in: {error}"
        );
    }
    assert!(!error.contains("panicked"), "{error}");
    assert_eq!(listing(store), before, "{arguments:?} wrote something");
}

/// The files below a folder, without locks and logs.
fn listing(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path());
    let mut names: Vec<String> = entries
        .flat_map(|p| {
            if p.is_dir() {
                listing(&p)
            } else {
                vec![p.to_string_lossy().into_owned()]
            }
        })
        .collect();
    names.retain(|name| !name.ends_with("/.lock") && !name.ends_with("/log.txt"));
    names.sort();
    names
}

#[test]
fn an_invalid_corpus_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("checkpoints");
    std::fs::create_dir(&store).unwrap();
    let text = |text: &str| text.as_bytes().to_vec();
    let csv = |rows: &str| text(&format!("text,label\n{rows}"));
    let cases: [(&[Replaced], Parts); 10] = [
        (
            &[("train.txt", b"a\t0\n\xff\xfe\t1\n".to_vec())],
            &["train.txt:2", "not UTF-8 at byte 0", "iconv"],
        ),
        (
            &[("train.txt", text("甲\t0\n乙 1\n"))],
            &["train.txt:2", "no tab", "乙 1", "text<TAB>class index"],
        ),
        (
            &[("train.txt", text("甲\t0\n\n乙\t1\n"))],
            &["train.txt:2", "no tab", "remove the empty line"],
        ),
        (
            &[("dev.txt", text("甲\t0\n乙\t7\n"))],
            &["dev.txt:2", "\"7\" is not a class index", "from 0 to 1"],
        ),
        (
            &[("test.txt", Vec::new())],
            &["test.txt", "no examples", "at least one line"],
        ),
        (
            &[("train.txt", vec![b'x'; 10 << 20])],
            &["train.txt:1", "10485760 bytes in one line", "split it"],
        ),
        (
            &[("train.txt", text("甲\t0\n乙\t0\n"))],
            &["class \"b\" has no training example", "remove the class"],
        ),
        (
            &[("train.csv", csv("甲,c\n"))],
            &["train.csv:2", "class \"c\"", "file of class names"],
        ),
        (
            &[("train.csv", csv("甲,a\n乙,b,3\n"))],
            &["train.csv:3", "3 fields", "as many fields in each row"],
        ),
        (
            &[("x.labels", text("a\nb\n"))],
            &["2 files of class names", "keep one"],
        ),
    ];
    for (at, (replaced, parts)) in cases.into_iter().enumerate() {
        let data = folder.path().join(format!("corpus-{at}"));
        corpus(&data, replaced);
        refused(
            &store,
            &[
                "train",
                "notebooks/recipes/student.toml",
                "--data",
                data.to_str().unwrap(),
            ],
            parts,
        );
    }
}

#[test]
fn settings_that_a_plan_chooses_are_refused_however_they_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample().display().to_string();
    for setting in [
        "teacher.data.max_train_samples=10",
        "teacher.data={max_train_samples=10}",
        "teacher={train={epochs=1}}",
        " teacher . train = {epochs=1}",
    ] {
        let arguments = ["distill", &data, "--budget", "1h", "--set", setting];
        refused(folder.path(), &arguments, &["the plan chooses teacher."]);
    }
    let arguments = ["distill", &data, "--set", "data={max_length=16}"];
    refused(
        folder.path(),
        &arguments,
        &["a plan chooses the students' settings"],
    );
}

#[test]
fn a_section_of_a_profile_that_no_model_has_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let profiles = folder.path().join("profiles");
    std::fs::create_dir(&profiles).unwrap();
    let recipe = folder.path().join("student.toml");
    std::fs::copy(root().join("notebooks/recipes/student.toml"), &recipe).unwrap();
    let profile = "[default.train]\nbatch_size = 8\n\n[bilstn.train]\nbatch_size = 16\n";
    std::fs::write(profiles.join("my.toml"), profile).unwrap();
    let data = sample().display().to_string();
    let recipe = recipe.display().to_string();
    let arguments = ["train", &recipe, "--data", &data, "--profile", "my"];
    refused(
        folder.path(),
        &arguments,
        &["my.toml", "the section \"bilstn\"", "bilstm"],
    );
}

#[test]
fn a_number_of_threads_and_a_proxy_that_mean_nothing_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for number in ["70000", "0", "many"] {
        let output = kd(folder.path())
            .args(["predict", "no-such-run", "text"])
            .env("OMP_NUM_THREADS", number)
            .output()
            .unwrap();
        let error = utf8(&output.stderr);
        assert!(
            error.contains(&format!("OMP_NUM_THREADS={number}")),
            "{error}"
        );
    }
    let into = folder.path().display().to_string();
    let output = kd(folder.path())
        .args(["download", "thucnews-title", "--into", &into])
        .env("HTTPS_PROXY", "htp://127.0.0.1:9")
        .output()
        .unwrap();
    let error = utf8(&output.stderr);
    assert!(
        error.contains("HTTPS_PROXY: not the address of a proxy"),
        "{error}"
    );
    std::os::unix::fs::symlink("nowhere", folder.path().join("thucnews-title")).unwrap();
    let output = kd(folder.path())
        .args(["download", "thucnews-title", "--into", &into])
        .output()
        .unwrap();
    let error = utf8(&output.stderr);
    assert!(error.contains("a folder that is not there"), "{error}");
}

#[test]
fn a_store_that_cannot_be_listed_is_no_empty_table() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("runs"), "").unwrap();
    for command in ["table", "runs"] {
        refused(folder.path(), &[command], &["runs: Not a directory"]);
    }
}

#[test]
fn options_that_would_have_no_effect_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let sample = sample();
    let data = sample.to_str().unwrap();
    let cases: [(&[&str], &str); 5] = [
        (&["download", "a/b", "--into", "models"], "--into"),
        (
            &["download", "thucnews-title", "--revision", "v9"],
            "--revision",
        ),
        (
            &["distill", data, "--set", "teacher.model.vocab_size=8000"],
            "the plan chooses teacher.model.vocab_size",
        ),
        (
            &["distill", data, "--set", "teacher.data.skip_test=false"],
            "the plan chooses teacher.data.skip_test",
        ),
        (&["teacher-logits", "run", "-", "--into", "a.jsonl"], "run"),
    ];
    for (arguments, part) in cases {
        refused(folder.path(), arguments, &[part]);
    }
    let seed = ["train", "student.toml", "--seed", "18446744073709551615"];
    let error = kd_output(folder.path(), &seed, "").stderr;
    assert!(utf8(&error).contains("--seed"), "{}", utf8(&error));
}

#[test]
fn students_that_cannot_be_built_are_refused_before_the_teacher_is_trained() {
    let folder = tempfile::tempdir().unwrap();
    let (store, two) = (folder.path().join("checkpoints"), folder.path().join("two"));
    corpus(&two, &[]);
    for name in ["e5-small", "broken"] {
        tiny_checkpoint(&store.join(name));
    }
    let weights = store.join("broken/model.safetensors");
    let mut file = TensorFile::read(&weights).unwrap();
    let vectors = file.tensors.remove("embeddings.word_embeddings.weight");
    assert!(vectors.is_some());
    let tensors = file
        .tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor));
    write_tensors(&weights, tensors).unwrap();
    let arguments = [
        "distill",
        two.to_str().unwrap(),
        "--profile",
        "smoke",
        "--set",
        "model.pretrained_embeddings=broken",
        "--set",
        "data.max_length=32",
    ];
    refused(&store, &arguments, &["embeddings.word_embeddings.weight"]);
}

#[test]
fn an_argument_that_is_not_utf8_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let odd = OsStr::from_bytes(b"caf\xe9.csv");
    for arguments in [["distill".as_ref(), odd], ["predict".as_ref(), odd]] {
        let output = kd(folder.path()).args(arguments).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!error.contains("panicked") && !error.is_empty(), "{error}");
        assert!(matches!(output.status.code(), Some(1 | 2)), "{error}");
    }
}

#[test]
fn an_invalid_recipe_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (store, two) = (folder.path().join("checkpoints"), folder.path().join("two"));
    tiny_checkpoint(&store.join("e5-small"));
    corpus(&two, &[]);
    let vocabulary = folder.path().join("vocab.txt");
    std::fs::write(&vocabulary, "<PAD>\n人\n").unwrap();
    let vocabulary = format!("model.vocab_file={}", vocabulary.display());
    let cases: [(&str, &str, Parts); 31] = [
        (
            "student",
            "train.epochs=1\ntrain.batch_size=8",
            &["train.epochs", "several settings in one"],
        ),
        (
            "student",
            "train.epoch=3",
            &["student.toml", "unknown field", "epoch"],
        ),
        (
            "student",
            "train.epochs=many",
            &["student.toml", "train.epochs", "many"],
        ),
        (
            "student",
            "train.epochs",
            &["train.epochs", "no '='", "--set key=value"],
        ),
        (
            "student",
            "train.gradient_accumulation_steps=0",
            &["train.gradient_accumulation_steps", "0", "1 or more"],
        ),
        (
            "student",
            "train.epochs=4000000000000",
            &["train.epochs", "4000000000000", "a billion at most"],
        ),
        (
            "student",
            "train.batch_size=4000000000000",
            &["train.batch_size", "4000000000000", "1 or more"],
        ),
        (
            "student",
            "model.embedding_dim=1000000000000",
            &["model.embedding_dim", "1000000000000", "10,000"],
        ),
        (
            "student",
            "optimizer.learning_rate=nan",
            &["optimizer.learning_rate", "NaN", "above 0"],
        ),
        (
            "student",
            "device=cuda:x",
            &["device", "cuda:x", "auto, cpu or cuda:N"],
        ),
        ("student", "data.max_length=0", &["data.max_length", "0"]),
        ("student", &vocabulary, &["vocab.txt:2", "<UNK>"]),
        (
            "student",
            "model.vocab_size=2",
            &["model.vocab_size", "2", "3 or more"],
        ),
        (
            "student",
            "data.holdout_fold=[2,2]",
            &["data.holdout_fold", "2", "k below n"],
        ),
        (
            "distilled",
            "ensemble={out_of_fold=1}",
            &["ensemble", "1", "out_of_fold = 2 or more"],
        ),
        (
            "distilled",
            "ensemble={seeds=[]}",
            &["ensemble", "Seeds([])", "seeds that differ"],
        ),
        (
            "distilled",
            "ensemble={seeds=[1,1]}",
            &["ensemble", "Seeds([1, 1])", "seeds that differ"],
        ),
        (
            "student",
            "ensemble={seeds=[1]}",
            &["ensemble", "needs a teacher"],
        ),
        (
            "student",
            "train.final_temperature=2.0",
            &[
                "train.final_temperature",
                "with an objective that has a temperature",
            ],
        ),
        (
            "distilled",
            "objective.temperature=0",
            &["objective.temperature", "0"],
        ),
        (
            "distilled",
            "objective.hard_weight=-1",
            &["objective.hard_weight", "-1"],
        ),
        (
            "distilled",
            "objective={kind=\"kd\",temperature=4.0,hard_weight=0.0,soft_weight=0.0}",
            &["all weights are 0", "raise one"],
        ),
        (
            "bilstm+aug-dkd",
            "teacher.data.max_length=32",
            &["dkd", "2 classes"],
        ),
        (
            "student",
            "teacher.train.epochs=1",
            &["teacher.train.epochs=1", "no teacher", "leave it out"],
        ),
        (
            "bilstm+fgm",
            "adversarial.epsilon=0.0",
            &["adversarial.epsilon", "0", "above 0"],
        ),
        (
            "bilstm+pgd",
            "adversarial.alpha=-1.0",
            &["adversarial.alpha", "-1", "above 0"],
        ),
        (
            "bilstm+pgd",
            "adversarial.epsilon=inf",
            &["adversarial.epsilon", "inf", "above 0"],
        ),
        (
            "bilstm+pgd",
            "adversarial.steps=0",
            &["adversarial.steps", "0", "1 or more"],
        ),
        (
            "student",
            "transfer={augmentations_per_text=1}",
            &[
                "transfer",
                "no teacher",
                "transfer.augmentations_keep_label",
            ],
        ),
        (
            "student",
            "transfer={unlabelled_train=true,augmentations_keep_label=true}",
            &["transfer", "only a teacher labels"],
        ),
        (
            "student",
            "name=../elsewhere",
            &["name", "../elsewhere", "it names a folder"],
        ),
    ];
    for (recipe, setting, parts) in cases {
        let recipe = format!("notebooks/recipes/{recipe}.toml");
        refused(
            &store,
            &[
                "train",
                &recipe,
                "--data",
                two.to_str().unwrap(),
                "--set",
                setting,
            ],
            parts,
        );
    }
    refused(
        &store,
        &[
            "train",
            "notebooks/recipes/none.toml",
            "--data",
            two.to_str().unwrap(),
        ],
        &["none.toml", "correct the name"],
    );
    let typo = [
        "train",
        "notebooks/recipes/student.toml",
        "--data",
        two.to_str().unwrap(),
        "--profile",
        "quik",
    ];
    refused(
        &store,
        &typo,
        &["no profile \"quik\"", "smoke, quick or full"],
    );
    refused(
        &store,
        &[
            "train",
            "notebooks/recipes/student.toml",
            "--data",
            "nowhere",
        ],
        &["nowhere: no such file or folder", "make"],
    );
    refused(
        &store,
        &["predict", "student-0", "文本"],
        &["student-0", "no such run", "kd runs"],
    );
}

#[test]
fn an_invalid_checkpoint_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (store, data) = (folder.path().join("checkpoints"), sample());
    let run = [
        "train",
        "notebooks/recipes/teacher.toml",
        "--data",
        data.to_str().unwrap(),
    ];
    let tiny: Vec<&str> = [
        "model.checkpoint=tiny",
        "model.pooling=cls",
        "model.prefix=",
        "data.max_length=32",
    ]
    .iter()
    .flat_map(|setting| ["--set", setting])
    .collect();
    let run = [&run[..], &tiny].concat();
    let header = |text: &str, data: usize| {
        [
            &(text.len() as u64).to_le_bytes()[..],
            text.as_bytes(),
            &vec![0; data],
        ]
        .concat()
    };
    let tensor = |from: usize, to: usize| {
        format!("\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[{from},{to}]")
    };
    let overlapping = format!("{{\"a\":{{{}}},\"b\":{{{}}}}}", tensor(0, 8), tensor(4, 12));
    let beyond = format!("{{\"a\":{{{}}}}}", tensor(0, 8));
    let other = header(
        "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
        8,
    );
    let cases: [(&str, Option<Vec<u8>>, Parts); 9] = [
        (
            "model.safetensors",
            None,
            &["no model.safetensors", "make setup"],
        ),
        (
            "model.safetensors",
            Some(vec![0; 5]),
            &["model.safetensors", "not a sound safetensors file"],
        ),
        (
            "model.safetensors",
            Some(u64::MAX.to_le_bytes().to_vec()),
            &["not a sound safetensors file"],
        ),
        (
            "model.safetensors",
            Some(header(&overlapping, 12)),
            &["not a sound safetensors file"],
        ),
        (
            "model.safetensors",
            Some(header(&beyond, 4)),
            &["not a sound safetensors file"],
        ),
        (
            "model.safetensors",
            Some(other),
            &[
                "model.safetensors",
                "no tensor named",
                "another architecture",
            ],
        ),
        ("config.json", Some(b"{".to_vec()), &["config.json"]),
        (
            "vocab.txt",
            None,
            &["no tokenizer.json and no vocab.txt", "copy the one"],
        ),
        (
            "vocab.txt",
            Some(b"[PAD]\n[CLS]\n[SEP]\n".to_vec()),
            &["no unknown token", "the checkpoint came with"],
        ),
    ];
    for (name, bytes, parts) in cases {
        let _ = std::fs::remove_dir_all(&store);
        tiny_checkpoint(&store.join("tiny"));
        let path = store.join("tiny").join(name);
        match bytes {
            Some(bytes) => std::fs::write(path, bytes).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        refused(&store, &run, parts);
    }
}

#[test]
fn nobody_has_to_read_what_goes_to_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = kd(folder.path());
    command.args(["evaluate", "no-such-run"]);
    let mut child = command.spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(
        child.wait().unwrap().code(),
        Some(1),
        "an error, not a panic"
    );
}
