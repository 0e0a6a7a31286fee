//! Workloads, limits, failures and the search for a capacity, through the real programs with
//! engines and servers whose truth is known.

mod common;

use bench::mock_server::MockServer;
use bench::record::{Folder, Outcome, Record, Trial};
use bench::runner::protocol::Sample;
use common::{Place, stderr, stdout};

/// A scenario with the mock engine, which generates `decode_tps` tokens a second.
fn mock(parameters: &str, matrix: &str, more: &str) -> Place {
    let weights = format!("m@{parameters}.gguf");
    let place = Place::with_scenario(&format!(
        r#"
[trials]
min = 2
max = 2

[limits]
case_seconds = 60
trial_seconds = 20

[[matrix]]
models = ["qwen3-0.6b"]
quants = ["Q8_0"]
engines = ["mock"]
weights = "{weights}"
{matrix}
{more}
"#
    ));
    place.write_header(&weights);
    place
}

/// A scenario with a server that behaves as `profile` says.
fn served(server: &MockServer, profile: &str, matrix: &str, more: &str) -> Place {
    let url = server.url(profile);
    Place::with_scenario(&format!(
        r#"
[trials]
min = 2
max = 2

[[matrix]]
models = ["qwen3-0.6b"]
quants = ["Q4_K_M"]
engines = ["vllm"]
{matrix}

[servers.vllm]
url = "{url}"
{more}
"#
    ))
}

fn measured(place: &Place) -> Vec<Record> {
    let output = place.run(&[]);
    let records = place.records();
    for record in &records {
        assert_eq!(record.outcome, Outcome::Measured, "{:?}", record.reason);
    }
    assert!(output.status.success(), "{}", stderr(&output));
    records
}

fn trials(place: &Place) -> Vec<Trial<Sample>> {
    let trials = Folder::open(&place.results()).unwrap().read_trials::<Sample>().unwrap();
    trials.into_iter().filter(|trial| !trial.warmup).collect()
}

const POINT: &str = "points = [{ prompt_tokens = 20, new_tokens = 11 }]";

/// An engine that serves one request at a time, in 10 + 10 × 1 ms.
const ONE_AT_A_TIME: &str = "decode_tps=1000,prefill_tps=2000";

#[test]
fn users_of_an_engine_in_process_ask_again_after_a_pause() {
    let place = mock(
        "decode_tps=1000,prefill_tps=2000",
        "points = \"workload\"\nconcurrency = [2]\nrequests = 8",
        "[workload]\nprompt_tokens = 20\nnew_tokens = 11\nthink_seconds = 0.05",
    );
    let record = &measured(&place)[0];
    assert_eq!((record.requests, record.failed_requests), (Some(16), Some(0)));
    assert!(record.workload.as_ref().unwrap().contains("think 50.0 ms"), "{:?}", record.workload);
    for trial in trials(&place) {
        for (i, sample) in trial.samples.iter().enumerate().skip(2) {
            let end = trial.samples[i - 2].token_ns.last().unwrap();
            assert_eq!(sample.intended_ns, end + 50_000_000, "request {i}");
        }
    }
}

#[test]
fn a_limit_by_time_ends_the_starts_of_users_and_of_rates() {
    let place = mock(
        ONE_AT_A_TIME,
        &format!("{POINT}\nconcurrency = [2]\nrates = [20]\nslots = 2\nseconds = 0.5"),
        "",
    );
    let records = measured(&place);
    for record in &records {
        let id = &record.case_id;
        for trial in trials(&place).iter().filter(|trial| trial.case_id == *id) {
            assert!(trial.samples.iter().all(|s| s.intended_ns <= 500_000_000), "{id}");
            let last = trial.samples.iter().map(|s| s.intended_ns).max().unwrap();
            assert!(last > 250_000_000, "{id}: the last of {} at {last}", trial.samples.len());
            assert!(trial.samples.iter().all(|s| s.token_ns.len() == 11), "{id}");
        }
    }
}

#[test]
fn a_trace_is_replayed_at_its_times_with_its_lengths() {
    let place =
        mock(ONE_AT_A_TIME, "points = \"workload\"\nslots = 2", "[workload]\ntrace = \"day.csv\"");
    let day = "arrival_s,prompt_tokens,new_tokens\n7.0,20,5\n7.1,30,6\n7.25,40,7\n";
    std::fs::write(place.path().join("day.csv"), day).unwrap();
    let record = &measured(&place)[0];
    assert_eq!(record.load.as_deref(), Some("trace"));
    let trial = &trials(&place)[0];
    let starts: Vec<_> = trial.samples.iter().map(|s| s.intended_ns / 1_000_000).collect();
    assert_eq!(starts, [0, 100, 250]);
    let lengths: Vec<_> =
        trial.samples.iter().map(|s| (s.prompt_tokens, s.token_ns.len())).collect();
    assert_eq!(lengths, [(20, 5), (30, 6), (40, 7)]);
}

#[test]
fn a_bad_trace_is_an_error_with_its_line_before_anything_runs() {
    let place =
        mock("seed=1", "points = \"workload\"\nslots = 2", "[workload]\ntrace = \"day.csv\"");
    let day = "arrival_s,prompt_tokens,new_tokens\n1,20,5\n-1,30,6\n";
    std::fs::write(place.path().join("day.csv"), day).unwrap();
    let output = place.run(&[]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(
        text.contains("scenario.toml:") && text.contains("day.csv") && text.contains("line 3"),
        "{text}"
    );
}

#[test]
fn conversations_on_a_server_grow_and_wait_for_each_other() {
    let server = MockServer::start(0).unwrap();
    let place = served(
        &server,
        "ttft_ms=20,tpot_ms=1,usage=running",
        "points = \"workload\"\nrates = [20]\nslots = 8\nrequests = 12",
        "[workload]\nprompt_tokens = 30\nnew_tokens = 10\nturns = 3\nthink_seconds = 0.02",
    );
    measured(&place);
    let trial = &trials(&place)[0];
    let prompts: Vec<_> = trial.samples[..4].iter().map(|s| s.prompt_tokens).collect();
    assert_eq!(prompts, [30, 70, 110, 30]);
    let closed = trial.samples[0].served.as_ref().unwrap().closed_ns.unwrap();
    assert!(trial.samples[1].intended_ns >= closed + 20_000_000);
}

#[test]
fn the_capacity_of_an_engine_with_a_known_one_is_found() {
    // A request takes 20 ms, alone: more than 50 a second wait longer and longer, and of four users
    // the last one waits 60 ms for its turn.
    let place = mock(
        ONE_AT_A_TIME,
        &format!("{POINT}\nconcurrency = [1]\nslots = 1"),
        "[slo]\nttft_ms = 55\nsearch = true\nattainment = 0.9\n\
         [workload]\nprompt_tokens = 1\nnew_tokens = 1\narrivals = \"constant\"",
    );
    // Other work on the machine can only make a fast engine look slow: it is asked up to three times.
    let mut seen = Vec::new();
    for out in ["one", "two", "three"] {
        let output = place.run(&["--out", out]);
        assert!(output.status.success(), "{}", stderr(&output));
        let folder = std::fs::read_dir(place.path().join(out)).unwrap().next().unwrap().unwrap();
        let folder = Folder::open(&folder.path()).unwrap();
        let of =
            |load: &str| folder.records().iter().find(|r| r.load.as_deref() == Some(load)).unwrap();
        let (rate, users) = (of("slo-rate"), of("slo-users"));
        let probes = (rate.slo_probes.clone(), users.slo_probes.clone());
        let (capacity, most) =
            (rate.slo_capacity_per_s.unwrap(), users.slo_capacity_users.unwrap());
        assert!(capacity <= 54.0 && most <= 3, "more than there is: {probes:?}");
        let missed = rate.slo_missed_per_s.unwrap();
        assert!((missed - capacity) / missed <= 0.05, "{probes:?}");
        assert_eq!(users.slo_missed_users, Some(most + 1), "{probes:?}");
        assert_eq!(users.concurrency, Some(most), "the row shows the load that was found");
        assert!(
            rate.slo_attainment_low.unwrap() >= 0.9 && users.slo_attainment_low.unwrap() >= 0.9
        );
        let trials = folder.read_trials::<Sample>().unwrap();
        for record in [rate, users] {
            let id = &record.case_id;
            let probes = trials.iter().filter(|t| t.case_id == *id && !t.warmup).count();
            assert!((3..=10).contains(&probes), "{id}: {probes} probes");
        }
        seen.push(probes);
        if capacity >= 45.0 && most == 3 {
            let report =
                place.bench(&["report", folder.path().to_str().unwrap()]).output().unwrap();
            let text = stdout(&report);
            assert!(text.contains("3 (4)") && text.contains("load that meets"), "{text}");
            return;
        }
    }
    panic!("50 a second and 3 users were never found: {seen:?}");
}

#[test]
fn a_search_says_when_no_load_meets_the_objective() {
    let place = mock(
        ONE_AT_A_TIME,
        &format!("{POINT}\nconcurrency = [2]"),
        "[slo]\nttft_ms = 5\nsearch = true\nattainment = 0.5",
    );
    let records = measured(&place);
    let users = records.iter().find(|r| r.load.as_deref() == Some("slo-users")).unwrap();
    assert_eq!((users.slo_capacity_users, users.slo_missed_users), (None, Some(1)));
    let rate = records.iter().find(|r| r.load.as_deref() == Some("slo-rate")).unwrap();
    assert_eq!(rate.slo_capacity_per_s, None);
    assert!(
        rate.absent.as_ref().unwrap().contains("no load met the objective"),
        "{:?}",
        rate.absent
    );
}

#[test]
fn a_search_on_a_server_that_never_saturates_gives_a_lower_bound() {
    let server = MockServer::start(0).unwrap();
    let place = served(
        &server,
        "ttft_ms=5,tpot_ms=0.2,usage=running",
        "points = [{ prompt_tokens = 4, new_tokens = 3 }]\nconcurrency = [1]",
        "[slo]\ne2e_ms = 2000\nsearch = true\nattainment = 0.5",
    );
    let records = measured(&place);
    let users = records.iter().find(|r| r.load.as_deref() == Some("slo-users")).unwrap();
    assert_eq!(users.slo_missed_users, None, "{:?}", users.slo_probes);
    assert_eq!(users.slo_capacity_users, Some(512), "{:?}", users.slo_probes);
}

#[test]
fn a_search_with_nothing_to_load_is_an_error() {
    let place = mock("seed=1", POINT, "[slo]\nttft_ms = 5\nsearch = true");
    let output = place.run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("nothing to search with"), "{}", stderr(&output));
}
