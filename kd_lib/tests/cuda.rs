//! CUDA can be used although the linker drops its library: it is loaded on request and not before.
//! On a machine with a GPU, gradients equal those of the CPU, and runs train in every precision.

mod common;

use common::{TINY_STUDENT, bilstm_settings, recipe, sample, tiny_checkpoint};
use kd_lib::data::{Corpus, TokenizedSplit};
use kd_lib::device;
use kd_lib::models::{Bert, BertConfig, BiLstm, Classifier, Pooling};
use kd_lib::objectives::Kd;
use kd_lib::precision::Precision;
use kd_lib::store::{Run, RunStore};
use kd_lib::training::gradients::group_gradients;
use kd_lib::training::progress::silent;
use kd_lib::training::{StepConfig, TrainData};
use std::path::Path;
use tch::{Device, Kind, Tensor};

fn loaded() -> bool {
    std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .contains("libtorch_cuda")
}

#[test]
fn libtorch_cuda_is_loaded_on_request_and_runs_train_on_a_gpu() {
    if !device::open_cuda_if_present() {
        assert!(!loaded(), "without a driver nothing is loaded");
        device::open_cuda().unwrap();
    }
    assert!(loaded());
    if !tch::Cuda::is_available() {
        println!("not run: no GPU here");
        return;
    }
    gradients_equal_those_of_the_cpu();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(&folder.path().join("tiny"));
    for precision in ["fp32", "bf16", "fp16"] {
        for run in [
            student(folder.path(), precision),
            teacher(folder.path(), precision),
        ] {
            let point = run.curve().unwrap().pop().unwrap();
            println!(
                "{} in {precision} on {}: {point:?}",
                run.report.id, run.report.environment.processor
            );
            assert_eq!(run.report.environment.device, "cuda");
            assert!(!run.report.environment.processor.is_empty());
            assert_eq!(
                run.report.precision,
                point.compute_dtype.unwrap(),
                "the products had the requested format"
            );
            assert_eq!(point.loss_scale.is_some(), precision == "fp16");
        }
    }
}

fn student(folder: &Path, precision: &str) -> Run {
    let precision = format!("train.precision={precision}");
    let recipe = recipe(
        "student",
        &[
            &TINY_STUDENT[..],
            &[
                "device=cuda:0",
                "model.pretrained_embeddings=tiny",
                &precision,
            ],
        ]
        .concat(),
    );
    RunStore::new(folder)
        .run(&recipe, &Corpus::open(sample()).unwrap(), &mut silent)
        .unwrap()
}

fn teacher(folder: &Path, precision: &str) -> Run {
    let (precision, weights) = (
        format!("train.precision={precision}"),
        format!("model.checkpoint={}", folder.join("tiny").display()),
    );
    let tiny = [
        "model.pooling=cls",
        "model.prefix=",
        "train.epochs=1",
        "data.max_length=32",
        "device=cuda:0",
    ];
    let recipe = recipe("teacher", &[&tiny[..], &[&precision, &weights]].concat());
    RunStore::new(folder)
        .run(&recipe, &Corpus::open(sample()).unwrap(), &mut silent)
        .unwrap()
}

/// Student and teacher from the same weights, without dropout, on rows of several lengths.
fn gradients_equal_those_of_the_cpu() {
    let student = bilstm_settings(24, 32, 0.0);
    let teacher: BertConfig = serde_json::from_value(serde_json::json!({
        "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 64, "max_position_embeddings": 16, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.2
    }))
    .unwrap();
    let gradients_on = |device: Device| {
        tch::manual_seed(5);
        let student: Box<dyn Classifier> = Box::new(BiLstm::new(&student, 50, 3, device));
        let teacher: Box<dyn Classifier> = Box::new(Bert::new(&teacher, Pooling::Cls, 3, device));
        [student, teacher].map(|model| gradients_of(model.as_ref()))
    };
    for (name, (on_cpu, on_gpu)) in ["student", "teacher"].into_iter().zip(
        gradients_on(Device::Cpu)
            .iter()
            .zip(&gradients_on(Device::Cuda(0))),
    ) {
        let largest = |tensors: &[Tensor]| {
            tensors
                .iter()
                .map(|t| t.abs().max().double_value(&[]))
                .fold(0.0, f64::max)
        };
        // Relative to the largest of all: a key's bias has no effect on softmax, so its gradient is
        // rounding alone.
        let differences: Vec<Tensor> = on_cpu.iter().zip(on_gpu).map(|(a, b)| a - b).collect();
        let difference = largest(&differences) / largest(on_cpu);
        println!("{name}: gradients on the GPU differ by {difference:.1e} of the largest");
        assert!(
            difference < 2e-3,
            "cuDNN's LSTM uses TF32 by default, which has 10 binary digits"
        );
    }
}

fn gradients_of(model: &dyn Classifier) -> Vec<Tensor> {
    let ids: Vec<Vec<i64>> = (0..10)
        .map(|r| (0..3 + r % 4).map(|i| (7 * r + 3 * i) % 50).collect())
        .collect();
    let teacher = Tensor::arange(30, (Kind::Float, Device::Cpu))
        .view([10, 3])
        .sin()
        * 3;
    let train = TokenizedSplit {
        ids,
        labels: (0..10).map(|r| r % 3).collect(),
        ..TokenizedSplit::default()
    };
    let data = TrainData {
        train,
        dev: TokenizedSplit::default(),
        teacher_logits: Some(teacher),
        teacher_hidden: Vec::new(),
        lines: (1..=10).collect(),
        class_weights: None,
    };
    let config = StepConfig {
        objective_parameters: &[],
        objective: &Kd {
            temperature: 4.0,
            hard_weight: 0.5,
            soft_weight: 0.5,
        },
        precision: Precision::Fp32,
        adversarial: None,
        seed: 1,
        step: 0,
        loss_scale: 1.0,
    };
    let group = [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]];
    let computed = group_gradients(&config, model, &data, &group).unwrap();
    computed
        .gradients
        .iter()
        .map(|gradient| gradient.to_device(Device::Cpu))
        .collect()
}
