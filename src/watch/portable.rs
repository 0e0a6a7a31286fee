//! The same of [`super::process`] where there is no `/proc`: what `sysinfo` can tell.

use std::time::Duration;

use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use super::process::Usage;

/// A process tree.
pub struct Tree {
    roots: Vec<u32>,
    system: System,
    members: Vec<u32>,
}

impl Tree {
    /// The trees below `roots`, these included.
    pub fn new(roots: &[u32]) -> Self {
        Self { roots: roots.to_vec(), system: System::new(), members: Vec::new() }
    }

    /// Adds a process that lives since before the watch.
    pub fn also(&mut self, root: u32) {
        self.roots.push(root);
    }

    /// The living processes.
    pub fn pids(&self) -> impl Iterator<Item = u32> + '_ {
        self.members.iter().copied()
    }

    /// Reads the tree; `None` where none of it is alive. There is no high-water mark here: it is
    /// the memory in use now, and a watcher's maximum can miss a short peak.
    pub fn read(&mut self) -> Option<Usage> {
        let kind = ProcessRefreshKind::nothing().with_memory().with_cpu();
        self.system.refresh_processes_specifics(ProcessesToUpdate::All, true, kind);
        let processes = self.system.processes();
        let belongs = |pid: Pid| {
            let mut at = Some(pid);
            // No tree is deeper, and a loop of parents would be endless.
            for _ in 0..64 {
                let Some(pid) = at else { return false };
                if self.roots.contains(&pid.as_u32()) {
                    return true;
                }
                at = processes.get(&pid).and_then(|p| p.parent());
            }
            false
        };
        let mut usage = Usage::default();
        let mut members = Vec::new();
        for (pid, process) in processes {
            if process.thread_kind().is_none() && belongs(*pid) {
                members.push(pid.as_u32());
                usage.high_water += process.memory();
                usage.anonymous += process.memory();
                usage.cpu += Duration::from_millis(process.accumulated_cpu_time());
                usage.processes += 1;
            }
        }
        self.members = members;
        (usage.processes > 0).then_some(usage)
    }
}
