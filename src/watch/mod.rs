//! Memory, power, clocks and throttling of a process tree while it runs.

mod device;
mod energy;
mod mark;
#[cfg_attr(not(target_os = "linux"), allow(dead_code, reason = "portable reads the tree there"))]
#[cfg(target_os = "linux")]
mod port;
#[cfg(not(target_os = "linux"))]
#[path = "port_unknown.rs"]
mod port;
#[cfg(any(test, not(target_os = "linux")))]
mod portable;
mod process;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use device::{GpuObserved, MemoryBasis};
pub use energy::{Boundary, Energy};
pub use mark::{Mark, join_marks};

use self::device::Devices;
use self::energy::Packages;
#[cfg(not(target_os = "linux"))]
use self::portable::Tree;
#[cfg(target_os = "linux")]
use self::process::Tree;
use self::process::Usage;
use crate::host::{self, PowerSource};
use crate::units::{Bytes, Joules, Nanos, Share, Watts};

/// Time between two samples.
const PERIOD: Duration = Duration::from_millis(100);

/// The window in which processes are seen to rest: CPU time is counted in hundredths of a second.
const SETTLING: Duration = Duration::from_millis(200);

/// A thread that samples process trees ten times a second, from [`Watch::start`] to
/// [`Watch::finish`]. End it while the processes live: what they did last would be missed.
///
/// Where several trees are alive and take turns, tell each watch when its own tree's turn is, with
/// [`Watch::loaded`], [`Watch::trial_starts`] and [`Watch::trial_ends`]: between its turns neither
/// the CPU time of the others nor their memory on a GPU is put to its account.
#[derive(Debug)]
pub struct Watch {
    orders: Sender<Order>,
    thread: JoinHandle<Observed>,
}

enum Order {
    Lap(Sender<Lap>),
    Turn(Turn, Sender<()>),
    /// Watch this process too, which lives since before the watch.
    Also(u32),
    /// The memory that matters cannot be seen.
    Blind(String),
    Finish,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Ours, while the model loads or warms up, or for good where nobody says otherwise.
    Loading,
    /// Ours, while the clock runs.
    Trial,
    /// Another's.
    Other,
}

impl Watch {
    /// Watches a process and its descendants. Returns when the first sample is taken; what a GPU
    /// has in use then is its baseline, so start before the model is loaded.
    pub fn start(pid: u32) -> Self {
        Self::start_trees(&[pid])
    }

    /// Watches several processes with their descendants, as of a server and its client; with none,
    /// the machine alone.
    pub fn start_trees(pids: &[u32]) -> Self {
        let roots = pids.to_vec();
        let (orders, inbox) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut watcher = Watcher::start(&roots);
            // The other end is gone only if this call was given up.
            let _ = ready.send(());
            watcher.run(&inbox);
            watcher.observed()
        });
        // An error here is a thread that has ended, which `finish` tells.
        let _ = started.recv();
        Self { orders, thread }
    }

    /// The model is loaded: what GPUs take from now on is another's, until a trial starts.
    pub fn loaded(&self) {
        self.turn(Turn::Other);
    }

    /// Watches the program that listens on this TCP port of this machine too, with its descendants.
    /// It was there before: its memory is what is resident in our samples, not its peak ever. Where
    /// it cannot be found, or is none of `programs`, memory is unknown.
    pub fn listener(&self, port: u16, programs: &[String]) {
        let order = match port::listener(port, programs) {
            Ok(pid) => Order::Also(pid),
            Err(why) => Order::Blind(why),
        };
        // An error here is a thread that has ended, which `finish` tells.
        let _ = self.orders.send(order);
    }

    /// The memory that matters cannot be seen, for this reason.
    pub fn blind(&self, why: &str) {
        let _ = self.orders.send(Order::Blind(why.to_owned()));
    }

    /// A trial starts that does not count: memory is put to our account, time and energy are not.
    pub fn warm_up_starts(&self) {
        self.turn(Turn::Loading);
    }

    /// A trial of the watched processes starts. Returns when a sample is taken.
    pub fn trial_starts(&self) {
        self.turn(Turn::Trial);
    }

    /// The trial is over. Returns when a sample is taken.
    pub fn trial_ends(&self) {
        self.turn(Turn::Other);
    }

    fn turn(&self, turn: Turn) {
        let (reply, answer) = mpsc::channel();
        // An error here is a thread that has ended, which `finish` tells.
        if self.orders.send(Order::Turn(turn, reply)).is_ok() {
            let _ = answer.recv();
        }
    }

    /// What was used since the start or since the last lap. Takes a sample; call it between trials,
    /// not within one. `None` where the watching thread has died.
    pub fn lap(&self) -> Option<Lap> {
        let (reply, answer) = mpsc::channel();
        self.orders.send(Order::Lap(reply)).ok()?;
        answer.recv().ok()
    }

    /// Waits until the processes use no more than a tenth of a core, at most `limit`. Where their
    /// CPU time cannot be read it waits for nothing.
    pub fn settle(&self, limit: Duration) {
        let start = Instant::now();
        self.lap();
        while start.elapsed() < limit {
            thread::sleep(SETTLING);
            let rests = self.lap().is_none_or(|lap| {
                lap.tree_cpu.is_none_or(|cpu| cpu.seconds() <= OTHERS_CORES * lap.time.seconds())
            });
            if rests {
                return;
            }
        }
    }

    /// Takes a last sample and ends.
    pub fn finish(self) -> Observed {
        // An error here is a thread that has ended.
        let _ = self.orders.send(Order::Finish);
        self.thread.join().unwrap_or_else(|_| {
            let why = "the watching thread ended early; please report this".to_owned();
            Observed { absent: BTreeMap::from([("watch".to_owned(), why)]), ..Observed::default() }
        })
    }
}

/// What was used between two moments; what cannot be read is `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lap {
    /// The time between them.
    pub time: Nanos,
    /// CPU time of the processes.
    pub tree_cpu: Option<Nanos>,
    /// CPU time of this process, the harness.
    pub harness_cpu: Option<Nanos>,
    /// CPU time that others took on the cores that the processes may use.
    pub other_cpu: Option<Nanos>,
    /// How many those cores are.
    pub cores: Option<u32>,
    /// Pages that the processes read from disk.
    pub major_faults: Option<u64>,
    /// Energy of the processor packages.
    pub package: Option<Joules>,
    /// Energy of each GPU.
    pub gpus: Vec<Option<Joules>>,
    /// Which GPUs the processes had used by then.
    pub gpus_used: Vec<bool>,
}

impl Default for Lap {
    /// No time, and nothing known.
    fn default() -> Self {
        Self {
            time: Nanos(0),
            tree_cpu: None,
            harness_cpu: None,
            other_cpu: None,
            cores: None,
            major_faults: None,
            package: None,
            gpus: Vec::new(),
            gpus_used: Vec::new(),
        }
    }
}

impl Lap {
    /// This lap and another one together; what either cannot tell, the sum cannot.
    fn plus(&self, other: &Self) -> Self {
        let nanos = |a: Option<Nanos>, b: Option<Nanos>| Some(Nanos(a?.0 + b?.0));
        let joules = |a: Option<Joules>, b: Option<Joules>| Some(Joules(a?.0 + b?.0));
        let gpus = self.gpus.iter().zip(&other.gpus);
        Self {
            time: Nanos(self.time.0 + other.time.0),
            tree_cpu: nanos(self.tree_cpu, other.tree_cpu),
            harness_cpu: nanos(self.harness_cpu, other.harness_cpu),
            other_cpu: nanos(self.other_cpu, other.other_cpu),
            cores: other.cores,
            major_faults: self.major_faults.zip(other.major_faults).map(|(a, b)| a + b),
            package: joules(self.package, other.package),
            gpus: gpus.map(|(a, b)| joules(*a, *b)).collect(),
            gpus_used: other.gpus_used.clone(),
        }
    }

    /// Energy within a boundary, gross: all packages, or the GPUs that the processes used. The GPU's
    /// counter moves some ten times a second: a lap of less than a second is coarse.
    pub fn energy(&self, boundary: Boundary) -> Option<Joules> {
        match boundary {
            Boundary::Package => self.package,
            Boundary::Gpu => self.used_gpus(|i| self.gpus.get(i).copied().flatten().map(|j| j.0)),
        }
    }

    /// The same less what the devices take when idle. Never below zero: that would be noise.
    pub fn net_energy(&self, boundary: Boundary, idle: &IdlePower) -> Option<Joules> {
        let watts = match boundary {
            Boundary::Package => idle.package.map(|w| w.0),
            Boundary::Gpu => {
                self.used_gpus(|i| idle.gpus.get(i).copied().flatten().map(|w| w.0)).map(|j| j.0)
            }
        };
        let gross = self.energy(boundary)?.0;
        Some(Joules((gross - watts? * self.time.seconds()).max(0.0)))
    }

    /// CPU time of the harness as a share of all that the cores offered.
    pub fn harness_share(&self) -> Option<Share> {
        let offered = self.time.seconds() * f64::from(self.cores?);
        (offered > 0.0).then_some(Share(self.harness_cpu?.seconds() / offered))
    }

    /// How many cores others kept busy on average.
    pub fn other_cores(&self) -> Option<f64> {
        (self.time.0 > 0).then_some(self.other_cpu?.seconds() / self.time.seconds())
    }

    /// The sum of `figure` over the GPUs in use; `None` where none is or one has no figure.
    fn used_gpus(&self, figure: impl Fn(usize) -> Option<f64>) -> Option<Joules> {
        let used: Vec<usize> =
            self.gpus_used.iter().enumerate().filter(|(_, used)| **used).map(|u| u.0).collect();
        if used.is_empty() {
            return None;
        }
        used.into_iter().map(figure).sum::<Option<f64>>().map(Joules)
    }
}

/// What the devices take when nothing is asked of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IdlePower {
    /// The processor packages.
    pub package: Option<Watts>,
    /// Each GPU.
    pub gpus: Vec<Option<Watts>>,
}

/// Measures idle power for `time`; 5 s and more give steady figures. Measure it before the model is
/// loaded, or after: a GPU that holds a model idles higher.
pub fn idle_power(time: Duration) -> IdlePower {
    let watch = Watch::start_trees(&[]);
    thread::sleep(time);
    let whole = watch.finish().whole;
    let seconds = whole.time.seconds();
    let watts =
        |joules: Option<Joules>| joules.filter(|_| seconds > 0.0).map(|j| Watts(j.0 / seconds));
    IdlePower { package: watts(whole.package), gpus: whole.gpus.into_iter().map(watts).collect() }
}

/// What a watch has seen.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// Samples taken.
    pub samples: u32,
    /// Peak memory: the largest sum, at any moment, of each process's own high-water mark
    /// (`VmHWM`). Pages that processes share count in each.
    pub peak_memory: Option<Bytes>,
    /// Resident memory at the moment at which it was largest.
    pub resident: Option<Resident>,
    /// The most that lay in swap.
    pub swap: Option<Bytes>,
    /// Most processes at once.
    pub processes: u32,
    /// The GPUs.
    pub gpus: Vec<GpuObserved>,
    /// What was used from start to finish.
    pub whole: Lap,
    /// What was used in the trials together; `None` where none was told of.
    pub trials: Option<Lap>,
    /// What the machine ran on at the end.
    pub power_source: Option<PowerSource>,
    /// The CPU's governor at the end.
    pub governor: Option<String>,
    /// Times that the processor slowed down because it was hot; only Intel's count them.
    pub thermal_throttles: Option<u64>,
    /// Why a figure is absent, by the figure's name.
    pub absent: BTreeMap<String, String>,
}

/// Resident memory by what lies behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resident {
    /// Memory of the processes' own: heap, stacks, buffers.
    pub anonymous: Bytes,
    /// Pages of files: mapped weights, programs.
    pub file: Bytes,
}

/// Others' use of our cores, in cores, from which a row is marked.
const OTHERS_CORES: f64 = 0.1;
/// The same in a share of many cores, where the system's own work adds up.
const OTHERS_SHARE: f64 = 0.01;
/// The share of the CPU time that the harness may take.
const HARNESS_SHARE: f64 = 0.01;
/// CPU time is counted in hundredths of a second: shorter windows say nothing about shares.
const SHORTEST_FOR_SHARES: f64 = 1.0;

impl Observed {
    /// Peak memory of all GPUs together; their peaks may lie at different moments.
    pub fn peak_device_memory(&self) -> Option<Bytes> {
        let peaks: Vec<u64> = self.gpus.iter().filter_map(|g| g.peak_memory).map(|b| b.0).collect();
        (!peaks.is_empty()).then(|| Bytes(peaks.iter().sum()))
    }

    /// How the GPUs' memory was counted; `None` where there is none.
    pub fn device_memory_basis(&self) -> Option<MemoryBasis> {
        self.peak_device_memory()?;
        self.gpus.first().map(|g| g.memory_basis)
    }

    /// What was used while the clock ran: in the trials, or from start to finish where none was
    /// told of.
    pub fn timed(&self) -> &Lap {
        self.trials.as_ref().unwrap_or(&self.whole)
    }

    /// What speaks against figures that were measured meanwhile: in the trials. The marks that need more than a
    /// watch sees ([`Mark::ProbeDrift`], [`Mark::ClientLag`], [`Mark::PagesNotResident`],
    /// [`Mark::TimedOut`]) are for the caller to add.
    pub fn marks(&self) -> Vec<Mark> {
        let mut marks: Vec<Mark> = self
            .gpus
            .iter()
            .filter(|g| g.peak_memory.is_some())
            .flat_map(|g| g.throttled.iter().copied())
            .collect();
        let timed = self.timed();
        let long = timed.time.seconds() >= SHORTEST_FOR_SHARES;
        let others = timed.other_cores().filter(|_| long);
        let allowed = OTHERS_CORES.max(f64::from(timed.cores.unwrap_or(1)) * OTHERS_SHARE);
        let harness = timed.harness_share().filter(|_| long);
        // Without trials told of, loading the weights is in the window.
        let read = self.trials.as_ref().and_then(|t| t.major_faults).unwrap_or(0);
        let other_governor = |g: &String| g != "performance";
        for (holds, mark) in [
            (self.thermal_throttles.is_some_and(|n| n > 0), Mark::ThermalThrottled),
            (self.power_source == Some(PowerSource::Battery), Mark::OnBattery),
            (self.governor.as_ref().is_some_and(other_governor), Mark::Governor),
            (others.is_some_and(|cores| cores > allowed), Mark::BusyCores),
            (self.swap.is_some_and(|s| s.0 > 0), Mark::Swap),
            (harness.is_some_and(|s| s.0 > HARNESS_SHARE), Mark::HarnessCpu),
            (read > 0, Mark::PagesNotResident),
        ] {
            if holds {
                marks.push(mark);
            }
        }
        marks.sort();
        marks.dedup();
        marks
    }
}

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

struct Watcher {
    tree: Tree,
    watched: bool,
    cores: Vec<u32>,
    devices: Result<Devices, String>,
    packages: Result<Packages, String>,
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
    fn start(roots: &[u32]) -> Self {
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

    fn run(&mut self, orders: &Receiver<Order>) {
        let mut next = Instant::now() + PERIOD;
        loop {
            match orders.recv_timeout(next.saturating_duration_since(Instant::now())) {
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
                Ok(Order::Turn(turn, reply)) => {
                    self.take_turn(turn);
                    // Nobody waits any more: nothing is lost.
                    let _ = reply.send(());
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.sample();
                    // Late samples are not made up for.
                    next = Instant::now() + PERIOD;
                }
                Ok(Order::Finish) | Err(RecvTimeoutError::Disconnected) => {
                    // A trial that was cut short was a trial.
                    return if self.turn == Turn::Trial {
                        self.take_turn(Turn::Other);
                    } else {
                        self.sample();
                    };
                }
            }
        }
    }

    fn take_turn(&mut self, turn: Turn) {
        // What came until now belongs to the turn that ends.
        self.sample();
        let now = (Instant::now(), self.counters());
        if self.turn == Turn::Trial {
            let trial = self.between(&self.trial, &now);
            self.trials = Some(self.trials.as_ref().map_or(trial.clone(), |t| t.plus(&trial)));
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
        if let Ok(packages) = &mut self.packages {
            packages.joules();
        }
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
            gpus_used: self.devices.as_ref().map_or_else(|_| Vec::new(), Devices::used),
        }
    }

    fn observed(mut self) -> Observed {
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
        let mut absent =
            |name: &str, why: &str| seen.absent.insert(name.to_owned(), why.to_owned());
        if let Some(why) = &self.blind {
            seen.peak_memory = None;
            seen.resident = None;
            absent("peak_memory", why);
        } else if seen.peak_memory.is_none() && self.watched {
            absent("peak_memory", "the process was not there when it was looked for");
        }
        let on_gpu = seen.gpus.iter().any(|g| g.peak_memory.is_some());
        match &self.devices {
            Err(why) => {
                absent("peak_device_memory", why);
                absent("gpu_energy", why);
            }
            Ok(_) if !on_gpu => {
                let why = "no memory on a GPU was used";
                absent("peak_device_memory", why);
                absent("gpu_energy", why);
            }
            Ok(_) if whole.energy(Boundary::Gpu).is_none() => {
                absent("gpu_energy", "the GPU has no energy counter");
            }
            Ok(_) => {}
        }
        if let Err(why) = &self.packages {
            absent("package_energy", why);
        }
        if whole.other_cpu.is_none() {
            absent("other_cpu", "this operating system does not tell CPU time core by core");
        }
        seen.whole = whole;
        seen.trials = self.trials;
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lap() -> Lap {
        Lap {
            time: Nanos(10_000_000_000),
            tree_cpu: Some(Nanos(20_000_000_000)),
            harness_cpu: Some(Nanos(100_000_000)),
            other_cpu: Some(Nanos(500_000_000)),
            cores: Some(2),
            package: Some(Joules(500.0)),
            gpus: vec![Some(Joules(300.0)), Some(Joules(2000.0))],
            gpus_used: vec![false, true],
            ..Lap::default()
        }
    }

    #[test]
    fn energy_counts_the_gpus_in_use_and_net_is_without_idle_power() {
        let idle = IdlePower {
            package: Some(Watts(20.0)),
            gpus: vec![Some(Watts(30.0)), Some(Watts(50.0))],
        };
        assert_eq!(lap().energy(Boundary::Gpu), Some(Joules(2000.0)));
        assert_eq!(lap().net_energy(Boundary::Gpu, &idle), Some(Joules(1500.0)));
        assert_eq!(lap().net_energy(Boundary::Package, &idle), Some(Joules(300.0)));
        assert_eq!(lap().net_energy(Boundary::Gpu, &IdlePower::default()), None);
        let unused = Lap { gpus_used: vec![false, false], ..lap() };
        assert_eq!(unused.energy(Boundary::Gpu), None);
    }

    #[test]
    fn an_undisturbed_window_has_no_marks() {
        let observed = Observed { whole: lap(), ..Observed::default() };
        assert_eq!(observed.whole.harness_share(), Some(Share(0.005)));
        assert_eq!(observed.marks(), []);
    }

    #[test]
    fn each_disturbance_has_its_mark() {
        let observed = Observed {
            whole: Lap {
                harness_cpu: Some(Nanos(300_000_000)),
                other_cpu: Some(Nanos(1_500_000_000)),
                ..lap()
            },
            swap: Some(Bytes(4096)),
            power_source: Some(PowerSource::Battery),
            governor: Some("powersave".to_owned()),
            thermal_throttles: Some(1),
            ..Observed::default()
        };
        let marks = [
            Mark::ThermalThrottled,
            Mark::OnBattery,
            Mark::Governor,
            Mark::BusyCores,
            Mark::Swap,
            Mark::HarnessCpu,
        ];
        assert_eq!(observed.marks(), marks);
    }

    #[test]
    fn trials_that_were_told_of_count_and_the_time_between_them_does_not() {
        let busy = Lap { other_cpu: Some(Nanos(9_000_000_000)), ..lap() };
        let observed = Observed { whole: busy, trials: Some(lap()), ..Observed::default() };
        assert_eq!(observed.marks(), []);
        let faults = Lap { major_faults: Some(3), ..lap() };
        let observed = Observed { trials: Some(faults), ..Observed::default() };
        assert_eq!(observed.marks(), [Mark::PagesNotResident]);
        let both = lap().plus(&lap());
        assert_eq!((both.time, both.package), (Nanos(20_000_000_000), Some(Joules(1000.0))));
    }

    #[test]
    fn a_gpu_that_we_did_not_use_marks_nothing() {
        let gpu = GpuObserved {
            index: 0,
            name: "GPU".to_owned(),
            peak_memory: None,
            memory_basis: MemoryBasis::DeviceGrowth,
            clock_mhz: None,
            hottest_celsius: None,
            throttled: vec![Mark::PowerLimited],
        };
        let observed = Observed { gpus: vec![gpu.clone()], ..Observed::default() };
        assert_eq!((observed.marks(), observed.peak_device_memory()), (vec![], None));
        let used = GpuObserved { peak_memory: Some(Bytes(1 << 30)), ..gpu };
        let observed = Observed { gpus: vec![used], ..Observed::default() };
        assert_eq!(observed.marks(), [Mark::PowerLimited]);
        assert_eq!(observed.device_memory_basis(), Some(MemoryBasis::DeviceGrowth));
    }

    #[test]
    fn the_portable_reading_sees_this_process() {
        let mut tree = portable::Tree::new(&[]);
        assert_eq!(tree.read(), None, "nothing is watched yet");
        tree.also(std::process::id());
        let usage = tree.read().expect("this process");
        assert!(usage.high_water > 0 && usage.processes >= 1);
        assert!(tree.pids().any(|p| p == std::process::id()));
    }
}
