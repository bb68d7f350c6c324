//! `kd convert`: recipes of version 0.1 get this version's names and keep their comments.

use crate::program::{kd_output, text};
use kd_lib::store::Recipe;
use std::os::unix::fs::PermissionsExt;

/// `student.toml` of version 0.1, with a comment behind a renamed key.
const STUDENT: &str = r#"# The student without distillation: a BiLSTM over characters, trained on the labels.
#   kd run notebooks/recipes/student.toml
name = "bilstm"

[data]
max_tokens = 64

[model]
kind = "bilstm"
embedding = 300
hidden = 384            # of each direction
dropout = 0.3
vocabulary = 5000

[objective]
kind = "cross_entropy"

[train]
epochs = 6
batch = 32
evaluate_every = 20000

[optimiser]
learning_rate = 1e-3
clip = 1.0
"#;

/// The same with this version's keys.
const CONVERTED: &str = r#"# The student without distillation: a BiLSTM over characters, trained on the labels.
#   kd run notebooks/recipes/student.toml
name = "bilstm"

[data]
max_length = 64

[model]
kind = "bilstm"
embedding_dim = 300
hidden_size = 384            # of each direction
dropout = 0.3
vocab_size = 5000

[objective]
kind = "cross_entropy"

[train]
epochs = 6
batch_size = 32
eval_every_samples = 20000

[optimizer]
learning_rate = 1e-3
max_grad_norm = 1.0
"#;

/// A recipe of version 0.1 that extends the student's.
const DISTILLED: &str = r#"extends = "student.toml"
name = "bilstm+made"
teacher = "teacher.toml" # in bf16

[transfer]
made = 5
ways = ["crop", "splice", "swap", "graft", "mask"]

[train]
stretch = 0.3333 # as many updates as 12 epochs

[objective]
kind = "distillation"
temperature = 4.0
hard = 0.5
soft = 0.5
"#;

#[test]
fn a_converted_recipe_keeps_its_comments_and_has_the_new_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("student.toml");
    std::fs::write(&path, STUDENT).unwrap();
    let error = Recipe::read(&path, "full", &[]).unwrap_err().to_string();
    assert!(error.contains("kd convert"), "{error}");

    let output = kd_output(folder.path(), &["convert", path.to_str().unwrap()], "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), CONVERTED);
    assert_eq!(
        std::fs::read_to_string(folder.path().join("student.toml.0.1")).unwrap(),
        STUDENT
    );
    // A link and the file's permissions stay.
    let (link, private) = (
        folder.path().join("link.toml"),
        folder.path().join("private.toml"),
    );
    std::fs::write(&private, STUDENT).unwrap();
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&private, &link).unwrap();
    let output = kd_output(folder.path(), &["convert", link.to_str().unwrap()], "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(link.is_symlink());
    assert_eq!(std::fs::read_to_string(&private).unwrap(), CONVERTED);
    assert_eq!(
        private.metadata().unwrap().permissions().mode() & 0o777,
        0o600
    );
    // A second conversion finds nothing to do, and the old file is still there.
    let output = kd_output(folder.path(), &["convert", path.to_str().unwrap()], "");
    assert!(text(&output.stdout).contains("nothing to convert"));
    let backup = std::fs::read_to_string(folder.path().join("student.toml.0.1"));
    assert_eq!(backup.unwrap(), STUDENT);
    let recipe = Recipe::read(&path, "full", &[]).unwrap();
    assert_eq!((recipe.data.max_length, recipe.train.batch_size), (64, 32));
    assert_eq!(recipe.optimizer.max_grad_norm, Some(1.0));
}

#[test]
fn values_names_and_the_factor_on_epochs_are_converted() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("student.toml"), STUDENT).unwrap();
    let path = folder.path().join("bilstm+made.toml");
    std::fs::write(&path, DISTILLED).unwrap();
    let student = folder.path().join("student.toml");
    let arguments = ["convert", student.to_str().unwrap(), path.to_str().unwrap()];
    let output = kd_output(folder.path(), &arguments, "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let converted = std::fs::read_to_string(&path).unwrap();
    for part in [
        "name = \"bilstm+aug\"",
        "teacher = \"teacher.toml\" # in bf16",
        "augmentations_per_text = 5",
        "[\"span_crop\", \"crossover\", \"rotation\", \"span_replacement\", \"mask\"]",
        "epochs = 1.9998",
        "kind = \"kd\"",
        "hard_weight = 0.5",
        "soft_weight = 0.5",
    ] {
        assert!(converted.contains(part), "no {part:?} in\n{converted}");
    }
    assert!(!converted.contains("stretch"), "{converted}");

    // The factor of a base counts for the epochs of a recipe that extends it, once.
    let inheriting = folder.path().join("inheriting.toml");
    let old = "extends = \"bilstm+made.toml\"\nname = \"longer\"\n\n[train]\nepochs = 20\n";
    std::fs::write(&inheriting, old).unwrap();
    for _ in 0..2 {
        let output = kd_output(
            folder.path(),
            &["convert", inheriting.to_str().unwrap()],
            "",
        );
        assert!(output.status.success(), "{}", text(&output.stderr));
        let converted = std::fs::read_to_string(&inheriting).unwrap();
        assert!(converted.contains("epochs = 6.666"), "{converted}");
    }
    let itself = folder.path().join("itself.toml");
    std::fs::write(
        &itself,
        "extends = \"itself.toml\"\n\n[train]\nstretch = 2.0\n",
    )
    .unwrap();
    let output = kd_output(folder.path(), &["convert", itself.to_str().unwrap()], "");
    assert!(text(&output.stderr).contains("extends itself"));
}

#[test]
fn what_names_a_recipe_of_the_users_keeps_the_name() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("published-bert.toml"), STUDENT).unwrap();
    let path = folder.path().join("mine.toml");
    let old = "extends = \"published-bert.toml\"\n\n[train]\nbatch = 16\n";
    std::fs::write(&path, old).unwrap();
    let output = kd_output(folder.path(), &["convert", path.to_str().unwrap()], "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let converted = std::fs::read_to_string(&path).unwrap();
    assert_eq!(converted, old.replace("batch", "batch_size"));
}

#[test]
fn sections_of_a_profile_are_converted_and_two_names_of_one_setting_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("smoke.toml");
    std::fs::write(
        &path,
        "[default.data]\nmax_tokens = 16\n\n[bert.train]\nbatch = 4\n",
    )
    .unwrap();
    let output = kd_output(folder.path(), &["convert", path.to_str().unwrap()], "");
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        "[default.data]\nmax_length = 16\n\n[bert.train]\nbatch_size = 4\n"
    );

    let twice = folder.path().join("twice.toml");
    let old = "[train]\nbatch = 16\nbatch_size = 64\n";
    std::fs::write(&twice, old).unwrap();
    let output = kd_output(folder.path(), &["convert", twice.to_str().unwrap()], "");
    let error = text(&output.stderr);
    assert!(error.contains("are one setting"), "{error}");
    assert_eq!(std::fs::read_to_string(&twice).unwrap(), old);
}

#[test]
fn a_folder_that_holds_no_stored_results_of_the_old_version_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let convert = |name: &str| {
        let path = folder.path().join(name);
        text(&kd_output(folder.path(), &["convert", path.to_str().unwrap()], "").stderr).to_owned()
    };
    let results = folder.path().join("results");
    std::fs::create_dir_all(results.join("runs")).unwrap();
    std::fs::write(results.join("reports.jsonl"), "{}\n").unwrap();
    assert!(convert("results").contains("would be overwritten"));
    let kept = std::fs::read_to_string(results.join("reports.jsonl"));
    assert_eq!(kept.unwrap(), "{}\n");

    std::fs::create_dir_all(folder.path().join("empty/runs")).unwrap();
    assert!(convert("empty").contains("no stored run"));
    assert!(!folder.path().join("empty/reports.jsonl").exists());

    let run = folder.path().join("checkpoints/runs/bilstm-0123456789ab");
    std::fs::create_dir_all(&run).unwrap();
    std::fs::write(run.join("model.safetensors"), "").unwrap();
    assert!(convert("checkpoints").contains("a folder of runs"));
}

#[test]
fn a_file_that_is_neither_recipe_nor_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = kd_output(
        folder.path(),
        &["convert", folder.path().to_str().unwrap()],
        "",
    );
    let error = text(&output.stderr);
    assert!(
        !output.status.success() && error.contains("neither a recipe"),
        "{error}"
    );
}
