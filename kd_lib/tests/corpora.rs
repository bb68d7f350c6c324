//! Corpus folders: the three formats, the counts of data quality, and errors that name the file,
//! the line, the value and the fix.

use kd_lib::data::batch::epoch_batches;
use kd_lib::data::data_quality::SplitCounts;
use kd_lib::data::text_files::{FileFormat, read_examples};
use kd_lib::data::{Corpus, TokenizedSplit, Vocabulary};
use std::path::Path;

fn write(folder: &Path, files: &[(&str, &[u8])]) {
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

/// The error of a folder of `text<TAB>index` lines in which one file is replaced.
fn error_with(name: &str, bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let good = "甲\t0\n乙\t1\n".as_bytes();
    write(
        folder.path(),
        &[
            ("class.txt", b"a\nb\n"),
            ("train.txt", good),
            ("dev.txt", good),
            ("test.txt", good),
        ],
    );
    write(folder.path(), &[(name, bytes)]);
    Corpus::open(folder.path()).unwrap_err().to_string()
}

#[test]
fn all_three_formats_give_the_same_examples() {
    let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let index = "\u{feff}足球 赛\t1\r\n房价\t0\r\n\r\n\n".as_bytes();
    write(
        folders[0].path(),
        &[
            ("class.txt", "realty\nsports\n".as_bytes()),
            ("train.txt", index),
            ("dev.txt", index),
            ("test.txt", index),
        ],
    );
    let label = "sports\t足球 赛\nrealty\t房价\n".as_bytes();
    write(
        folders[1].path(),
        &[
            ("x.labels", "realty\nsports".as_bytes()),
            ("x.train.txt", label),
            ("x.val.txt", label),
            ("x.test.txt", label),
        ],
    );
    // A text of two lines becomes one.
    let csv = "label,text\nsports,\"足球\n赛\"\nrealty,\"房价\"\n".as_bytes();
    write(
        folders[2].path(),
        &[
            ("labels.txt", "realty\nsports\n".as_bytes()),
            ("train.csv", csv),
            ("dev.csv", csv),
            ("test.csv", csv),
        ],
    );
    for folder in &folders {
        let corpus = Corpus::open(folder.path()).unwrap();
        let read: Vec<(&str, usize)> = corpus
            .train
            .iter()
            .map(|e| (e.text.as_str(), e.label))
            .collect();
        assert_eq!(read, [("足球 赛", 1), ("房价", 0)]);
        assert_eq!(corpus.dev.len(), 2);
    }
}

#[test]
fn errors_name_the_line_the_value_and_the_fix() {
    let cases: [(&str, &[u8], &[&str]); 11] = [
        (
            "train.txt",
            b"\xff\xfe\t0\n",
            &["train.txt:1", "not UTF-8", "iconv"],
        ),
        (
            "train.txt",
            "甲\t0\n乙 1\n".as_bytes(),
            &["train.txt:2", "no tab", "乙 1", "text<TAB>class index"],
        ),
        (
            "train.txt",
            "甲\t0\n乙\t2\n".as_bytes(),
            &["train.txt:2", "\"2\"", "0 to 1"],
        ),
        (
            "train.txt",
            "甲\t-1\n".as_bytes(),
            &["train.txt:1", "\"-1\""],
        ),
        ("dev.txt", b"", &["dev.txt", "no examples"]),
        (
            "train.txt",
            "甲\t0\n".as_bytes(),
            &["\"b\"", "no training example"],
        ),
        ("class.txt", b"a\na\n", &["class.txt:2", "twice"]),
        ("class.txt", b"a\n", &["class.txt", "at least two"]),
        ("labels.txt", b"a\nb\n", &["2 files of class names"]),
        (
            "test.csv",
            b"text,label\n",
            &["test.csv and test.txt", "both the test split"],
        ),
        (
            "a.train.txt",
            "一份备份\t0\n".as_bytes(),
            &["a.train.txt and train.txt", "both the train split"],
        ),
    ];
    for (name, bytes, parts) in cases {
        let message = error_with(name, bytes);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    let message = error_with("train.txt", &vec![b'x'; 10 << 20]);
    assert!(
        message.contains("train.txt:1") && message.contains("split it"),
        "{message}"
    );
}

#[test]
fn a_csv_file_whose_columns_or_rows_are_not_certain_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let labels = ["yes".to_owned(), "no".to_owned()];
    let swallowed = "text,label\none,yes\n\"two,no\nthree,yes\nfour,no\nfive\",no\nsix,yes\n";
    let cases = [
        ("text\none\n", ":1: no column \"label\""),
        (
            "text,label,label\none,yes,no\n",
            ":1: two columns \"label\"",
        ),
        (
            swallowed,
            ":3: a quotation mark joins this row with \"three,yes\"",
        ),
        ("text,label\n\n\none,maybe\n", ":4: class \"maybe\""),
    ];
    for (content, part) in cases {
        let path = folder.path().join("test.csv");
        std::fs::write(&path, content).unwrap();
        let error = read_examples(&path, FileFormat::Csv, &labels).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn data_quality_counts_repeats_leaks_and_contradictions() {
    let folder = tempfile::tempdir().unwrap();
    let files: [(&str, &str); 4] = [
        ("class.txt", "a\nb\n"),
        ("train.txt", "一\t0\n一\t1\n二\t1\n三\t0\n\t1\n"),
        ("dev.txt", "二\t1\n四\t0\n四\t0\n"),
        ("test.txt", "三\t0\n四\t0\n五\t1\n"),
    ];
    files
        .iter()
        .for_each(|(name, text)| write(folder.path(), &[(name, text.as_bytes())]));
    let corpus = Corpus::open(folder.path()).unwrap();
    let found = corpus.data_quality();
    assert_eq!(
        found.repeated,
        SplitCounts {
            train: 1,
            dev: 1,
            test: 0
        }
    );
    assert_eq!(
        (found.train_in_dev, found.train_in_test, found.dev_in_test),
        (1, 1, 2)
    );
    assert_eq!((found.contradictions, found.empty), (1, 1));
    let clean = corpus.without_leaks();
    assert_eq!(
        clean
            .train
            .iter()
            .map(|e| e.text.as_str())
            .collect::<Vec<_>>(),
        ["一", "一", ""]
    );
}

#[test]
fn real_headlines_have_the_known_leaks() {
    // Needs the ten-class headlines: set KD_DATA to the folder that holds thucnews-title.
    let Some(data) = std::env::var_os("KD_DATA") else {
        return println!("not run: KD_DATA is not set");
    };
    let corpus = Corpus::open(Path::new(&data).join("thucnews-title")).unwrap();
    let found = corpus.data_quality();
    assert_eq!([corpus.dev.len(), corpus.test.len()], [10_000, 10_000]);
    assert_eq!(found.dev_in_test, 9);
    // 40,000 of the public 180,000 training lines: 42 texts recur in dev and 42 in test, several
    // more than once.
    if corpus.train.len() == 40_000 {
        assert_eq!((found.train_in_dev, found.train_in_test), (76, 68));
    }
    let vocabulary = Path::new(&data).join("cnews/cnews.vocab.txt");
    if vocabulary.exists() {
        // Its last line has no line feed.
        assert_eq!(Vocabulary::read(&vocabulary).unwrap().entries().len(), 5001);
    }
}

#[test]
fn a_vocabulary_file_is_read_as_it_was_written_and_refused_without_unk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocab.txt");
    let built = Vocabulary::build(["人生 若只\u{feff}如初见"], 100);
    built.write(&path).unwrap();
    let read = Vocabulary::read(&path).unwrap();
    assert_eq!(
        read.encode("若 人x\u{feff}"),
        built.encode("若 人x\u{feff}")
    );
    std::fs::write(&path, "<PAD>\n人\n").unwrap();
    let message = Vocabulary::read(&path).unwrap_err().to_string();
    assert!(
        message.contains("vocab.txt:2") && message.contains("<UNK>"),
        "{message}"
    );
}

#[test]
fn an_epoch_holds_every_row_once_and_each_epoch_and_seed_has_its_own_order() {
    let split = TokenizedSplit {
        ids: (0..997).map(|i| vec![1; i % 23 + 1]).collect(),
        ..TokenizedSplit::default()
    };
    let orders: Vec<Vec<Vec<usize>>> = [(1, 0), (1, 1), (2, 0)]
        .map(|(seed, epoch)| epoch_batches(&split, 32, true, seed, epoch))
        .to_vec();
    for order in &orders {
        let mut rows: Vec<usize> = order.iter().flatten().copied().collect();
        rows.sort_unstable();
        assert_eq!(rows, (0..997).collect::<Vec<_>>());
    }
    assert_eq!(epoch_batches(&split, 32, true, 1, 0), orders[0]);
    assert!(orders[0] != orders[1] && orders[0] != orders[2]);
    let padding = |order: &[Vec<usize>]| {
        order
            .iter()
            .map(|b| b.iter().map(|&r| split.ids[r].len()).max().unwrap() * b.len())
            .sum::<usize>()
    };
    let real: usize = split.ids.iter().map(Vec::len).sum();
    assert!(
        padding(&orders[0]) < real * 11 / 10,
        "texts of similar length share a batch: padding is below a tenth"
    );
}

#[test]
fn marks_at_the_head_of_a_line_and_other_line_ends_change_no_example() {
    let folder = tempfile::tempdir().unwrap();
    let lines = ["甲\t0", "乙\u{2028}丙\t1", "丁\t0"];
    let joined = [
        lines.join("\n") + "\n",
        lines.join("\r\n"),
        lines.join("\r"),
        lines.map(|line| format!("\u{FEFF}{line}")).join("\n"),
    ];
    for content in joined {
        let bytes = content.as_bytes();
        write(
            folder.path(),
            &[
                ("class.txt", "\u{FEFF}a\rb\r".as_bytes()),
                ("train.txt", bytes),
                ("dev.txt", bytes),
                ("test.txt", bytes),
            ],
        );
        let corpus = Corpus::open(folder.path()).unwrap();
        assert_eq!(corpus.labels, ["a", "b"]);
        let read: Vec<(&str, usize, usize)> = corpus
            .train
            .iter()
            .map(|e| (e.text.as_str(), e.label, e.line))
            .collect();
        assert_eq!(
            read,
            [("甲", 0, 1), ("乙\u{2028}丙", 1, 2), ("丁", 0, 3)],
            "{content:?}"
        );
    }
}

#[test]
fn a_quotation_mark_that_nothing_closes_is_refused_where_it_opens() {
    let folder = tempfile::tempdir().unwrap();
    let row = |i: usize| format!("a,第{i}支基金\n");
    let rows = |broken: &[(usize, &str)]| {
        let mut csv = "label,text\n".to_owned();
        for i in 2..20 {
            let replaced = broken.iter().find(|(line, _)| *line == i);
            csv += &replaced.map_or_else(|| row(i), |(_, text)| format!("{text}\n"));
        }
        csv
    };
    let sound = rows(&[(7, "b,\"两行\n\"\"引语\"\"\"")]);
    let open = |train: &str| {
        write(
            folder.path(),
            &[
                ("labels.txt", b"a\nb\n"),
                ("train.csv", train.as_bytes()),
                ("dev.csv", sound.as_bytes()),
                ("test.csv", sound.as_bytes()),
            ],
        );
        Corpus::open(folder.path())
    };
    let corpus = open(&sound).unwrap();
    assert_eq!(corpus.train.len(), 18);
    assert_eq!(corpus.train[5].text, "两行 \"引语\"");
    let never_closed = rows(&[(7, "b,\"牛市来了")]);
    let closed_later = rows(&[(7, "b,\"牛市来了"), (10, "b,熊市\"来了")]);
    for train in [never_closed, closed_later] {
        let error = open(&train).unwrap_err().to_string();
        assert!(error.contains("train.csv:7"), "{error}");
        assert!(error.contains("a quotation mark opens here"), "{error}");
    }
}
