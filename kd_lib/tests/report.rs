//! Tables emphasise what a reader may compare: the best value on one corpus, not of all rows.

use kd_lib::evaluation::Scores;
use kd_lib::store::table::{MeanSd, TableRow, per_class, table};

fn row(name: &str, corpus: &str, accuracy: f64) -> TableRow {
    let test = [MeanSd {
        mean: accuracy,
        sd: None,
    }; 4];
    TableRow {
        name: name.into(),
        id: format!("{name}-0"),
        corpus: corpus.into(),
        corpus_fingerprint: corpus.into(),
        seeds: 1,
        test,
    }
}

#[test]
fn the_best_value_is_emphasised_among_the_rows_of_one_corpus() {
    let rows = [
        row("a", "hard", 0.5),
        row("b", "easy", 0.8),
        row("a", "easy", 0.9),
        row("c", "alone", 0.1),
    ];
    let emphasised: Vec<bool> = table(&rows)
        .rows
        .iter()
        .map(|cells| cells[3].strong)
        .collect();
    assert_eq!(
        emphasised,
        [false, false, true, false],
        "a corpus with one row has no best"
    );
}

#[test]
fn corpora_of_one_name_are_no_rivals_and_can_be_told_apart() {
    let of = |fingerprint: &str, accuracy| TableRow {
        corpus_fingerprint: fingerprint.into(),
        ..row("a", "data (12)", accuracy)
    };
    let rows = [
        of("0123456789abcdef", 0.5),
        of("0123456789abcdef", 0.6),
        of("fedcba9876543210", 0.9),
    ];
    let table = table(&rows);
    let emphasised: Vec<bool> = table.rows.iter().map(|cells| cells[3].strong).collect();
    assert_eq!(emphasised, [false, true, false]);
    let corpora: Vec<&str> = table
        .rows
        .iter()
        .map(|cells| cells[1].text.as_str())
        .collect();
    let [first, other] = ["data (12) 01234567", "data (12) fedcba98"];
    assert_eq!(corpora, [first, first, other]);
}

#[test]
fn the_macro_row_says_how_many_classes_have_no_text() {
    let logits = ndarray::array![[2.0f32, 0.0], [1.0, 0.0]];
    let scores = Scores::of(logits.view(), &[0, 0]);
    let labels = ["a".to_owned(), "b".to_owned()];
    let table = per_class(&scores, &labels);
    assert_eq!(
        table.rows[2][0].text,
        "macro (1 of 2 classes without a text)"
    );
    assert_eq!(scores.macro_f1, 0.5);
}

#[test]
fn columns_are_aligned_beside_wide_characters() {
    let wide = row("学生", "国际财经新闻", 0.5);
    let text = table(&[wide, row("student", "sample", 0.25)]).text();
    // A Chinese character is two columns wide in a terminal.
    let columns_before = |line: &str, word: &str| -> usize {
        let before = &line[..line.find(word).unwrap()];
        before
            .chars()
            .map(|c| if c.is_ascii() { 1 } else { 2 })
            .sum()
    };
    let lines: Vec<&str> = text.lines().collect();
    let places = [(0, "accuracy"), (1, "0.5000"), (2, "0.2500")]
        .map(|(line, word)| columns_before(lines[line], word));
    assert_eq!(places, [places[0]; 3], "{text}");
}
