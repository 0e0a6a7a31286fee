//! What is asked of the machines: who sends which requests, over which day, and what is promised.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use rust_decimal::prelude::ToPrimitive;

use crate::capacity::{Demand, Profile, Who};
use crate::cost;
use crate::metrics::Limits;
use crate::scenario::{Scenario, Workload};
use crate::units::{Nanos, Share, Tokens};
use crate::workload::{Arrivals, Length, Mix, Preset, read_trace};

/// The room that a workload of conversations is given at most, where nobody says it.
const ROOM: f64 = 32_768.0;
/// Tokens of a cache are given out in pieces.
const PIECE: u32 = 256;

/// Who asks, for what, and how soon they want it.
#[derive(Debug, clap::Args)]
pub struct AskedArgs {
    /// A scenario whose [workload], [slo] and [prices] hold; flags override them
    pub scenario: Option<PathBuf>,
    /// People or agents who are at work at the same time in the busiest hour
    #[arg(long, value_name = "N", group = "who",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    users: Option<u32>,
    /// Of these, the share that is at it at once in the busiest hour, 0 to 1
    #[arg(long, value_name = "SHARE", requires = "users")]
    active: Option<f64>,
    /// Requests a second in the busiest hour, however long the answers take
    #[arg(long, value_name = "R", group = "who")]
    rate: Option<f64>,
    /// Requests as somebody recorded them: Mooncake JSONL, or CSV with
    /// arrival_s,prompt_tokens,new_tokens
    #[arg(long, value_name = "FILE", group = "who", conflicts_with_all = ["workload",
        "prompt_tokens", "new_tokens", "turns", "think", "arrivals"])]
    trace: Option<PathBuf>,
    /// Plays the trace so many times as fast
    #[arg(long, value_name = "TIMES", requires = "trace", default_value_t = 1.0)]
    speed: f64,
    /// The requests: chat, rag, coding-agent or batch-summary
    #[arg(long, short, value_name = "NAME")]
    workload: Option<String>,
    /// Length of prompts, as 800, or 800..4000: half are shorter than the first, one in twenty
    /// longer than the second
    #[arg(long, value_name = "TOKENS")]
    prompt_tokens: Option<String>,
    /// Length of answers, likewise
    #[arg(long, value_name = "TOKENS")]
    new_tokens: Option<String>,
    /// Requests of a conversation, each with all before in its prompt
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    turns: Option<u32>,
    /// A user's pause before the next request, as 30s: the mean of pauses that vary at random
    #[arg(long, value_name = "TIME")]
    think: Option<String>,
    /// How requests of --rate come: poisson, constant, or bursts=2 (the standard deviation of their
    /// distance over its mean)
    #[arg(long, value_name = "HOW", requires = "rate")]
    arrivals: Option<String>,
    /// The longest prompt with its answer, as 16k
    #[arg(long, short, value_name = "TOKENS")]
    context: Option<String>,
    /// How the day goes: office, always, evening, or 24 weights of its hours; office where it is
    /// left out
    #[arg(long, value_name = "NAME", conflicts_with = "trace")]
    profile: Option<String>,
    /// The longest time to the first token, as 1s or 800ms; 1s where no limit is stated
    #[arg(long, value_name = "TIME")]
    ttft: Option<String>,
    /// The longest time for each further token
    #[arg(long, value_name = "TIME")]
    tpot: Option<String>,
    /// The longest time for a whole request
    #[arg(long, value_name = "TIME")]
    e2e: Option<String>,
    /// The share of the requests that keep all limits: 0.95, or the scenario's
    #[arg(long, value_name = "SHARE")]
    attainment: Option<f64>,
}

/// A named course of a day.
struct Day {
    name: &'static str,
    basis: &'static str,
    weights: [f64; 24],
    /// Days of a month.
    days: f64,
}

/// Assumptions, stated so that they can be argued with.
const DAYS: [Day; 3] = [
    Day {
        name: "office",
        basis: "assumed: work from 8 to 18 with its peaks at 10 and 14 o'clock, a dip at noon, 21 \
                days a month",
        weights: [
            0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.02, 0.1, 0.4, 0.8, 1.0, 0.9, 0.5, 0.8, 1.0, 0.9, 0.7,
            0.4, 0.1, 0.05, 0.02, 0.0, 0.0, 0.0,
        ],
        days: 21.0,
    },
    Day {
        name: "evening",
        basis: "assumed: use at home, most of it between 18 and 23, every day",
        weights: [
            0.2, 0.1, 0.05, 0.02, 0.02, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.25, 0.3, 0.3, 0.3, 0.3,
            0.4, 0.5, 0.7, 0.9, 1.0, 1.0, 0.8, 0.5,
        ],
        days: 30.4375,
    },
    Day {
        name: "always",
        basis: "assumed: as much in every hour of every day",
        weights: [1.0; 24],
        days: 30.4375,
    },
];

/// What is asked, with where its parts come from.
pub struct Asked {
    /// The load.
    pub demand: Demand,
    /// The limits of a request.
    pub limits: Limits,
    /// The share of the requests that keep them.
    pub attainment: Share,
    /// Who asks, in words: `40 users`.
    pub who: String,
    /// Which requests, in words.
    pub requests: String,
    /// The name of the workload.
    pub name: String,
    /// Days of a month in which requests come.
    pub days_per_month: f64,
    /// What was assumed, in sentences.
    pub notes: Vec<String>,
}

impl Asked {
    /// From the flags and the scenario.
    pub fn of(args: &AskedArgs, scenario: Option<&Scenario>) -> anyhow::Result<Self> {
        let mut notes = Vec::new();
        let of_scenario = scenario.and_then(|scenario| scenario.workload.as_ref());
        // A flag that names other requests replaces the scenario's as a whole.
        let replaced = args.workload.is_some() || args.trace.is_some();
        let lengths = of_scenario.filter(|_| !replaced);
        let preset = args.workload.as_ref().or_else(|| lengths.and_then(|w| w.preset.as_ref()));
        let preset = preset.map(|name| Preset::find(name)).transpose()?;
        let mix = mix(args, lengths, preset, &mut notes)?;
        let is_trace = !mix.trace.is_empty();
        let use_ = lengths.and_then(use_of);
        let usual = match &use_ {
            Some(use_) if use_.active_hours_per_day >= 24.into() => "always",
            _ => "office",
        };
        let profile = args.profile.as_deref().unwrap_or(usual);
        let (profile, days, basis) = day(if is_trace { "always" } else { profile })?;
        let stated = lengths.and_then(|w| w.working_days_per_month);
        let stated = stated.or(use_.map(|use_| use_.working_days_per_month));
        let days_per_month = stated.and_then(|days| days.to_f64()).unwrap_or(days);
        let who = who(args, of_scenario, &mix, &profile, &mut notes)?;
        if is_trace {
            notes.push(
                "A trace is simulated as it was recorded; a month of it is that, around the clock."
                    .to_owned(),
            );
        } else {
            notes.push(basis);
        }
        let is_fixed = |length: &Length| matches!(length, Length::Fixed(_));
        let are_alike = is_fixed(&mix.prompt) && is_fixed(&mix.answer) && !is_trace;
        if are_alike && matches!(who, Who::Users { .. }) {
            notes.push(
                "All requests are alike, so that users fall into step as people do not: spread the \
                 lengths, as --prompt-tokens 200..800."
                    .to_owned(),
            );
        }
        let (limits, attainment) = promised(args, scenario, &mut notes)?;
        if let Some(preset) = &preset {
            notes.push(format!("{}: {}.", preset.name, preset.basis));
        }
        let name = preset.map(|preset| preset.name.to_owned());
        let name = name
            .unwrap_or_else(|| if is_trace { "recorded requests" } else { "requests" }.to_owned());
        Ok(Self {
            who: who_words(&who, &mix),
            requests: mix.words(),
            demand: Demand {
                mix,
                who,
                pauses: Arrivals::Poisson,
                profile: (!is_trace).then_some(profile),
            },
            limits,
            attainment,
            name,
            days_per_month,
            notes,
        })
    }

    /// The limits in words: `TTFT 1.00 s, TPOT 50.0 ms`.
    pub fn promise(&self) -> String {
        let Limits { ttft, tpot, end_to_end } = self.limits;
        let part = |name: &str, limit: Option<Nanos>| limit.map(|time| format!("{name} {time}"));
        let parts = [part("TTFT", ttft), part("TPOT", tpot), part("end to end", end_to_end)];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// What `bench cost` assumes of the use that a scenario names.
fn use_of(workload: &Workload) -> Option<cost::Inputs> {
    let preset = cost::Preset::find(workload.preset.as_deref()?).ok()?;
    Some(preset.of(cost::Inputs::blank()))
}

/// Who asks, in words.
pub fn who_words(who: &Who, mix: &Mix) -> String {
    let significant = |value: f64| crate::units::significant(value, 3);
    match who {
        Who::Users { users: 1 } => "1 user".to_owned(),
        Who::Users { users } => format!("{} users", crate::units::grouped(u64::from(*users))),
        Who::Rate { per_second, .. } => {
            format!("{} requests/s", significant(per_second * f64::from(mix.turns)))
        }
        Who::Trace { speed } if (speed - 1.0).abs() < 1e-9 => "the trace".to_owned(),
        Who::Trace { speed } => format!("the trace {} times as fast", significant(*speed)),
    }
}

fn mix(
    args: &AskedArgs,
    scenario: Option<&Workload>,
    preset: Option<Preset>,
    notes: &mut Vec<String>,
) -> anyhow::Result<Mix> {
    let mut trace = scenario.map(|w| w.recorded.clone()).unwrap_or_default();
    if let Some(path) = &args.trace {
        let shown = path.display();
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read '{shown}'"))?;
        trace = read_trace(&text).with_context(|| shown.to_string())?;
    }
    let given = |flag: &str, text: &Option<String>| {
        text.as_ref().map(|text| length(flag, text)).transpose()
    };
    let prompt = given("--prompt-tokens", &args.prompt_tokens)?
        .or_else(|| scenario.and_then(|w| w.prompt_tokens.clone()))
        .or_else(|| preset.map(|preset| preset.prompt()));
    let answer = given("--new-tokens", &args.new_tokens)?
        .or_else(|| scenario.and_then(|w| w.new_tokens.clone()))
        .or_else(|| preset.map(|preset| preset.answer()));
    let (prompt, answer) = match (prompt, answer, trace.is_empty()) {
        // A trace has the lengths of its requests.
        (_, _, false) => (Length::Fixed(Tokens(1)), Length::Fixed(Tokens(1))),
        (Some(prompt), Some(answer), true) => (prompt, answer),
        _ => bail!(
            "no workload: name one with --workload (chat, rag, coding-agent, batch-summary), give a \
             scenario with [workload], a --trace, or --prompt-tokens and --new-tokens"
        ),
    };
    let turns = args.turns.or_else(|| scenario.and_then(|w| w.turns));
    let turns = turns.or(preset.map(|preset| preset.turns)).unwrap_or(1);
    let think = args.think.as_ref().map(|text| time("--think", text)).transpose()?;
    let think = think.or_else(|| scenario.and_then(|w| w.think));
    let think = think.or(preset.map(|preset| preset.think)).unwrap_or(Nanos(0));
    let longest =
        trace.iter().map(|row| row.prompt_tokens.0.saturating_add(row.new_tokens.0)).max();
    let stated = args.context.as_ref().map(|text| crate::cmd::fit::tokens(text)).transpose()?;
    let stated = stated.or_else(|| scenario.and_then(|w| w.context));
    if let (Some(stated), Some(longest)) = (stated, longest) {
        ensure!(
            longest <= stated.0,
            "the trace has a request of {longest} tokens, more than the context of {}; raise \
             --context or shorten the trace",
            stated.0
        );
    }
    let context = match (stated, longest) {
        (Some(stated), _) => stated,
        (None, Some(longest)) => in_pieces(f64::from(longest)),
        (None, None) => {
            let all = f64::from(turns) * (prompt.long() + answer.long());
            let room = in_pieces(all.min(ROOM.max(prompt.long() + answer.long())));
            let cut = if all > ROOM { ", at most 32,768" } else { "" };
            notes.push(format!(
                "Context of {room} tokens: all turns with long prompts and answers{cut} (assumed; \
                 --context)."
            ));
            room
        }
    };
    Ok(Mix { prompt, answer, turns, think, context, trace })
}

fn in_pieces(tokens: f64) -> Tokens {
    let pieces = (tokens / f64::from(PIECE)).ceil().clamp(1.0, f64::from(u32::MAX / PIECE));
    Tokens(pieces as u32 * PIECE)
}

fn who(
    args: &AskedArgs,
    scenario: Option<&Workload>,
    mix: &Mix,
    profile: &Profile,
    notes: &mut Vec<String>,
) -> anyhow::Result<Who> {
    let users = args.users.or_else(|| {
        let is_free = args.rate.is_none() && mix.trace.is_empty();
        let of_day = |w: &Workload| {
            let day = w.preset.as_deref().and_then(|name| cost::Preset::find(name).ok());
            day.and_then(|day| day.users).filter(|_| w.requests_per_day.is_none())
        };
        scenario.and_then(|w| w.users.or_else(|| of_day(w))).filter(|_| is_free)
    });
    if !mix.trace.is_empty() {
        ensure!(
            args.users.is_none() && args.rate.is_none(),
            "the scenario's trace says when requests come; leave --users and --rate out, or give \
             another --workload"
        );
        ensure!(
            args.speed.is_finite() && (1e-3..=1e3).contains(&args.speed),
            "--speed {} cannot be: write 0.001 to 1000",
            args.speed
        );
        return Ok(Who::Trace { speed: args.speed });
    }
    if let Some(users) = users {
        let active = args.active.unwrap_or(1.0);
        ensure!(active > 0.0 && active <= 1.0, "--active {active} is no share; write 0.3");
        let at_once = (f64::from(users) * active).ceil().max(1.0) as u32;
        if args.active.is_some() {
            notes.push(format!("{at_once} of {users} people are at it at once (--active)."));
        }
        return Ok(Who::Users { users: at_once });
    }
    let arrivals = match args.arrivals.as_deref() {
        Some(text) => arrivals(text)?,
        None => scenario.and_then(|w| w.arrivals).unwrap_or(Arrivals::Poisson),
    };
    let turns = f64::from(mix.turns);
    if let Some(rate) = args.rate {
        ensure!(
            rate.is_finite() && (1e-6..=1e6).contains(&rate),
            "--rate {rate} cannot be: write requests a second, 0.000001 to 1000000"
        );
        return Ok(Who::Rate { per_second: rate / turns, arrivals });
    }
    let of_use = |w: &Workload| Some(use_of(w)?.requests_per_day);
    let requests =
        scenario.and_then(|w| w.requests_per_day.map(|r| r.likely).or_else(|| of_use(w)));
    if let Some(requests) = requests {
        let requests = requests.to_f64().unwrap_or(f64::NAN);
        let hours: f64 = profile.hours().iter().sum();
        notes.push(format!(
            "{} requests a day over the hours of the profile: {} a second in the busiest one.",
            crate::units::grouped(requests as u64),
            crate::units::significant(requests / hours / 3600.0, 3)
        ));
        return Ok(Who::Rate { per_second: requests / hours / 3600.0 / turns, arrivals });
    }
    bail!("who asks? Say --users N, --rate R or --trace FILE")
}

fn arrivals(text: &str) -> anyhow::Result<Arrivals> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("poisson", "") => Ok(Arrivals::Poisson),
        ("constant", "") => Ok(Arrivals::Constant),
        ("bursts", number) => match number.parse::<f64>() {
            Ok(variation) if (0.01..=100.0).contains(&variation) => {
                Ok(Arrivals::Gamma { variation })
            }
            _ => bail!("--arrivals {text}: write bursts=2; 1 is poisson, more comes in bursts"),
        },
        _ => bail!("unknown arrivals '{text}'; write poisson, constant or bursts=2"),
    }
}

/// The course of a day, the days of a month, and what was assumed.
fn day(word: &str) -> anyhow::Result<(Profile, f64, String)> {
    if let Some(day) = DAYS.iter().find(|day| day.name == word) {
        let basis = format!("Day '{}': {}.", day.name, day.basis);
        return Ok((Profile::new(day.weights)?, day.days, basis));
    }
    if !word.contains(',') {
        let names = DAYS.map(|day| day.name);
        let near = crate::scenario::nearest(word, names);
        let near = near.map_or(String::new(), |near| format!("; did you mean '{near}'?"));
        bail!("unknown day '{word}'{near} There are {}, or 24 weights", names.join(", "));
    }
    let weights: Vec<f64> = word
        .split(',')
        .map(|part| {
            let weight = part.trim().parse().ok();
            weight.with_context(|| format!("--profile: '{part}' is no weight; write 24 numbers"))
        })
        .collect::<anyhow::Result<_>>()?;
    let count = weights.len();
    let weights: [f64; 24] = weights.try_into().ok().with_context(|| {
        format!("--profile has {count} weights; a day has 24 hours, from midnight on")
    })?;
    let basis = "Day of stated weights, 21 days a month assumed.".to_owned();
    Ok((Profile::new(weights)?, 21.0, basis))
}

fn promised(
    args: &AskedArgs,
    scenario: Option<&Scenario>,
    notes: &mut Vec<String>,
) -> anyhow::Result<(Limits, Share)> {
    let of_scenario = scenario.and_then(|scenario| scenario.slo);
    let flag =
        |name: &str, text: &Option<String>| text.as_ref().map(|text| time(name, text)).transpose();
    let (ttft, tpot) = (flag("--ttft", &args.ttft)?, flag("--tpot", &args.tpot)?);
    let mut limits = Limits {
        ttft: ttft.or(of_scenario.and_then(|slo| slo.ttft)),
        tpot: tpot.or(of_scenario.and_then(|slo| slo.tpot)),
        end_to_end: flag("--e2e", &args.e2e)?.or(of_scenario.and_then(|slo| slo.e2e)),
    };
    if limits.ttft.is_none() && limits.tpot.is_none() && limits.end_to_end.is_none() {
        limits.ttft = Some(Nanos(1_000_000_000));
        notes.push("No limit was stated: first words within a second are assumed.".to_owned());
    }
    let attainment = args.attainment.or(of_scenario.map(|slo| slo.attainment.0)).unwrap_or(0.95);
    ensure!(
        (0.5..=0.999).contains(&attainment),
        "--attainment {attainment} cannot be: write a share from 0.5 to 0.999"
    );
    Ok((limits, Share(attainment)))
}

/// `800`, or `800..4000` for the median and the 95th percentile.
fn length(flag: &str, text: &str) -> anyhow::Result<Length> {
    let tokens = |text: &str| {
        crate::cmd::fit::tokens(text).with_context(|| format!("{flag} {text}")).map(|t| t.0)
    };
    let length = match text.split_once("..") {
        None => Length::Fixed(Tokens(tokens(text)?)),
        Some((median, p95)) => {
            let (median, p95) = (tokens(median)?, tokens(p95)?);
            ensure!(
                p95 > median,
                "{flag} {text}: the second number, which one in twenty exceeds, must be above the \
                 first, which half exceed"
            );
            Length::LogNormal { median: f64::from(median), p95: f64::from(p95) }
        }
    };
    length.check().with_context(|| format!("{flag} {text}"))?;
    Ok(length)
}

/// `1s`, `800ms`, `2min`.
fn time(flag: &str, text: &str) -> anyhow::Result<Nanos> {
    let word = text.trim();
    let unit_at = word.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(word.len());
    let (number, unit) = word.split_at(unit_at);
    let factor = match unit {
        "ms" => 1e-3,
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        _ => bail!("{flag} {text}: write a time with its unit, as 1s, 800ms or 2min"),
    };
    match number.trim().parse::<f64>() {
        Ok(value) if (0.0..=86_400.0).contains(&(value * factor)) && value > 0.0 => {
            Ok(Nanos::from_seconds(value * factor))
        }
        _ => bail!("{flag} {text}: write a time above 0 and of at most a day, as 1s or 800ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(time("--ttft", "800ms").unwrap(), Nanos(800_000_000));
        assert_eq!(time("--ttft", "1.5 s").unwrap(), Nanos(1_500_000_000));
        for wrong in ["1", "s", "-1s", "0s", "2 days", "1e99s", "NaNs"] {
            assert!(time("--ttft", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_length_is_a_number_or_a_median_and_a_tail() {
        assert_eq!(length("-", "800").unwrap(), Length::Fixed(Tokens(800)));
        let spread = Length::LogNormal { median: 800.0, p95: 4096.0 };
        assert_eq!(length("-", "800..4k").unwrap(), spread);
        for wrong in ["0", "4k..800", "x", "..", "800.."] {
            assert!(length("-", wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_day_has_24_hours_and_a_name_that_is_known() {
        let (profile, ..) = day("office").unwrap();
        assert_eq!(profile.peak(), 10);
        let flat = vec!["2"; 24].join(",");
        assert_eq!(day(&flat).unwrap().0.hours(), &[1.0; 24]);
        assert!(day("1,2").err().unwrap().to_string().contains("2 weights"));
        assert!(day("ofice").err().unwrap().to_string().contains("did you mean 'office'?"));
    }
}
