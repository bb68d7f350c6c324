//! The one training loop, for teacher and student, with and without a teacher's logits:
//! [`gradients`] of an accumulation group (with the [`adversarial`] passes), the [`optimizer`],
//! the loop itself ([`trainer`]) and its saved [`state`]. [`config`] and
//! [`optimizer`] hold the settings of a recipe's `[train]` and `[optimizer]`. Nothing here reads a
//! recipe's file or knows where runs are stored.

pub mod adversarial;
pub mod class_weights;
pub mod config;
pub mod curve;
pub mod grad_scaler;
pub mod gradients;
pub(crate) mod linear_probe;
pub mod optimizer;
pub mod pooled_states;
pub mod progress;
pub mod state;
pub mod trainer;

pub use adversarial::Adversarial;
pub use class_weights::ClassWeights;
pub use config::TrainConfig;
pub use curve::CurvePoint;
pub use grad_scaler::GradScaler;
pub use gradients::{StepConfig, StepMetrics, TrainData};
pub use optimizer::{AdamW, OptimizerConfig};
pub use pooled_states::PooledStates;
pub use progress::{Activity, DevScores, Progress, ProgressCallback};
pub use trainer::{Schedule, Trainer, TrainingOutcome};
