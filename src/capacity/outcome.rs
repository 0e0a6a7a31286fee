//! What came of a simulated load: times, refusals, use, and how sure the share in time is.

use hdrhistogram::Histogram;

use crate::stats::{self, Interval};
use crate::units::Nanos;

/// The longest time that is told apart: a day.
const LONGEST_US: u64 = 86_400_000_000;

/// The variance between fewer runs of consecutive requests is hardly known.
const FEWEST_RUNS: usize = 16;

/// Each run joined with its neighbour.
pub(super) fn in_pairs(runs: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let sum =
        |pair: &[(u64, u64)]| pair.iter().fold((0, 0), |sum, run| (sum.0 + run.0, sum.1 + run.1));
    runs.chunks(2).map(sum).collect()
}

/// Quantiles of times in memory that does not grow: to a thousandth of their value, from a
/// microsecond on.
#[derive(Clone, Debug)]
pub struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        // These bounds are valid ones, so that nothing can be refused.
        let histogram = Histogram::new_with_bounds(1, LONGEST_US, 3);
        Self(histogram.unwrap_or_else(|_| unreachable!("valid bounds")))
    }
}

impl Times {
    pub(super) fn note(&mut self, seconds: f64) {
        self.0.saturating_record((seconds * 1e6).max(0.0) as u64);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that a share `p` of 100 does not exceed; `None` where too few bear it: p95 needs
    /// 20, p99 100.
    pub fn percentile(&self, p: f64) -> Option<Nanos> {
        let needed = (100.0 / (100.0 - p).max(1e-9)).ceil().max(1.0) as u64;
        (self.0.len() >= needed).then(|| Nanos(self.0.value_at_percentile(p).saturating_mul(1000)))
    }

    /// Their mean.
    pub fn mean(&self) -> Option<Nanos> {
        (!self.0.is_empty()).then(|| Nanos::from_seconds(self.0.mean() / 1e6))
    }

    /// Takes times in that were measured, so that both are cut into the same percentiles.
    pub fn extend(&mut self, times: impl IntoIterator<Item = Nanos>) {
        for time in times {
            self.note(time.seconds());
        }
    }

    /// Takes those of `other` in.
    pub fn merge(&mut self, other: &Self) {
        // Both have the same bounds.
        let _ = self.0.add(&other.0);
    }
}

/// An hour (or another equal part) of the simulated time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bin {
    /// Its start.
    pub start: Nanos,
    /// Requests that came.
    pub asked: u64,
    /// Requests that kept the objective, of those that came in it.
    pub met: u64,
    /// The mean number of requests that waited.
    pub waiting: f64,
    /// The mean number of sequences that were computed.
    pub running: f64,
    /// Share of the time in which devices computed.
    pub busy: f64,
    /// The mean share of the caches' tokens in use.
    pub cache: f64,
    /// The mean time to first token, of requests that came in it and were answered.
    pub ttft: Option<Nanos>,
}

/// Why a simulation ended before its limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Overload {
    /// When.
    pub at: Nanos,
    /// Requests that waited then.
    pub waiting: u64,
}

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Requests that count: those after the run-up.
    pub asked: u64,
    /// Of these, the ones that were answered.
    pub finished: u64,
    /// Of these, the ones that kept all limits.
    pub met: u64,
    /// Of the asked, those refused because too many waited.
    pub refused: u64,
    /// Of the asked, those that no cache of the engine can hold.
    pub too_long: u64,
    /// How often a request was put out of the cache and computed again.
    pub preempted: u64,
    /// From a request to its first token.
    pub ttft: Times,
    /// The time per output token, of each request.
    pub tpot: Times,
    /// From a request to its last token.
    pub e2e: Times,
    /// Requests that missed the limit of the time to first token.
    pub missed_ttft: u64,
    /// Requests that missed the limit of the time per output token.
    pub missed_tpot: u64,
    /// Requests that missed the limit of the whole time.
    pub missed_e2e: u64,
    /// Tokens that were generated.
    pub new_tokens: u64,
    /// The simulated time that counts.
    pub span: Nanos,
    /// Share of it in which devices computed.
    pub busy: f64,
    /// The mean number of sequences that were computed.
    pub running: f64,
    /// The mean number of requests that waited.
    pub waiting: f64,
    /// The most that waited.
    pub most_waiting: u64,
    /// How many more waited at the end than at the beginning.
    pub grown: u64,
    /// The mean share of the caches' tokens in use.
    pub cache: f64,
    /// The highest share of a device's cache tokens in use.
    pub most_cache: f64,
    /// The time in equal parts, where they were asked for.
    pub bins: Vec<Bin>,
    /// Why it ended early.
    pub overload: Option<Overload>,
    /// Of each run of consecutive requests, how many kept the objective.
    pub(super) runs: Vec<(u64, u64)>,
}

impl Outcome {
    /// Requests a second that kept the objective.
    pub fn goodput_per_s(&self) -> Option<f64> {
        (self.span.0 > 0).then(|| self.met as f64 / self.span.seconds())
    }

    /// Tokens a second of all together.
    pub fn system_tok_s(&self) -> Option<f64> {
        (self.span.0 > 0).then(|| self.new_tokens as f64 / self.span.seconds())
    }

    /// The share of the asked requests that kept the objective.
    pub fn attainment(&self) -> Option<f64> {
        (self.asked > 0).then(|| self.met as f64 / self.asked as f64)
    }

    /// Wilson's 95 % interval of that share. Requests that wait in one queue share its luck: their
    /// number is divided by how much more runs of consecutive requests differ than independent
    /// ones would (the design effect; Kish 1965).
    pub fn attainment_interval(&self) -> Option<Interval> {
        let deff = self.design_effect();
        let asked = (self.asked as f64 / deff).round().max(1.0);
        let met = (self.met as f64 / self.asked.max(1) as f64 * asked).round();
        (self.asked > 0).then(|| stats::wilson(met as u64, asked as u64)).flatten()
    }

    /// The variance between runs of consecutive requests over that of independent ones; at least 1.
    /// Runs are joined as long as that shows that they hang together, since a queue of a device that
    /// is hardly keeping up lasts longer than a short run.
    pub fn design_effect(&self) -> f64 {
        let mut runs: Vec<_> = self.runs.iter().copied().filter(|run| run.1 > 0).collect();
        let asked: u64 = runs.iter().map(|run| run.1).sum();
        let met: u64 = runs.iter().map(|run| run.0).sum();
        if met == 0 || met == asked {
            return 1.0;
        }
        let share = met as f64 / asked as f64;
        let mut effect: f64 = 1.0;
        while runs.len() >= FEWEST_RUNS {
            let between: f64 = runs
                .iter()
                .map(|(met, asked)| (*met as f64 - share * *asked as f64).powi(2))
                .sum::<f64>()
                * (runs.len() as f64 / (runs.len() - 1) as f64);
            effect = effect.max(between / (asked as f64 * share * (1.0 - share)));
            runs = in_pairs(&runs);
        }
        effect
    }
}
