//! llama-bench's results, read from its four formats, and records as its JSON.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value, json};

use super::field::Field;
use super::identity::identify;
use super::local_tools::slug;
use super::{Documents, Found};
use crate::catalog::models;
use crate::compare::{Metric, Values};
use crate::record::{Outcome, Record};
use crate::stats::median;

/// Its switches, and what ours are called; the others keep their names.
const OURS: [(&str, &str); 6] = [
    ("n_threads", "threads"),
    ("n_batch", "batch_tokens"),
    ("n_ubatch", "micro_batch"),
    ("n_gpu_layers", "gpu_layers"),
    ("flash_attn", "flash_attention"),
    ("use_mmap", "mmap"),
];

/// Its other columns that are switches, in the versions from 2024 to 2026.
const SWITCHES: [&str; 20] = [
    "cpu_mask",
    "cpu_strict",
    "poll",
    "type_k",
    "type_v",
    "n_cpu_moe",
    "split_mode",
    "main_gpu",
    "no_kv_offload",
    "devices",
    "tensor_split",
    "tensor_buft_overrides",
    "load_mode",
    "lazy_mode",
    "embeddings",
    "no_op_offload",
    "no_host",
    "repack",
    "fit_target",
    "fit_min_ctx",
];

/// Its switches that are on or off.
const FLAGS: [&str; 6] =
    ["cpu_strict", "no_kv_offload", "use_mmap", "embeddings", "no_host", "repack"];

/// Whether a text begins like its CSV or its SQL.
pub fn is_text(text: &str) -> bool {
    let start = text.trim_start();
    start.starts_with("build_commit,")
        || start.starts_with("CREATE TABLE IF NOT EXISTS llama_bench")
        || start.starts_with("INSERT INTO llama_bench")
}

/// Reads the results of any of its formats but its Markdown, which rounds.
pub fn read(documents: &Documents, name: &str) -> anyhow::Result<Vec<Found>> {
    let rows = match documents {
        Documents::Text(text) if text.trim_start().starts_with("build_commit,") => csv(text, name)?,
        Documents::Text(text) => sql(text, name)?,
        Documents::Json(values) => {
            let mut rows = Vec::new();
            for (line, value) in values {
                match value {
                    // An element has no line of its own once it is parsed; its number has to do.
                    Value::Array(list) => rows.extend(
                        (1..).zip(list).map(|(n, v)| (format!("{name}: result {n}"), v.clone())),
                    ),
                    value => rows.push((format!("{name}:{line}"), value.clone())),
                }
            }
            rows
        }
    };
    rows.iter().map(|(place, row)| test(&Field::root(row, place.clone()))).collect()
}

fn csv(text: &str, name: &str) -> anyhow::Result<Vec<(String, Value)>> {
    let mut reader = ::csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().with_context(|| format!("{name}:1: not CSV"))?.clone();
    let mut rows = Vec::new();
    for row in reader.records() {
        let row = row.with_context(|| format!("{name}: not CSV"))?;
        let line = row.position().map_or(0, ::csv::Position::line);
        let cell = |(key, cell): (&str, &str)| (key.to_owned(), Value::from(cell));
        let row: Map<_, _> = header.iter().zip(row.iter()).map(cell).collect();
        rows.push((format!("{name}:{line}"), Value::Object(row)));
    }
    Ok(rows)
}

/// Its SQL has one statement a line, and does not escape what stands between its quotes: it is taken
/// apart, never executed.
fn sql(text: &str, name: &str) -> anyhow::Result<Vec<(String, Value)>> {
    let mut rows = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let Some(rest) = line.trim().strip_prefix("INSERT INTO ") else { continue };
        let place = format!("{name}:{number}");
        let parts = rest
            .split_once('(')
            .and_then(|(_, rest)| rest.split_once(") VALUES ('"))
            .and_then(|(columns, values)| Some((columns, values.strip_suffix("');")?)));
        let Some((columns, values)) = parts else {
            bail!("{place}: not an INSERT as llama-bench writes it; is the line cut off?");
        };
        let columns: Vec<_> = columns.split(", ").collect();
        let values: Vec<_> = values.split("', '").collect();
        ensure!(
            columns.len() == values.len(),
            "{place}: {} values for {} columns",
            values.len(),
            columns.len()
        );
        let cell = |(key, cell): (&str, &str)| (key.to_owned(), Value::from(cell));
        let row: Map<_, _> = columns.into_iter().zip(values).map(cell).collect();
        rows.push((place, Value::Object(row)));
    }
    Ok(rows)
}

fn test(row: &Field<'_>) -> anyhow::Result<Found> {
    let prompt_tokens = row.needed("n_prompt", row.tokens("n_prompt")?)?;
    let new_tokens = row.needed("n_gen", row.tokens("n_gen")?)?;
    let tokens = f64::from(prompt_tokens) + f64::from(new_tokens);
    let mut record = Record {
        engine: "llama.cpp".to_owned(),
        engine_version: version(row)?,
        backend: row.text("backends")?.map(str::to_owned),
        host: host(row)?,
        started: row.text("test_time")?.unwrap_or_default().to_owned(),
        prompt_tokens,
        new_tokens,
        depth: row.tokens("n_depth")?.unwrap_or(0),
        batch: 1,
        model_bytes: row.whole("model_size")?.filter(|bytes| *bytes > 0),
        settings: settings(row)?,
        ..Record::default()
    };
    let metric = match (prompt_tokens, new_tokens) {
        (_, 0) => Metric::PrefillTokS,
        (0, _) => Metric::DecodeTokS,
        _ => Metric::E2eNs,
    };
    let mut found = Found::default();
    for sample in row.list("samples_ns")? {
        let ns = sample.as_number()?;
        ensure!(ns > 0.0, "a time of {ns} ns cannot be");
        let value = if metric == Metric::E2eNs { ns } else { tokens * 1e9 / ns };
        found.trials.push(BTreeMap::from([(metric, value)]));
    }
    if found.trials.is_empty() {
        let (mean, ns) = (row.figure("avg_ts")?, row.figure("avg_ns")?);
        match metric {
            Metric::PrefillTokS => record.prefill_tok_s_median = mean,
            Metric::DecodeTokS => record.decode_tok_s_median = mean,
            _ => record.e2e_ns_median = ns,
        }
        found.is_mean = true;
        found.absent.push((
            "intervals",
            "this format states the mean and the deviation; JSON has each repetition".to_owned(),
        ));
    }
    if metric == Metric::E2eNs {
        let times: Vec<f64> =
            found.trials.iter().filter_map(|trial| trial.get(&metric).copied()).collect();
        let time = median(&times).or(record.e2e_ns_median);
        record.end_to_end_tok_s_median = time.map(|ns| f64::from(new_tokens) * 1e9 / ns);
    }
    found.absent.push(("ttft_ns", "prompt and generation are tests of their own".to_owned()));
    found.absent.push((
        "effective_settings, engine_build",
        "the file states what was asked for, and not what the engine was compiled for".to_owned(),
    ));
    found.notes = match metric {
        Metric::PrefillTokS => vec!["prefill_tok_s: the prompt without a generated token"],
        Metric::DecodeTokS => vec!["decode_tok_s: all tokens / all time, from an empty prompt on"],
        _ => vec!["e2e_ns: prompt and generation in one"],
    };
    let (file, kind) = (row.text("model_filename")?, row.text("model_type")?);
    match kind.and_then(|kind| kind.split_once(' ')) {
        // As it is exported here: the catalogue's id. Its own begins with an architecture.
        Some((id, quant)) if models::find(id).is_ok() => {
            record.weights = file.map_or_else(String::new, |f| identify(f, None).weights);
            found.model = id.to_owned();
            found.quant = Some(quant.to_owned());
        }
        _ => {
            found.model = file.unwrap_or_default().to_owned();
            found.quant = kind.and_then(quant).map(str::to_owned);
        }
    }
    found.record = record;
    Ok(found)
}

/// The quantisation at the end of `qwen3 0.6B Q4_K - Medium`.
fn quant(model_type: &str) -> Option<&str> {
    let sized = |word: &str| {
        let number = word.strip_suffix(['B', 'M']).unwrap_or(word);
        number.len() < word.len() && number.chars().all(|c| c.is_ascii_digit() || ".xA".contains(c))
    };
    let mut rest = model_type;
    while let Some((word, after)) = rest.split_once(' ') {
        rest = after;
        if sized(word) {
            return Some(rest);
        }
    }
    None
}

fn version(row: &Field<'_>) -> anyhow::Result<Option<String>> {
    let commit = row.text("build_commit")?.filter(|commit| *commit != "unknown");
    let number = row.whole("build_number")?.filter(|number| *number > 0);
    Ok(match (commit, number) {
        (Some(commit), Some(number)) => Some(format!("b{number} ({commit})")),
        (Some(commit), None) => Some(commit.to_owned()),
        (None, Some(number)) => Some(format!("b{number}")),
        (None, None) => None,
    })
}

/// What computed: the GPU where one was used, else the processor.
fn host(row: &Field<'_>) -> anyhow::Result<String> {
    let gpu = row.text("gpu_info")?.unwrap_or_default();
    let cpu = row.text("cpu_info")?.unwrap_or_default();
    Ok(slug(if gpu.is_empty() { cpu } else { gpu }))
}

fn settings(row: &Field<'_>) -> anyhow::Result<String> {
    let mut words = BTreeMap::new();
    for key in OURS.iter().map(|(theirs, _)| *theirs).chain(SWITCHES) {
        let Some(field) = row.at(key) else { continue };
        let value = field.plain().replace(char::is_whitespace, "-");
        let ours = OURS.iter().find(|(theirs, _)| *theirs == key).map_or(key, |(_, ours)| ours);
        let value = match (key, value.as_str()) {
            ("flash_attn", "1" | "true") => "true".to_owned(),
            ("flash_attn", "0" | "false") => "false".to_owned(),
            ("flash_attn" | "n_gpu_layers", "-1") => "auto".to_owned(),
            // JSON says false where CSV and SQL say 0.
            (key, "0") if FLAGS.contains(&key) => "false".to_owned(),
            (key, "1") if FLAGS.contains(&key) => "true".to_owned(),
            _ => value,
        };
        if !value.is_empty() {
            words.insert(ours.to_owned(), value);
        }
    }
    // One cache, one type: only where the two differ do their own names stay.
    if let (Some(k), Some(v)) = (words.get("type_k"), words.get("type_v"))
        && k == v
    {
        let kind = k.clone();
        words.remove("type_k");
        words.remove("type_v");
        words.insert("kv_type".to_owned(), kind);
    }
    let words: Vec<_> = words.iter().map(|(key, value)| format!("{key}={value}")).collect();
    Ok(words.join(" "))
}

/// What a result says of its machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostFacts {
    /// The processor's name.
    pub cpu: String,
    /// The GPUs' names.
    pub gpus: Vec<String>,
}

/// Records as llama-bench writes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported {
    /// The text of the file.
    pub json: String,
    /// Results in it.
    pub results: usize,
    /// Case and reason of the records that have no place in it.
    pub left_out: Vec<(String, String)>,
}

/// Writes records as llama-bench's JSON, field by field as its printer does (commit of the llama.cpp
/// that is built here). A record becomes two results, as llama-bench tests prompts and generation
/// apart; generation starts where our prompt ends, which is its `n_depth`. -1 and an empty text stand
/// for what a record does not say: its readers join by equal values, and nothing equals null.
pub fn write(
    records: &[Record],
    trials: &BTreeMap<String, Values>,
    host: &HostFacts,
) -> anyhow::Result<Exported> {
    let (mut rows, mut left_out) = (Vec::new(), Vec::new());
    for record in records {
        let mut leave = |reason: &str| left_out.push((record.case_id.clone(), reason.to_owned()));
        if record.outcome != Outcome::Measured {
            leave("it has no figures");
            continue;
        }
        if record.batch > 1 || (record.is_loaded() && record.concurrency != Some(1)) {
            leave("llama-bench knows a single stream only");
            continue;
        }
        let none = Values::new();
        let values = trials.get(&record.case_id).unwrap_or(&none);
        let before = rows.len();
        let tests = [
            (Metric::PrefillTokS, record.prompt_tokens, 0, record.depth),
            (
                Metric::DecodeTokS,
                0,
                // From the first token to the last one token less is generated than in all; another
                // tool's test of generation has no prompt, and times them all.
                if record.source.is_some() {
                    record.new_tokens
                } else {
                    record.new_tokens.saturating_sub(1)
                },
                record.depth + record.prompt_tokens,
            ),
        ];
        for (metric, prompt, new, depth) in tests {
            let speeds: Vec<f64> =
                values.get(&metric).into_iter().flatten().map(|(_, value)| *value).collect();
            let tokens = prompt + new;
            if !speeds.is_empty() && tokens > 0 {
                rows.push(result(record, host, (prompt, new, depth), &speeds)?);
            }
        }
        if rows.len() == before {
            leave("no trial of it has a speed of the prompt or of generation");
        }
    }
    // Its own printer's layout: two spaces, one field a line, lists on one line.
    let json = format!("[\n{}\n]\n", rows.join(",\n"));
    Ok(Exported { json, results: rows.len(), left_out })
}

fn result(
    record: &Record,
    host: &HostFacts,
    (prompt, new, depth): (u32, u32, u32),
    speeds: &[f64],
) -> anyhow::Result<String> {
    let words = record.effective_settings.as_deref().unwrap_or(&record.settings);
    let set: BTreeMap<&str, &str> =
        words.split_whitespace().filter_map(|word| word.split_once('=')).collect();
    let text = |key: &str| Value::from(set.get(key).copied().unwrap_or_default());
    let whole = |key: &str| match set.get(key) {
        Some(&"auto") | None => Value::from(-1),
        Some(&"true") => Value::from(1),
        Some(&"false") => Value::from(0),
        Some(word) => word.parse::<i64>().map_or(Value::from(-1), Value::from),
    };
    let flag = |key: &str, default: bool| match set.get(key) {
        Some(word) => Value::from(["true", "1"].contains(word)),
        None => Value::from(default),
    };
    let on_cpu = record.backend.as_deref() == Some("CPU");
    let cache = |key: &str| match set.get(key).or_else(|| set.get("kv_type")) {
        Some(word) => Value::from(*word),
        None => Value::from(""),
    };
    let (commit, number) = build(record);
    let tokens = f64::from(prompt + new);
    let times: Vec<u64> =
        speeds.iter().map(|speed| (tokens * 1e9 / speed).round() as u64).collect();
    let rates: Vec<f64> = times.iter().map(|ns| 1e9 * tokens / *ns as f64).collect();
    let as_floats: Vec<f64> = times.iter().map(|ns| *ns as f64).collect();
    let fields = [
        ("build_commit", Value::from(commit)),
        ("build_number", Value::from(number)),
        ("cpu_info", Value::from(host.cpu.clone())),
        ("gpu_info", Value::from(if on_cpu { String::new() } else { host.gpus.join(", ") })),
        ("backends", Value::from(record.backend.clone().unwrap_or_default())),
        ("model_filename", Value::from(filename(record))),
        ("model_type", Value::from(format!("{} {}", record.model, record.quant))),
        ("model_size", record.model_bytes.map_or(json!(-1), |bytes| json!(bytes))),
        ("model_n_params", json!(-1)),
        ("n_batch", whole("batch_tokens")),
        ("n_ubatch", whole("micro_batch")),
        ("n_threads", whole("threads")),
        ("cpu_mask", text("cpu_mask")),
        ("cpu_strict", flag("cpu_strict", false)),
        ("poll", whole("poll")),
        ("type_k", cache("type_k")),
        ("type_v", cache("type_v")),
        ("n_gpu_layers", whole("gpu_layers")),
        ("n_cpu_moe", whole("n_cpu_moe")),
        ("split_mode", text("split_mode")),
        ("main_gpu", whole("main_gpu")),
        ("no_kv_offload", flag("no_kv_offload", false)),
        ("flash_attn", whole("flash_attention")),
        ("devices", text("devices")),
        ("tensor_split", text("tensor_split")),
        ("tensor_buft_overrides", text("tensor_buft_overrides")),
        // Its readers of before 2026 know this one, and drop the next two.
        ("use_mmap", flag("mmap", false)),
        ("load_mode", Value::from(load_mode(&set))),
        ("lazy_mode", text("lazy_mode")),
        ("embeddings", flag("embeddings", false)),
        ("no_op_offload", whole("no_op_offload")),
        ("no_host", flag("no_host", false)),
        ("repack", flag("repack", false)),
        ("fit_target", whole("fit_target")),
        ("fit_min_ctx", whole("fit_min_ctx")),
        ("n_prompt", Value::from(prompt)),
        ("n_gen", Value::from(new)),
        ("n_depth", Value::from(depth)),
        ("test_time", Value::from(record.started.clone())),
        ("avg_ns", Value::from(mean(&as_floats) as u64)),
        ("stddev_ns", Value::from(deviation(&as_floats) as u64)),
        ("avg_ts", Value::from(mean(&rates))),
        ("stddev_ts", Value::from(deviation(&rates))),
    ];
    let mut lines = Vec::new();
    for (key, value) in fields {
        let value = serde_json::to_string(&value).context("cannot encode a result")?;
        lines.push(format!("    \"{key}\": {value}"));
    }
    let list = |values: Vec<String>| values.join(", ");
    let times = list(times.iter().map(u64::to_string).collect());
    let rates = list(rates.iter().map(|rate| format!("{rate:?}")).collect());
    lines.push(format!("    \"samples_ns\": [ {times} ]"));
    lines.push(format!("    \"samples_ts\": [ {rates} ]"));
    Ok(format!("  {{\n{}\n  }}", lines.join(",\n")))
}

/// The commit by which its readers tell builds apart, and the number. Engines that have neither are
/// told apart by name and version.
fn build(record: &Record) -> (String, u64) {
    let version = record.engine_version.clone().unwrap_or_else(|| "unknown".to_owned());
    let own = version.strip_prefix('b').and_then(|rest| rest.split_once(" ("));
    if let Some((number, commit)) = own
        && let (Ok(number), Some(commit)) = (number.parse(), commit.strip_suffix(')'))
    {
        return (commit.to_owned(), number);
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name = format!("{}-{version}", record.engine);
    (name.chars().map(plain).collect(), 0)
}

fn filename(record: &Record) -> String {
    match record.weights.as_str() {
        "synthetic" => format!("{}-{}-synthetic.gguf", record.model, record.quant),
        name => name.to_owned(),
    }
}

fn load_mode(set: &BTreeMap<&str, &str>) -> String {
    let stated = set.get("load_mode").copied();
    let mapped = set.get("mmap").map(|word| if *word == "true" { "mmap" } else { "none" });
    stated.or(mapped).unwrap_or_default().to_owned()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The sample's standard deviation, as llama-bench's: 0 of a single value.
fn deviation(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return 0.0;
    }
    let mean = mean(values);
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (values.len() - 1) as f64).sqrt()
}
