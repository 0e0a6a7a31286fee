//! Servers that refuse, lie, hang and die, measured by `bench run`: each is an outcome with its
//! reason, nothing that was measured before is lost, and the run goes on.

#[allow(dead_code, reason = "these tests need a part of what the tests share")]
mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bench::mock_server::MockServer;
use bench::record::{Outcome, Record};
use common::{Place, stderr};

/// What a server answers to a generation.
#[derive(Clone, Copy)]
enum Reply {
    /// As many tokens as were asked for.
    Whole,
    /// A status with a body.
    Status(&'static str, &'static str),
    /// Two tokens, and the connection ends.
    Cut,
    /// Two tokens, and a proper end.
    Short,
    /// Nothing, ever.
    Silence,
    /// The connection ends before any answer, long after the request came.
    LateEnd,
    /// Comments, for ever.
    Comments,
    /// Twice as many tokens as were asked for.
    Twice,
    /// From now on nothing listens.
    Death,
}

/// A server in vLLM's dialect that answers each generation as it is told, by their order.
struct Server {
    url: String,
    prompts: Arc<Mutex<Vec<Vec<u32>>>>,
}

type Plan = fn(usize) -> Reply;

impl Server {
    fn start(plan: Plan) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let prompts = Arc::new(Mutex::new(Vec::new()));
        let (kept, count, dead) =
            (Arc::clone(&prompts), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if dead.load(Ordering::SeqCst) {
                    return;
                }
                let (kept, count, dead) =
                    (Arc::clone(&kept), Arc::clone(&count), Arc::clone(&dead));
                std::thread::spawn(move || {
                    while let Some((path, body)) = read_request(&connection) {
                        if dead.load(Ordering::SeqCst)
                            || !answer(&connection, &path, &body, plan, &kept, &count)
                        {
                            if matches!(plan(count.load(Ordering::SeqCst).max(1) - 1), Reply::Death)
                            {
                                dead.store(true, Ordering::SeqCst);
                                // The acceptor notices, and its socket is closed.
                                let _ = TcpStream::connect(address);
                            }
                            let _ = connection.shutdown(std::net::Shutdown::Both);
                            return;
                        }
                    }
                });
            }
        });
        Self { url: format!("http://{address}"), prompts }
    }
}

fn read_request(connection: &TcpStream) -> Option<(String, Vec<u8>)> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((path, body))
}

fn send(mut connection: &TcpStream, status: &str, kind: &str, body: &str) -> bool {
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n");
    connection.write_all((head + body).as_bytes()).is_ok()
}

/// Answers; false where the connection is over.
fn answer(
    mut connection: &TcpStream,
    path: &str,
    body: &[u8],
    plan: Plan,
    prompts: &Mutex<Vec<Vec<u32>>>,
    count: &AtomicUsize,
) -> bool {
    let json = "application/json";
    match path {
        "/version" => return send(connection, "200 OK", json, "{\"version\":\"1.0\"}"),
        "/health" => return send(connection, "200 OK", json, "{}"),
        "/v1/models" => {
            return send(
                connection,
                "200 OK",
                json,
                "{\"data\":[{\"id\":\"m\",\"max_model_len\":4096}]}",
            );
        }
        _ => {}
    }
    let body: serde_json::Value = serde_json::from_slice(body).unwrap();
    let prompt: Vec<u32> = serde_json::from_value(body["prompt"].clone()).unwrap();
    let asked = body["max_tokens"].as_u64().unwrap();
    let length = prompt.len();
    prompts.lock().unwrap().push(prompt);
    let reply = plan(count.fetch_add(1, Ordering::SeqCst));
    let (tokens, ends) = match reply {
        Reply::Whole => (asked, true),
        Reply::Status(status, words) => return send(connection, status, json, words),
        Reply::Cut => (2, false),
        Reply::Short => (2, true),
        Reply::Silence => {
            std::thread::sleep(Duration::from_secs(30));
            return false;
        }
        Reply::LateEnd => {
            std::thread::sleep(Duration::from_millis(300));
            return false;
        }
        Reply::Comments => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
            let mut open = connection.write_all(head.as_bytes()).is_ok();
            while open {
                std::thread::sleep(Duration::from_millis(50));
                open = connection.write_all(b": wait\n\n").is_ok();
            }
            return false;
        }
        Reply::Twice => (2 * asked, true),
        Reply::Death => return false,
    };
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut whole = connection.write_all(head.as_bytes()).is_ok();
    for token in 1..=tokens {
        std::thread::sleep(Duration::from_millis(2));
        let finish = if token == tokens && ends { "\"length\"" } else { "null" };
        let event = format!(
            "data: {{\"choices\":[{{\"index\":0,\"text\":\" a\",\"finish_reason\":{finish}}}],\
             \"usage\":{{\"prompt_tokens\":{length},\"completion_tokens\":{token}}}}}\n\n"
        );
        whole &=
            connection.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).is_ok();
    }
    if ends {
        let done = "data: [DONE]\n\n";
        let last = format!("{:x}\r\n{done}\r\n0\r\n\r\n", done.len());
        whole &= connection.write_all(last.as_bytes()).is_ok();
    }
    whole && ends
}

/// A scenario with a server at `url` and a good one beside it.
fn beside_a_good_one(url: &str, more: &str) -> (Place, MockServer) {
    let mock = MockServer::start(0).unwrap();
    let good = mock.url("ttft_ms=5,tpot_ms=1,usage=running");
    let place = Place::with_scenario(&format!(
        r#"
[trials]
min = 3
max = 3

[limits]
trial_seconds = 20

[slo]
ttft_ms = 1000

[[matrix]]
models = ["qwen3-0.6b"]
quants = ["Q4_K_M"]
engines = ["bad", "good"]
points = [{{ prompt_tokens = 32, new_tokens = 6 }}]
concurrency = [2]

[servers.bad]
kind = "vllm"
url = "{url}"
silence_seconds = 0.5
{more}

[servers.good]
kind = "vllm"
url = "{good}"
"#
    ));
    (place, mock)
}

/// The bad server's row, once the good one's was seen to be whole.
fn bad_row(url: &str, more: &str) -> Record {
    let (place, _mock) = beside_a_good_one(url, more);
    let output = place.run(&[]);
    let records = place.records();
    assert_eq!(records.len(), 2, "{}", stderr(&output));
    assert_eq!(records[1].outcome, Outcome::Measured, "{:?}", records[1].reason);
    assert_eq!(records[1].failed_requests, Some(0));
    let code = i32::from(records[0].outcome != Outcome::Measured);
    assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
    records[0].clone()
}

fn reason(record: &Record) -> &str {
    record.reason.as_deref().unwrap_or_default()
}

#[test]
fn some_failed_requests_are_misses_and_the_others_are_measured() {
    let server = Server::start(|n| match n % 4 {
        3 => Reply::Status("429 Too Many Requests", "{\"error\":\"slow down\"}"),
        _ => Reply::Whole,
    });
    let record = bad_row(&server.url, "");
    assert_eq!(record.outcome, Outcome::Measured, "{:?}", record.reason);
    assert_eq!((record.requests, record.failed_requests), (Some(24), Some(6)));
    let failure = record.failure.as_deref().unwrap();
    assert!(failure.starts_with("6 of 24 failed: 429"), "{failure}");
    assert!(record.marks.contains("failed-requests"), "{}", record.marks);
    assert!(record.slo_attainment.unwrap() <= 0.75, "{:?}", record.slo_attainment);
    assert!(record.ttft_ns_median.is_some());
}

#[test]
fn a_broken_stream_is_no_part_of_any_speed() {
    let server = Server::start(|n| if n % 4 == 1 { Reply::Cut } else { Reply::Whole });
    let record = bad_row(&server.url, "");
    assert_eq!(record.failed_requests, Some(6));
    assert!(record.failure.unwrap().contains("in mid-stream"));
}

#[test]
fn where_all_requests_fail_the_row_says_why_and_the_run_goes_on() {
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let record = bad_row(&format!("http://{refused}"), "");
    assert_eq!(record.outcome, Outcome::Failed);
    assert!(reason(&record).contains("refused"), "{}", reason(&record));
    let https = MockServer::start(0).unwrap().url("").replace("http:", "https:");
    assert!(reason(&bad_row(&https, "")).contains("no encrypted connection"));
    let plans: [(Plan, &str); 4] = [
        (|_| Reply::Status("404 Not Found", "{\"error\":\"no model 'm'\"}"), "no model 'm'"),
        (|_| Reply::Status("500 Internal Server Error", "oh"), "500 Internal Server Error"),
        (|_| Reply::Silence, "said nothing for 0.5 s"),
        (|_| Reply::Short, "2 of 6 tokens"),
    ];
    for (plan, words) in plans {
        let record = bad_row(&Server::start(plan).url, "");
        assert_eq!(record.outcome, Outcome::Failed, "{words}");
        assert!(reason(&record).contains(words), "{}", reason(&record));
    }
}

#[test]
fn a_server_that_is_not_installed_is_told_apart_from_one_that_fails() {
    let place = Place::with_scenario(
        r#"
[[matrix]]
models = ["qwen3-0.6b"]
quants = ["BF16"]
engines = ["vllm"]
points = [{ prompt_tokens = 8, new_tokens = 2 }]
"#,
    );
    let output = place.bench(&["run", "scenario.toml"]).env("PATH", "").output().unwrap();
    let records = place.records();
    assert_eq!(records[0].outcome, Outcome::NotInstalled, "{}", stderr(&output));
    assert!(reason(&records[0]).contains("install or start it"), "{}", reason(&records[0]));
}

#[test]
fn a_server_that_dies_keeps_the_figures_of_the_trials_before() {
    // Eight requests warm up, eight are the first trial.
    let server = Server::start(|n| if n < 20 { Reply::Whole } else { Reply::Death });
    let record = bad_row(&server.url, "");
    assert_eq!(record.outcome, Outcome::Failed, "{:?}", record.reason);
    assert!(record.trials >= 1 && record.decode_tok_s_median.is_some(), "{record:?}");
    assert!(reason(&record).contains("no request succeeded"), "{}", reason(&record));
}

#[test]
fn an_early_end_voids_its_trial_whole_and_no_other() {
    // Of the warm-up's eight requests one, and one of the second trial's.
    let server = Server::start(|n| if [3, 17].contains(&n) { Reply::Short } else { Reply::Whole });
    let (place, _mock) = beside_a_good_one(&server.url, "");
    let output = place.run(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let record = &place.records()[0];
    assert_eq!(record.outcome, Outcome::Measured, "{:?}", record.reason);
    assert_eq!((record.trials, record.warmup_trials), (2, 1));
    assert_eq!((record.requests, record.failed_requests), (Some(16), Some(0)));
    let failure = record.failure.as_deref().unwrap();
    let place_of_it = failure.starts_with("1 of 3 trials void: request ");
    assert!(place_of_it && failure.contains("2 of 6 tokens"), "{failure}");
    assert!(record.marks.contains("failed-requests"), "{}", record.marks);
    // The void trial is kept, and the figures follow from the samples without it.
    let folder = place.results();
    let samples = std::fs::read_to_string(folder.join("samples.jsonl")).unwrap();
    assert_eq!(samples.lines().filter(|line| line.contains(&record.case_id)).count(), 4);
    let verified = place.bench(&["verify"]).arg(&folder).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

#[test]
fn more_tokens_than_asked_for_void_the_trial() {
    let record = bad_row(&Server::start(|_| Reply::Twice).url, "early_end = \"allowed\"\n");
    assert_eq!(record.outcome, Outcome::Failed);
    assert!(reason(&record).contains("12 of 6 tokens"), "{}", reason(&record));
}

#[test]
fn a_request_that_the_server_worked_on_is_not_sent_again() {
    let server = Server::start(|n| if n == 12 { Reply::LateEnd } else { Reply::Whole });
    let record = bad_row(&server.url, "");
    assert_eq!(record.failed_requests, Some(1));
    assert!(record.failure.unwrap().contains("before any answer"));
    assert_eq!(server.prompts.lock().unwrap().len(), 4 * 8);
}

#[test]
fn a_request_without_an_end_costs_itself_and_not_its_trial() {
    let server = Server::start(|n| if n == 15 { Reply::Comments } else { Reply::Whole });
    let (place, _mock) = beside_a_good_one(&server.url, "");
    let text = std::fs::read_to_string(place.path().join("scenario.toml")).unwrap();
    let text = text.replace("trial_seconds = 20", "trial_seconds = 3");
    std::fs::write(place.path().join("scenario.toml"), text).unwrap();
    let output = place.run(&[]);
    let record = &place.records()[0];
    assert_eq!(record.outcome, Outcome::Measured, "{:?} {}", record.reason, stderr(&output));
    assert_eq!((record.requests, record.failed_requests), (Some(24), Some(1)));
    assert!(record.failure.as_ref().unwrap().contains("time was over"), "{:?}", record.failure);
}

/// A scenario that searches for the most users of a server at `url`.
fn search(url: &str) -> Place {
    Place::with_scenario(&format!(
        r#"
[slo]
e2e_ms = 2000
search = true
attainment = 0.5

[[matrix]]
models = ["qwen3-0.6b"]
quants = ["Q4_K_M"]
engines = ["vllm"]
points = [{{ prompt_tokens = 8, new_tokens = 2 }}]
concurrency = [1]
requests = 8

[servers.vllm]
url = "{url}"
"#
    ))
}

/// The search for users, once what it says of itself was verified.
fn searched(place: &Place) -> Record {
    place.run(&["--only", "slo-users"]);
    let verified = place.bench(&["verify"]).arg(place.results()).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
    place.records().remove(0)
}

#[test]
fn a_server_that_dies_ends_its_search_with_what_was_probed() {
    // The warm-up, a probe of one user and one of two; the third finds nobody.
    let server = Server::start(|n| if n < 30 { Reply::Whole } else { Reply::Death });
    let record = searched(&search(&server.url));
    let probes = record.slo_probes.clone().unwrap();
    assert_eq!(record.outcome, Outcome::Failed, "{probes}");
    assert!(probes.ends_with("users failed") && probes.contains("8 of 8"), "{probes}");
    assert!(reason(&record).contains("no request succeeded"), "{}", reason(&record));
}

#[test]
fn a_server_that_refuses_a_load_has_missed_it() {
    let server = Server::start(|n| match n {
        0..30 => Reply::Whole,
        _ => Reply::Status("503 Service Unavailable", "{\"error\":\"busy\"}"),
    });
    let record = searched(&search(&server.url));
    let probes = record.slo_probes.clone().unwrap();
    assert_eq!(record.outcome, Outcome::Measured, "{:?} {probes}", record.reason);
    assert!(record.slo_capacity_users.is_some() && record.slo_missed_users.is_some(), "{probes}");
    assert_eq!(record.failed_requests, Some(0), "{:?}", record.failure);
}

#[test]
fn an_early_end_counts_where_the_scenario_allows_it() {
    let server = Server::start(|n| if n % 4 == 1 { Reply::Short } else { Reply::Whole });
    let record = bad_row(&server.url, "early_end = \"allowed\"\n");
    assert_eq!(record.outcome, Outcome::Measured, "{:?}", record.reason);
    assert_eq!(record.failed_requests, Some(0));
}

#[test]
fn no_two_prompts_begin_alike_in_one_run_or_the_next() {
    let server = Server::start(|_| Reply::Whole);
    for _ in 0..2 {
        bad_row(&server.url, "");
    }
    let prompts = server.prompts.lock().unwrap();
    assert_eq!(prompts.len(), 2 * 4 * 8, "two runs of four trials");
    let mut begins: Vec<_> = prompts.iter().map(|prompt| &prompt[..16]).collect();
    begins.sort_unstable();
    begins.dedup();
    assert_eq!(begins.len(), prompts.len());
}

#[cfg(target_os = "linux")]
#[test]
fn an_endless_line_does_not_fill_the_memory() {
    use bench::runner::child::Child;
    use bench::runner::protocol::{Event, Job, ServedFault};
    use bench::runner::{Model, Request, Schedule, Settings};

    let mock = MockServer::start(0).unwrap();
    let options = serde_json::json!({"url": mock.url("ttft_ms=1,fail=endless-line,fail_at=1")});
    let environment = [
        ("BENCH_SERVER".to_owned(), "openai-completions".to_owned()),
        ("BENCH_SERVER_OPTIONS".to_owned(), options.to_string()),
    ];
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_bench-openai"));
    let mut child = Child::start(program, &environment).unwrap();
    let patience = Duration::from_secs(30);
    child.hello(patience).unwrap();
    let settings = Settings { slots: 8, slot_tokens: 64, ..Settings::default() };
    child.ask(&Job::Load { model: Model { path: "mock".into() }, settings }, patience).unwrap();
    let request = Request { prompt: vec![1; 8], output: vec![1; 8], ..Request::default() };
    let requests = vec![request; 8];
    let job = Job::Trial { requests, schedule: Schedule::Continuous, limit_ns: None };
    let Event::Trial { samples, .. } = child.ask(&job, patience).unwrap() else {
        panic!("no trial")
    };
    assert!(samples.iter().all(|s| s.error().unwrap().kind == ServedFault::Malformed));
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kib < 200 << 10, "{kib} KiB");
}
