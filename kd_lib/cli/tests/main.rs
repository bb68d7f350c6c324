//! The tests of `kd`, in one program that starts two of them at a time on two cores.
//! `cargo test -p kd trust::` runs one file of them.

#[path = "../../tests/common/mod.rs"]
mod common;
mod program;

mod bad_input;
mod command_line;
mod convert;
mod disk;
mod distill;
mod download;
mod odd_input;
mod soak;
mod trust;
