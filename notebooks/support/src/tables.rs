//! The published tables and ours, row by row. Which rows there are is read from a CSV file (table,
//! row, recipe, baseline and the published scores); what we measured comes from finished runs.
//! Nothing is trained here.

use crate::plot::NamedInterval;
use crate::read_csv;
use kd_lib::Result;
use kd_lib::data::Split;
use kd_lib::evaluation::significance::{self, Difference, GapShare, Interval};
use kd_lib::store::table::METRICS;
use kd_lib::store::{Cell, Predictions, Run, StepTimer, Table, TableRow};
use serde::Deserialize;
use std::path::Path;

/// A row as it was published: its scores, our recipe of it, and the row that it is compared with.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedRow {
    /// The published table, 1 or 2.
    pub table: u8,
    /// The published name.
    pub row: String,
    /// Our recipe, without `.toml`.
    pub recipe: String,
    /// The recipe that it is compared with; empty for a baseline.
    pub baseline: String,
    /// Published accuracy, if there is one.
    pub accuracy: Option<f64>,
    /// Published macro precision.
    pub precision: Option<f64>,
    /// Published macro recall.
    pub recall: Option<f64>,
    /// Published macro F1.
    pub f1: Option<f64>,
}

impl PublishedRow {
    /// A row of our own, which has no published scores.
    pub fn ours(recipe: &str, baseline: &str) -> PublishedRow {
        PublishedRow {
            table: 0,
            row: recipe.to_owned(),
            recipe: recipe.to_owned(),
            baseline: baseline.to_owned(),
            accuracy: None,
            precision: None,
            recall: None,
            f1: None,
        }
    }
}

/// A difference from the baseline, corrected for several comparisons.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// The difference in accuracy.
    pub difference: Difference,
    /// Holm's adjusted p-value over the table's comparisons.
    pub p: f64,
}

impl Comparison {
    /// Whether the difference is statistically distinguishable from zero at 5 %. Never for a row
    /// with one seed: the variation between seeds is unknown.
    pub fn is_significant(&self) -> bool {
        self.difference.seeds > 1 && self.p < 0.05
    }
}

/// A row with what was measured.
#[derive(Debug, Clone)]
pub struct MeasuredRow {
    /// The row as it was published.
    pub published: PublishedRow,
    /// Ours: mean ± sd over seeds.
    pub ours: TableRow,
    /// Accuracy against the baseline's, if there is a baseline.
    pub comparison: Option<Comparison>,
    /// Time of an update, relative to the baseline's.
    pub cost: Option<f64>,
}

/// Reads the published rows.
pub fn published(path: &Path) -> Result<Vec<PublishedRow>> {
    read_csv(
        path,
        "table,row,recipe,baseline,accuracy,precision,recall,f1",
    )
}

/// Sets runs next to the published rows: `runs[i]` are row i's, one per seed, `costs[i]` its
/// relative cost if it is known.
pub fn measure(
    rows: &[PublishedRow],
    runs: &[Vec<Run>],
    costs: &[Option<f64>],
) -> Result<Vec<MeasuredRow>> {
    let mut correct = Vec::new();
    for runs in runs {
        correct.push(correct_predictions(runs)?);
    }
    let mut differences = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let is_baseline = |b: &PublishedRow| b.table == row.table && b.recipe == row.baseline;
        let baseline = rows.iter().position(is_baseline);
        let difference = baseline
            .and_then(|baseline| significance::difference(&correct[at], &correct[baseline]));
        differences.push(difference);
    }
    let p: Vec<f64> = differences
        .iter()
        .flatten()
        .map(|difference| difference.p)
        .collect();
    let mut adjusted = significance::holm(&p).into_iter();
    let mut measured = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let comparison = differences[at].and_then(|difference| {
            Some(Comparison {
                difference,
                p: adjusted.next()?,
            })
        });
        measured.push(MeasuredRow {
            published: row.clone(),
            ours: TableRow::from_runs(&runs[at]),
            comparison,
            cost: costs[at],
        });
    }
    Ok(measured)
}

/// The share of the gap between baseline and teachers that ours recovers on test, see
/// [`significance::share_of_gap`]; none if the gap is not distinguishable from zero. Several
/// teachers vote. Runs of ours and of the baseline are paired by their order.
pub fn share_of_gap(ours: &[Run], baseline: &[Run], teachers: &[Run]) -> Result<Option<GapShare>> {
    let ours = correct_predictions(ours)?;
    let baseline = correct_predictions(baseline)?;
    let teachers = majority_vote(teachers)?.correct();
    Ok(significance::share_of_gap(&ours, &baseline, &teachers))
}

/// What the majority of several models predicts on test. Stored results have predicted classes
/// alone, so a mean of their logits cannot be computed.
pub fn majority_vote(runs: &[Run]) -> Result<Predictions> {
    let (mut votes, mut labels) = (Vec::new(), Vec::new());
    for run in runs {
        let predictions = run.predictions(Split::Test)?;
        votes.push(predictions.classes);
        labels = predictions.labels;
    }
    Ok(Predictions {
        classes: significance::majority_vote(&votes),
        labels,
    })
}

/// Whether each test prediction of each run is correct: `[run][example]`.
fn correct_predictions(runs: &[Run]) -> Result<Vec<Vec<bool>>> {
    runs.iter()
        .map(|run| Ok(run.predictions(Split::Test)?.correct()))
        .collect()
}

/// Each compared row's name, and its difference from its baseline in points.
pub fn differences(rows: &[MeasuredRow]) -> Vec<NamedInterval> {
    let mut intervals = Vec::new();
    for row in rows {
        if let Some(Comparison { difference, .. }) = row.comparison {
            intervals.push(NamedInterval {
                name: row.published.row.clone(),
                value: 100.0 * difference.mean,
                interval: Interval {
                    low: 100.0 * difference.interval.low,
                    high: 100.0 * difference.interval.high,
                },
            });
        }
    }
    intervals
}

/// Our scores next to the published ones, and relative costs if any row has one. Differences that
/// are statistically distinguishable are emphasised. The comparison stands before the macro scores,
/// where no screen cuts it off.
pub fn table(rows: &[MeasuredRow]) -> Table {
    let has_published = rows.iter().any(|row| row.published.accuracy.is_some());
    let has_costs = rows.iter().any(|row| row.cost.is_some());
    let columns = |metric: &str| {
        if has_published {
            vec![format!("{metric} published"), "ours".to_owned()]
        } else {
            vec![metric.to_owned()]
        }
    };
    let mut head = vec!["row".to_owned(), "seeds".to_owned()];
    head.extend(columns(METRICS[0]));
    head.extend(["Δ points", "95 %", "p (Holm)"].map(str::to_owned));
    if has_costs {
        head.push("cost".to_owned());
    }
    head.extend(METRICS[1..].iter().flat_map(|metric| columns(metric)));
    let mut table = Table {
        head,
        rows: Vec::new(),
    };
    for row in rows {
        let mut scores = score_cells(row, has_published);
        let macro_scores = scores.split_off(if has_published { 2 } else { 1 });
        let mut cells: Vec<Cell> = vec![
            row.published.row.as_str().into(),
            row.ours.seeds.to_string().into(),
        ];
        cells.extend(scores);
        cells.extend(comparison_cells(row));
        if has_costs {
            cells.push(
                row.cost
                    .map_or_else(|| "–".into(), |cost| format!("×{cost:.2}").into()),
            );
        }
        cells.extend(macro_scores);
        table.push(cells);
    }
    table
}

/// Each metric: the published score if any row has one, and ours.
fn score_cells(row: &MeasuredRow, has_published: bool) -> Vec<Cell> {
    let published = &row.published;
    let published = [
        published.accuracy,
        published.precision,
        published.recall,
        published.f1,
    ];
    let mut cells = Vec::new();
    for (published, ours) in published.iter().zip(&row.ours.test) {
        if has_published {
            let text = published.map_or_else(|| "–".to_owned(), |score| format!("{score:.4}"));
            cells.push(text.into());
        }
        cells.push(ours.to_string().into());
    }
    cells
}

/// The difference in points of accuracy, its interval, its adjusted p-value and the conclusion.
fn comparison_cells(row: &MeasuredRow) -> [Cell; 3] {
    let Some(comparison) = row.comparison else {
        return Default::default();
    };
    let Comparison { difference, p } = comparison;
    let shown = match p {
        p if difference.at_floor() => format!("≤ {p:.5}"),
        p if p < 0.001 => "< 0.001".to_owned(),
        p if p < 0.05 => format!("{p:.3}"),
        p => format!("{p:.2}"),
    };
    let verdict = if difference.seeds < 2 {
        ", one seed"
    } else if comparison.is_significant() {
        ""
    } else {
        ", not distinguishable"
    };
    let points = |value: f64| format!("{:+.2}", 100.0 * value);
    let Interval { low, high } = difference.interval;
    [
        Cell {
            text: points(difference.mean),
            strong: comparison.is_significant(),
        },
        format!("{} … {}", points(low), points(high)).into(),
        (shown + verdict).into(),
    ]
}

/// Seconds per text of each timer relative to the first: medians over `rounds` rounds. In each
/// round every timer makes one update, so that timing noise affects all alike.
pub(crate) fn cost_ratios(timers: &mut [StepTimer], rounds: usize) -> Result<Vec<f64>> {
    let mut seconds = vec![Vec::new(); timers.len()];
    for round in 0..=rounds {
        for (timer, seconds) in timers.iter_mut().zip(&mut seconds) {
            let time = timer.time_step()?;
            // The first round warms up.
            if round > 0 {
                seconds.push(time.seconds / time.size.texts as f64);
            }
        }
    }
    let medians: Vec<f64> = seconds.iter_mut().map(|values| median(values)).collect();
    Ok(medians.iter().map(|median| median / medians[0]).collect())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
