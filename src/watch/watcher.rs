//! The thread that samples: process trees, devices, counters.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::device::Devices;
use super::energy::Packages;
#[cfg(not(target_os = "linux"))]
use super::portable::Tree;
#[cfg(target_os = "linux")]
use super::process::Tree;
use super::process::{self, Usage};
use super::window::Meters;
use super::{Lap, Observed, Order, Resident, Turn};
use crate::host;
use crate::units::{Bytes, Joules, Nanos};

/// Time between two samples: ten a second.
const PERIOD: Duration = Duration::from_millis(100);

/// The same while another has its turn: nothing happens here then, and many that wait would keep a
/// core busy together.
const WAITING: Duration = Duration::from_secs(1);

/// Time between two readings of the energy counters while a trial runs: how exactly it is known
/// when they moved.
const METER_PERIOD: Duration = Duration::from_millis(20);

/// Counters that only grow, at one moment.
#[derive(Clone, Debug, Default)]
struct Counters {
    tree_cpu: Option<Duration>,
    harness_cpu: Option<Duration>,
    busy_cpu: Option<Duration>,
    major_faults: Option<u64>,
    package: Option<Joules>,
    gpus: Vec<Option<Joules>>,
}

pub struct Watcher {
    tree: Tree,
    watched: bool,
    cores: Vec<u32>,
    devices: Result<Devices, String>,
    packages: Result<Packages, String>,
    meters: Meters,
    usage: Usage,
    throttles: Option<u64>,
    started: (Instant, Counters),
    lap: (Instant, Counters),
    turn: Turn,
    trial: (Instant, Counters),
    trials: Option<Lap>,
    /// Why the memory that matters cannot be seen.
    blind: Option<String>,
    observed: Observed,
}

impl Watcher {
    /// Takes the first sample.
    pub fn start(roots: &[u32]) -> Self {
        let cores = roots.first().map_or_else(
            || process::allowed_cores(std::process::id()),
            |pid| process::allowed_cores(*pid),
        );
        let mut watcher = Self {
            tree: Tree::new(roots),
            watched: !roots.is_empty(),
            cores: cores.unwrap_or_default(),
            devices: Devices::open(),
            packages: Packages::open(),
            meters: Meters::new(Instant::now()),
            usage: Usage::default(),
            throttles: process::thermal_throttles(),
            started: (Instant::now(), Counters::default()),
            lap: (Instant::now(), Counters::default()),
            turn: Turn::Loading,
            trial: (Instant::now(), Counters::default()),
            trials: None,
            blind: None,
            observed: Observed::default(),
        };
        watcher.sample();
        watcher.started = (Instant::now(), watcher.counters());
        watcher.lap = watcher.started.clone();
        watcher
    }

    /// Samples, and follows the orders, until the last of them.
    pub fn run(&mut self, orders: &Receiver<Order>) {
        let mut next = Instant::now() + self.period();
        loop {
            let metering =
                self.meters.has_counter() && (self.turn == Turn::Trial || self.meters.is_waiting());
            let left = next.saturating_duration_since(Instant::now());
            match orders.recv_timeout(if metering { left.min(METER_PERIOD) } else { left }) {
                Ok(Order::Lap(reply)) => {
                    self.sample();
                    let now = (Instant::now(), self.counters());
                    let lap = self.between(&self.lap, &now);
                    self.lap = now;
                    // Nobody waits any more: nothing is lost.
                    let _ = reply.send(lap);
                }
                Ok(Order::Also(pid)) => {
                    self.tree.also(pid);
                    self.observed.peak_memory = None;
                    self.sample();
                }
                Ok(Order::Blind(why)) => self.blind = Some(why),
                Ok(Order::Meter(trial, started, spans)) => self.meters.ask(trial, started, spans),
                Ok(Order::Turn(turn, reply)) => {
                    self.take_turn(turn);
                    next = Instant::now() + self.period();
                    // Nobody waits any more: nothing is lost.
                    let _ = reply.send(());
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < next => self.read_meters(),
                Err(RecvTimeoutError::Timeout) => {
                    self.sample();
                    // Late samples are not made up for.
                    next = (next + self.period()).max(Instant::now());
                }
                Ok(Order::Finish) | Err(RecvTimeoutError::Disconnected) => {
                    // A trial that was cut short was a trial.
                    if self.turn == Turn::Trial {
                        self.take_turn(Turn::Other);
                    } else {
                        self.sample();
                    }
                    while self.meters.is_waiting() {
                        std::thread::sleep(METER_PERIOD);
                        self.read_meters();
                    }
                    return;
                }
            }
        }
    }

    /// Time until the next sample.
    fn period(&self) -> Duration {
        if self.turn == Turn::Other { WAITING } else { PERIOD }
    }

    /// Gives the energy counters' readings to the windows that need them.
    fn read_meters(&mut self) {
        let package = self.packages.as_mut().ok().map(Packages::joules);
        let gpus = self.devices.as_ref().map_or_else(|_| Vec::new(), Devices::joules);
        self.meters.read(Instant::now(), package, &gpus);
    }

    fn take_turn(&mut self, turn: Turn) {
        // What came until now belongs to the turn that ends.
        self.sample();
        let now = (Instant::now(), self.counters());
        if self.turn == Turn::Trial {
            let trial = self.between(&self.trial, &now);
            self.trials = Some(self.trials.as_ref().map_or(trial.clone(), |t| t.plus(&trial)));
        }
        if turn == Turn::Trial {
            self.meters.trial_starts(now.0);
        }
        self.trial = now;
        self.turn = turn;
        if let Ok(devices) = &mut self.devices {
            devices.turn(turn == Turn::Trial, turn == Turn::Other);
        }
    }

    fn sample(&mut self) {
        let seen = &mut self.observed;
        seen.samples += 1;
        if let Some(usage) = self.tree.read() {
            // CPU time of a process that died unwaited for would go backwards.
            let cpu = usage.cpu.max(self.usage.cpu);
            let major_faults = usage.major_faults.max(self.usage.major_faults);
            self.usage = Usage { cpu, major_faults, ..usage };
            seen.processes = seen.processes.max(usage.processes);
            seen.peak_memory = seen.peak_memory.max(Some(Bytes(usage.high_water)));
            if cfg!(target_os = "linux") {
                seen.swap = seen.swap.max(Some(Bytes(usage.swap)));
                let before = seen.resident.map_or(0, |r| r.anonymous.0 + r.file.0);
                if usage.resident().0 > before {
                    seen.resident = Some(Resident {
                        anonymous: Bytes(usage.anonymous),
                        file: Bytes(usage.file),
                    });
                }
            }
        }
        if let Ok(devices) = &mut self.devices {
            let pids: BTreeSet<u32> = self.tree.pids().collect();
            devices.read(&pids, self.turn != Turn::Other);
        }
        self.read_meters();
    }

    fn counters(&mut self) -> Counters {
        let alive = self.observed.processes > 0;
        Counters {
            tree_cpu: alive.then_some(self.usage.cpu),
            harness_cpu: process::own_cpu(),
            busy_cpu: process::busy_cpu(&self.cores),
            major_faults: (alive && cfg!(target_os = "linux")).then_some(self.usage.major_faults),
            package: self.packages.as_mut().ok().map(Packages::joules),
            gpus: self.devices.as_ref().map_or_else(|_| Vec::new(), Devices::joules),
        }
    }

    fn between(&self, from: &(Instant, Counters), to: &(Instant, Counters)) -> Lap {
        let (start, end) = (&from.1, &to.1);
        let cpu = |a: Option<Duration>, b: Option<Duration>| Some(b?.saturating_sub(a?));
        let nanos = |d: Duration| Nanos(d.as_nanos() as u64);
        let joules = |a: Option<Joules>, b: Option<Joules>| Some(Joules(b?.0 - a?.0));
        let tree = cpu(start.tree_cpu, end.tree_cpu);
        let harness = cpu(start.harness_cpu, end.harness_cpu);
        let busy = cpu(start.busy_cpu, end.busy_cpu);
        // Without a tree of ours all but the harness is others'.
        let ours = if self.watched { tree } else { Some(Duration::ZERO) };
        let other = busy.zip(ours).zip(harness).map(|((b, t), h)| b.saturating_sub(t + h));
        Lap {
            time: nanos(to.0 - from.0),
            tree_cpu: tree.map(nanos),
            harness_cpu: harness.map(nanos),
            other_cpu: other.map(nanos),
            cores: (!self.cores.is_empty()).then_some(self.cores.len() as u32),
            major_faults: start.major_faults.zip(end.major_faults).map(|(a, b)| b - a),
            package: joules(start.package, end.package),
            gpus: start.gpus.iter().zip(&end.gpus).map(|(a, b)| joules(*a, *b)).collect(),
        }
    }

    /// What was seen.
    pub fn observed(mut self) -> Observed {
        let now = (Instant::now(), self.counters());
        let whole = self.between(&self.started, &now);
        let mut seen = std::mem::take(&mut self.observed);
        seen.gpus = self.devices.as_ref().map_or_else(|_| Vec::new(), Devices::observed);
        seen.power_source = host::power_source();
        seen.governor = host::governor();
        seen.thermal_throttles = self
            .throttles
            .zip(process::thermal_throttles())
            .map(|(before, after)| after.saturating_sub(before));
        let used = seen.gpus_used();
        let mut absent =
            |name: &str, why: &str| seen.absent.insert(name.to_owned(), why.to_owned());
        if let Some(why) = &self.blind {
            seen.peak_memory = None;
            seen.resident = None;
            absent("peak_memory", why);
            absent("energy", why);
        } else if seen.peak_memory.is_none() && self.watched {
            absent("peak_memory", "the process was not there when it was looked for");
        }
        match &self.devices {
            Err(why) => {
                absent("peak_device_memory", why);
                absent("gpu_energy", why);
            }
            Ok(_) if used.is_empty() => {
                let why = "no memory on a GPU was used";
                absent("peak_device_memory", why);
                absent("gpu_energy", why);
            }
            Ok(_) => {
                let counted = |gpu: usize| whole.gpus.get(gpu).is_some_and(Option::is_some);
                if !used.into_iter().all(counted) {
                    absent("gpu_energy", "the GPU has no energy counter");
                }
            }
        }
        if let Err(why) = &self.packages {
            absent("package_energy", why);
        }
        if whole.other_cpu.is_none() {
            absent("other_cpu", "this operating system does not tell CPU time core by core");
        }
        seen.whole = whole;
        seen.trials = self.trials;
        // The counters here are not those of whoever computes elsewhere.
        seen.energy = if self.blind.is_some() { Vec::new() } else { self.meters.into_done() };
        seen
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::watch::device::tests::steady;
    use crate::watch::{Span, Spans};

    #[test]
    fn a_server_on_another_machine_has_no_energy_of_ours() {
        let (orders, inbox) = mpsc::channel();
        let mut watcher = Watcher::start(&[]);
        watcher.devices = Ok(steady(200));
        watcher.read_meters();
        let span = Span { from_ns: 0, to_ns: 1 };
        let spans = Spans { whole: span, prefill: None, decode: None };
        orders.send(Order::Blind("the server runs on another machine".to_owned())).unwrap();
        orders.send(Order::Meter(0, Instant::now(), spans)).unwrap();
        orders.send(Order::Finish).unwrap();
        watcher.run(&inbox);
        let seen = watcher.observed();
        assert!(seen.energy.is_empty(), "{:?}", seen.energy);
        assert_eq!(seen.absent["energy"], "the server runs on another machine");
    }

    #[test]
    fn whoever_waits_for_a_turn_hardly_samples() {
        let samples = |turn: Turn| {
            let (orders, inbox) = mpsc::channel();
            let (reply, _answer) = mpsc::channel();
            orders.send(Order::Turn(turn, reply)).unwrap();
            let thread = thread::spawn(move || {
                let mut watcher = Watcher::start(&[]);
                watcher.run(&inbox);
                watcher.observed.samples
            });
            thread::sleep(Duration::from_millis(800));
            orders.send(Order::Finish).unwrap();
            thread.join().unwrap()
        };
        // At the start, at the turn and at the end.
        assert_eq!(samples(Turn::Other), 3);
        assert!(samples(Turn::Trial) > 6);
    }

    #[test]
    fn a_trial_s_energy_comes_from_the_readings_around_it() {
        const WATTS: u64 = 200;
        const MS: u64 = 1_000_000;
        let (orders, inbox) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut watcher = Watcher::start(&[]);
            watcher.devices = Ok(steady(WATTS));
            watcher.run(&inbox);
            watcher.observed()
        });
        let turn = |turn| {
            let (reply, answer) = mpsc::channel();
            orders.send(Order::Turn(turn, reply)).unwrap();
            answer.recv().unwrap();
        };
        // The counter has to be seen to move before the trial too.
        thread::sleep(Duration::from_millis(300));
        turn(Turn::Trial);
        let started = Instant::now();
        thread::sleep(Duration::from_millis(900));
        turn(Turn::Other);
        let span = |from: u64, to: u64| Span { from_ns: from * MS, to_ns: to * MS };
        let (prefill, decode) = (Some(span(0, 300)), Some(span(300, 900)));
        let spans = Spans { whole: span(0, 900), prefill, decode };
        orders.send(Order::Meter(0, started, spans)).unwrap();
        orders.send(Order::Finish).unwrap();
        let seen = thread.join().unwrap();
        assert_eq!(seen.gpus_used(), [0]);
        let [energy] = seen.energy.as_slice() else { panic!("{:?}", seen.energy) };
        let windows = [Some(&energy.whole), energy.prefill.as_ref(), energy.decode.as_ref()];
        for (window, ms) in windows.into_iter().zip([900, 300, 600]) {
            let found = window.and_then(|window| window.gpus[0]).expect("a figure");
            let truth = (WATTS * ms) as f64 / 1e3;
            // The counter itself is up to a step late, which its bounds do not know.
            let step = WATTS as f64 * 0.05;
            let (least, most) = (found.least.0 - step, found.most.0 + step);
            assert!(least <= truth && truth <= most, "{found:?} for {truth}");
        }
    }
}
