//! Texts with the logits or classes of a teacher, of any bytes: finite logits or an error, never a
//! panic.
#![no_main]

use kd_lib::data::TextInput;
use kd_lib::store::labelled_texts::{ExportedText, read_logits, read_texts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = tempfile::NamedTempFile::new_in("/dev/shm").expect("a file in memory");
    std::fs::write(file.path(), bytes).expect("space");
    let Ok(read) = read_texts(file.path()) else {
        return;
    };
    let inputs: Vec<TextInput> = read.iter().map(ExportedText::input).collect();
    let classes = ["a".to_string(), "基金".to_string()];
    if let Ok(logits) = read_logits(file.path(), &inputs, &classes) {
        assert_eq!(logits.size(), [inputs.len() as i64, 2]);
        assert_eq!(logits.isfinite().all().int64_value(&[]), 1);
    }
});
