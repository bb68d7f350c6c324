//! Nothing lost on a disk that misbehaves: `kd` killed at every point around its saving, and run on a disk that fills.
//! A small library preloaded into the process (`disk/disk.c`) is that disk. Some points are tried, spread over the run;
//! with `KD_KILLS` set (`make soak`) all of them.

mod common;

use common::program::{TINY_TEACHER, finished, kd, result};
use common::{TINY_STUDENT, tiny_checkpoint};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Points tried of each run, unless all are.
const SOME: usize = 8;

/// The library, built by the C compiler that set-up needs anyway.
fn library(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/disk/disk.c");
    let built = folder.join("disk.so");
    let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&built).arg(source).arg("-ldl").status();
    assert!(status.expect("a C compiler named cc").success());
    built
}

/// A lab that is made anew for each point, and the command that trains in it.
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
        Trial { folder, library, recipe, settings }
    }

    fn lab(&self, name: &str) -> PathBuf {
        let lab = self.folder.path().join(name);
        std::fs::create_dir(&lab).unwrap();
        std::os::unix::fs::symlink(self.folder.path().join("tiny"), lab.join("tiny")).unwrap();
        lab
    }

    fn command(&self, lab: &Path) -> Command {
        kd(lab, self.recipe, &self.settings)
    }

    fn on_bad_disk(&self, lab: &Path, setting: &str, value: &str) -> Output {
        let mut command = self.command(lab);
        command.env("LD_PRELOAD", &self.library).env("DISK_UNDER", lab.join("runs")).env(setting, value);
        command.output().unwrap()
    }

    /// The undisturbed run's result, and the points that were passed on the way to it.
    fn undisturbed(&self) -> (Vec<(String, Vec<u8>)>, Vec<usize>) {
        let (lab, count) = (self.lab("whole"), self.folder.path().join("count"));
        assert!(self.on_bad_disk(&lab, "DISK_COUNT", count.to_str().unwrap()).status.success());
        let expected = result(&finished(&mut self.command(&lab)));
        let all: usize = std::fs::read_to_string(count).unwrap().trim().parse().unwrap();
        assert!(all > 20, "{all} points: is the library in use?");
        let stride = if std::env::var_os("KD_KILLS").is_some() { 1 } else { (all / SOME).max(1) };
        (expected, (1..=all).step_by(stride).collect())
    }
}

fn trials() -> [Trial; 2] {
    let student = [&TINY_STUDENT[..], &["train.accumulation=4"]].concat();
    let teacher = [&TINY_TEACHER[..], &["train.epochs=1", "train.precision=bf16"]].concat();
    [Trial::new("student", student), Trial::new("teacher", teacher)]
}

#[test]
fn killed_at_any_point_of_its_saving_a_run_ends_with_the_bytes_of_one_that_was_not() {
    for trial in trials() {
        let (expected, points) = trial.undisturbed();
        for point in &points {
            let lab = trial.lab(&format!("killed-{point}"));
            let killed = trial.on_bad_disk(&lab, "DISK_KILL_AT", &point.to_string());
            assert!(!killed.status.success(), "point {point} was not met");
            let run = finished(&mut trial.command(&lab));
            assert!(result(&run) == expected, "{}: other bytes after a kill at point {point}", trial.recipe);
            let mut left = std::fs::read_dir(&run).unwrap().map(|e| e.unwrap().file_name());
            assert!(!left.any(|name| name.to_string_lossy().starts_with(".writing-")), "point {point}: litter");
        }
        println!("{}: killed at {} points", trial.recipe, points.len());
    }
}

#[test]
fn a_full_disk_is_said_and_the_run_goes_on_when_there_is_room() {
    for trial in trials() {
        let (expected, points) = trial.undisturbed();
        let mut met = 0;
        for point in &points {
            let lab = trial.lab(&format!("full-{point}"));
            let full = trial.on_bad_disk(&lab, "DISK_FULL_AT", &point.to_string());
            // After the last write a full disk is nobody's business.
            if !full.status.success() {
                let said = String::from_utf8_lossy(&full.stderr).into_owned();
                assert!(said.contains("Error: ") && said.contains("No space left on device"), "{point}: {said}");
                met += 1;
            }
            assert!(result(&finished(&mut trial.command(&lab))) == expected, "{}: point {point}", trial.recipe);
        }
        assert!(met * 2 > points.len(), "{met} of {}", points.len());
        println!("{}: {met} of {} points met a full disk", trial.recipe, points.len());
    }
}
