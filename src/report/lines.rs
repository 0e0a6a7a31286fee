//! Lines through measured points, each with its interval.

use crate::report::Table;
use crate::report::chart::short;
use crate::report::scene::{Anchor, Item, Role, Scene, cut, ticks};
use crate::report::table::Cell;

/// How values grow along an axis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Lines {
    /// What it shows.
    pub title: String,
    /// The axis to the right, with its unit.
    pub x: String,
    /// The axis upwards, with its unit.
    pub y: String,
    /// Whether the axis to the right counts in powers.
    pub is_logarithmic: bool,
    /// The lines.
    pub series: Vec<Series>,
}

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// As the legend says it.
    pub name: String,
    /// From left to right.
    pub points: Vec<Point>,
}

/// One measured point.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// Where it lies.
    pub x: f64,
    /// Its value.
    pub y: f64,
    /// The ends of the value's interval.
    pub interval: Option<(f64, f64)>,
    /// The value as it is written.
    pub shown: String,
}

const PLOT: f64 = 240.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = 20.0;

impl Lines {
    /// Whether no line has two points.
    pub fn is_empty(&self) -> bool {
        !self.series.iter().any(|series| series.points.len() > 1)
    }

    /// The lines in so many pixels.
    pub fn scene(&self, width: f64) -> Scene {
        let mut scene = Scene { width, ..Scene::default() };
        let top = self.legend(&mut scene) + 22.0;
        let bottom = top + PLOT;
        let points = || self.series.iter().flat_map(|s| &s.points);
        let xs = self.xs();
        let (least, most) = match (xs.first(), xs.last()) {
            (Some(least), Some(most)) if most > least => (*least, *most),
            (Some(only), _) => (*only, only + 1.0),
            _ => (0.0, 1.0),
        };
        let is_logarithmic = self.is_logarithmic && least > 0.0;
        let room = width - LEFT - RIGHT;
        let across = |x: f64| {
            let part = if is_logarithmic {
                (x / least).ln() / (most / least).ln()
            } else {
                (x - least) / (most - least)
            };
            LEFT + 10.0 + part * (room - 10.0)
        };
        let highest = points().map(|p| p.y.max(p.interval.map_or(0.0, |i| i.1)));
        let highest = highest.fold(0.0, f64::max).max(f64::MIN_POSITIVE) * 1.05;
        let up = |y: f64| bottom - y / highest * PLOT;

        scene.text((0.0, top - 14.0), cut(&self.y, width), Anchor::Start, Role::Axis);
        for tick in ticks(highest, 5) {
            let y = up(tick);
            scene.items.push(Item::Rule { from: (LEFT, y), to: (width - RIGHT, y) });
            scene.text((LEFT - 6.0, y), short(tick), Anchor::End, Role::Axis);
        }
        let mut last = f64::NEG_INFINITY;
        for &x in &xs {
            // Numbers at the axis keep clear of each other.
            if across(x) - last > 44.0 {
                last = across(x);
                scene.tick_at(last, bottom, bottom + 4.0, short(x));
            }
        }
        scene.text(
            (LEFT + room / 2.0, bottom + 36.0),
            cut(&self.x, width),
            Anchor::Middle,
            Role::Axis,
        );
        for (number, series) in self.series.iter().enumerate() {
            let path = series.points.iter().map(|p| (across(p.x), up(p.y))).collect();
            scene.items.push(Item::Path { points: path, series: number });
            for point in &series.points {
                let x = across(point.x);
                if let Some((low, high)) = point.interval {
                    scene.items.push(Item::Interval { from: (x, up(low)), to: (x, up(high)) });
                }
                scene.items.push(Item::Dot {
                    at: (x, up(point.y)),
                    series: number,
                    says: format!("{} at {}: {}", series.name, short(point.x), point.shown),
                });
            }
        }
        scene.height = bottom + 46.0;
        scene
    }

    fn xs(&self) -> Vec<f64> {
        let mut xs: Vec<_> = self.series.iter().flat_map(|s| &s.points).map(|p| p.x).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        xs
    }

    fn legend(&self, scene: &mut Scene) -> f64 {
        let mut y = 4.0;
        let mut x = 0.0;
        for (number, series) in self.series.iter().enumerate() {
            let name = cut(&series.name, scene.width - 30.0);
            let wide = name.chars().count() as f64 * 7.2 + 44.0;
            if x > 0.0 && x + wide > scene.width {
                (x, y) = (0.0, y + 20.0);
            }
            let middle = y + 10.0;
            let points = vec![(x, middle), (x + 20.0, middle)];
            scene.items.push(Item::Path { points, series: number });
            scene.text((x + 26.0, middle), name, Anchor::Start, Role::Label);
            x += wide;
        }
        y + 24.0
    }

    /// The values behind the lines.
    pub fn values(&self) -> Table {
        let mut table = Table::new(&["what", &format!(">{}", self.x), &format!(">{}", self.y)]);
        for series in &self.series {
            for point in &series.points {
                table.rows.push(vec![
                    Cell::from(series.name.as_str()),
                    Cell::number(short(point.x), Some(point.x)),
                    Cell::number(point.shown.clone(), Some(point.y)),
                ]);
            }
        }
        table
    }
}
