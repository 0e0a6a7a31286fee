//! Memory, clocks, heat, throttling and energy of the GPUs, through NVML.

use std::collections::BTreeSet;

use nvml_wrapper::Device;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use serde::{Deserialize, Serialize};

use super::Mark;
use crate::units::{Bytes, Joules};

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
    device: Device<'static>,
    index: u32,
    name: String,
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
    /// The GPUs of this machine, or in words why there are none.
    pub fn open() -> Result<Self, String> {
        let nvml = crate::host::gpu::nvml().map_err(str::to_owned)?;
        let count = nvml.device_count().map_err(|e| format!("NVML says: {e}"))?;
        let mut devices = Vec::new();
        for index in 0..count {
            let device = nvml.device_by_index(index).map_err(|e| format!("NVML says: {e}"))?;
            devices.push(Watched {
                index,
                name: device.name().unwrap_or_else(|_| format!("GPU {index}")),
                energy_baseline: device.total_energy_consumption().ok(),
                seen: Seen {
                    baseline: device.memory_info().ok().map(|m| m.used),
                    ..Seen::default()
                },
                device,
            });
        }
        if devices.is_empty() {
            return Err("the NVIDIA driver sees no GPU".to_owned());
        }
        Ok(Self { devices })
    }

    /// Another turn begins: a trial that counts, another's, or neither.
    pub fn turn(&mut self, trial: bool, others: bool) {
        for watched in &mut self.devices {
            let used = watched.device.memory_info().ok().map(|m| m.used);
            watched.seen.turn(trial, others, used);
        }
    }

    /// Takes a sample; `pids` are our processes, `ours` says whether it is their turn.
    pub fn read(&mut self, pids: &BTreeSet<u32>, ours: bool) {
        for watched in &mut self.devices {
            let (device, seen) = (&watched.device, &mut watched.seen);
            seen.ours = seen.ours.max(memory_of(device, pids));
            if !ours {
                continue;
            }
            seen.samples += 1;
            if let Ok(memory) = device.memory_info() {
                seen.grow(memory.used);
            }
            let busy = device.utilization_rates().is_ok_and(|u| u.gpu > 0);
            if let (true, Ok(clock)) = (busy, device.clock_info(Clock::SM)) {
                seen.clocks.push(clock);
            }
            seen.hottest = seen.hottest.max(device.temperature(TemperatureSensor::Gpu).ok());
            if let Ok(reasons) = device.current_throttle_reasons() {
                seen.throttle(reasons);
            }
        }
    }

    /// Energy of each GPU since the start.
    pub fn joules(&self) -> Vec<Option<Joules>> {
        let energy = |w: &Watched| {
            let now = w.device.total_energy_consumption().ok()?;
            Some(Joules(now.checked_sub(w.energy_baseline?)? as f64 / 1e3))
        };
        self.devices.iter().map(energy).collect()
    }

    /// Which of the GPUs our processes have used.
    pub fn used(&self) -> Vec<bool> {
        let basis = self.basis();
        self.devices.iter().map(|d| d.seen.peak(basis).is_some()).collect()
    }

    /// What was seen.
    pub fn observed(&self) -> Vec<GpuObserved> {
        let basis = self.basis();
        let observe = |w: &Watched| {
            let mut clocks = w.seen.clocks.clone();
            clocks.sort_unstable();
            GpuObserved {
                index: w.index,
                name: w.name.clone(),
                peak_memory: w.seen.peak(basis),
                memory_basis: basis,
                clock_mhz: clocks.get(clocks.len() / 2).copied(),
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

/// What the driver says that `pids` have on `device`. A process that both computes and draws
/// stands in both lists with the same figure.
fn memory_of(device: &Device, pids: &BTreeSet<u32>) -> u64 {
    let mut listed = device.running_compute_processes().unwrap_or_default();
    listed.extend(device.running_graphics_processes().unwrap_or_default());
    let mut counted = BTreeSet::new();
    listed
        .iter()
        .filter(|p| pids.contains(&p.pid) && counted.insert(p.pid))
        .map(|p| match p.used_gpu_memory {
            UsedGpuMemory::Used(bytes) => bytes,
            UsedGpuMemory::Unavailable => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_s_slow_down_is_no_mark_and_a_lasting_one_is() {
        let mut seen = Seen { samples: 100, ..Seen::default() };
        for _ in 0..4 {
            seen.throttle(ThrottleReasons::SW_POWER_CAP);
        }
        assert_eq!(seen.marks(), []);
        seen.throttle(ThrottleReasons::SW_POWER_CAP | ThrottleReasons::GPU_IDLE);
        assert_eq!(seen.marks(), [Mark::PowerLimited]);
        for _ in 0..9 {
            seen.throttle(ThrottleReasons::HW_THERMAL_SLOWDOWN | ThrottleReasons::HW_SLOWDOWN);
        }
        assert_eq!(seen.marks(), THROTTLES);
    }

    #[test]
    fn what_another_engine_loads_between_our_turns_is_not_ours() {
        const GIB: u64 = 1 << 30;
        let mut seen = Seen { baseline: Some(GIB), ..Seen::default() };
        seen.grow(5 * GIB);
        seen.turn(false, true, Some(5 * GIB));
        // Another engine loads 8 GiB; then our trial makes a buffer of 1 GiB.
        for _ in 0..3 {
            seen.turn(true, false, Some(13 * GIB));
            seen.grow(14 * GIB);
            seen.turn(false, true, Some(13 * GIB));
        }
        assert_eq!(seen.peak(MemoryBasis::DeviceGrowth), Some(Bytes(5 * GIB)));
    }

    #[test]
    fn heat_while_loading_is_no_mark_of_the_trials() {
        let mut seen = Seen { samples: 10, ..Seen::default() };
        for _ in 0..10 {
            seen.throttle(ThrottleReasons::HW_THERMAL_SLOWDOWN);
        }
        seen.turn(true, false, None);
        assert_eq!(seen.marks(), []);
    }

    #[test]
    fn a_desktop_s_few_mebibytes_are_not_ours() {
        let mut seen = Seen { growth: 8 << 20, ..Seen::default() };
        assert_eq!(seen.peak(MemoryBasis::DeviceGrowth), None);
        seen.growth = 6 << 30;
        assert_eq!(seen.peak(MemoryBasis::DeviceGrowth), Some(Bytes(6 << 30)));
        assert_eq!(seen.peak(MemoryBasis::Processes), None);
    }
}
