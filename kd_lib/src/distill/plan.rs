//! The plan of a distillation: which recipes are trained, in which order, and how long each takes.
//! The rule is arithmetic over [`CorpusFacts`], [`Speed`] and the budget; it never looks at a score.
//! [`super::execute`] carries the plan out.
//!
//! | share of the budget | for |
//! |---|---|
//! | a tenth | reading, tokenizing, the report, and what the measurement of speed did not see |
//! | half at most | the teacher: 3 epochs below 10,000 texts, else 2; fewer, or fewer texts, if the share is too small |
//! | of the rest | the teacher's logits of the training texts, and of as many augmented texts of each (20 at most) as the distilled student can read three times |
//! | of the rest | students: distilled and baseline, with as many candidates on either side |
//!
//! A student's training has a longest useful length ([`Lengths`]); time beyond that goes to further
//! seeds of the two students that dev chooses.

use super::budget::{Budget, duration};
use super::measure::{CorpusFacts, Speed};
use crate::data::{Augmentation, AugmentationUnit, DataConfig, TransferConfig};
use crate::models::{BiLstmSettings, ModelConfig, NormOver};
use crate::objectives::{CrossEntropy, LogitMse, ObjectiveConfig};
use crate::precision::PrecisionSetting;
use crate::store::Recipe;
use crate::training::{Adversarial, OptimizerConfig, TrainConfig};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Version of the plan's file.
pub const FORMAT: u32 = 1;
/// Texts of a student's update.
pub const BATCH_SIZE: usize = 64;
/// The seeds of a plan; the first trains every candidate.
const SEEDS: [u64; 3] = [123, 124, 125];
/// Share of the budget that no stage gets.
const RESERVE: f64 = 0.1;
/// Seconds that no stage gets: loading, tokenizing and the report of a small corpus.
const FIXED_SECONDS: f64 = 10.0;
/// Largest share of the budget for the teacher.
const TEACHER_SHARE: f64 = 0.5;
/// Evaluations of the teacher on dev.
const TEACHER_EVALUATIONS: f64 = 4.0;
/// A teacher sees at least so many texts, or all.
const LEAST_TEACHER_TEXTS: usize = 200;
/// The distilled student's share of the time for students, of one candidate and of the first of two.
const ONLY_SHARE: f64 = 0.65;
const FIRST_SHARE: f64 = 0.5;
/// Corpora below this size are read three times by the teacher.
const SMALL_CORPUS: usize = 10_000;
/// Most augmented texts of a text.
const MOST_AUGMENTATIONS: usize = 20;
/// Seconds of students below which each side has one candidate.
const SECOND_CANDIDATE: f64 = 300.0;
/// Fewer updates teach a student nothing.
const LEAST_UPDATES: f64 = 50.0;
/// Evaluations of a training on dev, at most, and their largest share of its time.
const EVALUATIONS: f64 = 15.0;
const EVALUATION_SHARE: f64 = 0.1;
/// Bytes of an fp32 number.
const BYTES: f64 = 4.0;

/// The longest useful trainings, in passes over the texts.
pub struct Lengths;

impl Lengths {
    /// Of the distilled student, over labelled and augmented texts.
    pub const DISTILLED: f64 = 6.0;
    /// Fewer passes than this leave augmented texts unused, that the teacher could have spared.
    pub const DISTILLED_PASSES: f64 = 3.0;
    /// Of the distilled student, over the labelled texts at least.
    pub const DISTILLED_LEAST: f64 = 20.0;
    /// Of the baseline, over the labelled texts.
    pub const BASELINE: f64 = 20.0;
}

/// What a person asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanSettings {
    /// Seconds in all.
    pub budget: Budget,
    /// Largest student in megabytes of fp32 weights.
    pub max_megabytes: f64,
    /// The teacher's recipe; the plan sets its length.
    pub teacher: Recipe,
}

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
    /// Whether it is left out if the time is short. Optional stages are left out from the last one.
    pub optional: bool,
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
    pub speed: Speed,
    /// The trainings, in order.
    pub stages: Vec<Stage>,
}

/// The sizes of a student that fits into its megabytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StudentSize {
    /// Width of a word vector.
    pub embedding_dim: i64,
    /// Hidden width of each direction.
    pub hidden_size: i64,
    /// Entries of the vocabulary, at most.
    pub vocab_size: usize,
}

impl StudentSize {
    /// The widest student whose embedding keeps room for eight thousand entries; if none does, the
    /// narrowest one that fits.
    pub fn within(megabytes: f64, classes: usize) -> Result<StudentSize> {
        let mut narrowest = None;
        for (embedding_dim, hidden_size) in [(300, 384), (300, 256), (200, 192), (128, 128)] {
            let (width, hidden) = (embedding_dim as f64, hidden_size as f64);
            let lstm = 8.0 * hidden * (width + hidden + 2.0);
            let head = (2.0 * hidden + 1.0) * classes as f64;
            let entries = (megabytes * 1e6 / BYTES - lstm - head) / width;
            let size = StudentSize {
                embedding_dim,
                hidden_size,
                vocab_size: entries.clamp(0.0, 30_000.0) as usize,
            };
            if size.vocab_size >= 8000 {
                return Ok(size);
            }
            if size.vocab_size >= 500 {
                narrowest = Some(size);
            }
        }
        narrowest.ok_or_else(|| {
            let fix = "allow at least 2 MB";
            Error::recipe("max-size", format!("{megabytes} MB"), fix)
        })
    }
}

/// The teacher's recipe over so many epochs, on so many texts at most.
pub fn teacher(
    settings: &PlanSettings,
    facts: &CorpusFacts,
    epochs: f64,
    max_train_samples: Option<usize>,
) -> Recipe {
    let mut recipe = settings.teacher.clone().with_seed(SEEDS[0]);
    recipe.name = "teacher".into();
    recipe.data.max_length = facts.max_length;
    recipe.data.skip_test = true;
    recipe.data.max_train_samples = max_train_samples;
    recipe.train.epochs = epochs;
    let texts = max_train_samples.unwrap_or(facts.train_texts);
    recipe.train.eval_every_samples = (texts as f64 * epochs / TEACHER_EVALUATIONS)
        .ceil()
        .max(1.0) as usize;
    recipe
}

/// A student without a teacher: subwords and word vectors of the teacher's checkpoint, FGM.
pub fn student(
    settings: &PlanSettings,
    facts: &CorpusFacts,
    size: &StudentSize,
    tokens: Tokens,
    epochs: f64,
) -> Recipe {
    let checkpoint = match &settings.teacher.model {
        ModelConfig::Bert(bert) => Some(bert.checkpoint.clone()),
        _ => None,
    };
    let tokenizer = checkpoint.clone().filter(|_| tokens == Tokens::Subwords);
    Recipe {
        name: format!("baseline-{}", tokens.name()),
        seed: SEEDS[0],
        device: settings.teacher.device.clone(),
        data: DataConfig {
            max_length: match tokens {
                Tokens::Subwords => facts.max_length,
                Tokens::Characters => facts.max_length * 2,
            },
            truncation: settings.teacher.data.truncation,
            max_train_samples: None,
            label_fraction: None,
            max_dev_samples: None,
            holdout_fold: None,
            skip_test: true,
            drop_leaks: settings.teacher.data.drop_leaks,
        },
        model: ModelConfig::Bilstm(BiLstmSettings {
            embedding_dim: size.embedding_dim,
            hidden_size: size.hidden_size,
            dropout: 0.1,
            vocab_size: size.vocab_size,
            embedding_init_std: Some(0.1),
            pretrained_embeddings: checkpoint,
            tokenizer,
            ..BiLstmSettings::default()
        }),
        objective: ObjectiveConfig::CrossEntropy(CrossEntropy {}),
        adversarial: Some(Adversarial::Fgm {
            epsilon: 3.0,
            norm_over: NormOver::default(),
        }),
        teacher: None,
        ensemble: None,
        transfer: None,
        train: TrainConfig {
            epochs,
            batch_size: BATCH_SIZE,
            gradient_accumulation_steps: 1,
            precision: PrecisionSetting::Auto,
            eval_every_samples: facts.train_texts.max(1),
            final_temperature: None,
            group_by_length: true,
        },
        optimizer: OptimizerConfig {
            learning_rate: 1e-3,
            betas: [0.9, 0.98],
            eps: 1e-8,
            weight_decay: 0.01,
            warmup_ratio: 0.1,
            max_grad_norm: Some(1.0),
        },
    }
}

/// The same student with a teacher: it learns from the labels and from the teacher's logits, of
/// training and augmented texts. Without the labels a student inherits what its teacher never learnt:
/// a teacher of one epoch did not predict TREC's rarest class, and macro-F1 on dev was .74 without and
/// .87 with them. With a good teacher the two differ by less than half a point.
fn distilled(
    baseline: Recipe,
    facts: &CorpusFacts,
    teacher: &Recipe,
    augmentations: usize,
) -> Recipe {
    Recipe {
        name: baseline.name.replace("baseline", "distilled"),
        objective: ObjectiveConfig::LogitMse(LogitMse {
            hard_weight: 1.0,
            soft_weight: 1.0,
        }),
        adversarial: None,
        teacher: Some(Box::new(teacher.clone())),
        transfer: (augmentations > 0).then(|| TransferConfig {
            augmentations_per_text: augmentations,
            augmentations: vec![
                Augmentation::Mask,
                Augmentation::SpanCrop,
                Augmentation::Crossover,
                Augmentation::SpanReplacement,
            ],
            augmentation_unit: match facts.has_words {
                true => AugmentationUnit::Word,
                false => AugmentationUnit::Character,
            },
            ..TransferConfig::default()
        }),
        optimizer: OptimizerConfig {
            learning_rate: 2e-3,
            ..baseline.optimizer
        },
        ..baseline
    }
}

/// How a student splits texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens {
    /// The teacher's subwords.
    Subwords,
    /// Characters.
    Characters,
}

impl Tokens {
    fn name(self) -> &'static str {
        match self {
            Tokens::Subwords => "subwords",
            Tokens::Characters => "characters",
        }
    }
}

/// What a training of a student costs.
struct StudentCost<'a> {
    facts: &'a CorpusFacts,
    speed: &'a Speed,
    /// Seconds of a text in an update.
    update: f64,
    /// Texts of an epoch.
    texts: f64,
    /// Longest useful training in texts.
    longest: f64,
}

impl StudentCost<'_> {
    /// The training that fits into so many seconds: its texts.
    fn texts_within(&self, seconds: f64) -> f64 {
        let of_training = seconds * (1.0 - EVALUATION_SHARE);
        (of_training / self.update).min(self.longest)
    }

    fn evaluations(&self, texts: f64) -> f64 {
        let one = self.facts.dev_texts as f64 * self.speed.student_forward();
        (texts * self.update * EVALUATION_SHARE / one).clamp(2.0, EVALUATIONS)
    }

    fn seconds(&self, texts: f64) -> f64 {
        let one = self.facts.dev_texts as f64 * self.speed.student_forward();
        texts * self.update + self.evaluations(texts) * one
    }

    /// Gives a recipe the length that fits into so many seconds; returns its seconds.
    fn fit(&self, recipe: &mut Recipe, seconds: f64) -> f64 {
        let texts = self.texts_within(seconds);
        recipe.train.epochs = round3(texts / self.texts);
        recipe.train.eval_every_samples = (texts / self.evaluations(texts)).ceil() as usize;
        self.seconds(texts)
    }
}

/// Three digits: a plan is read by people.
fn round3(value: f64) -> f64 {
    (value * 1000.0).round().max(1.0) / 1000.0
}

/// The recipes that fit into a budget.
///
/// # Errors
/// If the budget is too small for a teacher and two students. The error names one that is enough.
pub fn plan(
    corpus: &str,
    corpus_fingerprint: &str,
    settings: PlanSettings,
    facts: CorpusFacts,
    speed: Speed,
) -> Result<DistillPlan> {
    let stages = stages_within(settings.budget.seconds, &settings, &facts, &speed)?;
    let Some(stages) = stages else {
        let mut enough = settings.budget.seconds;
        while stages_within(enough, &settings, &facts, &speed)?.is_none() {
            enough *= 1.1;
        }
        let problem = format!("{} is too short for this corpus here", settings.budget);
        // Rounded down, the number might not be enough.
        let fix = format!("allow {} or more", duration(enough * 1.1));
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
    })
}

/// The stages that fit into so many seconds; none if not even one candidate of either side fits.
fn stages_within(
    seconds: f64,
    settings: &PlanSettings,
    facts: &CorpusFacts,
    speed: &Speed,
) -> Result<Option<Vec<Stage>>> {
    let usable = seconds * (1.0 - RESERVE) - FIXED_SECONDS;
    let teacher = plan_teacher(settings, facts, speed, usable);
    let rest = usable - teacher.seconds;
    let students = Students {
        settings,
        facts,
        speed,
        size: StudentSize::within(settings.max_megabytes, facts.classes)?,
        teacher: &teacher.recipe,
        augmentations: augmentations(facts, speed, rest),
    };
    let for_students = rest - students.logits_seconds();
    let least = LEAST_UPDATES * BATCH_SIZE as f64;
    let of_least =
        students.distilled_cost().seconds(least) + students.baseline_cost().seconds(least);
    if for_students < of_least {
        return Ok(None);
    }
    let mut stages = vec![teacher.clone()];
    stages.extend(students.candidates(for_students));
    let planned: f64 = stages.iter().map(|stage| stage.seconds).sum();
    stages.extend(students.repeats(&stages, usable - planned));
    Ok(Some(stages))
}

/// What the students of a plan share.
struct Students<'a> {
    settings: &'a PlanSettings,
    facts: &'a CorpusFacts,
    speed: &'a Speed,
    size: StudentSize,
    teacher: &'a Recipe,
    augmentations: usize,
}

impl Students<'_> {
    fn labelled(&self) -> f64 {
        self.facts.train_texts as f64
    }

    /// Labelled and augmented texts.
    fn texts(&self) -> f64 {
        self.labelled() * (1 + self.augmentations) as f64
    }

    fn logits_seconds(&self) -> f64 {
        self.texts() * self.speed.teacher_logits
    }

    fn distilled_cost(&self) -> StudentCost<'_> {
        let least = Lengths::DISTILLED_LEAST * self.labelled();
        StudentCost {
            facts: self.facts,
            speed: self.speed,
            update: self.speed.student_update,
            texts: self.texts(),
            longest: (Lengths::DISTILLED * self.texts()).max(least),
        }
    }

    fn baseline_cost(&self) -> StudentCost<'_> {
        StudentCost {
            facts: self.facts,
            speed: self.speed,
            update: self.speed.baseline_update,
            texts: self.labelled(),
            longest: Lengths::BASELINE * self.labelled(),
        }
    }

    /// As many candidates of either side; the first distilled one computes the teacher's logits.
    fn candidates(&self, seconds: f64) -> Vec<Stage> {
        let shares = match seconds > SECOND_CANDIDATE {
            true => vec![
                (Tokens::Subwords, FIRST_SHARE, 0.2),
                (Tokens::Characters, 0.18, 0.12),
            ],
            false => vec![(Tokens::Subwords, ONLY_SHARE, 1.0 - ONLY_SHARE)],
        };
        let (of_distilled, of_baseline) = (self.distilled_cost(), self.baseline_cost());
        let mut stages = Vec::new();
        for (tokens, distilled_share, baseline_share) in shares {
            let mut baseline = student(self.settings, self.facts, &self.size, tokens, 1.0);
            let mut distilled = distilled(
                baseline.clone(),
                self.facts,
                self.teacher,
                self.augmentations,
            );
            let first = stages.is_empty();
            let baseline_seconds = of_baseline.fit(&mut baseline, seconds * baseline_share);
            let mut distilled_seconds = of_distilled.fit(&mut distilled, seconds * distilled_share);
            if first {
                distilled_seconds += self.logits_seconds();
            }
            stages.push(Stage::candidate(
                Side::Baseline,
                baseline,
                baseline_seconds,
                first,
            ));
            stages.push(Stage::candidate(
                Side::Distilled,
                distilled,
                distilled_seconds,
                first,
            ));
        }
        stages
    }

    /// Further seeds of the two students that dev will choose, as far as they fit into the seconds
    /// that are left. Their cost is that of the first candidates, the most expensive ones.
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
            left -= of_seed.iter().map(|stage| stage.seconds).sum::<f64>();
            if left < 0.0 {
                break;
            }
            repeats.extend(of_seed);
        }
        repeats
    }
}

impl Stage {
    /// A candidate with the first seed. Only the first candidate of a side is never left out.
    fn candidate(side: Side, recipe: Recipe, seconds: f64, first: bool) -> Stage {
        Stage {
            side,
            recipe,
            repeats_winner: false,
            seconds,
            optional: !first,
        }
    }
}

/// Augmented texts of each text: as many as the distilled student can read three times, in the time
/// that the teacher's logits leave.
fn augmentations(facts: &CorpusFacts, speed: &Speed, rest: f64) -> usize {
    let can_be_read = |augmentations: &usize| {
        let texts = (facts.train_texts * (1 + augmentations)) as f64;
        let for_students = rest - texts * speed.teacher_logits;
        let share = match for_students > SECOND_CANDIDATE {
            true => FIRST_SHARE,
            false => ONLY_SHARE,
        };
        let read = for_students * share * (1.0 - EVALUATION_SHARE) / speed.student_update;
        read >= Lengths::DISTILLED_PASSES * texts
    };
    (1..=MOST_AUGMENTATIONS)
        .rev()
        .find(can_be_read)
        .unwrap_or(0)
}

/// The teacher: with all texts as often as its share of the time allows, else once with some of them.
fn plan_teacher(settings: &PlanSettings, facts: &CorpusFacts, speed: &Speed, usable: f64) -> Stage {
    let texts = facts.train_texts as f64;
    let one_evaluation = facts.dev_texts as f64 * speed.teacher_logits;
    let seconds = |texts: f64, epochs: f64| {
        texts * epochs * speed.teacher_update + TEACHER_EVALUATIONS * one_evaluation
    };
    let allowed = usable * TEACHER_SHARE;
    let wanted = if facts.train_texts < SMALL_CORPUS {
        3
    } else {
        2
    };
    for epochs in (1..=wanted).rev().map(f64::from) {
        if seconds(texts, epochs) <= allowed {
            let recipe = teacher(settings, facts, epochs, None);
            return Stage::candidate(Side::Teacher, recipe, seconds(texts, epochs), true);
        }
    }
    let fitting = (allowed - TEACHER_EVALUATIONS * one_evaluation) / speed.teacher_update;
    let least = facts.train_texts.min(LEAST_TEACHER_TEXTS);
    let samples = (fitting.max(1.0) as usize).clamp(least, facts.train_texts);
    let recipe = teacher(settings, facts, 1.0, Some(samples));
    Stage::candidate(Side::Teacher, recipe, seconds(samples as f64, 1.0), true)
}

impl DistillPlan {
    /// Expected seconds in all, what no stage gets included.
    pub fn seconds(&self) -> f64 {
        let stages: f64 = self.stages.iter().map(|stage| stage.seconds).sum();
        stages + FIXED_SECONDS
    }

    /// The plan in lines for a person.
    pub fn describe(&self) -> String {
        let facts = &self.facts;
        let mut lines = vec![format!(
            "{}: {} training texts, {} dev, {} test, {} classes; sequences of {} tokens ({:.1} % of \
             the texts are longer)",
            self.corpus,
            facts.train_texts,
            facts.dev_texts,
            facts.test_texts,
            facts.classes,
            facts.max_length,
            100.0 * facts.truncated
        )];
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
            let transfer = recipe.transfer.as_ref();
            let augmented = transfer.map_or(String::new(), |transfer| {
                format!(
                    ", {} augmented texts a text",
                    transfer.augmentations_per_text
                )
            });
            let optional = if stage.optional {
                " (left out if time is short)"
            } else {
                ""
            };
            lines.push(format!(
                "{:>8}  {name}, seed {}: {} epochs{augmented}{optional}",
                duration(stage.seconds),
                recipe.seed,
                recipe.train.epochs
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
