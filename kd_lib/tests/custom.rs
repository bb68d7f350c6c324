//! A model and an objective that this file defines, not the library: they train, they enter the
//! run's id by name, version and settings, and a program without them refuses the run.

use crate::common::{lock_generator, not_trained, recipe, sample};
use kd_lib::Result;
use kd_lib::data::{Batch, CharTokenizer, Corpus, DataConfig, Split, Tokenizer, Vocabulary};
use kd_lib::models::layers::{Linear, mean_over_tokens, new_linear, uniform};
use kd_lib::models::{
    Architecture, Checkpoint, Classifier, CustomModel, ForwardPass, Mode, ModelConfig, ModelOutput,
    ModelSizes, Params, Perturbation, TokenizerTexts, embed_tokens,
};
use kd_lib::objectives::{
    CustomObjective, Loss, LossInputs, Objective, ObjectiveConfig, softened_log_probabilities,
};
use kd_lib::precision::Precision;
use kd_lib::store::{Predictor, Recipe, Run, RunStore};
use kd_lib::training::progress::silent;
use serde_json::json;
use tch::{Device, Kind, Tensor};

/// The settings of a [`BagOfCharacters`].
#[derive(Debug, Clone, Copy)]
struct BagSettings {
    width: i64,
}

/// The mean of character vectors, and a linear map.
#[derive(Debug)]
struct BagOfCharacters {
    params: Params,
    embedding: Tensor,
    classifier: Linear,
}

impl Architecture for BagSettings {
    fn validate(&self, _: &DataConfig) -> Result<()> {
        match self.width {
            0 => Err(kd_lib::Error::recipe(
                "model.settings.width",
                "0",
                "choose 1 or more",
            )),
            _ => Ok(()),
        }
    }

    fn tokenizer(
        &self,
        data: &DataConfig,
        texts: &TokenizerTexts,
        _: Option<&Checkpoint>,
    ) -> Result<Tokenizer> {
        Ok(Tokenizer::Char(CharTokenizer {
            vocabulary: Vocabulary::build(texts.train.iter().copied(), 500),
            max_length: data.max_length,
            truncation: data.truncation,
        }))
    }

    fn build(&self, sizes: &ModelSizes, device: Device) -> Result<Box<dyn Classifier>> {
        let mut params = Params::on(device);
        let vectors = uniform(&[sizes.vocab_size, self.width], 0.5);
        let embedding = params.add("embedding.weight", vectors, true);
        let classifier = new_linear(&mut params, "classifier", sizes.num_labels, self.width);
        Ok(Box::new(BagOfCharacters {
            params,
            embedding,
            classifier,
        }))
    }
}

impl Classifier for BagOfCharacters {
    fn embed(&self, batch: &Batch, _: Mode, perturbation: Option<&Perturbation>) -> Tensor {
        embed_tokens(&self.embedding, &batch.ids, perturbation)
    }

    fn forward(&self, inputs: &Tensor, batch: &Batch, _: &ForwardPass) -> ModelOutput {
        let mean = mean_over_tokens(inputs, &batch.mask);
        ModelOutput {
            logits: self.classifier.forward(&mean, Precision::Fp32),
            hidden: Vec::new(),
        }
    }

    fn word_embedding(&self) -> &Tensor {
        &self.embedding
    }

    fn params(&self) -> &Params {
        &self.params
    }
}

/// Cross-entropy against smoothed labels.
#[derive(Debug)]
struct LabelSmoothing {
    smoothing: f64,
}

impl Objective for LabelSmoothing {
    fn needs_teacher(&self) -> bool {
        false
    }

    fn validate(&self) -> Result<()> {
        Ok(())
    }

    fn loss(&self, inputs: &LossInputs) -> Result<Loss> {
        let hard = inputs.hard_loss();
        let log_probabilities = softened_log_probabilities(&inputs.student_logits(), 1.0);
        let soft = -log_probabilities.mean(Kind::Float);
        let total = &hard * (1.0 - self.smoothing) + &soft * self.smoothing;
        Ok(Loss { total, hard, soft })
    }
}

fn model(version: u32, width: i64) -> ModelConfig {
    CustomModel::config(
        "bag-of-characters",
        version,
        json!({ "width": width }),
        BagSettings { width },
    )
}

fn objective(version: u32, smoothing: f64) -> ObjectiveConfig {
    let settings = json!({ "smoothing": smoothing });
    CustomObjective::config(
        "label-smoothing",
        version,
        settings,
        LabelSmoothing { smoothing },
    )
}

fn custom_recipe(model: ModelConfig, objective: ObjectiveConfig) -> Recipe {
    let settings = [
        "name=bag",
        "data.max_length=32",
        "train.epochs=3",
        "train.eval_every_samples=400",
        "train.precision=fp32",
        "device=cpu",
        "optimizer.learning_rate=2e-2",
    ];
    Recipe {
        model,
        objective,
        ..recipe("student", &settings)
    }
}

#[test]
fn a_custom_model_and_a_custom_objective_train_and_predict() {
    let _turn = lock_generator();
    let (folder, corpus) = (
        tempfile::tempdir().unwrap(),
        Corpus::open(sample()).unwrap(),
    );
    let store = RunStore::new(folder.path());
    let recipe = custom_recipe(model(1, 16), objective(1, 0.1));
    let run = store.run(&recipe, &corpus, &mut silent).unwrap();
    let curve = run.curve().unwrap();
    assert!(
        curve[curve.len() - 1].loss < curve[0].loss,
        "the loss falls"
    );
    assert!(curve.iter().all(|point| point.soft_loss > 0.0));
    let texts: Vec<&str> = corpus.test.iter().map(|e| e.text.as_str()).collect();
    let predictor = Predictor::open(&run).unwrap();
    let logits = predictor.logits(&texts).unwrap();
    let classes = corpus.labels.len() as i64;
    assert_eq!(predictor.logits::<&str>(&[]).unwrap().size(), [0, classes]);
    let stored = run.logits(Split::Test).unwrap();
    assert_eq!(
        kd_lib::evaluation::to_array(&logits).unwrap(),
        stored.logits
    );

    // The same name, version and settings are the same run; it is found and not trained again.
    let again = custom_recipe(model(1, 16), objective(1, 0.1));
    let found = store.run(&again, &corpus, &mut not_trained).unwrap();
    assert_eq!(found.report, run.report);
}

#[test]
fn a_custom_model_can_teach() {
    let _turn = lock_generator();
    let (folder, corpus) = (
        tempfile::tempdir().unwrap(),
        Corpus::open(sample()).unwrap(),
    );
    let store = RunStore::new(folder.path());
    let teacher = custom_recipe(model(1, 16), objective(1, 0.1));
    let settings = [&crate::common::TINY_STUDENT[..], &["train.epochs=1"]].concat();
    let student = Recipe {
        teacher: Some(Box::new(teacher)),
        ..recipe("distilled", &settings)
    };
    let run = store.run(&student, &corpus, &mut silent).unwrap();
    assert!(run.report.teachers[0].starts_with("bag-"));
}

#[test]
fn name_version_and_settings_of_custom_parts_enter_the_id() {
    let (folder, corpus) = (
        tempfile::tempdir().unwrap(),
        Corpus::open(sample()).unwrap(),
    );
    let store = RunStore::new(folder.path());
    let id = |model, objective| {
        store
            .plan(&custom_recipe(model, objective), &corpus)
            .unwrap()
            .id
    };
    let renamed = CustomModel::config("bag", 1, json!({ "width": 16 }), BagSettings { width: 16 });
    let ids = [
        id(model(1, 16), objective(1, 0.1)),
        id(model(2, 16), objective(1, 0.1)),
        id(model(1, 17), objective(1, 0.1)),
        id(model(1, 16), objective(2, 0.1)),
        id(model(1, 16), objective(1, 0.2)),
        id(renamed, objective(1, 0.1)),
    ];
    let distinct: std::collections::HashSet<&String> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len(), "{ids:?}");
    assert_eq!(id(model(1, 16), objective(1, 0.1)), ids[0]);
    let refused = store.plan(&custom_recipe(model(1, 0), objective(1, 0.1)), &corpus);
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("model.settings.width"), "{error}");
}

#[test]
fn a_program_without_the_model_refuses_to_predict_and_names_it() {
    let _turn = lock_generator();
    let (folder, corpus) = (
        tempfile::tempdir().unwrap(),
        Corpus::open(sample()).unwrap(),
    );
    let store = RunStore::new(folder.path());
    let recipe = custom_recipe(model(1, 16), objective(1, 0.1));
    let run = store.run(&recipe, &corpus, &mut silent).unwrap();
    // As another process reads it: the report has the model's name and no code.
    let read = Run::open(run.folder().unwrap()).unwrap();
    assert_eq!(read.report, run.report);
    let error = Predictor::open(&read).unwrap_err().to_string();
    assert!(
        error.contains("bag-of-characters") && error.contains("version 1"),
        "{error}"
    );
    assert!(error.contains("not in this program"), "{error}");
    let error = store
        .plan(&read.report.recipe, &corpus)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("label-smoothing") || error.contains("bag-of-characters"),
        "{error}"
    );
}
