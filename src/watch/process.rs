//! Memory and CPU time of a process tree and of the machine, from Linux's `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::units::Bytes;

/// Linux counts CPU time in these ticks a second for every program (USER_HZ), whatever its own are.
const TICKS: u64 = 100;

/// What a tree uses at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Sum over the processes of the most memory that each ever had (`VmHWM`).
    pub high_water: u64,
    /// Resident memory of its own: heap, stacks, buffers.
    pub anonymous: u64,
    /// Resident pages of files: mapped weights, programs.
    pub file: u64,
    /// Memory that lies in swap.
    pub swap: u64,
    /// CPU time of the living and of those they waited for.
    pub cpu: Duration,
    /// Pages read from disk.
    pub major_faults: u64,
    /// Processes alive.
    pub processes: u32,
}

/// A process tree, followed by process id and start time, so that a child whose parent has died
/// stays in it and a process id that is used again does not come in.
#[derive(Debug, Default)]
pub struct Tree {
    roots: Vec<u32>,
    known: BTreeMap<u32, u64>,
    /// Some of it is older than the watch: its high-water mark may be of another time.
    joined: bool,
}

impl Tree {
    /// The trees below `roots`, these included.
    pub fn new(roots: &[u32]) -> Self {
        Self { roots: roots.to_vec(), ..Self::default() }
    }

    /// Adds a process that lives since before the watch, and what it has started.
    pub fn also(&mut self, root: u32) {
        self.roots.push(root);
        self.joined = true;
    }

    /// The living processes.
    pub fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.known.keys().copied()
    }

    /// Reads the tree; `None` where none of it is alive.
    pub fn read(&mut self) -> Option<Usage> {
        let mut usage = Usage::default();
        let mut alive = BTreeMap::new();
        let mut waiting: Vec<u32> = self.roots.clone();
        waiting.extend(self.known.keys());
        while let Some(pid) = waiting.pop() {
            if alive.contains_key(&pid) {
                continue;
            }
            let Some(stat) = Stat::read(pid) else { continue };
            if self.known.get(&pid).is_some_and(|start| *start != stat.start) {
                // Another process with the same id.
                continue;
            }
            alive.insert(pid, stat.start);
            waiting.extend(children(pid));
            usage.add(&stat, pid);
        }
        if self.joined {
            usage.high_water = usage.resident().0;
        }
        self.known = alive;
        // A root that has died does not come back.
        self.roots.retain(|pid| self.known.contains_key(pid));
        (usage.processes > 0).then_some(usage)
    }
}

impl Usage {
    fn add(&mut self, stat: &Stat, pid: u32) {
        self.processes += 1;
        self.cpu += stat.cpu;
        self.major_faults += stat.major_faults;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        for line in status.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            let to = match name {
                // VmHWM, not ru_maxrss: the latter starts at our own peak after exec.
                "VmHWM" => &mut self.high_water,
                // A shared mapping without a file is memory of its own too.
                "RssAnon" | "RssShmem" => &mut self.anonymous,
                "RssFile" => &mut self.file,
                "VmSwap" => &mut self.swap,
                _ => continue,
            };
            *to += kibibytes(value).unwrap_or(0);
        }
    }

    /// All resident memory.
    pub fn resident(&self) -> Bytes {
        Bytes(self.anonymous + self.file)
    }
}

/// `   1620 kB` in bytes.
fn kibibytes(value: &str) -> Option<u64> {
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|k| k << 10)
}

/// The fields of `/proc/<pid>/stat` that matter here.
struct Stat {
    cpu: Duration,
    major_faults: u64,
    start: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The program's name comes second, in parentheses, and may hold anything, also these.
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        // proc(5) counts from 1, and the field after the name is its third.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let ticks = field(14)? + field(15)? + field(16)? + field(17)?;
        Some(Self {
            cpu: from_ticks(ticks),
            major_faults: field(12)? + field(13)?,
            start: field(22)?,
        })
    }
}

fn from_ticks(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1000 / TICKS)
}

/// The children of a process, each of them a child of one of its threads.
fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    let lists: Vec<String> = threads
        .flatten()
        .filter_map(|t| fs::read_to_string(t.path().join("children")).ok())
        .collect();
    lists.iter().flat_map(|l| l.split_whitespace()).filter_map(|p| p.parse().ok()).collect()
}

/// CPU time of this process, the harness.
pub fn own_cpu() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    // Without its children's: they are the tree's.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(from_ticks(field(14)? + field(15)?))
}

/// CPU time that all programs took on `cores`, and that other virtual machines took from them.
pub fn busy_cpu(cores: &[u32]) -> Option<Duration> {
    busy_in(&fs::read_to_string("/proc/stat").ok()?, cores)
}

fn busy_in(stat: &str, cores: &[u32]) -> Option<Duration> {
    let mut ticks = 0;
    let mut seen = 0;
    for line in stat.lines() {
        let mut fields = line.split_whitespace();
        let name = fields.next().and_then(|n| n.strip_prefix("cpu"));
        let Some(core) = name.and_then(|n| n.parse::<u32>().ok()) else { continue };
        if !cores.contains(&core) {
            continue;
        }
        let times: Vec<u64> = fields.filter_map(|f| f.parse().ok()).collect();
        // user nice system idle iowait irq softirq steal; guest time is within user's.
        let busy = |i: usize| times.get(i).copied().unwrap_or(0);
        ticks += busy(0) + busy(1) + busy(2) + busy(5) + busy(6) + busy(7);
        seen += 1;
    }
    (seen > 0).then(|| from_ticks(ticks))
}

/// The cores that a process may run on.
pub fn allowed_cores(pid: u32) -> Option<Vec<u32>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    core_list(status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"))?)
}

/// `0-3,8` as the kernel writes it.
fn core_list(text: &str) -> Option<Vec<u32>> {
    let mut cores = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<u32>().ok()?..=last.parse().ok()?);
    }
    Some(cores)
}

/// How often the processor slowed down because it was hot, since the machine started; only Intel's
/// say so.
pub fn thermal_throttles() -> Option<u64> {
    let mut most = None;
    for core in fs::read_dir("/sys/devices/system/cpu").ok()?.flatten() {
        for name in ["core_throttle_count", "package_throttle_count"] {
            let path = core.path().join("thermal_throttle").join(name);
            let count = crate::host::read_trimmed(&path).and_then(|c| c.parse::<u64>().ok());
            most = most.max(count);
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_s_name_may_hold_parentheses_and_spaces() {
        let stat = "42 (a) (b c) S 1 42 42 0 -1 4194560 500 10 7 2 30 20 4 6 20 0 1 0 9999 1000";
        let stat = Stat::parse(stat).expect("a process");
        assert_eq!(stat.cpu, Duration::from_millis(600));
        assert_eq!((stat.major_faults, stat.start), (9, 9999));
    }

    #[test]
    fn only_our_cores_count_and_time_stolen_from_them_does() {
        let stat = "cpu  9 9 9 9 9 9 9 9 0 0\n\
                    cpu0 100 10 20 1000 50 1 2 3 90 0\n\
                    cpu1 500 0 0 1000 0 0 0 0 0 0\nintr 7\n";
        assert_eq!(busy_in(stat, &[0]), Some(Duration::from_millis(1360)));
        assert_eq!(busy_in(stat, &[0, 1]), Some(Duration::from_millis(6360)));
        assert_eq!(busy_in(stat, &[7]), None);
    }

    #[test]
    fn core_lists_have_ranges() {
        assert_eq!(core_list("\t0-2,8\n"), Some(vec![0, 1, 2, 8]));
        assert_eq!(core_list("x"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_tree_that_is_gone_is_none() {
        // Process ids end at 2^22.
        assert_eq!(Tree::new(&[u32::MAX]).read(), None);
        let own = Tree::new(&[std::process::id()]).read().expect("this process");
        assert!(own.high_water > 0 && own.resident().0 <= own.high_water + (8 << 20));
    }
}
