//! A checkpoint of a hub: its name, its files and where they came from.

use super::client::{Client, Download, percent_encoded};
use super::partial::{Partial, behind_link, holds_something, unreadable};
use anyhow::{Result, bail};
use kd_lib::files;
use std::path::{Path, PathBuf};

/// Files of a checkpoint.
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
/// A checkpoint has at least one of the two.
const TOKENIZERS: [&str; 2] = ["tokenizer.json", "vocab.txt"];
/// State whether case matters, and tokens that `vocab.txt` lacks. Some checkpoints do not have them.
const OPTIONAL: [&str; 2] = ["tokenizer_config.json", "added_tokens.json"];

/// Written by this module into a checkpoint's folder: see [`Origin`].
const ORIGIN_FILE: &str = "origin.txt";

/// The revision that a hub resolves when nobody names one.
const DEFAULT_REVISION: &str = "main";

/// A checkpoint that a user asked for.
pub(super) struct Checkpoint {
    owner: String,
    name: String,
    revision: String,
    /// The hub's address without a slash at its end.
    hub: String,
}

impl Checkpoint {
    pub(super) fn new(id: &str, revision: &str, hub: &str) -> Result<Self> {
        // The parts become a path and an address, so nothing else is let through.
        let is_plain = |part: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
        };
        let Some((owner, name)) = id
            .split_once('/')
            .filter(|(owner, name)| is_plain(owner) && is_plain(name))
        else {
            bail!("{id:?} is not the name of a checkpoint; write it as OWNER/NAME");
        };
        let is_bad = |c: char| c.is_whitespace() || c.is_control();
        let is_dots = |part: &str| part.is_empty() || part == "." || part == "..";
        if revision.contains(is_bad) || revision.split('/').any(is_dots) {
            bail!("{revision:?} is not a revision; name a branch, a tag or a commit of {id}");
        }
        if !hub.starts_with("https://") && !hub.starts_with("http://") {
            bail!("{hub:?} is not the address of a hub; write it as https://HOST");
        }
        Ok(Self {
            owner: owner.to_owned(),
            name: name.to_owned(),
            revision: revision.to_owned(),
            hub: hub.trim_end_matches('/').to_owned(),
        })
    }

    fn id(&self) -> String {
        format!("{}/{}", self.owner, self.name)
    }

    pub(super) fn url(&self, revision: &str, file: &str) -> String {
        let revision = percent_encoded(revision);
        format!("{}/{}/resolve/{revision}/{file}", self.hub, self.id())
    }

    /// The folder of an unfinished download. It names the owner and the revision too, because files
    /// of two origins must not be mixed.
    fn partial_name(&self) -> String {
        let revision = self.revision.replace('/', "--");
        format!(".{}--{}@{revision}", self.owner, self.name)
    }
}

pub(super) fn checkpoint_from(
    client: &Client,
    wanted: &Checkpoint,
    checkpoints: &Path,
) -> Result<PathBuf> {
    let folder = behind_link(checkpoints.join(&wanted.name))?;
    if is_there(&folder, wanted)? {
        return Ok(folder);
    }
    let partial = Partial::open(folder.with_file_name(wanted.partial_name()))?;
    let mut lacking = Vec::new();
    let pinned = download_config(client, wanted, &partial)?;
    if pinned.is_none() {
        lacking.push(CONFIG.to_owned());
    }
    let pinned = pinned.unwrap_or_else(|| wanted.revision.clone());
    let download = |file: &str| -> Result<bool> {
        let target = partial.path.join(file);
        // A file gets its name only after it was verified.
        if target.is_file() {
            return Ok(true);
        }
        let found = client.download(&wanted.url(&pinned, file), &target, None)?;
        Ok(found != Download::NotFound)
    };
    let mut has_tokenizer = false;
    for file in TOKENIZERS {
        has_tokenizer |= download(file)?;
    }
    if !has_tokenizer {
        lacking.push(format!("a tokenizer ({})", TOKENIZERS.join(" or ")));
    }
    for file in OPTIONAL {
        download(file)?;
    }
    // The weights are large: they are not downloaded for a checkpoint that cannot be used.
    let has_weights = if lacking.is_empty() {
        download(WEIGHTS)?
    } else {
        client.open(&wanted.url(&pinned, WEIGHTS), 0)?.is_some()
    };
    if !has_weights {
        lacking.push(WEIGHTS.to_owned());
    }
    if !lacking.is_empty() {
        bail!(
            "{} at revision {} lacks {}; name a BERT checkpoint that has config.json, \
             model.safetensors and a tokenizer",
            wanted.id(),
            wanted.revision,
            lacking.join(" and ")
        );
    }
    partial.rename_to(&folder)?;
    Ok(folder)
}

/// Downloads the configuration. Its reply states the commit that the revision is at present, and
/// the other files are asked for by that commit, so that all belong together. Returns the commit;
/// the revision if the hub states no commit; `None` if the checkpoint lacks the configuration.
fn download_config(
    client: &Client,
    wanted: &Checkpoint,
    partial: &Partial,
) -> Result<Option<String>> {
    let Some(reply) = client.open(&wanted.url(&wanted.revision, CONFIG), 0)? else {
        return Ok(None);
    };
    let origin = Origin {
        id: wanted.id(),
        revision: wanted.revision.clone(),
        commit: reply.stated.commit.clone(),
    };
    // A branch may have moved since an interrupted download; the files of its old commit go.
    if Origin::read(&partial.path)?.as_ref() != Some(&origin) {
        partial.clear()?;
        origin.write(&partial.path)?;
    }
    reply.save(&partial.path.join(CONFIG), None)?;
    Ok(Some(origin.commit.unwrap_or(origin.revision)))
}

/// Whether the checkpoint is in the folder already. Another checkpoint in it is an error.
fn is_there(folder: &Path, wanted: &Checkpoint) -> Result<bool> {
    if !holds_something(folder) {
        return Ok(false);
    }
    let shown = folder.display();
    let id = wanted.id();
    let revision = &wanted.revision;
    if !folder.join(WEIGHTS).is_file() {
        bail!("{shown}: the folder lacks {WEIGHTS}; move it away to download {id}");
    }
    match Origin::read(folder)? {
        Some(found) if found.is(wanted) => Ok(true),
        Some(found) => bail!(
            "{shown}: the folder holds {} at revision {}; move it away to download {id} at \
             revision {revision}",
            found.id,
            found.revision
        ),
        None if revision == DEFAULT_REVISION => {
            note!("{shown}: the folder has no {ORIGIN_FILE}; it is left as it is");
            Ok(true)
        }
        None => bail!(
            "{shown}: the folder has no {ORIGIN_FILE}, so its revision is unknown; move it away to \
             download {id} at revision {revision}"
        ),
    }
}

/// Where a checkpoint's folder comes from.
#[derive(Debug, PartialEq)]
pub(super) struct Origin {
    pub(super) id: String,
    pub(super) revision: String,
    /// The commit that the revision was at the time of the download, if the hub stated it.
    pub(super) commit: Option<String>,
}

impl Origin {
    fn is(&self, wanted: &Checkpoint) -> bool {
        let same_commit = self.commit.as_ref() == Some(&wanted.revision);
        self.id == wanted.id() && (self.revision == wanted.revision || same_commit)
    }

    fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(ORIGIN_FILE);
        if !path.is_file() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&path).map_err(unreadable(&path))?;
        Ok(Some(Self::parse(&text)))
    }

    fn parse(text: &str) -> Self {
        let value = |key: &str| {
            let mut values = text.lines().filter_map(|line| line.strip_prefix(key));
            values.next().map(|value| value.trim().to_owned())
        };
        Self {
            // Version 0.1 wrote the id and nothing else, and always downloaded `main`.
            id: value("id:").unwrap_or_else(|| text.trim().to_owned()),
            revision: value("revision:").unwrap_or_else(|| DEFAULT_REVISION.to_owned()),
            commit: value("commit:"),
        }
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let mut text = format!("id: {}\nrevision: {}\n", self.id, self.revision);
        if let Some(commit) = &self.commit {
            text += &format!("commit: {commit}\n");
        }
        files::write_text(&folder.join(ORIGIN_FILE), &text)?;
        Ok(())
    }
}
