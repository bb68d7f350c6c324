//! The part of a report on how it came about: command, machine, corpus, time, and what was left out
//! of the texts.

use super::Report;
use crate::distill::budget::duration;
use crate::distill::document::Document;
use crate::store::Table;

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
    for notice in report.notices {
        document.paragraph(notice.clone());
    }
    let of_stages = &report.result.rounds[0][0].trained.notices;
    for notice in of_stages {
        document.paragraph(notice.to_string());
    }
    let is_new = |text: &&String| of_stages.iter().all(|notice| notice.text != **text);
    for text in student.notices.iter().filter(is_new) {
        document.paragraph(text.clone());
    }
}
