//! Names of version 0.1 and of this version: groups, settings, recipes.

use kd_lib::store::retired;

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

/// Epochs times `train.stretch`, to four decimals: version 0.1 wrote factors to four digits.
pub(super) fn stretched(epochs: f64, stretch: f64) -> f64 {
    (epochs * stretch * 1e4).round() / 1e4
}

/// The new name of a group of settings, if it is retired.
pub(super) fn new_name(group: &str) -> Option<String> {
    retired::find(retired::KEYS, group).map(|name| name.new.to_owned())
}

/// The new name of a setting in its group; none if the setting is gone.
pub(super) fn new_key(group: &str, key: &str) -> Option<String> {
    match retired::find(retired::KEYS, &format!("{group}.{key}")) {
        None => Some(key.to_owned()),
        Some(name) => name.new.split_once('.').map(|(_, key)| key.to_owned()),
    }
}

/// A recipe's name in this version.
pub(super) fn rename_recipe(name: &str) -> String {
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

/// The new name of an objective, if it is retired.
pub(super) fn new_objective(kind: &str) -> Option<&'static str> {
    retired::find(retired::OBJECTIVES, kind).map(|name| name.new)
}

/// The new name of an augmentation, if it is retired.
pub(super) fn new_augmentation(kind: &str) -> Option<&'static str> {
    retired::find(retired::AUGMENTATIONS, kind).map(|name| name.new)
}
