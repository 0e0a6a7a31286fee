//! The charts: latency against the load, and the queue of a day.

use crate::capacity::{Outcome, Tried, Who};
use crate::report::lines::{Lines, Point, Series};
use crate::report::plot::Plot;
use crate::units::{Nanos, Share, significant};

use super::answer::is_drawable;
use super::asked::Asked;

/// The time to first token against the load, with its limit.
pub fn latencies(asked: &Asked, name: &str, ladder: &[(f64, Tried)]) -> Plot {
    let (axis, of) = match asked.demand.who {
        Who::Users { users } => ("users", f64::from(users)),
        Who::Rate { per_second, .. } => {
            ("requests/s", per_second * f64::from(asked.demand.mix.turns))
        }
        Who::Trace { speed } => ("times as fast as the trace", speed),
    };
    let across = |factor: f64| match asked.demand.who {
        Who::Users { .. } => (factor * of).round().max(1.0),
        _ => factor * of,
    };
    let mut rungs: Vec<&(f64, Tried)> =
        ladder.iter().filter(|(_, tried)| is_drawable(tried)).collect();
    // Beyond the second load that misses, waiting times hide all others.
    let missed = rungs.iter().position(|(_, tried)| !tried.kept);
    rungs.truncate(missed.map_or(rungs.len(), |first| first + 2));
    // Small numbers of users round to the same one.
    rungs.dedup_by(|a, b| across(a.0) == across(b.0));
    let line = |name: &str, p: f64| Series {
        name: name.to_owned(),
        points: rungs
            .iter()
            .filter_map(|(factor, tried)| {
                let time = tried.outcome.ttft.percentile(p)?;
                let (x, y) = (across(*factor), time.seconds());
                Some(Point { x, y, interval: None, shown: time.to_string() })
            })
            .collect(),
    };
    let mut series = vec![line("P50", 50.0), line("P95", 95.0), line("P99", 99.0)];
    if let Some(limit) = asked.limits.ttft {
        let points = rungs.iter().map(|(factor, _)| Point {
            x: across(*factor),
            y: limit.seconds(),
            interval: None,
            shown: limit.to_string(),
        });
        series.push(Series { name: "limit".to_owned(), points: points.collect() });
    }
    Plot::Lines(Lines {
        title: format!("Time to first token of {name}, simulated"),
        x: axis.to_owned(),
        y: "seconds".to_owned(),
        is_logarithmic: false,
        series,
    })
}

/// What waits and what is computed over a day.
pub fn queue(asked: &Asked, name: &str, outcome: &Outcome) -> Plot {
    let is_trace = matches!(asked.demand.who, Who::Trace { .. });
    let (axis, unit) = if is_trace {
        ("minutes since the trace's start", 60.0)
    } else {
        ("hour of the day", 3600.0)
    };
    let line = |name: &str, of: &dyn Fn(&crate::capacity::Bin) -> (f64, String)| Series {
        name: name.to_owned(),
        points: outcome
            .bins
            .iter()
            .map(|bin| {
                let (y, shown) = of(bin);
                Point { x: bin.start.seconds() / unit, y, interval: None, shown }
            })
            .collect(),
    };
    Plot::Lines(Lines {
        title: format!("{} of {name}, simulated", if is_trace { "The trace" } else { "A day" }),
        x: axis.to_owned(),
        y: "requests, mean of the part".to_owned(),
        is_logarithmic: false,
        series: vec![
            line("waiting", &|bin| (bin.waiting, significant(bin.waiting, 2))),
            line("computed", &|bin| {
                let busy = Share(bin.busy);
                let ttft = bin.ttft.map_or_else(String::new, |t: Nanos| format!(", TTFT {t}"));
                (bin.running, format!("{}, busy {busy}{ttft}", significant(bin.running, 2)))
            }),
        ],
    })
}
