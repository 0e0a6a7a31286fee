//! The simulation: requests come, are routed to a device, wait, are computed step by step beside
//! others, and end.

use std::collections::HashMap;

use anyhow::ensure;
use serde::Serialize;

use super::asking::{Asked, Asker, Asking};
use super::demand::{Demand, Who};
use super::engine::Engine;
use super::ledger::Ledger;
use super::outcome::{Outcome, Overload};
use super::replica::{Left, Refusal, Replica};
use crate::metrics::Limits;
use crate::units::Nanos;

/// An open loop of which more requests wait than this for each sequence will not recover.
const HOPELESS: u64 = 100;
/// The least that is called so.
const LEAST_HOPELESS: u64 = 1000;

/// Which device a request goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Routing {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The one with the fewest requests for its sequences, waiting or computed.
    LeastLoaded,
    /// A new conversation to the one with the fewest for its speed; its further turns go there too,
    /// to its cache.
    Sticky,
}

/// Devices that serve together, each with the model on its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fleet {
    /// They may differ.
    pub engines: Vec<Engine>,
    /// How requests are shared out.
    pub routing: Routing,
}

/// How much is simulated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Requests that do not count: the queue is not yet what it will be.
    pub run_up: u64,
    /// Requests that count, at most.
    pub requests: u64,
    /// No request begins later.
    pub time: Option<Nanos>,
    /// The second of the day at which it begins.
    pub day_second: f64,
    /// Equal parts into which `time` is cut for `Outcome::bins`.
    pub bins: usize,
}

/// What comes of `demand` on `fleet`; the same for the same `seed`.
///
/// An open loop whose queue grows beyond any use ends with `Outcome::overload`, and all that waited
/// have missed. Errors are of the demand: lengths that cannot be drawn, nobody who asks.
pub fn simulate(
    fleet: &Fleet,
    demand: &Demand,
    limits: &Limits,
    span: &Span,
    seed: u64,
) -> anyhow::Result<Outcome> {
    ensure!(!fleet.engines.is_empty(), "a fleet needs a device");
    for engine in &fleet.engines {
        ensure!(engine.sequences > 0, "{} computes no sequence at all", engine.name);
    }
    let asking = Asking::new(demand, span.time, span.day_second, seed)?;
    let replicas: Vec<_> =
        fleet.engines.iter().map(|engine| Replica::new(engine, demand.mix.turns)).collect();
    let slots: u64 = fleet.engines.iter().map(|engine| u64::from(engine.sequences)).sum();
    let is_open = matches!(demand.who, Who::Rate { .. });
    let simulation = Simulation {
        ends: vec![f64::INFINITY; replicas.len()],
        replicas,
        asking,
        ledger: Ledger::new(limits, span, fleet.engines.len()),
        routing: fleet.routing,
        homes: HashMap::new(),
        talks: vec![0; fleet.engines.len()],
        turn: 0,
        run_up: span.run_up,
        to_ask: span.requests,
        to_answer: 0,
        endless: !matches!(demand.who, Who::Trace { .. }) && span.time.is_none(),
        hopeless: is_open.then(|| (slots * HOPELESS).max(LEAST_HOPELESS)),
        left: Vec::new(),
    };
    Ok(simulation.run())
}

struct Simulation<'a> {
    replicas: Vec<Replica<'a>>,
    /// When each decides anew.
    ends: Vec<f64>,
    asking: Asking<'a>,
    ledger: Ledger<'a>,
    routing: Routing,
    /// Where conversations that go on began, and how many of them each device has.
    homes: HashMap<Asker, usize>,
    talks: Vec<u32>,
    /// The device whose turn it is.
    turn: usize,
    /// Requests that do not count yet.
    run_up: u64,
    /// Requests that count and are still to come.
    to_ask: u64,
    /// Requests that count and are under way.
    to_answer: u64,
    /// Requests would come for ever.
    endless: bool,
    hopeless: Option<u64>,
    left: Vec<Left>,
}

impl Simulation<'_> {
    fn run(mut self) -> Outcome {
        let mut now = 0.0;
        loop {
            let coming = self.asking.peek();
            let (replica, end) = self.next_end();
            match coming {
                Some(at) if at <= end => {
                    now = at;
                    let Some(asked) = self.asking.next() else { break };
                    self.arrive(asked);
                }
                _ if end < f64::INFINITY => {
                    now = end;
                    self.decide(replica);
                }
                _ => break,
            }
            if self.to_ask == 0 && self.to_answer == 0 {
                break;
            }
            let waiting = self.ledger.waiting();
            if self.hopeless.is_some_and(|most| waiting > most) {
                let overload = Overload { at: Nanos::from_seconds(now), waiting };
                return self.ledger.close(now, Some(overload));
            }
        }
        self.ledger.close(now, None)
    }

    /// The device that decides next, and when.
    fn next_end(&self) -> (usize, f64) {
        let mut next = (0, self.ends[0]);
        for (replica, end) in self.ends.iter().enumerate().skip(1) {
            if *end < next.1 {
                next = (replica, *end);
            }
        }
        next
    }

    fn route(&mut self, asked: &Asked) -> usize {
        let replica = match self.routing {
            Routing::RoundRobin => self.turn,
            Routing::LeastLoaded => self.least(|n| self.replicas[n].load()),
            Routing::Sticky => self.home(asked),
        };
        self.turn = (self.turn + 1) % self.replicas.len();
        replica
    }

    fn home(&mut self, asked: &Asked) -> usize {
        if asked.turn.repeated_tokens.0 > 0
            && let Some(home) = self.homes.get(&asked.asker)
        {
            return *home;
        }
        self.leave_home(asked.asker);
        let home = self.least(|n| f64::from(self.talks[n] + 1) * self.replicas[n].full_token());
        self.homes.insert(asked.asker, home);
        self.talks[home] += 1;
        home
    }

    fn leave_home(&mut self, asker: Asker) {
        if let Some(home) = self.homes.remove(&asker) {
            self.talks[home] -= 1;
        }
    }

    /// The device with the least of `load`; equals take turns.
    fn least(&self, load: impl Fn(usize) -> f64) -> usize {
        let count = self.replicas.len();
        let order = (0..count).map(|n| (self.turn + n) % count);
        order.min_by(|a, b| load(*a).total_cmp(&load(*b))).unwrap_or(0)
    }

    fn arrive(&mut self, asked: Asked) {
        let counts = self.run_up == 0 && self.to_ask > 0;
        self.run_up = self.run_up.saturating_sub(1);
        let place = counts.then(|| {
            self.to_ask -= 1;
            self.ledger.ask(asked.at)
        });
        if counts && self.to_ask == 0 {
            // The load goes on until the last that counts is answered.
            if self.endless {
                self.ledger.end(asked.at);
            } else {
                self.asking.close();
            }
        }
        let replica = self.route(&asked);
        match self.replicas[replica].take(asked, place, &mut self.ledger) {
            Ok(()) => {
                self.to_answer += u64::from(counts);
                self.ends[replica] = self.replicas[replica].ends;
            }
            Err(refusal) => {
                if counts {
                    match refusal {
                        Refusal::Queue => self.ledger.outcome.refused += 1,
                        Refusal::TooLong => self.ledger.outcome.too_long += 1,
                    }
                }
                if !self.asking.refused(asked.asker, asked.at) {
                    self.leave_home(asked.asker);
                }
            }
        }
    }

    fn decide(&mut self, replica: usize) {
        self.replicas[replica].end(&mut self.ledger, &mut self.left);
        self.ends[replica] = self.replicas[replica].ends;
        let mut gone = std::mem::take(&mut self.left);
        for left in gone.drain(..) {
            if !self.asking.ended(left.asker, left.at) {
                self.leave_home(left.asker);
            }
            self.to_answer -= u64::from(left.counted);
        }
        self.left = gone;
    }
}
