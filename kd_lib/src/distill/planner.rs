//! Makes a plan. The rule is arithmetic over [`CorpusFacts`], [`SecondsPerText`] and the budget; it
//! never looks at a score.
//!
//! 1. A tenth of the budget and ten seconds are for reading, tokenizing, the report, and what the
//!    measurement of speed did not see; more than a tenth if the report's passes of the teacher
//!    over test and other texts take longer. What is left is the usable time.
//! 2. Half of the usable time at most is for the teacher: two epochs, or below 10,000 texts as many
//!    as make 20,000 examples (3 to 20); fewer, or fewer texts, if the share is too small.
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

use super::facts::{CorpusFacts, PlanSettings, SecondsPerText};
use super::plan::{
    DistillPlan, FIXED_SECONDS, FORMAT, FurtherSeed, RESERVE, Stage, StudentPair, report_seconds,
};
use super::recipes::{
    BATCH_SIZE, SEEDS, StudentKind, TEACHER_EVALUATIONS, TransferTexts, UNBALANCED, distilled,
    student, teacher,
};
use crate::store::Recipe;
use crate::training::linear_probe::MOST_TEXTS;
use crate::{Error, Result};

/// Largest share of the usable time for the teacher.
const TEACHER_SHARE: f64 = 0.5;
/// Largest share of the teacher's time for its evaluations on dev; a larger dev split is sampled.
const TEACHER_EVALUATION_SHARE: f64 = 0.15;
/// Fewest dev texts on which the teacher is evaluated; all, if there are fewer.
const MIN_DEV_TEXTS: usize = 300;
/// Fewest texts on which a teacher is trained; all, if there are fewer.
const MIN_TEACHER_TEXTS: usize = 200;
/// Share of the students' time for the first pair of candidates (and the pair with class weights),
/// if there is a TextCNN.
const FIRST_PAIR_SHARE: f64 = 0.75;
/// A pair that reads characters is trained if more than this share of the students' time is left.
const LEFT_FOR_CHARACTERS: f64 = 0.75;
/// With fewer training texts the teacher trains 3 to 20 epochs, aiming at [`TEACHER_EXAMPLES`]:
/// fine-tuning on few texts needs many updates (Mosbach et al. 2021).
const MAX_TEXTS_OF_LONG_TEACHER: usize = 10_000;
/// Examples that a teacher of a small corpus processes, within 3 to 20 epochs.
const TEACHER_EXAMPLES: usize = 20_000;
/// A smaller number of unlabelled texts is not tried.
const MIN_UNLABELLED: usize = 100;
/// Most augmented texts per text.
const MAX_AUGMENTATIONS: usize = 20;
/// Seconds for students below which there is no TextCNN.
const MIN_SECONDS_FOR_TEXTCNN: f64 = 300.0;
/// Largest share of the students' time for the pair of fastTexts.
const FASTTEXT_SHARE: f64 = 0.1;
/// Fewest updates with which a student is planned.
const MIN_UPDATES: f64 = 50.0;
/// Most evaluations of a student on dev.
const MAX_EVALUATIONS: f64 = 15.0;
/// Fewest evaluations of a student on dev.
const MIN_EVALUATIONS: f64 = 2.0;
/// Largest share of a student's time for its evaluations.
const EVALUATION_SHARE: f64 = 0.1;
/// Most epochs of the distilled student, over labelled, unlabelled and augmented texts.
const MAX_DISTILLED_EPOCHS: f64 = 6.0;
/// Fewest epochs over the transfer set that justify computing the teacher's logits.
const MIN_TRANSFER_EPOCHS: f64 = 3.0;
/// Most epochs of the baseline, over the labelled texts. It is also a floor for the cap of the
/// distilled student.
const MAX_BASELINE_EPOCHS: f64 = 20.0;
/// A floor for both caps, in examples: 400 updates.
const MIN_CAP_EXAMPLES: f64 = 400.0 * BATCH_SIZE as f64;

/// How long the training run of a student takes.
struct StudentCost<'a> {
    facts: &'a CorpusFacts,
    speed: &'a SecondsPerText,
    /// Seconds per example of an update.
    update_seconds: f64,
    /// Seconds per text of an evaluation.
    forward_seconds: f64,
    /// Labelled, unlabelled and augmented texts that the student reads in an epoch.
    texts_per_epoch: f64,
    /// The longest run, in examples over all epochs.
    max_examples: f64,
}

impl StudentCost<'_> {
    /// The cost of a student of this kind, instead of a BiLSTM over subwords.
    fn scaled_for(self, kind: StudentKind) -> Self {
        let factor = match kind {
            StudentKind::Bilstm | StudentKind::BilstmClassWeights => 1.0,
            StudentKind::Textcnn => self.speed.textcnn_factor,
            StudentKind::BilstmCharacters => self.speed.characters_factor,
            StudentKind::Fasttext => self.speed.fasttext_factor,
        };
        StudentCost {
            update_seconds: self.update_seconds * factor,
            forward_seconds: self.forward_seconds * factor,
            ..self
        }
    }

    /// The examples of a run of this length, evaluations included.
    fn examples_within(&self, seconds: f64) -> f64 {
        let fewest_evaluations = MIN_EVALUATIONS * self.evaluation_seconds();
        let for_updates = (seconds * (1.0 - EVALUATION_SHARE)).min(seconds - fewest_evaluations);
        (for_updates.max(0.0) / self.update_seconds).min(self.max_examples)
    }

    /// Seconds of one evaluation on dev.
    fn evaluation_seconds(&self) -> f64 {
        self.facts.dev_texts as f64 * self.forward_seconds
    }

    /// Number of evaluations in a run over `examples`.
    fn evaluations(&self, examples: f64) -> f64 {
        let for_evaluations = examples * self.update_seconds * EVALUATION_SHARE;
        let affordable = for_evaluations / self.evaluation_seconds();
        affordable.clamp(MIN_EVALUATIONS, MAX_EVALUATIONS)
    }

    /// Seconds of a run over `examples`, evaluations included.
    fn seconds(&self, examples: f64) -> f64 {
        examples * self.update_seconds + self.evaluations(examples) * self.evaluation_seconds()
    }

    /// Gives a recipe the length that fits into `seconds`; returns the expected seconds.
    fn fit(&self, recipe: &mut Recipe, seconds: f64) -> f64 {
        let examples = self.examples_within(seconds);
        recipe.train.epochs = round3(examples / self.texts_per_epoch);
        let interval = examples / self.evaluations(examples);
        recipe.train.eval_every_samples = interval.ceil() as usize;
        self.seconds(examples)
    }
}

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
        return Err(Error::recipe("data", "there is no test text", fix));
    }
    let within = |seconds| fit_plan(seconds, &settings, &facts, &speed);
    let Some(fitted) = within(settings.budget.seconds)? else {
        let mut enough = settings.budget.seconds;
        while within(enough)?.is_none() {
            enough *= 1.1;
        }
        let problem = format!(
            "{} is too short for this corpus here",
            budget_of(settings.budget.seconds)
        );
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
    Err(Error::recipe(option, limit.to_string(), fix))
}

/// A budget as a person writes it, rounded up.
fn budget_of(seconds: f64) -> String {
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

/// The trainings of one fold.
struct Stages {
    teacher: Stage,
    candidates: Vec<StudentPair>,
    further_seeds: Vec<FurtherSeed>,
}

/// What fits into `seconds` if each fold carries it out (without folds, once), and what a refit
/// takes; none if the time is too short.
fn fit_plan(
    seconds: f64,
    settings: &PlanSettings,
    facts: &CorpusFacts,
    speed: &SecondsPerText,
) -> Result<Option<FittedPlan>> {
    // In twentieths of the budget: what a refit takes depends on the stages that it repeats.
    for twentieths in (1..=20).rev().map(f64::from) {
        let for_folds = seconds * twentieths / 20.0;
        let for_each = for_folds / settings.fold_runs() as f64;
        let Some(mut stages) = stages_within(for_each, settings, facts, speed)? else {
            return Ok(None);
        };
        if settings.folds > 0 {
            // Folds take the place of seeds.
            stages.further_seeds.clear();
        }
        let refit_seconds = settings.refit.then(|| refit_seconds(&stages, facts));
        if refit_seconds.unwrap_or_default() <= (seconds - for_folds) * (1.0 - RESERVE) {
            return Ok(Some(FittedPlan {
                stages,
                refit_seconds,
            }));
        }
    }
    Ok(None)
}

/// Expected seconds to train the teacher and a distilled student again, with as many epochs, on all
/// labelled texts.
fn refit_seconds(stages: &Stages, facts: &CorpusFacts) -> f64 {
    let student = stages.candidates.first();
    let distilled_seconds = student.map_or(0.0, |pair| pair.distilled.seconds);
    let labelled = facts.train_texts + facts.dev_texts + facts.test_texts;
    let more = labelled as f64 / facts.train_texts.max(1) as f64;
    (stages.teacher.seconds + distilled_seconds) * more
}

/// The stages that fit into `seconds`; none if not even one pair of students fits.
fn stages_within(
    seconds: f64,
    settings: &PlanSettings,
    facts: &CorpusFacts,
    speed: &SecondsPerText,
) -> Result<Option<Stages>> {
    let reserve = f64::max(seconds * RESERVE, report_seconds(facts, speed));
    let usable = seconds - reserve - FIXED_SECONDS;
    let teacher = plan_teacher(settings, facts, speed, usable);
    let rest = usable - teacher.seconds;
    let students = StudentPlanner {
        settings,
        facts,
        speed,
        teacher: &teacher.recipe,
        transfer: choose_transfer_texts(settings, facts, speed, &teacher.recipe, rest),
    };
    let for_students = rest - students.logits_seconds();
    let fasttexts = students.fasttexts(for_students)?;
    let for_others = for_students - fasttexts.as_ref().map_or(0.0, StudentPair::seconds);
    if for_others < students.least_seconds(StudentKind::Bilstm) {
        return Ok(None);
    }
    let shares = students.shares(for_others);
    let (first, others) = (&shares[0], &shares[1..]);
    let mut candidates = vec![students.first_pair(first.kind, for_others * first.share)?];
    candidates.extend(fasttexts);
    for pair in others {
        candidates.push(students.pair(pair.kind, for_others * pair.share)?);
    }
    let spent = |candidates: &[StudentPair]| -> f64 {
        teacher.seconds + candidates.iter().map(StudentPair::seconds).sum::<f64>()
    };
    let left = usable - spent(&candidates);
    let reads_characters = !facts.has_words && left > LEFT_FOR_CHARACTERS * for_students;
    if reads_characters && left > students.least_seconds(StudentKind::BilstmCharacters) {
        let pair_seconds = left.min(for_students);
        candidates.push(students.pair(StudentKind::BilstmCharacters, pair_seconds)?);
    }
    let further_seeds = students.further_seeds(&candidates[0], usable - spent(&candidates));
    Ok(Some(Stages {
        candidates,
        further_seeds,
        teacher,
    }))
}

/// A pair's share of the time for students.
struct PairShare {
    kind: StudentKind,
    share: f64,
}

impl PairShare {
    fn new(kind: StudentKind, share: f64) -> PairShare {
        PairShare { kind, share }
    }
}

/// Plans the students of one fold.
struct StudentPlanner<'a> {
    settings: &'a PlanSettings,
    facts: &'a CorpusFacts,
    speed: &'a SecondsPerText,
    teacher: &'a Recipe,
    transfer: TransferTexts,
}

impl StudentPlanner<'_> {
    fn labelled(&self) -> f64 {
        self.facts.train_texts as f64
    }

    /// Labelled, unlabelled and augmented texts.
    fn texts(&self) -> f64 {
        self.transfer.texts(self.facts)
    }

    fn logits_seconds(&self) -> f64 {
        self.texts() * self.speed.teacher_forward
    }

    /// Whether the first distilled student reads each text three times if the students have
    /// `seconds`.
    fn reads_all_often_enough(&self, seconds: f64) -> bool {
        let for_others = seconds * (1.0 - FASTTEXT_SHARE);
        let pair_seconds = for_others * self.shares(for_others)[0].share;
        let (baseline, distilled) = (self.baseline_cost(), self.distilled_cost());
        let baseline_seconds = baseline.seconds(baseline.examples_within(pair_seconds / 2.0));
        let read = distilled.examples_within(pair_seconds - baseline_seconds);
        read >= MIN_TRANSFER_EPOCHS * self.texts()
    }

    fn distilled_cost(&self) -> StudentCost<'_> {
        let least = (MAX_BASELINE_EPOCHS * self.labelled()).max(MIN_CAP_EXAMPLES);
        StudentCost {
            facts: self.facts,
            speed: self.speed,
            update_seconds: self.speed.student_update,
            texts_per_epoch: self.texts(),
            forward_seconds: self.speed.student_forward(),
            max_examples: (MAX_DISTILLED_EPOCHS * self.texts()).max(least),
        }
    }

    fn baseline_cost(&self) -> StudentCost<'_> {
        StudentCost {
            facts: self.facts,
            speed: self.speed,
            update_seconds: self.speed.student_update,
            texts_per_epoch: self.labelled(),
            forward_seconds: self.speed.student_forward(),
            max_examples: (MAX_BASELINE_EPOCHS * self.labelled()).max(MIN_CAP_EXAMPLES),
        }
    }

    /// Seconds of the shortest useful pair.
    fn least_seconds(&self, kind: StudentKind) -> f64 {
        let least = MIN_UPDATES * BATCH_SIZE as f64;
        let distilled = self.distilled_cost().scaled_for(kind);
        let baseline = self.baseline_cost().scaled_for(kind);
        (distilled.seconds(least) + baseline.seconds(least)) / (1.0 - EVALUATION_SHARE)
    }

    /// The pairs that divide the time for students, the BiLSTMs first.
    fn shares(&self, seconds: f64) -> Vec<PairShare> {
        let mut bilstm_share = 1.0;
        let mut shares = Vec::new();
        let second = 1.0 - FIRST_PAIR_SHARE;
        if seconds >= MIN_SECONDS_FOR_TEXTCNN
            && seconds * second >= self.least_seconds(StudentKind::Textcnn)
        {
            bilstm_share = FIRST_PAIR_SHARE;
            shares.push(PairShare::new(StudentKind::Textcnn, second));
        }
        let half = bilstm_share / 2.0;
        if self.facts.imbalance >= UNBALANCED
            && seconds * half >= self.least_seconds(StudentKind::BilstmClassWeights)
        {
            bilstm_share = half;
            shares.insert(0, PairShare::new(StudentKind::BilstmClassWeights, half));
        }
        shares.insert(0, PairShare::new(StudentKind::Bilstm, bilstm_share));
        shares
    }

    /// The pair of fastTexts, if a tenth of the students' seconds is enough for one. It takes so
    /// little time that leaving it out would save none.
    fn fasttexts(&self, for_students: f64) -> Result<Option<StudentPair>> {
        let seconds = for_students * FASTTEXT_SHARE;
        if seconds < self.least_seconds(StudentKind::Fasttext) {
            return Ok(None);
        }
        let pair = self.pair(StudentKind::Fasttext, seconds)?;
        Ok(Some(StudentPair {
            optional: false,
            ..pair
        }))
    }

    /// The first pair. Its distilled student waits for the teacher's logits.
    fn first_pair(&self, kind: StudentKind, seconds: f64) -> Result<StudentPair> {
        let mut pair = self.pair(kind, seconds)?;
        pair.distilled.seconds += self.logits_seconds();
        pair.optional = false;
        Ok(pair)
    }

    /// A baseline and a distilled student that take `seconds` together.
    fn pair(&self, kind: StudentKind, seconds: f64) -> Result<StudentPair> {
        let mut baseline = student(self.settings, self.facts, kind, 1.0)?;
        let mut distilled = distilled(
            baseline.clone(),
            self.settings,
            self.facts,
            self.teacher,
            self.transfer,
        );
        let baseline_cost = self.baseline_cost().scaled_for(kind);
        let baseline_seconds = baseline_cost.fit(&mut baseline, seconds / 2.0);
        let distilled_cost = self.distilled_cost().scaled_for(kind);
        let distilled_seconds = distilled_cost.fit(&mut distilled, seconds - baseline_seconds);
        Ok(StudentPair {
            baseline: Stage {
                recipe: baseline,
                seconds: baseline_seconds,
            },
            distilled: Stage {
                recipe: distilled,
                seconds: distilled_seconds,
            },
            optional: true,
        })
    }

    /// Further seeds of the two students that dev will choose; those that do not fit into the
    /// seconds that are left are spare. Their cost is that of the first pair.
    fn further_seeds(&self, first: &StudentPair, mut left: f64) -> Vec<FurtherSeed> {
        let mut further = Vec::new();
        for number in 1..SEEDS {
            let mut next = FurtherSeed {
                seed: self.settings.teacher.seed.wrapping_add(number),
                baseline_seconds: first.baseline.seconds,
                distilled_seconds: first.distilled.seconds - self.logits_seconds(),
                spare: false,
            };
            left -= next.seconds();
            next.spare = left < 0.0;
            further.push(next);
        }
        further
    }
}

/// As many texts as the first distilled student can read three times, in the time that the
/// teacher's logits leave: unlabelled texts first, since they are real, then augmented ones.
fn choose_transfer_texts(
    settings: &PlanSettings,
    facts: &CorpusFacts,
    speed: &SecondsPerText,
    teacher: &Recipe,
    rest: f64,
) -> TransferTexts {
    let fits = |transfer: &TransferTexts| {
        let students = StudentPlanner {
            settings,
            facts,
            speed,
            teacher,
            transfer: *transfer,
        };
        students.reads_all_often_enough(rest - students.logits_seconds())
    };
    for augmentations in (0..=MAX_AUGMENTATIONS).rev() {
        let all_unlabelled = TransferTexts {
            unlabelled: facts.unlabelled_texts,
            augmentations,
        };
        if fits(&all_unlabelled) {
            return all_unlabelled;
        }
    }
    // In twentieths: a plan needs no finer number. If not even 1/20 fits, halve further.
    let mut numbers: Vec<usize> = (1..20)
        .rev()
        .map(|twentieths| facts.unlabelled_texts * twentieths / 20)
        .collect();
    let mut half = facts.unlabelled_texts / 40;
    while half >= MIN_UNLABELLED {
        numbers.push(half);
        half /= 2;
    }
    for unlabelled in numbers {
        let some_unlabelled = TransferTexts {
            unlabelled,
            augmentations: 0,
        };
        if fits(&some_unlabelled) {
            return some_unlabelled;
        }
    }
    TransferTexts {
        unlabelled: 0,
        augmentations: 0,
    }
}

/// The teacher: with all texts as often as its share of the time allows, else once with some of
/// them.
fn plan_teacher(
    settings: &PlanSettings,
    facts: &CorpusFacts,
    speed: &SecondsPerText,
    usable: f64,
) -> Stage {
    let texts = facts.train_texts as f64;
    let allowed = usable * TEACHER_SHARE;
    // Before training, while training, and once more at the end.
    let evaluations = TEACHER_EVALUATIONS + 2.0;
    let for_one = allowed * TEACHER_EVALUATION_SHARE / evaluations;
    let affordable = (for_one / speed.teacher_forward) as usize;
    let dev_texts = affordable.max(MIN_DEV_TEXTS).min(facts.dev_texts);
    let for_evaluations = evaluations * dev_texts as f64 * speed.teacher_forward;
    let for_probe = facts.train_texts.min(MOST_TEXTS) as f64 * speed.teacher_forward;
    let before_updates = for_evaluations + for_probe;
    let seconds = |texts: f64, epochs: f64| texts * epochs * speed.teacher_update + before_updates;
    let planned = |epochs, samples| {
        let mut recipe = teacher(settings, facts, epochs, samples);
        recipe.data.max_dev_samples = Some(dev_texts).filter(|&n| n < facts.dev_texts);
        recipe
    };
    let wanted = if facts.train_texts < MAX_TEXTS_OF_LONG_TEACHER {
        (TEACHER_EXAMPLES / facts.train_texts.max(1)).clamp(3, 20) as u32
    } else {
        2
    };
    for epochs in (1..=wanted).rev().map(f64::from) {
        if seconds(texts, epochs) <= allowed {
            let recipe = planned(epochs, None);
            return Stage {
                recipe,
                seconds: seconds(texts, epochs),
            };
        }
    }
    let fitting = (allowed - before_updates) / speed.teacher_update;
    let least = facts.train_texts.min(MIN_TEACHER_TEXTS);
    let samples = (fitting.max(1.0) as usize).clamp(least, facts.train_texts);
    Stage {
        recipe: planned(1.0, Some(samples)),
        seconds: seconds(samples as f64, 1.0),
    }
}

/// Three digits: a plan is read by people.
pub(super) fn round3(value: f64) -> f64 {
    (value * 1000.0).round().max(1.0) / 1000.0
}
