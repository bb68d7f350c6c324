//! Carries a plan out on one corpus: trains the teacher and the candidates, chooses on dev, and
//! trains further seeds of the chosen students. Optional training runs are skipped if the time is
//! short. Test is not scored here; its texts serve only to leave out training and augmented texts
//! that equal them. A plan's folder holds `plan.json`, the recipes, and `elapsed.json`: the seconds
//! of all invocations, so that a continued distillation keeps its budget.

use super::budget::duration;
use super::plan::{DistillPlan, FurtherSeed, Side, StudentPair};
use crate::data::Corpus;
use crate::store::{Recipe, Run, RunStore, labelled_texts};
use crate::training::{Activity, Progress, ProgressCallback, state};
use crate::{Error, Result, files};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PLAN: &str = "plan.json";
const ELAPSED: &str = "elapsed.json";
/// Interval between two writings of the elapsed seconds: a kill loses at most this much.
const WRITE_INTERVAL: Duration = Duration::from_secs(2);

/// What was trained on one corpus or fold, and what dev chose.
#[derive(Debug)]
pub struct Outcome {
    /// The plan.
    pub plan: DistillPlan,
    /// The teacher; none if its logits come from a file.
    pub teacher: Option<Run>,
    /// The students that were tried with the first seed, baselines and distilled ones.
    pub candidates: Vec<Candidate>,
    /// The chosen baseline, one run per seed.
    pub baseline: Vec<Run>,
    /// The chosen distilled student, one run per seed.
    pub distilled: Vec<Run>,
    /// Training runs that were skipped, in sentences.
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
    toml::to_string(recipe).map_err(Error::in_file(folder, crate::error::BUG))
}

/// The seconds that were spent on a plan's folder so far.
pub fn seconds_spent(folder: &Path) -> Result<f64> {
    Ok(read_elapsed(folder)?.seconds)
}

/// Adds seconds that were spent on a plan's folder outside its trainings.
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
    if written.format != super::plan::FORMAT {
        let problem = format!("a plan of format {}", written.format);
        let fix = "remove it and plan anew with this program; finished runs are found again";
        return Err(Error::file(&path, problem, fix));
    }
    let plan: DistillPlan = files::read_json(&path)?;
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

/// Refuses a plan with a stage that cannot be trained on this corpus, before the first training.
/// Returns what the stages leave out or change of the texts, each sentence once, with the first
/// recipe that it concerns.
pub fn check_stages(
    store: &RunStore,
    corpus: &Corpus,
    plan: &DistillPlan,
    callback: ProgressCallback,
) -> Result<Vec<String>> {
    let mut seen = HashSet::new();
    let mut notices = Vec::new();
    for stage in plan.stages() {
        Progress::begin(&stage.recipe.name, Activity::Preparing).send(callback)?;
        let planned = store.plan(&stage.recipe, corpus)?;
        for notice in &planned.notices {
            if seen.insert(notice.clone()) {
                notices.push(format!("{}: {notice}", stage.recipe.name));
            }
        }
        if let Some(file) = &stage.recipe.teacher_logits {
            // Read to check it; training reads it again.
            let _ = labelled_texts::read_logits(file, &planned.texts_to_label(), &corpus.labels)?;
        }
    }
    Ok(notices)
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
    check_stages(store, corpus, &plan, callback)?;
    let planned_seeds = plan
        .further_seeds
        .iter()
        .filter(|further| !further.spare)
        .count();
    let mut runner = PlanRunner {
        store,
        corpus,
        clock: PlanClock::open(folder)?,
        callback,
        done: 0,
        total: plan.stages().count() + 2 * planned_seeds,
    };
    let seconds_for_training = plan.settings.budget.seconds - plan.report_seconds();
    let teacher = match &plan.teacher {
        Some(stage) => Some(runner.train(&stage.recipe)?),
        None => None,
    };
    let mut candidates = Vec::new();
    for pair in &plan.candidates {
        candidates.extend(runner.train_pair(pair, seconds_for_training)?);
    }
    let mut baseline = vec![choose(&mut candidates, Side::Baseline, folder)?];
    let mut distilled = vec![choose(&mut candidates, Side::Distilled, folder)?];
    for further in &plan.further_seeds {
        let chosen = [&baseline[0], &distilled[0]];
        if let Some(runs) = runner.train_further_seed(further, chosen, seconds_for_training)? {
            let [without_teacher, with_teacher] = runs;
            baseline.push(without_teacher);
            distilled.push(with_teacher);
        }
    }
    let elapsed = runner.clock.elapsed;
    Ok(Outcome {
        plan,
        teacher,
        candidates,
        baseline,
        distilled,
        left_out: elapsed.left_out,
        seconds: elapsed.seconds,
    })
}

/// Trains what a plan names, and counts the seconds.
struct PlanRunner<'a, 'c> {
    store: &'a RunStore,
    corpus: &'a Corpus,
    clock: PlanClock,
    callback: ProgressCallback<'c>,
    /// Training runs that are done or skipped.
    done: usize,
    /// Training runs of the plan; those of a spare seed once they begin.
    total: usize,
}

impl PlanRunner<'_, '_> {
    fn train(&mut self, recipe: &Recipe) -> Result<Run> {
        self.done += 1;
        let place = format!("training {} of {}", self.done, self.total);
        let (clock, callback) = (&mut self.clock, &mut self.callback);
        let mut timed = |progress: &Progress| {
            // A clock that cannot be written must not end a training.
            let _ = clock.write_if_due();
            let run = format!("{place}: {}", progress.run);
            callback(&Progress {
                run: &run,
                ..*progress
            })
        };
        let run = self.store.run(recipe, self.corpus, &mut timed)?;
        self.clock.add_and_write()?;
        Ok(run)
    }

    /// Trains the students of a pair that still fit into the time, the baseline first.
    fn train_pair(
        &mut self,
        pair: &StudentPair,
        seconds_for_training: f64,
    ) -> Result<Vec<Candidate>> {
        let remaining = seconds_for_training - self.clock.elapsed.seconds;
        let skipped = sides_to_skip(pair, remaining, |recipe| self.is_begun(recipe))?;
        let sides = [
            (Side::Baseline, &pair.baseline, skipped.baseline),
            (Side::Distilled, &pair.distilled, skipped.distilled),
        ];
        let mut trained = Vec::new();
        for (side, stage, is_skipped) in sides {
            if is_skipped {
                let what = format!("{}, seed {}", stage.recipe.name, stage.recipe.seed);
                self.skip(1, &what, stage.seconds)?;
            } else {
                trained.push(Candidate {
                    side,
                    run: self.train(&stage.recipe)?,
                    chosen: false,
                });
            }
        }
        Ok(trained)
    }

    /// Trains the two chosen students with another seed, or neither if the time is too short for
    /// both. They are expected to take as long as the chosen runs took. If the baseline is begun
    /// already, both are trained.
    fn train_further_seed(
        &mut self,
        further: &FurtherSeed,
        chosen: [&Run; 2],
        seconds_for_training: f64,
    ) -> Result<Option<[Run; 2]>> {
        let [baseline, distilled] =
            chosen.map(|run| run.report.recipe.clone().with_seed(further.seed));
        let seconds: f64 = chosen.iter().map(|run| run.report.seconds).sum();
        let fits = self.clock.elapsed.seconds + seconds <= seconds_for_training;
        if fits || self.is_begun(&baseline)? {
            if further.spare {
                self.total += 2;
            }
            return Ok(Some([self.train(&baseline)?, self.train(&distilled)?]));
        }
        // A spare seed lies beyond what the plan has time for, so that nothing was left out.
        if !further.spare {
            let what = format!("the chosen students with seed {}", further.seed);
            self.skip(2, &what, seconds)?;
        }
        Ok(None)
    }

    /// Whether a run is finished or interrupted. Such a run is never skipped: its work would be
    /// lost.
    fn is_begun(&mut self, recipe: &Recipe) -> Result<bool> {
        Progress::begin(&recipe.name, Activity::Preparing).send(self.callback)?;
        let planned = self.store.plan(recipe, self.corpus)?;
        let folder = self.store.run_folder(&planned.id);
        let saved = files::content_addressed(&folder, state::PREFIX);
        Ok(self.store.is_finished(&planned) || !saved.is_empty())
    }

    /// Skips training runs for which no time is left, and writes that down.
    fn skip(&mut self, runs: usize, what: &str, seconds: f64) -> Result<()> {
        self.done += runs;
        let needed = duration(seconds);
        let sentence = format!("{what}: skipped, because it needs {needed} and less time is left");
        let left_out = &mut self.clock.elapsed.left_out;
        if !left_out.contains(&sentence) {
            left_out.push(sentence);
        }
        self.clock.add_and_write()
    }
}

/// The students of a pair for which no time is left.
#[derive(Debug, Default, PartialEq)]
struct SkippedSides {
    baseline: bool,
    distilled: bool,
}

/// The students of a pair that do not fit into the remaining seconds. A baseline is trained if it
/// fits alone: distillation must not look better because its strongest rival was skipped. A started
/// run always continues.
fn sides_to_skip(
    pair: &StudentPair,
    remaining: f64,
    mut is_begun: impl FnMut(&Recipe) -> Result<bool>,
) -> Result<SkippedSides> {
    if !pair.optional || pair.seconds() <= remaining {
        return Ok(SkippedSides::default());
    }
    Ok(SkippedSides {
        baseline: pair.baseline.seconds > remaining && !is_begun(&pair.baseline.recipe)?,
        distilled: !is_begun(&pair.distilled.recipe)?,
    })
}

/// Marks the candidate of a side with the highest macro-F1 on dev, of equal ones the first, and
/// returns its run. `folder` is the plan's, for the error if the plan has no such student.
fn choose(candidates: &mut [Candidate], side: Side, folder: &Path) -> Result<Run> {
    let mut best: Option<&mut Candidate> = None;
    for candidate in candidates
        .iter_mut()
        .filter(|candidate| candidate.side == side)
    {
        let score = candidate.run.report.dev.macro_f1;
        if best
            .as_ref()
            .is_none_or(|best| score > best.run.report.dev.macro_f1)
        {
            best = Some(candidate);
        }
    }
    let Some(best) = best else {
        let problem = format!("no {} student was trained", side.name());
        let fix = "the first pair of a plan must not be optional";
        return Err(Error::file(folder, problem, fix));
    };
    best.chosen = true;
    Ok(best.run.clone())
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

#[cfg(test)]
mod tests {
    use super::super::plan::Stage;
    use super::*;

    fn when_time_is_short(optional: bool, left: f64, begun: bool) -> SkippedSides {
        let recipes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../notebooks/recipes");
        let recipe = Recipe::read(recipes.join("student.toml"), "full", &[]).unwrap();
        let stage_with = |seconds| Stage {
            recipe: recipe.clone(),
            seconds,
        };
        let pair = StudentPair {
            baseline: stage_with(100.0),
            distilled: stage_with(200.0),
            optional,
        };
        sides_to_skip(&pair, left, |_| Ok(begun)).unwrap()
    }

    #[test]
    fn a_baseline_that_fits_alone_is_trained_when_time_is_short() {
        let sides = |baseline, distilled| SkippedSides {
            baseline,
            distilled,
        };
        assert_eq!(when_time_is_short(true, 300.0, false), sides(false, false));
        assert_eq!(when_time_is_short(true, 299.0, false), sides(false, true));
        assert_eq!(when_time_is_short(true, 99.0, false), sides(true, true));
        assert_eq!(
            when_time_is_short(true, 99.0, true),
            sides(false, false),
            "a started run continues"
        );
        assert_eq!(
            when_time_is_short(false, 0.0, false),
            sides(false, false),
            "mandatory"
        );
    }
}
