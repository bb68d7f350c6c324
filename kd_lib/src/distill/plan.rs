//! The plan of a distillation: which recipes are trained, in which order, and how long each takes.
//! The rule is arithmetic over [`CorpusFacts`], [`SecondsPerText`] and the budget; it never looks at a
//! score. [`super::execute`](mod@super::execute) carries the plan out.
//!
//! 1. A tenth of the budget and ten seconds are for reading, tokenizing, the report, and what the
//!    measurement of speed did not see; more than a tenth if the report's passes of the teacher over
//!    test and other texts take longer. What is left is the usable time.
//! 2. Half of the usable time at most is for the teacher: two epochs, or below 10,000 texts as many
//!    as make 20,000 examples (3 to 20); fewer, or fewer texts, if the share is too small.
//! 3. Then come the teacher's logits: of the training texts, and of as many unlabelled and then
//!    augmented texts (20 of each text at most) as the distilled student can train on for three
//!    epochs.
//! 4. What is left is for the students, in pairs of a baseline and a distilled student. Each gets half
//!    of the pair's time, and an update takes both equally long; what the baseline does not need when
//!    it reaches its cap goes to the distilled student. A pair of fastTexts gets a tenth at most and
//!    seldom needs it. Of the rest a TextCNN pair gets a quarter, if the time is long enough for it,
//!    and the BiLSTM pair all else.
//! 5. If the texts have no blanks and the caps leave more than three quarters of the students'
//!    time, a pair that reads characters is trained. What then remains goes to further seeds of the
//!    two students that dev chooses. Seeds that do not fit also stand in the plan, as spare stages,
//!    for the case that the others take less time than expected.
//! 6. If the largest class has three times the texts of the smallest, the time of the BiLSTM pair is
//!    divided: a second one, with class weights, is trained as long.
//! 7. Under cross-validation each fold carries the stages out within its part of the budget, without
//!    further seeds. A refit on all labelled texts takes its time from the others.

use super::budget::duration;
use super::facts::{CorpusFacts, MOST_DEV_TEXTS, MOST_TEXTS, PlanSettings, SecondsPerText};
use super::recipes::{
    BATCH_SIZE, SEEDS, StudentKind, TEACHER_EVALUATIONS, TransferTexts, UNBALANCED, distilled,
    student, teacher,
};
use crate::data::Corpus;
use crate::store::Recipe;
use crate::store::model_factory::MOST_PROBED;
use crate::store::plan::schedule;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Version of the plan's file.
pub const FORMAT: u32 = 1;
/// Share of the budget that no stage gets.
const RESERVE: f64 = 0.1;
/// Seconds that no stage gets: loading, tokenizing and the report of a small corpus.
const FIXED_SECONDS: f64 = 10.0;
/// Largest share of the usable time for the teacher.
const TEACHER_SHARE: f64 = 0.5;
/// Largest share of the teacher's time for its evaluations on dev; a larger dev split is sampled.
const TEACHER_EVALUATION_SHARE: f64 = 0.15;
/// Fewer dev texts choose no weights.
const LEAST_DEV_TEXTS: usize = 300;
/// A teacher sees at least so many texts, or all.
const LEAST_TEACHER_TEXTS: usize = 200;
/// Share of the students' time for the first pair of candidates (and the pair with class weights), if
/// there is a TextCNN.
const FIRST_PAIR_SHARE: f64 = 0.75;
/// Below this size the teacher trains 3 to 20 epochs, aiming at [`TEACHER_EXAMPLES`]: fine-tuning on
/// few texts needs many updates (Mosbach et al. 2021).
const SMALL_CORPUS: usize = 10_000;
const TEACHER_EXAMPLES: usize = 20_000;
/// Fewer unlabelled texts are not looked for.
const LEAST_UNLABELLED: usize = 100;
/// Most augmented texts of a text.
const MOST_AUGMENTATIONS: usize = 20;
/// Seconds for students below which there is no TextCNN.
const SECOND_PAIR_MIN_SECONDS: f64 = 300.0;
/// Largest share of the students' time for the pair of fastTexts.
const FASTTEXT_SHARE: f64 = 0.1;
/// Fewer updates teach a student nothing.
const LEAST_UPDATES: f64 = 50.0;
/// Evaluations of a training on dev, at most, and their largest share of its time.
const EVALUATIONS: f64 = 15.0;
const LEAST_EVALUATIONS: f64 = 2.0;
const EVALUATION_SHARE: f64 = 0.1;
/// Most epochs of the distilled student, over labelled, unlabelled and augmented texts.
const MAX_DISTILLED_EPOCHS: f64 = 6.0;
/// With fewer epochs over a text the teacher's logits of it are computed for little training.
const MIN_TRANSFER_EPOCHS: f64 = 3.0;
/// Most epochs of the baseline, over the labelled texts. The cap of the distilled student is not
/// below so many epochs of them.
const MAX_BASELINE_EPOCHS: f64 = 20.0;
/// No cap is below so many examples, which are 400 updates.
const MIN_CAP_EXAMPLES: f64 = 400.0 * BATCH_SIZE as f64;

/// What a stage's model is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Teaches.
    Teacher,
    /// A student without a teacher.
    Baseline,
    /// A student that learns from the teacher.
    Distilled,
}

/// One training of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// What its model is for.
    pub side: Side,
    /// What is trained. Of a stage that repeats the winner, the recipe of the first candidate.
    pub recipe: Recipe,
    /// Whether it repeats the candidate of its side that dev chooses, with another seed.
    pub repeats_winner: bool,
    /// Expected seconds, the teacher's logits included.
    pub seconds: f64,
    /// Whether it is left out if the time is short, with the other stage of its pair.
    pub optional: bool,
    /// Whether it is beyond the budget by the plan's own estimate: it is trained if the stages before
    /// it take less time than expected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub spare: bool,
}

/// What is trained, and how long it takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DistillPlan {
    /// Version of this file.
    pub format: u32,
    /// The corpus's name.
    pub corpus: String,
    /// Hash of its files.
    pub corpus_fingerprint: String,
    /// What was asked for.
    pub settings: PlanSettings,
    /// The corpus in numbers.
    pub facts: CorpusFacts,
    /// This machine's speed.
    pub speed: SecondsPerText,
    /// The trainings, in order; under cross-validation those of each fold.
    pub stages: Vec<Stage>,
    /// Expected seconds of training the chosen student again on all labelled texts, if that is
    /// asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refit_seconds: Option<f64>,
}

/// What a training of a student costs.
struct StudentCost<'a> {
    facts: &'a CorpusFacts,
    speed: &'a SecondsPerText,
    /// Seconds of a text in an update.
    update: f64,
    /// Texts of an epoch.
    texts: f64,
    /// Seconds of a text in an evaluation.
    forward: f64,
    /// The cap of the training, in texts.
    longest: f64,
}

impl StudentCost<'_> {
    /// The cost of a student of this kind.
    fn of(self, kind: StudentKind) -> Self {
        let factor = match kind {
            StudentKind::Bilstm | StudentKind::BilstmClassWeights => 1.0,
            StudentKind::Textcnn => self.speed.textcnn_factor,
            StudentKind::BilstmCharacters => self.speed.characters_factor,
            StudentKind::Fasttext => self.speed.fasttext_factor,
        };
        StudentCost {
            update: self.update * factor,
            forward: self.forward * factor,
            ..self
        }
    }

    /// The examples that can be trained on in so many seconds, evaluations included.
    fn texts_within(&self, seconds: f64) -> f64 {
        let beside_evaluations =
            (seconds * (1.0 - EVALUATION_SHARE)).min(seconds - self.least_evaluations());
        (beside_evaluations.max(0.0) / self.update).min(self.longest)
    }

    fn one_evaluation(&self) -> f64 {
        self.facts.dev_texts as f64 * self.forward
    }

    fn least_evaluations(&self) -> f64 {
        LEAST_EVALUATIONS * self.one_evaluation()
    }

    fn evaluations(&self, texts: f64) -> f64 {
        let affordable = texts * self.update * EVALUATION_SHARE / self.one_evaluation();
        affordable.clamp(LEAST_EVALUATIONS, EVALUATIONS)
    }

    fn seconds(&self, texts: f64) -> f64 {
        texts * self.update + self.evaluations(texts) * self.one_evaluation()
    }

    /// Gives a recipe the length that fits into so many seconds; returns its seconds.
    fn fit(&self, recipe: &mut Recipe, seconds: f64) -> f64 {
        let texts = self.texts_within(seconds);
        recipe.train.epochs = round3(texts / self.texts);
        recipe.train.eval_every_samples = (texts / self.evaluations(texts)).ceil() as usize;
        self.seconds(texts)
    }
}

/// A number of epochs for a person; the recipe has more digits.
fn epochs(number: f64) -> String {
    match (number * 10.0).round() / 10.0 {
        1.0 => "1 epoch".into(),
        rounded => format!("{rounded} epochs"),
    }
}

/// Three digits: a plan is read by people.
pub(super) fn round3(value: f64) -> f64 {
    (value * 1000.0).round().max(1.0) / 1000.0
}

/// The recipes that fit into a budget.
///
/// # Errors
/// If the budget is too small for a teacher and two students: the error names one that is enough. If
/// there is no test text to report on.
pub fn plan(
    corpus: &str,
    corpus_fingerprint: &str,
    settings: PlanSettings,
    facts: CorpusFacts,
    speed: SecondsPerText,
) -> Result<DistillPlan> {
    if settings.folds == 0 && facts.test_texts == 0 {
        let fix = "give the corpus test texts, or ask for folds";
        return Err(Error::recipe("data", "there is no test text", fix));
    }
    let within = |seconds| trials_within(seconds, &settings, &facts, &speed);
    let Some(Trials {
        stages,
        refit_seconds,
    }) = within(settings.budget.seconds)?
    else {
        let mut enough = settings.budget.seconds;
        while within(enough)?.is_none() {
            enough *= 1.1;
        }
        let problem = format!("{} is too short for this corpus here", settings.budget);
        let fix = format!("allow {} or more", budget_of(enough));
        return Err(Error::recipe("budget", problem, fix));
    };
    Ok(DistillPlan {
        format: FORMAT,
        corpus: corpus.to_owned(),
        corpus_fingerprint: corpus_fingerprint.to_owned(),
        settings,
        facts,
        speed,
        stages,
        refit_seconds,
    })
}

/// A budget of so many seconds as a person writes it, rounded up.
fn budget_of(seconds: f64) -> String {
    match seconds < 100.0 {
        true => format!("{}s", seconds.ceil()),
        false => format!("{}m", (seconds / 60.0).ceil()),
    }
}

/// The stages of each trial of a plan, and the seconds of the refit.
struct Trials {
    stages: Vec<Stage>,
    refit_seconds: Option<f64>,
}

/// The stages that fit into so many seconds if each fold carries them out, and what a refit takes;
/// none if that is too little.
fn trials_within(
    seconds: f64,
    settings: &PlanSettings,
    facts: &CorpusFacts,
    speed: &SecondsPerText,
) -> Result<Option<Trials>> {
    // Twentieths of the budget: what a refit takes depends on the stages that it repeats.
    for part in (1..=20).rev().map(f64::from) {
        let for_trials = seconds * part / 20.0;
        let of_trial = for_trials / settings.trials() as f64;
        let Some(mut stages) = stages_within(of_trial, settings, facts, speed)? else {
            return Ok(None);
        };
        if settings.folds > 0 {
            // Folds take the place of seeds.
            stages.retain(|stage| !stage.repeats_winner);
        }
        let refit_seconds = settings.refit.then(|| refit_seconds(&stages, facts));
        if refit_seconds.unwrap_or_default() <= (seconds - for_trials) * (1.0 - RESERVE) {
            return Ok(Some(Trials {
                stages,
                refit_seconds,
            }));
        }
    }
    Ok(None)
}

/// A teacher and a distilled student of as many epochs over all labelled texts.
fn refit_seconds(stages: &[Stage], facts: &CorpusFacts) -> f64 {
    let first = |side| stages.iter().find(|stage| stage.side == side);
    let seconds = |side| first(side).map_or(0.0, |stage| stage.seconds);
    let labelled = facts.train_texts + facts.dev_texts + facts.test_texts;
    let more = labelled as f64 / facts.train_texts.max(1) as f64;
    (seconds(Side::Teacher) + seconds(Side::Distilled)) * more
}

/// The stages that fit into so many seconds; none if not even one candidate of either side fits.
fn stages_within(
    seconds: f64,
    settings: &PlanSettings,
    facts: &CorpusFacts,
    speed: &SecondsPerText,
) -> Result<Option<Vec<Stage>>> {
    let reserve = f64::max(seconds * RESERVE, report_seconds(facts, speed));
    let usable = seconds - reserve - FIXED_SECONDS;
    let teacher = plan_teacher(settings, facts, speed, usable);
    let rest = usable - teacher.seconds;
    let students = Students {
        settings,
        facts,
        speed,
        teacher: &teacher.recipe,
        transfer: texts_that_fit(settings, facts, speed, &teacher.recipe, rest)?,
    };
    let for_students = rest - students.logits_seconds();
    let fasttexts = students.fasttexts(for_students)?;
    let for_others = for_students - seconds_of(&fasttexts);
    if for_others < students.least_seconds(StudentKind::Bilstm) {
        return Ok(None);
    }
    let mut stages = vec![teacher.clone()];
    for (kind, share) in students.shares(for_others) {
        let is_first = stages.len() == 1;
        stages.extend(students.pair(kind, for_others * share, is_first)?);
        if is_first {
            stages.extend(fasttexts.clone());
        }
    }
    let left = usable - seconds_of(&stages);
    let reads_characters = !facts.has_words && left > FIRST_PAIR_SHARE * for_students;
    if reads_characters && left > students.least_seconds(StudentKind::BilstmCharacters) {
        let of_pair = left.min(for_students);
        stages.extend(students.pair(StudentKind::BilstmCharacters, of_pair, false)?);
    }
    let left = usable - seconds_of(&stages);
    stages.extend(students.repeats(&stages, left));
    Ok(Some(stages))
}

/// The passes of the report: the teacher's over test, and the frozen teacher's over test, some dev and
/// some training texts. Students are fast.
fn report_seconds(facts: &CorpusFacts, speed: &SecondsPerText) -> f64 {
    let of_probe = facts.train_texts.min(MOST_TEXTS) + facts.dev_texts.min(MOST_DEV_TEXTS);
    (of_probe + 2 * facts.test_texts) as f64 * speed.teacher_logits
}

fn seconds_of(stages: &[Stage]) -> f64 {
    stages.iter().map(|stage| stage.seconds).sum()
}

/// What the students of a plan share.
struct Students<'a> {
    settings: &'a PlanSettings,
    facts: &'a CorpusFacts,
    speed: &'a SecondsPerText,
    teacher: &'a Recipe,
    transfer: TransferTexts,
}

impl Students<'_> {
    fn labelled(&self) -> f64 {
        self.facts.train_texts as f64
    }

    /// Labelled, unlabelled and augmented texts.
    fn texts(&self) -> f64 {
        self.transfer.texts(self.facts)
    }

    fn logits_seconds(&self) -> f64 {
        self.texts() * self.speed.teacher_logits
    }

    /// Whether the first distilled student reads each text three times if both sides have so many
    /// seconds.
    fn reads_all_often_enough(&self, seconds: f64) -> bool {
        let for_others = seconds * (1.0 - FASTTEXT_SHARE);
        let (_, share) = self.shares(for_others)[0];
        let of_pair = for_others * share;
        let (baseline, distilled) = (self.baseline_cost(), self.distilled_cost());
        let of_baseline = baseline.seconds(baseline.texts_within(of_pair / 2.0));
        let read = distilled.texts_within(of_pair - of_baseline);
        read >= MIN_TRANSFER_EPOCHS * self.texts()
    }

    fn distilled_cost(&self) -> StudentCost<'_> {
        let least = (MAX_BASELINE_EPOCHS * self.labelled()).max(MIN_CAP_EXAMPLES);
        StudentCost {
            facts: self.facts,
            speed: self.speed,
            update: self.speed.student_update,
            texts: self.texts(),
            forward: self.speed.student_forward(),
            longest: (MAX_DISTILLED_EPOCHS * self.texts()).max(least),
        }
    }

    fn baseline_cost(&self) -> StudentCost<'_> {
        StudentCost {
            facts: self.facts,
            speed: self.speed,
            update: self.speed.student_update,
            texts: self.labelled(),
            forward: self.speed.student_forward(),
            longest: (MAX_BASELINE_EPOCHS * self.labelled()).max(MIN_CAP_EXAMPLES),
        }
    }

    /// Seconds of a pair that makes the fewest useful updates.
    fn least_seconds(&self, kind: StudentKind) -> f64 {
        let least = LEAST_UPDATES * BATCH_SIZE as f64;
        let distilled = self.distilled_cost().of(kind);
        let baseline = self.baseline_cost().of(kind);
        (distilled.seconds(least) + baseline.seconds(least)) / (1.0 - EVALUATION_SHARE)
    }

    /// The pairs that divide the time for students, and their shares.
    fn shares(&self, seconds: f64) -> Vec<(StudentKind, f64)> {
        let mut of_bilstm = 1.0;
        let mut shares = Vec::new();
        let second = 1.0 - FIRST_PAIR_SHARE;
        if seconds >= SECOND_PAIR_MIN_SECONDS
            && seconds * second >= self.least_seconds(StudentKind::Textcnn)
        {
            of_bilstm = FIRST_PAIR_SHARE;
            shares.push((StudentKind::Textcnn, second));
        }
        let half = of_bilstm / 2.0;
        if self.facts.imbalance >= UNBALANCED
            && seconds * half >= self.least_seconds(StudentKind::BilstmClassWeights)
        {
            of_bilstm = half;
            shares.insert(0, (StudentKind::BilstmClassWeights, half));
        }
        shares.insert(0, (StudentKind::Bilstm, of_bilstm));
        shares
    }

    /// The pair of fastTexts, if a tenth of the students' seconds is enough for one.
    fn fasttexts(&self, for_students: f64) -> Result<Vec<Stage>> {
        let seconds = for_students * FASTTEXT_SHARE;
        if seconds < self.least_seconds(StudentKind::Fasttext) {
            return Ok(Vec::new());
        }
        Ok(self.pair(StudentKind::Fasttext, seconds, false)?.to_vec())
    }

    /// A baseline and a distilled student that take so many seconds; the first distilled student of a
    /// plan computes the teacher's logits.
    fn pair(&self, kind: StudentKind, seconds: f64, first: bool) -> Result<[Stage; 2]> {
        let mut baseline = student(self.settings, self.facts, kind, 1.0)?;
        let mut distilled = distilled(
            baseline.clone(),
            self.settings,
            self.facts,
            self.teacher,
            self.transfer,
        );
        let (baseline_cost, distilled_cost) = (
            self.baseline_cost().of(kind),
            self.distilled_cost().of(kind),
        );
        let of_baseline = baseline_cost.fit(&mut baseline, seconds / 2.0);
        let mut of_distilled = distilled_cost.fit(&mut distilled, seconds - of_baseline);
        if first {
            of_distilled += self.logits_seconds();
        }
        // A pair of fastTexts takes so little time that leaving it out would save none.
        let optional = !first && kind != StudentKind::Fasttext;
        Ok([
            Stage::candidate(Side::Baseline, baseline, of_baseline, optional),
            Stage::candidate(Side::Distilled, distilled, of_distilled, optional),
        ])
    }

    /// Further seeds of the two students that dev will choose; those that do not fit into the seconds
    /// that are left are spare. Their cost is that of the first pair.
    fn repeats(&self, stages: &[Stage], mut left: f64) -> Vec<Stage> {
        let firsts = [Side::Baseline, Side::Distilled]
            .map(|side| stages.iter().find(|stage| stage.side == side));
        let mut repeats = Vec::new();
        for &seed in &SEEDS[1..] {
            let mut of_seed = Vec::new();
            for first in firsts.into_iter().flatten() {
                let logits = match first.side {
                    Side::Distilled => self.logits_seconds(),
                    _ => 0.0,
                };
                of_seed.push(Stage {
                    recipe: first.recipe.clone().with_seed(seed),
                    repeats_winner: true,
                    seconds: first.seconds - logits,
                    optional: true,
                    ..first.clone()
                });
            }
            left -= seconds_of(&of_seed);
            for stage in &mut of_seed {
                stage.spare = left < 0.0;
            }
            repeats.extend(of_seed);
        }
        repeats
    }
}

impl Stage {
    /// A candidate with the first seed.
    fn candidate(side: Side, recipe: Recipe, seconds: f64, optional: bool) -> Stage {
        Stage {
            side,
            recipe,
            repeats_winner: false,
            seconds,
            optional,
            spare: false,
        }
    }
}

/// As many texts as the first distilled student can read three times, in the time that the teacher's
/// logits leave: unlabelled texts first, since they are real, then augmented ones.
fn texts_that_fit(
    settings: &PlanSettings,
    facts: &CorpusFacts,
    speed: &SecondsPerText,
    teacher: &Recipe,
    rest: f64,
) -> Result<TransferTexts> {
    let fits = |transfer: &TransferTexts| {
        let students = Students {
            settings,
            facts,
            speed,
            teacher,
            transfer: *transfer,
        };
        students.reads_all_often_enough(rest - students.logits_seconds())
    };
    let with_augmentations = (0..=MOST_AUGMENTATIONS)
        .rev()
        .map(|augmentations| TransferTexts {
            unlabelled: facts.unlabelled_texts,
            augmentations,
        });
    // Twentieths: a plan needs no finer number. Of a million texts less than one may fit.
    let twentieths = (1..20).rev().map(|part| facts.unlabelled_texts * part / 20);
    let halves = std::iter::successors(Some(facts.unlabelled_texts / 40), |some| {
        (*some > LEAST_UNLABELLED).then_some(some / 2)
    });
    let with_some = twentieths.chain(halves).map(|unlabelled| TransferTexts {
        unlabelled,
        augmentations: 0,
    });
    let none = TransferTexts {
        unlabelled: 0,
        augmentations: 0,
    };
    Ok(with_augmentations
        .chain(with_some)
        .find(fits)
        .unwrap_or(none))
}

/// The teacher: with all texts as often as its share of the time allows, else once with some of them.
fn plan_teacher(
    settings: &PlanSettings,
    facts: &CorpusFacts,
    speed: &SecondsPerText,
    usable: f64,
) -> Stage {
    let texts = facts.train_texts as f64;
    let allowed = usable * TEACHER_SHARE;
    // While training, and once more at the end.
    let evaluations = TEACHER_EVALUATIONS + 1.0;
    let for_one = allowed * TEACHER_EVALUATION_SHARE / evaluations;
    let affordable = (for_one / speed.teacher_logits) as usize;
    let dev_texts = affordable.max(LEAST_DEV_TEXTS).min(facts.dev_texts);
    let for_evaluations = evaluations * dev_texts as f64 * speed.teacher_logits;
    let for_probe = facts.train_texts.min(MOST_PROBED) as f64 * speed.teacher_logits;
    let before_updates = for_evaluations + for_probe;
    let seconds = |texts: f64, epochs: f64| texts * epochs * speed.teacher_update + before_updates;
    let planned = |epochs, samples| {
        let mut recipe = teacher(settings, facts, epochs, samples);
        recipe.data.max_dev_samples = Some(dev_texts).filter(|&n| n < facts.dev_texts);
        recipe
    };
    let wanted = match facts.train_texts {
        few if few < SMALL_CORPUS => (TEACHER_EXAMPLES / few.max(1)).clamp(3, 20) as u32,
        _ => 2,
    };
    for epochs in (1..=wanted).rev().map(f64::from) {
        if seconds(texts, epochs) <= allowed {
            let recipe = planned(epochs, None);
            return Stage::candidate(Side::Teacher, recipe, seconds(texts, epochs), false);
        }
    }
    let fitting = (allowed - before_updates) / speed.teacher_update;
    let least = facts.train_texts.min(LEAST_TEACHER_TEXTS);
    let samples = (fitting.max(1.0) as usize).clamp(least, facts.train_texts);
    let recipe = planned(1.0, Some(samples));
    Stage::candidate(Side::Teacher, recipe, seconds(samples as f64, 1.0), false)
}

impl DistillPlan {
    /// The same plan without its teacher: the distilled students learn from a file of logits. It has
    /// no folds and no refit, since the file holds the texts of the corpus's own splits.
    pub fn with_teacher_logits(mut self, file: &Path) -> DistillPlan {
        self.stages.retain(|stage| stage.side != Side::Teacher);
        self.settings.folds = 0;
        self.settings.refit = false;
        self.refit_seconds = None;
        for stage in &mut self.stages {
            if stage.side == Side::Distilled {
                stage.recipe.teacher = None;
                stage.recipe.teacher_logits = Some(file.to_path_buf());
            }
        }
        self
    }

    /// The recipe of the first distilled student.
    pub fn distilled_recipe(&self) -> Option<&Recipe> {
        let distilled = |stage: &&Stage| stage.side == Side::Distilled;
        self.stages
            .iter()
            .find(distilled)
            .map(|stage| &stage.recipe)
    }

    /// Updates of the first distilled student.
    pub fn distilled_updates(&self) -> usize {
        self.distilled_recipe().map_or(0, |recipe| {
            let texts = TransferTexts::of(recipe, &self.facts).texts(&self.facts);
            schedule(recipe, texts as usize).total_steps
        })
    }

    /// Expected seconds: those of the stages, of the refit, and of reading and reporting, without the
    /// reserve and the spare stages.
    pub fn seconds(&self) -> f64 {
        self.settings.trials() as f64 * self.trial_seconds()
            + self.refit_seconds.unwrap_or_default()
    }

    /// Expected seconds of the stages of one trial, reading and reporting included.
    pub fn trial_seconds(&self) -> f64 {
        let counted = self.stages.iter().filter(|stage| !stage.spare);
        let seconds: f64 = counted.map(|stage| stage.seconds).sum();
        seconds + FIXED_SECONDS
    }

    /// Expected seconds of a trial's part of the report.
    pub fn report_seconds(&self) -> f64 {
        report_seconds(&self.facts, &self.speed)
    }

    /// Seconds of the budget for all trials; a refit gets the rest.
    pub fn seconds_for_trials(&self) -> f64 {
        let of_refit = self.refit_seconds.unwrap_or_default() / (1.0 - RESERVE);
        self.settings.budget.seconds - of_refit
    }

    /// Refuses a corpus that the plan was not made for. `folder` is the plan's.
    pub fn refuse_other_corpus(&self, corpus: &Corpus, folder: &Path) -> Result<()> {
        if self.corpus_fingerprint == corpus.fingerprint {
            return Ok(());
        }
        let problem = format!("a plan for another corpus ({})", self.corpus);
        let fix = "name the corpus that it was made for, or plan anew";
        Err(Error::file(folder, problem, fix))
    }

    /// The plan of one trial: the same stages on another corpus, within so many seconds.
    pub fn of_trial(&self, corpus_fingerprint: &str, seconds: f64) -> DistillPlan {
        let mut plan = self.clone();
        plan.corpus_fingerprint = corpus_fingerprint.to_owned();
        plan.settings.budget.seconds = seconds;
        plan.settings.folds = 0;
        plan.settings.refit = false;
        plan.refit_seconds = None;
        plan
    }

    /// The plan in lines for a person.
    pub fn describe(&self) -> String {
        let facts = &self.facts;
        let mut lines = vec![format!(
            "{}: {} training texts, {} unlabelled, {} dev, {} test, {} classes; sequences of {} \
             tokens ({:.1} % of the texts are longer)",
            self.corpus,
            facts.train_texts,
            facts.unlabelled_texts,
            facts.dev_texts,
            facts.test_texts,
            facts.classes,
            facts.max_length,
            100.0 * facts.truncated
        )];
        if self.settings.folds > 0 {
            lines.push(format!(
                "Cross-validation, instead of the test split above: each of {} folds is tested by models \
                 of the others. The next lines are of one fold.",
                self.settings.folds
            ));
        }
        for stage in &self.stages {
            let recipe = &stage.recipe;
            let name = match stage.repeats_winner {
                false => recipe.name.clone(),
                true => format!(
                    "the chosen {} student",
                    match stage.side {
                        Side::Baseline => "baseline",
                        _ => "distilled",
                    }
                ),
            };
            let augmented = match recipe.transfer {
                None => String::new(),
                Some(_) => {
                    let texts = TransferTexts::of(recipe, facts);
                    format!(
                        ", {} unlabelled texts, {} augmented texts of each",
                        texts.unlabelled, texts.augmentations
                    )
                }
            };
            let optional = match (stage.spare, stage.optional) {
                (true, _) => " (only if time is left)",
                (false, true) => " (left out if time is short)",
                (false, false) => "",
            };
            lines.push(format!(
                "{:>8}  {name}, seed {}: {}{augmented}{optional}",
                duration(stage.seconds),
                recipe.seed,
                epochs(recipe.train.epochs)
            ));
        }
        if let Some(seconds) = self.refit_seconds {
            lines.push(format!(
                "{:>8}  teacher and chosen student again, on all labelled texts",
                duration(seconds)
            ));
        }
        lines.push(format!(
            "{:>8}  of {} in all",
            duration(self.seconds()),
            self.settings.budget
        ));
        lines.join("\n")
    }
}
