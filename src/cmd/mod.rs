//! One file for each subcommand.

pub mod doctor;
pub mod dry_run;
pub mod run;

use std::process::ExitCode;

use crate::catalog::models;
use crate::cli::Command;
use crate::model::quant::Quant;
use crate::scenario::{Known, KnownModel};

/// Runs the subcommand. An error is wrong usage or input (exit code 2); what goes wrong later is
/// told by the exit code.
pub fn dispatch(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(args),
        Command::Doctor(args) => doctor::run(args),
    }
}

/// The words that a scenario may use: what the catalogues know.
pub fn known() -> Known {
    let models = models::all()
        .iter()
        .map(|m| KnownModel { id: m.id.to_string(), context_max: Some(m.context_max) });
    Known::new(models, Quant::ALL.iter().map(ToString::to_string))
}
