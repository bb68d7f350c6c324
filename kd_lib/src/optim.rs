//! AdamW (Loshchilov & Hutter 2019, algorithm 2) with state that can be saved, the warm-up and linear decay
//! of its learning rate, and clipping by the global norm. Own code, since libtorch's optimiser object cannot
//! give its state away.

use crate::models::Params;
use crate::recipe::Optimiser;
use crate::strategies::precision::wide;
use tch::{Device, Kind, Tensor};

/// The optimiser and its state.
#[derive(Debug)]
pub struct AdamW {
    settings: Optimiser,
    /// Updates made so far.
    pub step: i64,
    /// Running mean and running square of each parameter's gradient, flat, in the parameters' order.
    pub moments: Vec<[Tensor; 2]>,
    groups: Vec<Group>,
}

/// Weights that are updated as one, flat, in the parameters' own memory.
#[derive(Debug)]
struct Group {
    weight: Tensor,
    moments: [Tensor; 2],
    /// 1 for a weight that decays, else 0.
    decays: Tensor,
}

impl AdamW {
    /// Zero moments for these parameters. On a GPU, where an update waits for its launches, all are updated as one.
    pub fn new(settings: Optimiser, params: &Params) -> AdamW {
        AdamW::grouped(settings, params, params.device() != Device::Cpu)
    }

    /// The same, each parameter by itself or, `joined`, all in one memory.
    pub fn grouped(settings: Optimiser, params: &Params, joined: bool) -> AdamW {
        let _guard = tch::no_grad_guard();
        let group = |weight: Tensor, decays: Tensor| Group {
            moments: [weight.zeros_like(), weight.zeros_like()],
            weight,
            decays,
        };
        let flat: Vec<(Tensor, f64)> = params.iter().map(|p| (p.master.view(-1), f64::from(p.decay))).collect();
        if !joined {
            let groups: Vec<Group> = flat.into_iter().map(|(w, decays)| group(w, Tensor::from(decays))).collect();
            let moments = groups.iter().map(|g| g.moments.each_ref().map(Tensor::shallow_clone)).collect();
            return AdamW { settings, step: 0, moments, groups };
        }
        let (weights, decays): (Vec<Tensor>, Vec<Tensor>) =
            flat.into_iter().map(|(w, decays)| (w.shallow_clone(), w.full_like(decays))).unzip();
        let sizes: Vec<i64> = weights.iter().map(|w| w.size()[0]).collect();
        let group = group(Tensor::cat(&weights, 0), Tensor::cat(&decays, 0));
        let parts = |x: &Tensor| x.split_with_sizes(&sizes, 0);
        params.iter().zip(parts(&group.weight)).for_each(|(param, place)| param.move_to(&place));
        let [means, squares] = group.moments.each_ref().map(parts);
        let moments = means.into_iter().zip(squares).map(|(mean, square)| [mean, square]).collect();
        AdamW { settings, step: 0, moments, groups: vec![group] }
    }

    /// The parameters' gradients as [`AdamW::update`] takes them: as one, in which a missing one is zero, where all are
    /// updated as one.
    pub fn gather(&self, gradients: Vec<Tensor>) -> Vec<Tensor> {
        if self.groups.len() == gradients.len() {
            return gradients;
        }
        let flat = gradients.iter().zip(&self.moments);
        let flat = flat.map(|(g, [m, _])| if g.defined() { wide(g).reshape(-1) } else { m.zeros_like() });
        vec![Tensor::cat(&flat.collect::<Vec<_>>(), 0)]
    }

    /// One update at learning rate `lr` from gathered gradients, each multiplied by `shrink` where that is given
    /// (see [`clip`]). A parameter without one stays.
    pub fn update(&mut self, gradients: &[Tensor], lr: f64, shrink: Option<&Tensor>) {
        let _guard = tch::no_grad_guard();
        self.step += 1;
        let [beta1, beta2] = self.settings.betas;
        let (bias1, bias2) = (1.0 - beta1.powi(self.step as i32), 1.0 - beta2.powi(self.step as i32));
        // lr · (m / bias1) / (√(v / bias2) + ε) = m / ((√v + ε·√bias2) · scale): a pass over memory fewer. (At lr = 0 the quotient is 0.)
        let (epsilon, scale) = (self.settings.epsilon * bias2.sqrt(), bias1 / (lr * bias2.sqrt()));
        let decay = lr * self.settings.weight_decay;
        let groups = self.groups.iter().zip(gradients).filter(|(_, grad)| grad.defined());
        for (Group { weight, moments: [mean, square], decays }, grad) in groups {
            let grad = wide(&grad.contiguous().view(-1));
            if let [Some(weight), Some(grad), Some(mean), Some(square)] = [weight, &grad, mean, square].map(numbers)
                && decays.dim() == 0
            {
                let shrink = shrink.map_or(1.0, |factor| factor.double_value(&[]));
                let decay = 1.0 - decay * decays.double_value(&[]);
                let rule = [shrink, 1.0 - beta1, 1.0 - beta2, epsilon, -scale, decay];
                // SAFETY: four tensors, each with memory of its own, that outlive the pass and nobody else uses meanwhile.
                unsafe { in_one_pass(rule, &mut *weight, &*grad, &mut *mean, &mut *square) };
                continue;
            }
            let grad = shrink.map_or(grad.shallow_clone(), |factor| grad * factor);
            let (mut mean, mut square) = (mean.shallow_clone(), square.shallow_clone());
            let _ = mean.lerp_(&grad, 1.0 - beta1);
            let _ = square.lerp_(&grad.square(), 1.0 - beta2);
            let denominator = square.sqrt().g_add_scalar_(epsilon).g_mul_scalar_(-scale);
            let _ = weight.shallow_clone().g_mul_(&(1.0 - decays * decay)).addcdiv_(&mean, &denominator);
        }
    }
}

/// The numbers of a tensor where they lie, if that is the processor's memory and they are fp32 in a row.
fn numbers(tensor: &Tensor) -> Option<*mut [f32]> {
    let plain = tensor.device() == Device::Cpu && tensor.kind() == Kind::Float && tensor.is_contiguous();
    plain.then(|| std::ptr::slice_from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()))
}

/// The same operations as on tensors, number by number: memory is read once, not nine times.
#[multiversion::multiversion(targets("x86_64+avx512f+fma", "x86_64+avx2+fma"))]
fn in_one_pass(rule: [f64; 6], weight: &mut [f32], grad: &[f32], mean: &mut [f32], square: &mut [f32]) {
    let [shrink, new_mean, new_square, epsilon, scale, decay] = rule.map(|value| value as f32);
    for ((w, g), (m, v)) in weight.iter_mut().zip(grad).zip(mean.iter_mut().zip(square)) {
        let g = g * shrink;
        *m = (g - *m).mul_add(new_mean, *m);
        *v = (g * g - *v).mul_add(new_square, *v);
        *w = *w * decay + *m / ((v.sqrt() + epsilon) * scale);
    }
}

/// Learning rate of update `step` (from 0) of `total`: linear from 0 over the warm-up, then linear to 0.
///
/// ```
/// let rate = |step| kd_lib::optim::learning_rate(1.0, step, 10, 100);
/// assert_eq!([rate(0), rate(5), rate(10), rate(55), rate(100)], [0.0, 0.5, 1.0, 0.5, 0.0]);
/// ```
pub fn learning_rate(peak: f64, step: usize, warmup: usize, total: usize) -> f64 {
    if step < warmup {
        return peak * step as f64 / warmup as f64;
    }
    peak * total.saturating_sub(step) as f64 / total.saturating_sub(warmup).max(1) as f64
}

/// Global L2 norm of all gradients, as a scalar tensor.
pub fn gradient_norm(gradients: &[Tensor]) -> Tensor {
    let norms: Vec<Tensor> = gradients.iter().filter(|g| g.defined()).map(|g| wide(g).norm()).collect();
    Tensor::stack(&norms, 0).norm()
}

/// Takes the loss scale back out of the gradients.
pub fn unscale(gradients: &mut [Tensor], scale: f64) {
    if scale != 1.0 {
        gradients.iter_mut().filter(|g| g.defined()).for_each(|gradient| *gradient = wide(gradient) * (1.0 / scale));
    }
}

/// What every gradient is multiplied by so that their global norm, `norm` now, is at most `limit`.
pub fn clip(norm: &Tensor, limit: f64) -> Tensor {
    (limit / (norm + 1e-6)).clamp_max(1.0).to_kind(Kind::Float)
}
