//! Works the answer out: how many of each machine, what they cost, and what else is to be said of
//! the cheapest.

use anyhow::Context as _;

use crate::capacity::{
    Break, Demand, Engine, Growth, Objective, Outcome, Size, Span, Tried, Who, in_parallel,
    simulate,
};
use crate::cmd::cost::{Owning, Plan, Prices, owning};
use crate::units::{Nanos, Usd, significant};

use super::asked::{Asked, who_words};
use super::engines::Machinery;

/// Requests of a day beyond which it is not simulated.
const DAY_MOST: f64 = 3e6;
/// Requests of an hour that is quieter than the busiest one, to see how long devices compute in it.
const QUIET: u64 = 2000;
/// Multiples of the load in the chart of latencies.
const LADDER: [f64; 8] = [0.1, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0];

/// A machine with the number of it that serves.
#[derive(Clone, Debug)]
pub struct Offer {
    pub machinery: Machinery,
    /// The engine with the best number of slots.
    pub engine: Engine,
    pub size: Size,
    /// At the slow end of the speeds, and at the fast end.
    pub ends: [Size; 2],
    pub owning: Option<Owning>,
    /// Why it has no price.
    pub unpriced: Option<String>,
    pub plan: Option<Plan>,
}

impl Offer {
    pub fn tried(&self) -> &Tried {
        match &self.size {
            Size::Enough(tried) | Size::TooMany(tried) | Size::Never(tried) => tried,
        }
    }

    pub fn count(&self) -> Option<u32> {
        self.size.count()
    }

    /// The numbers at the fast and at the slow end.
    pub fn range(&self) -> (Option<u32>, Option<u32>) {
        (self.ends[1].count(), self.ends[0].count())
    }

    /// The number at the slow end, in words.
    pub fn slow_end(&self) -> String {
        match &self.ends[0] {
            Size::Enough(tried) => tried.count.to_string(),
            Size::TooMany(tried) => format!("> {}", tried.count),
            Size::Never(_) => "never".to_owned(),
        }
    }

    fn month(&self) -> Option<Usd> {
        self.owning.as_ref().map(|owning| owning.usd_per_month)
    }

    /// `2 × rtx-4090`.
    pub fn name(&self) -> String {
        format!("{} × {}", self.tried().count, self.machinery.name)
    }
}

/// A question that changes one thing.
#[derive(Clone, Debug)]
pub struct WhatIf {
    /// What is changed.
    pub change: String,
    /// As many devices as the answer has, or one more or fewer.
    pub tried: Tried,
    /// How many it takes then, where that is not asked already.
    pub needs: Option<Size>,
}

/// A day of the load.
#[derive(Clone, Debug)]
pub enum Day {
    /// By the hour.
    Simulated(Box<Outcome>),
    /// Why not.
    LeftOut(String),
}

/// All about the offer that is recommended.
#[derive(Clone, Debug)]
pub struct Detail {
    pub growth: Growth,
    /// Latencies by the load.
    pub ladder: Vec<(f64, Tried)>,
    pub day: Day,
    pub what_if: Vec<WhatIf>,
}

/// What is to be worked out.
pub struct Question<'a> {
    pub asked: &'a Asked,
    pub objective: Objective,
    /// A number of devices that is there, in place of the search.
    pub count: Option<u32>,
    pub what_if: bool,
    pub threads: usize,
    pub prices: Prices<'a>,
    pub command: String,
}

/// The offers: those that serve first, the cheapest of them first.
pub fn offers(question: &Question<'_>, machines: Vec<Machinery>) -> anyhow::Result<Vec<Offer>> {
    let sized = in_parallel(machines.len(), question.threads, |i| size(question, &machines[i]));
    let mut offers = Vec::with_capacity(machines.len());
    for (machinery, sized) in machines.into_iter().zip(sized) {
        let (engine, size, ends) = sized.with_context(|| machinery.name.clone())?;
        offers.push(price(question, machinery, engine, size, ends));
    }
    offers.sort_by(|a, b| {
        let key = |offer: &Offer| (offer.count().is_none(), offer.month().is_none());
        let cheaper = || a.month().map(|usd| usd.0).cmp(&b.month().map(|usd| usd.0));
        let fewer = || a.tried().count.cmp(&b.tried().count);
        let sooner = || median(a).cmp(&median(b));
        key(a).cmp(&key(b)).then_with(cheaper).then_with(fewer).then_with(sooner)
    });
    Ok(offers)
}

fn median(offer: &Offer) -> Option<Nanos> {
    offer.tried().outcome.ttft.percentile(50.0)
}

fn share(tried: &Tried) -> f64 {
    tried.outcome.attainment().unwrap_or(0.0)
}

/// The number of slots that needs the fewest devices, and of equals the one that keeps the
/// objective best.
fn size(
    question: &Question<'_>,
    machinery: &Machinery,
) -> anyhow::Result<(Engine, Size, [Size; 2])> {
    let (objective, demand) = (&question.objective, &question.asked.demand);
    let of_count = |engine: &Engine, count: u32| -> anyhow::Result<Size> {
        let tried = objective.try_count(engine, count, demand)?;
        Ok(if tried.kept { Size::Enough(tried) } else { Size::TooMany(tried) })
    };
    let mut best: Option<(Engine, Size)> = None;
    for engine in machinery.options.iter().rev() {
        let size = match (&best, question.count) {
            (_, Some(count)) => of_count(engine, count)?,
            (Some((_, Size::Enough(enough))), None) => {
                let at_most = Objective { most: enough.count, ..objective.clone() };
                at_most.size(engine, demand, Some(enough.count))?
            }
            _ => objective.size(engine, demand, None)?,
        };
        let is_better = match (&best, &size) {
            (None, _) | (Some((_, Size::TooMany(_) | Size::Never(_))), Size::Enough(_)) => true,
            (Some((_, Size::Enough(old))), Size::Enough(new)) => {
                new.count < old.count || (new.count == old.count && share(new) > share(old))
            }
            (Some((_, Size::Never(_))), Size::TooMany(_)) => true,
            (Some((_, Size::TooMany(old))), Size::TooMany(new))
            | (Some((_, Size::Never(old))), Size::Never(new)) => share(new) > share(old),
            _ => false,
        };
        // Where fewer slots need more devices, still fewer slots do too.
        let is_past = matches!(
            (&best, &size),
            (Some((_, Size::Enough(_))), Size::TooMany(_) | Size::Never(_))
        );
        if is_better {
            best = Some((engine.clone(), size));
        } else if is_past {
            break;
        }
    }
    let (engine, size) = best.context("a machine without an engine")?;
    let mut ends = Vec::with_capacity(2);
    for step in &machinery.ends {
        let end = Engine { step: step.clone(), ..engine.clone() };
        ends.push(match question.count {
            _ if *step == engine.step => size.clone(),
            Some(count) => of_count(&end, count)?,
            None => objective.size(&end, demand, size.count())?,
        });
    }
    let ends = ends.try_into().ok().context("two ends of an interval")?;
    Ok((engine, size, ends))
}

/// Requests on a day, as many as the busiest hour has in each of `hours`.
fn requests_per_day(demand: &Demand, outcome: &Outcome) -> f64 {
    if let Who::Trace { speed } = demand.who {
        let starts = demand.mix.trace.iter().map(|row| row.start.seconds());
        let last = starts.clone().fold(0.0, f64::max);
        let span = (last - starts.fold(f64::INFINITY, f64::min)) / speed;
        return demand.mix.trace.len() as f64 / span.max(1.0) * 86_400.0;
    }
    let hours: f64 = demand.profile.map_or(24.0, |profile| profile.hours().iter().sum());
    let per_second = outcome.asked as f64 / outcome.span.seconds().max(1e-9);
    per_second * hours * 3600.0
}

fn price(
    question: &Question<'_>,
    machinery: Machinery,
    engine: Engine,
    size: Size,
    ends: [Size; 2],
) -> Offer {
    let mut offer =
        Offer { machinery, engine, size, ends, owning: None, unpriced: None, plan: None };
    let Some(count) = offer.count() else { return offer };
    if count == 0 {
        offer.unpriced = Some("no more of it is needed".to_owned());
        return offer;
    }
    let plan = match plan(question, &offer, count) {
        Ok(plan) => plan,
        Err(error) => {
            offer.unpriced = Some(format!("{error:#}"));
            return offer;
        }
    };
    match &offer.machinery.machine {
        Some(machine) => match owning(&plan, machine, &question.prices) {
            Ok(owning) => offer.owning = Some(owning),
            Err(error) => offer.unpriced = Some(format!("{error:#}")),
        },
        None => offer.unpriced = Some("name the machine with --device".to_owned()),
    }
    offer.plan = Some(plan);
    offer
}

fn plan(question: &Question<'_>, offer: &Offer, count: u32) -> anyhow::Result<Plan> {
    let outcome = &offer.tried().outcome;
    let demand = &question.asked.demand;
    let drawn = demand.mix.drawn(question.objective.seed)?;
    let beside = question.objective.beside.len() as u32;
    let at_work = f64::from(count + beside);
    let busy_seconds = outcome.span.seconds() * outcome.busy * at_work;
    let hours = demand.profile.map_or([1.0; 24], |profile| *profile.hours());
    let active = hours.iter().filter(|share| **share > 0.0).count() as f64;
    let (low, high) = offer.range();
    let is_here = offer.machinery.is_here;
    Ok(Plan {
        device: offer.machinery.machine.as_ref().filter(|_| !is_here).map(|m| m.name.clone()),
        devices: count,
        devices_low: low.unwrap_or(count).min(count),
        devices_high: high.map(|high| high.max(count)),
        basis: offer.machinery.basis.to_string(),
        workload: match beside {
            0 => format!("{} of {}", question.asked.who, question.asked.name),
            _ => format!(
                "what {count} of {at_work} devices serve of {} of {}",
                question.asked.who, question.asked.name
            ),
        },
        beside,
        requests_per_day: requests_per_day(demand, outcome) * f64::from(count) / at_work,
        prompt_tokens: drawn.prompt,
        cached_share: drawn.repeated / drawn.prompt,
        new_tokens: drawn.answer,
        active_hours_per_day: active,
        peak_factor: active / hours.iter().sum::<f64>(),
        busy_factor: busy_factor(question, offer, &hours)?,
        working_days_per_month: question.asked.days_per_month,
        tok_s_per_device: outcome.new_tokens as f64 / busy_seconds.max(1e-9),
        command: question.command.clone(),
    })
}

/// Times as long as at the peak that the devices compute for the same work, over a day whose hours have
/// these shares of the busiest one's load.
fn busy_factor(question: &Question<'_>, offer: &Offer, hours: &[f64; 24]) -> anyhow::Result<f64> {
    let demand = &question.asked.demand;
    let objective = &question.objective;
    let peak = offer.tried().outcome.busy;
    if peak <= 0.0 || demand.profile.is_none() {
        return Ok(1.0);
    }
    let fleet = objective.fleet(&offer.engine, offer.tried().count);
    let busiest = Demand { profile: None, ..demand.clone() };
    let mut known: Vec<(f64, f64)> = vec![(0.0, 0.0), (1.0, peak)];
    let mut busy = 0.0;
    for share in hours {
        let of_hour = known.iter().find(|(known, _)| known == share).map(|(_, busy)| *busy);
        busy += match of_hour {
            Some(busy) => busy,
            None => {
                let quiet = busiest.scaled(*share);
                // Users are whole, and at least one.
                let part = match (demand.who, quiet.who) {
                    (Who::Users { users }, Who::Users { users: asked }) => {
                        f64::from(users) * share / f64::from(asked)
                    }
                    _ => 1.0,
                };
                let run_up = QUIET / 4;
                let span = Span { run_up, requests: QUIET, time: None, day_second: 0.0, bins: 0 };
                let outcome = simulate(&fleet, &quiet, &objective.limits, &span, objective.seed)?;
                known.push((*share, part * outcome.busy));
                part * outcome.busy
            }
        };
    }
    Ok((busy / (peak * hours.iter().sum::<f64>())).max(1.0))
}

/// What is done for the offer that is recommended, each on a thread of its own.
enum Part {
    Growth(Growth),
    Rung(f64, Box<Tried>),
    Day(Box<Day>),
    WhatIf(Box<WhatIf>),
}

/// All about one offer.
pub fn detail(question: &Question<'_>, offer: &Offer) -> anyhow::Result<Detail> {
    let (objective, demand) = (&question.objective, &question.asked.demand);
    let (engine, count) = (&offer.engine, offer.tried().count);
    let fewer = (count > 1).then(|| count - 1);
    let doubled = match question.what_if {
        true => doubled(demand, count, objective.seed)?,
        false => Vec::new(),
    };
    let changes: Vec<(String, u32, Option<Demand>)> = [
        fewer.map(|count| (format!("one device fewer: {count}"), count, None)),
        Some((format!("one device more: {}", count + 1), count + 1, None)),
    ]
    .into_iter()
    .flatten()
    .chain(doubled)
    .collect();
    let factors = multiples(demand);
    let rungs = factors.len();
    let parts = in_parallel(2 + rungs + changes.len(), question.threads, |i| {
        Ok::<_, anyhow::Error>(match i {
            0 => Part::Growth(objective.growth(engine, count, demand)?),
            1 => Part::Day(Box::new(day(question, offer)?)),
            i if i < 2 + rungs => {
                let factor = factors[i - 2];
                let tried = objective.try_count(engine, count, &demand.scaled(factor))?;
                Part::Rung(factor, Box::new(tried))
            }
            i => {
                let (change, count, other) = &changes[i - 2 - rungs];
                let demand = other.as_ref().unwrap_or(demand);
                let tried = objective.try_count(engine, *count, demand)?;
                let needs = match other {
                    Some(demand) if question.count.is_none() => {
                        Some(objective.size(engine, demand, Some(*count))?)
                    }
                    _ => None,
                };
                Part::WhatIf(Box::new(WhatIf { change: change.clone(), tried, needs }))
            }
        })
    });
    let mut growth = None;
    let mut the_day = None;
    let (mut ladder, mut what_if) = (Vec::new(), Vec::new());
    for part in parts {
        match part? {
            Part::Growth(found) => growth = Some(found),
            Part::Rung(factor, tried) => ladder.push((factor, *tried)),
            Part::Day(day) => the_day = Some(*day),
            Part::WhatIf(found) => what_if.push(*found),
        }
    }
    Ok(Detail {
        growth: growth.context("a growth")?,
        ladder,
        day: the_day.context("a day")?,
        what_if,
    })
}

/// The multiples of the load that differ from each other: small numbers of users round to the same
/// one, for which the multiple next to 1 stands.
fn multiples(demand: &Demand) -> Vec<f64> {
    let mut multiples: Vec<f64> = Vec::new();
    for factor in LADDER {
        let who = demand.scaled(factor).who;
        match multiples.last_mut() {
            Some(last) if demand.scaled(*last).who == who => {
                if factor.ln().abs() < last.ln().abs() {
                    *last = factor;
                }
            }
            _ => multiples.push(factor),
        }
    }
    multiples
}

fn doubled(
    demand: &Demand,
    count: u32,
    seed: u64,
) -> anyhow::Result<Vec<(String, u32, Option<Demand>)>> {
    let twice = demand.scaled(2.0);
    let users = format!("twice the load: {}", who_words(&twice.who, &twice.mix));
    let longer = demand.with_longer_prompts(2.0);
    let times = longer.mix.drawn(seed)?.prompt / demand.mix.drawn(seed)?.prompt;
    // By chance a mean of drawn lengths is a little off.
    let prompts = if times > 1.9 {
        "prompts twice as long".to_owned()
    } else {
        let times = significant(times, 3);
        format!("prompts twice as long, cut at {}: {times} times", demand.mix.context)
    };
    Ok(vec![(users, count, Some(twice)), (prompts, count, Some(longer))])
}

fn day(question: &Question<'_>, offer: &Offer) -> anyhow::Result<Day> {
    let demand = &question.asked.demand;
    let mut span = Span { run_up: 0, requests: u64::MAX, time: None, day_second: 0.0, bins: 24 };
    if let Who::Trace { speed } = demand.who {
        let starts = demand.mix.trace.iter().map(|row| row.start.seconds());
        let last = starts.clone().fold(0.0, f64::max);
        let whole = (last - starts.fold(f64::INFINITY, f64::min)) / speed;
        span.time = Some(Nanos::from_seconds(whole.max(1.0) * 1.001));
    } else {
        let requests = requests_per_day(demand, &offer.tried().outcome);
        if requests > DAY_MOST {
            return Ok(Day::LeftOut(format!(
                "a day of {} requests is not simulated",
                crate::units::grouped(requests as u64)
            )));
        }
        span.time = Some(Nanos::from_seconds(86_400.0));
    }
    let objective = &question.objective;
    let fleet = objective.fleet(&offer.engine, offer.tried().count);
    let outcome = simulate(&fleet, demand, &objective.limits, &span, objective.seed)?;
    Ok(Day::Simulated(Box::new(outcome)))
}

/// What breaks in the outcome of an offer.
pub fn breaks(question: &Question<'_>, offer: &Offer, tried: &Tried) -> Break {
    let fleet = question.objective.fleet(&offer.engine, tried.count);
    Break::of(&tried.outcome, &fleet.engines)
}
