//! `bench capacity`: how many machines serve so many users in time, with what headroom, for how
//! much.

mod answer;
mod asked;
mod charts;
mod engines;
mod measured;
mod rows;
mod work;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clap::Parser;

use crate::capacity::{Objective, Routing};
use crate::catalog::electricity::ExchangeRate;
use crate::cmd::cost::{Prices, machine_of};
use crate::report::{Report, Section};
use crate::scenario::Scenario;

use super::run::Format;
use answer::Answer;
use asked::Asked;
use work::Question;

/// Flags of `bench capacity`.
#[derive(Debug, clap::Args)]
pub struct CapacityArgs {
    #[command(flatten)]
    asked: asked::AskedArgs,
    #[command(flatten)]
    engines: engines::EngineArgs,
    /// Machines that are there already, as `rtx-4090,rtx-3090`: those that are counted work beside
    /// them
    #[arg(long, value_name = "MACHINE", value_delimiter = ',')]
    beside: Vec<String>,
    /// So many devices, instead of searching how many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: Option<u32>,
    /// The most devices that are tried
    #[arg(long, value_name = "N", default_value_t = 64, conflicts_with = "count",
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    most: u32,
    /// How requests are shared out among devices: sticky for conversations, else least-loaded,
    /// where it is left out
    #[arg(long, value_enum)]
    routing: Option<RoutingName>,
    /// Also: twice the load, prompts twice as long
    #[arg(long)]
    what_if: bool,
    /// The country whose electricity tariff holds
    #[arg(long, value_name = "COUNTRY")]
    tariff: Option<String>,
    /// household, commercial … (`bench prices --electricity`)
    #[arg(long, value_name = "SECTOR", default_value = "household")]
    sector: String,
    /// An exchange rate for tariffs in another currency, as EUR=1.16
    #[arg(long, value_name = "RATE")]
    exchange: Option<String>,
    /// Seeds arrivals and lengths: the scenario's, or 1
    #[arg(long)]
    seed: Option<u64>,
    /// Threads that simulate; the answer is the same with any number
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Writes the charts into this folder, as SVG and PNG
    #[arg(long, value_name = "DIR")]
    charts: Option<PathBuf>,
    /// The form of the answer; JSON is a plan that `bench cost --capacity` takes
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// How requests are shared out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum RoutingName {
    /// One after the other.
    RoundRobin,
    /// To the one with the fewest requests.
    LeastLoaded,
    /// A conversation stays where it began, with its cache.
    Sticky,
}

/// Runs `bench capacity`.
///
/// # Errors
/// Input that is missing or cannot be, with what to do.
pub fn run(args: &CapacityArgs) -> anyhow::Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).map(quoted).collect();
    let command = format!("bench {}", words.join(" "));
    work_out(args, &command, |answer| {
        let mut out = io::stdout().lock();
        match args.format {
            Format::Table | Format::Markdown => {
                drop(out);
                super::prices::render(args.format, &answer.report())?;
            }
            Format::Csv => answer.csv(&mut out)?,
            Format::Json => {
                serde_json::to_writer_pretty(&mut out, &answer.json())?;
                writeln!(out)?;
            }
        }
        if let Some(folder) = &args.charts {
            for path in answer.report().write_charts(folder)? {
                eprintln!("chart: {}", path.display());
            }
        }
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A word as it is typed again: in quotes where a shell would read it otherwise.
fn quoted(word: String) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./=,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word;
    }
    // A word with a NUL cannot have come from a command line.
    shlex::try_quote(&word).unwrap_or_default().into_owned()
}

/// The flags of `bench capacity` as words.
#[derive(Debug, clap::Parser)]
#[command(name = "bench capacity", no_binary_name = true)]
struct Words {
    #[command(flatten)]
    args: CapacityArgs,
}

/// What `bench capacity` says to its arguments, for a report.
///
/// # Errors
/// Words that `bench capacity` would refuse, and what it would say of them.
pub fn sections(arguments: &str) -> anyhow::Result<Vec<Section>> {
    let words = shlex::split(arguments).context("a quote that does not end")?;
    let words = Words::try_parse_from(words)?;
    work_out(&words.args, &format!("bench capacity {arguments}"), |answer| {
        let Report { title, mut sections } = answer.report();
        for section in sections.iter_mut().skip(1) {
            section.is_part = true;
        }
        if let Some(first) = sections.first_mut() {
            first.heading = title;
        }
        Ok(sections)
    })
}

fn work_out<T>(
    args: &CapacityArgs,
    command: &str,
    then: impl FnOnce(&Answer<'_>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let scenario = args.asked.scenario.as_ref();
    let scenario = scenario.map(|path| Scenario::read(path, &super::known())).transpose()?;
    let asked = Asked::of(&args.asked, scenario.as_ref())?;
    let engines = args.engines.with(scenario.as_ref())?;
    let mix = &asked.demand.mix;
    let choice = engines::choose(&engines, mix)?;
    let mut beside = Vec::new();
    if !args.beside.is_empty() {
        ensure!(
            engines.results.is_empty(),
            "--beside is predicted and --results are measured; leave one of them out"
        );
        let there = engines::EngineArgs { device: args.beside.clone(), ..engines.clone() };
        let there = engines::choose(&there, mix)?;
        if let Some((name, reason)) = there.left_out.first() {
            anyhow::bail!("--beside {name}: {reason}");
        }
        for machinery in there.machines {
            // As many slots as llama-server would be given for itself: the most that fit.
            beside.extend(machinery.options.last().cloned());
        }
    }
    let threads = args
        .threads
        .map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from);
    let objective = Objective {
        limits: asked.limits,
        attainment: asked.attainment,
        routing: match args.routing {
            Some(RoutingName::RoundRobin) => Routing::RoundRobin,
            Some(RoutingName::LeastLoaded) => Routing::LeastLoaded,
            Some(RoutingName::Sticky) => Routing::Sticky,
            None if asked.demand.mix.turns > 1 => Routing::Sticky,
            None => Routing::LeastLoaded,
        },
        beside,
        most: args.most,
        seed: args.seed.or(scenario.as_ref().map(|scenario| scenario.seed)).unwrap_or(1),
    };
    let own = super::own::catalog(engines.catalog.as_deref())?.devices;
    let its = scenario.as_ref().map(|scenario| machine_of(scenario, &own)).transpose()?.flatten();
    let question = Question {
        asked: &asked,
        objective,
        count: args.count,
        what_if: args.what_if,
        threads,
        prices: Prices {
            today: jiff::Zoned::now().date(),
            scenario: scenario.as_ref(),
            its_devices: its.map(|machine| machine.devices),
            tariff: args.tariff.as_deref(),
            sector: &args.sector,
            exchange: args.exchange.as_deref().map(ExchangeRate::parse).transpose()?,
        },
        command: command.to_owned(),
    };
    let offers = work::offers(&question, choice.machines)?;
    let detail = match offers.first() {
        Some(offer) if !matches!(offer.size, crate::capacity::Size::Never(_)) => {
            Some(work::detail(&question, offer)?)
        }
        _ => None,
    };
    then(&Answer {
        question: &question,
        offers,
        left_out: choice.left_out,
        detail,
        model: format!("{} {}", choice.model, choice.quant),
    })
}
