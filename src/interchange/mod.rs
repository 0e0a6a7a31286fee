//! Results of other benchmarks → records, and records → the files that other tools read.

mod field;
mod identity;
mod llama_bench;
mod load_tools;
mod local_tools;
pub mod sqlite;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::compare::Metric;
use crate::record::{ALL_AT_ONCE, Outcome, Record, read_trials};
use crate::stats::Summary;
use crate::watch::{Mark, join_marks};

pub use llama_bench::{Exported, HostFacts, write as write_llama_bench};

/// The file of an imported folder that stands where `samples.jsonl` stands in one of ours.
pub const VALUES: &str = "values.jsonl";

/// The file of an imported folder that says where its rows come from.
pub const SOURCE: &str = "source.toml";

/// One trial as another tool states it: its values, not the arrivals of its tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StatedTrial {
    /// The case.
    pub case_id: String,
    /// Its number, from 0.
    pub trial: u32,
    /// Value of each metric by the name of its columns in `records.csv`: `decode_tok_s`.
    pub values: BTreeMap<String, f64>,
}

/// The trials in a folder's `values.jsonl`.
pub fn read_values(folder: &Path) -> anyhow::Result<Vec<StatedTrial>> {
    read_trials(&folder.join(VALUES))
}

/// A benchmark whose results can be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// llama.cpp's own, as JSON, JSON lines, CSV or SQL.
    LlamaBench,
    /// GuideLLM's report.
    Guidellm,
    /// AIPerf's summary.
    Aiperf,
    /// `vllm bench serve --save-result`.
    VllmBench,
    /// LocalScore's JSON.
    Localscore,
    /// llama-benchy's JSON.
    LlamaBenchy,
}

impl Tool {
    /// Whether it sends requests to a server as users or programs do.
    fn sends_loads(self) -> bool {
        matches!(self, Self::Guidellm | Self::Aiperf | Self::VllmBench)
    }
}

impl Tool {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::LlamaBench,
        Self::Guidellm,
        Self::Aiperf,
        Self::VllmBench,
        Self::Localscore,
        Self::LlamaBenchy,
    ];

    /// Its name on the command line, and in names of folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::LlamaBench => "llama-bench",
            Self::Guidellm => "guidellm",
            Self::Aiperf => "aiperf",
            Self::VllmBench => "vllm-bench",
            Self::Localscore => "localscore",
            Self::LlamaBenchy => "llama-benchy",
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What the person who imports knows and the file does not say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// The engine, or the server.
    pub engine: Option<String>,
    /// The model's id in the catalogue.
    pub model: Option<String>,
    /// The quantisation.
    pub quant: Option<String>,
    /// A label of the machine.
    pub host: Option<String>,
}

/// What a file gives.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// Whose results they are.
    pub tool: Tool,
    /// One for each test, run or level of the file.
    pub records: Vec<Record>,
    /// Their trials, where the file states them.
    pub trials: Vec<StatedTrial>,
}

/// One result as a tool's reader understands it.
#[derive(Clone, Debug, Default)]
struct Found {
    record: Record,
    /// What the tool calls the model: a path, a name, an id.
    model: String,
    /// What it calls the quantisation.
    quant: Option<String>,
    /// Where the tool's definition of a figure is another than ours.
    notes: Vec<&'static str>,
    /// Why columns are empty.
    absent: Vec<(&'static str, String)>,
    /// Values of each trial.
    trials: Vec<BTreeMap<Metric, f64>>,
    /// The figures are means.
    is_mean: bool,
}

/// Reads a file; `name` is what errors call it. Without `tool` its content says whose it is.
pub fn read(
    bytes: &[u8],
    name: &str,
    tool: Option<Tool>,
    known: &Known,
) -> anyhow::Result<Imported> {
    ensure!(!bytes.iter().all(u8::is_ascii_whitespace), "{name}: the file is empty");
    let documents = Documents::parse(bytes, name)?;
    let tool = match tool {
        Some(tool) => tool,
        None => documents.tool().with_context(|| {
            let tools = Tool::ALL.map(Tool::name).join(", ");
            format!("{name}: not the results of a known tool; --from names one of {tools}")
        })?,
    };
    let found = match tool {
        Tool::LlamaBench => llama_bench::read(&documents, name)?,
        Tool::Guidellm => load_tools::guidellm(&documents.objects(name)?, name)?,
        Tool::Aiperf => load_tools::aiperf(&documents.objects(name)?, name)?,
        Tool::VllmBench => load_tools::vllm(&documents.objects(name)?, name)?,
        Tool::Localscore => local_tools::localscore(&documents.objects(name)?, name)?,
        Tool::LlamaBenchy => local_tools::llama_benchy(&documents.objects(name)?, name)?,
    };
    ensure!(!found.is_empty(), "{name}: there are no results in it");
    let digest = Sha256::digest(bytes);
    let sum: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let file = Path::new(name).file_name().map_or(name.into(), |file| file.to_string_lossy());
    let source = format!("{tool}: {file}, sha256 {sum}");
    let mut imported = Imported { tool, records: Vec::new(), trials: Vec::new() };
    let mut seen = BTreeSet::new();
    for found in found {
        let (record, trials) = finish(found, tool, &source, known)?;
        if !seen.insert(record.case_id.clone()) {
            bail!(
                "{name}: two results of the same test, '{}'; import the two runs from files of \
                 their own",
                record.case_id
            );
        }
        imported.records.push(record);
        imported.trials.extend(trials);
    }
    Ok(imported)
}

/// A file's content, before anybody knows whose it is.
enum Documents {
    /// JSON: one value, or several one after the other, each with its line.
    Json(Vec<(usize, serde_json::Value)>),
    /// Text that is no JSON.
    Text(String),
}

impl Documents {
    fn parse(bytes: &[u8], name: &str) -> anyhow::Result<Self> {
        let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
        if !matches!(first, Some(b'{' | b'[')) {
            let text = std::str::from_utf8(bytes).map_err(|error| {
                anyhow::anyhow!("{name}: byte {}: not UTF-8 text", error.valid_up_to())
            })?;
            return Ok(Self::Text(text.to_owned()));
        }
        let mut stream = serde_json::Deserializer::from_slice(bytes).into_iter();
        let (mut values, mut line, mut counted) = (Vec::new(), 1, 0);
        loop {
            let start = stream.byte_offset();
            let Some(value) = stream.next() else { break };
            let skipped = bytes[start..].iter().take_while(|byte| byte.is_ascii_whitespace());
            let start = start + skipped.count();
            line += bytes[counted..start.max(counted)].iter().filter(|b| **b == b'\n').count();
            counted = start.max(counted);
            match value {
                Ok(value) => values.push((line, value)),
                // The stream counts lines from the file's start.
                Err(error) => bail!("{name}:{}:{}: {error}", error.line(), error.column()),
            }
        }
        Ok(Self::Json(values))
    }

    fn objects(&self, name: &str) -> anyhow::Result<Vec<(usize, &serde_json::Value)>> {
        match self {
            Self::Text(_) => bail!("{name}:1: not JSON"),
            Self::Json(values) => values
                .iter()
                .map(|(line, value)| match value {
                    serde_json::Value::Object(_) => Ok((*line, value)),
                    _ => bail!("{name}:{line}: not a JSON object"),
                })
                .collect(),
        }
    }

    /// Whose they are, by keys that no other tool has.
    fn tool(&self) -> Option<Tool> {
        let value = match self {
            Self::Text(text) => return llama_bench::is_text(text).then_some(Tool::LlamaBench),
            Self::Json(values) => &values.first()?.1,
        };
        let one = value.as_array().and_then(|rows| rows.first()).unwrap_or(value);
        let has = |key: &str| one.get(key).is_some();
        Some(match () {
            () if has("build_commit") && has("n_gen") => Tool::LlamaBench,
            () if has("runtime_info") && has("results") => Tool::Localscore,
            () if has("latency_mode") && has("benchmarks") => Tool::LlamaBenchy,
            () if has("benchmarks") && has("metadata") => Tool::Guidellm,
            () if has("total_output_tokens") && has("model_id") => Tool::VllmBench,
            () if has("request_latency") && has("request_count") => Tool::Aiperf,
            () => return None,
        })
    }
}

fn finish(
    found: Found,
    tool: Tool,
    source: &str,
    known: &Known,
) -> anyhow::Result<(Record, Vec<StatedTrial>)> {
    let Found { mut record, model, quant, notes, mut absent, trials, is_mean } = found;
    let named = identity::identify(&model, quant.as_deref());
    record.model = known.model.clone().unwrap_or(named.model);
    record.quant = known.quant.clone().unwrap_or(named.quant);
    if record.weights.is_empty() {
        record.weights = named.weights;
    }
    if let Some(engine) = &known.engine {
        record.engine.clone_from(engine);
    }
    if let Some(host) = &known.host {
        record.host.clone_from(host);
    }
    for (column, flag) in [
        ("engine", &mut record.engine),
        ("model", &mut record.model),
        ("quant", &mut record.quant),
        ("host", &mut record.host),
    ] {
        if flag.is_empty() {
            "unknown".clone_into(flag);
            absent.push((column, format!("the file does not say; --{column} can")));
        }
    }
    for metric in Metric::ALL {
        let values: Vec<f64> = trials.iter().filter_map(|t| t.get(&metric).copied()).collect();
        if let Some(summary) = Summary::of(&values) {
            metric.put(&mut record, &summary);
        }
    }
    record.trials = trials.len().max(1) as u32;
    record.scenario = tool.name().to_owned();
    record.outcome = Outcome::Measured;
    record.bench_version = env!("CARGO_PKG_VERSION").to_owned();
    let mut marks = vec![Mark::Foreign];
    if is_mean {
        marks.push(Mark::MeanNotMedian);
    }
    record.marks = join_marks(&marks);
    record.source = Some(source.to_owned());
    record.source_notes = (!notes.is_empty()).then(|| notes.join("; "));
    absent.push(("memory, energy, probe, token_hash", "the file does not say".to_owned()));
    let absent: Vec<_> = absent.iter().map(|(k, v)| format!("{k}: {v}")).collect();
    record.absent = Some(absent.join("; "));
    record.load = Some(match (record.concurrency, record.rate_per_s) {
        (Some(users), _) => format!("c{users}"),
        (None, Some(rate)) => format!("r{rate}"),
        // Tools for loads without a limit send all requests at their start.
        (None, None) if tool.sends_loads() => ALL_AT_ONCE.to_owned(),
        (None, None) => format!("b{}", record.batch),
    });
    record.case_id = case_id(&record, tool);
    let numbered = (0..).zip(trials);
    let trials = numbered
        .map(|(trial, values)| StatedTrial {
            case_id: record.case_id.clone(),
            trial,
            values: values.into_iter().map(|(m, v)| (m.column().to_owned(), v)).collect(),
        })
        .filter(|trial| !trial.values.is_empty());
    let trials = trials.collect();
    Ok((record, trials))
}

/// A name for the work: the same test has it again after the engine was built anew.
fn case_id(record: &Record, tool: Tool) -> String {
    let Record { model, quant, engine, prompt_tokens, new_tokens, depth, batch, .. } = record;
    let load = record.load.clone().unwrap_or_else(|| format!("b{batch}"));
    let slug =
        format!("{tool}-{model}-{quant}-{engine}-p{prompt_tokens}-n{new_tokens}-d{depth}-{load}");
    let mut hash = Sha256::new();
    for part in [&slug, &record.weights, &record.settings] {
        hash.update(part);
        hash.update("\n");
    }
    let hash = hash.finalize();
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let slug: String = slug.to_lowercase().chars().map(plain).collect();
    format!("{slug}-{:02x}{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2], hash[3])
}

#[cfg(test)]
mod tests;
