//! One file for each subcommand.

pub mod cost;
pub mod dry_run;
pub mod prices;
pub mod run;

use std::process::ExitCode;

use crate::cli::Command;
use crate::scenario::Known;

/// Runs the subcommand. An error is wrong usage or input (exit code 2); what goes wrong later is
/// told by the exit code.
pub fn dispatch(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Cost(args) => cost::run(args),
        Command::Prices(args) => prices::run(args),
    }
}

/// The words that a scenario may use: what the catalogues know.
pub fn known() -> Known {
    Known::here()
}
