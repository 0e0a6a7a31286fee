//! The engine's threads: candle's barrier pool, whose workers spin between the small steps of one
//! token.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::bail;
use candle_core::utils::{BarrierPool, barrier_pool};

/// candle's pool with the number of threads that a case asked for.
#[derive(Clone, Copy)]
pub struct Threads {
    pool: &'static BarrierPool,
}

impl Threads {
    /// The pool with `count` threads, candle's own number where it is `None`.
    pub fn new(count: Option<u32>) -> anyhow::Result<Self> {
        if let Some(count) = count {
            if count == 0 {
                bail!("0 threads cannot compute; ask for 1 or more");
            }
            for variable in ["CANDLE_NUM_THREADS", "RAYON_NUM_THREADS"] {
                // SAFETY: a runner has a single thread until the pools start below, so that
                // nobody reads the environment at the same time.
                unsafe { std::env::set_var(variable, count.to_string()) };
            }
        }
        let threads = Self { pool: barrier_pool() };
        if count.is_some_and(|count| count as usize != threads.count()) {
            bail!(
                "candle started with {} threads; a new number needs a new process",
                threads.count()
            );
        }
        Ok(threads)
    }

    /// Threads that compute, the caller among them.
    pub fn count(self) -> usize {
        self.pool.n_workers() + 1
    }

    /// Calls `work` on parts of `0..items`, each at least `grain` long (the last may be shorter),
    /// on all threads, and returns when all is done. Fast threads take more parts.
    pub fn share(self, items: usize, grain: usize, work: impl Fn(Range<usize>) + Sync) {
        if items <= grain || self.count() == 1 {
            if items > 0 {
                work(0..items);
            }
            return;
        }
        // About eight parts a thread: few enough for a cheap cursor, small enough at the end.
        let part = items.div_ceil(self.count() * 8).max(grain);
        let next = AtomicUsize::new(0);
        self.pool.execute(|_| {
            loop {
                let start = next.fetch_add(part, Ordering::Relaxed);
                if start >= items {
                    break;
                }
                work(start..items.min(start + part));
            }
        });
    }
}

/// A mutable slice whose disjoint parts several threads write.
pub struct Shared<T> {
    start: *mut T,
    len: usize,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

// SAFETY: a `Shared` is a slice that was borrowed mutably; who takes parts of it promises that
// they are disjoint.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The whole of `slice`, which must outlive the work.
    pub fn new(slice: &mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len() }
    }

    /// # Safety
    /// No other thread holds a part that overlaps `range`, and the slice is still borrowed.
    #[inline(always)]
    pub unsafe fn part<'a>(self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the slice; the caller promises that nobody else holds this part.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once() {
        let threads = Threads::new(None).unwrap();
        for (items, grain) in [(0, 1), (1, 1), (7, 3), (1000, 1), (1000, 64)] {
            let mut done = vec![0_u8; items];
            let shared = Shared::new(&mut done);
            threads.share(items, grain, |range| {
                // SAFETY: the parts of one call are disjoint.
                unsafe { shared.part(range) }.iter_mut().for_each(|d| *d += 1);
            });
            assert!(done.iter().all(|&d| d == 1), "{items} items in parts of {grain}");
        }
    }
}
