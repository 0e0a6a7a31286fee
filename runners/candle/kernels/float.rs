//! `F32`, `F16` and `BF16`: weights that are floats already.

use half::{bf16, f16};

use super::{ROWS, Tile};
use crate::activations::{Activations, PANEL};
use crate::simd::{Element, Lanes};

/// One column of sixteen rows.
#[derive(Clone)]
#[repr(transparent)]
pub struct TileFloat<E>([E; ROWS]);

/// A float as a GGUF file has it.
pub trait Stored: Element {
    /// Reads one from the front of `bytes`.
    fn read(bytes: &[u8]) -> Self;
}

macro_rules! stored {
    ($($float:ty)*) => {$(
        impl Stored for $float {
            fn read(bytes: &[u8]) -> Self {
                let (bytes, _) = bytes.split_at(size_of::<Self>());
                Self::from_le_bytes(bytes.try_into().expect("split to this length"))
            }
        }
    )*};
}
stored!(f32 f16 bf16);

impl<E: Stored> Tile for TileFloat<E> {
    const SPAN: usize = 1;
    type Activation = f32;

    fn panel(activations: &Activations, panel: usize) -> &[f32] {
        activations.panel_floats(panel).as_flattened()
    }

    fn pack(rows: &[&[u8]], column: usize) -> Self {
        let mut tile = [E::default(); ROWS];
        for (value, row) in tile.iter_mut().zip(rows) {
            *value = E::read(&row[column * size_of::<E>()..]);
        }
        Self(tile)
    }

    fn unpack(&self, row: usize, into: &mut [f32]) {
        into[0] = self.0[row].widen();
    }

    #[inline(always)]
    fn multiply<const M: usize>(tiles: &[Self], activations: &[f32], sums: &mut [Lanes; M]) {
        assert!(activations.len() >= (tiles.len() - 1) * PANEL + M);
        // Few rows: several columns at a time, so that additions do not wait for each other.
        let parts = if M <= 2 { 4 } else { 1 };
        let mut partial = [[Lanes::zero(); M]; 4];
        let mut column = 0;
        while column + parts <= tiles.len() {
            for (part, sums) in partial.iter_mut().enumerate().take(parts) {
                // SAFETY: a tile has sixteen elements, and the assertion above covers the column.
                unsafe {
                    let weights = E::load(tiles.as_ptr().add(column + part).cast());
                    let a = activations.as_ptr().add((column + part) * PANEL);
                    for (m, sum) in sums.iter_mut().enumerate() {
                        *sum = weights.mul_add(Lanes::splat(*a.add(m)), *sum);
                    }
                }
            }
            column += parts;
        }
        for (tile, a) in tiles.iter().zip(activations.chunks(PANEL)).skip(column) {
            // SAFETY: a tile has sixteen elements.
            let weights = unsafe { E::load(tile.0.as_ptr()) };
            for (m, sum) in partial[0].iter_mut().enumerate() {
                *sum = weights.mul_add(Lanes::splat(a[m]), *sum);
            }
        }
        for sums_of_part in partial {
            for (sum, part) in sums.iter_mut().zip(sums_of_part) {
                *sum = sum.add(part);
            }
        }
    }
}
