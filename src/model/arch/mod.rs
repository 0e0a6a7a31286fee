//! The tensors and metadata that llama.cpp loads for each architecture.

mod metadata;
mod tiny;

pub use metadata::metadata;

use anyhow::{Context, bail};

use crate::catalog::models::{Arch, Compressed, Experts, Mla, ModelSpec, RopeFactors};

/// A tensor before it is quantised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// llama.cpp's name for it.
    pub name: String,
    /// Sizes, the contiguous one first.
    pub dims: Vec<u64>,
}

/// The tensors of a model of this shape, in the order in which converters write them.
///
/// Names and sizes are those that the loader of llama.cpp asks for (crate llama-cpp-sys-2 0.1.161,
/// `src/models/<architecture>.cpp`, `load_arch_tensors`).
pub fn shapes(spec: &ModelSpec) -> anyhow::Result<Vec<Shape>> {
    let mut list = List::default();
    list.model(spec).with_context(|| format!("model '{}'", spec.id))?;
    Ok(list.0)
}

/// The weights in all tensors.
pub fn parameters(spec: &ModelSpec) -> anyhow::Result<u64> {
    Ok(shapes(spec)?.iter().map(|s| s.dims.iter().product::<u64>()).sum())
}

#[derive(Default)]
struct List(Vec<Shape>);

impl List {
    fn push(&mut self, name: impl Into<String>, dims: &[u32]) {
        let dims = dims.iter().map(|&d| u64::from(d)).collect();
        self.0.push(Shape { name: name.into(), dims });
    }

    fn layer(&mut self, il: u32, name: &str, dims: &[u32]) {
        self.push(format!("blk.{il}.{name}"), dims);
    }

    fn model(&mut self, spec: &ModelSpec) -> anyhow::Result<()> {
        let hidden = spec.hidden;
        self.push("token_embd.weight", &[hidden, spec.vocab]);
        if let Some(width) = per_layer_embedding(spec) {
            let all = width * spec.layers;
            self.push("per_layer_token_embd.weight", &[all, spec.vocab]);
            self.push("per_layer_model_proj.weight", &[hidden, all]);
            self.push("per_layer_proj_norm.weight", &[width]);
        }
        match spec.rope.factors {
            RopeFactors::None => {}
            RopeFactors::Freqs => self.push("rope_freqs.weight", &[spec.rope.dim / 2]),
            RopeFactors::LongShort => {
                self.push("rope_factors_long.weight", &[spec.rope.dim / 2]);
                self.push("rope_factors_short.weight", &[spec.rope.dim / 2]);
            }
        }
        for il in 0..spec.layers {
            self.attention(spec, il)?;
            self.feed_forward(spec, il)?;
        }
        self.push("output_norm.weight", &[hidden]);
        if let Some(c) = &spec.compressed {
            self.push("output_hc_fn.weight", &[c.streams * hidden, c.streams]);
            self.push("output_hc_base.weight", &[c.streams]);
            self.push("output_hc_scale.weight", &[1]);
        }
        if !spec.tied {
            self.push("output.weight", &[hidden, spec.vocab]);
        }
        Ok(())
    }

    fn attention(&mut self, spec: &ModelSpec, il: u32) -> anyhow::Result<()> {
        let hidden = spec.hidden;
        self.layer(il, "attn_norm.weight", &[hidden]);
        match spec.arch {
            Arch::Phi3 => self.fused_attention(spec, il),
            Arch::Deepseek2 | Arch::GlmDsa => {
                let mla = spec.mla.as_ref().context("the latent attention's sizes are unknown")?;
                self.latent_attention(spec, mla, il);
            }
            Arch::Qwen35 | Arch::Qwen35Moe if spec.is_linear(il) => {
                self.linear_attention(spec, il)?
            }
            Arch::Deepseek4 => self.compressed_attention(spec, il)?,
            _ => self.separate_attention(spec, il),
        }
        // The norm between attention and feed-forward: of the attention's output with Gemma, of the
        // feed-forward's input with gpt-oss, Qwen3.5 and GLM-4.5, which then have no ffn_norm.
        if matches!(
            spec.arch,
            Arch::Gemma3
                | Arch::Gemma4
                | Arch::GptOss
                | Arch::Qwen35
                | Arch::Qwen35Moe
                | Arch::Glm4Moe
        ) {
            self.layer(il, "post_attention_norm.weight", &[hidden]);
        }
        Ok(())
    }

    fn separate_attention(&mut self, spec: &ModelSpec, il: u32) {
        let head = spec.head_dim_of(il);
        let (q, kv) = (spec.heads * head, spec.kv_heads_of(il) * head);
        // Qwen3.5 has a gate as wide as the query, stored in the same tensor.
        let gated = matches!(spec.arch, Arch::Qwen35 | Arch::Qwen35Moe);
        let q_out = if gated { 2 * q } else { q };
        let k_is_v = spec.gemma4.as_ref().is_some_and(|g| g.k_is_v) && !spec.is_sliding(il);
        self.layer(il, "attn_q.weight", &[spec.hidden, q_out]);
        self.layer(il, "attn_k.weight", &[spec.hidden, kv]);
        if !k_is_v {
            self.layer(il, "attn_v.weight", &[spec.hidden, kv]);
        }
        if spec.qkv_bias {
            self.layer(il, "attn_q.bias", &[q_out]);
            self.layer(il, "attn_k.bias", &[kv]);
            self.layer(il, "attn_v.bias", &[kv]);
        }
        if spec.qk_norm {
            self.layer(il, "attn_q_norm.weight", &[head]);
            self.layer(il, "attn_k_norm.weight", &[head]);
        }
        self.layer(il, "attn_output.weight", &[q, spec.hidden]);
        if spec.arch == Arch::GptOss {
            self.layer(il, "attn_output.bias", &[spec.hidden]);
            self.layer(il, "attn_sinks.weight", &[spec.heads]);
        }
    }

    fn fused_attention(&mut self, spec: &ModelSpec, il: u32) {
        let kv = spec.kv_heads * spec.head_dim;
        self.layer(il, "attn_qkv.weight", &[spec.hidden, spec.hidden + 2 * kv]);
        self.layer(il, "attn_output.weight", &[spec.hidden, spec.hidden]);
    }

    fn latent_attention(&mut self, spec: &ModelSpec, mla: &Mla, il: u32) {
        let (hidden, heads) = (spec.hidden, spec.heads);
        self.layer(il, "attn_q_a.weight", &[hidden, mla.q_rank]);
        self.layer(il, "attn_q_a_norm.weight", &[mla.q_rank]);
        self.layer(il, "attn_q_b.weight", &[mla.q_rank, heads * (mla.nope_dim + mla.rope_dim)]);
        self.layer(il, "attn_kv_a_mqa.weight", &[hidden, mla.kv_rank + mla.rope_dim]);
        self.layer(il, "attn_kv_a_norm.weight", &[mla.kv_rank]);
        self.layer(il, "attn_k_b.weight", &[mla.nope_dim, mla.kv_rank, heads]);
        self.layer(il, "attn_v_b.weight", &[mla.kv_rank, mla.v_dim, heads]);
        self.layer(il, "attn_output.weight", &[heads * mla.v_dim, hidden]);
        if let Some(x) = spec.indexer.as_ref().filter(|_| spec.has_indexer(il)) {
            self.layer(il, "indexer.k_norm.weight", &[x.key_dim]);
            self.layer(il, "indexer.k_norm.bias", &[x.key_dim]);
            self.layer(il, "indexer.proj.weight", &[hidden, x.heads]);
            self.layer(il, "indexer.attn_k.weight", &[hidden, x.key_dim]);
            self.layer(il, "indexer.attn_q_b.weight", &[mla.q_rank, x.heads * x.key_dim]);
        }
    }

    fn compressed_attention(&mut self, spec: &ModelSpec, il: u32) -> anyhow::Result<()> {
        let c = spec.compressed.as_ref().context("the compressed attention's sizes are unknown")?;
        let (hidden, head) = (spec.hidden, spec.head_dim);
        self.layer(il, "attn_sinks.weight", &[spec.heads]);
        self.layer(il, "attn_q_a.weight", &[hidden, c.q_rank]);
        self.layer(il, "attn_q_a_norm.weight", &[c.q_rank]);
        self.layer(il, "attn_q_b.weight", &[c.q_rank, spec.heads * head]);
        self.layer(il, "attn_kv.weight", &[hidden, head]);
        self.layer(il, "attn_kv_a_norm.weight", &[head]);
        let grouped = spec.heads * head / c.o_groups;
        self.layer(il, "attn_output_a.weight", &[grouped, c.o_rank * c.o_groups]);
        self.layer(il, "attn_output_b.weight", &[c.o_groups * c.o_rank, hidden]);
        for part in ["attn", "ffn"] {
            let mixes = (2 + c.streams) * c.streams;
            self.layer(il, &format!("hc_{part}_fn.weight"), &[c.streams * hidden, mixes]);
            self.layer(il, &format!("hc_{part}_base.weight"), &[mixes]);
            self.layer(il, &format!("hc_{part}_scale.weight"), &[3]);
        }
        let ratio = Compressed::ratio(il);
        if ratio > 0 {
            // windows that overlap have twice the width
            let overlap = if ratio == 4 { 2 } else { 1 };
            self.layer(il, "attn_compressor_kv.weight", &[hidden, overlap * head]);
            self.layer(il, "attn_compressor_gate.weight", &[hidden, overlap * head]);
            self.layer(il, "attn_compressor_ape.weight", &[overlap * head, ratio]);
            self.layer(il, "attn_compressor_norm.weight", &[head]);
        }
        if ratio == 4 {
            let x = spec.indexer.as_ref().context("the indexer's sizes are unknown")?;
            self.layer(il, "indexer.proj.weight", &[hidden, x.heads]);
            self.layer(il, "indexer.attn_q_b.weight", &[c.q_rank, x.heads * x.key_dim]);
            self.layer(il, "indexer_compressor_kv.weight", &[hidden, 2 * x.key_dim]);
            self.layer(il, "indexer_compressor_gate.weight", &[hidden, 2 * x.key_dim]);
            self.layer(il, "indexer_compressor_ape.weight", &[2 * x.key_dim, ratio]);
            self.layer(il, "indexer_compressor_norm.weight", &[x.key_dim]);
        }
        Ok(())
    }

    fn linear_attention(&mut self, spec: &ModelSpec, il: u32) -> anyhow::Result<()> {
        let linear = spec.linear.as_ref().context("the linear attention's sizes are unknown")?;
        let (keys, values) =
            (linear.key_heads * linear.head_dim, linear.value_heads * linear.head_dim);
        let mixed = 2 * keys + values;
        self.layer(il, "attn_qkv.weight", &[spec.hidden, mixed]);
        self.layer(il, "attn_gate.weight", &[spec.hidden, values]);
        self.layer(il, "ssm_conv1d.weight", &[linear.conv, mixed]);
        self.layer(il, "ssm_dt.bias", &[linear.value_heads]);
        self.layer(il, "ssm_a", &[linear.value_heads]);
        self.layer(il, "ssm_beta.weight", &[spec.hidden, linear.value_heads]);
        self.layer(il, "ssm_alpha.weight", &[spec.hidden, linear.value_heads]);
        self.layer(il, "ssm_norm.weight", &[linear.head_dim]);
        self.layer(il, "ssm_out.weight", &[values, spec.hidden]);
        Ok(())
    }

    fn feed_forward(&mut self, spec: &ModelSpec, il: u32) -> anyhow::Result<()> {
        let hidden = spec.hidden;
        if !matches!(spec.arch, Arch::GptOss | Arch::Qwen35 | Arch::Qwen35Moe | Arch::Glm4Moe) {
            self.layer(il, "ffn_norm.weight", &[hidden]);
        }
        if let Some(ffn) = spec.ffn_of(il) {
            if spec.arch == Arch::Phi3 {
                // gate and up in one tensor
                self.layer(il, "ffn_up.weight", &[hidden, 2 * ffn]);
            } else {
                self.layer(il, "ffn_gate.weight", &[hidden, ffn]);
                self.layer(il, "ffn_up.weight", &[hidden, ffn]);
            }
            self.layer(il, "ffn_down.weight", &[ffn, hidden]);
        } else if !spec.has_experts(il) {
            bail!("layer {il} has neither experts nor a known feed-forward width");
        }
        if let Some(experts) = spec.experts.as_ref().filter(|_| spec.has_experts(il)) {
            self.experts(spec, experts, il);
        }
        if matches!(spec.arch, Arch::Gemma3 | Arch::Gemma4) {
            self.layer(il, "post_ffw_norm.weight", &[hidden]);
        }
        if spec.arch == Arch::Gemma4 {
            if let Some(width) = per_layer_embedding(spec) {
                self.layer(il, "inp_gate.weight", &[hidden, width]);
                self.layer(il, "proj.weight", &[width, hidden]);
                self.layer(il, "post_norm.weight", &[hidden]);
            }
            self.layer(il, "layer_output_scale.weight", &[1]);
        }
        Ok(())
    }

    fn experts(&mut self, spec: &ModelSpec, e: &Experts, il: u32) {
        let hidden = spec.hidden;
        self.layer(il, "ffn_gate_inp.weight", &[hidden, e.total]);
        match spec.arch {
            Arch::Gemma4 => {
                self.layer(il, "ffn_gate_inp.scale", &[hidden]);
                self.layer(il, "pre_ffw_norm_2.weight", &[hidden]);
                self.layer(il, "post_ffw_norm_1.weight", &[hidden]);
                self.layer(il, "post_ffw_norm_2.weight", &[hidden]);
                self.layer(il, "ffn_gate_up_exps.weight", &[hidden, 2 * e.ffn, e.total]);
                self.layer(il, "ffn_down_exps.weight", &[e.ffn, hidden, e.total]);
                self.layer(il, "ffn_down_exps.scale", &[e.total]);
                return; // the dense feed-forward is its shared expert
            }
            Arch::GptOss => self.layer(il, "ffn_gate_inp.bias", &[e.total]),
            Arch::Deepseek4 if spec.compressed.as_ref().is_some_and(|c| il < c.hash_layers) => {
                self.layer(il, "ffn_gate_tid2eid.weight", &[e.active, spec.vocab]);
            }
            Arch::Deepseek2 | Arch::Deepseek4 | Arch::GlmDsa | Arch::Glm4Moe => {
                self.layer(il, "exp_probs_b.bias", &[e.total]);
            }
            _ => {}
        }
        self.layer(il, "ffn_gate_exps.weight", &[hidden, e.ffn, e.total]);
        self.layer(il, "ffn_up_exps.weight", &[hidden, e.ffn, e.total]);
        self.layer(il, "ffn_down_exps.weight", &[e.ffn, hidden, e.total]);
        if spec.arch == Arch::GptOss {
            self.layer(il, "ffn_gate_exps.bias", &[e.ffn, e.total]);
            self.layer(il, "ffn_up_exps.bias", &[e.ffn, e.total]);
            self.layer(il, "ffn_down_exps.bias", &[hidden, e.total]);
        }
        if e.shared > 0 {
            if spec.arch == Arch::Qwen35Moe {
                self.layer(il, "ffn_gate_inp_shexp.weight", &[hidden]);
            }
            let shared = e.shared * e.ffn;
            self.layer(il, "ffn_gate_shexp.weight", &[hidden, shared]);
            self.layer(il, "ffn_up_shexp.weight", &[hidden, shared]);
            self.layer(il, "ffn_down_shexp.weight", &[shared, hidden]);
        }
    }
}

/// Width of Gemma 4's per-layer embeddings, where it has any.
fn per_layer_embedding(spec: &ModelSpec) -> Option<u32> {
    spec.gemma4.as_ref().map(|g| g.per_layer_embedding).filter(|&width| width > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::models;

    /// Counts that were read from files or computed from shapes, not rounded from a name.
    #[test]
    fn parameter_counts_agree_with_the_published_ones() {
        let mut compared = 0;
        for spec in models::all() {
            let (Some(published), Ok(counted)) = (spec.params_total, parameters(spec)) else {
                continue;
            };
            let nominal = spec.params_basis.contains("nominal")
                || spec.params_basis.contains("as stated in articles");
            // Multi-token-prediction layers, encoders and what a computed count leaves out.
            let tolerance = match spec.id.as_str() {
                "gemma-4-e2b" | "gemma-4-e4b" => 0.10,
                "glm-4.5-air" => 0.04,
                "qwen3.6-27b" => 0.02,
                _ if nominal => 0.02,
                _ => 0.001,
            };
            let error = (counted as f64 / published as f64 - 1.0).abs();
            assert!(error <= tolerance, "{}: {counted} counted, {published} published", spec.id);
            compared += 1;
        }
        assert!(compared >= 45, "{compared}");
    }

    #[test]
    fn every_model_has_tensors_or_a_reason_why_not() {
        for spec in models::all() {
            match shapes(spec) {
                Ok(list) => assert!(list.len() > 100, "{}: {}", spec.id, list.len()),
                Err(e) => assert!(spec.not_synthesisable.is_some(), "{}: {e:#}", spec.id),
            }
        }
    }

    #[test]
    fn tensor_names_are_unique() {
        for spec in models::all() {
            let Ok(list) = shapes(spec) else { continue };
            let mut names: Vec<_> = list.iter().map(|s| s.name.as_str()).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), list.len(), "{}", spec.id);
        }
    }
}
