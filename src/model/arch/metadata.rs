//! The metadata keys from which llama.cpp learns a model's shape.

use crate::catalog::models::{Arch, Compressed, ModelSpec};
use crate::model::gguf::{Array, Value};
use crate::model::quant::Quant;

/// `LLAMA_EXPERT_GATING_FUNC_TYPE_SIGMOID` of llama.cpp.
const GATING_SIGMOID: u32 = 2;
/// `LLAMA_EXPERT_GATING_FUNC_TYPE_SQRT_SOFTPLUS` of llama.cpp.
const GATING_SQRT_SOFTPLUS: u32 = 4;
/// `GGML_QNT_VERSION`: the version of the block layouts.
const QUANTISATION_VERSION: u32 = 2;

/// The keys of a file with this shape, without the tokenizer's.
///
/// These are the keys that the loader of llama.cpp reads (crate llama-cpp-sys-2 0.1.161,
/// `llama_model_base::load_hparams` and `src/models/<architecture>.cpp`, `load_arch_hparams`).
pub fn metadata(spec: &ModelSpec, quant: Quant) -> Vec<(String, Value)> {
    let mut keys = Keys { arch: spec.arch.name(), list: Vec::new() };
    keys.general("general.architecture", Value::String(spec.arch.name().to_owned()));
    // llama.cpp looks for tokens by name when this key names certain models, so it names none.
    keys.general("general.name", Value::String("Synthetic weights".to_owned()));
    keys.general("general.basename", Value::String(spec.id.clone()));
    keys.general("general.file_type", Value::U32(quant.file_type()));
    keys.general("general.quantization_version", Value::U32(QUANTISATION_VERSION));
    keys.u32("vocab_size", spec.vocab);
    keys.u32("context_length", spec.context_max);
    keys.u32("embedding_length", spec.hidden);
    keys.u32("block_count", spec.layers);
    keys.feed_forward(spec);
    keys.attention(spec);
    keys.rope(spec);
    keys.experts(spec);
    keys.special(spec);
    keys.list
}

struct Keys {
    arch: &'static str,
    list: Vec<(String, Value)>,
}

impl Keys {
    fn general(&mut self, key: &str, value: Value) {
        self.list.push((key.to_owned(), value));
    }

    fn set(&mut self, key: &str, value: Value) {
        self.list.push((format!("{}.{key}", self.arch), value));
    }

    fn u32(&mut self, key: &str, value: u32) {
        self.set(key, Value::U32(value));
    }

    fn f32(&mut self, key: &str, value: f32) {
        self.set(key, Value::F32(value));
    }

    /// One number when all layers agree, else one for each layer.
    fn per_layer(&mut self, key: &str, values: Vec<u32>) {
        match values.first() {
            Some(&first) if values.iter().all(|&v| v == first) => self.u32(key, first),
            _ => {
                let values = values.into_iter().map(|v| v as i32).collect();
                self.set(key, Value::Array(Array::I32(values)));
            }
        }
    }

    fn feed_forward(&mut self, spec: &ModelSpec) {
        let widths = match spec.arch {
            Arch::Gemma4 => (0..spec.layers).map(|il| spec.ffn_of(il).unwrap_or(0)).collect(),
            _ => vec![spec.ffn.or(spec.experts.as_ref().map(|e| e.ffn)).unwrap_or(0)],
        };
        self.per_layer("feed_forward_length", widths);
    }

    fn attention(&mut self, spec: &ModelSpec) {
        self.u32("attention.head_count", spec.heads);
        self.f32("attention.layer_norm_rms_epsilon", spec.norm_eps);
        if let Some(mla) = &spec.mla {
            // With latent attention the file describes what is cached: one head of rank + rope.
            self.u32("attention.head_count_kv", 1);
            self.u32("attention.key_length", mla.kv_rank + mla.rope_dim);
            self.u32("attention.value_length", mla.kv_rank);
            self.u32("attention.key_length_mla", mla.nope_dim + mla.rope_dim);
            self.u32("attention.value_length_mla", mla.v_dim);
            self.u32("attention.q_lora_rank", mla.q_rank);
            self.u32("attention.kv_lora_rank", mla.kv_rank);
        } else if let Some(gemma4) = &spec.gemma4 {
            let kv_heads = (0..spec.layers).map(|il| spec.kv_heads_of(il)).collect();
            self.per_layer("attention.head_count_kv", kv_heads);
            self.u32("attention.key_length", gemma4.full_head_dim);
            self.u32("attention.value_length", gemma4.full_head_dim);
            self.u32("attention.key_length_swa", spec.head_dim);
            self.u32("attention.value_length_swa", spec.head_dim);
        } else {
            self.u32("attention.head_count_kv", spec.kv_heads);
            self.u32("attention.key_length", spec.head_dim);
            self.u32("attention.value_length", spec.head_dim);
        }
        if let Some(sliding) = &spec.sliding
            && spec.arch != Arch::Llama4
        {
            // llama.cpp gives Llama 4 its chunks of 8192 tokens when the key is absent.
            self.u32("attention.sliding_window", sliding.window);
        }
        if let Some(x) = &spec.indexer {
            self.u32("attention.indexer.head_count", x.heads);
            self.u32("attention.indexer.key_length", x.key_dim);
            self.u32("attention.indexer.top_k", x.top_k);
            if spec.arch == Arch::GlmDsa {
                let full = (0..spec.layers).map(|il| i32::from(spec.has_indexer(il))).collect();
                self.set("attention.indexer.types", Value::Array(Array::I32(full)));
            }
        }
    }

    fn rope(&mut self, spec: &ModelSpec) {
        self.u32("rope.dimension_count", spec.rope.dim);
        self.f32("rope.freq_base", spec.rope.base);
        if let Some(base) = spec.rope.base_sliding {
            self.f32("rope.freq_base_swa", base);
        }
        if let Some(scaling) = &spec.rope.scaling {
            self.set("rope.scaling.type", Value::String(scaling.kind.clone()));
            self.f32("rope.scaling.factor", scaling.factor);
            if let Some(original) = scaling.original_context {
                self.u32("rope.scaling.original_context_length", original);
            }
        }
    }

    fn experts(&mut self, spec: &ModelSpec) {
        let Some(e) = &spec.experts else { return };
        self.u32("expert_count", e.total);
        self.u32("expert_used_count", e.active);
        if spec.arch != Arch::Llama {
            self.u32("expert_feed_forward_length", e.ffn);
        }
        let deepseek4 = spec.arch == Arch::Deepseek4;
        if deepseek4 || matches!(spec.arch, Arch::Deepseek2 | Arch::GlmDsa | Arch::Glm4Moe) {
            self.u32("expert_shared_count", e.shared);
            self.u32("leading_dense_block_count", e.dense_lead);
            let gating = if deepseek4 { GATING_SQRT_SOFTPLUS } else { GATING_SIGMOID };
            self.u32("expert_gating_func", gating);
            self.f32("expert_weights_scale", e.scale.unwrap_or(1.0));
            self.set("expert_weights_norm", Value::Bool(true));
            if let Some((groups, used)) = e.groups {
                self.u32("expert_group_count", groups);
                self.u32("expert_group_used_count", used);
            }
        }
        match spec.arch {
            Arch::Qwen35Moe => self.u32("expert_shared_feed_forward_length", e.shared * e.ffn),
            Arch::Llama4 => self.u32("interleave_moe_layer_step", e.every),
            _ => {}
        }
    }

    fn special(&mut self, spec: &ModelSpec) {
        if let Some(linear) = &spec.linear {
            self.u32("ssm.conv_kernel", linear.conv);
            self.u32("ssm.inner_size", linear.value_heads * linear.head_dim);
            self.u32("ssm.state_size", linear.head_dim);
            self.u32("ssm.time_step_rank", linear.value_heads);
            self.u32("ssm.group_count", linear.key_heads);
            self.u32("full_attention_interval", linear.full_every);
            // Time, height and width shares of the rotated pairs: all alike for text.
            let pairs = spec.rope.dim as i32 / 2;
            let third = pairs / 3;
            let sections = vec![pairs - 2 * third, third, third, 0];
            self.set("rope.dimension_sections", Value::Array(Array::I32(sections)));
        }
        if let Some(c) = &spec.compressed {
            self.u32("attention.q_lora_rank", c.q_rank);
            self.u32("attention.output_lora_rank", c.o_rank);
            self.u32("attention.output_group_count", c.o_groups);
            self.f32("attention.compress_rope_freq_base", c.rope_base);
            let ratios = (0..spec.layers).map(|il| Compressed::ratio(il) as i32).collect();
            self.set("attention.compress_ratios", Value::Array(Array::I32(ratios)));
            self.u32("hyper_connection.count", c.streams);
            self.u32("hyper_connection.sinkhorn_iterations", 20);
            self.f32("hyper_connection.epsilon", spec.norm_eps);
            self.u32("hash_layer_count", c.hash_layers);
            self.f32("swiglu_clamp_exp", c.swiglu_clamp);
        }
        if let Some(gemma4) = &spec.gemma4 {
            self.u32("embedding_length_per_layer_input", gemma4.per_layer_embedding);
            self.u32("attention.shared_kv_layers", gemma4.kv_shared_layers);
            let pattern = (0..spec.layers).map(|il| spec.is_sliding(il)).collect();
            self.set("attention.sliding_window_pattern", Value::Array(Array::Bool(pattern)));
            self.u32("rope.dimension_count_swa", spec.head_dim);
            self.f32("final_logit_softcapping", 30.0);
        }
    }
}
