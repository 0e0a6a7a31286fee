//! This machine: CPU, memory, GPUs, drivers, and the probe of its bandwidth and arithmetic speed.

mod cpu;
pub(crate) mod gpu;
mod limits;
mod probe;
pub mod stored;

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sysinfo::System;

pub use cpu::{Cache, Cpu, governor};
pub use gpu::{Gpu, has_nvidia_card, visible};
pub use limits::Limits;
pub use probe::{Probe, probe};

use crate::units::Bytes;

/// A description of a machine that identifies neither it nor its user; `host.toml` is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// A short name made of what the machine is: `amd-epyc-2c-24g`. Equal machines share it.
    pub label: String,
    /// Why there is no GPU; `None` where there is one.
    pub gpu_absent: Option<String>,
    /// What the machine runs on; `None` where it does not say.
    pub power_source: Option<PowerSource>,
    /// The processor.
    pub cpu: Cpu,
    /// Main memory.
    pub memory: Memory,
    /// The operating system.
    pub os: Os,
    /// What a container leaves of the machine.
    pub limits: Limits,
    /// Its GPUs.
    #[serde(default)]
    pub gpus: Vec<Gpu>,
}

impl Host {
    /// The memory that programs can have here: all of it, or what a container leaves.
    pub fn memory_within_limits(&self) -> Bytes {
        Bytes(self.limits.memory.map_or(self.memory.total.0, |l| l.0.min(self.memory.total.0)))
    }
}

/// Main memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// All that the operating system manages.
    pub total: Bytes,
    /// Swap space, 0 where there is none.
    pub swap: Bytes,
    /// Size of a page.
    pub page: Option<Bytes>,
    /// When the kernel gives huge pages unasked: `always`, `madvise`, `never`.
    pub huge_pages: Option<String>,
}

/// The operating system.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Os {
    /// Name and version.
    pub name: String,
    /// The kernel's version.
    pub kernel: Option<String>,
    /// The architecture.
    pub architecture: String,
}

/// What a machine runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerSource {
    /// It has no battery.
    NoBattery,
    /// It has a battery and does not draw on it.
    Mains,
    /// Its battery: processors and GPUs clock lower.
    Battery,
}

impl PowerSource {
    /// Its name in files and on the terminal.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoBattery => "no-battery",
            Self::Mains => "mains",
            Self::Battery => "battery",
        }
    }
}

/// Describes this machine. Takes up to a second where a GPU's driver has to wake.
pub fn describe() -> Host {
    let cpu = cpu::describe();
    let (gpus, gpu_absent) = gpu::describe();
    let mut system = System::new();
    system.refresh_memory();
    let memory = Memory {
        total: Bytes(system.total_memory()),
        swap: Bytes(system.total_swap()),
        page: page_size(),
        huge_pages: huge_pages(),
    };
    Host {
        label: label(&cpu, memory.total, &gpus),
        gpu_absent,
        power_source: power_source(),
        limits: limits::describe(memory.total),
        cpu,
        memory,
        os: Os {
            name: System::long_os_version()
                .or_else(System::name)
                .unwrap_or_else(|| std::env::consts::OS.to_owned()),
            kernel: System::kernel_version(),
            architecture: std::env::consts::ARCH.to_owned(),
        },
        gpus,
    }
}

/// Memory that programs can have without swapping, within this container's limit.
pub fn available_memory() -> Bytes {
    let mut system = System::new();
    system.refresh_memory();
    let available = system.available_memory();
    let left = limits::describe(Bytes(system.total_memory())).memory_left();
    Bytes(left.map_or(available, |l| l.0.min(available)))
}

/// Space that is free on the disk that holds `path`, or the nearest folder above it that is there.
pub fn free_disk(path: &Path) -> Option<Bytes> {
    let there = path.ancestors().find_map(|p| {
        let p = if p.as_os_str().is_empty() { Path::new(".") } else { p };
        p.canonicalize().ok()
    })?;
    let disks = sysinfo::Disks::new_with_refreshed_list();
    let holds = |d: &&sysinfo::Disk| there.starts_with(d.mount_point());
    let disk =
        disks.list().iter().filter(holds).max_by_key(|d| d.mount_point().as_os_str().len())?;
    Some(Bytes(disk.available_space()))
}

/// What the machine runs on now.
pub fn power_source() -> Option<PowerSource> {
    if cfg!(target_os = "linux") {
        Some(power_source_of(Path::new("/sys/class/power_supply")))
    } else {
        None
    }
}

fn power_source_of(supplies: &Path) -> PowerSource {
    let Ok(entries) = fs::read_dir(supplies) else { return PowerSource::NoBattery };
    let (mut batteries, mut discharging, mut online) = (false, false, false);
    for supply in entries.flatten().map(|e| e.path()) {
        let read = |name| read_trimmed(&supply.join(name)).unwrap_or_default();
        match read("type").as_str() {
            // A mouse's battery has the scope "Device".
            "Battery" if read("scope") != "Device" => {
                batteries = true;
                discharging |= read("status") == "Discharging";
            }
            "Mains" | "USB" => online |= read("online") == "1",
            _ => {}
        }
    }
    match (batteries, discharging && !online) {
        (false, _) => PowerSource::NoBattery,
        (true, true) => PowerSource::Battery,
        (true, false) => PowerSource::Mains,
    }
}

fn page_size() -> Option<Bytes> {
    if cfg!(target_os = "macos") {
        return Some(Bytes(if cfg!(target_arch = "aarch64") { 16 << 10 } else { 4 << 10 }));
    }
    let maps = fs::read_to_string("/proc/self/smaps").ok()?;
    let line = maps.lines().find_map(|l| l.strip_prefix("KernelPageSize:"))?;
    Some(Bytes(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10))
}

fn huge_pages() -> Option<String> {
    let text = read_trimmed(Path::new("/sys/kernel/mm/transparent_hugepage/enabled"))?;
    Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())
}

/// The contents of a small file of the kernel.
pub(crate) fn read_trimmed(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The label: the GPU and its memory where there is one, then the processor, cores and memory.
fn label(cpu: &Cpu, memory: Bytes, gpus: &[Gpu]) -> String {
    let gib = |bytes: Bytes| bytes.gib().round() as u64;
    let cores = cpu.physical_cores.unwrap_or(cpu.logical_cores);
    let machine = format!("{}-{cores}c-{}g", slug(&cpu.model), gib(memory));
    let Some(first) = gpus.first() else { return machine };
    let alike = gpus.iter().filter(|g| g.name == first.name).count();
    let count = if alike > 1 { format!("{alike}x-") } else { String::new() };
    let size = first.memory.map(|m| format!("-{}g", gib(m))).unwrap_or_default();
    format!("{count}{}{size}-{machine}", slug(&first.name))
}

/// A vendor's product name in lower case with what says nothing left out.
fn slug(name: &str) -> String {
    const SAYS_NOTHING: [&str; 10] =
        ["r", "tm", "cpu", "gpu", "processor", "nvidia", "geforce", "corporation", "gen", "with"];
    let name = name.to_lowercase();
    // "Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz": the clock is no part of the name.
    let name = name.split('@').next().unwrap_or_default();
    let words = name.split(|c: char| !c.is_ascii_alphanumeric());
    let kept: Vec<&str> =
        words.filter(|w| !w.is_empty() && !SAYS_NOTHING.contains(w)).take(6).collect();
    if kept.is_empty() { "unknown".to_owned() } else { kept.join("-") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(model: &str, cores: u32) -> Cpu {
        Cpu { model: model.to_owned(), physical_cores: Some(cores), ..cpu::describe() }
    }

    fn gpu(name: &str, gib: f64) -> Gpu {
        Gpu { name: name.to_owned(), memory: Some(Bytes::from_gib(gib)), ..Gpu::default() }
    }

    #[test]
    fn a_label_says_what_the_machine_is() {
        let memory = Bytes(25_276_178_432);
        assert_eq!(label(&cpu("AMD EPYC", 2), memory, &[]), "amd-epyc-2c-24g");
        assert_eq!(
            label(&cpu("Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz", 6), memory, &[]),
            "intel-core-i7-8700k-6c-24g"
        );
        let cards = [gpu("NVIDIA GeForce RTX 5090", 31.84), gpu("NVIDIA GeForce RTX 5090", 31.84)];
        assert_eq!(
            label(&cpu("AMD Ryzen 9 9950X 16-Core Processor", 16), memory, &cards),
            "2x-rtx-5090-32g-amd-ryzen-9-9950x-16-core-16c-24g"
        );
        assert_eq!(label(&cpu("Apple M4 Max", 16), memory, &[]), "apple-m4-max-16c-24g");
    }

    #[test]
    fn a_description_survives_its_file() {
        let host = describe();
        let text = toml::to_string(&host).expect("TOML");
        assert_eq!(toml::from_str::<Host>(&text).expect("a host"), host, "{text}");
    }

    #[test]
    fn a_description_names_neither_the_machine_nor_its_user() {
        let text = toml::to_string(&describe()).expect("TOML");
        let name = System::host_name().unwrap_or_default();
        assert!(name.len() < 4 || !text.contains(&name), "{name} is in {text}");
    }

    #[test]
    fn a_laptop_off_its_charger_runs_on_battery_and_a_mouse_does_not_count() {
        let folder = tempfile::tempdir().expect("a folder");
        let supply = |name: &str, files: &[(&str, &str)]| {
            let path = folder.path().join(name);
            fs::create_dir_all(&path).expect("a folder");
            for (file, text) in files {
                fs::write(path.join(file), format!("{text}\n")).expect("a file");
            }
        };
        supply("mouse", &[("type", "Battery"), ("scope", "Device"), ("status", "Discharging")]);
        assert_eq!(power_source_of(folder.path()), PowerSource::NoBattery);
        supply("BAT0", &[("type", "Battery"), ("status", "Discharging")]);
        supply("AC", &[("type", "Mains"), ("online", "0")]);
        assert_eq!(power_source_of(folder.path()), PowerSource::Battery);
        supply("AC", &[("type", "Mains"), ("online", "1")]);
        assert_eq!(power_source_of(folder.path()), PowerSource::Mains);
    }

    #[test]
    fn free_disk_is_found_above_a_folder_that_is_not_there_yet() {
        let folder = tempfile::tempdir().expect("a folder");
        let free = free_disk(&folder.path().join("not/there/yet"));
        assert!(free.is_none_or(|f| f.0 > 0));
    }

    #[test]
    fn there_is_memory() {
        let total = describe().memory.total;
        assert!(available_memory() <= total && available_memory().0 > 0);
    }
}
