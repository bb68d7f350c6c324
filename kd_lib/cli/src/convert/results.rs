//! The stored results of version 0.1: one folder per run becomes few files.

use super::run::{ConvertedReport, convert_curve, convert_report, convert_taught_by};
use crate::quoted;
use anyhow::{Context, Result, anyhow, ensure};
use kd_lib::files;
use kd_lib::store::{Run, StoredResults, run_files};
use kd_lib::tch::{Kind, Tensor};
use std::path::{Path, PathBuf};

/// The sets of version 0.1's stored results, which are folders there.
pub(super) const SETS: [&str; 3] = ["runs", "teachers", "xeon"];

/// Converts a folder of stored results: one folder per run → few files. The folders stay.
pub(super) fn convert_results(folder: &Path, checkpoints: &Path) -> Result<String> {
    refuse_other_folders(folder)?;
    let converted = tempfile_folder(folder)?;
    let mut runs = Vec::new();
    for set in SETS.iter().filter(|set| folder.join(set).is_dir()) {
        for old in files::sorted_entries(&folder.join(set))? {
            if old.join("report.json").exists() {
                let run = convert_stored_run(&old, &converted.join(set), checkpoints)
                    .with_context(|| old.display().to_string())?;
                runs.push(((*set).to_owned(), run));
            }
        }
    }
    let written = if runs.is_empty() {
        Err(anyhow!(
            "{}: no stored run of version 0.1",
            folder.display()
        ))
    } else {
        Ok(StoredResults::write(folder, &runs)?)
    };
    std::fs::remove_dir_all(&converted)?;
    written?;
    Ok(format!("{}: {} runs", folder.display(), runs.len()))
}

/// Refuses what stored results would overwrite, and a folder of runs with weights.
fn refuse_other_folders(folder: &Path) -> Result<()> {
    for path in files::sorted_entries(folder)? {
        let name = files::file_name(&path);
        ensure!(
            !StoredResults::is_main_file(name),
            "{}: results of this version, which would be overwritten; move them away",
            path.display()
        );
    }
    for set in SETS.iter().filter(|set| folder.join(set).is_dir()) {
        for run in files::sorted_entries(&folder.join(set))? {
            ensure!(
                !run.join("model.safetensors").exists(),
                "{}: a folder of runs, not of stored results; name the runs: kd convert {}",
                folder.display(),
                quoted(run.as_os_str())
            );
        }
    }
    Ok(())
}

fn tempfile_folder(folder: &Path) -> Result<PathBuf> {
    let path = folder.join(".converting");
    std::fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// A stored run of version 0.1 as a run's folder of this version.
fn convert_stored_run(old: &Path, target: &Path, checkpoints: &Path) -> Result<Run> {
    let ConvertedReport { report, ids } = convert_report(old, checkpoints)?;
    let new = target.join(&ids.id);
    std::fs::create_dir_all(&new)?;
    convert_curve(&old.join("curve.csv"), &new.join("curve.csv"))?;
    std::fs::copy(old.join("labels.json"), new.join("labels.json"))?;
    let taught_by = old.join("taught_by.json");
    if taught_by.exists() {
        convert_taught_by(&taught_by, &new.join("taught_by.json"), &ids)?;
    }
    if old.join("test.csv").exists() {
        convert_predictions(&old.join("test.csv"), &new.join("test.safetensors"))?;
    }
    files::write_json(&new.join("report.json"), &report)?;
    run_files::write_checksums(&new)?;
    Ok(Run::open(&new)?)
}

/// Predicted classes as logits, 1 for the predicted class and 0 for others: a run's folder has
/// logits, of which only the predicted classes are stored again.
fn convert_predictions(from: &Path, to: &Path) -> Result<()> {
    let text = std::fs::read_to_string(from).with_context(|| from.display().to_string())?;
    let (mut labels, mut classes) = (Vec::new(), Vec::new());
    for line in text.lines().skip(1) {
        let (label, class) = line.split_once(',').context("a line without a comma")?;
        labels.push(label.parse::<i64>()?);
        classes.push(class.parse::<i64>()?);
    }
    let classes = Tensor::from_slice(&classes);
    let count = classes.max().int64_value(&[]) + 1;
    let logits = classes.onehot(count).to_kind(Kind::Float);
    let labels = Tensor::from_slice(&labels);
    let tensors = [
        ("logits".to_owned(), &logits),
        ("labels".to_owned(), &labels),
    ];
    Ok(files::write_tensors(to, tensors)?)
}
