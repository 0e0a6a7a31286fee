//! The shape of a model from its file's header.

use anyhow::{Context, bail, ensure};

use crate::catalog::models::{self, Arch, Experts, ModelSpec};
use crate::model::Tensor;
use crate::model::gguf::Header;
use crate::model::quant::Quant;

use super::packed::{MOST_LAYERS, Part};
use super::work::Packing;

/// No size in a file's keys reaches it.
const LARGEST: u32 = 1 << 28;

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
        let value = u32::try_from(value).ok().filter(|v| *v <= LARGEST);
        value.with_context(|| format!("'{architecture}.{key}' is larger than any model's"))
    };
    // The layers that predict further tokens are no part of the model that generates.
    let predicting = number(PREDICTING).unwrap_or(0);
    let layers = number("block_count")?.saturating_sub(predicting);
    let hidden = number("embedding_length")?;
    let heads = number("attention.head_count")?;
    ensure!(layers > 0 && hidden > 0 && heads > 0, "a model without layers, width or heads");
    ensure!(layers <= MOST_LAYERS, "the file says that it has {layers} layers; no model has");
    let name = header.get("general.name").and_then(|v| v.as_str()).unwrap_or("file").to_owned();
    let context_max = number("context_length").unwrap_or(LARGEST);
    let kv_heads = number("attention.head_count_kv").unwrap_or(heads);
    let experts = number("expert_count").unwrap_or(0);
    // Llama 2 7B and Llama 3.1 8B differ in their key heads alone.
    let alike = |s: &&ModelSpec| {
        s.arch == arch
            && (s.layers, s.hidden, s.heads) == (layers, hidden, heads)
            && (s.mla.is_some() || s.kv_heads_of(0) == kv_heads || s.is_linear(0))
            && s.experts.as_ref().map_or(0, |e| e.total) == experts
    };
    let vocab = header.vocab().and_then(|v| u32::try_from(v).ok()).filter(|v| *v <= LARGEST);
    let window = number("attention.sliding_window").ok();
    // Of several alike, the one that agrees in most of the rest.
    let agrees = |s: &&ModelSpec| {
        let same = [
            Some(s.vocab) == vocab,
            s.sliding.as_ref().map(|s| s.window) == window || s.arch == Arch::Llama4,
            s.context_max == context_max,
        ];
        same.into_iter().filter(|same| *same).count()
    };
    // The last of equals is taken: the catalogue's order, turned round.
    if let Some(known) = models::all().iter().rev().filter(alike).max_by_key(agrees) {
        let mut spec = known.clone();
        spec.id = name.clone();
        spec.name = name;
        spec.context_max = context_max;
        spec.vocab = vocab.unwrap_or(spec.vocab);
        // Files are made whose tokens use more or fewer experts than the model was trained with.
        if let (Some(experts), Ok(active)) = (spec.experts.as_mut(), number("expert_used_count")) {
            experts.active = active;
        }
        return checked(spec);
    }
    if !matches!(
        arch,
        Arch::Llama | Arch::Qwen2 | Arch::Qwen3 | Arch::Qwen3Moe | Arch::Phi3 | Arch::Mistral3
    ) {
        bail!("no catalogued '{architecture}' has {layers} layers of width {hidden}");
    }
    let base = models::all().iter().find(|s| s.arch == arch);
    let mut spec = base.context("no catalogued model of this architecture")?.clone();
    let vocab = vocab.context("the file has no vocabulary")?;
    spec.id = name.clone();
    spec.name = name;
    spec.layers = layers;
    spec.hidden = hidden;
    spec.heads = heads;
    spec.kv_heads = kv_heads;
    spec.head_dim = number("attention.key_length").unwrap_or(hidden / heads);
    spec.ffn = number("feed_forward_length").ok();
    spec.vocab = vocab;
    spec.context_max = context_max;
    spec.sliding = None;
    // A llama of several merged into one has experts where no catalogued model of its size has any.
    spec.experts = match experts {
        0 => None,
        total => Some(Experts {
            total,
            active: number("expert_used_count")?,
            ffn: number("expert_feed_forward_length").or(number("feed_forward_length"))?,
            ..spec.experts.unwrap_or(Experts::NONE)
        }),
    };
    checked(spec)
}

/// `spec` where its heads and experts can be.
fn checked(spec: ModelSpec) -> anyhow::Result<ModelSpec> {
    ensure!(spec.kv_heads > 0 && spec.head_dim > 0, "a model without key heads or their width");
    ensure!(
        spec.experts.as_ref().is_none_or(|e| e.active > 0 && e.active <= e.total),
        "a model whose tokens use no expert, or more than there are"
    );
    Ok(spec)
}

/// The key that tells how many layers at the end predict further tokens.
const PREDICTING: &str = "nextn_predict_layers";

/// The tensors that llama.cpp loads: not those of layers that predict further tokens, which it
/// passes over unless asked (`load_mtp` and TENSOR_SKIP in `src/models/glm4-moe.cpp` and others).
pub fn tensors(header: &Header) -> Vec<Tensor> {
    let number = |key: &str| header.of_arch(key).and_then(|v| v.of_layer(0));
    let first = match (number("block_count"), number(PREDICTING)) {
        (Some(all), Some(predicting)) => all.saturating_sub(predicting),
        _ => u64::MAX,
    };
    let is_loaded = |t: &&Tensor| match Part::of(&t.name) {
        Part::Experts(il) | Part::Layer(il) => u64::from(il) < first,
        _ => true,
    };
    header.tensors.iter().map(|t| &t.tensor).filter(is_loaded).cloned().collect()
}

/// The quantisation that the file says it has.
pub fn quant(header: &Header) -> Option<Quant> {
    let code = header.get("general.file_type")?.as_u64()?;
    Quant::ALL.into_iter().find(|q| u64::from(q.file_type()) == code)
}

/// How most of the layers' weights are packed. A large vocabulary, packed otherwise, is most of the
/// bytes of a small model and none of the work of its prompts.
pub fn packing(tensors: &[Tensor]) -> Packing {
    let layers = tensors.iter().filter(|t| t.name.starts_with("blk."));
    Packing::of_most(layers.map(|t| (t.kind, t.elements())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    use crate::fit::memory::{Layout, Plan};
    use crate::fit::packed::Packed;
    use crate::model::gguf::{Value, encode, encoded_len};
    use crate::model::quant::TensorType;
    use crate::model::{arch, tensors};

    /// A header with a hole of the right length behind it.
    fn hollow(path: &Path, metadata: &[(String, Value)], tensors: &[Tensor]) {
        let header = encode(metadata, tensors);
        std::fs::write(path, &header).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(encoded_len(&header, tensors)).unwrap();
    }

    fn of_header(header: &Header) -> (ModelSpec, Packed) {
        let spec = spec(header).unwrap();
        let tensors = super::tensors(header);
        let packed = Packed::of_tensors(&spec, &tensors, packing(&tensors));
        (spec, packed)
    }

    #[test]
    fn a_file_needs_what_the_catalogued_model_needs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let mut compared = 0;
        for known in models::all() {
            let quant = if known.arch == Arch::GptOss { Quant::Mxfp4 } else { Quant::Q4KM };
            let Ok(expected) = Packed::of(known, quant) else { continue };
            hollow(&path, &arch::metadata(known, quant), &tensors(known, quant).unwrap());
            let header = Header::read(&path).unwrap();
            let (spec, packed) = of_header(&header);
            assert_eq!(super::quant(&header), Some(quant), "{}", known.id);
            assert_eq!(packed.weights, expected.weights, "{}", known.id);
            assert_eq!(packed.work, expected.work, "{}", known.id);
            let layout = Layout::default();
            assert_eq!(Plan::new(&spec, &layout), Plan::new(known, &layout), "{}", known.id);
            compared += 1;
        }
        assert!(compared >= 55, "{compared}");
    }

    /// The header of a file of `spec` with these keys and tensors besides.
    fn header_with(spec: &ModelSpec, keys: &[(&str, u32)], more: Vec<Tensor>) -> Header {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let mut metadata = arch::metadata(spec, Quant::Q4KM);
        for (key, value) in keys {
            let key = format!("{}.{key}", spec.arch.name());
            metadata.retain(|(k, _)| *k != key);
            metadata.push((key, Value::U32(*value)));
        }
        let mut all = tensors(spec, Quant::Q4KM).unwrap();
        all.extend(more);
        hollow(&path, &metadata, &all);
        Header::read(&path).unwrap()
    }

    #[test]
    fn a_merge_of_several_llamas_reads_the_experts_that_a_token_uses() {
        let mut merged = models::find("llama-3.1-8b").unwrap().clone();
        merged.experts = Some(Experts { total: 4, active: 2, ffn: 14_336, ..Experts::NONE });
        let (spec, packed) = of_header(&header_with(&merged, &[], Vec::new()));
        assert_eq!(spec.experts, merged.experts);
        let work = packed.work;
        // Four experts of three matrices in each of 32 layers, of which a token uses two.
        assert_eq!(work.expert_weights, 32.0 * 4.0 * 3.0 * 4096.0 * 14_336.0);
        assert_eq!(work.touched_expert_bytes(1.0), work.expert_bytes / 2.0);
    }

    #[test]
    fn a_file_says_how_many_experts_its_tokens_use() {
        let known = models::find("qwen3-30b-a3b").unwrap();
        let with = |active| header_with(known, &[("expert_used_count", active)], Vec::new());
        let (_, packed) = of_header(&with(4));
        assert_eq!(packed.work.experts, Some((128.0, 4.0)));
        for bad in [0, 129] {
            let message = spec(&with(bad)).unwrap_err().to_string();
            assert!(message.contains("use no expert, or more than there are"), "{message}");
        }
    }

    #[test]
    fn layers_that_predict_further_tokens_are_left_out_as_llama_cpp_does() {
        let known = models::find("glm-4.5-air").unwrap();
        let tensor = |name: &str, dims: &[u64]| Tensor {
            name: format!("blk.46.{name}"),
            dims: dims.to_vec(),
            kind: TensorType::F16,
        };
        let more = vec![
            tensor("ffn_up_exps.weight", &[4096, 1408, 128]),
            tensor("nextn.eh_proj.weight", &[8192, 4096]),
        ];
        let header = header_with(known, &[("block_count", 47), ("nextn_predict_layers", 1)], more);
        let (spec, packed) = of_header(&header);
        let expected = Packed::of(known, Quant::Q4KM).unwrap();
        assert_eq!(spec.layers, 46);
        assert_eq!(packed.weights, expected.weights);
        assert_eq!(packed.work, expected.work);
    }

    #[test]
    fn a_split_file_needs_what_the_whole_one_needs() {
        let folder = tempfile::tempdir().unwrap();
        let known = models::find("qwen3-30b-a3b").unwrap();
        let all = tensors(known, Quant::Q4KM).unwrap();
        let part =
            |i: u16| -> PathBuf { folder.path().join(format!("m-0000{}-of-00002.gguf", i + 1)) };
        let (first, second) = all.split_at(all.len() / 2);
        for (i, tensors) in [first, second].into_iter().enumerate() {
            let mut metadata = if i == 0 { arch::metadata(known, Quant::Q4KM) } else { Vec::new() };
            metadata.push(("split.no".to_owned(), Value::U16(i as u16)));
            metadata.push(("split.count".to_owned(), Value::U16(2)));
            metadata.push(("split.tensors.count".to_owned(), Value::I32(all.len() as i32)));
            hollow(&part(i as u16), &metadata, tensors);
        }
        let expected = Packed::of(known, Quant::Q4KM).unwrap();
        for i in [0, 1] {
            let (_, packed) = of_header(&Header::read(&part(i)).unwrap());
            assert_eq!(packed.weights, expected.weights);
        }
        std::fs::remove_file(part(1)).unwrap();
        let message = format!("{:#}", Header::read(&part(0)).unwrap_err());
        assert!(message.contains("m-00002-of-00002.gguf"), "{message}");
    }
}
