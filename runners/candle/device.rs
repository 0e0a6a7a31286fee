//! The decoder in candle's own tensor operations, for devices other than the CPU.

use anyhow::{anyhow, bail};
use bench::runner::batching::Chunk;
use bench::runner::{Fault, Settings};
use candle_core::quantized::QMatMul;
use candle_core::{D, DType, Device, Module, Tensor};

use crate::decoder::Sizes;
use crate::matrix::Matrix;
use crate::rope::{Pairs, Rope};
use crate::rows::Gate;
use crate::shape::Shape;
use crate::threads::Threads;
use crate::weights::Weights;

/// A matrix on the device and what is added to its products.
struct Linear {
    product: QMatMul,
    bias: Option<Tensor>,
}

struct Layer {
    attention_norm: Tensor,
    projections: Vec<Linear>,
    query_norm: Option<Tensor>,
    key_norm: Option<Tensor>,
    output: Linear,
    attention_post_norm: Option<Tensor>,
    feed_forward_norm: Tensor,
    /// Gate and up: two matrices, or one with the gate's rows first.
    gate_and_up: Vec<Linear>,
    down: Linear,
    feed_forward_post_norm: Option<Tensor>,
    /// For each sequence its keys and values: heads × positions × width, made once.
    cache: Vec<(Tensor, Tensor)>,
}

/// A model whose weights and caches lie on a device.
pub struct DeviceDecoder {
    device: Device,
    shape: Shape,
    /// Rows are looked up on the host.
    embedding: Matrix,
    output_norm: Tensor,
    head: Linear,
    layers: Vec<Layer>,
    ropes: [Rope; 2],
    rows: usize,
    positions: usize,
    sizes: Sizes,
    logits: Vec<f32>,
}

/// Reads tensors onto one device and adds up their sizes.
struct Loader<'a> {
    weights: &'a Weights,
    device: &'a Device,
    bytes: usize,
}

impl Loader<'_> {
    fn vector(&self, name: &str, len: usize) -> anyhow::Result<Tensor> {
        Ok(Tensor::from_vec(self.weights.vector(name, len)?, len, self.device)?)
    }

    fn optional(&self, name: &str, len: usize) -> anyhow::Result<Option<Tensor>> {
        self.weights.has(name).then(|| self.vector(name, len)).transpose()
    }

    fn linear(&mut self, name: &str, n: usize, k: usize) -> anyhow::Result<Linear> {
        let tensor = self.weights.tensor(&format!("{name}.weight"), self.device)?;
        if tensor.shape().dims() != [n, k] {
            bail!("tensor '{name}.weight' is {:?} instead of {n} × {k}", tensor.shape());
        }
        self.bytes += tensor.storage_size_in_bytes();
        let bias = self.optional(&format!("{name}.bias"), n)?;
        Ok(Linear { product: QMatMul::from_qtensor(tensor)?, bias })
    }

    fn layer(&mut self, shape: &Shape, index: usize) -> anyhow::Result<Layer> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (hidden, dim, width) = (shape.hidden, shape.head_dim, shape.feed_forward);
        let (queries, keys) = (shape.heads * dim, shape.kv_heads * dim);
        let projections = if self.weights.has(&name("attn_qkv.weight")) {
            vec![self.linear(&name("attn_qkv"), shape.projected(), hidden)?]
        } else {
            vec![
                self.linear(&name("attn_q"), queries, hidden)?,
                self.linear(&name("attn_k"), keys, hidden)?,
                self.linear(&name("attn_v"), keys, hidden)?,
            ]
        };
        let gate_and_up = if self.weights.has(&name("ffn_gate.weight")) {
            vec![
                self.linear(&name("ffn_gate"), width, hidden)?,
                self.linear(&name("ffn_up"), width, hidden)?,
            ]
        } else {
            vec![self.linear(&name("ffn_up"), 2 * width, hidden)?]
        };
        Ok(Layer {
            attention_norm: self.vector(&name("attn_norm.weight"), hidden)?,
            projections,
            query_norm: self.optional(&name("attn_q_norm.weight"), dim)?,
            key_norm: self.optional(&name("attn_k_norm.weight"), dim)?,
            output: self.linear(&name("attn_output"), hidden, queries)?,
            attention_post_norm: self.optional(&name("post_attention_norm.weight"), hidden)?,
            feed_forward_norm: self.vector(&name("ffn_norm.weight"), hidden)?,
            gate_and_up,
            down: self.linear(&name("ffn_down"), hidden, width)?,
            feed_forward_post_norm: self.optional(&name("post_ffw_norm.weight"), hidden)?,
            cache: Vec::new(),
        })
    }
}

impl Linear {
    fn forward(&self, x: &Tensor) -> anyhow::Result<Tensor> {
        let result = self.product.forward(x)?;
        Ok(match &self.bias {
            Some(bias) => result.broadcast_add(bias)?,
            None => result,
        })
    }
}

/// The products of all matrices, side by side.
fn side_by_side(matrices: &[Linear], x: &Tensor) -> anyhow::Result<Tensor> {
    let products = matrices.iter().map(|m| m.forward(x)).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&products, D::Minus1)?)
}

impl DeviceDecoder {
    /// Loads the weights onto `device` and makes room for `settings.slots` sequences.
    pub fn load(
        weights: &Weights,
        settings: &Settings,
        threads: Threads,
        rows: usize,
        device: Device,
    ) -> anyhow::Result<Self> {
        let shape = Shape::read(&weights.content.metadata)?;
        if shape.experts.is_some() {
            return Err(anyhow!("experts on a GPU are not supported; set gpu_layers to 0")
                .context(Fault::Unsupported));
        }
        if settings.gpu_layers.is_some_and(|layers| (layers as usize) < shape.layers) {
            return Err(anyhow!("all {} layers lie on one device; raise gpu_layers", shape.layers)
                .context(Fault::Unsupported));
        }
        let kv_type = match settings.kv_type.as_deref().unwrap_or("f16") {
            "f16" => DType::F16,
            "f32" => DType::F32,
            other => {
                return Err(anyhow!("this engine has no KV type '{other}'; use f16 or f32")
                    .context(Fault::Unsupported));
            }
        };
        let (vocabulary, hidden) = (weights.shape("token_embd.weight")?.0, shape.hidden);
        let embedding = weights.whole(threads, "token_embd.weight", vocabulary, hidden)?;
        let mut loader = Loader { weights, device: &device, bytes: embedding.bytes() };
        let tied = !weights.has("output.weight");
        let head = loader.linear(if tied { "token_embd" } else { "output" }, vocabulary, hidden)?;
        let output_norm = loader.vector("output_norm.weight", hidden)?;
        let positions = settings.slot_tokens as usize;
        let mut cache_bytes = 0;
        let layers = (0..shape.layers)
            .map(|index| {
                let mut layer = loader.layer(&shape, index)?;
                for _ in 0..settings.slots.max(1) {
                    let room = (shape.kv_heads, positions, shape.head_dim);
                    let keys = Tensor::zeros(room, kv_type, &device)?;
                    let values = Tensor::zeros(room, kv_type, &device)?;
                    cache_bytes += 2 * keys.elem_count() * kv_type.size_in_bytes();
                    layer.cache.push((keys, values));
                }
                Ok(layer)
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let factors = weights.rope_factors(&shape, positions)?;
        let sizes = Sizes { weights: loader.bytes, cache: cache_bytes, buffers: 0 };
        weights.all_used()?;
        let ropes = [&shape.rope, &shape.window_rope]
            .map(|scaling| Rope::new(scaling, factors.as_deref(), rows));
        let logits = Vec::new();
        Ok(Self {
            device,
            shape,
            embedding,
            output_norm,
            head,
            layers,
            ropes,
            rows,
            positions,
            sizes,
            logits,
        })
    }

    /// Most rows of a step.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Sequences.
    pub fn slots(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.cache.len())
    }

    /// Values of a row of logits.
    pub fn vocabulary(&self) -> usize {
        self.embedding.n
    }

    /// What lies in memory; candle does not say what its operations allocate.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// The last step's logits, on the host.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Computes the chunks, with logits after every token or after those that the chunks name.
    pub fn step(&mut self, chunks: &[Chunk<'_>], all_logits: bool) -> anyhow::Result<()> {
        let mut tokens = Vec::new();
        let mut wanted = Vec::new();
        for chunk in chunks {
            let end = chunk.position as usize + chunk.tokens.len();
            if chunk.sequence as usize >= self.slots() || end > self.positions {
                bail!("position {end} of sequence {} is outside the cache", chunk.sequence);
            }
            let first = tokens.len() as u32;
            tokens.extend_from_slice(chunk.tokens);
            if all_logits {
                wanted.extend(first..tokens.len() as u32);
            } else if chunk.logits {
                wanted.push(tokens.len() as u32 - 1);
            }
        }
        if tokens.len() > self.rows {
            bail!("{} tokens are too many for a step of at most {}", tokens.len(), self.rows);
        }
        let positions = chunks.iter().flat_map(|c| c.position..c.position + c.tokens.len() as u32);
        self.ropes.iter_mut().for_each(|rope| rope.set_positions(positions.clone()));
        let mut turns = Vec::with_capacity(2);
        for rope in &self.ropes {
            let (cosines, sines) = rope.tables(tokens.len());
            let shape = (tokens.len(), self.shape.rope.dims / 2);
            turns.push((
                Tensor::from_vec(cosines, shape, &self.device)?,
                Tensor::from_vec(sines, shape, &self.device)?,
            ));
        }
        let mut stream = self.embed(&tokens)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let window = self.shape.windows[index];
            let (cosines, sines) = &turns[usize::from(window.is_some())];
            let normed = self.norm(&stream, &layer.attention_norm)?;
            let projected = side_by_side(&layer.projections, &normed)?;
            let mut attended = Vec::with_capacity(chunks.len());
            let mut first = 0;
            for chunk in chunks {
                let count = chunk.tokens.len();
                let rows = projected.narrow(0, first, count)?;
                let turns = (cosines.narrow(0, first, count)?, sines.narrow(0, first, count)?);
                attended.push(self.attend(layer, chunk, &rows, &turns, window)?);
                first += count;
            }
            let output = layer.output.forward(&Tensor::cat(&attended, 0)?)?;
            stream = (stream + self.post_norm(output, layer.attention_post_norm.as_ref())?)?;
            let normed = self.norm(&stream, &layer.feed_forward_norm)?;
            let wide = side_by_side(&layer.gate_and_up, &normed)?;
            let width = self.shape.feed_forward;
            let gate = wide.narrow(1, 0, width)?.contiguous()?;
            let gate = match self.shape.gate {
                Gate::Silu => gate.silu()?,
                Gate::Gelu => gate.gelu()?,
            };
            let down = layer.down.forward(&(gate * wide.narrow(1, width, width)?)?)?;
            stream = (stream + self.post_norm(down, layer.feed_forward_post_norm.as_ref())?)?;
        }
        self.logits.clear();
        if wanted.is_empty() {
            return Ok(self.device.synchronize()?);
        }
        let count = wanted.len();
        let rows = stream.index_select(&Tensor::from_vec(wanted, count, &self.device)?, 0)?;
        let mut logits = self.head.forward(&self.norm(&rows, &self.output_norm)?)?;
        if let Some(cap) = self.shape.logit_softcap {
            logits = ((logits / f64::from(cap))?.tanh()? * f64::from(cap))?;
        }
        // Copying to the host waits for the device.
        self.logits = logits.flatten_all()?.to_vec1()?;
        Ok(())
    }

    fn embed(&self, tokens: &[u32]) -> anyhow::Result<Tensor> {
        let hidden = self.shape.hidden;
        let mut rows = vec![0.0; tokens.len() * hidden];
        for (&token, row) in tokens.iter().zip(rows.chunks_exact_mut(hidden)) {
            if token as usize >= self.vocabulary() {
                bail!("token {token} is outside the vocabulary of {}", self.vocabulary());
            }
            self.embedding.row(token as usize, row)?;
            row.iter_mut().for_each(|x| *x *= self.shape.embedding_scale);
        }
        Ok(Tensor::from_vec(rows, (tokens.len(), hidden), &self.device)?)
    }

    fn norm(&self, x: &Tensor, weights: &Tensor) -> anyhow::Result<Tensor> {
        Ok(candle_nn::ops::rms_norm(&x.contiguous()?, weights, self.shape.norm_eps)?)
    }

    fn post_norm(&self, x: Tensor, weights: Option<&Tensor>) -> anyhow::Result<Tensor> {
        weights.map_or(Ok(x.clone()), |weights| self.norm(&x, weights))
    }

    /// One chunk's rows of queries, keys and values to its rows of attention.
    fn attend(
        &self,
        layer: &Layer,
        chunk: &Chunk<'_>,
        rows: &Tensor,
        turns: &(Tensor, Tensor),
        window: Option<usize>,
    ) -> anyhow::Result<Tensor> {
        let Shape { heads, kv_heads, head_dim: dim, attention_scale: scale, .. } = self.shape;
        let (count, position) = (chunk.tokens.len(), chunk.position as usize);
        let (keys, values) = &layer.cache[chunk.sequence as usize];
        let split = |first: usize, heads: usize| {
            rows.narrow(1, first * dim, heads * dim)?
                .reshape((count, heads, dim))?
                .transpose(0, 1)?
                .contiguous()
        };
        let turned = |x: Tensor, norm: &Option<Tensor>| -> anyhow::Result<Tensor> {
            let x = match norm {
                Some(norm) => self.norm(&x, norm)?,
                None => x,
            };
            self.turn(&x, turns)
        };
        let query = turned(split(0, heads)?, &layer.query_norm)?;
        let key = turned(split(heads, kv_heads)?, &layer.key_norm)?;
        let value = split(heads + kv_heads, kv_heads)?;
        keys.slice_set(&key.to_dtype(keys.dtype())?.contiguous()?, 1, position)?;
        values.slice_set(&value.to_dtype(values.dtype())?.contiguous()?, 1, position)?;

        let end = position + count;
        let group = heads / kv_heads;
        let query = (query * f64::from(scale))?.to_dtype(keys.dtype())?;
        let query = query.reshape((kv_heads, group * count, dim))?;
        let scores = query.matmul(&keys.narrow(1, 0, end)?.t()?)?.to_dtype(DType::F32)?;
        let mut scores = scores.reshape((kv_heads, group, count, end))?;
        if count > 1 || window.is_some_and(|window| window < end) {
            scores = scores.broadcast_add(&self.mask(position, count, window)?)?;
        }
        let weights = candle_nn::ops::softmax_last_dim(&scores)?
            .to_dtype(values.dtype())?
            .reshape((kv_heads, group * count, end))?;
        let result = weights.matmul(&values.narrow(1, 0, end)?)?.to_dtype(DType::F32)?;
        Ok(result.reshape((heads, count, dim))?.transpose(0, 1)?.reshape((count, heads * dim))?)
    }

    /// Heads × tokens × width, turned by the tokens' angles.
    fn turn(&self, x: &Tensor, (cosines, sines): &(Tensor, Tensor)) -> anyhow::Result<Tensor> {
        let dims = self.shape.rope.dims;
        let turning = x.narrow(2, 0, dims)?.contiguous()?.unsqueeze(0)?;
        let turned = match self.shape.rope.pairs {
            Pairs::Halves => candle_nn::rotary_emb::rope(&turning, cosines, sines)?,
            Pairs::Adjacent => candle_nn::rotary_emb::rope_i(&turning, cosines, sines)?,
        };
        let turned = turned.squeeze(0)?;
        match self.shape.head_dim - dims {
            0 => Ok(turned),
            rest => Ok(Tensor::cat(&[turned, x.narrow(2, dims, rest)?], 2)?),
        }
    }

    /// What is added to scores: minus infinity where a token must not look.
    fn mask(&self, position: usize, count: usize, window: Option<usize>) -> anyhow::Result<Tensor> {
        let end = position + count;
        let sees = |from: usize, to: usize| to <= from && window.is_none_or(|w| from - to < w);
        let values = (position..end)
            .flat_map(|from| {
                (0..end).map(move |to| if sees(from, to) { 0.0 } else { f32::NEG_INFINITY })
            })
            .collect();
        Ok(Tensor::from_vec(values, (count, end), &self.device)?)
    }
}

#[cfg(test)]
mod tests {
    use bench::catalog::models::{Arch, ModelSpec};
    use bench::model::quant::Quant;
    use bench::model::synth;

    use super::*;
    use crate::decoder::Decoder;

    #[test]
    fn candles_operations_and_our_kernels_give_the_same_logits() {
        for arch in [Arch::Llama, Arch::Qwen2, Arch::Qwen3, Arch::Gemma3, Arch::Phi3] {
            let dir = tempfile::tempdir().unwrap();
            let spec = ModelSpec::tiny(arch);
            let path = synth::ensure(&spec, Quant::F16, 1, dir.path(), &mut |_, _| {}).unwrap();
            let kv_type = Some("f32".to_owned());
            let settings = Settings { slots: 2, slot_tokens: 96, kv_type, ..Settings::default() };
            let threads = Threads::new(None).unwrap();
            let open = || Weights::open(&path).unwrap();
            let mut ours = Decoder::load(&open(), &settings, threads, 96).unwrap();
            let mut theirs =
                DeviceDecoder::load(&open(), &settings, threads, 96, Device::Cpu).unwrap();
            let text: Vec<u32> = (0..90).map(|i| (i * 37 + 5) % 1024).collect();
            let chunk = |sequence, position, range: std::ops::Range<usize>| Chunk {
                sequence,
                position,
                tokens: &text[range],
                logits: true,
            };
            for step in [
                vec![chunk(0, 0, 0..70)],
                vec![chunk(0, 70, 70..75), chunk(1, 0, 3..20)],
                vec![chunk(0, 75, 75..76), chunk(1, 17, 20..21)],
            ] {
                ours.step(&step, false).unwrap();
                theirs.step(&step, false).unwrap();
                let size = ours.logits().iter().fold(0.0_f32, |m, x| m.max(x.abs()));
                for (a, b) in ours.logits().iter().zip(theirs.logits()) {
                    assert!((a - b).abs() <= 2e-3 * size, "{arch:?}: {a} and {b} of {size}");
                }
            }
        }
    }
}
