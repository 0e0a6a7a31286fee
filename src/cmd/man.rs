//! `bench man`: the manual pages, one for the program and one for each subcommand.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;

use crate::cli::Cli;

/// Flags of `bench man`.
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The folder that the pages are written in, such as /usr/local/share/man/man1.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs the subcommand.
pub fn run(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let out = args.out.display();
    std::fs::create_dir_all(&args.out).with_context(|| format!("cannot make '{out}'"))?;
    clap_mangen::generate_to(Cli::command(), &args.out)
        .with_context(|| format!("cannot write in '{out}'"))?;
    Ok(ExitCode::SUCCESS)
}
