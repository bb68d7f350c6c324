//! A linear probe (Alain & Bengio 2016): a linear layer on the pooled states of a frozen model. It
//! trains in a second. A teacher's head may be initialised from one, a report compares a student
//! with one, and the search for wrong labels uses one.

use super::progress::{Activity, Progress};
use crate::Result;
use crate::evaluation::{self, fit_smoothed_temperature};
use tch::nn::{Adam, OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};

/// Updates, each over all texts. The loss is convex, so these suffice.
const UPDATES: usize = 300;
const LEARNING_RATE: f64 = 0.01;
/// One of these is selected by cross-validated accuracy.
const WEIGHT_DECAYS: [f64; 3] = [0.002, 0.02, 0.2];
/// Most texts that a probe is trained on, drawn at random. More texts barely change a probe, and
/// each costs a forward pass of the model.
pub(crate) const MAX_PROBE_TEXTS: usize = 2000;
/// Folds for selecting the weight decay.
pub(crate) const PROBE_FOLDS: usize = 5;

/// The progress of a probe that learns from the states of this many texts.
pub(crate) fn probe_progress(run: &str, texts: usize) -> Progress<'_> {
    Progress {
        done: texts,
        total: texts,
        ..Progress::begin(run, Activity::Probing)
    }
}

/// Pooled states `[text, width]` with what belongs to each text.
pub(crate) struct LabelledStates<'a> {
    pub states: &'a Tensor,
    /// The class of each text.
    pub labels: &'a [i64],
    /// The fold of each text, below [`PROBE_FOLDS`].
    pub folds: &'a [usize],
    pub classes: i64,
}

/// A trained linear layer over standardized states.
pub(crate) struct LinearProbe {
    mean: Tensor,
    deviation: Tensor,
    weight: Tensor,
    bias: Tensor,
}

/// A linear layer.
pub(crate) struct LinearHead {
    pub weight: Tensor,
    pub bias: Tensor,
}

/// The selected weight decay, and the logits of each text by a probe that did not see it.
pub(crate) struct OutOfFoldLogits {
    weight_decay: f64,
    /// Share of the texts whose class is right.
    pub accuracy: f64,
    /// `[text, class]`.
    logits: Tensor,
}

impl OutOfFoldLogits {
    /// `[text, class]`.
    pub fn probabilities(&self) -> Tensor {
        self.logits.softmax(1, Kind::Float)
    }
}

/// Some of the texts of [`LabelledStates`].
struct SelectedTexts {
    /// `[text]`.
    rows: Tensor,
    /// `[text, width]`.
    states: Tensor,
    /// `[text]`.
    labels: Tensor,
}

impl LabelledStates<'_> {
    fn select(&self, keep: impl Fn(usize) -> bool) -> SelectedTexts {
        let rows: Vec<i64> = (0..self.labels.len())
            .filter(|&row| keep(self.folds[row]))
            .map(|row| row as i64)
            .collect();
        let rows = Tensor::from_slice(&rows);
        SelectedTexts {
            states: self.states.index_select(0, &rows),
            labels: Tensor::from_slice(self.labels).index_select(0, &rows),
            rows,
        }
    }

    /// The probe of all texts, with the selected weight decay. Its logits are divided by a
    /// temperature that is fitted on held-out texts: a probe separates few texts with large
    /// weights, and is then too certain of others. `check_stop` is called before each update, and
    /// its error ends the training.
    pub fn probe(&self, check_stop: &mut dyn FnMut() -> Result<()>) -> Result<LinearProbe> {
        let held_out = self.out_of_fold_logits(check_stop)?;
        let labels = Tensor::from_slice(self.labels);
        let weight_decay = held_out.weight_decay;
        let probe = LinearProbe::fit(self.states, &labels, self.classes, weight_decay, check_stop)?;
        let logits = evaluation::to_array(&held_out.logits)?;
        let labels: Vec<usize> = self.labels.iter().map(|&label| label as usize).collect();
        Ok(probe.divided_by(fit_smoothed_temperature(logits.view(), &labels)))
    }

    /// Logits of each text by a probe that was trained on the texts of the other folds.
    pub fn out_of_fold_logits(
        &self,
        check_stop: &mut dyn FnMut() -> Result<()>,
    ) -> Result<OutOfFoldLogits> {
        let labels = Tensor::from_slice(self.labels);
        let mut best: Option<OutOfFoldLogits> = None;
        for weight_decay in WEIGHT_DECAYS {
            let size = [self.labels.len() as i64, self.classes];
            let mut logits = Tensor::zeros(size, (Kind::Float, Device::Cpu));
            for fold in 0..PROBE_FOLDS {
                let held_out = self.select(|other| other == fold);
                let known = self.select(|other| other != fold);
                if held_out.rows.numel() == 0 || known.rows.numel() == 0 {
                    continue;
                }
                let probe = LinearProbe::fit(
                    &known.states,
                    &known.labels,
                    self.classes,
                    weight_decay,
                    check_stop,
                )?;
                logits = logits.index_copy(0, &held_out.rows, &probe.logits(&held_out.states));
            }
            let right = logits.argmax(1, false).eq_tensor(&labels);
            let accuracy = right.mean(Kind::Float).double_value(&[]);
            if best.as_ref().is_none_or(|best| accuracy > best.accuracy) {
                best = Some(OutOfFoldLogits {
                    weight_decay,
                    accuracy,
                    logits,
                });
            }
        }
        best.ok_or_else(|| crate::Error::recipe("probe", "no weight decay", crate::error::BUG))
    }
}

impl LinearProbe {
    /// Trains on states `[text, width]`. It starts from zeros, so the result is deterministic.
    pub fn fit(
        states: &Tensor,
        labels: &Tensor,
        classes: i64,
        weight_decay: f64,
        check_stop: &mut dyn FnMut() -> Result<()>,
    ) -> Result<LinearProbe> {
        let variables = VarStore::new(Device::Cpu);
        let mut probe = LinearProbe {
            mean: states.mean_dim(0, true, Kind::Float),
            deviation: states.std_dim(0, false, true).clamp_min(1e-6),
            weight: variables
                .root()
                .zeros("weight", &[classes, states.size()[1]]),
            bias: variables.root().zeros("bias", &[classes]),
        };
        let settings = Adam {
            wd: weight_decay,
            ..Adam::default()
        };
        let mut optimizer = settings.build(&variables, LEARNING_RATE)?;
        let standardized = probe.standardized(states);
        for _ in 0..UPDATES {
            check_stop()?;
            let logits = standardized.linear(&probe.weight, Some(&probe.bias));
            optimizer.backward_step(&logits.cross_entropy_for_logits(labels));
        }
        probe.weight = probe.weight.detach();
        probe.bias = probe.bias.detach();
        Ok(probe)
    }

    fn divided_by(self, temperature: f64) -> LinearProbe {
        LinearProbe {
            weight: self.weight / temperature,
            bias: self.bias / temperature,
            ..self
        }
    }

    /// Logits `[text, class]`.
    pub fn logits(&self, states: &Tensor) -> Tensor {
        self.standardized(states)
            .linear(&self.weight, Some(&self.bias))
    }

    /// The same layer on states that are not standardized: its weight `[class, width]` and its bias
    /// `[class]`.
    pub fn head(&self) -> LinearHead {
        let weight = &self.weight / &self.deviation;
        let shift = (&weight * &self.mean).sum_dim_intlist(1, false, Kind::Float);
        LinearHead {
            bias: &self.bias - shift,
            weight,
        }
    }

    fn standardized(&self, states: &Tensor) -> Tensor {
        (states - &self.mean) / &self.deviation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go_on() -> Result<()> {
        Ok(())
    }

    /// Two classes of ten texts each; the first text has the other class's label.
    #[test]
    fn a_wrong_label_is_unlikely_to_a_probe_that_did_not_see_it() {
        let mut rows: Vec<[f32; 2]> = Vec::new();
        let (mut labels, mut folds) = (Vec::new(), Vec::new());
        for text in 0..20 {
            let class = text % 2;
            let side = if class == 0 { 1.0 } else { -1.0 };
            rows.push([side + text as f32 * 0.01, side - text as f32 * 0.01]);
            labels.push(class as i64);
            folds.push(text % PROBE_FOLDS);
        }
        labels[0] = 1;
        let states = LabelledStates {
            states: &Tensor::from_slice2(&rows),
            labels: &labels,
            folds: &folds,
            classes: 2,
        };
        let held_out = states.out_of_fold_logits(&mut go_on).unwrap();
        let probabilities = held_out.probabilities();
        let label_probability =
            |text: i64| probabilities.double_value(&[text, labels[text as usize]]);
        assert!(label_probability(0) < 0.3, "{}", label_probability(0));
        assert!((1..20).all(|text| label_probability(text) > 0.6));
    }

    /// The head reads the states themselves; the probe standardizes them.
    #[test]
    fn the_head_of_a_probe_has_its_logits() {
        let rows = [[1.0f32, 10.0], [2.0, 14.0], [0.5, 30.0]];
        let (states, labels) = (
            Tensor::from_slice2(&rows),
            Tensor::from_slice(&[0i64, 1, 1]),
        );
        let probe = LinearProbe::fit(&states, &labels, 2, 0.02, &mut go_on).unwrap();
        let head = probe.head();
        let logits = states.linear(&head.weight, Some(&head.bias));
        assert!(logits.allclose(&probe.logits(&states), 1e-4, 1e-4, false));
        assert!(probe.weight.abs().max().double_value(&[]) > 0.01);
    }

    /// Labels that do not depend on the states: a probe separates the texts that it was trained on,
    /// and its temperature makes it as uncertain as it is wrong about others.
    #[test]
    fn a_probe_is_no_more_certain_than_held_out_texts_allow() {
        let (texts, width) = (40i64, 60i64);
        let angles = Tensor::arange(texts * width, (Kind::Float, Device::Cpu)).square() * 0.37;
        let states = angles.sin().view([texts, width]);
        let labels: Vec<i64> = (0..texts).map(|text| (text / 2) % 2).collect();
        let folds: Vec<usize> = (0..texts as usize).map(|text| text % PROBE_FOLDS).collect();
        let labelled = LabelledStates {
            states: &states,
            labels: &labels,
            folds: &folds,
            classes: 2,
        };
        let certainty = |probe: &LinearProbe| {
            let probabilities = probe.logits(&states).softmax(1, Kind::Float);
            probabilities
                .amax(1, false)
                .mean(Kind::Float)
                .double_value(&[])
        };
        let held_out = labelled.out_of_fold_logits(&mut go_on).unwrap();
        let labels = Tensor::from_slice(&labels);
        let raw = LinearProbe::fit(&states, &labels, 2, held_out.weight_decay, &mut go_on).unwrap();
        let probe = labelled.probe(&mut go_on).unwrap();
        assert!(certainty(&raw) > 0.8, "{}", certainty(&raw));
        assert!(certainty(&probe) < 0.7, "{}", certainty(&probe));
    }

    /// Without the prior of Platt, the temperature of a probe that makes no mistake is near 0: a
    /// teacher that is initialised with such a head has no gradient left.
    #[test]
    fn a_probe_without_a_mistake_keeps_some_doubt() {
        let side = |text: i64| if text % 2 == 0 { 1.0f32 } else { -1.0 };
        let rows: Vec<[f32; 2]> = (0..60)
            .map(|text| [side(text) + text as f32 * 0.01, text as f32])
            .collect();
        let states = Tensor::from_slice2(&rows);
        let labels: Vec<i64> = (0..60).map(|text| text % 2).collect();
        let folds: Vec<usize> = (0..60).map(|text| text / 2 % PROBE_FOLDS).collect();
        let labelled = LabelledStates {
            states: &states,
            labels: &labels,
            folds: &folds,
            classes: 2,
        };
        assert_eq!(
            labelled.out_of_fold_logits(&mut go_on).unwrap().accuracy,
            1.0
        );
        let probe = labelled.probe(&mut go_on).unwrap();
        let probabilities = probe.logits(&states).softmax(1, Kind::Float);
        let certainty = probabilities.amax(1, false).mean(Kind::Float);
        let certainty = certainty.double_value(&[]);
        assert!((0.9..0.995).contains(&certainty), "{certainty}");
    }

    #[test]
    fn a_stop_ends_the_training_of_a_probe() {
        let states = Tensor::from_slice2(&[[1.0f32], [2.0]]);
        let labels = Tensor::from_slice(&[0i64, 1]);
        let stop = || crate::Error::recipe("probe", "stopped", "go on");
        let mut updates = 0;
        let mut check_stop = || {
            updates += 1;
            if updates < 3 { Ok(()) } else { Err(stop()) }
        };
        assert!(LinearProbe::fit(&states, &labels, 2, 0.02, &mut check_stop).is_err());
        assert_eq!(updates, 3);
    }
}
