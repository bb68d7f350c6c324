//! Where runs are stored, and the one way to get one: ask for a recipe on a corpus. A finished run
//! is opened, an interrupted one continues, a new one is trained. The teachers of a distillation
//! are obtained first, in the same way.

use super::model_factory::{self, BuiltModel, StatePass};
use super::opened_checkpoints::OpenedCheckpoints;
use super::planned_run::PlannedRun;
use super::recipe::Recipe;
use super::results::{MAIN_SET, StoredResults};
use super::run::{self, Run, RunReport, TaughtBy};
use super::step_timer::StepTimer;
use super::tensorboard;
use crate::data::batch::eval_batches;
use crate::data::{Corpus, Example, Split, TextInput, TokenizedSplit, Tokenizer};
use crate::device::{self, Environment};
use crate::evaluation::{self, Scores, SplitPass, remove_kept, to_array};
use crate::models::{Checkpoint, Classifier, ForwardPass, ModelConfig, hidden_width};
use crate::threads::ThreadPolicy;
use crate::training::progress::TextClock;
use crate::training::{
    Activity, PooledStates, Progress, ProgressCallback, Trainer, TrainingOutcome, progress, state,
};
use crate::{Error, Result, files};
use std::fs::File;
use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use tch::{Device, Kind, Tensor};

/// Between two lines of a run's `log.txt`, evaluations aside.
const LOG_INTERVAL: Duration = Duration::from_secs(30);
/// Prefix of the file names of pretrained checkpoints' states.
const PRETRAINED: &str = "pretrained";

/// Removes the states that [`RunStore::pretrained_states`] keeps in a folder.
pub(crate) fn forget_pretrained_states(folder: &Path) -> Result<()> {
    remove_kept(folder, PRETRAINED)
}

/// The folder of checkpoints and runs, and the project's stored results.
#[derive(Debug, Clone)]
pub struct RunStore {
    checkpoints: PathBuf,
    /// Where pretrained checkpoints are looked for in addition to `checkpoints`.
    pretrained: Vec<PathBuf>,
    results: PathBuf,
    threads: ThreadPolicy,
    opened: OpenedCheckpoints,
}

impl RunStore {
    /// A store in this folder of checkpoints. Stored results are those of the project around it.
    pub fn new(checkpoints: impl Into<PathBuf>) -> RunStore {
        let checkpoints = checkpoints.into();
        let results = checkpoints.join("../notebooks/results");
        RunStore {
            checkpoints,
            pretrained: Vec::new(),
            results,
            threads: ThreadPolicy::Unchanged,
            opened: OpenedCheckpoints::default(),
        }
    }

    /// The same store; this policy decides the number of threads of its runs.
    pub fn with_threads(self, threads: ThreadPolicy) -> RunStore {
        RunStore { threads, ..self }
    }

    /// The same store, which looks for pretrained checkpoints in another folder too.
    pub fn with_pretrained(mut self, folder: impl Into<PathBuf>) -> RunStore {
        self.pretrained.push(folder.into());
        self
    }

    /// The same store with the stored results of another folder.
    pub fn with_results(self, results: impl Into<PathBuf>) -> RunStore {
        RunStore {
            results: results.into(),
            ..self
        }
    }

    /// The folder of checkpoints.
    pub fn checkpoints(&self) -> &Path {
        &self.checkpoints
    }

    /// The project's stored results.
    pub fn stored_results(&self) -> Result<StoredResults> {
        StoredResults::open(&self.results)
    }

    /// The folder of a run, finished or not.
    pub fn run_folder(&self, id: &str) -> PathBuf {
        self.checkpoints.join("runs").join(id)
    }

    /// All finished runs, by name. A damaged one is an error of its own.
    pub fn runs(&self) -> Vec<Result<Run>> {
        let folders = files::sorted_entries(&self.checkpoints.join("runs")).unwrap_or_default();
        let finished = folders.iter().filter(|folder| files::has_checksums(folder));
        finished.map(Run::open).collect()
    }

    /// A finished run by its folder, or by its name among this store's runs. `.` and `./NAME` are
    /// folders, whatever runs there are.
    pub fn find(&self, run: &Path) -> Result<Run> {
        let may_be_name = run.components().all(|c| matches!(c, Component::Normal(_)));
        let named = self.checkpoints.join("runs").join(run);
        Run::open(if may_be_name && named.is_dir() {
            &named
        } else {
            run
        })
    }

    /// What a recipe means on a corpus. Files are hashed and the transfer set is made; no model is
    /// built or trained.
    pub fn plan(&self, recipe: &Recipe, corpus: &Corpus) -> Result<PlannedRun> {
        recipe.validate()?;
        let mut teachers = Vec::new();
        for teacher in recipe.teachers() {
            teachers.push(self.plan(&teacher, corpus)?.id);
        }
        let architecture = recipe.model.architecture()?;
        let checkpoint = architecture.checkpoint();
        let checkpoint = checkpoint.map(|name| self.checkpoint(name)).transpose()?;
        Ok(PlannedRun {
            threads: self.threads,
            ..PlannedRun::resolve(recipe, corpus, checkpoint, teachers)?
        })
    }

    /// A pretrained checkpoint by its name. This store opens it once, and again if its files
    /// changed.
    pub fn checkpoint(&self, name: &str) -> Result<Checkpoint> {
        let folders = std::iter::once(&self.checkpoints).chain(&self.pretrained);
        let has_it = |folder: &&PathBuf| folder.join(name).is_dir();
        let folder = folders.clone().find(has_it).unwrap_or(&self.checkpoints);
        self.opened.checkpoint(folder, name)
    }

    /// Whether a planned run is finished in this store. (Its weights may have been removed.)
    pub fn is_finished(&self, plan: &PlannedRun) -> bool {
        files::weights_hash(&self.run_folder(&plan.id)).is_some()
    }

    /// The finished run of a recipe on a corpus: found, continued or trained.
    pub fn run(&self, recipe: &Recipe, corpus: &Corpus, callback: ProgressCallback) -> Result<Run> {
        let plan = self.plan(recipe, corpus)?;
        let folder = self.run_folder(&plan.id);
        if !self.is_finished(&plan) {
            let mut teachers = Vec::new();
            for teacher in recipe.teachers() {
                teachers.push(self.run(&teacher, corpus, callback)?);
            }
            let waiting = Progress::begin(&plan.id, Activity::Waiting);
            let _lock = files::lock_folder(&folder, &mut || waiting.send(callback))?;
            // Another process may have finished the run while this one waited for the lock.
            if !self.is_finished(&plan) {
                self.train(&plan, &folder, &teachers, callback)?;
            }
        }
        self.check_teacher_weights(&plan, &folder)?;
        for state in files::content_addressed(&folder, state::PREFIX) {
            // A state that cannot be removed is removed the next time.
            let _ = std::fs::remove_file(state);
        }
        Ok(Run::open(folder)?.with_custom_code(&recipe.model))
    }

    /// The finished run of a recipe on a corpus, if there is one in this store or among the stored
    /// results.
    pub fn find_finished(&self, recipe: &Recipe, corpus: &Corpus) -> Result<Option<Run>> {
        let plan = self.plan(recipe, corpus)?;
        let folder = self.run_folder(&plan.id);
        self.check_teacher_weights(&plan, &folder)?;
        if files::has_checksums(&folder) {
            return Ok(Some(Run::open(folder)?.with_custom_code(&recipe.model)));
        }
        Ok(self.stored_results()?.find(MAIN_SET, &plan.id))
    }

    /// Adds what tables need of a finished run to a set of the stored results. Returns the new
    /// file.
    pub fn add_to_results(&self, set: &str, run: &Run) -> Result<PathBuf> {
        self.stored_results()?.add(set, run)
    }

    /// A timer of a recipe's updates. Nothing is written. The teacher's logits are zeros, which
    /// cost the same.
    pub fn step_timer(&self, recipe: &Recipe, corpus: &Corpus) -> Result<StepTimer> {
        let plan = self.plan(recipe, corpus)?;
        let tokenizer = model_factory::build_tokenizer(&plan)?;
        let mut data = model_factory::build_data(&plan, &tokenizer, &[], &mut progress::silent)?;
        if recipe.teacher.is_some() {
            let size = [data.train.ids.len() as i64, corpus.labels.len() as i64];
            data.teacher_logits = Some(Tensor::zeros(size, (Kind::Float, Device::Cpu)));
            data.teacher_hidden = self.zero_teacher_states(recipe, corpus)?;
        }
        let built = model_factory::build_random_model(&plan, &tokenizer)?;
        StepTimer::new(plan, built.model, data)
    }

    /// Pooled states `[text, width]` of the last layer of a recipe's checkpoint before any
    /// training. `folder` keeps them until [`forget_pretrained_states`], also in parts after an
    /// interruption.
    ///
    /// # Errors
    /// If the recipe's model has no checkpoint.
    pub(crate) fn pretrained_states(
        &self,
        recipe: &Recipe,
        corpus: &Corpus,
        texts: &[TextInput],
        folder: &Path,
        callback: ProgressCallback,
    ) -> Result<Tensor> {
        Progress::begin(&recipe.name, Activity::Preparing).send(callback)?;
        let plan = self.plan(recipe, corpus)?;
        let Some(checkpoint) = &plan.checkpoint else {
            let fix = "name a recipe of a BERT";
            return Err(Error::recipe("model", "no pretrained checkpoint", fix));
        };
        let last = match &recipe.model {
            ModelConfig::Bert(bert) => bert.layers_of(&checkpoint.config),
            _ => checkpoint.config.num_hidden_layers,
        };
        let tokenizer = model_factory::build_tokenizer(&plan)?;
        let built = model_factory::build_model(&plan, &tokenizer, &[])?;
        let split = tokenizer.encode(texts)?;
        let pass = StatePass {
            plan: &plan,
            model: built.model.as_ref(),
            split: &split,
            layer: last,
        };
        pass.states(folder, &format!("{PRETRAINED}-{}", plan.id), callback)
    }

    /// Zeros for the teacher's pooled states that an objective names, for timing.
    fn zero_teacher_states(&self, recipe: &Recipe, corpus: &Corpus) -> Result<Vec<PooledStates>> {
        let layers = recipe.objective.objective()?.hidden_layers().teacher;
        let Some(teacher) = recipe
            .teachers()
            .into_iter()
            .next()
            .filter(|_| !layers.is_empty())
        else {
            return Ok(Vec::new());
        };
        let plan = self.plan(&teacher, corpus)?;
        let tokenizer = model_factory::build_tokenizer(&plan)?;
        let built = model_factory::build_random_model(&plan, &tokenizer)?;
        let mut states = Vec::new();
        for layer in layers {
            let width = hidden_width(built.model.as_ref(), layer, "the teacher")?;
            states.push(PooledStates::zeros(width as usize));
        }
        Ok(states)
    }

    /// Hashes of the teachers' weights that taught a planned run or will teach it, as far as they
    /// are known.
    ///
    /// # Errors
    /// If a finished or half-trained run recorded other hashes than its teachers have now.
    fn check_teacher_weights(&self, plan: &PlannedRun, folder: &Path) -> Result<TaughtBy> {
        let mut here = TaughtBy::new();
        for id in &plan.teachers {
            if let Some(weights) = files::weights_hash(&self.run_folder(id)) {
                here.insert(id.clone(), weights);
            }
        }
        let begun = !files::content_addressed(folder, state::PREFIX).is_empty();
        if !files::has_checksums(folder) && !begun {
            return Ok(here);
        }
        let path = folder.join(run::TAUGHT_BY);
        let before = if path.exists() {
            files::read_json(&path)?
        } else {
            TaughtBy::new()
        };
        for (id, weights) in &before {
            if here.get(id).is_some_and(|here| here != weights) {
                let problem = format!(
                    "taught by other weights of {id} than those here: the teacher was trained \
                     again, or elsewhere"
                );
                let fix = "remove this folder, or bring its teacher back";
                return Err(Error::file(folder, problem, fix));
            }
        }
        Ok(before)
    }

    /// Trains a planned run's model, or continues, and writes the run's files.
    fn train(
        &self,
        plan: &PlannedRun,
        folder: &Path,
        teachers: &[Run],
        callback: ProgressCallback,
    ) -> Result<()> {
        let taught_by = self.check_teacher_weights(plan, folder)?;
        files::remove_temporary_files(folder)?;
        if !taught_by.is_empty() {
            files::write_json(&folder.join(run::TAUGHT_BY), &taught_by)?;
        }
        let path = folder.join("log.txt");
        let log = File::options().create(true).append(true).open(&path);
        let mut log = log.map_err(Error::io(&path))?;
        for notice in &plan.notices {
            writeln!(log, "{}: {notice}", plan.id).map_err(Error::io(&path))?;
        }
        let mut to_log = progress::print_lines(log, LOG_INTERVAL);
        let mut callback = |progress: &Progress| {
            let _ = to_log(progress);
            callback(progress)
        };

        let preparing = Progress::begin(&plan.id, Activity::Preparing);
        preparing.send(&mut callback)?;
        let tokenizer = model_factory::build_tokenizer(plan)?;
        let data = model_factory::build_data(plan, &tokenizer, teachers, &mut callback)?;
        preparing.send(&mut callback)?;
        let mut built = model_factory::build_model(plan, &tokenizer, teachers)?;
        if files::content_addressed(folder, state::PREFIX).is_empty() {
            model_factory::probe_head(plan, &built, &data, folder, &mut callback)?;
        }
        let model = built.model.as_ref();
        let objective_params = model_factory::build_objective_params(plan, model, &data)?;
        let architecture = plan.recipe.model.architecture()?;
        let trainer = Trainer {
            // Fine-tuning on few texts can make a linear probe worse.
            evaluate_before_training: architecture.probed_head(&built.saved.sizes).is_some(),
            ..model_factory::build_trainer(plan, model, &data, &objective_params)?
        };
        let outcome = trainer.train(folder, &mut callback)?;
        let scores = score_splits(plan, folder, &tokenizer, model, &mut callback)?;
        built.saved.temperature = scores.temperature;
        let trained = Trained {
            tokenizer,
            train_examples: data.lines.len(),
            outcome,
            scores,
        };
        self.write_run(plan, folder, &built, trained)
    }

    /// Writes the files of a finished run, the checksums last.
    fn write_run(
        &self,
        plan: &PlannedRun,
        folder: &Path,
        built: &BuiltModel,
        trained: Trained,
    ) -> Result<()> {
        let Trained {
            tokenizer,
            train_examples,
            outcome,
            scores,
        } = trained;
        run::write_csv(&folder.join("curve.csv"), &outcome.curve)?;
        tensorboard::write(&folder.join("curve.tfevents"), &outcome.curve)?;
        tokenizer.write(folder)?;
        files::write_json(&folder.join("model.json"), &built.saved)?;
        files::write_json(&folder.join("labels.json"), &plan.corpus.labels)?;
        built
            .model
            .params()
            .write(&folder.join("model.safetensors"))?;
        let report = RunReport {
            format: run::FORMAT,
            id: plan.id.clone(),
            previous_id: None,
            recipe: plan.recipe.clone(),
            corpus: plan.corpus.name.clone(),
            corpus_fingerprint: plan.corpus.fingerprint.clone(),
            text_pairs: plan.corpus.has_pairs(),
            train_examples,
            transfer_examples: plan.transfer_set.len(),
            teachers: plan.teachers.clone(),
            notices: plan.notices.clone(),
            parameters: built.model.params().count(),
            steps: outcome.steps,
            best_step: outcome.best_step,
            precision: plan.precision,
            environment: Environment::of(plan.device),
            thread_changes: match outcome.thread_changes.len() {
                1 => Vec::new(), // `environment` says it
                _ => outcome.thread_changes,
            },
            commit: device::commit(&self.checkpoints),
            seconds: outcome.seconds,
            temperature: scores.temperature,
            dev: scores.dev,
            test: scores.test,
        };
        Run::write_report(folder, &report)
    }
}

/// What a run's files are written from, in addition to its plan and model.
struct Trained {
    tokenizer: Tokenizer,
    train_examples: usize,
    outcome: TrainingOutcome,
    scores: SplitScores,
}

/// Scores on dev and test; test's are empty if the recipe skips it.
struct SplitScores {
    dev: Scores,
    test: Scores,
    /// Divides the logits, if the recipe asks for temperature scaling.
    temperature: Option<f64>,
}

/// Scores the best model and writes the logits of dev and test. Both are one pass, so that a run
/// that is stopped in it computes nothing again.
fn score_splits(
    plan: &PlannedRun,
    folder: &Path,
    tokenizer: &Tokenizer,
    model: &dyn Classifier,
    callback: ProgressCallback,
) -> Result<SplitScores> {
    let splits = if plan.recipe.data.skip_test {
        vec![Split::Dev]
    } else {
        vec![Split::Dev, Split::Test]
    };
    let all = joined_splits(plan, &splits, tokenizer)?;
    let pass = SplitPass {
        model,
        split: &all.texts,
        batches: &all.batches,
        pass: ForwardPass::evaluation(plan.precision),
    };
    let mut clock = TextClock::new(&plan.id, Activity::Scoring, all.texts.ids.len());
    let mut check_stop = |done| clock.at(done).send(callback);
    let mut logits = pass
        .resumable_outputs(folder, "scoring", &mut check_stop)?
        .logits;
    let temperature = logit_temperature(plan, &logits)?;
    if let Some(temperature) = temperature {
        logits /= temperature;
    }
    let (mut scores, mut first) = (Vec::new(), 0);
    for &split in &splits {
        let examples = plan.corpus.split(split);
        let labels = &all.texts.labels[first..first + examples.len()];
        let split_logits = logits.narrow(0, first as i64, examples.len() as i64);
        refuse_not_finite(folder, split, &split_logits, examples)?;
        run::write_logits(folder, split, &split_logits, labels)?;
        scores.push(evaluation::score(&split_logits, labels)?);
        first += examples.len();
    }
    let mut scores = scores.into_iter();
    Ok(SplitScores {
        dev: scores.next().unwrap_or_default(),
        test: scores.next().unwrap_or_default(),
        temperature,
    })
}

/// Several splits as one, in batches whose texts are all of the same split.
struct JoinedSplits {
    texts: TokenizedSplit,
    batches: Vec<Vec<usize>>,
}

fn joined_splits(
    plan: &PlannedRun,
    splits: &[Split],
    tokenizer: &Tokenizer,
) -> Result<JoinedSplits> {
    let train = &plan.recipe.train;
    let mut joined = JoinedSplits {
        texts: TokenizedSplit::default(),
        batches: Vec::new(),
    };
    for &split in splits {
        let tokenized = tokenizer.encode_split(plan.corpus.split(split))?;
        let first = joined.texts.ids.len();
        let size = train.batch_size;
        for batch in eval_batches(&tokenized, size, train.group_by_length, plan.device) {
            joined
                .batches
                .push(batch.iter().map(|row| first + row).collect());
        }
        joined.texts.append(tokenized);
    }
    Ok(joined)
}

/// The temperature that the recipe asks for, from a network's logits whose first rows are those of
/// dev.
fn logit_temperature(plan: &PlannedRun, logits: &Tensor) -> Result<Option<f64>> {
    let Some(scaling) = plan.recipe.train.temperature_scaling else {
        return Ok(None);
    };
    let dev = &plan.corpus.dev;
    let dev_logits = to_array(&logits.narrow(0, 0, dev.len() as i64))?;
    let labels: Vec<usize> = dev.iter().map(|example| example.label).collect();
    Ok(Some(scaling.temperature(dev_logits.view(), &labels)))
}

/// Refuses a model with a logit that is not a number or infinite, so that its run never counts as
/// finished.
fn refuse_not_finite(
    folder: &Path,
    split: Split,
    logits: &Tensor,
    examples: &[Example],
) -> Result<()> {
    let finite = logits.isfinite().all_dim(1, false);
    let Some(row) = Vec::<bool>::try_from(finite)?
        .iter()
        .position(|finite| !finite)
    else {
        return Ok(());
    };
    let line = examples[row].line;
    let problem = format!("the logits of line {line} of {split:?} are not finite");
    let fix = "train again with a lower learning rate or in fp32; the run is not finished";
    Err(Error::file(folder, problem, fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logit_that_is_not_finite_is_refused_with_the_line_of_its_text() {
        let examples = [3, 8].map(|line| Example {
            text: "基金".into(),
            text_pair: None,
            label: 0,
            line,
        });
        let refuse = |logits: [[f32; 2]; 2]| {
            let logits = Tensor::from_slice2(&logits);
            refuse_not_finite(Path::new("run"), Split::Test, &logits, &examples)
        };
        refuse([[0.0, 1.0], [2.0, 3.0]]).unwrap();
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = refuse([[0.0, 1.0], [odd, 3.0]]).unwrap_err().to_string();
            assert!(error.contains("line 8 of Test"), "{error}");
        }
    }
}
