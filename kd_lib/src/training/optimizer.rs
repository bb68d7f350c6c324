//! AdamW (Loshchilov & Hutter 2019, algorithm 2) with a state that can be saved, the learning-rate
//! schedule (linear warmup, then linear decay), and clipping by the global norm. This is our own
//! code because libtorch's optimizer object cannot save its state.

use crate::models::Params;
use crate::precision::to_full_precision;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;
use tch::{Device, Kind, Tensor};

/// AdamW and its schedule: `[optimizer]` in a recipe.
#[serde_inline_default]
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay rates of the two moments.
    #[serde_inline_default([0.9, 0.98])]
    pub betas: [f64; 2],
    /// Added to the denominator.
    #[serde_inline_default(1e-8)]
    pub eps: f64,
    /// Decoupled weight decay. Biases and layer norms do not decay.
    #[serde_inline_default(0.01)]
    pub weight_decay: f64,
    /// Fraction of all updates over which the learning rate rises from 0.
    #[serde_inline_default(0.1)]
    pub warmup_ratio: f64,
    /// Largest global gradient norm; no clipping if absent.
    pub max_grad_norm: Option<f64>,
}

impl OptimizerConfig {
    /// Checks the settings.
    ///
    /// # Errors
    /// If a value is out of range or contradicts another one.
    pub fn validate(&self) -> Result<()> {
        let above_zero = |value: f64| value > 0.0 && value.is_finite();
        let refuse = |key: &str, value: f64, fix: &str| {
            Err(Error::recipe(
                &format!("optimizer.{key}"),
                value.to_string(),
                fix,
            ))
        };
        if !above_zero(self.learning_rate) {
            return refuse(
                "learning_rate",
                self.learning_rate,
                "choose a number above 0",
            );
        }
        if !above_zero(self.eps) {
            return refuse("eps", self.eps, "choose a number above 0");
        }
        if let Some(limit) = self.max_grad_norm
            && !above_zero(limit)
        {
            return refuse(
                "max_grad_norm",
                limit,
                "choose a number above 0, or leave it out",
            );
        }
        for beta in self.betas {
            if !(0.0..1.0).contains(&beta) {
                return refuse("betas", beta, "choose 0 or more, below 1");
            }
        }
        if !(self.weight_decay >= 0.0 && self.weight_decay.is_finite()) {
            return refuse("weight_decay", self.weight_decay, "choose 0 or more");
        }
        if !(0.0..=1.0).contains(&self.warmup_ratio) {
            let fix = "it is a fraction of all updates: choose 0 to 1";
            return refuse("warmup_ratio", self.warmup_ratio, fix);
        }
        Ok(())
    }
}

/// Running mean and running square of a gradient.
#[derive(Debug)]
pub struct Moments {
    /// Running mean, flat.
    pub mean: Tensor,
    /// Running mean of the square, flat.
    pub square: Tensor,
}

/// The optimizer and its state.
#[derive(Debug)]
pub struct AdamW {
    config: OptimizerConfig,
    /// Updates made so far.
    pub step: i64,
    /// Moments of each parameter, in the parameters' order.
    pub moments: Vec<Moments>,
    groups: Vec<Group>,
}

/// Weights that are updated in one operation, flat, in the parameters' own memory.
#[derive(Debug)]
struct Group {
    weight: Tensor,
    moments: Moments,
    /// 1 for a weight that decays, else 0: one number for the whole group, or one for each weight.
    decays: Tensor,
}

/// Whether all parameters are updated in one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// Each parameter by itself.
    PerParameter,
    /// All parameters in one memory. Fast on a GPU, where an update waits for kernel launches.
    Joined,
}

impl Moments {
    fn zeros_like(weight: &Tensor) -> Moments {
        Moments {
            mean: weight.zeros_like(),
            square: weight.zeros_like(),
        }
    }

    fn shallow_clone(&self) -> Moments {
        Moments {
            mean: self.mean.shallow_clone(),
            square: self.square.shallow_clone(),
        }
    }
}

impl AdamW {
    /// Zero moments for these parameters, grouped as is fastest on their device.
    pub fn new(config: OptimizerConfig, params: &Params) -> AdamW {
        let grouping = match params.device() {
            Device::Cpu => Grouping::PerParameter,
            _ => Grouping::Joined,
        };
        AdamW::with_grouping(config, params, grouping)
    }

    /// Zero moments for these parameters.
    pub fn with_grouping(config: OptimizerConfig, params: &Params, grouping: Grouping) -> AdamW {
        let _guard = tch::no_grad_guard();
        match grouping {
            Grouping::PerParameter => AdamW::per_parameter(config, params),
            Grouping::Joined => AdamW::joined(config, params),
        }
    }

    fn per_parameter(config: OptimizerConfig, params: &Params) -> AdamW {
        let mut groups = Vec::new();
        for param in params.iter() {
            let weight = param.master.view(-1);
            groups.push(Group {
                moments: Moments::zeros_like(&weight),
                decays: Tensor::from(f64::from(param.decay)),
                weight,
            });
        }
        let moments = groups.iter().map(|g| g.moments.shallow_clone()).collect();
        AdamW {
            config,
            step: 0,
            moments,
            groups,
        }
    }

    fn joined(config: OptimizerConfig, params: &Params) -> AdamW {
        let (mut weights, mut decays, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
        for param in params.iter() {
            let weight = param.master.view(-1);
            decays.push(weight.full_like(f64::from(param.decay)));
            sizes.push(weight.size()[0]);
            weights.push(weight);
        }
        let weight = Tensor::cat(&weights, 0);
        for (param, place) in params.iter().zip(weight.split_with_sizes(&sizes, 0)) {
            param.move_to(&place);
        }
        let all = Moments::zeros_like(&weight);
        let means = all.mean.split_with_sizes(&sizes, 0);
        let squares = all.square.split_with_sizes(&sizes, 0);
        let pairs = means.into_iter().zip(squares);
        let moments = pairs
            .map(|(mean, square)| Moments { mean, square })
            .collect();
        let group = Group {
            weight,
            moments: all,
            decays: Tensor::cat(&decays, 0),
        };
        AdamW {
            config,
            step: 0,
            moments,
            groups: vec![group],
        }
    }

    /// The parameters' gradients as [`AdamW::step`] takes them: unchanged, or joined in one tensor
    /// if all parameters are updated in one operation. A missing gradient is zero then.
    pub fn flatten(&self, gradients: Vec<Tensor>) -> Vec<Tensor> {
        if self.groups.len() == gradients.len() {
            return gradients;
        }
        let mut flat = Vec::new();
        for (gradient, moments) in gradients.iter().zip(&self.moments) {
            flat.push(if gradient.defined() {
                to_full_precision(gradient).reshape(-1)
            } else {
                moments.mean.zeros_like()
            });
        }
        vec![Tensor::cat(&flat, 0)]
    }

    /// One update from flattened gradients. `clip_factor` multiplies each gradient, see
    /// [`clip_factor`]. A parameter without a gradient stays as it is.
    pub fn step(&mut self, gradients: &[Tensor], lr: f64, clip_factor: Option<&Tensor>) {
        let _guard = tch::no_grad_guard();
        self.step += 1;
        let rule = UpdateRule::new(&self.config, self.step, lr);
        for (group, gradient) in self.groups.iter().zip(gradients) {
            if !gradient.defined() {
                continue;
            }
            let gradient = to_full_precision(&gradient.contiguous().view(-1));
            match CpuValues::of(group, &gradient) {
                Some(values) => rule.update_values(values, clip_factor),
                None => rule.update_tensors(group, &gradient, clip_factor),
            }
        }
    }
}

/// The scalars of one update. With m and v the moments and b₁, b₂ their bias corrections, Adam adds
/// to a weight
///
/// ```text
/// −lr · (m / b₁) / (√(v / b₂) + ε)
///     = −lr · √b₂ / b₁ · m / (√v + ε·√b₂)
///     = m / ((√v + ε·√b₂) · scale)    with    scale = −b₁ / (lr · √b₂)
/// ```
///
/// The last form needs one pass over memory fewer than the first.
struct UpdateRule {
    one_minus_beta1: f64,
    one_minus_beta2: f64,
    /// ε·√b₂.
    eps: f64,
    /// −b₁ / (lr · √b₂).
    scale: f64,
    /// lr times the weight decay.
    decay: f64,
}

impl UpdateRule {
    fn new(config: &OptimizerConfig, step: i64, lr: f64) -> UpdateRule {
        let [beta1, beta2] = config.betas;
        let bias1 = 1.0 - beta1.powi(step as i32);
        let bias2 = 1.0 - beta2.powi(step as i32);
        UpdateRule {
            one_minus_beta1: 1.0 - beta1,
            one_minus_beta2: 1.0 - beta2,
            eps: config.eps * bias2.sqrt(),
            // At lr = 0 this is −∞, and the quotient is 0.
            scale: -(bias1 / (lr * bias2.sqrt())),
            decay: lr * config.weight_decay,
        }
    }

    /// Updates a group on the processor without intermediate tensors.
    fn update_values(&self, values: CpuValues, clip_factor: Option<&Tensor>) {
        let clip_factor = clip_factor.map_or(1.0, |factor| factor.double_value(&[]));
        let scalars = Scalars {
            clip_factor: clip_factor as f32,
            one_minus_beta1: self.one_minus_beta1 as f32,
            one_minus_beta2: self.one_minus_beta2 as f32,
            eps: self.eps as f32,
            scale: self.scale as f32,
            decay: (1.0 - self.decay * values.decays) as f32,
        };
        let CpuValues {
            weight,
            gradient,
            mean,
            square,
            ..
        } = values;
        // SAFETY: four tensors, each with memory of its own, that outlive the pass and that nobody
        // else uses meanwhile.
        unsafe { one_pass(scalars, &mut *weight, &*gradient, &mut *mean, &mut *square) };
    }

    /// Updates a group by tensor operations.
    fn update_tensors(&self, group: &Group, gradient: &Tensor, clip_factor: Option<&Tensor>) {
        let gradient = clip_factor.map_or(gradient.shallow_clone(), |factor| gradient * factor);
        let Moments {
            mut mean,
            mut square,
        } = group.moments.shallow_clone();
        let _ = mean.lerp_(&gradient, self.one_minus_beta1);
        let _ = square.lerp_(&gradient.square(), self.one_minus_beta2);
        let denominator = square
            .sqrt()
            .g_add_scalar_(self.eps)
            .g_mul_scalar_(self.scale);
        let decay = 1.0 - &group.decays * self.decay;
        let _ = group
            .weight
            .shallow_clone()
            .g_mul_(&decay)
            .addcdiv_(&mean, &denominator);
    }
}

/// The values of a group and its gradient in the processor's memory.
struct CpuValues {
    weight: *mut [f32],
    gradient: *mut [f32],
    mean: *mut [f32],
    square: *mut [f32],
    /// 1 if the weights decay, else 0.
    decays: f64,
}

impl CpuValues {
    /// None if a tensor is elsewhere or no fp32, or if some weights of the group decay and others
    /// do not.
    fn of(group: &Group, gradient: &Tensor) -> Option<CpuValues> {
        if group.decays.dim() != 0 {
            return None;
        }
        Some(CpuValues {
            weight: cpu_values(&group.weight)?,
            gradient: cpu_values(gradient)?,
            mean: cpu_values(&group.moments.mean)?,
            square: cpu_values(&group.moments.square)?,
            decays: group.decays.double_value(&[]),
        })
    }
}

/// The values of a tensor, if they are contiguous fp32 values in the processor's memory.
fn cpu_values(tensor: &Tensor) -> Option<*mut [f32]> {
    let plain =
        tensor.device() == Device::Cpu && tensor.kind() == Kind::Float && tensor.is_contiguous();
    plain.then(|| std::ptr::slice_from_raw_parts_mut(tensor.data_ptr().cast(), tensor.numel()))
}

/// [`UpdateRule`]'s scalars for one group, in fp32.
#[derive(Clone, Copy)]
struct Scalars {
    clip_factor: f32,
    one_minus_beta1: f32,
    one_minus_beta2: f32,
    eps: f32,
    scale: f32,
    decay: f32,
}

/// The same operations as on tensors, value by value: memory is read once, not nine times.
#[multiversion::multiversion(targets("x86_64+avx512f+fma", "x86_64+avx2+fma"))]
fn one_pass(
    s: Scalars,
    weight: &mut [f32],
    gradient: &[f32],
    mean: &mut [f32],
    square: &mut [f32],
) {
    for ((w, g), (m, v)) in weight
        .iter_mut()
        .zip(gradient)
        .zip(mean.iter_mut().zip(square))
    {
        let g = g * s.clip_factor;
        *m = (g - *m).mul_add(s.one_minus_beta1, *m);
        *v = (g * g - *v).mul_add(s.one_minus_beta2, *v);
        *w = *w * s.decay + *m / ((v.sqrt() + s.eps) * s.scale);
    }
}

/// Learning rate of update `step` (from 0) of `total`: linear from 0 over the warmup, then linear
/// to 0.
///
/// ```
/// let rate = |step| kd_lib::training::optimizer::learning_rate(1.0, step, 10, 100);
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
    let norms: Vec<Tensor> = gradients
        .iter()
        .filter(|g| g.defined())
        .map(|g| to_full_precision(g).norm())
        .collect();
    Tensor::stack(&norms, 0).norm()
}

/// Divides the gradients by the loss scale.
pub fn unscale(gradients: &mut [Tensor], scale: f64) {
    if scale != 1.0 {
        gradients
            .iter_mut()
            .filter(|g| g.defined())
            .for_each(|gradient| *gradient = to_full_precision(gradient) * (1.0 / scale));
    }
}

/// The factor that makes the gradients' global norm at most `limit`; `norm` is their norm now.
pub fn clip_factor(norm: &Tensor, limit: f64) -> Tensor {
    (limit / (norm + 1e-6)).clamp_max(1.0).to_kind(Kind::Float)
}
