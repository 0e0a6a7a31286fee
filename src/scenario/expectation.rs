//! The machine that a scenario is meant for, and whether this is it.

use serde::Serialize;

use crate::units::Bytes;

/// What a scenario expects of the machine; what is absent does not matter.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Expectation {
    /// The machine's row in the hardware catalogue, for `fit`, `capacity` and `cost`.
    pub device: Option<String>,
    /// Whole words of the CPU's name.
    pub cpu: Option<String>,
    /// The fewest physical cores.
    pub cores: Option<u32>,
    /// The last words of the GPUs' name: `RTX 4070` is neither the `SUPER` nor the laptop's.
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
    /// Physical cores.
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
            && !has_words(&found.cpu, cpu)
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
            let named: Vec<_> = found.gpus.iter().filter(|gpu| ends_in(&gpu.name, name)).collect();
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

fn words(name: &str) -> Vec<String> {
    name.split_whitespace().map(str::to_lowercase).collect()
}

fn has_words(name: &str, part: &str) -> bool {
    let part = words(part);
    words(name).windows(part.len().max(1)).any(|window| window == part)
}

fn ends_in(name: &str, end: &str) -> bool {
    words(name).ends_with(&words(end))
}

fn names(gpus: &[FoundGpu]) -> String {
    if gpus.is_empty() {
        return "none".to_owned();
    }
    gpus.iter().map(|gpu| format!("'{}'", gpu.name)).collect::<Vec<_>>().join(", ")
}
