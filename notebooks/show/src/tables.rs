//! The published tables beside ours: which rows there are is read from a CSV file (table, row, recipe, baseline and
//! the published figures), what we measured comes from finished runs. Nothing is trained here.

use crate::listed;
use crate::significance::{self, Difference};
use kd_lib::Result;
use kd_lib::data::Split;
use kd_lib::grid::{Cell, Grid};
use kd_lib::rehearsal::Rehearsal;
use kd_lib::report::{FIGURES, Row, figure};
use kd_lib::run::Run;
use serde::Deserialize;
use std::path::Path;

/// A row as it was announced: its recipe, and the row that it is compared with.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announced {
    /// The published table, 1 or 2.
    pub table: u8,
    /// The published name.
    pub row: String,
    /// Recipe of ours, without `.toml`.
    pub recipe: String,
    /// The recipe that it is compared with; empty for a baseline.
    pub baseline: String,
    /// Published accuracy, where there is one.
    pub accuracy: Option<f64>,
    /// Published macro precision.
    pub precision: Option<f64>,
    /// Published macro recall.
    pub recall: Option<f64>,
    /// Published macro F1.
    pub f1: Option<f64>,
}

impl Announced {
    /// A row of our own, which nobody published.
    pub fn ours(recipe: &str, baseline: &str) -> Announced {
        let (recipe, baseline) = (recipe.to_owned(), baseline.to_owned());
        Announced {
            table: 0,
            row: recipe.clone(),
            recipe,
            baseline,
            accuracy: None,
            precision: None,
            recall: None,
            f1: None,
        }
    }
}

/// A row with what was measured.
#[derive(Debug, Clone)]
pub struct Measured {
    /// What was announced.
    pub announced: Announced,
    /// Ours: mean ± sd over seeds.
    pub ours: Row,
    /// Accuracy against the baseline's, and Holm's adjusted p-value over the table's comparisons.
    pub difference: Option<(Difference, f64)>,
    /// Time of an update, relative to the baseline's.
    pub cost: Option<f64>,
}

/// Reads the announced rows.
pub fn announced(path: &Path) -> Result<Vec<Announced>> {
    listed(path, "table,row,recipe,baseline,accuracy,precision,recall,f1")
}

/// Puts runs beside the announced rows; `runs[i]` are row i's, one a seed, `costs[i]` its cost ratio where known.
pub fn measure(rows: &[Announced], runs: &[Vec<Run>], costs: &[Option<f64>]) -> Result<Vec<Measured>> {
    let right = runs.iter().map(|runs| runs.iter().map(right_answers).collect()).collect::<Result<Vec<Vec<_>>>>()?;
    let baseline = |row: &Announced| rows.iter().position(|b| b.table == row.table && b.recipe == row.baseline);
    let differences: Vec<Option<Difference>> =
        rows.iter().enumerate().map(|(at, row)| significance::difference(&right[at], &right[baseline(row)?])).collect();
    let adjusted = significance::holm(&differences.iter().flatten().map(|d| d.p).collect::<Vec<_>>());
    let mut adjusted = adjusted.into_iter();
    let measured =
        rows.iter().zip(runs).zip(differences).zip(costs).map(|(((row, runs), difference), cost)| Measured {
            announced: row.clone(),
            ours: Row::of(runs),
            difference: difference.and_then(|d| Some((d, adjusted.next()?))),
            cost: *cost,
        });
    Ok(measured.collect())
}

/// The share of the gap between baseline and teachers that ours recovers on test, `[2.5 %, mean, 97.5 %]`: see
/// [`significance::share_of_gap`]. Several teachers answer by [`majority`]. Runs of ours and the baseline are paired by their order.
pub fn share_of_gap(ours: &[Run], baseline: &[Run], teachers: &[Run]) -> Result<[f64; 3]> {
    let right = |runs: &[Run]| runs.iter().map(right_answers).collect::<Result<Vec<_>>>();
    let share = significance::share_of_gap(&right(ours)?, &right(baseline)?, &equal(&majority(teachers)?));
    Ok(share.unwrap_or([f64::NAN; 3]))
}

/// What several models answer on test, and the labels: the class that most of them name, of equally many the one named
/// first. Kept copies have no more than their answers, so that a mean of logits cannot be asked of them.
pub fn majority(runs: &[Run]) -> Result<(Vec<usize>, Vec<usize>)> {
    let answers = runs.iter().map(|run| run.answers(Split::Test)).collect::<Result<Vec<_>>>()?;
    let labels = answers.first().map_or_else(Vec::new, |(_, labels)| labels.clone());
    let named =
        |text: usize| answers.iter().filter_map(|(of_run, _)| of_run.get(text).copied()).collect::<Vec<usize>>();
    Ok(((0..labels.len()).map(|text| most_named(&named(text))).collect(), labels))
}

fn most_named(answers: &[usize]) -> usize {
    let times = |class: &usize| answers.iter().filter(|other| *other == class).count();
    // Of equals `max_by_key` takes the last, which is the first from behind.
    answers.iter().rev().copied().max_by_key(times).unwrap_or_default()
}

/// Whether each test text was answered rightly.
fn right_answers(run: &Run) -> Result<Vec<bool>> {
    Ok(equal(&run.answers(Split::Test)?))
}

fn equal((answers, labels): &(Vec<usize>, Vec<usize>)) -> Vec<bool> {
    answers.iter().zip(labels).map(|(a, l)| a == l).collect()
}

/// Each compared row's name and difference from its baseline in points: low end of its interval, mean, high end.
pub fn differences(rows: &[Measured]) -> Vec<(String, [f64; 3])> {
    let points = |d: Difference| [d.interval[0], d.mean, d.interval[1]].map(|value| 100.0 * value);
    rows.iter().filter_map(|m| Some((m.announced.row.clone(), points(m.difference?.0)))).collect()
}

/// Ours for each figure, beside what was published and what a row costs where any row has that; differences from the
/// baseline that are more than noise are marked. What tells them stands before the macro figures, where no screen cuts it off.
pub fn grid(rows: &[Measured]) -> Grid {
    let (published, costed) =
        (rows.iter().any(|r| r.announced.accuracy.is_some()), rows.iter().any(|r| r.cost.is_some()));
    let named = |figure: &str| match published {
        true => vec![format!("{figure} published"), "ours".to_owned()],
        false => vec![figure.to_owned()],
    };
    let mut head: Vec<String> = ["row".to_owned(), "seeds".to_owned()].into_iter().chain(named(FIGURES[0])).collect();
    head.extend(["Δ points", "95 %", "p (Holm)"].map(str::to_owned));
    head.extend(costed.then(|| "cost".to_owned()));
    head.extend(FIGURES[1..].iter().flat_map(|figure| named(figure)));
    let row = |row: &Measured| {
        let Announced { row: name, accuracy, precision, recall, f1, .. } = &row.announced;
        let mut figures = [accuracy, precision, recall, f1].into_iter().zip(row.ours.test).map(|(theirs, ours)| {
            let theirs = published.then(|| theirs.map_or_else(|| "–".to_owned(), |v| format!("{v:.4}")).into());
            theirs.into_iter().chain([figure(ours).into()]).collect::<Vec<Cell>>()
        });
        let mut cells: Vec<Cell> = vec![name.as_str().into(), row.ours.seeds.to_string().into()];
        cells.extend(figures.next().into_iter().flatten());
        cells.extend(compared(row));
        cells.extend(costed.then(|| row.cost.map_or_else(|| "–".into(), |c| format!("×{c:.2}")).into()));
        cells.extend(figures.flatten());
        cells
    };
    Grid { head, rows: rows.iter().map(row).collect() }
}

/// The difference in points of accuracy, its interval, and its adjusted p-value; noise is said to be noise.
fn compared(row: &Measured) -> [Cell; 3] {
    row.difference.map_or_else(Default::default, |(Difference { mean, interval: [low, high], .. }, p)| {
        let strong = p < 0.05;
        let p = match p {
            p if p < 0.001 => "< 0.001".to_owned(),
            p if strong => format!("{p:.3}"),
            p => format!("{p:.2}, noise"),
        };
        let [mean, low, high] = [mean, low, high].map(|d| format!("{:+.2}", 100.0 * d));
        [Cell { text: mean, strong }, format!("{low} … {high}").into(), p.into()]
    })
}

/// Seconds that each recipe takes for a text, relative to the first's: medians over `rounds` rounds, in each of which
/// every recipe makes one update, so that a slow moment of the machine hits all alike.
pub(crate) fn cost_ratios(rehearsals: &mut [Rehearsal], rounds: usize) -> Result<Vec<f64>> {
    let mut seconds = vec![Vec::new(); rehearsals.len()];
    for round in 0..=rounds {
        for (rehearsal, seconds) in rehearsals.iter_mut().zip(&mut seconds) {
            let (took, texts) = rehearsal.update()?;
            // The first round warms up.
            seconds.extend((round > 0).then_some(took / texts as f64));
        }
    }
    let medians: Vec<f64> = seconds.iter_mut().map(|s| median(s)).collect();
    Ok(medians.iter().map(|m| m / medians[0]).collect())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::most_named;

    #[test]
    fn a_majority_decides_and_where_there_is_none_the_first() {
        assert_eq!([[2, 1, 1], [2, 2, 0], [2, 1, 0]].map(|answers| most_named(&answers)), [1, 2, 2]);
        assert_eq!(most_named(&[3, 0, 0, 3]), 3);
    }
}
