//! Trials to the figures of a record.

use std::collections::BTreeMap;

use crate::host::Probe;
use crate::metrics::{self, Arrivals, Gap, Window};
use crate::record::{Record, Trial};
use crate::runner::protocol::{Sample, ServedFault};
use crate::scenario::Load;
use crate::stats::Summary;
use crate::watch::{IdlePower, Mark, Observed};

use super::energy;

/// A row is marked where the machine's bandwidth or arithmetic speed changed by more than this.
const DRIFT: f64 = 0.03;

/// One trial's value of each metric, in the units of the record's columns.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TrialValues {
    /// Median time to first token of its requests.
    pub ttft_ns: Option<f64>,
    /// Prompt tokens of all requests per second of the time until all had their first token; only
    /// where all start together.
    pub prefill_tok_s: Option<f64>,
    /// Median decode speed of its streams.
    pub decode_tok_s: Option<f64>,
    /// Tokens per second of all streams in the steady window.
    pub system_tok_s: Option<f64>,
    /// Median of new tokens / end-to-end time.
    pub end_to_end_tok_s: Option<f64>,
    /// Median end-to-end time.
    pub e2e_ns: Option<f64>,
}

/// The arrivals of a trial's requests that did not fail.
pub fn arrivals(trial: &Trial<Sample>) -> Vec<Arrivals<'_>> {
    trial
        .samples
        .iter()
        .filter(|sample| sample.error().is_none())
        .map(|s| Arrivals {
            intended_ns: s.intended_ns,
            sent_ns: s.sent_ns,
            prompt_tokens: s.prompt_tokens,
            token_ns: &s.token_ns,
        })
        .collect()
}

/// The streams of a static batch from the moment on at which the last prompt is done: before, a
/// stream's steps wait for the others' prompts, as long as the engine's step size lets them.
fn generating<'a>(streams: &[Arrivals<'a>]) -> Vec<Arrivals<'a>> {
    let start = streams.iter().filter_map(|s| s.token_ns.first()).max().copied().unwrap_or(0);
    let of_stream = |s: &Arrivals<'a>| {
        let before = s.token_ns.partition_point(|&at| at <= start);
        Arrivals { sent_ns: start, token_ns: &s.token_ns[before..], ..*s }
    };
    streams.iter().map(of_stream).collect()
}

fn is_static_batch(load: Load) -> bool {
    matches!(load, Load::Batch(n) if n > 1)
}

/// The gaps between the tokens of a trial's streams; of a static batch those after all prompts.
fn gaps(trial: &Trial<Sample>, load: Load) -> Vec<Gap> {
    let streams = arrivals(trial);
    if !is_static_batch(load) {
        return streams.iter().flat_map(Arrivals::gaps).collect();
    }
    let of_stream = |s: Arrivals<'_>| {
        let first = s.ttft().map(|time| Gap { time, tokens: s.first_event_tokens() as u32 });
        first.into_iter().chain(s.gaps())
    };
    generating(&streams).into_iter().flat_map(of_stream).collect()
}

/// Why a trial is void, if it is: an answer that ended early makes it other work than was asked for.
pub fn void(trial: &Trial<Sample>) -> Option<String> {
    let early = |(i, sample): (usize, &Sample)| {
        let error = sample.error().filter(|error| error.kind == ServedFault::EarlyEnd)?;
        Some(format!("request {i}: {}", error.reason))
    };
    trial.samples.iter().enumerate().find_map(early)
}

/// Whether a trial's figures are the row's.
pub fn counts(trial: &Trial<Sample>) -> bool {
    !trial.warmup && void(trial).is_none()
}

/// The values of the counted trials of `record`, in their order.
pub fn trial_values(record: &Record, trials: &[Trial<Sample>], load: Load) -> Vec<TrialValues> {
    // All users of a closed loop ask at its start, and with pauses never again all at once.
    let pauses = record.workload.as_deref().is_some_and(crate::workload::has_pauses);
    let counted = trials.iter().filter(|trial| counts(trial));
    counted.map(|trial| values(trial, load, pauses)).collect()
}

/// The window in which the machine's own speed is seen. An open loop peaks by chance, and users who
/// pause at their start, so their window is that of the schedule: from a tenth of it, when the engine
/// has filled, to the last start.
fn window(streams: &[Arrivals<'_>], load: Load, pauses: bool) -> Option<Window> {
    if !pauses && !matches!(load, Load::Rate(_) | Load::Trace | Load::MostRate) {
        return metrics::steady_window(streams);
    }
    let first = streams.iter().map(|s| s.intended_ns).min()?;
    let last = streams.iter().map(|s| s.intended_ns).max()?;
    let from_ns = first + (last - first) / 10;
    (last > from_ns).then_some(Window { from_ns, to_ns: last })
}

fn values(trial: &Trial<Sample>, load: Load, pauses: bool) -> TrialValues {
    let streams = arrivals(trial);
    let median_of = |f: &dyn Fn(&Arrivals<'_>) -> Option<f64>| {
        crate::stats::median(&streams.iter().filter_map(f).collect::<Vec<_>>())
    };
    let decode: Vec<_> = if is_static_batch(load) {
        generating(&streams).iter().filter_map(Arrivals::end_to_end_speed).collect()
    } else {
        streams.iter().filter_map(Arrivals::decode_speed).collect()
    };
    let decode = decode.iter().map(|speed| speed.0);
    let together =
        streams.windows(2).all(|pair| pair[0].sent_ns.abs_diff(pair[1].sent_ns) < 1_000_000);
    TrialValues {
        ttft_ns: median_of(&|s| s.ttft().map(|t| t.0 as f64)),
        prefill_tok_s: together
            .then(|| metrics::batch_prefill_speed(&streams))
            .flatten()
            .map(|speed| speed.0),
        decode_tok_s: crate::stats::median(&decode.collect::<Vec<_>>()),
        system_tok_s: window(&streams, load, pauses)
            .and_then(|window| metrics::system_throughput(&streams, window))
            .map(|speed| speed.0),
        end_to_end_tok_s: median_of(&|s| s.end_to_end_speed().map(|v| v.0)),
        e2e_ns: median_of(&|s| s.end_to_end().map(|t| t.0 as f64)),
    }
}

/// Fills the columns that follow from the trials alone. A case that did not end well keeps the
/// figures of the trials that it finished: they were measured.
pub fn fill(
    record: &mut Record,
    trials: &[Trial<Sample>],
    load: Load,
    bytes_per_token: Option<u64>,
) {
    let values = trial_values(record, trials, load);
    record.trials = values.len() as u32;
    record.warmup_trials = trials.iter().filter(|trial| trial.warmup).count() as u32;
    if load == Load::Calibration {
        // Prompts and batches of all sizes: a median over them would be a speed of nothing.
        return;
    }
    let of = |f: fn(&TrialValues) -> Option<f64>| {
        Summary::of(&values.iter().filter_map(f).collect::<Vec<_>>())
    };
    macro_rules! put {
        ($field:ident, $median:ident, $low:ident, $high:ident, $mad:ident) => {
            let summary = of(|v| v.$field);
            record.$median = summary.map(|s| s.median);
            record.$low = summary.and_then(|s| s.interval).map(|i| i.low);
            record.$high = summary.and_then(|s| s.interval).map(|i| i.high);
            record.$mad = summary.and_then(|s| s.mad);
        };
    }
    put!(ttft_ns, ttft_ns_median, ttft_ns_low, ttft_ns_high, ttft_ns_mad);
    put!(
        prefill_tok_s,
        prefill_tok_s_median,
        prefill_tok_s_low,
        prefill_tok_s_high,
        prefill_tok_s_mad
    );
    put!(decode_tok_s, decode_tok_s_median, decode_tok_s_low, decode_tok_s_high, decode_tok_s_mad);
    put!(system_tok_s, system_tok_s_median, system_tok_s_low, system_tok_s_high, system_tok_s_mad);
    record.end_to_end_tok_s_median = of(|v| v.end_to_end_tok_s).map(|s| s.median);
    record.e2e_ns_median = of(|v| v.e2e_ns).map(|s| s.median);

    let counted = trials.iter().filter(|trial| counts(trial));
    let gaps: Vec<_> = counted.flat_map(|trial| gaps(trial, load)).collect();
    if let Some(gaps) = metrics::summarise_gaps(&gaps) {
        record.itl_ns_p50 = Some(gaps.p50.0 as f64);
        record.itl_ns_p95 = gaps.p95.map(|t| t.0 as f64);
        record.itl_ns_p99 = gaps.p99.map(|t| t.0 as f64);
        record.itl_ns_max = Some(gaps.longest.0 as f64);
        record.stalls = Some(gaps.stalls as u64);
    }
    record.bytes_per_token = bytes_per_token;
}

/// Fills what was observed of the runner's processes and devices; energy is that of `shown`.
pub fn fill_observed(
    record: &mut Record,
    observed: &Observed,
    idle: &IdlePower,
    shown: &[Trial<Sample>],
    absent: &mut BTreeMap<String, String>,
) {
    record.peak_memory_bytes = observed.peak_memory.map(|b| b.0);
    record.harness_cpu_share = observed.timed().harness_share().map(|s| s.0);
    // What a server counts itself stands where its processes' memory cannot be seen.
    record.vram_basis = record.peak_vram_bytes.map(|_| "engine".to_owned());
    if let Some(peak) = observed.peak_device_memory() {
        record.peak_vram_bytes = Some(peak.0);
        record.vram_basis = observed.device_memory_basis().map(|b| b.as_str().to_owned());
    }
    let used: Vec<_> = observed.gpus.iter().filter(|gpu| gpu.peak_memory.is_some()).collect();
    let each: Vec<_> = used
        .iter()
        .filter_map(|gpu| Some(format!("{}={}", gpu.index, gpu.peak_memory?.0)))
        .collect();
    record.peak_vram_bytes_by_gpu = (!each.is_empty()).then(|| each.join(" "));
    record.gpu_clock_mhz_median = used.iter().filter_map(|gpu| gpu.clock_mhz).min();
    record.gpu_celsius_max = used.iter().filter_map(|gpu| gpu.hottest_celsius).max();
    record.gpu_power_limit_watts =
        used.iter().filter_map(|gpu| gpu.power_limit).map(|w| w.0).min_by(f64::total_cmp);
    energy::fill(record, observed, idle, shown, absent);
    absent.extend(observed.absent.iter().map(|(k, v)| (k.clone(), v.clone())));
}

/// Fills what the probe measured before and after; gives the mark of a machine that drifted.
pub fn fill_probes(
    record: &mut Record,
    probes: (Option<&Probe>, Option<&Probe>),
    absent: &mut BTreeMap<String, String>,
) -> Option<Mark> {
    let (Some(before), Some(after)) = probes else {
        let reason = "the probe did not run".to_owned();
        absent.insert("probe_bandwidth_gb_s".to_owned(), reason);
        return None;
    };
    record.probe_bandwidth_gb_s_before = Some(before.read_bandwidth.0);
    record.probe_bandwidth_gb_s_after = Some(after.read_bandwidth.0);
    record.probe_tflops_before = Some(before.compute.0);
    record.probe_tflops_after = Some(after.compute.0);
    // Of a single stream only: a batch reads the weights once for all its sequences. And on the CPU
    // only: it is the CPU's memory that the probe measures.
    let bandwidth = f64::midpoint(before.read_bandwidth.0, after.read_bandwidth.0) * 1e9;
    let single = record.batch == 1 && !record.is_loaded();
    record.bandwidth_share = record
        .decode_tok_s_median
        .zip(record.bytes_per_token)
        .filter(|_| single && record.backend.as_deref() == Some("CPU"))
        .map(|(speed, bytes)| speed * bytes as f64 / bandwidth);
    (before.drift(after).0 > DRIFT).then_some(Mark::ProbeDrift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_who_pause_are_not_judged_by_the_burst_of_their_start() {
        // Two users, 10 tokens in a tenth of a second each, then a pause of a second.
        const MS: u64 = 1_000_000;
        let sample = |start: u64| Sample {
            intended_ns: start * MS,
            sent_ns: start * MS,
            prompt_tokens: 10,
            token_ns: (1..=10).map(|i| (start + 10 * i) * MS).collect(),
            ..Sample::default()
        };
        let starts = [0, 0, 1100, 1700, 2200, 2800, 3300, 3900];
        let trials = [Trial::new("c", 1, false, starts.map(sample).into())];
        let speed = |workload: &str| {
            let mut record = Record { workload: Some(workload.to_owned()), ..Record::default() };
            fill(&mut record, &trials, Load::Concurrency(2), None);
            record.system_tok_s_median.unwrap()
        };
        assert_eq!(speed("prompts 10, answers 10, context 64"), 200.0);
        let paused = speed("prompts 10, answers 10, think 1.00 s, context 64");
        assert!((paused / 14.2 - 1.0).abs() < 0.05, "{paused}");
    }

    #[test]
    fn a_static_batch_generates_once_all_prompts_are_done() {
        // The first prompt is done a second before the second one: its next token waits for that.
        const MS: u64 = 1_000_000;
        let sample = |first: u64| Sample {
            prompt_tokens: 100,
            token_ns: std::iter::once(first)
                .chain((1..=30).map(|i| 2000 + 10 * i))
                .map(|ms| ms * MS)
                .collect(),
            ..Sample::default()
        };
        let trials = [Trial::new("c", 1, false, vec![sample(1000), sample(2000)])];
        let mut record = Record::default();
        fill(&mut record, &trials, Load::Batch(2), None);
        assert_eq!(record.decode_tok_s_median, Some(100.0));
        assert_eq!((record.itl_ns_max, record.stalls), (Some(10e6), Some(0)));
        fill(&mut record, &trials, Load::Concurrency(2), None);
        assert_eq!((record.itl_ns_max, record.stalls), (Some(1010e6), Some(1)));
    }
}
