//! Where things are: the run store, its runs by name, and the project's recipes.

use anyhow::{Context, Result, anyhow};
use kd_lib::files;
use kd_lib::store::{Predictor, Run, RunStore};
use std::path::{Path, PathBuf};

/// A finished run by its id or folder. A folder needs no store. If the name begins the names of
/// others, the error lists them.
pub fn find_run(store: Result<RunStore>, run: &Path) -> Result<Run> {
    let store = match store {
        Ok(store) => store,
        Err(_) if run.is_dir() => return Ok(Run::open(run)?),
        Err(error) => return Err(error),
    };
    store.find(run).map_err(|error| {
        let begins = |id: &String| id.starts_with(&*run.to_string_lossy());
        let ids = store
            .runs()
            .unwrap_or_default()
            .into_iter()
            .flatten()
            .map(|run| run.report.id);
        let similar: Vec<String> = ids.filter(begins).collect();
        if similar.is_empty() || run.is_dir() {
            error.into()
        } else {
            anyhow!("{error}; similar names: {}", similar.join(", "))
        }
    })
}

/// A run's model, for predictions.
pub fn open_predictor(run: &Run) -> Result<Predictor> {
    Ok(Predictor::open(run)?)
}

/// The run store in this folder, else in the one that `KD_CHECKPOINTS` names, else in the
/// `checkpoints` of the project around the working directory. Pretrained checkpoints are found in
/// the project's folder too.
pub fn open_store(checkpoints: Option<PathBuf>) -> Result<RunStore> {
    let named = checkpoints.or_else(|| {
        let variable = std::env::var_os("KD_CHECKPOINTS").filter(|value| !value.is_empty());
        variable.map(PathBuf::from)
    });
    let own = folder_above("checkpoints")?;
    let folder = named
        .or_else(|| own.clone())
        .context("run inside the project, or name the folder with --checkpoints")?;
    let store = RunStore::new(folder);
    Ok(match own {
        Some(own) => store
            .with_project(own.with_file_name(""))
            .with_pretrained(own),
        None => store,
    })
}

/// The project's recipes: next to the store's checkpoints, else around the working directory.
pub fn recipes_folder(store: &RunStore) -> Result<PathBuf> {
    let next_to_store = files::parent_as_written(store.checkpoints()).join("notebooks/recipes");
    if next_to_store.is_dir() {
        return Ok(next_to_store);
    }
    folder_above("notebooks/recipes")?.with_context(|| {
        let folder = store.checkpoints().display();
        format!("no notebooks/recipes next to {folder}; run inside the project")
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
