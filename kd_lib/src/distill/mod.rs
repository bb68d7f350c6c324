//! From labelled texts and a budget of time to a student, with the evidence that distillation
//! helped: [`data_report`] (what is in the texts) and [`measure`](mod@measure) (this corpus, this
//! machine) → [`plan`] (ordinary recipes with their seconds) and [`forecast`] → [`trials`] (one on
//! the corpus's splits, or one a fold) of [`execute`](mod@execute) (train, choose on dev) →
//! [`report`] (models are scored on test here, once). Teachers and students are trained by
//! [`crate::store`], from the recipes that the plan writes. Only the references of a report are
//! trained here: the n-gram model and the linear probe.

pub mod budget;
mod curves;
pub mod data_report;
pub mod document;
mod evidence;
pub mod execute;
pub mod facts;
pub mod forecast;
pub mod measure;
pub mod ngram_model;
pub mod plan;
pub mod recipes;
pub mod references;
pub mod report;
pub mod suspicious_labels;
pub mod trials;

pub use budget::Budget;
pub use data_report::DataReport;
pub use execute::{Outcome, execute};
pub use facts::{CorpusFacts, PlanSettings, SecondsPerText};
pub use forecast::Forecast;
pub use measure::measure;
pub use ngram_model::{NgramModel, NgramSettings, NgramUnit};
pub use plan::{DistillPlan, Side, Stage};
pub use report::Report;
pub use suspicious_labels::SuspiciousLabels;
pub use trials::{Trial, Trials, run_trials};
