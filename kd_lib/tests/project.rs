//! What holds for the project as a whole: one version of everything, dependencies that point one way, and
//! sizes that stay readable.

mod common;

use common::root;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// `name==version` lines.
fn pins(text: &str) -> HashMap<String, String> {
    let pin = |line: &str| {
        line.split([' ', '\\', '#']).next().and_then(|l| l.split_once("==")).map(|(n, v)| (n.to_owned(), v.to_owned()))
    };
    text.lines().filter(|l| !l.starts_with([' ', '#'])).filter_map(pin).collect()
}

/// The version of a crate in Cargo.lock, where there is one version of it.
fn locked(name: &str) -> String {
    let lock: toml::Table = read("Cargo.lock").parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    let found: Vec<&str> =
        packages.iter().filter(|p| p["name"].as_str() == Some(name)).map(|p| p["version"].as_str().unwrap()).collect();
    assert_eq!(found.len(), 1, "{name} in Cargo.lock: {found:?}");
    found[0].to_owned()
}

#[test]
fn each_version_is_the_same_wherever_it_is_written() {
    let (wanted, lock) = (pins(&read("notebooks/requirements.in")), pins(&read("notebooks/requirements.txt")));
    assert!(wanted.len() > 8);
    for (name, version) in &wanted {
        assert_eq!(lock.get(name), Some(version), "{name} in requirements.txt");
    }
    assert_eq!(wanted["tokenizers"], locked("tokenizers"));
    assert_eq!(locked("tch"), "0.24.0");
    assert_eq!(
        wanted["torch"],
        kd_lib::device::Environment::of(tch::Device::Cpu).libtorch.split('+').next().unwrap(),
        "requirements.in and the linked libtorch"
    );
    let toolchain: toml::Table = read("rust-toolchain.toml").parse().unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    assert!(read("environment.yml").contains(&format!("- rust={channel}\n")));
    assert!(channel.starts_with(&format!("{}.", toml_version("Cargo.toml"))));
    for document in ["README.md", "notebooks/requirements.in"] {
        assert!(
            !read(document).contains("torch==") || read(document).contains(&format!("torch=={}", wanted["torch"])),
            "{document}"
        );
    }
}

fn toml_version(path: &str) -> String {
    let table: toml::Table = read(path).parse().unwrap();
    table["workspace"]["package"]["rust-version"].as_str().unwrap().to_owned()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|p| if p.is_dir() { sources(&p) } else { vec![p] }).collect()
}

#[test]
fn no_module_uses_one_of_a_later_level() {
    // A module may use those before it, and its own level.
    let levels: [&[&str]; 10] = [
        &["error", "files", "grid", "layers"],
        &["data", "models", "strategies", "device", "metrics", "progress"],
        &["recipe"],
        &["optim", "update"],
        &["plan"],
        &["run", "state", "events"],
        &["train"],
        &["predict", "report", "rehearsal"],
        &["teaching"],
        &["lab"],
    ];
    let level = |module: &str| levels.iter().position(|l| l.contains(&module));
    let source = root().join("kd_lib/src");
    for path in sources(&source) {
        let inside = path.strip_prefix(&source).unwrap();
        let module = inside.components().next().unwrap().as_os_str().to_string_lossy().replace(".rs", "");
        if module == "lib" {
            continue;
        }
        let own = level(&module).unwrap_or_else(|| panic!("{module} has no level"));
        for line in
            std::fs::read_to_string(&path).unwrap().lines().filter(|l| l.trim_start().starts_with("use crate::"))
        {
            let used: Vec<&str> = line.trim_start()["use crate::".len()..]
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .filter(|w| level(w).is_some())
                .collect();
            assert!(used.iter().all(|u| level(u).unwrap() <= own), "{}: {line}", inside.display());
        }
    }
}

#[test]
fn files_stay_short_and_the_crate_thin() {
    let sizes: Vec<(PathBuf, usize)> = sources(&root().join("kd_lib/src"))
        .into_iter()
        .map(|p| (p.clone(), std::fs::read_to_string(&p).unwrap().lines().count()))
        .collect();
    for (path, lines) in &sizes {
        assert!(*lines <= 300, "{}: {lines} lines", path.display());
    }
    assert!(sizes.iter().map(|s| s.1).sum::<usize>() <= 5000);
    for path in sources(&root().join("kd_lib/kd")) {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 150, "{}: {lines} lines", path.display());
    }
}

#[test]
fn both_readmes_have_the_same_sections_commands_tables_and_figures() {
    let [english, chinese] = ["README.md", "README.zh-CN.md"].map(read);
    let levels = |text: &str| -> Vec<usize> {
        text.lines().filter(|l| l.starts_with('#')).map(|l| l.chars().take_while(|&c| c == '#').count()).collect()
    };
    let blocks = |text: &str| text.split("```").skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    // A row's figures and code spans: what must not be translated.
    let row = |line: &str| -> Vec<String> {
        let code = line.split('`').skip(1).step_by(2).filter(|_| line.starts_with('|'));
        let figures = line.split('|').map(str::trim).filter(|cell| cell.starts_with('.') && cell.len() == 5);
        code.chain(figures).map(str::to_owned).collect()
    };
    let rows = |text: &str| text.lines().map(row).filter(|r| !r.is_empty()).collect::<Vec<_>>();
    let links = |text: &str| {
        let mut all: Vec<String> = text.split("](").skip(1).filter_map(|l| Some(l.split_once(')')?.0.into())).collect();
        all.retain(|link| !link.starts_with("README"));
        all.sort();
        all
    };
    assert_eq!(levels(&english), levels(&chinese));
    assert_eq!(blocks(&english), blocks(&chinese));
    assert_eq!(rows(&english), rows(&chinese));
    assert_eq!(links(&english), links(&chinese));
    let notebooks = std::fs::read_dir(root().join("notebooks")).unwrap().map(|e| e.unwrap().path());
    let committed = |p: &PathBuf| p.to_string_lossy().ends_with(".ipynb") && !p.to_string_lossy().contains(".browser.");
    for notebook in notebooks.filter(committed) {
        let name = vec![notebook.file_stem().unwrap().to_string_lossy().into_owned()];
        assert!(rows(&english).contains(&name), "no row for {name:?}");
    }
    assert!(blocks(&english).len() >= 3 && links(&english).len() >= 5);
}

#[test]
fn a_search_s_reports_hold_no_test_figure() {
    let kept = std::fs::read_dir(root().join("notebooks/results/runs")).unwrap().map(|e| e.unwrap().path());
    for run in kept.filter(|p| p.join("report.json").exists()) {
        let report: serde_json::Value = kd_lib::files::read_json(&run.join("report.json")).unwrap();
        let searched = run.file_name().unwrap().to_str().unwrap().starts_with("search-");
        assert_eq!(report.get("test").is_none(), searched, "{}", run.display());
        assert_eq!(report["recipe"]["data"]["blind"] == true, searched, "{}", run.display());
    }
}
