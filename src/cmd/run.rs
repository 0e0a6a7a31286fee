//! `bench run`: measures the cases of a scenario.

use std::process::ExitCode;

/// Flags of `bench run`.
#[derive(Debug, clap::Args)]
pub struct RunArgs {}

/// Runs the subcommand.
pub fn run(_: &RunArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet")
}
