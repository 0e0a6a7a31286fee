//! A chart of measured values: drawn in a page, as SVG and PNG files, and as the table behind it.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use plotters::prelude::*;

use super::Table;
use super::bars::Bars;
use super::chart::{register, said};
use super::lines::Lines;
use super::scene::{Anchor, Role, Scene};

/// A chart of measured values.
#[derive(Clone, Debug, PartialEq)]
pub enum Plot {
    /// Bars in groups.
    Bars(Bars),
    /// Lines through points.
    Lines(Lines),
}

/// Width of the files, and of a wide page's charts.
pub const WIDE: f64 = 720.0;
/// Width of the charts on a telephone.
pub const NARROW: f64 = 340.0;
const MARGIN: f64 = 18.0;
const TITLE: f64 = 34.0;

impl Plot {
    /// What it shows.
    pub fn title(&self) -> &str {
        match self {
            Self::Bars(bars) => &bars.title,
            Self::Lines(lines) => &lines.title,
        }
    }

    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Bars(bars) => bars.is_empty(),
            Self::Lines(lines) => lines.is_empty(),
        }
    }

    /// The values behind the chart.
    pub fn values(&self) -> Table {
        match self {
            Self::Bars(bars) => bars.values(),
            Self::Lines(lines) => lines.values(),
        }
    }

    pub(super) fn scene(&self, width: f64) -> Scene {
        match self {
            Self::Bars(bars) => bars.scene(width),
            Self::Lines(lines) => lines.scene(width),
        }
    }

    /// Writes the chart to a file, as its ending says: `.svg` or `.png`.
    ///
    /// # Errors
    /// Another ending, nothing to draw, or a file that cannot be written.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let shown = path.display();
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("svg") => std::fs::write(path, self.svg()?),
            Some("png") => {
                let (scene, size) = self.sized()?;
                let area = BitMapBackend::new(path, size).into_drawing_area();
                return self.draw(&scene, &area).with_context(|| format!("cannot write '{shown}'"));
            }
            _ => bail!("'{shown}' is no chart: let its name end in .svg or .png"),
        }
        .with_context(|| format!("cannot write '{shown}'"))
    }

    /// The chart as the text of an SVG file.
    ///
    /// # Errors
    /// Nothing to draw.
    pub fn svg(&self) -> anyhow::Result<String> {
        let (scene, size) = self.sized()?;
        let mut text = String::new();
        self.draw(&scene, &SVGBackend::with_string(&mut text, size).into_drawing_area())?;
        Ok(text)
    }

    fn sized(&self) -> anyhow::Result<(Scene, (u32, u32))> {
        ensure!(!self.is_empty(), "the chart '{}' has nothing to draw", self.title());
        register();
        let scene = self.scene(WIDE);
        let size = ((WIDE + 2.0 * MARGIN) as u32, (scene.height + TITLE + 2.0 * MARGIN) as u32);
        Ok((scene, size))
    }

    fn draw<B: DrawingBackend>(
        &self,
        scene: &Scene,
        area: &DrawingArea<B, plotters::coord::Shift>,
    ) -> anyhow::Result<()> {
        area.fill(&WHITE).map_err(said)?;
        let mut title = Scene::default();
        title.text((0.0, 10.0), self.title(), Anchor::Start, Role::Heading);
        title.draw(area, (MARGIN, MARGIN))?;
        scene.draw(area, (MARGIN, MARGIN + TITLE))?;
        area.present().map_err(said)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::bars::{Bar, Group};
    use crate::report::lines::{Point, Series};

    fn bars() -> Plot {
        let bar = |series, value: f64| Bar {
            series,
            value,
            interval: Some((value * 0.9, value * 1.1)),
            shown: format!("{value} ± 10 %"),
        };
        let group = Group {
            name: "<b>model</b> & \"quant\"".to_owned(),
            bars: vec![bar(0, 59.5), bar(1, 35.8)],
        };
        Plot::Bars(Bars {
            title: "Generation <script>".to_owned(),
            axis: "tok/s".to_owned(),
            series: vec!["candle".to_owned(), "llama.cpp".to_owned()],
            groups: vec![group],
            is_stacked: false,
        })
    }

    fn lines() -> Plot {
        let points = [(80.0, 69.5), (2112.0, 41.6)];
        let point = |(x, y): (f64, f64)| Point { x, y, interval: None, shown: y.to_string() };
        Plot::Lines(Lines {
            title: "Generation against context".to_owned(),
            x: "tokens of context".to_owned(),
            y: "tok/s".to_owned(),
            is_logarithmic: true,
            series: vec![Series { name: "candle".to_owned(), points: points.map(point).to_vec() }],
        })
    }

    #[test]
    fn charts_look_as_they_did() {
        insta::assert_snapshot!("bars.svg", bars().svg().unwrap());
        insta::assert_snapshot!("lines.svg", lines().svg().unwrap());
    }

    #[test]
    fn markup_in_a_chart_is_shown_and_not_obeyed() {
        let svg = bars().svg().unwrap();
        assert!(svg.contains("Generation &lt;script&gt;"), "{svg}");
        assert!(!svg.contains("<script") && !svg.contains("<b>"), "{svg}");
    }

    #[test]
    fn a_chart_with_one_point_or_nothing_is_not_drawn() {
        let Plot::Lines(mut lines) = lines() else { unreachable!() };
        lines.series[0].points.pop();
        assert!(Plot::Lines(lines).svg().is_err());
        assert!(Plot::Bars(Bars::default()).svg().is_err());
    }

    #[test]
    fn nothing_is_drawn_outside_of_a_narrow_chart() {
        for plot in [bars(), lines()] {
            let scene = plot.scene(NARROW);
            for item in &scene.items {
                if let super::super::scene::Item::Text { at, text, anchor, .. } = item {
                    let wide = text.chars().count() as f64 * 7.2;
                    let right = match anchor {
                        Anchor::Start => at.0 + wide,
                        Anchor::Middle => at.0 + wide / 2.0,
                        Anchor::End => at.0,
                    };
                    assert!(right <= NARROW + 1.0, "{text} ends at {right}");
                }
            }
        }
    }
}
