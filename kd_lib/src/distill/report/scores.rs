//! The scores of teacher, baseline, distilled student and references on test; the F1 of each class.

use crate::data::Example;
use crate::distill::data_report::DataReport;
use crate::distill::document::Document;
use crate::distill::evidence::{Evidence, Tested};
use crate::distill::plan::DistillPlan;
use crate::distill::references::ReferenceScores;
use crate::error::BUG;
use crate::store::{MeanSd, Table};
use crate::{Error, Result};
use std::collections::BTreeSet;

/// Bytes of a parameter in fp32.
const BYTES_PER_PARAMETER: f64 = 4.0;

pub(super) fn add_scores(
    document: &mut Document,
    evidence: &Evidence,
    plan: &DistillPlan,
    data: &DataReport,
) -> Result<()> {
    document.heading("Scores on test");
    let cross_validated = plan.settings.folds > 0;
    let mut table = Table::new(&[
        "model",
        if cross_validated { "rounds" } else { "seeds" },
        "dev accuracy",
        "test accuracy",
        "test macro-F1",
        "parameters",
        "MB (fp32)",
        "ms for one text",
        "texts/s",
    ]);
    let references = evidence.references;
    for (name, scores) in [
        ("most frequent class", references.majority),
        ("linear model over n-grams", references.linear),
        (
            "linear probe of the teacher before fine-tuning",
            references.linear_probe,
        ),
    ] {
        table.push(reference_cells(name, scores));
    }
    for models in evidence.sides() {
        if !models.is_empty() {
            table.push(side_cells(models)?);
        }
    }
    document.table(table);
    document.paragraph(format!(
        "{} Times were measured with the threads of the training, while other programs may have run.",
        how_it_was_tested(evidence, plan)
    ));
    let found = data.suspicious.as_ref();
    let suspicious_labels = found.map_or(0, |found| found.labels.len());
    if suspicious_labels > 0 {
        document.paragraph(format!(
            "{suspicious_labels} labels are likely to be wrong (below). Where such texts are tested, the \
             accuracies above are too low. Correct them and run the command again."
        ));
    }
    Ok(())
}

/// A row of [`add_scores`]: a reference has neither a macro-F1 nor a size here.
fn reference_cells(name: &str, scores: ReferenceScores) -> [String; 9] {
    let mut cells = [const { String::new() }; 9];
    cells[0] = name.to_owned();
    cells[2] = format!("{:.4}", scores.dev);
    cells[3] = format!("{:.4}", scores.test);
    cells
}

/// A row of [`add_scores`]: the models of one side, of which there is at least one.
fn side_cells(models: &[Tested]) -> Result<[String; 9]> {
    let first = &models[0];
    let mean = |metric: fn(&Tested) -> f64| {
        MeanSd::of(&models.iter().map(metric).collect::<Vec<_>>()).to_string()
    };
    let millions = first.runs[0].report.parameters as f64 / 1e6;
    Ok([
        format!("{} ({})", first.name, networks(first)?),
        models.len().to_string(),
        mean(Tested::dev_accuracy),
        mean(|m| m.scores.accuracy),
        mean(|m| m.scores.macro_f1),
        format!("{millions:.1} M"),
        format!("{:.1}", millions * BYTES_PER_PARAMETER),
        format!("{:.1}", 1000.0 * first.seconds_per_text),
        format!("{:.0}", first.texts_per_second),
    ])
}

/// The networks of a side's runs, as recipes name them.
fn networks(models: &Tested) -> Result<String> {
    let mut kinds = BTreeSet::new();
    for run in &models.runs {
        let settings = serde_json::to_value(&run.report.recipe.model)
            .map_err(|e| Error::recipe("model", e.to_string(), BUG))?;
        kinds.extend(settings["kind"].as_str().map(str::to_owned));
    }
    Ok(kinds.into_iter().collect::<Vec<_>>().join(", "))
}

fn how_it_was_tested(evidence: &Evidence, plan: &DistillPlan) -> String {
    let texts = evidence.corpus.test.len();
    match plan.settings.folds {
        0 => format!(
            "{texts} test texts, read once, after everything was chosen on {} dev texts.",
            evidence.corpus.dev.len()
        ),
        folds => format!(
            "Cross-validation: {texts} texts in {folds} folds; each text is classified by models that \
             were trained and chosen on the other folds."
        ),
    }
}

pub(super) fn add_f1_of_classes(document: &mut Document, evidence: &Evidence, plan: &DistillPlan) {
    document.heading("F1 of each class on test");
    let corpus = &evidence.corpus;
    let models: Vec<&Tested> = evidence
        .sides()
        .into_iter()
        .filter_map(|side| side.first())
        .collect();
    let training = match plan.settings.folds {
        0 => "training texts",
        _ => "training texts, first fold",
    };
    let mut head = vec!["class", training, "test texts"];
    head.extend(models.iter().map(|model| model.name));
    let mut table = Table::new(&head);
    for (class, name) in corpus.labels.iter().enumerate() {
        let count = |split: &[Example]| split.iter().filter(|e| e.label == class).count();
        let mut cells = vec![
            name.clone(),
            count(&corpus.train).to_string(),
            count(&corpus.test).to_string(),
        ];
        for model in &models {
            let scores = model.scores.classes.get(class);
            let f1 = scores.map_or(0.0, |scores| scores.f1);
            cells.push(format!("{f1:.4}"));
        }
        table.push(cells);
    }
    document.table(table);
}
