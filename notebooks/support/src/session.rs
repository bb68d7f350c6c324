//! What a notebook works on: the run store, a corpus, a profile and seeds. `KD_CORPUS` (a folder),
//! `KD_PROFILE` and `KD_SEEDS` (like `123,124`) choose them from outside, `KD_CHECKPOINTS` another
//! folder for runs. By default a session takes the corpus that set-up found, the profile `quick`,
//! and one seed (three under `full`).

use crate::live::LivePlot;
use crate::tables::{self, MeasuredRow, PublishedRow};
use crate::{OrEndCell, end_cell, file_error, html};
use kd_lib::data::Corpus;
use kd_lib::device::{self, Environment};
use kd_lib::store::results::MAIN_SET;
use kd_lib::store::{Recipe, Run, RunStore, StoredResults};
use kd_lib::threads::ThreadPolicy;
use kd_lib::training::progress::{Progress, print_lines};
use kd_lib::{Error, Result};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Under which profiles a claim about results is checked. A claim that does not hold where it is
/// checked ends the cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Under every profile: a fact that does not depend on the number of texts.
    Always,
    /// Not under `smoke`, whose few texts support no claim.
    ExceptSmoke,
    /// Under `full`. Under `quick` the cell prints whether the claim holds, and continues.
    FullOnly,
}

/// What a notebook works on.
#[derive(Debug)]
pub struct Session {
    /// Where runs are stored.
    pub store: RunStore,
    /// The texts.
    pub corpus: Corpus,
    /// Size of the experiments.
    pub profile: String,
    /// A row's runs differ in these.
    pub seeds: Vec<u64>,
    /// Whether rows take a stored result before a run of one's own, so that a table is the same on
    /// every machine.
    pub stored_first: bool,
    pub(crate) root: PathBuf,
}

/// The number of threads in `OMP_NUM_THREADS`, else the free cores.
fn thread_policy() -> ThreadPolicy {
    match variable("OMP_NUM_THREADS").and_then(|number| number.trim().parse().ok()) {
        Some(threads) if threads > 0 => ThreadPolicy::Fixed(threads),
        _ => ThreadPolicy::FreeCores,
    }
}

impl Session {
    /// Opens the session, or ends the cell.
    pub fn open() -> Session {
        Session::find().or_end_cell()
    }

    fn find() -> Result<Session> {
        let here = std::env::current_dir().map_err(|cause| Error::Io {
            path: ".".into(),
            cause,
        })?;
        let root = here
            .ancestors()
            .find(|folder| folder.join("checkpoints").is_dir());
        let root = root.ok_or_else(|| {
            let problem = "no folder named checkpoints here or above";
            file_error(&here, problem, "open the notebook from the project")
        })?;
        let profile = variable("KD_PROFILE").unwrap_or_else(|| "quick".into());
        let default_seeds = if profile == "full" {
            "123,124,125"
        } else {
            "123"
        };
        let seeds = variable("KD_SEEDS").unwrap_or_else(|| default_seeds.into());
        let checkpoints = folder_in("KD_CHECKPOINTS", root);
        let checkpoints = checkpoints.unwrap_or_else(|| root.join("checkpoints"));
        Ok(Session {
            store: RunStore::new(checkpoints)
                .with_results(root.join("notebooks/results"))
                .with_threads(thread_policy()),
            corpus: Corpus::open(corpus_folder(root))?,
            profile,
            seeds: parse_seeds(&seeds)?,
            stored_first: false,
            root: root.to_path_buf(),
        })
    }

    /// A recipe of `notebooks/recipes` under this profile.
    pub fn recipe(&self, name: &str) -> Recipe {
        let path = self
            .root
            .join("notebooks/recipes")
            .join(name)
            .with_extension("toml");
        Recipe::read(path, &self.profile, &[]).or_end_cell()
    }

    /// Shows a live plot of what later cells train.
    pub fn live_plot(&self) {
        html(&LivePlot::below(self.store.checkpoints()).html(&self.root));
    }

    /// The finished run of a recipe. While it trains, the cell prints a line now and then, and the
    /// plot of [`Session::live_plot`] shows its curves.
    pub fn run(&self, recipe: &Recipe) -> Run {
        let plan = self.store.plan(recipe, &self.corpus).or_end_cell();
        for notice in plan.notices {
            println!("{}: {notice}", recipe.name);
        }
        let mut print_progress = print_lines(std::io::stdout(), Duration::from_secs(10));
        let mut plot = LivePlot::below(self.store.checkpoints());
        let mut callback = |progress: &Progress| {
            let _ = plot.update(progress); // a plot that cannot be written must not end a run
            print_progress(progress)
        };
        self.store
            .run(recipe, &self.corpus, &mut callback)
            .or_end_cell()
    }

    /// The runs of a row, one per seed: found in the store or among the stored results, or trained.
    pub fn runs_of(&self, name: &str, seeds: &[u64]) -> Vec<Run> {
        let mut runs = Vec::new();
        for &seed in seeds {
            let recipe = self.recipe(name).with_seed(seed);
            let found = self.find_finished(&recipe).or_end_cell();
            runs.push(found.unwrap_or_else(|| self.run(&recipe)));
        }
        runs
    }

    /// A row's run of the first seed, found or trained.
    pub fn first_run(&self, name: &str) -> Run {
        self.runs_of(name, &self.seeds[..1]).remove(0)
    }

    /// A finished or stored run, if there is one.
    pub(crate) fn find_finished(&self, recipe: &Recipe) -> Result<Option<Run>> {
        if self.stored_first {
            let id = self.store.plan(recipe, &self.corpus)?.id;
            if let Some(run) = self.stored_results()?.find(MAIN_SET, &id) {
                return Ok(Some(run));
            }
        }
        self.store.find_finished(recipe, &self.corpus)
    }

    /// The project's stored results.
    pub fn stored_results(&self) -> Result<StoredResults> {
        self.store.stored_results()
    }

    /// The stored runs of a set, by the order in which they were stored.
    pub fn stored_set(&self, set: &str) -> Vec<Run> {
        self.stored_results().or_end_cell().set(set)
    }

    /// Rows of our own over this session's seeds. Each has the name of its baseline, which is empty
    /// for a baseline.
    pub fn compare(&self, rows: &[(impl AsRef<str>, impl AsRef<str>)]) -> Vec<MeasuredRow> {
        let (mut published, mut runs) = (Vec::new(), Vec::new());
        for (recipe, baseline) in rows {
            published.push(PublishedRow::ours(recipe.as_ref(), baseline.as_ref()));
            runs.push(self.runs_of(recipe.as_ref(), &self.seeds));
        }
        tables::measure(&published, &runs, &vec![None; rows.len()]).or_end_cell()
    }

    /// Training time per text of each recipe, relative to the first. Updates of all recipes
    /// alternate, so that timing noise affects all alike.
    pub fn relative_costs(&self, names: &[&str], rounds: usize) -> Vec<f64> {
        let timers = names
            .iter()
            .map(|name| self.store.step_timer(&self.recipe(name), &self.corpus))
            .collect::<Result<Vec<_>>>();
        timers
            .and_then(|mut timers| tables::cost_ratios(&mut timers, rounds))
            .or_end_cell()
    }

    /// Checks a claim of the text in its [`Scope`]: prints it if it holds, ends the cell if not.
    pub fn check(&self, scope: Scope, claim: &str, holds: bool) {
        let checked = match (scope, self.profile.as_str()) {
            (Scope::Always, _) => true,
            (Scope::ExceptSmoke, profile) => profile != "smoke",
            (Scope::FullOnly, profile) => profile != "smoke" && (profile != "quick" || holds),
        };
        match (checked, holds) {
            (true, true) => println!("✓ {claim}"),
            (true, false) => end_cell(&format!("this does not hold: {claim}")),
            (false, _) if self.profile == "smoke" => println!("○ not checked under smoke: {claim}"),
            (false, _) => println!("○ does not hold under quick: {claim}"),
        }
    }

    /// What the outputs below come from: commit, corpus, profile, processor.
    pub fn provenance(&self) -> String {
        let commit = device::commit(&self.root, &self.root.join("checkpoints"))
            .unwrap_or_else(|| "unknown".into());
        let device = device::choose("auto").or_end_cell();
        let Environment {
            processor,
            instructions,
            threads,
            libtorch,
            ..
        } = Environment::of(device);
        let (corpus, fingerprint) = (&self.corpus.name, &self.corpus.fingerprint[..12]);
        let profile = &self.profile;
        let instructions = instructions.join(" ");
        format!(
            "commit {commit} · corpus {corpus} ({fingerprint}) · profile {profile} · {processor}, \
             {threads} threads, {instructions} · libtorch {libtorch}"
        )
    }
}

/// An environment variable that is set and not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The folder that a variable names. A relative path begins at the project's root, where `make lab`
/// is called, and not at the notebook's folder.
fn folder_in(name: &str, root: &Path) -> Option<PathBuf> {
    variable(name).map(|folder| root.join(folder))
}

fn corpus_folder(root: &Path) -> PathBuf {
    if let Some(folder) = folder_in("KD_CORPUS", root) {
        return folder;
    }
    let data = root.join("data");
    // A link to nowhere is an error, and must not select another corpus.
    let exists = |folder: &PathBuf| folder.is_symlink() || folder.exists();
    let default = ["default", "sample"].map(|name| data.join(name));
    default.into_iter().find(exists).unwrap_or(data)
}

fn parse_seeds(text: &str) -> Result<Vec<u64>> {
    let parse = |seed: &str| {
        let bad = |_| {
            file_error(
                Path::new("KD_SEEDS"),
                text,
                "write whole numbers, like 123,124",
            )
        };
        seed.trim().parse().map_err(bad)
    };
    let seeds = text.split(',').filter(|seed| !seed.trim().is_empty());
    seeds.map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_may_have_blanks_and_a_last_comma() {
        for text in ["123,124", "123, 124", "123,124,"] {
            assert_eq!(parse_seeds(text).unwrap(), [123, 124], "{text:?}");
        }
        let error = parse_seeds("123,x").unwrap_err().to_string();
        assert!(
            error.contains("KD_SEEDS") && error.contains("like 123,124"),
            "{error}"
        );
    }

    #[test]
    fn claims_are_checked_in_their_scope() {
        let mut session = Session::open();
        for (profile, scope) in [
            ("smoke", Scope::ExceptSmoke),
            ("smoke", Scope::FullOnly),
            ("quick", Scope::FullOnly),
        ] {
            session.profile = profile.into();
            session.check(scope, "a false claim outside of its scope", false);
        }
        for (profile, scope) in [
            ("smoke", Scope::Always),
            ("quick", Scope::ExceptSmoke),
            ("full", Scope::FullOnly),
        ] {
            session.profile = profile.into();
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                session.check(scope, "a false claim in its scope", false);
            }));
            assert!(ended.is_err(), "{profile} {scope:?}");
        }
    }
}
