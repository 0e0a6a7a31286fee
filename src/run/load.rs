//! Requests under load: when those of an open loop start, how many met the objective, and what a
//! server's own clock says beside the client's.

use std::collections::BTreeMap;

use crate::capacity::workload::{self, Length, Limit, Source, Workload};
use crate::metrics::{self, Limits};
use crate::record::{Record, Trial};
use crate::runner::Request;
use crate::runner::protocol::{Sample, Served};
use crate::scenario::{Arrivals, Load, Slo};
use crate::stats;
use crate::units::{Nanos, Tokens};
use crate::watch::Mark;

use super::summary::arrivals;

/// The two clocks of a generation may differ by this share before the row is marked.
const CLOCKS: f64 = 0.03;

/// A client that starts requests later than scheduled by this share of the time to first token
/// marks its row.
const LAG: f64 = 0.02;

/// A prefill speed is invalid where more than this share of the prompt came from a cache.
const CACHED: f64 = 0.01;

/// Gives the requests of an open loop their starts; those of other loads have none of their own.
pub fn set_starts(
    requests: &mut [Request],
    load: Load,
    arrivals: Option<Arrivals>,
    seed: u64,
) -> anyhow::Result<()> {
    let Load::Rate(per_second) = load else { return Ok(()) };
    let arrivals = match arrivals.unwrap_or(Arrivals::Poisson) {
        Arrivals::Constant => workload::Arrivals::Constant,
        Arrivals::Poisson => workload::Arrivals::Poisson,
        Arrivals::Gamma { variation } => workload::Arrivals::Gamma { variation },
    };
    let plan = Workload {
        source: Source::OpenLoop { per_second, arrivals, think: Nanos(0) },
        // Lengths are the case's own: only the starts are taken from this plan.
        prompt: Length::Fixed(Tokens(1)),
        answer: Length::Fixed(Tokens(1)),
        turns: 1,
        context: Tokens(2),
        limit: Limit::Requests(requests.len() as u32),
    };
    for (request, planned) in requests.iter_mut().zip(plan.plan(seed)?) {
        request.start_ns = planned.start.0;
    }
    Ok(())
}

/// Fills the columns of load and of servers; gives the marks that follow from them.
pub fn fill(
    record: &mut Record,
    trials: &[Trial<Sample>],
    slo: Option<&Slo>,
    absent: &mut BTreeMap<String, String>,
) -> Vec<Mark> {
    let counted: Vec<_> = trials.iter().filter(|trial| !trial.warmup).collect();
    let requests: Vec<_> = counted.iter().flat_map(|trial| arrivals(trial)).collect();
    let ttft: Vec<f64> =
        requests.iter().filter_map(|r| r.ttft().map(|time| time.0 as f64)).collect();
    record.ttft_ns_p95 = stats::percentile(&ttft, 95.0);
    record.ttft_ns_p99 = stats::percentile(&ttft, 99.0);
    let mut marks = Vec::new();

    let lags: Vec<f64> =
        requests.iter().filter(|r| r.intended_ns > 0).map(|r| r.lag().0 as f64).collect();
    record.client_lag_ns_p99 = stats::percentile(&lags, 99.0);
    let lag = stats::median(&lags).zip(stats::median(&ttft));
    if lag.is_some_and(|(lag, ttft)| lag > LAG * ttft) {
        marks.push(Mark::ClientLag);
    }

    if let Some(slo) = slo {
        let limits = Limits { ttft: slo.ttft, tpot: slo.tpot, end_to_end: slo.e2e };
        let window: u64 = counted.iter().filter_map(|trial| length(trial)).sum();
        if let Some(goodput) = metrics::goodput(&requests, 0, &limits, Nanos(window)) {
            record.slo_attainment = Some(goodput.met as f64 / goodput.requests as f64);
            record.slo_attainment_low = Some(goodput.attainment.low);
            record.goodput_per_s = Some(goodput.per_second);
        }
    }

    let samples: Vec<_> = counted.iter().flat_map(|trial| &trial.samples).collect();
    if samples.iter().any(|sample| sample.served.is_some()) {
        marks.extend(fill_served(record, &samples, absent));
    }
    marks
}

/// From the first intended start of a trial to its last token.
fn length(trial: &Trial<Sample>) -> Option<u64> {
    let first = trial.samples.iter().map(|sample| sample.intended_ns).min()?;
    let last = trial.samples.iter().filter_map(|sample| sample.token_ns.last()).max()?;
    last.checked_sub(first)
}

/// What servers say of themselves, and the prefill speed by their own clock: the client's time to
/// the first token holds the network and the server's queue too.
fn fill_served(
    record: &mut Record,
    samples: &[&Sample],
    absent: &mut BTreeMap<String, String>,
) -> Option<Mark> {
    let median_of = |f: &dyn Fn(&Sample, &Served) -> Option<f64>| {
        let pairs = samples.iter().filter_map(|sample| Some((sample, sample.served.as_ref()?)));
        stats::median(&pairs.filter_map(|(sample, served)| f(sample, served)).collect::<Vec<_>>())
    };
    record.server_prompt_ns_median = median_of(&|_, served| Some(served.server_prompt_ns? as f64));
    record.server_decode_ns_median = median_of(&|_, served| Some(served.server_decode_ns? as f64));
    record.cached_share_median = median_of(&|sample, served| {
        let prompt = f64::from(sample.prompt_tokens);
        (prompt > 0.0).then_some(f64::from(served.cached_tokens?) / prompt)
    });
    let speed = median_of(&|sample, served| {
        let computed = sample.prompt_tokens.checked_sub(served.cached_tokens.unwrap_or(0))?;
        let seconds = Nanos(served.server_prompt_ns?).seconds();
        (seconds > 0.0 && computed > 0).then(|| f64::from(computed) / seconds)
    });
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
    let clocks = median_of(&|sample, served| {
        let seen = sample.token_ns.last()?.checked_sub(*sample.token_ns.first()?)? as f64;
        let own = served.server_decode_ns? as f64;
        (own > 0.0).then(|| (seen / own - 1.0).abs())
    });
    clocks.filter(|&difference| difference > CLOCKS).map(|_| Mark::ServerClock)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(samples: Vec<Sample>) -> Trial<Sample> {
        Trial { case_id: "c".to_owned(), trial: 1, warmup: false, samples }
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

    #[test]
    fn requests_of_a_rate_start_at_that_rate_and_others_at_once() {
        let mut requests = vec![Request::default(); 2000];
        set_starts(&mut requests, Load::Concurrency(4), None, 1).unwrap();
        assert!(requests.iter().all(|request| request.start_ns == 0));
        set_starts(&mut requests, Load::Rate(50.0), None, 1).unwrap();
        let seconds = requests.last().unwrap().start_ns as f64 / 1e9;
        assert!((seconds / 40.0 - 1.0).abs() < 0.1, "{seconds}");
        assert!(requests.is_sorted_by_key(|request| request.start_ns));
    }

    #[test]
    fn attainment_counts_the_requests_that_meet_all_limits() {
        let fast = sample(0, &[10_000_000, 20_000_000], None);
        let slow = sample(0, &[90_000_000, 99_000_000], None);
        let slo = Slo {
            ttft: Some(Nanos(50_000_000)),
            tpot: None,
            e2e: None,
            attainment: crate::units::Share(0.9),
            search: false,
        };
        let mut record = Record::default();
        let trials = [trial(vec![fast, slow])];
        fill(&mut record, &trials, Some(&slo), &mut BTreeMap::new());
        assert_eq!(record.slo_attainment, Some(0.5));
        assert!((record.goodput_per_s.unwrap() - 1.0 / 0.099).abs() < 1e-6);
        assert!(record.slo_attainment_low.unwrap() < 0.5);
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
