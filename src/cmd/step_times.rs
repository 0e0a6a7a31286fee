//! Step times of engines from folders of results: which rows belong together, and their samples as
//! the fit wants them.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::capacity::{self, Batches, Engine, MICRO_BATCH, Room, Seen, StepFit};
use crate::record::{Folder, Record, Trial};
use crate::runner::protocol::Sample;
use crate::units::Tokens;

/// Tokens of a step where the row does not say: the default of llama.cpp and of vLLM's server.
const STEP_TOKENS: u32 = 2048;

/// An engine with a model that was measured.
#[derive(Clone, Debug)]
pub struct MeasuredSteps {
    /// The rows that its step times rest on: one at least.
    pub from: Vec<Record>,
    /// Where they lie.
    pub folder: PathBuf,
    /// How much it computes at once.
    pub room: Room,
    /// Its step times.
    pub fit: StepFit,
}

impl MeasuredSteps {
    /// Whether `record` is of the same engine, model and quantisation.
    pub fn is_of(&self, record: &Record) -> bool {
        alike(&self.from[0], record)
    }

    /// The engine as it was measured, with caches of `slot_tokens` for each of its sequences.
    pub fn engine(&self, slot_tokens: Tokens) -> Engine {
        let cache = u64::from(self.room.sequences) * u64::from(slot_tokens.0);
        let step = self.fit.step.clone();
        let engine = match self.from[0].engine.as_str() {
            name if name.contains("vllm") => Engine::vllm(step, cache),
            _ => Engine::llama_server(step, self.room.sequences, slot_tokens),
        };
        Engine {
            name: self.from[0].engine.clone(),
            sequences: self.room.sequences,
            // `bench run` turns prefix caches off.
            reuses_prefix: false,
            ..self.as_seen(engine)
        }
    }

    /// `engine` with the steps' room, and computing its batches as the fit has found.
    pub fn as_seen(&self, engine: Engine) -> Engine {
        let Room { step_tokens, micro_batch, .. } = self.room;
        let engine = Engine { step_tokens, micro_batch, ..engine };
        match self.fit.batches {
            Batches::Whole => engine.unified(),
            Batches::Pieces => engine,
        }
    }
}

/// Whether two rows are of the same engine with the same model on the same machine.
fn alike(a: &Record, b: &Record) -> bool {
    let of = |r: &Record| {
        let Record { engine, model, quant, weights, settings, host, .. } = r.clone();
        (engine, model, quant, weights, settings, host)
    };
    of(a) == of(b)
}

/// Every engine of a folder whose steps were swept; an error of a sweep that does not suffice.
pub fn of_sweeps(path: &Path) -> anyhow::Result<Vec<MeasuredSteps>> {
    let folder = Folder::open(path)?;
    let trials: Vec<Trial<Sample>> = folder.read_trials()?;
    let mut found: Vec<MeasuredSteps> = Vec::new();
    for record in folder.records().iter().filter(|r| r.is_calibration() && r.trials > 0) {
        if found.iter().any(|steps| steps.is_of(record)) {
            continue;
        }
        let of = |r: &&Record| r.is_calibration() && alike(r, record);
        let from: Vec<Record> = folder.records().iter().filter(of).cloned().collect();
        let room = room(record);
        let fit = fit(&from, &trials, room).with_context(|| {
            format!("{}: {} {} {}", path.display(), record.engine, record.model, record.quant)
        })?;
        found.push(MeasuredSteps { from, folder: path.to_owned(), room, fit });
    }
    Ok(found)
}

fn fit(rows: &[Record], trials: &[Trial<Sample>], room: Room) -> anyhow::Result<StepFit> {
    let of = |trial: &&Trial<Sample>| {
        !trial.warmup && rows.iter().any(|row| row.case_id == trial.case_id)
    };
    let depth = rows.first().map_or(0, |row| row.depth);
    let seen: Vec<Vec<Seen>> = trials.iter().filter(of).map(|trial| seen(trial, depth)).collect();
    capacity::fit(&seen, room)
}

/// The requests of a trial that were answered.
pub fn seen(trial: &Trial<Sample>, depth: u32) -> Vec<Seen> {
    let seconds = |ns: u64| ns as f64 / 1e9;
    let whole = trial.samples.iter().filter(|sample| sample.error().is_none());
    whole
        .map(|sample| {
            let served = sample.served.as_ref();
            let cached = served.and_then(|served| served.cached_tokens).unwrap_or(0);
            // Means over a trial say nothing of one request.
            let own = served.filter(|served| !served.server_means);
            Seen {
                sent: seconds(sample.sent_ns),
                computed: sample.prompt_tokens.saturating_sub(cached),
                before: depth + cached,
                tokens: sample.token_ns.iter().map(|ns| seconds(*ns)).collect(),
                prompt: own.and_then(|served| served.server_prompt_ns).map(seconds),
                slot: served.and_then(|served| served.slot),
            }
        })
        .collect()
}

fn room(record: &Record) -> Room {
    let effective = record.effective_settings.as_deref().unwrap_or_default();
    let said = |name: &str| {
        let mut settings = effective.split(' ').chain(record.settings.split(' '));
        settings.find_map(|word| word.strip_prefix(name)?.strip_prefix('=')?.parse().ok())
    };
    Room {
        sequences: record.slots.unwrap_or(1),
        step_tokens: said("batch_tokens").unwrap_or(STEP_TOKENS),
        micro_batch: said("micro_batch").unwrap_or(MICRO_BATCH),
    }
}
