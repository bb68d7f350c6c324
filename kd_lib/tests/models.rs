//! What the networks do beyond matching a reference: dropout acts in training alone, bf16 is close
//! to fp32 and trains, and checkpoints of other architectures are refused.

use crate::common::{
    batch, bilstm_settings, distance, lock_generator, pretrained_bert, sample, tiny_checkpoint,
};
use kd_lib::data::{
    Batch, CharTokenizer, Corpus, SubwordTokenizer, Tokenizer, Truncation, Vocabulary,
};
use kd_lib::models::{
    Architecture, BertConfig, BiLstm, BiLstmSettings, Checkpoint, Classifier, InitialWeights, Mode,
    Pooling,
};
use kd_lib::objectives::{CrossEntropy, loss_of_logits};
use kd_lib::precision::Precision;
use tch::{Device, Kind, Tensor};

/// A tiny teacher and a tiny student, each with a batch of its own tokens.
fn both() -> [(Box<dyn Classifier>, Batch); 2] {
    tch::manual_seed(5);
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(folder.path());
    let tokenizer =
        SubwordTokenizer::open(folder.path())
            .unwrap()
            .with_limit("", 32, Truncation::Head);
    let corpus = Corpus::open(sample()).unwrap();
    let texts: Vec<&str> = corpus
        .train
        .iter()
        .take(6)
        .map(|e| e.text.as_str())
        .collect();
    let teacher = pretrained_bert(folder.path(), Pooling::Cls, 10, &tokenizer);
    let settings = bilstm_settings(24, 16, 0.3);
    let ids: Vec<Vec<i64>> = [13, 5, 1, 8, 9, 2]
        .iter()
        .map(|&n| (0..n).map(|i| (i * 7 + n) % 60).collect())
        .collect();
    let student: Box<dyn Classifier> = Box::new(BiLstm::new(&settings, 60, 10, Device::Cpu));
    [
        (teacher, batch(&tokenizer.encode(&texts).unwrap().ids)),
        (student, batch(&ids)),
    ]
}

#[test]
fn dropout_acts_in_training_alone() {
    let _turn = lock_generator();
    for (model, batch) in both() {
        let logits = |mode| model.logits(&batch, mode, Precision::Fp32);
        assert_eq!(distance(&logits(Mode::Eval), &logits(Mode::Eval)), 0.0);
        assert!(distance(&logits(Mode::Train), &logits(Mode::Train)) > 1e-4);
    }
}

#[test]
fn bf16_is_close_to_fp32_and_its_gradients_are_fp32() {
    let _turn = lock_generator();
    let labels = Tensor::from_slice(&[0i64, 1, 2, 3, 4, 5]);
    for (model, batch) in both() {
        let [exact, rounded] =
            [Precision::Fp32, Precision::Bf16].map(|p| model.logits(&batch, Mode::Eval, p));
        assert_eq!(rounded.kind(), tch::Kind::Float);
        let difference = distance(&exact, &rounded);
        assert!(difference > 0.0 && difference < 0.05, "{difference}");
        let loss = loss_of_logits(&CrossEntropy {}, &rounded, &labels, None).unwrap();
        loss.total.backward();
        for param in model.params().iter().filter(|p| p.tensor.grad().defined()) {
            assert_eq!(param.tensor.grad().kind(), tch::Kind::Float);
        }
    }
}

#[test]
fn a_checkpoint_of_another_architecture_is_refused() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(folder.path());
    let path = folder.path().join("config.json");
    let valid: serde_json::Value = kd_lib::files::read_json(&path).unwrap();
    for (key, value) in [
        ("model_type", "distilbert"),
        ("hidden_act", "gelu_new"),
        ("position_embedding_type", "relative_key"),
    ] {
        let mut other = valid.clone();
        other[key] = value.into();
        kd_lib::files::write_json(&path, &other).unwrap();
        let message = BertConfig::read(&path).unwrap_err().to_string();
        assert!(
            message.contains("config.json") && message.contains(value),
            "{message}"
        );
    }
}

#[test]
fn weights_rounded_once_give_the_results_of_weights_rounded_in_each_pass() {
    let _turn = lock_generator();
    let labels = Tensor::from_slice(&[0i64, 1, 2, 3, 4, 5]);
    for (model, batch) in both() {
        let pass = || {
            let logits = model.logits(&batch, Mode::Eval, Precision::Bf16);
            let loss = loss_of_logits(&CrossEntropy {}, &logits, &labels, None)
                .unwrap()
                .total;
            let leaves: Vec<&Tensor> = model.params().iter().map(|p| &p.tensor).collect();
            (
                logits.detach(),
                Tensor::f_run_backward(&[loss], &leaves, false, false).unwrap(),
            )
        };
        let (logits, gradients) = pass();
        model.params().round(Precision::Bf16);
        let (rounded_logits, rounded_gradients) = pass();
        assert_eq!(logits, rounded_logits);
        let (mut same, mut shorter) = (0, 0);
        for (gradient, rounded) in gradients
            .iter()
            .zip(&rounded_gradients)
            .filter(|(g, _)| g.defined())
        {
            assert_eq!(gradient, &rounded.to_kind(Kind::Float));
            same += 1;
            shorter += usize::from(
                rounded.kind() == Precision::Bf16.cast(gradient).kind()
                    && rounded.kind() != Kind::Float,
            );
        }
        let native = Precision::Bf16.cast(&labels.to_kind(Kind::Float)).kind() == Kind::BFloat16;
        assert!(
            same > 5 && (shorter > 5 || !native),
            "{same} gradients, {shorter} in bf16"
        );
        assert!(
            model
                .params()
                .iter()
                .all(|p| p.master.kind() == Kind::Float),
            "saved weights are fp32"
        );
    }
}

#[test]
fn layer_norms_named_gamma_and_beta_load() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(folder.path());
    let path = folder.path().join("model.safetensors");
    let file = kd_lib::files::TensorFile::read(&path).unwrap();
    let old = |name: &str| {
        format!("bert.{name}")
            .replace("LayerNorm.weight", "LayerNorm.gamma")
            .replace("LayerNorm.bias", "LayerNorm.beta")
    };
    kd_lib::files::write_tensors(&path, file.tensors.iter().map(|(n, t)| (old(n), t))).unwrap();
    let tokenizer =
        SubwordTokenizer::open(folder.path())
            .unwrap()
            .with_limit("", 32, Truncation::Head);
    let model = pretrained_bert(folder.path(), Pooling::Cls, 3, &tokenizer);
    let name = "encoder.layer.1.attention.self.key.weight";
    let loaded = model.params().iter().find(|p| p.name == name).unwrap();
    assert_eq!(distance(&loaded.tensor, &file.tensors[name]), 0.0);
}

#[test]
fn dropout_drops_its_share_at_every_position_and_keeps_the_mean() {
    let _turn = lock_generator();
    tch::manual_seed(3);
    // Four positions share one draw.
    let ones = Tensor::ones([100_000, 4], (tch::Kind::Float, Device::Cpu));
    for p in [0.1, 0.3, 0.5] {
        let dropped = Mode::Train.dropout(&ones, p);
        let share =
            dropped
                .eq(0.0)
                .to_kind(tch::Kind::Double)
                .mean_dim([0i64].as_slice(), false, None);
        for position in 0..4 {
            let share = share.double_value(&[position]);
            assert!(
                (share - p).abs() < 5.0 * (p * (1.0 - p) / 1e5).sqrt(),
                "{p} at position {position}: {share}"
            );
        }
        assert!((dropped.max().double_value(&[]) - 1.0 / (1.0 - p)).abs() < 1e-6);
    }
    let odd = Mode::Train.dropout(&Tensor::ones([3, 1], (tch::Kind::Half, Device::Cpu)), 0.5);
    assert_eq!((odd.size(), odd.kind()), (vec![3, 1], tch::Kind::Half));
}

#[test]
fn a_checkpoint_that_knows_one_character_of_the_student_is_refused() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(folder.path());
    let name = folder.path().display().to_string();
    let checkpoint = Checkpoint::open(folder.path(), &name).unwrap();
    let sample = Corpus::open(sample()).unwrap();
    let known = sample.train[0].text.chars().find(|c| c.is_alphabetic());
    let known = known.unwrap().to_string();
    let tokenizer = Tokenizer::Char(CharTokenizer {
        vocabulary: Vocabulary::build([known.as_str(), "龘龘"], 60),
        max_length: 32,
        truncation: Truncation::Head,
    });
    let settings = BiLstmSettings {
        pretrained_embeddings: Some(name),
        ..bilstm_settings(8, 4, 0.0)
    };
    let student = BiLstm::new(&settings, 60, 2, Device::Cpu);
    let sources = InitialWeights {
        checkpoint: Some(&checkpoint),
        teacher: None,
    };
    let error = settings.initialize(&student, &tokenizer, &sources);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("knows 1 of the student's"), "{error}");
}

#[test]
fn pretrained_embeddings_keep_the_geometry_of_the_characters_that_the_checkpoint_knows() {
    let _turn = lock_generator();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(folder.path());
    let sample = Corpus::open(sample()).unwrap();
    let texts = sample.train.iter().take(20).map(|e| e.text.as_str());
    let unknown_to_the_checkpoint = ["龘龘龘龘龘龘龘龘龘"];
    let vocabulary = Vocabulary::build(texts.chain(unknown_to_the_checkpoint), 60);
    let checkpoint = Checkpoint::open(folder.path(), &folder.path().display().to_string()).unwrap();
    let tokenizer = Tokenizer::Char(CharTokenizer {
        vocabulary: vocabulary.clone(),
        max_length: 32,
        truncation: Truncation::Head,
    });
    // The word vectors of a random student, and of one with the checkpoint's vectors.
    let random_and_pretrained = |embedding_dim| {
        let settings = BiLstmSettings {
            pretrained_embeddings: Some(folder.path().display().to_string()),
            ..bilstm_settings(embedding_dim, 4, 0.0)
        };
        let students = [(); 2].map(|()| {
            tch::manual_seed(7);
            BiLstm::new(&settings, 60, 2, Device::Cpu)
        });
        let sources = InitialWeights {
            checkpoint: Some(&checkpoint),
            teacher: None,
        };
        settings
            .initialize(&students[1], &tokenizer, &sources)
            .unwrap();
        students.map(|student| student.word_embedding().detach().to_kind(Kind::Double))
    };
    let subwords =
        SubwordTokenizer::open(folder.path())
            .unwrap()
            .with_limit("", 8, Truncation::Head);
    let known = |character: &String| subwords.id_of_character(character).map(i64::from);
    let (rows, ids): (Vec<i64>, Vec<i64>) = vocabulary
        .entries()
        .iter()
        .enumerate()
        .skip(2)
        .filter_map(|(row, c)| Some((row as i64, known(c)?)))
        .unzip();
    assert!(
        rows.len() > 16
            && vocabulary
                .entries()
                .iter()
                .any(|c| c == "龘" && known(c).is_none())
    );
    let weights =
        kd_lib::files::TensorFile::read(&folder.path().join("model.safetensors")).unwrap();
    let vectors = weights.tensors["embeddings.word_embeddings.weight"]
        .index_select(0, &Tensor::from_slice(&ids));
    let centred = &vectors - vectors.mean_dim([0i64].as_slice(), true, Kind::Float);
    let cosines = |x: &Tensor| {
        let x = x.to_kind(Kind::Double);
        let unit = &x / x.norm_scalaropt_dim(2, [1i64].as_slice(), true);
        unit.matmul(&unit.tr())
    };
    // All components: the angles between characters are the checkpoint's.
    let [random, all] = random_and_pretrained(16);
    let pretrained = all.index_select(0, &Tensor::from_slice(&rows));
    assert!(distance(&cosines(&pretrained), &cosines(&centred)) < 1e-5);
    assert!((pretrained.std(false).double_value(&[]) - 1.0).abs() < 1e-5);
    let changed = (&all - &random)
        .abs()
        .amax([1i64].as_slice(), false)
        .gt(0.0)
        .nonzero()
        .view(-1);
    assert_eq!(
        Vec::<i64>::try_from(changed).unwrap(),
        rows,
        "all other rows stay random"
    );
    // Fewer components: they are uncorrelated, the strongest comes first.
    let fewer = random_and_pretrained(3)[1].index_select(0, &Tensor::from_slice(&rows));
    let covariance = fewer.tr().matmul(&fewer);
    let strengths = Vec::<f64>::try_from(covariance.diagonal(0, 0, 1)).unwrap();
    assert!(
        strengths[0] > strengths[1] && strengths[1] > strengths[2],
        "{strengths:?}"
    );
    assert!(distance(&covariance, &covariance.diagonal(0, 0, 1).diag(0)) < 1e-4 * strengths[0]);
    // More dimensions than components: the dimensions beyond stay random.
    let [random, wider] = random_and_pretrained(20);
    let components = (rows.len() as i64).min(16);
    assert_eq!(
        distance(
            &random.narrow(1, components, 20 - components),
            &wider.narrow(1, components, 20 - components)
        ),
        0.0
    );
}
