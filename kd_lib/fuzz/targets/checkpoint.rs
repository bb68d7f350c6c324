//! A checkpoint's config.json and tokenizer.json of any bytes: a checkpoint or an error, never a
//! panic.
#![no_main]

use kd_lib::data::{SubwordTokenizer, Truncation};
use kd_lib::models::BertConfig;
use libfuzzer_sys::fuzz_target;
use std::sync::Once;

static QUIET: Once = Once::new();

fuzz_target!(|bytes: &[u8]| {
    // libFuzzer's hook ends the process at any panic. The crate of tokenizers panics on some files,
    // and the library makes errors of these panics: a panic that is not caught still ends it.
    QUIET.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let write = |name: &str| std::fs::write(folder.path().join(name), bytes).expect("space");
    write("config.json");
    let _ = BertConfig::read(&folder.path().join("config.json"));
    write("tokenizer_config.json");
    for name in ["vocab.txt", "tokenizer.json"] {
        write(name);
        if let Ok(tokenizer) = SubwordTokenizer::open(folder.path()) {
            let tokenizer = tokenizer.with_limit("", 8, Truncation::Head);
            let _ = tokenizer.encode(&["a ab 基金", "", "ab ab ab ab ab ab ab ab ab ab ab ab"]);
        }
    }
});
