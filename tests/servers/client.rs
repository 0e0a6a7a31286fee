//! A client of servers under test: the real program, attached to the mock server.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use bench::mock_server::MockServer;
use bench::mock_server::profile::{Profile, Truth};
use bench::runner::child::{Child, Failure};
use bench::runner::protocol::{Event, Job, Sample, Served};
use bench::runner::{LoadReport, Model, Request, Schedule, Settings};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_bench-openai");
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const TOKENS: u32 = 60;

pub static SERVER: LazyLock<MockServer> = LazyLock::new(|| MockServer::start(0).unwrap());

/// A client that is attached to the mock server with this profile.
pub struct Client(pub Child);

#[derive(Clone, Default)]
pub struct Setup {
    pub server: String,
    pub profile: String,
    pub options: Vec<(&'static str, String)>,
    pub environment: Vec<(&'static str, String)>,
    pub slots: u32,
    /// The model's file, where there is one.
    pub model: Option<PathBuf>,
}

pub fn server(name: &str, profile: &str) -> Setup {
    Setup { server: name.to_owned(), profile: profile.to_owned(), slots: 64, ..Setup::default() }
}

impl Setup {
    pub fn option(mut self, name: &'static str, value: impl ToString) -> Self {
        self.options.push((name, value.to_string()));
        self
    }

    pub fn env(mut self, name: &'static str, value: impl ToString) -> Self {
        self.environment.push((name, value.to_string()));
        self
    }

    pub fn try_start(&self) -> Result<Client, Failure> {
        self.load().map(|(client, _)| client)
    }

    /// Starts, with what the client reports after loading.
    pub fn load(&self) -> Result<(Client, LoadReport), Failure> {
        let url = SERVER.url(&self.profile);
        let label = Path::new(&self.server).file_stem().unwrap().to_string_lossy().to_uppercase();
        let mut environment = vec![
            ("BENCH_SERVER".to_owned(), self.server.clone()),
            // The version comes from the mock's root, which has no profile that could fail.
            (format!("BENCH_{}_URL", label.replace('-', "_")), SERVER.url("")),
        ];
        for (name, value) in &self.environment {
            environment.push(((*name).to_owned(), value.clone()));
        }
        let mut child = Child::start(Path::new(PROGRAM), &environment).unwrap();
        child.hello(PATIENCE)?;
        let mut options: Vec<_> =
            self.options.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
        if !self.options.iter().any(|(name, _)| *name == "url") {
            options.push(("url".to_owned(), url));
        }
        let settings = Settings {
            slots: self.slots,
            slot_tokens: 4096,
            options: options.into_iter().collect(),
            ..Settings::default()
        };
        let model = Model { path: self.model.clone().unwrap_or_else(|| PathBuf::from("mock")) };
        match child.ask(&Job::Load { model, settings }, PATIENCE)? {
            Event::Loaded { report, .. } => Ok((Client(child), report)),
            other => panic!("unexpected {other:?}"),
        }
    }

    pub fn start(&self) -> Client {
        self.try_start().unwrap_or_else(|failure| panic!("{}: {failure}", self.server))
    }
}

impl Client {
    pub fn ask(&mut self, requests: Vec<Request>) -> Result<Vec<Sample>, Failure> {
        let job = Job::Trial { requests, schedule: Schedule::Continuous, limit_ns: None };
        match self.0.ask(&job, PATIENCE)? {
            Event::Trial { samples, .. } => Ok(samples),
            other => panic!("unexpected {other:?}"),
        }
    }

    pub fn samples(&mut self, requests: Vec<Request>) -> Vec<Sample> {
        self.ask(requests).unwrap_or_else(|failure| panic!("{failure}"))
    }

    pub fn sample(&mut self) -> Sample {
        self.samples(vec![request(TOKENS)]).remove(0)
    }

    pub fn failure(&mut self) -> String {
        let error = served(&self.sample()).error.clone();
        error.expect("it did not fail").reason
    }
}

pub fn request(tokens: u32) -> Request {
    Request { prompt: (0..32).collect(), output: vec![0; tokens as usize], ..Request::default() }
}

pub fn served(sample: &Sample) -> &Served {
    sample.served.as_ref().unwrap()
}

pub fn within(what: &str, seen: f64, truth: f64) -> Result<(), String> {
    if (seen - truth).abs() <= truth * 0.01 {
        Ok(())
    } else {
        Err(format!("{what} is {seen} ns, the truth {truth} ns"))
    }
}

/// Whether every metric of METHODOLOGY's table that follows from a sample is within 1 %.
pub fn matches(sample: &Sample, truth: &Truth) -> Result<(), String> {
    let served = served(sample);
    if let Some(error) = &served.error {
        return Err(format!("{:?}: {}", error.kind, error.reason));
    }
    let since = |ns: u64| ns.saturating_sub(sample.sent_ns) as f64;
    let tokens: u32 = truth.events.iter().map(|event| event.1).sum();
    let (first, last) = (truth.events[0], *truth.events.last().unwrap());
    let seen = &sample.token_ns;
    if seen.len() != tokens as usize {
        return Err(format!("{} tokens, the truth {tokens}", seen.len()));
    }
    let of_events: Vec<u32> = truth.events.iter().map(|event| event.1).collect();
    if served.event_tokens != of_events {
        return Err(format!("tokens of events {:?}, not {of_events:?}", served.event_tokens));
    }
    within("TTFT", since(seen[0]), first.0 as f64)?;
    within("E2E", since(seen[seen.len() - 1]), last.0 as f64)?;
    let tpot = |span: f64| span / f64::from(tokens - first.1);
    let seen_span = (seen[seen.len() - 1] - seen[0]) as f64;
    within("TPOT", tpot(seen_span), tpot((last.0 - first.0) as f64))?;
    match (served.first_visible_ns, truth.first_visible_ns) {
        (Some(seen), Some(truth)) => within("TTFV", since(seen), truth as f64)?,
        (None, None) => {}
        (seen, truth) => return Err(format!("first visible {seen:?}, the truth {truth:?}")),
    }
    within("the end", since(served.closed_ns.unwrap_or(0)), truth.closed_ns as f64)?;
    // The longest gap shows a stall; single gaps of 10 ms are within 1 % only on an idle machine.
    let mut starts = vec![seen[0]];
    starts.extend(seen.windows(2).filter(|pair| pair[0] != pair[1]).map(|pair| pair[1]));
    let longest = |times: &[u64]| times.windows(2).map(|p| p[1] - p[0]).max().unwrap_or(0);
    let true_times: Vec<u64> = truth.events.iter().map(|event| event.0).collect();
    let (seen, truth) = (longest(&starts) as f64, longest(&true_times) as f64);
    if seen < truth * 0.99 - 1e6 {
        return Err(format!("the longest gap is {seen} ns, the truth {truth} ns"));
    }
    Ok(())
}

/// Asks up to a dozen times: other work on the machine can only make a good client look bad.
pub fn measures_the_truth(setup: &Setup) -> Sample {
    let truth = setup.profile.parse::<Profile>().unwrap().truth(TOKENS);
    let mut client = setup.start();
    let mut reasons = Vec::new();
    for _ in 0..12 {
        let sample = client.sample();
        match matches(&sample, &truth) {
            Ok(()) => return sample,
            Err(reason) => reasons.push(reason),
        }
    }
    panic!("{} {}: {}", setup.server, setup.profile, reasons.join("; "));
}

impl Setup {
    /// Why it fails, whether at the start or at the first trial.
    pub fn start_failure(&self) -> String {
        match self.try_start() {
            Ok(mut client) => client.failure(),
            Err(failure) => failure.to_string(),
        }
    }
}
