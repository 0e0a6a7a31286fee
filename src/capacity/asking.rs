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

/// A conversation: of a user one after the other, of an open loop the asker's only one.
pub type Conversation = u64;

/// Conversations that are drawn to know those that are under way at the start.
const DRAWN: usize = 64;
/// The most that an open loop has under way at the start.
const MOST_UNDER_WAY: f64 = 1e6;
/// Arrivals and pauses are drawn apart from lengths, so that these are the same whatever else is.
const OF_ARRIVALS: u64 = 0x9e37_79b9_7f4a_7c15;
const OF_PAUSES: u64 = 0xd1b5_4a32_d192_ed03;

/// A request that comes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asked {
    /// When, in seconds since the start.
    pub at: f64,
    /// What.
    pub turn: Turn,
    /// Whose.
    pub asker: Asker,
    /// The conversation of whose cache it is a further turn, or the first.
    pub conversation: Conversation,
}

/// Where an asker stands.
#[derive(Clone, Copy, Debug, Default)]
struct Standing {
    talk: Option<Talk>,
    conversation: Conversation,
    /// Requests that they had.
    had: u32,
}

/// A moment as a number that sorts as it does; moments are never negative.
fn key(at: f64) -> u64 {
    at.max(0.0).to_bits()
}

/// All requests to come.
pub struct Asking<'a> {
    demand: &'a Demand,
    lengths: Draw,
    arrivals: Draw,
    pauses: Draw,
    /// By their number.
    users: Vec<Standing>,
    /// Requests that follow on others: moment, asker.
    due: BinaryHeap<Reverse<(u64, Asker)>>,
    /// Conversations of an open loop between two turns.
    between: HashMap<Asker, Standing>,
    /// The next conversation of an open loop.
    next: Option<f64>,
    serial: Asker,
    conversations: Conversation,
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
            lengths: demand.mix.draw(seed)?,
            arrivals: demand.mix.draw(seed ^ OF_ARRIVALS)?,
            pauses: demand.mix.draw(seed ^ OF_PAUSES)?,
            users: Vec::new(),
            due: BinaryHeap::new(),
            between: HashMap::new(),
            next: None,
            serial: 0,
            conversations: 0,
            recorded: Vec::new(),
            replayed: 0,
            until: until.map_or(f64::INFINITY, Nanos::seconds),
            day_second,
            closed: false,
        };
        match demand.who {
            Who::Users { users } => {
                asking.users = vec![Standing::default(); users as usize];
                if asking.is_steady() {
                    asking.users_under_way();
                }
                for user in 0..u64::from(users) {
                    // People do not all begin at once.
                    let at = asking.rest_of_pause();
                    let at = asking.present(user, at);
                    asking.due.push(Reverse((key(at), user)));
                }
            }
            Who::Rate { per_second, arrivals } => {
                asking.next = Some(0.0);
                asking.step_open(per_second, arrivals);
                if asking.is_steady() {
                    asking.conversations_under_way(per_second);
                }
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

    /// Whether it begins in the middle of its load: a day begins in the morning.
    fn is_steady(&self) -> bool {
        self.demand.mix.turns > 1 && self.demand.profile.is_none()
    }

    fn begin(&mut self) -> Conversation {
        self.conversations += 1;
        self.conversations
    }

    /// Where each of some conversations stands after each of its turns.
    fn drawn(&mut self) -> Vec<Vec<Talk>> {
        let turns = self.demand.mix.turns;
        let mut one = || {
            let mut before = None;
            let mut next = |_| *before.insert(self.lengths.turn(before).1);
            (0..turns).map(&mut next).collect()
        };
        (0..DRAWN).map(|_| one()).collect()
    }

    /// Users stand anywhere in their conversations, one in `turns` at the end of one.
    fn users_under_way(&mut self) {
        let drawn = self.drawn();
        for user in 0..self.users.len() {
            let talks = &drawn[self.lengths.one_of(DRAWN)];
            let talk = Some(talks[self.lengths.one_of(talks.len())]);
            self.users[user] = Standing { talk, conversation: self.begin(), had: 0 };
        }
    }

    /// What is left of a pause at any moment: of random ones as much as of a whole one.
    fn rest_of_pause(&mut self) -> f64 {
        let think = self.demand.mix.think;
        match self.demand.pauses {
            Arrivals::Constant => self.pauses.moment(think).seconds(),
            random => think.seconds() * self.pauses.distance(random),
        }
    }

    /// As many conversations pause after each of their turns as begin in the time of a pause.
    fn conversations_under_way(&mut self, per_second: f64) {
        let drawn = self.drawn();
        let think = self.demand.mix.think;
        let pauses = self.demand.mix.turns - 1;
        let count = per_second * think.seconds() * f64::from(pauses);
        for n in 0..count.round().min(MOST_UNDER_WAY) as u64 {
            let had = 1 + (n % u64::from(pauses)) as u32;
            let talk = Some(drawn[self.lengths.one_of(DRAWN)][had as usize - 1]);
            let left = self.rest_of_pause();
            let asker = self.serial;
            self.serial += 1;
            let conversation = self.begin();
            self.between.insert(asker, Standing { talk, conversation, had });
            self.due.push(Reverse((key(left), asker)));
        }
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
                Who::Users { .. } => self.users[asker as usize],
                _ => self.between.remove(&asker).unwrap_or_default(),
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
            return Some(Asked { at, turn, asker, conversation: asker });
        }
        let Who::Rate { per_second, arrivals } = self.demand.who else { return None };
        self.step_open(per_second, arrivals);
        let asker = self.serial;
        self.serial += 1;
        Some(self.ask(at, asker, Standing::default()))
    }

    fn ask(&mut self, at: f64, asker: Asker, before: Standing) -> Asked {
        let (turn, talk) = self.lengths.turn(before.talk);
        let is_further = turn.repeated_tokens.0 > 0;
        let conversation = if is_further { before.conversation } else { self.begin() };
        // A conversation that outgrew its context began anew, and ends no later for that.
        let had = before.had + 1;
        let standing = Standing { talk: Some(talk), conversation, had };
        match self.demand.who {
            Who::Users { .. } => self.users[asker as usize] = standing,
            _ if had < self.demand.mix.turns => {
                self.between.insert(asker, standing);
            }
            _ => {}
        }
        Asked { at, turn, asker, conversation }
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
        let goes_on = match self.demand.who {
            Who::Users { .. } => true,
            Who::Rate { .. } => self.between.contains_key(&asker),
            Who::Trace { .. } => false,
        };
        if !goes_on {
            return false;
        }
        let pause = self.demand.mix.think.seconds();
        let next = at + (pause * self.pauses.distance(self.demand.pauses)).max(least);
        // Of users alone: a conversation that began goes on.
        let next = self.present(asker, next);
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
                return begins - self.day_second + self.pauses.moment(span).seconds();
            }
        }
        f64::INFINITY
    }

    /// Moves on to the next conversation of an open loop: the mean distance in time is longer in
    /// quiet hours.
    fn step_open(&mut self, per_second: f64, arrivals: Arrivals) {
        let mut left = self.arrivals.distance(arrivals) / per_second;
        let Some(mut at) = self.next else { return };
        let Some(profile) = &self.demand.profile else {
            self.next = Some(at + left);
            return;
        };
        while at <= self.until {
            let second = self.day_second + at;
            let share = profile.at(second);
            let hour_left = HOUR - second % HOUR;
            // In an hour without any nothing comes, however short the distance is.
            if share > 0.0 && share * hour_left >= left {
                self.next = Some(at + left / share);
                return;
            }
            left -= share * hour_left;
            at += hour_left;
        }
        self.next = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Tokens;
    use crate::workload::{Length, Mix};

    /// Requests of the first `seconds`, each answered at once: how many, and their mean prompt.
    fn first(who: Who, pauses: Arrivals, seconds: f64) -> (f64, f64) {
        let demand = Demand { mix: mix(), who, pauses, profile: None };
        let mut asking = Asking::new(&demand, None, 0.0, 5).unwrap();
        let (mut count, mut tokens) = (0.0, 0.0);
        while let Some(asked) = asking.next().filter(|asked| asked.at < seconds) {
            count += 1.0;
            tokens += f64::from(asked.turn.prompt_tokens.0);
            asking.ended(asked.asker, asked.at);
        }
        (count, tokens / count)
    }

    fn mix() -> Mix {
        Mix {
            prompt: Length::LogNormal { median: 200.0, p95: 600.0 },
            turns: 20,
            think: Nanos::from_seconds(30.0),
            context: Tokens(8192),
            ..Mix::fixed(Tokens(1), Tokens(100))
        }
    }

    #[test]
    fn a_load_of_conversations_is_at_its_start_what_it_stays() {
        let mean = mix().drawn(1).unwrap().prompt;
        let open = Who::Rate { per_second: 2.0, arrivals: Arrivals::Poisson };
        for pauses in [Arrivals::Constant, Arrivals::Poisson] {
            // 40 requests a second from the first minute on; without those under way, a fifth of it.
            for (who, expected) in [(open, 2400.0), (Who::Users { users: 1200 }, 2400.0)] {
                let (count, prompt) = first(who, pauses, 60.0);
                assert!((count / expected - 1.0).abs() < 0.1, "{who:?} {pauses:?}: {count}");
                assert!((prompt / mean - 1.0).abs() < 0.1, "{who:?}: {prompt} of {mean}");
            }
        }
    }

    #[test]
    fn lengths_are_the_same_whatever_the_pauses_are() {
        let asked = |pauses| {
            let who = Who::Rate { per_second: 2.0, arrivals: Arrivals::Poisson };
            let demand = Demand { mix: Mix { turns: 1, ..mix() }, who, pauses, profile: None };
            let mut asking = Asking::new(&demand, None, 0.0, 5).unwrap();
            let mut next = || {
                let asked = asking.next().unwrap();
                asking.ended(asked.asker, asked.at);
                (asked.at.to_bits(), asked.turn)
            };
            (0..50).map(|_| next()).collect::<Vec<_>>()
        };
        assert_eq!(asked(Arrivals::Constant), asked(Arrivals::Poisson));
    }
}
