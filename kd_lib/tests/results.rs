//! The stored results: each run is found by the id of its recipe, its scores are those of its
//! predictions, and an added run is read back unchanged.

use crate::common::{TINY_STUDENT, lock_generator, recipe, root, sample, teacher_weights};
use kd_lib::data::{Corpus, Split};
use kd_lib::models::Checkpoint;
use kd_lib::precision::Precision;
use kd_lib::store::planned_run::{IdKey, file_hashes, run_id};
use kd_lib::store::table::rows;
use kd_lib::store::{Recipe, Run, RunStore, StoredResults};
use kd_lib::training::progress::silent;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Stored runs of set `runs` that no recipe file and no line of a CSV file gives.
const WITHOUT_A_RECIPE: [&str; 0] = [];
const SETS: [&str; 3] = ["runs", "teachers", "xeon"];

fn stored() -> StoredResults {
    StoredResults::open(root().join("notebooks/results")).unwrap()
}

/// Computes ids without a corpus: its hash is in the stored reports.
struct Ids {
    corpus_fingerprint: String,
    /// Hashes of a checkpoint's files by the checkpoint's name: they are large.
    checkpoints: HashMap<String, BTreeMap<String, String>>,
}

impl Ids {
    fn new(runs: &[Run]) -> Ids {
        teacher_weights();
        let corpora: BTreeSet<&str> = runs
            .iter()
            .map(|run| run.report.corpus_fingerprint.as_str())
            .collect();
        assert_eq!(corpora.len(), 1, "the tables are on one corpus");
        Ids {
            corpus_fingerprint: runs[0].report.corpus_fingerprint.clone(),
            checkpoints: HashMap::new(),
        }
    }

    /// Hashes of the files that decide a recipe's result.
    fn files(&mut self, recipe: &Recipe) -> BTreeMap<String, String> {
        let architecture = recipe.model.architecture().unwrap();
        let unlabelled = recipe
            .transfer
            .as_ref()
            .and_then(|t| t.unlabelled_file.as_ref());
        assert!(architecture.files().is_empty() && unlabelled.is_none());
        let Some(name) = architecture.checkpoint() else {
            return BTreeMap::new();
        };
        let hash = || {
            let checkpoint = Checkpoint::open(&root().join("checkpoints"), name).unwrap();
            file_hashes(recipe, Some(&checkpoint)).unwrap()
        };
        self.checkpoints
            .entry(name.to_owned())
            .or_insert_with(hash)
            .clone()
    }

    fn with_teachers(
        &mut self,
        recipe: &Recipe,
        precision: Precision,
        teachers: &[String],
    ) -> String {
        let files = self.files(recipe);
        let corpus_fingerprint = &self.corpus_fingerprint;
        run_id(&IdKey {
            recipe,
            precision,
            corpus_fingerprint,
            files: &files,
            teachers,
        })
        .unwrap()
    }

    /// The id of a recipe, and those of its teachers in front of it. The precision is the recipe's;
    /// `auto` was bf16 where these runs were trained.
    fn of(&mut self, recipe: &Recipe) -> Vec<String> {
        let (mut all, mut teachers) = (Vec::new(), Vec::new());
        for teacher in recipe.teachers() {
            let ids = self.of(&teacher);
            teachers.push(ids.last().unwrap().clone());
            all.extend(ids);
        }
        let precision = match recipe.train.precision {
            kd_lib::precision::PrecisionSetting::Auto => Precision::Bf16,
            fixed => fixed.resolve(tch::Device::Cpu),
        };
        all.push(self.with_teachers(recipe, precision, &teachers));
        all
    }
}

/// The lines of a CSV file of the notebooks, by column.
fn csv_lines(name: &str) -> Vec<HashMap<String, String>> {
    let path = root().join("notebooks").join(name);
    let mut reader = csv::Reader::from_path(path).unwrap();
    reader.deserialize().map(Result::unwrap).collect()
}

/// The recipe of a line of search.csv.
fn search_recipe(line: &HashMap<String, String>) -> Recipe {
    let name = format!("name=search-{}", line["recipe"]);
    let settings = line["settings"]
        .split(';')
        .map(str::trim)
        .filter(|s| !s.is_empty());
    let settings: Vec<&str> = settings
        .chain([name.as_str(), "data.skip_test=true"])
        .collect();
    recipe(&line["recipe"], &settings)
}

#[test]
fn every_row_of_the_tables_has_its_stored_runs() {
    let (results, runs) = (stored(), stored().set("runs"));
    let mut ids = Ids::new(&runs);
    let seeds: BTreeSet<u64> = runs.iter().map(|run| run.report.recipe.seed).collect();
    let mut names: BTreeSet<String> = BTreeSet::new();
    names.extend(
        csv_lines("published.csv")
            .iter()
            .map(|line| line["recipe"].clone()),
    );
    names.extend(
        csv_lines("ablation.csv")
            .iter()
            .map(|line| line["variant"].clone()),
    );
    assert!(names.len() > 30);
    for name in &names {
        let recipe = recipe(name, &[]);
        assert_eq!(&recipe.name, name, "the file's name is the recipe's name");
        let mut found = 0;
        for &seed in &seeds {
            let id = ids.of(&recipe.clone().with_seed(seed)).pop().unwrap();
            found += usize::from(results.find("runs", &id).is_some());
        }
        // Teachers of an out-of-fold ensemble have the name of the recipe that they come from.
        let in_row = |run: &&Run| {
            let recipe = &run.report.recipe;
            recipe.name == *name && recipe.data.holdout_fold.is_none()
        };
        let expected = runs.iter().filter(in_row).count();
        assert!(expected > 0, "{name} has no stored run");
        assert_eq!(
            found, expected,
            "{name}: runs that its recipe finds, and stored runs"
        );
    }
    for line in csv_lines("search.csv") {
        let id = ids.of(&search_recipe(&line)).pop().unwrap();
        let run = results.find("runs", &id);
        assert!(
            run.is_some(),
            "{}, {}: no stored run {id}",
            line["choice"],
            line["candidate"]
        );
    }
}

#[test]
fn every_stored_run_belongs_to_a_recipe() {
    let runs = stored().set("runs");
    let mut ids = Ids::new(&runs);
    let seeds: BTreeSet<u64> = runs.iter().map(|run| run.report.recipe.seed).collect();
    let mut recipes: Vec<Recipe> = csv_lines("search.csv").iter().map(search_recipe).collect();
    for entry in std::fs::read_dir(root().join("notebooks/recipes")).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "toml")
        {
            recipes.push(recipe(path.file_stem().unwrap().to_str().unwrap(), &[]));
        }
    }
    let mut reachable = BTreeSet::new();
    for recipe in recipes {
        for &seed in &seeds {
            reachable.extend(ids.of(&recipe.clone().with_seed(seed)));
        }
    }
    let mut unreachable: Vec<&str> = runs
        .iter()
        .map(|run| run.report.id.as_str())
        .filter(|id| !reachable.contains(*id))
        .collect();
    unreachable.sort_unstable();
    assert_eq!(unreachable, WITHOUT_A_RECIPE);
}

#[test]
fn a_stored_run_has_the_id_of_its_own_recipe() {
    let results = stored();
    let mut ids = Ids::new(&results.set("runs"));
    for set in SETS {
        let runs = results.set(set);
        assert!(!runs.is_empty(), "set {set} is empty");
        for run in runs {
            let report = &run.report;
            assert_eq!(
                report.teachers.len(),
                report.recipe.teachers().len(),
                "{}",
                report.id
            );
            let id = ids.with_teachers(&report.recipe, report.precision, &report.teachers);
            assert_eq!(id, report.id, "{set}");
        }
    }
}

#[test]
fn stored_scores_are_those_of_the_stored_predictions() {
    let results = stored();
    for set in SETS {
        for run in results.set(set) {
            let (id, test) = (&run.report.id, &run.report.test);
            if test.is_empty() {
                assert!(run.report.recipe.data.skip_test, "{id}");
                assert!(run.predictions(Split::Test).is_err(), "{id}");
                continue;
            }
            let correct = run.predictions(Split::Test).unwrap().correct();
            assert_eq!(correct.len(), test.examples, "{id}");
            let accuracy = correct.iter().filter(|c| **c).count() as f64 / correct.len() as f64;
            assert_eq!(accuracy, test.accuracy, "{id}");
            assert!(!run.curve().unwrap().is_empty(), "{id} has no curve");
        }
    }
}

#[test]
fn ids_and_previous_ids_are_unique_in_a_set() {
    let results = stored();
    for set in SETS {
        let (mut ids, mut previous_ids) = (BTreeSet::new(), BTreeSet::new());
        for run in results.set(set) {
            assert!(
                ids.insert(run.report.id.clone()),
                "{set}: {} twice",
                run.report.id
            );
            if let Some(previous) = run.report.previous_id {
                assert!(
                    previous_ids.insert(previous.clone()),
                    "{set}: {previous} twice"
                );
            }
        }
    }
}

#[test]
fn seeds_are_one_row_however_the_device_and_a_file_are_written() {
    let runs = stored().set("runs");
    let run = runs
        .into_iter()
        .find(|run| run.report.recipe.transfer.is_some());
    let with = |seed: u64, device: &str, file: &str| {
        let mut run = run.clone().unwrap();
        let recipe = &mut run.report.recipe;
        recipe.seed = seed;
        recipe.device = device.into();
        recipe.transfer.as_mut().unwrap().unlabelled_file = Some(file.into());
        run
    };
    let runs = [with(1, "auto", "u.txt"), with(2, "cpu", "./u.txt")];
    assert_eq!(rows(&runs).len(), 1);
    assert_eq!(
        rows(&[with(1, "cpu", "u.txt"), with(2, "cpu", "v.txt")]).len(),
        2
    );
}

#[test]
fn stored_results_are_beside_a_linked_folder_of_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let (large, project) = (folder.path().join("large"), folder.path().join("project"));
    let results = project.join("notebooks/results");
    std::fs::create_dir_all(&large).unwrap();
    std::fs::create_dir_all(&results).unwrap();
    std::os::unix::fs::symlink(&large, project.join("checkpoints")).unwrap();
    let run = stored().set("runs").remove(0);
    StoredResults::write(&results, &[("runs".to_owned(), run)]).unwrap();
    let store = RunStore::new(project.join("checkpoints"));
    assert_eq!(store.stored_results().unwrap().set("runs").len(), 1);
}

#[test]
fn an_added_run_is_read_back_unchanged() {
    let _lock = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results");
    let store = RunStore::new(folder.path().join("checkpoints")).with_results(&results);
    let corpus = Corpus::open(sample()).unwrap();
    let recipe = recipe("student", &TINY_STUDENT);
    let run = store.run(&recipe, &corpus, &mut silent).unwrap();
    let path = store.add_to_results("runs", &run).unwrap();
    assert_eq!(
        path,
        results
            .join("added")
            .join(format!("runs-{}.safetensors", run.report.id))
    );
    assert!(path.metadata().unwrap().len() < 250_000);
    assert_eq!(store.add_to_results("runs", &run).unwrap(), path, "again");
    let mut other = run.clone();
    other.report.dev.accuracy = 0.5;
    let error = store.add_to_results("runs", &other).unwrap_err();
    assert!(
        error.to_string().contains("other results of this run"),
        "{error}"
    );

    let read = StoredResults::open(&results)
        .unwrap()
        .find("runs", &run.report.id)
        .unwrap();
    assert!(read.is_stored() && !run.is_stored());
    assert_eq!(read.report, run.report);
    assert_eq!(read.labels, run.labels);
    assert_eq!(read.curve().unwrap(), run.curve().unwrap());
    let (stored, exact) = (
        read.logits(Split::Test).unwrap(),
        run.logits(Split::Test).unwrap(),
    );
    assert_eq!(stored.labels, exact.labels);
    assert_eq!(stored.logits.dim(), exact.logits.dim());
    for (stored, exact) in stored.logits.iter().zip(&exact.logits) {
        assert_eq!(
            *stored,
            half::f16::from_f32(*exact).to_f32(),
            "rounded to f16"
        );
    }
    assert!(read.folder().is_err(), "a stored result has no weights");

    // A copy of the folder is no second run.
    let own = store.run_folder(&run.report.id);
    let copy = own.with_file_name("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(&own).unwrap().map(|file| file.unwrap()) {
        if file.path().is_file() {
            std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
        }
    }
    let listed = store.runs().unwrap();
    let errors: Vec<String> = listed
        .iter()
        .filter_map(|run| run.as_ref().err().map(ToString::to_string))
        .collect();
    assert_eq!(listed.len(), 2);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].contains("a copy of the run"), "{errors:?}");

    // Without the run's folder the store finds the stored result.
    std::fs::remove_dir_all(own).unwrap();
    let recalled = store
        .find_finished(&recipe, &corpus)
        .unwrap()
        .expect("a stored result");
    assert!(recalled.is_stored());
    assert_eq!(recalled.report, run.report);
}
