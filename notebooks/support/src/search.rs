//! The search of notebook 09: a list of recipes, `notebooks/search.csv`, each run without
//! evaluating test, and their accuracy on dev. The notebook chooses the candidate.

use crate::{OrEndCell, Session, read_csv};
use kd_lib::Result;
use kd_lib::store::Recipe;
use serde::Deserialize;

/// The longest candidates have forty epochs by the profile, which are minutes on a slow machine.
const SMOKE_EPOCHS: f64 = 4.0;

/// A candidate and its outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// What is chosen. All candidates of one choice make about as many updates, or process about
    /// as many examples.
    pub choice: String,
    /// The candidate's name.
    pub candidate: String,
    /// Accuracy on dev.
    pub dev: f64,
    /// Half the width of its 95 % interval, by the normal approximation.
    pub margin: f64,
    /// Whether its report has no test score.
    pub skipped_test: bool,
    /// What was run.
    pub recipe: Recipe,
}

impl Candidate {
    /// Whether a recipe is the candidate's, apart from its name and its evaluation of test.
    pub fn is(&self, recipe: &Recipe) -> bool {
        let mut candidate = self.recipe.clone();
        candidate.name = recipe.name.clone();
        candidate.data.skip_test = recipe.data.skip_test;
        candidate == *recipe
    }
}

#[derive(Debug, Deserialize)]
struct Line {
    choice: String,
    candidate: String,
    recipe: String,
    settings: String,
}

impl Session {
    /// Runs the first `most` candidates of each choice, or finds their runs. Under `smoke` no
    /// candidate trains for more than four epochs.
    pub fn search(&self, most: usize) -> Vec<Candidate> {
        self.search_all(most).or_end_cell()
    }

    fn search_all(&self, most: usize) -> Result<Vec<Candidate>> {
        let mut found: Vec<Candidate> = Vec::new();
        for line in self.search_lines()? {
            if found.iter().filter(|f| f.choice == line.choice).count() == most {
                continue;
            }
            let recipe = self.search_recipe(&line)?;
            let run = self
                .find_finished(&recipe)?
                .unwrap_or_else(|| self.run(&recipe));
            let (dev, texts) = (run.report.dev.accuracy, run.report.dev.examples as f64);
            found.push(Candidate {
                choice: line.choice,
                candidate: line.candidate,
                dev,
                margin: 1.96 * (dev * (1.0 - dev) / texts).sqrt(),
                skipped_test: run.report.test.is_empty(),
                recipe,
            });
        }
        Ok(found)
    }

    fn search_lines(&self) -> Result<Vec<Line>> {
        let path = self.root.join("notebooks/search.csv");
        read_csv(&path, "choice,candidate,recipe,settings")
    }

    /// The recipe of a line, under a name of its own, which skips test.
    fn search_recipe(&self, line: &Line) -> Result<Recipe> {
        let mut settings = Vec::new();
        for setting in line.settings.split(';').map(str::trim) {
            if !setting.is_empty() {
                settings.push(setting.to_owned());
            }
        }
        settings.push(format!("name=search-{}", line.recipe));
        settings.push("data.skip_test=true".into());
        let path = self
            .root
            .join(format!("notebooks/recipes/{}.toml", line.recipe));
        let mut recipe = Recipe::read(path, &self.profile, &settings)?;
        if self.profile == "smoke" {
            recipe.train.epochs = recipe.train.epochs.min(SMOKE_EPOCHS);
        }
        Ok(recipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kd_lib::store::PlannedRun;

    #[test]
    fn what_the_ablation_takes_from_the_search_are_its_candidates() {
        let session = Session {
            profile: "full".into(),
            ..Session::open()
        };
        let mut candidates = Vec::new();
        for line in session.search_lines().unwrap() {
            let recipe = session.search_recipe(&line).unwrap();
            candidates.push(Candidate {
                choice: line.choice,
                candidate: line.candidate,
                dev: 0.0,
                margin: 0.0,
                skipped_test: true,
                recipe,
            });
        }
        for name in [
            "bilstm-tuned",
            "bilstm-tuned-long",
            "bilstm-longest",
            "bilstm+aug20-ensemble",
        ] {
            let recipe = session.recipe(name);
            assert_eq!(
                candidates.iter().filter(|c| c.is(&recipe)).count(),
                1,
                "{name}"
            );
        }
        assert!(
            candidates
                .iter()
                .all(|c| !c.is(&session.recipe("bilstm-long")))
        );
    }

    // About as many: augmented texts that are too similar to their sources are left out, more of
    // them on a small corpus. The longer candidates process as many examples: an update under FGM
    // processes each twice.
    #[test]
    fn candidates_skip_test_and_make_about_as_many_updates() {
        let session = Session::open();
        let lines = session.search_lines().unwrap();
        let recipe = |line: &Line| session.search_recipe(line).unwrap();
        let plan = |line: &Line| session.store.plan(&recipe(line), &session.corpus).unwrap();
        let passes = |plan: PlannedRun| {
            let texts = (plan.corpus.train.len() + plan.transfer_set.len()) as f64;
            let schedule = plan.schedule;
            let epochs = schedule.total_steps as f64 / schedule.steps_per_epoch as f64;
            let passes = if plan.recipe.adversarial.is_some() {
                2.0
            } else {
                1.0
            };
            texts * epochs * passes
        };
        let length_of = |line: &Line| {
            line.choice
                .split_once(", ")
                .map_or("", |(_, length)| length)
                .to_owned()
        };
        assert!(lines.iter().all(|line| recipe(line).data.skip_test));
        for length in ["", "longer", "longest"] {
            let size = |line: &Line| match length {
                "" => plan(line).schedule.total_steps as f64,
                _ => passes(plan(line)),
            };
            let same_length: Vec<&Line> = lines
                .iter()
                .filter(|line| length_of(line) == length)
                .collect();
            let first = size(same_length[0]);
            for line in same_length {
                let size = size(line);
                assert!(
                    (size / first - 1.0).abs() < 0.1,
                    "{}: {size}, {first}",
                    line.candidate
                );
            }
        }
    }
}
