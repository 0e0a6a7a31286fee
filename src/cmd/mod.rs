//! One file for each subcommand.

pub mod doctor;
pub mod dry_run;
pub mod model;
pub mod run;

use std::process::ExitCode;

use crate::cli::Command;

/// Runs the subcommand. An error is wrong usage or input (exit code 2); what goes wrong later is
/// told by the exit code.
pub fn dispatch(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Model(args) => model::run(args),
    }
}
