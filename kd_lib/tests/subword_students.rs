//! Students that read subwords: the pruned vocabulary of each kind of tokenizer, and a training
//! run.

use crate::common::{TINY_STUDENT, lock_generator, reference, root, sample, teacher_weights};
use kd_lib::data::{
    ColumnOptions, Corpus, Example, SubwordTokenizer, TextInput, Truncation, import,
};
use kd_lib::store::{Predictor, Recipe, RunStore};
use kd_lib::training::progress::silent;
use std::path::Path;

/// The tokenizers are trained on all of these; the pruned ones see the first five alone.
const TEXTS: [&str; 8] = [
    "the unhappy teacher teaches happily",
    "a happy student studies the lesson",
    "teachers and students are unhappy with lessons",
    "happiness is a lesson that teaches",
    "learn, then learn again",
    "unhappiness in the untaught learner",
    "lessons unlearned with happier learners",
    "a teacherless lesson",
];
/// Large enough for every piece.
const ANY_SIZE: usize = 100_000;

fn open(folder: &Path) -> SubwordTokenizer {
    SubwordTokenizer::open(folder)
        .unwrap()
        .with_limit("", 64, Truncation::Head)
}

/// What a text is split into, the special tokens around it aside.
fn pieces(tokenizer: &SubwordTokenizer, text: &str) -> Vec<String> {
    let encoding = tokenizer.tokenizer_encodings(&[text]).unwrap().remove(0);
    let names = encoding.ids.iter().map(|&id| tokenizer.piece(id));
    let around = ["[CLS]", "[SEP]", "<s>", "</s>"];
    names
        .filter(|name| !around.contains(&name.as_str()))
        .collect()
}

/// Texts whose pieces are kept are split as before; others into smaller pieces, none unknown.
fn check_pruning(whole: &SubwordTokenizer, seen: &[&str], unseen: &[&str]) {
    let pruned = whole
        .shrink_vocabulary(seen, ANY_SIZE)
        .unwrap()
        .without_special_tokens();
    let size = pruned.vocab_size().unwrap();
    assert_eq!(size as usize, pruned.pieces().len());
    for text in seen {
        assert_eq!(pieces(&pruned, text), pieces(whole, text), "{text}");
    }
    let mut split_further = 0;
    for text in unseen {
        let (before, after) = (pieces(whole, text), pieces(&pruned, text));
        let unknown = after
            .iter()
            .any(|piece| piece == "[UNK]" || piece == "<unk>");
        assert!(!unknown, "{text}: {after:?}");
        split_further += usize::from(after.len() > before.len());
    }
    assert!(split_further > 0, "some unseen text has an unseen piece");
    let rows = pruned.encode(seen).unwrap();
    let highest = rows.ids.iter().flatten().max().copied();
    assert!(highest.is_some_and(|row| row < size), "rows are dense");
    let folder = tempfile::tempdir().unwrap();
    pruned.write(folder.path()).unwrap();
    let read = SubwordTokenizer::read(folder.path()).unwrap();
    assert_eq!(
        read.encode(unseen).unwrap().ids,
        pruned.encode(unseen).unwrap().ids
    );
}

#[test]
fn a_pruned_tokenizer_splits_seen_texts_as_before_and_others_into_smaller_pieces() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("texts.txt"), TEXTS.join("\n")).unwrap();
    reference("trained_tokenizers.py", &[folder.path()]);
    for kind in ["wordpiece", "bpe"] {
        check_pruning(&open(&folder.path().join(kind)), &TEXTS[..5], &TEXTS[5..]);
    }
    let corpus = Corpus::open(sample()).unwrap();
    let train: Vec<&str> = corpus.train.iter().map(|e| e.text.as_str()).collect();
    // Characters of the training texts, in words that they do not contain.
    let unseen = ["足球基金", "考试电影"];
    check_pruning(&open(&teacher_weights()), &train, &unseen);
}

#[test]
fn the_size_bounds_the_vocabulary_and_an_empty_text_is_one_unknown_piece() {
    let corpus = Corpus::open(sample()).unwrap();
    let train: Vec<&str> = corpus.train.iter().map(|e| e.text.as_str()).collect();
    let whole = open(&teacher_weights());
    let pruned = whole
        .shrink_vocabulary(&train, 60)
        .unwrap()
        .without_special_tokens();
    assert_eq!(pruned.vocab_size(), Some(60));
    let unknown = pruned.id_of_piece("<unk>").unwrap();
    assert_eq!(pruned.encode(&[""]).unwrap().ids, [[i64::from(unknown)]]);
}

#[test]
fn special_tokens_separate_the_two_texts_of_a_pair_alone() {
    let whole = open(&teacher_weights());
    let pair = TextInput {
        text: "足球",
        text_pair: Some("基金"),
    };
    let ends = |tokenizer: &SubwordTokenizer, ids: &[i64]| {
        let separator = i64::from(tokenizer.id_of_piece("</s>").unwrap());
        ids.iter().filter(|&&id| id == separator).count()
    };
    let pruned_with_pairs = whole.shrink_vocabulary(&[pair], ANY_SIZE).unwrap();
    assert_eq!(
        ends(
            &pruned_with_pairs,
            &pruned_with_pairs.encode(&[pair]).unwrap().ids[0]
        ),
        3
    );
    let pruned_with_texts = whole
        .shrink_vocabulary(&["足球"], ANY_SIZE)
        .unwrap()
        .without_special_tokens();
    assert_eq!(
        ends(
            &pruned_with_texts,
            &pruned_with_texts.encode(&["足球"]).unwrap().ids[0]
        ),
        0
    );
}

#[test]
fn a_student_reads_its_teachers_subwords_from_training_to_prediction() {
    let _guard = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let store = RunStore::new(folder.path()).with_pretrained(root().join("checkpoints"));
    let corpus = Corpus::open(sample()).unwrap();
    for recipe in ["student.toml", "textcnn.toml"] {
        let path = root().join("notebooks/recipes").join(recipe);
        let mut settings = TINY_STUDENT.map(str::to_owned).to_vec();
        if recipe == "textcnn.toml" {
            settings.retain(|setting| !setting.starts_with("model.hidden_size"));
        }
        settings.push("model.tokenizer=e5-small".into());
        settings.push("model.pretrained_embeddings=e5-small".into());
        let recipe = Recipe::read(path, "smoke", &settings).unwrap();
        let run = store.run(&recipe, &corpus, &mut silent).unwrap();
        let predictor = Predictor::open(&run).unwrap();
        let texts: Vec<&str> = corpus.test.iter().map(|e| e.text.as_str()).collect();
        let logits = predictor.logits(&texts).unwrap();
        let stored = run.logits(kd_lib::data::Split::Test).unwrap().logits;
        let stored = kd_lib::tch::Tensor::try_from(stored).unwrap();
        assert!(crate::common::distance(&logits, &stored) < 1e-5);
    }
}

#[test]
fn what_a_student_takes_of_a_checkpoint_is_part_of_its_id_and_the_checkpoints_place_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let store = RunStore::new(folder.path()).with_pretrained(root().join("checkpoints"));
    let corpus = Corpus::open(sample()).unwrap();
    let path = root().join("notebooks/recipes/student.toml");
    let id = |settings: &[&str]| {
        let settings: Vec<String> = settings.iter().map(|s| (*s).to_owned()).collect();
        let recipe = Recipe::read(&path, "smoke", &settings).unwrap();
        store.plan(&recipe, &corpus).unwrap().id
    };
    let tokenizer = id(&["model.tokenizer=e5-small"]);
    let vectors = id(&["model.pretrained_embeddings=e5-small"]);
    let both = [
        "model.tokenizer=e5-small",
        "model.pretrained_embeddings=e5-small",
    ];
    assert!(tokenizer != vectors && tokenizer != id(&both) && vectors != id(&both));
    let other_spelling = format!("model.tokenizer={}", teacher_weights().display());
    assert_eq!(tokenizer, id(&[&other_spelling]));
}

#[test]
fn a_tokenizer_and_vectors_of_two_checkpoints_are_refused() {
    let path = root().join("notebooks/recipes/student.toml");
    let mut settings = vec!["model.tokenizer=e5-small".to_owned()];
    settings.push("model.pretrained_embeddings=another".into());
    let recipe = Recipe::read(path, "smoke", &settings).unwrap();
    let error = recipe.validate().unwrap_err().to_string();
    assert!(error.contains("model.pretrained_embeddings"), "{error}");
}

#[test]
fn sixty_texts_in_five_languages_train_a_student_that_knows_their_subwords() {
    let _guard = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let store = RunStore::new(folder.path()).with_pretrained(root().join("checkpoints"));
    let path = root().join("notebooks/recipes/student.toml");
    let mut settings = TINY_STUDENT.map(str::to_owned).to_vec();
    settings.push("model.tokenizer=e5-small".into());
    let recipe = Recipe::read(path, "smoke", &settings).unwrap();
    for language in ["arabic", "german", "japanese", "russian", "thai"] {
        let file = root().join(format!("kd_lib/tests/languages/{language}.csv"));
        let corpus = import(&file, &ColumnOptions::default()).unwrap().corpus;
        assert_eq!(
            corpus.train.len() + corpus.dev.len() + corpus.test.len(),
            60
        );
        let run = store.run(&recipe, &corpus, &mut silent).unwrap();
        let predictions = Predictor::open(&run).unwrap().predict(&["2026"]).unwrap();
        assert!(corpus.labels.contains(&predictions[0].label), "{language}");

        let tokenizer = SubwordTokenizer::read(run.folder().unwrap()).unwrap();
        let texts: Vec<TextInput> = corpus.test.iter().map(Example::input).collect();
        let encodings = tokenizer.tokenizer_encodings(&texts).unwrap();
        let ids: Vec<u32> = encodings.into_iter().flat_map(|e| e.ids).collect();
        let unknown = ids.iter().filter(|&&id| tokenizer.is_unknown(id)).count();
        // Characters that no training text has stay unknown: of Japanese there are many.
        assert!(
            unknown * 4 < ids.len(),
            "{language}: {unknown} of {}",
            ids.len()
        );
    }
}
