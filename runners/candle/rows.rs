//! What is done to single rows between the products: norms and activation functions.

use crate::simd::{LANES, Lanes, map_in_place};

/// The function between the gate's product and the other one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Gate {
    /// x · sigmoid(x)
    Silu,
    /// The tanh form of the Gaussian error linear unit.
    Gelu,
}

impl Gate {
    /// The function's values.
    #[inline(always)]
    pub fn apply(self, x: Lanes) -> Lanes {
        let one = Lanes::splat(1.0);
        // gelu(x) = x · sigmoid(2 √(2/π) (x + 0.044715 x³)), as tanh is a sigmoid.
        let inner = match self {
            Self::Silu => x,
            Self::Gelu => {
                let cubic = x.mul(x).mul_add(Lanes::splat(0.044_715), one);
                x.mul(cubic).mul(Lanes::splat(2.0 * 0.797_884_6))
            }
        };
        x.div(Lanes::zero().sub(inner).exp().add(one))
    }

    /// Multiplies `values` with the function of `gates`.
    pub fn multiply(self, gates: &[f32], values: &mut [f32]) {
        let mut gates = gates.to_vec();
        map_in_place(&mut gates, |x| self.apply(x));
        for (value, gate) in values.iter_mut().zip(gates) {
            *value *= gate;
        }
    }
}

/// `row` over its root mean square, times `weights`, into `into`.
#[inline]
pub fn rms_norm(row: &[f32], weights: &[f32], eps: f32, into: &mut [f32]) {
    let factor = inverse_rms(row, eps);
    for ((into, &x), &w) in into.iter_mut().zip(row).zip(weights) {
        *into = x * factor * w;
    }
}

/// [`rms_norm`] in place.
#[inline]
pub fn rms_norm_in_place(row: &mut [f32], weights: &[f32], eps: f32) {
    let factor = inverse_rms(row, eps);
    for (x, &w) in row.iter_mut().zip(weights) {
        *x = *x * factor * w;
    }
}

#[inline]
fn inverse_rms(row: &[f32], eps: f32) -> f32 {
    let mut squares = Lanes::zero();
    let chunks = row.chunks_exact(LANES);
    let rest: f32 = chunks.remainder().iter().map(|x| x * x).sum();
    for chunk in chunks {
        // SAFETY: the chunk has sixteen floats.
        let x = unsafe { Lanes::load(chunk.as_ptr()) };
        squares = x.mul_add(x, squares);
    }
    let mean = (squares.sum() + rest) / row.len() as f32;
    1.0 / (mean + eps).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_are_their_formulas() {
        for i in -80..80 {
            let x = i as f32 / 8.0;
            let silu = x / (1.0 + (-x).exp());
            let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
            let gelu = 0.5 * x * (1.0 + inner.tanh());
            for (gate, want) in [(Gate::Silu, silu), (Gate::Gelu, gelu)] {
                let got = gate.apply(Lanes::splat(x)).to_array()[0];
                assert!((got - want).abs() <= 1e-5 * want.abs().max(0.1), "{gate:?}({x}) = {got}");
            }
        }
    }

    #[test]
    fn a_normed_row_has_a_root_mean_square_of_one() {
        let mut row: Vec<f32> = (0..37).map(|i| i as f32 - 11.0).collect();
        let mut normed = vec![0.0; 37];
        rms_norm(&row, &[2.0; 37], 0.0, &mut normed);
        rms_norm_in_place(&mut row, &[2.0; 37], 0.0);
        assert_eq!(row, normed);
        let mean = normed.iter().map(|x| x * x / 4.0).sum::<f32>() / 37.0;
        assert!((mean - 1.0).abs() < 1e-5);
    }
}
