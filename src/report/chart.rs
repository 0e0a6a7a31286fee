//! Charts as SVG and PNG: curves, and the tornado of a sensitivity analysis.

use std::fs;
use std::path::Path;
use std::sync::Once;

use anyhow::{Context, bail};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use crate::units::{grouped, significant};

/// The bitmap backend draws letters from this font, so that a chart looks alike on every machine
/// (licence beside it).
const FONT: &[u8] = include_bytes!("font/DejaVuSans-latin.ttf");
const SIZE: (u32, u32) = (900, 520);

/// Colours that people who do not tell red from green tell apart (Okabe and Ito, 2008).
pub(super) const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(80, 80, 80),
];

/// A curve with its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// As the legend says it.
    pub name: String,
    /// From left to right.
    pub points: Vec<(f64, f64)>,
}

/// A point that the chart is about.
#[derive(Clone, Debug, PartialEq)]
pub struct Mark {
    /// Where.
    pub at: (f64, f64),
    /// What.
    pub label: String,
}

/// Curves over a common axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Curves {
    /// What it shows.
    pub title: String,
    /// The axis to the right, with its unit.
    pub x: String,
    /// The axis upwards, with its unit.
    pub y: String,
    /// Whether the axis to the right counts in powers of ten.
    pub is_logarithmic: bool,
    /// The curves.
    pub lines: Vec<Line>,
    /// Points to mark.
    pub marks: Vec<Mark>,
}

/// One input of a tornado.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// The input.
    pub name: String,
    /// Its lowest value and the result there.
    pub low: (String, f64),
    /// Its highest value and the result there.
    pub high: (String, f64),
}

/// How far each input alone moves a result.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tornado {
    /// What it shows.
    pub title: String,
    /// The result, with its unit.
    pub x: String,
    /// The result at the point values.
    pub centre: f64,
    /// The strongest first.
    pub bars: Vec<Bar>,
}

/// Something that can be drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Chart {
    /// Curves over a common axis.
    Curves(Curves),
    /// How far each input alone moves a result.
    Tornado(Tornado),
}

impl Chart {
    /// Writes the chart to a file, as its ending says: `.svg` or `.png`.
    ///
    /// # Errors
    /// Another ending, nothing to draw, or a file that cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let shown = path.display();
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("svg") => {
                fs::write(path, self.svg()?).with_context(|| format!("cannot write '{shown}'"))
            }
            Some("png") => {
                register();
                self.draw(&BitMapBackend::new(path, SIZE).into_drawing_area())
                    .with_context(|| format!("cannot write '{shown}'"))
            }
            _ => bail!("'{shown}' is no chart: let its name end in .svg or .png"),
        }
    }

    /// The chart as the text of an SVG file.
    ///
    /// # Errors
    /// Nothing to draw.
    pub fn svg(&self) -> anyhow::Result<String> {
        register();
        let mut text = String::new();
        self.draw(&SVGBackend::with_string(&mut text, SIZE).into_drawing_area())?;
        Ok(text)
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> anyhow::Result<()> {
        let drawn = match self {
            Self::Curves(curves) => curves.draw(area),
            Self::Tornado(tornado) => tornado.draw(area),
        };
        drawn.and_then(|()| area.present().map_err(said))
    }
}

pub(super) fn register() {
    static FONTS: Once = Once::new();
    FONTS.call_once(|| {
        // The font is embedded and tested; without it a chart says so itself.
        let _ = register_font("sans-serif", FontStyle::Normal, FONT);
    });
}

pub(super) fn said<E: std::fmt::Display>(error: E) -> anyhow::Error {
    anyhow::anyhow!("the chart cannot be drawn: {error}")
}

impl Curves {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> anyhow::Result<()> {
        let all = || self.lines.iter().flat_map(|line| &line.points);
        let marked = || self.marks.iter().map(|mark| mark.at);
        let (left, right) = bounds(all().map(|p| p.0).chain(marked().map(|p| p.0)))?;
        let (low, high) = bounds(all().map(|p| p.1).chain(marked().map(|p| p.1)).chain([0.0]))?;
        let top = high + (high - low) * 0.06;
        area.fill(&WHITE).map_err(said)?;
        if self.is_logarithmic {
            anyhow::ensure!(left > 0.0, "a logarithmic axis needs values above zero");
            self.draw_on(area, (left..right).log_scale(), low..top)
        } else {
            self.draw_on(area, left..right, low..top)
        }
    }

    fn draw_on<B, X>(
        &self,
        area: &DrawingArea<B, Shift>,
        x: X,
        y: std::ops::Range<f64>,
    ) -> anyhow::Result<()>
    where
        B: DrawingBackend,
        X: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
    {
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 19))
            .margin(14)
            .margin_right(30)
            .x_label_area_size(44)
            .y_label_area_size(82)
            .build_cartesian_2d(x, y)
            .map_err(said)?;
        chart
            .configure_mesh()
            .x_desc(&self.x)
            .y_desc(&self.y)
            .x_label_formatter(&|value| {
                // On a logarithmic axis there is no room for 6, 7, 8 and 9.
                if self.is_logarithmic && !is_round(*value) { String::new() } else { short(*value) }
            })
            .y_label_formatter(&|value| short(*value))
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .label_style(("sans-serif", 13))
            .axis_desc_style(("sans-serif", 14))
            .draw()
            .map_err(said)?;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))
                .map_err(said)?
                .label(&line.name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(3))
                });
        }
        // Clear of the curves: costs rise to the right, break-even falls.
        let below = if self.is_logarithmic { -18 } else { 9 };
        for mark in &self.marks {
            let label = EmptyElement::at(mark.at)
                + Circle::new((0, 0), 5, BLACK.filled())
                + Text::new(mark.label.clone(), (9, below), ("sans-serif", 13).into_font());
            chart.draw_series([label]).map_err(said)?;
        }
        // The title names the only curve.
        if self.lines.len() < 2 {
            return Ok(());
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .label_font(("sans-serif", 13))
            .draw()
            .map_err(said)
    }
}

impl Tornado {
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> anyhow::Result<()> {
        let ends = self.bars.iter().flat_map(|bar| [bar.low.1, bar.high.1]);
        let (low, high) = bounds(ends.chain([self.centre, 0.0]))?;
        // Room for what stands at the ends of the bars.
        let room = (high - low) * 0.16;
        let count = self.bars.len() as f64;
        area.fill(&WHITE).map_err(said)?;
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 19))
            .margin(14)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(210)
            .build_cartesian_2d(low - room..high + room, count - 0.4..-0.6)
            .map_err(said)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .x_desc(&self.x)
            .x_label_formatter(&|value| short(*value))
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .label_style(("sans-serif", 13))
            .axis_desc_style(("sans-serif", 14))
            .draw()
            .map_err(said)?;
        let text = ("sans-serif", 13).into_font();
        for (row, bar) in self.bars.iter().enumerate() {
            let y = row as f64;
            let sides = [(&bar.low, COLOURS[0]), (&bar.high, COLOURS[1])];
            for ((value, end), colour) in sides {
                let corners = [(self.centre, y - 0.32), (*end, y + 0.32)];
                chart.draw_series([Rectangle::new(corners, colour.filled())]).map_err(said)?;
                let wide = value.chars().count() as i32 * 8;
                let shift = if *end < self.centre { -wide - 4 } else { 6 };
                let label = EmptyElement::at((*end, y))
                    + Text::new((*value).clone(), (shift, -7), text.clone());
                chart.draw_series([label]).map_err(said)?;
            }
            let (_, pixel) = chart.backend_coord(&(self.centre, y));
            area.draw(&Text::new(bar.name.clone(), (14, pixel - 7), text.clone())).map_err(said)?;
        }
        for (x, width) in [(0.0, 1), (self.centre, 2)] {
            let ends = [(x, -0.6), (x, count - 0.4)];
            chart.draw_series([PathElement::new(ends, BLACK.stroke_width(width))]).map_err(said)?;
        }
        Ok(())
    }
}

/// The smallest and the largest of the values, apart from each other.
fn bounds(values: impl Iterator<Item = f64>) -> anyhow::Result<(f64, f64)> {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    let mut count = 0;
    for value in values {
        anyhow::ensure!(value.is_finite(), "the chart has a point that is no number");
        (low, high) = (low.min(value), high.max(value));
        count += 1;
    }
    anyhow::ensure!(count > 1, "the chart has nothing to draw");
    if high > low { Ok((low, high)) } else { Ok((low, low + low.abs().max(1.0))) }
}

/// Whether its first digit is 1, 2 or 5.
fn is_round(value: f64) -> bool {
    let first = value / 10f64.powf((value * (1.0 + 1e-9)).log10().floor());
    [1.0, 2.0, 5.0].into_iter().any(|digit: f64| (first - digit).abs() < 0.01)
}

/// A number at an axis: thousands apart, large ones with their power.
pub(super) fn short(value: f64) -> String {
    let size = value.abs();
    let (scaled, unit) = match size {
        s if s >= 1e9 => (value / 1e9, "G"),
        s if s >= 1e6 => (value / 1e6, "M"),
        s if s >= 1e5 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    if unit.is_empty() && scaled.fract() == 0.0 {
        let sign = if scaled < 0.0 { "-" } else { "" };
        return format!("{sign}{}", grouped(size as u64));
    }
    let text = significant(scaled, 3);
    let trimmed =
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{trimmed}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curves() -> Curves {
        let line = |name: &str, slope: f64| Line {
            name: name.into(),
            points: (0..=36).map(|m| (f64::from(m), 100.0 + slope * f64::from(m))).collect(),
        };
        Curves {
            title: "Paid so far <own & cloud>".into(),
            x: "months".into(),
            y: "USD".into(),
            lines: vec![line("owning", 10.0), line("cloud", 90.0)],
            marks: vec![Mark { at: (1.0, 110.0), label: "break-even".into() }],
            is_logarithmic: false,
        }
    }

    fn tornado() -> Tornado {
        Tornado {
            title: "What the answer hangs on".into(),
            x: "net present value, USD".into(),
            centre: 1000.0,
            bars: vec![Bar {
                name: "requests_per_day".into(),
                low: ("500".into(), -2000.0),
                high: ("1500".into(), 3500.0),
            }],
        }
    }

    #[test]
    fn a_chart_says_its_title_axes_names_and_marks() {
        let text = Chart::Curves(curves()).svg().unwrap();
        for word in ["Paid so far &lt;own &amp; cloud&gt;", "months", "USD", "owning", "break-even"]
        {
            assert!(text.contains(word), "{word}");
        }
        let text = Chart::Tornado(tornado()).svg().unwrap();
        for word in ["requests_per_day", "500", "1500", "net present value, USD"] {
            assert!(text.contains(word), "{word}");
        }
    }

    #[test]
    fn a_chart_is_written_as_its_ending_says() {
        let folder = tempfile::tempdir().unwrap();
        for chart in [Chart::Curves(curves()), Chart::Tornado(tornado())] {
            let png = folder.path().join("chart.png");
            chart.write(&png).unwrap();
            assert!(fs::read(&png).unwrap().starts_with(b"\x89PNG"));
            chart.write(&folder.path().join("chart.svg")).unwrap();
            let error = chart.write(&folder.path().join("chart.pdf")).unwrap_err().to_string();
            assert!(error.ends_with("let its name end in .svg or .png"), "{error}");
        }
    }

    #[test]
    fn nothing_and_no_number_are_refused() {
        let mut empty = curves();
        empty.lines.clear();
        assert!(Chart::Curves(empty).svg().is_err());
        let mut broken = curves();
        broken.lines[0].points[3].1 = f64::NAN;
        assert!(Chart::Curves(broken).svg().is_err());
        let mut zero = curves();
        zero.is_logarithmic = true;
        assert!(Chart::Curves(zero).svg().is_err());
    }

    #[test]
    fn axes_are_labelled_shortly() {
        let labels = [0.0, 1500.0, -2500.0, 25_000.0, 2e6, 0.25].map(short);
        assert_eq!(labels, ["0", "1,500", "-2,500", "25,000", "2M", "0.25"]);
    }
}
