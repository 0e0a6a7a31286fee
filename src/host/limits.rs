//! What a container leaves of the machine: CPU time and memory (cgroups, both versions).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

/// Limits of this process's control groups; `None` where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// CPU time for each second, in cores.
    pub cpu_cores: Option<f64>,
    /// Memory.
    pub memory: Option<Bytes>,
    /// Memory in use when the description was made.
    #[serde(skip)]
    used: Option<Bytes>,
}

impl Limits {
    /// What is left of the memory limit.
    pub fn memory_left(&self) -> Option<Bytes> {
        self.memory.map(|m| Bytes(m.0.saturating_sub(self.used.map_or(0, |u| u.0))))
    }
}

/// The limits of this process; `total` is the machine's memory, above which a limit is none.
pub fn describe(total: Bytes) -> Limits {
    if !cfg!(target_os = "linux") {
        return Limits::default();
    }
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limits_in(Path::new("/sys/fs/cgroup"), &groups, total)
}

fn limits_in(root: &Path, groups: &str, total: Bytes) -> Limits {
    let mut limits = Limits::default();
    for line in groups.lines() {
        // "0::/a/b" of version 2, "4:memory:/a/b" of version 1.
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let controllers: Vec<&str> = controllers.split(',').collect();
        if controllers == [""] {
            for folder in ancestors(root, path) {
                limits.lower_cpu(cpu_max(&folder));
                let used = number(&folder.join("memory.current"));
                limits.lower_memory(number(&folder.join("memory.max")), used, total);
            }
        } else if controllers.contains(&"cpu") {
            for folder in ancestors(&root.join("cpu"), path) {
                let read = |name| super::read_trimmed(&folder.join(name))?.parse::<f64>().ok();
                let quota = read("cpu.cfs_quota_us").zip(read("cpu.cfs_period_us"));
                limits.lower_cpu(quota.filter(|(q, p)| *q > 0.0 && *p > 0.0).map(|(q, p)| q / p));
            }
        } else if controllers.contains(&"memory") {
            for folder in ancestors(&root.join("memory"), path) {
                let used = number(&folder.join("memory.usage_in_bytes"));
                let limit = number(&folder.join("memory.limit_in_bytes"));
                limits.lower_memory(limit, used, total);
            }
        }
    }
    limits
}

impl Limits {
    fn lower_cpu(&mut self, cores: Option<f64>) {
        if let Some(cores) = cores {
            self.cpu_cores = Some(self.cpu_cores.map_or(cores, |c| c.min(cores)));
        }
    }

    fn lower_memory(&mut self, limit: Option<u64>, used: Option<u64>, total: Bytes) {
        let left = |limit: u64, used: Option<u64>| limit.saturating_sub(used.unwrap_or(0));
        if let Some(limit) = limit.filter(|l| *l < total.0)
            && self.memory_left().is_none_or(|l| left(limit, used) < l.0)
        {
            self.memory = Some(Bytes(limit));
            self.used = used.map(Bytes);
        }
    }
}

/// The group's folder and those above it: each may limit it. Inside a container the path may be the
/// machine's, which is not there; the root then is the container's own group.
fn ancestors(root: &Path, path: &str) -> Vec<PathBuf> {
    let path = Path::new(path.trim_start_matches('/'));
    path.ancestors().map(|p| root.join(p)).collect()
}

/// `150000 100000` in `cpu.max` is 1.5 cores, `max 100000` no limit.
fn cpu_max(folder: &Path) -> Option<f64> {
    let text = super::read_trimmed(&folder.join("cpu.max"))?;
    let (quota, period) = text.split_once(' ')?;
    let (quota, period): (f64, f64) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0.0).then(|| quota / period)
}

fn number(path: &Path) -> Option<u64> {
    super::read_trimmed(path)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const TOTAL: Bytes = Bytes(64 << 30);

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, format!("{text}\n")).expect("a file");
        }
        folder
    }

    #[test]
    fn the_tightest_group_above_limits() {
        let root = folder(&[
            ("a/cpu.max", "400000 100000"),
            ("a/b/cpu.max", "max 100000"),
            ("a/memory.max", "8589934592"),
            ("a/memory.current", "1073741824"),
            ("a/b/memory.max", "max"),
        ]);
        let limits = limits_in(root.path(), "0::/a/b\n", TOTAL);
        assert_eq!((limits.cpu_cores, limits.memory), (Some(4.0), Some(Bytes(8 << 30))));
        assert_eq!(limits.memory_left(), Some(Bytes(7 << 30)));
    }

    #[test]
    fn the_first_version_s_files_are_read_and_its_no_limit_is_none() {
        let root = folder(&[
            ("cpu/cpu.cfs_quota_us", "150000"),
            ("cpu/cpu.cfs_period_us", "100000"),
            ("memory/memory.limit_in_bytes", "9223372036854771712"),
        ]);
        let limits = limits_in(root.path(), "4:memory:/x\n1:cpu,cpuacct:/x\n0::/\n", TOTAL);
        assert_eq!((limits.cpu_cores, limits.memory), (Some(1.5), None));
    }

    #[test]
    fn no_groups_are_no_limits() {
        let root = folder(&[]);
        assert_eq!(limits_in(root.path(), "0::/\n", TOTAL), Limits::default());
    }
}
