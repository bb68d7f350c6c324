//! From labelled texts and a budget of time to a student, with the evidence that distillation
//! helped: [`data_report`] (what is in the texts) and [`measure`](mod@measure) (this corpus, this
//! machine) → [`planner`] makes a [`plan`] (ordinary recipes with their seconds) and [`forecast`] →
//! [`run_plan`](mod@run_plan), which calls [`execute`](mod@execute) (train, choose on dev) on the
//! corpus's splits or on each fold → [`report`] (models are scored on test here, once). Teachers
//! and students are trained by [`crate::store`], from the recipes that the plan writes. Only the
//! references of a report are trained here: the n-gram model and the linear probe.

pub mod budget;
mod curves;
pub mod data_report;
pub mod document;
mod evidence;
pub mod execute;
pub mod facts;
pub mod findings;
pub mod folds;
pub mod forecast;
pub mod measure;
pub mod ngram_model;
pub mod plan;
pub mod planner;
pub mod recipes;
pub mod references;
pub mod report;
pub mod run_plan;
pub mod suspicious_labels;

pub use budget::Budget;
pub use data_report::DataReport;
pub use execute::{Outcome, execute};
pub use facts::{CorpusFacts, PlanSettings, SecondsPerText};
pub use forecast::Forecast;
pub use measure::measure;
pub use ngram_model::{NgramModel, NgramSettings, NgramUnit};
pub use plan::{DistillPlan, FurtherSeed, Side, Stage, StudentPair};
pub use planner::make_plan;
pub use report::Report;
pub use run_plan::{DistillResult, FoldResult, run_plan};
pub use suspicious_labels::SuspiciousLabels;
