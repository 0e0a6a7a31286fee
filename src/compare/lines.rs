//! Rows of results with their trials → one line for each metric of each case that both have.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::obstacle::load;
use super::{Better, Comparison, Condition, Pairing, Verdict, compare, join, obstacle, pairs};
use crate::record::{Outcome, Record};
use crate::stats::{MIN_TRIALS, Summary};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Time to first token.
    TtftNs,
    /// Speed of the prompt.
    PrefillTokS,
    /// Speed of one stream's generation.
    DecodeTokS,
    /// Speed of all streams' generation.
    SystemTokS,
    /// From the request to its last token.
    E2eNs,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Self; 5] =
        [Self::TtftNs, Self::PrefillTokS, Self::DecodeTokS, Self::SystemTokS, Self::E2eNs];

    /// Its name in `records.csv`, without the statistic.
    pub fn column(self) -> &'static str {
        match self {
            Self::TtftNs => "ttft_ns",
            Self::PrefillTokS => "prefill_tok_s",
            Self::DecodeTokS => "decode_tok_s",
            Self::SystemTokS => "system_tok_s",
            Self::E2eNs => "e2e_ns",
        }
    }

    /// Which way it is better.
    pub fn better(self) -> Better {
        match self {
            Self::TtftNs | Self::E2eNs => Better::Lower,
            Self::PrefillTokS | Self::DecodeTokS | Self::SystemTokS => Better::Higher,
        }
    }

    /// Puts its trials' summary into a row.
    pub fn put(self, record: &mut Record, summary: &Summary) {
        let Summary { median, mad, interval, .. } = *summary;
        let (low, high) = (interval.map(|i| i.low), interval.map(|i| i.high));
        macro_rules! put {
            ($median:ident, $low:ident, $high:ident, $mad:ident) => {{
                record.$median = Some(median);
                (record.$low, record.$high, record.$mad) = (low, high, mad);
            }};
        }
        match self {
            Self::TtftNs => put!(ttft_ns_median, ttft_ns_low, ttft_ns_high, ttft_ns_mad),
            Self::PrefillTokS => {
                put!(prefill_tok_s_median, prefill_tok_s_low, prefill_tok_s_high, prefill_tok_s_mad)
            }
            Self::DecodeTokS => {
                put!(decode_tok_s_median, decode_tok_s_low, decode_tok_s_high, decode_tok_s_mad)
            }
            Self::SystemTokS => {
                put!(system_tok_s_median, system_tok_s_low, system_tok_s_high, system_tok_s_mad)
            }
            Self::E2eNs => record.e2e_ns_median = Some(median),
        }
    }

    pub(super) fn median(self, record: &Record) -> Option<f64> {
        match self {
            Self::TtftNs => record.ttft_ns_median,
            Self::PrefillTokS => record.prefill_tok_s_median,
            Self::DecodeTokS => record.decode_tok_s_median,
            Self::SystemTokS => record.system_tok_s_median,
            Self::E2eNs => record.e2e_ns_median,
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::TtftNs => "TTFT",
            Self::PrefillTokS => "prefill tok/s",
            Self::DecodeTokS => "decode tok/s",
            Self::SystemTokS => "system tok/s",
            Self::E2eNs => "E2E",
        })
    }
}

/// Trial number and value of each metric.
pub type Values = BTreeMap<Metric, Vec<(u32, f64)>>;

/// A row with the values of its counted trials.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Subject {
    /// Which of the folders it stands in.
    pub run: usize,
    /// The row.
    pub record: Record,
    /// The values.
    pub values: Values,
}

/// What a comparison is asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Terms {
    /// The metrics; where there are none, those that matter for the case.
    pub metrics: Vec<Metric>,
    /// The conditions that may differ.
    pub tested: Vec<Condition>,
    /// A loss beyond this share is a regression.
    pub threshold: f64,
    /// Whether equal numbers of the two sides were measured one after the other; `None`: the rows of
    /// one run say so themselves.
    pub in_turns: Option<bool>,
}

/// One metric of one case, or a case that cannot be compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of records.csv, each side with its own")]
pub struct Line {
    pub model: String,
    pub quant: String,
    pub weights: String,
    pub prompt_tokens: u32,
    pub new_tokens: u32,
    pub depth: u32,
    pub load: String,
    pub baseline_case_id: Option<String>,
    pub baseline_engine: Option<String>,
    pub baseline_version: Option<String>,
    pub baseline_host: Option<String>,
    pub baseline_marks: Option<String>,
    pub candidate_case_id: Option<String>,
    pub candidate_engine: Option<String>,
    pub candidate_version: Option<String>,
    pub candidate_host: Option<String>,
    pub candidate_marks: Option<String>,
    /// `None` where the whole case cannot be compared.
    pub metric: Option<Metric>,
    pub baseline_median: Option<f64>,
    pub candidate_median: Option<f64>,
    /// Candidate / baseline.
    pub ratio: Option<f64>,
    pub ratio_low: Option<f64>,
    pub ratio_high: Option<f64>,
    /// The smallest relative difference that would have been found nine times in ten.
    pub smallest_detectable: Option<f64>,
    pub pairing: Option<Pairing>,
    pub baseline_trials: usize,
    pub candidate_trials: usize,
    pub verdict: Verdict,
    /// Why there is no better verdict.
    pub reason: Option<String>,
    /// Whether the candidate lost more than the threshold, or its figures.
    pub regression: bool,
}

/// Compares the cases of two sets of rows that share an id.
pub fn compare_by_case(baseline: &[Subject], candidate: &[Subject], terms: &Terms) -> Vec<Line> {
    let joined = join(baseline, candidate, |subject| subject.record.case_id.clone());
    let mut lines = Vec::new();
    for (_, a, b) in joined.both {
        lines.extend(case(a, b, terms));
    }
    let alone = |ids: Vec<String>, of: &[Subject], side: Side| -> Vec<Line> {
        let found = ids.iter().filter_map(|id| of.iter().find(|s| s.record.case_id == *id));
        found.map(|subject| single(subject, side)).collect()
    };
    lines.extend(alone(joined.only_baseline, baseline, Side::Baseline));
    lines.extend(alone(joined.only_candidate, candidate, Side::Candidate));
    lines
}

/// Compares the engines of each work with the first of them, or with the engine `baseline`.
pub fn compare_by_engine(subjects: &[Subject], baseline: Option<&str>, terms: &Terms) -> Vec<Line> {
    let mut works: Vec<(Vec<String>, Vec<&Subject>)> = Vec::new();
    for subject in subjects {
        let key = work(&subject.record);
        match works.iter_mut().find(|(known, _)| *known == key) {
            Some((_, group)) => group.push(subject),
            None => works.push((key, vec![subject])),
        }
    }
    let mut lines = Vec::new();
    for (_, group) in works {
        let first = match baseline {
            None => group.first(),
            Some(engine) => group.iter().find(|s| s.record.engine == engine),
        };
        let Some(first) = first else {
            lines.extend(group.iter().map(|subject| single(subject, Side::Candidate)));
            continue;
        };
        let others = group.iter().filter(|s| s.record.engine != first.record.engine);
        let before = lines.len();
        for other in others {
            lines.extend(case(first, other, terms));
        }
        if lines.len() == before {
            lines.push(single(first, Side::Baseline));
        }
    }
    lines
}

/// What was to be done, whichever engine did it.
fn work(record: &Record) -> Vec<String> {
    let numbers = [record.prompt_tokens, record.new_tokens, record.depth];
    let words = [&record.host, &record.model, &record.quant, &record.weights];
    words
        .into_iter()
        .cloned()
        .chain(numbers.map(|n| n.to_string()))
        .chain([load(record), record.workload.clone().unwrap_or_default()])
        .collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Baseline,
    Candidate,
}

fn single(subject: &Subject, side: Side) -> Line {
    let (baseline, candidate, missing) = match side {
        Side::Baseline => (Some(subject), None, "candidate"),
        Side::Candidate => (None, Some(subject), "baseline"),
    };
    let reason = format!("the {missing} has no such case");
    Line { reason: Some(reason), ..empty(baseline, candidate) }
}

fn case(baseline: &Subject, candidate: &Subject, terms: &Terms) -> Vec<Line> {
    let (a, b) = (&baseline.record, &candidate.record);
    let line = empty(Some(baseline), Some(candidate));
    if let Some(reason) = obstacle(a, b, &terms.tested) {
        // What worked and works no more is the worst of regressions.
        let lost = a.outcome == Outcome::Measured && b.outcome != Outcome::Measured;
        return vec![Line { reason: Some(reason), regression: lost, ..line }];
    }
    let metrics = if terms.metrics.is_empty() { usual(a, b) } else { terms.metrics.clone() };
    let together = terms.in_turns.unwrap_or_else(|| interleaved(baseline, candidate));
    metrics
        .into_iter()
        .map(|metric| {
            let trials = |subject: &Subject| subject.values.get(&metric).cloned();
            let (x, y) =
                (trials(baseline).unwrap_or_default(), trials(candidate).unwrap_or_default());
            let medians = (metric.median(a), metric.median(b));
            let found = of_trials(&x, &y, together, metric.better());
            let ratio = found.ratio.or_else(|| {
                let (x, y) = (medians.0?, medians.1?);
                (x > 0.0 && y > 0.0).then(|| y / x)
            });
            let reason = match (medians, found.verdict) {
                ((None, _), _) => Some(format!("the baseline has no {metric}")),
                (_, Verdict::NotComparable) => None,
                ((_, None), _) => Some(format!("the candidate has no {metric}")),
                (_, Verdict::TooFewTrials) => Some(format!(
                    "{} and {} values bear no interval",
                    found.baseline_trials, found.candidate_trials
                )),
                _ => None,
            };
            let absent = medians.0.is_none() || medians.1.is_none();
            Line {
                metric: Some(metric),
                baseline_median: medians.0,
                candidate_median: medians.1,
                ratio: if absent { None } else { ratio },
                ratio_low: found.interval.map(|i| i.low),
                ratio_high: found.interval.map(|i| i.high),
                smallest_detectable: found.smallest_detectable,
                pairing: Some(found.pairing),
                baseline_trials: found.baseline_trials,
                candidate_trials: found.candidate_trials,
                verdict: if absent { Verdict::NotComparable } else { found.verdict },
                reason,
                regression: is_regression(&found, metric.better(), terms.threshold),
                ..line.clone()
            }
        })
        .collect()
}

fn of_trials(
    baseline: &[(u32, f64)],
    candidate: &[(u32, f64)],
    together: bool,
    better: Better,
) -> Comparison {
    if together {
        let (x, y) = pairs(baseline, candidate);
        if x.len() >= MIN_TRIALS {
            return compare(&x, &y, Pairing::Interleaved, better);
        }
    }
    let values = |trials: &[(u32, f64)]| trials.iter().map(|(_, value)| *value).collect::<Vec<_>>();
    compare(&values(baseline), &values(candidate), Pairing::Apart, better)
}

/// Whether trials of the two ran in turns. Engines of one point do, unless they do not fit into
/// memory together: then each has a start and a probe of its own.
fn interleaved(a: &Subject, b: &Subject) -> bool {
    let bits = |value: Option<f64>| value.map(f64::to_bits);
    let probes =
        |r: &Record| (bits(r.probe_bandwidth_gb_s_before), bits(r.probe_bandwidth_gb_s_after));
    let same_start = !a.record.started.is_empty() && a.record.started == b.record.started;
    // Two machines can start in the same second.
    a.run == b.run && same_start && probes(&a.record) == probes(&b.record)
}

/// Generation, and the prompt: by its speed where there is one, else by the time that it takes.
fn usual(a: &Record, b: &Record) -> Vec<Metric> {
    let both = |metric: Metric| metric.median(a).is_some() && metric.median(b).is_some();
    let prompt = if both(Metric::PrefillTokS) { Metric::PrefillTokS } else { Metric::TtftNs };
    let several = a.batch > 1 || a.is_loaded();
    let generation = if several { Metric::SystemTokS } else { Metric::DecodeTokS };
    let wanted = [prompt, generation];
    // What neither has, such as the decode speed of a single new token, is no line.
    let has = |m: &Metric| m.median(a).is_some() || m.median(b).is_some();
    wanted.into_iter().filter(has).collect()
}

fn is_regression(found: &Comparison, better: Better, threshold: f64) -> bool {
    let beyond = found.ratio.is_some_and(|ratio| match better {
        Better::Higher => ratio < 1.0 - threshold,
        Better::Lower => ratio > 1.0 + threshold,
    });
    found.verdict == Verdict::Slower && beyond
}

fn empty(baseline: Option<&Subject>, candidate: Option<&Subject>) -> Line {
    let (a, b) = (baseline.map(|s| &s.record), candidate.map(|s| &s.record));
    let either = a.or(b).cloned().unwrap_or_default();
    let marks = |r: &Record| Some(r.marks.clone()).filter(|marks| !marks.is_empty());
    Line {
        load: load(&either),
        model: either.model,
        quant: either.quant,
        weights: either.weights,
        prompt_tokens: either.prompt_tokens,
        new_tokens: either.new_tokens,
        depth: either.depth,
        baseline_case_id: a.map(|r| r.case_id.clone()),
        baseline_engine: a.map(|r| r.engine.clone()),
        baseline_version: a.and_then(|r| r.engine_version.clone()),
        baseline_host: a.map(|r| r.host.clone()),
        baseline_marks: a.and_then(marks),
        candidate_case_id: b.map(|r| r.case_id.clone()),
        candidate_engine: b.map(|r| r.engine.clone()),
        candidate_version: b.and_then(|r| r.engine_version.clone()),
        candidate_host: b.map(|r| r.host.clone()),
        candidate_marks: b.and_then(marks),
        metric: None,
        baseline_median: None,
        candidate_median: None,
        ratio: None,
        ratio_low: None,
        ratio_high: None,
        smallest_detectable: None,
        pairing: None,
        baseline_trials: 0,
        candidate_trials: 0,
        verdict: Verdict::NotComparable,
        reason: None,
        regression: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        Terms { metrics: Vec::new(), tested: Vec::new(), threshold: 0.03, in_turns: None }
    }

    fn subject(engine: &str, probe: f64, decode: &[f64]) -> Subject {
        let median = crate::stats::median(decode);
        let record = Record {
            case_id: format!("m-{engine}-1"),
            engine: engine.to_owned(),
            model: "m".to_owned(),
            outcome: Outcome::Measured,
            started: "2026-01-01T00:00:00Z".to_owned(),
            batch: 1,
            decode_tok_s_median: median,
            probe_bandwidth_gb_s_before: Some(probe),
            probe_bandwidth_gb_s_after: Some(probe),
            ..Record::default()
        };
        let trials = (1..).zip(decode.iter().copied()).collect();
        let values = Values::from([(Metric::DecodeTokS, trials)]);
        Subject { run: 0, record, values }
    }

    const FAST: [f64; 6] = [110.0, 111.0, 109.0, 110.5, 109.5, 110.2];
    const SLOW: [f64; 6] = [100.0, 101.0, 99.0, 100.5, 99.5, 100.1];

    #[test]
    fn engines_measured_in_turns_are_compared_in_pairs_and_others_are_not() {
        let engines = Terms { tested: vec![Condition::Engine], ..terms() };
        let of = |probe: f64| {
            let subjects = [subject("a", 1.0, &FAST), subject("b", probe, &SLOW)];
            compare_by_engine(&subjects, None, &engines).remove(0)
        };
        assert_eq!(of(1.0).pairing, Some(Pairing::Interleaved));
        assert_eq!(of(1.0).verdict, Verdict::Slower);
        assert_eq!(of(2.0).pairing, Some(Pairing::Apart));
        let elsewhere = Subject { run: 1, ..subject("b", 1.0, &SLOW) };
        let lines = compare_by_engine(&[subject("a", 1.0, &FAST), elsewhere], None, &engines);
        assert_eq!(lines[0].pairing, Some(Pairing::Apart), "another folder, in the same second");
    }

    #[test]
    fn another_engine_may_be_the_baseline() {
        let engines = Terms { tested: vec![Condition::Engine], ..terms() };
        let subjects = [subject("a", 1.0, &FAST), subject("b", 1.0, &SLOW)];
        let line = compare_by_engine(&subjects, Some("b"), &engines).remove(0);
        assert_eq!((line.verdict, line.regression), (Verdict::Faster, false));
        let lines = compare_by_engine(&subjects, Some("c"), &engines);
        assert!(lines.iter().all(|l| l.verdict == Verdict::NotComparable));
    }

    #[test]
    fn only_a_loss_beyond_the_threshold_is_a_regression() {
        let (a, b) = ([subject("a", 1.0, &FAST)], [subject("a", 2.0, &SLOW)]);
        let line = compare_by_case(&a, &b, &terms()).remove(0);
        assert_eq!((line.verdict, line.regression), (Verdict::Slower, true));
        let lenient = Terms { threshold: 0.2, ..terms() };
        let line = compare_by_case(&a, &b, &lenient).remove(0);
        assert_eq!((line.verdict, line.regression), (Verdict::Slower, false));
        let line = compare_by_case(&b, &a, &terms()).remove(0);
        assert_eq!((line.verdict, line.regression), (Verdict::Faster, false));
    }

    #[test]
    fn a_time_that_grows_is_slower() {
        let times = |values: &[f64]| {
            let mut subject = subject("a", 1.0, &FAST);
            subject.record.ttft_ns_median = crate::stats::median(values);
            let trials = (1..).zip(values.iter().copied()).collect();
            subject.values.insert(Metric::TtftNs, trials);
            [subject]
        };
        let asked = Terms { metrics: vec![Metric::TtftNs], ..terms() };
        let line = compare_by_case(&times(&SLOW), &times(&FAST), &asked).remove(0);
        assert_eq!((line.verdict, line.regression), (Verdict::Slower, true));
    }

    #[test]
    fn a_candidate_that_no_longer_runs_is_a_regression() {
        let (a, mut b) = (subject("a", 1.0, &FAST), subject("a", 2.0, &SLOW));
        b.record.outcome = Outcome::OutOfMemory;
        let line =
            compare_by_case(std::slice::from_ref(&a), std::slice::from_ref(&b), &terms()).remove(0);
        assert_eq!((line.verdict, line.regression), (Verdict::NotComparable, true));
        let line = compare_by_case(&[b], &[a], &terms()).remove(0);
        assert!(!line.regression, "that it runs now is none");
    }

    #[test]
    fn rows_without_trials_have_a_ratio_and_no_verdict() {
        let (mut a, mut b) = (subject("a", 1.0, &FAST), subject("a", 2.0, &SLOW));
        (a.values, b.values) = (BTreeMap::new(), BTreeMap::new());
        let line = compare_by_case(&[a], &[b], &terms()).remove(0);
        assert_eq!((line.verdict, line.ratio_low), (Verdict::TooFewTrials, None));
        assert!((line.ratio.unwrap() - 100.05 / 110.1).abs() < 1e-9, "{line:?}");
        assert!(!line.regression && line.reason.unwrap().contains("0 and 0 values"));
    }

    #[test]
    fn a_case_that_one_side_lacks_is_a_line_that_says_so() {
        let lines = compare_by_case(&[subject("a", 1.0, &FAST)], &[], &terms());
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].reason.as_deref(), Some("the candidate has no such case"));
        assert!(!lines[0].regression);
    }

    #[test]
    fn a_lost_metric_is_not_a_verdict() {
        let (a, mut b) = (subject("a", 1.0, &FAST), subject("a", 2.0, &[]));
        b.record.decode_tok_s_median = None;
        let line = compare_by_case(&[a], &[b], &terms()).remove(0);
        assert_eq!(line.verdict, Verdict::NotComparable);
        assert_eq!(line.reason.as_deref(), Some("the candidate has no decode tok/s"));
        assert_eq!(line.ratio, None);
    }
}
