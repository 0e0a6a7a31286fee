//! `bench cost`: what owning a machine costs for a workload, and when it pays back.

mod alternatives;
mod answer;
mod charts;
mod claims;
mod context;
mod decision;
mod demand;
mod flags;
mod machine;
mod measured;
mod plan;
mod predicted;
mod ranking;
mod rows;
mod settle;
mod speed;
mod split;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::cost;

pub use context::{machine_of, machine_word};
pub use decision::{Decision, decision};
pub use plan::{Owning, Plan, Prices, owning};

use super::run::Format;

/// Flags of `bench cost`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct CostArgs {
    #[command(subcommand)]
    command: Option<CostCommand>,
    #[command(flatten)]
    decide: DecideArgs,
}

/// What else than one decision.
#[derive(Debug, clap::Subcommand)]
enum CostCommand {
    /// Rank several devices for one workload.
    Compare(Box<ranking::CompareArgs>),
    /// Work out what articles claim about the cost of local models (reports/claims-roi.md).
    Claims {
        /// The day whose prices hold, as 2026-11-21; otherwise today.
        #[arg(long, value_name = "DATE")]
        on: Option<jiff::civil::Date>,
        /// The form of the table.
        #[arg(long, value_enum, default_value_t = Format::Markdown)]
        format: Format,
    },
    /// List every input with its unit, bounds and meaning, and the workloads with a name.
    Inputs,
}

/// What a decision is made from; shared with `bench cost compare`.
#[derive(Debug, clap::Args)]
struct QuestionArgs {
    /// A scenario with [workload] and [prices]; its newest results say how fast the machine is.
    scenario: Option<PathBuf>,
    /// The workload: chat-team, coding-agents, document-batch or always-on-agent.
    #[arg(long, value_name = "NAME")]
    workload: Option<String>,
    /// The model that the machine serves; without results its speed is predicted (`bench models`).
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
    /// Its quantisation; otherwise the scenario's, or Q4_K_M.
    #[arg(long, short, value_name = "QUANT")]
    quant: Option<String>,
    /// Tokens that a long request needs room for, as 16k; otherwise from the workload's lengths.
    #[arg(long, short, value_name = "TOKENS")]
    context: Option<String>,
    /// Requests at once that each machine must have room for; otherwise as many of the workload's
    /// users as fit and are served in time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    users: Option<u32>,
    /// The longest time to the first token, in ms; otherwise the scenario's [slo].
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    ttft_ms: Option<f64>,
    /// The longest time for each further token, in ms; otherwise the scenario's [slo].
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    tpot_ms: Option<f64>,
    /// The engine whose speed is predicted: llama.cpp, ollama or mlx.
    #[arg(long, value_name = "ENGINE", default_value = "llama.cpp")]
    engine: String,
    /// Your own devices and prices, a TOML file.
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
    /// API models to compare with, as `openai/gpt-4o` (`bench prices`); also the same open model on
    /// a hosted endpoint.
    #[arg(long, value_name = "PROVIDER/MODEL", value_delimiter = ',')]
    against: Vec<String>,
    /// Where a list has no price for prompt tokens from a cache, they cost as much as others.
    #[arg(long)]
    no_cache_discount: bool,
    /// A rented GPU to compare with, as `runpod/H100 PCIe 80GB` (`bench prices --gpus`); needs
    /// --rent-device or --rent-tok-s; `--rent-device "2x …"` pays two of them. Around the clock, or --set rent_hours_per_day=HOURS.
    #[arg(long, value_name = "PROVIDER/GPU")]
    rent: Option<String>,
    /// The rented GPU's name in the catalogue (`bench devices`), so that its speed is predicted.
    #[arg(long, value_name = "MACHINE", requires = "rent", conflicts_with = "rent_tok_s")]
    rent_device: Option<String>,
    /// Generated tokens a second of one rented GPU for this workload.
    #[arg(long, value_name = "TOK/S", requires = "rent")]
    rent_tok_s: Option<f64>,
    /// Which offer of the rented GPU, as on-demand, spot or reserved; otherwise the newest.
    #[arg(long, value_name = "WORD", requires = "rent")]
    rent_offer: Option<String>,
    /// What is paid for APIs today, in USD a month, as an alternative of its own; it grows with the
    /// use.
    #[arg(long, value_name = "USD")]
    bill: Option<rust_decimal::Decimal>,
    /// The country whose electricity tariff and carbon intensity hold.
    #[arg(long, value_name = "COUNTRY")]
    tariff: Option<String>,
    /// household, commercial … (`bench prices --electricity`).
    #[arg(long, value_name = "SECTOR", default_value = "household")]
    sector: String,
    /// An exchange rate for tariffs in another currency, as EUR=1.16.
    #[arg(long, value_name = "CODE=USD")]
    exchange: Option<String>,
    /// Sets any input, as device_usd=1999; `bench cost inputs` lists them.
    #[arg(long, value_name = "INPUT=VALUE")]
    set: Vec<String>,
    /// Gives an input another range, as device_usd=1800..2700.
    #[arg(long, value_name = "INPUT=LOW..HIGH")]
    range: Vec<String>,
    /// Devices that can be had at most; a workload that needs more cannot be served, but a part of it
    /// can with --hybrid.
    #[arg(long, value_name = "N")]
    max_devices: Option<u32>,
    /// Random draws from all ranges.
    #[arg(long, value_name = "N", default_value_t = cost::DRAWS as u32,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    draws: u32,
    /// Seeds the draws.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where `bench run` keeps its results.
    #[arg(long, value_name = "DIR", default_value = "results")]
    results: PathBuf,
    /// The form of the answer.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Debug, clap::Args)]
struct DecideArgs {
    #[command(flatten)]
    question: QuestionArgs,
    /// The machine, as `rtx-5090` or `2x rtx-5090`: its price and power come from the catalogue
    /// (`bench devices`); otherwise the scenario's.
    #[arg(long, short, value_name = "MACHINE")]
    device: Option<String>,
    /// Generated tokens a second of one machine for this workload at its SLO, all requests together;
    /// otherwise measured (the scenario's newest results), or else predicted (`bench fit`).
    #[arg(long, value_name = "TOK/S")]
    tok_s: Option<f64>,
    /// Prompt tokens a second of one machine; without it --tok-s includes the time for prompts.
    #[arg(long, value_name = "TOK/S", requires = "tok_s")]
    prompt_tok_s: Option<f64>,
    /// The number of devices, the workload and the machine of a plan: what `bench capacity
    /// --format json` wrote.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tok_s", "workload", "hybrid"])]
    capacity: Option<PathBuf>,
    #[command(flatten)]
    split: split::SplitArgs,
    /// Writes the charts into this folder, as SVG and PNG.
    #[arg(long, value_name = "DIR")]
    charts: Option<PathBuf>,
}

/// Runs `bench cost`.
///
/// # Errors
/// Input that is missing or cannot be, with what to do.
pub fn run(args: &CostArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        Some(CostCommand::Compare(args)) => ranking::run(args)?,
        Some(CostCommand::Inputs) => {
            super::prices::render(Format::Table, &claims::inputs())?;
        }
        Some(CostCommand::Claims { on, format }) => {
            claims::print(on.unwrap_or_else(|| jiff::Zoned::now().date()), *format)?;
        }
        None => decide(&args.decide)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn milliseconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(ms) if (0.001..=1e9).contains(&ms) => Ok(ms),
        _ => Err("write milliseconds from 0.001 to 1000000000".to_owned()),
    }
}

fn decide(args: &DecideArgs) -> anyhow::Result<()> {
    let format = args.question.format;
    let answer = match decision::work_out(args)? {
        decision::Outcome::Known(answer) => answer,
        decision::Outcome::Cannot { machine, workload, reason } => {
            return rows::refuse(format, &machine, &workload, &reason);
        }
    };
    answer.print(format)?;
    if let Some(folder) = &args.charts {
        fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the folder '{}'", folder.display()))?;
        for path in answer.charts(folder)? {
            eprintln!("chart: {}", path.display());
        }
    }
    Ok(())
}
