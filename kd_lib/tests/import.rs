//! Corpora from single files and from folders without a file of class names.

use crate::common::sample;
use kd_lib::data::import::{Imported, import, read_labelled_file};
use kd_lib::data::near_duplicates::groups;
use kd_lib::data::splits::folds;
use kd_lib::data::{ColumnOptions, Corpus, Example, Split};
use parquet::basic::Compression;
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::collections::{BTreeSet, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

fn detected(path: &Path) -> kd_lib::Result<Imported> {
    import(path, &ColumnOptions::default())
}

/// Text and class name of each example of a split.
fn named(corpus: &Corpus, split: Split) -> Vec<(String, String)> {
    let pair = |e: &Example| (e.text.clone(), corpus.labels[e.label].clone());
    corpus.split(split).iter().map(pair).collect()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// A split in one of the layouts: its file's ending, its lines, and whether a header precedes them.
struct Layout {
    ending: &'static str,
    header: &'static str,
    line: fn(&str, &str) -> String,
}

const LAYOUTS: [Layout; 8] = [
    Layout {
        ending: "csv",
        header: "text,label\n",
        line: |t, l| format!("{},{l}\n", quoted(t)),
    },
    Layout {
        ending: "csv",
        header: "",
        line: |t, l| format!("{},{l}\n", quoted(t)),
    },
    Layout {
        ending: "csv",
        header: "id;类别;内容\n",
        line: |t, l| format!("7;{l};{}\n", quoted(t)),
    },
    Layout {
        ending: "tsv",
        header: "label\tsentence\n",
        line: |t, l| format!("{l}\t{t}\n"),
    },
    Layout {
        ending: "tsv",
        header: "",
        line: |t, l| format!("{l}\t{t}\n"),
    },
    Layout {
        ending: "txt",
        header: "",
        line: |t, l| format!("{t}\t{l}\n"),
    },
    Layout {
        ending: "jsonl",
        header: "",
        line: |t, l| {
            format!(
                "{}\n",
                serde_json::json!({"intent": l, "utterance": t, "n": 1})
            )
        },
    },
    Layout {
        ending: "ndjson",
        header: "",
        line: |t, l| format!("{}\n", serde_json::json!({"text": t, "label": l})),
    },
];

fn write_folder(corpus: &Corpus, layout: &Layout, folder: &Path) {
    for (name, split) in [
        ("train", Split::Train),
        ("dev", Split::Dev),
        ("test", Split::Test),
    ] {
        let mut content = layout.header.to_owned();
        for (text, label) in named(corpus, split) {
            content += &(layout.line)(&text, &label);
        }
        std::fs::write(folder.join(format!("{name}.{}", layout.ending)), content).unwrap();
    }
}

#[test]
fn each_layout_gives_the_examples_of_the_folder_form() {
    let mut corpus = Corpus::open(sample()).unwrap();
    for names in ["as they are", "numbers"] {
        if names == "numbers" {
            corpus.labels = (0..corpus.labels.len())
                .map(|class| class.to_string())
                .collect();
        }
        for layout in &LAYOUTS {
            let folder = tempfile::tempdir().unwrap();
            write_folder(&corpus, layout, folder.path());
            let read = detected(folder.path()).unwrap().corpus;
            for split in [Split::Train, Split::Dev, Split::Test] {
                let what = format!("{} {:?}, {names}", layout.ending, layout.header);
                assert_eq!(named(&read, split), named(&corpus, split), "{what}");
            }
            let mut expected = corpus.labels.clone();
            if names == "numbers" {
                assert_eq!(read.labels, expected, "numbers keep their order");
            }
            expected.sort();
            let mut labels = read.labels.clone();
            labels.sort();
            assert_eq!(labels, expected);
        }
    }
}

/// Writes a split as Parquet: a column of numbers, the labels as class indices, the texts.
fn write_parquet(path: &Path, examples: &[Example]) -> parquet::errors::Result<()> {
    let schema = "message split { REQUIRED DOUBLE weight; REQUIRED INT64 label; \
                  REQUIRED BYTE_ARRAY text (UTF8); }";
    let schema = Arc::new(parse_message_type(schema)?);
    let properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
    let file = File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties.build()))?;
    let mut group = writer.next_row_group()?;
    while let Some(mut column) = group.next_column()? {
        match column.untyped() {
            ColumnWriter::DoubleColumnWriter(typed) => {
                let values: Vec<f64> = examples.iter().map(|_| 0.5).collect();
                typed.write_batch(&values, None, None)?;
            }
            ColumnWriter::Int64ColumnWriter(typed) => {
                let values: Vec<i64> = examples.iter().map(|e| e.label as i64).collect();
                typed.write_batch(&values, None, None)?;
            }
            ColumnWriter::ByteArrayColumnWriter(typed) => {
                let values: Vec<ByteArray> =
                    examples.iter().map(|e| e.text.as_str().into()).collect();
                typed.write_batch(&values, None, None)?;
            }
            _ => unreachable!("the schema has three columns"),
        }
        column.close()?;
    }
    group.close()?;
    writer.close()?;
    Ok(())
}

#[test]
fn parquet_gives_the_examples_of_the_folder_form() {
    let mut corpus = Corpus::open(sample()).unwrap();
    corpus.labels = (0..corpus.labels.len())
        .map(|class| class.to_string())
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let names = [
        ("train-00000-of-00001", Split::Train),
        ("validation", Split::Dev),
        ("test", Split::Test),
    ];
    for (name, split) in names {
        let path = folder.path().join(format!("{name}.parquet"));
        write_parquet(&path, corpus.split(split)).unwrap();
    }
    let read = detected(folder.path()).unwrap().corpus;
    assert_eq!(read.labels, corpus.labels);
    for (_, split) in names {
        assert_eq!(named(&read, split), named(&corpus, split));
    }
    let damaged = write(folder.path(), "damaged.parquet", "PAR1 and no more");
    let error = detected(&damaged).unwrap_err().to_string();
    assert!(
        error.contains("damaged.parquet") && error.contains("to_parquet"),
        "{error}"
    );
}

fn write(folder: &Path, name: &str, content: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

/// Lines of a file with two classes; `line` makes each from its number, its text and its class.
fn lines(count: usize, line: impl Fn(usize, &str, &str) -> String) -> String {
    let numbered = (0..count).map(|n| {
        let text = format!(
            "sentence {} about {}",
            n * 7919 % 1000,
            ["fire", "water", "wind"][n % 3]
        );
        line(n, &text, ["yes", "no"][n % 2]) + "\n"
    });
    numbered.collect()
}

#[test]
fn a_file_that_two_readings_fit_is_refused_with_the_option_that_decides() {
    let folder = tempfile::tempdir().unwrap();
    let two_labels = lines(40, |n, t, l| {
        format!("{t},{l},{}", ["high", "low"][n / 2 % 2])
    });
    let two_texts = lines(40, |n, t, l| format!("{t},another text of number {n},{l}"));
    let maybe_header = format!(
        "Kommentar,Antwort\n{}",
        lines(40, |_, t, l| format!("{t},{l}"))
    );
    let cases = [
        (two_labels, "--label"),
        (two_texts, "--text"),
        (maybe_header, "--header"),
    ];
    for (number, (content, option)) in cases.iter().enumerate() {
        let path = write(folder.path(), &format!("{number}.csv"), content);
        let error = detected(&path).unwrap_err().to_string();
        assert!(error.contains(option), "{error}");
        let options = ColumnOptions {
            text: Some("1".into()),
            label: Some(if *option == "--text" { "3" } else { "2" }.into()),
            header: Some(*option == "--header"),
            ..ColumnOptions::default()
        };
        let corpus = import(&path, &options).unwrap().corpus;
        let texts = corpus.train.len() + corpus.dev.len() + corpus.test.len();
        assert_eq!(texts, 40);
        assert_eq!(corpus.labels, ["no", "yes"]);
    }
}

#[test]
fn a_single_file_is_split_by_class_with_near_duplicates_on_one_side() {
    let folder = tempfile::tempdir().unwrap();
    let base = Corpus::open(sample()).unwrap();
    let mut content = String::from("text,label\n");
    let all = [&base.train, &base.dev, &base.test].into_iter().flatten();
    for example in all {
        let label = &base.labels[example.label];
        content += &format!("{},{label}\n", quoted(&example.text));
        content += &format!("{},{label}\n", quoted(&format!("“{}”！", example.text)));
    }
    let path = write(folder.path(), "all.csv", &content);
    let imported = detected(&path).unwrap();
    let corpus = imported.corpus;
    let total = corpus.train.len() + corpus.dev.len() + corpus.test.len();
    for split in [Split::Dev, Split::Test] {
        let share = corpus.split(split).len() as f64 / total as f64;
        assert!((0.08..0.14).contains(&share), "{split:?}: {share}");
        let classes: HashSet<usize> = corpus.split(split).iter().map(|e| e.label).collect();
        assert_eq!(
            classes.len(),
            corpus.labels.len(),
            "every class is in {split:?}"
        );
    }
    let texts: Vec<&str> = [&corpus.train, &corpus.dev, &corpus.test]
        .into_iter()
        .flatten()
        .map(|e| e.text.as_str())
        .collect();
    let group = groups(&texts);
    let split_of = |at: usize| match at {
        _ if at < corpus.train.len() => 0,
        _ if at < corpus.train.len() + corpus.dev.len() => 1,
        _ => 2,
    };
    for (at, &first) in group.iter().enumerate() {
        assert_eq!(
            split_of(at),
            split_of(first),
            "{} / {}",
            texts[at],
            texts[first]
        );
    }
    assert!(
        imported.notices.iter().any(|notice| notice.contains("Dev")),
        "it is said"
    );
    let again = detected(&path).unwrap().corpus;
    assert_eq!(again.fingerprint, corpus.fingerprint);
    assert_eq!(named(&again, Split::Test), named(&corpus, Split::Test));
}

#[test]
fn numbers_name_columns_of_files_whose_fields_are_numbers_too() {
    let folder = tempfile::tempdir().unwrap();
    for (name, shift) in [("train", 0), ("dev", 1), ("test", 1)] {
        let content: String = (0..20)
            .map(|n| format!("a film of number {},{}\n", n * 31, (n + shift) % 2))
            .collect();
        write(folder.path(), &format!("{name}.csv"), &content);
    }
    let options = ColumnOptions {
        text: Some("1".into()),
        label: Some("2".into()),
        ..ColumnOptions::default()
    };
    let corpus = import(folder.path(), &options).unwrap().corpus;
    for split in [Split::Train, Split::Dev, Split::Test] {
        assert_eq!(corpus.split(split).len(), 20);
        assert!(
            corpus
                .split(split)
                .iter()
                .all(|e| e.text.starts_with("a film"))
        );
    }
}

#[test]
fn the_label_is_never_read_as_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let content = lines(40, |n, t, l| {
        format!("is it {t},{l},a long passage of number {n}")
    });
    let path = write(
        folder.path(),
        "boolq.csv",
        &format!("question,answer,passage\n{content}"),
    );
    let label = ColumnOptions {
        label: Some("answer".into()),
        ..ColumnOptions::default()
    };
    let corpus = import(&path, &label).unwrap().corpus;
    assert!(!corpus.has_pairs() && corpus.train[0].text.starts_with("is it"));
    let both = ColumnOptions {
        text: Some("answer".into()),
        ..label
    };
    let error = import(&path, &both).unwrap_err().to_string();
    assert!(error.contains("two of text"), "{error}");
}

#[test]
fn a_large_group_of_near_duplicates_stays_in_training_and_a_class_keeps_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let mut content = String::from("text,label\n");
    for n in 0..60 {
        content += &format!(
            "your parcel has arrived today!{},sms\n",
            ["", " ", "."][n % 3]
        );
        content += &format!(
            "{} {} letters from home,mail\n",
            n * 7919 % 997,
            n * 104_729 % 991
        );
    }
    content += "a message of its own,sms\nYour parcel has arrived today,rare\n";
    for word in ["blue", "green", "yellow", "violet", "orange"] {
        content += &format!("the {word} one was sent by a friend,sms\n");
    }
    let path = write(folder.path(), "sms.csv", &content);
    let corpus = detected(&path).unwrap().corpus;
    let parcels = |split| {
        let texts = corpus.split(split).iter();
        texts.filter(|e| e.text.contains("parcel")).count()
    };
    assert_eq!([parcels(Split::Dev), parcels(Split::Test)], [0, 0]);
    assert!(
        corpus
            .train
            .iter()
            .any(|e| corpus.labels[e.label] == "rare")
    );
}

#[test]
fn an_array_of_a_megabyte_in_one_line_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let records = (0..9000u64).map(|n| {
        let word = |k: u64| format!("{:x}", (n * 12 + k).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let text: Vec<String> = (0..8).map(word).collect();
        serde_json::json!({"text": text.join(" "), "label": n % 2 == 0, "score": 1.5})
    });
    let array = serde_json::Value::Array(records.collect()).to_string();
    assert!(array.len() > 1 << 20);
    let path = write(folder.path(), "records.json", &array);
    let corpus = detected(&path).unwrap().corpus;
    assert_eq!(corpus.labels, ["false", "true"]);
}

#[test]
fn a_split_column_and_pairs_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let content = lines(40, |n, t, l| {
        let split = ["train", "validation", "test", "train"][n % 4];
        format!("{t}\tand the second text {n}\t{l}\t{split}")
    });
    let header = "premise\thypothesis\tlabel\tsplit\n";
    let path = write(folder.path(), "pairs.tsv", &(header.to_owned() + &content));
    let corpus = detected(&path).unwrap().corpus;
    assert_eq!(
        [corpus.train.len(), corpus.dev.len(), corpus.test.len()],
        [20, 10, 10]
    );
    assert!(corpus.has_pairs());
    let path = write(
        folder.path(),
        "odd.csv",
        "text,label,split\na b,yes,train\nc d,no,later\n",
    );
    let error = detected(&path).unwrap_err().to_string();
    assert!(
        error.contains("odd.csv:3") && error.contains("later"),
        "{error}"
    );
    let texts = folder.path().join("texts");
    std::fs::create_dir(&texts).unwrap();
    for name in ["train.csv", "test.csv"] {
        let _ = write(
            &texts,
            name,
            "text,label,split\na b,yes,train\nc d,no,train\n",
        );
    }
    let error = detected(&texts).unwrap_err().to_string();
    assert!(
        error.contains("test.csv:2")
            && error.contains("split \"train\" in a file of the split Test"),
        "{error}"
    );
}

#[test]
fn quotation_marks_in_tab_separated_files_are_text_or_quoting_by_the_whole_file() {
    let folder = tempfile::tempdir().unwrap();
    let plain = lines(30, |n, t, l| match n {
        3 => format!("\"{t}\tyes"),
        _ => format!("{t}\t{l}"),
    });
    let path = write(folder.path(), "plain.tsv", &plain);
    let corpus = detected(&path).unwrap().corpus;
    let all = |corpus: &Corpus| -> Vec<String> {
        let splits = [&corpus.train, &corpus.dev, &corpus.test];
        splits
            .into_iter()
            .flatten()
            .map(|e| e.text.clone())
            .collect()
    };
    assert!(all(&corpus).iter().any(|text| text.starts_with('"')));
    let written = lines(30, |_, t, l| format!("\"said \"\"{t}\"\"\"\t{l}"));
    let path = write(folder.path(), "quoted.tsv", &written);
    let corpus = detected(&path).unwrap().corpus;
    assert!(
        all(&corpus)
            .iter()
            .all(|text| text.starts_with("said \"") && !text.contains("\"\""))
    );
}

#[test]
fn tabs_and_bars_separate_the_columns_of_a_csv_file_too() {
    let folder = tempfile::tempdir().unwrap();
    for (number, mark) in ["\t", "|", ";", ","].iter().enumerate() {
        let content = lines(40, |_, t, l| format!("{t}{mark}{l}"));
        let content = format!("text{mark}label\n{content}");
        let path = write(folder.path(), &format!("{number}.csv"), &content);
        let corpus = detected(&path).unwrap().corpus;
        assert_eq!(corpus.labels, ["no", "yes"]);
    }
}

#[test]
fn objects_inside_objects_are_columns() {
    let folder = tempfile::tempdir().unwrap();
    let content = lines(40, |n, text, label| {
        let tags = [n % 3];
        let annotation = serde_json::json!({"label": label, "by": null});
        serde_json::json!({"id": n, "data": {"text": text, "tags": tags}, "annotation": annotation})
            .to_string()
    });
    let path = write(folder.path(), "nested.jsonl", &content);
    let options = ColumnOptions {
        text: Some("data.text".into()),
        label: Some("annotation.label".into()),
        ..ColumnOptions::default()
    };
    let corpus = import(&path, &options).unwrap().corpus;
    assert_eq!(corpus.labels, ["no", "yes"]);
    assert!(corpus.train.iter().all(|e| e.text.starts_with("sentence")));
}

#[test]
fn a_file_that_is_no_text_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let array = "[{\"text\": \"caf\u{e9}\", \"label\": \"a\"}]";
    let latin: Vec<u8> = array.chars().map(|c| c as u8).collect();
    let utf16 = "\u{feff}text,label\n".encode_utf16();
    let utf16: Vec<u8> = utf16.flat_map(u16::to_le_bytes).collect();
    let files: [(&str, &[u8], &str); 4] = [
        (
            "tickets.xlsx",
            b"PK\x03\x04\x14\x00\x06\x00\xff",
            "save a sheet",
        ),
        ("tickets.csv", &[0x1f, 0x8b, 8, 0, 0xff, 0xff], "gunzip"),
        ("utf16.csv", &utf16, "iconv -f UTF-16"),
        ("latin.json", &latin, "to UTF-8"),
    ];
    for (name, bytes, fix) in files {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = detected(&path).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(fix), "{error}");
    }
}

#[test]
fn classes_whose_names_are_nearly_alike_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let content = lines(60, |n, t, l| {
        let label = if n < 20 { l.to_uppercase() } else { l.into() };
        format!("{t},{label}")
    });
    let path = write(
        folder.path(),
        "cases.csv",
        &format!("text,label\n{content}"),
    );
    let imported = detected(&path).unwrap();
    assert_eq!(imported.corpus.labels, ["NO", "YES", "no", "yes"]);
    for pair in [r#"["NO", "no"]"#, r#"["YES", "yes"]"#] {
        assert!(imported.notices.iter().any(|notice| notice.contains(pair)));
    }
}

/// A file of forty rows and a header; `row` makes each from its number, its text and its class.
fn table(folder: &Path, name: &str, row: impl Fn(usize, &str, &str) -> String) -> PathBuf {
    write(folder, name, &format!("text,label\n{}", lines(40, row)))
}

#[test]
fn what_would_be_read_wrongly_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let swallowed = table(folder, "mark.csv", |n, t, l| match n {
        4 => format!("\"{t},{l}"),
        9 => format!("{t}\",{l}"),
        _ => format!("{t},{l}"),
    });
    let blank = table(folder, "blank.csv", |n, t, l| match n {
        2 => format!("\n\n{t},"),
        _ => format!("{t},{l}"),
    });
    let two = |header: &str| format!("{header}\n{}", lines(40, |_, t, l| format!("{t},{l},no")));
    let json = |value: fn(&str) -> String| {
        lines(40, |_, t, l| {
            format!("{{\"text\": \"{t}\", \"label\": {}}}", value(l))
        })
    };
    let utf16 = "text,label\none,a\n".encode_utf16();
    let utf16: Vec<u8> = utf16.flat_map(u16::to_le_bytes).collect();
    std::fs::write(folder.join("utf16.csv"), utf16).unwrap();
    let with_header = format!("text,label\n{}", lines(40, |_, t, l| format!("{t},{l}")));
    let joined = with_header.repeat(2);
    let latin =
        b"{\"text\": \"one\", \"label\": \"a\"}\n{\"text\": \"caf\xe9\", \"label\": \"b\"}\n";
    std::fs::write(folder.join("latin.jsonl"), latin).unwrap();
    let cases = [
        (swallowed, "mark.csv:6: a quotation mark joins this row"),
        (blank, "blank.csv:6: no label"),
        (
            write(folder, "twice.csv", &two("text,label,label")),
            "several columns \"label\"",
        ),
        (
            write(folder, "case.csv", &two("text,label,Label")),
            "several columns \"label\"",
        ),
        (
            write(
                folder,
                "list.jsonl",
                &json(|label| format!("[\"{label}\"]")),
            ),
            "list.jsonl:1: \"label\" holds a list",
        ),
        (
            write(
                folder,
                "long.jsonl",
                &json(|_| "100000000000000000001".into()),
            ),
            "long.jsonl:1: \"label\" holds a number with more digits",
        ),
        (
            write(
                folder,
                "key.jsonl",
                &json(|label| format!("\"a\", \"label\": \"{label}\"")),
            ),
            "key.jsonl:1: the key \"label\" twice",
        ),
        (
            write(
                folder,
                "inner.jsonl",
                &lines(40, |_, t, l| {
                    format!(
                        "{{\"data\": {{\"text\": \"{t}\", \"text\": \"b\"}}, \"label\": \"{l}\"}}"
                    )
                }),
            ),
            "inner.jsonl:1: the key \"data.text\" twice",
        ),
        (
            write(
                folder,
                "array.json",
                "[\n  {\n    \"text\": \"one\", \"label\": \"a\"\n  },\n  {\n    \"text\": \"two\",\n    \"label\": null\n  }\n]\n",
            ),
            "array.json:5: no label",
        ),
        (
            write(
                folder,
                "broken.json",
                "[\n  {\"text\": \"one\"},\n  {\"text\": }\n]\n",
            ),
            "broken.json:3: expected value",
        ),
        (
            write(folder, "open.json", "[{\"text\": \"one\"},"),
            "open.json:1: the array does not end",
        ),
        (
            write(
                folder,
                "both.csv",
                &lines(40, |_, t, l| format!("{t}, thanks;{l}")),
            ),
            "',' and ';' both divide each row",
        ),
        (folder.join("utf16.csv"), "as in UTF-16"),
        (
            write(folder, "joined.csv", &joined),
            "joined.csv:42: the header once more",
        ),
        (folder.join("latin.jsonl"), "latin.jsonl:2: not UTF-8"),
    ];
    for (path, part) in cases {
        let error = detected(&path).unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
    // A column is certain if its number is given.
    let options = ColumnOptions {
        label: Some("2".into()),
        ..ColumnOptions::default()
    };
    let corpus = import(&folder.join("twice.csv"), &options).unwrap().corpus;
    assert_eq!(corpus.labels, ["no", "yes"]);
}

#[test]
fn the_separator_is_the_one_that_divides_all_rows_or_that_excel_names() {
    let folder = tempfile::tempdir().unwrap();
    let commas = |n: usize, t: &str, l: &str| match n % 2 {
        0 => format!("{t}, and more;{l}"),
        _ => format!("{t};{l}"),
    };
    let files = [
        (
            "some.csv",
            format!("words, text;label\n{}", lines(40, commas)),
        ),
        (
            "sep.csv",
            format!("sep=;\ntext;label\n{}", lines(40, commas)),
        ),
        (
            "quoted.tsv",
            lines(40, |_, t, l| format!("\"{t}\"\t\"{l}\"")),
        ),
        (
            "array.jsonl",
            "[{\"text\": \"one\", \"label\": \"no\"}, ".to_owned()
                + &lines(39, |_, t, l| {
                    format!("{{\"text\": \"{t}\", \"label\": \"{l}\"}},")
                })
                + "{\"text\": \"two\", \"label\": \"yes\"}]",
        ),
    ];
    for (name, content) in files {
        let imported = detected(&write(folder.path(), name, &content)).unwrap();
        assert_eq!(imported.corpus.labels, ["no", "yes"], "{name}");
        let names_semicolons = imported.notices[0].contains("separated by ';'");
        assert_eq!(
            names_semicolons,
            name.ends_with(".csv"),
            "{:?}",
            imported.notices
        );
    }
}

/// A Parquet file with texts, labels, dates of which one is no day of any calendar, and bytes.
fn write_odd_parquet(path: &Path) -> parquet::errors::Result<()> {
    let schema = "message split { REQUIRED BYTE_ARRAY text (UTF8); REQUIRED INT64 label; \
                  REQUIRED INT32 day (DATE); REQUIRED FIXED_LEN_BYTE_ARRAY (4) id; }";
    let schema = Arc::new(parse_message_type(schema)?);
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties)?;
    let mut group = writer.next_row_group()?;
    while let Some(mut column) = group.next_column()? {
        match column.untyped() {
            ColumnWriter::ByteArrayColumnWriter(typed) => {
                let texts: Vec<ByteArray> = (0..40)
                    .map(|n| {
                        format!("text number {} of the file", n * 31)
                            .as_str()
                            .into()
                    })
                    .collect();
                typed.write_batch(&texts, None, None)?;
            }
            ColumnWriter::Int64ColumnWriter(typed) => {
                let labels: Vec<i64> = (0..40).map(|n| n % 2).collect();
                typed.write_batch(&labels, None, None)?;
            }
            ColumnWriter::Int32ColumnWriter(typed) => {
                typed.write_batch(&[i32::MAX; 40], None, None)?;
            }
            ColumnWriter::FixedLenByteArrayColumnWriter(typed) => {
                let ids = vec![ByteArray::from(vec![0xff; 4]).into(); 40];
                typed.write_batch(&ids, None, None)?;
            }
            _ => unreachable!("the schema has four columns"),
        }
        column.close()?;
    }
    group.close()?;
    writer.close()?;
    Ok(())
}

#[test]
fn values_that_are_no_text_matter_only_in_a_column_that_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("odd.parquet");
    write_odd_parquet(&path).unwrap();
    let imported = detected(&path).unwrap();
    assert_eq!(imported.corpus.examples().count(), 40);
    let notices = imported.notices.join("\n");
    assert!(notices.contains("not read: \"day\", \"id\""), "{notices}");
    for (column, part) in [
        ("day", "dates or times"),
        ("id", "bytes that are not UTF-8"),
    ] {
        let options = ColumnOptions {
            label: Some(column.into()),
            ..ColumnOptions::default()
        };
        let error = import(&path, &options).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn labels_of_a_wrong_column_are_refused_and_missing_ones_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let ids = |number: usize, name: &str| {
        let rows = lines(number, |n, t, _| format!("{n},{t} {n}"));
        write(folder.path(), "ids.csv", &format!("{name},text\n{rows}"))
    };
    let error = import(&ids(40, "label"), &ColumnOptions::default()).unwrap_err();
    let error = error.to_string();
    assert!(error.contains("40 classes for 40 texts"), "{error}");
    // The user's word for the column counts for more, up to a point.
    let options = ColumnOptions {
        label: Some("id".into()),
        text: Some("text".into()),
        ..ColumnOptions::default()
    };
    let error = import(&ids(1200, "id"), &options).unwrap_err().to_string();
    assert!(error.contains("1200 classes for 1200 texts"), "{error}");
    let missing = table(folder.path(), "nan.csv", |n, t, l| {
        let label = if n % 4 == 0 { "nan" } else { l };
        format!("{t},{label}")
    });
    let notices = detected(&missing).unwrap().notices.join("\n");
    assert!(
        notices.contains(
            "10 labels that look like missing ones (nan, none, null), the first in line 2"
        ),
        "{notices}"
    );
}

#[test]
fn objects_of_one_line_are_told_by_their_number() {
    let folder = tempfile::tempdir().unwrap();
    let objects: Vec<String> = (0..30)
        .map(|n| format!("{{\"text\": \"text {n}\", \"label\": \"{}\"}}", n % 2))
        .collect();
    let path = write(
        folder.path(),
        "a.json",
        &format!("[{}]", objects.join(", ")),
    );
    let corpus = detected(&path).unwrap().corpus;
    let lines: BTreeSet<usize> = corpus.examples().map(|example| example.line).collect();
    assert_eq!(lines, (1..=30).collect());
}

#[test]
fn what_lies_beside_the_splits_of_a_folder_with_class_names_is_refused_or_named() {
    let with = |name: &str| {
        let folder = tempfile::tempdir().unwrap();
        for file in ["class.txt", "train.txt", "dev.txt", "test.txt"] {
            std::fs::copy(sample().join(file), folder.path().join(file)).unwrap();
        }
        let train = folder.path().join("train.txt");
        let texts = std::fs::read_to_string(&train).unwrap();
        std::fs::write(&train, format!("\t0\n{texts}")).unwrap();
        if name.ends_with('/') {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        } else {
            write(folder.path(), name, "text\t0\n");
        }
        detected(folder.path())
    };
    for name in ["train (1).txt", "test.jsonl", "old-dev.csv"] {
        let error = with(name).unwrap_err().to_string();
        assert!(error.contains("which is not read"), "{name}: {error}");
    }
    for name in ["vocab.pkl", "train.csv.gz", "train_test_split.py", "dev"] {
        let notices = with(name).unwrap().notices;
        let expected = format!("{name}: not read");
        assert!(notices[0].ends_with(&expected), "{notices:?}");
        assert_eq!(notices[1], "Train: 1 empty texts, the first in line 1");
    }
    assert!(with("test/").is_ok());
}

#[test]
fn a_file_of_known_classes_is_read_in_any_layout() {
    let folder = tempfile::tempdir().unwrap();
    let labels = ["no".to_owned(), "yes".to_owned()];
    let read = |name: &str, content: &str| {
        read_labelled_file(&write(folder.path(), name, content), &labels)
    };
    for (name, content) in [
        ("a.tsv", "label\ttext\nyes\tone\nno\ttwo\n"),
        ("b.csv", "text;label\none;yes\ntwo;no\n"),
        (
            "c.jsonl",
            "{\"text\": \"one\", \"label\": \"yes\"}\n{\"text\": \"two\", \"label\": \"no\"}\n",
        ),
        ("d.txt", "yes\tone\nno\ttwo\n"),
        ("e.txt", "one\t1\ntwo\t0\n"),
    ] {
        let examples = read(name, content).unwrap().examples;
        let read: Vec<(&str, usize)> = examples.iter().map(|e| (&*e.text, e.label)).collect();
        assert_eq!(read, [("one", 1), ("two", 0)], "{name}");
    }
    let columns = "id\ttext\tlabel\n7\tone text\tyes\n8\tanother text\tno\n9\tone\tyes\n";
    let examples = read("h.tsv", columns).unwrap().examples;
    assert_eq!(examples[0].text, "one text");
    assert!(read("i.tsv", "17\tone\t1\n18\ttwo\t0\n").is_err());
    let unknown = read("f.csv", "text,label\none,maybe\n")
        .unwrap_err()
        .to_string();
    assert!(unknown.contains("f.csv:2: class \"maybe\""), "{unknown}");
    let splits = "text,label,split\none,yes,train\ntwo,no,test\n";
    let error = read("g.csv", splits).unwrap_err().to_string();
    assert!(error.contains("a column of splits"), "{error}");
}

#[test]
fn each_file_of_a_folder_is_read_or_named() {
    let rows = || lines(40, |_, t, l| format!("{t},{l}"));
    let with = |name: &str| {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            "train.csv",
            &format!("text,label\n{}", rows()),
        );
        if name.ends_with('/') {
            std::fs::create_dir(folder.path().join(name)).unwrap()
        } else {
            write(folder.path(), name, &rows());
        }
        detected(folder.path())
    };
    for name in ["test.csv.gz", "dev.xlsx", "test/", "validation"] {
        let error = with(name).unwrap_err().to_string();
        assert!(error.contains("a split that is not read"), "{error}");
    }
    for second in ["train (1).csv", "train_old.csv"] {
        let error = with(second).unwrap_err().to_string();
        assert!(error.contains("a second file of its split"), "{error}");
    }
    let parts = tempfile::tempdir().unwrap();
    write(parts.path(), "train-00000-of-00002.csv", &rows());
    let more = lines(60, |_, t, l| format!("{t},{l}"));
    let more: Vec<&str> = more.lines().skip(40).collect();
    write(parts.path(), "train-00001-of-00002.csv", &more.join("\n"));
    let corpus = detected(parts.path()).unwrap().corpus;
    assert_eq!(corpus.examples().count(), 60);
    let error = with("train-test.csv").unwrap_err().to_string();
    assert!(error.contains("[Train, Test]"), "{error}");
    let notices = with("README.md").unwrap().notices;
    assert!(
        notices.iter().any(|n| n.ends_with("README.md: not read")),
        "{notices:?}"
    );
    assert!(
        notices
            .iter()
            .any(|n| n.contains("train.csv (Train): 40 rows")),
        "{notices:?}"
    );
    for ignored in ["._train.csv", "test.csv.bak"] {
        with(ignored).unwrap();
    }
    let other = tempfile::tempdir().unwrap();
    write(
        other.path(),
        "train.csv",
        &format!("text,label\n{}", rows()),
    );
    write(
        other.path(),
        "test.csv",
        "text,label\none,yes\n\ntwo,perhaps\n",
    );
    let error = detected(other.path()).unwrap_err().to_string();
    assert!(
        error.contains("\"perhaps\"") && error.contains("test has one in line 4"),
        "{error}"
    );
}

#[test]
fn empty_texts_texts_of_several_lines_and_classes_alike_but_for_accents_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = table(folder.path(), "odd.csv", |n, t, _| match n % 4 {
        0 => format!("\"{t}\nand more\",caf\u{e9}"),
        1 => "\"\",cafe\u{301}".to_string(),
        2 => format!("{t},1"),
        _ => format!("{t},1.0\u{200b}"),
    });
    let notices = detected(&path).unwrap().notices.join("\n");
    for part in [
        "10 empty texts, the first in line 4",
        "10 texts of several lines, the first in line 2",
        "[\"cafe\\u{301}\", \"caf\u{e9}\"]",
    ] {
        assert!(notices.contains(part), "{part}: {notices}");
    }
}

#[test]
fn pairs_without_a_second_text_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let rows = lines(40, |n, t, l| match n % 4 {
        0 => format!("{{\"text\": \"{t}\", \"label\": \"{l}\"}}"),
        _ => format!("{{\"text\": \"{t}\", \"text_pair\": \"why {n}\", \"label\": \"{l}\"}}"),
    });
    let path = write(folder.path(), "pairs.jsonl", &rows);
    let notices = detected(&path).unwrap().notices.join("\n");
    let expected = "10 pairs without a second text, the first in line 1";
    assert!(notices.contains(expected), "{notices}");
}

/// Sixty texts of three classes, the last of which has a single text; the first two are
/// near-duplicates.
fn small_corpus() -> Corpus {
    let example = |line: usize| Example {
        text: match line {
            0 | 1 => format!("The parcel of my neighbour arrived on day {line} of the week."),
            _ => format!(
                "{line} {}",
                "abcdefghij"
                    .repeat(line % 7 + 1)
                    .replace('c', &line.to_string())
            ),
        },
        text_pair: None,
        label: if line == 59 { 2 } else { line % 2 },
        line: line + 1,
    };
    Corpus {
        name: "small".into(),
        labels: ["a", "b", "c"].map(str::to_owned).to_vec(),
        train: (0..48).chain([59]).map(example).collect(),
        dev: (48..54).map(example).collect(),
        test: (54..59).map(example).collect(),
        fingerprint: "0".into(),
    }
}

#[test]
fn folds_test_every_text_once_and_keep_near_duplicates_together() {
    let corpus = small_corpus();
    let all: Vec<&Example> = [&corpus.train, &corpus.dev, &corpus.test]
        .into_iter()
        .flatten()
        .collect();
    let folds = folds(&corpus, 5, 0).unwrap();
    let mut tested: Vec<usize> = Vec::new();
    for fold in &folds {
        let splits = &fold.corpus;
        assert_eq!(
            splits.train.len() + splits.dev.len() + splits.test.len(),
            all.len()
        );
        assert!(
            splits.train.iter().any(|e| e.label == 2),
            "a single text stays in training"
        );
        for (row, example) in fold.test_rows.iter().zip(&splits.test) {
            assert_eq!(all[*row], example);
        }
        let near: Vec<&Example> = splits.test.iter().filter(|e| e.line <= 2).collect();
        assert_ne!(near.len(), 1, "near-duplicates are tested in one fold");
        tested.extend(&fold.test_rows);
    }
    tested.sort_unstable();
    let single = all.iter().position(|e| e.label == 2).unwrap();
    let expected: Vec<usize> = (0..all.len()).filter(|row| *row != single).collect();
    assert_eq!(tested, expected);
    let fingerprints: BTreeSet<&str> = folds
        .iter()
        .map(|f| f.corpus.fingerprint.as_str())
        .collect();
    assert_eq!(fingerprints.len(), 5);
}

#[test]
fn one_fold_and_folds_without_a_text_are_refused() {
    let corpus = small_corpus();
    for (number, fix) in [(1, "2 or more"), (40, "too few for 40 folds")] {
        let error = folds(&corpus, number, 0).unwrap_err().to_string();
        assert!(error.contains(fix), "{error}");
    }
}
