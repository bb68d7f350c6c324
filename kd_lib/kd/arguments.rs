//! What `kd` can be asked for, as clap reads and explains it.

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Knowledge distillation for text classification: BERT teacher, BiLSTM student.
#[derive(Parser)]
#[command(
    version,
    after_help = "First steps:\n  kd distill data/sample --profile smoke\n  kd run notebooks/recipes/distilled.toml --profile smoke --data data/sample\n  kd table\n  kd predict RUN 文本\n\nRUN is a run's folder, or its name under checkpoints/runs.\n\nInterrupted (Ctrl-C, SIGTERM, SIGUSR1), `run` and `distill` save where they are and exit with code 75; the same command goes on."
)]
pub struct Arguments {
    /// Folder of weights and runs; by default the project's own.
    #[arg(long, global = true, env = "KD_CHECKPOINTS")]
    pub checkpoints: Option<PathBuf>,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Subcommand)]
pub enum Verb {
    /// Train a recipe, or find its finished run; prints the run's folder last.
    Run {
        /// The recipe, for example notebooks/recipes/student.toml.
        recipe: PathBuf,
        /// Corpus folder; `make corpus` lays data/default, data/sample is a toy.
        #[arg(long, default_value = "data/default")]
        data: PathBuf,
        /// Size of the experiment: smoke, quick or full (a file under profiles/ beside the recipe).
        #[arg(long, default_value = "full")]
        profile: String,
        /// Lay a setting over the recipe, for example optimiser.learning_rate=2e-5 or teacher.train.epochs=1.
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Another seed; a teacher keeps its own.
        #[arg(long)]
        seed: Option<u64>,
        /// Say what would happen, make a few updates to say how long it would take, and write nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// From a folder of texts to a distilled student: teacher, student alone, distilled student, and their table.
    Distill {
        /// Corpus folder.
        data: PathBuf,
        /// Size of the experiment.
        #[arg(long, default_value = "full")]
        profile: String,
        /// Lay a setting over the students' recipes, behind `teacher.` over the teacher's (teacher.model.weights=my-bert);
        /// `data.` and `device` settings go to all three, `objective`, `teaching` and `transfer` to the distilled one alone.
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Another seed for both students.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Score a run on its test split, on dev, or on a file of the corpus's format, with figures per class.
    Test {
        /// A run's folder or name.
        run: PathBuf,
        /// On dev, which chose the weights, instead of test.
        #[arg(long, conflicts_with = "data")]
        dev: bool,
        /// Labelled texts to score instead of the run's test split.
        #[arg(long)]
        data: Option<PathBuf>,
    },
    /// Classify texts: one JSON line each, in order; "-" reads them from standard input, one a line.
    Predict {
        /// A run's folder or name.
        run: PathBuf,
        /// Texts, or "-".
        #[arg(required = true)]
        texts: Vec<String>,
    },
    /// The table of all finished runs, mean ± sd over seeds.
    Table,
    /// The finished runs.
    List,
    /// Copy what tables need of finished runs (report, curve, test answers) to notebooks/results/runs.
    Keep {
        /// Folders or names of runs.
        #[arg(required = true)]
        runs: Vec<PathBuf>,
    },
    /// Fetch a public corpus (thucnews-title, verified by its blob ids), or a BERT checkpoint of a hub (OWNER/NAME).
    Fetch {
        /// Its name, for example thucnews-title or google-bert/bert-base-chinese.
        name: String,
        /// The hub that has the checkpoint; a mirror of it does as well.
        #[arg(long, default_value = "https://huggingface.co")]
        hub: String,
        /// Where corpora lie.
        #[arg(long, default_value = "data")]
        into: PathBuf,
    },
}
