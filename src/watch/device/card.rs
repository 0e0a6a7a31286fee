//! One GPU as its driver tells of it at a moment; NVML's is the only one yet.

use nvml_wrapper::Device;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;

use crate::units::{Bytes, Watts};

/// What a driver tells of one GPU; `None` is what it does not tell.
pub trait Card {
    /// Its name.
    fn name(&self) -> Option<String>;
    /// The driver's own name for this very card: `GPU-8f3c…`.
    fn uuid(&self) -> Option<String>;
    /// Its memory that is in use, by whomever.
    fn memory_used(&self) -> Option<Bytes>;
    /// The processes that compute or draw on it, with the memory of each. A process that does both
    /// may stand here twice, with the same figure.
    fn processes(&self) -> Vec<(u32, Option<Bytes>)>;
    /// Its energy counter, in millijoules.
    fn millijoules(&self) -> Option<u64>;
    /// Whether it has computed of late.
    fn is_busy(&self) -> bool;
    /// The clock of its processors, in MHz.
    fn clock_mhz(&self) -> Option<u32>;
    /// Its temperature, in degrees Celsius.
    fn celsius(&self) -> Option<u32>;
    /// Why its clocks are lower than they could be.
    fn throttling(&self) -> Option<ThrottleReasons>;
    /// The power limit in force.
    fn power_limit(&self) -> Option<Watts>;
}

impl Card for Device<'static> {
    fn name(&self) -> Option<String> {
        self.name().ok()
    }

    fn uuid(&self) -> Option<String> {
        self.uuid().ok()
    }

    fn memory_used(&self) -> Option<Bytes> {
        self.memory_info().ok().map(|memory| Bytes(memory.used))
    }

    fn processes(&self) -> Vec<(u32, Option<Bytes>)> {
        let mut listed = self.running_compute_processes().unwrap_or_default();
        listed.extend(self.running_graphics_processes().unwrap_or_default());
        let memory = |used| match used {
            UsedGpuMemory::Used(bytes) => Some(Bytes(bytes)),
            UsedGpuMemory::Unavailable => None,
        };
        listed.into_iter().map(|p| (p.pid, memory(p.used_gpu_memory))).collect()
    }

    fn millijoules(&self) -> Option<u64> {
        self.total_energy_consumption().ok()
    }

    fn is_busy(&self) -> bool {
        self.utilization_rates().is_ok_and(|rates| rates.gpu > 0)
    }

    fn clock_mhz(&self) -> Option<u32> {
        self.clock_info(Clock::SM).ok()
    }

    fn celsius(&self) -> Option<u32> {
        self.temperature(TemperatureSensor::Gpu).ok()
    }

    fn throttling(&self) -> Option<ThrottleReasons> {
        self.current_throttle_reasons().ok()
    }

    fn power_limit(&self) -> Option<Watts> {
        self.enforced_power_limit().ok().map(|milliwatts| Watts(f64::from(milliwatts) / 1e3))
    }
}
