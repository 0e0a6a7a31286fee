//! Whether what a runner answered to a trial can be what happened.

use crate::runner::Fault;
use crate::runner::child::Failure;
use crate::runner::protocol::{Sample, ServedFault};

/// The samples of a trial, where they can be: a request has all its tokens at times that can be, or it
/// failed with a reason. What a limit by time left out is no part of it.
pub fn check(samples: Vec<Sample>, wanted: &[usize]) -> Result<Vec<Sample>, Failure> {
    if samples.len() != wanted.len() {
        let text = format!("{} samples for {} requests", samples.len(), wanted.len());
        return Err(Failure::Nonsense(text));
    }
    for (i, (sample, &wanted)) in samples.iter().zip(wanted).enumerate() {
        if sample.error().is_some() {
            continue;
        }
        let got = sample.token_ns.len();
        // A server's client answers for its own counts: an early end may be allowed.
        if sample.served.is_none() && got != wanted {
            return Err(Failure::Nonsense(format!("request {i} has {got} tokens, not {wanted}")));
        }
        if !sample.token_ns.is_sorted()
            || sample.token_ns.first().is_some_and(|&t| t < sample.sent_ns)
        {
            return Err(Failure::Nonsense(format!("request {i} has tokens that run backwards")));
        }
    }
    let samples: Vec<_> = samples.into_iter().filter(|sample| !sample.is_left_out()).collect();
    if samples.is_empty() {
        let words = "no request could start before the trial's time was over".to_owned();
        return Err(Failure::Reported(Fault::Failed, words));
    }
    Ok(samples)
}

/// Why no request of a trial was answered whole; none where one was, and where an answer ended
/// early: that voids the trial.
pub fn unanswered(samples: &[Sample]) -> Option<String> {
    let failed =
        |sample: &Sample| sample.error().is_some_and(|error| error.kind != ServedFault::EarlyEnd);
    let first = samples.first().and_then(Sample::error)?;
    let all = samples.iter().all(failed);
    all.then(|| format!("no request succeeded; the first: {}", first.reason))
}

/// Whether a server that works can have failed so: it refused requests, or was too slow for them.
pub fn overloaded(samples: &[Sample]) -> bool {
    let of_load = [ServedFault::RateLimited, ServedFault::TimedOut];
    samples.iter().filter_map(Sample::error).any(|error| of_load.contains(&error.kind))
}
