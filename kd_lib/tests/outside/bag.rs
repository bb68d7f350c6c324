//! A program of another crate: it brings a model and an objective of its own, trains a teacher, and
//! distils it. `outside.rs` builds and runs it.

use kd_lib::data::{Batch, CharTokenizer, Corpus, DataConfig, Tokenizer, Vocabulary};
use kd_lib::models::layers::{Linear, mean_over_tokens, new_linear, uniform};
use kd_lib::models::{
    Architecture, Checkpoint, Classifier, CustomModel, ForwardPass, Mode, ModelOutput, ModelSizes,
    Params, Perturbation, TokenizerTexts, embed_tokens,
};
use kd_lib::objectives::{CustomObjective, Loss, LossInputs, Objective};
use kd_lib::precision::Precision;
use kd_lib::store::{Predictor, Recipe, RunStore};
use kd_lib::tch::{Device, Reduction, Tensor};
use kd_lib::training::progress::silent;
use kd_lib::{Error, Result};
use std::path::Path;

/// Width of a character's vector.
const WIDTH: i64 = 16;

#[derive(Debug)]
struct BagSettings;

#[derive(Debug)]
struct Bag {
    params: Params,
    embedding: Tensor,
    classifier: Linear,
}

impl Architecture for BagSettings {
    fn validate(&self, _: &DataConfig) -> Result<()> {
        Ok(())
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
        let vectors = uniform(&[sizes.vocab_size, WIDTH], 0.5);
        let embedding = params.add("embedding.weight", vectors, true);
        let classifier = new_linear(&mut params, "classifier", sizes.num_labels, WIDTH);
        Ok(Box::new(Bag { params, embedding, classifier }))
    }
}

impl Classifier for Bag {
    fn embed(&self, batch: &Batch, _: Mode, perturbation: Option<&Perturbation>) -> Tensor {
        embed_tokens(&self.embedding, &batch.ids, perturbation)
    }

    fn forward(&self, inputs: &Tensor, batch: &Batch, _: &ForwardPass) -> ModelOutput {
        let mean = mean_over_tokens(inputs, &batch.mask);
        ModelOutput::from_logits(&self.classifier.forward(&mean, Precision::Fp32))
    }

    fn word_embedding(&self) -> &Tensor {
        &self.embedding
    }

    fn params(&self) -> &Params {
        &self.params
    }
}

/// Mean absolute distance of the logits.
#[derive(Debug)]
struct LogitMae;

impl Objective for LogitMae {
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    fn loss(&self, inputs: &LossInputs) -> Result<Loss> {
        let soft = inputs.student_logits().l1_loss(&inputs.teacher_logits()?, Reduction::Mean);
        let hard = inputs.hard_loss();
        Ok(Loss { total: soft.shallow_clone(), hard, soft })
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, project, runs] = arguments.as_slice() else {
        return Err(Error::recipe("arguments", "none", "name the project and a folder for runs"));
    };
    let project = Path::new(project);
    let settings = [
        "model.embedding_dim=12",
        "model.hidden_size=8",
        "train.epochs=2",
        "data.max_length=32",
        "device=cpu",
    ];
    let settings = settings.map(str::to_owned);
    let teacher = Recipe::read(project.join("notebooks/recipes/student.toml"), "full", &settings)?;
    let student = Recipe {
        name: "bag".into(),
        model: CustomModel::config("bag", 1, WIDTH.into(), BagSettings),
        objective: CustomObjective::config("logit-mae", 1, 0.into(), LogitMae),
        teacher: Some(Box::new(teacher.clone())),
        ..teacher
    };
    let corpus = Corpus::open(project.join("data/sample"))?;
    let run = RunStore::new(runs).run(&student, &corpus, &mut silent)?;
    let prediction = Predictor::open(&run).map(|_| "predicted").unwrap_or("refused");
    println!("{} taught by {}: {prediction}", run.report.id, run.report.teachers.join(" "));
    Ok(())
}
