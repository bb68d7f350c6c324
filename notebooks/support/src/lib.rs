//! Support for the notebooks: the [`Session`] that a notebook works on, plots ([`plot`]), the
//! published tables and ours ([`tables`]), the ablation ([`ablation`]), the search without test
//! data ([`search`]), misclassified texts ([`mistakes`]) and a reference model ([`references`]).
//! This crate knows that it may run in an evcxr cell: how a cell shows HTML, and how it fails so
//! that nobody overlooks it. It trains and scores nothing itself.

pub mod ablation;
mod live;
pub mod mistakes;
pub mod plot;
pub mod references;
pub mod search;
mod session;
pub mod tables;

pub use session::{Scope, Session};

use kd_lib::store::{Cell, Prediction, Predictor, Run, Table};
use kd_lib::{Error, Result};
use serde::de::DeserializeOwned;
use std::fmt::Display;
use std::path::Path;

/// Shows HTML as the cell's output. One call a cell: the kernel keeps the last.
pub fn html(content: &str) {
    show_content("text/html", content);
}

fn show_content(mime_type: &str, content: &str) {
    println!("EVCXR_BEGIN_CONTENT {mime_type}\n{content}\nEVCXR_END_CONTENT");
}

/// Shows a table as the cell's output.
pub fn show(table: &Table) {
    html(&table_to_html(table));
}

/// Text with HTML's special characters escaped.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

fn table_to_html(table: &Table) -> String {
    let cell_to_html = |cell: &Cell| {
        let text = escape(&cell.text);
        let text = if cell.strong {
            format!("<b>{text}</b>")
        } else {
            text
        };
        // A value and its deviation stay on one line; a wide table scrolls.
        format!("<td style=\"white-space:nowrap\">{text}</td>")
    };
    let mut head = String::new();
    for name in &table.head {
        head += &format!("<th>{}</th>", escape(name));
    }
    let mut body = String::new();
    for row in &table.rows {
        let cells: String = row.iter().map(cell_to_html).collect();
        body += &format!("<tr>{cells}</tr>");
    }
    format!(
        "<div style=\"overflow-x:auto\"><table><thead><tr>{head}</tr></thead>\
         <tbody>{body}</tbody></table></div>"
    )
}

/// Shows plots side by side as one image. Pages that show notebooks without running them show
/// images, but remove drawings from HTML.
pub fn figures(svgs: &[String]) {
    show_content("image/svg+xml", &plot::side_by_side(svgs));
}

/// A run's prediction of one text.
pub fn predict_one(run: &Run, text: &str) -> Prediction {
    Predictor::open(run)
        .and_then(|predictor| predictor.predict(&[text]))
        .or_end_cell()
        .remove(0)
}

/// Ends the cell with the error's own message. A top-level `?` only prints it: the kernel then
/// reports the cell as a success, and a program that runs the notebook continues.
pub trait OrEndCell<T> {
    /// The value, or a panic with the error's message.
    fn or_end_cell(self) -> T;
}

impl<T> OrEndCell<T> for Result<T> {
    fn or_end_cell(self) -> T {
        match self {
            Ok(value) => value,
            Err(error) => end_cell(&error),
        }
    }
}

/// Reads the rows of a CSV file that comes with the notebooks.
fn read_csv<T: DeserializeOwned>(path: &Path, columns: &str) -> Result<Vec<T>> {
    let bad = |e: csv::Error| {
        let line = e.position().map_or(1, |position| position.line() as usize);
        let fix = format!("the columns are {columns}");
        Error::Line {
            path: path.into(),
            line,
            problem: e.to_string(),
            fix,
        }
    };
    let rows = csv::Reader::from_path(path)
        .map_err(bad)?
        .into_deserialize();
    rows.map(|row| row.map_err(bad)).collect()
}

fn file_error(path: &Path, problem: &str, fix: &str) -> Error {
    Error::File {
        path: path.into(),
        problem: problem.into(),
        fix: fix.into(),
    }
}

fn end_cell(message: &dyn Display) -> ! {
    panic!("{message}")
}
