//! The supply of regions as bars. Drawn by `plotters`, twice: for wide screens and for phones, because text in a picture
//! does not reflow. Colours are attributes that the style sheet replaces, also in the dark.

use maud::{Markup, PreEscaped, html};
use plotters::prelude::{ChartBuilder, IntoDrawingArea as _, RGBColor, Rectangle, SVGBackend};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color as _, IntoFont as _};

/// A region's bar: how many places are booked, being booked, and left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) booked: u64,
    pub(super) held: u64,
    pub(super) left: u64,
}

/// The same colours stand in the style sheet, where the dark has others.
const BOOKED: RGBColor = RGBColor(0x0B, 0x5F, 0x4B);
const HELD: RGBColor = RGBColor(0xD0, 0x8A, 0x1D);
const LEFT: RGBColor = RGBColor(0xA9, 0xCF, 0xC1);
const LINES: RGBColor = RGBColor(0xD9, 0xDB, 0xD5);
const TEXT: RGBColor = RGBColor(0x56, 0x61, 0x5D);

/// Between a name and its bar.
const NAME_GAP: i32 = 8;

/// Sizes of one drawing, in its own units.
struct Size {
    class: &'static str,
    width: u32,
    bar: u32,
    names: u32,
    font: u32,
    ticks: usize,
}

const BROAD: Size = Size {
    class: "broad",
    width: 900,
    bar: 30,
    names: 140,
    font: 18,
    ticks: 7,
};
const NARROW: Size = Size {
    class: "narrow",
    width: 360,
    bar: 27,
    names: 124,
    font: 16,
    ticks: 4,
};

/// The drawings; nothing where there is nothing to draw or it cannot be drawn.
pub(super) fn bars(bars: &[Bar]) -> Markup {
    html! {
        @for size in [BROAD, NARROW] {
            @if let Some(svg) = draw(bars, &size) {
                div class=(size.class) { (PreEscaped(svg)) }
            }
        }
    }
}

fn draw(bars: &[Bar], size: &Size) -> Option<String> {
    let most = bars
        .iter()
        .map(|bar| bar.booked + bar.held + bar.left)
        .max()?;
    let count = u32::try_from(bars.len()).ok()?;
    let axis = size.font * 2;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (size.width, count * size.bar + axis));
        let area = area.into_drawing_area();
        let font = || ("sans-serif", size.font).into_font().color(&TEXT);
        let mut chart = ChartBuilder::on(&area)
            .margin_right(size.font)
            .x_label_area_size(axis)
            .y_label_area_size(size.names)
            .build_cartesian_2d(0.0..exact(most.max(1)), 0.0..f64::from(count))
            .ok()?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .axis_style(LINES)
            .bold_line_style(LINES)
            .light_line_style(LINES.mix(0.0))
            .x_labels(size.ticks)
            .label_style(font())
            .x_label_formatter(&|value| thousands(*value))
            .draw()
            .ok()?;
        let right = font().pos(Pos::new(HPos::Right, VPos::Center));
        // The first region stands on top; the axis counts from below.
        let rows = (0..count).rev().map(f64::from);
        for (bar, below) in bars.iter().zip(rows) {
            let (x, y) = chart.backend_coord(&(0.0, below + 0.5));
            area.draw_text(&bar.name, &right, (x - NAME_GAP, y)).ok()?;
            let mut from = 0;
            for (part, colour) in [(bar.booked, BOOKED), (bar.held, HELD), (bar.left, LEFT)] {
                if part == 0 {
                    continue;
                }
                let corners = [
                    (exact(from), below + 0.18),
                    (exact(from + part), below + 0.82),
                ];
                let rectangle = Rectangle::new(corners, colour.filled());
                chart.draw_series([rectangle]).ok()?;
                from += part;
            }
        }
        area.present().ok()?;
    }
    // A picture beside a table with the same figures: nothing to be read out twice.
    Some(svg.replacen("<svg ", "<svg aria-hidden=\"true\" focusable=\"false\" ", 1))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "places of a region are far below 2^52"
)]
const fn exact(places: u64) -> f64 {
    places as f64
}

fn thousands(value: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a tick of the axis is a small number of places, not below 0"
    )]
    let whole = value.max(0.0).round() as u64;
    crate::web::text::number(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(name: &str, booked: u64, held: u64, left: u64) -> Bar {
        Bar {
            name: name.to_owned(),
            booked,
            held,
            left,
        }
    }

    #[test]
    fn bars_are_as_long_as_their_figures() {
        let svg = draw(&[bar("A", 50, 0, 50), bar("B", 100, 0, 0)], &BROAD).expect("drawn");
        let widths: Vec<f64> = svg
            .split("<rect ")
            .skip(1)
            .filter(|rect| rect.contains("#0B5F4B") || rect.contains("#A9CFC1"))
            .map(|rect| {
                let (_, rest) = rect.split_once(" width=\"").expect("a width");
                rest.split('"')
                    .next()
                    .expect("a number")
                    .parse()
                    .expect("a number")
            })
            .collect();
        let [half, left, whole] = widths[..] else {
            panic!("three bars in {svg}")
        };
        assert!(
            (half * 2.0 - whole).abs() <= 2.0 && (left - half).abs() <= 2.0,
            "{widths:?}"
        );
        assert!(
            !svg.contains("style="),
            "the policy allows no styles inside: {svg}"
        );
    }

    #[test]
    fn every_region_is_named_once() {
        for count in [1_u64, 2, 17] {
            let all: Vec<_> = (0..count)
                .map(|at| bar(&format!("R{at}."), at, 1, 2))
                .collect();
            for size in [BROAD, NARROW] {
                let svg = draw(&all, &size).expect("drawn");
                for bar in &all {
                    assert_eq!(
                        svg.matches(&bar.name).count(),
                        1,
                        "{} of {count} in {svg}",
                        bar.name
                    );
                }
            }
        }
    }

    #[test]
    fn names_are_text_and_nothing_else() {
        let svg = draw(&[bar("<b>&", 1, 0, 0)], &NARROW).expect("drawn");
        assert!(
            svg.contains("&lt;b&gt;&amp;") && !svg.contains("<b>"),
            "{svg}"
        );
    }

    #[test]
    fn nothing_to_draw_is_no_picture() {
        assert_eq!(draw(&[], &BROAD), None);
        assert!(draw(&[bar("A", 0, 0, 0)], &BROAD).is_some());
    }
}
