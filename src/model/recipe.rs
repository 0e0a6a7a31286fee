//! Which type each tensor gets when a model is quantised, as llama.cpp's quantiser decides without
//! an importance matrix (crate llama-cpp-sys-2 0.1.161, `src/llama-quant.cpp`).

use anyhow::bail;

use crate::catalog::models::{Arch, ModelSpec};

use super::arch::Shape;
use super::quant::{Quant, TensorType};

/// The type of each of `shapes`, in their order.
pub fn types(spec: &ModelSpec, shapes: &[Shape], quant: Quant) -> anyhow::Result<Vec<TensorType>> {
    Recipes::new(spec, shapes).types(quant)
}

/// A model's tensors as the recipes see them, made once for all quantisations.
pub struct Recipes<'a> {
    spec: &'a ModelSpec,
    shapes: &'a [Shape],
    /// One for each of `shapes`.
    traits: Vec<Trait>,
    /// Some rules count the tensors of a kind, in llama.cpp's order: by layer, then by name.
    order: Vec<usize>,
    tied: bool,
    values: u32,
}

/// What a tensor's name and rank say.
struct Trait {
    role: Role,
    layer: i64,
    quantisable: bool,
}

impl<'a> Recipes<'a> {
    /// Those of `spec`, whose tensors are `shapes`.
    pub fn new(spec: &'a ModelSpec, shapes: &'a [Shape]) -> Self {
        let traits: Vec<Trait> = shapes
            .iter()
            .map(|s| Trait {
                role: Role::of(&s.name),
                layer: layer_of(&s.name),
                quantisable: is_quantisable(s),
            })
            .collect();
        let mut order: Vec<usize> = (0..shapes.len()).collect();
        order.sort_by(|&a, &b| {
            let key = |i: usize| (traits[i].layer, shapes[i].name.as_str());
            key(a).cmp(&key(b))
        });
        let tied = !shapes.iter().any(|s| s.name == "output.weight");
        let values = traits.iter().filter(|t| t.role.is_value()).count() as u32;
        Self { spec, shapes, traits, order, tied, values }
    }

    /// The type of each tensor in `quant`.
    pub fn types(&self, quant: Quant) -> anyhow::Result<Vec<TensorType>> {
        let spec = self.spec;
        if quant == Quant::Mxfp4 && spec.experts.is_none() {
            bail!(
                "MXFP4 is for mixtures of experts and '{}' has none; use Q4_0 or Q4_K_M",
                spec.id
            );
        }
        let mut recipe =
            Recipe { spec, quant, tied: self.tied, values: self.values, value: 0, down: 0 };
        let mut types = vec![TensorType::F32; self.shapes.len()];
        for &i in &self.order {
            types[i] = recipe.next(&self.shapes[i], &self.traits[i]);
        }
        Ok(types)
    }
}

/// The layer in a tensor's name; −1 for those outside layers.
fn layer_of(name: &str) -> i64 {
    name.strip_prefix("blk.")
        .and_then(|rest| rest.split('.').next())
        .and_then(|n| n.parse().ok())
        .unwrap_or(-1)
}

/// What a tensor is for, as far as recipes tell tensors apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    TokenEmbedding,
    Output,
    Qkv,
    KvB,
    V,
    K,
    Q,
    AttentionOutput,
    Up,
    Gate,
    Down,
    Other,
}

impl Role {
    fn of(name: &str) -> Self {
        if name == "output.weight" {
            return Self::Output;
        }
        if name == "token_embd.weight" || name == "per_layer_token_embd.weight" {
            return Self::TokenEmbedding;
        }
        const PARTS: [(&str, Role); 9] = [
            ("attn_qkv.weight", Role::Qkv),
            ("attn_kv_b.weight", Role::KvB),
            ("attn_v.weight", Role::V),
            ("attn_k.weight", Role::K),
            ("attn_q.weight", Role::Q),
            ("attn_output.weight", Role::AttentionOutput),
            ("ffn_up", Role::Up),
            ("ffn_gate", Role::Gate),
            ("ffn_down", Role::Down),
        ];
        PARTS.iter().find(|(part, _)| name.contains(part)).map_or(Self::Other, |(_, role)| *role)
    }

    /// The roles that share the rules of the value projection, which bears quantisation worst.
    fn is_value(self) -> bool {
        matches!(self, Self::V | Self::Qkv | Self::KvB)
    }
}

/// Whether the quantiser touches a tensor at all.
fn is_quantisable(shape: &Shape) -> bool {
    // ggml forgets trailing sizes of 1
    let rank = shape.dims.iter().rposition(|&d| d > 1).map_or(1, |i| i + 1);
    let name = shape.name.as_str();
    // Norms, routers, convolutions and other small tensors that decide much.
    const KEPT: [&str; 10] = [
        "_norm.weight",
        "ffn_gate_inp.weight",
        "ffn_gate_tid2eid.weight",
        "altup",
        "laurel",
        "per_layer_model_proj",
        "ssm_conv1d",
        "shortconv.conv.weight",
        "indexer.k_proj.weight",
        "indexer.q_proj.weight",
    ];
    rank >= 2 && name.ends_with("weight") && !KEPT.iter().any(|part| name.contains(part))
}

struct Recipe<'a> {
    spec: &'a ModelSpec,
    quant: Quant,
    tied: bool,
    values: u32,
    value: u32,
    down: u32,
}

impl Recipe<'_> {
    fn next(&mut self, shape: &Shape, known: &Trait) -> TensorType {
        if !known.quantisable {
            // What converters leave: everything small in F32, per_layer_model_proj in the type of
            // the file that was quantised, which is BF16 unless F16 was asked for.
            return match (shape.name.as_str(), self.quant) {
                ("per_layer_model_proj.weight", Quant::F16) => TensorType::F16,
                ("per_layer_model_proj.weight", _) => TensorType::BF16,
                (name, _) if name.ends_with("ffn_gate_tid2eid.weight") => TensorType::I32,
                _ => TensorType::F32,
            };
        }
        if !self.quant.main_type().is_quantised() {
            // gpt-oss was published with its experts in MXFP4, and converters leave them so.
            let experts = shape.dims.len() == 3 && self.spec.arch == Arch::GptOss;
            return if experts { TensorType::Mxfp4 } else { self.quant.main_type() };
        }
        let chosen = self.choose(shape, known);
        fallback(chosen, shape.dims[0])
    }

    fn choose(&mut self, shape: &Shape, known: &Trait) -> TensorType {
        use TensorType::{Mxfp4, Q3K, Q4K, Q5K, Q6K, Q8_0};
        let main = self.quant.main_type();
        let role = known.role;
        let eight_experts = self.experts() == 8;
        if role == Role::Output || (self.tied && role == Role::TokenEmbedding) {
            return match main {
                Mxfp4 | Q8_0 => Q8_0,
                _ if !shape.dims[0].is_multiple_of(main.block_weights()) => Q8_0,
                _ => Q6K,
            };
        }
        if main == Mxfp4 {
            return if shape.dims.len() > 2 && shape.dims[2] > 1 { Mxfp4 } else { Q8_0 };
        }
        match role {
            Role::TokenEmbedding => main,
            _ if role.is_value() => {
                let i = self.value;
                self.value += 1;
                let mut chosen = match self.quant {
                    Quant::Q2K if self.gqa() >= 4 => Q4K,
                    Quant::Q2K => Q3K,
                    Quant::Q3KM if i < 2 => Q5K,
                    Quant::Q3KM => Q4K,
                    Quant::Iq4Xs if self.gqa() >= 4 => Q5K,
                    Quant::Q4KM | Quant::Q5KM if gets_more_bits(i, self.values) => Q6K,
                    _ => main,
                };
                if self.is_70b() && matches!(chosen, Q3K | Q4K) {
                    chosen = Q5K;
                }
                if eight_experts { Q8_0 } else { chosen }
            }
            Role::K if eight_experts => Q8_0,
            Role::Down => {
                // Tensors of experts and shared experts count by the layer they lie in.
                let i = match self.experts() > 1 {
                    true => known.layer as u32,
                    false => self.down,
                };
                self.down += 1;
                let n = self.spec.layers;
                match self.quant {
                    Quant::Q2K => Q3K,
                    Quant::Q3KM if i < n / 16 => Q5K,
                    Quant::Q3KM => Q4K,
                    Quant::Q4KM | Quant::Q5KM if gets_more_bits(i, n) => Q6K,
                    Quant::Iq4Xs if i < n / 8 => Q5K,
                    _ => main,
                }
            }
            Role::AttentionOutput if eight_experts => match self.quant {
                Quant::Q2K | Quant::Q3KM | Quant::Q4KM | Quant::Iq4Xs => Q5K,
                _ => main,
            },
            Role::AttentionOutput => match self.quant {
                Quant::Q2K => Q3K,
                Quant::Q3KM => Q4K,
                _ => main,
            },
            _ => main,
        }
    }

    fn experts(&self) -> u32 {
        self.spec.experts.as_ref().map_or(0, |e| e.total)
    }

    /// Query heads for each key head, as the file's metadata says it for layer 0.
    fn gqa(&self) -> u32 {
        let kv_heads = if self.spec.mla.is_some() { 1 } else { self.spec.kv_heads };
        self.spec.heads.checked_div(kv_heads).unwrap_or(0)
    }

    /// llama.cpp knows a 70B by its architecture and number of layers.
    fn is_70b(&self) -> bool {
        self.spec.layers == 80
            && match self.spec.arch {
                Arch::Llama => self.spec.heads != self.spec.kv_heads,
                Arch::Qwen2 => true,
                _ => false,
            }
    }
}

/// The first and last eighth of the layers, and every third between.
fn gets_more_bits(i: u32, n: u32) -> bool {
    i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2
}

/// The type for a row of `width` weights that is no whole number of blocks.
fn fallback(kind: TensorType, width: u64) -> TensorType {
    if width.is_multiple_of(kind.block_weights()) {
        return kind;
    }
    let smaller = match kind {
        TensorType::Iq4Xs | TensorType::Iq3S => TensorType::Iq4Nl,
        TensorType::Q2K | TensorType::Q3K => TensorType::Q4_0,
        TensorType::Q4K => TensorType::Q5_0,
        TensorType::Q5K => TensorType::Q5_1,
        TensorType::Q6K => TensorType::Q8_0,
        other => other,
    };
    if width.is_multiple_of(smaller.block_weights()) { smaller } else { TensorType::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_no_whole_number_of_blocks_falls_back() {
        assert_eq!(fallback(TensorType::Q4K, 4096), TensorType::Q4K);
        assert_eq!(fallback(TensorType::Q4K, 2880), TensorType::Q5_0);
        assert_eq!(fallback(TensorType::Q6K, 576), TensorType::Q8_0);
        assert_eq!(fallback(TensorType::Q4K, 100), TensorType::F16);
        assert_eq!(fallback(TensorType::Q8_0, 100), TensorType::F16);
    }

    #[test]
    fn routers_and_norms_stay_as_they_are() {
        let shape = |name: &str, dims: &[u64]| Shape { name: name.into(), dims: dims.to_vec() };
        assert!(!is_quantisable(&shape("blk.0.ffn_gate_inp.weight", &[64, 8])));
        assert!(!is_quantisable(&shape("blk.0.attn_norm.weight", &[64])));
        assert!(!is_quantisable(&shape("blk.0.ffn_gate_exps.bias", &[64, 8])));
        assert!(!is_quantisable(&shape("output.weight", &[64, 1])));
        assert!(is_quantisable(&shape("output.weight", &[64, 8])));
    }
}
