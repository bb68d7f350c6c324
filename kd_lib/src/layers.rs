//! How a recipe's file becomes one table: the recipe that it extends lies at the bottom, a profile and then
//! `key=value` settings are laid over it. What the keys mean is [`crate::recipe`]'s business.

use crate::{Error, Result};
use std::path::Path;
use toml::{Table, Value};

/// Recipes that may extend one another in a row; a longer chain is taken for a circle.
const LONGEST_CHAIN: usize = 64;

pub(crate) fn read_table(path: &Path) -> Result<Table> {
    let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
    text.parse().map_err(|e: toml::de::Error| Error::file(path, e.to_string().trim_end(), "correct the TOML there"))
}

/// A recipe's table, laid over the one that its `extends` names, and so on.
pub(crate) fn read_extended(path: &Path) -> Result<Table> {
    let mut table = read_table(path)?;
    let mut path = path.to_path_buf();
    for _ in 0..LONGEST_CHAIN {
        let Some(base) = table.remove("extends") else { return Ok(table) };
        let fix = "write extends = \"student.toml\", the name of a recipe beside this one";
        let base = base.as_str().ok_or_else(|| Error::file(&path, "extends is not a file name", fix))?;
        path = path.with_file_name(base);
        let mut whole = read_table(&path)?;
        lay_over(&mut whole, table);
        table = whole;
    }
    Err(Error::file(&path, "extends itself, by way of others", "let the chain end in a recipe that extends none"))
}

pub(crate) fn read_with_profile(path: &Path, profile: &str) -> Result<Table> {
    let mut table = read_extended(path)?;
    let profile_path = path.with_file_name("profiles").join(format!("{profile}.toml"));
    if profile == "full" && !profile_path.exists() {
        return Ok(table);
    }
    if !profile_path.exists() {
        let fix = "say smoke, quick or full, or write profiles/NAME.toml beside the recipe";
        return Err(Error::file(&profile_path, format!("no profile {profile:?}"), fix));
    }
    let mut overlays = read_table(&profile_path)?;
    let kind = table.get("model").and_then(|m| m.get("kind")).and_then(Value::as_str).unwrap_or_default().to_owned();
    if let Some(Value::Table(overlay)) = overlays.remove(&kind) {
        lay_over(&mut table, overlay);
    }
    Ok(table)
}

fn lay_over(base: &mut Table, overlay: Table) {
    for (key, value) in overlay {
        match (base.get_mut(&key), value) {
            // Another kind of thing shares no settings with the one that it replaces.
            (Some(Value::Table(inner)), Value::Table(above))
                if above.get("kind").is_none_or(|kind| inner.get("kind") == Some(kind)) =>
            {
                lay_over(inner, above)
            }
            (_, value) => drop(base.insert(key, value)),
        }
    }
}

/// Lays `a.b.c=value` over a table; the value is TOML, or else a string.
pub(crate) fn set(table: &mut Table, setting: &str) -> Result<()> {
    let fix = "write --set key=value, for example --set optimiser.learning_rate=2e-5";
    let (key, value) = setting.split_once('=').ok_or_else(|| Error::recipe(setting, "no '='", fix))?;
    let parsed = format!("value = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("value"));
    let value = parsed.unwrap_or_else(|| Value::String(value.into()));
    let within = |inner, part: &str| Value::Table(Table::from_iter([(part.to_owned(), inner)]));
    if let Value::Table(overlay) = key.trim().rsplit('.').fold(value, within) {
        lay_over(table, overlay);
    }
    Ok(())
}
