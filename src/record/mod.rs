//! One row of results, and the folder of files it is kept in.

mod folder;
mod sums;

use std::fmt;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

pub use folder::{Folder, Trial, create_folder, read_trials, write_whole};
pub use sums::{SUMS, changed_files, write_sums};

/// The load of requests that all came at the start.
pub const ALL_AT_ONCE: &str = "all-at-once";

/// How a case ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// There are figures.
    Measured,
    /// The model, its cache or its buffers do not fit.
    OutOfMemory,
    /// The engine cannot do what the case asks for.
    Unsupported,
    /// The engine's runner is missing.
    NotInstalled,
    /// A limit of the scenario ended it.
    TimedOut,
    /// The runner died or broke the protocol.
    Crashed,
    /// The runner reported another failure.
    #[default]
    Failed,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Measured => "measured",
            Self::OutOfMemory => "out-of-memory",
            Self::Unsupported => "unsupported",
            Self::NotInstalled => "not-installed",
            Self::TimedOut => "timed-out",
            Self::Crashed => "crashed",
            Self::Failed => "failed",
        })
    }
}

/// One row of `records.csv`: a case and what was measured. `results/README.md` documents every
/// column; an absent value is an empty cell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "results/README.md documents every column, and a test checks it")]
pub struct Record {
    // what was asked
    pub case_id: String,
    pub scenario: String,
    pub engine: String,
    pub model: String,
    pub quant: String,
    pub weights: String,
    pub prompt_tokens: u32,
    pub new_tokens: u32,
    pub depth: u32,
    pub batch: u32,
    pub concurrency: Option<u32>,
    pub rate_per_s: Option<f64>,
    pub load: Option<String>,
    pub workload: Option<String>,
    pub slots: Option<u32>,
    pub settings: String,
    // how it ended
    pub outcome: Outcome,
    pub reason: Option<String>,
    pub marks: String,
    // what it was measured with
    pub engine_version: Option<String>,
    pub engine_build: Option<String>,
    pub backend: Option<String>,
    pub effective_settings: Option<String>,
    pub bench_version: String,
    pub source: Option<String>,
    pub source_notes: Option<String>,
    pub host: String,
    pub started: String,
    pub model_bytes: Option<u64>,
    pub model_sha256: Option<String>,
    pub bits_per_weight: Option<f64>,
    pub token_hash: Option<String>,
    pub trials: u32,
    pub warmup_trials: u32,
    // speed
    pub ttft_ns_median: Option<f64>,
    pub ttft_ns_low: Option<f64>,
    pub ttft_ns_high: Option<f64>,
    pub ttft_ns_mad: Option<f64>,
    pub prefill_tok_s_median: Option<f64>,
    pub prefill_tok_s_low: Option<f64>,
    pub prefill_tok_s_high: Option<f64>,
    pub prefill_tok_s_mad: Option<f64>,
    pub decode_tok_s_median: Option<f64>,
    pub decode_tok_s_low: Option<f64>,
    pub decode_tok_s_high: Option<f64>,
    pub decode_tok_s_mad: Option<f64>,
    pub system_tok_s_median: Option<f64>,
    pub system_tok_s_low: Option<f64>,
    pub system_tok_s_high: Option<f64>,
    pub system_tok_s_mad: Option<f64>,
    pub end_to_end_tok_s_median: Option<f64>,
    pub e2e_ns_median: Option<f64>,
    pub itl_ns_p50: Option<f64>,
    pub itl_ns_p95: Option<f64>,
    pub itl_ns_p99: Option<f64>,
    pub itl_ns_max: Option<f64>,
    pub stalls: Option<u64>,
    // under load
    pub requests: Option<u64>,
    pub failed_requests: Option<u64>,
    pub failure: Option<String>,
    pub requests_per_s: Option<f64>,
    pub ttft_ns_p95: Option<f64>,
    pub ttft_ns_p99: Option<f64>,
    pub slo: Option<String>,
    pub slo_attainment: Option<f64>,
    pub slo_attainment_low: Option<f64>,
    pub goodput_per_s: Option<f64>,
    pub slo_capacity_per_s: Option<f64>,
    pub slo_missed_per_s: Option<f64>,
    pub slo_capacity_users: Option<u32>,
    pub slo_missed_users: Option<u32>,
    pub slo_probes: Option<String>,
    pub client_lag_ns_median: Option<f64>,
    pub client_lag_ns_p99: Option<f64>,
    // what a server says of itself
    pub server_prompt_ns_median: Option<f64>,
    pub server_decode_ns_median: Option<f64>,
    pub server_ttft_ns_median: Option<f64>,
    pub client_decode_ns_median: Option<f64>,
    pub cached_share_median: Option<f64>,
    pub in_process_ttft_ns_median: Option<f64>,
    pub in_process_decode_tok_s_median: Option<f64>,
    // loading
    pub load_cold_ns: Option<u64>,
    pub load_warm_ns: Option<u64>,
    pub start_to_ready_ns: Option<u64>,
    // memory
    pub peak_memory_bytes: Option<u64>,
    pub peak_vram_bytes: Option<u64>,
    pub peak_vram_bytes_by_gpu: Option<String>,
    pub vram_basis: Option<String>,
    pub weights_bytes: Option<u64>,
    pub kv_bytes: Option<u64>,
    pub compute_bytes: Option<u64>,
    pub engine_peak_bytes: Option<u64>,
    // GPUs
    pub gpu_clock_mhz_median: Option<u32>,
    pub gpu_celsius_max: Option<u32>,
    pub gpu_power_limit_watts: Option<f64>,
    // energy
    pub energy_gross_joules: Option<f64>,
    pub energy_net_joules: Option<f64>,
    pub energy_per_token_joules: Option<f64>,
    pub energy_prefill_gross_joules: Option<f64>,
    pub energy_prefill_net_joules: Option<f64>,
    pub energy_prefill_per_token_joules: Option<f64>,
    pub energy_decode_gross_joules: Option<f64>,
    pub energy_decode_net_joules: Option<f64>,
    pub energy_decode_per_token_joules: Option<f64>,
    pub energy_boundary: Option<String>,
    // against the machine's limits
    pub bytes_per_token: Option<u64>,
    pub bandwidth_share: Option<f64>,
    pub probe_bandwidth_gb_s_before: Option<f64>,
    pub probe_bandwidth_gb_s_after: Option<f64>,
    pub probe_tflops_before: Option<f64>,
    pub probe_tflops_after: Option<f64>,
    pub harness_cpu_share: Option<f64>,
    // why cells are empty
    pub absent: Option<String>,
}

impl Record {
    /// Whether the row has figures that nothing speaks against.
    pub fn is_clean(&self) -> bool {
        self.outcome == Outcome::Measured && self.marks.is_empty()
    }

    /// Whether its requests came as users or programs send them, and not as one static batch.
    pub fn is_loaded(&self) -> bool {
        let load = self.load.as_deref().unwrap_or_default();
        let other =
            ["trace", "calibration", ALL_AT_ONCE].contains(&load) || load.starts_with("slo-");
        self.concurrency.is_some() || self.rate_per_s.is_some() || other
    }

    /// Whether it is a sweep for step times: it has samples and no figures of its own.
    pub fn is_calibration(&self) -> bool {
        self.load.as_deref() == Some("calibration")
    }

    /// Adds a mark that came to light after the row was made.
    pub fn add_mark(&mut self, mark: &str) {
        if !self.marks.split(' ').any(|known| known == mark) {
            if !self.marks.is_empty() {
                self.marks.push(' ');
            }
            self.marks.push_str(mark);
        }
    }
}

/// Reads a `records.csv`; an error names the file and the line.
pub fn read_records(path: &Path) -> anyhow::Result<Vec<Record>> {
    let mut reader = csv::Reader::from_path(path)
        .with_context(|| format!("cannot read '{}'", path.display()))?;
    reader
        .deserialize()
        .enumerate()
        .map(|(row, record)| {
            record.with_context(|| format!("{}:{}: not a record", path.display(), row + 2))
        })
        .collect()
}

/// The records as the text of a `records.csv`.
pub fn to_csv(records: &[Record]) -> anyhow::Result<Vec<u8>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for record in records {
        writer.serialize(record).context("cannot encode a record")?;
    }
    writer.into_inner().context("cannot encode the records")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_its_file_and_absent_stays_empty() {
        let record = Record {
            case_id: "a".to_owned(),
            outcome: Outcome::OutOfMemory,
            reason: Some("no room, \"none\"\nat all".to_owned()),
            decode_tok_s_median: Some(0.1 + 0.2),
            ..Record::default()
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.csv");
        std::fs::write(&path, to_csv(std::slice::from_ref(&record)).unwrap()).unwrap();
        assert_eq!(read_records(&path).unwrap(), [record]);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("records.csv");
        std::fs::write(&path, "case_id,trials\na,1\nb,many\n").unwrap();
        let error = format!("{:#}", read_records(&path).unwrap_err());
        assert!(error.contains("records.csv:3"), "{error}");
    }

    #[test]
    fn every_column_is_documented() {
        let csv = to_csv(&[Record::default()]).unwrap();
        let header = String::from_utf8(csv).unwrap();
        let documents = include_str!("../../results/README.md");
        for column in header.lines().next().unwrap().split(',') {
            assert!(documents.contains(&format!("`{column}`")), "'{column}' is not documented");
        }
    }
}
