//! Requests in the order in which they come: of users who wait for their answers, at a rate, or of
//! a trace.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use anyhow::ensure;

use super::demand::{Demand, Who};
use crate::units::Nanos;
use crate::workload::{Arrivals, Draw, Recorded, Talk, Turn};

/// Users whose hour begins come within so many seconds, not all at its first.
const GATHERING: f64 = 300.0;
/// Seconds after which who was refused tries again.
const AGAIN: f64 = 1.0;
const HOUR: f64 = 3600.0;

/// Whose request it is: a user, or a conversation of an open loop.
pub type Asker = u64;

/// A request that comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// When, in seconds since the start.
    pub at: f64,
    /// What.
    pub turn: Turn,
    /// Whose.
    pub asker: Asker,
}

/// A moment as a number that sorts as it does; moments are never negative.
fn key(at: f64) -> u64 {
    at.max(0.0).to_bits()
}

/// All requests to come.
pub struct Asking<'a> {
    demand: &'a Demand,
    draw: Draw,
    /// The conversations of users, by their number.
    users: Vec<Option<Talk>>,
    /// Requests that follow on others: moment, asker.
    due: BinaryHeap<Reverse<(u64, Asker)>>,
    /// Conversations of an open loop between two turns, with the requests that they had.
    between: HashMap<Asker, (Talk, u32)>,
    /// The next conversation of an open loop.
    next: Option<f64>,
    serial: Asker,
    recorded: Vec<Recorded>,
    replayed: usize,
    /// No request begins later.
    until: f64,
    /// The second of the day at which it begins.
    day_second: f64,
    /// Ended otherwise.
    closed: bool,
}

impl<'a> Asking<'a> {
    pub fn new(
        demand: &'a Demand,
        until: Option<Nanos>,
        day_second: f64,
        seed: u64,
    ) -> anyhow::Result<Self> {
        demand.check()?;
        ensure!(day_second.is_finite() && day_second >= 0.0, "a day has no second {day_second}");
        let mut asking = Self {
            demand,
            draw: demand.mix.draw(seed)?,
            users: Vec::new(),
            due: BinaryHeap::new(),
            between: HashMap::new(),
            next: None,
            serial: 0,
            recorded: Vec::new(),
            replayed: 0,
            until: until.map_or(f64::INFINITY, Nanos::seconds),
            day_second,
            closed: false,
        };
        match demand.who {
            Who::Users { users } => {
                asking.users = vec![None; users as usize];
                for user in 0..u64::from(users) {
                    // People do not all begin at once.
                    let at = asking.draw.moment(demand.mix.think).seconds();
                    let at = asking.present(user, at);
                    asking.due.push(Reverse((key(at), user)));
                }
            }
            Who::Rate { per_second, arrivals } => {
                asking.next = Some(0.0);
                asking.step_open(per_second, arrivals);
            }
            Who::Trace { speed } => {
                asking.recorded = demand.mix.trace.clone();
                asking.recorded.sort_by_key(|row| row.start);
                let first = asking.recorded.first().map_or(Nanos(0), |row| row.start);
                for row in &mut asking.recorded {
                    row.start = Nanos(((row.start.0 - first.0) as f64 / speed) as u64);
                }
            }
        }
        Ok(asking)
    }

    /// When the next request comes.
    pub fn peek(&self) -> Option<f64> {
        if self.closed {
            return None;
        }
        let due = self.due.peek().map(|Reverse((at, _))| f64::from_bits(*at));
        let recorded = self.recorded.get(self.replayed).map(|row| row.start.seconds());
        let other = self.next.or(recorded);
        let next = match (due, other) {
            (Some(due), Some(other)) => due.min(other),
            (due, other) => due.or(other)?,
        };
        (next <= self.until).then_some(next)
    }

    /// The next request.
    pub fn next(&mut self) -> Option<Asked> {
        let at = self.peek()?;
        if let Some(&Reverse((due, asker))) = self.due.peek()
            && due == key(at)
        {
            self.due.pop();
            let before = match self.demand.who {
                Who::Users { .. } => self.users[asker as usize].map(|talk| (talk, 0)),
                _ => self.between.remove(&asker),
            };
            return Some(self.ask(at, asker, before));
        }
        if let Some(row) = self.recorded.get(self.replayed) {
            let turn = Turn {
                prompt_tokens: row.prompt_tokens,
                repeated_tokens: crate::units::Tokens(0),
                new_tokens: row.new_tokens,
            };
            let asker = self.replayed as Asker;
            self.replayed += 1;
            return Some(Asked { at, turn, asker });
        }
        let Who::Rate { per_second, arrivals } = self.demand.who else { return None };
        self.step_open(per_second, arrivals);
        let asker = self.serial;
        self.serial += 1;
        Some(self.ask(at, asker, None))
    }

    fn ask(&mut self, at: f64, asker: Asker, before: Option<(Talk, u32)>) -> Asked {
        let (turn, talk) = self.draw.turn(before.map(|(talk, _)| talk));
        // A conversation that outgrew its context began anew, and ends no later for that.
        let had = before.map_or(0, |(_, had)| had) + 1;
        match self.demand.who {
            Who::Users { .. } => self.users[asker as usize] = Some(talk),
            _ if had < self.demand.mix.turns => {
                self.between.insert(asker, (talk, had));
            }
            _ => {}
        }
        Asked { at, turn, asker }
    }

    /// The request of `asker` has ended at `at`: they think, and ask on; whether they do.
    pub fn ended(&mut self, asker: Asker, at: f64) -> bool {
        self.go_on(asker, at, 0.0)
    }

    /// The request of `asker` was refused at `at`: who asks again does not do so at once; whether
    /// they do.
    pub fn refused(&mut self, asker: Asker, at: f64) -> bool {
        self.go_on(asker, at, AGAIN)
    }

    fn go_on(&mut self, asker: Asker, at: f64, least: f64) -> bool {
        let pause = self.demand.mix.think.seconds();
        let think = (pause * self.draw.distance(self.demand.pauses)).max(least);
        let next = match self.demand.who {
            Who::Users { .. } => self.present(asker, at + think),
            Who::Rate { .. } if self.between.contains_key(&asker) => at + think,
            _ => return false,
        };
        if next <= self.until {
            self.due.push(Reverse((key(next), asker)));
        }
        next <= self.until
    }

    /// No more requests come.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// When a user who would ask at `at` does: not before an hour in which they are there.
    fn present(&mut self, user: Asker, at: f64) -> f64 {
        let (Some(profile), Who::Users { users }) = (&self.demand.profile, self.demand.who) else {
            return at;
        };
        let there = |share: f64| (user as f64) < (share * f64::from(users)).round();
        let second = self.day_second + at;
        if there(profile.at(second)) {
            return at;
        }
        let hour = (second / HOUR).floor();
        for ahead in 1..=24 {
            let begins = (hour + f64::from(ahead)) * HOUR;
            if there(profile.at(begins)) {
                let span = Nanos::from_seconds(self.demand.mix.think.seconds().max(GATHERING));
                return begins - self.day_second + self.draw.moment(span).seconds();
            }
        }
        f64::INFINITY
    }

    /// Moves on to the next conversation of an open loop: the mean distance in time is longer in
    /// quiet hours.
    fn step_open(&mut self, per_second: f64, arrivals: Arrivals) {
        let mut left = self.draw.distance(arrivals) / per_second;
        let Some(mut at) = self.next else { return };
        let Some(profile) = &self.demand.profile else {
            self.next = Some(at + left);
            return;
        };
        while at <= self.until {
            let second = self.day_second + at;
            let share = profile.at(second);
            let hour_left = HOUR - second % HOUR;
            if share * hour_left >= left {
                self.next = Some(at + left / share);
                return;
            }
            left -= share * hour_left;
            at += hour_left;
        }
        self.next = None;
    }
}
