//! The HTTP client: redirects, tokens, files that are continued where they broke off.

use super::checksum::Checksum;
use super::partial::{part_of, unwritable};
use super::progress::Progress;
use anyhow::{Context, Result, anyhow, bail};
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;
use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

/// A chain of more redirects than this is a loop.
const MAX_REDIRECTS: usize = 10;

/// The token of a hub, and the only place that it is sent to.
pub(super) struct HubToken {
    place: Place,
    token: String,
}

impl HubToken {
    /// No token where the text is empty.
    pub(super) fn new(hub: &str, token: &str) -> Result<Option<Self>> {
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
    pub(super) fn of(url: &Uri) -> Self {
        let authority = url.authority().map_or("", |authority| authority.as_str());
        Self {
            scheme: url.scheme_str().unwrap_or_default().to_owned(),
            authority: authority.to_ascii_lowercase(),
        }
    }
}

/// What became of a file.
#[derive(Debug, PartialEq)]
pub(super) enum Download {
    Saved,
    NotFound,
}

/// The HTTP client of this program.
pub(super) struct Client {
    agent: Agent,
    token: Option<HubToken>,
}

impl Client {
    pub(super) fn new(proxy: Option<Proxy>, token: Option<HubToken>) -> Self {
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
    pub(super) fn download(
        &self,
        url: &str,
        target: &Path,
        published: Option<&Checksum>,
    ) -> Result<Download> {
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
    pub(super) fn open(&self, url: &str, start: u64) -> Result<Option<Reply>> {
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
pub(super) struct Stated {
    checksum: Option<Checksum>,
    pub(super) commit: Option<String>,
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
pub(super) struct Reply {
    /// The address that was asked for, not the one that a redirect led to.
    url: String,
    response: Response<Body>,
    pub(super) stated: Stated,
    /// The position in the file of the body's first byte.
    start: u64,
    /// The length of the whole file, if the server states it.
    total: Option<u64>,
}

impl Reply {
    /// Writes the body into a part next to the target, and gives it the target's name when it is
    /// whole and verified.
    pub(super) fn save(self, target: &Path, published: Option<&Checksum>) -> Result<()> {
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

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

pub(super) fn parse_url(text: &str) -> Result<Uri> {
    let url: Option<Uri> = text.parse().ok();
    url.filter(|url| url.authority().is_some())
        .filter(|url| matches!(url.scheme_str(), Some("http" | "https")))
        .with_context(|| format!("{text:?} is not an address; write it as https://HOST/PATH"))
}

/// The address that a `Location` header names, which may be relative to the current one. `None` if
/// it is not valid, or if it would leave https.
pub(super) fn redirect_target(from: &Uri, location: &str) -> Option<Uri> {
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
pub(super) fn percent_encoded(text: &str) -> String {
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
