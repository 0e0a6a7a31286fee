//! Published loads of vLLM beside what is predicted of them: their parts with the factors of the
//! other loads, the loads simulated, and loads of other cards, which had no part in the factors.

use anyhow::Context;
use serde::Deserialize;

use super::together;
use crate::capacity::{
    Demand, Engine, Fleet, Outcome, Routing, Span, Who, in_parallel, predict_serving, simulate,
    workload::{Arrivals, Mix},
};
use crate::catalog::serving::{self, Load};
use crate::catalog::{self, hardware, models};
use crate::fit::calibrate::Accuracy;
use crate::fit::constants;
use crate::fit::loops::{self, CHECKPOINT, Group, SHAPE, Seen, What};
use crate::fit::serving::Serving;
use crate::fit::vllm::{Checkpoint, Limits};
use crate::fit::work::Work;
use crate::metrics;
use crate::report::{Section, Table};
use crate::stats;
use crate::units::{Nanos, Share, Tokens, or_absent, significant};

/// Loads of other cards, models and versions, by sources that may be cited and not copied: what is
/// derived of each is its speed over that which the simulation gives with the factors of the H100.
/// Worked out on 2026-11-21, with 0.9 of the memory for vLLM, its default then.
const ELSEWHERE: &str = include_str!("elsewhere.csv");

/// One of them.
#[derive(Deserialize)]
struct Elsewhere {
    device: String,
    model: String,
    checkpoint: String,
    users: u32,
    version: String,
    ratio: f64,
    source: String,
}

/// Bytes of a cached value: the loads have caches in 16 bits.
const CACHED_VALUE: f64 = 2.0;

/// What is simulated of a load: closed loops without a pause.
pub(super) struct Loop {
    pub users: u32,
    pub requests: u32,
    pub prompt: u32,
    pub answer: u32,
    /// Tokens that the cache holds.
    pub room: u64,
    pub sequences: u32,
    pub step_tokens: u32,
}

impl Loop {
    /// What comes of it at the slow end, as is likely, and at the fast end.
    pub fn run(&self, serving: &Serving, work: &Work) -> anyhow::Result<[Outcome; 3]> {
        let cached = Tokens(self.prompt + self.answer / 2);
        let sequences = self.sequences.min(self.users);
        let predicted = predict_serving(sequences, cached, CACHED_VALUE, serving, work)?;
        let mix = Mix::fixed(Tokens(self.prompt), Tokens(self.answer));
        let demand = Demand {
            mix,
            who: Who::Users { users: self.users },
            pauses: Arrivals::Constant,
            profile: None,
        };
        let requests = u64::from(self.requests);
        let span = Span { run_up: 0, requests, time: None, day_second: 0.0, bins: 0 };
        let outcome = |step| {
            let engine = Engine {
                sequences: self.sequences,
                step_tokens: self.step_tokens,
                // No prompt begins as another does.
                reuses_prefix: false,
                ..Engine::vllm(step, self.room)
            };
            let fleet = Fleet { engines: vec![engine], routing: Routing::RoundRobin };
            simulate(&fleet, &demand, &metrics::Limits::default(), &span, 1)
        };
        let [slow, likely, fast] = predicted.steps;
        Ok([outcome(slow)?, outcome(likely)?, outcome(fast)?])
    }
}

/// A published load and what was predicted of it.
pub struct Judged {
    /// Tokens a second: measured, at the slow end, as is likely, at the fast end.
    tok_s: [f64; 4],
    /// The 99th percentile of the time to the first token: measured, simulated.
    ttft: [Option<Nanos>; 2],
}

impl Judged {
    /// Predicted over measured, less one.
    pub fn error(&self) -> f64 {
        self.tok_s[2] / self.tok_s[0] - 1.0
    }

    /// Whether the interval holds it.
    pub fn is_inside(&self) -> bool {
        (self.tok_s[1]..=self.tok_s[3]).contains(&self.tok_s[0])
    }
}

fn judged(
    measured: f64,
    ttft: Option<f64>,
    [slow, likely, fast]: &[Outcome; 3],
) -> anyhow::Result<Judged> {
    let speed = |outcome: &Outcome| outcome.system_tok_s().context("a load of no time");
    Ok(Judged {
        tok_s: [measured, speed(slow)?, speed(likely)?, speed(fast)?],
        ttft: [ttft.map(|ms| Nanos::from_seconds(ms / 1e3)), likely.ttft.percentile(99.0)],
    })
}

/// Every embedded load, simulated with the factors of the loads of other shapes.
pub fn held_out(loads: &[Load], seen: &[Seen]) -> anyhow::Result<Vec<Judged>> {
    let mut shapes: Vec<String> = loads.iter().map(Load::shape).collect();
    shapes.sort_unstable();
    shapes.dedup();
    let spread = constants::embedded().pace_spread;
    let paces: Vec<_> = shapes
        .iter()
        .map(|shape| loops::fit(&seen.iter().filter(|s| s.shape != *shape).collect::<Vec<_>>()))
        .collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let judge = |i: usize| {
        let load = &loads[i];
        let device = hardware::find(&load.device, &[])?;
        let shape = load.shape();
        let pace = shapes.iter().position(|s| *s == shape).map(|i| paces[i]);
        let serving = Serving::of(std::slice::from_ref(device), pace.context("its shape")?, spread)
            .with_context(|| format!("the speed of '{}'", device.id))?;
        let limits = Limits::of_device(device);
        let (_, work) = loops::place(load)?;
        let run = Loop {
            users: load.users,
            requests: load.requests,
            prompt: load.prompt_tokens,
            answer: load.new_tokens,
            room: load.cache_tokens.context("the size of its cache")?,
            sequences: limits.requests as u32,
            step_tokens: limits.batch_tokens as u32,
        };
        judged(load.output_tok_s, load.ttft_p99_ms, &run.run(&serving, &work)?)
    };
    in_parallel(loads.len(), threads, judge).into_iter().collect()
}

impl Elsewhere {
    fn all() -> anyhow::Result<Vec<Self>> {
        catalog::rows("elsewhere.csv", ELSEWHERE)
    }

    /// Whether the interval of a prediction holds it.
    fn is_inside(&self) -> anyhow::Result<bool> {
        let device = hardware::find(&self.device, &[])?;
        let constants = constants::embedded();
        let serving =
            Serving::of(std::slice::from_ref(device), constants.pace, constants.pace_spread)
                .with_context(|| format!("the speed of '{}'", device.id))?;
        let work = Checkpoint::parse(&self.checkpoint)?.packed(models::find(&self.model)?)?.work;
        let spread = serving.spread(&work);
        let off = (self.ratio / serving.elsewhere(&work)).ln();
        // Ratios are told to two digits.
        Ok((spread.low - 0.01..=spread.high + 0.01).contains(&off))
    }
}

/// What the parts of the loads, the loads and those of other cards say of the predictions.
pub fn sections(loads: &[Load], seen: &[Seen]) -> anyhow::Result<Vec<Section>> {
    Ok(vec![
        parts(seen),
        simulated(loads, &held_out(loads, seen)?),
        elsewhere()?,
        together::section()?,
    ])
}

fn parts(seen: &[Seen]) -> Section {
    let mut table = super::errors_table("what was held out, and what was predicted");
    let mut push = |group: Group, words: &str| {
        let times = loops::held_out(seen, group);
        let spread = loops::spread(loops::errors(seen, &times));
        let mut add = |name: String, chosen: &dyn Fn(&Seen) -> bool| {
            let found: Option<Accuracy> = loops::accuracy(seen, &times, spread, chosen);
            super::push(&mut table, &name, found);
        };
        for what in What::ALL {
            add(format!("{words}: {}", what.name()), &|s| s.what == what);
        }
        add(format!("{words}: all"), &|_| true);
    };
    push(SHAPE, "lengths of prompts and answers");
    push(CHECKPOINT, "FP8 or BF16");
    Section {
        heading: "Steps of vLLM with several users".to_owned(),
        text: vec![
            "The factors of vLLM's steps were fitted to loads of Qwen3 8B in FP8 and BF16 on one H100 \
             SXM by vLLM 0.30.0 (github:tgarg01/silybench-data @93e4887, CC BY 4.0; \
             src/catalog/serving.csv): closed loops of 1 to 512 users, of which those tell a time that \
             the cache held at once. Each group was predicted with the factors of the others; \
             coverage is of the interval that these errors make, and a prediction for another model \
             has twice that."
                .to_owned(),
        ],
        table: Some(table),
        ..Section::default()
    }
}

fn simulated(loads: &[Load], judged: &[Judged]) -> Section {
    let mut table = Table::new(&[
        "weights",
        ">prompt",
        ">answer",
        ">users",
        ">measured tok/s",
        ">simulated",
        ">error",
        "inside",
        "in the fit",
        ">TTFT p99, measured",
        ">simulated p99",
    ]);
    let two = |v: f64| significant(v, 2);
    let seen = loops::gather(loads).unwrap_or_default();
    for (row, (load, j)) in loads.iter().zip(judged).enumerate() {
        let [measured, low, value, high] = j.tok_s;
        let others = if seen.iter().any(|s| s.row == row) { "other shapes" } else { "never" };
        let yes_or_no = if j.is_inside() { "yes" } else { "no" };
        table.rows.push(vec![
            load.checkpoint.clone(),
            load.prompt_tokens.to_string(),
            load.new_tokens.to_string(),
            load.users.to_string(),
            significant(measured, 3),
            format!("{} [{}, {}]", significant(value, 3), two(low), two(high)),
            format!("{} %", significant(j.error() * 100.0, 2)),
            yes_or_no.to_owned(),
            others.to_owned(),
            or_absent(j.ttft[0]),
            or_absent(j.ttft[1]),
        ]);
    }
    let errors: Vec<f64> = judged.iter().map(|j| j.error().abs()).collect();
    let inside = judged.iter().filter(|j| j.is_inside()).count();
    Section {
        heading: "Loads of vLLM, simulated".to_owned(),
        is_part: true,
        text: vec![format!(
            "The same loads by the simulation of bench capacity, each with factors that were fitted \
             without the loads of its lengths, and the size of the cache that vLLM told. Tokens a \
             second of all users: median error {}, {inside} of {} inside the interval that an answer \
             for this card has. Never in the fit: loads whose requests wait for the cache. The time \
             to the first token is information: a simulated request meets neither network nor \
             tokenizer, and the 99th percentile of a load in which all begin at once is that of the \
             first round.",
            or_absent(stats::median(&errors).map(Share)),
            judged.len(),
        )],
        table: Some(table),
        ..Section::default()
    }
}

fn elsewhere() -> anyhow::Result<Section> {
    let mut table = Table::new(&[
        "device",
        "model",
        "weights",
        ">users",
        "vLLM",
        ">measured / H100's factors",
        "inside",
        "source",
    ]);
    for load in Elsewhere::all()? {
        let yes_or_no = if load.is_inside()? { "yes" } else { "no" };
        let is_said = !load.version.is_empty();
        table.rows.push(vec![
            load.device,
            load.model,
            load.checkpoint,
            load.users.to_string(),
            or_absent(is_said.then_some(load.version)),
            significant(load.ratio, 2),
            yes_or_no.to_owned(),
            load.source,
        ]);
    }
    Ok(Section {
        heading: "vLLM on other cards and with other models".to_owned(),
        is_part: true,
        text: vec![
            "Loads of other cards, models and versions, by sources that may be cited and not copied, \
             had no part in the factors. Their tokens a second, over those that the simulation gives \
             with the factors of the H100 (worked out on 2026-11-21), say how far these carry: a prediction for another card, or for packed weights, is 0.91 of theirs (the \
             median of the dense models below), with an interval from 0.7 to 1.1 of theirs, and from \
             0.4 for mixtures of experts. The slowest dense one is not in the table, as its card is \
             not in the catalogue: Qwen3 8B on an RTX PRO 5000, 0.7. vLLM became faster with experts \
             in four bits between the versions here."
                .to_owned(),
        ],
        table: Some(table),
        ..Section::default()
    })
}

/// The embedded loads and what they tell.
pub fn embedded() -> anyhow::Result<(Vec<Load>, Vec<Seen>)> {
    let loads = serving::all()?;
    let seen = loops::gather(&loads)?;
    Ok((loads, seen))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::markdown::Markdown;
    use crate::report::{Render, Report};

    /// The gate of the simulation with predicted steps.
    #[test]
    fn published_loads_of_other_lengths_are_simulated_within_their_interval() {
        let (loads, seen) = embedded().unwrap();
        let judged = held_out(&loads, &seen).unwrap();
        let errors: Vec<f64> = judged.iter().map(|j| j.error().abs()).collect();
        let median = stats::median(&errors).unwrap();
        let inside = judged.iter().filter(|j| j.is_inside()).count() as f64;
        assert!(median <= 0.05, "{median}");
        assert!(inside / judged.len() as f64 >= 0.8, "{inside} of {}", judged.len());
    }

    #[test]
    fn loads_of_other_cards_lie_in_the_wider_interval() {
        for load in Elsewhere::all().unwrap() {
            assert!(load.is_inside().unwrap(), "{} {}: {}", load.device, load.model, load.ratio);
        }
    }

    #[test]
    fn the_committed_accuracy_has_these_sections() {
        let (loads, seen) = embedded().unwrap();
        let report = Report { title: String::new(), sections: sections(&loads, &seen).unwrap() };
        let mut made = Vec::new();
        Markdown.render(&report, &mut made).unwrap();
        let committed = include_str!("../../../reports/accuracy.md");
        for line in String::from_utf8(made).unwrap().lines().filter(|l| l.starts_with('|')) {
            assert!(committed.contains(line), "remake it with bench calibrate: {line}");
        }
    }
}
