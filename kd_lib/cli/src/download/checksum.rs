//! The checksums that a hub and a git repository publish.

use super::partial::unreadable;
use anyhow::Result;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::path::Path;

/// A checksum of a file, as lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Checksum {
    /// Git's id of the file: SHA-1 of a header with the length, then of the content.
    GitBlob(String),
    Sha256(String),
}

impl Checksum {
    /// Reads the checksum in an entity tag: 64 digits for a file that git LFS stores, 40 for one in
    /// git itself. Any other tag states no checksum.
    pub(super) fn from_etag(tag: &str) -> Option<Self> {
        let tag = tag.trim().trim_start_matches("W/").trim_matches('"');
        if !tag.chars().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        match tag.len() {
            40 => Some(Self::GitBlob(tag.to_ascii_lowercase())),
            64 => Some(Self::Sha256(tag.to_ascii_lowercase())),
            _ => None,
        }
    }

    /// The checksum that a file has.
    pub(super) fn of_same_kind(&self, path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(unreadable(path))?;
        match self {
            Self::GitBlob(_) => {
                let length = file.metadata().map_err(unreadable(path))?.len();
                let mut hasher = Sha1::new_with_prefix(format!("blob {length}\0"));
                std::io::copy(&mut file, &mut hasher).map_err(unreadable(path))?;
                Ok(Self::GitBlob(format!("{:x}", hasher.finalize())))
            }
            Self::Sha256(_) => {
                let mut hasher = Sha256::new();
                std::io::copy(&mut file, &mut hasher).map_err(unreadable(path))?;
                Ok(Self::Sha256(format!("{:x}", hasher.finalize())))
            }
        }
    }
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::GitBlob(id) => write!(f, "git blob id {id}"),
            Self::Sha256(sum) => write!(f, "SHA-256 {sum}"),
        }
    }
}
