//! What `kd` can be asked for, as clap reads and explains it. Commands and options that version 0.1
//! had are refused with their replacement.

use clap::{Args, Parser, Subcommand, ValueEnum};
use kd_lib::data::ColumnOptions;
use kd_lib::data::text_files::FileFormat;
use kd_lib::distill::Budget;
use std::path::PathBuf;

/// Knowledge distillation for text classification: a BERT teacher and a small student.
#[derive(Parser)]
#[command(
    version,
    after_help = "First steps:\n  \
        kd distill data/sample --budget 2m\n  \
        kd train notebooks/recipes/distilled.toml --profile smoke --data data/sample\n  \
        kd table\n  \
        kd predict RUN 文本\n\n\
        RUN is a run's id (NAME-HASH, see kd runs), or its folder.\n\n\
        Interrupted (Ctrl-C, SIGTERM, SIGUSR1, SIGHUP), `train` and `distill` save what they \
        have and exit with code 75; the same command continues."
)]
pub struct Arguments {
    /// Folder of checkpoints and runs; by default the one in KD_CHECKPOINTS, else the project's
    /// own.
    #[arg(long, global = true)]
    pub checkpoints: Option<PathBuf>,
    /// Threads of an operation; by default OMP_NUM_THREADS, else as many as there are free cores,
    /// looked at again while a run goes on.
    #[arg(long, global = true, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    #[command(subcommand)]
    pub command: KdCommand,
}

#[derive(Subcommand)]
pub enum KdCommand {
    /// Train a recipe, or find its finished run; prints the run's folder last.
    Train(TrainArguments),
    /// From labelled texts to the best student that a budget of time allows, with a report of what
    /// distillation brought.
    Distill(DistillArguments),
    /// Print a run's scores per class, on a split or on a file of labelled texts.
    Evaluate(EvaluateArguments),
    /// Classify texts: one JSON line each, in order; "-" reads them from standard input, one a
    /// line.
    Predict(PredictArguments),
    /// Write a run's logits of exported texts (kd distill --export-texts), as a teacher from
    /// elsewhere would.
    TeacherLogits(TeacherLogitsArguments),
    /// The table of the finished runs that were scored on test, mean ± sd over seeds.
    Table,
    /// The finished runs.
    Runs,
    /// The stored results that tables are made of.
    Results {
        #[command(subcommand)]
        command: ResultsCommand,
    },
    /// Download a public corpus (thucnews-title), or a BERT checkpoint of a hub (OWNER/NAME).
    Download(DownloadArguments),
    /// Convert recipes (.toml) and run folders of version 0.1. A recipe keeps its name, and the old
    /// file gets the ending .0.1; a run gets a new folder beside the old one.
    Convert {
        /// Recipes, and run folders.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
}

/// What `kd train` reads.
#[derive(Args)]
pub struct TrainArguments {
    /// The recipe, for example notebooks/recipes/student.toml.
    pub recipe: PathBuf,
    /// Corpus: a folder, or a file with texts and labels; `make corpus` creates data/default,
    /// data/sample is a toy.
    #[arg(long, default_value = "data/default")]
    pub data: PathBuf,
    #[command(flatten)]
    pub columns: ColumnArguments,
    /// Size of the experiment: smoke, quick or full (a file under profiles/ in the recipe's
    /// folder).
    #[arg(long, default_value = "full")]
    pub profile: String,
    /// Override a setting, for example optimizer.learning_rate=2e-5 or teacher.train.epochs=1.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Another seed; a teacher keeps its own.
    #[arg(long, value_parser = seed())]
    pub seed: Option<u64>,
    /// Print what would happen, time a few updates, and write nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// What `kd distill` reads.
#[derive(Args)]
pub struct DistillArguments {
    /// Corpus: a folder with a file for each split, or one file with texts and labels (CSV,
    /// TSV, JSON lines, Parquet).
    pub data: PathBuf,
    #[command(flatten)]
    pub columns: ColumnArguments,
    /// How long it may take: 90s, 30m, 2h or overnight.
    #[arg(long, default_value = "10m", conflicts_with = "profile")]
    pub budget: Budget,
    /// Largest student in megabytes of fp32 weights.
    #[arg(
        long,
        value_name = "MB",
        default_value_t = 15.0,
        conflicts_with = "profile"
    )]
    pub max_size: f64,
    /// Longest time in milliseconds that the student may take for one text on this machine,
    /// with the threads of the training.
    #[arg(long, value_name = "MS", conflicts_with = "profile")]
    pub max_latency: Option<f64>,
    /// A file of texts without labels, one per line, for the teacher to label. With --plan: where
    /// the plan's file is now.
    #[arg(long, value_name = "FILE", conflicts_with = "profile")]
    pub unlabelled: Option<PathBuf>,
    /// Test all labelled texts by cross-validation with N folds; 0 for the test split alone. By
    /// default 5 below 3,000 labelled texts without a test split of their own, if the time is
    /// enough; else 0.
    #[arg(long, value_name = "N", conflicts_with = "profile")]
    pub folds: Option<u8>,
    /// At the end train the chosen student again, on all labelled texts.
    #[arg(long, conflicts_with = "profile")]
    pub refit: bool,
    /// Print the plan and the data report, and carry out no training run.
    #[arg(long, conflicts_with = "profile")]
    pub dry_run: bool,
    /// Carry out this plan (`plan.json`) instead of a new one.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = [
            "profile", "budget", "max_size", "max_latency", "folds", "refit", "set"
        ]
    )]
    pub plan: Option<PathBuf>,
    /// Write the texts that a teacher should label, as JSON lines, and train nothing.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["profile", "dry_run", "folds", "refit"]
    )]
    pub export_texts: Option<PathBuf>,
    /// Learn from this teacher's logits or classes instead of training a teacher: the exported
    /// texts, each with "logits" (one number per class) or "label".
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["profile", "export_texts", "folds", "refit"]
    )]
    pub teacher_logits: Option<PathBuf>,
    /// Train the recipes teacher, student and distilled at this size instead of a plan.
    #[arg(long)]
    pub profile: Option<String>,
    /// Override a setting of the teacher (teacher.model.checkpoint=my-bert). With --profile
    /// also of the students: `data.` and `device` settings go to all three; `objective`,
    /// `ensemble`, `transfer` and `train.final_temperature` go to the distilled student only, all
    /// other settings to both students.
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// First seed of the plan, 123 by default; further seeds follow it. With --profile another
    /// seed for both students.
    #[arg(long, value_parser = seed(), conflicts_with = "plan")]
    pub seed: Option<u64>,
}

/// What `kd evaluate` reads.
#[derive(Args)]
pub struct EvaluateArguments {
    /// A run's id or folder.
    pub run: PathBuf,
    /// The split.
    #[arg(long, value_enum, default_value_t = SplitName::Test, conflicts_with = "data")]
    pub split: SplitName,
    /// A file of labelled texts to score instead.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// The layout of that file; detected from all its lines if absent.
    #[arg(long, value_enum, requires = "data")]
    pub format: Option<FormatName>,
}

/// What `kd predict` reads.
#[derive(Args)]
pub struct PredictArguments {
    /// A run's id or folder.
    pub run: PathBuf,
    /// Texts, or "-". A model that reads text pairs takes `text<TAB>text_pair`.
    #[arg(required = true)]
    pub texts: Vec<String>,
    /// The second text, of a model that reads text pairs.
    #[arg(long, value_name = "TEXT")]
    pub text_pair: Option<String>,
}

/// What `kd teacher-logits` reads.
#[derive(Args)]
pub struct TeacherLogitsArguments {
    /// A run's id or folder.
    pub run: PathBuf,
    /// The exported texts.
    pub texts: PathBuf,
    /// The file of logits to write.
    #[arg(long, value_name = "FILE")]
    pub into: PathBuf,
}

/// What `kd download` reads.
#[derive(Args)]
pub struct DownloadArguments {
    /// Its name, for example thucnews-title or google-bert/bert-base-chinese.
    pub name: String,
    /// The checkpoint's revision: a branch, a tag or a commit; `main` by default.
    #[arg(long)]
    pub revision: Option<String>,
    /// The hub that has the checkpoint, or a mirror of it; by default that of Hugging Face.
    #[arg(long)]
    pub hub: Option<String>,
    /// Folder of corpora; `data` by default. Checkpoints go into the folder of --checkpoints.
    #[arg(long)]
    pub into: Option<PathBuf>,
}

/// Which columns of a file are texts and labels. They are detected if absent.
#[derive(Args)]
pub struct ColumnArguments {
    /// The column of texts: its name, or its number from 1.
    #[arg(long, value_name = "COLUMN")]
    text: Option<String>,
    /// The column of second texts, if each example is a pair.
    #[arg(long, value_name = "COLUMN")]
    text_pair: Option<String>,
    /// The column of labels.
    #[arg(long, value_name = "COLUMN")]
    label: Option<String>,
    /// Whether the first row names the columns.
    #[arg(long, value_enum)]
    header: Option<YesNo>,
}

/// The seeds that a recipe can hold: TOML has no larger whole numbers.
fn seed() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(..=i64::MAX as u64)
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum YesNo {
    Yes,
    No,
}

impl From<ColumnArguments> for ColumnOptions {
    fn from(arguments: ColumnArguments) -> ColumnOptions {
        ColumnOptions {
            text: arguments.text,
            text_pair: arguments.text_pair,
            label: arguments.label,
            header: arguments.header.map(|header| header == YesNo::Yes),
        }
    }
}

#[derive(Subcommand)]
pub enum ResultsCommand {
    /// Add finished runs: report, curve and test logits, one file a run.
    Add {
        /// Ids or folders of runs.
        #[arg(required = true)]
        runs: Vec<PathBuf>,
        /// The set of runs that they join; tables are made of `runs`.
        #[arg(long, default_value = kd_lib::store::results::MAIN_SET)]
        set: String,
    },
}

/// The layout of a file of labelled texts.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    /// Lines `label<TAB>text`.
    LabelText,
    /// Lines `text<TAB>class index`.
    TextIndex,
    /// CSV with the columns `text` and `label`.
    Csv,
}

impl From<FormatName> for FileFormat {
    fn from(name: FormatName) -> FileFormat {
        match name {
            FormatName::LabelText => FileFormat::LabelText,
            FormatName::TextIndex => FileFormat::TextIndex,
            FormatName::Csv => FileFormat::Csv,
        }
    }
}

/// A split that can be scored.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SplitName {
    /// The development split, which chose the best weights.
    Dev,
    /// The test split.
    Test,
}

/// Commands and options of version 0.1, and what replaces each.
const RETIRED: [(&str, &str); 6] = [
    ("run", "kd train RECIPE"),
    ("test", "kd evaluate RUN"),
    ("list", "kd runs"),
    ("keep", "kd results add RUN…"),
    ("fetch", "kd download NAME"),
    ("--dev", "--split dev"),
];

/// Options that may stand before the command, with their values.
const GLOBAL_OPTIONS: [&str; 2] = ["--checkpoints", "--threads"];

/// The replacement of a retired command, or of `kd evaluate --dev`, as a sentence.
pub fn message_for_old_name(arguments: &[String]) -> Option<String> {
    let command = command_among(arguments)?;
    let asks_for_dev = command == "evaluate" && arguments.iter().any(|word| word == "--dev");
    let name = if asks_for_dev { "--dev" } else { command };
    let (old, new) = RETIRED.iter().find(|(old, _)| *old == name)?;
    Some(format!("`{old}` is a name of version 0.1: write `{new}`"))
}

/// The first argument that is neither an option nor the value of a global one.
fn command_among(arguments: &[String]) -> Option<&str> {
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        if GLOBAL_OPTIONS.contains(&argument.as_str()) {
            rest.next();
        } else if !argument.starts_with('-') {
            return Some(argument);
        }
    }
    None
}
