//! The machine that a scenario is meant for, and whether this is it.

use serde::Serialize;

use crate::units::Bytes;

/// What a scenario expects of the machine; what is absent does not matter.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Expectation {
    /// The machine's row in the hardware catalogue, for `fit`, `capacity` and `cost`.
    pub device: Option<String>,
    /// A part of the CPU's name.
    pub cpu: Option<String>,
    /// The fewest logical cores.
    pub cores: Option<u32>,
    /// A part of the GPUs' name.
    pub gpu: Option<String>,
    /// The fewest GPUs of that name.
    pub gpus: Option<u32>,
    /// The least memory of each of them.
    pub gpu_memory: Option<Bytes>,
    /// The least main memory.
    pub memory: Option<Bytes>,
    /// Operating systems: `linux`, `macos`, `windows`.
    pub os: Vec<String>,
}

/// A machine, as far as an expectation asks.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundHost {
    /// The CPU's name.
    pub cpu: String,
    /// Logical cores.
    pub cores: u32,
    /// GPUs.
    pub gpus: Vec<FoundGpu>,
    /// Main memory.
    pub memory: Bytes,
    /// The operating system, spelt as in [`std::env::consts::OS`].
    pub os: String,
}

/// A GPU that was found.
#[derive(Clone, Debug, PartialEq)]
pub struct FoundGpu {
    /// Its name.
    pub name: String,
    /// Its memory, where the driver says it; GPUs that share main memory may not.
    pub memory: Option<Bytes>,
}

impl Expectation {
    /// What differs, one sentence each: `expects a GPU 'RTX 5090', found none`. Empty: this is the
    /// machine.
    pub fn differences(&self, found: &FoundHost) -> Vec<String> {
        let mut differences = Vec::new();
        let mut differ = |expected: String, found: String| {
            differences.push(format!("expects {expected}, found {found}"));
        };
        if let Some(cpu) = &self.cpu
            && !contains(&found.cpu, cpu)
        {
            differ(format!("a CPU '{cpu}'"), format!("'{}'", found.cpu));
        }
        if let Some(cores) = self.cores
            && found.cores < cores
        {
            differ(format!("{cores} cores or more"), found.cores.to_string());
        }
        if self.gpu.is_some() || self.gpus.is_some() || self.gpu_memory.is_some() {
            let wanted = self.gpus.unwrap_or(1) as usize;
            let name = self.gpu.as_deref().unwrap_or("");
            let named: Vec<_> = found.gpus.iter().filter(|gpu| contains(&gpu.name, name)).collect();
            if named.len() < wanted {
                let expected = match (wanted, name) {
                    (1, "") => "a GPU".to_owned(),
                    (1, name) => format!("a GPU '{name}'"),
                    (n, "") => format!("{n} GPUs"),
                    (n, name) => format!("{n} GPUs '{name}'"),
                };
                differ(expected, names(&found.gpus));
            } else if let Some(memory) = self.gpu_memory {
                let small = named.iter().find(|gpu| gpu.memory.is_some_and(|m| m < memory));
                if let Some(FoundGpu { name, memory: Some(has) }) = small {
                    let least = format!("{} or more on each GPU", memory.both());
                    differ(least, format!("{} on '{name}'", has.both()));
                }
            }
        }
        if let Some(memory) = self.memory
            && found.memory < memory
        {
            differ(format!("{} of memory or more", memory.both()), found.memory.both());
        }
        if !self.os.is_empty() && !self.os.contains(&found.os) {
            differ(self.os.join(" or "), found.os.clone());
        }
        differences
    }
}

fn contains(name: &str, part: &str) -> bool {
    name.to_lowercase().contains(&part.to_lowercase())
}

fn names(gpus: &[FoundGpu]) -> String {
    if gpus.is_empty() {
        return "none".to_owned();
    }
    gpus.iter().map(|gpu| format!("'{}'", gpu.name)).collect::<Vec<_>>().join(", ")
}
