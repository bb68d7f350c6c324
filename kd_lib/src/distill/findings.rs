//! What a distillation brought, in numbers and in a sentence. The report shows it; this module
//! scores nothing.

use super::evidence::{Evidence, Tested};
use super::plan::Side;
use super::references::References;
use crate::evaluation::significance::{Difference, GapShare, difference, share_of_gap};
use crate::store::MeanSd;

/// Results on the test split.
#[derive(Debug, Clone, PartialEq)]
pub struct Findings {
    /// Accuracy of the teacher; none if its logits came from a file.
    pub teacher: Option<f64>,
    /// Accuracy of the baseline over its seeds.
    pub baseline: MeanSd,
    /// Accuracy of the distilled student over its seeds.
    pub distilled: MeanSd,
    /// Distilled − baseline.
    pub gain: Option<Difference>,
    /// The recovered share of the gap; none if the gap is not distinguishable from zero.
    pub recovered: Option<GapShare>,
    /// Models that are no students.
    pub references: References,
    /// The side that dev prefers. Its student is delivered.
    pub delivered: Side,
    /// Accuracy of the delivered side on dev.
    pub delivered_dev: f64,
    /// Folds of cross-validation; 0 without.
    pub folds: usize,
}

impl Findings {
    pub(super) fn of(evidence: &Evidence, folds: usize) -> Findings {
        let accuracy = |models: &[Tested]| {
            MeanSd::of(&models.iter().map(|m| m.scores.accuracy).collect::<Vec<_>>())
        };
        let correct = |models: &[Tested]| -> Vec<Vec<bool>> {
            models.iter().map(|m| m.correct.clone()).collect()
        };
        let teacher = evidence.teacher.first();
        let on_dev = evidence.delivered_side().iter().map(Tested::dev_accuracy);
        let on_dev: Vec<f64> = on_dev.collect();
        let (ours, other) = (correct(&evidence.distilled), correct(&evidence.baseline));
        Findings {
            teacher: teacher.map(|teacher| teacher.scores.accuracy),
            baseline: accuracy(&evidence.baseline),
            distilled: accuracy(&evidence.distilled),
            gain: difference(&ours, &other),
            recovered: teacher.and_then(|teacher| share_of_gap(&ours, &other, &teacher.correct)),
            references: evidence.references,
            delivered: evidence.delivered,
            delivered_dev: MeanSd::of(&on_dev).mean,
            folds,
        }
    }

    /// Whether distillation helped, in a few sentences.
    pub fn verdict(&self) -> String {
        let Some(gain) = &self.gain else {
            return "There is no test text, so nothing can be said.".into();
        };
        let sentences = [
            Some(what_distillation_brought(gain)),
            self.weak_teacher(),
            self.single_seed(gain),
            Some(self.delivered_student(gain)),
            self.cheaper_model(),
        ];
        let said: Vec<String> = sentences.into_iter().flatten().collect();
        said.join(" ")
    }

    fn weak_teacher(&self) -> Option<String> {
        let is_weak = self.teacher? <= self.baseline.mean;
        is_weak.then(|| {
            "The teacher is no better than the baseline, so what the distilled student gains or \
             loses does not come from the teacher. Allow a longer budget."
                .into()
        })
    }

    fn single_seed(&self, gain: &Difference) -> Option<String> {
        if gain.seeds > 1 {
            return None;
        }
        let sentence = if self.folds == 0 {
            "Each side was trained once: the interval covers the choice of test texts, but another \
             seed may give another difference."
        } else {
            "Each side was trained once on each fold: the interval covers the choice of texts, but \
             other seeds may give another difference."
        };
        Some(sentence.into())
    }

    fn delivered_student(&self, gain: &Difference) -> String {
        let (name, lead_on_test) = match self.delivered {
            Side::Distilled => ("distilled one", gain.mean),
            Side::Baseline => ("baseline", -gain.mean),
        };
        let contrast = if lead_on_test < 0.0 {
            ", although its accuracy on test is the lower one"
        } else {
            ""
        };
        format!("The student that is delivered is the {name}: dev prefers it{contrast}.")
    }

    /// The cheapest model that is as good as the delivered student on dev.
    fn cheaper_model(&self) -> Option<String> {
        let References {
            majority,
            linear,
            linear_probe,
        } = self.references;
        let references = [
            (majority, "The most frequent class", ""),
            (linear, "A linear model over n-grams", ""),
            (
                linear_probe,
                "A linear probe (a linear layer on the teacher before fine-tuning)",
                ", though it is as slow as the teacher",
            ),
        ];
        let (scores, name, though) = references
            .into_iter()
            .find(|(scores, ..)| scores.dev >= self.delivered_dev)?;
        let compared = if scores.dev > self.delivered_dev {
            "better"
        } else {
            "as good"
        };
        Some(format!(
            "{name} is {compared} on dev (accuracy {:.4}, the student's {:.4}){though}.",
            scores.dev, self.delivered_dev
        ))
    }
}

fn what_distillation_brought(gain: &Difference) -> String {
    let points = format!(
        "{:+.1} points of accuracy, 95 % interval {:+.1} to {:+.1}",
        100.0 * gain.mean,
        100.0 * gain.interval.low,
        100.0 * gain.interval.high
    );
    if gain.interval.low > 0.0 {
        format!("Distillation helped: {points}.")
    } else if gain.interval.high < 0.0 {
        format!("Distillation reduced accuracy: {points}.")
    } else {
        format!(
            "The difference between the distilled student and the baseline may be chance: {points}. \
             Texts without labels (--unlabelled) or a longer budget can bring more."
        )
    }
}
