//! The files of a corpus, of any bytes: examples or an error, never a panic.
#![no_main]

use kd_lib::data::text_files::{FileFormat, read_examples, read_labels};
use kd_lib::data::{Corpus, Vocabulary};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    // The first zero byte ends the class names; the rest is every split.
    let (names, lines) = bytes.split_at(bytes.iter().position(|&b| b == 0).unwrap_or(0));
    let write =
        |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("space");
    write("class.txt", names);
    ["train.txt", "dev.txt", "test.txt"]
        .iter()
        .for_each(|name| write(name, lines));
    let path = folder.path().join("train.txt");
    let labels = read_labels(&folder.path().join("class.txt"))
        .unwrap_or_else(|_| vec!["a".into(), "b".into()]);
    for format in [
        FileFormat::LabelText,
        FileFormat::TextIndex,
        FileFormat::Csv,
    ] {
        for example in read_examples(&path, format, &labels).into_iter().flatten() {
            assert!(example.label < labels.len() && example.line > 0);
        }
    }
    let _ = Vocabulary::read(&path);
    if let Ok(corpus) = Corpus::open(folder.path()) {
        let found = corpus.data_quality();
        assert!(corpus.without_leaks().train.len() <= found.repeated.train + lines.len());
    }
});
