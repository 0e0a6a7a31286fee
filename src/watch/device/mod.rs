//! Memory, clocks, heat, throttling and energy of the GPUs, through NVML.

mod card;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeSet;

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use serde::{Deserialize, Serialize};

use self::card::Card;
use super::Mark;
use crate::host::gpu;
use crate::units::{Bytes, Joules, Watts};

/// Growth of a GPU's memory that other programs (a desktop) may cause: below it nobody computed.
const OTHERS: u64 = 32 << 20;

/// How a GPU's memory was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MemoryBasis {
    /// What the driver says of our processes.
    Processes,
    /// The growth of the whole device since the start: the driver lists no process of ours, as in a
    /// container. Programs that start meanwhile count too.
    DeviceGrowth,
}

impl MemoryBasis {
    /// Its spelling in `records.csv`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Processes => "processes",
            Self::DeviceGrowth => "device-growth",
        }
    }
}

/// What was seen of one GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GpuObserved {
    /// Its place in the driver's list.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The most memory that our processes had on it; `None` where they used it for nothing.
    pub peak_memory: Option<Bytes>,
    /// How that was counted.
    pub memory_basis: MemoryBasis,
    /// Median clock of its processors over the samples in which it computed, in MHz.
    pub clock_mhz: Option<u32>,
    /// The power limit in force.
    pub power_limit: Option<Watts>,
    /// The highest temperature, in degrees Celsius.
    pub hottest_celsius: Option<u32>,
    /// Why its clocks were lowered, as marks.
    pub throttled: Vec<Mark>,
}

/// The GPUs under watch.
pub struct Devices {
    devices: Vec<Watched>,
}

struct Watched {
    card: Box<dyn Card>,
    index: u32,
    energy_baseline: Option<u64>,
    seen: Seen,
}

/// What the samples of one GPU add up to.
#[derive(Debug, Default)]
struct Seen {
    samples: u32,
    /// Whether a trial has been told of.
    in_trials: bool,
    /// Peak of what our processes have; 0 while the driver lists none of them.
    ours: u64,
    /// Memory of the whole device in use before what is counted now.
    baseline: Option<u64>,
    /// What the whole device had gained in our turns before this one.
    held: u64,
    /// Whether it is another's turn.
    waiting: bool,
    /// Peak of the growth of the whole device in our turns.
    growth: u64,
    clocks: Vec<u32>,
    hottest: Option<u32>,
    /// Samples with a clock, a thermal and a power reason.
    throttled: [u32; 3],
}

const THROTTLES: [Mark; 3] = [Mark::ClockThrottled, Mark::ThermalThrottled, Mark::PowerLimited];

impl Seen {
    /// Takes what the device has in use for the start of what is counted next. Clocks and reasons
    /// of the time before the first trial do not count.
    fn turn(&mut self, trial: bool, others: bool, used: Option<u64>) {
        if trial && !self.in_trials {
            self.in_trials = true;
            self.samples = 0;
            self.clocks.clear();
            self.throttled = [0; 3];
        }
        if let (false, Some(used), Some(baseline)) = (self.waiting, used, self.baseline) {
            self.held = (self.held + used).saturating_sub(baseline);
        }
        self.baseline = used;
        self.waiting = others;
    }

    /// The device has `used` in use, in our turn.
    fn grow(&mut self, used: u64) {
        if let Some(baseline) = self.baseline {
            self.growth = self.growth.max((self.held + used).saturating_sub(baseline));
        }
    }

    /// A reason counts where at least two samples, and one in twenty, have it: drivers report
    /// slow-downs for a moment whenever the clocks change.
    fn marks(&self) -> Vec<Mark> {
        let counts = |n: u32| n >= 2 && n * 20 >= self.samples;
        THROTTLES.into_iter().zip(self.throttled).filter(|(_, n)| counts(*n)).map(|t| t.0).collect()
    }

    fn throttle(&mut self, reasons: ThrottleReasons) {
        let clock = ThrottleReasons::HW_SLOWDOWN
            | ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN
            | ThrottleReasons::SYNC_BOOST;
        let thermal = ThrottleReasons::HW_THERMAL_SLOWDOWN | ThrottleReasons::SW_THERMAL_SLOWDOWN;
        for (count, group) in
            self.throttled.iter_mut().zip([clock, thermal, ThrottleReasons::SW_POWER_CAP])
        {
            *count += u32::from(reasons.intersects(group));
        }
    }

    fn peak(&self, basis: MemoryBasis) -> Option<Bytes> {
        match basis {
            MemoryBasis::Processes => (self.ours > 0).then_some(Bytes(self.ours)),
            MemoryBasis::DeviceGrowth => (self.growth >= OTHERS).then_some(Bytes(self.growth)),
        }
    }
}

impl Devices {
    /// The GPUs of this machine that programs may use, or in words why there are none.
    pub fn open() -> Result<Self, String> {
        let nvml = gpu::nvml().map_err(str::to_owned)?;
        let count = nvml.device_count().map_err(|e| format!("NVML says: {e}"))?;
        let mut cards: Vec<Box<dyn Card>> = Vec::new();
        for index in 0..count {
            let device = nvml.device_by_index(index).map_err(|e| format!("NVML says: {e}"))?;
            cards.push(Box::new(device));
        }
        Self::of(cards, std::env::var(gpu::VISIBLE).ok().as_deref())
    }

    /// Of `cards` in the driver's order those that `visible` names, which is `CUDA_VISIBLE_DEVICES`:
    /// what others do on a card that our processes cannot use is not ours.
    fn of(cards: Vec<Box<dyn Card>>, visible: Option<&str>) -> Result<Self, String> {
        if cards.is_empty() {
            return Err("the NVIDIA driver sees no GPU".to_owned());
        }
        let uuids: Vec<_> = cards.iter().map(|card| card.uuid()).collect();
        let places = gpu::visible_places(&uuids, visible);
        let devices: Vec<_> = cards
            .into_iter()
            .enumerate()
            .filter(|(place, _)| places.contains(place))
            .map(|(place, card)| Watched {
                index: place as u32,
                energy_baseline: card.millijoules(),
                seen: Seen { baseline: used(&*card), ..Seen::default() },
                card,
            })
            .collect();
        if devices.is_empty() {
            let named = visible.unwrap_or_default();
            return Err(format!("{}='{named}' hides all GPUs of the driver's list", gpu::VISIBLE));
        }
        Ok(Self { devices })
    }

    /// Another turn begins: a trial that counts, another's, or neither.
    pub fn turn(&mut self, trial: bool, others: bool) {
        for watched in &mut self.devices {
            watched.seen.turn(trial, others, used(&*watched.card));
        }
    }

    /// Takes a sample; `pids` are our processes, `ours` says whether it is their turn.
    pub fn read(&mut self, pids: &BTreeSet<u32>, ours: bool) {
        for watched in &mut self.devices {
            let (card, seen) = (&*watched.card, &mut watched.seen);
            seen.ours = seen.ours.max(memory_of(card, pids));
            if !ours {
                continue;
            }
            seen.samples += 1;
            if let Some(used) = used(card) {
                seen.grow(used);
            }
            if let (true, Some(clock)) = (card.is_busy(), card.clock_mhz()) {
                seen.clocks.push(clock);
            }
            seen.hottest = seen.hottest.max(card.celsius());
            if let Some(reasons) = card.throttling() {
                seen.throttle(reasons);
            }
        }
    }

    /// Energy of each GPU since the start.
    pub fn joules(&self) -> Vec<Option<Joules>> {
        let energy = |w: &Watched| {
            let now = w.card.millijoules()?;
            Some(Joules(now.checked_sub(w.energy_baseline?)? as f64 / 1e3))
        };
        self.devices.iter().map(energy).collect()
    }

    /// What was seen.
    pub fn observed(&self) -> Vec<GpuObserved> {
        let basis = self.basis();
        let observe = |w: &Watched| {
            let mut clocks = w.seen.clocks.clone();
            clocks.sort_unstable();
            GpuObserved {
                index: w.index,
                name: w.card.name().unwrap_or_else(|| format!("GPU {}", w.index)),
                peak_memory: w.seen.peak(basis),
                memory_basis: basis,
                clock_mhz: clocks.get(clocks.len() / 2).copied(),
                power_limit: w.card.power_limit(),
                hottest_celsius: w.seen.hottest,
                throttled: w.seen.marks(),
            }
        };
        self.devices.iter().map(observe).collect()
    }

    fn basis(&self) -> MemoryBasis {
        if self.devices.iter().any(|d| d.seen.ours > 0) {
            MemoryBasis::Processes
        } else {
            MemoryBasis::DeviceGrowth
        }
    }
}

/// Memory of a card that is in use, in bytes.
fn used(card: &dyn Card) -> Option<u64> {
    card.memory_used().map(|bytes| bytes.0)
}

/// What the driver says that `pids` have on `card`, in bytes.
fn memory_of(card: &dyn Card, pids: &BTreeSet<u32>) -> u64 {
    let mut counted = BTreeSet::new();
    let ours = card.processes().into_iter().filter(|(pid, _)| pids.contains(pid));
    // A process that both computes and draws stands there twice.
    ours.filter(|(pid, _)| counted.insert(*pid)).filter_map(|(_, memory)| Some(memory?.0)).sum()
}
