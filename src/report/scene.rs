//! What a chart is drawn of, in pixels: laid out once, drawn by every form of a report.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::chart::{COLOURS, said};

/// How a text stands at its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// It starts there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

/// What a text is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The name of a group.
    Heading,
    /// The name of a row or a line.
    Label,
    /// A value.
    Value,
    /// A number at an axis, or the axis' name.
    Axis,
}

/// One thing that is drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// A filled box.
    Box { x: f64, y: f64, width: f64, height: f64, series: usize, says: String },
    /// A thin line of the grid.
    Rule { from: (f64, f64), to: (f64, f64) },
    /// A line that shows an interval.
    Interval { from: (f64, f64), to: (f64, f64) },
    /// A curve.
    Path { points: Vec<(f64, f64)>, series: usize },
    /// A point of a curve.
    Dot { at: (f64, f64), series: usize, says: String },
    /// Words.
    Text { at: (f64, f64), text: String, anchor: Anchor, role: Role },
}

/// A chart of a certain size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scene {
    /// Its width.
    pub width: f64,
    /// Its height.
    pub height: f64,
    /// What is drawn, the lowest first.
    pub items: Vec<Item>,
}

impl Scene {
    /// Adds words.
    pub fn text(&mut self, at: (f64, f64), text: impl Into<String>, anchor: Anchor, role: Role) {
        self.items.push(Item::Text { at, text: text.into(), anchor, role });
    }

    /// Adds an upright line of the grid with its number below.
    pub fn tick_at(&mut self, x: f64, top: f64, bottom: f64, label: String) {
        self.items.push(Item::Rule { from: (x, top), to: (x, bottom) });
        self.text((x, bottom + 14.0), label, Anchor::Middle, Role::Axis);
    }

    /// Draws on a bitmap or into an SVG file, `(0, 0)` at `corner`.
    pub(super) fn draw<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        corner: (f64, f64),
    ) -> anyhow::Result<()> {
        let at = |p: (f64, f64)| ((p.0 + corner.0).round() as i32, (p.1 + corner.1).round() as i32);
        let colour = |series: usize| COLOURS[series % COLOURS.len()];
        for item in &self.items {
            match item {
                Item::Box { x, y, width, height, series, .. } => {
                    let corners = [at((*x, *y)), at((x + width.max(1.0), y + height))];
                    area.draw(&Rectangle::new(corners, colour(*series).filled()))
                }
                Item::Rule { from, to } => {
                    area.draw(&PathElement::new([at(*from), at(*to)], RGBColor(225, 225, 225)))
                }
                Item::Interval { from, to } => {
                    area.draw(&PathElement::new([at(*from), at(*to)], BLACK.stroke_width(2)))
                }
                Item::Path { points, series } => {
                    let points: Vec<_> = points.iter().map(|p| at(*p)).collect();
                    area.draw(&PathElement::new(points, colour(*series).stroke_width(2)))
                }
                Item::Dot { at: point, series, .. } => {
                    area.draw(&Circle::new(at(*point), 4, colour(*series).filled()))
                }
                Item::Text { at: point, text, anchor, role } => {
                    let horizontal = match anchor {
                        Anchor::Start => HPos::Left,
                        Anchor::Middle => HPos::Center,
                        Anchor::End => HPos::Right,
                    };
                    let (size, colour) = match role {
                        Role::Heading => (14, BLACK),
                        Role::Label | Role::Value => (13, BLACK),
                        Role::Axis => (12, RGBColor(90, 90, 90)),
                    };
                    let style = TextStyle::from(("sans-serif", size).into_font())
                        .color(&colour)
                        .pos(Pos::new(horizontal, VPos::Center));
                    area.draw(&Text::new(text.clone(), at(*point), style))
                }
            }
            .map_err(said)?;
        }
        Ok(())
    }
}

/// Round numbers from 0 to `most`, about `count` of them.
pub fn ticks(most: f64, count: usize) -> Vec<f64> {
    if !(most.is_finite() && most > 0.0) {
        return vec![0.0];
    }
    let rough = most / count.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|s| s * power).into_iter().find(|s| *s >= rough);
    let step = step.unwrap_or(rough);
    (0..).map(|i| f64::from(i) * step).take_while(|x| *x <= most * 1.0001).collect()
}

/// The text, cut to what fits in `width` pixels: letters of these sizes are about 7 pixels wide.
pub fn cut(text: &str, width: f64) -> String {
    let room = (width / 7.0).max(1.0) as usize;
    if text.chars().count() <= room {
        return text.to_owned();
    }
    text.chars().take(room.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_end_before_the_largest() {
        assert_eq!(ticks(59.5, 5), [0.0, 20.0, 40.0]);
        assert_eq!(ticks(100.0, 5), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(0.0, 5), [0.0]);
        assert_eq!(ticks(f64::NAN, 5), [0.0]);
    }

    #[test]
    fn a_name_too_long_for_its_place_is_cut() {
        assert_eq!(cut("llama.cpp", 70.0), "llama.cpp");
        assert_eq!(cut("a very long name", 70.0), "a very lo…");
    }
}
