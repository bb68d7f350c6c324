//! The network is mocked by a small HTTP server on this machine; everything else is the real code.

use super::checkpoint::Origin;
use super::client::redirect_target;
use super::partial::part_of;
use super::progress::Progress;
use super::*;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use tempfile::TempDir;
use ureq::http::Uri;

const TEXT: &[u8] = b"hello kd\n";
/// Of [`TEXT`], as `git hash-object` and `sha256sum` print them.
const TEXT_BLOB: &str = "8473ef37ec1ebad9cf66025f4bea62e355b8e77e";
const TEXT_SHA256: &str = "ee353df2e1871f9a70fc02801cb14df2a5eb1d2f0dcd4c1bde22bc8ab22b7c78";
const FORGED_BLOB: &str = "114ecba9c2292d2daae26e3d69e37fe469a1ed47";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

struct Request {
    path: String,
    /// One `name: value` a line, the names in lower case.
    headers: Vec<String>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let prefix = format!("{name}: ");
        self.headers
            .iter()
            .find_map(|line| line.strip_prefix(&prefix))
    }

    fn range_start(&self) -> Option<usize> {
        let range = self.header("range")?;
        let start = range.strip_prefix("bytes=")?.strip_suffix('-')?;
        start.parse().ok()
    }
}

struct MockReply {
    status: u16,
    headers: Vec<String>,
    body: Vec<u8>,
    /// The length that the reply claims to have.
    claimed: usize,
}

impl MockReply {
    fn new(status: u16, body: &[u8]) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.to_vec(),
            claimed: body.len(),
        }
    }

    fn ok(body: &[u8]) -> Self {
        Self::new(200, body)
    }

    fn redirect(location: &str) -> Self {
        Self::new(302, b"").with("Location", location)
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push(format!("{name}: {value}"));
        self
    }

    /// The connection breaks after `count` bytes of the body.
    fn cut_at(mut self, count: usize) -> Self {
        self.body.truncate(count);
        self
    }

    /// The rest of the body, as a server that knows ranges sends it.
    fn rest(body: &[u8], start: usize) -> Self {
        let range = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
        Self::new(206, &body[start..]).with("Content-Range", &range)
    }
}

struct MockServer {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl MockServer {
    fn new(reply: impl Fn(&Request) -> MockReply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        // It serves until the test program ends.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let request = read_request(&stream);
                let reply = reply(&request);
                seen.lock().unwrap().push(request);
                send(&mut stream, &reply);
            }
        });
        Self { address, requests }
    }

    /// A hub that has a whole checkpoint, and states the commit.
    fn hub(weights: impl Fn(&Request) -> MockReply + Send + 'static) -> Self {
        Self::new(move |request| match request.path.rsplit('/').next() {
            Some("config.json") => MockReply::ok(b"{}").with("X-Repo-Commit", COMMIT),
            Some("vocab.txt") => MockReply::ok(b"[PAD]\n"),
            Some("model.safetensors") => weights(request),
            _ => MockReply::new(404, b"Entry not found"),
        })
    }

    fn paths(&self) -> Vec<String> {
        let requests = self.requests.lock().unwrap();
        requests.iter().map(|r| r.path.clone()).collect()
    }

    /// The values of one header in all requests.
    fn sent(&self, name: &str) -> Vec<Option<String>> {
        let requests = self.requests.lock().unwrap();
        let value = |r: &Request| r.header(name).map(str::to_owned);
        requests.iter().map(value).collect()
    }
}

fn read_request(stream: &TcpStream) -> Request {
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut lines = lines.take_while(|line| !line.is_empty());
    let first = lines.next().unwrap();
    let path = first.split(' ').nth(1).unwrap().to_owned();
    let lower = |line: String| {
        let (name, value) = line.split_once(": ").unwrap();
        format!("{}: {value}", name.to_ascii_lowercase())
    };
    let headers = lines.map(lower).collect();
    Request { path, headers }
}

fn send(stream: &mut TcpStream, reply: &MockReply) {
    let mut head = format!("HTTP/1.1 {} Mock\r\nConnection: close\r\n", reply.status);
    head += &format!("Content-Length: {}\r\n", reply.claimed);
    for line in &reply.headers {
        head += &format!("{line}\r\n");
    }
    head += "\r\n";
    // The client may have closed the connection: it does not read every body.
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&reply.body);
}

/// A client that uses no proxy, whatever this machine's settings are.
fn client() -> Client {
    Client::new(None, None)
}

struct Target {
    folder: TempDir,
    path: PathBuf,
}

impl Target {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file.txt");
        Self { folder, path }
    }

    /// A target of which a part was downloaded before.
    fn with_part(part: &[u8]) -> Self {
        let target = Self::new();
        std::fs::write(part_of(&target.path), part).unwrap();
        target
    }

    fn text(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap()
    }

    fn is_empty(&self) -> bool {
        !holds_something(self.folder.path())
    }

    fn download(&self, server: &MockServer) -> Result<Download> {
        let url = format!("{}/file.txt", server.address);
        client().download(&url, &self.path, None)
    }
}

fn blob(id: &str) -> Checksum {
    Checksum::GitBlob(id.to_owned())
}

#[test]
fn a_checksum_is_what_git_and_sha256sum_print() {
    let target = Target::new();
    std::fs::write(&target.path, TEXT).unwrap();
    let found = blob("").of_same_kind(&target.path).unwrap();
    assert_eq!(found, blob(TEXT_BLOB));
    let found = Checksum::Sha256(String::new()).of_same_kind(&target.path);
    assert_eq!(found.unwrap(), Checksum::Sha256(TEXT_SHA256.to_owned()));
}

#[test]
fn an_entity_tag_is_a_checksum_only_with_40_or_64_hexadecimal_digits() {
    let quoted = format!("\"{TEXT_SHA256}\"");
    let sum = Checksum::Sha256(TEXT_SHA256.to_owned());
    assert_eq!(Checksum::from_etag(&quoted), Some(sum));
    let weak = format!("W/\"{}\"", TEXT_BLOB.to_uppercase());
    assert_eq!(Checksum::from_etag(&weak), Some(blob(TEXT_BLOB)));
    assert_eq!(Checksum::from_etag("\"5f3c-61a\""), None);
    assert_eq!(Checksum::from_etag(&"z".repeat(40)), None);
}

#[test]
fn a_part_is_continued_where_it_stopped() {
    let server = MockServer::new(|request| MockReply::rest(TEXT, request.range_start().unwrap()));
    let target = Target::with_part(&TEXT[..4]);
    assert_eq!(target.download(&server).unwrap(), Download::Saved);
    assert_eq!(target.text(), TEXT);
    assert!(!part_of(&target.path).exists());
    assert_eq!(server.sent("range"), [Some("bytes=4-".to_owned())]);
}

#[test]
fn a_part_is_begun_anew_if_the_server_ignores_the_range() {
    let server = MockServer::new(|_| MockReply::ok(TEXT));
    let target = Target::with_part(b"another file that is longer");
    target.download(&server).unwrap();
    assert_eq!(target.text(), TEXT);
    assert_eq!(server.sent("range").len(), 1);
}

#[test]
fn a_part_is_begun_anew_if_the_server_has_no_such_range() {
    let server = MockServer::new(|request| match request.range_start() {
        Some(_) => MockReply::new(416, b"").with("Content-Range", "bytes */9"),
        None => MockReply::ok(TEXT),
    });
    let target = Target::with_part(b"another file that is longer");
    target.download(&server).unwrap();
    assert_eq!(target.text(), TEXT);
    assert_eq!(server.sent("range").len(), 2);
}

#[test]
fn a_part_is_begun_anew_if_the_server_sends_another_range() {
    let server = MockServer::new(|request| match request.range_start() {
        Some(_) => MockReply::rest(TEXT, 2),
        None => MockReply::ok(TEXT),
    });
    let target = Target::with_part(&TEXT[..4]);
    target.download(&server).unwrap();
    assert_eq!(target.text(), TEXT);
}

#[test]
fn a_broken_connection_leaves_a_part_that_the_next_run_continues() {
    let text: Vec<u8> = (0..100_000).map(|i| b'a' + (i % 26) as u8).collect();
    let whole = text.clone();
    let server = MockServer::new(move |request| match request.range_start() {
        Some(start) => MockReply::rest(&whole, start),
        None => MockReply::ok(&whole).cut_at(60_000),
    });
    let target = Target::new();
    let error = target.download(&server).unwrap_err().to_string();
    assert!(
        error.contains("run the command again to continue"),
        "{error}"
    );
    assert!(!target.path.exists());
    target.download(&server).unwrap();
    assert_eq!(target.text(), text);
    assert_eq!(server.sent("range").len(), 2);
}

#[test]
fn a_web_page_is_refused_by_its_type_and_by_its_beginning() {
    let typed = MockServer::new(|_| {
        MockReply::ok(b"please log in").with("Content-Type", "text/html; charset=utf-8")
    });
    let untyped = MockServer::new(|_| MockReply::ok(b"\n <!doctype HTML><title>Log in</title>"));
    for server in [typed, untyped] {
        let target = Target::new();
        let error = target.download(&server).unwrap_err().to_string();
        assert!(error.contains("a web page came"), "{error}");
        assert!(target.is_empty());
    }
}

#[test]
fn a_file_that_does_not_match_the_stated_checksum_is_not_kept() {
    let wrong_sha256 = TEXT_SHA256.replace('a', "b");
    let wrong_blob = TEXT_BLOB.replace('a', "b");
    for (wrong, right) in [(wrong_sha256, TEXT_SHA256), (wrong_blob, TEXT_BLOB)] {
        let stated = wrong.clone();
        let server =
            MockServer::new(move |_| MockReply::ok(TEXT).with("ETag", &format!("\"{stated}\"")));
        let target = Target::new();
        let error = target.download(&server).unwrap_err().to_string();
        assert!(error.contains(&wrong) && error.contains(right), "{error}");
        assert!(target.is_empty());
    }
}

#[test]
fn the_checksum_is_the_hubs_and_not_that_of_its_storage() {
    // The storage's tag has 64 digits too, and is another hash.
    let storage = MockServer::new(|_| MockReply::ok(TEXT).with("ETag", &"0".repeat(64)));
    let location = format!("{}/blob?signature=1", storage.address);
    let hub = MockServer::new(move |_| {
        MockReply::redirect(&location).with("X-Linked-Etag", &format!("\"{TEXT_SHA256}\""))
    });
    let target = Target::new();
    target.download(&hub).unwrap();
    assert_eq!(target.text(), TEXT);
    assert_eq!(storage.paths(), ["/blob?signature=1"]);
}

#[test]
fn the_token_goes_to_the_hub_and_not_to_the_host_of_a_redirect() {
    let storage = MockServer::new(|_| MockReply::ok(TEXT));
    let location = format!("{}/blob", storage.address);
    let hub = MockServer::new(move |request| match request.path.as_str() {
        "/file.txt" => MockReply::redirect("/cache/file.txt"),
        _ => MockReply::redirect(&location),
    });
    let token = HubToken::new(&hub.address, "secret").unwrap();
    let url = format!("{}/file.txt", hub.address);
    let target = Target::new();
    Client::new(None, token)
        .download(&url, &target.path, None)
        .unwrap();
    let bearer = Some("Bearer secret".to_owned());
    assert_eq!(hub.paths(), ["/file.txt", "/cache/file.txt"]);
    assert_eq!(hub.sent("authorization"), [bearer.clone(), bearer]);
    assert_eq!(storage.sent("authorization"), [None]);
}

#[test]
fn a_redirect_is_relative_or_absolute_and_does_not_leave_https() {
    let from: Uri = "https://hub.example/a/b?c=d".parse().unwrap();
    let target = |location| redirect_target(&from, location).map(|url| url.to_string());
    assert_eq!(target("/x").unwrap(), "https://hub.example/x");
    assert_eq!(target("x").unwrap(), "https://hub.example/a/x");
    assert_eq!(
        target("//other.example/x").unwrap(),
        "https://other.example/x"
    );
    assert_eq!(
        target("https://other.example/x").unwrap(),
        "https://other.example/x"
    );
    assert_eq!(target("http://hub.example/x"), None);
    assert_eq!(target("ftp://hub.example/x"), None);
}

#[test]
fn redirects_without_end_are_an_error() {
    let server = MockServer::new(|_| MockReply::redirect("/file.txt"));
    let error = Target::new().download(&server).unwrap_err().to_string();
    assert!(error.contains("more than 10 redirects"), "{error}");
}

#[test]
fn a_refused_access_names_the_token() {
    let server = MockServer::new(|_| MockReply::new(401, b"Repository not found"));
    let error = Target::new().download(&server).unwrap_err().to_string();
    assert!(error.contains("HF_TOKEN"), "{error}");
}

#[test]
fn a_server_that_is_not_there_is_named_with_what_to_do() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file.txt", listener.local_addr().unwrap());
    drop(listener);
    let target = Target::new();
    let error = client().download(&url, &target.path, None).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains(&url) && error.contains("check the network"),
        "{error}"
    );
}

#[test]
fn the_progress_of_a_large_file_is_shown_and_of_a_small_one_not() {
    let line = |total, done| Progress::new("weights", total).line(done);
    assert_eq!(
        line(Some(25_000_000), 500_000).unwrap(),
        "weights: 0.5 of 25.0 MB"
    );
    assert_eq!(line(None, 12_000_000).unwrap(), "weights: 12.0 MB");
    assert_eq!(line(Some(9_000_000), 9_000_000), None);
}

const CORPUS: Corpus = Corpus {
    name: "small",
    base_url: "",
    files: &[CorpusFile {
        name: "train.txt",
        blob_id: TEXT_BLOB,
    }],
    classes: &["one", "two"],
};

fn corpus(server: &MockServer, into: &Path) -> Result<PathBuf> {
    let base_url = format!("{}/data/", server.address);
    corpus_from(&client(), &CORPUS, &base_url, into)
}

#[test]
fn a_corpus_is_downloaded_whole_and_then_left_alone() {
    let server = MockServer::new(|_| MockReply::ok(TEXT));
    let into = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let folder = corpus(&server, into.path()).unwrap();
        assert_eq!(folder, into.path().join("small"));
        assert_eq!(std::fs::read(folder.join("train.txt")).unwrap(), TEXT);
        let classes = std::fs::read_to_string(folder.join("class.txt")).unwrap();
        assert_eq!(classes, "one\ntwo\n");
    }
    assert_eq!(server.paths(), ["/data/train.txt"]);
    assert_eq!(names(into.path()), ["small"]);
}

#[test]
fn a_corpus_file_with_another_blob_id_is_refused_and_not_kept() {
    // The checksum that the server states fits its file; the published one decides.
    let server = MockServer::new(|_| MockReply::ok(b"forged\n").with("ETag", FORGED_BLOB));
    let into = tempfile::tempdir().unwrap();
    let error = corpus(&server, into.path()).unwrap_err().to_string();
    assert!(
        error.contains(TEXT_BLOB) && error.contains("not kept"),
        "{error}"
    );
    assert!(!into.path().join("small").exists());
    assert!(!holds_something(&into.path().join(".small")));
}

#[test]
fn a_corpus_folder_that_lacks_a_file_is_refused() {
    let server = MockServer::new(|_| MockReply::ok(TEXT));
    let into = tempfile::tempdir().unwrap();
    std::fs::create_dir(into.path().join("small")).unwrap();
    std::fs::write(into.path().join("small/train.txt"), TEXT).unwrap();
    let error = corpus(&server, into.path()).unwrap_err().to_string();
    assert!(error.contains("lacks class.txt"), "{error}");
}

#[test]
fn an_unknown_corpus_is_refused_with_the_known_names() {
    let error = download_corpus("thucnews", Path::new("data")).unwrap_err();
    assert!(error.to_string().contains("thucnews-title"), "{error}");
}

fn checkpoint(server: &MockServer, revision: &str, into: &Path) -> Result<PathBuf> {
    let wanted = Checkpoint::new("someone/tiny", revision, &server.address)?;
    checkpoint_from(&client(), &wanted, into)
}

/// What a folder holds, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let name = |e: std::io::Result<std::fs::DirEntry>| e.unwrap().file_name().into_string();
    let mut names: Vec<String> = entries.map(|e| name(e).unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_checkpoint_has_its_origin_and_need_not_have_the_optional_files() {
    let hub = MockServer::hub(|_| MockReply::ok(TEXT));
    let into = tempfile::tempdir().unwrap();
    let folder = checkpoint(&hub, "main", into.path()).unwrap();
    assert_eq!(folder, into.path().join("tiny"));
    assert_eq!(names(into.path()), ["tiny"]);
    let files = [
        "config.json",
        "model.safetensors",
        "origin.txt",
        "vocab.txt",
    ];
    assert_eq!(names(&folder), files);
    let origin = std::fs::read_to_string(folder.join("origin.txt")).unwrap();
    assert_eq!(
        origin,
        format!("id: someone/tiny\nrevision: main\ncommit: {COMMIT}\n")
    );
}

#[test]
fn the_revision_is_in_the_address_and_every_file_is_of_its_commit() {
    let hub = MockServer::hub(|_| MockReply::ok(TEXT));
    let into = tempfile::tempdir().unwrap();
    checkpoint(&hub, "refs/pr/1", into.path()).unwrap();
    let paths = hub.paths();
    assert_eq!(paths[0], "/someone/tiny/resolve/refs%2Fpr%2F1/config.json");
    let pinned = format!("/someone/tiny/resolve/{COMMIT}/");
    assert_eq!(paths.len(), 6);
    assert!(
        paths[1..].iter().all(|path| path.starts_with(&pinned)),
        "{paths:?}"
    );
}

#[test]
fn a_checkpoint_of_the_same_origin_is_left_alone_and_another_is_refused() {
    let hub = MockServer::hub(|_| MockReply::ok(TEXT));
    let into = tempfile::tempdir().unwrap();
    checkpoint(&hub, "main", into.path()).unwrap();
    let asked = hub.paths().len();
    checkpoint(&hub, "main", into.path()).unwrap();
    checkpoint(&hub, COMMIT, into.path()).unwrap();
    assert_eq!(hub.paths().len(), asked);

    let error = checkpoint(&hub, "v2", into.path()).unwrap_err().to_string();
    assert!(
        error.contains("holds someone/tiny at revision main"),
        "{error}"
    );
    let another = Checkpoint::new("another/tiny", "main", &hub.address).unwrap();
    let error = checkpoint_from(&client(), &another, into.path()).unwrap_err();
    assert!(
        error.to_string().contains("to download another/tiny"),
        "{error}"
    );
}

#[test]
fn a_folder_of_version_0_1_and_one_made_by_hand_are_left_alone() {
    let hub = MockServer::hub(|_| MockReply::ok(TEXT));
    let into = tempfile::tempdir().unwrap();
    let folder = into.path().join("tiny");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("model.safetensors"), TEXT).unwrap();
    checkpoint(&hub, "main", into.path()).unwrap();
    let error = checkpoint(&hub, "v2", into.path()).unwrap_err().to_string();
    assert!(error.contains("its revision is unknown"), "{error}");

    std::fs::write(folder.join("origin.txt"), "someone/tiny").unwrap();
    checkpoint(&hub, "main", into.path()).unwrap();
    std::fs::write(folder.join("origin.txt"), "another/tiny").unwrap();
    let error = checkpoint(&hub, "main", into.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("holds another/tiny"), "{error}");
    assert!(hub.paths().is_empty());
}

#[test]
fn every_file_that_a_checkpoint_lacks_is_named() {
    let hub = MockServer::new(|request| {
        if request.path.ends_with("/config.json") {
            MockReply::ok(b"{}")
        } else {
            MockReply::new(404, b"Entry not found")
        }
    });
    let into = tempfile::tempdir().unwrap();
    let error = checkpoint(&hub, "main", into.path())
        .unwrap_err()
        .to_string();
    let lacking = "lacks a tokenizer (tokenizer.json or vocab.txt) and model.safetensors";
    assert!(error.contains(lacking), "{error}");
    assert!(!into.path().join("tiny").exists());
}

#[test]
fn a_revision_that_the_hub_does_not_have_is_not_a_missing_file() {
    let hub =
        MockServer::new(|_| MockReply::new(404, b"").with("X-Error-Code", "RevisionNotFound"));
    let into = tempfile::tempdir().unwrap();
    let error = checkpoint(&hub, "v9", into.path()).unwrap_err().to_string();
    assert!(error.contains("no such repository or revision"), "{error}");
}

#[test]
fn an_optional_file_that_fails_otherwise_than_by_404_is_an_error() {
    let hub = MockServer::new(|request| match request.path.rsplit('/').next() {
        Some("tokenizer_config.json") => MockReply::new(503, b""),
        _ => MockReply::ok(TEXT),
    });
    let into = tempfile::tempdir().unwrap();
    let error = checkpoint(&hub, "main", into.path())
        .unwrap_err()
        .to_string();
    assert!(error.contains("status 503"), "{error}");
    assert!(!into.path().join("tiny").exists());
}

#[test]
fn an_interrupted_checkpoint_is_continued_and_its_whole_files_are_not_asked_for_again() {
    let hub = MockServer::hub(|request| match request.range_start() {
        Some(start) => MockReply::rest(TEXT, start),
        None => MockReply::ok(TEXT).cut_at(4),
    });
    let into = tempfile::tempdir().unwrap();
    // The first bytes of a small file are read at once, so nothing of it is kept: write the part.
    checkpoint(&hub, "main", into.path()).unwrap_err();
    assert!(!into.path().join("tiny").exists());
    let partial = into.path().join(".someone--tiny@main");
    std::fs::write(partial.join("model.safetensors.part"), &TEXT[..4]).unwrap();
    let folder = checkpoint(&hub, "main", into.path()).unwrap();
    assert_eq!(
        std::fs::read(folder.join("model.safetensors")).unwrap(),
        TEXT
    );
    let vocabularies = hub
        .paths()
        .into_iter()
        .filter(|path| path.ends_with("vocab.txt"));
    assert_eq!(vocabularies.count(), 1);
}

#[test]
fn the_files_of_an_older_commit_are_dropped() {
    let hub = MockServer::hub(|_| MockReply::ok(TEXT));
    let into = tempfile::tempdir().unwrap();
    let partial = into.path().join(".someone--tiny@main");
    std::fs::create_dir(&partial).unwrap();
    let old = Origin {
        id: "someone/tiny".to_owned(),
        revision: "main".to_owned(),
        commit: Some("f".repeat(40)),
    };
    old.write(&partial).unwrap();
    std::fs::write(partial.join("vocab.txt"), "old").unwrap();
    let folder = checkpoint(&hub, "main", into.path()).unwrap();
    assert_eq!(std::fs::read(folder.join("vocab.txt")).unwrap(), b"[PAD]\n");
}

#[test]
fn a_second_process_does_not_download_into_the_same_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".someone--tiny@main");
    let _first = Partial::open(path.clone()).unwrap();
    let error = Partial::open(path).map(drop).unwrap_err().to_string();
    assert!(error.contains("another process"), "{error}");
}

#[test]
fn names_that_are_no_checkpoint_no_revision_and_no_hub_are_refused() {
    let hub = "https://hub.example/";
    for id in ["tiny", "a/b/c", "../tiny", "a/..", "a/", "a b/c", "a/b?x"] {
        assert!(Checkpoint::new(id, "main", hub).is_err(), "{id}");
    }
    for revision in ["", "..", "a/../b", "a b", "/main"] {
        assert!(Checkpoint::new("a/b", revision, hub).is_err(), "{revision}");
    }
    assert!(Checkpoint::new("a/b", "main", "hub.example").is_err());
    let url = Checkpoint::new("a/b", "main", hub)
        .unwrap()
        .url("main", "f");
    assert_eq!(url, "https://hub.example/a/b/resolve/main/f");
}
