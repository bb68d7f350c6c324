//! The package's weight archive and safetensors files, of any bytes: tensors or an error, never a
//! panic, and never more memory than the file's size explains.
#![no_main]

#[path = "../../examples/convert_e5.rs"]
#[allow(dead_code)] // its main
mod e5;

use kd_lib::files::TensorFile;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = e5::parse(bytes);
    let file = tempfile::NamedTempFile::new_in("/dev/shm").expect("a file in memory");
    std::fs::write(file.path(), bytes).expect("space");
    let _ = TensorFile::read(file.path());
});
