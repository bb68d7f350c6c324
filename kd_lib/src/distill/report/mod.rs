//! The report of a distillation: teacher, baseline and distilled student on test. No model is
//! scored on test before; everything that was chosen was chosen on dev. Each file of this folder
//! writes one part of the report, or two that belong together.

mod candidates;
mod confidence;
mod gain;
mod mistakes;
mod provenance;
mod scores;
mod texts;
mod usage;

use super::data_report::DataReport;
use super::distill_result::DistillResult;
use super::document::Document;
use super::evidence::Evidence;
use super::findings::Findings;
use super::forecast::Forecast;
use super::plan::DistillPlan;
use crate::data::Corpus;
use crate::store::RunStore;
use crate::training::ProgressCallback;
use crate::{Result, files};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Characters of each text that is shown.
const SHOWN_CHARACTERS: usize = 160;

/// What a report is made from.
pub struct Report<'a> {
    /// The whole corpus.
    pub corpus: &'a Corpus,
    /// The plan.
    pub plan: &'a DistillPlan,
    /// What was trained.
    pub result: &'a DistillResult,
    /// What is in the texts.
    pub data: &'a DataReport,
    /// What was expected before training.
    pub forecast: Option<Forecast>,
    /// How the corpus was read and why the plan has no folds.
    pub notices: &'a [String],
    /// The command line.
    pub command: &'a str,
}

impl Report<'_> {
    /// Reads test, writes `report.html` and `report.md` into the plan's folder, and says what was
    /// found.
    pub fn write(
        &self,
        store: &RunStore,
        folder: &Path,
        callback: ProgressCallback,
    ) -> Result<Findings> {
        let started = Instant::now();
        let Report {
            corpus,
            plan,
            result,
            data,
            ..
        } = *self;
        let evidence = Evidence::of(store, plan, result, folder, callback)?;
        let findings = Findings::of(&evidence, plan.settings.folds);
        let mut document = Document::new(format!("Distillation on {}", corpus.name));
        document.paragraph(findings.verdict());
        scores::add_scores(&mut document, &evidence, plan, data)?;
        gain::add_gain(&mut document, &findings, self.forecast);
        candidates::add_candidates(&mut document, plan, result)?;
        scores::add_f1_of_classes(&mut document, &evidence, plan);
        confidence::add_confidence(&mut document, &evidence)?;
        mistakes::add_mistakes(&mut document, &evidence, data);
        usage::add_use(&mut document, plan, result);
        texts::add_texts(&mut document, corpus, plan, data);
        let report_seconds = started.elapsed().as_secs_f64();
        provenance::add_provenance(&mut document, self, report_seconds);
        let [html, markdown] = report_files(folder);
        files::write_text(&markdown, &document.markdown())?;
        files::write_text(&html, &document.html())?;
        Ok(findings)
    }
}

/// The two files of a report.
pub fn report_files(folder: &Path) -> [PathBuf; 2] {
    ["report.html", "report.md"].map(|name| folder.join(name))
}
