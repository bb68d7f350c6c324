//! What distillation brought: the gain with its interval, the forecast, and the recovered share of
//! the gap.

use crate::distill::document::Document;
use crate::distill::findings::Findings;
use crate::distill::forecast::Forecast;
use crate::evaluation::significance::Difference;
use crate::store::Table;

/// The minimum detectable difference at a power of 80 %, in half widths of the 95 % interval:
/// (1.96 + 0.84) / 1.96 standard errors.
const DETECTABLE_HALF_WIDTHS: f64 = 1.43;
/// Smaller p-values are printed as "below" this one.
const SMALLEST_P: f64 = 0.0001;

pub(super) fn add_gain(document: &mut Document, findings: &Findings, forecast: Option<Forecast>) {
    document.heading("What distillation brought");
    let Some(gain) = &findings.gain else { return };
    let mut table = Table::new(&["question", "answer"]);
    table.push([
        "distilled − baseline".to_owned(),
        format!(
            "{:+.1} points of accuracy, 95 % interval {:+.1} to {:+.1}, {}",
            100.0 * gain.mean,
            100.0 * gain.interval.low,
            100.0 * gain.interval.high,
            p_value(gain)
        ),
    ]);
    if let Some(forecast) = forecast {
        let is_held = (forecast.low..=forecast.high).contains(&gain.mean);
        let held = if is_held { "holds" } else { "does not hold" };
        table.push([
            "expected before training".to_owned(),
            format!("{forecast}; it {held} the measured difference"),
        ]);
    }
    let half_width = (gain.interval.high - gain.interval.low) / 2.0;
    table.push([
        "minimum detectable difference (found in four of five such tests)".to_owned(),
        format!(
            "about {:.1} points",
            100.0 * DETECTABLE_HALF_WIDTHS * half_width
        ),
    ]);
    table.push([
        "share of the gap between baseline and teacher that was recovered".to_owned(),
        recovered(findings),
    ]);
    document.table(table);
}

fn recovered(findings: &Findings) -> String {
    match &findings.recovered {
        Some(share) => format!(
            "{:.0} %, 95 % interval {:.0} to {:.0} %",
            100.0 * share.share,
            100.0 * share.interval.low,
            100.0 * share.interval.high
        ),
        None if findings.teacher.is_none() => {
            "not known: the teacher's logits were read from a file".into()
        }
        None => "not reported: the gap is not distinguishable from zero".into(),
    }
}

/// A p-value with four decimals, of which the last is the smallest that is told.
fn p_value(gain: &Difference) -> String {
    if gain.p < SMALLEST_P {
        return format!("p < {SMALLEST_P}");
    }
    let sign = if gain.at_floor() { "≤" } else { "=" };
    format!("p {sign} {:.4}", gain.p)
}
