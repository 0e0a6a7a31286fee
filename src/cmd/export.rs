//! `bench export`: results as files that other tools read.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;

use crate::host::Host;
use crate::interchange::{HostFacts, sqlite, write_llama_bench};
use crate::record::write_whole;

use super::compare::subjects;

/// Flags of `bench export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// Result folders.
    #[arg(required = true)]
    results: Vec<PathBuf>,
    /// What to write.
    #[arg(long, value_enum)]
    format: Target,
    /// The file; without it llama-bench's JSON is printed.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// A format that other tools read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Target {
    /// llama-bench's JSON, field by field; single streams only
    LlamaBench,
    /// One table, 'records', with the columns of records.csv
    Sqlite,
}

/// Runs the subcommand.
pub fn run(args: &ExportArgs) -> anyhow::Result<ExitCode> {
    match (args.format, &args.out) {
        (Target::Sqlite, None) => bail!("an SQLite file is not printed; name it with --out FILE"),
        (Target::Sqlite, Some(out)) => {
            let mut records = Vec::new();
            for folder in &args.results {
                records.extend(subjects(folder, 0)?.into_iter().map(|subject| subject.record));
            }
            sqlite::write(&records, out)?;
            eprintln!("{}: {} records", out.display(), records.len());
        }
        (Target::LlamaBench, out) => llama_bench(&args.results, out.as_deref())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn llama_bench(folders: &[PathBuf], out: Option<&Path>) -> anyhow::Result<()> {
    let (mut texts, mut left_out, mut results) = (Vec::new(), Vec::new(), 0);
    for folder in folders {
        let subjects = subjects(folder, 0)?;
        let trials: BTreeMap<_, _> = subjects
            .iter()
            .map(|subject| (subject.record.case_id.clone(), subject.values.clone()))
            .collect();
        let records: Vec<_> = subjects.into_iter().map(|subject| subject.record).collect();
        let exported = write_llama_bench(&records, &trials, &host(folder)?)?;
        results += exported.results;
        left_out.extend(exported.left_out);
        if exported.results > 0 {
            texts.push(exported.json);
        }
    }
    for (case, reason) in &left_out {
        eprintln!("left out: {case}: {reason}");
    }
    ensure!(results > 0, "none of the records has a place in llama-bench's format");
    // One list of the lists of all folders.
    let bodies = texts.iter().map(|text| text.trim_start_matches("[\n").trim_end_matches("\n]\n"));
    let text = format!("[\n{}\n]\n", bodies.collect::<Vec<_>>().join(",\n"));
    match out {
        Some(path) => {
            write_whole(path, text.as_bytes())?;
            eprintln!("{}: {results} results", path.display());
        }
        None => std::io::stdout().lock().write_all(text.as_bytes())?,
    }
    Ok(())
}

/// The names of the folder's machine; of imported results nothing but their label is known.
fn host(folder: &Path) -> anyhow::Result<HostFacts> {
    let path = folder.join("host.toml");
    if !path.exists() {
        return Ok(HostFacts::default());
    }
    let context = || format!("cannot read '{}'", path.display());
    let text = std::fs::read_to_string(&path).with_context(context)?;
    let host: Host = toml::from_str(&text).with_context(context)?;
    Ok(HostFacts {
        cpu: host.cpu.model.clone(),
        gpus: host.gpus.iter().map(|gpu| gpu.name.clone()).collect(),
    })
}
