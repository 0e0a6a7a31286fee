//! Requests under load: how many failed, how many met the objective, and what a server's own clock
//! and the same engine in process say beside the client's.

use std::collections::BTreeMap;

use crate::metrics::{self, Limits};
use crate::record::{Record, Trial};
use crate::runner::protocol::{Sample, Served};
use crate::scenario::Slo;
use crate::stats;
use crate::units::Nanos;
use crate::watch::Mark;

use super::summary::{self, arrivals};

/// The two clocks of a generation may differ by this share before the row is marked.
const CLOCKS: f64 = 0.03;

/// A client that starts requests later than scheduled by this share of the time to first token
/// marks its row.
const LAG: f64 = 0.02;

/// A prefill speed is invalid where more than this share of the prompt came from a cache.
const CACHED: f64 = 0.01;

/// Fills the columns of load and of servers; gives the marks that follow from them.
pub fn fill(
    record: &mut Record,
    trials: &[Trial<Sample>],
    slo: Option<&Slo>,
    absent: &mut BTreeMap<String, String>,
) -> Vec<Mark> {
    let counted: Vec<_> = trials.iter().filter(|trial| summary::counts(trial)).collect();
    let requests: Vec<_> = counted.iter().flat_map(|trial| arrivals(trial)).collect();
    let samples: Vec<_> = counted.iter().flat_map(|trial| &trial.samples).collect();
    let mut marks = Vec::new();
    let failures: Vec<_> = samples.iter().filter_map(|sample| sample.error()).collect();
    if let Some(first) = failures.first() {
        record.failed_requests = Some(failures.len() as u64);
        let (n, m) = (failures.len(), samples.len());
        record.failure = Some(format!("{n} of {m} failed: {}", first.reason));
        marks.push(Mark::FailedRequests);
    } else if !samples.is_empty() {
        record.failed_requests = Some(0);
    }
    let measured = trials.iter().filter(|trial| !trial.warmup);
    let void: Vec<_> = measured.filter_map(summary::void).collect();
    if let Some(first) = void.first() {
        let (n, m) = (void.len(), void.len() + counted.len());
        let words = format!("{n} of {m} trials void: {first}");
        let others = record.failure.take().map(|others| format!("; {others}")).unwrap_or_default();
        record.failure = Some(words + &others);
        marks.push(Mark::FailedRequests);
    }
    record.requests = (!samples.is_empty()).then_some(samples.len() as u64);
    if record.is_calibration() {
        return marks;
    }

    let ttft: Vec<f64> =
        requests.iter().filter_map(|r| r.ttft().map(|time| time.0 as f64)).collect();
    record.ttft_ns_p95 = stats::percentile(&ttft, 95.0);
    record.ttft_ns_p99 = stats::percentile(&ttft, 99.0);

    // In process there is no client that could be late.
    let waited = samples.iter().filter(|s| s.served.is_some() && s.intended_ns > 0);
    let lags: Vec<f64> = waited.map(|s| s.sent_ns.saturating_sub(s.intended_ns) as f64).collect();
    record.client_lag_ns_median = stats::median(&lags);
    record.client_lag_ns_p99 = stats::percentile(&lags, 99.0);
    let lag = stats::median(&lags).zip(stats::median(&ttft));
    if lag.is_some_and(|(lag, ttft)| lag > LAG * ttft) {
        marks.push(Mark::ClientLag);
    }

    let window = Nanos(counted.iter().filter_map(|trial| length(trial)).sum());
    if window.0 > 0 && !requests.is_empty() {
        record.requests_per_s = Some(requests.len() as f64 / window.seconds());
    }
    if let Some(slo) = slo {
        record.slo = Some(words(slo));
        let missed = failures.len() as u64;
        if let Some(goodput) = metrics::goodput(&requests, missed, &limits(slo), window) {
            record.slo_attainment = Some(goodput.met as f64 / goodput.requests as f64);
            record.slo_attainment_low = Some(goodput.attainment.low);
            record.goodput_per_s = Some(goodput.per_second);
        }
    }
    if !requests.is_empty() && samples.iter().any(|sample| sample.served.is_some()) {
        marks.extend(fill_served(record, &samples, absent));
    }
    marks
}

/// The limits of an objective.
pub fn limits(slo: &Slo) -> Limits {
    Limits { ttft: slo.ttft, tpot: slo.tpot, end_to_end: slo.e2e }
}

/// An objective for a row: `TTFT ≤ 2.00 s, TPOT ≤ 200 ms of 95 %`.
fn words(slo: &Slo) -> String {
    let limits = [("TTFT", slo.ttft), ("TPOT", slo.tpot), ("E2E", slo.e2e)];
    let limits = limits.iter().filter_map(|(name, limit)| Some(format!("{name} ≤ {}", (*limit)?)));
    format!("{} for {}", limits.collect::<Vec<_>>().join(", "), slo.attainment)
}

/// Whether a trial under load met the objective: the lower end of the attainment's interval has to
/// reach it, so that a lucky few do not count.
pub fn meets(trial: &Trial<Sample>, slo: &Slo) -> bool {
    let missed = trial.samples.iter().filter(|sample| sample.error().is_some()).count() as u64;
    let met = good(trial, slo) as u64;
    let all = arrivals(trial).len() as u64 + missed;
    stats::wilson(met, all).is_some_and(|share| share.low >= slo.attainment.0)
}

/// Requests of a trial that met the objective.
pub fn good(trial: &Trial<Sample>, slo: &Slo) -> usize {
    arrivals(trial).iter().filter(|request| limits(slo).met_by(request)).count()
}

/// Requests a second that a trial finished.
pub fn pace(trial: &Trial<Sample>) -> Option<f64> {
    let seconds = Nanos(length(trial)?).seconds();
    let whole = arrivals(trial).len();
    (seconds > 0.0 && whole > 0).then(|| whole as f64 / seconds)
}

/// From the first intended start of a trial to its last token.
fn length(trial: &Trial<Sample>) -> Option<u64> {
    let first = trial.samples.iter().map(|sample| sample.intended_ns).min()?;
    let last = trial.samples.iter().filter_map(|sample| sample.token_ns.last()).max()?;
    last.checked_sub(first)
}

/// Puts the figures of the same engine in process beside those of a server that was measured in
/// turn with it. With one user there is no queue, and the network has no part in the time between
/// tokens: what is left of a difference is the server's own, and the row is marked.
pub fn compare_in_process(served: &mut Record, in_process: &Record) {
    served.in_process_ttft_ns_median = in_process.ttft_ns_median;
    served.in_process_decode_tok_s_median = in_process.decode_tok_s_median;
    let alone = served.concurrency == Some(1) || !served.is_loaded();
    let (Some(own), Some(there)) = (served.decode_tok_s_median, in_process.decode_tok_s_median)
    else {
        return;
    };
    // Within both intervals a difference is noise.
    let high = served.decode_tok_s_high.unwrap_or(own);
    let low = served.decode_tok_s_low.unwrap_or(own);
    let their_low = in_process.decode_tok_s_low.unwrap_or(there);
    let their_high = in_process.decode_tok_s_high.unwrap_or(there);
    let apart = high < their_low || their_high < low;
    if alone && apart && (own / there - 1.0).abs() > CLOCKS {
        served.add_mark(Mark::InProcess.as_str());
    }
}

/// What servers say of themselves, and the prefill speed by their own clock: the client's time to
/// the first token holds the network and the server's queue too.
fn fill_served(
    record: &mut Record,
    samples: &[&Sample],
    absent: &mut BTreeMap<String, String>,
) -> Option<Mark> {
    let median_of = |f: &dyn Fn(&Sample, &Served) -> Option<f64>| {
        let whole = samples.iter().filter(|sample| sample.error().is_none());
        let pairs = whole.filter_map(|sample| Some((sample, sample.served.as_ref()?)));
        stats::median(&pairs.filter_map(|(sample, served)| f(sample, served)).collect::<Vec<_>>())
    };
    record.server_prompt_ns_median = median_of(&|_, served| Some(served.server_prompt_ns? as f64));
    record.server_decode_ns_median = median_of(&|_, served| Some(served.server_decode_ns? as f64));
    record.server_ttft_ns_median = median_of(&|_, served| Some(served.server_ttft_ns? as f64));
    let seen = |sample: &Sample| {
        Some(sample.token_ns.last()?.checked_sub(*sample.token_ns.first()?)? as f64)
    };
    record.client_decode_ns_median = median_of(&|sample, _| seen(sample));
    record.cached_share_median = median_of(&|sample, served| {
        let prompt = f64::from(sample.prompt_tokens);
        (prompt > 0.0).then_some(f64::from(served.cached_tokens?) / prompt)
    });
    let prompt = |sample: &Sample, served: &Served| -> Option<(f64, f64)> {
        let computed = sample.prompt_tokens.checked_sub(served.cached_tokens.unwrap_or(0))?;
        let seconds = Nanos(served.server_prompt_ns?).seconds();
        (seconds > 0.0 && computed > 0).then_some((f64::from(computed), seconds))
    };
    let means = samples.iter().any(|sample| sample.served.as_ref().is_some_and(|s| s.server_means));
    let speed = if means {
        // A request's own prompt over the trial's mean time is nobody's speed: the sums are.
        let whole = samples.iter().filter(|sample| sample.error().is_none());
        let pairs = whole.filter_map(|sample| prompt(sample, sample.served.as_ref()?));
        let (tokens, seconds) =
            pairs.fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
        (seconds > 0.0).then(|| tokens / seconds)
    } else {
        median_of(&|sample, served| prompt(sample, served).map(|(tokens, time)| tokens / time))
    };
    let cached = record.cached_share_median.is_some_and(|share| share > CACHED);
    record.prefill_tok_s_median = speed.filter(|_| !cached);
    record.prefill_tok_s_low = None;
    record.prefill_tok_s_high = None;
    record.prefill_tok_s_mad = None;
    if record.prefill_tok_s_median.is_none() {
        let reason = if cached {
            "more than 1 % of the prompt came from the server's cache"
        } else {
            "the server does not time its prompts, and the client's time holds network and queue"
        };
        absent.insert("prefill_tok_s".to_owned(), reason.to_owned());
    }
    let decode = |sample: &Sample| -> Option<(f64, f64)> {
        let seen = seen(sample)?;
        let own = sample.served.as_ref()?.server_decode_ns? as f64;
        (own > 0.0).then_some((seen, own))
    };
    // A server's mean over a trial has the client's mean beside it, not a single request.
    let clocks = if means {
        let pairs: Vec<_> = samples.iter().filter_map(|sample| decode(sample)).collect();
        let (seen, own) =
            pairs.iter().fold((0.0, 0.0), |sum, pair| (sum.0 + pair.0, sum.1 + pair.1));
        record.client_decode_ns_median = (own > 0.0).then(|| seen / pairs.len() as f64);
        record.server_decode_ns_median = (own > 0.0).then(|| own / pairs.len() as f64);
        (own > 0.0).then(|| (seen / own - 1.0).abs())
    } else {
        median_of(&|sample, _| decode(sample).map(|(seen, own)| (seen / own - 1.0).abs()))
    };
    clocks.filter(|&difference| difference > CLOCKS).map(|_| Mark::ServerClock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::protocol::{ServedError, ServedFault};

    fn trial(samples: Vec<Sample>) -> Trial<Sample> {
        Trial::new("c", 1, false, samples)
    }

    fn sample(sent_ns: u64, token_ns: &[u64], served: Option<Served>) -> Sample {
        Sample {
            intended_ns: sent_ns,
            sent_ns,
            prompt_tokens: 100,
            token_ns: token_ns.to_vec(),
            served,
        }
    }

    fn slo() -> Slo {
        Slo {
            ttft: Some(Nanos(50_000_000)),
            tpot: None,
            e2e: None,
            attainment: crate::units::Share(0.9),
            search: false,
        }
    }

    fn failed(sample: Sample) -> Sample {
        let reason = "429 Too Many Requests".to_owned();
        let error = Some(ServedError { kind: ServedFault::RateLimited, reason });
        Sample { served: Some(Served { error, ..Served::default() }), ..sample }
    }

    #[test]
    fn a_failed_request_misses_the_objective_and_is_told() {
        let fast = |at| sample(at, &[at + 10_000_000, at + 20_000_000], None);
        let broken = failed(sample(0, &[1_000_000], None));
        let mut record = Record::default();
        let trials = [trial(vec![fast(0), fast(1), fast(2), broken])];
        let marks = fill(&mut record, &trials, Some(&slo()), &mut BTreeMap::new());
        assert_eq!(marks, [Mark::FailedRequests]);
        assert_eq!(record.slo_attainment, Some(0.75));
        assert_eq!((record.requests, record.failed_requests), (Some(4), Some(1)));
        assert_eq!(record.failure.as_deref(), Some("1 of 4 failed: 429 Too Many Requests"));
        assert_eq!(record.slo.as_deref(), Some("TTFT ≤ 50.0 ms for 90 %"));
    }

    #[test]
    fn a_void_trial_is_no_part_of_any_figure() {
        let whole = || trial(vec![sample(0, &[10_000_000, 20_000_000], None)]);
        let mut cut = failed(sample(0, &[90_000_000], None));
        if let Some(Served { error: Some(error), .. }) = &mut cut.served {
            error.kind = ServedFault::EarlyEnd;
            error.reason = "1 of 2 tokens".to_owned();
        }
        let void = trial(vec![sample(0, &[90_000_000, 99_000_000], None), cut]);
        let trials = [whole(), void, whole()];
        let mut record = Record::default();
        let marks = fill(&mut record, &trials, Some(&slo()), &mut BTreeMap::new());
        assert_eq!(marks, [Mark::FailedRequests]);
        let failure = record.failure.as_deref();
        assert_eq!(failure, Some("1 of 3 trials void: request 1: 1 of 2 tokens"));
        assert_eq!((record.requests, record.failed_requests), (Some(2), Some(0)));
        assert_eq!(record.slo_attainment, Some(1.0));
        summary::fill(&mut record, &trials, crate::scenario::Load::Concurrency(1), None);
        assert_eq!((record.trials, record.warmup_trials), (2, 0));
        assert_eq!(record.ttft_ns_median, Some(10e6));
    }

    #[test]
    fn a_trial_meets_an_objective_by_its_lower_bound() {
        let many = |slow: usize, of: usize| {
            let one = |i: usize| {
                let first = if i < slow { 90_000_000 } else { 10_000_000 };
                sample(0, &[first, first + 1_000_000], None)
            };
            trial((0..of).map(one).collect())
        };
        assert!(!meets(&many(0, 20), &slo()), "twenty of twenty may be luck");
        assert!(meets(&many(0, 100), &slo()));
        assert!(!meets(&many(9, 100), &slo()));
    }

    #[test]
    fn a_server_far_from_its_engine_in_process_is_marked_where_no_queue_explains_it() {
        let record = |users, speed: f64| Record {
            concurrency: Some(users),
            decode_tok_s_median: Some(speed),
            decode_tok_s_low: Some(speed * 0.99),
            decode_tok_s_high: Some(speed * 1.01),
            ..Record::default()
        };
        for (users, speed, marked) in [(1, 95.0, true), (1, 98.5, false), (8, 60.0, false)] {
            let mut served = record(users, speed);
            compare_in_process(&mut served, &record(users, 100.0));
            assert_eq!(served.marks == "in-process", marked, "{users} users, {speed} tok/s");
            assert_eq!(served.in_process_decode_tok_s_median, Some(100.0));
        }
    }

    #[test]
    fn attainment_counts_the_requests_that_meet_all_limits() {
        let fast = sample(0, &[10_000_000, 20_000_000], None);
        let slow = sample(0, &[90_000_000, 99_000_000], None);
        let mut record = Record::default();
        let trials = [trial(vec![fast, slow])];
        fill(&mut record, &trials, Some(&slo()), &mut BTreeMap::new());
        assert_eq!(record.slo_attainment, Some(0.5));
        assert!((record.goodput_per_s.unwrap() - 1.0 / 0.099).abs() < 1e-6);
        assert!(record.slo_attainment_low.unwrap() < 0.5);
    }

    #[test]
    fn a_servers_means_stand_beside_the_means_of_the_same_requests() {
        let served =
            |own| Served { server_decode_ns: Some(own), server_means: true, ..Served::default() };
        // Two trials: each of their requests is told its trial's mean.
        let request = |own: u64, seen: u64| sample(0, &[10, 10 + seen], Some(served(own)));
        let trials =
            [trial(vec![request(100, 80), request(100, 120)]), trial(vec![request(400, 300)])];
        let mut record = Record::default();
        assert_eq!(fill(&mut record, &trials, None, &mut BTreeMap::new()), [Mark::ServerClock]);
        assert_eq!(record.server_decode_ns_median, Some(200.0));
        assert_eq!(record.client_decode_ns_median, Some(500.0 / 3.0));
    }

    #[test]
    fn a_servers_mean_time_of_prompts_is_shared_by_prompts_of_all_lengths() {
        let served = || Served {
            server_prompt_ns: Some(1_000_000_000),
            server_means: true,
            ..Served::default()
        };
        let request = |prompt_tokens| Sample {
            prompt_tokens,
            ..sample(0, &[2_000_000_000, 2_100_000_000], Some(served()))
        };
        let mut record = Record::default();
        let trials = [trial(vec![request(100), request(100), request(1000)])];
        fill(&mut record, &trials, None, &mut BTreeMap::new());
        assert_eq!(record.prefill_tok_s_median, Some(400.0));
    }

    #[test]
    fn a_servers_prefill_is_its_own_and_void_when_cached() {
        let own = Served {
            server_prompt_ns: Some(50_000_000),
            server_decode_ns: Some(10_000_000),
            cached_tokens: Some(0),
            ..Served::default()
        };
        let mut record = Record::default();
        let mut absent = BTreeMap::new();
        let trials = [trial(vec![sample(0, &[90_000_000, 100_000_000], Some(own.clone()))])];
        assert_eq!(fill(&mut record, &trials, None, &mut absent), []);
        assert_eq!(record.prefill_tok_s_median, Some(2000.0));
        let cached = Served { cached_tokens: Some(50), server_decode_ns: Some(8_000_000), ..own };
        let trials = [trial(vec![sample(0, &[90_000_000, 100_000_000], Some(cached))])];
        assert_eq!(fill(&mut record, &trials, None, &mut absent), [Mark::ServerClock]);
        assert_eq!(record.prefill_tok_s_median, None);
        assert!(absent["prefill_tok_s"].contains("cache"));
    }
}
