//! `bench recommend`: which devices within a budget run which models fast enough.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::ensure;
use clap::ValueEnum;

use crate::catalog::hardware::{self, Device};
use crate::catalog::models::{self, Arch, ModelSpec};
use crate::fit::answer::{Candidate, Pairing, Question, Verdict};
use crate::fit::constants;
use crate::fit::machine::Machine;
use crate::fit::memory::{Layout, Plan};
use crate::fit::packed::Packed;
use crate::fit::site::Site;
use crate::model::arch;
use crate::model::quant::Quant;
use crate::report::markdown::Markdown;
use crate::report::terminal::Terminal;
use crate::report::{Render, Report, Section, Table};
use crate::units::{Tokens, grouped, significant};

/// Flags of `bench recommend`.
#[derive(Debug, clap::Args)]
pub struct RecommendArgs {
    /// Dollars for the device (the computer around a card not counted)
    #[arg(long, value_name = "USD")]
    budget: f64,
    /// What for: sets the context and the least speed
    #[arg(long = "use", value_enum, default_value_t = Purpose::Chat)]
    purpose: Purpose,
    /// The least speed of generation for each user, instead of the purpose's
    #[arg(long, value_name = "TOK/S")]
    min_tok_s: Option<f64>,
    /// Users at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    users: u32,
    /// How many devices to show
    #[arg(long, value_name = "N", default_value_t = 15)]
    top: usize,
    /// Your own devices, models and prices, a TOML file (README.md)
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
    /// Write Markdown
    #[arg(long)]
    markdown: bool,
}

/// What a model is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Purpose {
    /// 8,192 tokens, 10 tok/s: a little faster than people read.
    Chat,
    /// 32,768 tokens, 25 tok/s: files and tool calls, where people wait for the whole answer.
    Coding,
    /// 131,072 tokens, 5 tok/s.
    Documents,
}

impl Purpose {
    fn needs(self) -> (Tokens, f64) {
        match self {
            Self::Chat => (Tokens(8192), 10.0),
            Self::Coding => (Tokens(32_768), 25.0),
            Self::Documents => (Tokens(131_072), 5.0),
        }
    }
}

struct Found {
    machine: String,
    usd: f64,
    as_of: String,
    running: usize,
    largest: String,
    parameters: u64,
    decode: f64,
    decode_low: f64,
}

/// Runs the subcommand.
pub fn run(args: &RecommendArgs) -> anyhow::Result<ExitCode> {
    ensure!(args.budget > 0.0, "a budget of {} buys nothing; give dollars", args.budget);
    let own = super::own::catalog(args.catalog.as_deref())?;
    let (context, usual) = args.purpose.needs();
    let least = args.min_tok_s.unwrap_or(usual);
    let layout = Layout { slots: args.users, slot_tokens: context, ..Layout::default() };
    let question = Question::new(layout, "llama.cpp");
    let specs = models::all_with(&own.models);
    let prepared: Vec<(&ModelSpec, Packed, Plan)> =
        specs.filter_map(|spec| prepare(spec, &layout)).collect();
    let mut found = Vec::new();
    let known = hardware::all().iter().filter(|d| own.devices.iter().all(|o| o.id != d.id));
    for device in own.devices.iter().chain(known) {
        let Some((usd, as_of)) = price(device) else { continue };
        for count in [1, 2] {
            if usd * f64::from(count) > args.budget {
                continue;
            }
            let name =
                if count == 1 { device.id.clone() } else { format!("{count}x {}", device.id) };
            // Only cards can be combined.
            let Ok(machine) = Machine::parse(&name, &own.devices) else { continue };
            let site = Site::new(&machine, &question, constants::embedded());
            let mut best: Option<Found> = None;
            let mut running = 0;
            for (spec, packed, plan) in &prepared {
                if spec.context_max < context.0 {
                    continue;
                }
                let (weights, work) = (&packed.weights, &packed.work);
                let candidate = Candidate { spec, weights, plan, work };
                let answer = Pairing::new(&candidate, &site, &layout).at(context);
                let Some(decode) = answer.decode_each(args.users) else { continue };
                if answer.verdict != Verdict::Fits || decode.value.0 < least {
                    continue;
                }
                running += 1;
                let parameters = spec.params_total.unwrap_or_else(|| weights_of(spec));
                if best.as_ref().is_none_or(|b| parameters > b.parameters) {
                    best = Some(Found {
                        machine: name.clone(),
                        usd: usd * f64::from(count),
                        as_of: as_of.clone(),
                        running: 0,
                        largest: spec.id.clone(),
                        parameters,
                        decode: decode.value.0,
                        decode_low: decode.low.0,
                    });
                }
            }
            found.extend(best.map(|b| Found { running, ..b }));
        }
    }
    found.sort_by(|a, b| {
        b.parameters.cmp(&a.parameters).then(b.decode_low.total_cmp(&a.decode_low))
    });
    found.truncate(args.top);
    print(&found, args, context, least)?;
    Ok(ExitCode::SUCCESS)
}

fn prepare<'a>(spec: &'a ModelSpec, layout: &Layout) -> Option<(&'a ModelSpec, Packed, Plan)> {
    let quant = if spec.arch == Arch::GptOss { Quant::Mxfp4 } else { Quant::Q4KM };
    Some((spec, Packed::of(spec, quant).ok()?, Plan::new(spec, layout)))
}

/// The parameters of a model whose number nobody published.
fn weights_of(spec: &ModelSpec) -> u64 {
    arch::parameters(spec).unwrap_or(0)
}

fn price(device: &Device) -> Option<(f64, String)> {
    let price = device.street_price.as_ref().or(device.list_price.as_ref())?;
    Some((price.usd.parse().ok()?, price.as_of.clone()))
}

fn print(found: &[Found], args: &RecommendArgs, context: Tokens, least: f64) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        "device",
        ">price",
        "as of",
        ">models",
        "largest model",
        ">tok/s each",
        ">tok/s each at least",
    ]);
    for f in found {
        table.rows.push(vec![
            f.machine.clone(),
            format!("${}", grouped(f.usd.round() as u64)),
            f.as_of.clone(),
            f.running.to_string(),
            f.largest.clone(),
            significant(f.decode, 3),
            significant(f.decode_low, 3),
        ]);
    }
    let notes = vec![
        format!(
            "models: how many of the catalogue fit completely at Q4_K_M (gpt-oss: MXFP4) with \
             {context} tokens for each of {} users and generate at least {} tok/s each; predicted",
            args.users,
            significant(least, 2)
        ),
        "ordered by the parameters of the largest of them, then by its speed: the catalogue holds no \
         measure of how good a model's answers are"
            .to_owned(),
        "prices as of their dates: hardware prices moved by up to two times within a year".to_owned(),
    ];
    let title = format!("Within ${}", grouped(args.budget.round() as u64));
    let section = Section { table: Some(table), notes, ..Section::default() };
    let report = Report { title, sections: vec![section] };
    let out = &mut std::io::stdout().lock();
    if args.markdown {
        Markdown.render(&report, out)?;
    } else {
        Terminal::default().render(&report, out)?;
    }
    Ok(())
}
