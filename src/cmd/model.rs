//! `bench model`: the model files that are kept on this machine.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::catalog::models::{self, ModelSpec};
use crate::model::cache::{self, Entry};
use crate::model::gguf::Header;
use crate::model::hf;
use crate::model::hub::{Hub, HubFile};
use crate::model::mlx;
use crate::model::quant::Quant;
use crate::model::synth;
use crate::report::terminal::Terminal;
use crate::report::{Render, Report, Section, Table};
use crate::units::{Bytes, grouped};

/// Flags of `bench model`.
#[derive(Args, Debug)]
pub struct ModelArgs {
    /// What to do; `list` unless given.
    #[command(subcommand)]
    command: Option<ModelCommand>,
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    /// List the model files that are kept, with size and shape.
    List,
    /// Make synthetic weights of a model in the catalogue, or download a file from a hub.
    ///
    /// Synthetic weights have the model's exact architecture, shapes, quantisation and vocabulary
    /// size, and random content: speed and memory are those of the real model.
    Make(MakeArgs),
    /// Remove model files.
    Rm(RmArgs),
    /// Print the path of a model file: of one in the cache, or where it would be made.
    Path(MakeArgs),
    /// Show what a GGUF file holds: its shape and how many tensors have which type.
    Show {
        /// A GGUF file, of a split model any part, or the name of one in the cache.
        file: String,
    },
}

#[derive(Args, Debug)]
struct MakeArgs {
    /// A model of the catalogue such as `qwen3-0.6b`, or `hub:owner/repo/file.gguf`.
    model: String,
    /// How synthetic weights are quantised: F16, BF16, Q8_0, Q6_K, Q5_K_M, Q4_K_M, Q4_0, Q3_K_M,
    /// Q2_K, IQ4_XS, or MXFP4 for mixtures of experts.
    /// Q4_K_M unless given, with --config-only BF16.
    #[arg(short, long)]
    quant: Option<Quant>,
    /// Other seeds give other weights of the same shape.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Make a folder with a config.json and a tokenizer instead, in F16 or BF16 (`--quant`): for
    /// engines that fill the weights in themselves, such as vLLM with `--load-format dummy`.
    #[arg(long)]
    config_only: bool,
}

#[derive(Args, Debug)]
struct RmArgs {
    /// Names as `bench model list` shows them, or how they begin.
    #[arg(required_unless_present = "all")]
    names: Vec<String>,
    /// Remove all of them, and what interrupted runs have left.
    #[arg(long, conflicts_with = "names")]
    all: bool,
}

impl MakeArgs {
    fn quant(&self) -> Quant {
        self.quant.unwrap_or(if self.config_only { Quant::BF16 } else { Quant::Q4KM })
    }
}

/// Runs `bench model`.
pub fn run(args: &ModelArgs) -> anyhow::Result<ExitCode> {
    let cache = cache::dir()?;
    match args.command.as_ref().unwrap_or(&ModelCommand::List) {
        ModelCommand::List => list(&cache)?,
        ModelCommand::Make(args) => println!("{}", make(args, &cache)?.display()),
        ModelCommand::Path(args) => println!("{}", path(args, &cache)?.display()),
        ModelCommand::Rm(args) => remove(args, &cache)?,
        ModelCommand::Show { file } => show(file, &cache)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(cache: &Path) -> anyhow::Result<()> {
    let entries = cache::entries(cache)?;
    let mut table = Table::new(&["name", ">size", "architecture", ">parameters", "quantisation"]);
    for entry in &entries {
        table.rows.push(row(entry));
    }
    let total = Bytes(entries.iter().map(|e| e.bytes.0).sum());
    let mut notes = vec![format!("{} in {} files in {}", total, entries.len(), cache.display())];
    let left = cache::leftovers(cache)?;
    if !left.is_empty() {
        let bytes = Bytes(left.iter().map(|(_, bytes)| bytes.0).sum());
        notes.push(format!(
            "and {bytes} that interrupted downloads and runs have left; \
             `bench model rm --all` removes them too"
        ));
    }
    let section = Section { table: Some(table), notes, ..Section::default() };
    print(&Report { title: "Model files".to_owned(), sections: vec![section] })
}

fn row(entry: &Entry) -> Vec<String> {
    let mut cells = vec![entry.name.clone(), entry.bytes.to_string()];
    match Header::read(&entry.path) {
        Ok(header) => cells.extend([
            header.architecture().unwrap_or("unknown").to_owned(),
            grouped(header.parameters()),
            quant_of(&header),
        ]),
        Err(_) if hf::lacks_weights(&entry.path) => {
            let what = "config.json and tokenizer, no weights";
            cells.extend([what.to_owned(), String::new(), String::new()]);
        }
        Err(_) if entry.path.join(mlx::WEIGHTS).is_file() => {
            let description = mlx::describe(&entry.path);
            let (kind, quantisation) = description.map_or_else(
                || ("damaged".to_owned(), String::new()),
                |d| (d.model_type, d.quantisation.unwrap_or_else(|| "floats".to_owned())),
            );
            cells.extend([kind, String::new(), format!("MLX: {quantisation}")]);
        }
        Err(_) => cells.extend(["damaged".to_owned(), String::new(), String::new()]),
    }
    cells
}

/// The quantisation that the header names, else the commonest type of its tensors.
fn quant_of(header: &Header) -> String {
    let named = header
        .get("general.file_type")
        .and_then(|value| value.as_u64())
        .and_then(|code| Quant::ALL.into_iter().find(|q| u64::from(q.file_type()) == code));
    let commonest = || header.tensors.iter().max_by_key(|t| t.tensor.bytes());
    match (named, commonest()) {
        (Some(quant), _) => quant.to_string(),
        (None, Some(info)) => format!("mostly {}", info.tensor.kind),
        (None, None) => String::new(),
    }
}

fn make(args: &MakeArgs, cache: &Path) -> anyhow::Result<PathBuf> {
    let bar = bar();
    let mut progress = |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    };
    let path = if args.config_only {
        hf::ensure(spec_of(args)?, args.quant(), cache)?
    } else if args.model.starts_with("hub:") {
        let file: HubFile = args.model.parse()?;
        Hub::from_env().fetch(&file, cache, &mut progress)?.path
    } else {
        let spec = models::find(&args.model)?;
        synth::ensure(spec, args.quant(), args.seed, cache, &mut progress)?
    };
    bar.finish_and_clear();
    Ok(path)
}

fn bar() -> ProgressBar {
    let target = match std::io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let style = ProgressStyle::with_template("{bar:30} {binary_bytes}/{binary_total_bytes} {eta}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::with_draw_target(Some(0), target).with_style(style)
}

/// The catalogue's model: a download has a `config.json` of its own.
fn spec_of(args: &MakeArgs) -> anyhow::Result<&'static ModelSpec> {
    ensure!(
        !args.model.starts_with("hub:"),
        "--config-only is for models of the catalogue, not for '{}'",
        args.model
    );
    models::find(&args.model)
}

fn path(args: &MakeArgs, cache: &Path) -> anyhow::Result<PathBuf> {
    if args.config_only {
        return hf::cached(spec_of(args)?, args.quant(), cache);
    }
    if args.model.starts_with("hub:") {
        return Ok(args.model.parse::<HubFile>()?.local_path(cache));
    }
    match models::find(&args.model) {
        Ok(spec) => Ok(synth::cached(spec, args.quant(), args.seed, cache)?.0),
        Err(unknown) => match cache::find(cache, &args.model).ok().as_deref() {
            Some([entry]) => Ok(entry.path.clone()),
            _ => Err(unknown),
        },
    }
}

fn remove(args: &RmArgs, cache: &Path) -> anyhow::Result<()> {
    let mut doomed = BTreeMap::new();
    if args.all {
        doomed.extend(cache::entries(cache)?.into_iter().map(|e| (e.path, e.bytes)));
        doomed.extend(cache::leftovers(cache)?);
    }
    for name in &args.names {
        doomed.extend(cache::find(cache, name)?.into_iter().map(|e| (e.path, e.bytes)));
    }
    for path in doomed.keys() {
        cache::remove(cache, path)?;
    }
    let bytes = Bytes(doomed.values().map(|bytes| bytes.0).sum());
    println!("removed {} files, {bytes}", doomed.len());
    Ok(())
}

fn show(file: &str, cache: &Path) -> anyhow::Result<()> {
    let path = match Path::new(file).is_file() {
        true => PathBuf::from(file),
        false => match cache::find(cache, file)?.as_slice() {
            [entry] => entry.path.clone(),
            several => bail!("'{file}' means {} files; write more of the name", several.len()),
        },
    };
    let header = Header::read(&path)?;
    ensure!(!header.tensors.is_empty(), "{}: a vocabulary without a model", path.display());
    let mut shape = Table::new(&["key", "value"]);
    let arch = header.architecture().context("the file names no architecture")?;
    for (key, value) in &header.metadata {
        // texts may be whole chat templates, and arrays whole vocabularies
        let text = match (value.as_f64(), value.as_str()) {
            (Some(number), _) => number.to_string(),
            (_, Some(text)) if text.len() <= 60 => text.to_owned(),
            _ => continue,
        };
        if key.starts_with(arch) || key.starts_with("general.") {
            shape.rows.push(vec![key.clone(), text]);
        }
    }
    let mut kinds: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for info in &header.tensors {
        let sum = kinds.entry(info.tensor.kind.name()).or_default();
        *sum = (sum.0 + 1, sum.1 + info.tensor.bytes());
    }
    let mut types = Table::new(&["type", ">tensors", ">size"]);
    for (kind, (count, bytes)) in kinds {
        types.rows.push(vec![kind.to_owned(), count.to_string(), Bytes(bytes).to_string()]);
    }
    let note = format!(
        "{} parameters, {} of weights in a file of {}",
        grouped(header.parameters()),
        header.weight_bytes(),
        header.file_bytes.both()
    );
    let sections = vec![
        Section { heading: "Shape".to_owned(), table: Some(shape), ..Section::default() },
        Section {
            heading: "Tensors".to_owned(),
            table: Some(types),
            notes: vec![note],
            ..Section::default()
        },
    ];
    print(&Report { title: file.to_owned(), sections })
}

fn print(report: &Report) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    Terminal::default().render(report, &mut out)?;
    out.flush()?;
    Ok(())
}
