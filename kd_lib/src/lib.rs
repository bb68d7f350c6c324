//! Knowledge distillation for text classification, to be read as a textbook: a BERT teacher, a BiLSTM
//! student, and the strategies that train them, on libtorch.
//!
//! Data flows one way, and so does the reading order:
//!
//! 1. [`data`]: corpus files → examples → ids → batches
//! 2. [`models`]: batches → logits
//! 3. [`strategies`], each with a seat of its own in the loop: the loss (objective), in which numbers it is computed
//!    (precision), which further passes a micro-batch gets (attack)
//! 4. [`update`]: a window of batches → gradients; [`optim`]: gradients → weights; [`teaching`]: teachers → logits
//! 5. [`recipe`] says what is wanted, [`plan`] what will happen on which [`device`], [`train`] is the one loop
//! 6. [`run`]: a directory that holds all that a training run left behind; [`lab`] makes or finds it and tells its
//!    [`progress`], [`rehearsal`] tries a recipe out
//! 7. [`metrics`], [`report`] (as a [`grid`]), [`predict`]: finished runs → figures that a person reads, and answers
//!
//! Pictures, the published tables, whether a difference is more than noise, and all that knows of Jupyter are in `notebooks/show`.
//!
//! What this crate is not: a framework. There is one loop, and no hooks to hang code on.
//!
//! ```
//! use kd_lib::strategies::Objective;
//! use tch::Tensor;
//!
//! // Three rows, two classes: the soft loss pulls towards the teacher, the hard one towards the label.
//! let student = Tensor::from_slice2(&[[0.2f32, -0.1], [1.5, 0.3], [-0.4, 0.9]]);
//! let teacher = Tensor::from_slice2(&[[2.0f32, -2.0], [1.0, 0.0], [-3.0, 3.0]]);
//! let labels = Tensor::from_slice(&[0i64, 0, 1]);
//! let objective = Objective::Distillation { temperature: 4.0, hard: 0.5, soft: 0.5 };
//! let loss = objective.loss(&student, &labels, Some(&teacher)).unwrap();
//! assert!(loss.total.double_value(&[]) > 0.0);
//! ```

pub mod data;
pub mod device;
mod error;
mod events;
pub mod files;
pub mod grid;
pub mod lab;
mod layers;
pub mod metrics;
pub mod models;
pub mod optim;
pub mod plan;
pub mod predict;
pub mod progress;
pub mod recipe;
pub mod rehearsal;
pub mod report;
pub mod run;
mod state;
pub mod strategies;
pub mod teaching;
pub mod train;
pub mod update;

pub use error::{Error, Result};
// A cell that needs a tensor or an array takes these, and so the versions that the crate was built with.
pub use {ndarray, tch};
