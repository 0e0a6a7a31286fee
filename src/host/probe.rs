//! The probe: a short fixed measurement of memory bandwidth and arithmetic speed, the same before
//! and after a run, so that a machine that has become slower shows.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use serde::{Deserialize, Serialize};

use crate::units::{Bytes, GbPerSecond, Nanos, Share, Tflops};

/// What the probe measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Reading from main memory with all threads, each its own part of a buffer far larger than the
    /// last-level cache.
    pub read_bandwidth: GbPerSecond,
    /// Multiply-adds in 32-bit floating point with all threads, in registers: the peak that the
    /// instruction sets of this build reach, two operations each.
    pub compute: Tflops,
    /// Threads that took part.
    pub threads: u32,
    /// Size of the buffer.
    pub buffer: Bytes,
    /// How long the probe took, the making of its buffer included.
    pub took: Nanos,
}

impl Probe {
    /// The largest relative change between two probes, in either direction; above 3 % the rows
    /// between them are marked.
    pub fn drift(&self, later: &Self) -> Share {
        let change = |a: f64, b: f64| (b / a - 1.0).abs();
        Share(
            change(self.read_bandwidth.0, later.read_bandwidth.0)
                .max(change(self.compute.0, later.compute.0)),
        )
    }
}

/// How long each thread reads.
const READING: Duration = Duration::from_millis(200);
/// How long each thread multiplies and adds.
const COMPUTING: Duration = Duration::from_millis(80);
/// Parts of each of these times, of which the median counts.
const SLICES: u32 = 8;
/// The buffer in last-level caches: what stays cached between two passes then hardly counts.
const CACHES: u64 = 6;
/// The smallest buffer, also where the size of the cache is unknown.
const SMALLEST_BUFFER: u64 = 192 << 20;
/// Bytes between two looks at the clock.
const CHUNK: usize = 1 << 20;

/// Measures with `threads` threads in about 0.3 s. Fails where the result would be wrong: in a build
/// without optimisation, or with too little free memory for a buffer that caches cannot hold.
pub fn probe(threads: u32) -> anyhow::Result<Probe> {
    ensure!(threads > 0, "the probe needs a thread; give a number of threads above 0");
    if cfg!(debug_assertions) {
        bail!("the probe measures nothing in a build without optimisation; build with --release");
    }
    let started = Instant::now();
    let cache = super::cpu::last_level_cache().map_or(0, |c| c.reached_by(threads).0);
    let buffer = (CACHES * cache).max(SMALLEST_BUFFER);
    let available = super::available_memory();
    ensure!(
        buffer <= available.0 / 2,
        "the probe needs {} of free memory and {available} are free; close other programs",
        Bytes(2 * buffer)
    );
    let words = buffer as usize / size_of::<u64>() / threads as usize;
    let barrier = Barrier::new(threads as usize);
    let rates: Vec<(f64, f64)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    // Written by the thread that reads it, so that it lies in its memory node.
                    let part = vec![black_box(1_u64); words];
                    barrier.wait();
                    let mut chunks = part.chunks(CHUNK / size_of::<u64>()).cycle();
                    let bandwidth = rate(READING, || {
                        let chunk = chunks.next().unwrap_or(&[]);
                        black_box(sum(black_box(chunk)));
                        size_of_val(chunk) as f64
                    });
                    barrier.wait();
                    let compute = rate(COMPUTING, || multiply_add(black_box(4096)));
                    (bandwidth, compute)
                })
            })
            .collect();
        workers.into_iter().filter_map(|w| w.join().ok()).collect()
    });
    ensure!(rates.len() == threads as usize, "a thread of the probe ended early; run it again");
    Ok(Probe {
        read_bandwidth: GbPerSecond(rates.iter().map(|r| r.0).sum::<f64>() / 1e9),
        compute: Tflops(rates.iter().map(|r| r.1).sum::<f64>() / 1e12),
        threads,
        buffer: Bytes((words * size_of::<u64>() * threads as usize) as u64),
        took: Nanos(started.elapsed().as_nanos() as u64),
    })
}

/// Repeats `step`, which says how much it did, for `time`: amount per second, the median of slices,
/// so that one interruption does not count.
fn rate(time: Duration, mut step: impl FnMut() -> f64) -> f64 {
    let mut slices: Vec<f64> = (0..SLICES)
        .map(|_| {
            let start = Instant::now();
            let mut amount = 0.0;
            loop {
                amount += step();
                let elapsed = start.elapsed();
                if elapsed >= time / SLICES {
                    return amount / elapsed.as_secs_f64();
                }
            }
        })
        .collect();
    slices.sort_by(f64::total_cmp);
    slices[slices.len() / 2]
}

/// Sums `words` in 64 lanes, which the compiler turns into vector loads and adds.
#[inline(never)]
fn sum(words: &[u64]) -> u64 {
    let mut lanes = [0_u64; 64];
    let (blocks, rest) = words.as_chunks::<64>();
    for block in blocks {
        for (lane, word) in lanes.iter_mut().zip(block) {
            *lane = lane.wrapping_add(*word);
        }
    }
    lanes.iter().chain(rest).fold(0, |a, b| a.wrapping_add(*b))
}

/// Values that are multiplied and added at once: enough independent chains of the widest vectors to
/// hide the latency of two units.
const LANES: usize = 192;

/// `rounds` multiply-adds on each lane; the number of floating-point operations.
#[inline(never)]
fn multiply_add(rounds: u32) -> f64 {
    let (factor, term) = (black_box(0.999_f32), black_box(0.001_f32));
    let mut lanes = [black_box(1.0_f32); LANES];
    for _ in 0..rounds {
        for lane in &mut lanes {
            // Without the instruction, mul_add is a call of the C library.
            *lane = if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                lane.mul_add(factor, term)
            } else {
                *lane * factor + term
            };
        }
    }
    black_box(lanes);
    2.0 * LANES as f64 * f64::from(rounds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(read_bandwidth: f64, compute: f64) -> Probe {
        Probe {
            read_bandwidth: GbPerSecond(read_bandwidth),
            compute: Tflops(compute),
            threads: 2,
            buffer: Bytes(SMALLEST_BUFFER),
            took: Nanos(300_000_000),
        }
    }

    #[test]
    fn drift_is_the_larger_change_of_the_two_speeds() {
        let drift = measured(40.0, 0.2).drift(&measured(38.0, 0.202));
        assert!((drift.0 - 0.05).abs() < 1e-9, "{drift}");
        assert_eq!(measured(40.0, 0.2).drift(&measured(40.0, 0.2)), Share(0.0));
    }

    #[test]
    fn no_threads_measure_nothing() {
        assert!(probe(0).is_err());
    }

    #[cfg(debug_assertions)]
    #[test]
    fn a_build_without_optimisation_gives_no_figure() {
        let error = probe(1).expect_err("no figure");
        assert!(error.to_string().contains("--release"), "{error}");
    }

    #[cfg(not(debug_assertions))]
    #[test]
    fn the_probe_is_short_and_its_figures_can_be() {
        let probe = probe(1).expect("a probe");
        assert!(probe.took.seconds() < 3.0, "{}", probe.took);
        // A thread of any processor of today reads more than 0.5 GB/s and less than 1 TB/s.
        assert!((0.5..1000.0).contains(&probe.read_bandwidth.0), "{}", probe.read_bandwidth);
        assert!((0.0005..10.0).contains(&probe.compute.0), "{}", probe.compute);
    }
}
