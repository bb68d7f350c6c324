//! A stream of texts to predict, of any bytes: each line is a text or an error, never a panic, and
//! no byte but the line ends is lost.
#![no_main]

use kd_lib::data::text_stream::{StreamedText, for_each_line};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut lines = Vec::new();
    for_each_line(bytes, |line| {
        lines.push(line.expect("bytes in memory can be read"));
        true
    });
    let kept: usize = lines.iter().map(Vec::len).sum();
    let ends = bytes.iter().filter(|&&b| b == b'\n' || b == b'\r').count();
    assert_eq!(kept + ends, bytes.len());
    for (number, line) in (1..).zip(&lines) {
        assert!(!line.contains(&b'\n') && !line.contains(&b'\r'));
        for reads_pairs in [false, true] {
            if let Ok(read) = StreamedText::parse(line, reads_pairs, "standard input", number) {
                assert_eq!(read.input().text_pair.is_some(), reads_pairs);
            }
        }
    }
});
