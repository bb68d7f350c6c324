//! What distillation is expected to bring, said before training: nothing, if the student has time
//! for few updates, else a line through recorded runs of `kd distill` (docs/distill.md, "The
//! forecast"). It is written into the plan's folder, so that the report can compare what was
//! measured with it. It changes no plan.

use super::data_report::DataReport;
use super::plan::{DistillPlan, MIN_DISTILLED_UPDATES};
use crate::{Result, files};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file in a plan's folder.
pub const FILE: &str = "forecast.json";

/// The expected gain where a linear probe of the teacher before fine-tuning is no better than the
/// linear model over n-grams.
const GAIN_WITHOUT_LEAD: f64 = 0.015;
/// What each point by which the probe is better adds to the expected gain.
const GAIN_OF_LEAD: f64 = 0.26;
/// Half the width of the 95 % prediction interval.
const HALF_WIDTH: f64 = 0.055;

/// An expected difference of accuracy on test: distilled student − baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// The expected value; zero if the student has time for too few updates.
    pub gain: f64,
    /// Lower bound of the interval that should hold 95 % of the measured differences.
    pub low: f64,
    /// Its upper bound.
    pub high: f64,
}

impl Forecast {
    /// The forecast that a plan's folder holds; if it holds none, a new one. None if the data
    /// report does not say enough.
    pub fn find(data: &DataReport, plan: &DistillPlan, folder: &Path) -> Result<Option<Forecast>> {
        let path = folder.join(FILE);
        if path.exists() {
            return files::read_json(&path).map(Some);
        }
        let forecast = Forecast::of(data, plan);
        if let Some(forecast) = &forecast {
            files::write_json(&path, forecast)?;
        }
        Ok(forecast)
    }

    /// The forecast for these texts and this plan.
    pub fn of(data: &DataReport, plan: &DistillPlan) -> Option<Forecast> {
        let probe = data.suspicious.as_ref()?.held_out_accuracy?;
        let gain = if plan.distilled_updates() < MIN_DISTILLED_UPDATES {
            0.0
        } else {
            GAIN_WITHOUT_LEAD + GAIN_OF_LEAD * (probe - data.linear_dev)
        };
        Some(Forecast {
            gain,
            low: gain - HALF_WIDTH,
            high: gain + HALF_WIDTH,
        })
    }
}

/// In points of accuracy.
impl std::fmt::Display for Forecast {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let [gain, low, high] = [self.gain, self.low, self.high].map(|value| 100.0 * value);
        if self.gain == 0.0 {
            write!(f, "none with fewer than {MIN_DISTILLED_UPDATES} updates")?;
        } else {
            write!(f, "{gain:+.1} points of accuracy")?;
        }
        write!(f, ", 95 % interval {low:+.1} to {high:+.1}")
    }
}
