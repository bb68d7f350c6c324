//! Files and folders that are not whole yet, and the errors of the disk.

use anyhow::{Result, anyhow, bail};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// The folder of an unfinished download, held by this process until it is dropped.
pub(super) struct Partial {
    pub(super) path: PathBuf,
    /// Open for its lock.
    folder: File,
}

impl Partial {
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&path).map_err(unwritable(&path))?;
        let folder = File::open(&path).map_err(unreadable(&path))?;
        // A file system without locks is no reason to refuse: only a second download would be hurt.
        if let Err(TryLockError::WouldBlock) = folder.try_lock() {
            bail!(
                "{}: another process is downloading into this folder; wait until it has ended",
                path.display()
            );
        }
        Ok(Self { path, folder })
    }

    /// Removes the files, and keeps the folder with its lock.
    pub(super) fn clear(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.path).map_err(unreadable(&self.path))? {
            let file = entry.map_err(unreadable(&self.path))?.path();
            std::fs::remove_file(&file).map_err(unwritable(&file))?;
        }
        Ok(())
    }

    /// Gives the whole folder its name. The folder is on the disk before the name is, so that a
    /// power cut does not leave the name with nothing behind it.
    pub(super) fn rename_to(self, folder: &Path) -> Result<()> {
        self.folder.sync_all().map_err(unwritable(&self.path))?;
        std::fs::rename(&self.path, folder).map_err(unwritable(folder))
    }
}

/// The folder itself, or the one that a symbolic link of this name leads to.
pub(super) fn behind_link(folder: PathBuf) -> Result<PathBuf> {
    if !folder.is_symlink() {
        return Ok(folder);
    }
    folder.canonicalize().map_err(|_| {
        anyhow!(
            "{}: a symbolic link to a folder that is not there; create that folder, or remove the link",
            folder.display()
        )
    })
}

/// The name of a file that is not whole yet.
pub(super) fn part_of(target: &Path) -> PathBuf {
    let mut part = target.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// Whether there is a file of this name, or a folder that is not empty.
pub(super) fn holds_something(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => path.exists(),
    }
}

pub(super) fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> anyhow::Error {
    move |error| {
        anyhow!(
            "{}: cannot be read ({error}); check its permissions",
            path.display()
        )
    }
}

pub(super) fn unwritable(path: &Path) -> impl Fn(std::io::Error) -> anyhow::Error {
    move |error| {
        anyhow!(
            "{}: cannot be written ({error}); check the permissions and the free space, then run \
             the command again",
            path.display()
        )
    }
}
