//! The works that are raced, and the inputs that all contenders share.

use super::common::{lab, recipe};
use anyhow::Result;
use kd_lib::data::{Corpus, Encoded, Encoder, Pieces, Vocabulary, batch};
use kd_lib::plan::Plan;
use kd_lib::recipe::Model;
use serde_json::json;
use std::path::Path;

/// Batches that are kept for the peers; enough for all rounds.
const KEPT: usize = 256;

/// One kind of work.
pub struct Work {
    /// What the table calls it.
    pub name: &'static str,
    /// The recipe behind it.
    pub recipe: &'static str,
    /// The peer that does the same.
    pub script: &'static str,
    /// Whether texts are only read.
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
        name: "student reads",
        recipe: "student",
        script: "student.py",
        evaluate: true,
        batches: 40,
        flops: STUDENT,
    },
    Work {
        name: "teacher reads",
        recipe: "teacher",
        script: "teacher.py",
        evaluate: true,
        batches: 10,
        flops: TEACHER,
    },
];

impl Work {
    /// What a peer is told beside its inputs.
    pub fn mode(&self) -> &'static [&'static str] {
        if self.evaluate { &["evaluate"] } else { &[] }
    }

    /// Rows of a batch.
    pub fn rows(&self) -> usize {
        if self.evaluate { 128 } else { 32 }
    }

    /// Writes the batches as ids; returns the floating-point operations of a text, padding left out.
    pub fn write_inputs(&self, corpus: &Path, precision: &str, path: &Path) -> Result<f64> {
        let (plan, encoder) = open(self, corpus, precision)?;
        let split = encoder.encode_split(&plan.corpus.train)?;
        let kept = match &encoder {
            Encoder::Pieces(pieces) => pieces.kept().unwrap_or_default().to_vec(),
            Encoder::Characters { .. } => Vec::new(),
        };
        let vocabulary = match &encoder {
            Encoder::Pieces(pieces) => pieces.kept().map_or(0, <[u32]>::len),
            Encoder::Characters { vocabulary, .. } => vocabulary.entries().len(),
        };
        let batches = |bucketed: bool| -> Vec<serde_json::Value> {
            let batches = self.chosen(&split, bucketed);
            let of = |rows: Vec<usize>| json!({ "ids": rows.iter().map(|&r| &split.ids[r]).collect::<Vec<_>>(), "labels": rows.iter().map(|&r| split.labels[r]).collect::<Vec<_>>() });
            batches.into_iter().map(of).collect()
        };
        let checkpoint = plan.checkpoint.as_ref().map(|(folder, _)| folder.clone());
        let inputs = json!({ "vocabulary": vocabulary, "classes": plan.corpus.labels.len(), "pad": encoder.pad(), "kept": kept,
            "checkpoint": checkpoint, "precision": plan.precision, "bucketed": batches(true), "shuffled": batches(false) });
        std::fs::write(path, inputs.to_string())?;
        let (tokens, texts) =
            self.chosen(&split, true).iter().flatten().fold((0, 0), |(t, n), &r| (t + split.ids[r].len(), n + 1));
        Ok(self.flops * tokens as f64 / texts as f64)
    }

    /// The batches that every contender works through.
    pub fn chosen(&self, split: &Encoded, bucketed: bool) -> Vec<Vec<usize>> {
        batch::epoch(split, self.rows(), bucketed, 123, 0).into_iter().take(KEPT).collect()
    }
}

/// A work's plan on a corpus, and its encoder.
pub fn open(work: &Work, corpus: &Path, precision: &str) -> Result<(Plan, Encoder)> {
    let (lab, recipe) = (lab(), recipe(work.recipe, &[&format!("train.precision={precision}")])?);
    let plan = lab.plan(&recipe, &Corpus::open(corpus)?)?;
    let texts: Vec<&str> = plan.corpus.train.iter().map(|e| e.text.as_str()).collect();
    let (max_tokens, cut) = (recipe.data.max_tokens, recipe.data.cut);
    let encoder = match (&recipe.model, &plan.checkpoint) {
        (Model::Bert { prefix, .. }, Some((folder, _))) => {
            let whole: Vec<&str> = [&plan.whole.train, &plan.whole.dev, &plan.whole.test]
                .into_iter()
                .flatten()
                .map(|e| e.text.as_str())
                .collect();
            Encoder::Pieces(Box::new(Pieces::open(folder, prefix, max_tokens, cut)?.keep_only(&whole)?))
        }
        _ => Encoder::Characters { vocabulary: Vocabulary::build(texts, 5000), max_tokens, cut },
    };
    Ok((plan, encoder))
}
