//! Experiments on disk. A [`Recipe`] says what is asked for, a [`PlannedRun`] what will happen; a
//! [`RunStore`] finds, continues or trains the [`Run`] of a planned one. [`teacher_logits`] caches
//! what teachers computed, [`labelled_texts`] reads the logits of a teacher from anywhere,
//! [`results`] holds the runs that come with the project, [`Predictor`] classifies new texts,
//! [`table`] compares runs. [`crate::training`] does the training itself.

pub mod labelled_texts;
pub(crate) mod model_factory;
mod opened_checkpoints;
pub mod overrides;
pub mod planned_run;
pub mod predictor;
pub(crate) mod pretrained_states;
pub mod recipe;
pub mod results;
pub mod retired;
pub mod run;
pub mod run_files;
pub mod run_store;
pub(crate) mod saved_model;
mod score_splits;
pub mod step_timer;
pub mod table;
pub mod teacher_logits;
mod tensorboard;
mod train_run;

pub use planned_run::PlannedRun;
pub use predictor::{Prediction, Predictor};
pub use recipe::Recipe;
pub use results::StoredResults;
pub use run::{Logits, Predictions, Run, RunReport};
pub use run_store::RunStore;
pub use step_timer::{StepSize, StepTime, StepTimer};
pub use table::{Cell, MeanSd, Table, TableRow};
