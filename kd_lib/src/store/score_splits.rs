//! The last step of a training run: scores the best weights on dev and test and writes their logits.

use super::planned_run::PlannedRun;
use super::run;
use crate::data::batch::eval_batches;
use crate::data::{Example, Split, TokenizedSplit, Tokenizer};
use crate::evaluation::{self, Scores, SplitPass, first_row_not_finite, to_array};
use crate::models::{Classifier, ForwardPass};
use crate::training::progress::TextClock;
use crate::training::{Activity, ProgressCallback};
use crate::{Error, Result};
use std::path::Path;
use tch::Tensor;

/// Scores on dev and test; test's are empty if the recipe skips it.
pub(super) struct SplitScores {
    pub dev: Scores,
    pub test: Scores,
    /// Divides the logits, if the recipe asks for temperature scaling.
    pub temperature: Option<f64>,
}

/// Scores the best model and writes the logits of dev and test. Both are one pass, so that a run
/// that is stopped in it computes nothing again.
pub(super) fn score_splits(
    planned: &PlannedRun,
    folder: &Path,
    tokenizer: &Tokenizer,
    model: &dyn Classifier,
    callback: ProgressCallback,
) -> Result<SplitScores> {
    let splits = if planned.recipe.data.skip_test {
        vec![Split::Dev]
    } else {
        vec![Split::Dev, Split::Test]
    };
    let all = joined_splits(planned, &splits, tokenizer)?;
    let pass = SplitPass {
        model,
        split: &all.texts,
        batches: &all.batches,
        forward: ForwardPass::evaluation(planned.precision),
    };
    let mut clock = TextClock::new(&planned.id, Activity::Scoring, all.texts.ids.len());
    let mut check_stop = |done| clock.at(done).send(callback);
    let mut logits = pass
        .resumable_outputs(folder, "scoring", &mut check_stop)?
        .logits;
    let temperature = logit_temperature(planned, &logits)?;
    if let Some(temperature) = temperature {
        logits /= temperature;
    }
    let (mut scores, mut first) = (Vec::new(), 0);
    for &split in &splits {
        let examples = planned.corpus.split(split);
        let labels = &all.texts.labels[first..first + examples.len()];
        let split_logits = logits.narrow(0, first as i64, examples.len() as i64);
        refuse_not_finite(folder, split, &split_logits, examples)?;
        run::write_logits(folder, split, &split_logits, labels)?;
        scores.push(evaluation::score(&split_logits, labels)?);
        first += examples.len();
    }
    let mut scores = scores.into_iter();
    Ok(SplitScores {
        dev: scores.next().unwrap_or_default(),
        test: scores.next().unwrap_or_default(),
        temperature,
    })
}

/// Several splits as one, in batches whose texts are all of the same split.
struct JoinedSplits {
    texts: TokenizedSplit,
    batches: Vec<Vec<usize>>,
}

fn joined_splits(
    planned: &PlannedRun,
    splits: &[Split],
    tokenizer: &Tokenizer,
) -> Result<JoinedSplits> {
    let train = &planned.recipe.train;
    let mut joined = JoinedSplits {
        texts: TokenizedSplit::default(),
        batches: Vec::new(),
    };
    for &split in splits {
        let tokenized = tokenizer.encode_split(planned.corpus.split(split))?;
        let first = joined.texts.ids.len();
        let size = train.batch_size;
        for batch in eval_batches(&tokenized, size, train.group_by_length, planned.device) {
            joined
                .batches
                .push(batch.iter().map(|row| first + row).collect());
        }
        joined.texts.append(tokenized);
    }
    Ok(joined)
}

/// The temperature that the recipe asks for, from a network's logits whose first rows are those of
/// dev.
fn logit_temperature(planned: &PlannedRun, logits: &Tensor) -> Result<Option<f64>> {
    let Some(scaling) = planned.recipe.train.temperature_scaling else {
        return Ok(None);
    };
    let dev = &planned.corpus.dev;
    let dev_logits = to_array(&logits.narrow(0, 0, dev.len() as i64))?;
    let labels: Vec<usize> = dev.iter().map(|example| example.label).collect();
    Ok(Some(scaling.temperature(dev_logits.view(), &labels)))
}

/// Refuses a model with a logit that is not a number or infinite, so that its run never counts as
/// finished.
fn refuse_not_finite(
    folder: &Path,
    split: Split,
    logits: &Tensor,
    examples: &[Example],
) -> Result<()> {
    let Some(row) = first_row_not_finite(logits)? else {
        return Ok(());
    };
    let line = examples[row].line;
    let problem = format!("the logits of line {line} of {split:?} are not finite");
    let fix = "train again with a lower learning rate or in fp32; the run is not finished";
    Err(Error::file(folder, problem, fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logit_that_is_not_finite_is_refused_with_the_line_of_its_text() {
        let examples = [3, 8].map(|line| Example {
            text: "基金".into(),
            text_pair: None,
            label: 0,
            line,
        });
        let refuse = |logits: [[f32; 2]; 2]| {
            let logits = Tensor::from_slice2(&logits);
            refuse_not_finite(Path::new("run"), Split::Test, &logits, &examples)
        };
        refuse([[0.0, 1.0], [2.0, 3.0]]).unwrap();
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = refuse([[0.0, 1.0], [odd, 3.0]]).unwrap_err().to_string();
            assert!(error.contains("line 8 of Test"), "{error}");
        }
    }
}
