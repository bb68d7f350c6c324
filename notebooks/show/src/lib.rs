//! What a notebook shows of [`kd_lib`]'s runs: pictures ([`plot`]), the published tables beside ours ([`tables`]), whether
//! a difference is more than noise ([`significance`]), which texts a model gets wrong ([`mistakes`]), reference
//! models ([`references`]), a search without test data ([`search`]), the ladder from one student to the best ([`ladder`]), and the study that it works on. This crate knows that it may be
//! called from an evcxr cell, how a cell shows HTML, and how it fails so loudly that nobody overlooks it. It trains and
//! scores nothing itself.

pub mod ladder;
mod live;
pub mod mistakes;
pub mod plot;
pub mod references;
pub mod search;
pub mod significance;
pub mod tables;

use kd_lib::data::Corpus;
use kd_lib::device::{self, Environment};
use kd_lib::grid::{Cell, Grid};
use kd_lib::lab::Lab;
use kd_lib::predict::{Prediction, Predictor};
use kd_lib::progress::{self, Tick};
use kd_lib::recipe::Recipe;
use kd_lib::run::Run;
use kd_lib::{Error, Result};
use live::Live;
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tables::{Announced, Measured, cost_ratios};

/// What a notebook works on: the lab, a corpus, a profile and seeds. `KD_CORPUS` (a folder), `KD_PROFILE` and `KD_SEEDS`
/// (like `123,124`) choose them from outside, `KD_CHECKPOINTS` another folder for runs; otherwise it is the corpus that set-up found, under `quick`, with one
/// seed (three under `full`).
#[derive(Debug)]
pub struct Study {
    /// Where runs live.
    pub lab: Lab,
    /// The texts.
    pub corpus: Corpus,
    /// Size of the experiments.
    pub profile: String,
    /// A row's runs differ in these.
    pub seeds: Vec<u64>,
    /// Whether rows take a kept copy before a run of one's own, so that a table is the same on every machine.
    pub kept_first: bool,
    checkpoints: PathBuf,
    root: PathBuf,
}

impl Study {
    /// Opens it, or stops the cell.
    pub fn open() -> Study {
        Study::find().or_stop()
    }

    fn find() -> Result<Study> {
        let here = std::env::current_dir().map_err(|cause| Error::Io { path: ".".into(), cause })?;
        let root = here.ancestors().find(|p| p.join("checkpoints").is_dir());
        let root = root.ok_or_else(|| {
            unusable(&here, "no folder named checkpoints here or above", "open the notebook from the project")
        })?;
        let default = ["default", "sample"]
            .map(|name| root.join("data").join(name))
            .into_iter()
            .find(|p| p.is_symlink() || p.exists()); // a link to nowhere is an error, not another corpus
        let folder = std::env::var_os("KD_CORPUS").map(PathBuf::from).or(default).unwrap_or_else(|| root.join("data"));
        let profile = std::env::var("KD_PROFILE").unwrap_or_else(|_| "quick".into());
        let wanted =
            std::env::var("KD_SEEDS").unwrap_or_else(|_| if profile == "full" { "123,124,125" } else { "123" }.into());
        let seeds = wanted.split(',').map(|s| {
            s.trim().parse().map_err(|_| unusable(Path::new("KD_SEEDS"), &wanted, "write whole numbers, like 123,124"))
        });
        let checkpoints = std::env::var_os("KD_CHECKPOINTS").map_or_else(|| root.join("checkpoints"), PathBuf::from);
        Ok(Study {
            seeds: seeds.collect::<Result<_>>()?,
            lab: Lab::at(&checkpoints),
            corpus: Corpus::open(folder)?,
            profile,
            kept_first: false,
            checkpoints,
            root: root.to_path_buf(),
        })
    }

    /// A recipe of `notebooks/recipes` under this profile.
    pub fn recipe(&self, name: &str) -> Recipe {
        Recipe::read(self.root.join("notebooks/recipes").join(name).with_extension("toml"), &self.profile, &[])
            .or_stop()
    }

    /// Opens a window in which the curves of what later cells train grow.
    pub fn watch(&self) {
        html(&Live::below(&self.checkpoints).window(&self.root));
    }

    /// The finished run of a recipe; while it trains, the cell shows a line now and then, and the window of
    /// [`Study::watch`] its curves.
    pub fn run(&self, recipe: &Recipe) -> Run {
        let mut say = progress::lines(std::io::stdout(), Duration::from_secs(10));
        let mut live = Live::below(&self.checkpoints);
        let mut watch = |tick: &Tick| {
            let _ = live.note(tick); // a picture that cannot be written must not end a training run
            say(tick)
        };
        self.lab.run(recipe, &self.corpus, &mut watch).or_stop()
    }

    /// A row's runs, one a seed: found among the runs or on the shelf of results, or trained.
    pub fn row(&self, name: &str, seeds: &[u64]) -> Vec<Run> {
        let recipes = seeds.iter().map(|&seed| self.recipe(name).with_seed(seed));
        recipes.map(|r| self.find_row(&r).or_stop().unwrap_or_else(|| self.run(&r))).collect()
    }

    /// Kept copies are the project's, wherever runs of one's own may lie.
    fn find_row(&self, recipe: &Recipe) -> Result<Option<Run>> {
        if self.kept_first {
            let kept = self.root.join("notebooks/results/runs").join(self.lab.plan(recipe, &self.corpus)?.id);
            if kept.is_dir() {
                return Run::open(kept).map(Some);
            }
        }
        self.lab.recall(recipe, &self.corpus)
    }

    /// A row's run of the first seed, found or trained likewise.
    pub fn first(&self, name: &str) -> Run {
        self.row(name, &self.seeds[..1]).remove(0)
    }

    /// Rows of our own, each beside the baseline that it names (empty for a baseline), over this study's seeds.
    pub fn compare(&self, rows: &[(impl AsRef<str>, impl AsRef<str>)]) -> Vec<Measured> {
        let rows: Vec<[&str; 2]> = rows.iter().map(|(recipe, baseline)| [recipe.as_ref(), baseline.as_ref()]).collect();
        let announced: Vec<Announced> =
            rows.iter().map(|[recipe, baseline]| Announced::ours(recipe, baseline)).collect();
        let runs: Vec<Vec<Run>> = rows.iter().map(|[recipe, _]| self.row(recipe, &self.seeds)).collect();
        tables::measure(&announced, &runs, &vec![None; rows.len()]).or_stop()
    }

    /// Training time for a text of each recipe relative to the first's; updates of all recipes alternate, so that a slow
    /// moment hits all alike.
    pub fn costs(&self, names: &[&str], rounds: usize) -> Vec<f64> {
        let rehearsals = names.iter().map(|name| self.lab.rehearse(&self.recipe(name), &self.corpus));
        rehearsals.collect::<Result<Vec<_>>>().and_then(|mut all| cost_ratios(&mut all, rounds)).or_stop()
    }

    /// Checks a claim about results, which only a profile with enough texts can bear out: under `smoke` it is not judged.
    pub fn claim(&self, claim: &str, holds: bool) {
        match self.profile.as_str() {
            "smoke" => println!("○ not judged under smoke: {claim}"),
            _ => check(claim, holds),
        }
    }

    /// Checks a finding about the whole corpus: under `full` like [`Study::claim`]; with fewer texts and one seed the cell says
    /// whether it holds there, and goes on.
    pub fn finding(&self, finding: &str, holds: bool) {
        match self.profile.as_str() {
            "quick" if !holds => println!("○ does not hold under quick: {finding}"),
            _ => self.claim(finding, holds),
        }
    }

    /// What the outputs below come from: commit, corpus, profile, processor.
    pub fn provenance(&self) -> String {
        let commit = device::commit(&self.root).unwrap_or_else(|| "unknown".into());
        let Environment { processor, instructions, threads, libtorch, .. } =
            Environment::of(device::choose("auto").or_stop());
        let (corpus, print) = (&self.corpus.name, &self.corpus.fingerprint[..12]);
        format!(
            "commit {commit} · corpus {corpus} ({print}) · profile {} · {processor}, {threads} threads, {} · libtorch {libtorch}",
            self.profile,
            instructions.join(" ")
        )
    }
}

/// Shows HTML as the cell's output. One call a cell: the kernel keeps the last.
pub fn html(content: &str) {
    output("text/html", content);
}

fn output(kind: &str, content: &str) {
    println!("EVCXR_BEGIN_CONTENT {kind}\n{content}\nEVCXR_END_CONTENT");
}

/// Shows a table as the cell's output.
pub fn show(grid: &Grid) {
    html(&as_html(grid));
}

/// Text as HTML shows it.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn as_html(grid: &Grid) -> String {
    let shown = |cell: &Cell| {
        let text = escape(&cell.text);
        // A figure and its spread stay on one line: a wide table is scrolled.
        let open = "<td style=\"white-space:nowrap\">";
        if cell.strong { format!("{open}<b>{text}</b></td>") } else { format!("{open}{text}</td>") }
    };
    let head: String = grid.head.iter().map(|h| format!("<th>{}</th>", escape(h))).collect();
    let row = |cells: &Vec<Cell>| format!("<tr>{}</tr>", cells.iter().map(shown).collect::<String>());
    let body: String = grid.rows.iter().map(row).collect();
    format!("<div style=\"overflow-x:auto\"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>")
}

/// Shows pictures side by side, as one image: what shows notebooks without running them (a code host's page, a
/// converter) shows images, and takes drawings out of HTML.
pub fn figures(svgs: &[String]) {
    output("image/svg+xml", &plot::beside(svgs));
}

/// A run's answer to one sentence.
pub fn ask(run: &Run, sentence: &str) -> Prediction {
    Predictor::open(run).and_then(|p| p.predict(&[sentence])).or_stop().remove(0)
}

/// Stops the cell with the error's own sentence. A top-level `?` would only print it: the kernel reports such a
/// cell as a success, and a notebook run by a program would go on.
pub trait OrStop<T> {
    /// The value, or a panic that says what to do.
    fn or_stop(self) -> T;
}

impl<T> OrStop<T> for Result<T> {
    fn or_stop(self) -> T {
        match self {
            Ok(value) => value,
            Err(error) => stop(&error),
        }
    }
}

/// Checks a claim of the prose: prints it when it holds, stops the cell when it does not.
pub fn check(claim: &str, holds: bool) {
    if !holds {
        stop(&format!("this does not hold: {claim}"));
    }
    println!("✓ {claim}");
}

/// The lines of a list that comes with the notebooks.
fn listed<T: DeserializeOwned>(path: &Path, columns: &str) -> Result<Vec<T>> {
    let bad = |e: csv::Error| {
        let line = e.position().map_or(1, |p| p.line() as usize);
        Error::Line { path: path.into(), line, problem: e.to_string(), fix: format!("the columns are {columns}") }
    };
    csv::Reader::from_path(path).map_err(bad)?.into_deserialize().map(|row| row.map_err(bad)).collect()
}

fn unusable(path: &Path, problem: &str, fix: &str) -> Error {
    Error::File { path: path.into(), problem: problem.into(), fix: fix.into() }
}

fn stop(message: &dyn Display) -> ! {
    panic!("{message}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_copy_comes_first_where_a_study_says_so() {
        let (folder, here) = (tempfile::tempdir().unwrap(), Study::open());
        let (root, checkpoints) = (folder.path().to_path_buf(), folder.path().join("checkpoints"));
        let recipe = here.recipe("bilstm");
        let mut study = Study { lab: Lab::at(&checkpoints), checkpoints, root, ..Study::open() };
        let own = study.checkpoints.join("runs").join(study.lab.plan(&recipe, &study.corpus).unwrap().id);
        let kept = study.root.join("notebooks/results/runs").join(own.file_name().unwrap());
        let copies = std::fs::read_dir(here.root.join("notebooks/results/teachers")).unwrap();
        let copy = copies.map(|entry| entry.unwrap().path()).min().unwrap();
        for to in [&own, &kept] {
            std::fs::create_dir_all(to).unwrap();
            std::fs::read_dir(&copy).unwrap().flatten().for_each(|file| {
                std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
            });
        }
        assert_eq!(study.find_row(&recipe).unwrap().unwrap().path, own);
        study.kept_first = true;
        assert_eq!(study.find_row(&recipe).unwrap().unwrap().path, kept);
    }
}
