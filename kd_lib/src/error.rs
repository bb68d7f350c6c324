//! The one error type. Every variant says where (file, line, key), what was found there, and what to do.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What can go wrong, with the place and the cure in its message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // of fields: each stands in its message. Steps and lines count from 1
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("{}: {cause}; {}", path.display(), cure(cause.kind()))]
    Io { path: PathBuf, cause: std::io::Error },
    /// A line of a text file does not fit its format.
    #[error("{}:{line}: {problem}; {fix}", path.display())]
    Line { path: PathBuf, line: usize, problem: String, fix: String },
    /// A file as a whole is not what it should be.
    #[error("{}: {problem}; {fix}", path.display())]
    File { path: PathBuf, problem: String, fix: String },
    /// A recipe asks for something that cannot be done.
    #[error("recipe: {key}: {problem}; {fix}")]
    Recipe { key: String, problem: String, fix: String },
    /// Training produced a loss or a gradient that is not a number.
    #[error("step {step}: the {what} is not finite (learning rate {lr:.3e}, examples: {examples}); {fix}")]
    NotFinite { step: usize, what: &'static str, lr: f64, examples: String, fix: &'static str },
    /// A watcher asked a run to stop; where to go on is saved.
    #[error("{run}: stopped at {step} of {steps} as asked; what was done is saved: ask for it again to go on")]
    Stopped { run: String, step: usize, steps: usize },
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// A figure could not be drawn.
    #[error("figure: {0}")]
    Figure(String),
}

/// Shorthand for a result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// What to do about what cannot happen.
pub(crate) const BUG: &str = "report this as a bug";

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |cause| Error::Io { path, cause }
    }

    pub(crate) fn line(path: &Path, line: usize, problem: impl Into<String>, fix: impl Into<String>) -> Error {
        Error::Line { path: path.to_path_buf(), line, problem: problem.into(), fix: fix.into() }
    }

    pub(crate) fn file(path: &Path, problem: impl Into<String>, fix: impl Into<String>) -> Error {
        Error::File { path: path.to_path_buf(), problem: problem.into(), fix: fix.into() }
    }

    /// Of what another library says of a file.
    pub(crate) fn said<E: Display>(path: &Path, fix: &'static str) -> impl FnOnce(E) -> Error {
        let path = path.to_path_buf();
        move |e| Error::file(&path, e.to_string(), fix)
    }

    pub(crate) fn recipe(key: &str, problem: impl Into<String>, fix: impl Into<String>) -> Error {
        Error::Recipe { key: key.into(), problem: problem.into(), fix: fix.into() }
    }
}

fn cure(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "correct the name, or put it there",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => "make room and ask again",
        _ => "mend that and ask again",
    }
}
