//! The teacher's part of a plan.

use super::Planner;
use crate::distill::plan::Stage;
use crate::distill::recipes::{TEACHER_EVALUATIONS, teacher_recipe};
use crate::training::linear_probe::MAX_PROBE_TEXTS;

/// Largest share of the usable time for the teacher.
const TEACHER_SHARE: f64 = 0.5;
/// Largest share of the teacher's time for its evaluations on dev; a larger dev split is sampled.
const TEACHER_EVALUATION_SHARE: f64 = 0.15;
/// Fewest dev texts on which the teacher is evaluated; all, if there are fewer.
const MIN_DEV_TEXTS: usize = 300;
/// Fewest texts on which a teacher is trained; all, if there are fewer.
const MIN_TEACHER_TEXTS: usize = 200;
/// With fewer training texts the teacher trains 3 to 20 epochs, aiming at [`TEACHER_EXAMPLES`]:
/// fine-tuning on few texts needs many updates (Mosbach et al. 2021).
const MAX_TEXTS_OF_LONG_TEACHER: usize = 10_000;
/// Examples that a teacher of a small corpus processes, within 3 to 20 epochs.
const TEACHER_EXAMPLES: usize = 20_000;

impl Planner<'_> {
    /// The teacher: with all texts as often as its share of the time allows, else once with some of
    /// them. `usable` are the seconds of all stages.
    pub(super) fn teacher_stage(&self, usable: f64) -> Stage {
        let Planner {
            settings,
            facts,
            speed,
        } = *self;
        let texts = facts.train_texts as f64;
        let allowed = usable * TEACHER_SHARE;
        // Before training, while training, and once more at the end.
        let evaluations = TEACHER_EVALUATIONS + 2.0;
        let for_one = allowed * TEACHER_EVALUATION_SHARE / evaluations;
        let affordable = (for_one / speed.teacher_forward) as usize;
        let dev_texts = affordable.max(MIN_DEV_TEXTS).min(facts.dev_texts);
        let for_evaluations = evaluations * dev_texts as f64 * speed.teacher_forward;
        let for_probe = facts.train_texts.min(MAX_PROBE_TEXTS) as f64 * speed.teacher_forward;
        let before_updates = for_evaluations + for_probe;
        let seconds =
            |texts: f64, epochs: f64| texts * epochs * speed.teacher_update + before_updates;
        let planned = |epochs, samples| {
            let mut recipe = teacher_recipe(settings, facts, epochs, samples);
            recipe.data.max_dev_samples = Some(dev_texts).filter(|&n| n < facts.dev_texts);
            recipe
        };
        let wanted = if facts.train_texts < MAX_TEXTS_OF_LONG_TEACHER {
            (TEACHER_EXAMPLES / facts.train_texts.max(1)).clamp(3, 20) as u32
        } else {
            2
        };
        for epochs in (1..=wanted).rev().map(f64::from) {
            if seconds(texts, epochs) <= allowed {
                let recipe = planned(epochs, None);
                return Stage {
                    recipe,
                    seconds: seconds(texts, epochs),
                };
            }
        }
        let fitting = (allowed - before_updates) / speed.teacher_update;
        let least = facts.train_texts.min(MIN_TEACHER_TEXTS);
        let samples = (fitting.max(1.0) as usize).clamp(least, facts.train_texts);
        Stage {
            recipe: planned(1.0, Some(samples)),
            seconds: seconds(samples as f64, 1.0),
        }
    }
}
