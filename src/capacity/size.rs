//! How many devices a load needs under an objective: the smallest number that keeps it with
//! confidence, found by bisection from a bound that the mean work gives.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::demand::{Demand, Who};
use super::engine::Engine;
use super::outcome::{Outcome, Overload};
use super::simulate::{Fleet, Routing, Span, simulate};
use crate::metrics::Limits;
use crate::units::{Nanos, Share};
use crate::workload::{Arrivals, Recorded};

/// Requests of the first look at a fleet, a hundred of them beyond the 99th percentile that is shown;
/// four times as many are asked in the second where these leave it open whether the objective is kept.
const LOOK: u64 = 10_000;
const LOOKS: u32 = 2;
/// The most requests of a look at a load so dense that it needs more of them to become what it stays.
const MOST_LOOKED: u64 = 2_000_000;
/// A queue that grows by so many standard deviations of a random walk grows for ever.
const GROWING: f64 = 5.0;
/// Requests of the first look at those that are each served alone, to see what no number of devices
/// can better.
const ALONE: u64 = 400;
const ALONE_LOOKS: u32 = 3;
/// Seconds between requests that are served alone.
const APART: f64 = 1e5;

/// What is promised, and how the devices share the work.
#[derive(Clone, Debug, PartialEq)]
pub struct Objective {
    /// The limits of a request.
    pub limits: Limits,
    /// The share of the requests that keep all of them: the lower end of its interval must reach
    /// this.
    pub attainment: Share,
    /// How requests are shared out.
    pub routing: Routing,
    /// Devices that are there already and work beside those that are counted.
    pub beside: Vec<Engine>,
    /// The most devices that are tried.
    pub most: u32,
    /// Seeds all arrivals and lengths. Single requests that come at a rate are the same for every
    /// fleet; who waits for answers asks when they come.
    pub seed: u64,
}

/// A fleet under a load.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Devices that are counted.
    pub count: u32,
    /// What came of it.
    pub outcome: Outcome,
    /// Whether the objective is kept with confidence.
    pub kept: bool,
}

/// How many devices it takes.
#[derive(Clone, Debug)]
pub enum Size {
    /// So many, and one fewer is too few.
    Enough(Tried),
    /// More than the objective lets be tried.
    TooMany(Tried),
    /// No number would do: a request that is served alone misses it.
    Never(Tried),
}

impl Size {
    /// The number, where there is one.
    pub fn count(&self) -> Option<u32> {
        if let Self::Enough(tried) = self { Some(tried.count) } else { None }
    }
}

impl Objective {
    /// `count` devices of `engine` beside those that are there.
    pub fn fleet(&self, engine: &Engine, count: u32) -> Fleet {
        let mut engines = self.beside.clone();
        engines.extend(std::iter::repeat_n(engine.clone(), count as usize));
        Fleet { engines, routing: self.routing }
    }

    /// Whether this many devices keep the objective.
    pub fn try_count(&self, engine: &Engine, count: u32, demand: &Demand) -> anyhow::Result<Tried> {
        let (outcome, kept) = self.judge(&self.fleet(engine, count), demand)?;
        Ok(Tried { count, outcome, kept })
    }

    /// Simulates until the interval of the attainment leaves no doubt, or long enough. A trace is all
    /// that is asked of it: its share has no interval.
    fn judge(&self, fleet: &Fleet, demand: &Demand) -> anyhow::Result<(Outcome, bool)> {
        // All that comes is as in the busiest hour.
        let busiest = Demand { profile: None, ..demand.clone() };
        let mut requests = LOOK;
        let mut run_up = LOOK / 4;
        if let Who::Users { users } = demand.who {
            requests = requests.max(4 * u64::from(users));
            run_up = run_up.max(2 * u64::from(users));
        }
        if let Who::Rate { per_second, .. } = demand.who {
            // All sequences are taken only after as many requests as come while one is computed.
            let longest =
                fleet.engines.iter().map(|engine| stay(engine, demand)).fold(0.0, f64::max);
            let meanwhile = per_second * f64::from(demand.mix.turns) * longest;
            requests = requests.max((2.0 * meanwhile) as u64).min(MOST_LOOKED);
            run_up = run_up.max(meanwhile as u64).min(MOST_LOOKED);
        }
        if matches!(demand.who, Who::Trace { .. }) {
            let requests = demand.mix.trace.len() as u64;
            let span = Span { run_up: 0, requests, time: None, day_second: 0.0, bins: 0 };
            let outcome = simulate(fleet, &busiest, &self.limits, &span, self.seed)?;
            let kept = outcome.attainment().is_some_and(|share| share >= self.attainment.0);
            return Ok((outcome, kept));
        }
        for look in 1.. {
            let span = Span { run_up, requests, time: None, day_second: 0.0, bins: 0 };
            let mut outcome = simulate(fleet, &busiest, &self.limits, &span, self.seed)?;
            if grows(&outcome, demand) {
                let (at, waiting) = (outcome.span, outcome.grown);
                outcome.overload.get_or_insert(Overload { at, waiting });
            }
            let interval = outcome.attainment_interval();
            let sure = interval.is_some_and(|i| i.low >= self.attainment.0);
            let out = interval.is_none_or(|i| i.high < self.attainment.0);
            if outcome.overload.is_some() || sure || out || look == LOOKS {
                let kept = sure && outcome.overload.is_none();
                return Ok((outcome, kept));
            }
            requests *= 4;
        }
        unreachable!("the loop above ends with its last look")
    }

    /// What requests get that each have a device of their own; kept where that may suffice.
    pub fn alone(&self, engine: &Engine, demand: &Demand) -> anyhow::Result<Tried> {
        let mut demand = Demand { profile: None, ..demand.clone() };
        let is_trace = matches!(demand.who, Who::Trace { .. });
        let recorded = std::mem::take(&mut demand.mix.trace);
        if !is_trace {
            let arrivals = Arrivals::Constant;
            demand.who = Who::Rate { per_second: 1.0 / APART, arrivals };
        }
        let fleet = Fleet { engines: vec![engine.clone()], routing: self.routing };
        let mut requests = ALONE;
        for look in 1.. {
            if is_trace {
                let every = recorded.len().div_ceil(requests as usize).max(1);
                let apart = |i: usize| Nanos::from_seconds(i as f64 * APART);
                let rows = recorded.iter().step_by(every).enumerate();
                demand.mix.trace =
                    rows.map(|(i, row)| Recorded { start: apart(i), ..*row }).collect();
                demand.who = Who::Trace { speed: 1.0 };
            }
            let span = Span { run_up: 0, requests, time: None, day_second: 0.0, bins: 0 };
            let outcome = simulate(&fleet, &demand, &self.limits, &span, self.seed)?;
            let interval = outcome.attainment_interval();
            let kept = interval.is_some_and(|i| i.high >= self.attainment.0);
            let sure = interval.is_some_and(|i| i.low >= self.attainment.0);
            let is_all = is_trace && requests as usize >= recorded.len();
            if sure || !kept || is_all || look == ALONE_LOOKS {
                return Ok(Tried { count: 1, outcome, kept });
            }
            requests *= 4;
        }
        unreachable!("the loop above ends with its last look")
    }

    /// The smallest number of devices that keeps the objective; `guess` is tried first.
    pub fn size(
        &self,
        engine: &Engine,
        demand: &Demand,
        guess: Option<u32>,
    ) -> anyhow::Result<Size> {
        demand.check()?;
        if !self.beside.is_empty() {
            let none = self.try_count(engine, 0, demand)?;
            if none.kept {
                return Ok(Size::Enough(none));
            }
        }
        let alone = self.alone(engine, demand)?;
        if !alone.kept {
            return Ok(Size::Never(alone));
        }
        let likely = match guess {
            Some(guess) => guess,
            None if self.beside.is_empty() => self.likely(engine, demand)?,
            None => 1,
        };
        // Too few, and enough.
        let mut low = 0;
        let mut enough: Option<Tried> = None;
        let first = likely.clamp(1, self.most);
        let mut next = first;
        let mut missed = None;
        while enough.as_ref().is_none_or(|tried| tried.count > low + 1) {
            let tried = self.try_count(engine, next, demand)?;
            if tried.kept {
                enough = Some(tried);
            } else {
                low = next;
                missed = Some(tried);
            }
            next = match &enough {
                // What is likely and does is right where its neighbour does not.
                Some(tried) if tried.count == first && low + 1 < first => first - 1,
                Some(tried) => low + (tried.count - low) / 2,
                None if low >= self.most => break,
                None => (low * 2).clamp(low + 1, self.most),
            };
        }
        Ok(match (enough, missed) {
            (Some(tried), _) => Size::Enough(tried),
            (None, Some(tried)) => Size::TooMany(tried),
            (None, None) => Size::TooMany(self.try_count(engine, self.most, demand)?),
        })
    }

    /// A number of devices below which the objective is hardly kept, from mean work alone: each
    /// token at the best that any batch makes of it, and users who wait as long as they may. The
    /// search begins there.
    pub fn likely(&self, engine: &Engine, demand: &Demand) -> anyhow::Result<u32> {
        let mix = &demand.mix;
        let drawn = mix.drawn(self.seed)?;
        let own = drawn.prompt - if engine.reuses_prefix { drawn.repeated } else { 0.0 };
        let answer = drawn.answer;
        let step = &engine.step;
        let numbers = |curve: &super::step::Curve, most: u32| {
            let points = curve.points().iter().map(|point| point.0);
            let inside = points.filter(|n| *n >= 1.0 && *n < f64::from(most));
            inside.chain([1.0, f64::from(most.max(1))]).collect::<Vec<_>>()
        };
        let least = |times: Vec<f64>| times.into_iter().fold(f64::INFINITY, f64::min).max(0.0);
        let prompts = numbers(&step.prompt, engine.step_tokens).into_iter();
        let prompt = least(prompts.map(|n| step.prompt.at(n) / n).collect());
        let together = numbers(&step.decode, engine.sequences).into_iter();
        let token = least(together.map(|n| step.decode.at(n) / n).collect());
        // A step with prompts computes a token of every other sequence as one of theirs.
        let with_prompts = own / f64::from(engine.step_tokens) + 2.0;
        let further = (answer - 1.0).max(0.0);
        let beside = further.min(with_prompts * f64::from(engine.sequences));
        let work = own * prompt
            + beside * prompt.min(token)
            + (further - beside) * token
            + step.cached_token * drawn.read;

        // The longest that a request may take and still keep its limits.
        let all = f64::from(engine.sequences);
        let slowest = step.decode.at(all)
            + step.cached_token * engine.cache_tokens() as f64
            + step.prompt.at(f64::from(engine.step_tokens));
        let seconds = |limit: Option<Nanos>| limit.map(Nanos::seconds);
        let each = seconds(self.limits.tpot).map_or(slowest, |limit| limit.min(slowest));
        let by_token = seconds(self.limits.ttft).map(|ttft| ttft + answer * each);
        let by_end = seconds(self.limits.end_to_end);
        let allowed = [by_token, by_end].into_iter().flatten().reduce(f64::min);
        let per_second = match (demand.who, allowed) {
            (Who::Rate { per_second, .. }, _) => per_second * f64::from(mix.turns),
            (_, None) => return Ok(1),
            (Who::Users { users }, Some(allowed)) => {
                f64::from(users) / (mix.think.seconds() + allowed)
            }
            (Who::Trace { speed }, Some(allowed)) => {
                let starts = mix.trace.iter().map(|row| row.start.seconds());
                let (first, last) = starts
                    .fold((f64::INFINITY, 0.0_f64), |(a, b), start| (a.min(start), b.max(start)));
                mix.trace.len() as f64 / ((last - first).max(0.0) / speed + allowed)
            }
        };
        // The share that may miss need not be served at all.
        let needed = per_second * self.attainment.0 * work;
        Ok(needed.ceil().clamp(1.0, f64::from(u32::MAX)) as u32)
    }
}

/// Seconds that a request stays on a device all of whose sequences are taken.
fn stay(engine: &Engine, demand: &Demand) -> f64 {
    let (prompt, answer) = demand.mix.mean();
    let (prompt, answer) = (f64::from(prompt.0), f64::from(answer.0));
    let (step, all) = (&engine.step, f64::from(engine.sequences));
    let cached = (all * (prompt + answer / 2.0)).min(engine.cache_tokens() as f64);
    let token = step.decode.at(all) + step.cached_token * cached;
    let most = f64::from(engine.step_tokens);
    answer * token + (prompt / most).ceil() * step.prompt.at(prompt.min(most))
}

/// Whether the queue of an open loop grew by more than chance lets it: the difference of arrivals and
/// ends is at most a random walk with the variation of both where a device keeps up.
fn grows(outcome: &Outcome, demand: &Demand) -> bool {
    let Who::Rate { arrivals, .. } = demand.who else { return false };
    let variation: f64 = match arrivals {
        Arrivals::Gamma { variation } => variation.max(1.0),
        Arrivals::Constant | Arrivals::Poisson => 1.0,
    };
    let variance = (1.0 + variation * variation) / 2.0 * outcome.asked as f64;
    outcome.grown as f64 > GROWING * variance.sqrt()
}

/// What `of` makes of each number below `count`, in their order, shared out to `threads` threads.
pub fn in_parallel<T: Send>(
    count: usize,
    threads: usize,
    of: impl Fn(usize) -> T + Sync,
) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::with_capacity(count));
    let work = || {
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                break;
            }
            let made = of(i);
            found.lock().expect("no thread panics while it holds the lock").push((i, made));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.clamp(1, count.max(1)) {
            scope.spawn(work);
        }
        work();
    });
    let mut found = found.into_inner().expect("no thread panicked");
    found.sort_by_key(|(i, _)| *i);
    found.into_iter().map(|(_, made)| made).collect()
}
