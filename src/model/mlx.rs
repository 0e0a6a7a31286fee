//! Model folders that MLX loads: synthetic weights of a catalogued shape in its layouts, and what a
//! folder says of itself.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use half::{bf16, f16};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Tensor;
use super::hf;
use super::quant::{Quant, TensorType};
use super::safetensors::{self, Dtype, Entry};
use super::synth::{self, Content, Output, Pools};
use crate::catalog::models::{Arch, ModelSpec};

/// The file of a folder's weights.
pub const WEIGHTS: &str = "model.safetensors";

/// Weights that share a scale where nothing is said: mlx-lm's default.
pub const GROUP: u32 = 64;

/// Part of every cached folder's name: raise it when the same arguments give another content.
const CONTENT_VERSION: u32 = 1;
/// mlx-lm keeps routers at 8 bits whatever the others have (`quant_predicate` of its models).
const ROUTER: (u32, u32) = (8, 64);

/// How MLX stores the weights of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Storage {
    /// 16-bit floats, value for value those of the GGUF file.
    F16,
    /// The same in bfloat16.
    BF16,
    /// MLX's own quantisation: integers with a scale and a bias in bfloat16 for each group.
    Affine {
        /// Bits of each integer.
        bits: u32,
        /// Weights that share a scale.
        group: u32,
    },
}

impl Storage {
    /// What MLX has for a quantisation of GGUF: the one with as many bits, in groups of `group`.
    pub fn of(quant: Quant, group: u32) -> anyhow::Result<Self> {
        let bits = match quant {
            Quant::F16 => return Ok(Self::F16),
            Quant::BF16 => return Ok(Self::BF16),
            Quant::Q8_0 => 8,
            Quant::Q6K => 6,
            Quant::Q4KM | Quant::Q4_0 => 4,
            other => bail!(
                "MLX has no weights like {other}; use F16, BF16, Q8_0 (8 bits), Q6_K (6 bits) or \
                 Q4_K_M (4 bits)"
            ),
        };
        ensure!([32, 64, 128].contains(&group), "MLX has no groups of {group}; use 32, 64 or 128");
        Ok(Self::Affine { bits, group })
    }

    /// Bits of a weight in a matrix: a group shares a scale and a bias of 16 bits each.
    pub fn bits_per_weight(self) -> f64 {
        match self {
            Self::F16 | Self::BF16 => 16.0,
            Self::Affine { bits, group } => f64::from(bits) + 32.0 / f64::from(group),
        }
    }

    /// The recipe whose tensors these are: all matrices alike.
    fn recipe(self) -> Quant {
        if self == Self::F16 { Quant::F16 } else { Quant::BF16 }
    }

    /// The type of all that is not packed.
    fn dtype(self) -> Dtype {
        if self == Self::F16 { Dtype::F16 } else { Dtype::BF16 }
    }
}

/// As part of a folder's name: `mlx-4bit-g64`.
impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F16 => f.write_str("mlx-F16"),
            Self::BF16 => f.write_str("mlx-BF16"),
            Self::Affine { bits, group } => write!(f, "mlx-{bits}bit-g{group}"),
        }
    }
}

/// The folder of a synthetic model in `cache_dir`, made there if it does not exist yet.
///
/// `progress` is called with the bytes written and the bytes to write.
pub fn ensure(
    spec: &ModelSpec,
    storage: Storage,
    seed: u64,
    cache_dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> anyhow::Result<PathBuf> {
    if let Some(reason) = &spec.not_synthesisable {
        bail!("no synthetic weights of '{}' can be made: {reason}", spec.id);
    }
    let plan = Plan::new(spec, storage, seed)?;
    let folder = cache_dir.join(plan.folder_name()?);
    if plan.is_whole(&folder) {
        return Ok(folder);
    }
    plan.write(&folder, cache_dir, progress).with_context(|| {
        format!("the synthetic weights of '{}' for MLX could not be made", spec.id)
    })?;
    Ok(folder)
}

/// What the `config.json` of a folder says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The architecture.
    pub model_type: String,
    /// Token ids are below this.
    pub vocabulary: Option<u32>,
    /// `4 bits, groups of 64`; none where the weights are floats.
    pub quantisation: Option<String>,
}

/// Reads the `config.json` of a folder; none where it has none that can be read.
pub fn describe(folder: &Path) -> Option<Description> {
    let keys: Value = serde_json::from_slice(&fs::read(folder.join(hf::CONFIG)).ok()?).ok()?;
    // Models that also see and hear have the keys of their language model apart.
    let find = |key: &str| keys.get(key).or_else(|| keys.get("text_config")?.get(key));
    let quantisation = find("quantization").and_then(|quantisation| {
        let number = |key: &str| quantisation.get(key)?.as_u64();
        Some(format!("{} bits, groups of {}", number("bits")?, number("group_size")?))
    });
    Some(Description {
        model_type: keys.get("model_type")?.as_str()?.to_owned(),
        vocabulary: find("vocab_size").and_then(Value::as_u64).and_then(|n| n.try_into().ok()),
        quantisation,
    })
}

/// A tensor of the GGUF file as MLX has it.
struct Part {
    tensor: Tensor,
    /// Its place in the GGUF file, which decides its values.
    index: u64,
    /// MLX's name, without `.weight` where it is packed.
    name: String,
    /// Sizes, the contiguous one last.
    shape: Vec<u64>,
    /// Heads whose rows the GGUF file has in another order.
    heads: Option<u64>,
    /// Bits and group where it is packed.
    packed: Option<(u32, u32)>,
}

struct Plan<'a> {
    spec: &'a ModelSpec,
    storage: Storage,
    seed: u64,
    config: Value,
    parts: Vec<Part>,
}

impl<'a> Plan<'a> {
    fn new(spec: &'a ModelSpec, storage: Storage, seed: u64) -> anyhow::Result<Self> {
        let mut config = hf::config(spec, storage.recipe())?;
        let mut parts = Vec::new();
        for (index, tensor) in super::tensors(spec, storage.recipe())?.into_iter().enumerate() {
            let Some(name) = name(spec, &tensor.name)? else { continue };
            parts.push(Part::new(spec, tensor, index as u64, name, storage));
        }
        adapt(&mut config, spec);
        if let Storage::Affine { bits, group } = storage {
            let mut quantisation = json!({"group_size": group, "bits": bits, "mode": "affine"});
            for part in parts.iter().filter(|part| part.packed == Some(ROUTER)) {
                let (bits, group) = ROUTER;
                quantisation[&part.name] =
                    json!({"group_size": group, "bits": bits, "mode": "affine"});
            }
            config["quantization"] = quantisation.clone();
            config["quantization_config"] = quantisation;
        }
        Ok(Self { spec, storage, seed, config, parts })
    }

    fn entries(&self) -> Vec<Entry> {
        self.parts.iter().flat_map(|part| part.entries(self.storage.dtype())).collect()
    }

    fn data_bytes(&self) -> u64 {
        self.entries().iter().map(Entry::bytes).sum()
    }

    /// `qwen3-0.6b-mlx-4bit-g64-s0-1f2e3d4c5b6a`: the last part stands for all that decides the
    /// content.
    fn folder_name(&self) -> anyhow::Result<String> {
        let mut hash = Sha256::new();
        hash.update(CONTENT_VERSION.to_le_bytes());
        hash.update(self.seed.to_le_bytes());
        hash.update(self.config.to_string());
        hash.update(safetensors::encode(&self.entries())?);
        let short: String = hash.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect();
        Ok(format!("{}-{}-s{}-{short}", self.spec.id, self.storage, self.seed))
    }

    /// The weights come into the folder last, and whole.
    fn is_whole(&self, folder: &Path) -> bool {
        let weights = fs::metadata(folder.join(WEIGHTS));
        weights.is_ok_and(|m| m.is_file() && m.len() > self.data_bytes())
    }

    fn write(
        &self,
        folder: &Path,
        cache_dir: &Path,
        progress: &mut dyn FnMut(u64, u64),
    ) -> anyhow::Result<()> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let header = safetensors::encode(&self.entries())?;
        let total = header.len() as u64 + self.data_bytes();
        synth::check_free(cache_dir, total)?;
        let mut file = tempfile::Builder::new()
            .prefix(".making-")
            .suffix(".tmp")
            .tempfile_in(cache_dir)
            .with_context(|| cache_dir.display().to_string())?;
        let mut out = Output::new(file.as_file_mut(), total, progress);
        out.write(&header)?;
        let mut pools = Pools::new(self.seed);
        for part in &self.parts {
            part.write(self.spec, self.storage, &mut pools, &mut out)
                .with_context(|| format!("tensor '{}'", part.name))?;
        }
        out.end();
        file.as_file().sync_all().context("writing the file to the disk")?;
        // The tokenizer is for mlx-lm's own programs.
        hf::write(self.spec, self.storage.recipe(), folder)?;
        let config = folder.join(hf::CONFIG);
        fs::write(&config, self.config.to_string())
            .with_context(|| config.display().to_string())?;
        let path = folder.join(WEIGHTS);
        file.persist(&path).with_context(|| path.display().to_string())?;
        Ok(())
    }
}

impl Part {
    fn new(spec: &ModelSpec, tensor: Tensor, index: u64, name: String, storage: Storage) -> Self {
        let shape: Vec<u64> = tensor.dims.iter().rev().copied().collect();
        // The converter interleaves the halves of Llama's rotated heads.
        let heads = match tensor.name.split('.').nth(2) {
            Some("attn_q") if spec.arch == Arch::Llama => Some(u64::from(spec.heads)),
            Some("attn_k") if spec.arch == Arch::Llama => Some(u64::from(spec.kv_heads)),
            _ => None,
        };
        let router = tensor.name.contains("ffn_gate_inp");
        let packed = match storage {
            Storage::Affine { .. } if router => Some(ROUTER),
            Storage::Affine { bits, group } => Some((bits, group)),
            Storage::F16 | Storage::BF16 => None,
        };
        // What mlx-lm leaves as it is: vectors, and rows that are no whole number of groups.
        let packed = packed.filter(|(_, group)| {
            tensor.dims.len() > 1 && tensor.dims[0].is_multiple_of(u64::from(*group))
        });
        let name = match packed {
            Some(_) => name.trim_end_matches(".weight").to_owned(),
            None => name,
        };
        Self { tensor, index, name, shape, heads, packed }
    }

    /// Rows and weights in each.
    fn rows(&self) -> (u64, u64) {
        (self.tensor.elements() / self.tensor.dims[0], self.tensor.dims[0])
    }

    fn entries(&self, dtype: Dtype) -> Vec<Entry> {
        let Some((bits, group)) = self.packed else {
            return vec![Entry { name: self.name.clone(), dtype, shape: self.shape.clone() }];
        };
        let width = self.tensor.dims[0];
        let with_last = |last: u64| {
            let mut shape = self.shape.clone();
            shape[self.shape.len() - 1] = last;
            shape
        };
        let entry = |field: &str, dtype, last| Entry {
            name: format!("{}.{field}", self.name),
            dtype,
            shape: with_last(last),
        };
        let groups = width / u64::from(group);
        vec![
            entry("weight", Dtype::U32, width * u64::from(bits) / 32),
            entry("scales", dtype, groups),
            entry("biases", dtype, groups),
        ]
    }

    fn write(
        &self,
        spec: &ModelSpec,
        storage: Storage,
        pools: &mut Pools,
        out: &mut Output<'_>,
    ) -> anyhow::Result<()> {
        let dtype = storage.dtype();
        match (synth::content(spec, &self.tensor), self.packed) {
            (Content::Random(deviation), Some((bits, group))) => {
                self.write_packed(deviation, bits, group, pools, out)
            }
            (Content::Random(deviation), None) if self.tensor.kind == TensorType::F32 => {
                let data = pools.blocks(&self.tensor, self.index, deviation)?;
                let bytes: Vec<u8> = data.first(self.tensor.bytes() as usize).collect();
                let values =
                    bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
                out.write(&floats(values, dtype))
            }
            (Content::Random(deviation), None) => {
                let data = pools.blocks(&self.tensor, self.index, deviation)?;
                let (rows, width) = self.rows();
                let row = width * dtype.bytes();
                let Some(heads) = self.heads else { return data.write(0..rows * row, out) };
                for target in 0..rows {
                    let source = source_row(target, rows / heads);
                    data.write(source * row..(source + 1) * row, out)?;
                }
                Ok(())
            }
            (Content::Values(values), _) => {
                // Gemma's norms count from 1 in its own files, from 0 in GGUF.
                let offset = f32::from(u8::from(spec.arch == Arch::Gemma3));
                out.write(&floats(values.iter().map(|value| value - offset), dtype))
            }
            (Content::Indices(_), _) => bail!("indices have no place in MLX's files"),
        }
    }

    /// Random integers of `bits` bits, each value alike, and the scale and bias that give them the
    /// mean zero and the deviation.
    fn write_packed(
        &self,
        deviation: f64,
        bits: u32,
        group: u32,
        pools: &mut Pools,
        out: &mut Output<'_>,
    ) -> anyhow::Result<()> {
        let (rows, width) = self.rows();
        let bytes = rows * width * u64::from(bits) / 8;
        pools.bytes(self.index, bytes)?.write(0..bytes, out)?;
        let levels = f64::from((1u32 << bits) - 1);
        let scale = deviation / ((levels * (levels + 2.0)) / 12.0).sqrt();
        let count = (rows * width / u64::from(group)) as usize;
        for value in [scale, -scale * levels / 2.0] {
            out.write(&floats(std::iter::repeat_n(value as f32, count), Dtype::BF16))?;
        }
        Ok(())
    }
}

/// The row of the GGUF file that holds row `target` of the original. The converter
/// (`convert_hf_to_gguf.py` of llama.cpp, `permute`) turns each head's (half, pair) into
/// (pair, half).
fn source_row(target: u64, head: u64) -> u64 {
    let (start, within) = (target / head * head, target % head);
    let (half, pair) = (within / (head / 2), within % (head / 2));
    start + 2 * pair + half
}

fn floats(values: impl Iterator<Item = f32>, dtype: Dtype) -> Vec<u8> {
    let encode = |value: f32| match dtype {
        Dtype::F16 => f16::from_f32(value).to_le_bytes(),
        Dtype::BF16 | Dtype::U32 => bf16::from_f32(value).to_le_bytes(),
    };
    values.flat_map(encode).collect()
}

/// What mlx-lm reads otherwise than transformers.
fn adapt(config: &mut Value, spec: &ModelSpec) {
    if let Some(keys) = config.as_object_mut() {
        // A key without a value takes the place of mlx-lm's default.
        keys.retain(|_, value| !value.is_null());
        if let (Arch::Gemma3, Some(sliding)) = (spec.arch, &spec.sliding) {
            let every = sliding.full_every.unwrap_or(spec.layers + 1);
            keys.insert("sliding_window_pattern".to_owned(), json!(every));
            keys.entry("rope_local_base_freq").or_insert(json!(f64::from(spec.rope.base)));
        }
    }
}

/// The name that mlx-lm's models give a tensor of a GGUF file; `None` where they have no such
/// tensor because it holds nothing but ones.
fn name(spec: &ModelSpec, gguf: &str) -> anyhow::Result<Option<String>> {
    let whole = match gguf {
        "token_embd.weight" => Some("model.embed_tokens.weight"),
        "output_norm.weight" => Some("model.norm.weight"),
        "output.weight" => Some("lm_head.weight"),
        "rope_freqs.weight" => return Ok(None),
        _ => None,
    };
    if let Some(whole) = whole {
        return Ok(Some(whole.to_owned()));
    }
    let parts: Vec<&str> = gguf.split('.').collect();
    let ["blk", layer, part, kind] = parts[..] else {
        bail!("no name in MLX is known for the tensor '{gguf}'");
    };
    let gemma = spec.arch == Arch::Gemma3;
    let experts = if spec.arch == Arch::Llama { "block_sparse_moe" } else { "mlp" };
    let part = match part {
        "attn_norm" => "input_layernorm".to_owned(),
        "attn_q" | "attn_k" | "attn_v" => format!("self_attn.{}_proj", &part[5..]),
        "attn_qkv" => "self_attn.qkv_proj".to_owned(),
        "attn_output" => "self_attn.o_proj".to_owned(),
        "attn_q_norm" | "attn_k_norm" => format!("self_attn.{}", &part[5..]),
        "post_attention_norm" => "post_attention_layernorm".to_owned(),
        "ffn_norm" if gemma => "pre_feedforward_layernorm".to_owned(),
        "ffn_norm" => "post_attention_layernorm".to_owned(),
        "post_ffw_norm" => "post_feedforward_layernorm".to_owned(),
        "ffn_up" if spec.arch == Arch::Phi3 => "mlp.gate_up_proj".to_owned(),
        "ffn_gate" | "ffn_up" | "ffn_down" => format!("mlp.{}_proj", &part[4..]),
        "ffn_gate_inp" => format!("{experts}.gate"),
        "ffn_gate_exps" | "ffn_up_exps" | "ffn_down_exps" => {
            format!("{experts}.switch_mlp.{}_proj", part[4..].trim_end_matches("_exps"))
        }
        _ => bail!("no name in MLX is known for the tensor '{gguf}'"),
    };
    Ok(Some(format!("model.layers.{layer}.{part}.{kind}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header of a folder's weights, and their data.
    fn read(folder: &Path) -> (Value, Vec<u8>) {
        let file = fs::read(folder.join(WEIGHTS)).unwrap();
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        (serde_json::from_slice(&file[8..8 + length]).unwrap(), file[8 + length..].to_vec())
    }

    fn data(file: &(Value, Vec<u8>), name: &str) -> Vec<u8> {
        let place = &file.0[name]["data_offsets"];
        let at = |i: usize| place[i].as_u64().unwrap_or_else(|| panic!("no {name}")) as usize;
        file.1[at(0)..at(1)].to_vec()
    }

    fn tiny(arch: Arch, class: &str) -> ModelSpec {
        ModelSpec { hf_class: class.to_owned(), ..ModelSpec::tiny(arch) }
    }

    fn make(spec: &ModelSpec, storage: Storage, cache: &Path) -> PathBuf {
        ensure(spec, storage, 7, cache, &mut |_, _| {}).unwrap()
    }

    #[test]
    fn a_folder_is_made_once_and_is_as_long_as_its_header_says() {
        let cache = tempfile::tempdir().unwrap();
        let spec = tiny(Arch::Qwen3, "Qwen3ForCausalLM");
        let storage = Storage::Affine { bits: 4, group: 64 };
        let mut last = None;
        let folder =
            ensure(&spec, storage, 7, cache.path(), &mut |done, all| last = Some((done, all)))
                .unwrap();
        let path = folder.join(WEIGHTS);
        let length = fs::metadata(&path).unwrap().len();
        assert_eq!(last, Some((length, length)));
        let (header, data) = read(&folder);
        let ends = header.as_object().unwrap().values();
        let end = ends.filter_map(|entry| entry["data_offsets"][1].as_u64()).max();
        assert_eq!(end, Some(data.len() as u64));
        let made = fs::metadata(&path).unwrap().modified().unwrap();
        assert_eq!(make(&spec, storage, cache.path()), folder);
        assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), made);
        assert_ne!(make(&spec, Storage::Affine { bits: 4, group: 32 }, cache.path()), folder);
    }

    #[test]
    fn float_weights_are_those_of_the_gguf_file_value_for_value() {
        use crate::model::gguf::Header;
        let cache = tempfile::tempdir().unwrap();
        let spec = tiny(Arch::Qwen3, "Qwen3ForCausalLM");
        for (storage, quant) in [(Storage::F16, Quant::F16), (Storage::BF16, Quant::BF16)] {
            let path = synth::ensure(&spec, quant, 7, cache.path(), &mut |_, _| {}).unwrap();
            let header = Header::read(&path).unwrap();
            let gguf = fs::read(&path).unwrap();
            let file = read(&make(&spec, storage, cache.path()));
            let mut compared = 0;
            for info in header.tensors.iter().filter(|info| info.tensor.dims.len() > 1) {
                let name = name(&spec, &info.tensor.name).unwrap().unwrap();
                let at = info.offset as usize;
                let expected = &gguf[at..at + info.tensor.bytes() as usize];
                assert_eq!(data(&file, &name), expected, "{name}");
                compared += 1;
            }
            assert!(compared > 10, "{compared}");
        }
    }

    #[test]
    fn the_rows_of_llamas_rotated_heads_have_their_own_order() {
        // A head of 8 rows: the file's row 2j + h is the original's row 4h + j.
        let order: Vec<_> = (0..16).map(|row| source_row(row, 8)).collect();
        assert_eq!(order, [0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15]);
    }

    #[test]
    fn packed_weights_have_the_mean_zero_and_the_deviation_of_a_new_layer() {
        let cache = tempfile::tempdir().unwrap();
        let spec = tiny(Arch::Qwen3, "Qwen3ForCausalLM");
        for (bits, group) in [(4, 64), (6, 32), (8, 64)] {
            let file = read(&make(&spec, Storage::Affine { bits, group }, cache.path()));
            let name = "model.layers.0.mlp.up_proj";
            let float = |field: &str| {
                let bytes = data(&file, &format!("{name}.{field}"));
                assert_eq!(bytes.len() as u32, 512 * 256 / group * 2);
                f64::from(bf16::from_le_bytes([bytes[0], bytes[1]]))
            };
            let (scale, bias) = (float("scales"), float("biases"));
            // Integers follow each other bit by bit, the lowest first.
            let packed = data(&file, &format!("{name}.weight"));
            assert_eq!(packed.len() as u32, 512 * 256 * bits / 8);
            let bit = |i: usize| u32::from(packed[i / 8] >> (i % 8) & 1);
            let integer = |i: usize| {
                let start = i * bits as usize;
                (0..bits as usize).map(|b| bit(start + b) << b).sum::<u32>()
            };
            let values: Vec<f64> =
                (0..10_000).map(|i| f64::from(integer(i)) * scale + bias).collect();
            let mean = values.iter().sum::<f64>() / 10_000.0;
            let square = values.iter().map(|v| v * v).sum::<f64>() / 10_000.0;
            let wanted = 1.0 / 256f64.sqrt();
            assert!(mean.abs() < 0.03 * wanted, "{bits} bits: {mean}");
            assert!((square.sqrt() / wanted - 1.0).abs() < 0.03, "{bits} bits: {square}");
        }
    }

    #[test]
    fn routers_stay_at_eight_bits_and_the_config_says_so() {
        let spec = tiny(Arch::Qwen3Moe, "Qwen3MoeForCausalLM");
        let plan = Plan::new(&spec, Storage::Affine { bits: 4, group: 32 }, 0).unwrap();
        let quantisation = &plan.config["quantization"];
        assert_eq!((&quantisation["bits"], &quantisation["group_size"]), (&json!(4), &json!(32)));
        assert_eq!(quantisation["model.layers.1.mlp.gate"]["bits"], 8);
        let names: Vec<_> = plan.entries().into_iter().map(|entry| entry.name).collect();
        assert!(names.iter().any(|n| n == "model.layers.1.mlp.switch_mlp.down_proj.scales"));
    }

    #[test]
    fn what_mlx_has_no_weights_for_is_refused_with_what_it_has() {
        let message = Storage::of(Quant::Q2K, GROUP).unwrap_err().to_string();
        assert!(message.contains("Q4_K_M (4 bits)"), "{message}");
        let message = Storage::of(Quant::Q8_0, 48).unwrap_err().to_string();
        assert!(message.contains("use 32, 64 or 128"), "{message}");
        assert_eq!(Storage::of(Quant::F16, 48).unwrap(), Storage::F16);
    }

    #[test]
    fn every_catalogued_model_with_a_config_has_names_for_all_its_tensors() {
        let mut planned = 0;
        for spec in crate::catalog::models::all() {
            if hf::config(spec, Quant::BF16).is_ok() {
                Plan::new(spec, Storage::BF16, 0).unwrap_or_else(|e| panic!("{}: {e:#}", spec.id));
                planned += 1;
            }
        }
        assert!(planned > 15, "{planned}");
    }
}
