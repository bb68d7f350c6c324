//! The kinds of work that are timed, and the inputs that all programs share.

use super::common::{recipe, store};
use anyhow::{Context, Result};
use kd_lib::data::batch::epoch_batches;
use kd_lib::data::{Corpus, Example, TextInput, TokenizedSplit, Tokenizer};
use kd_lib::models::{Classifier, ModelSizes, TokenizerTexts};
use kd_lib::store::PlannedRun;
use serde_json::json;
use std::path::Path;

/// Batches that are written for the peers; enough for all rounds.
const BATCHES: usize = 256;

/// One kind of work.
pub struct Work {
    /// What the table calls it.
    pub name: &'static str,
    /// The recipe behind it.
    pub recipe: &'static str,
    /// The peer that does the same.
    pub script: &'static str,
    /// Whether logits are computed and nothing is trained.
    pub evaluate: bool,
    /// Batches of a round.
    pub batches: usize,
    /// Floating-point operations of a token, forward.
    flops: f64,
}

const STUDENT: f64 = 2.0 * 2.0 * ((300 + 384) * 4 * 384) as f64;
const TEACHER: f64 = 12.0 * 2.0 * (4 * 384 * 384 + 2 * 384 * 1536) as f64;

/// All of them.
pub const WORKS: [Work; 4] = [
    Work {
        name: "student step",
        recipe: "student",
        script: "student.py",
        evaluate: false,
        batches: 48,
        flops: 3.0 * STUDENT,
    },
    Work {
        name: "teacher step",
        recipe: "teacher",
        script: "teacher.py",
        evaluate: false,
        batches: 10,
        flops: 3.0 * TEACHER,
    },
    Work {
        name: "student predicts",
        recipe: "student",
        script: "student.py",
        evaluate: true,
        batches: 40,
        flops: STUDENT,
    },
    Work {
        name: "teacher predicts",
        recipe: "teacher",
        script: "teacher.py",
        evaluate: true,
        batches: 10,
        flops: TEACHER,
    },
];

impl Work {
    /// What a peer is told in addition to its inputs.
    pub fn mode(&self) -> &'static [&'static str] {
        if self.evaluate { &["evaluate"] } else { &[] }
    }

    /// Rows of a batch.
    pub fn rows(&self) -> usize {
        if self.evaluate { 128 } else { 32 }
    }

    /// Writes the batches as ids; returns the floating-point operations of a text, without padding.
    pub fn write_inputs(&self, corpus: &Path, precision: &str, path: &Path) -> Result<f64> {
        let Opened { plan, tokenizer } = open(self, corpus, precision)?;
        let split = tokenizer.encode_split(&plan.corpus.train)?;
        let kept = match &tokenizer {
            Tokenizer::Subword(tokenizer) => tokenizer.kept_ids().unwrap_or_default().to_vec(),
            Tokenizer::Char(_) => Vec::new(),
        };
        let vocabulary = tokenizer.vocab_size().unwrap_or(0);
        let batches = |group_by_length: bool| -> Vec<serde_json::Value> {
            let batches = self.chosen(&split, group_by_length);
            let batch = |rows: Vec<usize>| {
                let ids: Vec<&Vec<i64>> = rows.iter().map(|&row| &split.ids[row]).collect();
                let labels: Vec<i64> = rows.iter().map(|&row| split.labels[row]).collect();
                json!({ "ids": ids, "labels": labels })
            };
            batches.into_iter().map(batch).collect()
        };
        let checkpoint = plan
            .checkpoint
            .as_ref()
            .map(|checkpoint| checkpoint.folder.clone());
        let inputs = json!({
            "vocabulary": vocabulary,
            "classes": plan.corpus.labels.len(),
            "pad": split.pad_id,
            "kept": kept,
            "checkpoint": checkpoint,
            "precision": plan.precision,
            "bucketed": batches(true),
            "shuffled": batches(false),
        });
        std::fs::write(path, inputs.to_string())?;
        let (tokens, texts) = self
            .chosen(&split, true)
            .iter()
            .flatten()
            .fold((0, 0), |(t, n), &r| (t + split.ids[r].len(), n + 1));
        Ok(self.flops * tokens as f64 / texts as f64)
    }

    /// The batches of every program.
    pub fn chosen(&self, split: &TokenizedSplit, group_by_length: bool) -> Vec<Vec<usize>> {
        epoch_batches(split, self.rows(), group_by_length, 123, 0)
            .into_iter()
            .take(BATCHES)
            .collect()
    }
}

/// A work's plan on a corpus, and its tokenizer.
pub struct Opened {
    pub plan: PlannedRun,
    pub tokenizer: Tokenizer,
}

/// Opens a work on a corpus.
pub fn open(work: &Work, corpus: &Path, precision: &str) -> Result<Opened> {
    let recipe = recipe(work.recipe, &[&format!("train.precision={precision}")])?;
    let plan = store().plan(&recipe, &Corpus::open(corpus)?)?;
    let full = &plan.full_corpus;
    let all = full.train.iter().chain(&full.dev).chain(&full.test);
    let full_corpus: Vec<TextInput> = all.map(Example::input).collect();
    let train: Vec<TextInput> = plan.corpus.train.iter().map(Example::input).collect();
    let texts = TokenizerTexts {
        train: &train,
        unlabelled: &[],
        full_corpus: &full_corpus,
    };
    let architecture = recipe.model.architecture()?;
    let tokenizer = architecture.tokenizer(&recipe.data, &texts, plan.checkpoint.as_ref())?;
    Ok(Opened { plan, tokenizer })
}

/// The work's model with random weights.
pub fn build(plan: &PlannedRun, tokenizer: &Tokenizer) -> Result<Box<dyn Classifier>> {
    let config = plan
        .checkpoint
        .as_ref()
        .map(|checkpoint| checkpoint.config.clone());
    let checkpoint_vocab_size = config.as_ref().map(|config| config.vocab_size);
    let sizes = ModelSizes {
        vocab_size: tokenizer
            .vocab_size()
            .or(checkpoint_vocab_size)
            .context("no vocabulary size")?,
        num_labels: plan.corpus.labels.len() as i64,
        checkpoint: config,
    };
    Ok(plan
        .recipe
        .model
        .architecture()?
        .build(&sizes, plan.device)?)
}
