//! `kd distill --profile`: the recipes of the teacher, the student without distillation and the distilled
//! student, from one list of settings.

use kd_lib::Result;
use kd_lib::store::{Recipe, overrides};
use std::path::Path;

/// Settings that go to all three recipes: there is one corpus, and one machine.
const SHARED: [&str; 2] = ["data", "device"];

/// Settings that go to the distilled student only.
const DISTILLED_ONLY: [&str; 4] = [
    "objective",
    "ensemble",
    "transfer",
    "train.final_temperature",
];

/// The three recipes of a distillation.
pub struct Recipes {
    pub teacher: Recipe,
    pub student: Recipe,
    pub distilled: Recipe,
}

/// Reads the three recipes of a folder with the settings that concern each.
pub fn recipes(folder: &Path, profile: &str, set: &[String], seed: Option<u64>) -> Result<Recipes> {
    let (mut teacher, mut student, mut distilled) = (Vec::new(), Vec::new(), Vec::new());
    let mut settings = Vec::new();
    for setting in set {
        // `data={max_length=16}` and `data.max_length=16` are the same setting.
        settings.extend(overrides::one_key_each(setting)?);
    }
    for setting in &settings {
        let key = setting.split('=').next().unwrap_or_default();
        let begins_with = |groups: &[&str]| {
            groups.iter().any(|group| {
                let rest = key.strip_prefix(group);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        if let Some(teacher_setting) = setting.strip_prefix("teacher.") {
            teacher.push(teacher_setting.to_owned());
            distilled.push(setting.clone());
        } else if begins_with(&SHARED) {
            teacher.push(setting.clone());
            student.push(setting.clone());
            distilled.push(setting.clone());
            distilled.push(format!("teacher.{setting}"));
        } else if begins_with(&DISTILLED_ONLY) {
            distilled.push(setting.clone());
        } else {
            student.push(setting.clone());
            distilled.push(setting.clone());
        }
    }
    if let Some(seed) = seed {
        student.push(format!("seed={seed}"));
        distilled.push(format!("seed={seed}"));
    }
    let read = |name: &str, set: &[String]| Recipe::read(folder.join(name), profile, set);
    Ok(Recipes {
        teacher: read("teacher.toml", &teacher)?,
        student: read("student.toml", &student)?,
        distilled: read("distilled.toml", &distilled)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_setting_reaches_all_three_recipes_however_it_is_written() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../notebooks/recipes");
        for setting in [
            "data.max_length=16",
            " data.max_length=16",
            "data = { max_length = 16 }",
            "data . max_length = 16",
        ] {
            let recipes = recipes(&folder, "full", &[setting.to_owned()], None).unwrap();
            let distilled_teacher = recipes.distilled.teacher.as_deref().unwrap();
            let all = [
                &recipes.teacher,
                &recipes.student,
                &recipes.distilled,
                distilled_teacher,
            ];
            for recipe in all {
                assert_eq!(recipe.data.max_length, 16, "{setting:?}: {}", recipe.name);
            }
        }
    }

    #[test]
    fn a_setting_in_braces_goes_where_the_same_setting_with_points_goes() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../notebooks/recipes");
        let set = [
            "train={final_temperature=2.0}".to_owned(),
            "teacher={train={epochs=1}}".to_owned(),
        ];
        let recipes = recipes(&folder, "full", &set, None).unwrap();
        assert_eq!(recipes.distilled.train.final_temperature, Some(2.0));
        assert_eq!(recipes.student.train.final_temperature, None);
        assert_eq!(recipes.teacher.train.epochs, 1.0);
        let several_lines = [r#"teacher.model.prefix="Instruct:\nQuery: ""#.to_owned()];
        let with_prefix = super::recipes(&folder, "full", &several_lines, None).unwrap();
        let kd_lib::models::ModelConfig::Bert(bert) = &with_prefix.teacher.model else {
            panic!("a BERT");
        };
        assert_eq!(bert.prefix, "Instruct:\nQuery: ");
        assert_eq!(recipes.distilled.teacher.unwrap().train.epochs, 1.0);
    }
}
