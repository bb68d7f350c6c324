//! TextCNN as a student: its logits, and whole runs of it.

use crate::common::{
    assert_distilled_resumed_and_predicts, batch, distance, lock_generator, of_tiny_teacher, recipe,
};
use kd_lib::models::textcnn::{TextCnn, TextCnnSettings};
use kd_lib::models::{Classifier, ForwardPass, Mode};
use kd_lib::precision::{Parts, Precision};
use tch::{Device, Kind, Tensor};

const TINY: [&str; 7] = [
    "model.embedding_dim=12",
    "model.num_filters=8",
    "train.epochs=2",
    "train.eval_every_samples=200",
    "data.max_length=32",
    "device=cpu",
    "train.precision=fp32",
];

fn small() -> TextCnn {
    tch::manual_seed(5);
    let settings = TextCnnSettings {
        embedding_dim: 6,
        num_filters: 4,
        filter_widths: vec![2, 3],
        dropout: 0.5,
        vocab_size: 20,
        ..TextCnnSettings::default()
    };
    TextCnn::new(&settings, 20, 3, Device::Cpu)
}

/// Kim 2014, equations 2 to 4, in plain numbers: each filter's outputs over windows that contain a
/// character of the text, zeros past its ends, ReLU, and the maximum over time.
fn pooled_by_definition(model: &TextCnn, ids: &[i64]) -> Vec<f64> {
    let values = |name: &str| -> Tensor {
        let param = model.params().iter().find(|p| p.name == name).unwrap();
        param.tensor.detach().to_kind(Kind::Double)
    };
    let embedding = values("embedding.weight");
    let mut pooled = Vec::new();
    for width in [2i64, 3] {
        let weight = values(&format!("convolution{width}.weight"));
        let bias = values(&format!("convolution{width}.bias"));
        for filter in 0..4 {
            let mut highest = f64::NEG_INFINITY;
            for start in 1 - width..ids.len() as i64 {
                let mut sum = bias.double_value(&[filter]);
                for offset in 0..width {
                    let Some(&id) = usize::try_from(start + offset)
                        .ok()
                        .and_then(|at| ids.get(at))
                    else {
                        continue;
                    };
                    for channel in 0..6 {
                        sum += weight.double_value(&[filter, channel, offset])
                            * embedding.double_value(&[id, channel]);
                    }
                }
                highest = highest.max(sum.max(0.0));
            }
            pooled.push(highest);
        }
    }
    pooled
}

#[test]
fn textcnn_pools_what_the_paper_defines_whatever_its_neighbours_in_the_batch() {
    let _turn = lock_generator();
    let model = small();
    let texts = [vec![3, 7, 1, 9, 4], vec![2], vec![5, 5]];
    let batch = batch(&texts);
    let inputs = Precision::Fp32.round_inputs(&model.embed(&batch, Mode::Eval, None), Parts::One);
    let pass = ForwardPass {
        hidden_layers: &[1],
        ..ForwardPass::evaluation(Precision::Fp32)
    };
    let pooled = &model.forward(&inputs, &batch, &pass).hidden[0];
    for (row, text) in texts.iter().enumerate() {
        let expected = Tensor::from_slice(&pooled_by_definition(&model, text));
        assert!(
            distance(&pooled.get(row as i64), &expected) < 1e-6,
            "{text:?}"
        );
    }
}

#[test]
fn a_textcnn_is_distilled_resumes_to_the_same_bytes_and_predicts() {
    let student = of_tiny_teacher(recipe("textcnn+kd", &TINY));
    assert_distilled_resumed_and_predicts(&student);
}
