//! Recipes of version 0.1 as files: names are translated, comments stay.

use super::names::{new_augmentation, new_key, new_name, new_objective, rename_recipe, stretched};
use anyhow::{Context, Result, bail};
use kd_lib::files;
use kd_lib::models::MODEL_KINDS;
use kd_lib::store::overrides::DEFAULT;
use std::path::{Path, PathBuf};
use toml_edit::{DocumentMut, Item, Key, Table, TableLike};

/// Rewrites a recipe's names and keeps its comments. The old file stays as `NAME.toml.0.1`.
pub(super) fn convert_recipe(path: &Path) -> Result<String> {
    let (text, mut document) = read_toml(path)?;
    let own = |key: &str| document.get("train").and_then(|t| t.get(key)).is_some();
    // Epochs of a recipe with a backup were converted before: the factor of a base is in them
    // already.
    let has_own_length = own("stretch") || (own("epochs") && !backup_of(path).exists());
    let stretch = old_train_number(path, "stretch")?;
    let epochs = old_train_number(path, "epochs")?;
    if own("stretch") && epochs.is_none() {
        bail!(
            "{}: train.stretch multiplies train.epochs, which neither this recipe nor one that it \
             extends has; write train.epochs",
            path.display()
        );
    }
    convert_groups(document.as_table_mut()).with_context(|| path.display().to_string())?;
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
            let new = rename_recipe(stem) + ".toml";
            // A recipe of the user's keeps its file, so what names it keeps the name.
            if !path.with_file_name(format!("{stem}.toml")).exists() {
                set_value(&mut document, key, new);
            }
        }
    }
    if document.to_string() == text {
        return Ok(format!("{}: nothing to convert", path.display()));
    }
    let backup = backup_of(path);
    files::write_export(&backup, &text)?;
    // The file behind a link, with its permissions.
    let target = path.canonicalize()?;
    let permissions = std::fs::metadata(&target)?.permissions();
    files::write_text(&target, &document.to_string())?;
    std::fs::set_permissions(&target, permissions)?;
    Ok(format!("{} (before: {})", path.display(), backup.display()))
}

fn read_toml(path: &Path) -> Result<(String, DocumentMut)> {
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
fn set_value(document: &mut DocumentMut, key: &str, text: String) {
    if let Some(value) = document.get_mut(key).and_then(|item| item.as_value_mut()) {
        let decor = value.decor().clone();
        *value = text.into();
        *value.decor_mut() = decor;
    }
}

/// Renames groups and settings in place, also those in the sections of a profile.
fn convert_groups(document: &mut Table) -> Result<()> {
    let groups: Vec<String> = document.iter().map(|(group, _)| group.to_owned()).collect();
    for group in groups {
        let Some((key, mut item)) = document.remove_entry(&group) else {
            continue;
        };
        let is_section = group == DEFAULT || MODEL_KINDS.contains(&group.as_str());
        match item.as_table_mut().filter(|_| is_section) {
            Some(section) => convert_groups(section)?,
            None => {
                if let Some(settings) = item.as_table_like_mut() {
                    convert_settings(&group, settings)?;
                }
            }
        }
        let new = new_name(&group).unwrap_or(group);
        document.insert_formatted(&renamed(&key, &new), item);
    }
    Ok(())
}

/// Renames the settings of a group, and translates the values of `kind` and `augmentations`.
///
/// # Errors
/// If two names of one setting are there: one of the values would be lost.
fn convert_settings(group: &str, settings: &mut dyn TableLike) -> Result<()> {
    let names: Vec<String> = settings.iter().map(|(name, _)| name.to_owned()).collect();
    for name in names {
        let key = settings.key(&name).cloned();
        let (Some(key), Some(value)) = (key, settings.remove(&name)) else {
            continue;
        };
        if let Some(new) = new_key(group, &name) {
            if settings.contains_key(&new) {
                bail!("{group}.{name} and {group}.{new} are one setting; remove one of them");
            }
            settings.entry_format(&renamed(&key, &new)).or_insert(value);
        }
    }
    let kind = settings.get("kind").and_then(Item::as_str);
    if let Some(new) = kind.and_then(new_objective) {
        settings.insert("kind", toml_edit::value(new));
    }
    let augmentations = settings.get_mut("augmentations");
    let augmentations = augmentations.and_then(Item::as_array_mut);
    for kind in augmentations.into_iter().flat_map(|kinds| kinds.iter_mut()) {
        if let Some(new) = kind.as_str().and_then(new_augmentation) {
            *kind = new.into();
        }
    }
    Ok(())
}

/// A key with another name and the same comments around it.
fn renamed(key: &Key, name: &str) -> Key {
    Key::new(name).with_leaf_decor(key.leaf_decor().clone())
}

fn as_number(item: &Item) -> Option<f64> {
    item.as_float().or(item.as_integer().map(|n| n as f64))
}
