//! `kd download` from a mocked hub: a server of one thread on the local machine.

use crate::program::{kd, text};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

/// A mocked hub: its address, and the paths that were requested.
struct Hub {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Hub {
    /// Serves these files by path; any other path is not found.
    fn serve(files: HashMap<String, Vec<u8>>) -> Hub {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let path = reply(stream.unwrap(), &files);
                log.lock().unwrap().push(path);
            }
        });
        Hub { address, requests }
    }

    fn download(&self, checkpoints: &Path, arguments: &[&str]) -> Output {
        let mut command = kd(checkpoints);
        command
            .arg("download")
            .args(arguments)
            .args(["--hub", &self.address]);
        command
            .env("NO_PROXY", "*")
            .env_remove("HF_TOKEN")
            .output()
            .unwrap()
    }
}

/// Replies to one request and closes the connection; returns the requested path.
fn reply(mut stream: TcpStream, files: &HashMap<String, Vec<u8>>) -> String {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let request = lines.next().unwrap().unwrap();
    let path = request.split(' ').nth(1).unwrap().to_owned();
    for line in lines {
        if line.unwrap().is_empty() {
            break;
        }
    }
    let (status, body) = match files.get(&path) {
        Some(body) => ("200 OK", body.as_slice()),
        None => ("404 Not Found", &b""[..]),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    if !request.starts_with("HEAD") {
        stream.write_all(body).unwrap();
    }
    path
}

/// The files of a checkpoint, by their paths on a hub.
fn checkpoint(names: &[&str]) -> HashMap<String, Vec<u8>> {
    let path = |name: &str| format!("/someone/tiny/resolve/main/{name}");
    names
        .iter()
        .map(|name| (path(name), format!("content of {name}").into_bytes()))
        .collect()
}

#[test]
fn a_checkpoint_is_downloaded_completely_and_only_once() {
    let store = tempfile::tempdir().unwrap();
    let hub = Hub::serve(checkpoint(&[
        "config.json",
        "model.safetensors",
        "vocab.txt",
    ]));
    let output = hub.download(store.path(), &["someone/tiny"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let folder = store.path().join("tiny");
    assert_eq!(text(&output.stdout).trim(), folder.to_str().unwrap());
    for name in ["config.json", "model.safetensors", "vocab.txt"] {
        let content = std::fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(content, format!("content of {name}"));
    }
    let requests = hub.requests.lock().unwrap().len();
    assert!(
        hub.download(store.path(), &["someone/tiny"])
            .status
            .success()
    );
    assert_eq!(
        hub.requests.lock().unwrap().len(),
        requests,
        "it is there already"
    );
}

#[test]
fn a_checkpoint_without_weights_leaves_no_folder() {
    let store = tempfile::tempdir().unwrap();
    let hub = Hub::serve(checkpoint(&["config.json", "vocab.txt"]));
    let output = hub.download(store.path(), &["someone/tiny"]);
    let error = text(&output.stderr);
    assert!(
        !output.status.success() && error.contains("someone/tiny"),
        "{error}"
    );
    assert!(error.contains("model.safetensors"), "{error}");
    assert!(!store.path().join("tiny").exists());
}
