//! Causal attention over the cache, block by block with a running softmax, for single tokens and
//! prompts alike.

#![allow(clippy::needless_range_loop, reason = "an index runs over several arrays of registers")]

use std::cell::RefCell;

use crate::cache::{Cache, TILE};
use crate::simd::{Element, LANES, Lanes};
use crate::threads::{Shared, Threads};

/// Most query rows of a task.
const ROWS: usize = 16;

/// Keys of a block for many rows, so that the block's values stay in the first-level cache, and for
/// few rows, where nothing is read twice.
const KEYS_OF_MANY: usize = 64;
const KEYS_OF_FEW: usize = 256;

/// Neighbouring tokens of one sequence in a step.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The first one's row in the step.
    pub row: usize,
    /// Their number.
    pub tokens: usize,
    /// The sequence.
    pub slot: usize,
    /// The first one's position.
    pub position: usize,
}

/// What stays the same for all tasks of a layer.
pub struct Attention<'a, E> {
    /// Where keys and values are.
    pub cache: &'a Cache<E>,
    /// The layer.
    pub layer: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub dim: usize,
    /// Factor of the products.
    pub scale: f32,
    /// Positions that a token sees, itself among them.
    pub window: Option<usize>,
}

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

impl<E: Element> Attention<'_, E> {
    /// Attends for all runs. Queries of row `r` start at `queries[r × stride]`; results go to
    /// `out[r × heads × dim]`.
    pub fn attend(
        &self,
        threads: Threads,
        runs: &[Run],
        queries: &[f32],
        stride: usize,
        out: &mut [f32],
    ) {
        let group = self.heads / self.kv_heads;
        // A task's rows are the heads of a group (or a part of them) for some tokens.
        let heads = group.min(ROWS);
        let parts = group.div_ceil(heads);
        let tokens = ROWS / heads;
        let blocks = |run: &Run| run.tokens.div_ceil(tokens);
        let tasks: usize = runs.iter().map(blocks).sum::<usize>() * self.kv_heads * parts;
        let out = Shared::new(out);
        threads.share(tasks, 1, |range| {
            for task in range {
                let (block, head) =
                    (task / (self.kv_heads * parts), task % (self.kv_heads * parts));
                let mut first = 0;
                let Some((run, block)) = runs.iter().find_map(|run| {
                    let found = (block < first + blocks(run)).then(|| (run, block - first));
                    first += blocks(run);
                    found
                }) else {
                    continue;
                };
                let start = block * tokens;
                let run = Run {
                    row: run.row + start,
                    tokens: tokens.min(run.tokens - start),
                    slot: run.slot,
                    position: run.position + start,
                };
                let (kv_head, part) = (head / parts, head % parts);
                let first_head = kv_head * group + part * heads;
                let heads = heads.min(group - part * heads);
                SCRATCH.with_borrow_mut(|scratch| {
                    self.task(
                        &run,
                        kv_head,
                        first_head..first_head + heads,
                        queries,
                        stride,
                        out,
                        scratch,
                    );
                });
            }
        });
    }

    #[allow(clippy::too_many_arguments)]
    fn task(
        &self,
        run: &Run,
        kv_head: usize,
        heads: std::ops::Range<usize>,
        queries: &[f32],
        stride: usize,
        out: Shared<f32>,
        scratch: &mut Vec<f32>,
    ) {
        let (dim, rows) = (self.dim, run.tokens * heads.len());
        let most = if rows <= 4 { KEYS_OF_FEW } else { KEYS_OF_MANY };
        scratch.resize(rows * (2 * dim + most), 0.0);
        let (q, rest) = scratch.split_at_mut(rows * dim);
        let (acc, scores) = rest.split_at_mut(rows * dim);
        acc.fill(0.0);
        for (row, q) in q.chunks_exact_mut(dim).enumerate() {
            let (token, head) = (row / heads.len(), heads.start + row % heads.len());
            let from = &queries[(run.row + token) * stride + head * dim..][..dim];
            for (q, &x) in q.iter_mut().zip(from) {
                *q = x * self.scale;
            }
        }
        // Row r sees positions from first(r) to last(r).
        let last = |row: usize| run.position + row / heads.len();
        let first =
            |row: usize| self.window.map_or(0, |window| (last(row) + 1).saturating_sub(window));
        let (keys, values) = self.cache.head(self.layer, run.slot, kv_head);
        let mut largest = [f32::NEG_INFINITY; ROWS];
        let mut total = [0.0_f32; ROWS];
        let end = last(rows - 1) + 1;
        let mut start = first(0) / TILE * TILE;
        while start < end {
            let count = (end - start).min(most);
            let tiles = count.div_ceil(TILE);
            multiply_keys(q, &keys[start * dim..(start + tiles * TILE) * dim], dim, scores, most);
            for row in 0..rows {
                let scores = &mut scores[row * most..][..tiles * TILE];
                let seen = first(row).max(start) - start
                    ..(last(row) + 1).clamp(start, start + count) - start;
                if seen.is_empty() {
                    scores.fill(0.0);
                    continue;
                }
                scores[..seen.start].fill(f32::NEG_INFINITY);
                scores[seen.end..].fill(f32::NEG_INFINITY);
                soften(scores, &mut largest[row], &mut total[row], &mut acc[row * dim..][..dim]);
            }
            add_values(scores, most, &values[start * dim..(start + count) * dim], dim, acc);
            start += count;
        }
        for (row, acc) in acc.chunks_exact(dim).enumerate() {
            let (token, head) = (row / heads.len(), heads.start + row % heads.len());
            let at = ((run.row + token) * self.heads + head) * dim;
            // SAFETY: each task has its own tokens and heads.
            let out = unsafe { out.part(at..at + dim) };
            let factor = 1.0 / total[row];
            for (out, &x) in out.iter_mut().zip(acc) {
                *out = x * factor;
            }
        }
    }
}

/// Turns a block's scores into weights relative to the largest score so far, and rescales what was
/// summed before.
#[inline]
fn soften(scores: &mut [f32], largest: &mut f32, total: &mut f32, acc: &mut [f32]) {
    let chunks = scores.as_chunks_mut::<LANES>().0;
    let mut most = Lanes::splat(f32::NEG_INFINITY);
    for chunk in chunks.iter() {
        // SAFETY: a chunk has sixteen floats.
        most = most.max(unsafe { Lanes::load(chunk.as_ptr()) });
    }
    let most = most.largest().max(*largest);
    if most > *largest {
        let shrink = Lanes::splat(*largest - most).exp().to_array()[0];
        *total *= shrink;
        acc.iter_mut().for_each(|x| *x *= shrink);
        *largest = most;
    }
    let mut sum = Lanes::zero();
    for chunk in chunks.iter_mut() {
        // SAFETY: a chunk has sixteen floats.
        unsafe {
            let weight = Lanes::load(chunk.as_ptr()).sub(Lanes::splat(most)).exp();
            weight.store(chunk.as_mut_ptr());
            sum = sum.add(weight);
        }
    }
    *total += sum.sum();
}

/// Products of all query rows with all keys, `stride` apart for each row.
fn multiply_keys<E: Element>(q: &[f32], keys: &[E], dim: usize, scores: &mut [f32], stride: usize) {
    #[inline(always)]
    fn block<E: Element, const R: usize, const T: usize>(
        q: &[f32],
        keys: &[E],
        dim: usize,
        scores: &mut [f32],
        stride: usize,
    ) {
        let tiles = keys.len() / (dim * TILE);
        assert!(q.len() >= R * dim && scores.len() >= (R - 1) * stride + tiles * TILE);
        let mut tile = 0;
        while tile < tiles {
            // At the end the last tiles are computed twice rather than one at a time.
            let at = if tiles >= T { tile.min(tiles - T) } else { 0 };
            let count = T.min(tiles);
            let mut sums = [[Lanes::zero(); T]; R];
            // SAFETY: tiles at..at + count lie inside `keys`, rows inside `q` and `scores` as the
            // assertion says; tiles beyond `count` read tile `at` again and are not stored.
            unsafe {
                for i in 0..dim {
                    let key: [Lanes; T] = std::array::from_fn(|t| {
                        let t = if t < count { t } else { 0 };
                        E::load(keys.as_ptr().add(((at + t) * dim + i) * TILE))
                    });
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let q = Lanes::splat(*q.as_ptr().add(r * dim + i));
                        for t in 0..T {
                            sums[t] = key[t].mul_add(q, sums[t]);
                        }
                    }
                }
                for (r, sums) in sums.iter().enumerate() {
                    for (t, sum) in sums.iter().enumerate().take(count) {
                        sum.store(scores.as_mut_ptr().add(r * stride + (at + t) * TILE));
                    }
                }
            }
            tile += count;
        }
    }
    let rows = q.len() / dim;
    let mut done = 0;
    macro_rules! rows_of {
        ($($rows:literal by $tiles:literal),*) => {$(
            while rows - done >= $rows {
                let (q, scores) = (&q[done * dim..], &mut scores[done * stride..]);
                block::<E, $rows, $tiles>(q, keys, dim, scores, stride);
                done += $rows;
            }
        )*};
    }
    rows_of!(16 by 1, 8 by 2, 4 by 4, 2 by 4, 1 by 4);
}

/// Adds the values, weighted by the scores, to the rows of `acc`.
fn add_values<E: Element>(
    scores: &[f32],
    stride: usize,
    values: &[E],
    dim: usize,
    acc: &mut [f32],
) {
    #[inline(always)]
    fn block<E: Element, const R: usize, const C: usize>(
        scores: &[f32],
        stride: usize,
        values: &[E],
        dim: usize,
        chunk: usize,
        acc: &mut [f32],
    ) {
        let count = values.len() / dim;
        assert!(scores.len() >= (R - 1) * stride + count && acc.len() >= R * dim);
        assert!((chunk + C) * LANES <= dim);
        // SAFETY: chunks chunk..chunk + C of each position lie inside `values` and of each row
        // inside `acc`, and the weights inside `scores`, as the assertions say.
        unsafe {
            let mut sums: [[Lanes; C]; R] = std::array::from_fn(|r| {
                std::array::from_fn(|c| {
                    Lanes::load(acc.as_ptr().add(r * dim + (chunk + c) * LANES))
                })
            });
            for position in 0..count {
                let value: [Lanes; C] = std::array::from_fn(|c| {
                    E::load(values.as_ptr().add(position * dim + (chunk + c) * LANES))
                });
                for (r, sums) in sums.iter_mut().enumerate() {
                    let weight = Lanes::splat(*scores.as_ptr().add(r * stride + position));
                    for c in 0..C {
                        sums[c] = value[c].mul_add(weight, sums[c]);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (c, sum) in sums.iter().enumerate() {
                    sum.store(acc.as_mut_ptr().add(r * dim + (chunk + c) * LANES));
                }
            }
        }
    }
    let (rows, chunks) = (acc.len() / dim, dim / LANES);
    let mut done = 0;
    macro_rules! rows_of {
        ($($rows:literal by $chunks:literal),*) => {$(
            while rows - done >= $rows {
                let (scores, acc) = (&scores[done * stride..], &mut acc[done * dim..]);
                let mut chunk = 0;
                while chunks - chunk >= $chunks {
                    block::<E, $rows, $chunks>(scores, stride, values, dim, chunk, acc);
                    chunk += $chunks;
                }
                while chunk < chunks {
                    block::<E, $rows, 1>(scores, stride, values, dim, chunk, acc);
                    chunk += 1;
                }
                done += $rows;
            }
        )*};
    }
    rows_of!(16 by 1, 8 by 2, 4 by 4, 2 by 8, 1 by 8);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Attention as its definition says, in f64.
    fn plain(
        cache: &[(Vec<f32>, Vec<f32>)],
        query: &[f32],
        position: usize,
        window: Option<usize>,
        scale: f32,
    ) -> Vec<f32> {
        let first = window.map_or(0, |w| (position + 1).saturating_sub(w));
        let weights: Vec<f64> = (first..=position)
            .map(|p| {
                let dot: f64 =
                    query.iter().zip(&cache[p].0).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                (dot * f64::from(scale)).exp()
            })
            .collect();
        let total: f64 = weights.iter().sum();
        (0..query.len())
            .map(|i| {
                let sum: f64 = (first..=position)
                    .zip(&weights)
                    .map(|(p, w)| w * f64::from(cache[p].1[i]))
                    .sum();
                (sum / total) as f32
            })
            .collect()
    }

    fn noise(seed: usize) -> f32 {
        ((seed.wrapping_mul(2_654_435_761) >> 7) % 2001) as f32 / 1000.0 - 1.0
    }

    #[test]
    fn blocks_and_windows_give_what_the_definition_gives() {
        let (heads, kv_heads, dim, slots) = (6, 2, 32, 2);
        let threads = Threads::new(None).unwrap();
        for (depth, tokens, window) in
            [(0, 40, None), (300, 1, None), (290, 3, None), (100, 70, Some(33)), (5, 1, Some(2))]
        {
            let mut cache = Cache::<f32>::new(1, kv_heads, dim, slots, depth + tokens);
            let plain_cache: Vec<Vec<(Vec<f32>, Vec<f32>)>> = (0..kv_heads)
                .map(|head| {
                    (0..depth + tokens)
                        .map(|p| {
                            let row = |s: usize| {
                                (0..dim).map(|i| noise(s + i + 97 * p + 7919 * head)).collect()
                            };
                            (row(1), row(50_000))
                        })
                        .collect()
                })
                .collect();
            let writer = cache.writer();
            for (head, rows) in plain_cache.iter().enumerate() {
                for (position, (key, value)) in rows.iter().enumerate() {
                    // SAFETY: one thread.
                    unsafe { writer.write((0, 1, head), position, key, value) };
                }
            }
            let queries: Vec<f32> = (0..tokens * heads * dim).map(|i| noise(i * 31)).collect();
            let mut out = vec![0.0; queries.len()];
            let scale = 0.7;
            let attention =
                Attention { cache: &cache, layer: 0, heads, kv_heads, dim, scale, window };
            let run = Run { row: 0, tokens, slot: 1, position: depth };
            attention.attend(threads, &[run], &queries, heads * dim, &mut out);
            for token in 0..tokens {
                for head in 0..heads {
                    let at = (token * heads + head) * dim;
                    let rows = &plain_cache[head / (heads / kv_heads)];
                    let want = plain(rows, &queries[at..][..dim], depth + token, window, scale);
                    for (got, want) in out[at..][..dim].iter().zip(want) {
                        assert!((got - want).abs() < 1e-4, "{depth} {tokens} {window:?}");
                    }
                }
            }
        }
    }
}
