//! The ladder of notebook 09: a list of rungs, `notebooks/ladder.csv`, each a recipe with what it changes and the rung that it
//! stands beside, and what each made of its training. Whether a difference is more than noise is [`crate::tables`]'s business.

use crate::tables::Measured;
use crate::{OrStop, Study, listed};
use kd_lib::Result;
use kd_lib::grid::Grid;
use kd_lib::recipe::Recipe;
use kd_lib::report::gap_recovered;
use kd_lib::run::{Report, Run};
use kd_lib::strategies::Attack;
use serde::Deserialize;

/// The profiles by how long they take.
const PROFILES: [&str; 3] = ["smoke", "quick", "full"];

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    /// A recipe's name.
    pub rung: String,
    /// The rung that it is compared with; empty where it is one to compare with.
    pub beside: String,
    /// What it changes there.
    pub change: String,
    /// The first of [`PROFILES`] that has the texts and the time for it.
    from: String,
    /// Why it is not run here, where it is not.
    #[serde(skip)]
    pub left_out: Option<String>,
}

impl Study {
    /// All rungs, in order; what this corpus or profile does not allow says why it is left out.
    pub fn ladder(&self) -> Vec<Rung> {
        self.rungs().or_stop()
    }

    fn rungs(&self) -> Result<Vec<Rung>> {
        let mut rungs: Vec<Rung> = listed(&self.root.join("notebooks/ladder.csv"), "rung,beside,change,from")?;
        for rung in &mut rungs {
            let allowed = self.recipe(&rung.rung).objective.check_classes(self.corpus.labels.len());
            let place = |profile: &str| PROFILES.iter().position(|p| *p == profile);
            let long = (place(&rung.from) > place(&self.profile)).then(|| format!("too long for {}", self.profile));
            rung.left_out = allowed.err().map(|e| e.to_string()).or(long);
        }
        Ok(rungs)
    }
}

/// What each rung changes, and beside what, as a table.
pub fn grid(rungs: &[Rung]) -> Grid {
    let mut grid = Grid::new(&["rung", "what it changes", "beside"]);
    grid.rows = rungs.iter().map(|r| [&r.rung, &r.change, &r.beside].map(|text| text.as_str().into()).into()).collect();
    grid
}

/// What each rung made of its training, as a table: updates, texts read, mean accuracy on test, and the share of the gap from
/// accuracy `floor` to accuracy `top` that it closes. `runs` has a run of each row.
pub fn progress(rows: &[Measured], runs: &[Run], [floor, top]: [f64; 2]) -> Grid {
    let mut grid =
        Grid::new(&["rung", "updates", "texts read, thousands", "accuracy", "from untuned student to teacher"]);
    for (row, run) in rows.iter().zip(runs) {
        let accuracy = row.ours.test[0].0;
        let share = 100.0 * gap_recovered(top, floor, accuracy) + 0.0; // no -0
        let read = texts_read(&run.report) as f64 / 1e3;
        let figures =
            [run.report.steps.to_string(), format!("{read:.0}"), format!("{accuracy:.4}"), format!("{share:.0} %")];
        let cells = [row.announced.row.clone()].into_iter().chain(figures);
        grid.rows.push(cells.map(Into::into).collect());
    }
    grid
}

/// Texts that a run's updates pass over; an attack reads each once more in each of its passes.
pub fn texts_read(report: &Report) -> usize {
    let Recipe { train, attack, .. } = &report.recipe;
    report.steps * train.batch * train.accumulation * (1 + attack.map_or(0, Attack::passes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rung_stands_beside_one_before_it_and_says_why_it_is_left_out() {
        let mut study = Study::open();
        let all = study.ladder();
        for (at, rung) in all.iter().enumerate() {
            let known = || all[..at].iter().any(|before| before.rung == rung.beside);
            assert!(rung.beside.is_empty() || known(), "{} stands beside {}", rung.rung, rung.beside);
            assert!(PROFILES.contains(&rung.from.as_str()), "{}: {}", rung.rung, rung.from);
        }
        study.profile = "smoke".into();
        study.corpus.labels.truncate(2);
        let why = |name: &str| study.ladder().into_iter().find(|r| r.rung == name).unwrap().left_out;
        assert_eq!(why("bilstm"), None);
        assert!(why("bilstm+made-dkd").unwrap().contains("two classes"));
        assert_eq!(why("bilstm+best").unwrap(), "too long for smoke");
        study.profile = "quick".into();
        let left_out = study.ladder().into_iter().filter_map(|r| r.left_out.map(|why| (r.rung, why)));
        let long: Vec<_> = left_out.filter(|(_, why)| why == "too long for quick").map(|(rung, _)| rung).collect();
        assert_eq!(long, ["bilstm+best-512"]);
    }
}
