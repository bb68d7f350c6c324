//! Labels that are likely to be wrong: those that a linear probe of the teacher before fine-tuning,
//! trained on other texts, contradicts with certainty (confident learning, Northcutt et al. 2021,
//! in its simplest form). Nothing is removed or changed here.

use super::plan::DistillPlan;
use crate::data::splits::draw_at_most;
use crate::data::{Corpus, Example, TextInput};
use crate::store::pretrained_states::forget_pretrained_states;
use crate::store::{RunStore, Table};
use crate::training::ProgressCallback;
use crate::training::linear_probe::{LabelledStates, PROBE_FOLDS, probe_progress};
use crate::{Error, Result, files};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A label is suspicious if another class has at least this probability.
const CERTAIN: f64 = 0.7;
/// Share of the budget for the search: it decides how many texts are searched, within these bounds.
const BUDGET_SHARE: f64 = 0.03;
const LEAST_SEARCHED: f64 = 500.0;
const MOST_SEARCHED: f64 = 5000.0;
/// A class with fewer texts than this cannot be judged.
pub(super) const LEAST_TEXTS: usize = 5;
/// The file in a plan's folder.
pub const FILE: &str = "suspicious_labels.json";

/// What the search found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SuspiciousLabels {
    /// Number of texts that were searched.
    pub searched: usize,
    /// Accuracy of the linear probe on texts that it was not trained on; files of earlier versions
    /// lack it.
    #[serde(default)]
    pub held_out_accuracy: Option<f64>,
    /// The findings, the most suspicious first.
    pub labels: Vec<SuspiciousLabel>,
}

/// A text whose label does not fit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SuspiciousLabel {
    /// Line in its file.
    pub line: usize,
    /// The text.
    pub text: String,
    /// Its label.
    pub label: String,
    /// The class that the linear probe predicts.
    pub predicted: String,
    /// Its probability.
    pub probability: f64,
}

impl SuspiciousLabels {
    /// Searches the training texts of a plan's corpus; under cross-validation, all labelled texts.
    /// The findings are kept in the plan's folder and are read from there the next time.
    pub fn find(
        store: &RunStore,
        plan: &DistillPlan,
        corpus: &Corpus,
        folder: &Path,
        callback: ProgressCallback,
    ) -> Result<SuspiciousLabels> {
        let path = folder.join(FILE);
        if path.exists() {
            return files::read_json(&path);
        }
        let found = search(store, plan, corpus, folder, callback)?;
        std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
        files::write_json(&path, &found)?;
        Ok(found)
    }

    /// The most suspicious labels as a table: at most `most`, with the first characters of each
    /// text.
    pub fn table(&self, most: usize, characters: usize) -> Table {
        let mut table = Table::new(&["line", "text", "label", "more likely", "probability"]);
        for suspicious in self.labels.iter().take(most) {
            table.push([
                suspicious.line.to_string(),
                shortened(&suspicious.text, characters),
                suspicious.label.clone(),
                suspicious.predicted.clone(),
                format!("{:.3}", suspicious.probability),
            ]);
        }
        table
    }
}

/// The beginning of a text, with a mark if it goes on.
pub(super) fn shortened(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn search(
    store: &RunStore,
    plan: &DistillPlan,
    corpus: &Corpus,
    folder: &Path,
    callback: ProgressCallback,
) -> Result<SuspiciousLabels> {
    let mut examples: Vec<&Example> = corpus.train.iter().collect();
    if plan.settings.folds > 0 {
        examples.extend(corpus.dev.iter().chain(&corpus.test));
    }
    let affordable = plan.settings.budget.seconds * BUDGET_SHARE / plan.speed.teacher_forward;
    let most = affordable.clamp(LEAST_SEARCHED, MOST_SEARCHED) as usize;
    let searched: Vec<&Example> = draw_at_most(examples.into_iter(), most).collect();
    let texts: Vec<TextInput> = searched.iter().map(|e| e.input()).collect();
    let teacher = &plan.settings.teacher;
    let states = store.pretrained_states(teacher, corpus, &texts, folder, callback)?;
    let labels: Vec<i64> = searched.iter().map(|e| e.label as i64).collect();
    let folds: Vec<usize> = texts.iter().map(|text| text.fold(PROBE_FOLDS)).collect();
    let labelled = LabelledStates {
        states: &states,
        labels: &labels,
        folds: &folds,
        classes: corpus.labels.len() as i64,
    };
    let progress = probe_progress(&corpus.name, searched.len());
    let held_out = labelled.out_of_fold_logits(&mut || progress.send(callback))?;
    forget_pretrained_states(folder)?;
    let probabilities = held_out.probabilities();
    let mut texts_of_class = vec![0; corpus.labels.len()];
    searched.iter().for_each(|e| texts_of_class[e.label] += 1);
    let mut found = Vec::new();
    for (row, example) in searched.iter().enumerate() {
        let text_probabilities: Vec<f64> = Vec::try_from(probabilities.get(row as i64))?;
        let likely = (0..text_probabilities.len())
            .max_by(|&a, &b| text_probabilities[a].total_cmp(&text_probabilities[b]));
        let likely = likely.unwrap_or(example.label);
        let can_be_judged = texts_of_class[example.label] >= LEAST_TEXTS;
        if can_be_judged && likely != example.label && text_probabilities[likely] >= CERTAIN {
            found.push(SuspiciousLabel {
                line: example.line,
                text: example.text.clone(),
                label: corpus.labels[example.label].clone(),
                predicted: corpus.labels[likely].clone(),
                probability: text_probabilities[likely],
            });
        }
    }
    found.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    Ok(SuspiciousLabels {
        searched: searched.len(),
        held_out_accuracy: Some(held_out.accuracy),
        labels: found,
    })
}
