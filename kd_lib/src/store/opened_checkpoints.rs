//! The pretrained checkpoints that a run store has opened. Reading a tokenizer of 250,000 pieces
//! and hashing half a gigabyte of weights take a second each. A distillation needs both about sixty
//! times, so opened checkpoints are kept. A checkpoint whose files changed is opened again. No run
//! is kept here.

use crate::Result;
use crate::models::Checkpoint;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Copies share what they have opened.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenedCheckpoints {
    by_folder: Arc<Mutex<HashMap<PathBuf, Opened>>>,
}

#[derive(Debug)]
struct Opened {
    checkpoint: Checkpoint,
    files: Vec<FileState>,
}

/// What tells a file from one that was written over it.
#[derive(Debug, PartialEq, Eq)]
struct FileState {
    path: PathBuf,
    bytes: u64,
    modified: Option<SystemTime>,
}

impl OpenedCheckpoints {
    /// A checkpoint: a folder of this name in `checkpoints`, or a path.
    pub fn checkpoint(&self, checkpoints: &Path, name: &str) -> Result<Checkpoint> {
        let checkpoint = Checkpoint::open(checkpoints, name)?;
        let files = file_states(&checkpoint);
        let mut by_folder = self
            .by_folder
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = by_folder.get(&checkpoint.folder)
            && opened.files == files
        {
            return Ok(opened.checkpoint.clone());
        }
        let opened = Opened {
            checkpoint: checkpoint.clone(),
            files,
        };
        by_folder.insert(checkpoint.folder.clone(), opened);
        Ok(checkpoint)
    }
}

fn file_states(checkpoint: &Checkpoint) -> Vec<FileState> {
    let state = |path: PathBuf| {
        let metadata = path.metadata().ok();
        FileState {
            bytes: metadata.as_ref().map_or(0, |m| m.len()),
            modified: metadata.and_then(|m| m.modified().ok()),
            path,
        }
    };
    checkpoint.files().into_iter().map(state).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_is_opened_again_only_if_a_file_changed() {
        let folder = tempfile::tempdir().unwrap();
        let weights = folder.path().join("tiny/model.safetensors");
        std::fs::create_dir(folder.path().join("tiny")).unwrap();
        std::fs::write(folder.path().join("tiny/config.json"), "{}").unwrap();
        std::fs::write(&weights, "some weights").unwrap();
        let opened = OpenedCheckpoints::default();
        let hashes = || {
            let checkpoint = opened.clone().checkpoint(folder.path(), "tiny").unwrap();
            let hashes = checkpoint.file_hashes().unwrap();
            (
                std::ptr::from_ref(hashes),
                hashes["model.safetensors"].clone(),
            )
        };
        let first = hashes();
        assert_eq!(first, hashes(), "the same hashes in memory");
        std::fs::write(&weights, "other, longer weights").unwrap();
        assert_ne!(first.1, hashes().1);
    }
}
