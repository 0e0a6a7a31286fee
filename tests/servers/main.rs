//! The client of servers against the mock server, through the real program and its real pipe:
//! every dialect's figures within 1 % of the truth, every failure an outcome with its reason.

mod client;
#[allow(dead_code, reason = "these tests need a part of what the tests share")]
#[path = "../common/mod.rs"]
mod common;
mod models;
mod runs;
mod secrets;
mod tls;

use std::time::{Duration, Instant};

use bench::runner::child::Failure;
use bench::runner::protocol::{Counted, Job, Sample, ServedFault};
use bench::runner::{Fault, Request, Schedule};

use client::{PATIENCE, SERVER, Setup, TOKENS, measures_the_truth, request, served, server};

#[test]
fn text_completions_are_measured_within_one_per_cent() {
    let sample = measures_the_truth(&server("openai-completions", "ttft_ms=150"));
    assert_eq!(served(&sample).prompt_tokens, Some(32));
    assert_eq!(served(&sample).finish.as_deref(), Some("length"));
}

#[test]
fn a_role_in_the_first_chunk_is_not_the_first_token() {
    let setup = server("openai", "ttft_ms=200,role-first").env("OPENAI_API_KEY", "sk-test");
    let sample = measures_the_truth(&setup);
    let first = served(&sample).first_event_ns.unwrap() - sample.sent_ns;
    assert!(first < 50_000_000, "the role came after {first} ns");
}

#[test]
fn reasoning_counts_as_tokens_but_not_as_visible() {
    for field in ["reasoning", "reasoning_content"] {
        let profile = format!("ttft_ms=150,role-first,reasoning=20,reasoning_field={field}");
        let setup = server("openai", &profile).env("OPENAI_API_KEY", "sk-test");
        let sample = measures_the_truth(&setup);
        assert_eq!(served(&sample).reasoning_tokens, Some(20), "{field}");
    }
}

#[test]
fn several_tokens_in_a_chunk_are_counted_by_usage() {
    for chunk in [2, 4] {
        let profile = format!("ttft_ms=150,chunk={chunk}");
        measures_the_truth(&server("openai-completions", &profile));
    }
}

#[test]
fn a_running_count_gives_the_tokens_of_each_event() {
    let sample = measures_the_truth(&server("vllm", "ttft_ms=150,chunk=7,usage=running"));
    assert_eq!(served(&sample).counted, Counted::Usage);
}

#[test]
fn without_usage_token_ids_are_counted() {
    let setup = server("openai-completions", "ttft_ms=150,chunk=7,usage=never,ids");
    assert_eq!(served(&measures_the_truth(&setup)).counted, Counted::Ids);
}

#[test]
fn without_usage_and_ids_events_are_counted_and_the_count_is_marked() {
    let setup = server("openai-completions", "ttft_ms=150,usage=never");
    assert_eq!(served(&measures_the_truth(&setup)).counted, Counted::Events);
}

#[test]
fn a_late_end_of_the_stream_is_no_part_of_the_generation() {
    measures_the_truth(&server("openai-completions", "ttft_ms=150,done_ms=300"));
}

#[test]
fn a_stall_is_seen_in_the_longest_gap() {
    measures_the_truth(&server("openai-completions", "ttft_ms=150,stall_at=30,stall_ms=250"));
}

#[test]
fn keep_alive_comments_are_no_events() {
    let setup = server("openai-completions", "ttft_ms=200,comment_ms=30");
    let sample = measures_the_truth(&setup);
    assert_eq!(served(&sample).first_event_ns, Some(sample.token_ns[0]));
}

#[test]
fn events_may_be_split_at_any_byte() {
    for split in [1, 3, 17] {
        let profile = format!("ttft_ms=150,wide,split={split}");
        measures_the_truth(&server("openai-completions", &profile));
    }
    measures_the_truth(&server("openai-completions", "ttft_ms=150,wide,crlf,split=5"));
}

#[test]
fn tool_calls_are_tokens_that_are_not_visible() {
    for name in ["openai", "anthropic"] {
        let setup = server(name, "ttft_ms=150,tools")
            .env("OPENAI_API_KEY", "sk-test")
            .env("ANTHROPIC_API_KEY", "sk-test");
        measures_the_truth(&setup);
    }
}

#[test]
fn llama_server_tells_its_own_times_its_cache_and_its_slot() {
    let sample = measures_the_truth(&server("llama-server", "ttft_ms=150,slot=3"));
    let served = served(&sample);
    assert_eq!(served.slot, Some(3));
    assert_eq!(served.server_prompt_ns, Some(150_000_000));
    assert_eq!(served.server_decode_ns, Some(590_000_000));
    assert_eq!(served.cached_tokens, Some(0));
    assert_eq!(sample.prompt_tokens, 32);
}

#[test]
fn ollama_is_read_line_by_line_with_its_nanoseconds() {
    let sample = measures_the_truth(&server("ollama", "ttft_ms=150"));
    let served = served(&sample);
    assert_eq!(served.server_prompt_ns, Some(150_000_000));
    assert_eq!(served.server_load_ns, Some(1_000_000));
    assert_eq!(served.output_tokens, Some(TOKENS));
}

#[test]
fn lm_studio_is_measured_in_all_its_dialects() {
    let lms = |name| {
        server(name, "ttft_ms=150")
            .env("BENCH_LM_STUDIO_VERSION", "0.3.30")
            .env("BENCH_LM_STUDIO_V0_VERSION", "0.3.30")
            .env("BENCH_LM_STUDIO_V1_VERSION", "0.3.30")
    };
    measures_the_truth(&lms("lm-studio"));
    let v0 = measures_the_truth(&lms("lm-studio-v0"));
    assert_eq!(served(&v0).server_ttft_ns, Some(150_000_000));
    let v1 = measures_the_truth(&lms("lm-studio-v1"));
    assert_eq!(served(&v1).server_ttft_ns, Some(150_000_000));
    assert_eq!(served(&v1).output_tokens, Some(TOKENS));
}

#[test]
fn anthropic_messages_are_measured() {
    let setup = server("anthropic", "ttft_ms=150,reasoning=10").env("ANTHROPIC_API_KEY", "sk-x");
    let sample = measures_the_truth(&setup);
    assert_eq!(sample.prompt_tokens, 32);
    assert_eq!(served(&sample).finish.as_deref(), Some("max_tokens"));
}

#[test]
fn a_new_server_needs_only_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("my-server.toml");
    let text = include_str!("../../runners/openai/servers/openai-completions.toml");
    std::fs::write(&path, text.replace("temperature = 0\n", "temperature = 0.5\n")).unwrap();
    measures_the_truth(&server(path.to_str().unwrap(), "ttft_ms=150"));
}

#[test]
fn users_of_a_closed_loop_ask_again_when_answered() {
    let setup = server("openai-completions", "ttft_ms=50,tpot_ms=5");
    let users = |i: u32| Request { after: i.checked_sub(2), ..request(11) };
    let samples = setup.start().samples((0..4).map(users).collect());
    // Two rounds of 50 + 10 × 5 ms.
    let end = |sample: &Sample| *sample.token_ns.last().unwrap();
    assert!(end(&samples[1]) < 180_000_000, "{}", end(&samples[1]));
    assert!(samples[2].sent_ns >= end(&samples[0]) && samples[3].sent_ns >= end(&samples[1]));
    assert!(end(&samples[3]) >= 200_000_000);
}

#[test]
fn an_open_loop_starts_on_time_however_many_are_under_way() {
    let setup = Setup { slots: 1, ..server("openai-completions", "ttft_ms=100,tpot_ms=5") };
    let requests: Vec<_> =
        (1..=20).map(|i| Request { start_ns: i * 10_000_000, ..request(11) }).collect();
    let mut client = setup.start();
    client.samples(vec![request(1); 20]);
    let best = (0..5)
        .map(|_| {
            let samples = client.samples(requests.clone());
            samples.iter().map(|s| s.sent_ns - s.intended_ns).max().unwrap()
        })
        .min();
    assert!(best.unwrap() < 2_000_000, "late by {best:?} ns");
}

#[test]
fn a_turn_waits_for_the_turn_before_and_the_thinking() {
    let first = request(11);
    let second = Request { after: Some(0), think_ns: 80_000_000, ..request(11) };
    let samples =
        server("openai-completions", "ttft_ms=50,tpot_ms=5").start().samples(vec![first, second]);
    let gap = samples[1].sent_ns - served(&samples[0]).closed_ns.unwrap();
    assert!((80_000_000..100_000_000).contains(&gap), "{gap}");
    assert!(samples[1].intended_ns > 0);
}

#[test]
fn a_request_that_is_too_late_is_left_out() {
    let late = Request { after: Some(0), latest_ns: Some(10_000_000), ..request(11) };
    let samples = server("openai-completions", "ttft_ms=50,tpot_ms=5")
        .start()
        .samples(vec![request(11), late]);
    assert_eq!(served(&samples[1]).error.as_ref().unwrap().kind, ServedFault::NotStarted);
}

#[test]
fn what_came_before_a_failure_is_kept() {
    for (fail, kind, words) in [
        ("stream-error", ServedFault::Stream, "the mock was told to fail"),
        ("disconnect", ServedFault::Disconnected, "in mid-stream"),
        ("bad-json", ServedFault::Malformed, "no JSON object"),
        ("bad-utf8", ServedFault::Malformed, "no JSON object"),
        ("endless-line", ServedFault::Malformed, "longer than"),
        ("silent", ServedFault::TimedOut, "said nothing for 0.5 s"),
        ("early-end", ServedFault::EarlyEnd, "20 of 60 tokens"),
        ("html", ServedFault::Malformed, "502 Bad Gateway"),
    ] {
        let profile = format!("ttft_ms=20,tpot_ms=2,fail={fail},fail_at=20");
        let setup = server("openai-completions", &profile).option("silence_seconds", 0.5);
        let sample = setup.start().sample();
        let error = served(&sample).error.clone().unwrap_or_else(|| panic!("{fail}: no error"));
        assert_eq!(error.kind, kind, "{fail}: {}", error.reason);
        assert!(error.reason.contains(words), "{fail}: {}", error.reason);
        assert!(error.reason.len() <= 1100, "{fail}");
        assert_eq!(sample.token_ns.len(), 20, "{fail}");
    }
}

#[test]
fn a_refusal_is_quoted_up_to_a_kibibyte_and_without_the_key() {
    for (fail, words) in [
        ("bad-request", "your key was Bearer [key removed]"),
        ("not-found", "the model 'mock' does not exist"),
        ("rate-limited", "429 Too Many Requests (retry after 7 s)"),
        ("server-error", "500 Internal Server Error"),
        ("no-answer", "before any answer"),
    ] {
        let setup =
            server("openai", &format!("fail={fail}")).env("OPENAI_API_KEY", "sk-very-secret");
        let failure = setup.start().failure();
        assert!(failure.contains(words), "{fail}: {failure}");
        assert!(!failure.contains("sk-very-secret"), "{fail}: {failure}");
        assert!(failure.len() < 1200, "{fail}: {} bytes", failure.len());
    }
}

#[test]
fn one_failure_among_many_leaves_the_others() {
    let mut client = server("openai-completions", "ttft_ms=20,tpot_ms=1").start();
    let late = Request { after: Some(0), latest_ns: Some(0), ..request(5) };
    let samples = client.samples(vec![request(5), late, request(5)]);
    let whole = |sample: &&Sample| served(sample).error.is_none();
    assert_eq!(samples.iter().filter(whole).count(), 2);
    // And the run goes on.
    assert_eq!(client.sample().token_ns.len(), TOKENS as usize);
}

#[test]
fn a_server_that_is_not_there_is_a_failure_with_its_address() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let failure = server("openai-completions", "").option("url", &url).start_failure();
    assert!(failure.contains(&port.to_string()) && failure.contains("refused"), "{failure}");
}

#[test]
fn a_plain_server_behind_an_https_url_is_a_tls_failure() {
    let url = SERVER.url("").replace("http:", "https:");
    let failure = server("openai-completions", "").option("url", &url).start_failure();
    assert!(failure.contains("no encrypted connection"), "{failure}");
}

#[test]
fn a_missing_key_is_named_by_its_variable() {
    let setup = server("anthropic", "").env("ANTHROPIC_API_KEY", "");
    let failure = setup.try_start().err().expect("it started").to_string();
    assert!(failure.contains("ANTHROPIC_API_KEY"), "{failure}");
}

#[test]
fn unknown_servers_and_options_are_refused_with_the_known_ones() {
    let failure = server("vlm", "").try_start().err().expect("it started").to_string();
    assert!(failure.contains("vllm"), "{failure}");
    let setup = server("openai-completions", "").option("temperatur", 1);
    let failure = setup.try_start().err().expect("it started").to_string();
    assert!(failure.contains("temperatur") && failure.contains("silence_seconds"), "{failure}");
}

#[test]
fn what_http_cannot_do_is_unsupported() {
    let mut client = server("openai-completions", "ttft_ms=1,tpot_ms=1").start();
    let deep = Request { context: vec![1; 8], ..request(5) };
    let unsupported =
        |failure: &Failure| matches!(failure, Failure::Reported(Fault::Unsupported, _));
    assert!(unsupported(&client.ask(vec![deep]).unwrap_err()));
    let requests = vec![request(5); 2];
    let job = Job::Trial { requests, schedule: Schedule::Lockstep, limit_ns: None };
    assert!(unsupported(&client.0.ask(&job, PATIENCE).unwrap_err()));
    let job = Job::Logits { tokens: vec![1] };
    assert!(unsupported(&client.0.ask(&job, PATIENCE).unwrap_err()));
}

#[test]
fn a_thousand_streams_need_no_thousand_threads() {
    let setup = Setup { slots: 1000, ..server("openai-completions", "ttft_ms=500,tpot_ms=20") };
    let mut client = setup.start();
    let start = Instant::now();
    let samples = client.samples((0..1000).map(|_| request(20)).collect());
    assert!(samples.iter().all(|sample| served(sample).error.is_none()));
    assert!(start.elapsed() < Duration::from_secs(20));
}
