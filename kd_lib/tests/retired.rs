//! Names of version 0.1 in a recipe are refused, and the error names the replacement. A profile
//! that fits no model is refused too.

use crate::common::root;
use kd_lib::store::Recipe;
use kd_lib::store::retired::{AUGMENTATIONS, KEYS, OBJECTIVES, Retired};

/// What the error must say of a retired name.
fn replacement(name: &Retired) -> String {
    match name.new {
        "" => "leave it out and multiply train.epochs".to_owned(),
        new => format!("write {new}"),
    }
}

/// The error of a recipe that extends student.toml with this text.
fn error_in_file(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let student = root().join("notebooks/recipes/student.toml");
    std::fs::copy(student, folder.path().join("student.toml")).unwrap();
    let path = folder.path().join("recipe.toml");
    std::fs::write(&path, format!("extends = \"student.toml\"\n{text}")).unwrap();
    Recipe::read(&path, "full", &[]).unwrap_err().to_string()
}

/// The error of student.toml with this setting.
fn error_of_setting(setting: &str) -> String {
    let student = root().join("notebooks/recipes/student.toml");
    Recipe::read(student, "full", &[setting.to_owned()])
        .unwrap_err()
        .to_string()
}

#[test]
fn a_retired_key_in_a_file_is_refused_with_its_replacement() {
    assert!(KEYS.len() > 40);
    for name in KEYS {
        let text = match name.old.split_once('.') {
            Some((group, key)) => format!("[{group}]\n{key} = 1\n"),
            None => format!("[{}]\n", name.old),
        };
        let error = error_in_file(&text);
        assert!(error.contains("recipe.toml"), "{}: {error}", name.old);
        // A key of a retired group is reported as the group.
        let group = name.old.split('.').next().unwrap();
        let group_key = KEYS.iter().find(|other| other.old == group);
        let expected = replacement(group_key.unwrap_or(name));
        assert!(
            error.contains(&expected),
            "{}: no {expected:?} in: {error}",
            name.old
        );
        assert!(error.contains("kd convert"), "{}: {error}", name.old);
    }
}

#[test]
fn a_retired_key_in_a_setting_is_refused_with_its_replacement() {
    for name in KEYS {
        for prefix in ["", "teacher."] {
            let setting = format!("{prefix}{}=1", name.old);
            let recipe = if prefix.is_empty() {
                "student"
            } else {
                "distilled"
            };
            let path = root().join(format!("notebooks/recipes/{recipe}.toml"));
            let error = Recipe::read(path, "full", std::slice::from_ref(&setting))
                .unwrap_err()
                .to_string();
            let expected = replacement(name);
            assert!(
                error.contains(&expected),
                "{setting}: no {expected:?} in: {error}"
            );
        }
    }
}

#[test]
fn a_retired_key_inside_an_inline_table_is_refused() {
    let error = error_of_setting("transfer={made=5}");
    assert!(
        error.contains("write transfer.augmentations_per_text"),
        "{error}"
    );
}

#[test]
fn retired_values_are_refused_with_their_replacement() {
    for name in OBJECTIVES {
        let text = format!("[objective]\nkind = \"{}\"\n", name.old);
        let setting = format!("objective.kind={}", name.old);
        for error in [error_in_file(&text), error_of_setting(&setting)] {
            assert!(error.contains(&replacement(name)), "{}: {error}", name.old);
        }
    }
    for name in AUGMENTATIONS {
        let text = format!("[transfer]\naugmentations = [\"mask\", \"{}\"]\n", name.old);
        let setting = format!("transfer.augmentations=[\"{}\"]", name.old);
        for error in [error_in_file(&text), error_of_setting(&setting)] {
            assert!(error.contains(&replacement(name)), "{}: {error}", name.old);
        }
    }
}

#[test]
fn every_replacement_is_a_name_of_this_version() {
    for name in KEYS.iter().filter(|name| !name.new.is_empty()) {
        assert!(
            KEYS.iter().all(|other| other.old != name.new),
            "{} is retired itself",
            name.new
        );
    }
}

#[test]
fn a_profile_without_a_table_for_the_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let student = root().join("notebooks/recipes/student.toml");
    let path = folder.path().join("student.toml");
    std::fs::copy(student, &path).unwrap();
    std::fs::create_dir(folder.path().join("profiles")).unwrap();
    let profile = folder.path().join("profiles/tiny.toml");
    for text in [
        "[data]\nmax_train_samples = 9\n",
        "[blstm.data]\nmax_length = 9\n",
    ] {
        std::fs::write(&profile, text).unwrap();
        let error = Recipe::read(&path, "tiny", &[]).unwrap_err().to_string();
        assert!(
            error.contains("[bilstm]") && error.contains("[default]"),
            "{error}"
        );
    }
}
