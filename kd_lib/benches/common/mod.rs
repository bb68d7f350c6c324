//! What the benches share: the project's folders, its recipes, and a run to predict with.
#![allow(dead_code)] // each bench uses its own part

use anyhow::{Context, Result};
use kd_lib::data::Corpus;
use kd_lib::store::{Recipe, Run, RunStore};
use kd_lib::training::progress;
use std::path::Path;

/// The project's root.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The project's run store.
pub fn store() -> RunStore {
    RunStore::new(root().join("checkpoints"))
}

/// A recipe of the project with settings that override its keys.
pub fn recipe(name: &str, settings: &[&str]) -> Result<Recipe> {
    let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
    let path = root().join(format!("notebooks/recipes/{name}.toml"));
    Ok(Recipe::read(path, "full", &settings)?)
}

/// A run of a model of full size, trained on few texts.
pub fn short_run(store: &RunStore, name: &str, corpus: &Corpus) -> Result<Run> {
    let checkpoint = format!(
        "model.checkpoint={}",
        root().join("checkpoints/e5-small").display()
    );
    let mut settings = vec![
        "train.epochs=1",
        "data.max_train_samples=64",
        "data.max_dev_samples=32",
        "data.skip_test=true",
    ];
    settings.extend((name == "teacher").then_some(checkpoint.as_str()));
    Ok(store.run(&recipe(name, &settings)?, corpus, &mut progress::silent)?)
}

/// This process's largest resident memory so far, in MiB.
pub fn peak_memory() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|l| l.starts_with("VmHWM:"))
        .context("no VmHWM")?;
    Ok(line
        .split_whitespace()
        .nth(1)
        .context("no figure")?
        .parse::<f64>()?
        / 1024.0)
}
