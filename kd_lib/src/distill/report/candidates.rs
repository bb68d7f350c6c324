//! The students that were tried, those that were left out, and their learning curves.

use crate::Result;
use crate::distill::budget::duration;
use crate::distill::curves::learning_curves;
use crate::distill::distill_result::DistillResult;
use crate::distill::document::{Block, Document};
use crate::distill::plan::DistillPlan;
use crate::distill::run_stages::TrainedStages;
use crate::store::Table;
use std::collections::BTreeMap;

pub(super) fn add_candidates(
    document: &mut Document,
    plan: &DistillPlan,
    result: &DistillResult,
) -> Result<()> {
    document.heading("Candidates");
    let cross_validated = plan.settings.folds > 0;
    document.table(candidates_table(result, cross_validated));
    add_left_out(document, plan, result);
    let first = &result.rounds[0][0].trained;
    if teacher_is_linear_probe(first) {
        document.paragraph(
            "Fine-tuning did not raise the teacher's score on dev, so the teacher is the linear \
             probe that it was before the first update.",
        );
    }
    let students = first.candidates.iter().map(|candidate| &candidate.run);
    if let Some(svg) = learning_curves(first.teacher.iter().chain(students))? {
        let which_fold = if cross_validated { ", first fold" } else { "" };
        let caption = format!("Accuracy on dev by number of updates{which_fold}");
        document.blocks.push(Block::Picture { svg, caption });
    }
    Ok(())
}

fn candidates_table(result: &DistillResult, cross_validated: bool) -> Table {
    let mut table = Table::new(&[
        "side",
        "candidate",
        "dev accuracy",
        "dev macro-F1",
        "updates",
        "best update",
        "seconds",
        "chosen",
    ]);
    if cross_validated {
        table.head.insert(0, "fold".into());
    }
    for (fold, number) in result.folds().zip(1..) {
        for candidate in &fold.trained.candidates {
            let report = &candidate.run.report;
            let mut cells = vec![
                candidate.side.name().to_owned(),
                report.recipe.name.clone(),
                format!("{:.4}", report.dev.accuracy),
                format!("{:.4}", report.dev.macro_f1),
                report.steps.to_string(),
                report.best_step.to_string(),
                format!("{:.0}", report.seconds),
                if candidate.chosen { "yes" } else { "" }.to_owned(),
            ];
            if cross_validated {
                cells.insert(0, number.to_string());
            }
            table.push(cells);
        }
    }
    table
}

/// What was skipped, each sentence once with the number of folds.
fn add_left_out(document: &mut Document, plan: &DistillPlan, result: &DistillResult) {
    let mut left_out: BTreeMap<&String, usize> = BTreeMap::new();
    for sentence in result.folds().flat_map(|fold| &fold.trained.left_out) {
        *left_out.entry(sentence).or_default() += 1;
    }
    if left_out.is_empty() {
        return;
    }
    if let Some(seconds) = plan.refit_seconds {
        document.paragraph(format!(
            "{} of the budget were reserved for training on all labelled texts (--refit), so this was \
             left out:",
            duration(seconds)
        ));
    }
    let folds = result.folds().count();
    for (sentence, times) in left_out {
        document.paragraph(if plan.settings.folds > 0 {
            format!("{sentence} ({times} of {folds} folds)")
        } else {
            sentence.clone()
        });
    }
}

fn teacher_is_linear_probe(first_fold: &TrainedStages) -> bool {
    let teacher = first_fold.teacher.as_ref();
    teacher.is_some_and(|teacher| teacher.report.best_step == 0)
}
