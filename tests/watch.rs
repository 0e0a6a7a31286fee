//! The watch sees what real processes use: this test starts itself as a child and as a grandchild.

#![cfg(target_os = "linux")]

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bench::units::Bytes;
use bench::watch::{Observed, Watch};

const MIB: u64 = 1 << 20;
const ALLOCATE: &str = "BENCH_TEST_ALLOCATE_MIB";
const GRANDCHILD: &str = "BENCH_TEST_GRANDCHILD_MIB";
const COMPUTE: &str = "BENCH_TEST_COMPUTE_MS";

/// The child's part; it does nothing in an ordinary run of the tests.
#[test]
fn child() {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<usize>().ok());
    let Some(mebibytes) = number(ALLOCATE) else { return };
    if let Some(grandchild) = number(GRANDCHILD) {
        let grandchild = Tree::start(grandchild, &[]);
        hold(mebibytes);
        grandchild.end();
        return;
    }
    if let Some(time) = number(COMPUTE) {
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(time as u64) {
            std::hint::black_box(start);
        }
    }
    hold(mebibytes);
}

/// Fills memory, says so, frees it, and waits for the end of standard input.
fn hold(mebibytes: usize) {
    let memory = std::hint::black_box(vec![1_u8; mebibytes << 20]);
    drop(memory);
    println!("\nready");
    let mut rest = Vec::new();
    std::io::stdin().read_to_end(&mut rest).expect("an end of standard input");
}

/// A child that has filled its memory and waits.
struct Tree(Child);

impl Tree {
    fn spawn(mebibytes: usize, more: &[(&str, usize)]) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "child", "--nocapture"]);
        command.env_remove(GRANDCHILD).env_remove(COMPUTE);
        command.env(ALLOCATE, mebibytes.to_string());
        command.envs(more.iter().map(|(name, value)| (name, value.to_string())));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(command.spawn().expect("a child"))
    }

    fn start(mebibytes: usize, more: &[(&str, usize)]) -> Self {
        Self::spawn(mebibytes, more).ready()
    }

    fn ready(mut self) -> Self {
        let output = self.0.stdout.as_mut().expect("its output");
        let ready = BufReader::new(output).lines().any(|l| l.is_ok_and(|l| l == "ready"));
        assert!(ready, "the child ended early");
        self
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        // Its last words go nowhere, which is no failure of the watch.
        self.0.wait().expect("its end");
    }
}

fn between(value: Option<Bytes>, low_mib: u64, high_mib: u64) {
    let value = value.expect("a value");
    assert!(value >= Bytes(low_mib * MIB) && value <= Bytes(high_mib * MIB), "{value}");
}

#[test]
fn memory_that_was_freed_before_the_first_sample_is_seen() {
    let child = Tree::start(200, &[]);
    let observed = Watch::start(child.0.id()).finish();
    between(observed.peak_memory, 200, 230);
    assert!(observed.resident.expect("resident").anonymous < Bytes(50 * MIB), "it was freed");
    child.end();
}

#[test]
fn a_grandchild_counts() {
    let child = Tree::start(40, &[(GRANDCHILD, 160)]);
    let observed = Watch::start(child.0.id()).finish();
    between(observed.peak_memory, 200, 250);
    assert_eq!(observed.processes, 2);
    child.end();
}

#[test]
fn two_trees_are_watched_together() {
    let (a, b) = (Tree::start(30, &[]), Tree::start(50, &[]));
    let observed = Watch::start_trees(&[a.0.id(), b.0.id()]).finish();
    between(observed.peak_memory, 80, 120);
    a.end();
    b.end();
}

#[test]
fn cpu_time_is_counted_to_the_tree() {
    let child = Tree::spawn(1, &[(COMPUTE, 1200)]);
    let watch = Watch::start(child.0.id());
    let child = child.ready();
    let Observed { whole, samples, .. } = watch.finish();
    // Beside other programs the child may get a part of a core.
    let cpu = whole.tree_cpu.expect("CPU time").seconds();
    assert!((0.2..=1.4).contains(&cpu), "{cpu} s");
    assert!(whole.time.seconds() >= 1.1 && samples >= 5, "{samples} samples");
    assert!(whole.other_cpu.is_some() && whole.cores.is_some());
    child.end();
}

#[test]
fn cpu_time_of_a_stranger_is_counted_to_the_others() {
    let idle = Tree::start(1, &[]);
    let watch = Watch::start(idle.0.id());
    let stranger = Tree::start(1, &[(COMPUTE, 1200)]);
    let whole = watch.finish().whole;
    let (own, others) = (whole.tree_cpu.expect("CPU time"), whole.other_cpu.expect("CPU time"));
    assert!(own.seconds() < 0.1 && others.seconds() > 0.2, "{own} and {others}");
    idle.end();
    stranger.end();
}

#[test]
fn a_lap_counts_from_the_lap_before() {
    let child = Tree::start(1, &[]);
    let watch = Watch::start(child.0.id());
    std::thread::sleep(Duration::from_millis(300));
    let first = watch.lap().expect("a lap");
    std::thread::sleep(Duration::from_millis(150));
    let second = watch.lap().expect("a lap");
    let whole = watch.finish().whole;
    assert!(first.time.seconds() >= 0.3 && second.time.seconds() >= 0.15);
    assert!(whole.time.seconds() >= first.time.seconds() + second.time.seconds());
    child.end();
}

#[test]
fn a_stranger_between_trials_is_nobody_s_business() {
    let idle = Tree::start(1, &[]);
    let watch = Watch::start(idle.0.id());
    watch.loaded();
    for _ in 0..2 {
        watch.trial_starts();
        std::thread::sleep(Duration::from_millis(100));
        watch.trial_ends();
        std::thread::sleep(Duration::from_millis(200));
    }
    let observed = watch.finish();
    let trials = observed.trials.as_ref().expect("trials").time.seconds();
    assert!((0.2..0.4).contains(&trials), "{trials} s");
    assert!(observed.whole.time.seconds() >= 0.6);
    idle.end();
}

#[test]
fn a_process_that_is_not_there_leaves_no_figure_and_a_reason() {
    let observed = Watch::start(u32::MAX).finish();
    assert_eq!((observed.peak_memory, observed.whole.tree_cpu), (None, None));
    assert!(observed.absent["peak_memory"].contains("not there"), "{:?}", observed.absent);
}

#[test]
fn a_process_s_end_is_survived_and_its_peak_kept() {
    let child = Tree::start(100, &[]);
    let watch = Watch::start(child.0.id());
    child.end();
    std::thread::sleep(Duration::from_millis(250));
    let observed = watch.finish();
    between(observed.peak_memory, 100, 130);
    assert!(observed.samples >= 3, "{} samples", observed.samples);
}

#[test]
fn settling_waits_for_processes_that_still_compute_but_not_for_ever() {
    let begin = Instant::now();
    let tree = Tree::spawn(1, &[(COMPUTE, 1500)]);
    let watch = Watch::start(tree.0.id());
    watch.settle(Duration::from_secs(60));
    let rested = begin.elapsed();
    assert!(rested >= Duration::from_millis(1500), "{rested:?} is before the end of the work");
    tree.end();
    watch.finish();
    let mut busy = Tree::spawn(1, &[(COMPUTE, 60_000)]);
    let watch = Watch::start(busy.0.id());
    let begin = Instant::now();
    watch.settle(Duration::from_millis(600));
    assert!(begin.elapsed() < Duration::from_secs(30));
    busy.0.kill().expect("a living child");
    busy.end();
    watch.finish();
}
