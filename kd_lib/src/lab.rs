//! Where runs live, and the one way to get one: ask for a recipe on a corpus. A finished run is opened, an
//! interrupted one goes on, a new one is trained; a distillation's teacher is got the same way first.

use crate::data::{Corpus, Encoder, Pieces, Split, Vocabulary};
use crate::device::{self, Environment};
use crate::metrics::Scores;
use crate::models::{Bert, BiLstm, BiLstmConfig, Blueprint, Classifier};
use crate::plan::{self, Plan};
use crate::progress::{self, Tick, Watch};
use crate::recipe::{Data, Model, Recipe};
use crate::rehearsal::Rehearsal;
use crate::run::{self, Report, Run};
use crate::strategies::objective::UNLABELLED;
use crate::update::Material;
use crate::{Error, Result, error::BUG, events, files, teaching, train};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// Between two lines of a run's `log.txt`, evaluations aside.
const LOG_EVERY: Duration = Duration::from_secs(30);

/// The folder that holds checkpoints and runs, and the shelf that holds what tables need of earlier ones.
#[derive(Debug, Clone)]
pub struct Lab {
    checkpoints: PathBuf,
    shelf: PathBuf,
}

impl Lab {
    /// A lab in this folder.
    pub fn at(checkpoints: impl Into<PathBuf>) -> Lab {
        let checkpoints = checkpoints.into();
        Lab { shelf: checkpoints.join("../notebooks/results/runs"), checkpoints }
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> &Path {
        &self.checkpoints
    }

    /// All finished runs, by name; one that is damaged is an error of its own.
    pub fn runs(&self) -> Vec<Result<Run>> {
        let paths = files::listed(&self.checkpoints.join("runs")).unwrap_or_default();
        paths.iter().filter(|path| files::is_sealed(path)).map(Run::open).collect()
    }

    /// A finished run by its folder, or by its name among this lab's runs.
    pub fn find(&self, run: &Path) -> Result<Run> {
        let named = self.checkpoints.join("runs").join(run);
        Run::open(if named.is_dir() { &named } else { run })
    }

    /// What a recipe means on a corpus; nothing is computed, not even its teacher.
    pub fn plan(&self, recipe: &Recipe, corpus: &Corpus) -> Result<Plan> {
        plan::check(recipe)?;
        let teachers = recipe.teachers();
        let ids = teachers.iter().map(|t| Ok(self.plan(t, corpus)?.id)).collect::<Result<Vec<String>>>()?;
        Plan::resolve(recipe, corpus, &self.checkpoints, ids)
    }

    /// Whether a plan's run stands among the runs and had weights (they may be away by now): a kept copy had none.
    pub fn is_finished(&self, plan: &Plan) -> bool {
        files::weights_hash(&self.checkpoints.join("runs").join(&plan.id)).is_some()
    }

    /// The finished run of a recipe on a corpus: found, gone on with, or trained.
    pub fn run(&self, recipe: &Recipe, corpus: &Corpus, watch: Watch) -> Result<Run> {
        let plan = self.plan(recipe, corpus)?;
        let folder = self.checkpoints.join("runs").join(&plan.id);
        let wanted = || !self.is_finished(&plan);
        let teachers = if wanted() { recipe.teachers() } else { Vec::new() };
        let teachers = teachers.iter().map(|t| self.run(t, corpus, watch)).collect::<Result<Vec<Run>>>()?;
        let _lock = if wanted() { Some(files::lock(&folder)?) } else { None };
        let taught_by = self.taught_by(&plan, &folder)?;
        if wanted() {
            files::sweep(&folder)?;
            (!taught_by.is_empty()).then(|| files::write_json(&folder.join(run::TAUGHT_BY), &taught_by)).transpose()?;
            let path = folder.join("log.txt");
            let log = File::options().create(true).append(true).open(&path).map_err(Error::io(&path))?;
            let mut to_file = progress::lines(log, LOG_EVERY);
            let mut both = |tick: &Tick| {
                let _ = to_file(tick);
                watch(tick)
            };
            self.finish(&plan, &folder, &teachers, &mut both)?;
        }
        // One that cannot be removed goes the next time; a run that was killed here is finished all the same.
        files::sealed(&folder, "state-").iter().for_each(|spent| drop(std::fs::remove_file(spent)));
        Run::open(folder)
    }

    /// The finished run of a recipe on a corpus where there is one: among the runs, or on the shelf of results.
    pub fn recall(&self, recipe: &Recipe, corpus: &Corpus) -> Result<Option<Run>> {
        let plan = self.plan(recipe, corpus)?;
        let folders = [self.checkpoints.join("runs"), self.shelf.clone()].map(|f| f.join(&plan.id));
        self.taught_by(&plan, &folders[0])?;
        folders.into_iter().find(|f| files::is_sealed(f)).map(Run::open).transpose()
    }

    /// Copies what tables need of a finished run to the shelf of results.
    pub fn keep(&self, run: &Run) -> Result<Run> {
        run.keep(&self.shelf)
    }

    /// A recipe ready to be tried out; nothing is written. For a teacher's logits stand zeros, which cost the same.
    pub fn rehearse(&self, recipe: &Recipe, corpus: &Corpus) -> Result<Rehearsal> {
        let plan = self.plan(recipe, corpus)?;
        let encoder = encoder(&plan)?;
        let material = material(&plan, &encoder, &[], &mut progress::silent)?;
        let size = [material.train.ids.len() as i64, corpus.labels.len() as i64];
        let teacher = recipe.teacher.as_ref().map(|_| Tensor::zeros(size, (Kind::Float, Device::Cpu)));
        let (_, model) = build(&plan, &encoder)?;
        Ok(Rehearsal::new(plan, model, Material { teacher, ..material }))
    }

    /// Which weights teach a run, by their own run's id, as far as they are known: a run begun by an earlier version
    /// says nothing. Refused where other weights taught this run, or the part of it that is done.
    fn taught_by(&self, plan: &Plan, folder: &Path) -> Result<BTreeMap<String, String>> {
        let weights = |id: &String| Some((id.clone(), files::weights_hash(&self.checkpoints.join("runs").join(id))?));
        let here: BTreeMap<String, String> = plan.teachers.iter().filter_map(weights).collect();
        if !files::is_sealed(folder) && files::sealed(folder, "state-").is_empty() {
            return Ok(here);
        }
        let path = folder.join(run::TAUGHT_BY);
        let before: BTreeMap<String, String> = if path.exists() { files::read_json(&path)? } else { BTreeMap::new() };
        if let Some((id, _)) = before.iter().find(|(id, weights)| here.get(*id).is_some_and(|here| here != *weights)) {
            let problem = format!("taught by other weights of {id} than those here: it was trained anew, or elsewhere");
            return Err(Error::file(folder, problem, "remove this folder, or bring its teacher back"));
        }
        Ok(before)
    }

    fn finish(&self, plan: &Plan, folder: &Path, teachers: &[Run], watch: Watch) -> Result<()> {
        let (encoder, corpus) = (encoder(plan)?, &plan.corpus);
        let material = material(plan, &encoder, teachers, watch)?;
        let (blueprint, model) = build(plan, &encoder)?;
        let outcome = train::train(plan, model.as_ref(), &material, folder, watch)?;
        let scores = |split| -> Result<Scores> {
            let encoded = encoder.encode_split(corpus.split(split))?;
            let logits = train::evaluate(model.as_ref(), &encoded, &plan.evaluation(&encoded), plan.precision);
            run::write_logits(folder, split, &logits, &encoded.labels)?;
            let labels: Vec<usize> = corpus.split(split).iter().map(|e| e.label).collect();
            Ok(Scores::of(run::to_array(&logits)?.view(), &labels))
        };
        let report = Report {
            format: run::FORMAT,
            id: plan.id.clone(),
            recipe: plan.recipe.clone(),
            corpus: corpus.name.clone(),
            corpus_fingerprint: corpus.fingerprint.clone(),
            train_examples: corpus.train.len(),
            transfer_examples: plan.extras.len(),
            teacher: (!plan.teachers.is_empty()).then(|| plan.teachers.join("+")),
            parameters: model.params().count(),
            steps: plan.steps,
            best_step: outcome.best_step,
            precision: plan.precision,
            environment: Environment::of(plan.device),
            commit: device::commit(&self.checkpoints),
            seconds: outcome.seconds,
            dev: scores(Split::Dev)?,
            test: if plan.recipe.data.blind { Scores::default() } else { scores(Split::Test)? },
        };
        run::write_csv(&folder.join("curve.csv"), &outcome.curve)?;
        events::write(&folder.join("curve.tfevents"), &outcome.curve)?;
        encoder.write(folder)?;
        files::write_json(&folder.join("model.json"), &blueprint)?;
        files::write_json(&folder.join("labels.json"), &corpus.labels)?;
        model.params().write(&folder.join("model.safetensors"))?;
        Run::write_report(folder, &report)
    }
}

/// The texts of a run as its model reads them, and what its teachers say of them.
fn material(plan: &Plan, encoder: &Encoder, teachers: &[Run], watch: Watch) -> Result<Material> {
    let (mut train, dev) = (encoder.encode_split(&plan.corpus.train)?, encoder.encode_split(&plan.corpus.dev)?);
    let extras: Vec<&str> = plan.extras.iter().map(|e| e.text.as_str()).collect();
    train.ids.extend(encoder.encode(&extras)?);
    train.labels.extend(plan.extras.iter().map(|e| e.label.map_or(UNLABELLED, |label| label as i64)));
    let texts: Vec<&str> = plan.corpus.train.iter().map(|e| e.text.as_str()).chain(extras).collect();
    let teacher =
        (!teachers.is_empty()).then(|| teaching::taught(&plan.recipe.teaching, teachers, &texts, watch)).transpose()?;
    Ok(Material { train, dev, teacher })
}

fn encoder(plan: &Plan) -> Result<Encoder> {
    let (corpus, Data { max_tokens, cut, .. }) = (&plan.corpus, plan.recipe.data);
    match (&plan.recipe.model, &plan.checkpoint) {
        (Model::Bert { prefix, prune, .. }, Some((folder, _))) => {
            let pieces = Pieces::open(folder, prefix, max_tokens, cut)?;
            let splits = [Split::Train, Split::Dev, Split::Test];
            let examples = splits.iter().flat_map(|&s| plan.whole.split(s));
            let texts: Vec<&str> = examples.map(|e| e.text.as_str()).collect();
            Ok(Encoder::Pieces(Box::new(if *prune { pieces.keep_only(&texts)? } else { pieces })))
        }
        (Model::Bilstm { vocabulary, vocabulary_file, .. }, _) => {
            let vocabulary = match vocabulary_file {
                Some(path) => Vocabulary::read(path)?,
                None => {
                    let unlabelled = plan.extras.iter().filter(|e| !e.made).map(|e| e.text.as_str());
                    Vocabulary::build(corpus.train.iter().map(|e| e.text.as_str()).chain(unlabelled), *vocabulary)
                }
            };
            Ok(Encoder::Characters { vocabulary, max_tokens, cut })
        }
        (Model::Bert { .. }, None) => {
            Err(Error::recipe("model.weights", "no checkpoint", "name a BERT checkpoint folder"))
        }
    }
}

fn build(plan: &Plan, encoder: &Encoder) -> Result<(Blueprint, Box<dyn Classifier>)> {
    let classes = plan.corpus.labels.len() as i64;
    tch::manual_seed(plan.recipe.seed as i64);
    match (&plan.recipe.model, encoder, &plan.checkpoint) {
        (&Model::Bert { pretrained, pooling, .. }, Encoder::Pieces(pieces), Some((folder, config))) => {
            let mut config = config.clone();
            config.vocab_size = pieces.kept().map_or(config.vocab_size, |kept| kept.len() as i64);
            let model = match pretrained {
                true => Bert::pretrained(folder, &config, pooling, classes, pieces, plan.device)?,
                false => Bert::new(&config, pooling, classes, plan.device),
            };
            Ok((Blueprint::Bert { config, pooling, classes }, Box::new(model)))
        }
        (
            &Model::Bilstm { embedding, hidden, dropout, pool_padding, embedding_spread, .. },
            Encoder::Characters { vocabulary, .. },
            _,
        ) => {
            let entries = vocabulary.entries().len() as i64;
            let config = BiLstmConfig { vocabulary: entries, embedding, hidden, classes, dropout, pool_padding };
            let model = BiLstm::new(&config, plan.device);
            if let Some((folder, _)) = &plan.checkpoint {
                model.begin_with(folder, vocabulary)?;
            }
            let _guard = tch::no_grad_guard();
            let _ = model.word_embedding().shallow_clone().g_mul_scalar_(embedding_spread.unwrap_or(1.0));
            Ok((Blueprint::Bilstm { config }, Box::new(model)))
        }
        _ => Err(Error::recipe("model", "model and encoder do not belong together", BUG)),
    }
}
