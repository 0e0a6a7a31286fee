//! Token arrivals → TTFT, inter-token gaps, TPOT, throughput, stalls and goodput.

use crate::stats::{self, Interval};
use crate::units::{Nanos, TokensPerSecond};

/// One generation's raw arrivals, in nanoseconds on one monotonic clock. Tokens that came in one
/// event of a stream share its stamp.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrivals<'a> {
    /// When the schedule wanted the request to start (`ts`).
    pub intended_ns: u64,
    /// Just before the engine was called, or the request's first byte written (`t0`).
    pub sent_ns: u64,
    /// Prompt tokens processed between `sent_ns` and the first token.
    pub prompt_tokens: u32,
    /// Arrival of each token, ascending.
    pub token_ns: &'a [u64],
}

/// The time between two events of a stream, and how many tokens the later one carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// From the earlier event to the later one.
    pub time: Nanos,
    /// Tokens of the later event.
    pub tokens: u32,
}

impl Arrivals<'_> {
    /// Time to first token: first token − t0.
    pub fn ttft(&self) -> Option<Nanos> {
        self.since_sent(*self.token_ns.first()?)
    }

    /// Last token − t0.
    pub fn end_to_end(&self) -> Option<Nanos> {
        self.since_sent(*self.token_ns.last()?)
    }

    /// Last token − ts: what a client that keeps to its schedule sees, queueing included.
    pub fn scheduled_latency(&self) -> Option<Nanos> {
        self.token_ns.last()?.checked_sub(self.intended_ns).map(Nanos)
    }

    /// How late the request started: t0 − ts, zero where it was early.
    pub fn lag(&self) -> Nanos {
        Nanos(self.sent_ns.saturating_sub(self.intended_ns))
    }

    /// Tokens of the first event: 1, unless a server sends several at once.
    pub fn first_event_tokens(&self) -> usize {
        let first = self.token_ns.first();
        self.token_ns.iter().take_while(|t| Some(*t) == first).count()
    }

    /// Time per output token: (t_last − t_first) / (N − tokens of the first event). In nanoseconds,
    /// not rounded.
    pub fn tpot_ns(&self) -> Option<f64> {
        let (first, last) = (self.token_ns.first()?, self.token_ns.last()?);
        let later = self.token_ns.len() - self.first_event_tokens();
        let time = last.checked_sub(*first)?;
        (later > 0 && time > 0).then(|| time as f64 / later as f64)
    }

    /// Decode speed of this stream: 1 / TPOT; in process (N − 1) / (t_last − t_first).
    pub fn decode_speed(&self) -> Option<TokensPerSecond> {
        self.tpot_ns().map(|ns| TokensPerSecond(1e9 / ns))
    }

    /// Prompt tokens / (first token − t0). In process only: over HTTP this time holds the network
    /// and the server's queue too.
    pub fn prefill_speed(&self) -> Option<TokensPerSecond> {
        rate(f64::from(self.prompt_tokens), self.ttft()?)
    }

    /// N / E2E, prompt processing included.
    pub fn end_to_end_speed(&self) -> Option<TokensPerSecond> {
        rate(self.token_ns.len() as f64, self.end_to_end()?)
    }

    /// Every gap between events, with the tokens of the event that ended it.
    pub fn gaps(&self) -> Vec<Gap> {
        let events: Vec<&[u64]> = self.token_ns.chunk_by(|a, b| a == b).collect();
        events
            .windows(2)
            .map(|pair| Gap {
                time: Nanos(pair[1][0].saturating_sub(pair[0][0])),
                tokens: pair[1].len() as u32,
            })
            .collect()
    }

    fn since_sent(&self, stamp: u64) -> Option<Nanos> {
        stamp.checked_sub(self.sent_ns).map(Nanos)
    }
}

/// The distribution of pooled inter-token gaps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GapSummary {
    /// Number of gaps.
    pub count: usize,
    /// Median gap.
    pub p50: Nanos,
    /// 95th percentile; `None` of fewer than 20 gaps.
    pub p95: Option<Nanos>,
    /// 99th percentile; `None` of fewer than 100 gaps.
    pub p99: Option<Nanos>,
    /// The longest gap.
    pub longest: Nanos,
    /// Gaps longer than 5 medians.
    pub stalls: usize,
}

/// How many medians long a gap is before it is a stall.
const STALL: f64 = 5.0;

/// The distribution of `gaps`; `None` where there are none.
pub fn summarise_gaps(gaps: &[Gap]) -> Option<GapSummary> {
    let times: Vec<f64> = gaps.iter().map(|g| g.time.0 as f64).collect();
    let p50 = stats::median(&times)?;
    let nanos = |ns: f64| Nanos(ns.round() as u64);
    Some(GapSummary {
        count: times.len(),
        p50: nanos(p50),
        p95: stats::percentile(&times, 95.0).map(nanos),
        p99: stats::percentile(&times, 99.0).map(nanos),
        longest: gaps.iter().map(|g| g.time).max()?,
        stalls: times.iter().filter(|t| **t > STALL * p50).count(),
    })
}

/// A span of the clock of [`Arrivals`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its start, not included: a token stamped here was made before.
    pub from_ns: u64,
    /// Its end, included.
    pub to_ns: u64,
}

impl Window {
    /// Its length.
    pub fn length(self) -> Nanos {
        Nanos(self.to_ns.saturating_sub(self.from_ns))
    }
}

/// The steady window of concurrent streams: from the first to the last moment at which as many of
/// them as ever were generating, so that ramp-up and tail are cut. Of requests that start together
/// it is the time in which all generate; of a single stream, first token to last. An open-loop run
/// peaks by chance: choose its window by the schedule instead. `None` where it has no length.
pub fn steady_window(streams: &[Arrivals]) -> Option<Window> {
    let mut changes: Vec<(u64, i64)> = Vec::with_capacity(2 * streams.len());
    for stream in streams {
        if let (Some(first), Some(last)) = (stream.token_ns.first(), stream.token_ns.last()) {
            changes.push((*first, 1));
            changes.push((*last, -1));
        }
    }
    // At one stamp starts come before ends: the two streams did overlap there.
    changes.sort_by_key(|(at, change)| (*at, -change));
    let (mut active, mut peak, mut from, mut to) = (0, 0, 0, 0);
    for (at, change) in changes {
        if change < 0 && active == peak {
            to = at;
        }
        active += change;
        if active > peak {
            (peak, from, to) = (active, at, at);
        }
    }
    (to > from).then_some(Window { from_ns: from, to_ns: to })
}

/// Tokens of all streams that came inside `window`, per second.
pub fn system_throughput(streams: &[Arrivals], window: Window) -> Option<TokensPerSecond> {
    let inside = |t: &&u64| window.from_ns < **t && **t <= window.to_ns;
    let tokens: usize = streams.iter().map(|s| s.token_ns.iter().filter(inside).count()).sum();
    rate(tokens as f64, window.length())
}

/// Prompt tokens of all streams / (the latest first token − the earliest t0): the prefill speed of
/// requests that start together. One request: [`Arrivals::prefill_speed`].
pub fn batch_prefill_speed(streams: &[Arrivals]) -> Option<TokensPerSecond> {
    let prompt: u64 = streams.iter().map(|s| u64::from(s.prompt_tokens)).sum();
    let sent = streams.iter().map(|s| s.sent_ns).min()?;
    let mut latest = 0;
    for stream in streams {
        latest = latest.max(*stream.token_ns.first()?);
    }
    rate(prompt as f64, Nanos(latest.checked_sub(sent)?))
}

/// What a request has to keep to; a limit that is absent is met.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Longest time to first token.
    pub ttft: Option<Nanos>,
    /// Longest time per output token.
    pub tpot: Option<Nanos>,
    /// Longest time from the schedule's start to the last token.
    pub end_to_end: Option<Nanos>,
}

impl Limits {
    /// Whether `request` keeps to all of them. Times count from the schedule's start, so that
    /// queueing in the client is not hidden; a request without tokens meets nothing, one with a
    /// single event has no TPOT to miss.
    pub fn met_by(&self, request: &Arrivals) -> bool {
        let Some(last) = request.scheduled_latency() else { return false };
        let Some(ttft) = request.ttft() else { return false };
        let first = Nanos(ttft.0 + request.lag().0);
        let within = |limit: Option<Nanos>, time: Nanos| limit.is_none_or(|l| time <= l);
        let tpot_met = match (self.tpot, request.tpot_ns()) {
            (Some(limit), Some(tpot)) => tpot <= limit.0 as f64,
            _ => true,
        };
        within(self.ttft, first) && tpot_met && within(self.end_to_end, last)
    }
}

/// How many requests met their limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Goodput {
    /// Requests that met all limits.
    pub met: u64,
    /// All requests, errors and time-outs among them.
    pub requests: u64,
    /// `met` / `requests`, with its Wilson interval.
    pub attainment: Interval,
    /// Requests a second that met all limits.
    pub per_second: f64,
}

/// The goodput of `finished` requests and `missed` errors and time-outs over `window`. `None` where
/// there was no request or no time.
pub fn goodput(
    finished: &[Arrivals],
    missed: u64,
    limits: &Limits,
    window: Nanos,
) -> Option<Goodput> {
    let met = finished.iter().filter(|r| limits.met_by(r)).count() as u64;
    let requests = finished.len() as u64 + missed;
    let attainment = stats::wilson(met, requests)?;
    let per_second = (window.0 > 0).then(|| met as f64 / window.seconds())?;
    Some(Goodput { met, requests, attainment, per_second })
}

fn rate(tokens: f64, time: Nanos) -> Option<TokensPerSecond> {
    (tokens > 0.0 && time.0 > 0).then(|| TokensPerSecond(tokens / time.seconds()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn stream(sent_ms: u64, tokens_ms: &[u64]) -> (u64, Vec<u64>) {
        (sent_ms * MS, tokens_ms.iter().map(|t| t * MS).collect())
    }

    fn arrivals((sent_ns, token_ns): &(u64, Vec<u64>)) -> Arrivals<'_> {
        Arrivals { intended_ns: *sent_ns, sent_ns: *sent_ns, prompt_tokens: 100, token_ns }
    }

    #[test]
    fn a_stream_of_single_tokens_has_known_metrics() {
        let raw = stream(100, &[300, 310, 320, 330, 340]);
        let a = arrivals(&raw);
        assert_eq!(a.ttft(), Some(Nanos(200 * MS)));
        assert_eq!(a.end_to_end(), Some(Nanos(240 * MS)));
        assert_eq!(a.tpot_ns(), Some(10e6));
        assert_eq!(a.decode_speed(), Some(TokensPerSecond(100.0)));
        assert_eq!(a.prefill_speed(), Some(TokensPerSecond(500.0)));
        assert_eq!(a.gaps().len(), 4);
    }

    #[test]
    fn tokens_that_share_an_event_do_not_flatter_tpot() {
        // 2 tokens in the first event, then events of 4: (340 − 300) ms / (10 − 2).
        let raw = stream(0, &[300, 300, 320, 320, 320, 320, 340, 340, 340, 340]);
        let a = arrivals(&raw);
        assert_eq!(a.first_event_tokens(), 2);
        assert_eq!(a.tpot_ns(), Some(5e6));
        assert_eq!(a.gaps(), vec![Gap { time: Nanos(20 * MS), tokens: 4 }; 2]);
    }

    #[test]
    fn one_token_has_a_ttft_and_no_decode_speed() {
        let raw = stream(0, &[50]);
        let a = arrivals(&raw);
        assert_eq!(a.ttft(), Some(Nanos(50 * MS)));
        assert_eq!((a.tpot_ns(), a.decode_speed()), (None, None));
        let nothing = stream(0, &[]);
        assert_eq!(arrivals(&nothing).ttft(), None);
        assert_eq!(arrivals(&nothing).end_to_end_speed(), None);
    }

    #[test]
    fn a_late_client_shows_in_the_scheduled_latency_only() {
        let raw = stream(500, &[600, 700]);
        let a = Arrivals { intended_ns: 100 * MS, ..arrivals(&raw) };
        assert_eq!(a.end_to_end(), Some(Nanos(200 * MS)));
        assert_eq!(a.scheduled_latency(), Some(Nanos(600 * MS)));
        assert_eq!(a.lag(), Nanos(400 * MS));
        let limits = Limits { ttft: Some(Nanos(200 * MS)), ..Limits::default() };
        assert!(!limits.met_by(&a), "the wait in the client's queue counts");
    }

    #[test]
    fn a_freeze_of_one_second_is_a_stall() {
        let mut stamps: Vec<u64> = (0..60).map(|i| 100 + 10 * i).collect();
        for stamp in &mut stamps[30..] {
            *stamp += 1000;
        }
        let raw = stream(0, &stamps);
        let summary = summarise_gaps(&arrivals(&raw).gaps()).expect("gaps");
        assert_eq!((summary.stalls, summary.longest), (1, Nanos(1010 * MS)));
        assert_eq!(summary.p50, Nanos(10 * MS));
        assert!(summary.p95.is_some() && summary.p99.is_none());
    }

    #[test]
    fn the_steady_window_cuts_ramp_up_and_tail() {
        let raw = [stream(0, &[100, 110, 120, 130, 140]), stream(0, &[118, 128, 138, 148, 158])];
        let streams: Vec<Arrivals> = raw.iter().map(arrivals).collect();
        let window = steady_window(&streams).expect("a window");
        assert_eq!((window.from_ns, window.to_ns), (118 * MS, 140 * MS));
        // 120 130 140 of the first, 128 138 of the second, in 22 ms.
        let speed = system_throughput(&streams, window).expect("a speed");
        assert!((speed.0 - 5.0 / 0.022).abs() < 1e-9, "{speed:?}");
    }

    #[test]
    fn the_steady_window_of_one_stream_gives_its_decode_speed() {
        let raw = [stream(0, &[100, 110, 120, 130, 140])];
        let streams: Vec<Arrivals> = raw.iter().map(arrivals).collect();
        let window = steady_window(&streams).expect("a window");
        assert_eq!(system_throughput(&streams, window), streams[0].decode_speed());
    }

    #[test]
    fn streams_in_turns_stay_steady_from_the_first_peak_to_the_last() {
        // Two users; each starts a second request after its first.
        let raw = [
            stream(0, &[10, 20, 30]),
            stream(0, &[12, 22, 32]),
            stream(30, &[40, 50, 60]),
            stream(32, &[42, 52, 62]),
        ];
        let streams: Vec<Arrivals> = raw.iter().map(arrivals).collect();
        let window = steady_window(&streams).expect("a window");
        assert_eq!((window.from_ns, window.to_ns), (12 * MS, 60 * MS));
    }

    #[test]
    fn streams_without_a_second_token_have_no_window() {
        let raw = [stream(0, &[10]), stream(0, &[])];
        let streams: Vec<Arrivals> = raw.iter().map(arrivals).collect();
        assert_eq!(steady_window(&streams), None);
    }

    #[test]
    fn a_batch_s_prefill_lasts_until_its_last_first_token() {
        let raw = [stream(0, &[100, 110]), stream(0, &[200, 210])];
        let streams: Vec<Arrivals> = raw.iter().map(arrivals).collect();
        assert_eq!(batch_prefill_speed(&streams), Some(TokensPerSecond(1000.0)));
    }

    #[test]
    fn errors_and_slow_requests_are_misses_of_goodput() {
        let raw = [
            stream(0, &[100, 110, 120]),
            stream(0, &[300, 310, 320]),
            stream(0, &[100, 200, 300]),
            stream(0, &[]),
        ];
        let streams: Vec<Arrivals> = raw.iter().map(arrivals).collect();
        let limits = Limits {
            ttft: Some(Nanos(200 * MS)),
            tpot: Some(Nanos(50 * MS)),
            end_to_end: Some(Nanos(1000 * MS)),
        };
        let good = goodput(&streams, 1, &limits, Nanos(2000 * MS)).expect("a goodput");
        assert_eq!((good.met, good.requests, good.per_second), (1, 5, 0.5));
        assert!(good.attainment.contains(0.2) && good.attainment.low > 0.0);
    }
}
