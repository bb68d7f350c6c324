//! The seats of the training loop: the [`objective`] says what is minimised, the [`precision`] in which
//! numbers the products are computed. Each is a closed enum of its own: they are different kinds of thing.

pub mod objective;
pub mod precision;

pub use objective::{Loss, Objective};
pub use precision::Precision;
