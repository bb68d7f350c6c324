//! The folder of a plan: `plan.json`, the recipes, and `elapsed.json`, the seconds of all
//! invocations, so that a continued distillation keeps its budget. Nothing is trained here.

use super::plan::{DistillPlan, FORMAT};
use crate::error::BUG;
use crate::store::Recipe;
use crate::{Error, Result, files};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PLAN: &str = "plan.json";
const ELAPSED: &str = "elapsed.json";
/// A larger number of threads is a damaged plan.
const MAX_THREADS: usize = 1024;
/// Interval between two writings of the elapsed seconds: a kill loses at most this much.
const WRITE_INTERVAL: Duration = Duration::from_secs(2);

/// What `elapsed.json` holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Elapsed {
    pub seconds: f64,
    /// Training runs that were skipped, in sentences.
    pub left_out: Vec<String>,
}

/// Writes a plan's folder: `plan.json`, and the recipes as files that `kd train` reads. `seconds`
/// were spent before, on the measurement.
pub fn write_plan(plan: &DistillPlan, folder: &Path, seconds: f64) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let elapsed = Elapsed {
        seconds,
        left_out: Vec::new(),
    };
    files::write_json(&folder.join(ELAPSED), &elapsed)?;
    for (number, stage) in plan.stages().enumerate() {
        let recipe = &stage.recipe;
        let name = format!("{:02}-{}-seed{}.toml", number + 1, recipe.name, recipe.seed);
        files::write_text(&folder.join(name), &recipe_text(recipe, folder)?)?;
    }
    files::write_json(&folder.join(PLAN), plan)
}

fn recipe_text(recipe: &Recipe, folder: &Path) -> Result<String> {
    toml::to_string(recipe).map_err(Error::in_file(folder, BUG))
}

/// The seconds that were spent on a plan's folder so far.
pub fn seconds_spent(folder: &Path) -> Result<f64> {
    Ok(read_elapsed(folder)?.seconds)
}

/// Adds seconds that were spent on a plan's folder outside its training runs.
pub fn add_seconds(folder: &Path, seconds: f64) -> Result<()> {
    let mut clock = PlanClock::open(folder)?;
    clock.elapsed.seconds += seconds;
    clock.add_and_write()
}

fn read_elapsed(folder: &Path) -> Result<Elapsed> {
    let path = folder.join(ELAPSED);
    if path.exists() {
        files::read_json(&path)
    } else {
        Ok(Elapsed::default())
    }
}

/// The plan in a file, or in a folder if it holds one.
pub fn read_plan(folder_or_file: &Path) -> Result<Option<DistillPlan>> {
    let path = if folder_or_file.is_file() {
        folder_or_file.to_path_buf()
    } else {
        folder_or_file.join(PLAN)
    };
    if !path.exists() {
        return Ok(None);
    }
    let written: PlanFormat = files::read_json(&path)?;
    if written.format != FORMAT {
        let problem = format!("a plan of format {}", written.format);
        let fix = "remove it and plan anew with this program; finished runs are found again";
        return Err(Error::file(&path, problem, fix));
    }
    let plan: DistillPlan = files::read_json(&path)?;
    if !(1..=MAX_THREADS).contains(&plan.speed.threads) {
        let problem = format!("a plan with {} threads", plan.speed.threads);
        let fix = "restore the plan.json that kd distill wrote";
        return Err(Error::file(&path, problem, fix));
    }
    if plan.candidates.is_empty() {
        let fix = "restore the plan.json that kd distill wrote";
        return Err(Error::file(&path, "a plan without students", fix));
    }
    Ok(Some(plan))
}

/// The format of a plan's file; the other keys depend on it.
#[derive(Deserialize)]
struct PlanFormat {
    format: u32,
}

/// Counts the seconds of a plan over all invocations.
pub(super) struct PlanClock {
    path: PathBuf,
    pub elapsed: Elapsed,
    last: Instant,
}

impl PlanClock {
    /// Continues the count that a plan's folder holds.
    pub fn open(folder: &Path) -> Result<PlanClock> {
        Ok(PlanClock {
            path: folder.join(ELAPSED),
            elapsed: read_elapsed(folder)?,
            last: Instant::now(),
        })
    }

    pub fn seconds(&self) -> f64 {
        self.elapsed.seconds
    }

    pub fn write_if_due(&mut self) -> Result<()> {
        if self.last.elapsed() < WRITE_INTERVAL {
            Ok(())
        } else {
            self.add_and_write()
        }
    }

    /// Adds the time since the last call, and writes the sum.
    pub fn add_and_write(&mut self) -> Result<()> {
        self.elapsed.seconds += self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        files::write_json(&self.path, &self.elapsed)
    }
}
