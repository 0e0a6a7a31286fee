//! `Q4_K`: superblocks of 256 values of 4 bits, in eight groups with a 6-bit scale and minimum each.

use std::arch::x86_64::*;

use half::f16;

use super::{ROWS, Tile, prefetch};
use crate::activations::{Activations, Block256, PANEL};
use crate::simd::{Element, Lanes};

/// Bytes of a superblock of one row in the file.
const BLOCK: usize = 144;

/// One superblock of sixteen rows: 4.625 bits a weight.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct TileQ4K {
    /// For each group of 32 values four vectors; byte `4 × row + j` of vector `i` has value
    /// `4i + j` in its low half and value `16 + 4i + j` in its high half.
    quants: [[[u8; 64]; 4]; 8],
    /// The groups' scales.
    scales: [[u8; ROWS]; 8],
    /// The groups' minima; for each pair of groups the two of row 0, of row 1 …
    minima: [[u8; 2 * ROWS]; 4],
    scale: [f16; ROWS],
    minimum: [f16; ROWS],
}

/// The 6-bit scale and minimum of a group, from the twelve bytes that hold all eight.
fn scale_and_minimum(packed: &[u8], group: usize) -> (u8, u8) {
    if group < 4 {
        (packed[group] & 63, packed[group + 4] & 63)
    } else {
        let low = packed[group + 4];
        (low & 15 | packed[group - 4] >> 6 << 4, low >> 4 | packed[group] >> 6 << 4)
    }
}

impl Tile for TileQ4K {
    const SPAN: usize = 256;
    type Activation = Block256;

    fn panel(activations: &Activations, panel: usize) -> &[Block256] {
        activations.panel_by_256(panel)
    }

    fn pack(rows: &[&[u8]], column: usize) -> Self {
        let mut tile = Self {
            quants: [[[0; 64]; 4]; 8],
            scales: [[0; ROWS]; 8],
            minima: [[0; 2 * ROWS]; 4],
            scale: [f16::ZERO; ROWS],
            minimum: [f16::ZERO; ROWS],
        };
        for (r, row) in rows.iter().enumerate() {
            let block = &row[column / 256 * BLOCK..][..BLOCK];
            tile.scale[r] = f16::from_le_bytes([block[0], block[1]]);
            tile.minimum[r] = f16::from_le_bytes([block[2], block[3]]);
            for group in 0..8 {
                let (scale, minimum) = scale_and_minimum(&block[4..16], group);
                tile.scales[group][r] = scale;
                tile.minima[group / 2][2 * r + group % 2] = minimum;
                // The file has two groups in 32 bytes: one in the low halves, one in the high.
                let bytes = &block[16 + group / 2 * 32..][..32];
                let shift = 4 * (group % 2);
                let value = |i: usize| bytes[i] >> shift & 15;
                for i in 0..4 {
                    for j in 0..4 {
                        tile.quants[group][i][4 * r + j] =
                            value(4 * i + j) | value(16 + 4 * i + j) << 4;
                    }
                }
            }
        }
        tile
    }

    fn unpack(&self, row: usize, into: &mut [f32]) {
        let (scale, minimum) = (self.scale[row].to_f32(), self.minimum[row].to_f32());
        for (group, values) in into.chunks_exact_mut(32).enumerate() {
            let scale = scale * f32::from(self.scales[group][row]);
            let minimum = minimum * f32::from(self.minima[group / 2][2 * row + group % 2]);
            for i in 0..16 {
                let byte = self.quants[group][i / 4][4 * row + i % 4];
                values[i] = scale * f32::from(byte & 15) - minimum;
                values[16 + i] = scale * f32::from(byte >> 4) - minimum;
            }
        }
    }

    #[inline(always)]
    fn multiply<const M: usize>(tiles: &[Self], activations: &[Block256], sums: &mut [Lanes; M]) {
        assert!(activations.len() >= (tiles.len() - 1) * PANEL + M);
        for (t, tile) in tiles.iter().enumerate() {
            // SAFETY: the build has AVX-512 VNNI and BW; every load stays inside `tile` or inside
            // one of the M blocks at `t × PANEL`, which the assertion above covers.
            unsafe {
                let blocks = activations.as_ptr().add(t * PANEL);
                let low = _mm512_set1_epi8(15);
                let mut scaled = [_mm512_setzero_ps(); M];
                for group in 0..8 {
                    if M <= 2 {
                        prefetch(tile, group, 8);
                    }
                    let packed: [__m512i; 4] = std::array::from_fn(|i| {
                        _mm512_load_si512(tile.quants[group][i].as_ptr().cast())
                    });
                    let first = packed.map(|p| _mm512_and_si512(p, low));
                    let second = packed.map(|p| _mm512_and_si512(_mm512_srli_epi16::<4>(p), low));
                    let scale = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_load_si128(
                        tile.scales[group].as_ptr().cast(),
                    )));
                    for m in 0..M {
                        let a = (*blocks.add(m)).values.as_ptr().add(32 * group).cast::<i32>();
                        let mut s = _mm512_setzero_si512();
                        for i in 0..4 {
                            s = _mm512_dpbusd_epi32(s, first[i], _mm512_set1_epi32(*a.add(i)));
                        }
                        for i in 0..4 {
                            s = _mm512_dpbusd_epi32(s, second[i], _mm512_set1_epi32(*a.add(4 + i)));
                        }
                        scaled[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s), scale, scaled[m]);
                    }
                }
                let minima: [__m512i; 4] = std::array::from_fn(|pair| {
                    _mm512_cvtepu8_epi16(_mm256_load_si256(tile.minima[pair].as_ptr().cast()))
                });
                let scale = f16::load(tile.scale.as_ptr()).0;
                let minimum = f16::load(tile.minimum.as_ptr()).0;
                for m in 0..M {
                    let block = &*blocks.add(m);
                    let pairs = block.sums.as_ptr().cast::<i32>();
                    let mut below = _mm512_setzero_si512();
                    for pair in 0..4 {
                        let sums = _mm512_set1_epi32(*pairs.add(pair));
                        below = _mm512_dpwssd_epi32(below, minima[pair], sums);
                    }
                    let below = _mm512_mul_ps(minimum, _mm512_cvtepi32_ps(below));
                    let value = _mm512_fmsub_ps(scale, scaled[m], below);
                    sums[m].0 = _mm512_fmadd_ps(value, _mm512_set1_ps(block.scale), sums[m].0);
                }
            }
        }
    }
}
