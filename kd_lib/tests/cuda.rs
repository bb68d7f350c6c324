//! CUDA stays reachable: the library that the linker drops is in the process once it is asked for, and not
//! before. On a machine with a GPU, its gradients are the processor's, and runs train on it in every precision.

mod common;

use common::{TINY_STUDENT, recipe, sample, tiny_checkpoint};
use kd_lib::data::{Corpus, Encoded};
use kd_lib::device;
use kd_lib::lab::Lab;
use kd_lib::models::{Bert, BertConfig, BiLstm, BiLstmConfig, Classifier, Pooling};
use kd_lib::progress::silent;
use kd_lib::run::Run;
use kd_lib::strategies::{Objective, Precision};
use kd_lib::update::{Material, Seats, gradients};
use std::path::Path;
use tch::{Device, Kind, Tensor};

fn loaded() -> bool {
    std::fs::read_to_string("/proc/self/maps").unwrap().contains("libtorch_cuda")
}

#[test]
fn libtorch_cuda_is_loaded_when_asked_for_and_a_gpu_trains() {
    if !device::open_cuda_if_present() {
        assert!(!loaded(), "without a driver nothing is loaded");
        device::open_cuda().unwrap();
    }
    assert!(loaded());
    if !tch::Cuda::is_available() {
        println!("no GPU here: training on one was not tried");
        return;
    }
    gradients_are_the_processor_s();
    let folder = tempfile::tempdir().unwrap();
    tiny_checkpoint(&folder.path().join("tiny"));
    for precision in ["fp32", "bf16", "fp16"] {
        for run in [student(folder.path(), precision), teacher(folder.path(), precision)] {
            let point = run.curve().unwrap().pop().unwrap();
            println!("{} in {precision} on {}: {point:?}", run.report.id, run.report.environment.processor);
            assert_eq!(run.report.environment.device, "cuda");
            assert!(!run.report.environment.processor.is_empty());
            assert_eq!(run.report.precision, point.products.unwrap(), "the products were in the numbers asked for");
            assert_eq!(point.loss_scale.is_some(), precision == "fp16");
        }
    }
}

fn student(folder: &Path, precision: &str) -> Run {
    let precision = format!("train.precision={precision}");
    let recipe =
        recipe("student", &[&TINY_STUDENT[..], &["device=cuda:0", "model.word_vectors=tiny", &precision]].concat());
    Lab::at(folder).run(&recipe, &Corpus::open(sample()).unwrap(), &mut silent).unwrap()
}

fn teacher(folder: &Path, precision: &str) -> Run {
    let (precision, weights) =
        (format!("train.precision={precision}"), format!("model.weights={}", folder.join("tiny").display()));
    let tiny = ["model.pooling=cls", "model.prefix=", "train.epochs=1", "data.max_tokens=32", "device=cuda:0"];
    let recipe = recipe("teacher", &[&tiny[..], &[&precision, &weights]].concat());
    Lab::at(folder).run(&recipe, &Corpus::open(sample()).unwrap(), &mut silent).unwrap()
}

/// Student and teacher from the same weights, without dropout, on rows of several lengths.
fn gradients_are_the_processor_s() {
    let student =
        BiLstmConfig { vocabulary: 50, embedding: 24, hidden: 32, classes: 3, dropout: 0.0, pool_padding: false };
    let teacher: BertConfig = serde_json::from_value(serde_json::json!({
        "vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
        "max_position_embeddings": 16, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.2
    }))
    .unwrap();
    let of = |device: Device| {
        tch::manual_seed(5);
        let student: Box<dyn Classifier> = Box::new(BiLstm::new(&student, device));
        [student, Box::new(Bert::new(&teacher, Pooling::Cls, 3, device))].map(|model| gradients_of(model.as_ref()))
    };
    for (name, (here, there)) in
        ["student", "teacher"].into_iter().zip(of(Device::Cpu).iter().zip(&of(Device::Cuda(0))))
    {
        let largest = |tensors: &[Tensor]| tensors.iter().map(|t| t.abs().max().double_value(&[])).fold(0.0, f64::max);
        // Against the largest of all: that of a key's bias is zero but for rounding, since softmax does not see it.
        let differences: Vec<Tensor> = here.iter().zip(there).map(|(a, b)| a - b).collect();
        let difference = largest(&differences) / largest(here);
        println!("{name}: gradients on the GPU differ by {difference:.1e} of the largest");
        assert!(difference < 2e-3, "TF32, which cuDNN's LSTM uses unless told otherwise, has 10 binary digits");
    }
}

fn gradients_of(model: &dyn Classifier) -> Vec<Tensor> {
    let ids: Vec<Vec<i64>> = (0..10).map(|r| (0..3 + r % 4).map(|i| (7 * r + 3 * i) % 50).collect()).collect();
    let teacher = Tensor::arange(30, (Kind::Float, Device::Cpu)).view([10, 3]).sin() * 3;
    let train = Encoded { ids, labels: (0..10).map(|r| r % 3).collect(), pad: 0 };
    let material = Material { train, dev: Encoded::default(), teacher: Some(teacher) };
    let objective = Objective::Distillation { temperature: 4.0, hard: 0.5, soft: 0.5 };
    let seats = Seats { objective, precision: Precision::Fp32, attack: None, seed: 1 };
    let window = [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9]];
    let (_, found) = gradients(&seats, model, &material, &window, 0, 1.0).unwrap();
    found.iter().map(|gradient| gradient.to_device(Device::Cpu)).collect()
}
