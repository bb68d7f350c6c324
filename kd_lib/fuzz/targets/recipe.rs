//! A recipe of any bytes: a recipe or an error, never a panic.
#![no_main]

use kd_lib::store::Recipe;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let folder = tempfile::tempdir_in("/dev/shm").expect("a folder in memory");
    let path = folder.path().join("recipe.toml");
    std::fs::write(&path, bytes).expect("space");
    let settings = String::from_utf8_lossy(bytes).into_owned();
    if let Ok(recipe) = Recipe::read(&path, "full", &[]) {
        let _ = recipe.validate();
    }
    std::fs::write(&path, "name = \"fuzz\"\n").expect("space");
    let _ = Recipe::read(&path, "full", &[settings]);
});
