//! Model files: what tensors a model of a given shape has, how they are quantised, and GGUF files
//! that are read, written and made of synthetic weights.

pub mod arch;
mod blocks;
pub mod cache;
pub mod gguf;
pub mod hf;
pub mod hub;
pub mod mlx;
pub mod quant;
pub mod recipe;
mod safetensors;
pub mod synth;
mod vocab;

use crate::catalog::models::ModelSpec;
use crate::units::Bytes;

use quant::{Quant, TensorType};

/// A tensor as it lies in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// llama.cpp's name for it.
    pub name: String,
    /// Sizes, the contiguous one first, as ggml counts.
    pub dims: Vec<u64>,
    /// How it is stored.
    pub kind: TensorType,
}

impl Tensor {
    /// Weights in it.
    pub fn elements(&self) -> u64 {
        self.dims.iter().product()
    }

    /// Bytes of its data, without padding.
    pub fn bytes(&self) -> u64 {
        self.elements() / self.kind.block_weights() * self.kind.block_bytes()
    }
}

/// The tensors of `spec` as a file quantised to `quant` has them.
pub fn tensors(spec: &ModelSpec, quant: Quant) -> anyhow::Result<Vec<Tensor>> {
    let shapes = arch::shapes(spec)?;
    let kinds = recipe::types(spec, &shapes, quant)?;
    Ok(shapes
        .into_iter()
        .zip(kinds)
        .map(|(shape, kind)| Tensor { name: shape.name, dims: shape.dims, kind })
        .collect())
}

/// The bytes of all tensors of `spec` in a file quantised to `quant`, without header and padding.
pub fn weight_bytes(spec: &ModelSpec, quant: Quant) -> anyhow::Result<Bytes> {
    Ok(Bytes(tensors(spec, quant)?.iter().map(Tensor::bytes).sum()))
}

/// The size of the file that a download of `spec` in `quant` would have, but for the header: the
/// tensors with their padding. A real header adds up to some ten MB, most of it the vocabulary.
pub fn file_bytes(spec: &ModelSpec, quant: Quant) -> anyhow::Result<Bytes> {
    let padded = |t: &Tensor| t.bytes().next_multiple_of(gguf::ALIGNMENT);
    Ok(Bytes(tensors(spec, quant)?.iter().map(padded).sum()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::models;

    /// Tensor bytes that llama-bench reported for published files
    /// (github:lhl/strix-halo-testing raw_runs.jsonl @5ee14b5).
    #[test]
    fn sizes_equal_those_of_published_files_to_the_byte() {
        for (id, quant, bytes) in [
            ("llama-2-7b", Quant::Q4_0, 3_825_065_984),
            ("llama-2-7b", Quant::Q4KM, 4_080_263_168),
            ("llama-3.1-8b", Quant::Q4KM, 4_912_898_304),
            ("llama-3.1-70b", Quant::Q4KM, 42_512_531_712),
            ("qwen3-32b", Quant::Q8_0, 34_811_744_256),
            ("gpt-oss-20b", Quant::F16, 13_779_630_336),
            ("gpt-oss-120b", Quant::F16, 65_355_994_368),
        ] {
            let spec = models::find(id).unwrap();
            assert_eq!(weight_bytes(spec, quant).unwrap(), Bytes(bytes), "{id} {quant}");
        }
    }
}
