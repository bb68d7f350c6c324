//! What distillation is expected to bring, said before training: a line through recorded runs of
//! `kd distill` (docs/distill.md, "The forecast"). It is written into the plan's folder, so that the
//! report can set what was measured beside it. It changes no plan.

use super::data_report::DataReport;
use crate::{Result, files};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The file in a plan's folder.
pub const FILE: &str = "forecast.json";

/// The line and the half width of its 95 % prediction interval. The gap is how much better a linear
/// layer on the frozen teacher is than the linear model over n-grams.
const GAIN_WITHOUT_GAP: f64 = 0.015;
const GAIN_OF_GAP: f64 = 0.26;
const HALF_WIDTH: f64 = 0.055;

/// An expected difference of accuracy on test: distilled student − baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// The expected value.
    pub gain: f64,
    /// Lower bound of the interval that should hold 95 % of the measured differences.
    pub low: f64,
    /// Its upper bound.
    pub high: f64,
}

impl Forecast {
    /// The forecast that a plan's folder holds; if it holds none, a new one. None if the data report
    /// does not say enough.
    pub fn find(data: &DataReport, folder: &Path) -> Result<Option<Forecast>> {
        let path = folder.join(FILE);
        if path.exists() {
            return files::read_json(&path).map(Some);
        }
        let forecast = Forecast::of(data);
        if let Some(forecast) = &forecast {
            files::write_json(&path, forecast)?;
        }
        Ok(forecast)
    }

    /// What these texts let expect.
    pub fn of(data: &DataReport) -> Option<Forecast> {
        let frozen_teacher = data.suspicious.as_ref()?.held_out_accuracy?;
        let gain = GAIN_WITHOUT_GAP + GAIN_OF_GAP * (frozen_teacher - data.linear_dev);
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
        write!(
            f,
            "{gain:+.1} points of accuracy, 95 % interval {low:+.1} to {high:+.1}"
        )
    }
}
