//! The only module that knows it may run in an evcxr cell: how a cell shows HTML and pictures, says how far
//! training is, and fails so loudly that nobody overlooks it. It computes nothing.

use crate::Result;
use crate::progress::{self, Tick};
use std::fmt::Display;
use std::time::Duration;

/// Shows HTML as the cell's output. One call a cell: the kernel keeps the last.
pub fn html(content: &str) {
    println!("EVCXR_BEGIN_CONTENT text/html\n{content}\nEVCXR_END_CONTENT");
}

/// Shows pictures side by side.
pub fn figures(svgs: &[String]) {
    html(&format!("<div style=\"display:flex;flex-wrap:wrap\">{}</div>", svgs.concat()));
}

/// A watcher that prints a line every few seconds and at each look at dev.
pub fn watch() -> impl FnMut(&Tick) {
    progress::lines(std::io::stdout(), Duration::from_secs(10))
}

/// Stops the cell with the error's own sentence. A top-level `?` would only print it: the kernel reports such a
/// cell as a success, and a notebook run by a program would go on.
pub trait OrStop<T> {
    /// The value, or a panic that says what to do.
    fn or_stop(self) -> T;
}

impl<T> OrStop<T> for Result<T> {
    fn or_stop(self) -> T {
        match self {
            Ok(value) => value,
            Err(error) => stop(&error),
        }
    }
}

/// Checks a claim of the prose: prints it when it holds, stops the cell when it does not.
pub fn check(claim: &str, holds: bool) {
    if !holds {
        stop(&format!("this does not hold: {claim}"));
    }
    println!("✓ {claim}");
}

fn stop(message: &dyn Display) -> ! {
    panic!("{message}")
}
