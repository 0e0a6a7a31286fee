//! `bench selfcheck`: the client of servers against a server with exactly known timing on this
//! machine, to know the ruler's own error before anything is measured with it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;

use crate::mock_server::MockServer;
use crate::mock_server::profile::{Profile, Truth};
use crate::report::terminal::Terminal;
use crate::report::{Render, Report, Section, Table};
use crate::runner::child::Child;
use crate::runner::locate;
use crate::runner::protocol::{Event, Job, Sample};
use crate::runner::{Model, Request, Schedule, Settings};
use crate::stats::percentile;
use crate::units::{ABSENT, Nanos, Share, TokensPerSecond, or_absent};

/// Flags of `bench selfcheck`.
#[derive(Debug, clap::Args)]
pub struct SelfcheckArgs {
    /// Numbers of streams at 100 tokens per second each.
    #[arg(long, value_delimiter = ',', default_value = "1,8,128,512")]
    streams: Vec<u32>,
    /// Tokens per second in all, over 64 streams, for the error of the time per token.
    #[arg(long, value_delimiter = ',', default_value = "50000,100000,200000")]
    throughput: Vec<u32>,
    /// Write one JSON object a line instead of a table.
    #[arg(long)]
    json: bool,
    /// End with exit code 1 where an error is above its limit.
    #[arg(long)]
    strict: bool,
    /// Folder of the runner programs, beside this program's own.
    #[arg(long, value_name = "DIR")]
    runners: Option<PathBuf>,
}

/// Streams of the throughput check.
const WIDE: u32 = 64;
/// Tokens of each generation: two seconds at 100 tokens per second.
const TOKENS: u32 = 200;
/// Time to the first token.
const TTFT_MS: f64 = 200.0;
/// Longest wait for a check.
const PATIENCE: Duration = Duration::from_secs(120);
/// Largest error of the time per token that throughput may cost.
const TPOT_LIMIT: f64 = 0.01;

/// What one check found. Errors are absolute differences from the truth.
#[derive(Debug, Serialize)]
struct Check {
    streams: u32,
    tokens_per_second: f64,
    requests: usize,
    /// Requests that ended with an error.
    failed: usize,
    ttft_error_ns_p50: Option<f64>,
    ttft_error_ns_p99: Option<f64>,
    itl_error_ns_p50: Option<f64>,
    itl_error_ns_p99: Option<f64>,
    tpot_error_p50: Option<f64>,
    tpot_error_p99: Option<f64>,
    /// Requests sent after their intended time: the client's lag.
    lag_ns_p99: Option<f64>,
    /// How late the mock itself wrote: a part of all errors that is not the client's.
    mock_late_ns_p50: Option<f64>,
    mock_late_ns_p99: Option<f64>,
    /// The limits that this check has.
    #[serde(skip)]
    limits: Limits,
}

#[derive(Clone, Copy, Debug, Default)]
struct Limits {
    ttft_ns_p50: Option<f64>,
    ttft_ns_p99: Option<f64>,
    tpot: Option<f64>,
}

impl Check {
    /// Whether every limit is kept.
    fn passes(&self) -> bool {
        let within = |value: Option<f64>, limit: Option<f64>| match (value, limit) {
            (_, None) => true,
            (value, Some(limit)) => value.is_some_and(|value| value <= limit),
        };
        self.failed == 0
            && within(self.ttft_error_ns_p50, self.limits.ttft_ns_p50)
            && within(self.ttft_error_ns_p99, self.limits.ttft_ns_p99)
            && within(self.tpot_error_p99, self.limits.tpot)
    }
}

/// Runs the checks and prints what they found.
pub fn run(args: &SelfcheckArgs) -> anyhow::Result<ExitCode> {
    let engine = "openai";
    let folder = args.runners.clone().unwrap_or_default();
    let program = locate::locate(engine, &folder)
        .with_context(|| format!("the client is missing; type: {}", locate::remedy(engine)))?
        .program;
    let server = MockServer::start(0)?;
    let mut checks = Vec::new();
    for &streams in &args.streams {
        if streams == 0 {
            bail!("--streams: 0 streams measure nothing");
        }
        let profile = format!("ttft_ms={TTFT_MS},tpot_ms=10");
        // Enough requests for a 99th percentile; each user has at least two.
        let requests = (streams * 2).max(100.min(streams * 8));
        let limits = match streams {
            0..=128 => {
                Limits { ttft_ns_p50: Some(0.5e6), ttft_ns_p99: Some(4e6), ..Limits::default() }
            }
            _ => Limits { ttft_ns_p99: Some(10e6), ..Limits::default() },
        };
        let limits = if requests < 100 { Limits { ttft_ns_p99: None, ..limits } } else { limits };
        let per_second = f64::from(streams) * 100.0;
        let check = Plan { profile, streams, requests, tokens: TOKENS, per_second, limits };
        checks.push(check.run(&program, &server)?);
    }
    for &per_second in &args.throughput {
        let per_stream = f64::from(per_second.max(1)) / f64::from(WIDE);
        let profile = format!("ttft_ms={TTFT_MS},tpot_ms={}", 1e3 / per_stream);
        let limits = Limits { tpot: Some(TPOT_LIMIT), ..Limits::default() };
        // Two rounds of about two seconds.
        let check = Plan {
            profile,
            streams: WIDE,
            requests: WIDE * 2,
            tokens: (per_stream * 2.0).ceil() as u32,
            per_second: f64::from(per_second),
            limits,
        };
        checks.push(check.run(&program, &server)?);
    }
    if args.json {
        for check in &checks {
            println!("{}", serde_json::to_string(check)?);
        }
    } else {
        print(&checks)?;
    }
    let failed = args.strict && !checks.iter().all(Check::passes);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A check to make.
struct Plan {
    profile: String,
    streams: u32,
    requests: u32,
    tokens: u32,
    per_second: f64,
    limits: Limits,
}

impl Plan {
    fn run(&self, program: &std::path::Path, server: &MockServer) -> anyhow::Result<Check> {
        let truth = self.profile.parse::<Profile>()?.truth(self.tokens);
        let environment = [("BENCH_SERVER".to_owned(), "openai-completions".to_owned())];
        let mut child = Child::start(program, &environment)?;
        child.hello(PATIENCE).map_err(anyhow::Error::msg)?;
        let options = BTreeMap::from([("url".to_owned(), server.url(&self.profile))]);
        let settings = Settings { slots: self.streams, options, ..Settings::default() };
        let model = Model { path: PathBuf::from("mock") };
        child.ask(&Job::Load { model, settings }, PATIENCE).map_err(anyhow::Error::msg)?;
        let request = |i: u32| Request {
            prompt: (i..i + 16).collect(),
            output: vec![0; self.tokens as usize],
            // Each stream asks again when it was answered.
            after: i.checked_sub(self.streams),
            ..Request::default()
        };
        // A round that is not counted opens the connections and warms both sides.
        let warm = (0..self.streams).map(|i| Request { output: vec![0; 2], ..request(i) });
        let schedule = Schedule::Continuous;
        let warm = Job::Trial { requests: warm.collect(), schedule, limit_ns: None };
        child.ask(&warm, PATIENCE).map_err(anyhow::Error::msg)?;
        server.take_lateness();
        let requests = (0..self.requests).map(request).collect();
        let job = Job::Trial { requests, schedule, limit_ns: None };
        let answer = child.ask(&job, PATIENCE).map_err(anyhow::Error::msg)?;
        let Event::Trial { samples, .. } = answer else { bail!("the client gave no trial") };
        child.finish();
        Ok(self.compare(&samples, &truth, server))
    }

    fn compare(&self, samples: &[Sample], truth: &Truth, server: &MockServer) -> Check {
        let mut errors = Errors::default();
        let whole = samples.iter().filter(|sample| is_whole(sample, self.tokens));
        let mut requests = 0;
        for sample in whole {
            requests += 1;
            errors.add(sample, truth);
        }
        let late: Vec<f64> = server.take_lateness().into_iter().map(|ns| ns as f64).collect();
        Check {
            streams: self.streams,
            tokens_per_second: self.per_second,
            requests: samples.len(),
            failed: samples.len() - requests,
            ttft_error_ns_p50: percentile(&errors.ttft, 50.0),
            ttft_error_ns_p99: percentile(&errors.ttft, 99.0),
            itl_error_ns_p50: percentile(&errors.itl, 50.0),
            itl_error_ns_p99: percentile(&errors.itl, 99.0),
            tpot_error_p50: percentile(&errors.tpot, 50.0),
            tpot_error_p99: percentile(&errors.tpot, 99.0),
            lag_ns_p99: percentile(&errors.lag, 99.0),
            mock_late_ns_p50: percentile(&late, 50.0),
            mock_late_ns_p99: percentile(&late, 99.0),
            limits: self.limits,
        }
    }
}

fn is_whole(sample: &Sample, tokens: u32) -> bool {
    sample.token_ns.len() == tokens as usize
        && sample.served.as_ref().is_some_and(|served| served.error.is_none())
}

/// Differences between what the client saw and the truth, over all requests.
#[derive(Debug, Default)]
struct Errors {
    ttft: Vec<f64>,
    itl: Vec<f64>,
    tpot: Vec<f64>,
    lag: Vec<f64>,
}

impl Errors {
    fn add(&mut self, sample: &Sample, truth: &Truth) {
        let seen = &sample.token_ns;
        let (Some(&first), Some(&last)) = (seen.first(), seen.last()) else { return };
        let (Some(&(true_first, _)), Some(&(true_last, _))) =
            (truth.events.first(), truth.events.last())
        else {
            return;
        };
        let ttft = first.saturating_sub(sample.sent_ns) as f64;
        self.ttft.push((ttft - true_first as f64).abs());
        let true_span = (true_last - true_first) as f64;
        if true_span > 0.0 {
            self.tpot.push(((last - first) as f64 / true_span - 1.0).abs());
        }
        for (seen, truth) in seen.windows(2).zip(truth.events.windows(2)) {
            let true_gap = (truth[1].0 - truth[0].0) as f64;
            self.itl.push(((seen[1] - seen[0]) as f64 - true_gap).abs());
        }
        // All streams start at zero, and wait for each other in the client; later ones wait for none.
        if sample.intended_ns > 0 {
            self.lag.push(sample.sent_ns.saturating_sub(sample.intended_ns) as f64);
        }
    }
}

fn print(checks: &[Check]) -> anyhow::Result<()> {
    let pair = |a: String, b: String| format!("{a} / {b}");
    let durations = |a: Option<f64>, b: Option<f64>| {
        let one = |ns: Option<f64>| or_absent(ns.map(|ns| Nanos(ns as u64)));
        pair(one(a), one(b))
    };
    let shares =
        |a: Option<f64>, b: Option<f64>| pair(or_absent(a.map(Share)), or_absent(b.map(Share)));
    let mut table = Table::new(&[
        ">streams",
        ">in all",
        ">TTFT error",
        ">ITL error",
        ">TPOT error",
        ">mock late",
        "limits",
    ]);
    let mut notes = Vec::new();
    for check in checks {
        let kept = match (check.limits, check.passes()) {
            (Limits { ttft_ns_p50: None, ttft_ns_p99: None, tpot: None }, true) => ABSENT,
            (_, true) => "kept",
            (_, false) => "broken",
        };
        table.rows.push(vec![
            check.streams.to_string(),
            TokensPerSecond(check.tokens_per_second).to_string(),
            durations(check.ttft_error_ns_p50, check.ttft_error_ns_p99),
            durations(check.itl_error_ns_p50, check.itl_error_ns_p99),
            shares(check.tpot_error_p50, check.tpot_error_p99),
            durations(check.mock_late_ns_p50, check.mock_late_ns_p99),
            kept.to_owned(),
        ]);
        if check.failed > 0 {
            notes.push(format!(
                "{} streams: {} of {} requests failed",
                check.streams, check.failed, check.requests
            ));
        }
    }
    notes.extend([
        "Errors are absolute, p50 / p99. The mock server shares this machine: its own lateness is \
         part of every error."
            .to_owned(),
        "Limits: TTFT error 0.5 ms p50 and 4 ms p99 up to 128 streams, 10 ms p99 beyond; TPOT \
         error 1 % p99."
            .to_owned(),
    ]);
    let section = Section { table: Some(table), notes, ..Section::default() };
    let title = "Client of servers against a mock server".to_owned();
    let report = Report { title, sections: vec![section] };
    Terminal::default()
        .render(&report, &mut std::io::stdout().lock())
        .context("cannot write the table")
}
