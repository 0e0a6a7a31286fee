//! A model's shape, read from the header of its GGUF file.

use std::collections::HashMap;

use anyhow::{anyhow, bail};
use bench::runner::Fault;
use candle_core::quantized::gguf_file::Value;

use crate::rope::{Pairs, Scaling};
use crate::rows::Gate;

/// Architectures that the decoder computes, by their names in GGUF.
const ARCHITECTURES: [&str; 6] = ["llama", "qwen2", "qwen3", "qwen3moe", "gemma3", "phi3"];

/// Everything that the decoder needs to know besides the tensors.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Decoder layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width between gate and down of a dense layer, or of one expert.
    pub feed_forward: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// The epsilon of all norms.
    pub norm_eps: f32,
    /// Factor of the products of queries and keys.
    pub attention_scale: f32,
    /// Factor of the embeddings.
    pub embedding_scale: f32,
    /// Limit of the logits by tanh.
    pub logit_softcap: Option<f32>,
    /// The function of the feed-forward gate.
    pub gate: Gate,
    /// Rotary embeddings of layers that see everything.
    pub rope: Scaling,
    /// Rotary embeddings of layers with a sliding window.
    pub window_rope: Scaling,
    /// For each layer the number of positions that it sees; `None` is all.
    pub windows: Vec<Option<usize>>,
    /// Experts of a layer and how many of them a token uses.
    pub experts: Option<(usize, usize)>,
}

/// The header's values with the architecture's prefix.
struct Header<'a> {
    values: &'a HashMap<String, Value>,
    architecture: &'a str,
}

impl Header<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(&format!("{}.{key}", self.architecture))
    }

    fn count(&self, key: &str) -> anyhow::Result<Option<usize>> {
        self.get(key).map(|value| self.as_count(key, value)).transpose()
    }

    fn as_count(&self, key: &str, value: &Value) -> anyhow::Result<usize> {
        match value {
            Value::I32(v) if *v >= 0 => Ok(*v as usize),
            // One number for each layer: ours must be alike.
            Value::Array(values) if !values.is_empty() => {
                let first = self.as_count(key, &values[0])?;
                for value in values {
                    if self.as_count(key, value)? != first {
                        return Err(anyhow!("'{key}' differs between the layers")
                            .context(Fault::Unsupported));
                    }
                }
                Ok(first)
            }
            value => Ok(value.to_u64().map_err(|_| anyhow!("'{key}' is no count"))? as usize),
        }
    }

    fn needed(&self, key: &str) -> anyhow::Result<usize> {
        self.count(key)?
            .filter(|&count| count > 0)
            .ok_or_else(|| anyhow!("the header has no '{}.{key}'", self.architecture))
    }

    fn float(&self, key: &str) -> anyhow::Result<Option<f32>> {
        self.get(key)
            .map(|value| value.to_f32().map_err(|_| anyhow!("'{key}' is no float")))
            .transpose()
    }
}

impl Shape {
    /// Values of a row of queries, keys and values.
    pub fn projected(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Reads a GGUF header.
    pub fn read(values: &HashMap<String, Value>) -> anyhow::Result<Self> {
        let architecture = values
            .get("general.architecture")
            .and_then(|value| value.to_string().ok())
            .ok_or_else(|| anyhow!("the header has no 'general.architecture'"))?;
        if !ARCHITECTURES.contains(&architecture.as_str()) {
            return Err(anyhow!(
                "architecture '{architecture}' is none of {}",
                ARCHITECTURES.join(", ")
            )
            .context(Fault::Unsupported));
        }
        let header = Header { values, architecture };
        let layers = header.needed("block_count")?;
        let hidden = header.needed("embedding_length")?;
        let heads = header.needed("attention.head_count")?;
        let kv_heads = header.count("attention.head_count_kv")?.unwrap_or(heads);
        let head_dim = header.count("attention.key_length")?.unwrap_or(hidden / heads);
        let value_dim = header.count("attention.value_length")?.unwrap_or(hidden / heads);
        if value_dim != head_dim || head_dim % 16 != 0 || kv_heads == 0 || heads % kv_heads != 0 {
            return Err(anyhow!(
                "{heads} heads over {kv_heads} of {head_dim} and {value_dim} values; this engine \
                 needs whole groups, and keys and values of one width that is a multiple of 16"
            )
            .context(Fault::Unsupported));
        }
        let gemma = architecture == "gemma3";
        let experts = match header.count("expert_count")? {
            None | Some(0) => None,
            Some(count) => Some((count, header.needed("expert_used_count")?)),
        };
        let dense = header.count("feed_forward_length")?;
        let feed_forward = match experts {
            None => dense,
            Some(_) if architecture == "llama" => dense,
            Some((_, used)) => {
                header.count("expert_feed_forward_length")?.or(dense.map(|width| width / used))
            }
        };
        let feed_forward =
            feed_forward.ok_or_else(|| anyhow!("the header has no feed-forward width"))?;
        // llama.cpp takes the 27B model's scale from its width and all others' from their heads.
        let scaled_width = if gemma && layers == 62 { hidden / heads } else { head_dim };
        let rope = rope(&header, head_dim)?;
        let window_rope = Scaling {
            base: header.float("rope.freq_base_swa")?.unwrap_or(10_000.0),
            frequency_scale: 1.0,
            ..rope.clone()
        };
        Ok(Self {
            layers,
            hidden,
            feed_forward,
            heads,
            kv_heads,
            head_dim,
            norm_eps: header
                .float("attention.layer_norm_rms_epsilon")?
                .ok_or_else(|| anyhow!("the header has no epsilon of its norms"))?,
            attention_scale: 1.0 / (scaled_width as f32).sqrt(),
            embedding_scale: if gemma { (hidden as f32).sqrt() } else { 1.0 },
            logit_softcap: header.float("final_logit_softcapping")?.filter(|_| gemma),
            gate: if gemma { Gate::Gelu } else { Gate::Silu },
            windows: windows(&header, layers, gemma)?,
            rope,
            window_rope,
            experts,
        })
    }
}

/// Sliding windows: gemma3's five of six layers. llama.cpp computes phi3 without its window, and so
/// does this engine: both must compute the same function.
fn windows(header: &Header<'_>, layers: usize, gemma: bool) -> anyhow::Result<Vec<Option<usize>>> {
    let key = "attention.sliding_window";
    let Some(window) = header.count(key)?.filter(|&window| gemma && window > 0) else {
        return Ok(vec![None; layers]);
    };
    let key = "attention.sliding_window_pattern";
    if let Some(Value::Array(flags)) = header.get(key) {
        if flags.len() < layers {
            bail!("'{key}' has {} entries for {layers} layers", flags.len());
        }
        let flag = |value: &Value| value.to_bool().unwrap_or(false);
        return Ok(flags[..layers].iter().map(|v| flag(v).then_some(window)).collect());
    }
    let pattern = header.count(key)?.unwrap_or(6);
    Ok((0..layers)
        .map(|layer| (pattern == 0 || layer % pattern < pattern - 1).then_some(window))
        .collect())
}

fn rope(header: &Header<'_>, head_dim: usize) -> anyhow::Result<Scaling> {
    let kind = match header.get("rope.scaling.type") {
        Some(value) => value.to_string().map_err(|_| anyhow!("'rope.scaling.type' is no text"))?,
        None => "linear",
    };
    if !["none", "linear", "yarn", "longrope"].contains(&kind) {
        return Err(anyhow!("rope scaling '{kind}' is unknown").context(Fault::Unsupported));
    }
    let factor = match header.float("rope.scaling.factor")? {
        Some(factor) => factor,
        None => header.float("rope.scale_linear")?.unwrap_or(0.0),
    };
    let frequency_scale = if factor == 0.0 || kind == "none" { 1.0 } else { 1.0 / factor };
    Ok(Scaling {
        pairs: if header.architecture == "llama" { Pairs::Adjacent } else { Pairs::Halves },
        dims: header.count("rope.dimension_count")?.unwrap_or(head_dim).min(head_dim),
        base: header.float("rope.freq_base")?.unwrap_or(10_000.0),
        frequency_scale,
        yarn: kind == "yarn",
        attention_factor: header.float("rope.scaling.attn_factor")?.unwrap_or(1.0),
        original_tokens: match header.count("rope.scaling.original_context_length")? {
            Some(tokens) => tokens,
            None => header.needed("context_length")?,
        },
    })
}
