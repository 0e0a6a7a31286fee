//! The client of servers: vLLM, llama-server, Ollama, LM Studio, mlx_lm.server and cloud services,
//! each described by a TOML file. `BENCH_SERVER` names the server or the file.

#![allow(missing_docs, reason = "a program; nothing here is anybody's interface")]

mod arrivals;
mod body;
mod connection;
mod descriptor;
mod event;
mod launch;
mod metrics;
mod models;
mod payload;
mod trial;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use bench::runner::{
    Fault, LoadReport, Model, Process, Request, Runner, Schedule, Settings, TokenSink, Version,
};
use bytes::Bytes;
use tokio::runtime::Runtime;

use body::{Bodies, Order};
use connection::{Target, exchange};
use descriptor::{Descriptor, PromptForm};
use metrics::Sums;
use payload::Ask;
use trial::{Pool, Trial};

/// How long a server may say nothing, unless the option `silence_seconds` says otherwise.
const SILENCE: Duration = Duration::from_secs(120);

/// How long before the end of a trial's time its requests are given up, at most: their answers have
/// to reach the harness in time.
const ANSWERING: Duration = Duration::from_secs(5);

/// Options of the scenario that this runner knows.
const OPTIONS: [&str; 8] =
    ["args", "early_end", "key_env", "model", "program", "ready_seconds", "silence_seconds", "url"];

/// A server and the connections to it.
struct Served {
    runtime: Runtime,
    descriptor: Descriptor,
    target: Target,
    model: String,
    settings: Settings,
    silence: Duration,
    /// When the requests of the next trial are given up.
    until: Option<Instant>,
    early_end_allowed: bool,
    pool: Arc<Pool>,
    bodies: Vec<Bytes>,
    /// The server's own sums before the trial.
    sums: Option<Sums>,
    /// Differs for each conversation of each run.
    nonce: u64,
    report: LoadReport,
    /// Ends the server when this runner ends.
    _started: Option<launch::Started>,
}

/// The server's name, or the path of its descriptor.
fn server() -> String {
    std::env::var("BENCH_SERVER").unwrap_or_else(|_| "openai".to_owned())
}

/// The settings with the options that the harness gives in the environment, where they stay out of
/// records: an address can name a person's network.
fn with_options(settings: &Settings) -> anyhow::Result<Settings> {
    let mut settings = settings.clone();
    if let Ok(text) = std::env::var("BENCH_SERVER_OPTIONS") {
        let options: BTreeMap<String, String> = serde_json::from_str(&text)
            .context("BENCH_SERVER_OPTIONS is no JSON object of texts")?;
        for (name, value) in options {
            settings.options.entry(name).or_insert(value);
        }
    }
    Ok(settings)
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .context("cannot start the client's event loop")
}

impl Runner for Served {
    const NAME: &'static str = "openai";

    fn name() -> String {
        Descriptor::label(&server())
    }

    fn version() -> anyhow::Result<Version> {
        let name = server();
        let mut descriptor = Descriptor::find(&name)?;
        let settings = with_options(&Settings::default())?;
        use_key(&mut descriptor, &settings);
        let label = Descriptor::label(&name);
        let version = launch::version(&runtime()?, &label, &descriptor, &settings)?;
        Ok(Version {
            version,
            build: format!("client {}", env!("CARGO_PKG_VERSION")),
            backend: "HTTP".to_owned(),
        })
    }

    fn load(model: &Model, settings: &Settings) -> anyhow::Result<Self> {
        let settings = &with_options(settings)?;
        if let Some(unknown) = settings.options.keys().find(|key| !OPTIONS.contains(&key.as_str()))
        {
            bail!("unknown option '{unknown}'; known are {}", OPTIONS.join(", "));
        }
        let name = server();
        let label = Descriptor::label(&name);
        let mut descriptor = Descriptor::find(&name)?;
        let runtime = runtime()?;
        let silence = seconds(settings, "silence_seconds")?.unwrap_or(SILENCE);
        use_key(&mut descriptor, settings);
        if let (Some(start), Some(ready)) =
            (&mut descriptor.start, seconds(settings, "ready_seconds")?)
        {
            start.ready_seconds = ready.as_secs();
        }
        let early_end_allowed = match settings.options.get("early_end").map(String::as_str) {
            None | Some("void") => false,
            Some("allowed") => true,
            Some(other) => bail!("early_end: '{other}' is neither 'void' nor 'allowed'"),
        };
        let url = launch::named_url(&label, settings);
        let start = descriptor.start.as_ref().filter(|start| {
            let program = settings.options.get("program").unwrap_or(&start.command[0]);
            url.is_none() && launch::on_path(program).is_some()
        });
        let (started, target) = match start {
            Some(start) => {
                let (started, target) =
                    launch::start(&runtime, &descriptor, start, model, settings)?;
                (Some(started), target)
            }
            None => {
                let url = url.or_else(|| descriptor.url.clone()).with_context(|| {
                    format!("no URL: set {} or the option url", launch::url_variable(&label))
                })?;
                (None, attach(&runtime, &descriptor, &url)?)
            }
        };
        let model = match (settings.options.get("model"), &descriptor.model, &descriptor.create) {
            (Some(name), ..) => name.clone(),
            (None, _, Some(how)) if model.path.is_file() => {
                models::create(&runtime, &target, how, &model.path)?
            }
            (None, Some(place), _) => launch::read(&runtime, &target, place)?,
            (None, None, _) => model.path.display().to_string(),
        };
        if let Some(how) = &descriptor.load {
            models::load(&runtime, &target, how, &model, settings.slot_tokens)?;
        }
        let memory = descriptor.memory.as_ref();
        let device_bytes =
            memory.and_then(|how| models::device_bytes(&runtime, &target, how, &model));
        let process = match (&started, target.is_local()) {
            (Some(_), _) => Process::Own,
            (None, true) => {
                Process::Listener { port: target.port(), programs: descriptor.programs.clone() }
            }
            (None, false) => Process::Elsewhere,
        };
        let mut effective = launch::read_back(&runtime, &target, &descriptor);
        let how = if started.is_some() { "this run" } else { "somebody else" };
        effective.insert("started_by".to_owned(), how.to_owned());
        effective.insert("served_model".to_owned(), launch::without_folders(&model));
        if let (Some(_), Some(start)) = (&started, &descriptor.start) {
            effective.extend(launch::environment(start));
        }
        let prompts = match descriptor.request.prompt {
            PromptForm::Ids => "token ids, the first in an order of each request",
            PromptForm::Text => "text, counted by the server",
        };
        effective.insert("prompts".to_owned(), prompts.to_owned());
        if !target.is_local() {
            effective.insert("network".to_owned(), "times include the network".to_owned());
        }
        if started.is_none() {
            // They describe a process that somebody else started: nothing puts them in force.
            for (name, value) in launch::given(settings) {
                effective.insert(format!("not_applied_{name}"), value);
            }
        } else if let (Some(threads), Some(start)) = (settings.threads, &descriptor.start)
            && !start.settings.contains_key("threads")
        {
            effective.insert("not_applied_threads".to_owned(), threads.to_string());
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            runtime,
            descriptor,
            target,
            model,
            settings: settings.clone(),
            silence,
            until: None,
            early_end_allowed,
            pool: Arc::default(),
            bodies: Vec::new(),
            sums: None,
            nonce: since.as_nanos() as u64,
            report: LoadReport { effective, device_bytes, process, ..LoadReport::default() },
            _started: started,
        })
    }

    fn report(&self) -> LoadReport {
        self.report.clone()
    }

    fn give_up_at(&mut self, end: Option<Instant>) {
        self.until = end.map(|end| {
            let left = end.saturating_duration_since(Instant::now());
            end - ANSWERING.min(left / 10)
        });
    }

    fn prepare(&mut self, requests: &[Request]) -> anyhow::Result<()> {
        if requests.iter().any(|request| !request.context.is_empty()) {
            return Err(anyhow::Error::new(Fault::Unsupported).context(
                "a depth in the cache: a server would process it inside the timed region; \
                 use a longer prompt",
            ));
        }
        let bodies = Bodies {
            generation: &self.descriptor.request,
            model: &self.model,
            slot_tokens: self.settings.slot_tokens,
        };
        self.bodies.clear();
        let mut orders: Vec<Order> = Vec::with_capacity(requests.len());
        for request in requests {
            // A turn begins as the turn before did, and nothing else begins so.
            let before = request.after.map(|before| before as usize).filter(|&before| {
                requests.get(before).is_some_and(|turn| request.prompt.starts_with(&turn.prompt))
            });
            let order = before.and_then(|before| orders.get(before)).copied();
            let order = order.unwrap_or_else(|| {
                self.nonce = self.nonce.wrapping_add(1);
                Order::new(self.nonce, request)
            });
            self.bodies.push(bodies.of(request, order)?);
            orders.push(order);
        }
        // Only what is needed at once: llama-server has a thread for each connection, and may leave
        // those of many that come together waiting for the end of another's idle time (5 s).
        let is_first = |request: &&Request| request.after.is_none() && request.start_ns == 0;
        let at_once = requests.iter().filter(is_first).count().max(1);
        self.runtime.block_on(self.pool.fill(&self.target, at_once));
        let metrics = self.descriptor.metrics.as_ref();
        self.sums = metrics.and_then(|how| Sums::read(&self.runtime, &self.target, how));
        Ok(())
    }

    fn generate(
        &mut self,
        requests: &[Request],
        schedule: Schedule,
        sinks: &mut [TokenSink],
    ) -> anyhow::Result<()> {
        let Some(first) = sinks.first() else { return Ok(()) };
        if schedule == Schedule::Lockstep && requests.len() > 1 {
            return Err(anyhow::Error::new(Fault::Unsupported).context(
                "a static batch: a server schedules its requests itself; use concurrency",
            ));
        }
        let trial = Trial {
            target: self.target.clone(),
            path: self.descriptor.request.path.clone(),
            pool: Arc::clone(&self.pool),
            epoch: first.epoch(),
            silence: self.silence,
            until: self.until,
            early_end_allowed: self.early_end_allowed,
        };
        let bodies = std::mem::take(&mut self.bodies);
        let mut outcomes = self.runtime.block_on(trial::run(trial, requests, bodies));
        if let (Some(metrics), Some(before)) = (&self.descriptor.metrics, &self.sums) {
            let mut served: Vec<_> =
                outcomes.iter_mut().map(|outcome| &mut outcome.served).collect();
            metrics::fill(&self.runtime, &self.target, metrics, before, &mut served);
        }
        for (sink, outcome) in sinks.iter_mut().zip(outcomes) {
            sink.served(outcome.intended_ns, outcome.sent_ns, outcome.token_ns, outcome.served);
        }
        Ok(())
    }

    fn logits(&mut self, _tokens: &[u32]) -> anyhow::Result<Vec<Vec<f32>>> {
        Err(anyhow::Error::new(Fault::Unsupported).context("a server gives no logits"))
    }
}

/// Takes the key from the variable that the scenario names.
fn use_key(descriptor: &mut Descriptor, settings: &Settings) {
    if let (Some(key), Some(variable)) = (&mut descriptor.key, settings.options.get("key_env")) {
        key.environment.clone_from(variable);
        key.optional = false;
    }
}

/// An option in seconds.
fn seconds(settings: &Settings, name: &str) -> anyhow::Result<Option<Duration>> {
    let Some(text) = settings.options.get(name) else { return Ok(None) };
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let seconds = seconds.filter(|seconds| !seconds.is_zero());
    seconds.with_context(|| format!("{name}: '{text}' is no positive number")).map(Some)
}

/// A running server's target, once it answers.
fn attach(runtime: &Runtime, descriptor: &Descriptor, url: &str) -> anyhow::Result<Target> {
    let target = launch::target(descriptor, url)?;
    if let Some(ready) = &descriptor.ready {
        let patience = Duration::from_secs(10);
        match runtime.block_on(exchange(&target, &ready.path, Ask::Get, patience)) {
            Ok((200, _)) => {}
            Ok((status, body)) => bail!(
                "{url}{} answers {status}: {}",
                ready.path,
                target.redacted(String::from_utf8_lossy(&body).trim())
            ),
            Err(error) => bail!("{}", error.reason),
        }
    }
    Ok(target)
}

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    if words.first().is_some_and(|word| word == launch::START) {
        eprintln!("{:#}", launch::become_server(&words[1..]));
        return ExitCode::FAILURE;
    }
    bench::runner::serve::serve::<Served>()
}
