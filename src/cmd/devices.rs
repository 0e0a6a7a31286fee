//! `bench devices`: the catalogue of devices.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::catalog::hardware::{self, Device, Kind};
use crate::report::{Report, Section, Table};
use crate::units;

/// Flags of `bench devices`.
#[derive(Debug, clap::Args)]
pub struct DevicesArgs {
    /// Only devices whose id, name or maker contains this
    word: Option<String>,
    /// Show sources, dates and conflicts too
    #[arg(long)]
    sources: bool,
    /// Your own devices, models and prices too, a TOML file (README.md)
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
    /// Write Markdown
    #[arg(long)]
    markdown: bool,
}

/// Runs the subcommand.
pub fn run(args: &DevicesArgs) -> anyhow::Result<ExitCode> {
    let word = args.word.as_deref().unwrap_or_default().to_lowercase();
    let matches = |d: &&Device| {
        [&d.id, &d.name, &d.vendor].into_iter().any(|text| text.to_lowercase().contains(&word))
    };
    let own = super::own::catalog(args.catalog.as_deref())?.devices;
    let known = hardware::all().iter().filter(|d| own.iter().all(|o| o.id != d.id));
    let devices: Vec<&Device> = own.iter().chain(known).filter(matches).collect();
    if devices.is_empty() {
        // The same words as for any unknown device, with the nearest names.
        hardware::find(&word, &own)?;
    }
    let mut columns =
        vec!["id", "name", "kind", ">memory", ">usable", ">bandwidth", ">FP16", ">power", ">price"];
    if args.sources {
        columns.extend(["source", "notes"]);
    }
    let mut table = Table::new(&columns);
    for device in devices {
        let kind = match device.kind {
            Kind::Gpu => "card",
            Kind::Unified => "shared",
            Kind::Cpu => "CPU",
        };
        let price = device.street_price.as_ref().or(device.list_price.as_ref());
        let mut row = vec![
            device.id.clone(),
            device.name.clone(),
            kind.to_owned(),
            units::or_absent(device.memory),
            units::or_absent(device.usable().map(|(bytes, _)| bytes)),
            units::or_absent(device.bandwidth),
            units::or_absent(device.fp16),
            units::or_absent(device.power),
            price.map_or_else(|| units::ABSENT.to_owned(), |p| format!("${} ({})", p.usd, p.as_of)),
        ];
        if args.sources {
            row.extend([device.source.clone(), device.notes.clone()]);
        }
        table.rows.push(row);
    }
    let section = Section { table: Some(table), ..Section::default() };
    let report = Report { title: String::new(), sections: vec![section] };
    super::show(&report, args.markdown)?;
    Ok(ExitCode::SUCCESS)
}
