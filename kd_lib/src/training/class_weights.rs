//! Weights of the classes in the hard loss: where classes are unbalanced, a text of a rare class
//! counts more. They change neither the batches nor the teacher's part of a loss.

use crate::objectives::UNLABELLED;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// How the classes are weighted: `train.class_weights` in a recipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassWeights {
    /// `n / (K · n_c)` for a class with n_c of n texts, K classes with texts (King & Zeng 2001).
    /// The mean over the texts is 1.
    Balanced,
}

impl ClassWeights {
    /// The weight of each class `[classes]`, from the labels of the training texts. A class without
    /// texts has weight 1.
    pub fn weights(self, labels: &[i64], classes: usize) -> Tensor {
        let ClassWeights::Balanced = self;
        let mut texts = vec![0usize; classes];
        for &label in labels.iter().filter(|&&label| label != UNLABELLED) {
            texts[label as usize] += 1;
        }
        let labelled: usize = texts.iter().sum();
        let with_texts = texts.iter().filter(|&&texts| texts > 0).count();
        let weight = |&class_texts: &usize| match class_texts {
            0 => 1.0,
            _ => labelled as f64 / (with_texts * class_texts) as f64,
        };
        Tensor::from_slice(&texts.iter().map(weight).collect::<Vec<f64>>())
    }
}
