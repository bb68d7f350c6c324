//! The parts of the optimizer against manual computation, and the loss scale. The comparison of
//! fifty steps with PyTorch is in `parity.rs`.

use crate::common::lock_generator;
use kd_lib::models::Params;
use kd_lib::precision::Precision;
use kd_lib::training::optimizer::{
    Grouping, Moments, clip_factor, gradient_norm, learning_rate, unscale,
};
use kd_lib::training::{AdamW, GradScaler, OptimizerConfig};
use tch::{Device, Kind, Tensor};

const SETTINGS: OptimizerConfig = OptimizerConfig {
    learning_rate: 0.1,
    betas: [0.5, 0.75],
    eps: 0.25,
    weight_decay: 0.5,
    warmup_ratio: 0.0,
    max_grad_norm: None,
};

const FP32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Two parameters, one without weight decay, and a third that has no gradient.
fn params() -> Params {
    let mut params = Params::on(Device::Cpu);
    let _ = params.add("weight", Tensor::from_slice(&[1f32]), true);
    let _ = params.add("bias", Tensor::from_slice(&[1f32]), false);
    let _ = params.add("unused", Tensor::from_slice(&[7f32]), true);
    params
}

fn gradients(first: f32, second: f32) -> [Tensor; 3] {
    [
        Tensor::from_slice(&[first]),
        Tensor::from_slice(&[second]),
        Tensor::new(),
    ]
}

fn values(params: &Params) -> Vec<f64> {
    params.iter().map(|p| p.tensor.double_value(&[0])).collect()
}

fn near(ours: f64, by_hand: f64) {
    assert!((ours - by_hand).abs() < 1e-6, "{ours} is not {by_hand}");
}

#[test]
fn two_steps_match_the_manual_computation() {
    let (params, gradients) = (params(), gradients(2.0, -4.0));
    let mut optimizer = AdamW::new(SETTINGS, &params);
    optimizer.step(&gradients, 0.1, None);
    // First step: the corrected moments are g and g², so the step is lr · g / (|g| + ε); decay
    // takes lr · 0.5 first.
    let first = [0.95 - 0.1 * 2.0 / 2.25, 1.0 + 0.1 * 4.0 / 4.25];
    near(values(&params)[0], first[0]);
    near(values(&params)[1], first[1]);
    assert_eq!(
        values(&params)[2],
        7.0,
        "a parameter without a gradient stays as it is, without weight decay"
    );
    // The same gradients again: their corrected moments have not changed.
    optimizer.step(&gradients, 0.1, None);
    near(values(&params)[0], first[0] * 0.95 - 0.1 * 2.0 / 2.25);
    near(values(&params)[1], first[1] + 0.1 * 4.0 / 4.25);
    assert_eq!(optimizer.step, 2);
}

#[test]
fn gradients_are_multiplied_by_the_clip_factor_before_the_step() {
    let params = params();
    AdamW::new(SETTINGS, &params).step(&gradients(2.0, -4.0), 0.1, Some(&Tensor::from(0.5f32)));
    near(values(&params)[0], 0.95 - 0.1 * 1.0 / 1.25);
    near(values(&params)[1], 1.0 + 0.1 * 2.0 / 2.25);
}

#[test]
fn the_one_pass_kernel_computes_what_the_tensor_operations_compute() {
    let _turn = lock_generator();
    // fp32 on a CPU takes the kernel, f64 the operations. 1,003 values do not fill whole vectors.
    tch::manual_seed(1);
    let first = Tensor::randn([17, 59], (Kind::Double, Device::Cpu));
    let [fp32, f64s] = [Kind::Float, Kind::Double].map(|kind| {
        let mut params = Params::on(Device::Cpu);
        let _ = params.add("weight", first.to_kind(kind), true);
        let optimizer = AdamW::new(SETTINGS, &params);
        (params, optimizer, kind)
    });
    let mut both = [fp32, f64s];
    for step in 0..5 {
        let gradient = Tensor::randn([59, 17], (Kind::Double, Device::Cpu)).transpose(0, 1);
        let factor = (step % 2 == 0).then(|| Tensor::from(0.3f32));
        for (_, optimizer, kind) in &mut both {
            optimizer.step(&[gradient.to_kind(*kind)], 0.01, factor.as_ref());
        }
    }
    let [ours, operations] =
        both.map(|(params, ..)| params.iter().next().unwrap().tensor.to_kind(Kind::Double));
    assert!((&ours - &operations).abs().max().double_value(&[]) < 1e-6);
    assert!(
        (&ours - &first).abs().min().double_value(&[]) > 0.0,
        "every value has changed"
    );
}

#[test]
fn joined_parameters_get_the_values_of_separate_ones() {
    let [per_parameter, joined] = [Grouping::PerParameter, Grouping::Joined].map(|grouping| {
        let params = params();
        let mut optimizer = AdamW::with_grouping(SETTINGS, &params, grouping);
        for step in 0..5 {
            let gradients = gradients(1.0 + step as f32, -4.0).map(|g| {
                if g.defined() {
                    g
                } else {
                    Tensor::zeros([1], FP32)
                }
            });
            let gradients = optimizer.flatten(gradients.into());
            assert_eq!(
                gradients.len(),
                if grouping == Grouping::Joined { 1 } else { 3 }
            );
            optimizer.step(
                &gradients,
                0.01,
                (step % 2 == 0).then(|| Tensor::from(0.3f32)).as_ref(),
            );
        }
        let moments = optimizer
            .moments
            .iter()
            .flat_map(|Moments { mean, square }| [mean, square])
            .map(|m| m.double_value(&[0]));
        [values(&params), moments.collect()].concat()
    });
    per_parameter
        .iter()
        .zip(&joined)
        .for_each(|(expected, joined)| near(*joined, *expected));
    assert_eq!(per_parameter.len(), 9);
    let flat = AdamW::with_grouping(SETTINGS, &params(), Grouping::Joined)
        .flatten(gradients(1.0, -4.0).into());
    assert_eq!(
        Vec::<f32>::try_from(&flat[0]).unwrap(),
        [1.0, -4.0, 0.0],
        "a missing gradient is zero"
    );
}

#[test]
fn the_global_norm_is_over_all_gradients_and_clipping_limits_it() {
    let norm = gradient_norm(&gradients(3.0, -4.0));
    near(norm.double_value(&[]), 5.0);
    near(clip_factor(&norm, 1.0).double_value(&[]), 0.2);
    assert_eq!(
        clip_factor(&norm, 6.0).double_value(&[]),
        1.0,
        "a shorter gradient is not lengthened"
    );
    assert_eq!(
        clip_factor(&norm.zeros_like(), 1.0).double_value(&[]),
        1.0,
        "no gradient, no division by zero"
    );
    assert_eq!(clip_factor(&norm, 1.0).kind(), Kind::Float);
}

#[test]
fn unscale_divides_by_the_loss_scale() {
    let mut gradients = gradients(3.0, -4.0);
    unscale(&mut gradients, 1.0);
    near(gradient_norm(&gradients).double_value(&[]), 5.0);
    unscale(&mut gradients, 4.0);
    near(gradients[0].double_value(&[0]), 0.75);
    near(gradient_norm(&gradients).double_value(&[]), 1.25);
}

#[test]
fn the_learning_rate_rises_falls_and_ends_at_zero() {
    let rates = [0, 1, 2, 3, 4, 5, 6, 7].map(|step| learning_rate(0.8, step, 2, 6));
    for (ours, by_hand) in rates.iter().zip([0.0, 0.4, 0.8, 0.6, 0.4, 0.2, 0.0, 0.0]) {
        near(*ours, by_hand);
    }
    near(learning_rate(0.8, 0, 0, 4), 0.8);
    near(learning_rate(0.8, 3, 3, 3), 0.0);
}

#[test]
fn an_overflow_halves_the_loss_scale_and_two_thousand_finite_updates_double_it() {
    let mut scaler = GradScaler::new(Precision::Fp16);
    scaler.update(false);
    scaler.update(false);
    assert_eq!((scaler.scale, scaler.skipped), (16384.0, 2));
    (0..2000).for_each(|_| scaler.update(true));
    assert_eq!((scaler.scale, scaler.skipped), (32768.0, 2));
    (0..16).for_each(|_| scaler.update(false));
    assert!(scaler.scale < 1.0);
    let mut fixed = GradScaler::new(Precision::Bf16);
    fixed.update(false);
    assert_eq!((fixed.scale, fixed.dynamic), (1.0, false));
}
