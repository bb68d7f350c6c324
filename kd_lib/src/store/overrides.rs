//! How a recipe's file becomes one TOML table: the recipe that it extends lies at the bottom; the
//! file itself, a profile and `key=value` settings override its keys in this order. See
//! [`super::recipe`] for the meaning of the keys.

use super::retired;
use crate::models::MODEL_KINDS;
use crate::{Error, Result};
use std::path::Path;
use toml::{Table, Value};

/// Longest chain of recipes that extend one another. A longer one is taken for a cycle.
const MAX_CHAIN: usize = 64;
/// The section of a profile for the kinds of model that have no section of their own.
pub const DEFAULT: &str = "default";
/// The key of a profile that scales a recipe's epochs, as a ratio of whole numbers.
const EPOCHS_SCALE: &str = "epochs_scale";

pub(crate) fn read_table(path: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    let bad = |e: toml::de::Error| Error::file(path, e.to_string().trim_end(), "correct the TOML");
    text.parse().map_err(bad)
}

/// A recipe's table over that of the recipe that its `extends` names, and so on.
pub(crate) fn read_extended(path: &Path) -> Result<Table> {
    let mut table = read_table(path)?;
    retired::refuse_keys(&table, path)?;
    let mut path = path.to_path_buf();
    for _ in 0..MAX_CHAIN {
        let Some(base) = table.remove("extends") else {
            return Ok(table);
        };
        let fix = "write extends = \"student.toml\", the name of a recipe in the same folder";
        let not_a_name = || Error::file(&path, "extends is not a file name", fix);
        let base = base.as_str().ok_or_else(not_a_name)?;
        path = path.with_file_name(base);
        let mut merged = read_table(&path)?;
        retired::refuse_keys(&merged, &path)?;
        override_keys(&mut merged, table);
        table = merged;
    }
    let fix = "let the chain end in a recipe that extends none";
    Err(Error::file(
        &path,
        "extends itself through other recipes",
        fix,
    ))
}

pub(crate) fn read_with_profile(path: &Path, profile: &str) -> Result<Table> {
    let mut table = read_extended(path)?;
    let profile_path = path
        .with_file_name("profiles")
        .join(format!("{profile}.toml"));
    if profile == "full" && !profile_path.exists() {
        return Ok(table);
    }
    if !profile_path.exists() {
        let problem = format!("no profile {profile:?}");
        let fix = "choose smoke, quick or full, or write profiles/NAME.toml in the recipe's folder";
        return Err(Error::file(&profile_path, problem, fix));
    }
    let mut profiles = read_table(&profile_path)?;
    let kind = table
        .get("model")
        .and_then(|m| m.get("kind"))
        .and_then(Value::as_str);
    let kind = kind.unwrap_or_default().to_owned();
    let profile = profiles.remove(&kind).or_else(|| profiles.remove(DEFAULT));
    let Some(Value::Table(mut profile)) = profile else {
        let problem = format!("no table [{kind}] and none named [{DEFAULT}]");
        let fix = "write its settings as [default.data], [default.train] and so on";
        return Err(Error::file(&profile_path, problem, fix));
    };
    let is_section = |name: &str| name == DEFAULT || MODEL_KINDS.contains(&name);
    if let Some(odd) = profiles.keys().find(|name| !is_section(name)) {
        let problem = format!("the section {odd:?}");
        let fix = format!(
            "name [{DEFAULT}.…] or a kind of model: {}",
            MODEL_KINDS.join(", ")
        );
        return Err(Error::file(&profile_path, problem, fix));
    }
    if let Some(ratio) = profile.remove(EPOCHS_SCALE) {
        scale_epochs(&mut table, &ratio, &profile_path)?;
    }
    retired::refuse_keys(&profile, &profile_path)?;
    override_keys(&mut table, profile);
    Ok(table)
}

/// Multiplies a recipe's epochs by a ratio `[n, d]`, so that ratios of length between recipes are
/// the same under every profile.
fn scale_epochs(table: &mut Table, ratio: &Value, profile: &Path) -> Result<()> {
    let whole = |at: usize| ratio.get(at).and_then(Value::as_integer).filter(|&n| n > 0);
    let (Some(n), Some(d)) = (whole(0), whole(1)) else {
        let fix = "write epochs_scale = [2, 3], two whole numbers above 0";
        return Err(Error::file(
            profile,
            format!("{EPOCHS_SCALE} is {ratio}"),
            fix,
        ));
    };
    let Some(train) = table.get_mut("train").and_then(Value::as_table_mut) else {
        return Ok(());
    };
    let epochs = match train.get("epochs") {
        Some(Value::Integer(epochs)) => *epochs as f64,
        Some(Value::Float(epochs)) => *epochs,
        _ => return Ok(()),
    };
    train.insert("epochs".into(), Value::Float(epochs * n as f64 / d as f64));
    Ok(())
}

fn override_keys(base: &mut Table, overrides: Table) {
    for (key, value) in overrides {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(above)) if is_same_kind(inner, &above) => {
                override_keys(inner, above);
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// Settings of another `kind` replace all settings of the former one.
fn is_same_kind(inner: &Table, above: &Table) -> bool {
    above
        .get("kind")
        .is_none_or(|kind| inner.get("kind") == Some(kind))
}

/// The keys `a.b.c` that a setting gives a value: `data={max_length=16}` sets `data.max_length`.
pub fn keys(setting: &str) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    add_keys(&parse(setting)?, "", &mut keys);
    Ok(keys)
}

fn add_keys(table: &Table, prefix: &str, keys: &mut Vec<String>) {
    for (key, value) in table {
        match value {
            Value::Table(inner) => add_keys(inner, &format!("{prefix}{key}."), keys),
            _ => keys.push(format!("{prefix}{key}")),
        }
    }
}

/// A setting as settings of one key each: `data={max_length=16}` is `data.max_length=16`. A table
/// with a `kind` stays whole, since it replaces the settings of another kind.
pub fn one_key_each(setting: &str) -> Result<Vec<String>> {
    let mut settings = Vec::new();
    add_settings(&parse(setting)?, "", &mut settings);
    Ok(settings)
}

fn add_settings(table: &Table, prefix: &str, settings: &mut Vec<String>) {
    for (key, value) in table {
        match value {
            Value::Table(inner) if is_group(inner) => {
                add_settings(inner, &format!("{prefix}{key}."), settings);
            }
            _ => settings.push(format!("{prefix}{key}={value}")),
        }
    }
}

/// Whether a table can be written as settings of one key each.
fn is_group(table: &Table) -> bool {
    let is_bare = |key: &String| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        !key.is_empty() && key.chars().all(allowed)
    };
    !table.is_empty() && !table.contains_key("kind") && table.keys().all(is_bare)
}

/// Sets `a.b.c=value` in a table.
pub(crate) fn set(table: &mut Table, setting: &str) -> Result<()> {
    override_keys(table, parse(setting)?);
    Ok(())
}

/// `a.b.c=value` as a table of tables. The value is TOML, or else a string.
fn parse(setting: &str) -> Result<Table> {
    let fix = "write --set key=value, for example --set optimizer.learning_rate=2e-5";
    let no_value = || Error::recipe(setting, "no '='", fix);
    let (key, value) = setting.split_once('=').ok_or_else(no_value)?;
    let key = key.trim();
    retired::refuse_key(key)?;
    let mut parsed: Table = format!("value = {value}").parse().unwrap_or_default();
    let nested = parsed.remove("value");
    if !parsed.is_empty() {
        let fix = "give each setting an option of its own: --set KEY=VALUE --set KEY=VALUE";
        return Err(Error::recipe(key, "several settings in one", fix));
    }
    let mut nested = nested.unwrap_or_else(|| Value::String(value.into()));
    let mut parts: Vec<&str> = key.split('.').map(str::trim).collect();
    let first = parts.remove(0);
    for part in parts.into_iter().rev() {
        nested = Value::Table(Table::from_iter([(part.to_owned(), nested)]));
    }
    Ok(Table::from_iter([(first.to_owned(), nested)]))
}
