//! The shape of a model from its file's header.

use anyhow::{Context, bail, ensure};

use crate::catalog::models::{self, Arch, ModelSpec};
use crate::model::Tensor;
use crate::model::gguf::Header;
use crate::model::quant::TensorType;

use super::work::Packing;

/// The shape that `header` describes. A catalogued model of the same sizes lends what the keys do
/// not say; without one, only plain decoders can be described.
pub fn spec(header: &Header) -> anyhow::Result<ModelSpec> {
    let architecture = header.architecture().context("the file names no architecture")?;
    let arch = Arch::ALL
        .into_iter()
        .find(|a| a.name() == architecture)
        .with_context(|| format!("architecture '{architecture}' is not known"))?;
    let number = |key: &str| -> anyhow::Result<u32> {
        let value = header.of_arch(key).and_then(|v| v.of_layer(0));
        let value = value.with_context(|| format!("the key '{architecture}.{key}' is missing"))?;
        u32::try_from(value).with_context(|| format!("'{architecture}.{key}' is {value}"))
    };
    let (layers, hidden) = (number("block_count")?, number("embedding_length")?);
    let heads = number("attention.head_count")?;
    ensure!(layers > 0 && hidden > 0 && heads > 0, "a model without layers, width or heads");
    let name = header.get("general.name").and_then(|v| v.as_str()).unwrap_or("file").to_owned();
    let context_max = number("context_length").unwrap_or(u32::MAX / 2);
    let alike = |s: &&ModelSpec| s.arch == arch && s.layers == layers && s.hidden == hidden;
    if let Some(known) = models::all().iter().filter(alike).find(|s| s.heads == heads) {
        let mut spec = known.clone();
        spec.id = name.clone();
        spec.name = name;
        spec.context_max = context_max;
        return Ok(spec);
    }
    if !matches!(
        arch,
        Arch::Llama | Arch::Qwen2 | Arch::Qwen3 | Arch::Qwen3Moe | Arch::Phi3 | Arch::Mistral3
    ) {
        bail!("no catalogued '{architecture}' has {layers} layers of width {hidden}");
    }
    let base = models::all().iter().find(|s| s.arch == arch);
    let mut spec = base.context("no catalogued model of this architecture")?.clone();
    let vocab = header.vocab().context("the file has no vocabulary")?;
    spec.id = name.clone();
    spec.name = name;
    spec.layers = layers;
    spec.hidden = hidden;
    spec.heads = heads;
    spec.kv_heads = number("attention.head_count_kv").unwrap_or(heads);
    spec.head_dim = number("attention.key_length").unwrap_or(hidden / heads);
    spec.ffn = number("feed_forward_length").ok();
    spec.vocab = u32::try_from(vocab).context("the vocabulary is too large")?;
    spec.context_max = context_max;
    spec.sliding = None;
    if let (Some(experts), Ok(total)) = (spec.experts.as_mut(), number("expert_count")) {
        experts.total = total;
        experts.active = number("expert_used_count")?;
        experts.ffn = number("expert_feed_forward_length").or(number("feed_forward_length"))?;
    } else {
        spec.experts = None;
    }
    Ok(spec)
}

/// How most of the layers' weights are packed. A large vocabulary, packed otherwise, is most of the
/// bytes of a small model and none of the work of its prompts.
pub fn packing(tensors: &[Tensor]) -> Packing {
    let layers = || tensors.iter().filter(|t| t.name.starts_with("blk."));
    let mut most = (0, TensorType::F16);
    for tensor in layers() {
        let kind = tensor.kind;
        let weights: u64 = layers().filter(|t| t.kind == kind).map(Tensor::elements).sum();
        if weights > most.0 {
            most = (weights, kind);
        }
    }
    match most.1 {
        TensorType::F16 | TensorType::F32 => Packing::F16,
        TensorType::BF16 => Packing::BF16,
        TensorType::Q8_0 => Packing::Q8,
        TensorType::Q4_0 | TensorType::Q4_1 => Packing::Q4,
        TensorType::Q4K => Packing::Q4K,
        TensorType::Mxfp4 => Packing::Mxfp4,
        _ => Packing::OtherK,
    }
}
