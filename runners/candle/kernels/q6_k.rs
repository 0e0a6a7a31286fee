//! `Q6_K`: superblocks of 256 values of 6 bits, in sixteen groups with a signed 8-bit scale each.

use std::arch::x86_64::*;

use half::f16;

use super::{ROWS, Tile, prefetch};
use crate::activations::{Activations, Block256, PANEL};
use crate::simd::{Element, Lanes};

/// Bytes of a superblock of one row in the file.
const BLOCK: usize = 210;

/// One superblock of sixteen rows: 6.625 bits a weight.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct TileQ6K {
    /// The low four bits of 32 values in four vectors; byte `4 × row + j` of vector `i` has value
    /// `4i + j` in its low half and value `16 + 4i + j` in its high half.
    low: [[[u8; 64]; 4]; 8],
    /// The high two bits of 32 values in two vectors: bits `2i` of byte `4 × row + j` of vector
    /// `h` belong to value `16h + 4i + j`.
    high: [[[u8; 64]; 2]; 8],
    scales: [[i8; ROWS]; 16],
    scale: [f16; ROWS],
}

/// Value `i` of a superblock, 0 to 63; what it means is 32 less.
fn value(block: &[u8], i: usize) -> u8 {
    // Halves of 128 values: 64 bytes of low bits, 32 of high ones, in four rows of 32 values.
    let (half, row, column) = (i / 128, i / 32 % 4, i % 32);
    let low = block[64 * half + 32 * (row % 2) + column] >> (4 * (row / 2)) & 15;
    let high = block[128 + 32 * half + column] >> (2 * row) & 3;
    low | high << 4
}

impl Tile for TileQ6K {
    const SPAN: usize = 256;
    type Activation = Block256;

    fn panel(activations: &Activations, panel: usize) -> &[Block256] {
        activations.panel_by_256(panel)
    }

    fn pack(rows: &[&[u8]], column: usize) -> Self {
        let mut tile = Self {
            low: [[[0; 64]; 4]; 8],
            high: [[[0; 64]; 2]; 8],
            scales: [[0; ROWS]; 16],
            scale: [f16::ZERO; ROWS],
        };
        for (r, row) in rows.iter().enumerate() {
            let block = &row[column / 256 * BLOCK..][..BLOCK];
            tile.scale[r] = f16::from_le_bytes([block[208], block[209]]);
            for group in 0..16 {
                tile.scales[group][r] = block[192 + group] as i8;
            }
            for chunk in 0..8 {
                for i in 0..4 {
                    for j in 0..4 {
                        let first = value(block, 32 * chunk + 4 * i + j);
                        let second = value(block, 32 * chunk + 16 + 4 * i + j);
                        let byte = 4 * r + j;
                        tile.low[chunk][i][byte] = first & 15 | (second & 15) << 4;
                        tile.high[chunk][0][byte] |= first >> 4 << (2 * i);
                        tile.high[chunk][1][byte] |= second >> 4 << (2 * i);
                    }
                }
            }
        }
        tile
    }

    fn unpack(&self, row: usize, into: &mut [f32]) {
        let scale = self.scale[row].to_f32();
        for (group, values) in into.chunks_exact_mut(16).enumerate() {
            let scale = scale * f32::from(self.scales[group][row]);
            let (chunk, second) = (group / 2, group % 2);
            for (i, value) in values.iter_mut().enumerate() {
                let byte = 4 * row + i % 4;
                let low = self.low[chunk][i / 4][byte] >> (4 * second) & 15;
                let high = self.high[chunk][second][byte] >> (2 * (i / 4)) & 3;
                *value = scale * (f32::from(low | high << 4) - 32.0);
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
                let high = _mm512_set1_epi8(48);
                let mut scaled = [_mm512_setzero_ps(); M];
                for chunk in 0..8 {
                    if M <= 2 {
                        prefetch(tile, chunk, 8);
                    }
                    let packed: [__m512i; 4] = std::array::from_fn(|i| {
                        _mm512_load_si512(tile.low[chunk][i].as_ptr().cast())
                    });
                    let tops: [__m512i; 2] = std::array::from_fn(|i| {
                        _mm512_load_si512(tile.high[chunk][i].as_ptr().cast())
                    });
                    // (shifted & 48) | low, in one instruction
                    let join = |top, bits| _mm512_ternarylogic_epi32::<0xEA>(top, high, bits);
                    let spread = |top| {
                        [
                            _mm512_slli_epi16::<4>(top),
                            _mm512_slli_epi16::<2>(top),
                            top,
                            _mm512_srli_epi16::<2>(top),
                        ]
                    };
                    let (top, next) = (spread(tops[0]), spread(tops[1]));
                    let first: [__m512i; 4] =
                        std::array::from_fn(|i| join(top[i], _mm512_and_si512(packed[i], low)));
                    let second: [__m512i; 4] = std::array::from_fn(|i| {
                        join(next[i], _mm512_and_si512(_mm512_srli_epi16::<4>(packed[i]), low))
                    });
                    let scales: [__m512; 2] = std::array::from_fn(|i| {
                        _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_load_si128(
                            tile.scales[2 * chunk + i].as_ptr().cast(),
                        )))
                    });
                    for m in 0..M {
                        let block = &*blocks.add(m);
                        let a = block.values.as_ptr().add(32 * chunk).cast::<i32>();
                        let mut s = _mm512_set1_epi32(block.minus_32_sums[2 * chunk]);
                        let mut u = _mm512_set1_epi32(block.minus_32_sums[2 * chunk + 1]);
                        for i in 0..4 {
                            s = _mm512_dpbusd_epi32(s, first[i], _mm512_set1_epi32(*a.add(i)));
                            u = _mm512_dpbusd_epi32(u, second[i], _mm512_set1_epi32(*a.add(4 + i)));
                        }
                        scaled[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s), scales[0], scaled[m]);
                        scaled[m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(u), scales[1], scaled[m]);
                    }
                }
                let scale = f16::load(tile.scale.as_ptr()).0;
                for m in 0..M {
                    let scale = _mm512_mul_ps(scale, _mm512_set1_ps((*blocks.add(m)).scale));
                    sums[m].0 = _mm512_fmadd_ps(scaled[m], scale, sums[m].0);
                }
            }
        }
    }
}
