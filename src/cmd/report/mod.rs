//! `bench report`: prints the tables of results, puts them into a document, or makes a whole report.

mod cost;
mod fit;
mod publish;
mod splice;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::record::{Record, read_records, write_whole};

use super::run::{Format, print};

/// Flags of `bench report`.
#[derive(Debug, clap::Args)]
pub struct ReportArgs {
    /// Result folders that `bench run` made.
    #[arg(required_unless_present = "splice")]
    results: Vec<PathBuf>,
    /// Make a report to publish in this folder: index.html, report.md, results.csv and charts.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["splice", "format"])]
    out: Option<PathBuf>,
    /// The title of the report; otherwise it names the machines.
    #[arg(long, value_name = "TEXT", requires = "out")]
    title: Option<String>,
    /// Add what owning the machine costs and when it pays back: the arguments of `bench cost`, as
    /// one word, such as '--workload chat-team --device rtx-5090 --model qwen3-8b --against X/Y'.
    #[arg(long, value_name = "ARGS", requires = "out", allow_hyphen_values = true)]
    cost: Option<String>,
    /// Add how many machines serve so many users: the arguments of `bench capacity`, as one word, such
    /// as '--users 40 --workload chat --model qwen3-8b --device rtx-4090'.
    #[arg(long, value_name = "ARGS", requires = "out", allow_hyphen_values = true)]
    capacity: Option<String>,
    /// Show the names that people gave to machines; otherwise hardware stands for them.
    #[arg(long, requires = "out")]
    with_host_names: bool,
    /// How the rows are printed.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// Fill the tables of a Markdown document: what stands between `<!-- bench report FOLDER -->` and
    /// `<!-- /bench report -->` is made anew from the folder, which is looked up beside the document.
    #[arg(long, value_name = "FILE", conflicts_with = "results")]
    splice: Option<PathBuf>,
}

/// Runs the subcommand.
pub fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.splice {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read '{}'", path.display()))?;
        let spliced = splice::splice(&text, path)?;
        if spliced != text {
            write_whole(path, spliced.as_bytes())?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(folder) = &args.out {
        publish::write(args, folder)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut records = Vec::new();
    for folder in &args.results {
        records.extend(read_folder(folder)?);
    }
    print(args.format, "", &records)?;
    Ok(ExitCode::SUCCESS)
}

fn read_folder(folder: &Path) -> anyhow::Result<Vec<Record>> {
    let file = folder.join("records.csv");
    if !file.is_file() {
        bail!("'{}' is no result folder: it has no records.csv", folder.display());
    }
    read_records(&file)
}
