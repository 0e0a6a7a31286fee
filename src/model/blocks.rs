//! Random blocks of each tensor type, whose weights have a chosen standard deviation.

use anyhow::bail;
use half::{bf16, f16};
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::quant::TensorType;

/// About `size` bytes of random blocks. Their number is a prime, so that rows, which are a whole
/// number of blocks, begin at another block each time the pool is repeated.
pub fn pool(kind: TensorType, deviation: f64, seed: u64, size: u64) -> anyhow::Result<Vec<u8>> {
    let block = kind.block_bytes();
    let count = prime_from((size / block).max(2));
    let mut bytes = vec![0; (count * block) as usize];
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    match kind {
        TensorType::F32 => floats(&mut bytes, &mut random, deviation, |v| v.to_le_bytes()),
        TensorType::F16 => {
            floats(&mut bytes, &mut random, deviation, |v| f16::from_f32(v).to_le_bytes());
        }
        TensorType::BF16 => {
            floats(&mut bytes, &mut random, deviation, |v| bf16::from_f32(v).to_le_bytes());
        }
        TensorType::I8 => random.fill_bytes(&mut bytes),
        TensorType::Mxfp4 => {
            random.fill_bytes(&mut bytes);
            // A power of two times fp4 values whose root mean square is 5.85 halves (ggml stores
            // them doubled, so the exponent's bias is 128).
            let exponent = (deviation / 5.85).log2().round() + 128.0;
            for block in bytes.chunks_exact_mut(block as usize) {
                block[0] = exponent.clamp(1.0, 254.0) as u8;
            }
        }
        _ => {
            let Some(scaling) = Scaling::of(kind) else {
                bail!("no synthetic weights of type {kind} can be made");
            };
            random.fill_bytes(&mut bytes);
            for block in bytes.chunks_exact_mut(block as usize) {
                for &(offset, factor) in scaling.fields {
                    let scale = f16::from_f64(factor * deviation / scaling.deviation);
                    block[offset..offset + 2].copy_from_slice(&scale.to_le_bytes());
                }
            }
        }
    }
    Ok(bytes)
}

/// Uniform values around zero.
fn floats<const N: usize>(
    bytes: &mut [u8],
    random: &mut Xoshiro256PlusPlus,
    deviation: f64,
    encode: impl Fn(f32) -> [u8; N],
) {
    let half_width = (deviation * 3f64.sqrt()) as f32;
    for pair in bytes.chunks_mut(2 * N) {
        let bits = random.next_u64();
        for (value, bits) in pair.chunks_exact_mut(N).zip([bits as u32, (bits >> 32) as u32]) {
            let unit = (bits >> 8) as f32 / (1u32 << 23) as f32 - 1.0;
            value.copy_from_slice(&encode(unit * half_width));
        }
    }
}

/// How to scale a block whose every other byte is random.
struct Scaling {
    /// The weights' standard deviation when the block's scale is 1.
    deviation: f64,
    /// Where 16-bit floats stand in the block, and what multiple of the scale each gets: 1, and for
    /// minima the one that makes the weights' mean zero.
    fields: &'static [(usize, f64)],
}

impl Scaling {
    /// From the block structures of ggml (`ggml-common.h`) and how `ggml-quants.c` reads them.
    /// The deviations are those of products of uniform integers: of n bits around zero
    /// √((4ⁿ − 1)/12 + ¼), and of scale × value − minimum accordingly.
    fn of(kind: TensorType) -> Option<Self> {
        let (deviation, fields): (f64, &[(usize, f64)]) = match kind {
            TensorType::Q4_0 => (4.637, &[(0, 1.0)]),
            TensorType::Q4_1 => (4.610, &[(0, 1.0), (2, -7.5)]),
            TensorType::Q5_0 => (9.247, &[(0, 1.0)]),
            TensorType::Q5_1 => (9.233, &[(0, 1.0), (2, -15.5)]),
            TensorType::Q8_0 => (73.90, &[(0, 1.0)]),
            TensorType::Q2K => (13.87, &[(80, 1.0), (82, 1.5)]),
            TensorType::Q3K => (43.34, &[(108, 1.0)]),
            TensorType::Q4K => (258.3, &[(0, 1.0), (2, 7.5)]),
            TensorType::Q5K => (526.9, &[(0, 1.0), (2, 15.5)]),
            TensorType::Q6K => (1365.7, &[(208, 1.0)]),
            TensorType::Iq4Nl => (67.44, &[(0, 1.0)]),
            TensorType::Iq4Xs => (1246.3, &[(0, 1.0)]),
            _ => return None,
        };
        Some(Self { deviation, fields })
    }
}

/// The smallest prime that is not below `n`.
fn prime_from(n: u64) -> u64 {
    let is_prime = |n: u64| n > 1 && (2..).take_while(|d| d * d <= n).all(|d| !n.is_multiple_of(d));
    (n..).find(|&n| is_prime(n)).unwrap_or(n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_blocks_is_a_prime() {
        assert_eq!(prime_from(8), 11);
        assert_eq!(prime_from(2), 2);
        let bytes = pool(TensorType::Q8_0, 0.1, 1, 1 << 20).unwrap();
        assert_eq!(prime_from(bytes.len() as u64 / 34), bytes.len() as u64 / 34);
    }

    #[test]
    fn the_same_seed_gives_the_same_blocks() {
        let make = |seed| pool(TensorType::Q4K, 0.02, seed, 100_000).unwrap();
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }

    #[test]
    fn floats_have_the_deviation_that_was_asked_for() {
        let bytes = pool(TensorType::F32, 0.25, 7, 1 << 20).unwrap();
        let values: Vec<f64> = bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()).into())
            .collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let square = values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64;
        assert!(mean.abs() < 0.005, "{mean}");
        assert!((square.sqrt() - 0.25).abs() < 0.005, "{}", square.sqrt());
    }
}
