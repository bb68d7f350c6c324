//! A reference model that has nothing in common with the student, on the same texts and labels: a
//! linear model over character n-grams, by the crate `fasttext`.

use crate::{OrEndCell, Session, file_error};
use fasttext::FastText;
use fasttext::args::Args;
use kd_lib::Result;
use kd_lib::data::{Corpus, Example};
use kd_lib::store::Recipe;
use std::path::Path;

/// Accuracies of a reference model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Accuracies {
    /// On dev, which chooses.
    pub dev: f64,
    /// On test, which is reported.
    pub test: f64,
}

/// fastText (Joulin et al. 2017): one linear layer over the mean of the vectors of all character
/// n-grams of up to `longest` characters, trained on the labels for `epochs`. One thread, so that
/// the result is the same each time.
pub fn linear(corpus: &Corpus, longest: i32, epochs: i32) -> Result<Accuracies> {
    let failed = |problem: String| {
        let fix = "check that the folder of temporary files has space";
        file_error(Path::new("fasttext"), &problem, fix)
    };
    let file = tempfile::NamedTempFile::new().map_err(|e| failed(e.to_string()))?;
    let mut lines = String::new();
    for example in &corpus.train {
        lines += &format!("__label__{} {}\n", example.label, spaced(&example.text));
    }
    std::fs::write(file.path(), lines).map_err(|e| failed(e.to_string()))?;
    let mut args = Args {
        input: file.path().into(),
        word_ngrams: longest,
        ..Args::default()
    };
    args.apply_supervised_defaults();
    let args = Args {
        epoch: epochs,
        lr: 0.5,
        bucket: 500_000,
        thread: 1,
        verbose: 0,
        ..args
    };
    let model = FastText::train(args).map_err(|e| failed(e.to_string()))?;
    let is_correct = |example: &&Example| {
        // The end of a line has n-grams that the model was trained on. The crate's `predict` leaves
        // them out.
        let (mut words, mut labels) = (Vec::new(), Vec::new());
        let text = spaced(&example.text) + "</s>";
        model
            .dict()
            .get_line_from_str(&text, &mut words, &mut labels);
        let predictions = model.predict_on_words(&words, 1, 0.0);
        let expected = format!("__label__{}", example.label);
        predictions
            .first()
            .is_some_and(|prediction| prediction.label == expected)
    };
    let accuracy = |split: &[Example]| {
        split.iter().filter(is_correct).count() as f64 / split.len().max(1) as f64
    };
    Ok(Accuracies {
        dev: accuracy(&corpus.dev),
        test: accuracy(&corpus.test),
    })
}

/// Characters as fastText's words.
fn spaced(text: &str) -> String {
    let mut spaced = String::new();
    for character in text.chars().filter(|c| !c.is_whitespace()) {
        spaced.push(character);
        spaced.push(' ');
    }
    spaced
}

impl Session {
    /// The linear reference on the texts that `recipe` trains on.
    pub fn linear(&self, recipe: &Recipe, longest: i32, epochs: i32) -> Accuracies {
        let plan = self.store.plan(recipe, &self.corpus);
        plan.and_then(|plan| linear(&plan.corpus, longest, epochs))
            .or_end_cell()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn n_grams_learn_what_two_characters_mean_together() {
        let mut split = Vec::new();
        for line in 0..80 {
            let (text, label) = if line % 2 == 0 {
                ("甲乙", 0)
            } else {
                ("乙甲", 1)
            };
            split.push(Example {
                text: text.into(),
                text_pair: None,
                label,
                line,
            });
        }
        let corpus = Corpus {
            name: "order".into(),
            labels: vec!["a".to_owned(), "b".to_owned()],
            train: split.clone(),
            dev: split.clone(),
            test: split,
            fingerprint: "0".into(),
        };
        let unordered = linear(&corpus, 1, 20).unwrap();
        assert_eq!(
            unordered.dev, 0.5,
            "without an order the two texts are equal"
        );
        assert_eq!(
            linear(&corpus, 2, 20).unwrap(),
            Accuracies {
                dev: 1.0,
                test: 1.0
            }
        );
    }
}
