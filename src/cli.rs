//! The subcommands; the flags of each stand in its own file of `cmd`.

use clap::{Parser, Subcommand};

use crate::cmd;

/// Measure, predict and decide: what a machine does with local language models.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure the cases of a scenario on this machine.
    Run(cmd::run::RunArgs),
    /// Show what this machine is, what can be measured on it, and what to put right first.
    Doctor(cmd::doctor::DoctorArgs),
    /// List, make, download and remove model files.
    Model(cmd::model::ModelArgs),
}
