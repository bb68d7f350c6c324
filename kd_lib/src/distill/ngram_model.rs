//! A linear model over n-grams (fastText, Joulin et al. 2017), by the crate `fasttext`. Report
//! and data report compare students with it: it trains in seconds, without a checkpoint and without
//! this library. The student of the same name is [`crate::models::fasttext`].

use crate::data::Example;
use crate::{Error, Result, files};
use fasttext::FastText;
use fasttext::args::Args;
use std::path::Path;

/// What the model's n-grams are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NgramUnit {
    /// Characters, without spaces.
    Characters,
    /// Words, which spaces separate.
    Words,
}

/// The settings of a linear model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NgramSettings {
    /// What n-grams are made of.
    pub unit: NgramUnit,
    /// Longest n-gram.
    pub longest: usize,
    /// Passes over the texts.
    pub epochs: usize,
    /// Rows that n-grams are hashed to.
    pub buckets: usize,
    /// Width of a row.
    pub width: usize,
}

/// A trained linear model.
pub struct NgramModel {
    model: FastText,
    unit: NgramUnit,
}

/// The class of a text, and its probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NgramPrediction {
    /// Class index.
    pub class: usize,
    /// Its probability.
    pub probability: f64,
}

/// How fastText marks a label.
const LABEL: &str = "__label__";

impl NgramModel {
    /// Trains on labelled texts. One thread, so that the result is the same each time.
    pub fn train(examples: &[Example], settings: NgramSettings) -> Result<NgramModel> {
        let failed = |problem: String| {
            let fix = "check that the folder of temporary files has space";
            Error::file(Path::new("fasttext"), problem, fix)
        };
        let file = tempfile::NamedTempFile::new().map_err(|e| failed(e.to_string()))?;
        let mut lines = String::new();
        for example in examples {
            lines += &format!(
                "{LABEL}{} {}\n",
                example.label,
                settings.unit.words(example)
            );
        }
        files::write_text(file.path(), &lines)?;
        let mut args = Args {
            input: file.path().into(),
            word_ngrams: settings.longest as i32,
            ..Args::default()
        };
        args.apply_supervised_defaults();
        let args = Args {
            epoch: settings.epochs as i32,
            lr: 0.5,
            bucket: settings.buckets as i32,
            dim: settings.width as i32,
            thread: 1,
            verbose: 0,
            ..args
        };
        let model = FastText::train(args).map_err(|e| failed(e.to_string()))?;
        Ok(NgramModel {
            model,
            unit: settings.unit,
        })
    }

    /// The most probable class of a text; none if no n-gram of it is known.
    pub fn predict(&self, example: &Example) -> Option<NgramPrediction> {
        // The end of a line has n-grams that the model was trained on. The crate's `predict` leaves
        // them out.
        let (mut words, mut labels) = (Vec::new(), Vec::new());
        let text = self.unit.words(example) + " </s>";
        self.model
            .dict()
            .get_line_from_str(&text, &mut words, &mut labels);
        let predictions = self.model.predict_on_words(&words, 1, 0.0);
        let best = predictions.first()?;
        Some(NgramPrediction {
            class: best.label.strip_prefix(LABEL)?.parse().ok()?,
            probability: f64::from(best.prob),
        })
    }

    /// The share of correct predictions.
    pub fn accuracy(&self, examples: &[Example]) -> f64 {
        let is_correct = |example: &&Example| {
            let prediction = self.predict(example);
            prediction.is_some_and(|prediction| prediction.class == example.label)
        };
        examples.iter().filter(is_correct).count() as f64 / examples.len().max(1) as f64
    }
}

impl NgramUnit {
    /// The units of a text, or of both texts of a pair, with spaces between them.
    fn words(self, example: &Example) -> String {
        let texts = example.input().texts();
        match self {
            NgramUnit::Words => texts.collect::<Vec<_>>().join(" "),
            NgramUnit::Characters => texts
                .flat_map(str::chars)
                .filter(|character| !character.is_whitespace())
                .map(String::from)
                .collect::<Vec<_>>()
                .join(" "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Vec<Example> {
        let text_and_label = |line: usize| match line % 2 {
            0 => ("甲乙", 0),
            _ => ("乙甲", 1),
        };
        let example = |line| {
            let (text, label) = text_and_label(line);
            Example {
                text: text.into(),
                text_pair: None,
                label,
                line,
            }
        };
        (0..80).map(example).collect()
    }

    #[test]
    fn n_grams_learn_what_two_characters_mean_together() {
        let accuracy = |longest| {
            let settings = NgramSettings {
                unit: NgramUnit::Characters,
                longest,
                epochs: 20,
                buckets: 1000,
                width: 10,
            };
            let model = NgramModel::train(&order(), settings).unwrap();
            model.accuracy(&order())
        };
        assert_eq!(accuracy(1), 0.5, "without an order the two texts are equal");
        assert_eq!(accuracy(2), 1.0);
    }
}
