//! Small shapes of each architecture, for tests.

use crate::catalog::models::{
    Arch, Compressed, Experts, Gemma4, Indexer, LinearAttention, Mla, ModelSpec, Rope, RopeFactors,
    Sliding,
};

impl ModelSpec {
    /// A model of this architecture small enough for a test: hidden width 256, at most four layers,
    /// a vocabulary of 1024. It has every kind of tensor that the architecture has.
    pub fn tiny(arch: Arch) -> Self {
        let moe = matches!(
            arch,
            Arch::Llama4
                | Arch::Qwen3Moe
                | Arch::Qwen35Moe
                | Arch::GptOss
                | Arch::Deepseek2
                | Arch::Deepseek4
                | Arch::Glm4Moe
                | Arch::GlmDsa
        );
        let hybrid = matches!(arch, Arch::Qwen35 | Arch::Qwen35Moe);
        let latent = matches!(arch, Arch::Deepseek2 | Arch::GlmDsa);
        let compressed = arch == Arch::Deepseek4;
        let windowed = compressed || matches!(arch, Arch::Gemma3 | Arch::Gemma4 | Arch::GptOss);
        let layers = if hybrid || windowed || arch == Arch::Llama4 { 4 } else { 2 };
        let head_dim = match arch {
            Arch::Gemma3 => 256,
            Arch::Gemma4 => 128,
            _ if latent || compressed => 128,
            _ => 64,
        };
        Self {
            id: format!("tiny-{}", arch.name()),
            name: format!("Tiny {}", arch.name()),
            hf_class: String::new(),
            arch,
            params_total: None,
            params_active: None,
            layers,
            hidden: 256,
            ffn: Some(512),
            heads: 4,
            kv_heads: match () {
                () if latent => 4,
                () if compressed => 1,
                () => 2,
            },
            head_dim,
            vocab: 1024,
            context_max: 2048,
            tied: matches!(arch, Arch::Gemma3 | Arch::Gemma4),
            rope: Rope {
                dim: match arch {
                    Arch::Gemma4 => 256,
                    _ if latent || hybrid || compressed || arch == Arch::Glm4Moe => 32,
                    _ => head_dim,
                },
                base: 10_000.0,
                base_sliding: None,
                scaling: None,
                factors: match arch {
                    Arch::Gemma4 => RopeFactors::Freqs,
                    _ => RopeFactors::None,
                },
            },
            norm_eps: 1e-5,
            qk_norm: matches!(
                arch,
                Arch::Qwen3
                    | Arch::Qwen3Moe
                    | Arch::Qwen35
                    | Arch::Qwen35Moe
                    | Arch::Gemma3
                    | Arch::Gemma4
            ),
            qkv_bias: matches!(arch, Arch::Qwen2 | Arch::GptOss | Arch::Glm4Moe),
            experts: moe.then(|| Experts {
                total: if arch == Arch::Llama4 { 16 } else { 4 },
                active: if arch == Arch::Llama4 { 1 } else { 2 },
                ffn: 256,
                shared: u32::from(!matches!(arch, Arch::Qwen3Moe | Arch::GptOss)),
                dense_lead: u32::from(latent || arch == Arch::Glm4Moe),
                every: if arch == Arch::Llama4 { 2 } else { 1 },
                scale: None,
                groups: None,
            }),
            sliding: (windowed || arch == Arch::Llama4).then(|| Sliding {
                window: if arch == Arch::Llama4 { 8192 } else { 64 },
                full_every: match arch {
                    Arch::GptOss | Arch::Gemma4 => Some(2),
                    Arch::Gemma3 => Some(6),
                    Arch::Deepseek4 => None,
                    _ => Some(4),
                },
            }),
            mla: latent.then_some(Mla {
                q_rank: 128,
                kv_rank: 128,
                rope_dim: 32,
                nope_dim: 96,
                v_dim: 64,
            }),
            linear: hybrid.then_some(LinearAttention {
                key_heads: 2,
                value_heads: 4,
                head_dim: 64,
                conv: 4,
                full_every: 4,
            }),
            gemma4: (arch == Arch::Gemma4).then_some(Gemma4 {
                full_head_dim: 256,
                full_kv_heads: 2,
                k_is_v: false,
                per_layer_embedding: 64,
                kv_shared_layers: 2,
                double_wide_ffn: true,
            }),
            indexer: (compressed || arch == Arch::GlmDsa).then_some(Indexer {
                heads: 4,
                key_dim: if compressed { 128 } else { 64 },
                top_k: 64,
                full_every: 1,
            }),
            compressed: compressed.then_some(Compressed {
                q_rank: 128,
                o_rank: 64,
                o_groups: 2,
                streams: 4,
                hash_layers: 3,
                swiglu_clamp: 10.0,
                rope_base: 160_000.0,
            }),
            licence: String::new(),
            source: "a test".to_owned(),
            params_basis: String::new(),
            detail_source: String::new(),
            not_synthesisable: compressed.then(|| "no forward pass was verified".to_owned()),
            notes: String::new(),
        }
    }
}
