//! Readers of files get arbitrary bytes: the result is a value or an error, never a panic. What is
//! written is read back unchanged.

use kd_lib::data::batch::{epoch_batches, eval_batches};
use kd_lib::data::lines::read_lines;
use kd_lib::data::text_files::{FileFormat, read_examples};
use kd_lib::data::truncation::SpecialTokens;
use kd_lib::data::{Corpus, TokenizedSplit, Truncation, Vocabulary};
use kd_lib::files::{TensorFile, write_tensors};
use kd_lib::store::Recipe;
use proptest::collection::vec;
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

fn file(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// Bytes that are almost a corpus: tabs, digits, quotes, line ends and broken UTF-8 among Chinese
/// characters.
fn almost_lines() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(b"\t".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"\"".to_vec()),
        Just(b",".to_vec()),
        Just(b"text,label\n".to_vec()),
        Just(b"\xEF\xBB\xBF".to_vec()),
        Just(b"\xff".to_vec()),
        "[0-9ab\\-]{1,3}".prop_map(String::into_bytes),
        "\\PC{0,6}".prop_map(String::into_bytes),
        "[一-龥]{1,6}".prop_map(String::into_bytes),
    ];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_corpus_file_is_read_or_its_error_names_it(bytes in almost_lines()) {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "train.txt", &bytes);
        let labels = ["a".to_owned(), "b".to_owned()];
        for format in [FileFormat::LabelText, FileFormat::TextIndex, FileFormat::Csv] {
            match read_examples(&path, format, &labels) {
                Ok(examples) => {
                    prop_assert!(!examples.is_empty());
                    prop_assert!(examples.iter().all(|e| e.label < 2 && e.line > 0));
                    prop_assert!(examples.iter().all(|e| !e.text.contains(char::is_control)));
                }
                Err(error) => prop_assert!(error.to_string().contains("train.txt"), "{error}"),
            }
        }
        prop_assert!(FileFormat::detect(&path, &labels).is_err() || read_lines(&path).is_ok());
        for name in ["class.txt", "train.txt", "dev.txt", "test.txt"] {
            file(folder.path(), name, &bytes);
        }
        let _ = Corpus::open(folder.path()); // no panic
    }

    #[test]
    fn written_lines_are_read_back(texts in vec(("[^\\p{C}\t]{1,20}", 0usize..2), 1..20)) {
        let folder = tempfile::tempdir().unwrap();
        let labels = ["a".to_owned(), "b".to_owned()];
        let line = |(text, label): &(String, usize)| format!("{text}\t{label}\r\n");
        let lines: String = texts.iter().map(line).collect();
        let path = file(folder.path(), "train.txt", lines.as_bytes());
        let read = read_examples(&path, FileFormat::TextIndex, &labels).unwrap();
        let expected: Vec<(String, usize)> = texts
            .iter()
            .map(|(text, label)| (text.trim().to_owned(), *label))
            .collect();
        prop_assert_eq!(read.into_iter().map(|e| (e.text, e.label)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_vocabulary_and_its_file_encode_texts_alike(
        texts in vec("\\PC{0,30}", 1..10),
        size in 3usize..60,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let built = Vocabulary::build(texts.iter().map(String::as_str), size);
        built.write(&folder.path().join("vocab.txt")).unwrap();
        let read = Vocabulary::read(&folder.path().join("vocab.txt")).unwrap();
        for text in &texts {
            let ids = built.encode(text);
            prop_assert_eq!(&ids, &read.encode(text));
            let entries = built.entries().len();
            prop_assert!(!ids.is_empty());
            prop_assert!(ids.iter().all(|&id| id > 0 && (id as usize) < entries));
        }
    }

    #[test]
    fn truncation_keeps_the_special_tokens_and_never_more_than_allowed(
        length in 0usize..60,
        max in 2usize..40,
        tail: bool,
    ) {
        let truncation = if tail { Truncation::HeadTail } else { Truncation::Head };
        let kept = truncation.apply((0..length).collect(), max, SpecialTokens::BERT);
        prop_assert_eq!(kept.len(), length.min(max));
        prop_assert!(kept.is_sorted() && kept.first().copied().unwrap_or(0) == 0);
        prop_assert!(length == 0 || kept.last() == Some(&(length - 1)));
    }

    #[test]
    fn an_epoch_holds_every_row_once(
        lengths in vec(1usize..40, 1..300),
        size in 1usize..40,
        seed: u64,
        number in 0usize..9,
    ) {
        let split = TokenizedSplit {
            ids: lengths.iter().map(|&n| vec![1; n]).collect(),
            ..TokenizedSplit::default()
        };
        for group_by_length in [true, false] {
            let batches = epoch_batches(&split, size, group_by_length, seed, number);
            prop_assert!(batches.iter().all(|b| !b.is_empty() && b.len() <= size));
            let mut rows: Vec<usize> = batches.concat();
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_evaluation_reads_every_row_once_in_batches_that_a_signal_can_wait_for(
        lengths in vec(1usize..40, 1..300),
        size in 1usize..40,
    ) {
        let split = TokenizedSplit {
            ids: lengths.iter().map(|&n| vec![1; n]).collect(),
            ..TokenizedSplit::default()
        };
        for (group_by_length, largest) in [(true, 32), (false, size)] {
            let batches = eval_batches(&split, size, group_by_length, Device::Cpu);
            prop_assert!(batches.iter().all(|b| !b.is_empty() && b.len() <= largest));
            let mut rows: Vec<usize> = batches.concat();
            prop_assert!(!group_by_length || rows.is_sorted_by_key(|&row| lengths[row]));
            rows.sort_unstable();
            prop_assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_tensor_file_of_any_bytes_is_read_or_refused(
        bytes in vec(any::<u8>(), 0..200),
        at in 0usize..120,
        value: u8,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "model.safetensors", &bytes);
        prop_assert!(TensorFile::read(&path).is_err());
        let rows = Tensor::from_slice(&[1f32, 2.0, 3.0]);
        write_tensors(&path, [("rows".to_owned(), &rows)]).unwrap();
        let mut written = std::fs::read(&path).unwrap();
        let place = at % written.len();
        written[place] = value;
        std::fs::write(&path, written).unwrap();
        let _ = TensorFile::read(&path); // one changed byte: other values or an error, no panic
    }

    #[test]
    fn a_recipe_of_any_text_is_read_or_refused(
        text in "\\PC{0,80}",
        setting in "[a-z.]{0,12}=?\\PC{0,12}",
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path(), "recipe.toml", text.as_bytes());
        let read = Recipe::read(&path, "full", &[]);
        prop_assert!(read.is_err(), "no such text is a complete recipe");
        let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let student = crate_folder.join("../notebooks/recipes/student.toml");
        let _ = Recipe::read(student, "full", &[setting]); // no panic
    }
}

#[test]
fn recipes_may_extend_one_another_in_a_long_chain_but_not_in_a_cycle() {
    let folder = tempfile::tempdir().unwrap();
    let student = Path::new(env!("CARGO_MANIFEST_DIR")).join("../notebooks/recipes/student.toml");
    std::fs::copy(student, folder.path().join("0.toml")).unwrap();
    let extending = |of: usize| format!("extends = \"{of}.toml\"\nseed = {}\n", 100 + of);
    for at in 1..=20 {
        file(
            folder.path(),
            &format!("{at}.toml"),
            extending(at - 1).as_bytes(),
        );
    }
    let last = folder.path().join("20.toml");
    assert_eq!(
        Recipe::read(&last, "full", &[]).unwrap().seed,
        119,
        "the nearest recipe has precedence"
    );
    file(folder.path(), "1.toml", extending(20).as_bytes());
    assert!(
        Recipe::read(&last, "full", &[])
            .unwrap_err()
            .to_string()
            .contains("extends itself")
    );
}
