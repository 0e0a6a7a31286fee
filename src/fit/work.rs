//! What a model makes a device do for one pass: bytes to read, operations to do, cache to hold.

use anyhow::Context;

use crate::catalog::models::{Arch, Compressed, ModelSpec};
use crate::catalog::published::PublishedModel;
use crate::model::quant::{Quant, TensorType};
use crate::model::{self, Tensor};

use super::packed::{Part, Piece};

/// Layers whose key-value cache is alike.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CacheGroup {
    /// How many.
    pub layers: f64,
    /// Values (not bytes) that one token leaves in one layer's cache.
    pub values_per_token: f64,
    /// Operations of one layer's attention for a new token and one cached token.
    pub operations: f64,
    /// Heads that the values are of: cards that share a layer hold whole ones.
    pub heads: f64,
    /// Tokens it looks back at, where not at all.
    pub window: Option<f64>,
}

/// What a model in one quantisation asks of a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    /// Decoder layers.
    pub layers: f64,
    /// The share of layers with linear attention.
    pub linear_share: f64,
    /// Width of the residual stream.
    pub hidden: f64,
    /// Bytes of weights that every pass reads: all but routed experts and looked-up embeddings.
    pub dense_bytes: f64,
    /// Bytes of all routed experts.
    pub expert_bytes: f64,
    /// Weights that every token is multiplied with.
    pub dense_weights: f64,
    /// Weights of all routed experts.
    pub expert_weights: f64,
    /// Weights of the output projection, which a prompt needs once, not for every token.
    pub output_weights: f64,
    /// Experts in a layer and those that one token uses.
    pub experts: Option<(f64, f64)>,
    /// Bytes of all tensors.
    pub file_bytes: f64,
    /// The caches of its layers.
    pub cache: Vec<CacheGroup>,
    /// Bytes of state that linear attention reads and writes for one token of one stream.
    pub state_bytes: f64,
    /// How its weights are packed, as far as speed is concerned.
    pub packing: Packing,
}

/// How weights are packed, as far as speed is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Packing {
    /// Not packed: F16.
    F16,
    /// Not packed: BF16.
    BF16,
    /// Eight-bit floats.
    Fp8,
    /// One scale for 32 weights of 8 bits.
    Q8,
    /// One scale for 32 weights of 4 bits.
    Q4,
    /// Scales of scales: 4-bit k-quants.
    Q4K,
    /// Other k-quants and i-quants.
    OtherK,
    /// Four-bit floats.
    Mxfp4,
}

impl Packing {
    /// Every packing.
    pub const ALL: [Self; 8] = [
        Self::F16,
        Self::BF16,
        Self::Fp8,
        Self::Q8,
        Self::Q4,
        Self::Q4K,
        Self::OtherK,
        Self::Mxfp4,
    ];

    /// Its word in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "F16",
            Self::BF16 => "BF16",
            Self::Fp8 => "FP8",
            Self::Q8 => "Q8",
            Self::Q4 => "Q4",
            Self::Q4K => "Q4-K",
            Self::OtherK => "other-K",
            Self::Mxfp4 => "MXFP4",
        }
    }

    /// That of the type which most weights have, of tensors' types and weights.
    pub fn of_most(tensors: impl Iterator<Item = (TensorType, u64)>) -> Self {
        let mut sums: Vec<(TensorType, u64)> = Vec::new();
        for (kind, weights) in tensors {
            match sums.iter_mut().find(|(k, _)| *k == kind) {
                Some((_, sum)) => *sum = sum.saturating_add(weights),
                None => sums.push((kind, weights)),
            }
        }
        let most = sums.into_iter().max_by_key(|(_, weights)| *weights);
        match most.map_or(TensorType::F16, |(kind, _)| kind) {
            TensorType::F16 | TensorType::F32 => Self::F16,
            TensorType::BF16 => Self::BF16,
            TensorType::Q8_0 => Self::Q8,
            TensorType::Q4_0 | TensorType::Q4_1 => Self::Q4,
            TensorType::Q4K => Self::Q4K,
            TensorType::Mxfp4 => Self::Mxfp4,
            _ => Self::OtherK,
        }
    }

    /// That of a quantisation.
    pub fn of(quant: Quant) -> Self {
        match quant {
            Quant::F16 => Self::F16,
            Quant::BF16 => Self::BF16,
            Quant::Q8_0 => Self::Q8,
            Quant::Q4_0 => Self::Q4,
            Quant::Q4KM => Self::Q4K,
            Quant::Mxfp4 => Self::Mxfp4,
            Quant::Q6K | Quant::Q5KM | Quant::Q3KM | Quant::Q2K | Quant::Iq4Xs => Self::OtherK,
        }
    }
}

impl Work {
    /// That of a catalogued model.
    pub fn of(spec: &ModelSpec, quant: Quant) -> anyhow::Result<Self> {
        let tensors = model::tensors(spec, quant)?;
        Ok(Self::of_tensors(spec, &tensors, Packing::of(quant)))
    }

    /// That of a model whose tensors are known, such as those of a file.
    pub fn of_tensors(spec: &ModelSpec, tensors: &[Tensor], packing: Packing) -> Self {
        let pieces: Vec<Piece> = tensors.iter().map(Piece::of).collect();
        Self::of_pieces(spec, &pieces, packing)
    }

    /// The same where it is known already what each tensor is for.
    pub fn of_pieces(spec: &ModelSpec, pieces: &[Piece], packing: Packing) -> Self {
        let mut work = Self {
            layers: f64::from(spec.layers),
            linear_share: 0.0,
            hidden: f64::from(spec.hidden),
            dense_bytes: 0.0,
            expert_bytes: 0.0,
            dense_weights: 0.0,
            expert_weights: 0.0,
            output_weights: 0.0,
            experts: spec.experts.as_ref().map(|e| (f64::from(e.total), f64::from(e.active))),
            file_bytes: 0.0,
            cache: cache_groups(spec),
            state_bytes: 0.0,
            packing,
        };
        let tied = !pieces.iter().any(|p| p.part == Part::Output);
        for piece in pieces {
            let (bytes, weights) = (piece.bytes as f64, piece.elements as f64);
            work.file_bytes += bytes;
            match piece.part {
                Part::Output => {
                    work.output_weights += weights;
                    work.dense_bytes += bytes;
                }
                Part::Embedding if tied => {
                    work.output_weights += weights;
                    work.dense_bytes += bytes;
                }
                // Rows of it are looked up, not multiplied with.
                Part::Embedding | Part::Lookup => {}
                Part::Experts(_) => {
                    work.expert_bytes += bytes;
                    work.expert_weights += weights;
                }
                Part::Layer(_) | Part::Other => {
                    work.dense_bytes += bytes;
                    // Norms and biases are added or multiplied element by element.
                    work.dense_weights += if piece.is_matrix { weights } else { 0.0 };
                }
            }
        }
        if let Some(linear) = &spec.linear {
            let layers =
                f64::from((0..spec.layers).filter(|&il| spec.is_linear(il)).count() as u32);
            work.linear_share = layers / work.layers;
            let state = f64::from(linear.value_heads) * f64::from(linear.head_dim).powi(2);
            work.state_bytes = layers * state * 4.0 * 2.0;
        }
        work
    }

    /// That of a plain decoder with `bits` for each weight, or as `quant` would store it.
    pub fn of_published(shape: &PublishedModel, quant: Quant) -> anyhow::Result<Self> {
        let spec = plain_spec(shape)?;
        // A shape is written as a llama, of which llama.cpp knows no windows.
        Ok(Self { cache: windowed_groups(&spec), ..Self::of(&spec, quant)? })
    }

    /// The same with every tensor at `bits` per weight, as MLX's flat quantisations are.
    #[must_use]
    pub fn at_bits(mut self, bits: f64) -> Self {
        let width = |weights: f64| weights * bits / 8.0;
        let looked_up = self.file_bytes - self.dense_bytes - self.expert_bytes;
        let before = self.dense_bytes;
        self.dense_bytes = width(self.dense_weights + self.output_weights);
        self.expert_bytes = width(self.expert_weights);
        self.file_bytes =
            self.dense_bytes + self.expert_bytes + looked_up * self.dense_bytes / before;
        self
    }

    /// The same, scaled to the size that a file is known to have: mixes that no recipe describes.
    #[must_use]
    pub fn scaled_to(mut self, file_bytes: f64) -> Self {
        let ratio = file_bytes / self.file_bytes;
        self.dense_bytes *= ratio;
        self.expert_bytes *= ratio;
        self.file_bytes = file_bytes;
        self
    }

    /// What each of `cards` does that share every layer. Fewer heads of a cache than cards are held
    /// several times.
    #[must_use]
    pub fn of_each(&self, cards: f64) -> Self {
        let mut each = self.clone();
        for part in [
            &mut each.dense_bytes,
            &mut each.expert_bytes,
            &mut each.dense_weights,
            &mut each.expert_weights,
            &mut each.output_weights,
            &mut each.file_bytes,
            &mut each.state_bytes,
        ] {
            *part /= cards;
        }
        for group in &mut each.cache {
            group.values_per_token *= (cards / group.heads).ceil() / cards;
            group.operations /= cards;
        }
        each
    }

    /// Weights that one token is multiplied with when it is generated.
    pub fn active_weights(&self) -> f64 {
        self.dense_weights + self.output_weights + self.active_expert_weights()
    }

    /// Weights of the experts that one token uses.
    pub fn active_expert_weights(&self) -> f64 {
        self.experts.map_or(0.0, |(total, active)| self.expert_weights * active / total)
    }

    /// Bytes of expert weights that a pass over `tokens` tokens reads, routed independently.
    pub fn touched_expert_bytes(&self, tokens: f64) -> f64 {
        self.experts.map_or(0.0, |(total, active)| {
            self.expert_bytes * (1.0 - (1.0 - active / total).powf(tokens))
        })
    }

    /// Bytes of weights read for one token of one stream.
    pub fn token_bytes(&self) -> f64 {
        self.dense_bytes + self.touched_expert_bytes(1.0)
    }

    /// Bytes of cache that one new token reads with `tokens` cached ones at `value_bytes` each.
    pub fn cache_read(&self, tokens: f64, value_bytes: f64) -> f64 {
        self.cache
            .iter()
            .map(|g| {
                let seen = g.window.map_or(tokens, |w| tokens.min(w));
                g.layers * g.values_per_token * value_bytes * seen
            })
            .sum()
    }

    /// Operations of attention for each new token when `depth` tokens are cached and `new` more
    /// follow, on average.
    pub fn attention_operations(&self, depth: f64, new: f64) -> f64 {
        let mean = depth + new / 2.0;
        self.cache
            .iter()
            .map(|g| g.layers * g.operations * g.window.map_or(mean, |w| mean.min(w)))
            .sum()
    }
}

/// The layers of `spec` in groups with the same cache, as llama.cpp reads them.
pub fn cache_groups(spec: &ModelSpec) -> Vec<CacheGroup> {
    groups_with(spec, super::memory::is_windowed)
}

/// The same where every window that the model was trained with is kept, as vLLM does.
pub fn windowed_groups(spec: &ModelSpec) -> Vec<CacheGroup> {
    groups_with(spec, ModelSpec::is_sliding)
}

fn groups_with(spec: &ModelSpec, is_windowed: impl Fn(&ModelSpec, u32) -> bool) -> Vec<CacheGroup> {
    let mut groups: Vec<CacheGroup> = Vec::new();
    if spec.compressed.is_some() {
        return compressed_groups(spec);
    }
    for il in (0..spec.layers).filter(|&il| !spec.is_linear(il)) {
        let head = f64::from(spec.head_dim_of(il));
        let heads = f64::from(spec.heads);
        let (values, operations) = match &spec.mla {
            // One short vector for all heads, which is key and value at once.
            Some(mla) => {
                let width = f64::from(mla.kv_rank + mla.rope_dim);
                (width, 2.0 * heads * (width + f64::from(mla.kv_rank)))
            }
            None => (2.0 * f64::from(spec.kv_heads_of(il)) * head, 4.0 * heads * head),
        };
        let cached = if spec.mla.is_some() { 1 } else { spec.kv_heads_of(il) };
        let window = spec.sliding.as_ref().filter(|_| is_windowed(spec, il));
        let window = window.map(|s| f64::from(s.window));
        let group = CacheGroup {
            layers: 1.0,
            values_per_token: values,
            operations,
            heads: f64::from(cached.max(1)),
            window,
        };
        match groups.iter_mut().find(|g| CacheGroup { layers: 1.0, ..**g } == group) {
            Some(g) => g.layers += 1.0,
            None => groups.push(group),
        }
    }
    groups
}

/// DeepSeek V4: every layer looks back at a window; the others' compressed rows are read besides, of
/// every fourth token those that the indexer chooses.
fn compressed_groups(spec: &ModelSpec) -> Vec<CacheGroup> {
    let head = f64::from(spec.head_dim);
    let heads = f64::from(spec.heads);
    let window = spec.sliding.as_ref().map(|s| f64::from(s.window));
    let layers = |ratio: u32| {
        f64::from((0..spec.layers).filter(|&il| Compressed::ratio(il) == ratio).count() as u32)
    };
    // One row for `every` tokens, so that much of it for each token.
    let group = |layers: f64, every: f64, values: f64, operations: f64, window| CacheGroup {
        layers,
        values_per_token: values / every,
        operations: operations / every,
        heads: 1.0,
        window,
    };
    let attention = 4.0 * heads * head;
    let mut groups = vec![
        group(f64::from(spec.layers), 1.0, head, attention, window),
        group(layers(128), 128.0, head, attention, None),
    ];
    if let Some(x) = &spec.indexer {
        let key = f64::from(x.key_dim);
        let chosen = Some(4.0 * f64::from(x.top_k));
        groups.push(group(layers(4), 4.0, key, 2.0 * f64::from(x.heads) * key, None));
        groups.push(group(layers(4), 4.0, head, attention, chosen));
    }
    groups
}

/// A plain decoder as a catalogue row: what stands beside its shape does not matter for speed.
fn plain_spec(shape: &PublishedModel) -> anyhow::Result<ModelSpec> {
    let mut spec = crate::catalog::models::find("llama-2-7b").context("the plain decoder")?.clone();
    spec.id = shape.id.clone();
    spec.name = shape.id.clone();
    spec.arch = Arch::Llama;
    spec.layers = shape.layers;
    spec.hidden = shape.hidden;
    spec.ffn = Some(shape.ffn);
    spec.heads = shape.heads;
    spec.kv_heads = shape.kv_heads;
    spec.head_dim = shape.head_dim;
    spec.vocab = shape.vocab;
    spec.tied = shape.tied;
    spec.rope.dim = shape.head_dim;
    spec.sliding = shape
        .window
        .map(|window| crate::catalog::models::Sliding { window, full_every: shape.full_every });
    Ok(spec)
}

/// Bytes for one cached value of a cache of this type.
pub fn value_bytes(kind: TensorType) -> f64 {
    kind.block_bytes() as f64 / kind.block_weights() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::models;

    #[test]
    fn a_dense_model_reads_all_but_its_embedding() {
        let work = Work::of(models::find("llama-3.1-8b").unwrap(), Quant::F16).unwrap();
        let embedding = 128_256.0 * 4096.0 * 2.0;
        assert!((work.file_bytes - work.dense_bytes - embedding).abs() < 1.0);
        assert_eq!(work.cache_read(1000.0, 2.0), 1000.0 * 32.0 * 2.0 * 8.0 * 128.0 * 2.0);
    }

    #[test]
    fn a_mixture_reads_more_experts_the_more_tokens_pass() {
        let work = Work::of(models::find("qwen3-30b-a3b").unwrap(), Quant::Q8_0).unwrap();
        let one = work.touched_expert_bytes(1.0);
        assert!((one / work.expert_bytes - 8.0 / 128.0).abs() < 1e-9);
        assert!(work.touched_expert_bytes(8.0) > 6.0 * one);
        assert!(work.touched_expert_bytes(1e4) <= work.expert_bytes);
        assert!((work.active_weights() / 3.35e9 - 1.0).abs() < 0.12, "{}", work.active_weights());
    }

    #[test]
    fn cards_share_all_but_heads_that_are_fewer() {
        let work = Work::of(models::find("llama-3.1-70b").unwrap(), Quant::F16).unwrap();
        let read = |cards: f64| work.of_each(cards).cache_read(1000.0, 2.0);
        assert_eq!(read(1.0), work.cache_read(1000.0, 2.0));
        assert_eq!((read(4.0), read(8.0)), (read(1.0) / 4.0, read(1.0) / 8.0));
        // Eight heads on sixteen cards: two hold each.
        assert_eq!(read(16.0), read(8.0));
        let four = work.of_each(4.0);
        assert_eq!(four.token_bytes(), work.token_bytes() / 4.0);
        assert_eq!(
            four.attention_operations(0.0, 100.0),
            work.attention_operations(0.0, 100.0) / 4.0
        );
        assert_eq!((four.layers, four.hidden), (work.layers, work.hidden));
        // Of latent attention every card holds all.
        let latent = Work::of(models::find("deepseek-v3").unwrap(), Quant::Q8_0).unwrap();
        assert_eq!(latent.of_each(8.0).cache_read(9.0, 2.0), latent.cache_read(9.0, 2.0));
    }

    #[test]
    fn a_window_bounds_what_is_read() {
        let work = Work::of(models::find("gemma-3-27b").unwrap(), Quant::Q4_0).unwrap();
        let short = work.cache_read(1024.0, 2.0);
        let long = work.cache_read(10_240.0, 2.0);
        assert!(long < 3.0 * short, "{long} {short}");
    }

    #[test]
    fn phi_3_has_its_window_with_vllm_alone() {
        let spec = models::find("phi-3-mini-4k").unwrap();
        // 32 layers of 32 heads' keys and values, 96 wide, in two bytes.
        let token = 32.0 * 2.0 * 32.0 * 96.0 * 2.0;
        let packed = crate::fit::packed::Packed::of(spec, Quant::Q4KM).unwrap();
        assert_eq!(packed.work.cache_read(4000.0, 2.0), 4000.0 * token);
        let work = crate::fit::vllm::Checkpoint::Bf16.packed(spec).unwrap().work;
        assert_eq!(work.cache_read(4000.0, 2.0), 2047.0 * token);
    }

    #[test]
    fn a_flat_quantisation_has_its_bits_everywhere() {
        let work = Work::of(models::find("qwen3-8b").unwrap(), Quant::Q4_0).unwrap().at_bits(4.5);
        let weights = work.dense_weights + work.output_weights;
        assert!((work.dense_bytes - weights * 4.5 / 8.0).abs() < 1.0);
    }
}
