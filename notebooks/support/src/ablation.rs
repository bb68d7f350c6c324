//! The ablation of notebook 09: a list of variants, `notebooks/ablation.csv`, each a recipe with
//! what it changes and the baseline that it is compared with. See
//! [`kd_lib::evaluation::significance`] for whether a difference is statistically distinguishable.

use crate::tables::MeasuredRow;
use crate::{OrEndCell, Session, read_csv};
use kd_lib::Result;
use kd_lib::store::table::gap_recovered;
use kd_lib::store::{Run, RunReport, Table};
use kd_lib::training::Adversarial;
use serde::Deserialize;

/// The profiles by how long they take.
const PROFILES: [&str; 3] = ["smoke", "quick", "full"];

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Variant {
    /// A recipe's name.
    pub variant: String,
    /// The variant that it is compared with; empty for a baseline.
    pub baseline: String,
    /// What it changes there.
    pub change: String,
    /// The first of [`PROFILES`] that has the texts and the time for it.
    from: String,
    /// Why it is not run here, if it is not.
    #[serde(skip)]
    pub left_out: Option<String>,
}

/// The accuracies between which a share of the gap is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Gap {
    /// Accuracy of the student without distillation.
    pub student: f64,
    /// Accuracy of the teacher.
    pub teacher: f64,
}

impl Session {
    /// All variants, in order. One that this corpus or profile does not allow says why.
    pub fn ablation(&self) -> Vec<Variant> {
        self.variants().or_end_cell()
    }

    fn variants(&self) -> Result<Vec<Variant>> {
        let path = self.root.join("notebooks/ablation.csv");
        let mut variants: Vec<Variant> = read_csv(&path, "variant,baseline,change,from")?;
        let place = |profile: &str| PROFILES.iter().position(|p| *p == profile);
        for variant in &mut variants {
            let recipe = self.recipe(&variant.variant);
            let allowed = recipe
                .objective
                .objective()?
                .validate_classes(self.corpus.labels.len());
            variant.left_out = match allowed {
                Err(error) => Some(error.to_string()),
                Ok(()) if place(&variant.from) > place(&self.profile) => {
                    Some(format!("too long for {}", self.profile))
                }
                Ok(()) => None,
            };
        }
        Ok(variants)
    }
}

/// What each variant changes, and its baseline, as a table.
pub fn table(variants: &[Variant]) -> Table {
    let mut table = Table::new(&["variant", "change", "baseline"]);
    for variant in variants {
        table.push([&variant.variant, &variant.change, &variant.baseline]);
    }
    table
}

/// Updates, examples processed, mean test accuracy and share of the gap of each variant, as a
/// table. `runs` has one run of each row.
pub fn training_table(rows: &[MeasuredRow], runs: &[Run], gap: Gap) -> Table {
    let mut table = Table::new(&[
        "variant",
        "updates",
        "examples processed, thousands",
        "accuracy",
        "from untuned student to teacher",
    ]);
    for (row, run) in rows.iter().zip(runs) {
        let accuracy = row.ours.test[0].mean;
        let share = 100.0 * gap_recovered(gap.teacher, gap.student, accuracy) + 0.0; // no -0
        let processed = examples_processed(&run.report) as f64 / 1e3;
        table.push([
            row.published.row.clone(),
            run.report.steps.to_string(),
            format!("{processed:.0}"),
            format!("{accuracy:.4}"),
            format!("{share:.0} %"),
        ]);
    }
    table
}

/// Examples that a run's passes processed; adversarial training processes each once more in each of
/// its passes.
pub fn examples_processed(report: &RunReport) -> usize {
    let train = &report.recipe.train;
    let passes = 1 + report.recipe.adversarial.map_or(0, Adversarial::passes);
    report.steps * train.batch_size * train.gradient_accumulation_steps * passes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_variant_has_a_baseline_before_it_and_says_why_it_is_left_out() {
        let mut session = Session::open();
        let all = session.ablation();
        for (at, variant) in all.iter().enumerate() {
            let known = || {
                all[..at]
                    .iter()
                    .any(|before| before.variant == variant.baseline)
            };
            assert!(variant.baseline.is_empty() || known(), "{variant:?}");
            assert!(PROFILES.contains(&variant.from.as_str()), "{variant:?}");
        }
        session.profile = "smoke".into();
        session.corpus.labels.truncate(2);
        let why = |name: &str| {
            let mut variants = session.ablation().into_iter();
            variants
                .find(|variant| variant.variant == name)
                .unwrap()
                .left_out
        };
        assert_eq!(why("bilstm"), None);
        assert!(why("bilstm+aug-dkd").unwrap().contains("2 classes"));
        assert_eq!(why("bilstm+aug20-ensemble").unwrap(), "too long for smoke");
        session.profile = "quick".into();
        let mut variants = session.ablation();
        variants.retain(|v| v.left_out.as_deref() == Some("too long for quick"));
        let long: Vec<&str> = variants.iter().map(|v| v.variant.as_str()).collect();
        assert_eq!(long, ["bilstm+aug50-ensemble-batch512"]);
    }
}
