//! `kd convert`: recipes, run folders and stored results of version 0.1 → this version. Names are
//! translated by [`kd_lib::store::retired`]; ids are computed anew, since they hash a recipe's
//! keys. A run's report keeps its old id. A run is converted only if its old id can be computed
//! from its recipe and the files that it names, so that no run gets the id of another experiment.

mod names;
mod recipe;
mod results;
mod run;

use anyhow::{Result, bail};
use recipe::convert_recipe;
use results::{SETS, convert_results};
use run::convert_run;
use std::path::Path;

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
