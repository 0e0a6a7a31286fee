//! A result folder's figures, worked out anew from its samples and held beside what it states.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};

use crate::compare::Metric;
use crate::host::Probe;
use crate::interchange::{self, VALUES};
use crate::record::{Record, SUMS, Trial, changed_files};
use crate::run::{load, summary};
use crate::runner::protocol::Sample;
use crate::scenario::{Known, Load, Scenario, Slo};
use crate::stats::Summary;
use crate::units::{Bytes, GbPerSecond, Nanos, Tflops};
use crate::watch::Mark;

/// Columns that follow from the samples, and from columns that were observed.
const DERIVED: [&str; 45] = [
    "trials",
    "warmup_trials",
    "ttft_ns_median",
    "ttft_ns_low",
    "ttft_ns_high",
    "ttft_ns_mad",
    "prefill_tok_s_median",
    "prefill_tok_s_low",
    "prefill_tok_s_high",
    "prefill_tok_s_mad",
    "decode_tok_s_median",
    "decode_tok_s_low",
    "decode_tok_s_high",
    "decode_tok_s_mad",
    "system_tok_s_median",
    "system_tok_s_low",
    "system_tok_s_high",
    "system_tok_s_mad",
    "end_to_end_tok_s_median",
    "e2e_ns_median",
    "itl_ns_p50",
    "itl_ns_p95",
    "itl_ns_p99",
    "itl_ns_max",
    "stalls",
    "ttft_ns_p95",
    "ttft_ns_p99",
    "slo_attainment",
    "slo_attainment_low",
    "goodput_per_s",
    "client_lag_ns_p99",
    "server_prompt_ns_median",
    "server_decode_ns_median",
    "cached_share_median",
    "bandwidth_share",
    "probe_bandwidth_gb_s_before",
    "probe_bandwidth_gb_s_after",
    "requests",
    "failed_requests",
    "failure",
    "requests_per_s",
    "slo",
    "client_lag_ns_median",
    "server_ttft_ns_median",
    "client_decode_ns_median",
];

/// Marks that follow from the samples and the probe.
const DERIVED_MARKS: [Mark; 4] =
    [Mark::ClientLag, Mark::ServerClock, Mark::ProbeDrift, Mark::FailedRequests];

/// What the check of a folder found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verified {
    /// Rows that were worked out anew.
    pub rows: usize,
    /// Figures that were compared.
    pub figures: usize,
    /// Differences and damages, each with its file, line and column.
    pub problems: Vec<String>,
    /// What could not be checked.
    pub notes: Vec<String>,
}

/// A row and the line that it stands on.
struct Row {
    line: u64,
    record: Record,
}

/// The rows of a file, and the columns that it has: an earlier version wrote fewer.
struct Rows {
    columns: Vec<&'static str>,
    rows: Vec<Row>,
}

/// How the requests of a row came.
pub fn load_of(record: &Record) -> Load {
    let load = record.load.as_deref().unwrap_or_default();
    let number = load.get(1..).unwrap_or_default();
    match (load, number.parse::<u32>(), number.parse::<f64>()) {
        ("trace", ..) => Load::Trace,
        ("calibration", ..) => Load::Calibration,
        ("slo-rate", ..) => Load::MostRate,
        ("slo-users", ..) => Load::MostUsers,
        (text, Ok(users), _) if text.starts_with('c') => Load::Concurrency(users),
        (text, _, Ok(rate)) if text.starts_with('r') => Load::Rate(rate),
        _ => record.concurrency.map_or(Load::Batch(record.batch), Load::Concurrency),
    }
}

/// The trials whose figures stand in a row: all of them, but of a search those of the load that it
/// found.
pub fn shown(record: &Record, trials: &[Trial<Sample>]) -> Vec<Trial<Sample>> {
    if !load_of(record).is_search() {
        return trials.to_vec();
    }
    let found = |trial: &&Trial<Sample>| {
        (trial.users.is_some() || trial.rate_per_s.is_some())
            && trial.users == record.concurrency
            && trial.rate_per_s == record.rate_per_s
    };
    let best = trials.iter().find(found).map(|trial| trial.trial);
    trials.iter().filter(|trial| Some(trial.trial) == best).cloned().collect()
}

/// Checks a folder. Fails only where it is none; what is damaged is a problem.
pub fn verify(folder: &Path, known: &Known) -> anyhow::Result<Verified> {
    let path = folder.join("records.csv");
    if !path.is_file() {
        bail!("'{}' is no result folder: it has no records.csv", folder.display());
    }
    let mut verified = Verified::default();
    match changed_files(folder) {
        Ok(Some(changed)) => {
            let shown =
                |(name, what): (String, String)| format!("{}: {what}", folder.join(name).display());
            verified.problems.extend(changed.into_iter().map(shown));
        }
        Ok(None) => verified.notes.push(format!(
            "there is no {SUMS}: what was observed and not computed (memory, energy, the probe) \
             is not protected"
        )),
        Err(error) => verified.problems.push(format!("{error:#}")),
    }
    let rows = match read_rows(&path) {
        Ok(rows) => rows,
        Err(error) => {
            verified.problems.push(format!("{error:#}"));
            return Ok(verified);
        }
    };
    let checked = if folder.join(VALUES).is_file() {
        values(folder, &path, &rows.rows, &mut verified)
    } else {
        samples(folder, &path, &rows, known, &mut verified)
    };
    if let Err(error) = checked {
        verified.problems.push(format!("{error:#}"));
    }
    Ok(verified)
}

fn read_rows(path: &Path) -> anyhow::Result<Rows> {
    let shown = path.display();
    let text = std::fs::read(path).with_context(|| format!("cannot read '{shown}'"))?;
    if text.last() != Some(&b'\n') {
        bail!("{shown}: the last line has no end: the file is cut off");
    }
    let mut reader = csv::Reader::from_reader(text.as_slice());
    let header = reader.headers().with_context(|| format!("{shown}:1: not CSV"))?.clone();
    let mut rows: Vec<Row> = Vec::new();
    for row in reader.records() {
        let row = row.with_context(|| format!("{shown}: not CSV"))?;
        let line = row.position().map_or(0, csv::Position::line);
        let record: Record = row
            .deserialize(Some(&header))
            .with_context(|| format!("{shown}:{line}: not a record"))?;
        if let Some(first) = rows.iter().find(|r| r.record.case_id == record.case_id) {
            bail!(
                "{shown}:{line}: the case '{}' stands in line {} already",
                record.case_id,
                first.line
            );
        }
        rows.push(Row { line, record });
    }
    let has = |column: &&str| header.iter().any(|name| name == *column);
    Ok(Rows { columns: DERIVED.into_iter().filter(has).collect(), rows })
}

fn samples(
    folder: &Path,
    path: &Path,
    Rows { columns, rows }: &Rows,
    known: &Known,
    verified: &mut Verified,
) -> anyhow::Result<()> {
    let trials = read_trials(folder, rows, verified)?;
    let slo = read_slo(folder, known, verified);
    for row in rows {
        let none = Vec::new();
        let trials = trials.get(row.record.case_id.as_str()).unwrap_or(&none);
        let shown = shown(&row.record, trials);
        let (fresh, marks) = recompute(&row.record, &shown, slo.as_ref())?;
        let place = format!("{}:{}", path.display(), row.line);
        compare_columns(&row.record, &fresh, columns, &place, verified)?;
        compare_marks(&row.record, &marks, &place, verified);
        verified.rows += 1;
    }
    Ok(())
}

/// The trials of each case. A line that cannot be read ends the check: what follows from a part of
/// the samples would differ everywhere.
fn read_trials(
    folder: &Path,
    rows: &[Row],
    verified: &mut Verified,
) -> anyhow::Result<BTreeMap<String, Vec<Trial<Sample>>>> {
    let path = folder.join("samples.jsonl");
    let shown = path.display();
    let cases: BTreeSet<_> = rows.iter().map(|row| row.record.case_id.as_str()).collect();
    let file = std::fs::File::open(&path).with_context(|| format!("cannot read '{shown}'"))?;
    let mut reader = BufReader::new(file);
    let mut trials: BTreeMap<String, Vec<Trial<Sample>>> = BTreeMap::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let place = format!("{shown}:{number}");
        let read = reader.read_until(b'\n', &mut line);
        if read.with_context(|| format!("cannot read '{shown}'"))? == 0 {
            break;
        }
        if line.last() != Some(&b'\n') {
            verified.problems.push(format!("{place}: the last line has no end: is it cut off?"));
        }
        let trial: Trial<Sample> =
            serde_json::from_slice(&line).with_context(|| format!("{place}: not a trial"))?;
        if !cases.contains(trial.case_id.as_str()) {
            let case = &trial.case_id;
            verified.problems.push(format!(
                "{place}: '{case}' has no row in records.csv: the row is lost, or the run was \
                 killed (bench run --resume goes on with it)"
            ));
            continue;
        }
        for (i, sample) in trial.samples.iter().enumerate() {
            let before = sample.token_ns.first().is_some_and(|t| *t < sample.sent_ns);
            if before || !sample.token_ns.is_sorted() {
                verified.problems.push(format!("{place}: sample {i}: its times run backwards"));
            }
        }
        let of_case = trials.entry(trial.case_id.clone()).or_default();
        if of_case.iter().any(|other| other.trial == trial.trial) {
            verified.problems.push(format!(
                "{place}: trial {} of '{}' is there twice",
                trial.trial, trial.case_id
            ));
        }
        of_case.push(trial);
    }
    Ok(trials)
}

/// The objective that the requests had to meet. Only its part of the scenario matters here: one that
/// cannot be read anew, as a descriptor that it names lies elsewhere, is no problem without it.
fn read_slo(folder: &Path, known: &Known, verified: &mut Verified) -> Option<Slo> {
    let path = folder.join("scenario.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    if !text.lines().any(|line| line.trim_start().starts_with("[slo")) {
        return None;
    }
    match Scenario::read(&path, known) {
        Ok(scenario) => scenario.slo,
        Err(error) => {
            verified.problems.push(format!("the objective cannot be read: {error:#}"));
            None
        }
    }
}

fn recompute(
    stated: &Record,
    trials: &[Trial<Sample>],
    slo: Option<&Slo>,
) -> anyhow::Result<(Record, Vec<Mark>)> {
    let mut map = as_map(stated)?;
    for column in DERIVED {
        let empty =
            if map[column].is_u64() && column.ends_with("trials") { json!(0) } else { Value::Null };
        map.insert(column.to_owned(), empty);
    }
    let mut fresh: Record = serde_json::from_value(Value::Object(map))?;
    summary::fill(&mut fresh, trials, load_of(stated), stated.bytes_per_token);
    let mut absent = BTreeMap::new();
    let mut marks = load::fill(&mut fresh, trials, slo, &mut absent);
    let probe = |bandwidth: Option<f64>, compute: Option<f64>| {
        Some(Probe {
            read_bandwidth: GbPerSecond(bandwidth?),
            compute: Tflops(compute?),
            threads: 0,
            buffer: Bytes(0),
            took: Nanos(0),
        })
    };
    let before = probe(stated.probe_bandwidth_gb_s_before, stated.probe_tflops_before);
    let after = probe(stated.probe_bandwidth_gb_s_after, stated.probe_tflops_after);
    marks.extend(summary::fill_probes(&mut fresh, (before.as_ref(), after.as_ref()), &mut absent));
    Ok((fresh, marks))
}

fn compare_columns(
    stated: &Record,
    fresh: &Record,
    columns: &[&str],
    place: &str,
    verified: &mut Verified,
) -> anyhow::Result<()> {
    let (stated, fresh) = (as_map(stated)?, as_map(fresh)?);
    for column in columns {
        let (stated, fresh) = (&stated[*column], &fresh[*column]);
        verified.figures += 1;
        // Not `==` of the values: 1 and 1.0 are the same figure.
        let same = match (stated.as_f64(), fresh.as_f64()) {
            (Some(a), Some(b)) => a.to_bits() == b.to_bits(),
            _ => stated == fresh,
        };
        if !same {
            let word = |value: &Value| match value {
                Value::Null => "empty".to_owned(),
                value => value.to_string(),
            };
            verified.problems.push(format!(
                "{place}: {column} is {}, the samples give {}",
                word(stated),
                word(fresh)
            ));
        }
    }
    Ok(())
}

fn compare_marks(record: &Record, marks: &[Mark], place: &str, verified: &mut Verified) {
    let mut stated = Vec::new();
    for word in record.marks.split_whitespace() {
        match word.parse::<Mark>() {
            Ok(mark) => stated.push(mark),
            Err(error) => verified.problems.push(format!("{place}: marks: {error}")),
        }
    }
    for mark in DERIVED_MARKS {
        match (stated.contains(&mark), marks.contains(&mark)) {
            (true, false) => verified
                .problems
                .push(format!("{place}: marks has '{mark}', the samples do not give it")),
            (false, true) => verified
                .problems
                .push(format!("{place}: marks lacks '{mark}', the samples give it")),
            _ => {}
        }
    }
}

/// Checks the rows of another benchmark against the repetitions that it states.
fn values(folder: &Path, path: &Path, rows: &[Row], verified: &mut Verified) -> anyhow::Result<()> {
    let trials = interchange::read_values(folder)?;
    for (number, trial) in (1..).zip(&trials) {
        if !rows.iter().any(|row| row.record.case_id == trial.case_id) {
            verified.problems.push(format!(
                "{}:{number}: '{}' has no row in records.csv",
                folder.join(VALUES).display(),
                trial.case_id
            ));
        }
    }
    for row in rows {
        let mut fresh = row.record.clone();
        let mut columns = Vec::new();
        for metric in Metric::ALL {
            let values: Vec<f64> = trials
                .iter()
                .filter(|trial| trial.case_id == row.record.case_id)
                .filter_map(|trial| trial.values.get(metric.column()).copied())
                .collect();
            if let Some(summary) = Summary::of(&values) {
                metric.put(&mut fresh, &summary);
                let of_metric = |c: &&str| c.starts_with(metric.column()) && !c.contains("_p9");
                columns.extend(DERIVED.into_iter().filter(of_metric));
            }
        }
        let place = format!("{}:{}", path.display(), row.line);
        compare_columns(&row.record, &fresh, &columns, &place, verified)?;
        verified.rows += 1;
    }
    verified.notes.push(
        "the rows are another benchmark's: what it states without its repetitions has only its \
         checksum"
            .to_owned(),
    );
    Ok(())
}

fn as_map(record: &Record) -> anyhow::Result<Map<String, Value>> {
    match serde_json::to_value(record)? {
        Value::Object(map) => Ok(map),
        _ => bail!("a record is not an object"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns that nothing here can give: what was asked, and what was observed.
    const STATED: [&str; 68] = [
        "case_id",
        "scenario",
        "engine",
        "model",
        "quant",
        "weights",
        "prompt_tokens",
        "new_tokens",
        "depth",
        "batch",
        "concurrency",
        "settings",
        "outcome",
        "reason",
        "marks",
        "engine_version",
        "engine_build",
        "backend",
        "effective_settings",
        "bench_version",
        "source",
        "source_notes",
        "host",
        "started",
        "model_bytes",
        "model_sha256",
        "bits_per_weight",
        "token_hash",
        "load_cold_ns",
        "load_warm_ns",
        "start_to_ready_ns",
        "peak_memory_bytes",
        "peak_vram_bytes",
        "peak_vram_bytes_by_gpu",
        "vram_basis",
        "gpu_clock_mhz_median",
        "gpu_celsius_max",
        "gpu_power_limit_watts",
        "weights_bytes",
        "kv_bytes",
        "compute_bytes",
        "engine_peak_bytes",
        "energy_gross_joules",
        "energy_net_joules",
        "energy_per_token_joules",
        "energy_prefill_gross_joules",
        "energy_prefill_net_joules",
        "energy_prefill_per_token_joules",
        "energy_decode_gross_joules",
        "energy_decode_net_joules",
        "energy_decode_per_token_joules",
        "energy_boundary",
        "bytes_per_token",
        "probe_tflops_before",
        "probe_tflops_after",
        "harness_cpu_share",
        "absent",
        "rate_per_s",
        "load",
        "workload",
        "slots",
        "slo_capacity_per_s",
        "slo_missed_per_s",
        "slo_capacity_users",
        "slo_missed_users",
        "slo_probes",
        "in_process_ttft_ns_median",
        "in_process_decode_tok_s_median",
    ];

    #[test]
    fn every_column_is_recomputed_or_known_to_be_only_stated() {
        for column in as_map(&Record::default()).unwrap().keys() {
            let (derived, stated) =
                (DERIVED.contains(&column.as_str()), STATED.contains(&column.as_str()));
            assert!(derived != stated, "'{column}': can it be worked out from the samples?");
        }
    }

    #[test]
    fn the_shipped_results_are_what_their_samples_give() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        let mut folders = 0;
        for entry in std::fs::read_dir(root).unwrap() {
            let folder = entry.unwrap().path();
            if folder.is_dir() {
                let verified = verify(&folder, &Known::here()).unwrap();
                assert_eq!(verified.problems, Vec::<String>::new());
                assert!(verified.rows > 0 && verified.figures >= 30 * verified.rows);
                folders += 1;
            }
        }
        assert!(folders >= 2);
    }
}
