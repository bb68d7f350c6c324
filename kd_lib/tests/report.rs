//! Tables say what a reader may compare: the best of a corpus, not of all.

use kd_lib::report::{Row, table};

fn row(name: &str, corpus: &str, accuracy: f64) -> Row {
    let test = [(accuracy, None); 4];
    Row { name: name.into(), id: format!("{name}-0"), corpus: corpus.into(), seeds: 1, test }
}

#[test]
fn the_best_is_marked_among_the_rows_of_one_corpus() {
    let rows = [row("a", "hard", 0.5), row("b", "easy", 0.8), row("a", "easy", 0.9), row("c", "alone", 0.1)];
    let marked: Vec<bool> = table(&rows).rows.iter().map(|cells| cells[3].strong).collect();
    assert_eq!(marked, [false, false, true, false], "a corpus with one row has no best");
}
