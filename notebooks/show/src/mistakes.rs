//! A browser of mistakes: the texts that a model gets wrong, with what each model thought of them.

use crate::{escape, plot};
use kd_lib::data::Example;
use kd_lib::predict::{Prediction, Predictor};
use kd_lib::run::Run;
use kd_lib::{Error, Result};

/// The first `most` of these texts that at least one of the named runs gets wrong, as an HTML table to scroll in: the
/// text, its class, and each run's probabilities as bars. All runs must know the same classes.
pub fn mistakes(runs: &[(&str, &Run)], texts: &[Example], most: usize) -> Result<String> {
    let answer = |run: &Run| Predictor::open(run)?.predict(&texts.iter().map(|e| e.text.as_str()).collect::<Vec<_>>());
    let answers = runs.iter().map(|(_, run)| answer(run)).collect::<Result<Vec<Vec<Prediction>>>>()?;
    let labels = runs.first().map_or(&[][..], |(_, run)| &run.labels);
    if let Some((name, other)) = runs.iter().find(|(_, run)| run.labels != labels) {
        let (path, problem) = (other.path.clone(), format!("{name} knows other classes than the first run"));
        return Err(Error::File { path, problem, fix: "compare runs of one corpus".into() });
    }
    let gold = |row: usize| labels.get(texts[row].label).map_or("", String::as_str);
    let wrong = |row: &usize| answers.iter().any(|all| all[*row].label != gold(*row));
    let all: Vec<usize> = (0..texts.len()).filter(wrong).collect();
    let mut table = String::new();
    for &row in all.iter().take(most) {
        table += &format!("<tr><td>{}</td><td>{}</td>", escape(&texts[row].text), escape(gold(row)));
        for prediction in answers.iter().map(|all| &all[row]) {
            let verdict = if prediction.label == gold(row) { "right" } else { "wrong" };
            table += &format!("<td>{verdict}<br>{}</td>", plot::bars(&prediction.probabilities)?);
        }
        table += "</tr>";
    }
    let heads: String = runs.iter().map(|(name, _)| format!("<th>{}</th>", escape(name))).collect();
    Ok(format!(
        "<p>{} of {} texts; the first {} of them:</p><div style=\"max-height:520px;overflow:auto\"><table><tr><th>text</th><th>class</th>{heads}</tr>{table}</table></div>",
        all.len(),
        texts.len(),
        all.len().min(most)
    ))
}
