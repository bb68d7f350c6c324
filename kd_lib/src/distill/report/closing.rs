//! The last parts of a report: how to use the student, what is in the texts, and how the report
//! came about.

use super::{Report, SHOWN_CHARACTERS};
use crate::data::Corpus;
use crate::distill::budget::duration;
use crate::distill::data_report::DataReport;
use crate::distill::distill_result::DistillResult;
use crate::distill::document::{Block, Document};
use crate::distill::plan::{DistillPlan, Side};
use crate::store::Table;

/// Labels that are likely to be wrong in the report; a file has all.
const LISTED_LABELS: usize = 30;

pub(super) fn add_use(document: &mut Document, plan: &DistillPlan, result: &DistillResult) {
    document.heading("Use");
    document.paragraph(format!(
        "The delivered student is the {} one: macro-F1 on dev is {:.4} for the baseline and {:.4} for \
         the distilled student.",
        result.preferred_side().name(),
        result.dev_macro_f1(Side::Baseline),
        result.dev_macro_f1(Side::Distilled)
    ));
    if result.refit.is_some() {
        document.paragraph(
            "This student was trained on all labelled texts, with the settings of the chosen one, for \
             as many epochs as that one needed, and with its temperature. The scores and thresholds \
             above are of students that were trained on fewer texts. No labelled text is left to test \
             this one: its score on dev, which `kd runs` shows, is of texts that it was trained on.",
        );
    } else if plan.settings.folds > 0 {
        document.paragraph(
            "This student is that of the first fold. With --refit it is trained on all labelled \
             texts.",
        );
    }
    let id = &result.student().report.id;
    document.blocks.push(Block::Code(format!(
        "kd predict {id} \"a text\"\nkd predict {id} - < texts.txt > predictions.jsonl"
    )));
    let first = &result.rounds[0][0].trained;
    if let Some(teacher) = &first.teacher {
        document.paragraph(format!(
            "The teacher predicts too, if its size and time are acceptable: `kd predict {} \"a text\"`. \
             The linear models of the first table are references only; they are not saved.",
            teacher.report.id
        ));
    }
}

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

/// `report_seconds`: what the report took.
pub(super) fn add_provenance(document: &mut Document, report: &Report, report_seconds: f64) {
    document.heading("Provenance");
    let plan = report.plan;
    let student = &report.result.student().report;
    let environment = &student.environment;
    let mut table = Table::new(&["", ""]);
    for (name, value) in [
        ("command", report.command.to_owned()),
        ("program", format!("kd_lib {}", env!("CARGO_PKG_VERSION"))),
        (
            "commit",
            student.commit.clone().unwrap_or_else(|| "unknown".into()),
        ),
        ("processor", environment.processor.clone()),
        ("vector extensions", environment.instructions.join(", ")),
        ("libtorch", environment.libtorch.clone()),
        ("threads", plan.speed.threads.to_string()),
        (
            "corpus",
            format!("{}, fingerprint {}", plan.corpus, plan.corpus_fingerprint),
        ),
        ("budget", plan.settings.budget.to_string()),
        ("planned", duration(plan.seconds())),
        ("taken", duration(report.result.seconds + report_seconds)),
    ] {
        table.push([name.to_owned(), value]);
    }
    document.table(table);
    let is_said = |notice: &&String| report.notices.iter().any(|said| said.ends_with(*notice));
    let further = student.notices.iter().filter(|notice| !is_said(notice));
    for notice in report.notices.iter().chain(further) {
        document.paragraph(notice.clone());
    }
}
