//! How much better predictions become with a machine's own records: calibrated on some results,
//! judged by others.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{bail, ensure};

use crate::cmd::host;
use crate::cmd::own_results::{self, OwnResults};
use crate::fit::calibrate::Constants;
use crate::fit::evidence::Quantity;
use crate::fit::local::{self, Explained};
use crate::fit::measured::Point;
use crate::fit::own::Own;
use crate::fit::posynomial;
use crate::fit::speed::Place;
use crate::report::{Section, Table};
use crate::stats;
use crate::units::{Share, significant};

/// A speed that had no part in the calibration, before and after it.
#[derive(Clone, Debug)]
pub struct Judged {
    /// What was measured.
    pub point: Point,
    /// What about it the calibration has not seen.
    pub news: News,
    /// Predicted without the machine's own records.
    pub before: f64,
    /// Predicted with them.
    pub after: f64,
    /// The calibrated interval.
    pub interval: (f64, f64),
}

/// What about a case the calibration has not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// Its model.
    Model,
    /// Its model, and most of its weights are packed as none of the calibration are.
    Packing,
    /// Its quantisation.
    Quant,
    /// Its depth alone.
    Depth,
}

impl News {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Model, Self::Packing, Self::Quant, Self::Depth];

    /// Its words in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Packing => "model, and its packing",
            Self::Quant => "quantisation",
            Self::Depth => "depth",
        }
    }
}

impl Judged {
    /// |predicted / measured − 1| before and after.
    pub fn errors(&self) -> (f64, f64) {
        let error = |predicted: f64| (predicted / self.point.speed - 1.0).abs();
        (error(self.before), error(self.after))
    }

    fn is_covered(&self) -> bool {
        (self.interval.0..=self.interval.1).contains(&self.point.speed)
    }
}

/// What was judged, and how many speeds could not be.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The results that the constants come from.
    pub own: OwnResults,
    /// Speeds that they come from.
    pub used: usize,
    /// Speeds of either results that other programs disturbed.
    pub disturbed: usize,
    /// Every speed that was predicted.
    pub judged: Vec<Judged>,
    /// The folders that these are from.
    pub against: Vec<String>,
}

/// Calibrates on the folders `own` and predicts the cases of `against`.
pub fn judge(
    own: &[PathBuf],
    against: &[PathBuf],
    published: &Constants,
) -> anyhow::Result<Judgement> {
    let own = own_results::read(own)?;
    let held_out = own_results::read(against)?;
    ensure!(
        own.host.label == held_out.host.label,
        "--own is of '{}' and --against of '{}'; give results of one machine",
        own.host.label,
        held_out.host.label
    );
    let machine = host::machine(&own.host, own.speeds.as_ref());
    let shown = Own::of(&own.points, &machine, published);
    let others = Own::of(&held_out.points, &machine, published);
    if shown.points().is_empty() || others.points().is_empty() {
        bail!("no undisturbed speeds of one stream in --own or in --against: measure again");
    }
    let mut judged = Vec::new();
    let mut engines: Vec<&str> = others.points().iter().map(|p| p.engine.as_str()).collect();
    engines.sort_unstable();
    engines.dedup();
    for engine in engines {
        let (Some(constants), Some(device)) = (shown.constants(engine), machine.devices.first())
        else {
            continue;
        };
        let Some(place) = Place::whole(device, engine) else { continue };
        let is_new = |p: &&Point| {
            p.engine == engine && !shown.points().iter().any(|s| s.case_id == p.case_id)
        };
        let points: Vec<&Point> = others.points().iter().filter(is_new).collect();
        let seen: Vec<&Point> = shown.points().iter().filter(|p| p.engine == engine).collect();
        for e in local::explain(&points, &place) {
            judged.push(one(&e, points[e.index], &seen, constants, published));
        }
    }
    ensure!(!judged.is_empty(), "every case of --against is in --own too; give other cases");
    let disturbed =
        |results: &OwnResults| results.points.iter().filter(|p| p.is_disturbed()).count();
    Ok(Judgement {
        used: shown.points().len(),
        disturbed: disturbed(&own) + disturbed(&held_out),
        against: held_out.folders,
        own,
        judged,
    })
}

fn one(
    e: &Explained,
    point: &Point,
    seen: &[&Point],
    constants: &Constants,
    published: &Constants,
) -> Judged {
    let speed = |c: &Constants| e.tokens / posynomial::seconds(&e.terms, &c.theta);
    let after = speed(constants);
    let has_packing = constants.own.as_ref().is_some_and(|own| own.has_packing(e.packing));
    let news = match (
        seen.iter().any(|p| p.model == point.model),
        seen.iter().any(|p| p.quant == point.quant),
    ) {
        (false, _) if has_packing => News::Model,
        (false, _) => News::Packing,
        (true, false) => News::Quant,
        (true, true) => News::Depth,
    };
    let interval = constants.spread(e.class, &e.terms).around(after, None);
    Judged { point: point.clone(), news, before: speed(published), after, interval }
}

/// The median error before and after of those that `chosen` accepts.
pub fn median_errors(judged: &[Judged], chosen: impl Fn(&Judged) -> bool) -> Option<(f64, f64)> {
    let errors: Vec<(f64, f64)> = judged.iter().filter(|j| chosen(j)).map(Judged::errors).collect();
    let before = stats::median(&errors.iter().map(|e| e.0).collect::<Vec<_>>())?;
    let after = stats::median(&errors.iter().map(|e| e.1).collect::<Vec<_>>())?;
    Some((before, after))
}

/// The sections of a report.
pub fn sections(judgement: &Judgement) -> Vec<Section> {
    let Judgement { own, used, disturbed, judged, against } = judgement;
    let mut models: Vec<&str> = own.points.iter().map(|p| p.model.as_str()).collect();
    models.sort_unstable();
    models.dedup();
    let speeds = own.speeds.as_ref();
    let text = vec![
        format!(
            "On {}: constants fitted to {used} speeds of {} ({}), before that only what was \
             published and what the probe says{}; judged by {} speeds of other cases ({}). Speeds \
             that other programs disturbed, by the record's own marks, are left out of both: \
             {disturbed}.",
            own.host.label,
            models.join(" and "),
            own.folders.join(", "),
            speeds.map_or_else(String::new, |s| format!(" ({}, {})", s.bandwidth, s.compute)),
            judged.len(),
            against.join(", "),
        ),
        "Error: the median of |predicted / measured − 1|; coverage: how many measurements lie in \
         the calibrated interval, which should hold 80 %. An engine may have no fast kernel for a \
         way of packing weights that was not measured; no calibration can know that, so such \
         predictions carry a wide interval and a remark."
            .to_owned(),
    ];
    vec![
        Section {
            heading: "Calibrated by a machine's own records".to_owned(),
            text,
            table: Some(summary(judged)),
            ..Section::default()
        },
        Section {
            heading: "Each speed that was judged".to_owned(),
            table: Some(details(judged)),
            ..Section::default()
        },
    ]
}

fn quantity_name(quantity: Quantity) -> &'static str {
    match quantity {
        Quantity::Decode => "decode",
        Quantity::Prefill => "prefill",
    }
}

fn summary(judged: &[Judged]) -> Table {
    let mut table = Table::new(&[
        "speed",
        "engine",
        "new to the calibration",
        ">rows",
        ">error before",
        ">error after",
        ">within 20 % before",
        ">within 20 % after",
        ">coverage",
    ]);
    let mut push = |names: [&str; 3], chosen: &dyn Fn(&Judged) -> bool| {
        let rows: Vec<&Judged> = judged.iter().filter(|j| chosen(j)).collect();
        let Some((before, after)) = median_errors(judged, chosen) else { return };
        let share = |held: &dyn Fn(&Judged) -> bool| {
            let n = rows.iter().filter(|j| held(j)).count();
            Share(n as f64 / rows.len() as f64).to_string()
        };
        let mut row = names.map(str::to_owned).to_vec();
        row.extend([
            rows.len().to_string(),
            Share(before).to_string(),
            Share(after).to_string(),
            share(&|j| j.errors().0 <= 0.2),
            share(&|j| j.errors().1 <= 0.2),
            share(&Judged::is_covered),
        ]);
        table.rows.push(row);
    };
    let engines: BTreeSet<&str> = judged.iter().map(|j| j.point.engine.as_str()).collect();
    for quantity in [Quantity::Decode, Quantity::Prefill] {
        let name = quantity_name(quantity);
        for engine in &engines {
            for news in News::ALL {
                push([name, engine, news.name()], &|j| {
                    j.point.quantity == quantity && j.point.engine == **engine && j.news == news
                });
            }
        }
        for engine in &engines {
            push([name, engine, "all"], &|j| {
                j.point.quantity == quantity && j.point.engine == **engine
            });
        }
        push([name, "all", "all"], &|j| j.point.quantity == quantity);
    }
    push(["all", "all", "all"], &|_| true);
    table
}

fn details(judged: &[Judged]) -> Table {
    let mut table = Table::new(&[
        "speed",
        "engine",
        "model",
        "quant",
        ">prompt",
        ">depth",
        ">measured tok/s",
        ">before",
        ">after",
        ">error",
    ]);
    let mut sorted: Vec<&Judged> = judged.iter().collect();
    sorted.sort_by_key(|j| {
        let p = &j.point;
        (p.quantity, p.engine.clone(), p.model.clone(), p.quant.clone(), p.usage.prompt as u64)
    });
    for j in sorted {
        let p = &j.point;
        let depth = match p.quantity {
            Quantity::Decode => p.usage.cached,
            Quantity::Prefill => p.usage.cached + p.usage.prompt / 2.0,
        };
        let n = |value: f64, digits| significant(value, digits);
        table.rows.push(vec![
            quantity_name(p.quantity).to_owned(),
            p.engine.clone(),
            p.model.clone(),
            p.quant.clone(),
            n(p.usage.prompt, 4),
            n(depth, 4),
            n(p.speed, 3),
            n(j.before, 3),
            format!("{} [{}, {}]", n(j.after, 3), n(j.interval.0, 2), n(j.interval.1, 2)),
            format!("{} %", n((j.after / p.speed - 1.0) * 100.0, 2)),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::constants;
    use crate::report::markdown::Markdown;
    use crate::report::{Render, Report};

    fn folders(names: &[&str]) -> Vec<PathBuf> {
        let results = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("results");
        names.iter().map(|name| results.join(name)).collect()
    }

    fn committed() -> Judgement {
        let own = folders(&OWN);
        judge(&own, &folders(&AGAINST), constants::embedded()).unwrap()
    }

    const OWN: [&str; 2] =
        ["2026-11-21-amd-epyc-2c-24g-calibrate", "2026-11-21-amd-epyc-2c-24g-calibrate-2"];
    const AGAINST: [&str; 2] =
        ["2026-11-21-amd-epyc-2c-24g-heldout-models", "2026-11-21-amd-epyc-2c-24g-heldout-depths"];

    /// The gate: two small models predict four others and other depths.
    #[test]
    fn a_short_run_makes_predictions_for_other_models_as_good_as_required() {
        let judged = committed().judged;
        let models: BTreeSet<&str> = judged
            .iter()
            .filter(|j| matches!(j.news, News::Model | News::Packing))
            .map(|j| j.point.model.as_str())
            .collect();
        assert_eq!(models.len(), 4, "{models:?}");
        for quantity in [Quantity::Decode, Quantity::Prefill] {
            let (before, after) = median_errors(&judged, |j| j.point.quantity == quantity).unwrap();
            assert!(after <= 0.10 && after < before, "{quantity:?}: {before} {after}");
        }
        let covered = judged.iter().filter(|j| j.is_covered()).count() as f64;
        assert!(covered / judged.len() as f64 >= 0.7, "{covered} of {}", judged.len());
    }

    #[test]
    fn the_report_says_what_the_results_say() {
        let report = Report { title: String::new(), sections: sections(&committed()) };
        let mut text = Vec::new();
        Markdown.render(&report, &mut text).unwrap();
        let text = String::from_utf8(text).unwrap();
        let kept = include_str!("../../../reports/accuracy.md");
        assert!(
            kept.contains(text.trim()),
            "reports/accuracy.md is not up to date; it says how to make it. Now:\n{text}"
        );
    }

    #[test]
    fn results_of_two_machines_are_not_mixed_and_the_same_cases_judge_nothing() {
        let own = folders(&OWN[1..]);
        let same = judge(&own, &own, constants::embedded()).unwrap_err().to_string();
        assert!(same.contains("give other cases"), "{same}");
        let missing = judge(&folders(&["nothing"]), &own, constants::embedded());
        let error = format!("{:#}", missing.unwrap_err());
        assert!(error.contains("no folder of results"), "{error}");
    }
}
