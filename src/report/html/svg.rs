//! A chart inside a page: coloured by the page's style, with its values under the pointer.

use std::fmt::Write as _;

use maud::{Markup, html};

use crate::report::scene::{Anchor, Item, Role, Scene};

/// The chart; `class` says for which widths of the page it is.
pub fn markup(scene: &Scene, title: &str, class: &str) -> Markup {
    let view = format!("0 0 {} {}", px(scene.width), px(scene.height));
    html! {
        svg.chart.(class) role="img" aria-label=(title) viewBox=(view) width=(px(scene.width))
            height=(px(scene.height)) {
            @for item in &scene.items { (self::item(item)) }
        }
    }
}

pub(super) fn item(item: &Item) -> Markup {
    match item {
        Item::Box { x, y, width, height, series, says } => html! {
            rect class=(colour(*series)) x=(px(*x)) y=(px(*y)) width=(px(width.max(1.0)))
                height=(px(*height)) rx="2" { title { (says) } }
        },
        Item::Rule { from, to } => line(from, to, "rule"),
        Item::Interval { from, to } => line(from, to, "interval"),
        Item::Path { points, series } => html! {
            path class=(format!("line {}", colour(*series))) d=(path(points)) {}
        },
        Item::Dot { at, series, says } => html! {
            circle class=(colour(*series)) cx=(px(at.0)) cy=(px(at.1)) r="4.5" { title { (says) } }
        },
        Item::Text { at, text, anchor, role } => {
            let anchor = match anchor {
                Anchor::Start => None,
                Anchor::Middle => Some("middle"),
                Anchor::End => Some("end"),
            };
            let role = match role {
                Role::Heading => "heading",
                Role::Label => "label",
                Role::Value => "value",
                Role::Axis => "axis",
            };
            html! {
                text class=(role) x=(px(at.0)) y=(px(at.1)) dy="0.35em" text-anchor=[anchor] { (text) }
            }
        }
    }
}

fn line(from: &(f64, f64), to: &(f64, f64), class: &str) -> Markup {
    html! { line class=(class) x1=(px(from.0)) y1=(px(from.1)) x2=(px(to.0)) y2=(px(to.1)) {} }
}

/// The commands of a path through the points.
pub(super) fn path(points: &[(f64, f64)]) -> String {
    let mut text = String::new();
    for (number, (x, y)) in points.iter().enumerate() {
        let letter = if number == 0 { 'M' } else { 'L' };
        let _ = write!(text, "{letter}{} {}", px(*x), px(*y));
    }
    text
}

/// Colours repeat after seven.
fn colour(series: usize) -> String {
    format!("c{}", series % 7)
}

/// A tenth of a pixel is enough.
pub(super) fn px(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), ToOwned::to_owned)
}
