//! Knowledge distillation for text classification, to be read as a textbook: a BERT teacher, small
//! students (BiLSTM, TextCNN, fastText, a BERT of fewer layers), and the strategies that train
//! them, on libtorch.
//!
//! Data flows one way. A module uses only modules that stand before it in this list:
//!
//! 1. [`files`], [`device`], [`threads`], [`precision`]: writing files, choosing a device, how many
//!    threads compute, dtypes
//! 2. [`data`]: corpus files → examples → token ids → batches
//! 3. [`models`]: batches → logits
//! 4. [`objectives`]: logits of student and teacher → a loss
//! 5. [`evaluation`]: logits → scores, calibration, significance
//! 6. [`training`]: gradients, adversarial passes, the optimizer, the one loop and its saved state
//! 7. [`store`]: recipes, planned runs, runs on disk, the cache of teachers' logits, tables, predictions
//! 8. [`distill`]: from texts and a budget of time to a student and a report
//!
//! This crate is not a framework: there is one loop, and there are no hooks. A new network
//! implements [`models::Architecture`] (its settings) and [`models::Classifier`] (its forward
//! pass), a new loss [`objectives::Objective`].
//!
//! ```
//! use kd_lib::objectives::{Kd, loss_of_logits};
//! use tch::Tensor;
//!
//! // Three examples, two classes. The soft loss pulls towards the teacher, the hard loss towards
//! // the label.
//! let student = Tensor::from_slice2(&[[0.2f32, -0.1], [1.5, 0.3], [-0.4, 0.9]]);
//! let teacher = Tensor::from_slice2(&[[2.0f32, -2.0], [1.0, 0.0], [-3.0, 3.0]]);
//! let labels = Tensor::from_slice(&[0i64, 0, 1]);
//! let objective = Kd { temperature: 4.0, hard_weight: 0.5, soft_weight: 0.5 };
//! let loss = loss_of_logits(&objective, &student, &labels, Some(&teacher)).unwrap();
//! assert!(loss.total.double_value(&[]) > 0.0);
//! ```

pub mod data;
pub mod device;
pub mod distill;
mod error;
pub mod evaluation;
pub mod files;
pub mod models;
pub mod objectives;
pub mod precision;
pub mod store;
pub mod threads;
pub mod training;

pub use error::{Error, Result};
// Re-exported so that callers use the same versions.
pub use {ndarray, tch};

/// The README's example, compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct ReadmeDoctests;
