//! Carries a plan out: trains its stages in order, leaves optional ones out if the time is short, and
//! chooses on dev. Test is not read here. A plan's folder holds `plan.json`, the recipes, and
//! `elapsed.json`: the seconds of all invocations, so that a continued distillation keeps its budget.

use super::budget::duration;
use super::plan::{DistillPlan, Side, Stage};
use crate::data::Corpus;
use crate::store::{Recipe, Run, RunStore, labelled_texts};
use crate::training::{Progress, ProgressCallback, state};
use crate::{Error, Result, files};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PLAN: &str = "plan.json";
const ELAPSED: &str = "elapsed.json";
/// Interval between two writings of the elapsed seconds: a kill loses at most this much.
const WRITE_INTERVAL: Duration = Duration::from_secs(2);

/// The result of a plan.
#[derive(Debug)]
pub struct Outcome {
    /// The plan.
    pub plan: DistillPlan,
    /// The teacher; none if its logits come from a file.
    pub teacher: Option<Run>,
    /// The students that were tried with the first seed, baselines and distilled ones.
    pub candidates: Vec<Candidate>,
    /// The chosen baseline, one run a seed.
    pub baseline: Vec<Run>,
    /// The chosen distilled student, one run a seed.
    pub distilled: Vec<Run>,
    /// Stages that were left out, in sentences.
    pub left_out: Vec<String>,
    /// Seconds in all, over all invocations.
    pub seconds: f64,
}

/// A student that was tried.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its side.
    pub side: Side,
    /// Its run.
    pub run: Run,
    /// Whether dev chose it.
    pub chosen: bool,
}

/// What `elapsed.json` holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Elapsed {
    seconds: f64,
    left_out: Vec<String>,
}

/// Writes a plan's folder: `plan.json`, and the recipes as files that `kd train` reads. `seconds` were
/// spent before, on the measurement.
pub fn write_plan(plan: &DistillPlan, folder: &Path, seconds: f64) -> Result<()> {
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let elapsed = Elapsed {
        seconds,
        left_out: Vec::new(),
    };
    files::write_json(&folder.join(ELAPSED), &elapsed)?;
    for (number, stage) in plan.stages.iter().enumerate() {
        let name = format!(
            "{:02}-{}-seed{}.toml",
            number + 1,
            stage.recipe.name,
            stage.recipe.seed
        );
        if !stage.repeats_winner {
            files::write_text(&folder.join(name), &recipe_text(&stage.recipe, folder)?)?;
        }
    }
    files::write_json(&folder.join(PLAN), plan)
}

fn recipe_text(recipe: &Recipe, folder: &Path) -> Result<String> {
    toml::to_string(recipe).map_err(Error::in_file(folder, crate::error::BUG))
}

/// The seconds that were spent on a plan's folder so far.
pub fn seconds_spent(folder: &Path) -> Result<f64> {
    Ok(read_elapsed(folder)?.seconds)
}

/// Adds seconds that were spent on a plan's folder outside its trainings.
pub fn count_seconds(folder: &Path, seconds: f64) -> Result<()> {
    let mut clock = PlanClock::open(folder)?;
    clock.elapsed.seconds += seconds;
    clock.write()
}

fn read_elapsed(folder: &Path) -> Result<Elapsed> {
    let path = folder.join(ELAPSED);
    match path.exists() {
        true => files::read_json(&path),
        false => Ok(Elapsed::default()),
    }
}

/// The plan that a folder holds, if it holds one.
pub fn read_plan(folder: &Path) -> Result<Option<DistillPlan>> {
    let path = match folder.is_file() {
        true => folder.to_path_buf(),
        false => folder.join(PLAN),
    };
    if !path.exists() {
        return Ok(None);
    }
    let plan: DistillPlan = files::read_json(&path)?;
    if plan.format != super::plan::FORMAT {
        let problem = format!("a plan of format {}", plan.format);
        return Err(Error::file(&path, problem, "plan anew with this program"));
    }
    Ok(Some(plan))
}

/// Trains what a plan names. `folder` is the plan's.
pub fn execute(
    store: &RunStore,
    corpus: &Corpus,
    plan: DistillPlan,
    folder: &Path,
    callback: ProgressCallback,
) -> Result<Outcome> {
    plan.refuse_other_corpus(corpus, folder)?;
    let mut clock = PlanClock::open(folder)?;
    let mut teacher = None;
    let mut candidates: Vec<Candidate> = Vec::new();
    let (mut baseline, mut distilled) = (Vec::new(), Vec::new());
    let stages = plan.stages.clone();
    // What cannot be done is refused before the first training.
    for stage in stages.iter().filter(|stage| !stage.repeats_winner) {
        let plan = store.plan(&stage.recipe, corpus)?;
        if let Some(file) = &stage.recipe.teacher_logits {
            let _ = labelled_texts::read_logits(file, &plan.texts_to_label(), &corpus.labels)?;
        }
    }
    let mut leave_out_pair = false;
    for (number, stage) in stages.iter().enumerate() {
        if stage.repeats_winner && baseline.is_empty() {
            choose(&mut candidates);
            baseline.extend(chosen(&candidates, Side::Baseline));
            distilled.extend(chosen(&candidates, Side::Distilled));
        }
        let recipe = recipe_of(stage, &candidates);
        // Both sides of a pair are trained, or neither: what is decided for the baseline, which comes
        // first, holds for the distilled student.
        if stage.side == Side::Baseline {
            let for_report = plan.report_seconds();
            let left = plan.settings.budget.seconds - for_report - clock.elapsed.seconds;
            let late = stage.optional && needed(&stages[number..]) > left;
            leave_out_pair = late && !is_begun(store, &recipe, corpus)?;
        }
        if stage.optional && leave_out_pair {
            if !stage.spare {
                clock.leave_out(stage)?;
            }
            continue;
        }
        let mut timed = |progress: &Progress| {
            // A clock that cannot be written must not end a training.
            let _ = clock.write_if_due();
            let place = format!("training {} of {}", number + 1, stages.len());
            let run = format!("{place}: {}", progress.run);
            callback(&Progress {
                run: &run,
                ..*progress
            })
        };
        let run = store.run(&recipe, corpus, &mut timed)?;
        clock.write()?;
        match (stage.side, stage.repeats_winner) {
            (Side::Teacher, _) => teacher = Some(run),
            (Side::Baseline, true) => baseline.push(run),
            (Side::Distilled, true) => distilled.push(run),
            (side, false) => candidates.push(Candidate {
                side,
                run,
                chosen: false,
            }),
        }
    }
    if baseline.is_empty() {
        choose(&mut candidates);
        baseline.extend(chosen(&candidates, Side::Baseline));
        distilled.extend(chosen(&candidates, Side::Distilled));
    }
    Ok(Outcome {
        plan,
        teacher,
        candidates,
        baseline,
        distilled,
        left_out: clock.elapsed.left_out.clone(),
        seconds: clock.elapsed.seconds,
    })
}

/// Seconds of a pair, and of the stages behind it that may not be left out.
fn needed(stages: &[Stage]) -> f64 {
    let (pair, rest) = stages.split_at(stages.len().min(2));
    let mandatory = rest.iter().filter(|stage| !stage.optional);
    pair.iter()
        .chain(mandatory)
        .map(|stage| stage.seconds)
        .sum()
}

/// Whether a stage is finished or was interrupted; leaving it out would waste its work.
fn is_begun(store: &RunStore, recipe: &Recipe, corpus: &Corpus) -> Result<bool> {
    let plan = store.plan(recipe, corpus)?;
    let saved = files::content_addressed(&store.run_folder(&plan.id), state::PREFIX);
    Ok(store.is_finished(&plan) || !saved.is_empty())
}

/// The recipe of a stage: of one that repeats the winner, the winner's with the stage's seed.
fn recipe_of(stage: &Stage, candidates: &[Candidate]) -> Recipe {
    let winner = candidates.iter().find(|c| c.chosen && c.side == stage.side);
    match winner.filter(|_| stage.repeats_winner) {
        Some(winner) => winner
            .run
            .report
            .recipe
            .clone()
            .with_seed(stage.recipe.seed),
        None => stage.recipe.clone(),
    }
}

/// Marks the candidate of each side with the highest macro-F1 on dev; of equal ones, the first.
fn choose(candidates: &mut [Candidate]) {
    for side in [Side::Baseline, Side::Distilled] {
        let mut best: Option<usize> = None;
        for (at, candidate) in candidates.iter().enumerate() {
            let score = |at: usize| candidates[at].run.report.dev.macro_f1;
            if candidate.side == side && best.is_none_or(|best| score(at) > score(best)) {
                best = Some(at);
            }
        }
        if let Some(best) = best {
            candidates[best].chosen = true;
        }
    }
}

fn chosen(candidates: &[Candidate], side: Side) -> Option<Run> {
    let winner = candidates.iter().find(|c| c.chosen && c.side == side);
    winner.map(|candidate| candidate.run.clone())
}

/// Counts the seconds of a plan over all invocations.
pub(super) struct PlanClock {
    path: PathBuf,
    elapsed: Elapsed,
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
        match self.last.elapsed() < WRITE_INTERVAL {
            true => Ok(()),
            false => self.write(),
        }
    }

    pub fn write(&mut self) -> Result<()> {
        self.elapsed.seconds += self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        files::write_json(&self.path, &self.elapsed)
    }

    fn leave_out(&mut self, stage: &Stage) -> Result<()> {
        let side = match stage.side {
            Side::Baseline => "baseline",
            _ => "distilled student",
        };
        let what = match stage.repeats_winner {
            true => format!("a further seed of the {side}"),
            false => stage.recipe.name.clone(),
        };
        let sentence = format!(
            "{what}, seed {}: left out, since its {} were no longer left",
            stage.recipe.seed,
            duration(stage.seconds)
        );
        if !self.elapsed.left_out.contains(&sentence) {
            self.elapsed.left_out.push(sentence);
        }
        self.write()
    }
}
