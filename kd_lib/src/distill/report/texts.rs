//! The part of a report on what is in the texts.

use super::SHOWN_CHARACTERS;
use crate::data::Corpus;
use crate::distill::data_report::DataReport;
use crate::distill::document::Document;
use crate::distill::plan::DistillPlan;

/// Labels that are likely to be wrong in the report; a file has all.
const LISTED_LABELS: usize = 30;

pub(super) fn add_texts(
    document: &mut Document,
    corpus: &Corpus,
    plan: &DistillPlan,
    data: &DataReport,
) {
    document.heading("The texts");
    document.table(data.table(corpus, &plan.facts));
    let suspicious = data.suspicious.as_ref();
    if let Some(suspicious) = suspicious.filter(|found| !found.labels.is_empty()) {
        document.paragraph(
            "Texts whose label is likely to be wrong: a linear probe of the teacher before fine-tuning, \
             trained on other texts, gives another class a probability of 0.7 or more. \
             suspicious_labels.json lists all.",
        );
        document.table(suspicious.table(LISTED_LABELS, SHOWN_CHARACTERS));
    }
}
