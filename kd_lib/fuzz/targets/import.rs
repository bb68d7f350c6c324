//! A table with texts and labels, of any bytes: a corpus or an error, never a panic.
#![no_main]

use kd_lib::data::import::import;
use kd_lib::data::text_files::Example;
use kd_lib::data::{ColumnOptions, Corpus, Split};
use libfuzzer_sys::fuzz_target;

const ENDINGS: [&str; 5] = ["csv", "tsv", "jsonl", "parquet", "txt"];

fuzz_target!(|bytes: &[u8]| {
    // The first byte chooses the format, the others are the file.
    let Some((choice, table)) = bytes.split_first() else {
        return;
    };
    let ending = ENDINGS[usize::from(*choice) % ENDINGS.len()];
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let path = folder.path().join(format!("table.{ending}"));
    std::fs::write(&path, table).expect("space");
    if let Ok(imported) = import(&path, &ColumnOptions::default()) {
        check(&imported.corpus);
    }
});

fn check(corpus: &Corpus) {
    let is_valid = |e: &Example| e.label < corpus.labels.len() && e.line > 0;
    for split in [Split::Train, Split::Dev, Split::Test] {
        assert!(!corpus.split(split).is_empty());
        assert!(corpus.split(split).iter().all(is_valid));
    }
}
