//! The memory that a model needs in llama.cpp: weights, key-value cache and compute buffers.
//!
//! Weights and cache follow llama.cpp's own arithmetic (crate llama-cpp-sys-2 0.1.161); the compute
//! buffers are sums of tensors that live at once, checked against what llama.cpp would allocate
//! (`tests/oracle.rs`).

use std::sync::LazyLock;

use anyhow::ensure;
use serde::Deserialize;

use crate::catalog::models::{Arch, Compressed, ModelSpec};
use crate::model::quant::{Quant, TensorType};
use crate::model::{self, Tensor};
use crate::units::{Bytes, Tokens};

use super::packed::Weights;

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
        sum([self.file, self.cache, self.compute])
    }

    /// What a GPU needs that holds all layers, without its driver's own share.
    pub fn on_device(&self) -> Bytes {
        sum([self.weights, self.cache, self.compute])
    }
}

fn sum(parts: [Bytes; 3]) -> Bytes {
    Bytes(parts.iter().fold(0, |n, part| n.saturating_add(part.0)))
}

/// The tensors of a catalogued model in `quant`, where its cache is one that the formulas here
/// describe: an estimate that is far too low would be worse than none.
pub fn tensors(spec: &ModelSpec, quant: Quant) -> anyhow::Result<Vec<Tensor>> {
    ensure_known(spec)?;
    model::tensors(spec, quant)
}

/// Refuses models whose cache no formula here describes.
pub fn ensure_known(spec: &ModelSpec) -> anyhow::Result<()> {
    ensure!(
        spec.arch != Arch::Deepseek4 || spec.compressed.is_some(),
        "the memory of '{}' cannot be told: {}",
        spec.id,
        spec.not_synthesisable.as_deref().unwrap_or("its compressed attention is not known")
    );
    Ok(())
}

/// The memory of a catalogued model in `quant`.
pub fn estimate(spec: &ModelSpec, quant: Quant, layout: &Layout) -> anyhow::Result<Memory> {
    let tensors = tensors(spec, quant)?;
    of_tensors(spec, &tensors, layout)
}

/// The memory of a model whose tensors are known, such as those of a file.
pub fn of_tensors(spec: &ModelSpec, tensors: &[Tensor], layout: &Layout) -> anyhow::Result<Memory> {
    of_weights(spec, &Weights::of(tensors), layout)
}

/// The same where the weights are counted already.
pub fn of_weights(spec: &ModelSpec, weights: &Weights, layout: &Layout) -> anyhow::Result<Memory> {
    ensure!(layout.slots > 0 && layout.slot_tokens.0 > 0, "0 slots or tokens need no memory");
    Ok(Plan::new(spec, layout).at(weights, layout.slot_tokens))
}

/// Whether llama.cpp keeps and reads the window alone of layer `il`. It has no windows for Mistral
/// 7B v0.1 (architecture `llama`) and Phi-3 (`models/phi3.cpp` sets LLAMA_SWA_TYPE_NONE).
pub(super) fn is_windowed(spec: &ModelSpec, il: u32) -> bool {
    !matches!(spec.arch, Arch::Llama | Arch::Phi3 | Arch::Mistral3) && spec.is_sliding(il)
}

/// Bytes of the key-value cache and of recurrent states.
pub fn cache(spec: &ModelSpec, layout: &Layout) -> Bytes {
    Plan::new(spec, layout).cache(layout.slot_tokens)
}

/// Bytes of cache by what they grow with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rows {
    /// For every token of the context.
    full: u64,
    /// For every token of the sliding window.
    sliding: u64,
    /// For every fourth token: what DeepSeek V4 compresses a little.
    fourth: u64,
    /// For every 128th token: what it compresses much.
    far: u64,
    /// Whatever the context: recurrent and compressors' state.
    state: u64,
}

impl Rows {
    /// A file's context and widths may be anything: what overflows fits nowhere.
    fn at(&self, cells: &Cells) -> u64 {
        let grown = [
            (cells.full, self.full),
            (cells.sliding, self.sliding),
            (cells.fourth, self.fourth),
            (cells.far, self.far),
        ];
        grown.iter().fold(self.state, |sum, (n, row)| sum.saturating_add(n.saturating_mul(*row)))
    }

    fn add(&mut self, other: &Self) {
        self.full = self.full.saturating_add(other.full);
        self.sliding = self.sliding.saturating_add(other.sliding);
        self.fourth = self.fourth.saturating_add(other.fourth);
        self.far = self.far.saturating_add(other.far);
        self.state = self.state.saturating_add(other.state);
    }
}

/// Cells of each kind of cache for one slot.
#[derive(Clone, Copy, Debug)]
struct Cells {
    full: u64,
    sliding: u64,
    fourth: u64,
    far: u64,
}

/// What a model needs as a function of the context alone: the layers are gone through once.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    slots: u64,
    micro_batch: u64,
    window: u64,
    windowed: bool,
    flash: bool,
    sparse: Option<Sparse>,
    asked: &'static [Asked],
    /// Of one slot, all layers together.
    rows: Rows,
    /// Of one slot, layer by layer.
    layers: Vec<Rows>,
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
        let layers: Vec<Rows> = (0..spec.layers).map(|il| cache_rows(spec, il, layout)).collect();
        let mut rows = Rows::default();
        layers.iter().for_each(|layer| rows.add(layer));
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
            sparse: Sparse::of(spec),
            asked: asked_of(spec),
            rows,
            layers,
            heads: u64::from(spec.heads),
            stream,
            vocab: u64::from(spec.vocab),
            transposed: if !flash && windowed { 4 * keys } else { 0 },
            feed_forward: dense.max(experts),
            attention: attention_values(spec, flash, keys),
        }
    }

    /// All of it with `weights`.
    pub fn at(&self, weights: &Weights, tokens: Tokens) -> Memory {
        Memory {
            file: weights.file,
            weights: weights.multiplied,
            lookup: weights.lookup,
            cache: self.cache(tokens),
            compute: self.compute(tokens),
        }
    }

    /// llama.cpp rounds each kind up (`llama-kv-cache-iswa.cpp`, `llama-kv-cache-dsv4.cpp`).
    fn cells(&self, tokens: Tokens) -> Cells {
        let full = u64::from(tokens.0).next_multiple_of(CELLS);
        Cells {
            full,
            sliding: full.min(self.window + self.micro_batch).next_multiple_of(CELLS),
            fourth: full.div_ceil(4).next_multiple_of(CELLS),
            far: full.div_ceil(128).next_multiple_of(CELLS),
        }
    }

    fn cache(&self, tokens: Tokens) -> Bytes {
        Bytes(self.slots.saturating_mul(self.rows.at(&self.cells(tokens))))
    }

    /// Bytes of each layer's cache, all slots together.
    pub fn layer_caches(&self, tokens: Tokens) -> Vec<u64> {
        let cells = self.cells(tokens);
        self.layers.iter().map(|rows| self.slots.saturating_mul(rows.at(&cells))).collect()
    }

    /// Bytes of the compute buffer: the largest of the sets of tensors that live at once.
    ///
    /// llama.cpp reserves it for a full micro-batch whose every token wants logits. The sets were
    /// found by asking llama.cpp (`tests/oracle.rs`; llama-cpp-sys-2 0.1.161, CPU) about every
    /// catalogued model at eleven layouts; how many copies of the residual stream its allocator
    /// holds at the output is in `streams.csv`, from the same program.
    fn compute(&self, tokens: Tokens) -> Bytes {
        self.compute_with(tokens, self.copies(tokens))
    }

    /// The same with so many copies of the residual stream at the output.
    pub fn compute_with(&self, tokens: Tokens, copies: u64) -> Bytes {
        let Cells { full, sliding, .. } = self.cells(tokens);
        let together = self.micro_batch.min(self.slots.saturating_mul(full));
        if let Some(sparse) = &self.sparse {
            return Bytes(together.saturating_mul(sparse.bytes(full, self.flash)));
        }
        let masked = full + if self.windowed { sliding } else { 0 };
        let mask = if self.flash { 2 * masked } else { 4 * masked };
        let scores = if self.flash { 0 } else { self.heads.saturating_mul(full) };
        let output = self.vocab + copies * self.stream + self.transposed;
        let attention = self.attention.map_or(0, |values| values.saturating_add(scores));
        let values = output.max(self.feed_forward).max(attention);
        Bytes(together.saturating_mul(mask.saturating_add(values.saturating_mul(4))))
    }

    /// Copies of the residual stream at the output: asked at the nearest context, else one more
    /// where the mask is larger than one of them and smaller than sixteen.
    fn copies(&self, tokens: Tokens) -> u64 {
        let full = self.cells(tokens).full;
        let asked = self.asked.iter().filter(|_| self.flash);
        let distance = |context: u32| (f64::from(context) / full as f64).ln().abs();
        let nearest = asked.min_by(|a, b| distance(a.context).total_cmp(&distance(b.context)));
        match nearest {
            Some(asked) => asked.copies,
            None if (4 * self.stream..64 * self.stream).contains(&(2 * full - 1)) => 6,
            None => 5,
        }
    }
}

/// What llama.cpp answered about one shape at one context.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Asked {
    architecture: String,
    layers: u32,
    hidden: u32,
    vocab: u32,
    context: u32,
    copies: u64,
}

/// All of its answers, in the order of the shapes.
fn asked() -> &'static [Asked] {
    static ASKED: LazyLock<Vec<Asked>> = LazyLock::new(|| {
        let mut reader = csv::Reader::from_reader(include_str!("streams.csv").as_bytes());
        let rows = reader.deserialize().collect::<Result<_, _>>();
        rows.expect("the embedded streams.csv is checked by a test of this module")
    });
    &ASKED
}

/// Its answers about the shape of `spec`.
fn asked_of(spec: &ModelSpec) -> &'static [Asked] {
    let is_of = |a: &Asked| {
        a.architecture == spec.arch.name()
            && (a.layers, a.hidden, a.vocab) == (spec.layers, spec.hidden, spec.vocab)
    };
    let all = asked();
    let Some(first) = all.iter().position(is_of) else { return &[] };
    let rest = &all[first..];
    &rest[..rest.iter().position(|a| !is_of(a)).unwrap_or(rest.len())]
}

/// Compute buffers of sparse attention: bytes for each token of a micro-batch, fitted to what
/// llama.cpp answered about the one shape that is known of each architecture.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sparse {
    /// GLM-5.
    Indexed { top_k: u64 },
    /// DeepSeek V4 Flash.
    Compressed { vocab: u64, stream: u64 },
}

/// Cells and bytes for each token of DeepSeek V4 Flash with flash attention, as answered; its
/// allocator's choices jump, so that no rule is better than the answers with lines between them.
const COMPRESSED: [(u64, u64); 8] = [
    (32_768, 615_444),
    (49_152, 630_538),
    (65_536, 712_376),
    (98_304, 680_202),
    (131_072, 846_090),
    (196_608, 945_418),
    (262_144, 1_175_736),
    (393_216, 1_703_608),
];

impl Sparse {
    fn of(spec: &ModelSpec) -> Option<Self> {
        match spec.arch {
            Arch::GlmDsa => {
                spec.indexer.as_ref().map(|x| Self::Indexed { top_k: u64::from(x.top_k) })
            }
            Arch::Deepseek4 => Some(Self::Compressed {
                vocab: u64::from(spec.vocab),
                stream: u64::from(spec.hidden),
            }),
            _ => None,
        }
    }

    fn bytes(&self, cells: u64, flash: bool) -> u64 {
        match (*self, flash) {
            (Self::Indexed { top_k }, true) if cells <= 16_384 => {
                968_868 + 91 * top_k.min(cells) + 4 * cells
            }
            (Self::Indexed { .. }, true) => 1_106_084 + 8 * cells,
            (Self::Indexed { .. }, false) => 1_106_084 + 262 * cells,
            (Self::Compressed { .. }, false) => 735_437 + 131 * cells / 2,
            (Self::Compressed { vocab, stream }, true) if cells <= COMPRESSED[0].0 => {
                4 * (vocab + if cells <= 8192 { 2 } else { 6 } * stream)
            }
            (Self::Compressed { .. }, true) => {
                let last = COMPRESSED.len() - 2;
                let i = COMPRESSED.partition_point(|(c, _)| *c < cells);
                let i = i.saturating_sub(1).min(last);
                let (from, to) = (COMPRESSED[i], COMPRESSED[i + 1]);
                let slope = (to.1 as f64 - from.1 as f64) / (to.0 - from.0) as f64;
                (from.1 as f64 + slope * (cells - from.0) as f64) as u64
            }
        }
    }
}

/// Bytes of cache that layer `il` has for one slot.
fn cache_rows(spec: &ModelSpec, il: u32, layout: &Layout) -> Rows {
    let kind = layout.kv_type;
    let row = |values: u64| values.div_ceil(kind.block_weights()) * kind.block_bytes();
    let mut rows = Rows::default();
    if il >= spec.layers_with_own_kv() {
        return rows;
    }
    if spec.is_linear(il) {
        rows.state = state_bytes(spec);
        return rows;
    }
    if spec.compressed.is_some() {
        return compressed_rows(spec, il, row);
    }
    let keys = row(heads_times_values(spec, il));
    let mut bytes = match &spec.mla {
        // Keys alone: the values are a part of them.
        Some(mla) => row(u64::from(mla.kv_rank + mla.rope_dim)),
        None if layout.flash_attention => 2 * keys,
        // Without flash attention values lie transposed, and all layers get the widest's.
        None => keys + row(widest(spec, |il| heads_times_values(spec, il))),
    };
    if let Some(indexer) = spec.indexer.as_ref().filter(|_| spec.has_indexer(il)) {
        bytes += row(u64::from(indexer.key_dim));
    }
    *if is_windowed(spec, il) { &mut rows.sliding } else { &mut rows.full } += bytes;
    rows
}

/// Bytes of layer `il` by what they are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LayerRows {
    /// For every token that the layer sees: keys and values.
    pub seen: u64,
    /// For every token of the context: DeepSeek V4's rows for every fourth and every 128th.
    pub compressed: u64,
    /// Whatever the context.
    pub state: u64,
}

/// Those of layer `il`, whatever part of the context it sees.
pub(super) fn layer_rows(spec: &ModelSpec, il: u32, layout: &Layout) -> LayerRows {
    let rows = cache_rows(spec, il, layout);
    LayerRows {
        seen: rows.full.saturating_add(rows.sliding),
        compressed: rows.fourth / 4 + rows.far / 128,
        state: rows.state,
    }
}

/// DeepSeek V4: keys of the window, and beside them compressed keys with the compressor's state in
/// F32, which holds its input and scores (`llama_kv_cache_dsv4`, `llama_dsv4_comp_state`).
fn compressed_rows(spec: &ModelSpec, il: u32, row: impl Fn(u64) -> u64) -> Rows {
    let head = u64::from(spec.head_dim);
    let key = spec.indexer.as_ref().map_or(0, |x| u64::from(x.key_dim));
    let mut rows = Rows { sliding: row(head), ..Rows::default() };
    match Compressed::ratio(il) {
        0 => {}
        // Windows overlap: twice the rows of twice the width. The indexer has the same, narrower.
        4 => {
            rows.fourth = row(head) + row(key);
            rows.state = 2 * 4 * (2 * 4) * (2 * head + 2 * key);
        }
        ratio => {
            rows.far = row(head);
            rows.state = 2 * 4 * u64::from(ratio) * head;
        }
    }
    rows
}

/// Values that attention holds at once for a token, without the scores; `None`: fewer than others.
fn attention_values(spec: &ModelSpec, flash: bool, keys: u64) -> Option<u64> {
    let stream = u64::from(spec.hidden);
    if let Some(mla) = &spec.mla {
        let cached = u64::from(mla.kv_rank + mla.rope_dim);
        return Some(u64::from(spec.heads) * (2 * cached + 256) + 4 * stream);
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
    fn every_answer_about_streams_is_of_a_catalogued_shape() {
        assert!(asked().len() > 600, "{}", asked().len());
        for asked in asked() {
            let is_of = |s: &&ModelSpec| {
                s.arch.name() == asked.architecture
                    && (s.layers, s.hidden, s.vocab) == (asked.layers, asked.hidden, asked.vocab)
            };
            assert!(models::all().iter().any(|s| is_of(&s)), "{asked:?}");
            assert!((3..=8).contains(&asked.copies), "{asked:?}");
        }
    }

    /// Sizes that llama.cpp gave: window, compressed keys, the indexer's, and the states.
    #[test]
    fn a_compressed_cache_is_that_of_llama_cpp() {
        let at = |tokens: u32| Layout { slot_tokens: Tokens(tokens), ..Layout::default() };
        assert!((cache_mib("deepseek-v4-flash", &at(4096)) - 75.14).abs() < 0.02);
        assert!((cache_mib("deepseek-v4-flash", &at(131_072)) - 903.89).abs() < 0.02);
    }

    #[test]
    fn looked_up_embeddings_stay_on_the_host() {
        let spec = models::find("gemma-4-e2b").unwrap();
        let memory = estimate(spec, Quant::Q4KM, &Layout::default()).unwrap();
        assert!(memory.lookup.0 > memory.file.0 / 3, "{memory:?}");
        assert!(memory.on_device() < memory.in_one_place());
    }
}
