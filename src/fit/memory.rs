//! The memory that a model needs in llama.cpp: weights, key-value cache and compute buffers.
//!
//! Weights and cache follow llama.cpp's own arithmetic (crate llama-cpp-sys-2 0.1.161); the compute
//! buffers are sums of tensors that live at once, checked against what llama.cpp would allocate
//! (`tests/oracle.rs`).

use anyhow::ensure;

use crate::catalog::models::{Arch, ModelSpec};
use crate::model::quant::{Quant, TensorType};
use crate::model::{self, Tensor};
use crate::units::{Bytes, Tokens};

/// llama.cpp rounds the cells of a cache up to a multiple of this (`llama-context.cpp`).
const CELLS: u64 = 256;

/// How a model is loaded, as far as memory is concerned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Layout {
    /// Sequences at once.
    pub slots: u32,
    /// Tokens that each of them has room for.
    pub slot_tokens: Tokens,
    /// Type of cached keys and values.
    pub kv_type: TensorType,
    /// Tokens that are processed together at most.
    pub micro_batch: u32,
    /// Attention without storing its scores.
    pub flash_attention: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            slots: 1,
            slot_tokens: Tokens(4096),
            kv_type: TensorType::F16,
            micro_batch: 512,
            flash_attention: true,
        }
    }
}

/// What a model needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All tensors, each once.
    pub file: Bytes,
    /// Weights that must lie where they are multiplied.
    pub weights: Bytes,
    /// Weights that are only looked up and stay in the host's memory when layers lie on a GPU.
    pub lookup: Bytes,
    /// Key-value cache and recurrent state.
    pub cache: Bytes,
    /// Buffers for intermediate results.
    pub compute: Bytes,
}

impl Memory {
    /// All of it in one place, as on a processor or with unified memory.
    pub fn in_one_place(&self) -> Bytes {
        Bytes(self.file.0 + self.cache.0 + self.compute.0)
    }

    /// What a GPU needs that holds all layers, without its driver's own share.
    pub fn on_device(&self) -> Bytes {
        Bytes(self.weights.0 + self.cache.0 + self.compute.0)
    }
}

/// The memory of a catalogued model in `quant`.
pub fn estimate(spec: &ModelSpec, quant: Quant, layout: &Layout) -> anyhow::Result<Memory> {
    let tensors = model::tensors(spec, quant)?;
    of_tensors(spec, &tensors, layout)
}

/// The memory of a model whose tensors are known, such as those of a file.
pub fn of_tensors(spec: &ModelSpec, tensors: &[Tensor], layout: &Layout) -> anyhow::Result<Memory> {
    ensure!(layout.slots > 0 && layout.slot_tokens.0 > 0, "0 slots or tokens need no memory");
    let tied = !tensors.iter().any(|t| t.name == "output.weight");
    let mut memory = Memory {
        file: Bytes(0),
        weights: Bytes(0),
        lookup: Bytes(0),
        cache: cache(spec, layout),
        compute: compute(spec, layout),
    };
    for tensor in tensors {
        memory.file.0 += tensor.bytes();
        let embedding = tensor.name.contains("token_embd.weight");
        if embedding {
            memory.lookup.0 += tensor.bytes();
        }
        // A tied embedding is also the output projection, of which the GPU gets a copy.
        if !embedding || (tied && tensor.name == "token_embd.weight") {
            memory.weights.0 += tensor.bytes();
        }
    }
    Ok(memory)
}

/// Cells of a full and of a sliding-window cache for one slot.
fn cells(spec: &ModelSpec, layout: &Layout) -> (u64, u64) {
    let full = u64::from(layout.slot_tokens.0).next_multiple_of(CELLS);
    let window = spec.sliding.as_ref().map_or(0, |s| u64::from(s.window));
    let sliding = full.min(window + u64::from(layout.micro_batch)).next_multiple_of(CELLS);
    (full, sliding)
}

/// Whether llama.cpp gives layer `il` a cache of its window only. It has no windows for Mistral
/// 7B v0.1 (architecture `llama`) and Phi-3 (`models/phi3.cpp` sets LLAMA_SWA_TYPE_NONE).
fn is_windowed(spec: &ModelSpec, il: u32) -> bool {
    !matches!(spec.arch, Arch::Llama | Arch::Phi3 | Arch::Mistral3) && spec.is_sliding(il)
}

/// Bytes of the key-value cache and of recurrent states.
pub fn cache(spec: &ModelSpec, layout: &Layout) -> Bytes {
    let (full, sliding) = cells(spec, layout);
    let slots = u64::from(layout.slots);
    let row = |values: u64| {
        values.next_multiple_of(layout.kv_type.block_weights()) / layout.kv_type.block_weights()
            * layout.kv_type.block_bytes()
    };
    let widest = (0..spec.layers).map(|il| heads_times_values(spec, il)).max().unwrap_or(0);
    let mut bytes = 0;
    for il in 0..spec.layers_with_own_kv() {
        if spec.is_linear(il) {
            bytes += slots * state_bytes(spec);
            continue;
        }
        let cells = if is_windowed(spec, il) { sliding } else { full };
        let keys = row(heads_times_values(spec, il));
        // Without flash attention values lie transposed, and all layers get the widest layer's.
        let values = if layout.flash_attention { keys } else { row(widest) };
        bytes += slots
            * cells
            * match &spec.mla {
                // Keys alone: the values are a part of them.
                Some(mla) => row(u64::from(mla.kv_rank + mla.rope_dim)),
                None => keys + values,
            };
        if let Some(indexer) = spec.indexer.as_ref().filter(|_| spec.has_indexer(il)) {
            bytes += slots * cells * row(u64::from(indexer.key_dim));
        }
    }
    Bytes(bytes)
}

fn heads_times_values(spec: &ModelSpec, il: u32) -> u64 {
    u64::from(spec.kv_heads_of(il)) * u64::from(spec.head_dim_of(il))
}

/// One linear-attention layer's state for one sequence, in F32: the convolution's last inputs and
/// the matrix (`llama_hparams::n_embd_r` and `n_embd_s`).
fn state_bytes(spec: &ModelSpec) -> u64 {
    spec.linear.as_ref().map_or(0, |l| {
        let inner = u64::from(l.value_heads) * u64::from(l.head_dim);
        let mixed = inner + 2 * u64::from(l.key_heads) * u64::from(l.head_dim);
        4 * (u64::from(l.conv - 1) * mixed + u64::from(l.head_dim) * inner)
    })
}

/// Bytes of the compute buffer.
fn compute(spec: &ModelSpec, layout: &Layout) -> Bytes {
    let tokens = u64::from(layout.micro_batch)
        .min(u64::from(layout.slots) * u64::from(layout.slot_tokens.0).next_multiple_of(CELLS));
    let logits = 4 * tokens * (u64::from(spec.vocab) + u64::from(spec.hidden));
    Bytes(logits)
}
