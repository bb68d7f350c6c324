//! The optimiser's small parts by hand, and the loss scale; fifty whole steps beside PyTorch's are in `parity.rs`.

use kd_lib::models::Params;
use kd_lib::optim::{AdamW, clip, gradient_norm, learning_rate, unscale};
use kd_lib::recipe::Optimiser;
use tch::{Device, Kind, Tensor};

const SETTINGS: Optimiser =
    Optimiser { learning_rate: 0.1, betas: [0.5, 0.75], epsilon: 0.25, weight_decay: 0.5, warmup: 0.0, clip: None };

const FP32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Two parameters, one spared by weight decay, and a third that has no gradient.
fn params() -> Params {
    let mut params = Params::on(Device::Cpu);
    let _ = params.add("weight", Tensor::from_slice(&[1f32]), true);
    let _ = params.add("bias", Tensor::from_slice(&[1f32]), false);
    let _ = params.add("unused", Tensor::from_slice(&[7f32]), true);
    params
}

fn gradients(first: f32, second: f32) -> [Tensor; 3] {
    [Tensor::from_slice(&[first]), Tensor::from_slice(&[second]), Tensor::new()]
}

fn values(params: &Params) -> Vec<f64> {
    params.iter().map(|p| p.tensor.double_value(&[0])).collect()
}

fn near(ours: f64, by_hand: f64) {
    assert!((ours - by_hand).abs() < 1e-6, "{ours} is not {by_hand}");
}

#[test]
fn one_step_and_a_second_are_those_of_the_paper() {
    let (params, gradients) = (params(), gradients(2.0, -4.0));
    let mut optimiser = AdamW::new(SETTINGS, &params);
    optimiser.update(&gradients, 0.1, None);
    // First step: the corrected moments are g and g², so the step is lr · g / (|g| + ε); decay takes lr · 0.5 first.
    let first = [0.95 - 0.1 * 2.0 / 2.25, 1.0 + 0.1 * 4.0 / 4.25];
    near(values(&params)[0], first[0]);
    near(values(&params)[1], first[1]);
    assert_eq!(values(&params)[2], 7.0, "what has no gradient is left alone, decay included");
    // The same gradients again: their corrected moments have not changed.
    optimiser.update(&gradients, 0.1, None);
    near(values(&params)[0], first[0] * 0.95 - 0.1 * 2.0 / 2.25);
    near(values(&params)[1], first[1] + 0.1 * 4.0 / 4.25);
    assert_eq!(optimiser.step, 2);
}

#[test]
fn gradients_are_shrunk_before_they_are_used() {
    let params = params();
    AdamW::new(SETTINGS, &params).update(&gradients(2.0, -4.0), 0.1, Some(&Tensor::from(0.5f32)));
    near(values(&params)[0], 0.95 - 0.1 * 1.0 / 1.25);
    near(values(&params)[1], 1.0 + 0.1 * 2.0 / 2.25);
}

#[test]
fn one_pass_over_the_numbers_does_what_the_operations_do() {
    // fp32 on a processor takes the pass, f64 the operations; 1,003 numbers leave some over from whole vectors.
    tch::manual_seed(1);
    let first = Tensor::randn([17, 59], (Kind::Double, Device::Cpu));
    let [fp32, f64s] = [Kind::Float, Kind::Double].map(|kind| {
        let mut params = Params::on(Device::Cpu);
        let _ = params.add("weight", first.to_kind(kind), true);
        let optimiser = AdamW::new(SETTINGS, &params);
        (params, optimiser, kind)
    });
    let mut both = [fp32, f64s];
    for step in 0..5 {
        let gradient = Tensor::randn([59, 17], (Kind::Double, Device::Cpu)).transpose(0, 1);
        let shrink = (step % 2 == 0).then(|| Tensor::from(0.3f32));
        for (_, optimiser, kind) in &mut both {
            optimiser.update(&[gradient.to_kind(*kind)], 0.01, shrink.as_ref());
        }
    }
    let [ours, operations] = both.map(|(params, ..)| params.iter().next().unwrap().tensor.to_kind(Kind::Double));
    assert!((&ours - &operations).abs().max().double_value(&[]) < 1e-6);
    assert!((&ours - &first).abs().min().double_value(&[]) > 0.0, "every number has moved");
}

#[test]
fn all_parameters_in_one_memory_learn_what_each_does_by_itself() {
    let [apart, joined] = [false, true].map(|joined| {
        let params = params();
        let mut optimiser = AdamW::grouped(SETTINGS, &params, joined);
        for step in 0..5 {
            let gradients =
                gradients(1.0 + step as f32, -4.0).map(|g| if g.defined() { g } else { Tensor::zeros([1], FP32) });
            let gradients = optimiser.gather(gradients.into());
            assert_eq!(gradients.len(), if joined { 1 } else { 3 });
            optimiser.update(&gradients, 0.01, (step % 2 == 0).then(|| Tensor::from(0.3f32)).as_ref());
        }
        let moments = optimiser.moments.iter().flatten().map(|m| m.double_value(&[0]));
        [values(&params), moments.collect()].concat()
    });
    apart.iter().zip(&joined).for_each(|(apart, joined)| near(*joined, *apart));
    assert_eq!(apart.len(), 9);
    let gathered = AdamW::grouped(SETTINGS, &params(), true).gather(gradients(1.0, -4.0).into());
    assert_eq!(Vec::<f32>::try_from(&gathered[0]).unwrap(), [1.0, -4.0, 0.0], "a missing gradient is zero");
}

#[test]
fn the_global_norm_is_over_all_gradients_and_clipping_limits_it() {
    let norm = gradient_norm(&gradients(3.0, -4.0));
    near(norm.double_value(&[]), 5.0);
    near(clip(&norm, 1.0).double_value(&[]), 0.2);
    assert_eq!(clip(&norm, 6.0).double_value(&[]), 1.0, "a shorter gradient is not stretched");
    assert_eq!(clip(&norm.zeros_like(), 1.0).double_value(&[]), 1.0, "no gradient, no division by zero");
    assert_eq!(clip(&norm, 1.0).kind(), Kind::Float);
}

#[test]
fn a_loss_scale_is_taken_back_out() {
    let mut gradients = gradients(3.0, -4.0);
    unscale(&mut gradients, 1.0);
    near(gradient_norm(&gradients).double_value(&[]), 5.0);
    unscale(&mut gradients, 4.0);
    near(gradients[0].double_value(&[0]), 0.75);
    near(gradient_norm(&gradients).double_value(&[]), 1.25);
}

#[test]
fn the_rate_rises_falls_and_ends_at_zero() {
    let rates = [0, 1, 2, 3, 4, 5, 6, 7].map(|step| learning_rate(0.8, step, 2, 6));
    for (ours, by_hand) in rates.iter().zip([0.0, 0.4, 0.8, 0.6, 0.4, 0.2, 0.0, 0.0]) {
        near(*ours, by_hand);
    }
    near(learning_rate(0.8, 0, 0, 4), 0.8);
    near(learning_rate(0.8, 3, 3, 3), 0.0);
}

#[test]
fn an_injected_overflow_halves_the_loss_scale_and_a_long_quiet_doubles_it() {
    let mut scale = kd_lib::strategies::LossScale::of(kd_lib::strategies::Precision::Fp16);
    scale.settle(false);
    scale.settle(false);
    assert_eq!((scale.scale, scale.skipped), (16384.0, 2));
    (0..2000).for_each(|_| scale.settle(true));
    assert_eq!((scale.scale, scale.skipped), (32768.0, 2));
    (0..16).for_each(|_| scale.settle(false));
    assert!(scale.scale < 1.0);
    let mut fixed = kd_lib::strategies::LossScale::of(kd_lib::strategies::Precision::Bf16);
    fixed.settle(false);
    assert_eq!((fixed.scale, fixed.dynamic), (1.0, false));
}
