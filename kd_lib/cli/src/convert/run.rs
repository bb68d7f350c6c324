//! Run folders of version 0.1: a run is converted only if its old id can be computed from its recipe
//! and the files that it names.

use super::names::{new_augmentation, new_key, new_name, new_objective, rename_recipe, stretched};
use anyhow::{Context, Result, ensure};
use kd_lib::files;
use kd_lib::models::Checkpoint;
use kd_lib::precision::Precision;
use kd_lib::store::planned_run::{IdKey, file_hashes, run_id};
use kd_lib::store::{Recipe, Run, run, run_files};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The checkpoint files whose hashes version 0.1 put into an id, in its order.
const CHECKPOINT_FILES: [&str; 5] = [
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
];

/// A 0.1 recipe's JSON with this version's names, its teacher's too.
fn convert_recipe_json(old: &Value) -> Result<Recipe> {
    Ok(serde_json::from_value(translate(old))?)
}

fn translate(old: &Value) -> Value {
    let Value::Object(groups) = old else {
        return old.clone();
    };
    let stretch = old["train"]["stretch"].as_f64().unwrap_or(1.0);
    let mut new = Map::new();
    for (group, value) in groups {
        let new_group = new_name(group).unwrap_or(group.clone());
        let value = match (group.as_str(), value) {
            ("name", Value::String(name)) => json!(rename_recipe(name)),
            ("teacher", _) => translate(value),
            (group, Value::Object(settings)) => {
                let mut translated = Map::new();
                for (key, value) in settings {
                    if let Some(key) = new_key(group, key) {
                        translated.insert(key, value.clone());
                    }
                }
                Value::Object(translated)
            }
            _ => value.clone(),
        };
        new.insert(new_group, value);
    }
    let mut new = Value::Object(new);
    if let Some(epochs) = new["train"]["epochs"].as_f64() {
        new["train"]["epochs"] = json!(stretched(epochs, stretch));
    }
    if let Some(kind) = new["objective"]["kind"].as_str().and_then(new_objective) {
        new["objective"]["kind"] = json!(kind);
    }
    let augmentations = new.pointer_mut("/transfer/augmentations");
    for kind in augmentations
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        if let Some(new) = kind.as_str().and_then(new_augmentation) {
            *kind = json!(new);
        }
    }
    new
}

/// A run of version 0.1, as far as its id depends on it.
struct OldRun<'a> {
    id: &'a str,
    recipe: &'a Value,
    /// Ids of the teachers' runs.
    teachers: &'a [String],
    corpus_fingerprint: &'a str,
    /// None where only the id tells it: of a teacher whose report is not there.
    precision: Option<Precision>,
}

/// A run's new ids: its own, and its teachers'.
pub(super) struct NewIds {
    pub id: String,
    teachers: Vec<RenamedTeacher>,
}

/// The ids of a teacher's run.
struct RenamedTeacher {
    old: String,
    new: String,
}

impl OldRun<'_> {
    /// Computes the new ids, after checking that the old id can be computed.
    fn new_ids(&self, checkpoints: &Path) -> Result<NewIds> {
        let recipe = convert_recipe_json(self.recipe)?;
        let checkpoint = recipe.model.architecture()?.checkpoint();
        let checkpoint = checkpoint
            .map(|name| Checkpoint::open(checkpoints, name))
            .transpose()?;
        let hashes = old_file_hashes(&recipe, checkpoint.as_ref())?;
        let candidates = match self.precision {
            Some(precision) => vec![precision],
            None => vec![Precision::Fp32, Precision::Bf16, Precision::Fp16],
        };
        let precision = candidates
            .into_iter()
            .find(|&precision| self.computed_id(precision, &hashes) == self.id);
        let precision = precision.with_context(|| {
            format!(
                "{}: its id cannot be computed from its recipe and the files here; bring the \
                 checkpoint, vocabulary or unlabelled file that it was trained with",
                self.id
            )
        })?;
        let mut teachers = Vec::new();
        for (old, recipe) in self.teachers.iter().zip(&old_teacher_recipes(self.recipe)) {
            let teacher = OldRun {
                id: old,
                recipe,
                teachers: &[],
                corpus_fingerprint: self.corpus_fingerprint,
                precision: None,
            };
            teachers.push(RenamedTeacher {
                old: old.clone(),
                new: teacher.new_ids(checkpoints)?.id,
            });
        }
        ensure!(
            teachers.len() == self.teachers.len(),
            "{}: its teachers are not in its recipe",
            self.id
        );
        let new_teachers: Vec<String> = teachers.iter().map(|t| t.new.clone()).collect();
        let id = run_id(&IdKey {
            recipe: &recipe,
            precision,
            corpus_fingerprint: self.corpus_fingerprint,
            files: &file_hashes(&recipe, checkpoint.as_ref())?,
            teachers: &new_teachers,
        })?;
        Ok(NewIds { id, teachers })
    }

    /// The id that version 0.1 gave to a run of this precision.
    fn computed_id(&self, precision: Precision, file_hashes: &[String]) -> String {
        let name = self.recipe["name"].as_str().unwrap_or_default();
        let mut decisive = self.recipe.clone();
        decisive["name"] = json!("");
        decisive["device"] = json!("");
        decisive["teacher"] = Value::Null;
        decisive["train"]["precision"] = json!("auto");
        let teacher = (!self.teachers.is_empty()).then(|| self.teachers.join("+"));
        let key = json!({
            "format": if teacher.is_some() { 5 } else { 4 },
            "recipe": decisive,
            "precision": precision,
            "cuda": false,
            "corpus": self.corpus_fingerprint,
            "ingredients": file_hashes,
            "teacher": teacher,
        });
        let hash = blake3::hash(key.to_string().as_bytes()).to_hex();
        format!("{name}-{}", &hash[..12])
    }
}

/// The 0.1 recipes of a run's teachers.
fn old_teacher_recipes(recipe: &Value) -> Vec<Value> {
    let teacher = &recipe["teacher"];
    if teacher.is_null() {
        return Vec::new();
    }
    let with = |group: Option<&str>, key: &str, value: Value| {
        let mut teacher = teacher.clone();
        match group {
            Some(group) => teacher[group][key] = value,
            None => teacher[key] = value,
        }
        teacher
    };
    if let Some(seeds) = recipe["teaching"]["seeds"].as_array() {
        return seeds
            .iter()
            .map(|seed| with(None, "seed", seed.clone()))
            .collect();
    }
    if let Some(folds) = recipe["teaching"]["folds"].as_u64() {
        let with_fold = |fold| with(Some("data"), "fold", json!([folds, fold]));
        return (0..folds).map(with_fold).collect();
    }
    vec![teacher.clone()]
}

/// Hashes of the files that version 0.1 put into an id.
fn old_file_hashes(recipe: &Recipe, checkpoint: Option<&Checkpoint>) -> Result<Vec<String>> {
    let mut paths: Vec<PathBuf> = Vec::new();
    if let Some(checkpoint) = checkpoint {
        paths.extend(
            CHECKPOINT_FILES
                .iter()
                .map(|name| checkpoint.folder.join(name)),
        );
        paths.retain(|path| path.exists());
    }
    paths.extend(recipe.model.architecture()?.files());
    paths.extend(
        recipe
            .transfer
            .as_ref()
            .and_then(|t| t.unlabelled_file.clone()),
    );
    paths
        .iter()
        .map(|path| Ok(files::hash_file(path)?))
        .collect()
}

/// The new report of a 0.1 run, and its ids.
pub(super) struct ConvertedReport {
    pub report: Value,
    pub ids: NewIds,
}

pub(super) fn convert_report(folder: &Path, checkpoints: &Path) -> Result<ConvertedReport> {
    let mut report: Value = files::read_json(&folder.join("report.json"))?;
    ensure!(
        report["format"] == 1,
        "{}: not a run of version 0.1",
        folder.display()
    );
    let old_id = report["id"].as_str().unwrap_or_default().to_owned();
    let teachers = report["teacher"].as_str().unwrap_or_default();
    let teachers: Vec<String> = teachers
        .split('+')
        .filter(|t| !t.is_empty())
        .map(str::to_owned)
        .collect();
    let teachers = join_split_names(teachers);
    let corpus = report["corpus_fingerprint"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let precision: Precision = serde_json::from_value(report["precision"].clone())?;
    let old_recipe = report["recipe"].take();
    let old = OldRun {
        id: &old_id,
        recipe: &old_recipe,
        teachers: &teachers,
        corpus_fingerprint: &corpus,
        precision: Some(precision),
    };
    let ids = old.new_ids(checkpoints)?;
    report["recipe"] = serde_json::to_value(convert_recipe_json(&old_recipe)?)?;
    report["format"] = json!(run::FORMAT);
    report["id"] = json!(ids.id);
    report["previous_id"] = json!(old_id);
    let new_teachers: Vec<&str> = ids.teachers.iter().map(|t| t.new.as_str()).collect();
    report["teachers"] = json!(new_teachers);
    if let Some(object) = report.as_object_mut() {
        object.remove("teacher");
    }
    Ok(ConvertedReport { report, ids })
}

/// Version 0.1 joined teachers' ids by `+`, which names contain too: an id ends with its hash.
fn join_split_names(parts: Vec<String>) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    let mut open = String::new();
    for part in parts {
        if !open.is_empty() {
            open.push('+');
        }
        open += &part;
        let hash = open.rsplit('-').next().unwrap_or_default();
        if hash.len() == 12 && hash.chars().all(|c| c.is_ascii_hexdigit()) {
            ids.push(std::mem::take(&mut open));
        }
    }
    ids
}

/// Writes a run's folder under its new id next to the old one, which stays as it is.
pub(super) fn convert_run(folder: &Path, checkpoints: &Path) -> Result<String> {
    // `.` has no name beside which a folder could be written.
    let folder = match folder.file_name() {
        Some(_) => folder.to_path_buf(),
        None => folder.canonicalize()?,
    };
    let folder = folder.as_path();
    run_files::verify_checksums(folder)?;
    let ConvertedReport { report, ids } = convert_report(folder, checkpoints)?;
    let new = folder.with_file_name(&ids.id);
    ensure!(
        !new.exists(),
        "{}: exists already; move it away",
        new.display()
    );
    // The folder gets its name when it is whole.
    let partial = folder.with_file_name(format!(".converting-{}", ids.id));
    if partial.exists() {
        std::fs::remove_dir_all(&partial).with_context(|| partial.display().to_string())?;
    }
    std::fs::create_dir_all(&partial).with_context(|| partial.display().to_string())?;
    for path in files::sorted_entries(folder)? {
        let name = files::file_name(&path);
        let target = partial.join(name);
        match name {
            "report.json" | "b3sums" | ".lock" => {}
            "curve.csv" => convert_curve(&path, &target)?,
            "model.json" => convert_model(&path, &target, &report)?,
            "taught_by.json" => convert_taught_by(&path, &target, &ids)?,
            "pieces.json" => {
                convert_tokenizer_settings(&path, &partial.join("tokenizer_settings.json"))?;
            }
            "answers" => copy_folder(&path, &partial.join("predictions"))?,
            _ if path.is_file() => {
                std::fs::copy(&path, &target).with_context(|| target.display().to_string())?;
            }
            _ => {}
        }
    }
    files::write_json(&partial.join("report.json"), &report)?;
    run_files::write_checksums(&partial)?;
    std::fs::rename(&partial, &new).with_context(|| new.display().to_string())?;
    let run = Run::open(&new)?;
    Ok(format!(
        "{} (before: {})",
        run.folder()?.display(),
        folder.display()
    ))
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for path in files::sorted_entries(from)?
        .into_iter()
        .filter(|path| path.is_file())
    {
        std::fs::copy(&path, to.join(files::file_name(&path)))?;
    }
    Ok(())
}

/// Renames the columns of a curve.
pub(super) fn convert_curve(from: &Path, to: &Path) -> Result<()> {
    let text = std::fs::read_to_string(from).with_context(|| from.display().to_string())?;
    let (header, rows) = text.split_once('\n').unwrap_or((&text, ""));
    let renamed = header.split(',').map(|column| match column {
        "hard" => "hard_loss",
        "soft" => "soft_loss",
        "products" => "compute_dtype",
        other => other,
    });
    let header = renamed.collect::<Vec<_>>().join(",");
    Ok(files::write_text(to, &format!("{header}\n{rows}"))?)
}

/// `model.json`: what a model can be built from again.
fn convert_model(from: &Path, to: &Path, report: &Value) -> Result<()> {
    let old: Value = files::read_json(from)?;
    let config = &old["config"];
    let sizes = match old["kind"].as_str() {
        Some("bert") => json!({
            "vocab_size": config["vocab_size"],
            "num_labels": old["classes"],
            "checkpoint": config,
        }),
        _ => json!({ "vocab_size": config["vocabulary"], "num_labels": config["classes"] }),
    };
    let new = json!({ "model": report["recipe"]["model"], "sizes": sizes });
    Ok(files::write_json(to, &new)?)
}

pub(super) fn convert_taught_by(from: &Path, to: &Path, ids: &NewIds) -> Result<()> {
    let old: BTreeMap<String, String> = files::read_json(from)?;
    Ok(files::write_json(to, &rename_teachers(&old, ids))?)
}

fn rename_teachers(old: &BTreeMap<String, String>, ids: &NewIds) -> BTreeMap<String, String> {
    let mut new = BTreeMap::new();
    for (id, weights) in old {
        let renamed = ids.teachers.iter().find(|teacher| teacher.old == *id);
        let new_id = renamed.map_or(id, |teacher| &teacher.new);
        new.insert(new_id.clone(), weights.clone());
    }
    new
}

fn convert_tokenizer_settings(from: &Path, to: &Path) -> Result<()> {
    let old: Value = files::read_json(from)?;
    let new = json!({
        "prefix": old["prefix"],
        "max_length": old["max_tokens"],
        "truncation": old.get("cut").cloned().unwrap_or(json!("head")),
        "pad_id": old["pad"],
        "unk_id": old["unk"],
        "kept_ids": old["kept"],
    });
    Ok(files::write_json(to, &new)?)
}
