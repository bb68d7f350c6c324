//! The only module that knows it may run in an evcxr cell: how a cell shows HTML and pictures, says how far
//! training is, and fails so loudly that nobody overlooks it. It computes nothing.

use crate::data::Corpus;
use crate::device::{self, Environment};
use crate::lab::Lab;
use crate::predict::{Prediction, Predictor};
use crate::progress;
use crate::recipe::Recipe;
use crate::run::Run;
use crate::{Error, Result};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a notebook works on: the lab, a corpus and a profile. `KD_CORPUS` (a folder) and `KD_PROFILE` choose
/// them from outside; otherwise it is the corpus that set-up found, under `quick`.
#[derive(Debug)]
pub struct Study {
    /// Where runs live.
    pub lab: Lab,
    /// The texts.
    pub corpus: Corpus,
    /// Size of the experiments.
    pub profile: String,
    root: PathBuf,
}

impl Study {
    /// Opens it, or stops the cell.
    pub fn open() -> Study {
        Study::find().or_stop()
    }

    fn find() -> Result<Study> {
        let here = std::env::current_dir().map_err(Error::io(Path::new(".")))?;
        let root = here.ancestors().find(|p| p.join("checkpoints").is_dir());
        let root = root.ok_or_else(|| {
            Error::file(&here, "no folder named checkpoints here or above", "open the notebook from the project")
        })?;
        let default = ["default", "sample"].map(|name| root.join("data").join(name)).into_iter().find(|p| p.exists());
        let folder = std::env::var_os("KD_CORPUS").map(PathBuf::from).or(default).unwrap_or_else(|| root.join("data"));
        let profile = std::env::var("KD_PROFILE").unwrap_or_else(|_| "quick".into());
        Ok(Study {
            lab: Lab::at(root.join("checkpoints")),
            corpus: Corpus::open(folder)?,
            profile,
            root: root.to_path_buf(),
        })
    }

    /// A recipe of `notebooks/recipes` under this profile.
    pub fn recipe(&self, name: &str) -> Recipe {
        Recipe::read(self.root.join("notebooks/recipes").join(name).with_extension("toml"), &self.profile, &[])
            .or_stop()
    }

    /// The finished run of a recipe; while it trains, the cell shows a line now and then.
    pub fn run(&self, recipe: &Recipe) -> Run {
        let mut watch = progress::lines(std::io::stdout(), Duration::from_secs(10));
        self.lab.run(recipe, &self.corpus, &mut watch).or_stop()
    }

    /// What the outputs below come from: commit, corpus, profile, processor.
    pub fn provenance(&self) -> String {
        let git = std::process::Command::new("git")
            .args(["describe", "--always", "--dirty"])
            .current_dir(&self.root)
            .output();
        let commit = git
            .ok()
            .filter(|o| o.status.success())
            .map_or("unknown".into(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
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
    println!("EVCXR_BEGIN_CONTENT text/html\n{content}\nEVCXR_END_CONTENT");
}

/// Shows pictures side by side.
pub fn figures(svgs: &[String]) {
    html(&format!("<div style=\"display:flex;flex-wrap:wrap\">{}</div>", svgs.concat()));
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

fn stop(message: &dyn Display) -> ! {
    panic!("{message}")
}
