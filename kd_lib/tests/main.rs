//! The tests of the library, in one program: thirty would each link libtorch and the tokenizers
//! again. `cargo test -p kd_lib objectives::` runs one file of them. Not here: `cuda.rs` and
//! `golden.rs`, which change or examine the whole process.

mod common;

mod checkpoints;
mod corpora;
mod custom;
mod distill_plan;
mod fasttext;
mod gradients;
mod hidden_states;
mod import;
mod interruptions;
mod kd_standardized;
mod labelled_texts;
mod logit_mse;
mod metrics;
mod models;
mod objectives;
mod optim;
mod outside;
mod pairs;
mod parity;
mod project;
mod properties;
mod report;
mod results;
mod retired;
mod small_bert;
mod subword_students;
mod textcnn;
mod training;
mod transfer;
mod weights;
