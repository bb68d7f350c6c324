//! Downloads the public corpora and the checkpoints of a Hugging-Face-style hub. A file is verified
//! by the checksum that was published with this program (a corpus) or that the hub states (a
//! checkpoint), an interrupted file is continued, and a folder appears only when it is whole.
//! This module does not read what it downloads: `data` and `models` of `kd_lib` do.
//!
//! The client takes its proxy from `ALL_PROXY`, `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` (or the
//! same names in lower case), its certificates from the system, and the hub's token from
//! `HF_TOKEN`.

use anyhow::{Context, Result, anyhow, bail};
use kd_lib::files;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

#[cfg(test)]
mod tests;

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

/// Files of a checkpoint.
const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
/// A checkpoint has at least one of the two.
const TOKENIZERS: [&str; 2] = ["tokenizer.json", "vocab.txt"];
/// States whether case matters. Some checkpoints do not have it.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Written by this module into a checkpoint's folder: see [`Origin`].
const ORIGIN_FILE: &str = "origin.txt";

/// The revision that a hub resolves when nobody names one.
const DEFAULT_REVISION: &str = "main";

/// A file of at least this many bytes shows its progress.
const SHOW_PROGRESS_FROM: u64 = 10_000_000;

/// A chain of more redirects than this is a loop.
const MAX_REDIRECTS: usize = 10;

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
    let client = Client::new(Proxy::try_from_env(), None);
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
    let client = Client::new(Proxy::try_from_env(), token);
    checkpoint_from(&client, &wanted, checkpoints)
}

fn corpus_from(client: &Client, corpus: &Corpus, base_url: &str, into: &Path) -> Result<PathBuf> {
    let folder = into.join(corpus.name);
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
    let partial = Partial::open(into.join(format!(".{}", corpus.name)))?;
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

/// A checkpoint that a user asked for.
struct Checkpoint {
    owner: String,
    name: String,
    revision: String,
    /// The hub's address without a slash at its end.
    hub: String,
}

impl Checkpoint {
    fn new(id: &str, revision: &str, hub: &str) -> Result<Self> {
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

    fn url(&self, revision: &str, file: &str) -> String {
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

fn checkpoint_from(client: &Client, wanted: &Checkpoint, checkpoints: &Path) -> Result<PathBuf> {
    let folder = checkpoints.join(&wanted.name);
    if is_there(&folder, wanted)? {
        return Ok(folder);
    }
    let partial = Partial::open(checkpoints.join(wanted.partial_name()))?;
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
    download(TOKENIZER_CONFIG)?;
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
struct Origin {
    id: String,
    revision: String,
    /// The commit that the revision was at the time of the download, if the hub stated it.
    commit: Option<String>,
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

    fn write(&self, folder: &Path) -> Result<()> {
        let mut text = format!("id: {}\nrevision: {}\n", self.id, self.revision);
        if let Some(commit) = &self.commit {
            text += &format!("commit: {commit}\n");
        }
        files::write_text(&folder.join(ORIGIN_FILE), &text)?;
        Ok(())
    }
}

/// The folder of an unfinished download, held by this process until it is dropped.
struct Partial {
    path: PathBuf,
    /// Open for its lock.
    folder: File,
}

impl Partial {
    fn open(path: PathBuf) -> Result<Self> {
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
    fn clear(&self) -> Result<()> {
        for entry in std::fs::read_dir(&self.path).map_err(unreadable(&self.path))? {
            let file = entry.map_err(unreadable(&self.path))?.path();
            std::fs::remove_file(&file).map_err(unwritable(&file))?;
        }
        Ok(())
    }

    /// Gives the whole folder its name. The folder is on the disk before the name is, so that a
    /// power cut does not leave the name with nothing behind it.
    fn rename_to(self, folder: &Path) -> Result<()> {
        self.folder.sync_all().map_err(unwritable(&self.path))?;
        std::fs::rename(&self.path, folder).map_err(unwritable(folder))
    }
}

/// A checksum of a file, as lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq)]
enum Checksum {
    /// Git's id of the file: SHA-1 of a header with the length, then of the content.
    GitBlob(String),
    Sha256(String),
}

impl Checksum {
    /// Reads the checksum in an entity tag: 64 digits for a file that git LFS stores, 40 for one in
    /// git itself. Any other tag states no checksum.
    fn from_etag(tag: &str) -> Option<Self> {
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
    fn of_same_kind(&self, path: &Path) -> Result<Self> {
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

/// The token of a hub, and the only place that it is sent to.
struct HubToken {
    place: Place,
    token: String,
}

impl HubToken {
    /// No token where the text is empty.
    fn new(hub: &str, token: &str) -> Result<Option<Self>> {
        if token.is_empty() {
            return Ok(None);
        }
        let place = Place::of(&parse_url(hub)?);
        let token = token.to_owned();
        Ok(Some(Self { place, token }))
    }
}

/// The scheme, host and port of an address. The scheme counts, so that a token that went over https
/// is not sent over http afterwards.
#[derive(Debug, PartialEq)]
struct Place {
    scheme: String,
    authority: String,
}

impl Place {
    fn of(url: &Uri) -> Self {
        let authority = url.authority().map_or("", |authority| authority.as_str());
        Self {
            scheme: url.scheme_str().unwrap_or_default().to_owned(),
            authority: authority.to_ascii_lowercase(),
        }
    }
}

/// What became of a file.
#[derive(Debug, PartialEq)]
enum Download {
    Saved,
    NotFound,
}

/// The HTTP client of this program.
struct Client {
    agent: Agent,
    token: Option<HubToken>,
}

impl Client {
    fn new(proxy: Option<Proxy>, token: Option<HubToken>) -> Self {
        // An error means that a provider is installed already, which serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // The system's certificates, so that a company's own authority is trusted.
        let tls = TlsConfig::builder()
            .root_certs(RootCerts::PlatformVerifier)
            .build();
        let config = Agent::config_builder()
            .tls_config(tls)
            .proxy(proxy)
            .user_agent(concat!("kd/", env!("CARGO_PKG_VERSION")))
            // A checksum is of the file as it is stored, not as it is compressed on the way.
            .accept_encoding("identity")
            .http_status_as_error(false)
            // `get` follows redirects: a hub states the checksum in the redirect to its storage.
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(15)))
            // For one read, not for the file: a large file may take hours, silence may not.
            .timeout_per_read(Some(Duration::from_secs(60)))
            .build();
        Self {
            agent: config.into(),
            token,
        }
    }

    /// Downloads a file, and continues it where an earlier download stopped. The file has its name
    /// only when it is whole and verified by `published`, or else by what the server states.
    fn download(&self, url: &str, target: &Path, published: Option<&Checksum>) -> Result<Download> {
        let part = part_of(target);
        let start = part.metadata().map_or(0, |metadata| metadata.len());
        match self.open(url, start)? {
            None => {
                // A part of a file that is gone must not stay in the folder.
                if start > 0 {
                    std::fs::remove_file(&part).map_err(unwritable(&part))?;
                }
                Ok(Download::NotFound)
            }
            Some(reply) => {
                reply.save(target, published)?;
                Ok(Download::Saved)
            }
        }
    }

    /// Asks for a file from byte `start`; the reply begins at 0 where the server cannot continue.
    /// `None` if the server has no such file.
    fn open(&self, url: &str, start: u64) -> Result<Option<Reply>> {
        let mut reply = self.get(url, start)?;
        let status = reply.response.status().as_u16();
        let headers = reply.response.headers();
        match status {
            200 => {
                reply.total = header(headers, "content-length").and_then(|text| text.parse().ok());
            }
            206 | 416 if start > 0 => {
                let range = ContentRange::parse(header(headers, "content-range").unwrap_or(""));
                match range {
                    Some(range) if status == 206 && range.start == start => {
                        reply.start = start;
                        reply.total = range.total;
                    }
                    // The part on disk is not a beginning of this file: begin anew.
                    _ => return self.open(url, 0),
                }
            }
            // A hub's 404 may also mean that the whole repository or its revision is not there.
            404 => match header(headers, "x-error-code") {
                Some("RepoNotFound" | "RevisionNotFound") => bail!(
                    "{url}: the hub has no such repository or revision; check the name and the \
                     revision"
                ),
                _ => return Ok(None),
            },
            401 | 403 => bail!(
                "{url}: the server refuses access (status {status}); check the name, and set \
                 HF_TOKEN to a valid token that may read it if it is private or gated"
            ),
            _ => bail!(
                "{url}: the server replied with status {}; run the command again later",
                reply.response.status()
            ),
        }
        let content_type = header(reply.response.headers(), "content-type").unwrap_or("");
        if content_type.to_ascii_lowercase().starts_with("text/html") {
            return Err(web_page(url));
        }
        Ok(Some(reply))
    }

    /// Sends the request and follows redirects.
    fn get(&self, url: &str, start: u64) -> Result<Reply> {
        let mut current = parse_url(url)?;
        let hub = Place::of(&current);
        let mut stated = Stated::default();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.request(&current, start).map_err(|error| {
                anyhow!(
                    "{url}: no connection ({error}); check the network and the proxy settings, \
                     then run the command again to continue"
                )
            })?;
            stated.add(response.headers(), Place::of(&current) == hub);
            if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(Reply {
                    url: url.to_owned(),
                    response,
                    stated,
                    start: 0,
                    total: None,
                });
            }
            let location = header(response.headers(), "location");
            let target = location.and_then(|location| redirect_target(&current, location));
            current = target.with_context(|| {
                format!(
                    "{url}: the server redirects to an address that is not valid or leaves https; \
                     use another hub"
                )
            })?;
        }
        bail!(
            "{url}: more than {MAX_REDIRECTS} redirects; check the address and the proxy settings"
        )
    }

    /// Sends one request. The token goes to the hub only, never to the storage it redirects to.
    fn request(&self, url: &Uri, start: u64) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(url);
        if start > 0 {
            request = request.header("Range", format!("bytes={start}-"));
        }
        if let Some(token) = &self.token
            && token.place == Place::of(url)
        {
            request = request.header("Authorization", format!("Bearer {}", token.token));
        }
        request.call()
    }
}

/// What the replies to one request state of the file, the first of several.
#[derive(Debug, Default)]
struct Stated {
    checksum: Option<Checksum>,
    commit: Option<String>,
}

impl Stated {
    fn add(&mut self, headers: &HeaderMap, from_hub: bool) {
        let commit = header(headers, "x-repo-commit");
        let linked = header(headers, "x-linked-etag").and_then(Checksum::from_etag);
        // The tag of a storage host may look like a SHA-256 and be another hash.
        let plain = header(headers, "etag")
            .filter(|_| from_hub || commit.is_some())
            .and_then(Checksum::from_etag);
        self.checksum = self.checksum.take().or(linked).or(plain);
        // It becomes a part of later addresses.
        let commit = commit.filter(|text| text.chars().all(|c| c.is_ascii_hexdigit()));
        self.commit = self.commit.take().or(commit.map(str::to_owned));
    }
}

/// The numbers in `bytes START-END/TOTAL`.
struct ContentRange {
    start: u64,
    total: Option<u64>,
}

impl ContentRange {
    fn parse(text: &str) -> Option<Self> {
        let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
        let (start, _) = range.split_once('-')?;
        Some(Self {
            start: start.trim().parse().ok()?,
            total: total.trim().parse().ok(),
        })
    }
}

/// A file on its way.
struct Reply {
    /// The address that was asked for, not the one that a redirect led to.
    url: String,
    response: Response<Body>,
    stated: Stated,
    /// The position in the file of the body's first byte.
    start: u64,
    /// The length of the whole file, if the server states it.
    total: Option<u64>,
}

impl Reply {
    /// Writes the body into a part next to the target, and gives it the target's name when it is
    /// whole and verified.
    fn save(self, target: &Path, published: Option<&Checksum>) -> Result<()> {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let part = part_of(target);
        let expected = published.cloned().or(self.stated.checksum.clone());
        self.write_to(&part, &name)?;
        match expected {
            Some(expected) => {
                let found = expected.of_same_kind(&part)?;
                if found != expected {
                    std::fs::remove_file(&part).map_err(unwritable(&part))?;
                    bail!(
                        "{}: the downloaded file has {found} instead of {expected}; it was not \
                         kept, so run the command again",
                        target.display()
                    );
                }
            }
            None => note!("{name}: not verified, because the server states no checksum"),
        }
        std::fs::rename(&part, target).map_err(unwritable(target))
    }

    fn write_to(self, part: &Path, name: &str) -> Result<()> {
        let broken = |reason: &str| {
            anyhow!(
                "{}: the connection broke ({reason}); run the command again to continue",
                self.url
            )
        };
        let mut body = self.response.into_body().into_reader();
        let mut first = Vec::new();
        if self.start == 0 {
            (&mut body)
                .take(512)
                .read_to_end(&mut first)
                .map_err(|error| broken(&error.to_string()))?;
            if is_web_page(&first) {
                return Err(web_page(&self.url));
            }
        }
        let mut options = OpenOptions::new();
        match self.start {
            0 => options.write(true).create(true).truncate(true),
            _ => options.append(true),
        };
        let mut file = options.open(part).map_err(unwritable(part))?;
        file.write_all(&first).map_err(unwritable(part))?;
        let mut done = self.start + first.len() as u64;
        let mut progress = Progress::new(name, self.total);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = body
                .read(&mut buffer)
                .map_err(|error| broken(&error.to_string()))?;
            if count == 0 {
                break;
            }
            file.write_all(&buffer[..count]).map_err(unwritable(part))?;
            done += count as u64;
            progress.show(done);
        }
        progress.print(done);
        drop(progress);
        if let Some(total) = self.total
            && total != done
        {
            return Err(broken(&format!("{done} of {total} bytes")));
        }
        file.sync_all().map_err(unwritable(part))
    }
}

/// A line on stderr that says how much of a large file is there.
struct Progress<'a> {
    name: &'a str,
    total: Option<u64>,
    shown: Instant,
    /// A terminal rewrites its line; a log file gets a new line, less often.
    on_terminal: bool,
    line_is_open: bool,
}

impl<'a> Progress<'a> {
    fn new(name: &'a str, total: Option<u64>) -> Self {
        Self {
            name,
            total,
            shown: Instant::now(),
            on_terminal: std::io::stderr().is_terminal(),
            line_is_open: false,
        }
    }

    fn show(&mut self, done: u64) {
        let pause = Duration::from_millis(if self.on_terminal { 300 } else { 10_000 });
        if self.shown.elapsed() >= pause {
            self.shown = Instant::now();
            self.print(done);
        }
    }

    fn print(&mut self, done: u64) {
        let Some(line) = self.line(done) else { return };
        if self.on_terminal {
            eprint!("\r{line}");
            self.line_is_open = true;
        } else {
            note!("{line}");
        }
    }

    /// `None` for a file that is not large.
    fn line(&self, done: u64) -> Option<String> {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        if self.total.unwrap_or(done) < SHOW_PROGRESS_FROM {
            return None;
        }
        let total_text = match self.total {
            Some(total) => format!(" of {:.1}", megabytes(total)),
            None => String::new(),
        };
        Some(format!(
            "{}: {:.1}{total_text} MB",
            self.name,
            megabytes(done)
        ))
    }
}

impl Drop for Progress<'_> {
    /// Ends the line also where the connection broke, so that the error gets a line of its own.
    fn drop(&mut self) {
        if self.line_is_open {
            note!();
        }
    }
}

/// The name of a file that is not whole yet.
fn part_of(target: &Path) -> PathBuf {
    let mut part = target.as_os_str().to_owned();
    part.push(".part");
    part.into()
}

/// Whether there is a file of this name, or a folder that is not empty.
fn holds_something(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => path.exists(),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn parse_url(text: &str) -> Result<Uri> {
    let url: Option<Uri> = text.parse().ok();
    url.filter(|url| url.authority().is_some())
        .filter(|url| matches!(url.scheme_str(), Some("http" | "https")))
        .with_context(|| format!("{text:?} is not an address; write it as https://HOST/PATH"))
}

/// The address that a `Location` header names, which may be relative to the current one. `None` if
/// it is not valid, or if it would leave https.
fn redirect_target(from: &Uri, location: &str) -> Option<Uri> {
    let place = Place::of(from);
    let root = format!("{}://{}", place.scheme, place.authority);
    let parsed: Option<Uri> = location.parse().ok();
    let has_scheme = parsed.is_some_and(|url| url.scheme().is_some());
    let absolute = if has_scheme {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{}:{location}", place.scheme)
    } else if location.starts_with('/') {
        format!("{root}{location}")
    } else {
        let (folder, _) = from.path().rsplit_once('/').unwrap_or_default();
        format!("{root}{folder}/{location}")
    };
    let target = parse_url(&absolute).ok()?;
    let leaves_https = place.scheme == "https" && target.scheme_str() != Some("https");
    (!leaves_https).then_some(target)
}

/// A branch such as `refs/pr/1` is one segment of the address, so its slashes are encoded too.
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(byte.into());
            }
            _ => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

/// Whether a file begins as a web page does: a login page or a proxy's notice may come with status
/// 200 and no type.
fn is_web_page(first: &[u8]) -> bool {
    let text = String::from_utf8_lossy(first);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let text = text.to_ascii_lowercase();
    text.starts_with("<!doctype html") || text.starts_with("<html")
}

fn web_page(url: &str) -> anyhow::Error {
    anyhow!(
        "{url}: a web page came instead of the file; open the address in a browser to see whether \
         a login or a proxy stands before it"
    )
}

fn unreadable(path: &Path) -> impl Fn(std::io::Error) -> anyhow::Error {
    move |error| {
        anyhow!(
            "{}: cannot be read ({error}); check its permissions",
            path.display()
        )
    }
}

fn unwritable(path: &Path) -> impl Fn(std::io::Error) -> anyhow::Error {
    move |error| {
        anyhow!(
            "{}: cannot be written ({error}); check the permissions and the free space, then run \
             the command again",
            path.display()
        )
    }
}
