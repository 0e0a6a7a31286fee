//! `bench cost compare`: which of several devices serves a workload for the least.

use std::io::{self, Write};

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::catalog::hardware;
use crate::cmd::run::Format;
use crate::cost::{Assumption, BreakEven, Input, compare};
use crate::fit::machine::Machine;
use crate::report::{Report, Section, Table};
use crate::units::{ABSENT, UsdPerMtok, or_absent};

use super::QuestionArgs;
use super::answer::{plain, too_many};
use super::context::Context;
use super::flags;
use super::settle::{Foundation, Settled, settle};

/// Flags of `bench cost compare`.
#[derive(Debug, clap::Args)]
pub struct CompareArgs {
    #[command(flatten)]
    question: QuestionArgs,
    /// The machines, as `rtx-5090,2x rtx-5090,dgx-spark-gb10=313`: with the generated tokens a second
    /// that one makes for this workload at its SLO, or else as predicted; `all` are those with a
    /// price.
    #[arg(long, short, value_name = "MACHINE[=TOK/S]", value_delimiter = ',', required = true)]
    devices: Vec<String>,
}

struct Ranked {
    device: String,
    found: Result<Found, String>,
}

struct Found {
    comparison: crate::cost::Comparison,
    against: Vec<(String, crate::cost::Comparison)>,
    price_source: String,
    /// Generated tokens a second of one machine, and who says so.
    speed: Assumption,
}

pub fn run(args: &CompareArgs) -> anyhow::Result<()> {
    let context = Context::of(&args.question)?;
    // A price that is missing is missing for every machine.
    let mut workload = context.common(&args.question)?;
    flags::set(&mut workload, &args.question)?;
    for named in context.alternatives(&args.question, &workload, None)? {
        named.priced(workload.inputs())?;
    }
    let mut ranked = Vec::new();
    for word in words(&args.devices, &context)? {
        let (device, speed) = word.split_once('=').unwrap_or((&word, ""));
        // An unknown device is wrong input; one that we know too little about is a row.
        let machine = Machine::parse(device, &context.own)?;
        let stated = if speed.is_empty() {
            None
        } else {
            let tok_s: f64 = speed
                .parse()
                .ok()
                .with_context(|| format!("'{speed}' is no speed: write {device}=TOK/S"))?;
            Some((tok_s, None))
        };
        let found = work_out(&context, &args.question, &machine, stated);
        ranked.push(Ranked {
            device: machine.name,
            found: found.map_err(|error| format!("{error:#}")),
        });
    }
    ranked.sort_by(|a, b| match (&a.found, &b.found) {
        (Ok(a), Ok(b)) => a.comparison.owning.total().cmp(&b.comparison.owning.total()),
        (a, b) => a.is_err().cmp(&b.is_err()),
    });
    print(args.question.format, &context, &ranked)
}

/// The machines, with `all` in full but for those that are named beside it.
fn words(devices: &[String], context: &Context) -> anyhow::Result<Vec<String>> {
    let (all, mut words): (Vec<String>, Vec<String>) =
        devices.iter().cloned().partition(|word| word == "all");
    if all.is_empty() {
        return Ok(words);
    }
    let mut named = Vec::new();
    for word in &words {
        let device = word.split_once('=').map_or(word.as_str(), |(device, _)| device);
        named.push(Machine::parse(device, &context.own)?.name);
    }
    let priced = hardware::priced(&context.own).map(|device| device.id.clone());
    words.extend(priced.filter(|id| !named.contains(id)));
    Ok(words)
}

fn work_out(
    context: &Context,
    args: &QuestionArgs,
    machine: &Machine,
    stated: Option<(f64, Option<f64>)>,
) -> anyhow::Result<Found> {
    let Foundation { assumptions, cannot, .. } =
        match settle(context, args, Some(machine), true, stated)? {
            Settled::Known(foundation) => foundation,
            Settled::Cannot(reason) => bail!(reason),
        };
    let inputs = assumptions.inputs();
    let comparison = compare(&inputs)?;
    if let Some(reason) = cannot.or_else(|| too_many(&comparison, args.max_devices)) {
        bail!(reason);
    }
    let mut against = Vec::new();
    for named in context.alternatives(args, &assumptions, Some(machine))? {
        let compared = compare(&named.priced(inputs)?)?;
        against.push((named.name, compared));
    }
    let price = assumptions.get(Input::device_usd);
    let speed = assumptions.get(Input::output_tok_s).context("a machine without a speed")?.clone();
    Ok(Found {
        comparison,
        against,
        price_source: price.map_or(String::new(), |row| row.source.clone()),
        speed,
    })
}

fn print(format: Format, context: &Context, ranked: &[Ranked]) -> anyhow::Result<()> {
    let rival = |found: &Found| {
        found.against.iter().min_by_key(|(_, c)| c.cloud_per_month).map(|(name, c)| {
            let when = match &c.break_even {
                BreakEven::After(months) => months.to_string(),
                BreakEven::Never(_) => "never".to_owned(),
            };
            (name.clone(), c.cloud_per_month, when)
        })
    };
    match format {
        Format::Table | Format::Markdown => {
            let mut table = Table::new(&[
                "#",
                "device",
                ">tok/s",
                ">needed",
                ">purchase",
                ">a month",
                ">per Mtok",
                ">in use",
                "cheapest rival",
                ">break-even",
            ]);
            let mut notes = Vec::new();
            for (place, row) in ranked.iter().enumerate() {
                match &row.found {
                    Ok(found) => {
                        let c = &found.comparison;
                        let price = c.owning_per_mtok.blended.map(UsdPerMtok::rounded);
                        let (name, when) = rival(found)
                            .map_or((ABSENT.to_owned(), ABSENT.to_owned()), |(name, usd, when)| {
                                (format!("{name} {usd}"), when)
                            });
                        table.rows.push(vec![
                            (place + 1).to_string(),
                            row.device.clone(),
                            format!("{} {}", plain(found.speed.likely), found.speed.basis),
                            c.devices.to_string(),
                            c.purchase.to_string(),
                            c.owning.total().to_string(),
                            or_absent(price),
                            c.utilisation.to_string(),
                            name,
                            when,
                        ]);
                        notes.push(format!(
                            "{}: {}; {}",
                            row.device, found.price_source, found.speed.source
                        ));
                    }
                    Err(reason) => {
                        let mut cells = vec![ABSENT.to_owned(); 10];
                        cells[1].clone_from(&row.device);
                        table.rows.push(cells);
                        notes.push(format!("{}: not ranked: {reason}", row.device));
                    }
                }
            }
            let section = Section { table: Some(table), notes, ..Section::default() };
            let title = format!("Devices for {}, the cheapest first", context.workload);
            crate::cmd::prices::render(format, &Report { title, sections: vec![section] })
        }
        Format::Csv => {
            let mut out = csv::Writer::from_writer(io::stdout().lock());
            out.write_record([
                "rank",
                "device",
                "tok_s",
                "tok_s_basis",
                "devices",
                "purchase_usd",
                "owning_usd_per_month",
                "owning_usd_per_mtok",
                "utilisation",
                "cheapest_rival",
                "rival_usd_per_month",
                "not_ranked",
            ])?;
            for (place, row) in ranked.iter().enumerate() {
                let cells = match &row.found {
                    Ok(found) => {
                        let c = &found.comparison;
                        let price = c.owning_per_mtok.blended;
                        let best = rival(found);
                        vec![
                            (place + 1).to_string(),
                            row.device.clone(),
                            found.speed.likely.to_string(),
                            found.speed.basis.to_string(),
                            c.devices.to_string(),
                            c.purchase.0.to_string(),
                            c.owning.total().0.round_dp(6).to_string(),
                            price.map_or(String::new(), |p| p.0.round_dp(6).to_string()),
                            c.utilisation.0.to_string(),
                            best.as_ref().map_or(String::new(), |(name, ..)| name.clone()),
                            best.map_or(String::new(), |(_, usd, _)| usd.0.round_dp(6).to_string()),
                            String::new(),
                        ]
                    }
                    Err(reason) => {
                        let mut cells = vec![String::new(); 12];
                        cells[1].clone_from(&row.device);
                        cells[11].clone_from(reason);
                        cells
                    }
                };
                out.write_record(cells)?;
            }
            out.flush()?;
            Ok(())
        }
        Format::Json => {
            let rows: Vec<_> = ranked
                .iter()
                .map(|row| match &row.found {
                    Ok(found) => json!({
                        "device": row.device, "comparison": found.comparison,
                        "price_source": found.price_source, "tok_s": found.speed.likely,
                        "tok_s_basis": found.speed.basis, "tok_s_source": found.speed.source,
                        "against": found.against.iter().map(|(name, c)| {
                            json!({"name": name, "comparison": c})
                        }).collect::<Vec<_>>(),
                    }),
                    Err(reason) => json!({"device": row.device, "not_ranked": reason}),
                })
                .collect();
            let mut out = io::stdout().lock();
            serde_json::to_writer_pretty(&mut out, &rows)?;
            writeln!(out)?;
            Ok(())
        }
    }
}
