//! Text pairs: tokens compared with transformers, characters with a separator, corpora,
//! augmentation, whole runs and predictions.

use crate::common::{TINY_STUDENT, distance, lock_generator, pair_corpus, recipe, reference, root};
use crate::common::{teacher_weights, tiny_checkpoint};
use kd_lib::Error;
use kd_lib::data::truncation::longest_first;
use kd_lib::data::{
    Augmentation, CharTokenizer, Corpus, Example, Split, SubwordTokenizer, TextInput,
    TransferConfig, Truncation, Vocabulary,
};
use kd_lib::evaluation::to_array;
use kd_lib::files::read_json;
use kd_lib::store::{Predictor, Recipe, RunStore};
use kd_lib::training::progress::silent;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

/// What transformers makes of a pair.
#[derive(Debug, PartialEq, Deserialize)]
struct Encoding {
    ids: Vec<u32>,
    token_types: Vec<u32>,
}

fn hand_written_pairs() -> Vec<[String; 2]> {
    read_json(&root().join("kd_lib/tests/reference/pairs.json")).unwrap()
}

/// Compares ids and token types of all pairs at several maximum lengths. `tokenizer` is the file
/// that transformers reads, `checkpoint` the folder that the library reads.
fn assert_same_as_transformers(tokenizer: &Path, checkpoint: &Path) {
    let (folder, pairs) = (tempfile::tempdir().unwrap(), hand_written_pairs());
    assert_eq!(pairs.len(), 200);
    reference("pairs.py", &[tokenizer, folder.path()]);
    let expected: BTreeMap<usize, Vec<Encoding>> =
        read_json(&folder.path().join("encodings.json")).unwrap();
    let inputs = pairs.iter().map(|[text, text_pair]| TextInput {
        text,
        text_pair: Some(text_pair),
    });
    let inputs: Vec<TextInput> = inputs.collect();
    let mut truncated = 0;
    for (&length, expected) in &expected {
        let ours =
            SubwordTokenizer::open(checkpoint)
                .unwrap()
                .with_limit("", length, Truncation::Head);
        let encodings = ours.tokenizer_encodings(&inputs).unwrap();
        for ((pair, ours), theirs) in pairs.iter().zip(encodings).zip(expected) {
            let ours = Encoding {
                ids: ours.ids,
                token_types: ours.token_types,
            };
            assert_eq!(&ours, theirs, "{pair:?} at {length}");
            truncated += usize::from(theirs.ids.len() == length);
        }
    }
    assert!(truncated > 100, "{truncated} pairs were truncated");
}

#[test]
fn two_hundred_pairs_have_the_tokens_of_transformers_under_the_default_teacher() {
    let weights = teacher_weights();
    assert_same_as_transformers(&weights.join("tokenizer.json"), &weights);
}

#[test]
fn two_hundred_pairs_have_the_tokens_and_types_of_transformers_under_word_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let texts = hand_written_pairs().concat().concat().to_lowercase();
    let characters: BTreeSet<char> = texts.chars().filter(|c| !c.is_whitespace()).collect();
    let mut vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].join("\n");
    for character in characters {
        write!(vocabulary, "\n{character}\n##{character}").unwrap();
    }
    let path = folder.path().join("vocab.txt");
    std::fs::write(&path, vocabulary).unwrap();
    assert_same_as_transformers(&path, folder.path());
}

#[test]
fn the_prefix_stands_before_the_first_text_only() {
    let weights = teacher_weights();
    let encode = |prefix: &str, text: &str| {
        let tokenizer =
            SubwordTokenizer::open(&weights)
                .unwrap()
                .with_limit(prefix, 64, Truncation::Head);
        let pair = TextInput {
            text,
            text_pair: Some("篮球"),
        };
        tokenizer.tokenizer_encodings(&[pair]).unwrap()
    };
    assert_eq!(encode("query: ", "足球"), encode("", "query: 足球"));
}

#[test]
fn the_longer_text_of_a_pair_is_cut_first() {
    for first in 0..40 {
        for second in 0..40 {
            for budget in 0..90 {
                let kept = longest_first(first, second, budget);
                let lengths = format!("{first} and {second} tokens in {budget}: {kept:?}");
                assert_eq!(
                    kept.first + kept.second,
                    budget.min(first + second),
                    "{lengths}"
                );
                assert!(kept.first <= first && kept.second <= second, "{lengths}");
                // A text that was cut is at most one token shorter than the other one.
                if kept.first < first {
                    assert!(kept.first + 1 >= kept.second, "{lengths}");
                }
                if kept.second < second {
                    assert!(kept.second + 1 >= kept.first, "{lengths}");
                }
            }
        }
    }
}

#[test]
fn characters_of_a_pair_are_joined_by_a_separator() {
    let pair = TextInput {
        text: "足球足球",
        text_pair: Some("足球"),
    };
    let tokenizer = |texts: &[TextInput], max_length| CharTokenizer {
        vocabulary: Vocabulary::build(texts.iter().copied(), 5),
        max_length,
        truncation: Truncation::Head,
    };
    let entries = tokenizer(&[pair], 9).vocabulary.entries().to_vec();
    assert_eq!(entries, ["<PAD>", "<UNK>", "<SEP>", "球", "足"]);
    let ids = |max_length| tokenizer(&[pair], max_length).encode(&[pair]).unwrap().ids;
    assert_eq!(ids(9), [[4, 3, 4, 3, 2, 4, 3]]);
    assert_eq!(ids(6), [[4, 3, 4, 2, 4, 3]]);
    let single_texts = tokenizer(&["足球".into()], 9);
    let error = single_texts.encode(&[pair]).unwrap_err().to_string();
    assert!(error.contains("<SEP>"), "{error}");
}

fn append(path: &Path, line: &str) {
    let before = std::fs::read_to_string(path).unwrap();
    std::fs::write(path, before + line + "\n").unwrap();
}

#[test]
fn a_pair_leaks_if_both_texts_recur_in_this_order() {
    let folder = tempfile::tempdir().unwrap();
    pair_corpus(folder.path());
    append(&folder.path().join("dev.csv"), "乙,same,甲");
    for line in ["乙,same,甲", "甲,same,乙", "乙,same,丙"] {
        append(&folder.path().join("train.csv"), line);
    }
    let corpus = Corpus::open(folder.path()).unwrap();
    assert!(corpus.has_pairs());
    assert_eq!(corpus.data_quality().train_in_dev, 1);
    let kept = corpus.clone().without_leaks();
    let last: Vec<TextInput> = kept
        .train
        .iter()
        .rev()
        .take(2)
        .map(Example::input)
        .collect();
    let pair = |text, second| TextInput {
        text,
        text_pair: Some(second),
    };
    assert_eq!(last, [pair("丙", "乙"), pair("乙", "甲")]);
    assert_eq!(kept.train.len(), corpus.train.len() - 1);
}

#[test]
fn splits_with_and_without_second_texts_are_refused_and_so_is_a_cut_middle() {
    let folder = tempfile::tempdir().unwrap();
    pair_corpus(folder.path());
    let settings = [&TINY_STUDENT[..], &["data.truncation=head_tail"]].concat();
    let store = RunStore::new(folder.path());
    let corpus = Corpus::open(folder.path()).unwrap();
    let error = store
        .plan(&recipe("student", &settings), &corpus)
        .unwrap_err();
    assert!(error.to_string().contains("data.truncation"), "{error}");

    std::fs::write(folder.path().join("test.csv"), "text,label\n足球,same\n").unwrap();
    let error = Corpus::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains("text_pair"), "{error}");
}

#[test]
fn an_augmented_pair_keeps_one_text_and_recurs_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    pair_corpus(folder.path());
    let unlabelled = folder.path().join("more.txt");
    std::fs::write(&unlabelled, "主队夺冠\t球迷庆祝\n基金净值上涨\t股市反弹\n").unwrap();
    let corpus = Corpus::open(folder.path()).unwrap();
    let config = TransferConfig {
        unlabelled_file: Some(unlabelled.clone()),
        augmentations_per_text: 3,
        augmentations: vec![
            Augmentation::Mask,
            Augmentation::SpanCrop,
            Augmentation::Crossover,
            Augmentation::Rotation,
            Augmentation::SpanReplacement,
        ],
        ..TransferConfig::default()
    };
    let set = config.build(&corpus, &[]).unwrap();
    assert_eq!(set[1].input().text_pair, Some("股市反弹"));
    assert!(set.len() > 2 * corpus.train.len());
    let sources: Vec<TextInput> = corpus.train.iter().map(Example::input).collect();
    let (mut first_kept, mut second_kept) = (0, 0);
    for augmented in set
        .iter()
        .filter(|text| text.augmented)
        .map(|text| text.input())
    {
        let keeps_first = sources.iter().any(|source| source.text == augmented.text);
        let keeps_second = sources.iter().any(|s| s.text_pair == augmented.text_pair);
        let file_texts = ["主队夺冠", "球迷庆祝", "基金净值上涨", "股市反弹"];
        let unlabelled = augmented.texts().any(|text| file_texts.contains(&text));
        assert!(keeps_first || keeps_second || unlabelled, "{augmented:?}");
        first_kept += usize::from(keeps_first);
        second_kept += usize::from(keeps_second);
    }
    assert!(
        first_kept > 50 && second_kept > 50,
        "{first_kept} and {second_kept}"
    );
    let all: BTreeSet<String> = set
        .iter()
        .map(|text| format!("{:?}", text.input()))
        .collect();
    assert_eq!(all.len(), set.len());

    std::fs::write(&unlabelled, "主队夺冠\t球迷庆祝\n没有第二句\n").unwrap();
    let error = config.build(&corpus, &[]).unwrap_err();
    assert!(matches!(error, Error::Line { line: 2, .. }), "{error}");
}

#[test]
fn a_student_of_pairs_is_distilled_and_predicts_as_it_was_tested() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    pair_corpus(folder.path());
    tiny_checkpoint(&folder.path().join("tiny"));
    let corpus = Corpus::open(folder.path()).unwrap();
    let teacher = recipe("teacher", &crate::common::TINY_TEACHER);
    let augmented = ["transfer.augmentations_per_text=1"];
    let student = Recipe {
        teacher: Some(Box::new(teacher.clone())),
        ..recipe("distilled", &[&TINY_STUDENT[..], &augmented].concat())
    };
    let store = RunStore::new(folder.path());
    for recipe in [&student, &teacher] {
        let run = store.run(recipe, &corpus, &mut silent).unwrap();
        assert!(run.report.text_pairs);
        let predictor = Predictor::open(&run).unwrap();
        let texts: Vec<TextInput> = corpus.test.iter().map(Example::input).collect();
        let predicted = to_array(&predictor.logits(&texts).unwrap()).unwrap();
        assert_eq!(predicted, run.logits(Split::Test).unwrap().logits);
        let swapped = texts.iter().map(|pair| TextInput {
            text: pair.text_pair.unwrap(),
            text_pair: Some(pair.text),
        });
        let logits = predictor.logits(&texts).unwrap();
        let other = predictor.logits(&Vec::from_iter(swapped)).unwrap();
        assert!(distance(&logits, &other) > 1e-6);
        let error = predictor.predict(&["足球"]).unwrap_err().to_string();
        assert!(error.contains("this model reads pairs"), "{error}");
    }
}
