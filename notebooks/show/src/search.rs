//! The search of notebook 09: a list of recipes, `notebooks/search.csv`, each run without a look at test, and what dev says of it. Which
//! candidate is taken is the notebook's business.

use crate::{OrStop, Study, listed};
use kd_lib::Result;
use kd_lib::recipe::Recipe;
use serde::Deserialize;

/// One line of the list, with its outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What is chosen: all candidates of one choice make about as many updates, or passes over as many texts.
    pub choice: String,
    /// The candidate's name.
    pub candidate: String,
    /// Accuracy on dev.
    pub dev: f64,
    /// Half the width of its 95 % interval, by the normal approximation.
    pub within: f64,
    /// Whether its report has no test figure.
    pub blind: bool,
    /// What was run.
    pub recipe: Recipe,
}

impl Found {
    /// Whether a recipe is the candidate's, but for its name and its look at test.
    pub fn is(&self, recipe: &Recipe) -> bool {
        let mut named = Recipe { name: recipe.name.clone(), ..self.recipe.clone() };
        named.data.blind = recipe.data.blind;
        named == *recipe
    }
}

#[derive(Debug, Deserialize)]
struct Line {
    choice: String,
    candidate: String,
    recipe: String,
    settings: String,
}

impl Study {
    /// Runs the first `most` candidates of each choice, or finds their runs.
    pub fn search(&self, most: usize) -> Vec<Found> {
        self.search_all(most).or_stop()
    }

    fn search_all(&self, most: usize) -> Result<Vec<Found>> {
        let mut found: Vec<Found> = Vec::new();
        for line in self.candidates()? {
            if found.iter().filter(|f| f.choice == line.choice).count() < most {
                let recipe = self.blind(&line)?;
                let run = self.find_row(&recipe)?.unwrap_or_else(|| self.run(&recipe));
                let (dev, texts) = (run.report.dev.accuracy, run.report.dev.examples as f64);
                let within = 1.96 * (dev * (1.0 - dev) / texts).sqrt();
                let blind = run.report.test.is_empty();
                found.push(Found { choice: line.choice, candidate: line.candidate, dev, within, blind, recipe });
            }
        }
        Ok(found)
    }

    fn candidates(&self) -> Result<Vec<Line>> {
        listed(&self.root.join("notebooks/search.csv"), "choice,candidate,recipe,settings")
    }

    /// The recipe of a line, under a name of its own, that leaves test alone.
    fn blind(&self, line: &Line) -> Result<Recipe> {
        let own = [format!("name=search-{}", line.recipe), "data.blind=true".into()];
        let settings: Vec<String> =
            line.settings.split(';').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).chain(own).collect();
        Recipe::read(self.root.join(format!("notebooks/recipes/{}.toml", line.recipe)), &self.profile, &settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kd_lib::plan::Plan;

    #[test]
    fn what_the_ladder_takes_from_the_search_are_its_candidates() {
        let study = Study { profile: "full".into(), ..Study::open() };
        let candidates: Vec<Found> =
            study.candidates().unwrap().iter().map(|line| unrun(study.blind(line).unwrap())).collect();
        for name in ["bilstm-tuned", "bilstm-tuned-long", "bilstm-longest", "bilstm+best"] {
            assert_eq!(candidates.iter().filter(|c| c.is(&study.recipe(name))).count(), 1, "{name}");
        }
        assert!(candidates.iter().all(|c| !c.is(&study.recipe("bilstm-long"))));
    }

    fn unrun(recipe: Recipe) -> Found {
        Found { choice: String::new(), candidate: String::new(), dev: 0.0, within: 0.0, blind: true, recipe }
    }

    // About as many: made texts too near to their sources are left out, on a small corpus more of them. The longer ones
    // pass over as many texts: an update under FGM passes twice.
    #[test]
    fn candidates_leave_test_alone_and_make_about_as_many_updates() {
        let study = Study::open();
        let lines = study.candidates().unwrap();
        let plan = |line: &Line| study.lab.plan(&study.blind(line).unwrap(), &study.corpus).unwrap();
        let passes = |plan: Plan| {
            let texts = (plan.corpus.train.len() + plan.extras.len()) as f64;
            let epochs = plan.steps as f64 / plan.steps_per_epoch as f64;
            texts * epochs * if plan.recipe.attack.is_some() { 2.0 } else { 1.0 }
        };
        let how = |line: &Line| line.choice.split_once(", ").map_or("", |parts| parts.1).to_owned();
        assert!(lines.iter().all(|line| study.blind(line).unwrap().data.blind));
        for length in ["", "longer", "longest"] {
            let size = |line: &Line| if length.is_empty() { plan(line).steps as f64 } else { passes(plan(line)) };
            let alike: Vec<&Line> = lines.iter().filter(|line| how(line) == length).collect();
            let first = size(alike[0]);
            for line in alike {
                assert!((size(line) / first - 1.0).abs() < 0.1, "{}: {}, not {first}", line.candidate, size(line));
            }
        }
    }
}
