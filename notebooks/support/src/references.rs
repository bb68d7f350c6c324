//! A reference model that has nothing in common with the student, on the same texts and labels: a
//! linear model over character n-grams.

use crate::{OrEndCell, Session};
use kd_lib::Result;
use kd_lib::data::Corpus;
use kd_lib::distill::{NgramModel, NgramSettings, NgramUnit};
use kd_lib::store::Recipe;

/// Accuracies of a reference model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accuracies {
    /// On dev, which chooses.
    pub dev: f64,
    /// On test, which is reported.
    pub test: f64,
}

/// fastText (Joulin et al. 2017): one linear layer over the mean of the vectors of all character
/// n-grams of up to `longest` characters, trained on the labels for `epochs`.
pub fn linear(corpus: &Corpus, longest: usize, epochs: usize) -> Result<Accuracies> {
    let settings = NgramSettings {
        unit: NgramUnit::Characters,
        longest,
        epochs,
        buckets: 500_000,
        width: 100,
    };
    let model = NgramModel::train(&corpus.train, settings)?;
    Ok(Accuracies {
        dev: model.accuracy(&corpus.dev),
        test: model.accuracy(&corpus.test),
    })
}

impl Session {
    /// The linear reference on the texts that `recipe` trains on.
    pub fn linear(&self, recipe: &Recipe, longest: usize, epochs: usize) -> Accuracies {
        let plan = self.store.plan(recipe, &self.corpus);
        plan.and_then(|plan| linear(&plan.corpus, longest, epochs))
            .or_end_cell()
    }
}
