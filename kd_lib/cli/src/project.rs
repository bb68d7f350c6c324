//! Where things are: the run store, its runs by name, and the project's recipes.

use anyhow::{Context, Result, anyhow};
use kd_lib::store::{Predictor, Run, RunStore};
use std::path::{Path, PathBuf};

/// A finished run by its folder or name. If the name begins the names of others, the error lists
/// them.
pub fn find_run(store: &RunStore, run: &Path) -> Result<Run> {
    store.find(run).map_err(|error| {
        let begins = |id: &String| id.starts_with(&*run.to_string_lossy());
        let ids = store.runs().into_iter().flatten().map(|run| run.report.id);
        let similar: Vec<String> = ids.filter(begins).collect();
        match similar.is_empty() || run.is_dir() {
            true => error.into(),
            false => anyhow!("{error}; similar names: {}", similar.join(", ")),
        }
    })
}

/// A run's model, for predictions.
pub fn open_predictor(run: &Run) -> Result<Predictor> {
    Ok(Predictor::open(run)?)
}

/// The run store in this folder, or in the `checkpoints` of the project around the working
/// directory.
pub fn open_store(checkpoints: Option<PathBuf>) -> Result<RunStore> {
    let folder = match checkpoints {
        Some(folder) => folder,
        None => folder_above("checkpoints")?
            .context("run inside the project, or name the folder with --checkpoints")?,
    };
    Ok(RunStore::new(folder))
}

/// The project's recipes: beside the store's checkpoints, else around the working directory.
pub fn recipes_folder(store: &RunStore) -> Result<PathBuf> {
    let beside = store.checkpoints().join("../notebooks/recipes");
    if beside.is_dir() {
        return Ok(beside);
    }
    folder_above("notebooks/recipes")?.with_context(|| {
        let folder = store.checkpoints().display();
        format!("no notebooks/recipes beside {folder}; run inside the project")
    })
}

/// The folder of this name in the working directory or above.
fn folder_above(name: &str) -> Result<Option<PathBuf>> {
    let here = std::env::current_dir()?;
    Ok(here
        .ancestors()
        .map(|parent| parent.join(name))
        .find(|folder| folder.is_dir()))
}
