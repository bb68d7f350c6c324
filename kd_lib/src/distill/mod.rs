//! From labelled texts and a budget of time to a student, with the evidence that distillation
//! helped: [`measure`](mod@measure) (this corpus, this machine) → [`planner`] makes a [`plan`]
//! (ordinary recipes with their seconds) → [`data_report`] (what is in the texts) and [`forecast`] →
//! [`run_plan`](mod@run_plan), which calls [`run_stages`](mod@run_stages) (train, choose on dev) on
//! the corpus's splits or on each fold → [`report`] (models are scored on test here, once). Teachers
//! and students are trained by [`crate::store`], from the recipes that the plan writes. Only the n-gram
//! model and the linear probe are trained here: for the references of a report, the data report and
//! the search for wrong labels.

pub mod budget;
mod curves;
pub mod data_report;
pub mod distill_result;
pub mod document;
mod evidence;
pub mod facts;
pub mod findings;
pub mod folds;
pub mod forecast;
pub mod measure;
pub mod ngram_model;
pub mod plan;
pub mod plan_folder;
pub mod planner;
pub mod recipes;
pub mod references;
mod refit;
pub mod report;
pub mod run_plan;
pub mod run_stages;
pub mod suspicious_labels;

pub use budget::Budget;
pub use data_report::DataReport;
pub use distill_result::{DistillResult, FoldResult};
pub use facts::{CorpusFacts, PlanSettings, SecondsPerText};
pub use forecast::Forecast;
pub use measure::measure;
pub use ngram_model::{NgramModel, NgramSettings, NgramUnit};
pub use plan::{DistillPlan, FurtherSeed, Side, Stage, StudentPair};
pub use planner::make_plan;
pub use report::Report;
pub use run_plan::run_plan;
pub use run_stages::{TrainedStages, run_stages};
pub use suspicious_labels::SuspiciousLabels;
