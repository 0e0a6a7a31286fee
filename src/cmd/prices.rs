//! `bench prices`: lists and searches the price list and the tariffs, with their age; takes a user's own.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use jiff::civil::Date;

use crate::catalog::cloud_prices::{self, Kind, Listing, PriceList};
use crate::catalog::electricity::{self, Quality};
use crate::report::markdown::Markdown;
use crate::report::terminal::Terminal;
use crate::report::{Render, Report, Section, Table};
use crate::units::{Share, or_absent};

use super::run::Format;

/// Names a file with the user's own prices instead of the one in the configuration folder.
const OWN_LIST: &str = "BENCH_PRICES";

/// Flags of `bench prices`.
#[derive(Debug, clap::Args)]
pub struct PricesArgs {
    /// List only what contains these words: a provider, a model, a GPU, a country.
    search: Vec<String>,
    /// List rented GPUs.
    #[arg(long, conflicts_with = "electricity")]
    gpus: bool,
    /// List electricity tariffs and carbon intensities.
    #[arg(long)]
    electricity: bool,
    /// List only prices that are older than so many days, or have no date.
    #[arg(long, value_name = "DAYS")]
    older_than: Option<u32>,
    /// Check a price list of your own (the columns of --format csv) and use it from now on, before
    /// the one that comes with the program.
    #[arg(long, value_name = "FILE", exclusive = true)]
    update: Option<PathBuf>,
    /// The form of the list.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// Runs `bench prices`.
///
/// # Errors
/// A price list that cannot be read or is wrong, with file, line and remedy.
pub fn run(args: &PricesArgs) -> anyhow::Result<ExitCode> {
    let today = jiff::Zoned::now().date();
    if let Some(file) = &args.update {
        update(file)?;
    } else if args.electricity {
        tariffs(args)?;
    } else {
        listings(args, today)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The price list with the user's own prices before it.
///
/// # Errors
/// An own list that is wrong.
pub fn list() -> anyhow::Result<PriceList> {
    let path = own_list()?;
    if !path.exists() {
        anyhow::ensure!(
            env::var_os(OWN_LIST).is_none(),
            "{OWN_LIST} names '{}', which is not there",
            path.display()
        );
        return Ok(cloud_prices::embedded().clone());
    }
    Ok(cloud_prices::embedded().with_own(read(&path)?))
}

fn own_list() -> anyhow::Result<PathBuf> {
    if let Some(path) = env::var_os(OWN_LIST) {
        return Ok(path.into());
    }
    let folders = directories::ProjectDirs::from("", "", "bench")
        .with_context(|| format!("no folder for configuration is known: set {OWN_LIST}"))?;
    Ok(folders.config_dir().join("cloud_prices.csv"))
}

fn read(path: &Path) -> anyhow::Result<Vec<Listing>> {
    let shown = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("cannot read '{shown}'"))?;
    cloud_prices::parse(&text, &shown.to_string())
}

fn update(file: &Path) -> anyhow::Result<()> {
    let count = read(file)?.len();
    let own = own_list()?;
    let folder = own.parent().unwrap_or(Path::new("."));
    let keep = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut whole = tempfile::NamedTempFile::new_in(folder)?;
        whole.write_all(&fs::read(file)?)?;
        whole.persist(&own)?;
        Ok(())
    };
    keep().with_context(|| format!("cannot write '{}'", own.display()))?;
    println!("{count} prices of your own are used from now on: {}", own.display());
    Ok(())
}

fn is_found(words: &[String], texts: &[&str]) -> bool {
    let all = texts.join(" ").to_lowercase();
    words.iter().all(|word| all.contains(&word.to_lowercase()))
}

fn listings(args: &PricesArgs, today: Date) -> anyhow::Result<()> {
    let prices = list()?;
    let found: Vec<(usize, &Listing)> = prices
        .listings
        .iter()
        .enumerate()
        .filter(|(_, l)| if args.gpus { l.kind == Kind::GpuRental } else { l.kind == Kind::Api })
        .filter(|(_, l)| is_found(&args.search, &[&l.key(), &l.provisioning, &l.tier]))
        .filter(|(_, l)| {
            args.older_than.is_none_or(|days| {
                l.as_of.age_days(today).is_none_or(|age| i64::from(age) > i64::from(days))
            })
        })
        .collect();
    anyhow::ensure!(
        !found.is_empty(),
        "no price of '{}': search for a part of a name, or add yours with --update FILE",
        args.search.join(" ")
    );
    match args.format {
        Format::Table | Format::Markdown => {
            let report = price_table(&prices, &found, args.gpus, today);
            render(args.format, &report)
        }
        Format::Csv => {
            let mut out = csv::Writer::from_writer(io::stdout().lock());
            out.write_record(cloud_prices::COLUMNS)?;
            for (_, listing) in found {
                out.write_record(listing.cells())?;
            }
            out.flush()?;
            Ok(())
        }
        Format::Json => {
            let rows: Vec<serde_json::Map<_, _>> = found
                .iter()
                .map(|(_, listing)| {
                    cloud_prices::COLUMNS
                        .iter()
                        .zip(listing.cells())
                        .filter(|(_, cell)| !cell.is_empty())
                        .map(|(name, cell)| ((*name).to_owned(), cell.into()))
                        .collect()
                })
                .collect();
            let mut out = io::stdout().lock();
            serde_json::to_writer_pretty(&mut out, &rows)?;
            writeln!(out)?;
            Ok(())
        }
    }
}

fn price_table(prices: &PriceList, found: &[(usize, &Listing)], gpus: bool, today: Date) -> Report {
    let mut table = if gpus {
        Table::new(&["provider/GPU", ">rent", "how", "seen"])
    } else {
        Table::new(&["provider/model", ">input", ">cached", ">output", ">batch", "holds", "seen"])
    };
    for &(index, l) in found {
        let own = if prices.is_own(index) { "yours, " } else { "" };
        let seen = format!("{own}{}", l.as_of.marked(today));
        table.rows.push(if gpus {
            vec![l.key(), or_absent(l.gpu_hour), l.provisioning.clone(), seen]
        } else {
            let batch = l.batch_discount.map(|discount| {
                Share(-rust_decimal::prelude::ToPrimitive::to_f64(&discount).unwrap_or(f64::NAN))
            });
            let (input, cached) = (or_absent(l.input), or_absent(l.cached));
            vec![
                l.key(),
                input,
                cached,
                or_absent(l.output),
                or_absent(batch),
                l.tier.clone(),
                seen,
            ]
        });
    }
    let stale = found
        .iter()
        .filter(|(_, l)| l.as_of.age_days(today).is_none_or(|age| age > cloud_prices::STALE_DAYS))
        .count();
    let notes = vec![
        format!(
            "{} prices; {stale} of them are older than {} days or have no date.",
            found.len(),
            cloud_prices::STALE_DAYS
        ),
        "Every row's source: --format csv. Where several rows hold, `bench cost` takes your own, \
         then the newest."
            .to_owned(),
    ];
    let section = Section { table: Some(table), notes, ..Section::default() };
    Report { title: String::new(), sections: vec![section] }
}

fn tariffs(args: &PricesArgs) -> anyhow::Result<()> {
    let mut table = Table::new(&[
        "code", "country", "sector", ">tariff", ">CO2", "period", "quality", "source",
    ]);
    for t in electricity::tariffs() {
        if !is_found(&args.search, &[&t.code, &t.country, &t.sector]) {
            continue;
        }
        let price = t.usd.map(|usd| usd.to_string()).or(t.local.as_ref().map(ToString::to_string));
        let carbon: Vec<String> = if t.code.is_empty() {
            vec![]
        } else {
            let both = electricity::carbon(&t.code);
            both.iter().map(|c| crate::units::significant(c.g_per_kwh, 3)).collect()
        };
        let quality = match t.quality {
            Quality::Good => "good",
            Quality::Fair => "fair",
            Quality::Weak => "weak",
        };
        table.rows.push(vec![
            t.code.clone(),
            t.country.clone(),
            t.sector.clone(),
            or_absent(price),
            if carbon.is_empty() { or_absent::<f64>(None) } else { carbon.join(" / ") },
            t.period.clone(),
            quality.to_owned(),
            t.source.clone(),
        ]);
    }
    anyhow::ensure!(
        !table.rows.is_empty(),
        "no tariff of '{}': search for a country or its code",
        args.search.join(" ")
    );
    match args.format {
        Format::Table | Format::Markdown => {
            let notes = vec![
                "CO2 in g/kWh: Electricity Maps 2025 (ODbL 1.0) / Ember 2024 (CC BY-SA 4.0)."
                    .to_owned(),
            ];
            let section = Section { table: Some(table), notes, ..Section::default() };
            render(args.format, &Report { title: String::new(), sections: vec![section] })
        }
        Format::Csv => {
            let mut out = csv::Writer::from_writer(io::stdout().lock());
            out.write_record(table.columns.iter().map(|column| &column.name))?;
            for row in &table.rows {
                out.write_record(row)?;
            }
            out.flush()?;
            Ok(())
        }
        Format::Json => {
            let rows: Vec<serde_json::Map<_, _>> = table
                .rows
                .iter()
                .map(|row| {
                    let names = table.columns.iter().map(|column| column.name.clone());
                    names.zip(row.iter().map(|cell| cell.text.clone().into())).collect()
                })
                .collect();
            let mut out = io::stdout().lock();
            serde_json::to_writer_pretty(&mut out, &rows)?;
            writeln!(out)?;
            Ok(())
        }
    }
}

/// Prints a report as text.
pub(super) fn render(format: Format, report: &Report) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Markdown => Markdown.render(report, &mut out)?,
        _ => Terminal::default().render(report, &mut out)?,
    }
    out.flush()?;
    Ok(())
}
