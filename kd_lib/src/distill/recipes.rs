//! The recipes that a plan is made of: the teacher, a student without one, and the same student
//! with one. [`super::planner`] decides their lengths.

use super::facts::{CorpusFacts, PlanSettings};
use crate::data::{Augmentation, AugmentationUnit, DataConfig, TransferConfig};
use crate::evaluation::{CalibrationSplit, TemperatureScaling};
use crate::models::{
    BiLstmSettings, FastTextSettings, ModelConfig, NormOver, Pooling, TextCnnSettings,
};
use crate::objectives::{CrossEntropy, Kd, KdStandardized, ObjectiveConfig};
use crate::precision::PrecisionSetting;
use crate::store::Recipe;
use crate::training::{Adversarial, ClassWeights, OptimizerConfig, TrainConfig};
use crate::{Error, Result};

/// Batch size of the students.
pub const BATCH_SIZE: usize = 64;
/// The learning rate of the BiLSTM and the TextCNN. With half of it a short run of the baseline
/// lags behind, and distillation looks better than it is.
const LEARNING_RATE: f64 = 2e-3;
/// The learning rate of a fastText.
const FASTTEXT_LEARNING_RATE: f64 = 5e-3;
/// Evaluations without a better score after which a student's training ends. Of 118 recorded
/// trainings of students, evaluated 15 times each, two would have ended one evaluation early and
/// lost nothing. With a patience of 4, 16 would have ended, one with a loss of 1.1 points of
/// macro-F1 on dev; on 300 texts a baseline ended at .48, and without early stopping it reached .70.
const PATIENCE: usize = 6;
/// Seeds of a plan, the teacher's and those that follow it; the first trains every candidate.
pub const SEEDS: u64 = 3;
/// Evaluations of the teacher on dev.
pub const TEACHER_EVALUATIONS: f64 = 4.0;
/// Bytes of an fp32 number.
const BYTES: f64 = 4.0;

/// The widths of a student's network.
#[derive(Debug, Clone, Copy)]
pub struct NetworkWidths {
    /// Of its word vectors.
    pub embedding: i64,
    /// Of a BiLSTM's hidden state in one direction; a TextCNN has as many filters of each size.
    pub hidden: i64,
}

/// Widths that a student may have, the widest first.
pub const NETWORK_WIDTHS: [NetworkWidths; 4] = [
    NetworkWidths::new(300, 384),
    NetworkWidths::new(300, 256),
    NetworkWidths::new(200, 192),
    NetworkWidths::new(128, 128),
];

impl NetworkWidths {
    const fn new(embedding: i64, hidden: i64) -> NetworkWidths {
        NetworkWidths { embedding, hidden }
    }
}

/// Largest vocabulary of a student.
const MAX_VOCAB: f64 = 30_000.0;
/// If a network leaves room for fewer entries, a narrower one is tried.
const PREFERRED_VOCAB: usize = 8000;
/// A network that leaves room for fewer entries is refused.
const MIN_VOCAB: usize = 500;
/// Width of a fastText's vectors.
const FASTTEXT_WIDTH: i64 = 32;
/// Most vectors that n-grams share. This leaves room for the vocabulary within 15 MB.
const MAX_BUCKETS: usize = 100_000;
/// From this ratio of the largest class to the smallest on, students with class weights are tried.
pub const UNBALANCED: f64 = 3.0;
/// Largest vocabulary of the teacher: of the pieces of training and unlabelled texts.
const MAX_TEACHER_VOCAB: usize = 50_000;

/// The number of texts that only the teacher labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferTexts {
    /// Unlabelled texts.
    pub unlabelled: usize,
    /// Augmented texts of each labelled and unlabelled text.
    pub augmentations_per_text: usize,
}

impl TransferTexts {
    /// Those of a student's recipe.
    pub fn of(recipe: &Recipe, facts: &CorpusFacts) -> TransferTexts {
        let Some(transfer) = &recipe.transfer else {
            return TransferTexts {
                unlabelled: 0,
                augmentations_per_text: 0,
            };
        };
        let all = transfer
            .unlabelled_file
            .as_ref()
            .map(|_| facts.unlabelled_texts);
        TransferTexts {
            unlabelled: transfer.max_unlabelled_samples.or(all).unwrap_or(0),
            augmentations_per_text: transfer.augmentations_per_text,
        }
    }

    /// Labelled, unlabelled and augmented texts that a distilled student reads in an epoch.
    pub fn texts_per_epoch(self, facts: &CorpusFacts) -> f64 {
        ((facts.train_texts + self.unlabelled) * (1 + self.augmentations_per_text)) as f64
    }
}

/// What bounds a student.
#[derive(Debug, Clone, Copy)]
pub struct StudentLimits {
    /// Megabytes of fp32 weights.
    pub megabytes: f64,
    /// How many of the widest of [`NETWORK_WIDTHS`] are too slow.
    pub too_slow: usize,
}

/// A student that a plan may try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StudentKind {
    /// A BiLSTM over the teacher's subwords.
    Bilstm,
    /// A TextCNN over the teacher's subwords.
    Textcnn,
    /// The BiLSTM again; in its hard loss rare classes count more.
    BilstmClassWeights,
    /// A BiLSTM over characters.
    BilstmCharacters,
    /// A fastText, which trains in seconds: over characters where spaces do not separate words,
    /// else over the teacher's subwords. In its hard loss rare classes count more if classes are
    /// unbalanced.
    Fasttext,
}

impl StudentKind {
    /// Its name in a recipe's name.
    pub fn name(self) -> &'static str {
        match self {
            StudentKind::Bilstm => "bilstm",
            StudentKind::Textcnn => "textcnn",
            StudentKind::BilstmClassWeights => "bilstm-class-weights",
            StudentKind::BilstmCharacters => "bilstm-characters",
            StudentKind::Fasttext => "fasttext",
        }
    }

    fn reads_characters(self, facts: &CorpusFacts) -> bool {
        match self {
            StudentKind::BilstmCharacters => true,
            StudentKind::Fasttext => !facts.has_words,
            _ => false,
        }
    }

    fn weighs_classes(self, facts: &CorpusFacts) -> bool {
        match self {
            StudentKind::BilstmClassWeights => true,
            StudentKind::Fasttext => facts.imbalance >= UNBALANCED,
            _ => false,
        }
    }

    /// The network with the widths that fit into its megabytes, and with a vocabulary that uses the
    /// rest of them: the widest whose embedding keeps room for eight thousand entries; if none
    /// does, the narrowest that fits. Networks that are too slow are skipped. The student takes its
    /// subwords and word vectors from `checkpoint`.
    ///
    /// # Errors
    /// If no network fits.
    pub fn network(
        self,
        limits: StudentLimits,
        facts: &CorpusFacts,
        checkpoint: Option<&str>,
    ) -> Result<ModelConfig> {
        let tokenizer = checkpoint.filter(|_| !self.reads_characters(facts));
        match self {
            StudentKind::Fasttext => Ok(ModelConfig::Fasttext(fasttext(
                limits,
                facts.classes,
                checkpoint,
                tokenizer,
            ))),
            StudentKind::Textcnn => self.widest(limits, facts, |widths, vocab_size| {
                ModelConfig::Textcnn(TextCnnSettings {
                    embedding_dim: widths.embedding,
                    num_filters: widths.hidden,
                    dropout: 0.1,
                    vocab_size,
                    embedding_init_std: Some(0.1),
                    pretrained_embeddings: checkpoint.map(str::to_owned),
                    tokenizer: tokenizer.map(str::to_owned),
                    ..TextCnnSettings::default()
                })
            }),
            StudentKind::Bilstm
            | StudentKind::BilstmClassWeights
            | StudentKind::BilstmCharacters => self.widest(limits, facts, |widths, vocab_size| {
                ModelConfig::Bilstm(BiLstmSettings {
                    embedding_dim: widths.embedding,
                    hidden_size: widths.hidden,
                    dropout: 0.1,
                    vocab_size,
                    embedding_init_std: Some(0.1),
                    pretrained_embeddings: checkpoint.map(str::to_owned),
                    tokenizer: tokenizer.map(str::to_owned),
                    ..BiLstmSettings::default()
                })
            }),
        }
    }

    /// The widest network that leaves room for eight thousand vocabulary entries; if none does, the
    /// narrowest that fits. `network` makes one from its widths and its vocabulary's size.
    fn widest(
        self,
        limits: StudentLimits,
        facts: &CorpusFacts,
        network: impl Fn(&NetworkWidths, usize) -> ModelConfig,
    ) -> Result<ModelConfig> {
        let mut narrowest = None;
        for widths in NETWORK_WIDTHS.iter().skip(limits.too_slow) {
            let values = limits.megabytes * 1e6 / BYTES;
            let outside_embedding = self.values_outside_embedding(widths, facts.classes);
            let entries = (values - outside_embedding) / widths.embedding as f64;
            let vocab_size = entries.clamp(0.0, MAX_VOCAB) as usize;
            if vocab_size >= PREFERRED_VOCAB {
                return Ok(network(widths, vocab_size));
            }
            if vocab_size >= MIN_VOCAB {
                narrowest = Some(network(widths, vocab_size));
            }
        }
        narrowest.ok_or_else(|| {
            let problem = format!("{} MB", limits.megabytes);
            let fix = format!(
                "{} classes need more: allow the default of 15 MB",
                facts.classes
            );
            Error::option("max-size", problem, fix)
        })
    }

    /// Number of values that are not in the embedding.
    fn values_outside_embedding(self, widths: &NetworkWidths, classes: usize) -> f64 {
        let (width, hidden) = (widths.embedding as f64, widths.hidden as f64);
        let classes = classes as f64;
        match self {
            StudentKind::Textcnn => {
                let widths = TextCnnSettings::default().filter_widths;
                let tokens: i64 = widths.iter().sum();
                let features = hidden * widths.len() as f64;
                hidden * width * tokens as f64 + features + (features + 1.0) * classes
            }
            _ => 8.0 * hidden * (width + hidden + 2.0) + (2.0 * hidden + 1.0) * classes,
        }
    }
}

/// A fastText that fits into its megabytes: half of its vectors at least are those of n-grams.
fn fasttext(
    limits: StudentLimits,
    classes: usize,
    checkpoint: Option<&str>,
    tokenizer: Option<&str>,
) -> FastTextSettings {
    let width = FASTTEXT_WIDTH as f64;
    let classifier_values = (width + 1.0) * classes as f64;
    let vectors = (limits.megabytes * 1e6 / BYTES - classifier_values) / width;
    let vocab_size = PREFERRED_VOCAB.min((vectors / 2.0) as usize);
    let buckets = MAX_BUCKETS.min(vectors as usize - vocab_size);
    FastTextSettings {
        embedding_dim: FASTTEXT_WIDTH,
        longest_ngram: 3,
        ngram_buckets: buckets as i64,
        dropout: 0.1,
        vocab_size,
        embedding_init_std: Some(0.1),
        pretrained_embeddings: checkpoint.map(str::to_owned),
        tokenizer: tokenizer.map(str::to_owned),
    }
}

/// The teacher's recipe over `epochs`, on at most `max_train_samples` texts. Its head is
/// initialised from a linear probe: with few updates, a random head never learns a rare class.
pub fn teacher_recipe(
    settings: &PlanSettings,
    facts: &CorpusFacts,
    epochs: f64,
    max_train_samples: Option<usize>,
) -> Recipe {
    let mut recipe = settings.teacher.clone();
    recipe.name = "teacher".into();
    if let ModelConfig::Bert(bert) = &mut recipe.model {
        bert.prune_vocab = false;
        bert.vocab_size = Some(MAX_TEACHER_VOCAB);
        bert.vocab_texts = settings.unlabelled.clone();
        let states_are_means = bert.pretrained && bert.pooling == Pooling::Mean;
        bert.init_head_from_probe |= states_are_means && !bert.init_from_teacher;
    }
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

/// A student without a teacher: word vectors of the teacher's checkpoint, FGM. A fastText has no
/// FGM, which brought it nothing (LOG.md).
pub fn baseline_recipe(
    settings: &PlanSettings,
    facts: &CorpusFacts,
    kind: StudentKind,
    epochs: f64,
) -> Result<Recipe> {
    let checkpoint = match &settings.teacher.model {
        ModelConfig::Bert(bert) => Some(bert.checkpoint.as_str()),
        _ => None,
    };
    let limits = StudentLimits {
        megabytes: settings.max_megabytes,
        too_slow: facts.too_slow_networks,
    };
    Ok(Recipe {
        name: format!("baseline-{}", kind.name()),
        seed: settings.teacher.seed,
        device: settings.teacher.device.clone(),
        data: DataConfig {
            max_length: if kind.reads_characters(facts) {
                facts.max_length * 2
            } else {
                facts.max_length
            },
            truncation: settings.teacher.data.truncation,
            max_train_samples: None,
            label_fraction: None,
            max_dev_samples: None,
            holdout_fold: None,
            skip_test: true,
            drop_leaks: settings.teacher.data.drop_leaks,
        },
        model: kind.network(limits, facts, checkpoint)?,
        objective: ObjectiveConfig::CrossEntropy(CrossEntropy {}),
        adversarial: (kind != StudentKind::Fasttext).then(|| Adversarial::Fgm {
            epsilon: 3.0,
            norm_over: NormOver::default(),
        }),
        teacher: None,
        teacher_logits: None,
        ensemble: None,
        transfer: None,
        train: TrainConfig {
            epochs,
            batch_size: BATCH_SIZE,
            gradient_accumulation_steps: 1,
            precision: PrecisionSetting::Auto,
            eval_every_samples: facts.train_texts.max(1),
            early_stopping_patience: Some(PATIENCE),
            final_temperature: None,
            class_weights: kind.weighs_classes(facts).then_some(ClassWeights::Balanced),
            temperature_scaling: Some(TemperatureScaling::FitOn(CalibrationSplit::Dev)),
            group_by_length: true,
        },
        optimizer: OptimizerConfig {
            learning_rate: match kind {
                StudentKind::Fasttext => FASTTEXT_LEARNING_RATE,
                _ => LEARNING_RATE,
            },
            betas: [0.9, 0.98],
            eps: 1e-8,
            weight_decay: 0.01,
            warmup_ratio: 0.1,
            max_grad_norm: Some(1.0),
        },
    })
}

/// The same student with a teacher: it learns from the labels and from the teacher's logits on
/// training, unlabelled and augmented texts. Trained without labels, a student also misses the
/// classes that its teacher misses: a teacher of one epoch did not predict TREC's rarest class, and
/// the student's macro-F1 on dev was .74 without labels and .87 with them. With a good teacher the
/// two differ by less than half a point. FGM stays: without it a short run on the labelled texts is
/// worse than the baseline (LOG.md).
pub fn distilled_recipe(
    baseline: Recipe,
    settings: &PlanSettings,
    facts: &CorpusFacts,
    teacher: &Recipe,
    transfer: TransferTexts,
) -> Recipe {
    let TransferTexts {
        unlabelled,
        augmentations_per_text,
    } = transfer;
    let all_unlabelled = unlabelled == facts.unlabelled_texts;
    let file = settings.unlabelled.clone();
    Recipe {
        name: baseline.name.replace("baseline", "distilled"),
        objective: objective(facts.classes),
        teacher: Some(Box::new(teacher.clone())),
        transfer: (augmentations_per_text + unlabelled > 0).then(|| TransferConfig {
            unlabelled_file: file.filter(|_| unlabelled > 0),
            max_unlabelled_samples: Some(unlabelled).filter(|&n| n > 0 && !all_unlabelled),
            augmentations_per_text,
            augmentations: vec![
                Augmentation::Mask,
                Augmentation::SpanCrop,
                Augmentation::Crossover,
                Augmentation::SpanReplacement,
            ],
            augmentation_unit: if facts.has_words {
                AugmentationUnit::Word
            } else {
                AugmentationUnit::Character
            },
            ..TransferConfig::default()
        }),
        ..baseline
    }
}

/// The labels and the teacher's logits. The logits are standardized, because a short run would
/// spend its updates on matching their scale (LOG.md). With two classes, standardized logits are
/// constant, so the objective is KD at T = 1.
fn objective(classes: usize) -> ObjectiveConfig {
    match classes {
        ..=2 => ObjectiveConfig::Kd(Kd {
            temperature: 1.0,
            hard_weight: 0.5,
            soft_weight: 0.5,
        }),
        _ => ObjectiveConfig::KdStandardized(KdStandardized {
            temperature: 1.0,
            hard_weight: 1.0,
            soft_weight: 1.0,
        }),
    }
}
