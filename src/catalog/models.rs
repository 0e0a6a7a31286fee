//! The shapes of known models, each with its source.

use std::sync::LazyLock;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use crate::catalog::nearest;

/// The rows, embedded so that the program needs no file beside it.
const ROWS: &str = include_str!("models.csv");

/// Every model of the catalogue, in the order of `models.csv`.
pub fn all() -> &'static [ModelSpec] {
    static MODELS: LazyLock<Vec<ModelSpec>> = LazyLock::new(|| {
        read(ROWS).expect("the embedded models.csv is checked by a test of this module")
    });
    &MODELS
}

/// `own` models and those of the catalogue that none of them replaces by its id.
pub fn all_with(own: &[ModelSpec]) -> impl Iterator<Item = &ModelSpec> {
    own.iter().chain(all().iter().filter(|known| own.iter().all(|o| o.id != known.id)))
}

/// The model with this id or name, in any case; the error suggests the nearest ids.
pub fn find(word: &str) -> anyhow::Result<&'static ModelSpec> {
    find_with(word, &[])
}

/// The same among `own` models too, which come first.
pub fn find_with<'a>(word: &str, own: &'a [ModelSpec]) -> anyhow::Result<&'a ModelSpec> {
    let known = || own.iter().chain(all());
    let said =
        |s: &&ModelSpec| s.id.eq_ignore_ascii_case(word) || s.name.eq_ignore_ascii_case(word);
    if let Some(spec) = known().find(said) {
        return Ok(spec);
    }
    let near = nearest(word, known().map(|s| s.id.as_str()));
    match near.as_slice() {
        [] => bail!("unknown model '{word}'; `bench models` lists what is known"),
        near => bail!("unknown model '{word}'; did you mean '{}'?", near.join("' or '")),
    }
}

/// The architectures that a model file can name, as llama.cpp calls them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// Llama 2 and 3, Mistral 7B, Mixtral, SmolLM2, TinyLlama.
    Llama,
    /// Llama 4.
    Llama4,
    /// Ministral 3, Devstral Small 2.
    Mistral3,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Qwen3, dense.
    Qwen3,
    /// Qwen3 with experts.
    Qwen3Moe,
    /// Qwen3.5 and 3.6, dense: three linear-attention layers, then a full one.
    Qwen35,
    /// Qwen3.5 and 3.6 with experts.
    Qwen35Moe,
    /// Gemma 3.
    Gemma3,
    /// Gemma 4.
    Gemma4,
    /// Phi-3 and Phi-4.
    Phi3,
    /// gpt-oss.
    #[serde(rename = "gpt-oss")]
    GptOss,
    /// DeepSeek V2 to R1, Kimi K2.
    Deepseek2,
    /// DeepSeek V4.
    Deepseek4,
    /// GLM-4.5 to 4.7.
    Glm4Moe,
    /// GLM-5: DeepSeek's attention with a sparse indexer.
    #[serde(rename = "glm-dsa")]
    GlmDsa,
}

impl Arch {
    /// Every architecture of the catalogue.
    pub const ALL: [Self; 16] = [
        Self::Llama,
        Self::Llama4,
        Self::Mistral3,
        Self::Qwen2,
        Self::Qwen3,
        Self::Qwen3Moe,
        Self::Qwen35,
        Self::Qwen35Moe,
        Self::Gemma3,
        Self::Gemma4,
        Self::Phi3,
        Self::GptOss,
        Self::Deepseek2,
        Self::Deepseek4,
        Self::Glm4Moe,
        Self::GlmDsa,
    ];

    /// The value of `general.architecture`, which is also the prefix of the metadata keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Llama4 => "llama4",
            Self::Mistral3 => "mistral3",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Qwen3Moe => "qwen3moe",
            Self::Qwen35 => "qwen35",
            Self::Qwen35Moe => "qwen35moe",
            Self::Gemma3 => "gemma3",
            Self::Gemma4 => "gemma4",
            Self::Phi3 => "phi3",
            Self::GptOss => "gpt-oss",
            Self::Deepseek2 => "deepseek2",
            Self::Deepseek4 => "deepseek4",
            Self::Glm4Moe => "glm4moe",
            Self::GlmDsa => "glm-dsa",
        }
    }
}

/// A model's shape: all that speed and memory depend on.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// The word for this model in files and flags.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// The class in the model's `config.json`.
    pub hf_class: String,
    /// The architecture of its GGUF file.
    pub arch: Arch,
    /// All parameters, as published; `params_basis` says whether read, computed or nominal.
    pub params_total: Option<u64>,
    /// The parameters that one token uses.
    pub params_active: Option<u64>,
    /// Decoder layers, without multi-token-prediction layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width of a dense feed-forward layer; `None` where every layer has experts only.
    pub ffn: Option<u32>,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads of an ordinary layer.
    pub kv_heads: u32,
    /// Values in a query or key head (with MLA: after expansion, position part included).
    pub head_dim: u32,
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// The longest context it was trained or extended for.
    pub context_max: u32,
    /// The output projection is the token embedding.
    pub tied: bool,
    /// How positions enter.
    pub rope: Rope,
    /// The constant inside the norms.
    pub norm_eps: f32,
    /// Queries and keys are normalised.
    pub qk_norm: bool,
    /// The query, key and value projections have biases.
    pub qkv_bias: bool,
    /// Mixture of experts.
    pub experts: Option<Experts>,
    /// Sliding-window (or chunked) attention.
    pub sliding: Option<Sliding>,
    /// Multi-head latent attention.
    pub mla: Option<Mla>,
    /// Linear attention in all but every n-th layer.
    pub linear: Option<LinearAttention>,
    /// What only Gemma 4 has.
    pub gemma4: Option<Gemma4>,
    /// Sparse attention's indexer.
    pub indexer: Option<Indexer>,
    /// DeepSeek V4's compressed attention.
    pub compressed: Option<Compressed>,
    /// Terms under which the weights may be used.
    pub licence: String,
    /// Where the shape was read.
    pub source: String,
    /// Where the parameter counts come from.
    pub params_basis: String,
    /// Where the details below the shape were read.
    pub detail_source: String,
    /// Why no synthetic weights can be made, where that is so.
    pub not_synthesisable: Option<String>,
    /// Anything else worth knowing.
    pub notes: String,
}

/// Rotary position embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Values of a head that are rotated.
    pub dim: u32,
    /// Base of the frequencies.
    pub base: f32,
    /// Base in sliding-window layers, where it differs.
    pub base_sliding: Option<f32>,
    /// `linear:<factor>`, `yarn:<factor>:<original context>` or `longrope:<factor>:<original>`.
    pub scaling: Option<RopeScaling>,
    /// Frequency factors that are stored as tensors.
    pub factors: RopeFactors,
}

/// How positions beyond the trained ones are reached.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeScaling {
    /// llama.cpp's word: `linear`, `yarn` or `longrope`.
    pub kind: String,
    /// Extended over original context.
    pub factor: f32,
    /// The context before extension, where the method needs it.
    pub original_context: Option<u32>,
}

/// Frequency factors stored beside the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeFactors {
    /// None.
    None,
    /// One `rope_freqs` tensor.
    Freqs,
    /// `rope_factors_long` and `rope_factors_short`.
    LongShort,
}

/// A mixture of experts.
#[derive(Clone, Debug, PartialEq)]
pub struct Experts {
    /// Experts in a layer.
    pub total: u32,
    /// Experts that one token uses.
    pub active: u32,
    /// Width of one expert.
    pub ffn: u32,
    /// Experts that every token uses besides.
    pub shared: u32,
    /// Layers at the front that have no experts.
    pub dense_lead: u32,
    /// Experts in every n-th layer (1: in all).
    pub every: u32,
    /// Factor on the routed experts' output.
    pub scale: Option<f32>,
    /// Groups of experts and how many of them are searched.
    pub groups: Option<(u32, u32)>,
}

impl Experts {
    /// None, with one in every layer as soon as there are any.
    pub const NONE: Self = Self {
        total: 0,
        active: 0,
        ffn: 0,
        shared: 0,
        dense_lead: 0,
        every: 1,
        scale: None,
        groups: None,
    };
}

/// Attention to the last tokens only.
#[derive(Clone, Debug, PartialEq)]
pub struct Sliding {
    /// Tokens in the window.
    pub window: u32,
    /// Every n-th layer sees everything; `None`: no layer does.
    pub full_every: Option<u32>,
}

/// Multi-head latent attention: keys and values are cached as one short vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Mla {
    /// Width of the query's bottleneck.
    pub q_rank: u32,
    /// Width of the cached vector.
    pub kv_rank: u32,
    /// Values of a head that carry the position.
    pub rope_dim: u32,
    /// Values of a head that do not.
    pub nope_dim: u32,
    /// Values in a value head.
    pub v_dim: u32,
}

/// Gated delta-net layers, which keep a state of fixed size instead of a cache.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearAttention {
    /// Key heads.
    pub key_heads: u32,
    /// Value heads.
    pub value_heads: u32,
    /// Values in a head.
    pub head_dim: u32,
    /// Taps of the convolution.
    pub conv: u32,
    /// Every n-th layer has full attention instead.
    pub full_every: u32,
}

/// What only Gemma 4 has.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemma4 {
    /// Values in a head of a full-attention layer.
    pub full_head_dim: u32,
    /// Key and value heads of a full-attention layer.
    pub full_kv_heads: u32,
    /// Full-attention layers have no value projection: values are the keys.
    pub k_is_v: bool,
    /// Width of the per-layer embeddings; 0: none.
    pub per_layer_embedding: u32,
    /// Layers at the end that use the cache of an earlier layer.
    pub kv_shared_layers: u32,
    /// Those layers have a feed-forward of twice the width.
    pub double_wide_ffn: bool,
}

/// The indexer that chooses which tokens sparse attention reads.
#[derive(Clone, Debug, PartialEq)]
pub struct Indexer {
    /// Its heads.
    pub heads: u32,
    /// Values in its keys.
    pub key_dim: u32,
    /// Tokens that it chooses.
    pub top_k: u32,
    /// After the first three layers only every n-th layer has one (1: all).
    pub full_every: u32,
}

/// DeepSeek V4's compressed attention, hyper-connections and hashed routing.
#[derive(Clone, Debug, PartialEq)]
pub struct Compressed {
    /// Width of the query's bottleneck.
    pub q_rank: u32,
    /// Width of each group's output bottleneck.
    pub o_rank: u32,
    /// Groups of heads in the output projection.
    pub o_groups: u32,
    /// Residual streams.
    pub streams: u32,
    /// Layers at the front whose experts follow from the token alone.
    pub hash_layers: u32,
    /// Bound of the experts' activations.
    pub swiglu_clamp: f32,
    /// Base of the compressed positions' frequencies.
    pub rope_base: f32,
}

impl Compressed {
    /// Tokens that one cached row of layer `il` stands for, beside the sliding window; 0: none.
    ///
    /// Source: github.com/antirez/ds4 MODEL_CARD.md.
    pub fn ratio(il: u32) -> u32 {
        match il {
            0 | 1 => 0,
            _ if il.is_multiple_of(2) => 4,
            _ => 128,
        }
    }
}

impl ModelSpec {
    /// Whether layer `il` attends to a window only.
    pub fn is_sliding(&self, il: u32) -> bool {
        match &self.sliding {
            None => false,
            Some(Sliding { full_every: None, .. }) => true,
            Some(Sliding { full_every: Some(n), .. }) => !(il + 1).is_multiple_of(*n),
        }
    }

    /// Whether layer `il` has linear attention: a state instead of a cache.
    pub fn is_linear(&self, il: u32) -> bool {
        self.linear.as_ref().is_some_and(|l| !(il + 1).is_multiple_of(l.full_every))
    }

    /// Values in a query and key head of layer `il`.
    pub fn head_dim_of(&self, il: u32) -> u32 {
        match &self.gemma4 {
            Some(g) if !self.is_sliding(il) => g.full_head_dim,
            _ => self.head_dim,
        }
    }

    /// Key and value heads of layer `il`; 0 for a linear-attention layer.
    pub fn kv_heads_of(&self, il: u32) -> u32 {
        match &self.gemma4 {
            _ if self.is_linear(il) => 0,
            Some(g) if !self.is_sliding(il) => g.full_kv_heads,
            _ => self.kv_heads,
        }
    }

    /// Layers, from the first, that have a key-value cache of their own.
    pub fn layers_with_own_kv(&self) -> u32 {
        self.layers - self.gemma4.as_ref().map_or(0, |g| g.kv_shared_layers)
    }

    /// Width of the dense feed-forward of layer `il`; `None` where it has experts only.
    pub fn ffn_of(&self, il: u32) -> Option<u32> {
        let both = self.arch == Arch::Gemma4;
        if self.has_experts(il) && !both {
            return None;
        }
        let double = self.gemma4.as_ref().is_some_and(|g| g.double_wide_ffn)
            && il >= self.layers_with_own_kv();
        self.ffn.map(|ffn| if double { 2 * ffn } else { ffn })
    }

    /// Whether layer `il` has experts.
    pub fn has_experts(&self, il: u32) -> bool {
        self.experts
            .as_ref()
            .is_some_and(|e| il >= e.dense_lead && (il + 1).is_multiple_of(e.every))
    }

    /// Whether layer `il` has an indexer of its own.
    pub fn has_indexer(&self, il: u32) -> bool {
        // GLM-5.2: layers 0 and 1, then every fourth from layer 2 (llama.cpp src/models/glm-dsa.cpp).
        self.indexer.as_ref().is_some_and(|x| il < 2 || (il - 2).is_multiple_of(x.full_every))
    }
}

/// One line of `models.csv`.
#[derive(Deserialize)]
struct Row {
    id: String,
    name: String,
    hf_class: String,
    arch: Arch,
    params_total: Option<u64>,
    params_active: Option<u64>,
    n_layers: u32,
    hidden: u32,
    ffn: Option<u32>,
    n_heads: u32,
    n_kv_heads: u32,
    head_dim: u32,
    vocab: u32,
    context_max: u32,
    tied: bool,
    rope_dim: Option<u32>,
    rope_base: f32,
    rope_scaling: String,
    rope_factors: String,
    norm_eps: f32,
    qk_norm: Option<bool>,
    qkv_bias: Option<bool>,
    experts_total: Option<u32>,
    experts_active: Option<u32>,
    expert_ffn: Option<u32>,
    shared_experts: Option<u32>,
    dense_lead: Option<u32>,
    moe_every: Option<u32>,
    expert_scale: Option<f32>,
    expert_groups: Option<u32>,
    expert_groups_used: Option<u32>,
    window: Option<u32>,
    full_every: Option<u32>,
    rope_base_swa: Option<f32>,
    mla_q_rank: Option<u32>,
    mla_kv_rank: Option<u32>,
    mla_rope_dim: Option<u32>,
    mla_nope_dim: Option<u32>,
    mla_v_dim: Option<u32>,
    linear_key_heads: Option<u32>,
    linear_value_heads: Option<u32>,
    linear_head_dim: Option<u32>,
    linear_conv: Option<u32>,
    full_head_dim: Option<u32>,
    full_kv_heads: Option<u32>,
    k_is_v: Option<bool>,
    per_layer_embedding: Option<u32>,
    kv_shared_layers: Option<u32>,
    double_wide_ffn: Option<bool>,
    indexer_heads: Option<u32>,
    indexer_key_dim: Option<u32>,
    indexer_top_k: Option<u32>,
    indexer_full_every: Option<u32>,
    o_rank: Option<u32>,
    o_groups: Option<u32>,
    hyper_connections: Option<u32>,
    hash_layers: Option<u32>,
    swiglu_clamp: Option<f32>,
    compress_rope_base: Option<f32>,
    licence: String,
    source: String,
    params_basis: String,
    detail_source: String,
    not_synthesisable: String,
    notes: String,
}

fn read(text: &str) -> anyhow::Result<Vec<ModelSpec>> {
    csv::Reader::from_reader(text.as_bytes())
        .deserialize()
        .enumerate()
        .map(|(i, row)| {
            let line = i + 2;
            let row: Row = row.with_context(|| format!("models.csv:{line}"))?;
            let id = row.id.clone();
            spec(row).with_context(|| format!("models.csv:{line}: model '{id}'"))
        })
        .collect()
}

fn spec(row: Row) -> anyhow::Result<ModelSpec> {
    ensure!(!row.source.is_empty(), "no source");
    let rope = Rope {
        dim: row.rope_dim.unwrap_or(row.full_head_dim.unwrap_or(row.head_dim)),
        base: row.rope_base,
        base_sliding: row.rope_base_swa,
        scaling: scaling(&row.rope_scaling)?,
        factors: match row.rope_factors.as_str() {
            "" => RopeFactors::None,
            "freqs" => RopeFactors::Freqs,
            "long-short" => RopeFactors::LongShort,
            other => bail!("unknown rope_factors '{other}'; use 'freqs' or 'long-short'"),
        },
    };
    let experts = match (row.experts_total, row.experts_active, row.expert_ffn) {
        (Some(total), Some(active), Some(ffn)) => Some(Experts {
            total,
            active,
            ffn,
            shared: row.shared_experts.unwrap_or(0),
            dense_lead: row.dense_lead.unwrap_or(0),
            every: row.moe_every.unwrap_or(1).max(1),
            scale: row.expert_scale,
            groups: row.expert_groups.zip(row.expert_groups_used),
        }),
        (None, None, None) => None,
        _ => bail!("experts_total, experts_active and expert_ffn must stand together"),
    };
    let mla = match (row.mla_q_rank, row.mla_kv_rank, row.mla_rope_dim) {
        (Some(q_rank), Some(kv_rank), Some(rope_dim)) => Some(Mla {
            q_rank,
            kv_rank,
            rope_dim,
            nope_dim: row.mla_nope_dim.context("mla_nope_dim is missing")?,
            v_dim: row.mla_v_dim.context("mla_v_dim is missing")?,
        }),
        _ => None,
    };
    let linear = match row.linear_key_heads {
        Some(key_heads) => Some(LinearAttention {
            key_heads,
            value_heads: row.linear_value_heads.context("linear_value_heads is missing")?,
            head_dim: row.linear_head_dim.context("linear_head_dim is missing")?,
            conv: row.linear_conv.context("linear_conv is missing")?,
            full_every: row.full_every.context("full_every is missing")?,
        }),
        None => None,
    };
    let gemma4 = (row.arch == Arch::Gemma4).then(|| Gemma4 {
        full_head_dim: row.full_head_dim.unwrap_or(row.head_dim),
        full_kv_heads: row.full_kv_heads.unwrap_or(row.n_kv_heads),
        k_is_v: row.k_is_v.unwrap_or(false),
        per_layer_embedding: row.per_layer_embedding.unwrap_or(0),
        kv_shared_layers: row.kv_shared_layers.unwrap_or(0),
        double_wide_ffn: row.double_wide_ffn.unwrap_or(false),
    });
    let indexer = match (row.indexer_heads, row.indexer_key_dim, row.indexer_top_k) {
        (Some(heads), Some(key_dim), Some(top_k)) => {
            Some(Indexer { heads, key_dim, top_k, full_every: row.indexer_full_every.unwrap_or(1) })
        }
        _ => None,
    };
    let compressed = match (row.o_rank, row.o_groups, row.hyper_connections) {
        (Some(o_rank), Some(o_groups), Some(streams)) => Some(Compressed {
            q_rank: row.mla_q_rank.context("mla_q_rank is missing")?,
            o_rank,
            o_groups,
            streams,
            hash_layers: row.hash_layers.unwrap_or(0),
            swiglu_clamp: row.swiglu_clamp.context("swiglu_clamp is missing")?,
            rope_base: row.compress_rope_base.context("compress_rope_base is missing")?,
        }),
        _ => None,
    };
    Ok(ModelSpec {
        sliding: row.window.map(|window| Sliding { window, full_every: row.full_every }),
        id: row.id,
        name: row.name,
        hf_class: row.hf_class,
        arch: row.arch,
        params_total: row.params_total,
        params_active: row.params_active,
        layers: row.n_layers,
        hidden: row.hidden,
        ffn: row.ffn,
        heads: row.n_heads,
        kv_heads: row.n_kv_heads,
        head_dim: row.head_dim,
        vocab: row.vocab,
        context_max: row.context_max,
        tied: row.tied,
        rope,
        norm_eps: row.norm_eps,
        qk_norm: row.qk_norm.unwrap_or(false),
        qkv_bias: row.qkv_bias.unwrap_or(false),
        experts,
        mla,
        linear,
        gemma4,
        indexer,
        compressed,
        licence: row.licence,
        source: row.source,
        params_basis: row.params_basis,
        detail_source: row.detail_source,
        not_synthesisable: (!row.not_synthesisable.is_empty()).then_some(row.not_synthesisable),
        notes: row.notes,
    })
}

fn scaling(text: &str) -> anyhow::Result<Option<RopeScaling>> {
    if text.is_empty() {
        return Ok(None);
    }
    let mut parts = text.split(':');
    let kind = parts.next().unwrap_or_default().to_owned();
    let factor = parts.next().context("rope_scaling has no factor")?;
    Ok(Some(RopeScaling {
        kind,
        factor: factor.parse().with_context(|| format!("rope_scaling factor '{factor}'"))?,
        original_context: parts.next().map(str::parse).transpose().context("rope_scaling")?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_fifty_models_are_known_each_with_its_source() {
        assert!(all().len() >= 50, "{}", all().len());
        for spec in all() {
            assert!(!spec.source.is_empty(), "{}", spec.id);
            if spec.not_synthesisable.is_none() {
                assert!(!spec.detail_source.is_empty(), "{}", spec.id);
            }
        }
    }

    #[test]
    fn ids_are_unique() {
        let mut ids: Vec<_> = all().iter().map(|s| s.id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all().len());
    }

    #[test]
    fn a_misspelt_model_is_met_with_the_nearest_id() {
        let message = find("qwen3-8").unwrap_err().to_string();
        assert!(message.contains("did you mean 'qwen3-8b'"), "{message}");
        assert_eq!(find("Qwen3 0.6B").unwrap().id, "qwen3-0.6b");
    }

    #[test]
    fn a_hybrid_model_says_which_layers_have_a_cache() {
        let spec = find("qwen3.5-27b").unwrap();
        let full = (0..spec.layers).filter(|&il| !spec.is_linear(il)).count();
        assert_eq!(full, 16);
        let spec = find("gemma-3-27b").unwrap();
        assert_eq!((0..spec.layers).filter(|&il| spec.is_sliding(il)).count(), 52);
        let spec = find("gemma-4-e2b").unwrap();
        assert_eq!((0..spec.layers).filter(|&il| spec.is_sliding(il)).count(), 28);
        assert_eq!(spec.layers_with_own_kv(), 15);
    }
}
