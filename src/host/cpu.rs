//! The processor: model, cores, caches, instruction sets and governor.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sysinfo::{CpuRefreshKind, System};

use crate::units::Bytes;

/// A processor and how it may be used here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// The name that the processor gives itself.
    pub model: String,
    /// Cores, each counted once.
    pub physical_cores: Option<u32>,
    /// Hardware threads.
    pub logical_cores: u32,
    /// Hardware threads that this process may use: affinity and quota taken into account.
    pub usable_threads: u32,
    /// Instruction sets that matter to inference and are there, spelt as in Rust's target features.
    pub instruction_sets: Vec<String>,
    /// Those of them that this build of `bench` was compiled without.
    #[serde(default)]
    pub unused_instruction_sets: Vec<String>,
    /// The last-level cache.
    pub last_level_cache: Option<Cache>,
    /// Memory nodes (NUMA).
    pub memory_nodes: Option<u32>,
    /// The frequency governor; several, joined by commas, where cores differ.
    pub governor: Option<String>,
    /// Whether a hypervisor shares this processor with other machines.
    pub virtual_machine: Option<bool>,
}

/// Caches of one level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// Size of each.
    pub size: Bytes,
    /// How many there are.
    pub count: u32,
}

impl Cache {
    /// The most cache that `threads` threads can hold data in.
    pub fn reached_by(self, threads: u32) -> Bytes {
        Bytes(self.size.0 * u64::from(threads.min(self.count)))
    }
}

/// The share of instruction sets that decides the speed of inference, each with whether the
/// processor has it and whether this build may use it.
macro_rules! features {
    ($detected:ident: $($name:tt),* $(,)?) => {
        vec![$(($name, std::arch::$detected!($name), cfg!(target_feature = $name))),*]
    };
}

#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
fn features() -> Vec<(&'static str, bool, bool)> {
    features!(is_x86_feature_detected: "sse4.2", "avx", "avx2", "f16c", "fma", "avxvnni",
        "avx512f", "avx512bw", "avx512vl", "avx512vnni", "avx512bf16")
}

#[cfg(target_arch = "aarch64")]
fn features() -> Vec<(&'static str, bool, bool)> {
    features!(is_aarch64_feature_detected: "neon", "fp16", "dotprod", "i8mm", "bf16", "sve", "sve2")
}

#[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
fn features() -> Vec<(&'static str, bool, bool)> {
    Vec::new()
}

/// Describes the processor of this machine.
pub fn describe() -> Cpu {
    let mut system = System::new();
    system.refresh_cpu_list(CpuRefreshKind::nothing());
    let brand = system.cpus().first().map(|c| c.brand().trim().to_owned()).unwrap_or_default();
    let features = features();
    let names = |keep: fn(&(&str, bool, bool)) -> bool| {
        features.iter().filter(|f| keep(f)).map(|f| f.0.to_owned()).collect()
    };
    let logical = system.cpus().len().max(1) as u32;
    Cpu {
        model: if brand.is_empty() { std::env::consts::ARCH.to_owned() } else { brand },
        physical_cores: System::physical_core_count().map(|n| n as u32),
        logical_cores: logical,
        usable_threads: std::thread::available_parallelism().map_or(logical, |n| n.get() as u32),
        instruction_sets: names(|f| f.1),
        unused_instruction_sets: names(|f| f.1 && !f.2),
        last_level_cache: last_level_cache(),
        memory_nodes: memory_nodes(),
        governor: governor(),
        virtual_machine: virtual_machine(),
    }
}

/// The last-level cache, as Linux describes it.
pub fn last_level_cache() -> Option<Cache> {
    let mut caches = BTreeSet::new();
    for cpu in numbered(Path::new("/sys/devices/system/cpu"), "cpu") {
        for index in numbered(&cpu.join("cache"), "index") {
            let read = |name| super::read_trimmed(&index.join(name));
            let (Some(level), Some(size)) = (read("level"), read("size")) else { continue };
            if read("type").as_deref() == Some("Instruction") {
                continue;
            }
            let level: u32 = level.parse().ok()?;
            caches.insert((level, size, read("shared_cpu_list")));
        }
    }
    let (level, size, _) = caches.last()?.clone();
    Some(Cache {
        size: cache_size(&size)?,
        count: caches.iter().filter(|c| c.0 == level).count() as u32,
    })
}

/// `32768K` and `1M` as the kernel writes them.
fn cache_size(text: &str) -> Option<Bytes> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        _ => return None,
    };
    Some(Bytes(digits.parse::<u64>().ok()? * factor))
}

fn memory_nodes() -> Option<u32> {
    let nodes = numbered(Path::new("/sys/devices/system/node"), "node").len() as u32;
    (nodes > 0).then_some(nodes)
}

/// The frequency governor now.
pub fn governor() -> Option<String> {
    governor_in(Path::new("/sys/devices/system/cpu"))
}

fn governor_in(cpus: &Path) -> Option<String> {
    let governors: BTreeSet<String> = numbered(cpus, "cpu")
        .iter()
        .filter_map(|cpu| super::read_trimmed(&cpu.join("cpufreq/scaling_governor")))
        .collect();
    let joined = governors.into_iter().collect::<Vec<_>>().join(", ");
    (!joined.is_empty()).then_some(joined)
}

/// On x86 the processor says so itself; elsewhere nobody does.
fn virtual_machine() -> Option<bool> {
    if !cfg!(any(target_arch = "x86", target_arch = "x86_64")) {
        return None;
    }
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let flags = text.lines().find(|l| l.starts_with("flags"))?;
    Some(flags.split_whitespace().any(|f| f == "hypervisor"))
}

/// The entries `prefix0`, `prefix1`, … of a folder.
fn numbered(folder: &Path, prefix: &str) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .flatten()
        .filter(|e| {
            let name = e.file_name();
            let number = name.to_str().and_then(|n| n.strip_prefix(prefix));
            number.is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
        })
        .map(|e| e.path())
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_cache_sizes_are_read() {
        assert_eq!(cache_size("32768K"), Some(Bytes(32 << 20)));
        assert_eq!(cache_size("96M"), Some(Bytes(96 << 20)));
        assert_eq!(cache_size("odd"), None);
    }

    #[test]
    fn cores_with_different_governors_are_told_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(governor_in(folder.path()), None);
        for (cpu, name) in
            [("cpu0", "performance\n"), ("cpu1", "powersave\n"), ("cpu2", "performance\n")]
        {
            let path = folder.path().join(cpu).join("cpufreq");
            fs::create_dir_all(&path).expect("a folder");
            fs::write(path.join("scaling_governor"), name).expect("a file");
        }
        assert_eq!(governor_in(folder.path()).as_deref(), Some("performance, powersave"));
    }

    #[test]
    fn this_processor_has_a_name_and_a_thread() {
        let cpu = describe();
        assert!(!cpu.model.is_empty() && cpu.logical_cores >= cpu.usable_threads);
        assert!(cpu.usable_threads > 0);
    }
}
