//! `bench verify`: whether results are what their samples give.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::units::grouped;
use crate::verify;

/// Flags of `bench verify`.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    /// Result folders.
    #[arg(required = true)]
    results: Vec<PathBuf>,
}

/// Runs the subcommand.
pub fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let known = super::known();
    let mut out = std::io::stdout().lock();
    let mut sound = true;
    for folder in &args.results {
        let verified = verify::verify(folder, &known)?;
        for problem in &verified.problems {
            writeln!(out, "{problem}")?;
        }
        let shown = folder.display();
        let rows = match verified.rows {
            1 => "1 row".to_owned(),
            n => format!("{} rows", grouped(n as u64)),
        };
        let figures = grouped(verified.figures as u64);
        match verified.problems.len() {
            0 => writeln!(out, "{shown}: {figures} figures of {rows} are what the samples give")?,
            1 => writeln!(out, "{shown}: 1 problem")?,
            n => writeln!(out, "{shown}: {n} problems")?,
        }
        for note in &verified.notes {
            writeln!(out, "  note: {note}")?;
        }
        sound &= verified.problems.is_empty();
    }
    out.flush()?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
