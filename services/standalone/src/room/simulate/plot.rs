//! Line charts as inline SVG, drawn like those of the rush.

use std::fmt::Write as _;

use crate::rush::group;
use crate::rush::report::{HEIGHT, WIDTH};

/// More points than this would not be seen.
const POINTS: usize = 430;

/// One line.
pub(super) struct Series<'a> {
    pub name: &'a str,
    pub colour: &'a str,
    pub values: Vec<f64>,
}

pub(super) fn series<'a>(name: &'a str, colour: &'a str, values: Vec<f64>) -> Series<'a> {
    Series {
        name,
        colour,
        values,
    }
}

/// A chart over `span` (with its unit) of lines that share a scale from 0.
pub(super) fn chart(
    page: &mut String,
    title: &str,
    unit: &str,
    from_to: (&str, &str),
    lines: &[Series<'_>],
) -> std::fmt::Result {
    let thinned: Vec<Vec<f64>> = lines.iter().map(|line| thin(&line.values)).collect();
    let most = thinned
        .iter()
        .flatten()
        .fold(0.0f64, |most, value| most.max(*value))
        .max(1e-9);
    write!(
        page,
        "<h2>{title}</h2><figure><svg viewBox='0 0 {WIDTH} {}' role=img aria-label='{title}'>",
        HEIGHT + 24.0
    )?;
    for (line, values) in lines.iter().zip(&thinned) {
        let mut path = String::new();
        let steps = values.len().max(2) - 1;
        for (at, value) in values.iter().enumerate() {
            let x = at as f64 / steps as f64 * WIDTH;
            let y = HEIGHT - value / most * (HEIGHT - 10.0);
            write!(path, "{}{x:.1},{y:.1}", if at == 0 { "M" } else { "L" })?;
        }
        write!(
            page,
            "<path d='{path}' fill=none stroke='{}' stroke-width=2 />",
            line.colour
        )?;
    }
    let top = if most >= 100.0 {
        group(most as u64)
    } else {
        format!("{most:.2}")
    };
    write!(
        page,
        "<line x1=0 y1={HEIGHT} x2={WIDTH} y2={HEIGHT} stroke='#8c959f'/>\
         <text x=0 y={y} font-size=13>{}</text><text x={WIDTH} y={y} font-size=13 text-anchor=end>{}</text>\
         <text x=4 y=14 font-size=13>{top} {unit}</text></svg><figcaption>",
        from_to.0,
        from_to.1,
        y = HEIGHT + 18.0,
    )?;
    let names = lines
        .iter()
        .map(|line| format!("<span style='color:{}'>{}</span>", line.colour, line.name));
    write!(
        page,
        "{}</figcaption></figure>",
        names.collect::<Vec<_>>().join(", ")
    )
}

/// Means of equal parts.
fn thin(values: &[f64]) -> Vec<f64> {
    let size = values.len().div_ceil(POINTS).max(1);
    values
        .chunks(size)
        .map(|part| part.iter().sum::<f64>() / part.len() as f64)
        .collect()
}
