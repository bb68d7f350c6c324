//! Where runs are stored, and the one way to get one: ask for a recipe on a corpus. A finished run
//! is opened, an interrupted one continues, a new one is trained. The teachers of a distillation
//! are obtained first, in the same way.

use super::model_factory;
use super::opened_checkpoints::OpenedCheckpoints;
use super::planned_run::PlannedRun;
use super::recipe::Recipe;
use super::results::{MAIN_SET, StoredResults};
use super::run::{Run, TaughtBy};
use super::run_files;
use super::train_run::train_run;
use crate::data::Corpus;
use crate::device;
use crate::models::Checkpoint;
use crate::threads::ThreadPolicy;
use crate::training::{Activity, Progress, ProgressCallback, state};
use crate::{Error, Result, files};
use std::path::{Component, Path, PathBuf};

/// The folder of checkpoints and runs, and the project's stored results.
#[derive(Debug, Clone)]
pub struct RunStore {
    checkpoints: PathBuf,
    /// Where pretrained checkpoints are looked for in addition to `checkpoints`.
    pretrained: Vec<PathBuf>,
    results: PathBuf,
    /// The project whose commit a report names.
    project: PathBuf,
    threads: ThreadPolicy,
    opened: OpenedCheckpoints,
}

/// A finished run, unless its folder is a copy of another one.
fn open_own(folder: &PathBuf) -> Result<Run> {
    let run = Run::open(folder)?;
    if folder
        .file_name()
        .is_some_and(|name| name != run.report.id.as_str())
    {
        let problem = format!(
            "a copy of the run {}, or one that was renamed",
            run.report.id
        );
        let fix = "move it out of this folder; commands still read it there by its path";
        return Err(Error::file(folder, problem, fix));
    }
    Ok(run)
}

impl RunStore {
    /// A store in this folder of checkpoints. Stored results are those of the project around it:
    /// `notebooks/results` beside the folder, even if the folder is a symbolic link.
    pub fn new(checkpoints: impl Into<PathBuf>) -> RunStore {
        let checkpoints = checkpoints.into();
        let project = files::parent_as_written(&checkpoints);
        let results = project.join("notebooks/results");
        RunStore {
            checkpoints,
            pretrained: Vec::new(),
            results,
            project,
            threads: ThreadPolicy::Unchanged,
            opened: OpenedCheckpoints::default(),
        }
    }

    /// The same store; this policy decides the number of threads of its runs.
    pub fn with_threads(self, threads: ThreadPolicy) -> RunStore {
        RunStore { threads, ..self }
    }

    /// The same store, which looks for pretrained checkpoints in another folder too.
    pub fn with_pretrained(mut self, folder: impl Into<PathBuf>) -> RunStore {
        self.pretrained.push(folder.into());
        self
    }

    /// The same store with the stored results of another folder.
    pub fn with_results(self, results: impl Into<PathBuf>) -> RunStore {
        RunStore {
            results: results.into(),
            ..self
        }
    }

    /// The same store for another project than the one around its folder: its runs' reports name
    /// that project's commit.
    pub fn with_project(self, project: impl Into<PathBuf>) -> RunStore {
        RunStore {
            project: project.into(),
            ..self
        }
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> &Path {
        &self.checkpoints
    }

    /// The project's stored results.
    pub fn stored_results(&self) -> Result<StoredResults> {
        StoredResults::open(&self.results)
    }

    /// The folder of a run, finished or not.
    pub fn run_folder(&self, id: &str) -> PathBuf {
        self.checkpoints.join("runs").join(id)
    }

    /// All finished runs, sorted by id. A damaged one is an error of its own, and so is a copy: a
    /// folder that has another name than the id of its run.
    ///
    /// # Errors
    /// If the folder of runs is there and cannot be read.
    pub fn runs(&self) -> Result<Vec<Result<Run>>> {
        let folder = self.checkpoints.join("runs");
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let folders = files::sorted_entries(&folder)?;
        let finished = folders
            .iter()
            .filter(|folder| run_files::has_checksums(folder));
        Ok(finished.map(open_own).collect())
    }

    /// A finished run by its folder, or by its id among this store's runs. `.` and `./NAME` are
    /// folders, whatever runs there are.
    pub fn find(&self, run: &Path) -> Result<Run> {
        let may_be_name = run.components().all(|c| matches!(c, Component::Normal(_)));
        let named = self.checkpoints.join("runs").join(run);
        Run::open(if may_be_name && named.is_dir() {
            &named
        } else {
            run
        })
    }

    /// What a recipe means on a corpus. Files are hashed and the transfer set is made; no model is
    /// built or trained.
    pub fn plan(&self, recipe: &Recipe, corpus: &Corpus) -> Result<PlannedRun> {
        recipe.validate()?;
        if corpus.fingerprint.is_empty() {
            let fix = "set Corpus::fingerprint to a hash of its texts: runs are found by it";
            return Err(Error::recipe("data", "the corpus has no fingerprint", fix));
        }
        let mut teachers = Vec::new();
        for teacher in recipe.teachers() {
            teachers.push(self.plan(&teacher, corpus)?.id);
        }
        let architecture = recipe.model.architecture()?;
        let checkpoint = architecture.checkpoint();
        let checkpoint = checkpoint.map(|name| self.checkpoint(name)).transpose()?;
        Ok(PlannedRun {
            threads: self.threads,
            ..PlannedRun::resolve(recipe, corpus, checkpoint, teachers)?
        })
    }

    /// Plans a recipe, builds its tokenizer and its model, and drops them: what would fail is said
    /// before hours of training. Nothing is written.
    pub fn check(&self, recipe: &Recipe, corpus: &Corpus) -> Result<()> {
        model_factory::check_can_be_built(&self.plan(recipe, corpus)?)
    }

    /// A pretrained checkpoint by its name. This store opens it once, and again if its files
    /// changed.
    pub fn checkpoint(&self, name: &str) -> Result<Checkpoint> {
        let folders = std::iter::once(&self.checkpoints).chain(&self.pretrained);
        let has_it = |folder: &&PathBuf| folder.join(name).is_dir();
        let folder = folders.clone().find(has_it).unwrap_or(&self.checkpoints);
        self.opened.checkpoint(folder, name)
    }

    /// Whether a planned run is finished in this store. (Its weights may have been removed.)
    pub fn is_finished(&self, planned: &PlannedRun) -> bool {
        run_files::weights_hash(&self.run_folder(&planned.id)).is_some()
    }

    /// The finished run of a recipe on a corpus: found, continued or trained.
    pub fn run(&self, recipe: &Recipe, corpus: &Corpus, callback: ProgressCallback) -> Result<Run> {
        // Making the transfer set may take seconds.
        Progress::begin(&recipe.name, Activity::Preparing).send(callback)?;
        let planned = self.plan(recipe, corpus)?;
        let folder = self.run_folder(&planned.id);
        if !self.is_finished(&planned) {
            let is_trained = |id: &String| run_files::has_checksums(&self.run_folder(id));
            if !planned.teachers.iter().all(is_trained) {
                // Before hours of a teacher's training.
                model_factory::check_can_be_built(&planned)?;
            }
            let mut teachers = Vec::new();
            for teacher in recipe.teachers() {
                teachers.push(self.run(&teacher, corpus, callback)?);
            }
            let waiting = Progress::begin(&planned.id, Activity::Waiting);
            let _lock = files::lock_folder(&folder, &mut || waiting.send(callback))?;
            // Another process may have finished the run while this one waited for the lock.
            if !self.is_finished(&planned) {
                let taught_by = self.check_teacher_weights(&planned, &folder)?;
                let commit = device::commit(&self.project, &self.checkpoints);
                train_run(&planned, &folder, &teachers, &taught_by, commit, callback)?;
            }
        }
        self.check_teacher_weights(&planned, &folder)?;
        for state in files::content_addressed(&folder, state::PREFIX) {
            // A state that cannot be removed is removed the next time.
            let _ = std::fs::remove_file(state);
        }
        Ok(Run::open(folder)?.with_custom_code(&recipe.model))
    }

    /// The finished run of a recipe on a corpus, if there is one in this store or among the stored
    /// results.
    pub fn find_finished(&self, recipe: &Recipe, corpus: &Corpus) -> Result<Option<Run>> {
        let planned = self.plan(recipe, corpus)?;
        let folder = self.run_folder(&planned.id);
        self.check_teacher_weights(&planned, &folder)?;
        if run_files::has_checksums(&folder) {
            return Ok(Some(Run::open(folder)?.with_custom_code(&recipe.model)));
        }
        Ok(self.stored_results()?.find(MAIN_SET, &planned.id))
    }

    /// Adds what tables need of a finished run to a set of the stored results. Returns the new
    /// file.
    ///
    /// # Errors
    /// If the folder of checkpoints is not that of a project, or for the reasons of
    /// [`StoredResults::add`].
    pub fn add_to_results(&self, set: &str, run: &Run) -> Result<PathBuf> {
        let notebooks = self.results.parent().unwrap_or(&self.results);
        if !notebooks.is_dir() {
            let fix = "store results in the checkpoints of a project, beside its folder notebooks";
            return Err(Error::file(notebooks, "no such folder", fix));
        }
        self.stored_results()?.add(set, run)
    }

    /// Hashes of the teachers' weights that taught a planned run or will teach it, as far as they
    /// are known.
    ///
    /// # Errors
    /// If a finished or half-trained run recorded other hashes than its teachers have now.
    fn check_teacher_weights(&self, planned: &PlannedRun, folder: &Path) -> Result<TaughtBy> {
        let mut here = TaughtBy::new();
        for id in &planned.teachers {
            if let Some(weights) = run_files::weights_hash(&self.run_folder(id)) {
                here.insert(id.clone(), weights);
            }
        }
        let begun = !files::content_addressed(folder, state::PREFIX).is_empty();
        if !run_files::has_checksums(folder) && !begun {
            return Ok(here);
        }
        let path = folder.join(run_files::TAUGHT_BY);
        let before = if path.exists() {
            files::read_json(&path)?
        } else {
            TaughtBy::new()
        };
        for (id, weights) in &before {
            if here.get(id).is_some_and(|here| here != weights) {
                let problem = format!(
                    "taught by other weights of {id} than those here: the teacher was trained \
                     again, or elsewhere"
                );
                let fix = "remove this folder, or bring its teacher back";
                return Err(Error::file(folder, problem, fix));
            }
        }
        Ok(before)
    }
}
