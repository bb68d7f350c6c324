//! The files of a run's folder: their names, and the list of their checksums in the format of the
//! program `b3sum` (`b3sum --check b3sums` verifies it). The list is written after all other files,
//! so its presence says that the run is finished. [`super::run`] reads the files.

use crate::files::{file_name, hash_file, sorted_entries, write_text};
use crate::training::state;
use crate::{Error, Result};
use std::path::Path;

/// What a finished run reports.
pub(crate) const REPORT: &str = "report.json";
/// The best weights.
pub(crate) const WEIGHTS: &str = "model.safetensors";
/// The hashes of the weights that taught a run.
pub(crate) const TAUGHT_BY: &str = "taught_by.json";
/// What was printed while the run was trained.
pub(crate) const LOG: &str = "log.txt";
const SUMS: &str = "b3sums";
/// First digits of the hash of the weights that tell two teachers apart.
const WEIGHTS_DIGITS: usize = 16;

/// Writes the checksums of a folder's files; the report's comes last.
pub fn write_checksums(folder: &Path) -> Result<()> {
    let mut lines = String::new();
    let mut paths = sorted_entries(folder)?;
    paths.retain(|path| path.is_file() && is_listed(file_name(path)));
    paths.sort_by_key(|path| file_name(path) == REPORT);
    for path in paths {
        lines += &format!("{}  {}\n", hash_file(&path)?, file_name(&path));
    }
    write_text(&folder.join(SUMS), &lines)
}

/// Whether a file has a checksum: the state of a training and the log may still change.
fn is_listed(name: &str) -> bool {
    let may_change = [LOG, SUMS].contains(&name) || name.starts_with(state::PREFIX);
    !name.is_empty() && !name.starts_with('.') && !may_change
}

/// Whether a folder has its list of checksums: its run is finished.
pub fn has_checksums(folder: &Path) -> bool {
    folder.join(SUMS).exists()
}

/// First digits of the hash of a finished run's weights, if its checksums list any.
pub fn weights_hash(folder: &Path) -> Option<String> {
    let list = std::fs::read_to_string(folder.join(SUMS)).ok()?;
    let hash = list
        .lines()
        .filter_map(|line| line.split_once("  "))
        .find_map(|(hash, name)| (name == WEIGHTS).then_some(hash))?;
    Some(hash.chars().take(WEIGHTS_DIGITS).collect())
}

/// Refuses a folder in which a listed file has other bytes than were written, or whose list is
/// damaged. The weights may be absent: logits that are cached are enough to teach.
pub fn verify_checksums(folder: &Path) -> Result<()> {
    let path = folder.join(SUMS);
    let fix = "remove the folder and run its recipe again";
    let list = std::fs::read(&path).map_err(Error::io(&path))?;
    let list = String::from_utf8_lossy(&list);
    let damaged_list = || Error::file(&path, "a damaged list of files", fix);
    let mut last = "";
    for line in list.lines() {
        let (hash, name) = line.split_once("  ").ok_or_else(damaged_list)?;
        let file = folder.join(name);
        let is_removed = name == WEIGHTS && !file.exists();
        let is_sound = !name.contains('/') && hash_file(&file).is_ok_and(|found| found == hash);
        if !is_removed && !is_sound {
            let problem = "damaged: not the bytes that were written";
            return Err(Error::file(&file, problem, fix));
        }
        last = name;
    }
    if last != REPORT || !list.ends_with('\n') {
        return Err(damaged_list());
    }
    Ok(())
}
