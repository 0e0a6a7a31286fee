//! One file for each subcommand.

pub mod calibrate;
pub mod capacity;
pub mod compare;
pub mod completions;
pub mod cost;
pub mod devices;
pub mod doctor;
pub mod dry_run;
pub mod export;
pub mod fit;
pub mod here;
pub mod host;
pub mod import;
pub mod man;
pub mod mock_server;
pub mod model;
pub mod models;
mod own;
pub mod own_results;
pub mod prices;
pub mod recommend;
pub mod report;
pub mod run;
pub mod selfcheck;
pub mod setup;
pub mod step_times;
pub mod verify;

use std::process::ExitCode;

use crate::cli::Command;
use crate::cost::PRESETS;
use crate::report::markdown::Markdown;
use crate::report::terminal::Terminal;
use crate::report::{Render, Report};
use crate::scenario::Known;
use crate::workload;

/// Runs the subcommand. An error is wrong usage or input (exit code 2); what goes wrong later is
/// told by the exit code.
pub fn dispatch(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Report(args) => report::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Host(args) => host::run(args),
        Command::Fit(args) => fit::run(args),
        Command::Devices(args) => devices::run(args),
        Command::Models(args) => models::run(args),
        Command::Recommend(args) => recommend::run(args),
        Command::Calibrate(args) => calibrate::run(args),
        Command::Capacity(args) => capacity::run(args),
        Command::Cost(args) => cost::run(args),
        Command::Prices(args) => prices::run(args),
        Command::Setup(args) => setup::run(args),
        Command::Selfcheck(args) => selfcheck::run(args),
        Command::MockServer(args) => mock_server::run(args),
        Command::Model(args) => model::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Import(args) => import::run(args),
        Command::Export(args) => export::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    }
}

/// The words that a scenario may use: what the catalogues know, and the workloads with a name.
pub fn known() -> Known {
    let days = PRESETS.iter().map(|preset| preset.name);
    let requests = workload::PRESETS.iter().map(|preset| preset.name);
    let presets = days.chain(requests).map(str::to_owned).collect();
    Known { presets: Some(presets), ..Known::here() }
}

/// Prints a report for a person at a terminal, or as Markdown.
fn show(report: &Report, markdown: bool) -> std::io::Result<()> {
    let out = &mut std::io::stdout().lock();
    if markdown { Markdown.render(report, out) } else { Terminal::default().render(report, out) }
}
