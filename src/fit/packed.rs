//! A model's weights in one quantisation, counted by what they are for.

use crate::catalog::models::ModelSpec;
use crate::model::arch::{self, Shape};
use crate::model::quant::Quant;
use crate::model::recipe::Recipes;
use crate::model::{Tensor, quant::TensorType};
use crate::units::Bytes;

use super::memory;
use super::work::{self, Packing, Work};

/// No model has as many layers; a file that says so is not believed.
pub const MOST_LAYERS: u32 = 4096;

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Rows of it are looked up; of a tied one the output projection is a copy.
    Embedding,
    /// Looked up alone: per-layer embeddings.
    Lookup,
    /// The output projection.
    Output,
    /// Routed experts of a layer.
    Experts(u32),
    /// Anything else of a layer.
    Layer(u32),
    /// Beside the layers.
    Other,
}

impl Part {
    /// What the tensor with this name is for.
    pub fn of(name: &str) -> Self {
        if let Some((layer, rest)) = name.strip_prefix("blk.").and_then(|r| r.split_once('.'))
            && let Ok(layer) = layer.parse()
            && layer < MOST_LAYERS
        {
            return if rest.contains("_exps.") { Self::Experts(layer) } else { Self::Layer(layer) };
        }
        match name {
            "token_embd.weight" => Self::Embedding,
            "output.weight" => Self::Output,
            _ if name.contains("token_embd") => Self::Lookup,
            _ => Self::Other,
        }
    }
}

/// A tensor as the counts see it.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// What it is for.
    pub part: Part,
    /// Weights in it.
    pub elements: u64,
    /// Bytes of it.
    pub bytes: u64,
    /// Whether something is multiplied with it, not only added or scaled.
    pub is_matrix: bool,
}

impl Piece {
    /// That of a tensor whose type is known.
    pub fn of(tensor: &Tensor) -> Self {
        Self::new(Part::of(&tensor.name), &tensor.dims, tensor.kind)
    }

    fn new(part: Part, dims: &[u64], kind: TensorType) -> Self {
        let elements = dims.iter().product::<u64>();
        let bytes = elements / kind.block_weights() * kind.block_bytes();
        Self { part, elements, bytes, is_matrix: dims.len() > 1 }
    }
}

/// Bytes of one layer's weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LayerBytes {
    /// Routed experts.
    pub experts: u64,
    /// Everything else.
    pub dense: u64,
}

/// Bytes of a model's tensors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    /// All, each once.
    pub file: Bytes,
    /// Those that must lie where they are multiplied.
    pub multiplied: Bytes,
    /// Those that are looked up.
    pub lookup: Bytes,
    /// Of `multiplied`, what no layer holds: the output projection.
    pub outside: Bytes,
    /// Of `multiplied`, the layers in their order.
    pub layers: Vec<LayerBytes>,
}

impl Weights {
    /// Those of `tensors`.
    pub fn of(tensors: &[Tensor]) -> Self {
        Self::count(tensors.iter().map(Piece::of))
    }

    /// Those of `pieces`.
    pub fn count(pieces: impl Iterator<Item = Piece>) -> Self {
        let mut weights = Self {
            file: Bytes(0),
            multiplied: Bytes(0),
            lookup: Bytes(0),
            outside: Bytes(0),
            layers: Vec::new(),
        };
        let (mut embedding, mut tied) = (0, true);
        for piece in pieces {
            weights.file.0 += piece.bytes;
            match piece.part {
                Part::Embedding => embedding += piece.bytes,
                Part::Lookup => weights.lookup.0 += piece.bytes,
                Part::Output => {
                    tied = false;
                    weights.outside.0 += piece.bytes;
                }
                Part::Other => weights.outside.0 += piece.bytes,
                Part::Experts(il) => weights.layer(il).experts += piece.bytes,
                Part::Layer(il) => weights.layer(il).dense += piece.bytes,
            }
        }
        weights.lookup.0 += embedding;
        if tied {
            weights.outside.0 += embedding;
        }
        let layers: u64 = weights.layers.iter().map(|l| l.dense + l.experts).sum();
        weights.multiplied = Bytes(weights.outside.0 + layers);
        weights
    }

    fn layer(&mut self, il: u32) -> &mut LayerBytes {
        let il = il as usize;
        if il >= self.layers.len() {
            self.layers.resize(il + 1, LayerBytes::default());
        }
        &mut self.layers[il]
    }
}

/// A model's weights in one quantisation: what they take and what they ask of a device.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Bytes.
    pub weights: Weights,
    /// What one pass does.
    pub work: Work,
}

impl Packed {
    /// That of `tensors`, such as those of a file.
    pub fn of_tensors(spec: &ModelSpec, tensors: &[Tensor], packing: Packing) -> Self {
        let pieces: Vec<Piece> = tensors.iter().map(Piece::of).collect();
        Self::of_pieces(spec, &pieces, packing)
    }

    /// That of a catalogued model.
    pub fn of(spec: &ModelSpec, quant: Quant) -> anyhow::Result<Self> {
        memory::ensure_known(spec)?;
        Blueprint::new(spec)?.packed(quant)
    }

    /// That of `pieces`.
    pub fn of_pieces(spec: &ModelSpec, pieces: &[Piece], packing: Packing) -> Self {
        Self {
            weights: Weights::count(pieces.iter().copied()),
            work: Work::of_pieces(spec, pieces, packing),
        }
    }

    /// The same as an engine reads it that keeps every window of the model.
    #[must_use]
    pub fn with_windows(mut self, spec: &ModelSpec) -> Self {
        self.work.cache = work::windowed_groups(spec);
        self
    }
}

/// A model's tensors before they are quantised, gone through once for all quantisations.
pub struct Blueprint<'a> {
    spec: &'a ModelSpec,
    shapes: Vec<Shape>,
    parts: Vec<Part>,
}

impl<'a> Blueprint<'a> {
    /// That of a catalogued model.
    pub fn new(spec: &'a ModelSpec) -> anyhow::Result<Self> {
        let shapes = arch::shapes(spec)?;
        let parts = shapes.iter().map(|s| Part::of(&s.name)).collect();
        Ok(Self { spec, shapes, parts })
    }

    /// The model in one quantisation.
    pub fn packed(&self, quant: Quant) -> anyhow::Result<Packed> {
        self.with(&Recipes::new(self.spec, &self.shapes), quant)
    }

    /// The model in each of `quants`.
    pub fn each(&self, quants: &[Quant]) -> Vec<(Quant, anyhow::Result<Packed>)> {
        let recipes = Recipes::new(self.spec, &self.shapes);
        quants.iter().map(|&quant| (quant, self.with(&recipes, quant))).collect()
    }

    /// The model with `bits` for every weight of the layers' matrices and 16 for the others, as
    /// checkpoints of other engines have them.
    pub fn flat(&self, bits: f64, packing: Packing) -> anyhow::Result<Packed> {
        let recipes = Recipes::new(self.spec, &self.shapes);
        let kinds = recipes.types(Quant::BF16)?;
        let pieces: Vec<Piece> = self
            .shapes
            .iter()
            .zip(&self.parts)
            .zip(kinds)
            .map(|((shape, part), kind)| {
                let mut piece = Piece::new(*part, &shape.dims, kind);
                let inside = matches!(part, Part::Layer(_) | Part::Experts(_));
                // What is 16 bits wide is a matrix that packing would pack.
                if inside && kind == TensorType::BF16 {
                    piece.bytes = (piece.elements as f64 * bits / 8.0).ceil() as u64;
                }
                piece
            })
            .collect();
        Ok(Packed::of_pieces(self.spec, &pieces, packing))
    }

    fn with(&self, recipes: &Recipes<'_>, quant: Quant) -> anyhow::Result<Packed> {
        let kinds = recipes.types(quant)?;
        let pieces: Vec<Piece> = self
            .shapes
            .iter()
            .zip(&self.parts)
            .zip(&kinds)
            .map(|((shape, part), kind)| Piece::new(*part, &shape.dims, *kind))
            .collect();
        let inside =
            |p: &(&Piece, &TensorType)| matches!(p.0.part, Part::Layer(_) | Part::Experts(_));
        let layers = pieces.iter().zip(&kinds);
        let packing = Packing::of_most(layers.filter(inside).map(|(p, kind)| (*kind, p.elements)));
        Ok(Packed::of_pieces(self.spec, &pieces, packing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::models;

    #[test]
    fn layers_and_the_rest_are_all_that_is_multiplied() {
        for id in ["llama-3.1-8b", "gemma-4-e2b", "qwen3-30b-a3b", "deepseek-v3"] {
            let spec = models::find(id).unwrap();
            let packed = Packed::of(spec, Quant::Q4KM).unwrap();
            let weights = &packed.weights;
            assert_eq!(weights.layers.len(), spec.layers as usize, "{id}");
            let tensors = crate::model::tensors(spec, Quant::Q4KM).unwrap();
            assert_eq!(weights, &Weights::of(&tensors), "{id}");
            assert_eq!(packed.work, Work::of_tensors(spec, &tensors, Packing::Q4K), "{id}");
            let file: u64 = tensors.iter().map(Tensor::bytes).sum();
            assert_eq!(weights.file, Bytes(file), "{id}");
            let tied = if spec.tied { tensors[0].bytes() } else { 0 };
            assert_eq!(weights.multiplied.0 + weights.lookup.0, file + tied, "{id}");
        }
    }

    #[test]
    fn names_say_what_tensors_are_for() {
        assert_eq!(Part::of("blk.7.ffn_up_exps.weight"), Part::Experts(7));
        assert_eq!(Part::of("blk.7.ffn_up_shexp.weight"), Part::Layer(7));
        assert_eq!(Part::of("per_layer_token_embd.weight"), Part::Lookup);
        assert_eq!(Part::of("token_embd.weight"), Part::Embedding);
        assert_eq!(Part::of("output_norm.weight"), Part::Other);
        assert_eq!(Part::of("blk.x.odd"), Part::Other);
    }
}
