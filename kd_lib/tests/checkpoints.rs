//! Checkpoint folders as other programs write them: standard defaults apply, and what would change
//! the result if it were ignored is refused.

use crate::common::{
    TINY_STUDENT, TINY_TEACHER, distance, lock_generator, recipe, root, sample, teacher_weights,
    tiny_checkpoint,
};
use kd_lib::data::{Batch, Corpus, Example, SubwordTokenizer, TextInput, Tokenizer, Truncation};
use kd_lib::files::{TensorFile, write_json, write_tensors};
use kd_lib::models::{
    Architecture, BertConfig, BertSettings, Checkpoint, ForwardPass, InitialWeights, Mode,
    ModelConfig, ModelSizes, Pooling, TokenizerTexts,
};
use kd_lib::precision::Precision;
use kd_lib::store::RunStore;
use kd_lib::training::progress;
use kd_lib::{Result, files};
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Replaces a key of the tiny checkpoint's `config.json`; removes it if there is no value.
fn set_config(folder: &Path, key: &str, value: Option<serde_json::Value>) {
    let path = folder.join("config.json");
    let mut config: serde_json::Value = files::read_json(&path).unwrap();
    let keys = config.as_object_mut().unwrap();
    match value {
        Some(value) => keys.insert(key.into(), value),
        None => keys.remove(key),
    };
    write_json(&path, &config).unwrap();
}

/// Adds a tensor to the tiny checkpoint, or removes one.
fn set_tensor(folder: &Path, name: &str, tensor: Option<Tensor>) {
    let path = folder.join("model.safetensors");
    let mut file = TensorFile::read(&path).unwrap();
    match tensor {
        Some(tensor) => file.tensors.insert(name.into(), tensor),
        None => file.tensors.remove(name),
    };
    let tensors = file
        .tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor));
    write_tensors(&path, tensors).unwrap();
}

/// Begins a model with the checkpoint's weights.
fn initialize(folder: &Path, pooling: Pooling) -> Result<()> {
    let settings = BertSettings {
        checkpoint: folder.display().to_string(),
        pooling,
        prefix: String::new(),
        prune_vocab: false,
        vocab_size: None,
        vocab_texts: None,
        pretrained: true,
        keep_layers: None,
        init_from_teacher: false,
        init_head_from_probe: false,
    };
    let checkpoint = Checkpoint::open(folder, &settings.checkpoint)?;
    let tokenizer = SubwordTokenizer::open(folder)?.with_limit("", 32, Truncation::Head);
    let tokenizer = kd_lib::data::Tokenizer::Subword(Box::new(tokenizer));
    let sizes = ModelSizes {
        vocab_size: checkpoint.config.vocab_size,
        num_labels: 2,
        checkpoint: Some(checkpoint.config.clone()),
    };
    let model = settings.build(&sizes, Device::Cpu)?;
    let sources = InitialWeights {
        checkpoint: Some(&checkpoint),
        teacher: None,
    };
    settings.initialize(model.as_ref(), &tokenizer, &sources)
}

#[test]
fn absent_and_null_keys_have_the_defaults_of_transformers() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(folder.path());
    for value in [None, Some(serde_json::Value::Null)] {
        for key in ["layer_norm_eps", "type_vocab_size", "hidden_dropout_prob"] {
            set_config(folder.path(), key, value.clone());
        }
        let config = BertConfig::read(&folder.path().join("config.json")).unwrap();
        assert_eq!(config.layer_norm_eps, 1e-12);
        assert_eq!(config.type_vocab_size, 2);
        assert_eq!(config.hidden_dropout_prob, 0.1);
        initialize(folder.path(), Pooling::Cls).unwrap();
    }
}

#[test]
fn sizes_and_dropouts_without_a_meaning_are_refused() {
    let _turn = lock_generator();
    for (key, value) in [
        ("hidden_size", serde_json::json!(-12)),
        ("intermediate_size", serde_json::json!(0)),
        ("hidden_dropout_prob", serde_json::json!(1.0)),
        ("is_decoder", serde_json::json!(true)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        tiny_checkpoint(folder.path());
        set_config(folder.path(), key, Some(value));
        let error = BertConfig::read(&folder.path().join("config.json")).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
    for padding in [-1, i64::MAX, i64::MIN] {
        let folder = tempfile::tempdir().unwrap();
        tiny_checkpoint(folder.path());
        set_config(folder.path(), "model_type", Some("roberta".into()));
        set_config(folder.path(), "pad_token_id", Some(padding.into()));
        let error = BertConfig::read(&folder.path().join("config.json")).unwrap_err();
        let expected = format!("pad_token_id is {padding}");
        assert!(error.to_string().contains(&expected), "{error}");
    }
    for key in ["max_position_embeddings", "intermediate_size"] {
        let folder = tempfile::tempdir().unwrap();
        tiny_checkpoint(folder.path());
        set_config(folder.path(), key, Some(1_000_000_000_000_000i64.into()));
        let error = Checkpoint::open(folder.path(), ".")
            .unwrap_err()
            .to_string();
        assert!(error.contains("parameters"), "{error}");
    }
}

#[test]
fn weights_that_are_no_floats_are_refused() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(folder.path());
    let path = folder.path().join("model.safetensors");
    let file = TensorFile::read(&path).unwrap();
    let whole = file
        .tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.to_kind(Kind::Int64)))
        .collect::<Vec<_>>();
    let named = whole.iter().map(|(name, tensor)| (name.clone(), tensor));
    write_tensors(&path, named).unwrap();
    let error = initialize(folder.path(), Pooling::Mean).unwrap_err();
    assert!(error.to_string().contains("not floats"), "{error}");
}

#[test]
fn a_student_that_cannot_be_built_is_refused_before_its_teacher_is_trained() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(&folder.path().join("tiny"));
    tiny_checkpoint(&folder.path().join("broken"));
    set_tensor(
        &folder.path().join("broken"),
        "embeddings.word_embeddings.weight",
        None,
    );
    let store = RunStore::new(folder.path());
    let corpus = Corpus::open(sample()).unwrap();
    let mut student = recipe("distilled", &TINY_STUDENT);
    student.teacher = Some(Box::new(recipe("teacher", &TINY_TEACHER)));
    let ModelConfig::Bilstm(settings) = &mut student.model else {
        panic!("a BiLSTM");
    };
    settings.pretrained_embeddings = Some("broken".into());
    let error = store
        .run(&student, &corpus, &mut progress::silent)
        .unwrap_err();
    assert!(error.to_string().contains("word_embeddings"), "{error}");
    assert!(store.runs().unwrap().is_empty(), "the teacher was trained");
}

#[test]
fn a_config_of_another_kind_than_the_weights_is_refused() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(folder.path());
    let path = folder.path().join("model.safetensors");
    let file = TensorFile::read(&path).unwrap();
    let renamed = file
        .tensors
        .iter()
        .map(|(name, tensor)| (format!("roberta.{name}"), tensor));
    write_tensors(&path, renamed).unwrap();
    let error = initialize(folder.path(), Pooling::Mean)
        .unwrap_err()
        .to_string();
    assert!(error.contains("weights of roberta"), "{error}");
}

#[test]
fn a_prefix_that_fills_the_sequence_is_refused() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(&folder.path().join("tiny"));
    let store = RunStore::new(folder.path());
    let corpus = Corpus::open(sample()).unwrap();
    let with_prefix = |prefix: &str| {
        let prefix = format!("model.prefix={prefix}");
        let settings = [&TINY_TEACHER[..], &["data.max_length=8", &prefix]].concat();
        store.step_timer(&recipe("teacher", &settings), &corpus)
    };
    with_prefix("query").unwrap();
    let error = with_prefix("a b c d e f g h").unwrap_err().to_string();
    assert!(error.contains("it fills all 8 tokens"), "{error}");
}

#[test]
fn a_checkpoint_without_a_pooler_names_the_pooling_that_needs_none() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(folder.path());
    for name in ["pooler.dense.weight", "pooler.dense.bias"] {
        set_tensor(folder.path(), name, None);
    }
    let error = initialize(folder.path(), Pooling::Cls)
        .unwrap_err()
        .to_string();
    assert!(error.contains("model.pooling = \"mean\""), "{error}");
    initialize(folder.path(), Pooling::Mean).unwrap();
}

#[test]
fn weights_that_the_encoder_would_ignore_are_refused_and_harmless_ones_are_not() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(folder.path());
    let zeros = || Some(Tensor::zeros([3, 16], (Kind::Float, Device::Cpu)));
    let harmless = [
        "cls.predictions.transform.dense.weight",
        "embeddings.position_ids",
        "classifier.other",
        "dropout.mask",
    ];
    for name in harmless {
        set_tensor(folder.path(), name, zeros());
        initialize(folder.path(), Pooling::Cls).unwrap();
    }
    let ignored = [
        "embeddings.task_type_embeddings.weight",
        "encoder.layer.2.output.dense.weight",
    ];
    for name in ignored {
        set_tensor(folder.path(), name, zeros());
        let error = initialize(folder.path(), Pooling::Cls)
            .unwrap_err()
            .to_string();
        assert!(error.contains(name), "{error}");
        set_tensor(folder.path(), name, None);
    }
}

#[test]
fn a_trained_head_that_is_not_read_is_said_once() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(&folder.path().join("tiny"));
    let corpus = Corpus::open(sample()).unwrap();
    let store = RunStore::new(folder.path());
    let notices = |settings: &[&str]| {
        let recipe = recipe("teacher", &[&TINY_TEACHER[..], settings].concat());
        store.plan(&recipe, &corpus).unwrap().notices.join("\n")
    };
    let weights = folder.path().join("tiny");
    let zeros = || Some(Tensor::zeros([3, 16], (Kind::Float, Device::Cpu)));
    set_tensor(&weights, "cls.predictions.bias", zeros());
    assert_eq!(notices(&[]), "");
    set_tensor(&weights, "classifier.weight", zeros());
    let said = "weights of the checkpoint that are not read: 1 (\"classifier.weight\"";
    assert!(notices(&[]).contains(said), "{}", notices(&[]));
}

/// The token ids of a text under a `tokenizer.json` and a `tokenizer_config.json`.
fn ids_under(tokenizer: &serde_json::Value, config: Option<&str>, text: &str) -> Result<Vec<u32>> {
    let folder = tempfile::tempdir().unwrap();
    write_json(&folder.path().join("tokenizer.json"), tokenizer).unwrap();
    if let Some(config) = config {
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
    }
    let opened = SubwordTokenizer::open(folder.path())?;
    Ok(opened.tokenizer_encodings(&[text])?[0].ids.clone())
}

/// The ids are those of transformers 4.57.1 and 5.24.0.
#[test]
fn settings_of_tokenizer_config_change_the_ids_as_in_transformers() {
    let bert = |lowercase: bool| {
        serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": {"type": "BertNormalizer", "clean_text": true,
                "handle_chinese_chars": true, "strip_accents": null, "lowercase": lowercase},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor":
                {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
            "decoder": null,
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2,
                "[SEP]": 3, "[MASK]": 4, "a": 5, "A": 6, "é": 7, "e": 8, "中": 9, "中国": 10,
                "##国": 11, "国": 12}},
        })
    };
    let lower = [2, 5, 8, 9, 12, 3];
    let cased = [2, 6, 7, 9, 12, 3];
    let chinese = [2, 5, 8, 10, 3];
    let accents = [2, 5, 7, 9, 12, 3];
    let other_class = r#"{"do_lower_case": false, "tokenizer_class": "PreTrainedTokenizerFast"}"#;
    let bert_class = r#"{"tokenize_chinese_chars": false, "tokenizer_class": "BertTokenizer"}"#;
    for (lowercase, config, expected) in [
        (true, "{}", &lower[..]),
        (true, r#"{"do_lower_case": false}"#, &cased),
        (true, other_class, &lower),
        (true, bert_class, &chinese),
        (true, r#"{"strip_accents": false}"#, &accents),
        (true, r#"{"strip_accents": true}"#, &lower),
        (false, r#"{"do_lower_case": false}"#, &cased),
        (false, r#"{"do_lower_case": true}"#, &lower),
        (false, other_class, &cased),
    ] {
        let ids = ids_under(&bert(lowercase), Some(config), "A é 中国").unwrap();
        assert_eq!(ids, expected, "{lowercase} {config}");
    }
    assert_eq!(ids_under(&bert(true), None, "A é 中国").unwrap(), lower);
    // transformers lowercases here, against tokenizer.json and without a word.
    for config in [None, Some("{}")] {
        let error = ids_under(&bert(false), config, "A")
            .unwrap_err()
            .to_string();
        let said = "tokenizer_config.json: do_lower_case is not stated";
        assert!(error.contains(said), "{error}");
    }

    let roberta = |space: bool| {
        serde_json::json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": space,
                "trim_offsets": true, "use_regex": true},
            "post_processor": {"type": "RobertaProcessing", "sep": ["</s>", 2],
                "cls": ["<s>", 0], "trim_offsets": true, "add_prefix_space": space},
            "decoder": null,
            "model": {"type": "BPE", "dropout": null, "unk_token": "<unk>",
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                "byte_fallback": false, "ignore_merges": false,
                "vocab": {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "a": 5,
                "b": 6, "Ġ": 7, "Ġa": 8}, "merges": [["Ġ", "a"]]},
        })
    };
    let without = [0, 5, 7, 6, 2];
    let with = [0, 8, 7, 6, 2];
    for (space, config, expected) in [
        (true, r#"{"add_prefix_space": false}"#, without),
        (true, r#"{"add_prefix_space": true}"#, with),
        (false, r#"{"add_prefix_space": true}"#, with),
        (false, "{}", without),
    ] {
        let ids = ids_under(&roberta(space), Some(config), "a b").unwrap();
        assert_eq!(ids, expected, "{space} {config}");
    }
    let error = ids_under(&roberta(true), None, "a b").unwrap_err();
    assert!(
        error.to_string().contains("add_prefix_space is not stated"),
        "{error}"
    );
}

#[test]
fn a_folder_without_readable_weights_says_what_it_holds() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(folder.path());
    std::fs::remove_file(folder.path().join("model.safetensors")).unwrap();
    let files = [
        ("pytorch_model.bin", "the weights are in pytorch_model.bin"),
        (
            "model.safetensors.index.json",
            "the weights are in several files",
        ),
    ];
    for (name, said) in files {
        std::fs::write(folder.path().join(name), "{}").unwrap();
        let error = initialize(folder.path(), Pooling::Cls)
            .unwrap_err()
            .to_string();
        assert!(error.contains(said), "{error}");
    }
}

#[test]
fn a_tokenizer_that_adds_no_special_tokens_is_refused() {
    let _turn = lock_generator();
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tiny_checkpoint(folder.path());
    let tokenizer =
        SubwordTokenizer::open(folder.path())
            .unwrap()
            .with_limit("", 32, Truncation::Head);
    assert_eq!(
        tokenizer.encode(&[""]).unwrap().ids[0].len(),
        2,
        "an empty text has two tokens"
    );
    tokenizer.write(copy.path()).unwrap();
    let path = copy.path().join("tokenizer.json");
    let mut json: serde_json::Value = files::read_json(&path).unwrap();
    json["post_processor"] = serde_json::Value::Null;
    write_json(&path, &json).unwrap();
    let error = SubwordTokenizer::open(copy.path()).unwrap_err();
    assert!(error.to_string().contains("no special tokens"), "{error}");
}

/// Each file makes the crate of tokenizers panic: when it is read, when it encodes an empty text,
/// when it encodes a text.
#[test]
fn a_crafted_tokenizer_is_an_error_and_no_panic() {
    let crafted = root().join("kd_lib/tests/crafted_tokenizers");
    let mut tried = 0;
    for path in files::sorted_entries(&crafted).unwrap() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::copy(&path, folder.path().join("tokenizer.json")).unwrap();
        let error = SubwordTokenizer::open(folder.path())
            .and_then(|tokenizer| tokenizer.encode(&["a ab 基金"]))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("cannot be used; use the tokenizer that the checkpoint came with"),
            "{}: {error}",
            path.display()
        );
        tried += 1;
    }
    assert_eq!(tried, 3);
}

#[test]
fn a_tensor_of_an_unknown_format_matters_only_if_it_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let header = concat!(
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"#,
        r#""b":{"dtype":"I16","shape":[1],"data_offsets":[4,6]}}"#,
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([0; 6]);
    std::fs::write(&path, bytes).unwrap();
    let mut file = TensorFile::read(&path).unwrap();
    assert_eq!(file.take(&path, "a").unwrap().size(), [1]);
    let error = file.take(&path, "b").unwrap_err().to_string();
    assert!(error.contains("\"b\" has the format I16"), "{error}");
}

#[test]
fn a_vocabulary_of_the_training_texts_keeps_their_logits_and_splits_other_texts() {
    let _turn = lock_generator();
    let recipe = recipe(
        "teacher",
        &["model.prune_vocab=false", "model.vocab_size=5000"],
    );
    let architecture = recipe.model.architecture().unwrap();
    let folder = teacher_weights();
    let checkpoint = Checkpoint::open(&root().join("checkpoints"), "e5-small").unwrap();
    let corpus = Corpus::open(sample()).unwrap();
    let train: Vec<TextInput> = corpus.train.iter().map(Example::input).collect();
    let texts = TokenizerTexts {
        train: &train,
        unlabelled: &[],
        full_corpus: &train,
    };
    let whole =
        SubwordTokenizer::open(&folder)
            .unwrap()
            .with_limit("query: ", 64, Truncation::Head);
    let whole = Tokenizer::Subword(Box::new(whole));
    let tokenizer = architecture.tokenizer(&recipe.data, &texts, Some(&checkpoint));
    let tokenizer = tokenizer.unwrap();
    let logits = |tokenizer: &Tokenizer, texts: &[TextInput]| {
        let sizes = ModelSizes {
            vocab_size: tokenizer
                .vocab_size()
                .unwrap_or(checkpoint.config.vocab_size),
            num_labels: 3,
            checkpoint: Some(checkpoint.config.clone()),
        };
        let model = architecture.build(&sizes, Device::Cpu).unwrap();
        let sources = InitialWeights {
            checkpoint: Some(&checkpoint),
            teacher: None,
        };
        architecture
            .initialize(model.as_ref(), tokenizer, &sources)
            .unwrap();
        // The head is random: the encoder's output is compared.
        let split = tokenizer.encode(texts).unwrap();
        let batch = Batch::collate(&split, &(0..texts.len()).collect::<Vec<_>>(), Device::Cpu);
        let inputs = model.embed(&batch, Mode::Eval, None);
        let pass = ForwardPass {
            mode: Mode::Eval,
            precision: Precision::Fp32,
            hidden_layers: &[12],
        };
        model.forward(&inputs, &batch, &pass).hidden.remove(0)
    };
    let seen = &train[..8];
    assert!(distance(&logits(&tokenizer, seen), &logits(&whole, seen)) < 1e-5);

    // A piece of the checkpoint that no headline of the sample uses, of characters that some use.
    let (Tokenizer::Subword(pruned), Tokenizer::Subword(own)) = (&tokenizer, &whole) else {
        panic!("subwords");
    };
    let is_known = |c: char| pruned.id_of_piece(&c.to_string()).is_some();
    let is_other = |piece: &String| {
        piece.chars().count() > 1
            && piece.chars().all(is_known)
            && pruned.id_of_piece(piece).is_none()
    };
    let other = (5..250_000).map(|id| own.piece(id)).find(is_other).unwrap();
    let encoding = pruned.tokenizer_encodings(&[other.as_str()]).unwrap();
    let pieces: Vec<String> = encoding[0].ids.iter().map(|&id| pruned.piece(id)).collect();
    assert!(!pieces.contains(&"<unk>".to_owned()), "{other}: {pieces:?}");
}

/// Rewrites the tiny checkpoint's weights.
fn rewrite(folder: &Path, change: impl Fn(&str, &Tensor) -> (String, Tensor)) {
    let path = folder.join("model.safetensors");
    let file = TensorFile::read(&path).unwrap();
    let changed: Vec<(String, Tensor)> = file.tensors.iter().map(|(n, t)| change(n, t)).collect();
    let changed = changed.iter().map(|(name, tensor)| (name.clone(), tensor));
    write_tensors(&path, changed).unwrap();
}

#[test]
fn weights_of_other_dtypes_and_names_and_a_vocabulary_with_other_line_ends_load() {
    let _turn = lock_generator();
    for kind in [Kind::Half, Kind::BFloat16, Kind::Double] {
        let folder = tempfile::tempdir().unwrap();
        tiny_checkpoint(folder.path());
        rewrite(folder.path(), |name, tensor| {
            (name.to_owned(), tensor.to_kind(kind))
        });
        initialize(folder.path(), Pooling::Mean).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(folder.path());
    // The names of the first BERT checkpoints, and those of a model with a head.
    rewrite(folder.path(), |name, tensor| {
        let name = name
            .replace("LayerNorm.weight", "LayerNorm.gamma")
            .replace("LayerNorm.bias", "LayerNorm.beta");
        let name = if name.starts_with("classifier.") {
            name
        } else {
            format!("bert.{name}")
        };
        (name, tensor.shallow_clone())
    });
    initialize(folder.path(), Pooling::Cls).unwrap();

    let vocabulary = folder.path().join("vocab.txt");
    let open = || {
        SubwordTokenizer::open(folder.path())
            .unwrap()
            .with_limit("", 32, Truncation::Head)
    };
    let expected = open().encode(&["球队赢得冠军"]).unwrap().ids;
    let lines = std::fs::read_to_string(&vocabulary).unwrap();
    std::fs::write(&vocabulary, lines.replace('\n', "\r\n")).unwrap();
    assert_eq!(open().encode(&["球队赢得冠军"]).unwrap().ids, expected);
}

#[test]
fn a_tokenizer_that_is_not_the_vocabularys_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(folder.path());
    let config = folder.path().join("tokenizer_config.json");
    for (settings, part) in [
        (
            r#"{"tokenizer_class": "BertJapaneseTokenizer"}"#,
            "BertJapaneseTokenizer",
        ),
        (r#"{"do_basic_tokenize": false}"#, "do_basic_tokenize"),
    ] {
        std::fs::write(&config, settings).unwrap();
        let error = SubwordTokenizer::open(folder.path())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("tokenizer_config.json") && error.contains(part),
            "{error}"
        );
    }
    std::fs::write(&config, r#"{"tokenizer_class": "BertTokenizer"}"#).unwrap();
    let whole = SubwordTokenizer::open(folder.path()).unwrap();
    let checkpoint = Checkpoint::open(folder.path(), ".").unwrap();
    checkpoint.refuse_ids_without_rows(&whole).unwrap();

    // Tokens that vocab.txt does not list.
    let added = folder.path().join("added_tokens.json");
    std::fs::write(&added, r#"{"[NUM]": 99}"#).unwrap();
    let error = SubwordTokenizer::open(folder.path())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("added_tokens.json: the token \"[NUM]\""),
        "{error}"
    );
    std::fs::write(&added, r#"{"[MASK]": 4}"#).unwrap();
    SubwordTokenizer::open(folder.path()).unwrap();
    std::fs::remove_file(&added).unwrap();

    // A token that was added without a row of the embedding.
    let vocabulary = folder.path().join("vocab.txt");
    let lines = std::fs::read_to_string(&vocabulary).unwrap();
    std::fs::write(&vocabulary, format!("{}\nadded\n", lines.trim_end())).unwrap();
    let larger = SubwordTokenizer::open(folder.path()).unwrap();
    let error = checkpoint.refuse_ids_without_rows(&larger).unwrap_err();
    assert!(error.to_string().contains("the embedding has"), "{error}");
}
