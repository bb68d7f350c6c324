//! What the benches share: the project's folders, its recipes, and a run to answer with.
#![allow(dead_code)] // each bench uses its own part

use anyhow::{Context, Result};
use kd_lib::data::Corpus;
use kd_lib::lab::Lab;
use kd_lib::progress;
use kd_lib::recipe::Recipe;
use kd_lib::run::Run;
use std::path::Path;

/// The project's root.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// The project's lab.
pub fn lab() -> Lab {
    Lab::at(root().join("checkpoints"))
}

/// A recipe of the project with settings laid over it.
pub fn recipe(name: &str, settings: &[&str]) -> Result<Recipe> {
    let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
    Ok(Recipe::read(root().join("notebooks/recipes").join(name).with_extension("toml"), "full", &settings)?)
}

/// A run of full size that learned next to nothing.
pub fn brief(lab: &Lab, name: &str, corpus: &Corpus) -> Result<Run> {
    let weights = format!("model.weights={}", root().join("checkpoints/e5-small").display());
    let mut settings = vec!["train.epochs=1", "data.train_examples=64", "data.dev_examples=32", "data.blind=true"];
    settings.extend((name == "teacher").then_some(weights.as_str()));
    Ok(lab.run(&recipe(name, &settings)?, corpus, &mut progress::silent)?)
}

/// This process's largest resident memory so far, in MiB.
pub fn peak() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).context("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).context("no figure")?.parse::<f64>()? / 1024.0)
}
