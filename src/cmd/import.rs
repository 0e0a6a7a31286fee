//! `bench import`: another benchmark's results as a result folder.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::catalog::models;
use crate::interchange::{self, Imported, Known, SOURCE, Tool, VALUES};
use crate::record::{create_folder, to_csv};
use crate::units::Bytes;

use super::run::{Format, print};

/// More than any summary of results holds.
const MAX_BYTES: u64 = 1 << 30;

/// Flags of `bench import`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// Result files: of llama-bench (JSON, JSON lines, CSV, SQL), GuideLLM, AIPerf, vLLM's bench serve,
    /// LocalScore or llama-benchy (JSON). Each becomes a folder.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Whose results they are; default: the content says.
    #[arg(long, value_enum)]
    from: Option<Tool>,
    /// The engine or server that was measured, where the file does not say.
    #[arg(long)]
    engine: Option<String>,
    /// The catalogue's id of the model (bench models lists them), where its name does not say.
    #[arg(long, value_parser = model)]
    model: Option<String>,
    /// The quantisation, where the file does not say.
    #[arg(long)]
    quant: Option<String>,
    /// A label of the machine, where the file does not say: rtx-5090.
    #[arg(long)]
    host: Option<String>,
    /// The folder that result folders are made in.
    #[arg(long, value_name = "DIR", default_value = "results")]
    out: PathBuf,
    /// How the rows are printed at the end.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

impl ValueEnum for Tool {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(clap::builder::PossibleValue::new(self.name()))
    }
}

fn model(word: &str) -> Result<String, String> {
    models::find(word).map(|spec| spec.id.clone()).map_err(|error| error.to_string())
}

/// What `source.toml` says.
#[derive(Serialize)]
struct Source {
    tool: Tool,
    file: String,
    sha256: String,
    bytes: u64,
    bench_version: &'static str,
}

/// Runs the subcommand.
pub fn run(args: &ImportArgs) -> anyhow::Result<ExitCode> {
    let known = Known {
        engine: args.engine.clone(),
        model: args.model.clone(),
        quant: args.quant.clone(),
        host: args.host.clone(),
    };
    // All are read before anything is written.
    let mut read = Vec::new();
    for file in &args.files {
        let bytes = read_file(file)?;
        let imported = interchange::read(&bytes, &file.display().to_string(), args.from, &known)?;
        read.push((file, bytes, imported));
    }
    let mut records = Vec::new();
    for (file, bytes, imported) in read {
        let folder = write(args, file, &bytes, &imported)?;
        eprintln!("results: {}", folder.display());
        records.extend(imported.records);
    }
    print(args.format, "", &records)?;
    Ok(ExitCode::SUCCESS)
}

fn read_file(file: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = file.display();
    let about = std::fs::metadata(file).with_context(|| format!("cannot read '{shown}'"))?;
    if !about.is_file() {
        bail!("'{shown}' is not a file; name the file that the tool wrote");
    }
    if about.len() > MAX_BYTES {
        bail!("'{shown}' is larger than {}: no summary of results is", Bytes(MAX_BYTES));
    }
    std::fs::read(file).with_context(|| format!("cannot read '{shown}'"))
}

fn write(
    args: &ImportArgs,
    file: &Path,
    bytes: &[u8],
    imported: &Imported,
) -> anyhow::Result<PathBuf> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let source = Source {
        tool: imported.tool,
        file: name(file),
        sha256: Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
        bytes: bytes.len() as u64,
        bench_version: env!("CARGO_PKG_VERSION"),
    };
    let mut values = Vec::new();
    for trial in &imported.trials {
        serde_json::to_writer(&mut values, trial).context("cannot encode a trial")?;
        values.push(b'\n');
    }
    let source = toml::to_string(&source).context("cannot describe the source")?;
    let (date, host) = match imported.records.first() {
        Some(record) => (record.started.get(..10).unwrap_or_default(), record.host.as_str()),
        None => ("", ""),
    };
    let is_date = date.len() == 10 && date.chars().all(|c| c.is_ascii_digit() || c == '-');
    let words = [if is_date { date } else { "undated" }, host, imported.tool.name()];
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let folder: String = words.join("-").chars().map(plain).collect();
    create_folder(
        &args.out,
        folder.trim_start_matches('.'),
        &[
            ("records.csv", &to_csv(&imported.records)?),
            (VALUES, &values),
            (SOURCE, source.as_bytes()),
        ],
    )
}
