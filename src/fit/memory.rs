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

/// The tensors of a catalogued model in `quant`, where its cache is one that the formulas here
/// describe: an estimate that is far too low would be worse than none.
pub fn tensors(spec: &ModelSpec, quant: Quant) -> anyhow::Result<Vec<Tensor>> {
    ensure!(
        spec.compressed.is_none(),
        "the memory of '{}' cannot be told: its compressed cache is not modelled yet",
        spec.id
    );
    model::tensors(spec, quant)
}

/// The memory of a catalogued model in `quant`.
pub fn estimate(spec: &ModelSpec, quant: Quant, layout: &Layout) -> anyhow::Result<Memory> {
    let tensors = tensors(spec, quant)?;
    of_tensors(spec, &tensors, layout)
}

/// The memory of a model whose tensors are known, such as those of a file.
pub fn of_tensors(spec: &ModelSpec, tensors: &[Tensor], layout: &Layout) -> anyhow::Result<Memory> {
    of_weights(spec, Weights::of(tensors), layout)
}

/// The same where the weights are counted already.
pub fn of_weights(spec: &ModelSpec, weights: Weights, layout: &Layout) -> anyhow::Result<Memory> {
    ensure!(layout.slots > 0 && layout.slot_tokens.0 > 0, "0 slots or tokens need no memory");
    Ok(Plan::new(spec, layout).at(weights, layout.slot_tokens))
}

/// Bytes of a model's tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weights {
    /// All, each once.
    pub file: Bytes,
    /// Those that must lie where they are multiplied.
    pub multiplied: Bytes,
    /// Those that are looked up.
    pub lookup: Bytes,
}

impl Weights {
    /// Those of `tensors`.
    pub fn of(tensors: &[Tensor]) -> Self {
        let tied = !tensors.iter().any(|t| t.name == "output.weight");
        let (mut file, mut multiplied, mut lookup) = (0, 0, 0);
        for tensor in tensors {
            let bytes = tensor.bytes();
            file += bytes;
            let embedding = tensor.name.contains("token_embd.weight");
            if embedding {
                lookup += bytes;
            }
            // A tied embedding is also the output projection, of which the GPU gets a copy.
            if !embedding || (tied && tensor.name == "token_embd.weight") {
                multiplied += bytes;
            }
        }
        Self { file: Bytes(file), multiplied: Bytes(multiplied), lookup: Bytes(lookup) }
    }
}

/// Whether llama.cpp gives layer `il` a cache of its window only. It has no windows for Mistral
/// 7B v0.1 (architecture `llama`) and Phi-3 (`models/phi3.cpp` sets LLAMA_SWA_TYPE_NONE).
fn is_windowed(spec: &ModelSpec, il: u32) -> bool {
    !matches!(spec.arch, Arch::Llama | Arch::Phi3 | Arch::Mistral3) && spec.is_sliding(il)
}

/// Bytes of the key-value cache and of recurrent states.
pub fn cache(spec: &ModelSpec, layout: &Layout) -> Bytes {
    Plan::new(spec, layout).cache(layout.slot_tokens)
}

/// What a model needs as a function of the context alone: the layers are gone through once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    slots: u64,
    micro_batch: u64,
    window: u64,
    windowed: bool,
    flash: bool,
    glm_dsa: bool,
    /// Bytes for one cell in the full caches of all layers together.
    full_row: u64,
    /// Bytes for one cell in the sliding-window caches of all layers together.
    sliding_row: u64,
    /// Bytes of recurrent state for one slot.
    state: u64,
    heads: u64,
    stream: u64,
    /// Values in the sets of tensors that live at once, without what depends on the context.
    vocab: u64,
    transposed: u64,
    feed_forward: u64,
    attention: Option<u64>,
}

impl Plan {
    /// That of `spec` in `layout`, whatever the context.
    pub fn new(spec: &ModelSpec, layout: &Layout) -> Self {
        let flash = layout.flash_attention;
        let kind = layout.kv_type;
        let row = |values: u64| values.div_ceil(kind.block_weights()) * kind.block_bytes();
        let widest_values = widest(spec, |il| heads_times_values(spec, il));
        let (mut full_row, mut sliding_row, mut state) = (0, 0, 0);
        for il in 0..spec.layers_with_own_kv() {
            if spec.is_linear(il) {
                state += state_bytes(spec);
                continue;
            }
            let keys = row(heads_times_values(spec, il));
            // Without flash attention values lie transposed, and all layers get the widest's.
            let values = if flash { keys } else { row(widest_values) };
            let mut bytes = match &spec.mla {
                // Keys alone: the values are a part of them.
                Some(mla) => row(u64::from(mla.kv_rank + mla.rope_dim)),
                None => keys + values,
            };
            if let Some(indexer) = spec.indexer.as_ref().filter(|_| spec.has_indexer(il)) {
                bytes += row(u64::from(indexer.key_dim));
            }
            *if is_windowed(spec, il) { &mut sliding_row } else { &mut full_row } += bytes;
        }
        let windowed = (0..spec.layers).any(|il| is_windowed(spec, il));
        let keys = u64::from(spec.kv_heads) * u64::from(spec.head_dim);
        let stream = u64::from(spec.hidden);
        let dense = 3 * u64::from(spec.ffn.unwrap_or(0)) + 5 * stream;
        let experts = spec
            .experts
            .as_ref()
            .map_or(0, |e| 3 * u64::from(e.active) * u64::from(e.ffn) + 5 * stream);
        Self {
            slots: u64::from(layout.slots),
            micro_batch: u64::from(layout.micro_batch),
            window: spec.sliding.as_ref().map_or(0, |s| u64::from(s.window)),
            windowed,
            flash,
            glm_dsa: spec.arch == Arch::GlmDsa,
            full_row,
            sliding_row,
            state,
            heads: u64::from(spec.heads),
            stream,
            vocab: u64::from(spec.vocab),
            transposed: if !flash && windowed { 4 * keys } else { 0 },
            feed_forward: dense.max(experts),
            attention: attention_values(spec, flash, keys),
        }
    }

    /// All of it with `weights`.
    pub fn at(&self, weights: Weights, tokens: Tokens) -> Memory {
        Memory {
            file: weights.file,
            weights: weights.multiplied,
            lookup: weights.lookup,
            cache: self.cache(tokens),
            compute: self.compute(tokens),
        }
    }

    /// Cells of a full and of a sliding-window cache for one slot.
    fn cells(&self, tokens: Tokens) -> (u64, u64) {
        let full = u64::from(tokens.0).next_multiple_of(CELLS);
        (full, full.min(self.window + self.micro_batch).next_multiple_of(CELLS))
    }

    fn cache(&self, tokens: Tokens) -> Bytes {
        let (full, sliding) = self.cells(tokens);
        Bytes(self.slots * (full * self.full_row + sliding * self.sliding_row + self.state))
    }

    /// Bytes of the compute buffer: the largest of the sets of tensors that live at once.
    ///
    /// llama.cpp reserves it for a full micro-batch whose every token wants logits. The sets were
    /// found by asking llama.cpp (`tests/oracle.rs`; llama-cpp-sys-2 0.1.161, CPU) about every
    /// catalogued model at eleven layouts; its allocator adds up to one residual stream that no
    /// rule foresees.
    fn compute(&self, tokens: Tokens) -> Bytes {
        let (full, sliding) = self.cells(tokens);
        let together = self.micro_batch.min(self.slots * full);
        let masked = full + if self.windowed { sliding } else { 0 };
        let mask = match (self.glm_dsa, self.flash) {
            (true, _) => 8 * full,
            (false, true) => 2 * masked,
            (false, false) => 4 * masked,
        };
        let scores = if self.flash { 0 } else { self.heads * full };
        // The output: logits and copies of the residual stream; one more where the mask is larger
        // than one of them and smaller than sixteen.
        let more = (4 * self.stream..64 * self.stream).contains(&(2 * full - 1));
        let copies = if more { 6 } else { 5 };
        let output = self.vocab + copies * self.stream + self.transposed;
        let attention = self.attention.map_or(0, |values| values + scores);
        Bytes(together * (mask + 4 * output.max(self.feed_forward).max(attention)))
    }
}

/// Values that attention holds at once for a token, without the scores; `None`: fewer than others.
fn attention_values(spec: &ModelSpec, flash: bool, keys: u64) -> Option<u64> {
    let stream = u64::from(spec.hidden);
    if let Some(mla) = &spec.mla {
        let cached = u64::from(mla.kv_rank + mla.rope_dim);
        let chosen = spec.indexer.as_ref().map_or(0, |x| u64::from(x.top_k));
        // 79 buffers of the chosen tokens: fitted, to within 5 % for GLM-5.
        return Some(u64::from(spec.heads) * (2 * cached + 256) + 4 * stream + 79 * chosen);
    }
    if flash {
        return None;
    }
    let queries = widest(spec, |il| u64::from(spec.heads) * u64::from(spec.head_dim_of(il)));
    let gate = if spec.linear.is_some() { queries } else { 0 };
    let per_layer = spec
        .gemma4
        .as_ref()
        .map_or(0, |g| u64::from(g.per_layer_embedding) * u64::from(spec.layers));
    Some(3 * stream + 3 * queries + 2 * keys + gate + per_layer)
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

fn widest(spec: &ModelSpec, width: impl Fn(u32) -> u64) -> u64 {
    (0..spec.layers).map(width).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::models;

    fn cache_mib(id: &str, layout: &Layout) -> f64 {
        cache(models::find(id).unwrap(), layout).0 as f64 / 1024.0 / 1024.0
    }

    /// Sizes that llama.cpp itself gave (`tests/oracle.rs`).
    #[test]
    fn caches_are_those_of_llama_cpp() {
        let at = |tokens: u32| Layout { slot_tokens: Tokens(tokens), ..Layout::default() };
        assert_eq!(cache_mib("llama-3.1-8b", &at(4096)), 512.0);
        assert_eq!(cache_mib("gemma-3-27b", &at(32_768)), 3184.0);
        assert_eq!(cache_mib("gemma-4-e2b", &at(131_072)), 780.0);
        assert_eq!(cache_mib("deepseek-v3", &at(4096)), 274.5);
        assert_eq!(cache_mib("gpt-oss-20b", &at(32_768)), 786.0);
        let q8 = Layout { kv_type: TensorType::Q8_0, ..at(16_384) };
        assert_eq!(cache_mib("llama-2-7b", &q8), 4352.0);
        let eight = Layout { slots: 8, ..at(1000) };
        assert_eq!(cache_mib("llama-3.1-8b", &eight), 1024.0);
        assert!((cache_mib("qwen3.6-27b", &eight) - 1709.0).abs() < 0.5);
    }

    #[test]
    fn compute_buffers_are_near_those_of_llama_cpp() {
        let mib = |id: &str, layout: &Layout| {
            let plan = Plan::new(models::find(id).unwrap(), layout);
            plan.compute(layout.slot_tokens).0 as f64 / 1024.0 / 1024.0
        };
        let layout = Layout::default();
        assert!((mib("llama-3.1-8b", &layout) - 294.5).abs() < 16.0);
        assert!((mib("deepseek-v3", &layout) - 410.0).abs() < 16.0);
        let stored = Layout { flash_attention: false, slot_tokens: Tokens(32_768), ..layout };
        assert!((mib("gpt-oss-20b", &stored) / 4209.6 - 1.0).abs() < 0.01);
    }

    #[test]
    fn looked_up_embeddings_stay_on_the_host() {
        let spec = models::find("gemma-4-e2b").unwrap();
        let memory = estimate(spec, Quant::Q4KM, &Layout::default()).unwrap();
        assert!(memory.lookup.0 > memory.file.0 / 3, "{memory:?}");
        assert!(memory.on_device() < memory.in_one_place());
    }
}
