//! Downloads the public corpora and the checkpoints of a Hugging-Face-style hub. A file is verified
//! by the checksum that was published with this program (a corpus) or that the hub states (a
//! checkpoint), an interrupted file is continued, and a folder appears only when it is whole.
//! This module does not read what it downloads: `data` and `models` of `kd_lib` do.
//!
//! The client takes its proxy from `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` (or the
//! same names in lower case), its certificates from the system, and the hub's token from
//! `HF_TOKEN`.

mod checkpoint;
mod checksum;
mod client;
mod partial;
mod progress;
#[cfg(test)]
mod tests;

use anyhow::{Result, bail};
use checkpoint::{Checkpoint, checkpoint_from};
use checksum::Checksum;
use client::{Client, Download, HubToken};
use kd_lib::files;
use partial::{Partial, behind_link, holds_something};
use std::path::{Path, PathBuf};
use ureq::Proxy;

/// A corpus that can be downloaded.
struct Corpus {
    name: &'static str,
    base_url: &'static str,
    files: &'static [CorpusFile],
    /// The names of the classes, in the order of their numbers. They are not published as a file.
    classes: &'static [&'static str],
}

/// A file of a corpus, and the git blob id under which its repository published it.
struct CorpusFile {
    name: &'static str,
    blob_id: &'static str,
}

const CORPORA: [Corpus; 1] = [Corpus {
    name: "thucnews-title",
    base_url: "https://raw.githubusercontent.com/649453932/Chinese-Text-Classification-Pytorch/\
               master/THUCNews/data/",
    files: &[
        CorpusFile {
            name: "train.txt",
            blob_id: "ffe8979a12879da0747847aca49e9a6c1d29898f",
        },
        CorpusFile {
            name: "dev.txt",
            blob_id: "cf7f8de6fc3e3c72284ab59e7ed850f49b7185c0",
        },
        CorpusFile {
            name: "test.txt",
            blob_id: "9c216ace7d0cf2c89fec1b4c9d49a92dc1791d0a",
        },
    ],
    classes: &[
        "finance",
        "realty",
        "stocks",
        "education",
        "science",
        "society",
        "politics",
        "sports",
        "game",
        "entertainment",
    ],
}];

/// Written by this module into a corpus folder: one class name a line.
const CLASSES_FILE: &str = "class.txt";

/// Downloads corpus `name` into the folder `into/name` and returns that folder. A corpus that is
/// there already is left alone.
///
/// # Errors
/// If the name is unknown, the network fails, or a file is not the one that was published.
pub fn download_corpus(name: &str, into: &Path) -> Result<PathBuf> {
    let Some(corpus) = CORPORA.iter().find(|corpus| corpus.name == name) else {
        let known: Vec<&str> = CORPORA.iter().map(|corpus| corpus.name).collect();
        bail!(
            "{name:?} is not a corpus that can be downloaded; name one of: {}",
            known.join(", ")
        );
    };
    let client = Client::new(proxy()?, None);
    corpus_from(&client, corpus, corpus.base_url, into)
}

/// Downloads checkpoint `OWNER/NAME` of a hub at a revision (a branch, a tag or a commit) into the
/// folder `checkpoints/NAME` and returns that folder. A checkpoint of the same origin that is there
/// already is left alone.
///
/// # Errors
/// If the network fails, a file is not the one that the hub states, the repository lacks a file
/// that a checkpoint needs, or the folder holds another checkpoint.
pub fn download_checkpoint(
    id: &str,
    revision: &str,
    hub: &str,
    checkpoints: &Path,
) -> Result<PathBuf> {
    let wanted = Checkpoint::new(id, revision, hub)?;
    let token = std::env::var("HF_TOKEN").unwrap_or_default();
    let token = HubToken::new(hub, token.trim())?;
    let client = Client::new(proxy()?, token);
    checkpoint_from(&client, &wanted, checkpoints)
}

/// The proxy that the environment names.
///
/// # Errors
/// If a variable does not hold the address of a proxy; it would be ignored otherwise.
fn proxy() -> Result<Option<Proxy>> {
    for name in ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"] {
        for name in [name.to_owned(), name.to_lowercase()] {
            let value = std::env::var(&name).unwrap_or_default();
            if !value.is_empty() && Proxy::new(&value).is_err() {
                bail!("{name}: not the address of a proxy; write http://HOST:PORT, or unset it");
            }
        }
    }
    Ok(Proxy::try_from_env())
}

fn corpus_from(client: &Client, corpus: &Corpus, base_url: &str, into: &Path) -> Result<PathBuf> {
    let folder = behind_link(into.join(corpus.name))?;
    if holds_something(&folder) {
        let names = corpus.files.iter().map(|file| file.name);
        let lacking: Vec<&str> = names
            .chain([CLASSES_FILE])
            .filter(|name| !folder.join(name).is_file())
            .collect();
        if !lacking.is_empty() {
            bail!(
                "{}: the folder lacks {}; move it away and run the command again",
                folder.display(),
                lacking.join(" and ")
            );
        }
        return Ok(folder);
    }
    let partial = Partial::open(folder.with_file_name(format!(".{}", corpus.name)))?;
    for file in corpus.files {
        let target = partial.path.join(file.name);
        let published = Checksum::GitBlob(file.blob_id.to_owned());
        if target.is_file() && published.of_same_kind(&target)? == published {
            continue;
        }
        let url = format!("{base_url}{}", file.name);
        if client.download(&url, &target, Some(&published))? == Download::NotFound {
            bail!(
                "{url}: the file is no longer published there; copy a {} with git blob id {} into \
                 {} and run the command again",
                file.name,
                file.blob_id,
                partial.path.display()
            );
        }
    }
    let classes = corpus.classes.join("\n") + "\n";
    files::write_text(&partial.path.join(CLASSES_FILE), &classes)?;
    partial.rename_to(&folder)?;
    Ok(folder)
}
