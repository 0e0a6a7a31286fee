//! A server's own times from its page of metrics: what one trial added to its sums.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bench::runner::protocol::{Served, ServedFault};
use tokio::runtime::Runtime;

use crate::connection::{Target, exchange};
use crate::descriptor::Metrics;
use crate::payload::Ask;

/// How long the page may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How long a server may take to count a request that has ended.
const COUNTED: Duration = Duration::from_secs(2);

/// The sums of a page at one moment, by name, over all labels.
#[derive(Debug, Default)]
pub struct Sums(BTreeMap<String, f64>);

impl Sums {
    /// The page as it is now; none where it cannot be had.
    pub fn read(runtime: &Runtime, target: &Target, metrics: &Metrics) -> Option<Self> {
        let answer = runtime.block_on(exchange(target, &metrics.path, Ask::Get, ANSWER));
        let (status, page) = answer.ok()?;
        (status == 200).then(|| Self::parse(&String::from_utf8_lossy(&page)))
    }

    /// The Prometheus text format, version 0.0.4: `name{label="value"} number`.
    fn parse(page: &str) -> Self {
        let mut sums = BTreeMap::new();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            // Label values may hold spaces: the number stands after the last brace.
            let rest = line.rsplit_once('}').map_or_else(|| &line[name.len()..], |(_, rest)| rest);
            let number = rest.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
            if let Some(number) = number {
                *sums.entry(name.to_owned()).or_default() += number;
            }
        }
        Self(sums)
    }

    fn added(&self, before: &Self, name: &str) -> Option<f64> {
        let now = self.0.get(name)?;
        // What was not there before has counted from zero.
        Some(now - before.0.get(name).unwrap_or(&0.0))
    }

    /// The mean of what `requests` requests added to a histogram of seconds, in nanoseconds; none
    /// where another number of requests was counted: they were not all ours.
    fn mean_ns(&self, before: &Self, histogram: &str, requests: usize) -> Option<u64> {
        let count = self.added(before, &format!("{histogram}_count"))?;
        let seconds = self.added(before, &format!("{histogram}_sum"))?;
        (requests > 0 && count == requests as f64 && seconds >= 0.0)
            .then(|| (seconds / count * 1e9).round() as u64)
    }
}

/// Those of a trial's requests that reached the server; none where one failed: it is in the
/// server's sums or not, nobody knows.
fn whole<'a, 'b>(requests: &'a mut [&'b mut Served]) -> Option<Vec<&'a mut &'b mut Served>> {
    let not_started = |served: &Served| {
        served.error.as_ref().is_some_and(|error| error.kind == ServedFault::NotStarted)
    };
    let started: Vec<_> = requests.iter_mut().filter(|served| !not_started(served)).collect();
    started.iter().all(|served| served.error.is_none()).then_some(started)
}

/// Writes what the server counted since `before` into the whole ones of a trial's requests.
pub fn fill(
    runtime: &Runtime,
    target: &Target,
    metrics: &Metrics,
    before: &Sums,
    requests: &mut [&mut Served],
) {
    let Some(requests) = whole(requests) else { return };
    let whole = requests.len();
    let counted = |sums: &Sums| {
        let any = [&metrics.decode, &metrics.prompt, &metrics.ttft].into_iter().flatten().next();
        let count = any.and_then(|name| sums.added(before, &format!("{name}_count")));
        count.is_some_and(|count| count >= whole as f64)
    };
    let start = Instant::now();
    let after = loop {
        match Sums::read(runtime, target, metrics) {
            Some(sums) if counted(&sums) || start.elapsed() > COUNTED => break sums,
            Some(_) => std::thread::sleep(Duration::from_millis(20)),
            None => return,
        }
    };
    let mean = |name: &Option<String>| after.mean_ns(before, name.as_ref()?, whole);
    let (prompt, decode, ttft) =
        (mean(&metrics.prompt), mean(&metrics.decode), mean(&metrics.ttft));
    let cached = metrics.cached_tokens.as_ref().and_then(|name| after.added(before, name));
    for served in requests {
        served.server_means = prompt.or(decode).or(ttft).is_some();
        served.server_prompt_ns = served.server_prompt_ns.or(prompt);
        served.server_decode_ns = served.server_decode_ns.or(decode);
        served.server_ttft_ns = served.server_ttft_ns.or(ttft);
        let each = cached.map(|tokens| (tokens / whole as f64).round() as u32);
        served.cached_tokens = served.cached_tokens.or(each);
    }
}

/// The value of a label of the first line of `metric` on a page in the Prometheus text format.
pub fn label(page: &str, metric: &str, key: &str) -> Option<String> {
    let labels = page.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix('{'))?;
    let starts = labels.match_indices(key).map(|(at, _)| at);
    let is_whole = |at: &usize| *at == 0 || labels[..*at].ends_with([',', ' ']);
    let mut rest = starts.filter(is_whole).map(|at| &labels[at + key.len()..]);
    let value = rest.find_map(|rest| rest.strip_prefix("=\""))?;
    value.split_once('"').map(|(value, _)| value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "# HELP vllm:ttft_seconds x\n\
        vllm:ttft_seconds_sum{model_name=\"a {b} c\"} 1.5\n\
        vllm:ttft_seconds_count{model_name=\"a {b} c\"} 3.0\n\
        vllm:ttft_seconds_bucket{le=\"0.1\"} 7.0\n";

    #[test]
    fn a_trial_s_mean_is_what_it_added() {
        let before = Sums::parse(BEFORE);
        let after = Sums::parse(
            "vllm:ttft_seconds_sum{model_name=\"a\"} 1.9\nvllm:ttft_seconds_count{engine=\"0\"} 5\n\
             plain 4 1700000000000\n",
        );
        assert_eq!(after.mean_ns(&before, "vllm:ttft_seconds", 2), Some(200_000_000));
        assert_eq!(after.mean_ns(&before, "vllm:ttft_seconds", 3), None, "others asked too");
        assert_eq!(after.mean_ns(&before, "vllm:other", 2), None);
        assert_eq!(after.added(&before, "plain"), Some(4.0));
    }

    #[test]
    fn a_request_that_could_not_start_has_not_failed() {
        use bench::runner::protocol::ServedError;
        let failed = |kind| Served {
            error: Some(ServedError { kind, reason: String::new() }),
            ..Served::default()
        };
        let (mut one, mut two) = (Served::default(), Served::default());
        let mut late = failed(ServedFault::NotStarted);
        assert_eq!(whole(&mut [&mut one, &mut late, &mut two]).map(|w| w.len()), Some(2));
        let mut broken = failed(ServedFault::Disconnected);
        assert!(whole(&mut [&mut one, &mut broken]).is_none());
    }

    #[test]
    fn a_label_is_found_by_its_whole_name() {
        let page = "# HELP vllm:cache_config_info x\n\
            vllm:cache_config_info{block_size=\"16\",cpu_num_gpu_blocks=\"7\",num_gpu_blocks=\"26892\"} 1.0\n";
        let label = |key| super::label(page, "vllm:cache_config_info", key);
        assert_eq!(label("num_gpu_blocks").as_deref(), Some("26892"));
        assert_eq!(label("block_size").as_deref(), Some("16"));
        assert_eq!(label("gpu_blocks"), None);
        assert_eq!(super::label(page, "vllm:cache", "block_size"), None);
    }
}
