//! How much more a fleet carries than it is asked, and what breaks first.

use std::fmt;

use super::demand::{Demand, Who};
use super::engine::{Cache, Engine};
use super::outcome::Outcome;
use super::size::{Objective, Tried};
use crate::units::Nanos;

/// A load that is not counted in users is told to this share.
const CLOSE: f64 = 0.02;
/// The most and the least of the load that are tried.
const MOST: f64 = 64.0;

/// A paged cache that is in use to this share on average turns requests away.
const FULL: f64 = 0.8;
/// Requests that wait for this share of their first token wait for a place, not for long steps.
const WAITED: f64 = 0.3;

/// A fleet under more and less than its load.
#[derive(Clone, Debug)]
pub struct Growth {
    /// The highest load that keeps the objective, as a multiple of the one that is asked; `None`:
    /// not even the least that was tried.
    pub carries: Option<f64>,
    /// The lowest load that was tried and misses it, with what breaks.
    pub breaks: Option<(f64, Break)>,
    /// Every load that was tried, the lightest first.
    pub tried: Vec<(f64, Tried)>,
}

/// What requests miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missed {
    /// The time to first token.
    FirstToken,
    /// The time per output token.
    PerToken,
    /// The whole time.
    Whole,
    /// The queue, which is full.
    Refused,
    /// The cache, which is too small for them alone.
    TooLong,
    /// An end of the queue: no limit is missed yet, and will be.
    Queue,
    /// Nothing.
    Nothing,
}

/// Why they miss it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// More comes than is served: what waits grows for as long as it lasts.
    Overload,
    /// The caches are full.
    CacheFull,
    /// All sequences are taken.
    SlotsTaken,
    /// Steps take longer, the more is in them.
    StepsLong,
    /// Even a request alone takes so long.
    Alone,
    /// They are too few to be sure.
    Few,
}

/// What breaks, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Break {
    /// What most of the requests that miss the objective miss.
    pub missed: Missed,
    /// Why.
    pub cause: Cause,
}

impl Break {
    /// What breaks in an outcome on `engines`.
    pub fn of(outcome: &Outcome, engines: &[Engine]) -> Self {
        let missed = [
            (outcome.too_long, Missed::TooLong),
            (outcome.refused, Missed::Refused),
            (outcome.missed_ttft, Missed::FirstToken),
            (outcome.missed_tpot, Missed::PerToken),
            (outcome.missed_e2e, Missed::Whole),
        ];
        // Of equals the first: what is refused also misses its first token.
        let most = missed.into_iter().rev().max_by_key(|(count, _)| *count);
        let missed = match most {
            Some((1.., missed)) => missed,
            _ if outcome.overload.is_some() => Missed::Queue,
            _ => Missed::Nothing,
        };
        let is_paged = engines.iter().any(|e| matches!(e.cache, Cache::Paged { .. }));
        let cause = if missed == Missed::TooLong {
            Cause::Alone
        } else if missed == Missed::Nothing {
            Cause::Few
        } else if outcome.overload.is_some() {
            Cause::Overload
        } else if is_paged && (outcome.preempted > 0 || outcome.cache > FULL) {
            Cause::CacheFull
        } else if missed == Missed::Refused
            || (missed != Missed::PerToken && waited(outcome) > Some(WAITED))
        {
            Cause::SlotsTaken
        } else {
            Cause::StepsLong
        };
        Self { missed, cause }
    }
}

/// The share of the mean time to first token that requests wait before anything is computed, by
/// Little's law.
fn waited(outcome: &Outcome) -> Option<f64> {
    let mean = outcome.ttft.mean()?.seconds();
    let wait = outcome.waiting * outcome.span.seconds() / outcome.asked.max(1) as f64;
    (mean > 0.0).then_some(wait / mean)
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::FirstToken => "the time to first token",
            Self::PerToken => "the time per output token",
            Self::Whole => "the whole time",
            Self::Refused => "the queue limit",
            Self::TooLong => "the room in the cache",
            Self::Queue => "an end of the queue",
            Self::Nothing => "nothing",
        })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Overload => "more comes than is served, and what waits grows without end",
            Self::CacheFull => "the caches are full, so that requests wait or are put out",
            Self::SlotsTaken => "all sequences are taken, so that requests wait",
            Self::StepsLong => "steps take longer, the more requests share them",
            Self::Alone => "even a request alone needs more",
            Self::Few => "they are too few to be sure",
        })
    }
}

impl Demand {
    /// The same with `factor` times the load; whole users, at least one.
    pub fn scaled(&self, factor: f64) -> Self {
        let who = match self.who {
            Who::Users { users } => {
                let users = (f64::from(users) * factor).round().clamp(1.0, 1e9);
                Who::Users { users: users as u32 }
            }
            Who::Rate { per_second, arrivals } => {
                Who::Rate { per_second: per_second * factor, arrivals }
            }
            Who::Trace { speed } => Who::Trace { speed: speed * factor },
        };
        Self { who, ..self.clone() }
    }

    /// The same with prompts `factor` times as long, within the same context.
    pub fn with_longer_prompts(&self, factor: f64) -> Self {
        let mut demand = self.clone();
        demand.mix.prompt = demand.mix.prompt.scaled(factor);
        let longer = |tokens: u32| {
            (f64::from(tokens) * factor).round().clamp(1.0, f64::from(u32::MAX)) as u32
        };
        for row in &mut demand.mix.trace {
            let room = demand.mix.context.0.saturating_sub(row.new_tokens.0).max(1);
            row.prompt_tokens.0 = longer(row.prompt_tokens.0).min(room);
        }
        demand
    }
}

impl Objective {
    /// How much more or less than `demand` this many devices carry, and what breaks then.
    pub fn growth(&self, engine: &Engine, count: u32, demand: &Demand) -> anyhow::Result<Growth> {
        let mut tried: Vec<(f64, Tried)> = Vec::new();
        let mut ask = |factor: f64| -> anyhow::Result<bool> {
            let one = self.try_count(engine, count, &demand.scaled(factor))?;
            let kept = one.kept;
            tried.push((factor, one));
            Ok(kept)
        };
        // Whole users: less than one more is nothing.
        let least = match demand.who {
            Who::Users { users } => 1.0 / f64::from(users.max(1)),
            _ => 0.0,
        };
        let (mut good, mut bad) = (None, None);
        let mut factor = 1.0;
        loop {
            if ask(factor)? {
                good = Some(factor);
                factor *= 2.0;
            } else {
                bad = Some(factor);
                factor /= 2.0;
            }
            let outside = factor > MOST || factor < (1.0 / MOST).max(0.99 * least);
            if outside || (good.is_some() && bad.is_some()) {
                break;
            }
        }
        if let (Some(mut low), Some(mut high)) = (good, bad) {
            while high - low > (low * CLOSE).max(1.01 * least) {
                let middle = match demand.who {
                    Who::Users { users } => {
                        let users = f64::from(users);
                        ((low + high) / 2.0 * users).round() / users
                    }
                    _ => (low + high) / 2.0,
                };
                if ask(middle)? {
                    low = middle;
                } else {
                    high = middle;
                }
            }
            (good, bad) = (Some(low), Some(high));
        }
        tried.sort_by(|a, b| a.0.total_cmp(&b.0));
        let engines = self.fleet(engine, count).engines;
        let broken = bad.and_then(|bad| tried.iter().find(|(factor, _)| *factor == bad));
        let breaks = broken.map(|(factor, tried)| (*factor, Break::of(&tried.outcome, &engines)));
        Ok(Growth { carries: good, breaks, tried })
    }
}

/// A time that is shown for a share of the requests, with its limit.
pub fn exceeded(missed: Missed, outcome: &Outcome, p: f64) -> Option<Nanos> {
    match missed {
        Missed::FirstToken => outcome.ttft.percentile(p),
        Missed::PerToken => outcome.tpot.percentile(p),
        Missed::Whole => outcome.e2e.percentile(p),
        Missed::Refused | Missed::TooLong | Missed::Queue | Missed::Nothing => None,
    }
}
