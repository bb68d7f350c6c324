//! What holds for the project as a whole: one version of everything, dependencies that point one
//! way, READMEs that state the same, and a search that did not see the test split.

use crate::common::root;
use kd_lib::store::StoredResults;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// `name==version` lines.
fn pins(text: &str) -> HashMap<String, String> {
    let pin = |line: &str| {
        line.split([' ', '\\', '#'])
            .next()
            .and_then(|l| l.split_once("=="))
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
    };
    text.lines()
        .filter(|l| !l.starts_with([' ', '#']))
        .filter_map(pin)
        .collect()
}

/// The version of a crate in Cargo.lock, where there is one version of it.
fn locked(name: &str) -> String {
    let lock: toml::Table = read("Cargo.lock").parse().unwrap();
    let packages = lock["package"].as_array().unwrap();
    let found: Vec<&str> = packages
        .iter()
        .filter(|p| p["name"].as_str() == Some(name))
        .map(|p| p["version"].as_str().unwrap())
        .collect();
    assert_eq!(found.len(), 1, "{name} in Cargo.lock: {found:?}");
    found[0].to_owned()
}

#[test]
fn each_version_is_the_same_in_every_file() {
    let (wanted, lock) = (
        pins(&read("notebooks/requirements.in")),
        pins(&read("notebooks/requirements.txt")),
    );
    assert!(wanted.len() > 8);
    for (name, version) in &wanted {
        assert_eq!(lock.get(name), Some(version), "{name} in requirements.txt");
    }
    assert_eq!(wanted["tokenizers"], locked("tokenizers"));
    assert_eq!(locked("tch"), "0.24.0");
    assert_eq!(
        wanted["torch"],
        kd_lib::device::Environment::of(tch::Device::Cpu)
            .libtorch
            .split('+')
            .next()
            .unwrap(),
        "requirements.in and the linked libtorch"
    );
    let toolchain: toml::Table = read("rust-toolchain.toml").parse().unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    assert!(read("environment.yml").contains(&format!("- rust={channel}\n")));
    assert!(channel.starts_with(&format!("{}.", toml_version("Cargo.toml"))));
    for document in ["README.md", "notebooks/requirements.in"] {
        assert!(
            !read(document).contains("torch==")
                || read(document).contains(&format!("torch=={}", wanted["torch"])),
            "{document}"
        );
    }
}

fn toml_version(path: &str) -> String {
    let table: toml::Table = read(path).parse().unwrap();
    table["workspace"]["package"]["rust-version"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path());
    entries
        .flat_map(|p| if p.is_dir() { sources(&p) } else { vec![p] })
        .collect()
}

/// The source without comments.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    let without = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines().map(without).collect::<Vec<_>>().join("\n")
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The names right behind `prefix` (`crate::` or `super::`) in a source: one, or those at the top
/// level of a group in braces.
fn used(source: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in source.match_indices(prefix) {
        if source[..at].ends_with(|c| is_name(c) || c == ':' || c == '$') {
            continue;
        }
        let rest = &source[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(rest.chars().take_while(|&c| is_name(c)).collect());
            continue;
        };
        let (mut depth, mut start_of_item) = (1, true);
        for (at, character) in group.char_indices() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' => start_of_item = depth == 1,
                c if depth == 1 && start_of_item && is_name(c) => {
                    names.insert(group[at..].chars().take_while(|&c| is_name(c)).collect());
                    start_of_item = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    names
}

/// Modules from bottom to top. Those of one level may use one another.
const LEVELS: [&[&str]; 10] = [
    &["error", "files"],
    &["device", "threads"],
    &["precision"],
    &["data"],
    &["models"],
    &["objectives"],
    &["evaluation"],
    &["training"],
    &["store"],
    &["distill"],
];

fn level(module: &str) -> Option<usize> {
    LEVELS.iter().position(|modules| modules.contains(&module))
}

#[test]
fn a_module_uses_only_modules_of_its_own_and_earlier_levels() {
    let source = root().join("kd_lib/src");
    let mut found = 0;
    for path in sources(&source) {
        let inside = path.strip_prefix(&source).unwrap();
        let module = inside
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_string_lossy();
        let module = module.trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let own = level(module).unwrap_or_else(|| panic!("{module} has no level"));
        for name in used(&code(&path), "crate::") {
            let Some(level) = level(&name) else {
                let is_type = name.starts_with(char::is_uppercase);
                assert!(is_type, "{}: crate::{name} has no level", inside.display());
                continue;
            };
            assert!(level <= own, "{}: uses {name}", inside.display());
            found += 1;
        }
    }
    assert!(found > 50, "{found} uses");
}

#[test]
fn the_names_behind_a_prefix_are_found() {
    let source = "use crate::{Error, Result, error::BUG, data::{batch::Batch, Corpus}};\n\
                  let x = crate::files::read(a);\nuse crate::models::{Bert, bilstm};";
    let expected = ["Error", "Result", "data", "error", "files", "models"];
    assert_eq!(used(source, "crate::"), expected.map(String::from).into());
    assert!(used("some_crate::x", "crate::").is_empty());
}

/// A file on a path of uses that leads back to it.
fn on_a_cycle(uses: &BTreeMap<String, BTreeSet<String>>) -> Option<String> {
    let reaches = |from: &String| {
        let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(file) = open.pop() {
            for next in uses.get(file).into_iter().flatten() {
                if reached.insert(next) {
                    open.push(next);
                }
            }
        }
        reached.contains(from)
    };
    uses.keys().find(|file| reaches(file)).cloned()
}

#[test]
fn files_of_a_folder_do_not_use_one_another_in_a_cycle() {
    let source = root().join("kd_lib/src");
    let mut folders = 0;
    for entry in std::fs::read_dir(&source).unwrap() {
        let folder = entry.unwrap().path();
        if !folder.is_dir() {
            continue;
        }
        let module_file = folder.join("mod.rs");
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let stem = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
        let files: Vec<PathBuf> = sources(&folder)
            .into_iter()
            .filter(|path| *path != module_file)
            .collect();
        let names: BTreeSet<String> = files.iter().map(|path| stem(path)).collect();
        for path in &files {
            let mut file_modules = used(&code(path), "super::");
            file_modules.retain(|name| names.contains(name));
            uses.insert(stem(path), file_modules);
        }
        let folder = stem(&folder);
        assert_eq!(on_a_cycle(&uses), None, "{folder}: {uses:?}");
        if folder == "data" {
            assert!(uses["corpus"].contains("text_files"), "{uses:?}");
            assert!(!uses["text_files"].contains("corpus"));
        }
        folders += 1;
    }
    assert_eq!(folders, 7);
}

#[test]
fn cycles_are_found() {
    let graph = |edges: &[(&str, &str)]| {
        let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in edges {
            uses.entry((*from).into()).or_default().insert((*to).into());
        }
        uses
    };
    assert_eq!(
        on_a_cycle(&graph(&[("a", "b"), ("b", "c"), ("a", "c")])),
        None
    );
    assert_eq!(
        on_a_cycle(&graph(&[("a", "b"), ("b", "c"), ("c", "b")])),
        Some("b".into())
    );
}

/// The code of a README's blocks: their lines without comments and descriptions, which are
/// translated.
fn code_blocks(readme: &str) -> Vec<Vec<String>> {
    let mut blocks = Vec::new();
    for block in readme.split("```").skip(1).step_by(2) {
        let mut lines = block.lines();
        let language = lines.next().unwrap_or_default();
        let separator = match language {
            "sh" => " # ",
            "text" => "   ", // behind the paths of a folder tree
            _ => " // ",
        };
        let code = |line: &str| {
            let indent = line.len() - line.trim_start().len();
            let end = line[indent..]
                .find(separator)
                .map_or(line.len(), |at| indent + at);
            line[..end].trim_end().to_owned()
        };
        blocks.push(
            [language.to_owned()]
                .into_iter()
                .chain(lines.map(code))
                .collect(),
        );
    }
    blocks
}

/// Of each row of a table, what is not translated: code spans and figures such as `.9215 ± .0023`.
fn table_rows(readme: &str) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for line in readme.lines().filter(|line| line.starts_with('|')) {
        let code = line.split('`').skip(1).step_by(2);
        let mut row: Vec<String> = code.filter(|c| c.is_ascii()).map(str::to_owned).collect();
        row.retain(|code| !code.contains("<TAB>"));
        row.extend(figures(line));
        if !row.is_empty() {
            rows.push(row);
        }
    }
    rows
}

/// Figures of four digits behind a point. Chinese writes `0.9215` where English has `.9215`.
fn figures(text: &str) -> Vec<String> {
    let mut figures = Vec::new();
    for word in text.split(|c: char| !(c.is_ascii_digit() || c == '.')) {
        let word = word.strip_prefix('0').unwrap_or(word);
        if word.len() == 5 && word.starts_with('.') {
            figures.push(word.to_owned());
        }
    }
    figures
}

fn links(readme: &str) -> BTreeSet<String> {
    let targets = readme
        .split("](")
        .skip(1)
        .filter_map(|rest| Some(rest.split_once(')')?.0));
    targets
        .filter(|link| !link.starts_with("README"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn both_readmes_have_the_same_sections_code_tables_and_links() {
    let [english, chinese] = ["README.md", "README.zh-CN.md"].map(read);
    let levels = |readme: &str| -> Vec<usize> {
        let without_code: String = readme.split("```").step_by(2).collect();
        let headings = without_code.lines().filter(|line| line.starts_with('#'));
        headings
            .map(|line| line.chars().take_while(|&c| c == '#').count())
            .collect::<Vec<_>>()
    };
    assert_eq!(levels(&english), levels(&chinese));
    assert_eq!(code_blocks(&english), code_blocks(&chinese));
    assert_eq!(links(&english), links(&chinese));
    assert!(code_blocks(&english).len() >= 3 && links(&english).len() >= 5);

    // Each row of the English README stands in the Chinese one too.
    let (rows, chinese_rows) = (table_rows(&english), table_rows(&chinese));
    for row in &rows {
        assert!(
            chinese_rows.contains(row),
            "not in README.zh-CN.md: {row:?}"
        );
    }
    let results = read("docs/results.md");
    for figure in figures(&english).into_iter().chain(figures(&chinese)) {
        assert!(
            results.contains(&figure),
            "{figure} is not in docs/results.md"
        );
    }

    for notebook in notebooks() {
        let name = notebook.file_stem().unwrap().to_string_lossy().into_owned();
        assert!(rows.contains(&vec![name.clone()]), "no row for {name:?}");
    }
}

/// The notebooks, without the copies that the browser test writes into their folder.
fn notebooks() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join("notebooks")).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_notebook = |path: &PathBuf| {
        let name = path.to_string_lossy();
        name.ends_with(".ipynb") && !name.ends_with(".browser.ipynb")
    };
    paths.filter(is_notebook).collect()
}

/// Whether each key of `part` has the same value in `whole`.
fn is_part_of(part: &toml::Table, whole: &toml::Table) -> bool {
    part.iter()
        .all(|(key, value)| match (value, whole.get(key)) {
            (toml::Value::Table(part), Some(toml::Value::Table(whole))) => is_part_of(part, whole),
            (value, other) => other == Some(value),
        })
}

/// A notebook shows a recipe before it trains. `# recipes/NAME.toml` heads a whole recipe; with
/// more words on that line, a part of one.
#[test]
fn the_recipes_that_notebooks_show_are_those_of_the_files() {
    let mut shown = 0;
    for path in notebooks() {
        let notebook: serde_json::Value = kd_lib::files::read_json(&path).unwrap();
        let cells = notebook["cells"].as_array().unwrap().iter();
        for cell in cells.filter(|cell| cell["cell_type"] == "markdown") {
            let lines = cell["source"].as_array().unwrap().iter();
            let text: String = lines.map(|line| line.as_str().unwrap()).collect();
            for block in text.split("```toml\n").skip(1) {
                let block = block.split("```").next().unwrap();
                let (head, _) = block.split_once('\n').unwrap();
                let file = head.strip_prefix("# ").unwrap();
                let (file, is_whole) = match file.split_once(' ') {
                    Some((file, _)) => (file, false),
                    None => (file, true),
                };
                let block: toml::Table = block.parse().unwrap();
                let recipe: toml::Table = read(&format!("notebooks/{file}")).parse().unwrap();
                let is_true = if is_whole {
                    block == recipe
                } else {
                    is_part_of(&block, &recipe)
                };
                assert!(is_true, "{}: {head}", path.display());
                shown += 1;
            }
        }
    }
    assert!(shown > 10, "{shown} recipes");
}

#[test]
fn runs_of_the_search_did_not_see_the_test_split() {
    let results = StoredResults::open(root().join("notebooks/results")).unwrap();
    let mut searched = 0;
    for run in results.set("runs") {
        let is_search = run.report.id.starts_with("search-");
        assert_eq!(run.report.test.is_empty(), is_search, "{}", run.report.id);
        assert_eq!(
            run.report.recipe.data.skip_test, is_search,
            "{}",
            run.report.id
        );
        searched += usize::from(is_search);
    }
    assert!(searched > 0);
}

#[test]
fn every_test_file_is_part_of_a_test_program() {
    for package in ["kd_lib", "kd_lib/cli"] {
        let main = read(&format!("{package}/tests/main.rs"));
        let manifest = read(&format!("{package}/Cargo.toml"));
        for entry in std::fs::read_dir(root().join(package).join("tests")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if path.extension().is_some_and(|ending| ending == "rs") && name != "main" {
                let is_named = main.contains(&format!("mod {name};"));
                let is_a_program = manifest.contains(&format!("name = \"{name}\""));
                assert!(
                    is_named || is_a_program,
                    "{package}: no program has {name}.rs"
                );
            }
        }
    }
}
