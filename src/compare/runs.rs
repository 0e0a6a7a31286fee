//! Several runs of each side, each run one value.

use super::lines::{Metric, Subject};
use super::obstacle;
use crate::record::Outcome;
use crate::stats::Summary;

/// Several runs of the same cases as one: each run is one value, so that what changes with every
/// start of a process is in the interval. Fails where two of them did not do the same.
pub fn as_one(runs: &[Vec<Subject>]) -> Result<Vec<Subject>, String> {
    let mut merged: Vec<Subject> = Vec::new();
    for (number, run) in (0..).zip(runs) {
        for subject in run {
            let record = &subject.record;
            let known = merged.iter().position(|m| m.record.case_id == record.case_id);
            let place = known.unwrap_or_else(|| {
                merged.push(Subject { record: record.clone(), ..Subject::default() });
                merged.len() - 1
            });
            let into = &mut merged[place];
            // A case that failed once has failed: its other runs are those that were lucky.
            if record.outcome != Outcome::Measured {
                into.record.outcome = record.outcome;
                into.record.reason.clone_from(&record.reason);
                continue;
            }
            let differs = obstacle(&into.record, record, &[]);
            if let (Outcome::Measured, Some(reason)) = (into.record.outcome, differs) {
                return Err(format!("{}: runs of one side: {reason}", record.case_id));
            }
            for word in record.marks.split_whitespace() {
                if !into.record.marks.split_whitespace().any(|known| known == word) {
                    into.record.marks = format!("{} {word}", into.record.marks).trim().to_owned();
                }
            }
            for metric in Metric::ALL {
                if let Some(value) = metric.median(record) {
                    into.values.entry(metric).or_default().push((number, value));
                }
            }
        }
    }
    for subject in &mut merged {
        for (metric, values) in &subject.values {
            let values: Vec<f64> = values.iter().map(|(_, value)| *value).collect();
            if let Some(summary) = Summary::of(&values) {
                metric.put(&mut subject.record, &summary);
            }
        }
    }
    Ok(merged)
}

/// Whether the runs of two sides took turns: each pair was over before the next one started.
pub fn took_turns(baseline: &[Vec<Subject>], candidate: &[Vec<Subject>]) -> bool {
    let times = |run: &Vec<Subject>| {
        let started = || run.iter().map(|s| s.record.started.as_str());
        Some((started().min()?.to_owned(), started().max()?.to_owned()))
    };
    let pairs: Option<Vec<_>> = baseline
        .iter()
        .zip(candidate)
        .map(|(a, b)| {
            let (a, b) = (times(a)?, times(b)?);
            Some((a.0.min(b.0), a.1.max(b.1)))
        })
        .collect();
    let sorted = |pairs: Vec<(String, String)>| pairs.windows(2).all(|w| w[0].1 < w[1].0);
    baseline.len() == candidate.len() && pairs.is_some_and(sorted)
}

#[cfg(test)]
mod tests {
    use super::super::{Pairing, Terms, Values, Verdict, compare_by_case};
    use super::*;
    use crate::record::Record;

    fn terms() -> Terms {
        Terms { metrics: Vec::new(), tested: Vec::new(), threshold: 0.03, in_turns: None }
    }

    fn subject(decode: &[f64]) -> Subject {
        let record = Record {
            case_id: "m-1".to_owned(),
            outcome: Outcome::Measured,
            batch: 1,
            decode_tok_s_median: crate::stats::median(decode),
            ..Record::default()
        };
        let trials = (1..).zip(decode.iter().copied()).collect();
        Subject { run: 0, record, values: Values::from([(Metric::DecodeTokS, trials)]) }
    }

    fn runs(medians: [f64; 5], minutes: [u32; 5]) -> Vec<Vec<Subject>> {
        let run = |(median, minute): (f64, u32)| {
            let mut subject = subject(&[median; 5]);
            subject.record.started = format!("2026-01-01T00:{minute:02}:00Z");
            vec![subject]
        };
        medians.into_iter().zip(minutes).map(run).collect()
    }

    #[test]
    fn what_a_new_start_changes_is_in_the_interval_of_several_runs() {
        // The same program at one of two speeds, drawn with each start; a process agrees with itself.
        let a = runs([227.0, 255.0, 227.5, 255.5, 228.0], [0, 2, 4, 6, 8]);
        let b = runs([255.0, 227.0, 227.0, 227.0, 255.0], [1, 3, 5, 7, 9]);
        let single = compare_by_case(&a[0], &b[0], &terms()).remove(0);
        assert_eq!(single.verdict, Verdict::Faster, "which is true of these two processes only");
        assert!(took_turns(&a, &b));
        let several = Terms { in_turns: Some(true), ..terms() };
        let (x, y) = (as_one(&a).unwrap(), as_one(&b).unwrap());
        let line = compare_by_case(&x, &y, &several).remove(0);
        assert_eq!(line.verdict, Verdict::NoDifferenceSeen);
        assert_eq!((line.baseline_trials, line.pairing), (5, Some(Pairing::Interleaved)));
        assert_eq!(line.baseline_median, Some(228.0));
    }

    #[test]
    fn runs_that_followed_one_another_did_not_take_turns() {
        let a = runs([1.0; 5], [0, 1, 2, 3, 4]);
        let b = runs([1.0; 5], [5, 6, 7, 8, 9]);
        assert!(!took_turns(&a, &b));
        assert!(!took_turns(&a[..4], &b));
    }

    #[test]
    fn a_case_that_failed_in_one_run_has_failed() {
        for failed in [0, 3] {
            let (a, mut b) = (runs([1.0; 5], [0; 5]), runs([1.0; 5], [0; 5]));
            b[failed][0].record.outcome = Outcome::Crashed;
            let line = compare_by_case(&as_one(&a).unwrap(), &as_one(&b).unwrap(), &terms());
            assert!(line[0].regression && line[0].verdict == Verdict::NotComparable);
        }
    }

    #[test]
    fn runs_of_one_side_have_to_be_of_the_same_work() {
        let mut a = runs([1.0; 5], [0, 1, 2, 3, 4]);
        a[3][0].record.engine_version = Some("2".to_owned());
        let error = as_one(&a).unwrap_err();
        assert!(error.contains("the engine versions differ"), "{error}");
    }
}
