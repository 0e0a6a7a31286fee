//! `bench run`: measures the cases of a scenario.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ValueEnum;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cases;
use crate::host::{self, Host};
use crate::model::cache;
use crate::record::{Folder, Outcome, Record};
use crate::report::markdown::Markdown;
use crate::report::terminal::Terminal;
use crate::report::{Render, results, spreadsheet};
use crate::run::measure::Step;
use crate::run::{self, Conditions, Progress};
use crate::scenario::{FoundGpu, FoundHost, Scenario};
use crate::units::Bytes;

use super::dry_run;

/// Flags of `bench run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {
    /// The scenario: a TOML file (scenarios/README.md documents every key).
    scenario: PathBuf,
    /// List the cases with the memory and the time that they are expected to need; measure nothing.
    #[arg(long)]
    dry_run: bool,
    /// Go on in the newest results of this scenario on this machine; measure nothing twice.
    #[arg(long)]
    resume: bool,
    /// Measure although this is not the machine that the scenario is meant for. The results carry
    /// this machine's name.
    #[arg(long)]
    anyway: bool,
    /// Measure only the cases whose id contains this text; may be given several times.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// The folder that result folders are made in.
    #[arg(long, value_name = "DIR", default_value = "results")]
    out: PathBuf,
    /// How the rows are printed at the end.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// A name for this machine in the results, instead of a label made from its hardware.
    #[arg(long, value_name = "NAME")]
    host_name: Option<String>,
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a person at a terminal.
    Table,
    /// One array of objects.
    Json,
    /// Comma-separated values, with units in the columns' names.
    Csv,
    /// For a document.
    Markdown,
}

/// Runs the subcommand.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    crate::runner::child::end_with_signals();
    let scenario = Scenario::read(&args.scenario, &super::known())?;
    let mut cases = cases::expand(&scenario)?;
    if !args.only.is_empty() {
        cases.retain(|case| args.only.iter().any(|text| case.id.0.contains(text.as_str())));
        if cases.is_empty() {
            bail!("no case matches --only {}; --dry-run lists them", args.only.join(" "));
        }
    }
    let host = host::describe();
    if args.dry_run {
        return dry_run::print(&scenario, &cases, &host);
    }
    let differences = scenario.host.differences(&found(&host));
    if !differences.is_empty() && !args.anyway {
        bail!(
            "this is not the machine that '{}' is meant for: {}; measure it all the same, under \
             this machine's name, with --anyway, or see what is predicted for the other machine \
             with: bench fit",
            args.scenario.display(),
            differences.join("; ")
        );
    }
    let label = args.host_name.as_deref().map_or_else(|| host.label.clone(), slug);
    let mut folder = open_folder(args, &scenario, &host, &label)?;
    let conditions = Conditions {
        host: label,
        threads: threads(&host),
        memory: memory_for_engines(&host),
        all_memory: Bytes(host.memory.total.0 + gpu_memory(&host).0),
        runners: runners_dir()?,
        cache: cache::dir()?,
    };
    for why in run::passed_over(&scenario, &cases, &conditions) {
        eprintln!("not used: {why}");
    }
    let mut open: Vec<_> = cases.iter().map(|case| case.id.0.clone()).collect();
    open.retain(|id| !folder.has(id));
    let bar = progress_bar(open.len() as u64);
    let shown = bar.clone();
    run::run(&scenario, cases, &conditions, &mut folder, |progress| show(&shown, &progress))?;
    bar.finish_and_clear();
    print(args.format, &scenario.name, folder.records())?;
    eprintln!("results: {}", folder.path().display());
    open.retain(|id| !folder.has(id));
    if !open.is_empty() {
        let n = open.len();
        eprintln!("cases without a row: {n}; limits.scenario_seconds was over: use --resume");
    }
    let all_measured = folder.records().iter().all(|r| r.outcome == Outcome::Measured);
    Ok(if all_measured { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

fn open_folder(
    args: &RunArgs,
    scenario: &Scenario,
    host: &Host,
    label: &str,
) -> anyhow::Result<Folder> {
    if args.resume {
        let newest = run::newest_folder(&args.out, label, &scenario.name).with_context(|| {
            let out = args.out.display();
            format!(
                "nothing to resume: '{out}' has no results of '{}' on this machine",
                scenario.name
            )
        })?;
        eprintln!("going on in {}", newest.display());
        return Folder::open(&newest);
    }
    let date = jiff::Zoned::now().date();
    let name = format!("{date}-{label}-{}", scenario.name);
    Folder::create(
        &args.out,
        &name,
        &scenario.text,
        &toml::to_string(&host).context("cannot describe the machine")?,
    )
}

/// Where `bench setup` puts runners.
pub(super) fn runners_dir() -> anyhow::Result<PathBuf> {
    Ok(cache::runners(&cache::dir()?))
}

/// Memory that the engines of one point may take together: with GPUs theirs, else the machine's.
fn memory_for_engines(host: &Host) -> Bytes {
    let gpus = gpu_memory(host).0;
    let memory = if gpus > 0 { gpus.min(host.memory.total.0) } else { host.memory.total.0 };
    // A fifth is left for caches, buffers and the system.
    Bytes(memory / 5 * 4)
}

/// Threads of an engine where the scenario does not say: the physical cores that may be used.
fn threads(host: &Host) -> u32 {
    host.cpu.physical_cores.unwrap_or(host.cpu.usable_threads).min(host.cpu.usable_threads)
}

fn gpu_memory(host: &Host) -> Bytes {
    let variable = std::env::var(crate::host::gpu::VISIBLE).ok();
    let visible = crate::host::visible(&host.gpus, variable.as_deref());
    Bytes(visible.iter().filter_map(|g| g.memory).map(|b| b.0).sum())
}

pub(super) fn found(host: &Host) -> FoundHost {
    FoundHost {
        cpu: host.cpu.model.clone(),
        cores: host.cpu.logical_cores,
        gpus: host
            .gpus
            .iter()
            .map(|gpu| FoundGpu { name: gpu.name.clone(), memory: gpu.memory })
            .collect(),
        memory: host.memory.total,
        os: std::env::consts::OS.to_owned(),
    }
}

/// A name as part of a folder's name.
fn slug(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    words.collect::<Vec<_>>().join("-").to_lowercase()
}

fn progress_bar(cases: u64) -> ProgressBar {
    let target = if std::io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let style = ProgressStyle::with_template(
        "{bar:24} {pos}/{len} cases, {elapsed} elapsed, {eta} left\n{wide_msg}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(Some(cases), target).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

fn show(bar: &ProgressBar, progress: &Progress<'_>) {
    match progress {
        Progress::Weights(case, done, all) => {
            let (done, all) = (Bytes(*done), Bytes(*all));
            bar.set_message(format!("weights of {} {}: {done} of {all}", case.model, case.quant));
        }
        Progress::Step(Step::Loading(case)) => bar.set_message(format!("{}: loading", case.id)),
        Progress::Step(Step::Trial(case, number, true)) => {
            bar.set_message(format!("{}: warm-up {}", case.id, number + 1));
        }
        Progress::Step(Step::Probe(case, load)) => {
            bar.set_message(format!("{}: probe of {load}", case.id));
        }
        Progress::Step(Step::Trial(case, number, false)) => {
            bar.set_message(format!("{}: trial {number}", case.id));
        }
        Progress::Done(records) => {
            for record in *records {
                let line = match &record.reason {
                    Some(reason) => format!("{}: {}: {reason}", record.case_id, record.outcome),
                    None => format!("{}: {}", record.case_id, record.outcome),
                };
                if bar.is_hidden() {
                    eprintln!("{line}");
                } else if record.reason.is_some() {
                    bar.println(line);
                }
                bar.inc(1);
            }
        }
    }
}

/// Prints rows in a format.
pub fn print(format: Format, title: &str, records: &[Record]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match format {
        Format::Table => {
            Terminal::default().render(&results::report(title, records), &mut out)?;
        }
        Format::Markdown => Markdown.render(&results::report(title, records), &mut out)?,
        Format::Csv => out.write_all(spreadsheet::csv(records)?.as_bytes())?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut out, records)?;
            writeln!(out)?;
        }
    }
    out.flush()?;
    Ok(())
}
