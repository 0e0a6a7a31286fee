//! `bench run --dry-run`: what would be measured, with expected memory and time.

use std::process::ExitCode;

use anyhow::Context;

use crate::cases::{self, Case, ExpectedSpeed};
use crate::catalog::models;
use crate::fit::work::Work;
use crate::host::{self, Host, Probe};
use crate::report::terminal::Terminal;
use crate::report::{Render, Report, Section, Table};
use crate::run::weights;
use crate::scenario::Scenario;
use crate::units::{self, Bytes, Nanos};

/// Share of the probe's bandwidth that decode is expected to reach on a CPU.
const BANDWIDTH_SHARE: f64 = 0.7;
/// Share of the probe's arithmetic speed that prompts are expected to reach on a CPU; above 1, because
/// quantised products use narrower numbers than the probe's.
const COMPUTE_SHARE: f64 = 1.5;
/// Bytes per second at which weights are expected to be loaded, or made.
const LOAD_SPEED: f64 = 1e9;

/// Prints the list.
pub fn print(scenario: &Scenario, cases: &[Case], host: &Host) -> anyhow::Result<ExitCode> {
    let probe = host::probe(host.cpu.usable_threads).ok();
    let expected: Vec<_> = cases
        .iter()
        .map(|case| {
            cases::expect(case, scenario.trials, weights::expected_memory, |case| {
                // A GPU's speed does not follow from what the CPU's memory does.
                probe.as_ref().filter(|_| host.gpus.is_empty()).and_then(|p| speed(case, p))
            })
        })
        .collect();
    let mut table = Table::new(&["case", ">memory", ">time"]);
    for (case, expected) in cases.iter().zip(&expected) {
        table.rows.push(vec![
            case.id.to_string(),
            units::or_absent(expected.memory),
            units::or_absent(expected.time),
        ]);
    }
    let all: Option<u64> = expected.iter().map(|e| e.time.map(|t| t.0)).sum();
    let mut notes = vec![match all {
        Some(nanos) => format!(
            "about {} in all, at a bandwidth and an arithmetic speed probed just now; a rough guide, \
             good to a factor of two",
            Nanos(nanos)
        ),
        None => "no time can be told for some cases".to_owned(),
    }];
    let too_large = expected.iter().filter(|e| e.memory > Some(host.memory.total)).count();
    if too_large > 0 && host.gpus.is_empty() {
        notes.push(format!(
            "{too_large} of them need more than the {} of this machine",
            host.memory.total
        ));
    }
    let title = format!("{}: {} cases", scenario.name, cases.len());
    let section = Section { table: Some(table), notes, ..Section::default() };
    let report = Report { title, sections: vec![section] };
    Terminal::default()
        .render(&report, &mut std::io::stdout().lock())
        .context("cannot print the cases")?;
    Ok(ExitCode::SUCCESS)
}

fn speed(case: &Case, probe: &Probe) -> Option<ExpectedSpeed> {
    let spec = models::find(&case.model).ok()?;
    let work = Work::of(spec, case.quant.parse().ok()?).ok()?;
    let Bytes(read) = weights::bytes_per_token(case)?;
    let compute = probe.compute.0 * 1e12 * COMPUTE_SHARE / (2.0 * work.active_weights());
    // A batch reads the weights once for all its sequences, until arithmetic is the limit.
    let sequences = f64::from(case.slots());
    let decode =
        (probe.read_bandwidth.0 * 1e9 * BANDWIDTH_SHARE / read as f64 * sequences).min(compute);
    Some(ExpectedSpeed {
        load: Nanos::from_seconds(work.file_bytes / LOAD_SPEED),
        prefill: compute,
        decode,
    })
}
