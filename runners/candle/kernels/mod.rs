//! Products of tiles of sixteen weight rows with panels of up to sixteen activation rows.
//!
//! candle's own tiles for x86 keep `f32` scales (6 bits a weight for `Q4_K`, 8.5 for `Q6_K`) and take
//! four activation rows at a time; these keep the file's bits and take sixteen, because generation is
//! bound by the bytes of the weights and prompt processing by the work for each of them.

#![allow(clippy::needless_range_loop, reason = "an index runs over several arrays of registers")]

pub mod float;
#[cfg(all(target_feature = "avx512vnni", target_feature = "avx512bw"))]
pub mod q4_k;
#[cfg(all(target_feature = "avx512vnni", target_feature = "avx512bw"))]
pub mod q6_k;
#[cfg(all(target_feature = "avx512vnni", target_feature = "avx512bw"))]
pub mod q8_0;

use crate::activations::{Activations, PANEL};
use crate::simd::Lanes;

/// Weight rows of a tile.
pub const ROWS: usize = 16;

/// Sixteen rows × [`Self::SPAN`] columns of weights.
pub trait Tile: Clone + Send + Sync {
    /// Columns of the tile.
    const SPAN: usize;
    /// The tile's share of a panel, `PANEL` of them for each tile.
    type Activation;

    /// The tile's form of the activations' panel.
    fn panel(activations: &Activations, panel: usize) -> &[Self::Activation];

    /// The tile of columns `column..column + SPAN` of `rows`, the raw rows of a GGUF tensor (fewer
    /// than sixteen at the end of a matrix).
    fn pack(rows: &[&[u8]], column: usize) -> Self;

    /// The weights of one row of the tile.
    fn unpack(&self, row: usize, into: &mut [f32]);

    /// Adds the products of `M` activation rows with a row of tiles: `tiles[i]` takes
    /// `activations[i × PANEL..][..M]`.
    fn multiply<const M: usize>(
        tiles: &[Self],
        activations: &[Self::Activation],
        sums: &mut [Lanes; M],
    );
}

/// Asks for the `part`-th of `parts` parts of the tile that lies `ahead` bytes further on: the
/// hardware's own prefetch stops at the end of each 4 KiB page.
#[cfg(all(target_feature = "avx512vnni", target_feature = "avx512bw"))]
#[inline(always)]
fn prefetch<T>(tile: &T, part: usize, parts: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    const LINE: usize = 64;
    let lines = size_of::<T>() / LINE;
    let start = std::ptr::from_ref(tile).cast::<i8>();
    for line in lines * part / parts..lines * (part + 1) / parts {
        let ahead = AHEAD.next_multiple_of(size_of::<T>()) + line * LINE;
        // SAFETY: a prefetch reads nothing; an address outside the weights is ignored.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(ahead)) };
    }
}

/// Bytes between what is computed and what is asked for: about a memory latency's worth of weights.
#[cfg(all(target_feature = "avx512vnni", target_feature = "avx512bw"))]
const AHEAD: usize = 4096;

/// Products of one row of tiles with `rows` rows of a panel; `take` gets each row's sixteen.
#[inline(always)]
pub fn multiply_panel<T: Tile>(
    tiles: &[T],
    panel: &[T::Activation],
    rows: usize,
    mut take: impl FnMut(usize, Lanes),
) {
    let mut done = 0;
    macro_rules! rows_of {
        ($($count:literal)*) => {$(
            while rows - done >= $count {
                let mut sums = [Lanes::zero(); $count];
                T::multiply::<$count>(tiles, &panel[done..], &mut sums);
                for (i, sum) in sums.into_iter().enumerate() {
                    take(done + i, sum);
                }
                done += $count;
            }
        )*};
    }
    debug_assert!(rows <= PANEL);
    rows_of!(16 8 4 2 1);
}
