//! `kd`: the crate's verbs on the command line. Each arm reads its arguments and calls the library once.

use anyhow::Result;
use clap::{Parser, Subcommand};
use kd_lib::data::{Corpus, fetch, format};
use kd_lib::lab::Lab;
use kd_lib::predict::Predictor;
use kd_lib::progress;
use kd_lib::recipe::Recipe;
use kd_lib::report::{self, Row};
use kd_lib::run::Run;
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
        /// Say what would happen, make two updates to say how long it would take, and write nothing.
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
    /// Fetch a public corpus into a folder of corpora, verified by its blob ids: thucnews-title.
    Fetch {
        /// Its name.
        name: String,
        /// Where corpora lie.
        #[arg(long, default_value = "data")]
        into: PathBuf,
    },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let lab = arguments.checkpoints.as_ref().map_or_else(Lab::open, |c| Ok(Lab::at(c)));
    match arguments.verb {
        Verb::Run { recipe, data, profile, mut set, seed, dry_run } => {
            set.extend(seed.map(|s| format!("seed={s}")));
            let recipe = Recipe::read(recipe, &profile, &set)?;
            let corpus = Corpus::open(data)?;
            if dry_run {
                println!("{}", lab?.rehearse(&recipe, &corpus)?.describe(2)?);
                return Ok(());
            }
            let run = train(&lab?, &recipe, &corpus)?;
            eprintln!("{}", report::table(&[Row::of(std::slice::from_ref(&run))]).text());
            println!("{}", run.path.display());
        }
        Verb::Distill { data, profile } => {
            let (lab, corpus) = (lab?, Corpus::open(data)?);
            let read = |name: &str| Recipe::read(lab.recipes().join(name), &profile, &[]);
            let recipes = ["teacher.toml", "student.toml", "distilled.toml"].map(read);
            let runs = recipes.into_iter().map(|recipe| train(&lab, &recipe?, &corpus)).collect::<Result<Vec<_>>>()?;
            eprintln!("{}", report::table(&report::rows(&runs)).text());
            print!("{}", report::per_class(&runs[2].report.test, &runs[2].labels).text());
            println!("{}", runs[2].path.display());
        }
        Verb::Test { run, dev, data } => {
            let run = lab?.find(&run)?;
            let scores = match data {
                None if dev => run.report.dev.clone(),
                None => run.report.test.clone(),
                Some(file) => Predictor::open(&run)?.score(&format::read_examples(
                    &file,
                    format::Format::guess(&file)?,
                    &run.labels,
                )?)?,
            };
            print!("{}", report::per_class(&scores, &run.labels).text());
        }
        Verb::Predict { run, texts } => predict(&lab?.find(&run)?, &texts)?,
        Verb::Table => print!("{}", report::table(&report::rows(&lab?.runs()?)).text()),
        Verb::List => lab?.runs()?.iter().for_each(|r| {
            println!("{}\ttest accuracy {:.4}\t{}", r.report.id, r.report.test.accuracy, r.report.corpus)
        }),
        Verb::Keep { runs } => {
            let lab = lab?;
            for run in runs {
                println!("{}", lab.keep(&lab.find(&run)?)?.path.display());
            }
        }
        Verb::Fetch { name, into } => println!("{}", fetch::fetch(&name, &into)?.display()),
    }
    Ok(())
}

fn train(lab: &Lab, recipe: &Recipe, corpus: &Corpus) -> Result<Run> {
    Ok(lab.run(recipe, corpus, &mut progress::lines(std::io::stderr(), Duration::from_secs(5)))?)
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
