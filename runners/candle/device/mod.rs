//! The decoder in candle's own tensor operations, for devices other than the CPU.
//!
//! Between two tokens everything stays on the device: a step's ids and positions go to it, its logits
//! come back, and copying those is the only wait.

mod attention;
mod experts;
mod linear;

use anyhow::{anyhow, bail};
use bench::runner::batching::Chunk;
use bench::runner::{Fault, Settings};
use candle_core::{D, DType, Device, Tensor};

use self::attention::{Cache, Heads};
use self::experts::Experts;
use self::linear::{Linear, Loader, Matrix};
use crate::decoder::Sizes;
use crate::rope::{Pairs, Rope};
use crate::rows::Gate;
use crate::shape::Shape;
use crate::weights::Weights;

struct Layer {
    attention_norm: Tensor,
    projections: Vec<Linear>,
    query_norm: Option<Tensor>,
    key_norm: Option<Tensor>,
    output: Linear,
    attention_post_norm: Option<Tensor>,
    feed_forward_norm: Tensor,
    feed_forward: FeedForward,
    feed_forward_post_norm: Option<Tensor>,
    cache: Cache,
}

enum FeedForward {
    /// Gate and up (two matrices, or one with the gate's rows first), then down.
    Dense(Vec<Linear>, Linear),
    Experts(Experts),
}

/// The cosines and sines of every position: positions × half of the turned width.
struct Turns {
    cosines: Tensor,
    sines: Tensor,
}

/// A model whose weights and caches lie on a device.
pub struct DeviceDecoder {
    device: Device,
    shape: Shape,
    heads: Heads,
    kv_type: DType,
    embedding: Matrix,
    vocabulary: usize,
    output_norm: Tensor,
    head: Linear,
    layers: Vec<Layer>,
    /// Of layers that see everything, and of layers with a window.
    turns: [Turns; 2],
    rows: usize,
    slots: usize,
    positions: usize,
    sizes: Sizes,
    logits: Vec<f32>,
}

/// What stands between gate and up and down.
fn gated(gate: &Tensor, up: &Tensor, function: Gate) -> anyhow::Result<Tensor> {
    let gate = gate.contiguous()?;
    let gate = match function {
        Gate::Silu => gate.silu()?,
        Gate::Gelu => gate.gelu()?,
    };
    Ok((gate * up)?)
}

impl FeedForward {
    fn load(loader: &mut Loader<'_>, shape: &Shape, index: usize) -> anyhow::Result<Self> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (hidden, width) = (shape.hidden, shape.feed_forward);
        if let Some(experts) = shape.experts {
            return Ok(Self::Experts(Experts::load(loader, shape, index, experts)?));
        }
        let wide = if loader.weights.has(&name("ffn_gate.weight")) {
            vec![
                loader.linear(&name("ffn_gate"), width, hidden)?,
                loader.linear(&name("ffn_up"), width, hidden)?,
            ]
        } else {
            vec![loader.linear(&name("ffn_up"), 2 * width, hidden)?]
        };
        Ok(Self::Dense(wide, loader.linear(&name("ffn_down"), hidden, width)?))
    }

    fn forward(&self, x: &Tensor, shape: &Shape) -> anyhow::Result<Tensor> {
        let width = shape.feed_forward;
        match self {
            Self::Experts(experts) => experts.forward(x, shape.gate),
            Self::Dense(wide, down) => {
                let wide = match wide.as_slice() {
                    [gate, up] => gated(&gate.forward(x)?, &up.forward(x)?, shape.gate)?,
                    both => {
                        let both = both.first().ok_or_else(|| anyhow!("no gate"))?.forward(x)?;
                        let up = both.narrow(1, width, width)?;
                        gated(&both.narrow(1, 0, width)?, &up, shape.gate)?
                    }
                };
                down.forward(&wide)
            }
        }
    }
}

impl Layer {
    fn load(
        loader: &mut Loader<'_>,
        shape: &Shape,
        index: usize,
        cache: Cache,
    ) -> anyhow::Result<Self> {
        let name = |part: &str| format!("blk.{index}.{part}");
        let (hidden, dim) = (shape.hidden, shape.head_dim);
        let (queries, keys) = (shape.heads * dim, shape.kv_heads * dim);
        let projections = if loader.weights.has(&name("attn_qkv.weight")) {
            vec![loader.linear(&name("attn_qkv"), shape.projected(), hidden)?]
        } else {
            vec![
                loader.linear(&name("attn_q"), queries, hidden)?,
                loader.linear(&name("attn_k"), keys, hidden)?,
                loader.linear(&name("attn_v"), keys, hidden)?,
            ]
        };
        Ok(Self {
            attention_norm: loader.vector(&name("attn_norm.weight"), hidden)?,
            projections,
            query_norm: loader.optional(&name("attn_q_norm.weight"), dim)?,
            key_norm: loader.optional(&name("attn_k_norm.weight"), dim)?,
            output: loader.linear(&name("attn_output"), hidden, queries)?,
            attention_post_norm: loader.optional(&name("post_attention_norm.weight"), hidden)?,
            feed_forward_norm: loader.vector(&name("ffn_norm.weight"), hidden)?,
            feed_forward: FeedForward::load(loader, shape, index)?,
            feed_forward_post_norm: loader.optional(&name("post_ffw_norm.weight"), hidden)?,
            cache,
        })
    }

    /// Rows × heads × width of queries, keys and values.
    fn project(&self, x: &Tensor, heads: Heads) -> anyhow::Result<[Tensor; 3]> {
        let rows = x.dim(0)?;
        let apart = |x: Tensor, n: usize| x.reshape((rows, n, heads.dim));
        let (queries, keys) = (heads.queries * heads.dim, heads.keys * heads.dim);
        Ok(match self.projections.as_slice() {
            [query, key, value] => [
                apart(query.forward(x)?, heads.queries)?,
                apart(key.forward(x)?, heads.keys)?,
                apart(value.forward(x)?, heads.keys)?,
            ],
            all => {
                let all = all.first().ok_or_else(|| anyhow!("no projections"))?.forward(x)?;
                [
                    apart(all.narrow(1, 0, queries)?.contiguous()?, heads.queries)?,
                    apart(all.narrow(1, queries, keys)?.contiguous()?, heads.keys)?,
                    apart(all.narrow(1, queries + keys, keys)?.contiguous()?, heads.keys)?,
                ]
            }
        })
    }
}

impl Turns {
    fn new(mut rope: Rope, dims: usize, positions: usize, device: &Device) -> anyhow::Result<Self> {
        rope.set_positions(0..positions as u32);
        let (cosines, sines) = rope.tables(positions);
        let shape = (positions, dims / 2);
        Ok(Self {
            cosines: Tensor::from_vec(cosines, shape, device)?,
            sines: Tensor::from_vec(sines, shape, device)?,
        })
    }

    /// Those of a step's rows: rows × 1 × half.
    fn at(&self, positions: &Tensor) -> anyhow::Result<Self> {
        let at = |table: &Tensor| table.index_select(positions, 0)?.unsqueeze(1);
        Ok(Self { cosines: at(&self.cosines)?, sines: at(&self.sines)? })
    }
}

impl DeviceDecoder {
    /// Loads the weights onto `device` and makes room for `settings.slots` sequences.
    pub fn load(
        weights: &Weights,
        settings: &Settings,
        rows: usize,
        device: Device,
    ) -> anyhow::Result<Self> {
        let shape = Shape::read(&weights.content.metadata)?;
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
        let heads = Heads {
            queries: shape.heads,
            keys: shape.kv_heads,
            dim: shape.head_dim,
            scale: f64::from(shape.attention_scale),
        };
        let (slots, positions) = (settings.slots.max(1) as usize, settings.slot_tokens as usize);
        let (vocabulary, hidden) = (weights.shape("token_embd.weight")?.0, shape.hidden);
        let mut loader = Loader { weights, device: &device, bytes: 0 };
        let embedding = loader.matrix("token_embd.weight", &[vocabulary, hidden])?;
        let head = match weights.has("output.weight") {
            true => loader.linear("output", vocabulary, hidden)?,
            false => Linear { matrix: embedding.clone(), bias: None },
        };
        let output_norm = loader.vector("output_norm.weight", hidden)?;
        let mut cache_bytes = 0;
        let layers = (0..shape.layers)
            .map(|index| {
                let cache = Cache::new(slots, heads, positions, kv_type, &device)?;
                cache_bytes += cache.bytes();
                Layer::load(&mut loader, &shape, index, cache)
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let factors = weights.rope_factors(&shape, positions)?;
        let sizes = Sizes { weights: loader.bytes, cache: cache_bytes, buffers: 0 };
        weights.all_used()?;
        let turns = |scaling| {
            let rope = Rope::new(scaling, factors.as_deref(), positions);
            Turns::new(rope, shape.rope.dims, positions, &device)
        };
        let turns = [turns(&shape.rope)?, turns(&shape.window_rope)?];
        let logits = Vec::new();
        Ok(Self {
            device,
            shape,
            heads,
            kv_type,
            embedding,
            vocabulary,
            output_norm,
            head,
            layers,
            turns,
            rows,
            slots,
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
        self.slots
    }

    /// Values of a row of logits.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// What lies in memory; candle does not say what its operations allocate.
    pub fn sizes(&self) -> &Sizes {
        &self.sizes
    }

    /// The last step's logits, on the host.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Waits until the device has done all that it was given.
    pub fn wait(&self) -> anyhow::Result<()> {
        Ok(self.device.synchronize()?)
    }

    /// Computes the chunks, with logits after every token or after those that the chunks name.
    /// Without logits it does not wait for the device.
    pub fn step(&mut self, chunks: &[Chunk<'_>], all_logits: bool) -> anyhow::Result<()> {
        let order = attention::order(chunks);
        let ordered: Vec<&Chunk<'_>> = order.iter().map(|&i| &chunks[i]).collect();
        let mut firsts = vec![0; chunks.len()];
        let (mut tokens, mut positions) = (Vec::new(), Vec::new());
        for (&i, chunk) in order.iter().zip(&ordered) {
            let end = chunk.position as usize + chunk.tokens.len();
            if chunk.sequence as usize >= self.slots || end > self.positions {
                bail!("position {end} of sequence {} is outside the cache", chunk.sequence);
            }
            if let Some(token) = chunk.tokens.iter().find(|&&t| t as usize >= self.vocabulary) {
                bail!("token {token} is outside the vocabulary of {}", self.vocabulary);
            }
            firsts[i] = tokens.len() as u32;
            tokens.extend_from_slice(chunk.tokens);
            positions.extend(chunk.position..end as u32);
        }
        let count = tokens.len();
        if count > self.rows {
            bail!("{count} tokens are too many for a step of at most {}", self.rows);
        }
        let mut wanted = Vec::new();
        for (chunk, &first) in chunks.iter().zip(&firsts) {
            let end = first + chunk.tokens.len() as u32;
            if all_logits {
                wanted.extend(first..end);
            } else if chunk.logits {
                wanted.push(end - 1);
            }
        }
        let windows = &self.shape.windows;
        let window = windows.iter().copied().flatten().next();
        let spans = attention::spans(&ordered, self.heads, window, self.kv_type, &self.device)?;
        let positions = Tensor::from_vec(positions, count, &self.device)?;
        let turns = match window {
            Some(_) => vec![self.turns[0].at(&positions)?, self.turns[1].at(&positions)?],
            None => vec![self.turns[0].at(&positions)?],
        };
        let mut stream = self.embedding.rows(&Tensor::from_vec(tokens, count, &self.device)?)?;
        if self.shape.embedding_scale != 1.0 {
            stream = (stream * f64::from(self.shape.embedding_scale))?;
        }
        for (layer, window) in self.layers.iter().zip(windows) {
            let windowed = window.is_some();
            let normed = self.norm(&stream, &layer.attention_norm)?;
            let [query, key, value] = layer.project(&normed, self.heads)?;
            let turns = &turns[usize::from(windowed)];
            let query = self.turn(self.post_norm(query, layer.query_norm.as_ref())?, turns)?;
            let key = self.turn(self.post_norm(key, layer.key_norm.as_ref())?, turns)?;
            let found = spans
                .iter()
                .map(|s| layer.cache.attend(s, self.heads, [&query, &key, &value], windowed))
                .collect::<anyhow::Result<Vec<_>>>()?;
            let output = layer.output.forward(&attention::join(found)?)?;
            let output = self.post_norm(output, layer.attention_post_norm.as_ref())?;
            stream = (stream + output)?;
            let normed = self.norm(&stream, &layer.feed_forward_norm)?;
            let output = layer.feed_forward.forward(&normed, &self.shape)?;
            let output = self.post_norm(output, layer.feed_forward_post_norm.as_ref())?;
            stream = (stream + output)?;
        }
        self.logits.clear();
        if wanted.is_empty() {
            return Ok(());
        }
        let count = wanted.len();
        let rows = match wanted.iter().enumerate().all(|(i, &row)| row == i as u32) {
            true => stream.narrow(0, 0, count)?,
            false => stream.index_select(&Tensor::from_vec(wanted, count, &self.device)?, 0)?,
        };
        let mut logits = self.head.forward(&self.norm(&rows, &self.output_norm)?)?;
        if let Some(cap) = self.shape.logit_softcap {
            logits = ((logits / f64::from(cap))?.tanh()? * f64::from(cap))?;
        }
        // Copying to the host waits for the device.
        self.logits = logits.flatten_all()?.to_vec1()?;
        Ok(())
    }

    fn norm(&self, x: &Tensor, weights: &Tensor) -> anyhow::Result<Tensor> {
        Ok(candle_nn::ops::rms_norm(&x.contiguous()?, weights, self.shape.norm_eps)?)
    }

    fn post_norm(&self, x: Tensor, weights: Option<&Tensor>) -> anyhow::Result<Tensor> {
        weights.map_or(Ok(x.clone()), |weights| self.norm(&x, weights))
    }

    /// Rows × heads × width, turned by the rows' angles.
    fn turn(&self, x: Tensor, turns: &Turns) -> anyhow::Result<Tensor> {
        let dims = self.shape.rope.dims;
        let rest = self.shape.head_dim - dims;
        let turning = if rest == 0 { x.clone() } else { x.narrow(2, 0, dims)?.contiguous()? };
        // A batch of rows with one position each.
        let turning = turning.unsqueeze(2)?;
        let Turns { cosines, sines } = turns;
        let turned = match self.shape.rope.pairs {
            Pairs::Halves => candle_nn::rotary_emb::rope(&turning, cosines, sines)?,
            Pairs::Adjacent => candle_nn::rotary_emb::rope_i(&turning, cosines, sines)?,
        };
        let turned = turned.squeeze(2)?;
        if rest == 0 {
            return Ok(turned);
        }
        Ok(Tensor::cat(&[turned, x.narrow(2, dims, rest)?], D::Minus1)?)
    }
}

#[cfg(test)]
mod tests {
    use bench::catalog::models::{Arch, ModelSpec};
    use bench::model::quant::Quant;
    use bench::model::synth;

    use super::*;
    use crate::decoder::Decoder;
    use crate::threads::Threads;

    /// Both decoders over the same steps: a prompt, prompts beside single tokens, and tokens of
    /// several sequences at equal and at unequal positions. Gives the lowest cosine of two rows of
    /// logits.
    fn lowest_cosine(spec: &ModelSpec, quant: Quant, kv_type: &str) -> f32 {
        let dir = tempfile::tempdir().unwrap();
        let path = synth::ensure(spec, quant, 1, dir.path(), &mut |_, _| {}).unwrap();
        let kv_type = Some(kv_type.to_owned());
        let settings = Settings { slots: 4, slot_tokens: 96, kv_type, ..Settings::default() };
        let threads = Threads::new(None).unwrap();
        let open = || Weights::open(&path).unwrap();
        let mut ours = Decoder::load(&open(), &settings, threads, 96).unwrap();
        let mut theirs = DeviceDecoder::load(&open(), &settings, 96, Device::Cpu).unwrap();
        let text: Vec<u32> = (0..90).map(|i| (i * 37 + 5) % 1024).collect();
        let chunk = |sequence, position, range: std::ops::Range<usize>| Chunk {
            sequence,
            position,
            tokens: &text[range],
            logits: true,
        };
        let mut lowest = 1.0_f32;
        for step in [
            vec![chunk(0, 0, 0..70)],
            vec![chunk(0, 70, 70..75), chunk(1, 0, 3..20)],
            vec![chunk(2, 0, 7..20), chunk(1, 17, 20..21), chunk(0, 75, 75..76)],
            vec![chunk(2, 13, 20..21), chunk(0, 76, 76..77), chunk(1, 18, 21..22)],
            vec![chunk(3, 0, 40..41), chunk(0, 77, 77..78)],
            vec![chunk(0, 78, 78..79), chunk(1, 19, 22..23), chunk(3, 1, 41..42)],
            vec![chunk(0, 20, 50..51), chunk(1, 20, 23..24)],
        ] {
            ours.step(&step, false).unwrap();
            theirs.step(&step, false).unwrap();
            // Ours has room for more rows.
            let rows = theirs.logits().chunks_exact(theirs.vocabulary());
            assert_eq!(rows.len(), step.len());
            for (a, b) in ours.logits().chunks_exact(theirs.vocabulary()).zip(rows) {
                let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
                lowest = lowest.min(dot(a, b) / (dot(a, a) * dot(b, b)).sqrt());
            }
        }
        lowest
    }

    const ARCHITECTURES: [Arch; 6] =
        [Arch::Llama, Arch::Qwen2, Arch::Qwen3, Arch::Gemma3, Arch::Phi3, Arch::Qwen3Moe];

    #[test]
    fn candles_operations_and_our_kernels_give_the_same_logits() {
        for arch in ARCHITECTURES {
            let lowest = lowest_cosine(&ModelSpec::tiny(arch), Quant::F16, "f32");
            assert!(lowest >= 0.9999, "{arch:?}: {lowest}");
        }
    }

    #[test]
    fn quantised_weights_and_a_half_width_cache_give_them_too() {
        for arch in ARCHITECTURES {
            let mut spec = ModelSpec::tiny(arch);
            // Rounding decides between experts that a random router scores alike.
            spec.experts.iter_mut().for_each(|experts| experts.active = experts.total);
            let lowest = lowest_cosine(&spec, Quant::Q8_0, "f16");
            assert!(lowest >= 0.99, "{arch:?}: {lowest}");
        }
    }
}
