//! An engine without a model: it takes exactly the time it is told to take, and misbehaves on
//! demand, so that the harness can be tested through its real pipes.

mod faults;
mod parameters;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use bench::runner::batching::{self, Chunk, Stepper};
use bench::runner::{
    Fault, LoadReport, Model, Request, Runner, Schedule, Settings, TokenSink, Version,
};
use bench::units::Bytes;

use faults::Misbehaviour;
use parameters::Parameters;

/// The last part of a wait is spun: a sleeping thread wakes up to 100 µs late.
const SPIN: Duration = Duration::from_micros(200);

/// A step that begins later than this after the one before starts a new schedule.
const IDLE: Duration = Duration::from_millis(20);

/// The engine: its schedule, and what it was told to do wrong.
struct Mock {
    parameters: Parameters,
    settings: Settings,
    /// When the step before was due to end.
    due: Option<Instant>,
    /// State of the pseudo-random deviation of step times.
    random: u64,
    trials: u32,
    tokens: u32,
    /// Memory that was asked for, so that a peak can be measured.
    held: Vec<u8>,
}

impl Runner for Mock {
    const NAME: &'static str = "mock";

    fn version() -> anyhow::Result<Version> {
        let parameters = Parameters::from_environment()?;
        if parameters.fault == Some(Misbehaviour::NoVersion) {
            anyhow::bail!("the mock engine was told to have no version");
        }
        Ok(Version {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: "portable".to_owned(),
            backend: "CPU".to_owned(),
        })
    }

    fn load(model: &Model, settings: &Settings) -> anyhow::Result<Self> {
        let start = Instant::now();
        let parameters = Parameters::of(&model.path)
            .with_context(|| format!("model '{}'", model.path.display()))?;
        faults::on_load(&parameters)?;
        let held = vec![1; (parameters.memory_mib as usize) << 20];
        wait_until(start + Duration::from_secs_f64(parameters.load_seconds()));
        Ok(Self {
            random: parameters.seed,
            parameters,
            settings: settings.clone(),
            due: None,
            trials: 0,
            tokens: 0,
            held,
        })
    }

    fn report(&self) -> LoadReport {
        LoadReport {
            weights_bytes: Some(Bytes(self.held.len() as u64)),
            kv_bytes: Some(Bytes(0)),
            compute_bytes: None,
            effective: self.parameters.effective(&self.settings),
            ..LoadReport::default()
        }
    }

    fn prepare(&mut self, _requests: &[Request]) -> anyhow::Result<()> {
        Ok(())
    }

    fn generate(
        &mut self,
        requests: &[Request],
        schedule: Schedule,
        sinks: &mut [TokenSink],
    ) -> anyhow::Result<()> {
        self.trials += 1;
        self.tokens = 0;
        self.due = None;
        if self.misbehaves() == Some(Misbehaviour::EarlyEnd) {
            let shorter: Vec<_> = requests
                .iter()
                .map(|request| {
                    let half = request.output.len().div_ceil(2);
                    Request { output: request.output[..half].to_vec(), ..request.clone() }
                })
                .collect();
            return batching::generate(self, &shorter, schedule, sinks);
        }
        batching::generate(self, requests, schedule, sinks)
    }

    fn logits(&mut self, tokens: &[u32]) -> anyhow::Result<Vec<Vec<f32>>> {
        // Each row depends on all tokens up to its own, as an engine's does.
        let mut state = self.parameters.seed;
        Ok(tokens
            .iter()
            .map(|&token| {
                state = state.wrapping_add(u64::from(token));
                (0..self.parameters.vocabulary).map(|_| uniform(&mut state) as f32).collect()
            })
            .collect())
    }
}

impl Mock {
    /// The fault that is due in this trial.
    fn misbehaves(&self) -> Option<Misbehaviour> {
        self.parameters.fault.filter(|_| self.trials >= self.parameters.fault_trial)
    }

    /// Seconds of one step: prompt tokens at the prompt's speed, then one round of generation,
    /// which costs `batch_cost` of a round more for each further sequence.
    fn step_seconds(&mut self, prompt: usize, generating: usize) -> f64 {
        let p = &self.parameters;
        let mut seconds = prompt as f64 / p.prefill_tps;
        if generating > 0 {
            seconds += (1.0 + p.batch_cost * (generating - 1) as f64) / p.decode_tps;
        }
        seconds *= p.slowness();
        let jitter = self.parameters.jitter;
        seconds * (1.0 + jitter * (2.0 * uniform(&mut self.random) - 1.0))
    }
}

impl Stepper for Mock {
    fn batch_tokens(&self) -> usize {
        self.settings.batch_tokens.unwrap_or(2048) as usize
    }

    fn slots(&self) -> usize {
        self.settings.slots.max(1) as usize
    }

    fn forget(&mut self, _sequence: u32) -> anyhow::Result<()> {
        Ok(())
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> anyhow::Result<()> {
        // One token with logits behind the prompt is a round of generation; a prompt of one token
        // is counted as one too, as an engine would compute it.
        let generating = chunks.iter().filter(|c| c.tokens.len() == 1 && c.logits).count();
        let all: usize = chunks.iter().map(|c| c.tokens.len()).sum();
        let now = Instant::now();
        // The schedule is absolute, so that a late wake-up does not add up over a trial.
        let start = self.due.filter(|&due| now < due + IDLE).unwrap_or(now);
        let due = start + Duration::from_secs_f64(self.step_seconds(all - generating, generating));
        wait_until(due);
        self.due = Some(due);
        let before = self.tokens;
        self.tokens += chunks.iter().filter(|c| c.logits).count() as u32;
        if (before + 1..=self.tokens).contains(&self.parameters.fault_token)
            && let Some(fault) = self.misbehaves()
        {
            faults::in_trial(fault)?;
        }
        Ok(())
    }
}

/// Returns at `deadline`, within microseconds.
fn wait_until(deadline: Instant) {
    let left = deadline.saturating_duration_since(Instant::now());
    if left > SPIN {
        std::thread::sleep(left - SPIN);
    }
    while Instant::now() < deadline {
        std::hint::spin_loop();
    }
}

/// The next number in 0..1 (SplitMix64: Steele, Lea, Flood, OOPSLA 2014).
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// A failure of the mock that a record's outcome tells apart.
fn fault(kind: Fault, words: &'static str) -> anyhow::Error {
    anyhow::Error::new(kind).context(words)
}

fn main() -> ExitCode {
    if let Err(error) = faults::keep_protocol_stream().and_then(|()| faults::before_hello()) {
        eprintln!("mock: {error:#}");
        return ExitCode::FAILURE;
    }
    bench::runner::serve::serve::<Mock>()
}
