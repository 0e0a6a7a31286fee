//! `bench calibrate`: fits the constants of the speed model to published measurements and says how
//! wrong it is about devices that it has not seen.

mod loads;
pub mod own;
mod steps;
mod together;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use crate::catalog::published;
use crate::fit::calibrate::{self, Accuracy, Class, Constants, HeldOut};
use crate::fit::constants;
use crate::fit::evidence::{self, Evidence, Quantity, SetAside};
use crate::report::markdown::Markdown;
use crate::report::{Render, Report, Section, Table};
use crate::units::{Share, significant};

/// What `--check` said of measurements that may be cited and not copied: the only numbers of the
/// report that it does not make itself.
const WIDER: &str = "576 further measurements, by sources that may be cited and not copied \
    (github:XiongjieDai/GPU-Benchmarks-on-LLM-Inference @aa72e0e and \
    github:kyuz0/amd-strix-halo-toolboxes @d1a34be), had no part in the constants. Judged with \
    --check on 2026-11-21: decode of dense models, 157 rows on 13 devices: error 7.7 %, 80 % within \
    ±20 %, 75 % in their interval; of mixtures of experts, 54 rows on Strix Halo alone: 15 %, 61 %, \
    61 %; prefill, 211 rows on 13 \
    devices: 23 %, 45 %, 68 %.";

/// Flags of `bench calibrate`.
#[derive(Debug, clap::Args)]
pub struct CalibrateArgs {
    /// Judge these measurements too: a CSV file with the columns of src/catalog/published.csv. The
    /// constants stay those of the embedded measurements
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Calibrate on these results of one machine too, and judge that by those of --against: folders
    /// that `bench run` made
    #[arg(long, value_name = "DIR", value_delimiter = ',', requires = "against")]
    own: Vec<PathBuf>,
    /// Results of other cases on the same machine, which the calibration does not see
    #[arg(long, value_name = "DIR", value_delimiter = ',', requires = "own")]
    against: Vec<PathBuf>,
    /// Instead: the step times of the engines in these results, which `bench capacity` simulates with,
    /// and how well they foretell the loads beside them: folders of a scenario with a [[matrix]]
    /// that has `calibrate = true`
    #[arg(long, value_name = "DIR", value_delimiter = ',',
        conflicts_with_all = ["own", "check", "constants"])]
    steps: Vec<PathBuf>,
    /// Write the constants to this file
    #[arg(long, value_name = "FILE")]
    constants: Option<PathBuf>,
    /// Write the table of errors to this file instead of the terminal
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

/// Runs the subcommand.
pub fn run(args: &CalibrateArgs) -> anyhow::Result<ExitCode> {
    if !args.steps.is_empty() {
        return show_steps(args);
    }
    let own = if args.own.is_empty() {
        Vec::new()
    } else {
        own::sections(&own::judge(&args.own, &args.against, constants::embedded())?)
    };
    if !own.is_empty() && args.report.is_none() && args.constants.is_none() && args.check.is_none()
    {
        // The rest takes a while and is in reports/accuracy.md.
        super::show(&Report { title: String::new(), sections: own }, false)?;
        return Ok(ExitCode::SUCCESS);
    }
    let shapes = published::models()?;
    let (found, aside) = evidence::gather(&published::all()?, &shapes)?;
    let held_out = calibrate::leave_one_device_out(&found);
    let (published_loads, seen) = loads::embedded()?;
    let fitted = Constants::of(&found, &held_out, &seen);
    if let Some(path) = &args.constants {
        write(path, &constants::write(&fitted))?;
    }
    let mut report = accuracy(&found, &held_out, &aside, &flags(args));
    report.sections.extend(loads::sections(&published_loads, &seen)?);
    report.sections.extend(own);
    if let Some(path) = &args.check {
        let name = path.display().to_string();
        let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
        let (others, _) = evidence::gather(&published::read(&name, &text)?, &shapes)?;
        report.sections.push(checked(&others, &fitted));
    }
    let mut out = Vec::new();
    Markdown.render(&report, &mut out)?;
    match &args.report {
        Some(path) => write(path, &String::from_utf8(out)?)?,
        None => print!("{}", String::from_utf8(out)?),
    }
    Ok(ExitCode::SUCCESS)
}

fn show_steps(args: &CalibrateArgs) -> anyhow::Result<ExitCode> {
    let mut sections = steps::sections(&args.steps)?;
    let Some(path) = &args.report else {
        super::show(&Report { title: String::new(), sections }, false)?;
        return Ok(ExitCode::SUCCESS);
    };
    let folders = joined(&args.steps);
    let text = vec![
        "How well the simulation of bench capacity foretells real servers. Each engine was measured \
         twice: in a sweep (calibrate = true), from which its step times follow by least squares, \
         and under loads with other lengths and other arrivals, which had no part in them. The loads \
         are then simulated with the step times, and both are put side by side; a figure that misses \
         says no."
            .to_owned(),
        "A sweep and a load are minutes apart on one machine; a row whose marks name probe-drift met \
         a memory bus of another speed before than after. Below each load stands how its own steps \
         kept to the step times: where they took longer, or hung, the machine was slower than in \
         the sweep, which no simulation knows."
            .to_owned(),
    ];
    sections.insert(0, Section { text, ..Section::default() });
    sections.push(Section {
        heading: "Again".to_owned(),
        commands: vec![format!("bench calibrate --steps {folders} --report {}", path.display())],
        ..Section::default()
    });
    let mut out = Vec::new();
    let title = "Simulated servers beside measured ones".to_owned();
    Markdown.render(&Report { title, sections }, &mut out)?;
    write(path, &String::from_utf8(out)?)?;
    Ok(ExitCode::SUCCESS)
}

fn joined(paths: &[PathBuf]) -> String {
    paths.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(",")
}

/// The flags that the report rests on, as they are typed.
fn flags(args: &CalibrateArgs) -> String {
    if args.own.is_empty() {
        return String::new();
    }
    format!(" --own {} --against {}", joined(&args.own), joined(&args.against))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| path.display().to_string())
}

fn accuracy(found: &[Evidence], held_out: &[HeldOut], aside: &[SetAside], flags: &str) -> Report {
    let over = |chosen: &dyn Fn(&Evidence) -> bool| Accuracy::over(found, held_out, chosen);
    let mut all = errors_table("class");
    for class in Class::ALL {
        push(&mut all, class.name(), over(&|e| Class::of(e) == class));
    }
    for (name, quantity) in [("all decode", Quantity::Decode), ("all prefill", Quantity::Prefill)] {
        push(&mut all, name, over(&|e| e.quantity == quantity && e.streams == 1.0));
    }
    let mut devices: Vec<&str> = found.iter().map(|e| e.device.as_str()).collect();
    devices.sort_unstable();
    devices.dedup();
    let by_device = |quantity: Quantity| {
        let mut table = errors_table("device");
        for device in &devices {
            let of =
                |e: &Evidence| e.quantity == quantity && e.streams == 1.0 && e.device == **device;
            push(&mut table, device, over(&of));
        }
        table
    };
    Report {
        title: "Accuracy of predicted speeds".to_owned(),
        sections: vec![
            Section {
                heading: "Devices that were not seen".to_owned(),
                text: vec![
                    "Each device's measurements were predicted with constants fitted to all other \
                     devices. Error: the median of |predicted / measured − 1|; bias: the median of \
                     predicted / measured − 1; coverage: how many measurements lie in the interval \
                     that should hold 80 %. Several streams were measured on one device only, so \
                     their constant was fitted to nothing."
                        .to_owned(),
                    format!(
                        "Made by `bench calibrate{flags} --report reports/accuracy.md`; `cargo \
                         test` makes it again and fails where it got worse."
                    ),
                ],
                table: Some(all),
                ..Section::default()
            },
            section("Decode by device", by_device(Quantity::Decode)),
            section("Prefill by device", by_device(Quantity::Prefill)),
            reasons(aside),
            Section {
                heading: "A wider set".to_owned(),
                text: vec![WIDER.to_owned()],
                ..Section::default()
            },
        ],
    }
}

fn section(heading: &str, table: Table) -> Section {
    Section { heading: heading.to_owned(), table: Some(table), ..Section::default() }
}

/// How many measurements were not used, by reason.
fn reasons(aside: &[SetAside]) -> Section {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for a in aside {
        *counts.entry(&a.reason).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(reason, n)| (std::cmp::Reverse(*n), *reason));
    let mut table = Table::new(&["reason", ">numbers"]);
    for (reason, n) in counts {
        table.rows.push(vec![reason.to_owned(), n.to_string()]);
    }
    section("Measurements that were set aside", table)
}

/// Measurements that had no part in the constants.
fn checked(others: &[Evidence], fitted: &Constants) -> Section {
    let predicted: Vec<HeldOut> = others
        .iter()
        .enumerate()
        .map(|(index, e)| {
            let speed = e.speed(&fitted.theta);
            let speed = e.ceiling.map_or(speed, |c| speed.min(c));
            let (low, high) = fitted.spreads[&Class::of(e)].around(speed, e.ceiling);
            HeldOut { index, predicted: speed, low, high }
        })
        .collect();
    let mut table = errors_table("class");
    for class in Class::ALL {
        push(
            &mut table,
            class.name(),
            Accuracy::over(others, &predicted, |e| Class::of(e) == class),
        );
    }
    section("Measurements given with --check", table)
}

fn errors_table(first: &str) -> Table {
    Table::new(&[first, ">rows", ">devices", ">error", ">within 20 %", ">bias", ">coverage"])
}

fn push(table: &mut Table, name: &str, accuracy: Option<Accuracy>) {
    let Some(a) = accuracy else { return };
    let percent = |part: f64| Share(part).to_string();
    table.rows.push(vec![
        name.to_owned(),
        a.rows.to_string(),
        a.devices.to_string(),
        percent(a.median_error),
        percent(a.within_20),
        format!("{} %", significant(a.bias * 100.0, 2)),
        percent(a.coverage),
    ]);
}
