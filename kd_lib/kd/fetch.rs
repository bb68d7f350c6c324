//! A public corpus or a checkpoint from its place on the network: fetched by `curl`, which goes on where it was
//! interrupted; the folder is there whole or not at all. A corpus is verified by the git blob id of every file; of a
//! checkpoint nobody but its hub knows what it should be.

use anyhow::{Context, Result, bail};
use kd_lib::files;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The ten-class headlines, as their repository publishes them.
const SOURCE: &str =
    "https://raw.githubusercontent.com/649453932/Chinese-Text-Classification-Pytorch/master/THUCNews/data/";
const BLOBS: [(&str, &str); 3] = [
    ("train.txt", "ffe8979a12879da0747847aca49e9a6c1d29898f"),
    ("dev.txt", "cf7f8de6fc3e3c72284ab59e7ed850f49b7185c0"),
    ("test.txt", "9c216ace7d0cf2c89fec1b4c9d49a92dc1791d0a"),
];
const CLASSES: [&str; 10] =
    ["finance", "realty", "stocks", "education", "science", "society", "politics", "sports", "game", "entertainment"];

/// In a fetched checkpoint's folder: whose it is.
const ORIGIN: &str = "origin.txt";

/// Fetches corpus `name` into `data/name`; what is there already is left alone.
///
/// # Errors
/// If the name is unknown, there is no network, or a file is not the one that was published.
pub fn fetch(name: &str, data: &Path) -> Result<PathBuf> {
    let folder = data.join(name);
    if name != "thucnews-title" {
        bail!("{name:?} is not a corpus that can be fetched; say thucnews-title");
    }
    if folder.join("class.txt").exists() {
        return Ok(folder);
    }
    let partial = data.join(format!(".{name}"));
    std::fs::create_dir_all(&partial).with_context(|| partial.display().to_string())?;
    for (file, blob) in BLOBS {
        let path = partial.join(file);
        if !path.exists() || output(Command::new("git").arg("hash-object").arg("--no-filters").arg(&path))? != blob {
            download(&format!("{SOURCE}{file}"), &path, blob)?;
        }
    }
    files::write_text(&partial.join("class.txt"), &(CLASSES.join("\n") + "\n"))?;
    std::fs::rename(&partial, &folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// Fetches checkpoint `OWNER/NAME` of a hub into `checkpoints/NAME`; what is there already is left alone.
///
/// # Errors
/// If there is no network, or the repository has no safetensors weights or no tokenizer.
pub fn fetch_checkpoint(id: &str, hub: &str, checkpoints: &Path) -> Result<PathBuf> {
    let name = id.rsplit('/').next().unwrap_or(id);
    // A part of another owner's checkpoint must not be gone on with.
    let (folder, partial) = (checkpoints.join(name), checkpoints.join(format!(".{}", id.replace('/', "--"))));
    if folder.join("model.safetensors").exists() {
        let whose = std::fs::read_to_string(folder.join(ORIGIN)).unwrap_or_else(|_| id.to_owned());
        if whose != id {
            bail!("{}: holds {whose}; move it away to fetch {id}", folder.display());
        }
        return Ok(folder);
    }
    std::fs::create_dir_all(&partial).with_context(|| partial.display().to_string())?;
    let get = |file: &str| curl(&format!("{hub}/{id}/resolve/main/{file}"), &partial.join(file));
    get("config.json")?;
    // The last says whether case matters. Not every checkpoint has all three; whether it has one is for the hub to say, not for a bad line.
    let optional = ["tokenizer.json", "vocab.txt", "tokenizer_config.json"];
    let there = optional.iter().map(|file| if_there(get(file))).collect::<Result<Vec<bool>>>()?;
    if !there[..2].contains(&true) {
        bail!("{id}: has neither tokenizer.json nor vocab.txt; name a BERT checkpoint");
    }
    get("model.safetensors").with_context(|| format!("{id}: weights as safetensors; others are not read"))?;
    files::write_text(&partial.join(ORIGIN), id)?;
    std::fs::rename(&partial, &folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// Whether a file came, where the hub may have none.
fn if_there(got: Result<String>) -> Result<bool> {
    match got {
        Err(error) if error.to_string().contains("error: 404") => Ok(false),
        got => got.map(|_| true),
    }
}

fn curl(url: &str, path: &Path) -> Result<String> {
    let quietly = ["--fail", "--silent", "--show-error", "--location", "--connect-timeout", "15", "--continue-at", "-"];
    output(Command::new("curl").args(quietly).arg("--output").arg(path).arg(url))
}

fn download(url: &str, path: &Path, blob: &str) -> Result<()> {
    curl(url, path)?;
    let found = output(Command::new("git").arg("hash-object").arg("--no-filters").arg(path))?;
    if found != blob {
        std::fs::remove_file(path).with_context(|| path.display().to_string())?;
        bail!(
            "{}: what came has blob id {found}, {blob} was published; it was not kept: fetch again, or fetch the file by hand and compare",
            path.display()
        );
    }
    Ok(())
}

/// What a program printed; its own words where it failed.
fn output(command: &mut Command) -> Result<String> {
    let program = PathBuf::from(command.get_program());
    let output = command.output().with_context(|| program.display().to_string())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        bail!("{}: {said}; is there a network? A part that came is kept and gone on with", program.display());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
