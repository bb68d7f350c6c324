//! A budget of time as a person writes it: `90s`, `30m`, `2h`, `overnight`.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::str::FromStr;

/// Seconds that a distillation may take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// In seconds, above 0.
    pub seconds: f64,
}

/// The hours of a night.
const OVERNIGHT: f64 = 8.0 * 3600.0;
/// A longer budget is a typing error.
const LONGEST: f64 = 100.0 * 3600.0;

impl FromStr for Budget {
    type Err = Error;

    /// ```
    /// use kd_lib::distill::Budget;
    /// assert_eq!("30m".parse::<Budget>().unwrap().seconds, 1800.0);
    /// assert_eq!("1.5h".parse::<Budget>().unwrap().seconds, 5400.0);
    /// assert!("30".parse::<Budget>().is_err(), "a number needs its unit");
    /// ```
    fn from_str(text: &str) -> Result<Budget> {
        let text = text.trim();
        let units = [("s", 1.0), ("m", 60.0), ("min", 60.0), ("h", 3600.0)];
        let seconds = match text {
            "overnight" => Some(OVERNIGHT),
            _ => units.iter().find_map(|(unit, seconds)| {
                let number = text.strip_suffix(unit)?.trim().parse::<f64>().ok()?;
                Some(number * seconds)
            }),
        };
        match seconds {
            Some(seconds) if seconds > 0.0 && seconds <= LONGEST => Ok(Budget { seconds }),
            _ => {
                let fix = "write for example 90s, 30m, 2h or overnight";
                Err(Error::option("budget", format!("{text:?}"), fix))
            }
        }
    }
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(&duration(self.seconds))
    }
}

/// Seconds in words: `40 s`, `12 min`, `2.5 h`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 6000.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}
