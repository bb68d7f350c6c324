//! How much of a large file is there.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// A file of at least this many bytes shows its progress.
const SHOW_PROGRESS_FROM: u64 = 10_000_000;

/// A line on stderr that says how much of a large file is there.
pub(super) struct Progress<'a> {
    name: &'a str,
    total: Option<u64>,
    shown: Instant,
    /// A terminal rewrites its line; a log file gets a new line, less often.
    on_terminal: bool,
    line_is_open: bool,
}

impl<'a> Progress<'a> {
    pub(super) fn new(name: &'a str, total: Option<u64>) -> Self {
        Self {
            name,
            total,
            shown: Instant::now(),
            on_terminal: std::io::stderr().is_terminal(),
            line_is_open: false,
        }
    }

    pub(super) fn show(&mut self, done: u64) {
        let pause = Duration::from_millis(if self.on_terminal { 300 } else { 10_000 });
        if self.shown.elapsed() >= pause {
            self.shown = Instant::now();
            self.print(done);
        }
    }

    pub(super) fn print(&mut self, done: u64) {
        let Some(line) = self.line(done) else { return };
        if self.on_terminal {
            eprint!("\r{line}");
            self.line_is_open = true;
        } else {
            note!("{line}");
        }
    }

    /// `None` for a file that is not large.
    pub(super) fn line(&self, done: u64) -> Option<String> {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        if self.total.unwrap_or(done) < SHOW_PROGRESS_FROM {
            return None;
        }
        let total_text = match self.total {
            Some(total) => format!(" of {:.1}", megabytes(total)),
            None => String::new(),
        };
        Some(format!(
            "{}: {:.1}{total_text} MB",
            self.name,
            megabytes(done)
        ))
    }
}

impl Drop for Progress<'_> {
    /// Ends the line also where the connection broke, so that the error gets a line of its own.
    fn drop(&mut self) {
        if self.line_is_open {
            note!();
        }
    }
}
