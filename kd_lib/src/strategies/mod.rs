//! The seats of the training loop: the [`objective`] says what is minimised, the [`precision`] in which
//! numbers the products are computed (with its [`scaling`]), the [`attack`] which further passes a micro-batch
//! gets. Each is a closed enum of its own: they are different kinds of thing.

pub mod attack;
pub mod objective;
pub mod precision;
pub mod scaling;

pub use attack::{Attack, Perturbation, Scope};
pub use objective::{Loss, Objective};
pub use precision::Precision;
pub use scaling::LossScale;
