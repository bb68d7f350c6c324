//! Finished runs → plots, as SVG text in one style: colours of Okabe and Ito (2008), which
//! colour-blind readers can distinguish, labelled axes, and a legend if there are several lines.

use kd_lib::evaluation::significance::Interval;
use kd_lib::evaluation::{ReliabilityBin, Scores};
use kd_lib::training::{CurvePoint, DevScores};
use kd_lib::{Error, Result};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use std::collections::BTreeMap;

/// Okabe and Ito's colours, in the order of use.
const PALETTE: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];
const FONT: &str = "sans-serif";
const SMALL: i32 = 13;
/// Width of a row of plots: what fits next to JupyterLab's list of files on a small screen.
const ROW: u32 = 840;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// A named line of a chart.
pub type Line<'a> = (&'a str, Vec<(f64, f64)>);

/// Lines over one pair of axes.
pub fn chart(title: &str, x: &str, y: &str, all: &[Line]) -> Result<String> {
    svg((460, 340), |area| lines(area, title, x, y, all, false))
}

/// Lines over a logarithmic x axis; `x` is above 0.
pub fn chart_log_x(title: &str, x: &str, y: &str, all: &[Line]) -> Result<String> {
    let powers = |line: &Line| {
        line.1
            .iter()
            .map(|(x, y)| (x.log10(), *y))
            .collect::<Vec<_>>()
    };
    let all: Vec<Line> = all.iter().map(|line| (line.0, powers(line))).collect();
    svg((460, 340), |area| lines(area, title, x, y, &all, true))
}

/// A named value with its interval.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedInterval {
    /// Its name.
    pub name: String,
    /// The value.
    pub value: f64,
    /// Its interval.
    pub interval: Interval,
}

/// Named values with their intervals, from the top down, over one axis. A line marks `reference`;
/// values around a reference of 0 are printed with their sign.
pub fn intervals(title: &str, rows: &[NamedInterval], reference: f64) -> Result<String> {
    let (mut low, mut high) = (reference, reference);
    for row in rows {
        low = low.min(row.interval.low);
        high = high.max(row.interval.high);
    }
    let longest = rows
        .iter()
        .map(|row| row.name.chars().count())
        .max()
        .unwrap_or(0);
    // Some 7 pixels a character.
    let (left, row_height) = ((30.0 + 7.0 * longest as f64).max(190.0), 26);
    let width = left + 430.0;
    let scale = (width - left - 90.0) / (high - low).max(1e-9);
    let at = |value: f64| (left + (value - low) * scale) as i32;
    let foot = rows.len() as i32 * row_height + 36;
    let shown = |value: f64| {
        if reference == 0.0 {
            format!("{value:+.2}")
        } else {
            format!("{value:.2}")
        }
    };
    svg((width as u32, foot as u32 + 26), |area| {
        let style = (FONT, SMALL).into_font().color(&BLACK);
        area.draw(&Text::new(
            title.to_owned(),
            (8, 6),
            (FONT, 15).into_font().color(&BLACK),
        ))
        .map_err(plot_error)?;
        let upright = |x: i32, ink: f64| {
            PathElement::new([(x, 28), (x, foot)], BLACK.mix(ink).stroke_width(1))
        };
        area.draw(&upright(at(reference), 0.4))
            .map_err(plot_error)?;
        for value in RangedCoordf64::from(low..high.max(low + 1e-9)).key_points(7) {
            let number = (((value * 100.0).round() + 0.0) / 100.0).to_string(); // + 0: no -0
            area.draw(&upright(at(value), 0.1)).map_err(plot_error)?;
            area.draw(&Text::new(
                number.clone(),
                (at(value) - 3 * number.len() as i32, foot + 4),
                style.clone(),
            ))
            .map_err(plot_error)?;
        }
        for (number, row) in rows.iter().enumerate() {
            let NamedInterval {
                name,
                value,
                interval: Interval { low, high },
            } = row;
            let y = 36 + number as i32 * row_height + row_height / 2 - 6;
            let bar = PathElement::new([(at(*low), y), (at(*high), y)], PALETTE[0].stroke_width(2));
            area.draw(&bar).map_err(plot_error)?;
            area.draw(&Circle::new((at(*value), y), 4, PALETTE[1].filled()))
                .map_err(plot_error)?;
            area.draw(&Text::new(name.clone(), (8, y - 7), style.clone()))
                .map_err(plot_error)?;
            area.draw(&Text::new(
                shown(*value),
                (at(*high) + 8, y - 7),
                style.clone(),
            ))
            .map_err(plot_error)?;
        }
        Ok(())
    })
}

/// Training loss and dev macro-F1 of several runs against the examples processed.
pub fn curves(runs: &[(&str, Vec<CurvePoint>)]) -> Result<String> {
    let x = |p: &CurvePoint| p.examples as f64 / 1000.0;
    let loss: Vec<Line> = runs
        .iter()
        .map(|(name, c)| (*name, c.iter().map(|p| (x(p), p.loss)).collect()))
        .collect();
    let dev: Vec<Line> = runs
        .iter()
        .map(|(name, c)| {
            (
                *name,
                c.iter()
                    .filter_map(|p| Some((x(p), p.dev_macro_f1?)))
                    .collect(),
            )
        })
        .collect();
    svg((ROW, 340), |area| {
        let (left, right) = area.split_horizontally(ROW / 2);
        lines(
            &left,
            "training loss",
            "thousand examples",
            "loss",
            &loss,
            false,
        )?;
        lines(
            &right,
            "on dev",
            "thousand examples",
            "macro-F1",
            &dev,
            false,
        )
    })
}

/// Curves `(update, value)` of a run that is still training, under a line with its progress.
pub(crate) fn live(
    progress: &str,
    loss: &[(f64, f64)],
    dev: &[(f64, DevScores)],
) -> Result<String> {
    svg((ROW, 330), |area| {
        area.draw(&Text::new(
            progress.to_owned(),
            (12, 8),
            (FONT, 15).into_font().color(&BLACK),
        ))
        .map_err(plot_error)?;
        let (left, right) = area.margin(26, 0, 0, 0).split_horizontally(ROW / 2);
        lines(
            &left,
            "training loss",
            "update",
            "loss",
            &[("loss", loss.to_vec())],
            false,
        )?;
        let dev_values =
            |score: fn(&DevScores) -> f64| dev.iter().map(|(at, dev)| (*at, score(dev))).collect();
        let both = [
            ("accuracy", dev_values(|dev| dev.accuracy)),
            ("macro-F1", dev_values(|dev| dev.macro_f1)),
        ];
        lines(&right, "on dev", "update", "share", &both, false)
    })
}

/// Reliability diagram: accuracy against confidence. A calibrated model lies on the diagonal.
pub fn reliability(models: &[(&str, Vec<ReliabilityBin>)]) -> Result<String> {
    let points = |bins: &[ReliabilityBin]| {
        bins.iter()
            .filter(|b| b.count > 0)
            .map(|b| (b.confidence, b.accuracy))
            .collect()
    };
    let mut all: Vec<Line> = models
        .iter()
        .map(|(name, bins)| (*name, points(bins)))
        .collect();
    all.push(("calibrated", vec![(0.0, 0.0), (1.0, 1.0)]));
    svg((ROW / 2, 380), |area| {
        lines(area, "reliability", "confidence", "accuracy", &all, false)
    })
}

/// The confusion matrix, each row shaded by its share; rows are labels, columns predictions.
pub fn confusion(scores: &Scores, labels: &[String]) -> Result<String> {
    let share = |counts: &Vec<usize>| {
        let support = counts.iter().sum::<usize>().max(1) as f64;
        counts
            .iter()
            .map(|&n| {
                (
                    n as f64 / support,
                    if n > 0 { n.to_string() } else { String::new() },
                )
            })
            .collect()
    };
    heatmap(
        "rows: label · columns: prediction",
        &scores.confusion.iter().map(share).collect::<Vec<_>>(),
        labels,
    )
}

/// A square of cells, each a shade from 0 to 1 and a text; rows and columns are classes.
pub fn heatmap(caption: &str, cells: &[Vec<(f64, String)>], labels: &[String]) -> Result<String> {
    let (cell, margin) = (46, 110);
    let end = margin + labels.len() as i32 * cell;
    svg(((end + 20) as u32, (end + 24) as u32), |area| {
        let style = (FONT, SMALL).into_font().color(&BLACK);
        let turned = style.clone().transform(FontTransform::Rotate270);
        for (row, (label, shades)) in labels.iter().zip(cells).enumerate() {
            let at = margin + row as i32 * cell;
            area.draw(&Text::new(
                label.clone(),
                (8, at + cell / 2 - 6),
                style.clone(),
            ))
            .map_err(plot_error)?;
            area.draw(&Text::new(
                label.clone(),
                (at + cell / 2 - 6, margin - 8),
                turned.clone(),
            ))
            .map_err(plot_error)?;
            for (column, (shade, text)) in shades.iter().enumerate() {
                let left = margin + column as i32 * cell;
                let colour = PALETTE[0].mix(shade.clamp(0.0, 1.0)).filled();
                area.draw(&Rectangle::new(
                    [(left, at), (left + cell - 2, at + cell - 2)],
                    colour,
                ))
                .map_err(plot_error)?;
                let ink =
                    (FONT, SMALL)
                        .into_font()
                        .color(if *shade > 0.5 { &WHITE } else { &BLACK });
                area.draw(&Text::new(text.clone(), (left + 8, at + cell / 2 - 7), ink))
                    .map_err(plot_error)?;
            }
        }
        area.draw(&Text::new(caption.to_owned(), (margin, end + 4), style))
            .map_err(plot_error)
    })
}

/// Horizontal bars from 0 to 1, one for each named value: a prediction's probabilities.
pub fn bars(values: &BTreeMap<String, f64>) -> Result<String> {
    let height = 24;
    svg((460, (values.len() as i32 * height + 10) as u32), |area| {
        let style = (FONT, SMALL).into_font().color(&BLACK);
        for (row, (name, value)) in values.iter().enumerate() {
            let top = 5 + row as i32 * height;
            let right = 120 + (value.clamp(0.0, 1.0) * 270.0) as i32;
            area.draw(&Rectangle::new(
                [(120, top), (right, top + height - 6)],
                PALETTE[0].filled(),
            ))
            .map_err(plot_error)?;
            area.draw(&Text::new(name.clone(), (8, top + 2), style.clone()))
                .map_err(plot_error)?;
            area.draw(&Text::new(
                format!("{value:.3}"),
                (right + 6, top + 2),
                style.clone(),
            ))
            .map_err(plot_error)?;
        }
        Ok(())
    })
}

/// Several plots as one: side by side, row below row.
pub fn side_by_side(svgs: &[String]) -> String {
    let side = |svg: &str, name: &str| -> u32 {
        let value = svg
            .split_once(&format!(" {name}=\""))
            .and_then(|(_, rest)| rest.split('"').next());
        value.and_then(|v| v.parse().ok()).unwrap_or(0)
    };
    let (mut x, mut y, mut wide, mut tall, mut all) = (0, 0, 0, 0, String::new());
    for svg in svgs {
        let [width, height] = ["width", "height"].map(|name| side(svg, name));
        if x > 0 && x + width > ROW {
            (x, y, tall) = (0, y + tall, 0);
        }
        all += &svg.replacen("<svg", &format!("<svg x=\"{x}\" y=\"{y}\""), 1);
        x += width;
        (wide, tall) = (wide.max(x), tall.max(height));
    }
    let high = y + tall;
    format!(
        "<svg width=\"{wide}\" height=\"{high}\" viewBox=\"0 0 {wide} {high}\" \
         xmlns=\"http://www.w3.org/2000/svg\">\n{all}</svg>"
    )
}

fn svg(size: (u32, u32), draw: impl FnOnce(&Area) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        area.fill(&WHITE).map_err(plot_error)?;
        draw(&area)?;
        area.present().map_err(plot_error)?;
    }
    Ok(text)
}

/// Lines over one pair of axes; with `log_x`, each `x` is an exponent of ten.
fn lines(area: &Area, title: &str, x: &str, y: &str, all: &[Line], log_x: bool) -> Result<()> {
    let range = |pick: fn(&(f64, f64)) -> f64| {
        let values = all
            .iter()
            .flat_map(|(_, points)| points.iter().map(pick))
            .filter(|v| v.is_finite());
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), v| {
            (a.min(v), b.max(v))
        });
        match (low < high, low.is_finite()) {
            (true, _) => (low, high),
            (false, true) => (low - 0.5, low + 0.5),
            (false, false) => (0.0, 1.0),
        }
    };
    let ((x0, x1), (y0, y1)) = (range(|p| p.0), range(|p| p.1));
    let pad = 0.05 * (y1 - y0);
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .margin_right(24) // the last number below the axis is written around the end
        .caption(title, (FONT, 16))
        .x_label_area_size(36)
        .y_label_area_size(52)
        .build_cartesian_2d(x0..x1, y0 - pad..y1 + pad)
        .map_err(plot_error)?;
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(x)
        .y_desc(y)
        .light_line_style(TRANSPARENT)
        .label_style((FONT, SMALL));
    if log_x {
        mesh.x_label_formatter(&power_of_ten);
    }
    mesh.draw().map_err(plot_error)?;
    for ((name, points), colour) in all.iter().zip(PALETTE.iter().cycle()) {
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
        let key = move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2));
        chart
            .draw_series(line)
            .map_err(plot_error)?
            .label(*name)
            .legend(key);
        chart
            .draw_series(
                points.iter().map(|&p| {
                    Circle::new(p, if points.len() > 40 { 0 } else { 3 }, colour.filled())
                }),
            )
            .map_err(plot_error)?;
    }
    if all.len() > 1 {
        let labels = chart
            .configure_series_labels()
            .position(free_corner(all, [x0, x1], [y0, y1]))
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.2))
            .label_font((FONT, SMALL))
            .draw();
        labels.map_err(plot_error)?;
    }
    Ok(())
}

/// The power of ten with a whole exponent, in groups of three digits; nothing for what lies
/// between.
fn power_of_ten(exponent: &f64) -> String {
    if (exponent - exponent.round()).abs() > 1e-6 {
        return String::new();
    }
    let digits = format!("{:.0}", 10f64.powf(*exponent)).into_bytes();
    let groups: Vec<_> = digits
        .rchunks(3)
        .rev()
        .map(String::from_utf8_lossy)
        .collect();
    groups.join(",")
}

/// The corner where the fewest pieces of lines lie: a legend hides least there.
fn free_corner(all: &[Line], [x0, x1]: [f64; 2], [y0, y1]: [f64; 2]) -> SeriesLabelPosition {
    use SeriesLabelPosition::{LowerLeft, LowerRight, UpperLeft, UpperRight};
    let pieces = |a: (f64, f64), b: (f64, f64)| {
        (0..=10)
            .map(|n| f64::from(n) / 10.0)
            .map(move |t| (a.0 + t * (b.0 - a.0), a.1 + t * (b.1 - a.1)))
    };
    let hidden = |right: f64, top: f64| -> usize {
        let lies_there = |(x, y): &(f64, f64)| {
            ((x - x0) / (x1 - x0) - right).abs() < 0.4 && ((y - y0) / (y1 - y0) - top).abs() < 0.3
        };
        let segments = all.iter().flat_map(|(_, points)| points.windows(2));
        segments
            .flat_map(|pair| pieces(pair[0], pair[1]))
            .filter(lies_there)
            .count()
    };
    let corners = [
        (LowerRight, 1.0, 0.0),
        (UpperRight, 1.0, 1.0),
        (UpperLeft, 0.0, 1.0),
        (LowerLeft, 0.0, 0.0),
    ];
    corners
        .into_iter()
        .min_by_key(|(_, right, top)| hidden(*right, *top))
        .map_or(LowerRight, |corner| corner.0)
}

fn plot_error(error: impl std::fmt::Display) -> Error {
    Error::Shape(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_legend_leaves_lines_alone() {
        let corner = |points: &[(f64, f64)]| {
            free_corner(&[("one", points.to_vec())], [0.0, 10.0], [0.0, 1.0])
        };
        assert!(matches!(
            corner(&[(0.0, 0.0), (2.0, 0.9), (10.0, 1.0)]),
            SeriesLabelPosition::LowerRight
        ));
        assert!(matches!(
            corner(&[(0.0, 1.0), (2.0, 0.1), (10.0, 0.0)]),
            SeriesLabelPosition::UpperRight
        ));
    }

    #[test]
    fn an_axis_of_powers_names_whole_ones() {
        assert_eq!(
            [0.0, 2.0, 5.0, 2.5].map(|exponent| power_of_ten(&exponent)),
            ["1", "100", "100,000", ""]
        );
        let drawn = chart_log_x("", "", "", &[("one", vec![(1.0, 0.0), (1000.0, 1.0)])]).unwrap();
        let named = |number: &str| drawn.lines().filter(|line| line.trim() == number).count();
        assert_eq!(["1", "10", "100", "1,000"].map(named), [1; 4], "{drawn}");
    }

    #[test]
    fn pictures_stand_beside_each_other_and_what_does_not_fit_below() {
        let [small, wide] = [400, ROW].map(|width| svg((width, 340), |_| Ok(())).unwrap());
        let one = side_by_side(&[small.clone(), small, wide]);
        assert!(
            one.starts_with("<svg width=\"840\" height=\"680\" viewBox=\"0 0 840 680\""),
            "{one}"
        );
        let places: Vec<&str> = one
            .split("<svg x=")
            .skip(1)
            .filter_map(|p| p.split(" width").next())
            .collect();
        assert_eq!(
            places,
            ["\"0\" y=\"0\"", "\"400\" y=\"0\"", "\"0\" y=\"340\""]
        );
    }
}
