//! What training minimises. Each loss is one file with its paper's equation; all see the
//! [`ModelOutput`]s of student and teacher. Every loss is computed in fp32 (f64 from f64 logits)
//! and is a mean, over the examples of its micro-batch or over all elements; one term of [`dist`]
//! is a mean over classes. To add a loss, write a file like [`kd`] and add a variant to
//! [`ObjectiveConfig`]; a loss of a notebook or of another crate uses [`CustomObjective`].

pub mod cross_entropy;
pub mod dist;
pub mod dkd;
pub mod hidden_states;
pub mod kd;
pub mod kd_as_published;
pub mod kd_standardized;
pub mod logit_mse;

pub use cross_entropy::CrossEntropy;
pub use dist::Dist;
pub use dkd::Dkd;
pub use hidden_states::HiddenStates;
pub use kd::Kd;
pub use kd_as_published::KdAsPublished;
pub use kd_standardized::KdStandardized;
pub use logit_mse::LogitMse;

use crate::models::ModelOutput;
use crate::precision::to_full_precision;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Debug;
use std::sync::Arc;
use tch::{Reduction, Tensor};

/// The label of a text that has none.
pub const UNLABELLED: i64 = -100;

/// What a loss is computed from.
#[derive(Debug)]
pub struct LossInputs<'a> {
    /// What the trained model computed: logits `[batch, classes]`.
    pub student: &'a ModelOutput,
    /// The teacher's logits `[batch, classes]`, and its pooled hidden states if the objective names
    /// layers.
    pub teacher: Option<&'a ModelOutput>,
    /// `[batch]` int64; [`UNLABELLED`] for a text without a label.
    pub labels: &'a Tensor,
    /// The objective's own parameters, in the order of [`Objective::parameters`].
    pub parameters: &'a [Tensor],
    /// The weight of each class in the hard loss `[classes]`; without it, each has
    /// weight 1.
    pub class_weights: Option<&'a Tensor>,
}

/// The layers whose pooled states an objective sees, see
/// [`ForwardPass::hidden_layers`](crate::models::ForwardPass). Teacher and student split texts into
/// different tokens, so states are pooled over a text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HiddenLayers {
    /// Layers of the student; 0 is the embedding.
    pub student: Vec<usize>,
    /// Layers of the teacher; 0 is the embedding.
    pub teacher: Vec<usize>,
}

/// Widths of the pooled states of [`HiddenLayers`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HiddenWidths {
    /// Of the student's layers.
    pub student: Vec<i64>,
    /// Of the teacher's layers.
    pub teacher: Vec<i64>,
}

/// A parameter that an objective trains in addition to the model's.
#[derive(Debug)]
pub struct ObjectiveParameter {
    /// Its name, unique within the objective.
    pub name: String,
    /// Its initial values.
    pub values: Tensor,
}

/// A loss and its parts, each a scalar tensor. A part that does not apply is zero.
#[derive(Debug)]
pub struct Loss {
    /// What is differentiated.
    pub total: Tensor,
    /// Cross-entropy against the labels, before the objective weights it.
    pub hard: Tensor,
    /// The teacher's part: unweighted if it is one term, the weighted sum if it has several.
    pub soft: Tensor,
}

/// A loss function with its settings.
pub trait Objective: Debug + Send + Sync {
    /// Whether the loss needs a teacher.
    fn needs_teacher(&self) -> bool {
        true
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// If a value is out of range or contradicts another one.
    fn validate(&self) -> Result<()>;

    /// Refuses a loss that is undefined or constant for this many classes.
    fn validate_classes(&self, _classes: usize) -> Result<()> {
        Ok(())
    }

    /// The temperature, if the loss has one.
    fn temperature(&self) -> Option<f64> {
        None
    }

    /// The same loss at another temperature, if it has one: `train.final_temperature` anneals it.
    fn with_temperature(&self, _temperature: f64) -> Option<Box<dyn Objective>> {
        None
    }

    /// The layers whose pooled states the loss needs; none by default.
    fn hidden_layers(&self) -> HiddenLayers {
        HiddenLayers::default()
    }

    /// Parameters that are trained in addition to the model's, for hidden states of these widths.
    /// They belong to the optimizer and to the saved state, and not to the finished model.
    fn parameters(&self, _widths: &HiddenWidths) -> Vec<ObjectiveParameter> {
        Vec::new()
    }

    /// The loss of one micro-batch.
    ///
    /// # Errors
    /// If the loss needs a teacher and there is none.
    fn loss(&self, inputs: &LossInputs) -> Result<Loss>;
}

/// Which loss: `[objective]` in a recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ObjectiveConfig {
    /// Cross-entropy against the labels.
    CrossEntropy(CrossEntropy),
    /// Hinton et al. 2015.
    Kd(Kd),
    /// Tang et al. 2019.
    LogitMse(LogitMse),
    /// Zhao et al. 2022.
    Dkd(Dkd),
    /// Huang et al. 2022.
    Dist(Dist),
    /// The published experiment's loss.
    KdAsPublished(KdAsPublished),
    /// Sun et al. 2024.
    KdStandardized(KdStandardized),
    /// Romero et al. 2015.
    HiddenStates(HiddenStates),
    /// A loss that a notebook or another crate defines.
    Custom(CustomObjective),
}

impl ObjectiveConfig {
    /// The settings as a loss function.
    ///
    /// # Errors
    /// If the loss is a custom one that this program does not have.
    pub fn objective(&self) -> Result<&dyn Objective> {
        match self {
            ObjectiveConfig::CrossEntropy(loss) => Ok(loss),
            ObjectiveConfig::Kd(loss) => Ok(loss),
            ObjectiveConfig::LogitMse(loss) => Ok(loss),
            ObjectiveConfig::Dkd(loss) => Ok(loss),
            ObjectiveConfig::Dist(loss) => Ok(loss),
            ObjectiveConfig::KdAsPublished(loss) => Ok(loss),
            ObjectiveConfig::KdStandardized(loss) => Ok(loss),
            ObjectiveConfig::HiddenStates(loss) => Ok(loss),
            ObjectiveConfig::Custom(custom) => custom.objective(),
        }
    }
}

/// A loss of a notebook or of another crate. Its name, version and settings enter the run's id;
/// raise the version when the code changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CustomObjective {
    /// The loss's name.
    pub name: String,
    /// Version of its code.
    pub version: u32,
    /// Its settings.
    pub settings: serde_json::Value,
    #[serde(skip)]
    objective: Option<Arc<dyn Objective>>,
}

impl CustomObjective {
    /// A recipe's objective with a loss of one's own. `settings` are stored in the recipe.
    pub fn config(
        name: &str,
        version: u32,
        settings: serde_json::Value,
        objective: impl Objective + 'static,
    ) -> ObjectiveConfig {
        ObjectiveConfig::Custom(CustomObjective {
            name: name.to_owned(),
            version,
            settings,
            objective: Some(Arc::new(objective)),
        })
    }

    fn objective(&self) -> Result<&dyn Objective> {
        self.objective.as_deref().ok_or_else(|| {
            let problem = format!(
                "{:?}, version {}, is not in this program",
                self.name, self.version
            );
            let fix = "use the notebook or program that defines the objective";
            Error::recipe("objective.name", problem, fix)
        })
    }
}

impl PartialEq for CustomObjective {
    fn eq(&self, other: &CustomObjective) -> bool {
        (&self.name, self.version, &self.settings) == (&other.name, other.version, &other.settings)
    }
}

impl ModelOutput {
    /// An output of logits `[batch, classes]` alone, as a loss takes it.
    pub fn from_logits(logits: &Tensor) -> ModelOutput {
        ModelOutput {
            logits: logits.shallow_clone(),
            hidden: Vec::new(),
        }
    }
}

/// A loss on plain logits `[batch, classes]` and labels `[batch]`: what a test or a notebook calls.
pub fn loss_of_logits(
    objective: &dyn Objective,
    student: &Tensor,
    labels: &Tensor,
    teacher: Option<&Tensor>,
) -> Result<Loss> {
    let student = ModelOutput::from_logits(student);
    let teacher = teacher.map(ModelOutput::from_logits);
    let inputs = LossInputs {
        student: &student,
        teacher: teacher.as_ref(),
        labels,
        parameters: &[],
        class_weights: None,
    };
    objective.loss(&inputs)
}

impl LossInputs<'_> {
    /// The student's logits in full precision.
    pub fn student_logits(&self) -> Tensor {
        to_full_precision(&self.student.logits)
    }

    /// What the teacher computed.
    ///
    /// # Errors
    /// If there is no teacher.
    pub fn teacher(&self) -> Result<&ModelOutput> {
        self.teacher.ok_or_else(|| {
            let fix = "give the teacher's logits; in a recipe: teacher = \"FILE.toml\", or teacher_logits";
            Error::recipe("teacher", "none", fix)
        })
    }

    /// The teacher's logits in full precision.
    ///
    /// # Errors
    /// If there is no teacher.
    pub fn teacher_logits(&self) -> Result<Tensor> {
        Ok(to_full_precision(&self.teacher()?.logits))
    }

    /// The hard loss: −w(label) · log p(label), averaged over all examples, with the weights of the
    /// classes w, which are 1 by default. An example without a label counts as zero.
    pub fn hard_loss(&self) -> Tensor {
        let student = self.student_logits();
        let batch_size = student.size()[0] as f64;
        let weights = self.class_weights.map(|w| w.to_kind(student.kind()));
        let sum = student.cross_entropy_loss(
            self.labels,
            weights.as_ref(),
            Reduction::Sum,
            UNLABELLED,
            0.0,
        );
        sum / batch_size
    }
}

/// Log-probabilities `[batch, classes]` of logits divided by the temperature.
pub fn softened_log_probabilities(logits: &Tensor, temperature: f64) -> Tensor {
    (logits / temperature).log_softmax(-1, logits.kind())
}

/// KL(teacher ‖ student) of log-probabilities, summed over classes and examples.
pub fn kl_divergence(student: &Tensor, teacher: &Tensor) -> Tensor {
    student.kl_div(teacher, Reduction::Sum, true)
}

/// Refuses a temperature of 0 or below, or one that is not finite.
pub fn check_temperature(temperature: f64) -> Result<()> {
    if temperature > 0.0 && temperature.is_finite() {
        return Ok(());
    }
    let fix = "choose a number above 0; 1 leaves the distributions as they are";
    Err(Error::recipe(
        "objective.temperature",
        temperature.to_string(),
        fix,
    ))
}

/// Checks the settings of a loss with one soft term at a temperature.
pub fn check_kd_settings(temperature: f64, hard_weight: f64, soft_weight: f64) -> Result<()> {
    check_temperature(temperature)?;
    check_weights(&[("soft_weight", soft_weight), ("hard_weight", hard_weight)])
}

/// Refuses negative weights, and weights that are all 0. `weights` are settings by name.
pub fn check_weights(weights: &[(&str, f64)]) -> Result<()> {
    for (name, weight) in weights {
        if !(*weight >= 0.0 && weight.is_finite()) {
            let key = format!("objective.{name}");
            return Err(Error::recipe(
                &key,
                weight.to_string(),
                "choose a weight of 0 or more",
            ));
        }
    }
    if weights.iter().all(|(_, weight)| *weight == 0.0) {
        let key = format!("objective.{}", weights[0].0);
        let fix = "all weights are 0, so there is nothing to learn: raise one";
        return Err(Error::recipe(&key, "0", fix));
    }
    Ok(())
}

/// Refuses a loss that is partly undefined or constant for two classes; `because` says what is
/// wrong with it then.
pub fn check_three_classes(kind: &str, classes: usize, because: &str) -> Result<()> {
    if classes >= 3 {
        return Ok(());
    }
    let problem = format!("{kind} with {classes} classes");
    let fix = format!("{because}: choose kd or logit_mse");
    Err(Error::recipe("objective.kind", problem, fix))
}
