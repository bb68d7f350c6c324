//! fastText as a student: its logits, and whole runs of it.

use crate::common::{
    assert_distilled_resumed_and_predicts, batch, distance, lock_generator, of_tiny_teacher, recipe,
};
use kd_lib::models::fasttext::{FastText, FastTextSettings};
use kd_lib::models::{Classifier, Mode, NormOver, Perturbation};
use kd_lib::precision::Precision;
use kd_lib::store::Recipe;
use tch::{Device, Kind, Tensor};

const TINY: [&str; 7] = [
    "model.embedding_dim=12",
    "model.ngram_buckets=500",
    "train.epochs=2",
    "train.eval_every_samples=200",
    "data.max_length=32",
    "device=cpu",
    "train.precision=fp32",
];
const VOCAB: i64 = 20;
const BUCKETS: i64 = 50;

fn small(longest_ngram: usize) -> FastText {
    tch::manual_seed(5);
    let settings = FastTextSettings {
        embedding_dim: 6,
        longest_ngram,
        ngram_buckets: BUCKETS,
        dropout: 0.5,
        vocab_size: VOCAB as usize,
        embedding_init_std: None,
        pretrained_embeddings: None,
        tokenizer: None,
    };
    FastText::new(&settings, VOCAB, 3, Device::Cpu)
}

/// The row of an n-gram: its tokens, each plus 1, as digits of a number in a base that is a prime.
fn row(ngram: &[i64]) -> i64 {
    let number = ngram.iter().fold(0i128, |number, &id| {
        (number * 1_000_000_007 + i128::from(id) + 1) % 2_147_483_647
    });
    match ngram {
        [token] => *token,
        _ => VOCAB + (number as i64) % BUCKETS,
    }
}

/// The definition in plain numbers: all tokens and n-grams of a text, their vectors' sum divided by
/// the number of tokens, and a linear map.
fn logits_by_definition(model: &FastText, ids: &[i64], longest: usize) -> Tensor {
    let values = |name: &str| -> Tensor {
        let param = model.params().iter().find(|p| p.name == name).unwrap();
        param.tensor.detach().to_kind(Kind::Double)
    };
    let vectors = values("embedding.weight");
    let mut sum = Tensor::zeros([6], (Kind::Double, Device::Cpu));
    for n in 1..=longest {
        for ngram in ids.windows(n) {
            sum += vectors.get(row(ngram));
        }
    }
    let mean = sum / ids.len() as f64;
    values("classifier.weight").mv(&mean) + values("classifier.bias")
}

#[test]
fn a_fasttext_adds_tokens_and_n_grams_whatever_its_neighbours_in_the_batch() {
    let _turn = lock_generator();
    let texts = [vec![3, 7, 1, 9, 4], vec![2], vec![5, 5, 3]];
    for longest in 1..=4 {
        let model = small(longest);
        let logits = model.logits(&batch(&texts), Mode::Eval, Precision::Fp32);
        for (at, text) in texts.iter().enumerate() {
            let expected = logits_by_definition(&model, text, longest);
            let difference = distance(&logits.get(at as i64), &expected.to_kind(Kind::Float));
            assert!(difference < 1e-5, "{text:?}, {longest}: {difference}");
        }
    }
}

/// Two texts of the same tokens: only n-grams see their order.
#[test]
fn n_grams_see_the_order_of_tokens() {
    let _turn = lock_generator();
    let texts = [vec![3, 7, 1], vec![1, 7, 3]];
    let difference = |longest| {
        let logits = small(longest).logits(&batch(&texts), Mode::Eval, Precision::Fp32);
        distance(&logits.get(0), &logits.get(1))
    };
    assert!(difference(1) < 1e-6 && difference(2) > 0.01);
}

/// A perturbation of the matrix acts on each vector that a text uses; one of each example's own
/// vectors, which has a row for each token, acts once.
#[test]
fn both_kinds_of_perturbation_reach_the_logits() {
    let _turn = lock_generator();
    let model = small(2);
    let batch = batch(&[vec![3, 7, 1], vec![5]]);
    let embedded = |perturbation: Option<&Perturbation>| {
        let tokens = model.embed(&batch, Mode::Eval, perturbation);
        tokens.get(0).detach()
    };
    let moved = |values: Tensor, norm_over| {
        let perturbation = Perturbation::new(&values, norm_over);
        embedded(Some(&perturbation)) - embedded(None)
    };
    let ones = |size: &[i64]| Tensor::ones(size, (Kind::Float, Device::Cpu));
    // The first token ends no bigram, the others one each.
    let matrix_moved = moved(ones(&[VOCAB + BUCKETS, 6]), NormOver::Matrix);
    let expected = Tensor::from_slice(&[1f32, 2.0, 2.0]).unsqueeze(1) * ones(&[1, 6]);
    assert!(distance(&matrix_moved, &expected) < 1e-5);
    let example_moved = moved(ones(&[2, 3, 6]), NormOver::Example);
    assert!(distance(&example_moved, &ones(&[3, 6])) < 1e-5);
}

#[test]
fn settings_without_a_meaning_are_refused() {
    for odd in [
        "longest_ngram=0",
        "longest_ngram=9",
        "ngram_buckets=0",
        "embedding_dim=0",
        "dropout=1",
    ] {
        let setting = format!("model.{odd}");
        let path = crate::common::root().join("notebooks/recipes/fasttext.toml");
        let refused = Recipe::read(path, "full", std::slice::from_ref(&setting))
            .and_then(|recipe| recipe.validate());
        let error = refused.unwrap_err().to_string();
        let key = setting.split('=').next().unwrap();
        assert!(error.contains(key), "{error}");
    }
}

#[test]
fn a_fasttext_is_distilled_resumes_to_the_same_bytes_and_predicts() {
    let student = of_tiny_teacher(recipe("fasttext+kd", &TINY));
    assert_distilled_resumed_and_predicts(&student);
}
