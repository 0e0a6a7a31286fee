//! `Q8_0`: blocks of 32 values of 8 bits with one scale.

use std::arch::x86_64::*;

use half::f16;

use super::{ROWS, Tile, prefetch};
use crate::activations::{Activations, Block64, PANEL};
use crate::simd::{Element, Lanes};

/// Bytes of a block of one row in the file.
const BLOCK: usize = 34;

/// Two blocks of sixteen rows: 8.5 bits a weight.
#[derive(Clone)]
#[repr(C, align(64))]
pub struct TileQ8_0 {
    /// For each block eight vectors; byte `4 × row + j` of vector `i` is value `4i + j` plus 128,
    /// because the dot product takes one side without a sign.
    quants: [[[u8; 64]; 8]; 2],
    scales: [[f16; ROWS]; 2],
}

impl Tile for TileQ8_0 {
    const SPAN: usize = 64;
    type Activation = Block64;

    fn panel(activations: &Activations, panel: usize) -> &[Block64] {
        activations.panel_by_64(panel)
    }

    fn pack(rows: &[&[u8]], column: usize) -> Self {
        let mut tile = Self { quants: [[[128; 64]; 8]; 2], scales: [[f16::ZERO; ROWS]; 2] };
        for (r, row) in rows.iter().enumerate() {
            let blocks = row[column / 32 * BLOCK..].chunks_exact(BLOCK).take(2);
            for (b, block) in blocks.enumerate() {
                tile.scales[b][r] = f16::from_le_bytes([block[0], block[1]]);
                for (i, &value) in block[2..].iter().enumerate() {
                    tile.quants[b][i / 4][4 * r + i % 4] = value.wrapping_add(128);
                }
            }
        }
        tile
    }

    fn unpack(&self, row: usize, into: &mut [f32]) {
        for (b, values) in into.chunks_exact_mut(32).enumerate() {
            let scale = self.scales[b][row].to_f32();
            for (i, value) in values.iter_mut().enumerate() {
                let byte = self.quants[b][i / 4][4 * row + i % 4];
                *value = scale * (f32::from(byte) - 128.0);
            }
        }
    }

    #[inline(always)]
    fn multiply<const M: usize>(tiles: &[Self], activations: &[Block64], sums: &mut [Lanes; M]) {
        assert!(activations.len() >= (tiles.len() - 1) * PANEL + M);
        for (t, tile) in tiles.iter().enumerate() {
            for b in 0..2 {
                // SAFETY: the build has AVX-512 VNNI and BW; every load stays inside `tile` or
                // inside one of the M blocks at `t × PANEL`, which the assertion above covers.
                unsafe {
                    if M <= 2 {
                        prefetch(tile, b, 2);
                    }
                    let blocks = activations.as_ptr().add(t * PANEL);
                    let weights: [__m512i; 8] = std::array::from_fn(|i| {
                        _mm512_load_si512(tile.quants[b][i].as_ptr().cast())
                    });
                    let scale = f16::load(tile.scales[b].as_ptr()).0;
                    for m in 0..M {
                        let block = &*blocks.add(m);
                        let a = block.values.as_ptr().add(32 * b).cast::<i32>();
                        let mut s = _mm512_set1_epi32(block.minus_128_sums[b]);
                        for (i, &w) in weights.iter().enumerate() {
                            s = _mm512_dpbusd_epi32(s, w, _mm512_set1_epi32(*a.add(i)));
                        }
                        let scale = _mm512_mul_ps(scale, _mm512_set1_ps(block.scales[b]));
                        sums[m].0 = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s), scale, sums[m].0);
                    }
                }
            }
        }
    }
}
