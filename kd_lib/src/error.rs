//! The one error type. A variant names the place (file, line, recipe key, option), the value that
//! was found there, and what to do. [`Error::Torch`] and [`Error::Shape`] say only what went wrong:
//! they come from code that gave libtorch or a plot something impossible.

use std::fmt::Display;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What can go wrong, with the place and the fix in its message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)] // The message shows the fields. Steps and lines count from 1.
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("{}: {cause}; {}", path.display(), io_fix(cause.kind()))]
    Io {
        path: PathBuf,
        cause: std::io::Error,
    },
    /// A line of a text file does not fit its format.
    #[error("{}:{line}: {problem}; {fix}", path.display())]
    Line {
        path: PathBuf,
        line: usize,
        problem: String,
        fix: String,
    },
    /// A model cannot read a text.
    #[error("{text:?} {problem}; {fix}")]
    Input {
        text: String,
        problem: String,
        fix: String,
    },
    /// A file as a whole is not what it should be.
    #[error("{}: {problem}; {fix}", path.display())]
    File {
        path: PathBuf,
        problem: String,
        fix: String,
    },
    /// A recipe asks for something that cannot be done.
    #[error("recipe: {key}: {problem}; {fix}")]
    Recipe {
        key: String,
        problem: String,
        fix: String,
    },
    /// An option of a command, or the request that it stands for, cannot be met.
    #[error("--{option}: {problem}; {fix}")]
    Option {
        option: String,
        problem: String,
        fix: String,
    },
    /// Training produced a loss or a gradient that is not a finite number.
    #[error(
        "step {step}: the {what} is not finite (learning rate {learning_rate:.3e}, examples: {examples}); {fix}"
    )]
    NotFinite {
        step: usize,
        what: &'static str,
        learning_rate: f64,
        examples: String,
        fix: &'static str,
    },
    /// A progress callback asked a run to stop. What was computed is saved.
    #[error(
        "{run}: stopped {place}; what was computed is saved: run the same command again to continue"
    )]
    Stopped { run: String, place: String },
    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Torch(#[from] tch::TchError),
    /// An array or a plot does not have the shape that it needs.
    #[error("shape: {0}")]
    Shape(String),
}

/// Shorthand for a result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// The fix of an error that should be impossible.
pub(crate) const BUG: &str = "report this as a bug";

impl Error {
    /// Adds the path to an input or output error.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |cause| Error::Io { path, cause }
    }

    pub(crate) fn line(
        path: &Path,
        line: usize,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) -> Error {
        Error::Line {
            path: path.to_path_buf(),
            line,
            problem: problem.into(),
            fix: fix.into(),
        }
    }

    pub(crate) fn file(path: &Path, problem: impl Into<String>, fix: impl Into<String>) -> Error {
        Error::File {
            path: path.to_path_buf(),
            problem: problem.into(),
            fix: fix.into(),
        }
    }

    /// Adds the path and a fix to what another library reports of a file.
    pub(crate) fn in_file<E: Display>(path: &Path, fix: &'static str) -> impl FnOnce(E) -> Error {
        let path = path.to_path_buf();
        move |error| Error::file(&path, error.to_string(), fix)
    }

    /// An error of an option, which is named without its hyphens.
    pub(crate) fn option(
        option: &str,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) -> Error {
        Error::Option {
            option: option.into(),
            problem: problem.into(),
            fix: fix.into(),
        }
    }

    /// An error of a recipe's key. Public, since a model or an objective of another crate
    /// validates its own settings.
    pub fn recipe(key: &str, problem: impl Into<String>, fix: impl Into<String>) -> Error {
        Error::Recipe {
            key: key.into(),
            problem: problem.into(),
            fix: fix.into(),
        }
    }
}

fn io_fix(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "correct the name, or put the file there",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            "free some space and try again"
        }
        _ => "fix that and try again",
    }
}
