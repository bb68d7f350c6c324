//! Where things are: the lab, its runs by name, and the project's recipes.

use anyhow::{Context, Result, anyhow, ensure};
use kd_lib::lab::Lab;
use kd_lib::predict::Predictor;
use kd_lib::run::Run;
use std::path::{Path, PathBuf};

/// A finished run by its folder or name; a name that begins others' gets them named.
pub fn find(lab: &Lab, run: &Path) -> Result<Run> {
    lab.find(run).map_err(|error| {
        let names: Vec<String> = lab.runs().into_iter().flatten().map(|r| r.report.id).collect();
        let alike: Vec<&str> =
            names.iter().map(String::as_str).filter(|n| n.starts_with(&*run.to_string_lossy())).collect();
        let hint = (!alike.is_empty() && !run.is_dir()).then(|| format!("{error}; there are: {}", alike.join(", ")));
        hint.map_or(error.into(), |hint| anyhow!(hint))
    })
}

/// A run's model, to ask it.
pub fn opened(run: &Run) -> Result<Predictor> {
    let trained = run.path.join("model.json").is_file();
    ensure!(trained, "{}: a kept copy without weights; train its recipe to ask it", run.path.display());
    Ok(Predictor::open(run)?)
}

/// The lab in this folder, or in the `checkpoints` of the project around the working directory.
pub fn open_lab(checkpoints: Option<PathBuf>) -> Result<Lab> {
    let lab = match checkpoints {
        Some(folder) => folder,
        None => around("checkpoints")?.context("run inside the project, or name the folder with --checkpoints")?,
    };
    Ok(Lab::at(lab))
}

/// The project's recipes: beside the lab's checkpoints, else around the working directory.
pub fn recipes(lab: &Lab) -> Result<PathBuf> {
    let beside = lab.checkpoints().join("../notebooks/recipes");
    if beside.is_dir() {
        return Ok(beside);
    }
    around("notebooks/recipes")?
        .with_context(|| format!("no notebooks/recipes beside {}; run inside the project", lab.checkpoints().display()))
}

/// The folder of this name in the working directory or above.
fn around(name: &str) -> Result<Option<PathBuf>> {
    Ok(std::env::current_dir()?.ancestors().map(|p| p.join(name)).find(|p| p.is_dir()))
}
