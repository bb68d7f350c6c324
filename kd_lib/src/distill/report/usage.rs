//! The part of a report on how to use the student.

use crate::distill::distill_result::DistillResult;
use crate::distill::document::{Block, Document};
use crate::distill::plan::{DistillPlan, Side};

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
