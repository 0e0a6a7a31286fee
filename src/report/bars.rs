//! Bars in groups, each with its interval; or put end to end, where they are parts of a whole.

use crate::report::Table;
use crate::report::chart::short;
use crate::report::scene::{Anchor, Item, Role, Scene, cut, ticks};
use crate::report::table::Cell;

/// Bars from left to right.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Bars {
    /// What it shows.
    pub title: String,
    /// The axis, with its unit.
    pub axis: String,
    /// What the colours stand for.
    pub series: Vec<String>,
    /// The bars of each group are compared with each other.
    pub groups: Vec<Group>,
    /// Whether the bars of a group are parts of a whole.
    pub is_stacked: bool,
}

/// Bars that are compared with each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// What they have in common.
    pub name: String,
    /// The bars.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// Which of the series.
    pub series: usize,
    /// How long it is.
    pub value: f64,
    /// The ends of its interval.
    pub interval: Option<(f64, f64)>,
    /// The value as it is written.
    pub shown: String,
}

const ROW: f64 = 24.0;
const HEADING: f64 = 26.0;
const AXIS: f64 = 44.0;

impl Bars {
    /// Whether there is nothing to draw.
    pub fn is_empty(&self) -> bool {
        !self.groups.iter().any(|group| !group.bars.is_empty())
    }

    /// The bars in so many pixels.
    pub fn scene(&self, width: f64) -> Scene {
        let is_narrow = width < 480.0;
        let longest = self.series.iter().map(|s| s.chars().count()).max().unwrap_or(0) as f64;
        let left = match (self.is_stacked, is_narrow) {
            (true, _) => 0.0,
            (false, true) => (longest * 7.0 + 10.0).clamp(40.0, width * 0.28),
            (false, false) => (longest * 7.0 + 12.0).clamp(60.0, width * 0.3),
        };
        let shown = self.groups.iter().flat_map(|g| &g.bars).map(|b| b.shown.chars().count());
        let right = shown.max().unwrap_or(0) as f64 * 7.2 + 14.0;
        let right = if self.is_stacked { 16.0 } else { right };
        let most = self.most();
        let scale = (width - left - right).max(40.0) / most;
        let mut scene = Scene { width, ..Scene::default() };
        let mut y = if self.is_stacked { self.legend(&mut scene) } else { 4.0 };
        let top = y;
        let mut bars = Vec::new();
        std::mem::swap(&mut bars, &mut scene.items);
        for group in &self.groups {
            let middle = y + HEADING / 2.0;
            let name = cut(&group.name, width);
            scene.text((0.0, middle), name, Anchor::Start, Role::Heading);
            y += HEADING;
            if self.is_stacked {
                self.whole(&mut scene, group, y, scale);
                y += ROW;
            } else {
                for bar in &group.bars {
                    self.bar(&mut scene, group, bar, (left, y), scale);
                    y += ROW;
                }
            }
            y += 8.0;
        }
        for tick in ticks(most, if is_narrow { 3 } else { 6 }) {
            let mut grid = Scene::default();
            grid.tick_at(left + tick * scale, top, y, short(tick));
            bars.extend(grid.items);
        }
        bars.append(&mut scene.items);
        scene.items = bars;
        scene.text(
            (left + most * scale / 2.0, y + 34.0),
            cut(&self.axis, width),
            Anchor::Middle,
            Role::Axis,
        );
        scene.height = y + AXIS;
        scene
    }

    fn bar(&self, scene: &mut Scene, group: &Group, bar: &Bar, at: (f64, f64), scale: f64) {
        let ((left, y), middle) = (at, at.1 + ROW / 2.0);
        let name = self.series.get(bar.series).map_or("", String::as_str);
        scene.text((left - 8.0, middle), cut(name, left - 4.0), Anchor::End, Role::Label);
        scene.items.push(Item::Box {
            x: left,
            y: y + 3.0,
            width: bar.value * scale,
            height: ROW - 6.0,
            series: bar.series,
            says: format!("{}, {name}: {}", group.name, bar.shown),
        });
        let mut end = bar.value;
        if let Some((low, high)) = bar.interval {
            let (from, to) = (left + low * scale, left + high * scale);
            scene.items.push(Item::Interval { from: (from, middle), to: (to, middle) });
            for x in [from, to] {
                let ends = ((x, middle - 4.0), (x, middle + 4.0));
                scene.items.push(Item::Interval { from: ends.0, to: ends.1 });
            }
            end = end.max(high);
        }
        let at = (left + end * scale + 8.0, middle);
        scene.text(at, bar.shown.clone(), Anchor::Start, Role::Value);
    }

    fn whole(&self, scene: &mut Scene, group: &Group, y: f64, scale: f64) {
        let mut x = 0.0;
        for bar in &group.bars {
            let name = self.series.get(bar.series).map_or("", String::as_str);
            scene.items.push(Item::Box {
                x,
                y: y + 3.0,
                width: bar.value * scale,
                height: ROW - 6.0,
                series: bar.series,
                says: format!("{}, {name}: {}", group.name, bar.shown),
            });
            x += bar.value * scale;
        }
    }

    /// What the colours mean, in rows above the bars; gives where they end.
    fn legend(&self, scene: &mut Scene) -> f64 {
        let (mut x, mut y) = (0.0, 4.0);
        for (series, name) in self.series.iter().enumerate() {
            let wide = name.chars().count() as f64 * 7.2 + 34.0;
            if x > 0.0 && x + wide > scene.width {
                (x, y) = (0.0, y + 20.0);
            }
            scene.items.push(Item::Box {
                x,
                y: y + 4.0,
                width: 12.0,
                height: 12.0,
                series,
                says: name.clone(),
            });
            scene.text((x + 18.0, y + 10.0), name.clone(), Anchor::Start, Role::Label);
            x += wide;
        }
        y + 26.0
    }

    fn most(&self) -> f64 {
        let ends = self.groups.iter().map(|group| {
            if self.is_stacked {
                group.bars.iter().map(|bar| bar.value).sum()
            } else {
                let ends = group.bars.iter().map(|b| b.value.max(b.interval.map_or(0.0, |i| i.1)));
                ends.fold(0.0, f64::max)
            }
        });
        let most = ends.fold(0.0, f64::max);
        if most > 0.0 { most } else { 1.0 }
    }

    /// The values behind the bars.
    pub fn values(&self) -> Table {
        let mut table = Table::new(&["of", "what", &format!(">{}", self.axis)]);
        for group in &self.groups {
            for bar in &group.bars {
                let name = self.series.get(bar.series).map_or("", String::as_str);
                table.rows.push(vec![
                    Cell::from(group.name.as_str()),
                    Cell::from(name),
                    Cell::number(bar.shown.clone(), Some(bar.value)),
                ]);
            }
        }
        table
    }
}
