//! `kd convert`: recipes, run folders and stored results of version 0.1 → this version. Names are
//! translated by [`kd_lib::store::retired`]; ids are computed anew, since they hash a recipe's
//! keys. A run's report keeps its old id. A run is converted only if its old id can be computed
//! from its recipe and the files that it names, so that no run gets the id of another experiment.

use anyhow::{Context, Result, bail, ensure};
use kd_lib::files;
use kd_lib::models::Checkpoint;
use kd_lib::precision::Precision;
use kd_lib::store::planned_run::{IdKey, file_hashes, run_id};
use kd_lib::store::{Recipe, Run, StoredResults, retired, run, run_files};
use kd_lib::tch::{Kind, Tensor};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The sets of version 0.1's stored results, which are folders there.
const SETS: [&str; 3] = ["runs", "teachers", "xeon"];
/// The checkpoint files whose hashes version 0.1 put into an id, in its order.
const CHECKPOINT_FILES: [&str; 5] = [
    "model.safetensors",
    "config.json",
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
];
/// Recipes that this project renamed.
const RENAMED_RECIPES: [(&str, &str); 8] = [
    ("published-bert", "published-teacher"),
    ("published-bilstm", "published-student"),
    ("published-bilstm+kd", "published-distilled"),
    ("bilstm+best", "bilstm+aug20-ensemble"),
    ("bilstm+best-512", "bilstm+aug50-ensemble-batch512"),
    ("bilstm-longest-512", "bilstm-longest-batch512"),
    ("bilstm+made-grafts", "bilstm+aug-span-replacement"),
    ("bilstm+made-vectors", "bilstm+aug-embeddings"),
];

/// Converts a recipe, a run's folder or a folder of stored results; returns what was written.
/// `checkpoints` is the folder of named checkpoints.
pub fn convert(path: &Path, checkpoints: &Path) -> Result<String> {
    if path
        .extension()
        .is_some_and(|extension| extension == "toml")
    {
        return convert_recipe(path);
    }
    if path.join("report.json").exists() {
        return convert_run(path, checkpoints);
    }
    if SETS.iter().any(|set| path.join(set).is_dir()) {
        return convert_results(path, checkpoints);
    }
    bail!(
        "{}: neither a recipe (.toml) nor a run's folder",
        path.display()
    )
}

/// Rewrites a recipe's names and keeps its comments. The old file stays as `NAME.toml.0.1`.
fn convert_recipe(path: &Path) -> Result<String> {
    let (text, mut document) = read_toml(path)?;
    let own = |key: &str| document.get("train").and_then(|t| t.get(key)).is_some();
    // Epochs of a recipe with a backup were converted before: the factor of a base is in them
    // already.
    let has_own_length = own("stretch") || (own("epochs") && !backup_of(path).exists());
    let stretch = old_train_number(path, "stretch")?;
    let epochs = old_train_number(path, "epochs")?;
    convert_groups(document.as_table_mut());
    if let (true, Some(stretch), Some(epochs)) = (has_own_length, stretch, epochs) {
        document["train"]["epochs"] = toml_edit::value(stretched(epochs, stretch));
    }
    if let Some(name) = document.get("name").and_then(|name| name.as_str()) {
        let name = rename_recipe(name);
        set_value(&mut document, "name", name);
    }
    for key in ["extends", "teacher"] {
        let file = document.get(key).and_then(|file| file.as_str());
        if let Some(stem) = file.and_then(|file| file.strip_suffix(".toml")) {
            let file = rename_recipe(stem) + ".toml";
            set_value(&mut document, key, file);
        }
    }
    if document.to_string() == text {
        return Ok(format!("{}: nothing to convert", path.display()));
    }
    let backup = backup_of(path);
    files::write_export(&backup, &text)?;
    files::write_text(path, &document.to_string())?;
    Ok(format!("{} (before: {})", path.display(), backup.display()))
}

fn read_toml(path: &Path) -> Result<(String, toml_edit::DocumentMut)> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let document = text.parse().with_context(|| path.display().to_string())?;
    Ok((text, document))
}

fn backup_of(path: &Path) -> PathBuf {
    path.with_extension("toml.0.1")
}

/// A number of `[train]` that a 0.1 recipe has or inherits.
fn old_train_number(path: &Path, key: &str) -> Result<Option<f64>> {
    let mut path = path.to_path_buf();
    let mut seen = vec![path.clone()];
    loop {
        let backup = backup_of(&path);
        let (_, document) = read_toml(if backup.exists() { &backup } else { &path })?;
        let value = document.get("train").and_then(|train| train.get(key));
        if let Some(number) = value.and_then(as_number) {
            return Ok(Some(number));
        }
        match document.get("extends").and_then(|base| base.as_str()) {
            Some(base) => path = path.with_file_name(base),
            None => return Ok(None),
        }
        if seen.contains(&path) {
            bail!("{}: the recipe extends itself", path.display());
        }
        seen.push(path.clone());
    }
}

/// Replaces a value and keeps the comment behind it.
fn set_value(document: &mut toml_edit::DocumentMut, key: &str, text: String) {
    if let Some(value) = document.get_mut(key).and_then(|item| item.as_value_mut()) {
        let decor = value.decor().clone();
        *value = text.into();
        *value.decor_mut() = decor;
    }
}

/// Renames groups and settings in place.
fn convert_groups(document: &mut toml_edit::Table) {
    let groups: Vec<String> = document.iter().map(|(group, _)| group.to_owned()).collect();
    for group in groups {
        let Some((key, mut item)) = document.remove_entry(&group) else {
            continue;
        };
        match &mut item {
            toml_edit::Item::Table(settings) => {
                let keys: Vec<String> = settings.iter().map(|(key, _)| key.to_owned()).collect();
                for name in keys {
                    let Some((key, value)) = settings.remove_entry(&name) else {
                        continue;
                    };
                    if let Some(new) = new_key(&group, &name) {
                        settings.insert_formatted(&renamed(&key, &new), value);
                    }
                }
                convert_values(settings);
            }
            toml_edit::Item::Value(toml_edit::Value::InlineTable(settings)) => {
                let keys: Vec<String> = settings.iter().map(|(key, _)| key.to_owned()).collect();
                for name in keys {
                    let Some(value) = settings.remove(&name) else {
                        continue;
                    };
                    if let Some(new) = new_key(&group, &name) {
                        settings.insert(new, value);
                    }
                }
                convert_values(settings);
            }
            _ => {}
        }
        let new = new_name(&group).unwrap_or(group);
        document.insert_formatted(&renamed(&key, &new), item);
    }
}

/// A key with another name and the same comments around it.
fn renamed(key: &toml_edit::Key, name: &str) -> toml_edit::Key {
    toml_edit::Key::new(name).with_leaf_decor(key.leaf_decor().clone())
}

fn as_number(item: &toml_edit::Item) -> Option<f64> {
    item.as_float().or(item.as_integer().map(|n| n as f64))
}

/// Translates the values of `kind` and `augmentations`.
fn convert_values(settings: &mut dyn toml_edit::TableLike) {
    if let Some(kind) = settings.get("kind").and_then(|kind| kind.as_str())
        && let Some(name) = retired::find(retired::OBJECTIVES, kind)
    {
        settings.insert("kind", toml_edit::value(name.new));
    }
    if let Some(kinds) = settings
        .get_mut("augmentations")
        .and_then(|kinds| kinds.as_array_mut())
    {
        for kind in kinds.iter_mut() {
            let name = kind
                .as_str()
                .and_then(|kind| retired::find(retired::AUGMENTATIONS, kind));
            if let Some(name) = name {
                *kind = name.new.into();
            }
        }
    }
}

/// Epochs times `train.stretch`, to four decimals: version 0.1 wrote factors to four digits.
fn stretched(epochs: f64, stretch: f64) -> f64 {
    (epochs * stretch * 1e4).round() / 1e4
}

/// The new name of a group of settings, if it is retired.
fn new_name(group: &str) -> Option<String> {
    retired::find(retired::KEYS, group).map(|name| name.new.to_owned())
}

/// The new name of a setting in its group; none if the setting is gone.
fn new_key(group: &str, key: &str) -> Option<String> {
    match retired::find(retired::KEYS, &format!("{group}.{key}")) {
        None => Some(key.to_owned()),
        Some(name) => name.new.split_once('.').map(|(_, key)| key.to_owned()),
    }
}

/// A recipe's name in this version.
fn rename_recipe(name: &str) -> String {
    if let Some(searched) = name.strip_prefix("search-") {
        return format!("search-{}", rename_recipe(searched));
    }
    if let Some((_, new)) = RENAMED_RECIPES.iter().find(|(old, _)| *old == name) {
        return (*new).to_owned();
    }
    if let Some((share, kind)) = name.strip_prefix("scarce").and_then(|n| n.split_once('-')) {
        let kind = if kind == "made" { "aug" } else { kind };
        return format!("labels-{share}-{kind}");
    }
    name.replace("+made-three", "+aug-ensemble")
        .replace("+made", "+aug")
}

/// A 0.1 recipe's JSON with this version's names, its teacher's too.
fn convert_recipe_json(old: &Value) -> Result<Recipe> {
    Ok(serde_json::from_value(translate(old))?)
}

fn translate(old: &Value) -> Value {
    let Value::Object(groups) = old else {
        return old.clone();
    };
    let stretch = old["train"]["stretch"].as_f64().unwrap_or(1.0);
    let mut new = serde_json::Map::new();
    for (group, value) in groups {
        let new_group = new_name(group).unwrap_or(group.clone());
        let value = match (group.as_str(), value) {
            ("name", Value::String(name)) => json!(rename_recipe(name)),
            ("teacher", _) => translate(value),
            (group, Value::Object(settings)) => {
                let mut translated = serde_json::Map::new();
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
    let kind = new["objective"]["kind"].as_str().map(str::to_owned);
    if let Some(name) = kind.and_then(|kind| retired::find(retired::OBJECTIVES, &kind)) {
        new["objective"]["kind"] = json!(name.new);
    }
    let augmentations = new
        .get_mut("transfer")
        .and_then(|t| t.get_mut("augmentations"));
    for kind in augmentations
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        let name = kind
            .as_str()
            .and_then(|kind| retired::find(retired::AUGMENTATIONS, kind));
        if let Some(name) = name {
            *kind = json!(name.new);
        }
    }
    new
}

/// A run's new ids: its own, and its teachers' by their old ones.
struct Ids {
    id: String,
    teachers: Vec<(String, String)>,
}

/// Computes the new id of a 0.1 run after checking that its old id can be computed.
fn new_ids(
    old_recipe: &Value,
    old_id: &str,
    old_teachers: &[String],
    corpus: &str,
    precision: Option<Precision>,
    checkpoints: &Path,
) -> Result<(Ids, Precision)> {
    let recipe = convert_recipe_json(old_recipe)?;
    let checkpoint = recipe.model.architecture()?.checkpoint();
    let checkpoint = checkpoint
        .map(|name| Checkpoint::open(checkpoints, name))
        .transpose()?;
    let ingredients = old_ingredients(&recipe, checkpoint.as_ref())?;
    let candidates = match precision {
        Some(precision) => vec![precision],
        None => vec![Precision::Fp32, Precision::Bf16, Precision::Fp16],
    };
    let precision = candidates.into_iter().find(|&precision| {
        old_run_id(old_recipe, precision, corpus, &ingredients, old_teachers) == old_id
    });
    let precision = precision.with_context(|| {
        format!(
            "{old_id}: its id cannot be computed from its recipe and the files here; bring the \
             checkpoint, vocabulary or unlabelled file that it was trained with"
        )
    })?;
    let mut teachers = Vec::new();
    let old_teacher_recipes = old_teacher_recipes(old_recipe);
    for (old, old_recipe) in old_teachers.iter().zip(&old_teacher_recipes) {
        let (ids, _) = new_ids(old_recipe, old, &[], corpus, None, checkpoints)?;
        teachers.push((old.clone(), ids.id));
    }
    ensure!(
        teachers.len() == old_teachers.len(),
        "{old_id}: its teachers are not in its recipe"
    );
    let new_teachers: Vec<String> = teachers.iter().map(|(_, new)| new.clone()).collect();
    let id = run_id(&IdKey {
        recipe: &recipe,
        precision,
        corpus_fingerprint: corpus,
        files: &file_hashes(&recipe, checkpoint.as_ref())?,
        teachers: &new_teachers,
    })?;
    Ok((Ids { id, teachers }, precision))
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

fn old_ingredients(recipe: &Recipe, checkpoint: Option<&Checkpoint>) -> Result<Vec<String>> {
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

/// The id that version 0.1 gave to a run.
fn old_run_id(
    recipe: &Value,
    precision: Precision,
    corpus: &str,
    ingredients: &[String],
    teachers: &[String],
) -> String {
    let name = recipe["name"].as_str().unwrap_or_default();
    let mut decisive = recipe.clone();
    decisive["name"] = json!("");
    decisive["device"] = json!("");
    decisive["teacher"] = Value::Null;
    decisive["train"]["precision"] = json!("auto");
    let teacher = (!teachers.is_empty()).then(|| teachers.join("+"));
    let key = json!({
        "format": if teacher.is_some() { 5 } else { 4 },
        "recipe": decisive,
        "precision": precision,
        "cuda": false,
        "corpus": corpus,
        "ingredients": ingredients,
        "teacher": teacher,
    });
    let hash = blake3::hash(key.to_string().as_bytes()).to_hex();
    format!("{name}-{}", &hash[..12])
}

/// The new report of a 0.1 run, and its teachers' ids.
fn convert_report(folder: &Path, checkpoints: &Path) -> Result<(Value, Ids)> {
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
    let (ids, _) = new_ids(
        &old_recipe,
        &old_id,
        &teachers,
        &corpus,
        Some(precision),
        checkpoints,
    )?;
    report["recipe"] = serde_json::to_value(convert_recipe_json(&old_recipe)?)?;
    report["format"] = json!(run::FORMAT);
    report["id"] = json!(ids.id);
    report["previous_id"] = json!(old_id);
    let new_teachers: Vec<&str> = ids.teachers.iter().map(|(_, new)| new.as_str()).collect();
    report["teachers"] = json!(new_teachers);
    if let Some(object) = report.as_object_mut() {
        object.remove("teacher");
    }
    Ok((report, ids))
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
fn convert_run(folder: &Path, checkpoints: &Path) -> Result<String> {
    run_files::verify_checksums(folder)?;
    let (report, ids) = convert_report(folder, checkpoints)?;
    let new = folder.with_file_name(&ids.id);
    ensure!(
        !new.exists(),
        "{}: exists already; move it away",
        new.display()
    );
    std::fs::create_dir_all(&new).with_context(|| new.display().to_string())?;
    for path in files::sorted_entries(folder)? {
        let name = files::file_name(&path);
        let target = new.join(name);
        match name {
            "report.json" | "b3sums" | ".lock" => {}
            "curve.csv" => convert_curve(&path, &target)?,
            "model.json" => convert_model(&path, &target, &report)?,
            "taught_by.json" => convert_taught_by(&path, &target, &ids)?,
            "pieces.json" => {
                convert_tokenizer_settings(&path, &new.join("tokenizer_settings.json"))?;
            }
            "answers" => copy_folder(&path, &new.join("predictions"))?,
            _ if path.is_file() => {
                std::fs::copy(&path, &target).with_context(|| target.display().to_string())?;
            }
            _ => {}
        }
    }
    files::write_json(&new.join("report.json"), &report)?;
    run_files::write_checksums(&new)?;
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
fn convert_curve(from: &Path, to: &Path) -> Result<()> {
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

fn convert_taught_by(from: &Path, to: &Path, ids: &Ids) -> Result<()> {
    let old: BTreeMap<String, String> = files::read_json(from)?;
    Ok(files::write_json(to, &rename_teachers(&old, ids))?)
}

fn rename_teachers(old: &BTreeMap<String, String>, ids: &Ids) -> BTreeMap<String, String> {
    let mut new = BTreeMap::new();
    for (id, weights) in old {
        let renamed = ids.teachers.iter().find(|(old, _)| old == id);
        new.insert(renamed.map_or(id, |(_, new)| new).clone(), weights.clone());
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

/// Converts a folder of stored results: one folder per run → few files. The folders stay.
fn convert_results(folder: &Path, checkpoints: &Path) -> Result<String> {
    let converted = tempfile_folder(folder)?;
    let mut runs = Vec::new();
    for set in SETS.iter().filter(|set| folder.join(set).is_dir()) {
        for old in files::sorted_entries(&folder.join(set))? {
            if old.join("report.json").exists() {
                let run = convert_stored_run(&old, &converted.join(set), checkpoints)
                    .with_context(|| old.display().to_string())?;
                runs.push(((*set).to_owned(), run));
            }
        }
    }
    StoredResults::write(folder, &runs)?;
    std::fs::remove_dir_all(&converted)?;
    Ok(format!("{}: {} runs", folder.display(), runs.len()))
}

fn tempfile_folder(folder: &Path) -> Result<PathBuf> {
    let path = folder.join(".converting");
    std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// A stored run of version 0.1 as a run's folder of this version.
fn convert_stored_run(old: &Path, target: &Path, checkpoints: &Path) -> Result<Run> {
    let (report, ids) = convert_report(old, checkpoints)?;
    let new = target.join(&ids.id);
    std::fs::create_dir_all(&new)?;
    convert_curve(&old.join("curve.csv"), &new.join("curve.csv"))?;
    std::fs::copy(old.join("labels.json"), new.join("labels.json"))?;
    let taught_by = old.join("taught_by.json");
    if taught_by.exists() {
        convert_taught_by(&taught_by, &new.join("taught_by.json"), &ids)?;
    }
    if old.join("test.csv").exists() {
        convert_predictions(&old.join("test.csv"), &new.join("test.safetensors"))?;
    }
    files::write_json(&new.join("report.json"), &report)?;
    run_files::write_checksums(&new)?;
    Ok(Run::open(&new)?)
}

/// Predicted classes as logits, 1 for the predicted class and 0 for others: a run's folder has
/// logits, of which only the predicted classes are stored again.
fn convert_predictions(from: &Path, to: &Path) -> Result<()> {
    let text = std::fs::read_to_string(from).with_context(|| from.display().to_string())?;
    let (mut labels, mut classes) = (Vec::new(), Vec::new());
    for line in text.lines().skip(1) {
        let (label, class) = line.split_once(',').context("a line without a comma")?;
        labels.push(label.parse::<i64>()?);
        classes.push(class.parse::<i64>()?);
    }
    let classes = Tensor::from_slice(&classes);
    let count = classes.max().int64_value(&[]) + 1;
    let logits = classes.onehot(count).to_kind(Kind::Float);
    let labels = Tensor::from_slice(&labels);
    let tensors = [
        ("logits".to_owned(), &logits),
        ("labels".to_owned(), &labels),
    ];
    Ok(files::write_tensors(to, tensors)?)
}
