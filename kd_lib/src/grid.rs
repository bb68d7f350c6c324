//! A table of cells, and its aligned text for a terminal. It knows no figures.

/// A table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Grid {
    /// Column names.
    pub head: Vec<String>,
    /// Cells by row; as many as there are columns.
    pub rows: Vec<Vec<Cell>>,
}

/// A cell's text, and whether a reader's eye should go there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cell {
    /// What stands in it.
    pub text: String,
    /// Starred in text, bold in a notebook.
    pub strong: bool,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        Cell { text: text.into(), strong: false }
    }
}

impl Grid {
    /// An empty table with these columns.
    pub fn new(head: &[&str]) -> Grid {
        Grid { head: head.iter().map(|h| (*h).to_owned()).collect(), rows: Vec::new() }
    }

    /// For a terminal.
    ///
    /// ```
    /// use kd_lib::grid::Grid;
    /// let mut grid = Grid::new(&["model", "F1"]);
    /// grid.rows.push(vec!["bert".into(), "0.9".into()]);
    /// assert_eq!(grid.text(), "model  F1\nbert   0.9\n");
    /// ```
    pub fn text(&self) -> String {
        let shown = |cell: &Cell| cell.text.clone() + if cell.strong { "*" } else { "" };
        let lines: Vec<Vec<String>> =
            std::iter::once(self.head.clone()).chain(self.rows.iter().map(|r| r.iter().map(shown).collect())).collect();
        let width = |column: usize| lines.iter().map(|l| l[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let line = |cells: &Vec<String>| {
            let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, &w)| format!("{cell:w$}")).collect();
            padded.join("  ").trim_end().to_owned() + "\n"
        };
        lines.iter().map(line).collect()
    }
}
