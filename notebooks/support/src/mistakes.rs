//! A browser of misclassified texts, with each model's probabilities.

use crate::{escape, plot};
use kd_lib::data::{Example, TextInput};
use kd_lib::store::{Prediction, Predictor, Run};
use kd_lib::{Error, Result};

/// The first `most` of these texts that at least one of the named runs gets wrong, as an HTML table
/// to scroll in: the text, its class, and each run's probabilities as bars. All runs must know the
/// same classes.
pub fn mistakes(runs: &[(&str, &Run)], texts: &[Example], most: usize) -> Result<String> {
    let predict = |run: &Run| {
        let inputs: Vec<TextInput> = texts.iter().map(Example::input).collect();
        Predictor::open(run)?.predict(&inputs)
    };
    let predictions = runs
        .iter()
        .map(|(_, run)| predict(run))
        .collect::<Result<Vec<Vec<Prediction>>>>()?;
    let labels = runs.first().map_or(&[][..], |(_, run)| &run.labels);
    if let Some((name, other)) = runs.iter().find(|(_, run)| run.labels != labels) {
        let path = other.folder()?.to_path_buf();
        let problem = format!("{name} has other classes than the first run");
        return Err(Error::File {
            path,
            problem,
            fix: "compare runs of one corpus".into(),
        });
    }
    let gold = |row: usize| labels.get(texts[row].label).map_or("", String::as_str);
    let wrong = |row: &usize| predictions.iter().any(|all| all[*row].label != gold(*row));
    let all: Vec<usize> = (0..texts.len()).filter(wrong).collect();
    let mut table = String::new();
    for &row in all.iter().take(most) {
        // JupyterLab sets cells to the right, which suits figures.
        let left = "<td style=\"text-align:left\">";
        table += &format!(
            "<tr>{left}{}</td>{left}{}</td>",
            escape(&texts[row].input().texts().collect::<Vec<_>>().join(" | ")),
            escape(gold(row))
        );
        for prediction in predictions.iter().map(|all| &all[row]) {
            let verdict = if prediction.label == gold(row) {
                "correct"
            } else {
                "wrong"
            };
            table += &format!(
                "{left}{verdict}<br>{}</td>",
                plot::bars(&prediction.probabilities)?
            );
        }
        table += "</tr>";
    }
    let names = ["text", "class"]
        .into_iter()
        .chain(runs.iter().map(|(name, _)| *name));
    let heads: String = names
        .map(|name| format!("<th style=\"text-align:left\">{}</th>", escape(name)))
        .collect();
    Ok(format!(
        "<p>{} of {} texts; the first {} of them:</p>\
         <div style=\"max-height:520px;overflow:auto\"><table><tr>{heads}</tr>{table}</table></div>",
        all.len(),
        texts.len(),
        all.len().min(most)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kd_lib::data::Corpus;
    use kd_lib::store::{Recipe, RunStore};
    use kd_lib::training::progress::silent;
    use std::path::Path;

    #[test]
    fn every_misclassified_text_is_shown_and_escaped() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let tiny = [
            "model.embedding_dim=12",
            "model.hidden_size=8",
            "train.epochs=1",
            "data.max_length=32",
            "device=cpu",
        ];
        let recipe = root.join("notebooks/recipes/student.toml");
        let recipe = Recipe::read(recipe, "full", &tiny.map(String::from)).unwrap();
        let corpus = Corpus::open(root.join("data/sample")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let run = RunStore::new(folder.path())
            .run(&recipe, &corpus, &mut silent)
            .unwrap();
        let mut texts = corpus.test.clone();
        texts[0].text = "<b>足球</b>".into();
        // No class is predicted twice over: of two labels one is wrong.
        let twice = [
            Example {
                label: 0,
                ..texts[0].clone()
            },
            Example {
                label: 1,
                ..texts[0].clone()
            },
        ];
        let html = mistakes(&[("student", &run), ("again", &run)], &twice, 5).unwrap();
        assert!(
            html.contains("&lt;b&gt;足球&lt;/b&gt;") && !html.contains("<b>"),
            "{html}"
        );
        let wrong = texts.len() - (run.report.test.accuracy * texts.len() as f64).round() as usize;
        let all = mistakes(&[("student", &run)], &corpus.test, 1000).unwrap();
        assert!(all.contains(&format!("<p>{wrong} of {} texts", texts.len())));
        assert_eq!(all.matches("<svg").count(), wrong);
    }
}
