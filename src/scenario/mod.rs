//! What a person wrote down to be measured, read from TOML: every rule is checked here, and every
//! error says where it is and what to do.

pub mod engines;
mod expectation;
mod keys;
mod known;
mod matrix;
mod mix;
mod plan;
mod problem;
mod read;
mod settings;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use rust_decimal::Decimal;
use serde::Serialize;

use crate::runner::Settings;
use crate::units::{Bytes, Nanos, Share, Tokens, Usd};

pub use engines::{ENGINES, Engine, NEVER_STARTED, Synthetic, TAKE_UPLOADS, remedy};
pub use expectation::{Expectation, FoundGpu, FoundHost};
pub use keys::{KEYS, Key};
pub use known::{Known, KnownModel};
pub use problem::{Problem, Problems, nearest};

pub use crate::workload::{Arrivals, Length, Mix, Recorded};

/// A scenario file, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// The file it was read from.
    pub path: PathBuf,
    /// The file's text, to be kept beside the results.
    pub text: String,
    /// The file's name without its ending, for result folders.
    pub name: String,
    /// What it is for, in one sentence.
    pub description: Option<String>,
    /// Seeds synthetic weights, prompts and arrivals.
    pub seed: u64,
    /// The machine that it is meant for.
    pub host: Expectation,
    /// Repetitions.
    pub trials: Trials,
    /// Where measuring stops.
    pub limits: Limits,
    /// What is measured; at least one.
    pub matrices: Vec<Matrix>,
    /// Servers by the name that `engines` uses.
    pub servers: BTreeMap<String, Server>,
    /// The service that users are promised.
    pub slo: Option<Slo>,
    /// The use that capacity and cost are worked out for.
    pub workload: Option<Workload>,
    /// Prices of owning, and what to compare with.
    pub prices: Option<Prices>,
}

/// A file's name without its ending.
fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

/// How often a case is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Trials {
    /// Trials that are always made.
    pub min: u32,
    /// Trials after which a case ends, however wide its interval is.
    pub max: u32,
    /// Trials before these, which are not recorded.
    pub warm_up: u32,
    /// Half-width of the 95 % interval of the median, relative to it, at which a case ends.
    pub interval: Share,
    /// Whose trials take turns.
    pub in_turn: InTurn,
}

impl Default for Trials {
    fn default() -> Self {
        Self { min: 5, max: 30, warm_up: 1, interval: Share(0.02), in_turn: InTurn::Point }
    }
}

/// Cases whose trials take turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum InTurn {
    /// The engines of one point.
    Point,
    /// All that follow each other and have one model and quantisation: a sweep and the loads that it
    /// is to foretell.
    Model,
}

/// Where measuring stops; the outcome says which limit it was.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// All trials of a case, its loading included.
    pub case: Nanos,
    /// One trial.
    pub trial: Nanos,
    /// The whole scenario; none: no limit.
    pub scenario: Option<Nanos>,
    /// Memory that a case is expected to need at most; a case beyond it is not started. None: what
    /// the machine has.
    pub memory: Option<Bytes>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            case: Nanos::from_seconds(600.0),
            trial: Nanos::from_seconds(120.0),
            scenario: None,
            memory: None,
        }
    }
}

/// One block of cases: the product of its lists.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// The line of its `[[matrix]]`.
    pub line: usize,
    /// Catalogue ids of models.
    pub models: Vec<String>,
    /// Quantisations, such as `Q4_K_M`.
    pub quants: Vec<String>,
    /// Engines and servers, by name.
    pub engines: Vec<String>,
    /// Where the weights come from.
    pub weights: Weights,
    /// Prompt, continuation and depth.
    pub points: Vec<Point>,
    /// The ways in which requests come: the union of `batch`, `concurrency` and `rates`.
    pub loads: Vec<Load>,
    /// Sequences that are held at once; none: as many as the load needs.
    pub slots: Option<u32>,
    /// Requests in a trial; none: as many as [`Load::requests`] says.
    pub requests: Option<u32>,
    /// How long requests of a trial start, instead of their number.
    pub duration: Option<Nanos>,
    /// The requests of `[workload]`, where `points` says so; `points` then holds their mean.
    pub mix: Option<Mix>,
    /// Each engine's settings, the scenario's and the matrix's own together. `slots` and
    /// `slot_tokens` are left to the case.
    pub settings: BTreeMap<String, Settings>,
}

impl Matrix {
    /// Whether `[slo] search` looks for the capacity of its engines: a batch or a trace has no load
    /// that could be raised.
    pub fn is_searched(&self) -> bool {
        self.loads.iter().any(|load| matches!(load, Load::Concurrency(_) | Load::Rate(_)))
    }
}

/// The work of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Point {
    /// Tokens of the prompt, inside the clock.
    pub prompt_tokens: Tokens,
    /// Tokens to generate.
    pub new_tokens: Tokens,
    /// Tokens already in the KV cache when the clock starts.
    pub depth: Tokens,
}

impl Point {
    /// KV cache that one request fills.
    pub fn context(self) -> Tokens {
        let sum = self.depth.0.saturating_add(self.prompt_tokens.0);
        Tokens(sum.saturating_add(self.new_tokens.0))
    }
}

/// How requests come.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// A static batch: so many sequences start together and run in lockstep; 1 is a single stream.
    Batch(u32),
    /// Closed loop: so many users, each of whom asks again when answered; continuous batching.
    Concurrency(u32),
    /// Open loop: so many requests a second on average, whether the engine keeps up or not.
    Rate(f64),
    /// Requests at the times of the workload's trace.
    Trace,
    /// The sweep of prompts and batches from which step times are worked out.
    Calibration,
    /// Open loops that search the highest rate that meets the SLO.
    MostRate,
    /// Closed loops that search the highest number of users that meets the SLO.
    MostUsers,
}

impl Load {
    /// Requests of a trial where the scenario does not say: a batch once, each user four times; a
    /// rate has no number of its own.
    pub fn requests(self) -> Option<u32> {
        match self {
            Self::Batch(n) => Some(n),
            Self::Concurrency(n) => Some(n.saturating_mul(4)),
            _ => None,
        }
    }

    /// Requests that are in the engine together; other loads have no such number.
    pub fn together(self) -> Option<u32> {
        match self {
            Self::Batch(n) | Self::Concurrency(n) => Some(n),
            _ => None,
        }
    }

    /// Whether it looks for a capacity instead of being one load.
    pub fn is_search(self) -> bool {
        matches!(self, Self::MostRate | Self::MostUsers)
    }

    /// The size of a static batch.
    pub fn batch(self) -> Option<u32> {
        if let Self::Batch(n) = self { Some(n) } else { None }
    }

    /// The number of users of a closed loop.
    pub fn concurrency(self) -> Option<u32> {
        if let Self::Concurrency(n) = self { Some(n) } else { None }
    }

    /// The requests per second of an open loop.
    pub fn rate(self) -> Option<f64> {
        if let Self::Rate(rate) = self { Some(rate) } else { None }
    }
}

/// Short, for ids: `b8`, `c16`, `r0.5`, `calibration`, `slo-users`.
impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch(n) => write!(f, "b{n}"),
            Self::Concurrency(n) => write!(f, "c{n}"),
            Self::Rate(rate) => write!(f, "r{rate}"),
            Self::Trace => f.write_str("trace"),
            Self::Calibration => f.write_str("calibration"),
            Self::MostRate => f.write_str("slo-rate"),
            Self::MostUsers => f.write_str("slo-users"),
        }
    }
}

/// Where weights come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Weights {
    /// The model's exact shape, filled with random blocks.
    Synthetic,
    /// A GGUF file, or a folder; relative to the scenario's own folder.
    File(PathBuf),
    /// A file on the model hub.
    Hub {
        /// `owner/repo`.
        repo: String,
        /// The file's path in it.
        file: String,
    },
}

/// As a scenario spells it.
impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Synthetic => f.write_str("synthetic"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Hub { repo, file } => write!(f, "hub:{repo}/{file}"),
        }
    }
}

/// A server that `engines` names: how it is reached or started.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// The known server whose dialect it speaks.
    pub kind: String,
    /// Where a running one answers; none: `bench run` starts it.
    pub url: Option<String>,
    /// The model's name there, where it is not the scenario's.
    pub model: Option<String>,
    /// The environment variable that holds the key; the key itself never stands in a file.
    pub api_key_env: Option<String>,
    /// More arguments of the program that is started.
    pub args: Vec<String>,
    /// The program to start, where it is not the descriptor's.
    pub program: Option<String>,
    /// How long it may take until it is ready; none: what the descriptor says.
    pub ready: Option<Nanos>,
    /// How long it may say nothing before a request counts as timed out.
    pub silence: Option<Nanos>,
    /// Whether an answer that ends early counts; else it voids the trial.
    pub early_end: bool,
    /// A descriptor of a server that is not shipped; relative to the scenario's own folder.
    pub descriptor: Option<PathBuf>,
}

/// A service-level objective: all limits that are given must be met.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Slo {
    /// Time to first token.
    pub ttft: Option<Nanos>,
    /// Time per output token.
    pub tpot: Option<Nanos>,
    /// End-to-end time.
    pub e2e: Option<Nanos>,
    /// The share of requests that must meet them.
    pub attainment: Share,
    /// Search the highest rate and number of users that meet it.
    pub search: bool,
}

/// A figure that may be uncertain; `low` ≤ `likely` ≤ `high`, and equal where it is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Estimate {
    /// The lowest that is thought possible.
    pub low: Decimal,
    /// The most likely.
    pub likely: Decimal,
    /// The highest that is thought possible.
    pub high: Decimal,
}

/// What is used: the input of capacity and cost. What is `None` comes from the preset.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Workload {
    /// A named workload to start from.
    pub preset: Option<String>,
    /// People (or agents) at once.
    pub users: Option<u32>,
    /// Requests on a working day.
    pub requests_per_day: Option<Estimate>,
    /// Tokens in and out on a working day, instead of the requests.
    pub tokens_per_day: Option<Estimate>,
    /// Length of prompts.
    pub prompt_tokens: Option<Length>,
    /// Length of answers.
    pub new_tokens: Option<Length>,
    /// Share of the prompt that a prefix cache answers.
    pub cached_share: Option<Share>,
    /// Turns of a conversation, each with all turns before as its prompt.
    pub turns: Option<u32>,
    /// A user's pause before the next turn.
    pub think: Option<Nanos>,
    /// When requests come.
    pub arrivals: Option<Arrivals>,
    /// A trace to replay instead; relative to the scenario's own folder.
    pub trace: Option<PathBuf>,
    /// Its requests.
    pub recorded: Vec<Recorded>,
    /// The longest prompt with its answer.
    pub context: Option<Tokens>,
    /// Days of use in a month.
    pub working_days_per_month: Option<Decimal>,
    /// Load of the busiest hour relative to the mean.
    pub peak_factor: Option<Estimate>,
    /// Growth of the use in a year; 0.2 is 20 %.
    pub growth_per_year: Option<Estimate>,
}

/// Prices of owning; what is `None` comes from the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Prices {
    /// The device (all of them, where a machine has several).
    pub device_usd: Option<Estimate>,
    /// The rest of the machine.
    pub rest_usd: Option<Estimate>,
    /// Years of use.
    pub life_years: Option<Estimate>,
    /// What it sells for at the end, as a share of the purchase.
    pub resale_share: Option<Estimate>,
    /// Cost of capital in a year; 0.08 is 8 %.
    pub capital_cost_per_year: Option<Estimate>,
    /// The country whose tariff holds.
    pub tariff: Option<String>,
    /// The tariff itself.
    pub electricity_usd_per_kwh: Option<Estimate>,
    /// Power of the whole machine while it does nothing, in watts.
    pub idle_watts: Option<Estimate>,
    /// Power of the whole machine while it computes, in watts.
    pub active_watts: Option<Estimate>,
    /// Energy of the building relative to the machine's (PUE).
    pub pue: Option<Estimate>,
    /// Rack or colocation.
    pub rack_usd_per_month: Option<Estimate>,
    /// Maintenance in a year, as a share of the purchase.
    pub maintenance_share_per_year: Option<Estimate>,
    /// Work of people.
    pub staff_hours_per_month: Option<Estimate>,
    /// What an hour of it costs.
    pub staff_usd_per_hour: Option<Estimate>,
    /// Capacity kept free, as a share of what the peak needs.
    pub spare_share: Option<Estimate>,
    /// API models to compare with, `provider/model`.
    pub against: Vec<String>,
    /// What is spent on them today.
    pub api_usd_per_month: Option<Usd>,
    /// Change of API prices in a year; −0.3 is 30 % less.
    pub api_change_per_year: Option<Estimate>,
    /// Rented GPUs to compare with.
    pub rent_usd_per_gpu_hour: Option<Estimate>,
}
