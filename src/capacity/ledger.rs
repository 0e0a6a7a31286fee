//! What is counted while the simulation goes: requests by their outcome, and areas under the
//! numbers that change with time.

use super::outcome::{Bin, Outcome, Overload, in_pairs};
use super::simulate::Span;
use crate::metrics::Limits;
use crate::units::Nanos;

/// Runs of consecutive requests are joined in pairs where there would be more.
const MOST_RUNS: usize = 128;

/// An answered request.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// Its place among those that count.
    pub place: u64,
    /// When it was asked.
    pub asked: f64,
    /// Its first token, after that.
    pub ttft: f64,
    /// Its last token, after that.
    pub e2e: f64,
    /// Its tokens.
    pub new_tokens: u32,
}

/// What a device computed.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Sequences.
    pub running: f64,
    /// Tokens that it made.
    pub tokens: f64,
    /// The share of its cache in use, in the mean.
    pub mean: f64,
    /// The same at the end.
    pub most: f64,
}

/// Means over time are areas divided by it.
#[derive(Clone, Copy, Debug, Default)]
struct Areas {
    waiting: f64,
    running: f64,
    busy: f64,
    cache: f64,
}

/// The books.
pub struct Ledger<'a> {
    limits: &'a Limits,
    pub outcome: Outcome,
    run_length: u64,
    /// When counting began.
    begun: Option<f64>,
    /// Nothing later counts.
    ended: f64,
    areas: Areas,
    bins: Vec<Areas>,
    bin_seconds: f64,
    first_tokens: Vec<(f64, u64)>,
    /// Requests that wait, since when.
    waiting: u64,
    waiting_since: f64,
    /// Those that waited when counting began, and when it ended.
    waited: [u64; 2],
    devices: f64,
}

impl<'a> Ledger<'a> {
    pub fn new(limits: &'a Limits, span: &Span, devices: usize) -> Self {
        let bins = span.time.map_or(0, |_| span.bins);
        let bin_seconds = span.time.map_or(0.0, |time| time.seconds() / bins.max(1) as f64);
        let empty =
            |bin| Bin { start: Nanos::from_seconds(bin as f64 * bin_seconds), ..Bin::default() };
        let outcome = Outcome { bins: (0..bins).map(empty).collect(), ..Outcome::default() };
        Self {
            limits,
            outcome,
            run_length: 1,
            begun: None,
            ended: f64::INFINITY,
            areas: Areas::default(),
            bins: vec![Areas::default(); bins],
            bin_seconds,
            first_tokens: vec![(0.0, 0); bins],
            waiting: 0,
            waiting_since: 0.0,
            waited: [0; 2],
            devices: devices as f64,
        }
    }

    fn bin(&self, at: f64) -> Option<usize> {
        let bin = (at / self.bin_seconds) as usize;
        (!self.bins.is_empty()).then(|| bin.min(self.bins.len() - 1))
    }

    /// A request that counts came; its place among them.
    pub fn ask(&mut self, at: f64) -> u64 {
        if self.begun.is_none() {
            self.begun = Some(at);
            self.waiting_since = at;
            self.waited[0] = self.waiting;
        }
        let place = self.outcome.asked;
        self.outcome.asked += 1;
        if let Some(bin) = self.bin(at) {
            self.outcome.bins[bin].asked += 1;
        }
        let mut run = (place / self.run_length) as usize;
        if run >= MOST_RUNS {
            self.outcome.runs = in_pairs(&self.outcome.runs);
            self.run_length *= 2;
            run = (place / self.run_length) as usize;
        }
        if run >= self.outcome.runs.len() {
            self.outcome.runs.resize(run + 1, (0, 0));
        }
        self.outcome.runs[run].1 += 1;
        place
    }

    /// A request that counts was answered.
    pub fn answer(&mut self, request: &Answered) {
        let outcome = &mut self.outcome;
        outcome.finished += 1;
        outcome.ttft.note(request.ttft);
        outcome.e2e.note(request.e2e);
        let tpot = (request.new_tokens > 1)
            .then(|| (request.e2e - request.ttft) / f64::from(request.new_tokens - 1));
        if let Some(tpot) = tpot {
            outcome.tpot.note(tpot);
        }
        let over = |limit: Option<Nanos>, seconds: Option<f64>| {
            limit.zip(seconds).is_some_and(|(limit, seconds)| seconds > limit.seconds())
        };
        let missed = [
            over(self.limits.ttft, Some(request.ttft)),
            over(self.limits.tpot, tpot),
            over(self.limits.end_to_end, Some(request.e2e)),
        ];
        outcome.missed_ttft += u64::from(missed[0]);
        outcome.missed_tpot += u64::from(missed[1]);
        outcome.missed_e2e += u64::from(missed[2]);
        let met = u64::from(missed == [false; 3]);
        outcome.met += met;
        let run = (request.place / self.run_length) as usize;
        outcome.runs[run].0 += met;
        if let Some(bin) = self.bin(request.asked) {
            self.outcome.bins[bin].met += met;
            self.first_tokens[bin].0 += request.ttft;
            self.first_tokens[bin].1 += 1;
        }
    }

    /// The number of waiting requests changes by `change`.
    pub fn wait(&mut self, at: f64, change: i64) {
        let waiting = self.waiting as f64;
        self.spread(self.waiting_since, at, |areas, seconds| areas.waiting += waiting * seconds);
        self.waiting_since = at;
        self.waiting = self.waiting.saturating_add_signed(change);
        if self.begun.is_some() && at <= self.ended {
            self.outcome.most_waiting = self.outcome.most_waiting.max(self.waiting);
        }
    }

    /// Requests that wait.
    pub fn waiting(&self) -> u64 {
        self.waiting
    }

    /// A device computed from `from` to `to`.
    pub fn work(&mut self, from: f64, to: f64, work: &Work) {
        if to <= from {
            return;
        }
        let counted = self.spread(from, to, |areas, seconds| {
            areas.running += work.running * seconds;
            areas.busy += seconds;
            areas.cache += work.mean.min(1.0) * seconds;
        });
        self.outcome.new_tokens += (work.tokens * counted / (to - from)).round() as u64;
        if counted > 0.0 {
            self.outcome.most_cache = self.outcome.most_cache.max(work.most.min(1.0));
        }
    }

    /// Adds a time to the areas of the whole and of the parts that it lies in; the seconds that
    /// count.
    fn spread(&mut self, from: f64, to: f64, add: impl Fn(&mut Areas, f64)) -> f64 {
        let Some(begun) = self.begun else { return 0.0 };
        let (mut from, to) = (from.max(begun), to.min(self.ended));
        let counted = to - from;
        if counted <= 0.0 {
            return 0.0;
        }
        add(&mut self.areas, counted);
        if self.bins.is_empty() {
            return counted;
        }
        let (first, last) = ((from / self.bin_seconds) as usize, (to / self.bin_seconds) as usize);
        for bin in first..=last.min(self.bins.len() - 1) {
            let end = to.min((bin + 1) as f64 * self.bin_seconds);
            add(&mut self.bins[bin], (end - from).max(0.0));
            from = end;
        }
        counted
    }

    /// All requests that count have come: what happens later is no part of the means.
    pub fn end(&mut self, at: f64) {
        self.wait(at, 0);
        self.ended = at;
        self.waited[1] = self.waiting;
    }

    /// Closes the books at `at`.
    pub fn close(mut self, at: f64, overload: Option<Overload>) -> Outcome {
        if self.ended == f64::INFINITY {
            self.waited[1] = self.waiting;
        }
        let at = at.min(self.ended);
        self.wait(at, 0);
        let seconds = self.begun.map_or(0.0, |begun| at - begun);
        let mut outcome = self.outcome;
        outcome.overload = overload;
        outcome.grown = self.waited[1].saturating_sub(self.waited[0]);
        outcome.span = Nanos::from_seconds(seconds);
        if seconds > 0.0 {
            outcome.waiting = self.areas.waiting / seconds;
            outcome.running = self.areas.running / seconds;
            outcome.busy = self.areas.busy / seconds / self.devices;
            outcome.cache = self.areas.cache / seconds / self.devices;
        }
        let begun = self.begun.unwrap_or(0.0);
        for (place, (bin, areas)) in outcome.bins.iter_mut().zip(&self.bins).enumerate() {
            let from = (place as f64 * self.bin_seconds).max(begun);
            let to = ((place + 1) as f64 * self.bin_seconds).min(at);
            let seconds = to - from;
            if seconds > 0.0 {
                bin.waiting = areas.waiting / seconds;
                bin.running = areas.running / seconds;
                bin.busy = areas.busy / seconds / self.devices;
                bin.cache = areas.cache / seconds / self.devices;
            }
            let (sum, count) = self.first_tokens[place];
            bin.ttft = (count > 0).then(|| Nanos::from_seconds(sum / count as f64));
        }
        outcome
    }
}
