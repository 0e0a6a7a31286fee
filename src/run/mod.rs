//! A case to its record: weights, child, time limits, trials, statistics, resume.

mod check;
pub mod energy;
mod evict;
pub mod load;
pub mod measure;
pub mod prompts;
pub mod schedule;
pub mod search;
pub mod servers;
pub mod summary;
pub mod weights;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::cases::Case;
use crate::catalog::models;
use crate::record::{Folder, Outcome, Record};
use crate::runner::locate;
use crate::scenario::{self, Load, Scenario, Synthetic, Weights as Source};
use crate::units::Bytes;
use crate::workload::Mix;

use crate::watch::{self, IdlePower};

use measure::{Step, Stopping, Subject};
use weights::Weights;

/// How long idle power is measured.
const IDLE: Duration = Duration::from_secs(5);

/// What a run is told beside its scenario.
#[derive(Debug)]
pub struct Conditions {
    /// The machine's label for the rows.
    pub host: String,
    /// Threads of an engine where the scenario does not say: the physical cores.
    pub threads: u32,
    /// Memory in which the engines of a point must fit together to be measured in turn.
    pub memory: Bytes,
    /// All memory that weights can lie in, the GPUs' included: what is expected to need more is not
    /// started where the scenario sets no limit of its own.
    pub all_memory: Bytes,
    /// Where runners that `bench setup` installed lie.
    pub runners: PathBuf,
    /// Where synthetic weights and downloads are kept.
    pub cache: PathBuf,
}

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum Progress<'a> {
    /// Weights are being made or fetched: bytes done, bytes in all.
    Weights(&'a Case, u64, u64),
    /// A step of a case.
    Step(Step<'a>),
    /// These cases have their rows.
    Done(&'a [Record]),
}

/// Measures the cases that have no row in `folder` yet, point by point, and writes each point's rows
/// before the next one starts. Fails only where the results cannot be written.
pub fn run(
    scenario: &Scenario,
    cases: Vec<Case>,
    conditions: &Conditions,
    folder: &mut Folder,
    mut progress: impl FnMut(Progress<'_>),
) -> anyhow::Result<()> {
    let deadline =
        scenario.limits.scenario.map(|limit| Instant::now() + Duration::from_nanos(limit.0));
    let stopping = Stopping {
        warmup: scenario.trials.warm_up,
        min_trials: scenario.trials.min,
        max_trials: scenario.trials.max,
        target: scenario.trials.interval.0,
        trial_limit: Duration::from_nanos(scenario.limits.trial.0),
        case_limit: Duration::from_nanos(scenario.limits.case.0),
        deadline,
    };
    let idle = idle_power();
    let mut loaded_cold = BTreeSet::new();
    let open: Vec<_> = cases.into_iter().filter(|c| !folder.has(&c.id.0)).collect();
    for point in open.chunk_by(|case, next| case.takes_turns(next, scenario.trials.in_turn)) {
        if deadline.is_some_and(|d| Instant::now() >= d) {
            // Cases that were not reached have no row: --resume goes on with them.
            return Ok(());
        }
        let limit = scenario.limits.memory.unwrap_or(conditions.all_memory);
        // Weights that nobody would load are not made: they can fill a disk.
        let wants_weights = |case: &Case| {
            let server = servers::is_server(scenario, &case.engine);
            servers::takes_weights(scenario, &case.engine)
                && runner(scenario, case, conditions).is_some()
                && (server || too_large(case, limit).is_none())
        };
        let mut found = BTreeMap::new();
        for case in point.iter().filter(|case| wants_weights(case)) {
            let form = servers::synthetic_form(scenario, &case.engine);
            found.entry(kind_of_weights(case, form)).or_insert_with(|| {
                weights::resolve(scenario, case, form, &conditions.cache, &mut |done, all| {
                    progress(Progress::Weights(case, done, all));
                })
            });
        }
        let subjects: Vec<_> = point
            .iter()
            .map(|case| {
                let cold = loaded_cold.insert((
                    case.engine.clone(),
                    case.model.clone(),
                    case.quant.clone(),
                ));
                let form = servers::synthetic_form(scenario, &case.engine);
                let unwanted = Err("no case of this point needs weights of ours".to_owned());
                let weights = found.get(&kind_of_weights(case, form)).unwrap_or(&unwanted);
                subject(scenario, case, weights, conditions, cold)
            })
            .collect();
        let threads = point[0].settings.threads.unwrap_or(conditions.threads);
        let largest = found.values().flatten().map(|weights| weights.bytes.0).max().unwrap_or(0);
        let together = largest * subjects.len() as u64;
        let turns: Vec<Vec<Subject>> = if together > conditions.memory.0 {
            subjects.into_iter().map(|s| vec![s]).collect()
        } else {
            vec![subjects]
        };
        for mut subjects in turns {
            if deadline.is_some_and(|d| Instant::now() >= d) {
                return Ok(());
            }
            // One time for all that is measured in turns: equal times tell a comparison of pairs.
            let started = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            for subject in &mut subjects {
                subject.row.started.clone_from(&started);
            }
            let measured = measure::measure(subjects, &stopping, threads, &idle, |step| {
                progress(Progress::Step(step))
            });
            if measured.is_empty() {
                return Ok(());
            }
            let (mut records, trials): (Vec<_>, Vec<_>) = measured.into_iter().unzip();
            compare_in_process(scenario, &mut records, folder.records());
            folder.add(records.clone(), &trials.concat())?;
            progress(Progress::Done(&records));
        }
    }
    Ok(())
}

/// What weights of a point's one model and quantisation can differ by.
fn kind_of_weights(case: &Case, form: Synthetic) -> (Synthetic, Option<u32>, String) {
    (form, case.settings.group_size, case.weights.to_string())
}

/// Puts the figures of engines in process beside those of the servers that compute with them;
/// `before` are the rows of the run so far.
fn compare_in_process(scenario: &Scenario, records: &mut [Record], before: &[Record]) {
    for i in 0..records.len() {
        let Some(engine) = servers::in_process(scenario, &records[i].engine) else { continue };
        let same = |other: &&Record| {
            let served = &records[i];
            // The hash is of the tokens: equal work of the same model.
            other.engine == engine
                && other.trials > 0
                && other.token_hash.is_some()
                && (&other.token_hash, &other.load) == (&served.token_hash, &served.load)
                && (&other.model, &other.quant) == (&served.model, &served.quant)
        };
        let other = records.iter().chain(before).find(same).cloned();
        if let Some(other) = other.filter(|_| !is_search(&records[i])) {
            load::compare_in_process(&mut records[i], &other);
        }
    }
}

/// Whether a row is a search's: two of them show different loads.
fn is_search(record: &Record) -> bool {
    record.slo_probes.is_some()
}

/// The machine's idle power, where a counter can be read; else it would be five seconds for nothing.
fn idle_power() -> IdlePower {
    let glance = watch::idle_power(Duration::from_millis(1));
    if glance.package.is_none() && glance.gpus.iter().all(Option::is_none) {
        return glance;
    }
    watch::idle_power(IDLE)
}

fn subject(
    scenario: &Scenario,
    case: &Case,
    found: &Result<Weights, String>,
    conditions: &Conditions,
    cold_load: bool,
) -> Subject {
    let mut case = case.clone();
    case.settings.threads.get_or_insert(conditions.threads);
    let served = servers::is_server(scenario, &case.engine);
    let program = runner(scenario, &case, conditions).ok_or_else(|| {
        let remedy = scenario::remedy(runner_name(scenario, &case));
        format!("the runner is missing; type: {remedy}")
    });
    let environment = if served { servers::environment(scenario, &case) } else { Vec::new() };
    let ours = servers::takes_weights(scenario, &case.engine);
    let own = found.as_ref().ok().filter(|_| ours);
    // A server that somebody else runs knows the model by its name.
    let model = match found {
        _ if !ours => Ok(PathBuf::from(&case.model)),
        Ok(weights) => Ok(weights.path.clone()),
        Err(reason) => Err(reason.clone()),
    };
    let vocabulary = match found {
        Ok(weights) => weights.vocabulary,
        Err(_) => models::find(&case.model).map_or(0, |spec| spec.vocab),
    };
    let mut row = Record {
        case_id: case.id.to_string(),
        scenario: scenario.name.clone(),
        engine: case.engine.clone(),
        model: case.model.clone(),
        quant: case.quant.clone(),
        weights: label(&case.weights),
        prompt_tokens: case.prompt_tokens.0,
        new_tokens: case.new_tokens.0,
        depth: case.depth.0,
        batch: case.batch(),
        concurrency: case.concurrency(),
        rate_per_s: case.load.rate(),
        load: Some(case.load.to_string()),
        workload: case.mix.as_ref().map(Mix::words),
        slots: Some(case.slots()),
        settings: crate::cases::settings_text(&case.settings),
        bench_version: env!("CARGO_PKG_VERSION").to_owned(),
        host: conditions.host.clone(),
        model_bytes: own.filter(|w| w.stored).map(|w| w.bytes.0),
        model_sha256: own.and_then(|w| w.sha256.clone()),
        bits_per_weight: own.and_then(|w| w.bits_per_weight),
        ..Record::default()
    };
    let limit = scenario.limits.memory.unwrap_or(conditions.all_memory);
    if let Some(reason) = too_large(&case, limit).filter(|_| !served) {
        row.outcome = Outcome::OutOfMemory;
        row.reason = Some(reason);
    }
    Subject {
        program,
        environment,
        slo: scenario.slo,
        model,
        vocabulary,
        bytes_per_token: own.and_then(|own| weights::bytes_per_token_of(&case, own)).map(|b| b.0),
        row,
        cold_load: cold_load && matches!(case.load, Load::Batch(_)),
        case,
    }
}

/// In words which runners that were built for a GPU are there and are not used, and why.
pub fn passed_over(scenario: &Scenario, cases: &[Case], conditions: &Conditions) -> Vec<String> {
    let names: BTreeSet<&str> = cases.iter().map(|case| runner_name(scenario, case)).collect();
    let found = names.iter().filter_map(|name| locate::locate(name, &conditions.runners));
    found.flat_map(|found| found.passed_over).collect()
}

/// The name of the runner of a case's engine: all servers have one client.
fn runner_name<'a>(scenario: &Scenario, case: &'a Case) -> &'a str {
    if servers::is_server(scenario, &case.engine) { servers::CLIENT } else { &case.engine }
}

fn runner(scenario: &Scenario, case: &Case, conditions: &Conditions) -> Option<PathBuf> {
    let found = locate::locate(runner_name(scenario, case), &conditions.runners)?;
    Some(found.program)
}

/// Why a case is not started: it could take the machine down.
fn too_large(case: &Case, limit: Bytes) -> Option<String> {
    let expected = weights::expected_memory(case).filter(|expected| *expected > limit)?;
    Some(format!("expected to need {expected} of {limit}; limits.memory can raise the limit"))
}

/// Where weights come from, without the folders of a path: they can name a person.
fn label(source: &Source) -> String {
    match source {
        Source::File(path) => path
            .file_name()
            .map_or_else(|| "file".to_owned(), |name| name.to_string_lossy().into_owned()),
        other => other.to_string(),
    }
}

/// The newest folder under `root` that an earlier run of the scenario on this machine left.
pub fn newest_folder(root: &Path, host: &str, scenario: &str) -> Option<PathBuf> {
    let ending = format!("-{host}-{scenario}");
    let mut found: Vec<_> = std::fs::read_dir(root)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let Some(name) = path.file_name().and_then(|n| n.to_str()) else { return false };
            let stem = name.rsplit_once('-').filter(|(_, n)| n.parse::<u32>().is_ok());
            name.ends_with(&ending) || stem.is_some_and(|(stem, _)| stem.ends_with(&ending))
        })
        .filter_map(|path| Some((path.join("records.csv").metadata().ok()?.modified().ok()?, path)))
        .collect();
    found.sort();
    found.pop().map(|(_, path)| path)
}
