//! What a watch has seen, and what speaks against figures that were measured meanwhile.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::device::{GpuObserved, MemoryBasis};
use super::lap::Lap;
use super::mark::Mark;
use super::window::TrialEnergy;
use crate::host::PowerSource;
use crate::units::Bytes;

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
    /// The energy of the trials that were asked for with [`super::Watch::meter`].
    pub energy: Vec<TrialEnergy>,
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
pub(super) const OTHERS_CORES: f64 = 0.1;
/// The same in a share of many cores, where the system's own work adds up.
const OTHERS_SHARE: f64 = 0.01;
/// The share of the CPU time that the harness may take.
const HARNESS_SHARE: f64 = 0.01;
/// CPU time is counted in hundredths of a second: shorter windows say nothing about shares.
const SHORTEST_FOR_SHARES: f64 = 1.0;

impl Observed {
    /// What it says of an engine that computes on `backend`: a CPU engine uses no GPU, and what was
    /// used there meanwhile is others'.
    pub fn of_backend(mut self, backend: Option<&str>) -> Self {
        if backend == Some("CPU") {
            self.gpus.clear();
        }
        self
    }

    /// Peak memory of all GPUs together; their peaks may lie at different moments.
    pub fn peak_device_memory(&self) -> Option<Bytes> {
        let peaks: Vec<u64> = self.gpus.iter().filter_map(|g| g.peak_memory).map(|b| b.0).collect();
        (!peaks.is_empty()).then(|| Bytes(peaks.iter().sum()))
    }

    /// The places in [`Self::gpus`] of those that our processes used.
    pub fn gpus_used(&self) -> Vec<usize> {
        let used = self.gpus.iter().enumerate().filter(|(_, gpu)| gpu.peak_memory.is_some());
        used.map(|(place, _)| place).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{Joules, Nanos, Share};
    use crate::watch::portable;

    fn lap() -> Lap {
        Lap {
            time: Nanos(10_000_000_000),
            tree_cpu: Some(Nanos(20_000_000_000)),
            harness_cpu: Some(Nanos(100_000_000)),
            other_cpu: Some(Nanos(500_000_000)),
            cores: Some(2),
            package: Some(Joules(500.0)),
            gpus: vec![Some(Joules(300.0)), Some(Joules(2000.0))],
            ..Lap::default()
        }
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
            power_limit: None,
            hottest_celsius: None,
            throttled: vec![Mark::PowerLimited],
        };
        let observed = Observed { gpus: vec![gpu.clone()], ..Observed::default() };
        assert_eq!((observed.marks(), observed.peak_device_memory()), (vec![], None));
        let used = GpuObserved { peak_memory: Some(Bytes(1 << 30)), ..gpu };
        let observed = Observed { gpus: vec![used], ..Observed::default() };
        assert_eq!(observed.marks(), [Mark::PowerLimited]);
        assert_eq!(observed.device_memory_basis(), Some(MemoryBasis::DeviceGrowth));
        assert_eq!(observed.clone().of_backend(Some("CUDA")), observed);
        let of_a_cpu = observed.of_backend(Some("CPU"));
        assert_eq!((of_a_cpu.marks(), of_a_cpu.peak_device_memory()), (vec![], None));
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
