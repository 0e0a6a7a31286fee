//! Energy counters: the processor packages' (RAPL). Counters only, never a guess from a TDP.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::units::Joules;

/// What an energy figure includes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boundary {
    /// The GPUs' boards.
    Gpu,
    /// The processors' packages: cores, caches, memory controllers; not the memory.
    Package,
}

impl Boundary {
    /// Its spelling in `records.csv`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Package => "package",
        }
    }
}

/// The energy counters of the processor packages.
#[derive(Debug)]
pub struct Packages {
    counters: Vec<Counter>,
    total_microjoules: u64,
}

#[derive(Debug)]
struct Counter {
    file: PathBuf,
    /// Where it wraps round.
    range: u64,
    last: u64,
}

impl Packages {
    /// The counters of this machine, or in words why there are none.
    pub fn open() -> Result<Self, String> {
        Self::open_in(Path::new("/sys/class/powercap"))
    }

    fn open_in(folder: &Path) -> Result<Self, String> {
        let zones =
            fs::read_dir(folder).map_err(|_| "no energy counter of the processor".to_owned())?;
        let mut counters = Vec::new();
        let mut closed = false;
        for zone in zones.flatten().map(|z| z.path()) {
            let read = |name| crate::host::read_trimmed(&zone.join(name));
            // Also on AMD's processors the driver is called intel-rapl. Zones below a package
            // (core, uncore, dram) are parts of it or lie outside it.
            if !read("name").is_some_and(|n| n.starts_with("package")) {
                continue;
            }
            // The kernel offers one counter through two interfaces on some machines.
            let name = zone.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if name.starts_with("intel-rapl-mmio") {
                continue;
            }
            let file = zone.join("energy_uj");
            let number = |path: &Path| crate::host::read_trimmed(path)?.parse::<u64>().ok();
            match (number(&file), number(&zone.join("max_energy_range_uj"))) {
                (Some(last), Some(range)) => counters.push(Counter { file, range, last }),
                _ => closed = true,
            }
        }
        if closed {
            // A part of the packages would be a wrong number.
            return Err("the processor's energy counter is closed to this user; try `sudo chmod \
                        a+r /sys/class/powercap/intel-rapl:*/energy_uj`"
                .to_owned());
        }
        if counters.is_empty() {
            return Err("no energy counter of the processor".to_owned());
        }
        Ok(Self { counters, total_microjoules: 0 })
    }

    /// Energy of all packages since the counters were opened. Has to be asked more often than the
    /// counters wrap round, which at 200 W takes some 20 minutes.
    pub fn joules(&mut self) -> Joules {
        for counter in &mut self.counters {
            let read = crate::host::read_trimmed(&counter.file);
            let Some(now) = read.and_then(|t| t.parse::<u64>().ok()) else { continue };
            self.total_microjoules += if now >= counter.last {
                now - counter.last
            } else {
                now + counter.range.saturating_sub(counter.last)
            };
            counter.last = now;
        }
        Joules(self.total_microjoules as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_wraps_round_goes_on_counting() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |zone: &str, name: &str, text: &str| {
            let path = folder.path().join(zone);
            fs::create_dir_all(&path).expect("a folder");
            fs::write(path.join(name), format!("{text}\n")).expect("a file");
        };
        write("intel-rapl:0", "name", "package-0");
        write("intel-rapl:0", "energy_uj", "9000000");
        write("intel-rapl:0", "max_energy_range_uj", "10000000");
        write("intel-rapl:0:0", "name", "core");
        write("intel-rapl:0:0", "energy_uj", "1");
        write("intel-rapl-mmio:0", "name", "package-0");
        write("intel-rapl-mmio:0", "energy_uj", "9000000");
        let mut packages = Packages::open_in(folder.path()).expect("counters");
        write("intel-rapl:0", "energy_uj", "9500000");
        assert_eq!(packages.joules(), Joules(0.5));
        write("intel-rapl:0", "energy_uj", "1500000");
        assert_eq!(packages.joules(), Joules(2.5));
    }

    #[test]
    fn a_machine_without_a_counter_says_so() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(Packages::open_in(folder.path()).is_err_and(|e| e.contains("no energy counter")));
    }
}
