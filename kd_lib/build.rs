//! Tells the linker where libtorch lies, so that the crate's own binaries and tests start in a
//! plain shell. Dependents (a notebook cell) set `LD_LIBRARY_PATH` instead: link arguments do not
//! propagate.
fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    if let Ok(libtorch) = std::env::var("LIBTORCH") {
        let lib = std::path::Path::new(&libtorch).join("lib");
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
        // The older kind of path: `LD_LIBRARY_PATH` may name another libtorch, and must not win.
        println!("cargo::rustc-link-arg=-Wl,--disable-new-dtags");
    }
}
