//! When `kd distill` cross-validates a small corpus without being asked.
//! [`super::run_plan`](mod@super::run_plan) carries the folds out.

use super::plan::{DistillPlan, MIN_DISTILLED_UPDATES};
use crate::Result;
use crate::data::Corpus;

/// Default number of folds of cross-validation.
pub const FOLDS: usize = 5;
/// With fewer labelled texts a test split says little; cross-validation tests all of them.
const MAX_CROSS_VALIDATED_TEXTS: usize = 3000;
/// A test split with fewer texts says so little that weak students of folds say more.
const MIN_TEST_TEXTS: usize = 100;

/// Folds for a corpus: none if it is large, or if somebody chose its test texts.
pub fn suggested_folds(corpus: &Corpus, test_is_drawn: bool) -> usize {
    let labelled = corpus.train.len() + corpus.dev.len() + corpus.test.len();
    if labelled < MAX_CROSS_VALIDATED_TEXTS && test_is_drawn {
        FOLDS
    } else {
        0
    }
}

/// The reason why a plan with folds is worse than one that tests `test_texts` texts; none if it is
/// not.
pub fn reason_against_folds(planned: &Result<DistillPlan>, test_texts: usize) -> Option<String> {
    let plan = match planned {
        Ok(plan) => plan,
        Err(error) => return Some(error.to_string()),
    };
    let updates = plan.distilled_updates();
    let is_worse = updates < MIN_DISTILLED_UPDATES && test_texts >= MIN_TEST_TEXTS;
    is_worse.then(|| {
        format!(
            "the distilled student of each fold would have {updates} updates. Allow more time, or \
             say --folds {FOLDS}"
        )
    })
}
