//! The energy of a trial, of its prompts and of its generation apart.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::energy::Boundary;
use super::meter::{Metered, Steps};
use crate::units::{Joules, Nanos, Watts};

/// How long after a window the counter may take to move: NVML's move some ten times a second.
const PATIENCE: Duration = Duration::from_millis(500);

/// A time of a trial, in nanoseconds after its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it starts.
    pub from_ns: u64,
    /// Where it ends.
    pub to_ns: u64,
}

/// The times of a trial whose energy is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spans {
    /// From the first request to the last token.
    pub whole: Span,
    /// To the first token of the last request to have one; absent where prompts and generation
    /// overlap.
    pub prefill: Option<Span>,
    /// From there on.
    pub decode: Option<Span>,
}

/// What counters showed in a window, gross; absent where there is no counter, or where it did not
/// move on both sides of the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Window {
    /// Its length.
    pub time: Nanos,
    /// The processor packages.
    pub package: Option<Metered>,
    /// Each GPU.
    pub gpus: Vec<Option<Metered>>,
}

impl Window {
    /// Both windows together; what either lacks, the sum lacks.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let both = |a: Option<Metered>, b: Option<Metered>| Some(a?.plus(b?));
        let gpus = self.gpus.iter().zip(&other.gpus);
        Self {
            time: Nanos(self.time.0 + other.time.0),
            package: both(self.package, other.package),
            gpus: gpus.map(|(a, b)| both(*a, *b)).collect(),
        }
    }

    /// The energy within a boundary: all packages, or the GPUs at these places.
    pub fn energy(&self, boundary: Boundary, gpus: &[usize]) -> Option<Metered> {
        match boundary {
            Boundary::Package => self.package,
            Boundary::Gpu => {
                let figures = gpus.iter().map(|place| self.gpus.get(*place).copied().flatten());
                figures.reduce(|a, b| Some(a?.plus(b?))).flatten()
            }
        }
    }
}

/// What the devices take when idle, within a boundary.
pub fn idle_watts(idle: &super::IdlePower, boundary: Boundary, gpus: &[usize]) -> Option<Watts> {
    match boundary {
        Boundary::Package => idle.package,
        Boundary::Gpu => {
            let watts = gpus.iter().map(|place| idle.gpus.get(*place).copied().flatten());
            let sum = watts.map(|w| w.map(|w| w.0)).sum::<Option<f64>>()?;
            (!gpus.is_empty()).then_some(Watts(sum))
        }
    }
}

/// The energy of a trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrialEnergy {
    /// The trial's number.
    pub trial: u32,
    /// From the first request to the last token.
    pub whole: Window,
    /// The prompts.
    pub prefill: Option<Window>,
    /// The generation.
    pub decode: Option<Window>,
}

/// The counters' steps, and the windows that wait for a step behind them.
#[derive(Debug)]
pub struct Meters {
    start: Instant,
    package: Steps,
    gpus: Vec<Steps>,
    waiting: Vec<(u32, u64, Spans)>,
    done: Vec<TrialEnergy>,
}

impl Meters {
    /// No reading yet.
    pub fn new(start: Instant) -> Self {
        let (package, gpus) = (Steps::default(), Vec::new());
        Self { start, package, gpus, waiting: Vec::new(), done: Vec::new() }
    }

    fn since_start(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.start).as_nanos() as u64
    }

    /// Takes a reading of every counter that there is, then the figures of the windows that are
    /// behind their last step.
    pub fn read(&mut self, at: Instant, package: Option<Joules>, gpus: &[Option<Joules>]) {
        let at_ns = self.since_start(at);
        if let Some(joules) = package {
            self.package.read(at_ns, joules);
        }
        self.gpus.resize_with(gpus.len(), Steps::default);
        for (steps, joules) in self.gpus.iter_mut().zip(gpus) {
            if let Some(joules) = joules {
                steps.read(at_ns, *joules);
            }
        }
        for (trial, epoch_ns, spans) in std::mem::take(&mut self.waiting) {
            let end_ns = epoch_ns + spans.whole.to_ns;
            let late = at_ns > end_ns + PATIENCE.as_nanos() as u64;
            if late || self.counters().all(|steps| steps.passed(end_ns)) {
                let window = |span: Span| self.window(epoch_ns, span);
                self.done.push(TrialEnergy {
                    trial,
                    whole: window(spans.whole),
                    prefill: spans.prefill.map(window),
                    decode: spans.decode.map(window),
                });
            } else {
                self.waiting.push((trial, epoch_ns, spans));
            }
        }
    }

    /// The counters that have shown anything.
    fn counters(&self) -> impl Iterator<Item = &Steps> {
        self.gpus.iter().chain([&self.package]).filter(|steps| !steps.is_empty())
    }

    fn window(&self, epoch_ns: u64, span: Span) -> Window {
        let energy = |steps: &Steps| steps.between(epoch_ns + span.from_ns, epoch_ns + span.to_ns);
        Window {
            time: Nanos(span.to_ns.saturating_sub(span.from_ns)),
            package: energy(&self.package),
            gpus: self.gpus.iter().map(energy).collect(),
        }
    }

    /// A trial starts: earlier readings are of no use, unless a window waits.
    pub fn trial_starts(&mut self, at: Instant) {
        if self.waiting.is_empty() {
            let at_ns = self.since_start(at);
            for steps in self.gpus.iter_mut().chain([&mut self.package]) {
                steps.forget(at_ns);
            }
        }
    }

    /// Asks for the energy of a trial that started at `epoch`.
    pub fn ask(&mut self, trial: u32, epoch: Instant, spans: Spans) {
        if self.has_counter() {
            self.waiting.push((trial, self.since_start(epoch), spans));
        }
    }

    /// Whether any counter can be read.
    pub fn has_counter(&self) -> bool {
        self.counters().next().is_some()
    }

    /// Whether a window waits for its counters to move.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The energy of the trials that were asked for.
    pub fn into_done(self) -> Vec<TrialEnergy> {
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::IdlePower;

    const MS: u64 = 1_000_000;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    /// Readings every 20 ms of two GPUs whose counters move every 100 ms: one at 100 W, the other at
    /// 500 W until 4 s, then at 300 W.
    fn record(meters: &mut Meters, start: Instant, from: u64, to: u64) {
        for ms in (from..to).step_by(20) {
            let shown = (ms / 100 * 100) as f64 / 1e3;
            let busy = 500.0 * shown.min(4.0) + 300.0 * (shown - 4.0).max(0.0);
            meters.read(at(start, ms), None, &[Some(Joules(100.0 * shown)), Some(Joules(busy))]);
        }
    }

    fn spans() -> Spans {
        let span = |from: u64, to: u64| Span { from_ns: from * MS, to_ns: to * MS };
        let (prefill, decode) = (Some(span(0, 2000)), Some(span(2000, 6000)));
        Spans { whole: span(0, 6000), prefill, decode }
    }

    #[test]
    fn prefill_and_decode_are_told_apart_and_wait_for_the_counter() {
        let start = Instant::now();
        let mut meters = Meters::new(start);
        record(&mut meters, start, 0, 8000);
        meters.ask(3, at(start, 2000), spans());
        assert!(meters.is_waiting(), "the counter has not moved behind the trial");
        record(&mut meters, start, 8000, 8300);
        assert!(!meters.is_waiting());
        let done = meters.into_done();
        let of = |window: &Window, gpus: &[usize]| {
            window.energy(Boundary::Gpu, gpus).expect("a figure").likely.0
        };
        let [energy] = done.as_slice() else { panic!("{done:?}") };
        let (prefill, decode) = (energy.prefill.as_ref(), energy.decode.as_ref());
        assert_eq!(energy.trial, 3);
        assert!((of(prefill.expect("one"), &[1]) - 1000.0).abs() < 25.0);
        assert!((of(decode.expect("one"), &[1]) - 1200.0).abs() < 25.0);
        assert!((of(&energy.whole, &[1]) - 2200.0).abs() < 25.0);
        assert!((of(&energy.whole, &[0, 1]) - 2800.0).abs() < 40.0, "both cards");
        assert_eq!(energy.whole.energy(Boundary::Package, &[1]), None);
        assert_eq!(energy.whole.energy(Boundary::Gpu, &[]), None);
        assert_eq!(energy.whole.energy(Boundary::Gpu, &[2]), None);
    }

    #[test]
    fn a_counter_that_stands_still_is_waited_for_half_a_second_and_gives_no_figure() {
        let start = Instant::now();
        let mut meters = Meters::new(start);
        record(&mut meters, start, 0, 8000);
        meters.ask(0, at(start, 2000), spans());
        for ms in (8000..8600).step_by(20) {
            meters.read(at(start, ms), None, &[Some(Joules(790.0)), Some(Joules(3170.0))]);
        }
        assert!(!meters.is_waiting());
        assert_eq!(meters.into_done()[0].whole.energy(Boundary::Gpu, &[1]), None);
    }

    #[test]
    fn without_a_counter_nothing_is_waited_for() {
        let start = Instant::now();
        let mut meters = Meters::new(start);
        meters.read(start, None, &[None]);
        meters.ask(0, start, spans());
        assert!(!meters.has_counter() && !meters.is_waiting());
    }

    #[test]
    fn idle_power_is_that_of_the_gpus_in_use() {
        let idle = IdlePower {
            package: Some(Watts(20.0)),
            gpus: vec![Some(Watts(30.0)), Some(Watts(50.0)), None],
        };
        assert_eq!(idle_watts(&idle, Boundary::Gpu, &[0, 1]), Some(Watts(80.0)));
        assert_eq!(idle_watts(&idle, Boundary::Package, &[1]), Some(Watts(20.0)));
        assert_eq!(idle_watts(&idle, Boundary::Gpu, &[1, 2]), None);
        assert_eq!(idle_watts(&idle, Boundary::Gpu, &[]), None);
    }
}
