//! Trains the stages of a plan on one corpus or fold: the teacher and the candidates, of which dev
//! chooses, and further seeds of the chosen students. Optional trainings are skipped if the time is
//! short. Test is not scored here; its texts serve only to leave out training and augmented texts
//! that equal them.

use super::budget::duration;
use super::plan::{DistillPlan, FurtherSeed, Side, StudentPair};
use super::plan_folder::PlanClock;
use crate::data::Corpus;
use crate::store::{Recipe, Run, RunStore, labelled_texts};
use crate::training::{Activity, Progress, ProgressCallback, state};
use crate::{Error, Result, files};
use std::fmt;
use std::path::Path;

/// What was trained on one corpus or fold, and what dev chose.
#[derive(Debug)]
pub struct TrainedStages {
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
    /// What the stages left out or changed of the texts.
    pub notices: Vec<StageNotice>,
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

/// What a recipe leaves out or changes of the texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageNotice {
    /// Name of the first recipe that it concerns.
    pub recipe: String,
    /// What is left out or changed, in a sentence.
    pub text: String,
}

impl fmt::Display for StageNotice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}: {}", self.recipe, self.text)
    }
}

/// Refuses a plan with a stage that cannot be trained on this corpus, before the first training.
/// Returns what the stages leave out or change of the texts, each once.
pub fn check_stages(
    store: &RunStore,
    corpus: &Corpus,
    plan: &DistillPlan,
    callback: ProgressCallback,
) -> Result<Vec<StageNotice>> {
    let mut notices: Vec<StageNotice> = Vec::new();
    for stage in plan.stages() {
        Progress::begin(&stage.recipe.name, Activity::Preparing).send(callback)?;
        let planned = store.plan(&stage.recipe, corpus)?;
        for text in &planned.notices {
            if notices.iter().all(|notice| notice.text != *text) {
                notices.push(StageNotice {
                    recipe: stage.recipe.name.clone(),
                    text: text.clone(),
                });
            }
        }
        if let Some(file) = &stage.recipe.teacher_logits {
            // Read to check it; training reads it again.
            let _ = labelled_texts::read_logits(file, &planned.texts_to_label(), &corpus.labels)?;
        }
    }
    Ok(notices)
}

/// Trains the stages of a plan. `folder` is the plan's.
pub fn run_stages(
    store: &RunStore,
    corpus: &Corpus,
    plan: DistillPlan,
    folder: &Path,
    callback: ProgressCallback,
) -> Result<TrainedStages> {
    plan.refuse_other_corpus(corpus, folder)?;
    let notices = check_stages(store, corpus, &plan, callback)?;
    let planned_seeds = plan
        .further_seeds
        .iter()
        .filter(|further| !further.spare)
        .count();
    let mut runner = StageRunner {
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
        let again = FurtherRuns {
            further,
            recipes: chosen.map(|run| {
                let recipe = run.report.recipe.clone().with_seed(further.seed);
                plan.with_own_paths(recipe)
            }),
            seconds: chosen.iter().map(|run| run.report.seconds).sum(),
        };
        if let Some(runs) = runner.train_further_seed(&again, seconds_for_training)? {
            let [without_teacher, with_teacher] = runs;
            baseline.push(without_teacher);
            distilled.push(with_teacher);
        }
    }
    let elapsed = runner.clock.elapsed;
    Ok(TrainedStages {
        plan,
        teacher,
        candidates,
        baseline,
        distilled,
        notices,
        left_out: elapsed.left_out,
        seconds: elapsed.seconds,
    })
}

/// The chosen baseline and distilled student with another seed.
struct FurtherRuns<'a> {
    further: &'a FurtherSeed,
    recipes: [Recipe; 2],
    /// What the chosen runs took together.
    seconds: f64,
}

/// Trains the stages, and counts the seconds.
struct StageRunner<'a, 'c> {
    store: &'a RunStore,
    corpus: &'a Corpus,
    clock: PlanClock,
    callback: ProgressCallback<'c>,
    /// Training runs that are done or skipped.
    done: usize,
    /// Training runs of the plan; those of a spare seed once they begin.
    total: usize,
}

impl StageRunner<'_, '_> {
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
        again: &FurtherRuns,
        seconds_for_training: f64,
    ) -> Result<Option<[Run; 2]>> {
        let FurtherRuns {
            further,
            recipes: [baseline, distilled],
            seconds,
        } = again;
        let fits = self.clock.elapsed.seconds + seconds <= seconds_for_training;
        if fits || self.is_begun(baseline)? {
            if further.spare {
                self.total += 2;
            }
            return Ok(Some([self.train(baseline)?, self.train(distilled)?]));
        }
        // A spare seed lies beyond what the plan has time for, so that nothing was left out.
        if !further.spare {
            let what = format!("the chosen students with seed {}", further.seed);
            self.skip(2, &what, *seconds)?;
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

/// Marks the candidate of a side with the highest macro-F1 on dev (the first wins a tie), and
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
