//! Makes a plan. The rule is arithmetic over [`CorpusFacts`], [`SecondsPerText`] and the budget; it
//! never looks at a score.
//!
//! 1. A tenth of the budget and ten seconds are for reading, tokenizing, the report, and what the
//!    measurement of speed did not see; more than a tenth if the report's passes of the teacher
//!    over test and other texts take longer. What is left is the usable time.
//! 2. Half of the usable time at most is for the teacher: two epochs, or below 10,000 texts as many
//!    as make 20,000 examples (3 to 20); fewer, or fewer texts, if the share is too small. It is
//!    trained on 200 texts and evaluated on 300 dev texts even if that takes longer.
//! 3. Then come the teacher's logits: of the training texts, and of as many unlabelled and then
//!    augmented texts (20 of each text at most) as the distilled student can train on for three
//!    epochs.
//! 4. What is left is for the students, in pairs of a baseline and a distilled student. Each gets
//!    half of the pair's time, and an update takes both equally long; what the baseline does not
//!    need when it reaches its cap goes to the distilled student. A pair of fastTexts gets a tenth
//!    at most and seldom needs it. Of the rest a TextCNN pair gets a quarter, if the time is long
//!    enough for it, and the BiLSTM pair all else.
//! 5. If the largest class has three times the texts of the smallest, the time of the BiLSTM pair
//!    is divided: a second one, with class weights, is trained as long.
//! 6. If the texts have no spaces and the caps leave more than three quarters of the students'
//!    time, a pair that reads characters is trained. What then remains goes to further seeds of the
//!    two students that dev chooses. Seeds that do not fit also stand in the plan, as spare ones,
//!    for the case that the others take less time than expected.
//! 7. Under cross-validation each fold carries the stages out within its part of the budget,
//!    without further seeds. A refit on all labelled texts takes its time from the others.

mod student_cost;
mod students;
mod teacher;

use super::facts::{CorpusFacts, PlanSettings, SecondsPerText};
use super::plan::{
    DistillPlan, FIXED_SECONDS, FORMAT, FurtherSeed, RESERVE, Stage, StudentPair, report_seconds,
};
use super::recipes::StudentKind;
use crate::{Error, Result};
use students::StudentPlanner;

/// A pair that reads characters is trained if more than this share of the students' time is left.
const LEFT_FOR_CHARACTERS: f64 = 0.75;

/// Makes the plan of the recipes that fit into a budget.
///
/// # Errors
/// If the budget is too small for a teacher and two students: the error names one that is enough.
/// If there is no test text to report on.
pub fn make_plan(
    corpus: &str,
    corpus_fingerprint: &str,
    settings: PlanSettings,
    facts: CorpusFacts,
    speed: SecondsPerText,
) -> Result<DistillPlan> {
    check_limit("max-size", settings.max_megabytes)?;
    if let Some(latency) = settings.max_latency {
        check_limit("max-latency", latency)?;
    }
    if settings.folds == 0 && facts.test_texts == 0 {
        let fix = "give the corpus test texts, or ask for folds";
        return Err(Error::option("folds", "0, but there is no test text", fix));
    }
    let planner = Planner {
        settings: &settings,
        facts: &facts,
        speed: &speed,
    };
    let Some(fitted) = planner.fit(settings.budget.seconds)? else {
        let mut enough = settings.budget.seconds;
        while planner.fit(enough)?.is_none() {
            enough *= 1.1;
        }
        let problem = format!(
            "{} is too short for this corpus here",
            rounded_up(settings.budget.seconds)
        );
        let fix = format!("allow {} or more", rounded_up(enough));
        return Err(Error::option("budget", problem, fix));
    };
    Ok(DistillPlan {
        format: FORMAT,
        corpus: corpus.to_owned(),
        corpus_fingerprint: corpus_fingerprint.to_owned(),
        settings,
        facts,
        speed,
        teacher: Some(fitted.stages.teacher),
        candidates: fitted.stages.candidates,
        further_seeds: fitted.stages.further_seeds,
        refit_seconds: fitted.refit_seconds,
    })
}

fn check_limit(option: &str, limit: f64) -> Result<()> {
    if limit.is_finite() && limit > 0.0 {
        return Ok(());
    }
    let fix = "choose a number above 0";
    Err(Error::option(option, limit.to_string(), fix))
}

/// A budget as a person writes it, rounded up.
fn rounded_up(seconds: f64) -> String {
    let whole_minutes = seconds % 60.0 == 0.0;
    if seconds > 600.0 || whole_minutes {
        format!("{}m", (seconds / 60.0).ceil())
    } else {
        format!("{}s", seconds.ceil())
    }
}

/// What fits into a budget: the stages of each fold, and the seconds of the refit.
struct FittedPlan {
    stages: Stages,
    refit_seconds: Option<f64>,
}

/// The training runs of one fold.
struct Stages {
    teacher: Stage,
    candidates: Vec<StudentPair>,
    further_seeds: Vec<FurtherSeed>,
}

impl Stages {
    /// Expected seconds of the teacher and the candidates.
    fn seconds(&self) -> f64 {
        let candidates = self.candidates.iter().map(StudentPair::seconds);
        self.teacher.seconds + candidates.sum::<f64>()
    }
}

/// What a plan is made from.
#[derive(Clone, Copy)]
struct Planner<'a> {
    settings: &'a PlanSettings,
    facts: &'a CorpusFacts,
    speed: &'a SecondsPerText,
}

impl Planner<'_> {
    /// What fits into `seconds` if each fold carries it out (without folds, once), and what a refit
    /// takes; none if the time is too short.
    fn fit(&self, seconds: f64) -> Result<Option<FittedPlan>> {
        // In twentieths of the budget: what a refit takes depends on the stages that it repeats.
        for twentieths in (1..=20).rev().map(f64::from) {
            let for_folds = seconds * twentieths / 20.0;
            let for_each = for_folds / self.settings.fold_runs() as f64;
            let Some(mut stages) = self.stages_within(for_each)? else {
                return Ok(None);
            };
            if self.settings.folds > 0 {
                // Folds take the place of seeds.
                stages.further_seeds.clear();
            }
            let refit_seconds = self.settings.refit.then(|| self.refit_seconds(&stages));
            if refit_seconds.unwrap_or_default() <= (seconds - for_folds) * (1.0 - RESERVE) {
                return Ok(Some(FittedPlan {
                    stages,
                    refit_seconds,
                }));
            }
        }
        Ok(None)
    }

    /// Expected seconds to train the teacher and a distilled student again, with as many epochs, on
    /// all labelled texts.
    fn refit_seconds(&self, stages: &Stages) -> f64 {
        let facts = self.facts;
        let student = stages.candidates.first();
        let distilled_seconds = student.map_or(0.0, |pair| pair.distilled.seconds);
        let labelled = facts.train_texts + facts.dev_texts + facts.test_texts;
        let more = labelled as f64 / facts.train_texts.max(1) as f64;
        (stages.teacher.seconds + distilled_seconds) * more
    }

    /// The stages that fit into `seconds`; none if not even one pair of students fits.
    fn stages_within(&self, seconds: f64) -> Result<Option<Stages>> {
        let reserve = f64::max(seconds * RESERVE, report_seconds(self.facts, self.speed));
        let usable = seconds - reserve - FIXED_SECONDS;
        let teacher = self.teacher_stage(usable);
        let teacher_recipe = teacher.recipe.clone();
        let after_teacher = usable - teacher.seconds;
        let students = StudentPlanner::new(*self, &teacher_recipe, after_teacher);
        let for_students = after_teacher - students.logits_seconds();
        let Some(candidates) = students.candidates(for_students)? else {
            return Ok(None);
        };
        let mut stages = Stages {
            teacher,
            candidates,
            further_seeds: Vec::new(),
        };
        let left = usable - stages.seconds();
        let has_time = left > LEFT_FOR_CHARACTERS * for_students;
        let kind = StudentKind::BilstmCharacters;
        if !self.facts.has_words && has_time && left > students.least_seconds(kind) {
            let pair = students.pair(kind, left.min(for_students))?;
            stages.candidates.push(pair);
        }
        let left = usable - stages.seconds();
        stages.further_seeds = students.further_seeds(&stages.candidates[0], left);
        Ok(Some(stages))
    }
}

/// A plan is read by people, so it has three digits after the point.
pub(super) fn round_to_thousandths(value: f64) -> f64 {
    (value * 1000.0).round().max(1.0) / 1000.0
}
