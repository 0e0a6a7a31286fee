//! The sliders that look up break-even in a grid; the script only looks up and draws.

use maud::{Markup, PreEscaped, html};
use serde_json::json;

use super::svg::{self, px};
use super::table;
use crate::report::chart::short;
use crate::report::explorer::{Axis, Explorer};
use crate::report::plot::{NARROW, WIDE};
use crate::report::scene::{Anchor, Item, Role, Scene, ticks};

const PLOT: f64 = 240.0;
const TOP: f64 = 30.0;
const LEFT: f64 = 46.0;
const RIGHT: f64 = 20.0;

pub fn markup(explorer: &Explorer, number: usize) -> Markup {
    let id = |name: &str| format!("explorer{number}-{name}");
    html! {
        figure.explorer {
            figcaption { "When owning pays back against " (explorer.against) }
            form hidden aria-label="Inputs of the break-even chart" {
                (slider(&explorer.volume, "volume", &id("volume")))
                (slider(&explorer.electricity, "electricity", &id("electricity")))
                (slider(&explorer.hardware, "hardware", &id("hardware")))
            }
            p.answer aria-live="polite" { (explorer.sentence()) }
            (chart(explorer, WIDE, "wide"))
            (chart(explorer, NARROW, "narrow"))
            script type="application/json" { (PreEscaped(data(explorer))) }
            details {
                summary { "The values of this chart, at the prices that it starts with" }
                (table(&explorer.values(), "Break-even by volume"))
            }
            details {
                summary { "Break-even by hardware and electricity price, at the volume that it starts with" }
                (table(&explorer.prices(), "Break-even by price"))
            }
        }
    }
}

fn slider(axis: &Axis, name: &str, id: &str) -> Markup {
    let shown = axis.shown.get(axis.start).map_or("", String::as_str);
    html! {
        div.slider {
            label for=(id) { (axis.name) }
            input type="range" id=(id) name=(name) min="0" step="1" value=(axis.start)
                max=(axis.values.len().saturating_sub(1)) aria-valuetext=(shown);
            output for=(id) { (shown) }
        }
    }
}

/// What the script looks up: texts are made here, so that there is one way to write a number.
fn data(explorer: &Explorer) -> String {
    let answers: Vec<_> = explorer
        .answers
        .iter()
        .map(|answer| {
            let months = answer.break_even;
            json!([
                months.map(|m| (m.0 * 100.0).round() / 100.0),
                months.map(|m| m.to_string()),
                answer.owning.to_string(),
                answer.cloud.to_string()
            ])
        })
        .collect();
    let data = json!({
        "against": explorer.against,
        "life": explorer.life.0,
        "lifeShown": explorer.life.to_string(),
        "volume": explorer.volume.shown,
        "electricity": explorer.electricity.shown,
        "hardware": explorer.hardware.shown,
        "answers": answers,
    });
    // A script ends at `</script`, whatever quotes stand around it.
    data.to_string().replace('<', "\\u003c")
}

/// The curve at the first prices; the script moves it.
fn chart(explorer: &Explorer, width: f64, class: &str) -> Markup {
    let life = explorer.life.0;
    let bottom = TOP + PLOT;
    let (first, last) = match explorer.volume.values.as_slice() {
        [first, .., last] if *first > 0.0 => (*first, *last),
        _ => return html! {},
    };
    let room = width - LEFT - RIGHT;
    let across = |x: f64| LEFT + (x / first).ln() / (last / first).ln() * room;
    let up = |months: f64| bottom - months / life * PLOT;
    let xs: Vec<_> = explorer.volume.values.iter().map(|x| across(*x)).collect();

    let mut scene = Scene::default();
    scene.text((0.0, TOP - 18.0), "months to break-even", Anchor::Start, Role::Axis);
    for tick in month_ticks(life) {
        let y = up(tick);
        scene.items.push(Item::Rule { from: (LEFT, y), to: (width - RIGHT, y) });
        scene.text((LEFT - 6.0, y), short(tick), Anchor::End, Role::Axis);
    }
    let mut power = 10f64.powf(first.log10().ceil());
    while power <= last * 1.0001 {
        scene.tick_at(across(power), bottom, bottom + 4.0, short(power));
        power *= 10.0;
    }
    scene.text(
        (LEFT + room / 2.0, bottom + 36.0),
        explorer.volume.name.clone(),
        Anchor::Middle,
        Role::Axis,
    );
    let (electricity, hardware) = (explorer.electricity.start, explorer.hardware.start);
    let months =
        |volume| explorer.at(electricity, hardware, volume).and_then(|a| a.break_even).map(|m| m.0);
    let mut curve = String::new();
    let mut piece = Vec::new();
    for (volume, x) in xs.iter().enumerate() {
        match months(volume) {
            Some(months) => piece.push((*x, up(months))),
            None => curve.push_str(&svg::path(&std::mem::take(&mut piece))),
        }
    }
    curve.push_str(&svg::path(&piece));
    let here = explorer.volume.start;
    let dot = (xs[here.min(xs.len() - 1)], up(months(here).unwrap_or(life)));
    let places: Vec<_> = xs.iter().map(|x| px(*x)).collect();
    html! {
        svg.chart.(class) role="img" aria-label="Months to break-even by tokens a day"
            viewBox=(format!("0 0 {} {}", px(width), px(bottom + 46.0)))
            width=(px(width)) height=(px(bottom + 46.0))
            data-x=(places.join(" ")) data-top=(px(TOP)) data-bottom=(px(bottom)) {
            @for item in &scene.items { (svg::item(item)) }
            path.line.c0.curve d=(curve) {}
            circle.here class=[months(here).is_none().then_some("never")] cx=(px(dot.0))
                cy=(px(dot.1)) r="6" { title { (explorer.sentence()) } }
        }
    }
}

/// Years, or months of a short life.
fn month_ticks(life: f64) -> Vec<f64> {
    if life < 24.0 {
        return ticks(life, 6);
    }
    (0..).map(|year| f64::from(year) * 12.0).take_while(|m| *m <= life).collect()
}
