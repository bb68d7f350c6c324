//! A crate outside the workspace that depends on `kd_lib` alone brings a model and an objective of
//! its own; and whoever depends on the library does not build what only the command line needs.

use crate::common::root;
use std::path::Path;
use std::process::Command;

/// Packages that only the command line needs.
const OF_THE_COMMAND_LINE: [&str; 4] = ["clap", "mimalloc", "signal-hook", "anyhow"];

fn manifest() -> String {
    let library = root().join("kd_lib");
    let profile = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    // The workspace's profile, so that the bindings to libtorch are not built again.
    let profile = &profile[profile.find("[profile.dev]").unwrap()..];
    let profile = profile.split("[profile.dev.package").next().unwrap();
    format!(
        "[package]\nname = \"outside\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [[bin]]\nname = \"outside\"\npath = \"main.rs\"\n\n\
         [dependencies]\nkd_lib = {{ path = \"{}\" }}\n\n[workspace]\n\n{profile}",
        library.display()
    )
}

fn cargo(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    command.args(arguments).current_dir(folder);
    command.env("CARGO_TARGET_DIR", root().join("target"));
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {arguments:?}:\n{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_crate_outside_brings_a_model_and_an_objective() {
    // Below the project, where cargo finds the settings for libtorch.
    let folder = root().join("target/outside-crate");
    std::fs::create_dir_all(&folder).unwrap();
    let source = root().join("kd_lib/tests/outside/bag.rs");
    std::fs::copy(source, folder.join("main.rs")).unwrap();
    std::fs::copy(root().join("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    std::fs::write(folder.join("Cargo.toml"), manifest()).unwrap();

    let tree = cargo(
        &folder,
        &["tree", "--offline", "-e", "normal", "--prefix", "none"],
    );
    assert!(tree.contains("kd_lib v"), "{tree}");
    for package in OF_THE_COMMAND_LINE {
        let built = tree
            .lines()
            .any(|line| line.split(' ').next() == Some(package));
        assert!(!built, "a dependent of kd_lib builds {package}:\n{tree}");
    }

    // The library is compiled again here, and quickly: it reads a few hundred texts.
    let unoptimised = "profile.dev.package.kd_lib.opt-level=0";
    cargo(
        &folder,
        &["build", "--offline", "--quiet", "--config", unoptimised],
    );
    let runs = tempfile::tempdir().unwrap();
    let output = Command::new(root().join("target/debug/outside"))
        .args([root(), runs.path()])
        .env("LD_LIBRARY_PATH", root().join(".libtorch/lib"))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let printed = String::from_utf8_lossy(&output.stdout);

    assert!(
        printed.starts_with("bag-") && printed.contains(" taught by student-"),
        "{printed}"
    );
    assert!(printed.trim().ends_with(": predicted"), "{printed}");
}
