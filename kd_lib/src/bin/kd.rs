//! `kd`: the crate's verbs on the command line. Each arm reads its arguments and calls the library once.

use anyhow::Result;
use clap::{Parser, Subcommand};
use kd_lib::data::{Corpus, format};
use kd_lib::lab::Lab;
use kd_lib::predict::Predictor;
use kd_lib::recipe::Recipe;
use kd_lib::report::{self, Row};
use kd_lib::run::Run;
use kd_lib::{models::e5, progress};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// Knowledge distillation for text classification: BERT teacher, BiLSTM student.
#[derive(Parser)]
#[command(
    version,
    after_help = "First steps:\n  kd run notebooks/recipes/distilled.toml --profile quick --data data/sample\n  kd table\n  kd predict RUN 文本\n\nRUN is a run's folder, or its name under checkpoints/runs."
)]
struct Arguments {
    /// Folder of weights and runs; by default the project's own.
    #[arg(long, global = true)]
    checkpoints: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Train a recipe, or find its finished run; prints the run's folder last.
    Run {
        /// The recipe, for example notebooks/recipes/student.toml.
        recipe: PathBuf,
        /// Corpus folder; `make corpus` lays data/default, data/sample is a toy.
        #[arg(long, default_value = "data/default")]
        data: PathBuf,
        /// Size of the experiment: a file under profiles/ beside the recipe.
        #[arg(long, default_value = "full")]
        profile: String,
        /// Lay a setting over the recipe, for example optimiser.learning_rate=2e-5 or teacher.train.epochs=1.
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Another seed; a teacher keeps its own.
        #[arg(long)]
        seed: Option<u64>,
    },
    /// Score a run on its test split, or on a file of the corpus's format, with figures per class.
    Test {
        /// A run's folder or name.
        run: PathBuf,
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
    /// Turn the registry's 4-bit archive into a BERT checkpoint folder.
    Convert { archive: PathBuf, tokenizer: PathBuf, folder: PathBuf },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let lab = arguments.checkpoints.as_ref().map_or_else(Lab::open, |c| Ok(Lab::at(c)));
    match arguments.verb {
        Verb::Run { recipe, data, profile, mut set, seed } => {
            set.extend(seed.map(|s| format!("seed={s}")));
            let recipe = Recipe::read(recipe, &profile, &set)?;
            let run = lab?.run(
                &recipe,
                &Corpus::open(data)?,
                &mut progress::lines(std::io::stderr(), Duration::from_secs(5)),
            )?;
            eprintln!("{}", report::text(&[Row::of(std::slice::from_ref(&run))]));
            println!("{}", run.path.display());
        }
        Verb::Test { run, data } => {
            let run = lab?.find(&run)?;
            let scores = match data {
                None => run.report.test.clone(),
                Some(file) => Predictor::open(&run)?.score(&format::read_examples(
                    &file,
                    format::Format::guess(&file)?,
                    &run.labels,
                )?)?,
            };
            print!("{}", report::per_class(&scores, &run.labels));
        }
        Verb::Predict { run, texts } => predict(&lab?.find(&run)?, &texts)?,
        Verb::Table => print!("{}", report::text(&report::rows(&lab?.runs()?))),
        Verb::List => lab?.runs()?.iter().for_each(|r| {
            println!("{}\ttest accuracy {:.4}\t{}", r.report.id, r.report.test.accuracy, r.report.corpus)
        }),
        Verb::Convert { archive, tokenizer, folder } => e5::convert(&archive, &tokenizer, &folder)?,
    }
    Ok(())
}

fn predict(run: &Run, texts: &[String]) -> Result<()> {
    let predictor = Predictor::open(run)?;
    let mut out = std::io::stdout().lock();
    if texts == ["-"] {
        return Ok(predictor.answer_lines(std::io::stdin().lock(), &mut out)?);
    }
    for answer in predictor.predict(&texts.iter().map(String::as_str).collect::<Vec<_>>())? {
        writeln!(out, "{}", serde_json::to_string(&answer)?)?;
    }
    Ok(())
}
