//! The requests of a trial: when each is due, how long it is and which tokens it has.

use crate::cases::Case;
use crate::runner::Request;
use crate::scenario::Load;
use crate::units::{Nanos, Tokens};
use crate::workload::{Limit, Planned};

use super::prompts::{self, Shape};

/// Room for so many times the requests that the pace of the warm-up foretells.
const ROOM: f64 = 1.5;

/// The most tokens of one trial: its requests travel to the runner as text.
const MOST_TOKENS: f64 = 20e6;

/// A trial of `case` under `load`, which is the case's own except for the probes of a search.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// How requests come.
    pub load: Load,
    /// How many.
    pub requests: u32,
    /// The trial's number.
    pub trial: u32,
    /// Requests a second that the warm-up finished; it says how many a time limit has room for.
    pub pace: Option<f64>,
}

/// The requests, from the case's seed and the trial's number alone.
pub fn requests(case: &Case, asked: Asked, vocabulary: u32) -> anyhow::Result<Vec<Request>> {
    let plan = plan(case, asked)?;
    let shape = Shape { depth: case.depth.0, vocabulary };
    Ok(prompts::requests(case.seed, asked.trial, &plan, shape))
}

fn plan(case: &Case, asked: Asked) -> anyhow::Result<Vec<Planned>> {
    let seed = case.seed.wrapping_add(u64::from(asked.trial));
    let count = Limit::Requests(asked.requests);
    let until = case.duration.map_or(count, Limit::Time);
    match asked.load {
        Load::Batch(n) => Ok(vec![alike(case); n as usize]),
        Load::Rate(rate) => case.open(rate, until).plan(seed),
        Load::Trace => case.replayed(until).plan(seed),
        Load::Concurrency(users) => {
            let Some((duration, pace)) = case.duration.zip(asked.pace) else {
                return case.closed(users, count).plan(seed);
            };
            let each = f64::from(case.prompt_tokens.0) + f64::from(case.new_tokens.0);
            let room = pace * duration.seconds() * ROOM + f64::from(users);
            let room = Limit::Requests(room.min(MOST_TOKENS / each).ceil() as u32);
            let mut plan = case.closed(users, room).plan(seed)?;
            for planned in &mut plan {
                planned.latest = Some(duration);
            }
            Ok(plan)
        }
        Load::Calibration => Ok(case.calibration()),
        Load::MostRate | Load::MostUsers => {
            anyhow::bail!("a search has no load of its own; its probes have")
        }
    }
}

/// A request of a static batch.
fn alike(case: &Case) -> Planned {
    Planned {
        start: Nanos(0),
        after: None,
        think: Nanos(0),
        latest: None,
        prompt_tokens: case.prompt_tokens,
        repeated_tokens: Tokens(0),
        new_tokens: case.new_tokens,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cases;
    use crate::scenario::{Known, Scenario};

    fn case(matrix: &str, more: &str) -> Case {
        let text = format!(
            "[[matrix]]\nmodels = [\"qwen3-0.6b\"]\nquants = [\"Q4_K_M\"]\n\
             engines = [\"mock\"]\n{matrix}\n{more}"
        );
        let scenario = Scenario::parse(&text, Path::new("s.toml"), &Known::here());
        cases::expand(&scenario.unwrap_or_else(|problems| panic!("{problems}"))).unwrap().remove(0)
    }

    fn asked(case: &Case, pace: Option<f64>) -> Vec<Request> {
        let asked = Asked { load: case.load, requests: case.requests, trial: 1, pace };
        requests(case, asked, 1000).unwrap()
    }

    const POINT: &str = "points = [{ prompt_tokens = 20, new_tokens = 5 }]\n";

    #[test]
    fn requests_of_a_rate_start_at_that_rate() {
        let case = case(&format!("{POINT}rates = [50.0]\nslots = 1\nrequests = 2000"), "");
        let requests = asked(&case, None);
        let seconds = requests.last().unwrap().start_ns as f64 / 1e9;
        assert!((seconds / 40.0 - 1.0).abs() < 0.1, "{seconds}");
        assert!(requests.is_sorted_by_key(|request| request.start_ns));
    }

    #[test]
    fn a_rate_for_a_time_has_as_many_requests_as_come_in_it() {
        let case = case(&format!("{POINT}rates = [50.0]\nslots = 1\nseconds = 40"), "");
        assert_eq!(case.requests, 2000);
        let requests = asked(&case, None);
        assert!((1800..2200).contains(&requests.len()), "{}", requests.len());
        assert!(requests.iter().all(|request| request.start_ns <= 40_000_000_000));
    }

    #[test]
    fn users_for_a_time_have_room_for_what_the_warm_up_foretold() {
        let case = case(&format!("{POINT}concurrency = [4]\nseconds = 10"), "");
        assert_eq!(asked(&case, None).len(), 16, "the warm-up");
        let requests = asked(&case, Some(20.0));
        assert_eq!(requests.len(), 304);
        assert!(requests.iter().all(|request| request.latest_ns == Some(10_000_000_000)));
        assert_eq!((requests[3].after, requests[4].after), (None, Some(0)));
        let more = asked(&case, Some(40.0));
        assert_eq!(more[..304], requests[..], "a faster engine gets the same requests, and more");
    }

    #[test]
    fn a_workload_gives_lengths_turns_pauses_and_bursts() {
        let case = case(
            "points = \"workload\"\nrates = [8.0]\nslots = 4\nrequests = 600",
            "[workload]\nprompt_tokens = { median = 80, p95 = 400 }\n\
             new_tokens = { histogram = [[10, 1], [20, 1]] }\nturns = 2\nthink_seconds = 3\n\
             arrivals = \"gamma\"\nvariation = 2.0\ncontext_tokens = 4096\n",
        );
        let requests = asked(&case, None);
        assert_eq!(requests.len(), 600);
        assert!(requests.iter().all(|r| [10, 20].contains(&r.output.len())));
        let second = &requests[1];
        assert_eq!((second.after, second.think_ns), (Some(0), 3_000_000_000));
        assert!(second.prompt.starts_with(&requests[0].prompt));
        // 8 requests a second are 4 conversations of 2 turns.
        let seconds = requests.last().unwrap().start_ns as f64 / 1e9;
        assert!((seconds / 75.0 - 1.0).abs() < 0.25, "{seconds}");
        assert_eq!(case.settings.slot_tokens, 4096);
        assert!(requests.iter().all(|r| r.prompt.len() + r.output.len() <= 4096));
    }

    #[test]
    fn presets_of_a_use_are_requests_of_their_lengths() {
        for preset in ["chat", "rag", "coding-agent", "batch-summary", "coding-agents"] {
            let case = case(
                "points = \"workload\"\nconcurrency = [2]\nrequests = 60",
                &format!("[workload]\npreset = \"{preset}\"\ncontext_tokens = 32768\n"),
            );
            let preset = crate::workload::Preset::find(preset).unwrap();
            let requests = asked(&case, None);
            assert_eq!(case.mix.as_ref().unwrap().turns, preset.turns);
            let mean = requests.iter().map(|r| r.prompt.len()).sum::<usize>() as f64 / 60.0;
            assert!(mean >= preset.prompt().mean() / 3.0, "{}: {mean}", preset.name);
        }
    }
}
