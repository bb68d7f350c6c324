//! The learning curves of a distillation as one SVG picture. The notebooks' plots are made by their
//! own package; this picture needs a line for each run and nothing else.

use crate::Result;
use crate::store::Run;
use std::fmt::Write;

/// The picture's size, and the room around the lines for labels.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 40.0;
const TOP: f64 = 16.0;
/// Room at the right for the runs' names.
const RIGHT: f64 = 170.0;
const COLOURS: [&str; 6] = [
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377",
];

/// A run's accuracy on dev at each evaluation.
struct Line {
    name: String,
    points: Vec<Point>,
}

struct Point {
    updates: f64,
    accuracy: f64,
}

/// Dev accuracy against updates, a line for each run; none if no run was evaluated twice.
pub fn learning_curves<'a>(runs: impl Iterator<Item = &'a Run>) -> Result<Option<String>> {
    let mut lines = Vec::new();
    for run in runs {
        let mut points = Vec::new();
        for point in run.curve()? {
            if let Some(accuracy) = point.dev_accuracy {
                points.push(Point {
                    updates: point.step as f64,
                    accuracy,
                });
            }
        }
        if points.len() > 1 {
            lines.push(Line {
                name: run.report.recipe.name.clone(),
                points,
            });
        }
    }
    Ok((!lines.is_empty()).then(|| svg(&lines)))
}

fn svg(lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let longest = points().map(|point| point.updates).fold(1.0, f64::max);
    let least = points().map(|point| point.accuracy).fold(1.0, f64::min);
    let most = points().map(|point| point.accuracy).fold(0.0, f64::max);
    let span = (most - least).max(1e-3);
    let x = |updates: f64| LEFT + (WIDTH - LEFT - RIGHT) * updates / longest;
    let y = |accuracy: f64| TOP + (HEIGHT - TOP - BOTTOM) * (most - accuracy) / span;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">"#
    );
    let base = HEIGHT - BOTTOM;
    let mut draw = |part: String| svg.push_str(&part);
    draw(format!(
        r##"<path d="M{LEFT} {TOP}V{base}H{}" fill="none" stroke="#888"/>"##,
        WIDTH - RIGHT
    ));
    for accuracy in [least, (least + most) / 2.0, most] {
        draw(format!(
            r#"<text x="{}" y="{:.1}" text-anchor="end">{accuracy:.3}</text>"#,
            LEFT - 6.0,
            y(accuracy) + 4.0
        ));
    }
    for updates in [0.0, longest / 2.0, longest] {
        draw(format!(
            r#"<text x="{:.1}" y="{}" text-anchor="middle">{updates:.0}</text>"#,
            x(updates),
            base + 16.0
        ));
    }
    draw(format!(
        r#"<text x="{:.1}" y="{}" text-anchor="middle">updates</text>"#,
        x(longest / 2.0),
        base + 32.0
    ));
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let mut path = String::new();
        for point in &line.points {
            let _ = write!(path, "{:.1},{:.1} ", x(point.updates), y(point.accuracy));
        }
        draw(format!(
            r#"<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>"#
        ));
        // A recipe's name holds letters, digits and -_+.()= alone.
        draw(format!(
            r#"<text x="{}" y="{:.1}" fill="{colour}">{}</text>"#,
            WIDTH - RIGHT + 10.0,
            TOP + 10.0 + 18.0 * number as f64,
            line.name
        ));
    }
    svg + "</svg>"
}
