//! Nothing is lost on a failing disk: `kd` is killed at points around its saving, and runs on a
//! disk that becomes full. A small library that is preloaded into the process (`disk/disk.c`)
//! simulates the disk. Some points are tried, spread over the run; with `KD_KILLS` set (`make
//! soak`) all of them.

use crate::common::{TINY_STUDENT, tiny_checkpoint};
use crate::program::{TINY_TEACHER, finish, kd_train, result};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Points that are tried in each run, unless all are.
const TRIED_POINTS: usize = 8;

/// Builds the library with the C compiler that `make setup` needs.
fn library(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/disk/disk.c");
    let built = folder.join("disk.so");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&built)
        .arg(source)
        .arg("-ldl")
        .status();
    assert!(status.expect("a C compiler named cc").success());
    built
}

/// A command that trains in a new store for each point.
struct Trial {
    folder: tempfile::TempDir,
    library: PathBuf,
    recipe: &'static str,
    settings: Vec<&'static str>,
}

impl Trial {
    fn new(recipe: &'static str, settings: Vec<&'static str>) -> Trial {
        let folder = tempfile::tempdir().unwrap();
        let library = library(folder.path());
        tiny_checkpoint(&folder.path().join("tiny"));
        Trial {
            folder,
            library,
            recipe,
            settings,
        }
    }

    fn store(&self, name: &str) -> PathBuf {
        let store = self.folder.path().join(name);
        std::fs::create_dir(&store).unwrap();
        std::os::unix::fs::symlink(self.folder.path().join("tiny"), store.join("tiny")).unwrap();
        store
    }

    fn command(&self, store: &Path) -> Command {
        kd_train(store, self.recipe, &self.settings)
    }

    fn on_failing_disk(&self, store: &Path, setting: &str, value: &str) -> Output {
        let mut command = self.command(store);
        command
            .env("LD_PRELOAD", &self.library)
            .env("DISK_UNDER", store.join("runs"))
            .env(setting, value);
        command.output().unwrap()
    }

    /// The result of a run without failures, and the points to try.
    fn without_failures(&self) -> (Vec<(String, Vec<u8>)>, Vec<usize>) {
        let (store, count) = (self.store("whole"), self.folder.path().join("count"));
        assert!(
            self.on_failing_disk(&store, "DISK_COUNT", count.to_str().unwrap())
                .status
                .success()
        );
        let expected = result(&finish(&mut self.command(&store)));
        let all: usize = std::fs::read_to_string(count)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        assert!(all > 20, "{all} points: is the library loaded?");
        let stride = if std::env::var_os("KD_KILLS").is_some() {
            1
        } else {
            (all / TRIED_POINTS).max(1)
        };
        (expected, (1..=all).step_by(stride).collect())
    }
}

fn trials() -> [Trial; 2] {
    let student = [&TINY_STUDENT[..], &["train.gradient_accumulation_steps=4"]].concat();
    let teacher = [
        &TINY_TEACHER[..],
        &["train.epochs=1", "train.precision=bf16"],
    ]
    .concat();
    [
        Trial::new("student", student),
        Trial::new("teacher", teacher),
    ]
}

#[test]
fn a_run_that_is_killed_while_saving_ends_with_the_bytes_of_an_undisturbed_run() {
    for trial in trials() {
        let (expected, points) = trial.without_failures();
        for point in &points {
            let store = trial.store(&format!("killed-{point}"));
            let killed = trial.on_failing_disk(&store, "DISK_KILL_AT", &point.to_string());
            assert!(!killed.status.success(), "point {point} was not reached");
            let run = finish(&mut trial.command(&store));
            assert!(
                result(&run) == expected,
                "{}: other bytes after a kill at point {point}",
                trial.recipe
            );
            let mut left = std::fs::read_dir(&run)
                .unwrap()
                .map(|e| e.unwrap().file_name());
            assert!(
                !left.any(|name| name.to_string_lossy().starts_with(".writing-")),
                "point {point}: temporary files are left"
            );
        }
        println!("{}: killed at {} points", trial.recipe, points.len());
    }
}

#[test]
fn a_full_disk_is_reported_and_the_run_continues_when_there_is_space() {
    for trial in trials() {
        let (expected, points) = trial.without_failures();
        let mut failed = 0;
        for point in &points {
            let store = trial.store(&format!("full-{point}"));
            let full = trial.on_failing_disk(&store, "DISK_FULL_AT", &point.to_string());
            // After the last write a full disk has no effect.
            if !full.status.success() {
                let errors = String::from_utf8_lossy(&full.stderr).into_owned();
                assert!(
                    errors.contains("Error: ") && errors.contains("No space left on device"),
                    "{point}: {errors}"
                );
                failed += 1;
            }
            assert!(
                result(&finish(&mut trial.command(&store))) == expected,
                "{}: point {point}",
                trial.recipe
            );
        }
        assert!(failed * 2 > points.len(), "{failed} of {}", points.len());
        println!(
            "{}: {failed} of {} points failed on a full disk",
            trial.recipe,
            points.len()
        );
    }
}
