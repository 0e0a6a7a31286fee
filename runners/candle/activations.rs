//! The left side of a matrix product: rows of floats, quantised once in the forms that the weights'
//! kernels take.
//!
//! Rows lie in panels of sixteen: what a kernel reads for one stretch of `k` is contiguous, whatever
//! the row length.

use half::f16;

use crate::simd::{LANES, Lanes};
use crate::threads::{Shared, Threads};

/// Rows of a panel.
pub const PANEL: usize = 16;

/// 256 values of one row with one scale, for weights in superblocks of 256 (`Q4_K`, `Q6_K`).
#[derive(Clone)]
#[repr(C, align(64))]
pub struct Block256 {
    /// The values, divided by `scale`.
    pub values: [i8; 256],
    /// -32 times the sum of each 16 values: what an offset of 32 in the weights adds too much.
    pub minus_32_sums: [i32; 16],
    /// The sums of each 32 values.
    pub sums: [i16; 8],
    /// The scale.
    pub scale: f32,
}

/// 64 values of one row with a scale for each 32, for weights in blocks of 32 (`Q8_0`).
#[derive(Clone)]
#[repr(C, align(32))]
pub struct Block64 {
    /// The values, divided by their scale.
    pub values: [i8; 64],
    /// -128 times the sum of each 32 values.
    pub minus_128_sums: [i32; 2],
    /// The scales.
    pub scales: [f32; 2],
}

/// One `k` of a panel's rows as floats, for weights that are floats.
pub type Column = [f32; PANEL];

/// Which forms of a row the weights need.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Forms {
    /// [`Block256`].
    pub by_256: bool,
    /// [`Block64`].
    pub by_64: bool,
    /// [`Column`].
    pub floats: bool,
}

impl Forms {
    /// What either needs.
    pub fn or(self, other: Self) -> Self {
        Self {
            by_256: self.by_256 || other.by_256,
            by_64: self.by_64 || other.by_64,
            floats: self.floats || other.floats,
        }
    }
}

/// Rows in the forms that were asked for; the room is made once.
#[derive(Default)]
pub struct Activations {
    /// Values of a row.
    pub k: usize,
    by_256: Vec<Block256>,
    by_64: Vec<Block64>,
    floats: Vec<Column>,
}

impl Activations {
    /// Room for `rows` rows of `k` values.
    pub fn reserve(&mut self, rows: usize, k: usize, forms: Forms) {
        let panels = rows.div_ceil(PANEL);
        let grow = |len: usize, needed: usize| len.max(needed);
        if forms.by_256 {
            let len = grow(self.by_256.len(), panels * (k / 256) * PANEL);
            self.by_256.resize(len, Block256::ZERO);
        }
        if forms.by_64 {
            let len = grow(self.by_64.len(), panels * k.div_ceil(64) * PANEL);
            self.by_64.resize(len, Block64::ZERO);
        }
        if forms.floats {
            let len = grow(self.floats.len(), panels * k);
            self.floats.resize(len, [0.0; PANEL]);
        }
    }

    /// Bytes of the room.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.by_256[..]) + size_of_val(&self.by_64[..]) + size_of_val(&self.floats[..])
    }

    /// Takes rows of `k` values: row `i` is what `read` gives for it, and goes to `place(i)`.
    pub fn fill<'a>(
        &mut self,
        threads: Threads,
        rows: usize,
        k: usize,
        forms: Forms,
        place: impl Fn(usize) -> usize + Sync,
        read: impl Fn(usize) -> &'a [f32] + Sync,
    ) {
        self.k = k;
        let by_256 = Shared::new(&mut self.by_256);
        let by_64 = Shared::new(&mut self.by_64);
        let floats = Shared::new(self.floats.as_flattened_mut());
        // A few rows are quicker on one thread than the others are awake.
        let grain = (16_384 / k.max(1)).max(1);
        threads.share(rows, grain, |range| {
            for i in range {
                let row = read(i);
                let (panel, lane) = (place(i) / PANEL, place(i) % PANEL);
                if forms.by_256 {
                    for (b, values) in row.chunks_exact(256).enumerate() {
                        let at = (panel * (k / 256) + b) * PANEL + lane;
                        // SAFETY: each row has its own place.
                        Block256::quantize(values, unsafe { &mut by_256.part(at..at + 1)[0] });
                    }
                }
                if forms.by_64 {
                    for (b, values) in row.chunks(64).enumerate() {
                        let at = (panel * k.div_ceil(64) + b) * PANEL + lane;
                        // SAFETY: each row has its own place.
                        Block64::quantize(values, unsafe { &mut by_64.part(at..at + 1)[0] });
                    }
                }
                if forms.floats {
                    for (b, &value) in row.iter().enumerate() {
                        let at = (panel * k + b) * PANEL + lane;
                        // SAFETY: each row has its own lane.
                        unsafe { floats.part(at..at + 1)[0] = value };
                    }
                }
            }
        });
    }

    /// The panel's blocks of 256, `PANEL` for each stretch of `k`.
    pub fn panel_by_256(&self, panel: usize) -> &[Block256] {
        let len = self.k / 256 * PANEL;
        &self.by_256[panel * len..(panel + 1) * len]
    }

    /// The panel's blocks of 64.
    pub fn panel_by_64(&self, panel: usize) -> &[Block64] {
        let len = self.k.div_ceil(64) * PANEL;
        &self.by_64[panel * len..(panel + 1) * len]
    }

    /// The panel's columns.
    pub fn panel_floats(&self, panel: usize) -> &[Column] {
        &self.floats[panel * self.k..(panel + 1) * self.k]
    }

    /// Row `index` as floats, for products that candle computes.
    pub fn row(&self, index: usize, into: &mut [f32]) {
        let panel = self.panel_floats(index / PANEL);
        for (value, column) in into.iter_mut().zip(panel) {
            *value = column[index % PANEL];
        }
    }
}

/// Quantises `N` values to signed bytes with the scale `largest magnitude / 127`.
#[inline(always)]
fn quantize<const N: usize>(values: &[f32; N], into: &mut [i8; N]) -> f32 {
    let mut largest = Lanes::zero();
    for chunk in values.chunks_exact(LANES) {
        // SAFETY: the chunk has sixteen floats.
        largest = largest.max(unsafe { Lanes::load(chunk.as_ptr()) }.abs());
    }
    let largest = largest.largest();
    let (scale, inverse) =
        if largest > 0.0 { (largest / 127.0, 127.0 / largest) } else { (0.0, 0.0) };
    for (chunk, bytes) in values.chunks_exact(LANES).zip(into.chunks_exact_mut(LANES)) {
        // SAFETY: the chunk has sixteen floats.
        let scaled = unsafe { Lanes::load(chunk.as_ptr()) }.mul(Lanes::splat(inverse)).round();
        scaled.store_bytes(bytes);
    }
    scale
}

/// The sum of 16 bytes.
#[inline(always)]
fn sum(bytes: &[i8]) -> i32 {
    bytes.iter().map(|&b| i32::from(b)).sum()
}

impl Block256 {
    const ZERO: Self = Self { values: [0; 256], minus_32_sums: [0; 16], sums: [0; 8], scale: 0.0 };

    fn quantize(values: &[f32], into: &mut Self) {
        let values: &[f32; 256] = values.try_into().expect("a chunk of 256");
        into.scale = quantize(values, &mut into.values);
        let mut sums = [0; 16];
        for (sum_of, bytes) in sums.iter_mut().zip(into.values.chunks_exact(16)) {
            *sum_of = sum(bytes);
        }
        into.minus_32_sums = sums.map(|s| -32 * s);
        into.sums = std::array::from_fn(|i| (sums[2 * i] + sums[2 * i + 1]) as i16);
    }
}

impl Block64 {
    const ZERO: Self = Self { values: [0; 64], minus_128_sums: [0; 2], scales: [0.0; 2] };

    /// `values` may be 32 at the end of a row; the rest is zero.
    fn quantize(values: &[f32], into: &mut Self) {
        let (halves, _) = values.as_chunks::<32>();
        let (bytes, _) = into.values.as_chunks_mut::<32>();
        for (i, bytes) in bytes.iter_mut().enumerate() {
            match halves.get(i) {
                // The scale is a half, as in llama.cpp's blocks: the engines should agree.
                Some(half) => {
                    let scale = quantize(half, bytes);
                    into.scales[i] = f16::from_f32(scale).to_f32();
                }
                None => {
                    *bytes = [0; 32];
                    into.scales[i] = 0.0;
                }
            }
            into.minus_128_sums[i] = -128 * sum(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantised_rows_are_within_half_a_step() {
        let threads = Threads::new(None).unwrap();
        let rows: Vec<Vec<f32>> = (0..19)
            .map(|r| (0..512).map(|i| ((i * 37 + r * 11) % 101) as f32 - 50.0).collect())
            .collect();
        let forms = Forms { by_256: true, by_64: true, floats: true };
        let mut activations = Activations::default();
        activations.reserve(rows.len(), 512, forms);
        activations.fill(threads, rows.len(), 512, forms, |i| i, |i| &rows[i]);
        for (r, row) in rows.iter().enumerate() {
            for (i, &value) in row.iter().enumerate() {
                let block = &activations.panel_by_256(r / PANEL)[i / 256 * PANEL + r % PANEL];
                let got = block.scale * f32::from(block.values[i % 256]);
                assert!((got - value).abs() <= block.scale * 0.5001);
                let block = &activations.panel_by_64(r / PANEL)[i / 64 * PANEL + r % PANEL];
                let got = block.scales[i / 32 % 2] * f32::from(block.values[i % 64]);
                // half a step, and what 127 steps lose to a scale of eleven bits
                assert!(
                    (got - value).abs() <= block.scales[i / 32 % 2] * (0.5001 + 127.0 / 2048.0)
                );
            }
            let mut copy = vec![0.0; 512];
            activations.row(r, &mut copy);
            assert_eq!(&copy, row);
        }
    }

    #[test]
    fn a_half_block_at_the_end_of_a_row_is_padded_with_zeros() {
        let row = vec![1.0; 96];
        let mut block = Block64::ZERO;
        block.values = [7; 64];
        Block64::quantize(&row[64..], &mut block);
        assert_eq!(block.values[31], 127);
        assert_eq!(block.values[32..], [0; 32]);
        assert_eq!(block.minus_128_sums, [-128 * 127 * 32, 0]);
    }
}
