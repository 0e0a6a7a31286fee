//! The decoder: one sequence of steps for all architectures, over rows of many sequences at once.

use anyhow::{anyhow, bail};
use bench::runner::batching::Chunk;
use bench::runner::{Fault, Settings};
use half::f16;

use crate::activations::Forms;
use crate::attention::{Attention, Run};
use crate::buffers::Buffers;
use crate::cache::{AnyCache, Cache};
use crate::layer::{FeedForward, Layer, Linear};
use crate::matrix::{Matrix, Product, multiply};
use crate::rope::Rope;
use crate::rows::rms_norm_in_place;
use crate::shape::Shape;
use crate::simd::Element;
use crate::threads::{Shared, Threads};
use crate::weights::Weights;

/// A loaded model with the caches of all sequences.
pub struct Decoder {
    threads: Threads,
    shape: Shape,
    vocabulary: usize,
    embedding: Matrix,
    output_norm: Vec<f32>,
    /// `None`: the embedding's weights.
    head: Option<Linear>,
    layers: Vec<Layer>,
    cache: AnyCache,
    buffers: Buffers,
    rows: usize,
    slots: usize,
}

/// Bytes of a decoder's parts.
#[derive(Clone, Copy)]
pub struct Sizes {
    /// Weights.
    pub weights: usize,
    /// Keys and values.
    pub cache: usize,
    /// Everything else that is kept between steps.
    pub buffers: usize,
}

impl Decoder {
    /// Loads the weights and makes room for `settings.slots` sequences and `rows` rows a step.
    pub fn load(
        weights: &Weights,
        settings: &Settings,
        threads: Threads,
        rows: usize,
    ) -> anyhow::Result<Self> {
        let shape = Shape::read(&weights.content.metadata)?;
        let (vocabulary, _) = weights.shape("token_embd.weight")?;
        let hidden = shape.hidden;
        let embedding = weights.whole(threads, "token_embd.weight", vocabulary, hidden)?;
        let output_norm = weights.vector("output_norm.weight", hidden)?;
        let head = match weights.has("output.weight") {
            false => None,
            true => Some(Linear {
                matrix: weights.whole(threads, "output.weight", vocabulary, hidden)?,
                bias: weights.optional_vector("output.bias", vocabulary)?,
            }),
        };
        let layers = (0..shape.layers)
            .map(|index| Layer::load(weights, threads, &shape, index))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let slots = settings.slots.max(1) as usize;
        let tokens = settings.slot_tokens as usize;
        let factors = weights.rope_factors(&shape, tokens)?;
        weights.all_used()?;

        let (layer_count, kv_heads, dim) = (shape.layers, shape.kv_heads, shape.head_dim);
        let cache = match settings.kv_type.as_deref().unwrap_or("f16") {
            "f16" => AnyCache::F16(Cache::new(layer_count, kv_heads, dim, slots, tokens)),
            "f32" => AnyCache::F32(Cache::new(layer_count, kv_heads, dim, slots, tokens)),
            other => {
                return Err(anyhow!("this engine has no KV type '{other}'; use f16 or f32")
                    .context(Fault::Unsupported));
            }
        };
        let ropes = [
            Rope::new(&shape.rope, factors.as_deref(), rows),
            Rope::new(&shape.window_rope, factors.as_deref(), rows),
        ];
        let mut decoder = Self {
            buffers: Buffers::new(&shape, vocabulary, rows, slots, ropes),
            threads,
            shape,
            vocabulary,
            embedding,
            output_norm,
            head,
            layers,
            cache,
            rows,
            slots,
        };
        decoder.reserve();
        Ok(decoder)
    }

    /// Makes the room that depends on the weights' types.
    fn reserve(&mut self) {
        let (shape, rows) = (&self.shape, self.rows);
        let activations = &mut self.buffers.activations;
        for layer in &self.layers {
            for linear in &layer.projections {
                activations.reserve(rows, shape.hidden, linear.matrix.forms());
            }
            activations.reserve(rows, shape.heads * shape.head_dim, layer.output.matrix.forms());
            activations.reserve(rows, shape.hidden, layer.feed_forward.forms());
            match &layer.feed_forward {
                FeedForward::Dense { down, .. } => {
                    activations.reserve(rows, shape.feed_forward, down.forms());
                }
                FeedForward::Experts(experts) => experts.reserve(&mut self.buffers.experts, rows),
            }
        }
        let head = self.head.as_ref().map_or(&self.embedding, |head| &head.matrix);
        self.buffers.activations.reserve(rows, shape.hidden, head.forms());
    }

    /// What lies in memory.
    pub fn sizes(&self) -> Sizes {
        let layers = self.layers.iter().map(|layer| {
            let projections: usize = layer.projections.iter().map(|l| l.matrix.bytes()).sum();
            projections + layer.output.matrix.bytes() + layer.feed_forward.bytes()
        });
        let head = self.head.as_ref().map_or(0, |head| head.matrix.bytes());
        Sizes {
            weights: self.embedding.bytes() + head + layers.sum::<usize>(),
            cache: match &self.cache {
                AnyCache::F16(cache) => cache.bytes(),
                AnyCache::F32(cache) => cache.bytes(),
            },
            buffers: self.buffers.bytes(),
        }
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

    /// The last step's logits: a row for each that was wanted, in order.
    pub fn logits(&self) -> &[f32] {
        &self.buffers.logits
    }

    /// Computes the chunks, with logits after every token or after those that the chunks name.
    pub fn step(&mut self, chunks: &[Chunk<'_>], all_logits: bool) -> anyhow::Result<()> {
        match &mut self.cache {
            AnyCache::F16(cache) => {
                // The cache is taken out for the call, because the rest of `self` is borrowed too.
                let mut cache = std::mem::replace(cache, Cache::<f16>::new(0, 0, 0, 0, 0));
                let result = self.step_with(&mut cache, chunks, all_logits);
                self.cache = AnyCache::F16(cache);
                result
            }
            AnyCache::F32(cache) => {
                let mut cache = std::mem::replace(cache, Cache::<f32>::new(0, 0, 0, 0, 0));
                let result = self.step_with(&mut cache, chunks, all_logits);
                self.cache = AnyCache::F32(cache);
                result
            }
        }
    }

    fn step_with<E: Element>(
        &mut self,
        cache: &mut Cache<E>,
        chunks: &[Chunk<'_>],
        all_logits: bool,
    ) -> anyhow::Result<()> {
        let mut runs = Vec::with_capacity(chunks.len());
        let mut wanted = Vec::with_capacity(chunks.len());
        let mut rows = 0;
        for chunk in chunks {
            let (slot, position) = (chunk.sequence as usize, chunk.position as usize);
            let tokens = chunk.tokens.len();
            if slot >= self.slots || position + tokens > cache.positions() {
                bail!(
                    "positions {position} to {} of sequence {slot} are outside the cache of {} × {}",
                    position + tokens,
                    self.slots,
                    cache.positions()
                );
            }
            runs.push(Run { row: rows, tokens, slot, position });
            if all_logits {
                wanted.extend(rows..rows + tokens);
            } else if chunk.logits {
                wanted.push(rows + tokens - 1);
            }
            rows += tokens;
        }
        if rows > self.rows {
            bail!("{rows} tokens are too many for one step of at most {}", self.rows);
        }
        self.embed(chunks)?;
        for rope in &mut self.buffers.ropes {
            rope.set_positions(
                chunks.iter().flat_map(|c| c.position..c.position + c.tokens.len() as u32),
            );
        }
        let last = self.layers.len() - 1;
        for index in 0..=last {
            self.project(index, rows)?;
            self.write_cache(index, &runs, cache);
            self.attend(index, &runs, cache);
            if index == last && wanted.len() < rows {
                // Only rows whose logits are wanted go through the rest.
                self.buffers.keep(
                    &wanted,
                    self.shape.hidden,
                    self.shape.heads * self.shape.head_dim,
                );
                rows = wanted.len();
            }
            if rows > 0 {
                self.finish(index, rows)?;
            }
        }
        self.compute_logits(rows)
    }

    fn embed(&mut self, chunks: &[Chunk<'_>]) -> anyhow::Result<()> {
        let hidden = self.shape.hidden;
        let scale = self.shape.embedding_scale;
        let tokens: Vec<u32> = chunks.iter().flat_map(|c| c.tokens.iter().copied()).collect();
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= self.vocabulary) {
            bail!("token {token} is outside the vocabulary of {}", self.vocabulary);
        }
        let stream = Shared::new(&mut self.buffers.stream);
        let failed = std::sync::Mutex::new(Ok(()));
        self.threads.share(tokens.len(), 8, |range| {
            for i in range {
                // SAFETY: each token has its own row.
                let row = unsafe { stream.part(i * hidden..(i + 1) * hidden) };
                if let Err(error) = self.embedding.row(tokens[i] as usize, row) {
                    *failed.lock().unwrap_or_else(|e| e.into_inner()) = Err(error);
                }
                if scale != 1.0 {
                    row.iter_mut().for_each(|x| *x *= scale);
                }
            }
        });
        failed.into_inner().unwrap_or_else(|e| e.into_inner())
    }

    /// Queries, keys and values of all rows.
    fn project(&mut self, index: usize, rows: usize) -> anyhow::Result<()> {
        let layer = &self.layers[index];
        let forms = layer.projections.iter().fold(Forms::default(), |f, l| f.or(l.matrix.forms()));
        self.buffers.norm(self.threads, &layer.attention_norm, &self.shape, rows, forms);
        let stride = self.shape.projected();
        let mut offset = 0;
        let mut products = Vec::with_capacity(3);
        for linear in &layer.projections {
            let product = linear.product(rows, &mut self.buffers.projected);
            products.push(Product { offset, stride, ..product });
            offset += linear.matrix.n;
        }
        multiply(self.threads, &self.buffers.activations, &products)
    }

    /// Norms and turns queries and keys, and writes keys and values into the cache.
    fn write_cache<E: Element>(&mut self, index: usize, runs: &[Run], cache: &mut Cache<E>) {
        let (layer, shape) = (&self.layers[index], &self.shape);
        let rope = &self.buffers.ropes[usize::from(shape.windows[index].is_some())];
        let (dim, stride) = (shape.head_dim, shape.projected());
        let rows: usize = runs.iter().map(|run| run.tokens).sum();
        let projected = Shared::new(&mut self.buffers.projected);
        let writer = cache.writer();
        self.threads.share(rows, 4, |range| {
            for row in range {
                // SAFETY: each row has its own part.
                let all = unsafe { projected.part(row * stride..(row + 1) * stride) };
                let (queries, rest) = all.split_at_mut(shape.heads * dim);
                let (keys, values) = rest.split_at_mut(shape.kv_heads * dim);
                let sides = [(queries, &layer.query_norm), (&mut *keys, &layer.key_norm)];
                for (heads, norm) in sides {
                    for head in heads.chunks_exact_mut(dim) {
                        if let Some(norm) = norm {
                            rms_norm_in_place(head, norm, shape.norm_eps);
                        }
                        rope.turn(row, head);
                    }
                }
                let Some(run) = runs.iter().find(|run| row < run.row + run.tokens) else {
                    continue;
                };
                let position = run.position + row - run.row;
                let heads = keys.chunks_exact(dim).zip(values.chunks_exact(dim));
                for (head, (key, value)) in heads.enumerate() {
                    // SAFETY: each row is one position of one sequence.
                    unsafe { writer.write((index, run.slot, head), position, key, value) };
                }
            }
        });
    }

    fn attend<E: Element>(&mut self, index: usize, runs: &[Run], cache: &Cache<E>) {
        let shape = &self.shape;
        let attention = Attention {
            cache,
            layer: index,
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            dim: shape.head_dim,
            scale: shape.attention_scale,
            window: shape.windows[index],
        };
        let Buffers { projected, attended, .. } = &mut self.buffers;
        attention.attend(self.threads, runs, projected, shape.projected(), attended);
    }

    /// From what attention gave to the layer's end.
    fn finish(&mut self, index: usize, rows: usize) -> anyhow::Result<()> {
        let (threads, shape, layer) = (self.threads, &self.shape, &self.layers[index]);
        let buffers = &mut self.buffers;
        let (hidden, width) = (shape.hidden, shape.heads * shape.head_dim);
        let attended = &buffers.attended;
        let forms = layer.output.matrix.forms();
        buffers.activations.fill(
            threads,
            rows,
            width,
            forms,
            |i| i,
            |i| &attended[i * width..][..width],
        );
        let add = layer.attention_post_norm.is_none();
        let out = if add { &mut buffers.stream } else { &mut buffers.normed };
        let output = Product { add, ..layer.output.product(rows, out) };
        multiply(threads, &buffers.activations, &[output])?;
        if let Some(norm) = &layer.attention_post_norm {
            buffers.join(threads, norm, shape, rows);
        }

        let forms = layer.feed_forward.forms();
        buffers.norm(threads, &layer.feed_forward_norm, shape, rows, forms);
        let add = layer.feed_forward_post_norm.is_none();
        match &layer.feed_forward {
            FeedForward::Dense { gate, up, down } => {
                let width = shape.feed_forward;
                let blank = Product {
                    matrix: up,
                    gate: Some((gate, shape.gate)),
                    bias: None,
                    panel: 0,
                    rows,
                    out: Shared::new(&mut buffers.hidden),
                    offset: 0,
                    stride: width,
                    add: false,
                };
                multiply(threads, &buffers.activations, &[blank])?;
                let values = &buffers.hidden;
                buffers.activations.fill(
                    threads,
                    rows,
                    width,
                    down.forms(),
                    |i| i,
                    |i| &values[i * width..][..width],
                );
                let out = if add { &mut buffers.stream } else { &mut buffers.normed };
                let (out, matrix) = (Shared::new(out), down);
                let down = Product { matrix, gate: None, out, stride: hidden, add, ..blank };
                multiply(threads, &buffers.activations, &[down])?;
            }
            FeedForward::Experts(experts) => {
                if !add {
                    bail!("experts with a norm behind them are not supported");
                }
                let Buffers { experts: room, activations, normed, stream, .. } = buffers;
                let (rows, stream) = (&normed[..rows * hidden], &mut stream[..rows * hidden]);
                experts.run(threads, room, shape.gate, activations, rows, stream)?;
            }
        }
        if let Some(norm) = &layer.feed_forward_post_norm {
            buffers.join(threads, norm, shape, rows);
        }
        Ok(())
    }

    fn compute_logits(&mut self, rows: usize) -> anyhow::Result<()> {
        let (threads, vocabulary) = (self.threads, self.vocabulary);
        let logits = self.buffers.logits.len().max(rows * vocabulary);
        self.buffers.logits.resize(logits, 0.0);
        if rows == 0 {
            return Ok(());
        }
        let (matrix, bias) = match &self.head {
            Some(head) => (&head.matrix, head.bias.as_deref()),
            None => (&self.embedding, None),
        };
        self.buffers.norm(threads, &self.output_norm, &self.shape, rows, matrix.forms());
        let product = Product {
            matrix,
            gate: None,
            bias,
            panel: 0,
            rows,
            out: Shared::new(&mut self.buffers.logits),
            offset: 0,
            stride: vocabulary,
            add: false,
        };
        multiply(threads, &self.buffers.activations, &[product])?;
        if let Some(cap) = self.shape.logit_softcap {
            for logit in &mut self.buffers.logits[..rows * vocabulary] {
                *logit = (*logit / cap).tanh() * cap;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bench::catalog::models::{Arch, ModelSpec};
    use bench::model::quant::Quant;
    use bench::model::synth;

    use super::*;

    fn decoder(arch: Arch, kv_type: &str) -> Decoder {
        let dir = tempfile::tempdir().unwrap();
        let spec = ModelSpec::tiny(arch);
        let path = synth::ensure(&spec, Quant::Q8_0, 1, dir.path(), &mut |_, _| {}).unwrap();
        let kv_type = Some(kv_type.to_owned());
        let settings = Settings { slots: 3, slot_tokens: 128, kv_type, ..Settings::default() };
        let threads = Threads::new(None).unwrap();
        Decoder::load(&Weights::open(&path).unwrap(), &settings, threads, 64).unwrap()
    }

    fn tokens(seed: u32, count: u32) -> Vec<u32> {
        (0..count).map(|i| (seed + 37 * i + i * i) % 1024).collect()
    }

    fn chunk(sequence: u32, position: u32, tokens: &[u32]) -> Chunk<'_> {
        Chunk { sequence, position, tokens, logits: true }
    }

    /// The logits after the last of `tokens`, computed alone and in one piece.
    fn alone(decoder: &mut Decoder, tokens: &[u32]) -> Vec<f32> {
        decoder.step(&[chunk(0, 0, tokens)], false).unwrap();
        decoder.logits()[..decoder.vocabulary()].to_vec()
    }

    fn assert_same(got: &[f32], want: &[f32], what: &str) {
        let far = got.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let size = want.iter().map(|x| x.abs()).fold(0.0, f32::max);
        assert!(far <= 1e-4 * size, "{what}: {far} apart, of {size}");
    }

    #[test]
    fn sequences_at_different_positions_do_not_disturb_each_other() {
        for arch in [Arch::Llama, Arch::Qwen3Moe, Arch::Gemma3] {
            for kv_type in ["f16", "f32"] {
                let mut decoder = decoder(arch, kv_type);
                let texts = [tokens(1, 30), tokens(500, 7), tokens(90, 19)];
                let wants = texts.each_ref().map(|text| alone(&mut decoder, text));
                for (i, text) in texts.iter().enumerate() {
                    let (start, _) = text.split_at(text.len() - 1 - i);
                    decoder.step(&[chunk(i as u32, 0, start)], false).unwrap();
                }
                let chunks: Vec<_> = texts
                    .iter()
                    .enumerate()
                    .map(|(i, text)| {
                        let position = text.len() - 1 - i;
                        chunk(i as u32, position as u32, &text[position..])
                    })
                    .collect();
                decoder.step(&chunks, false).unwrap();
                let vocabulary = decoder.vocabulary();
                for (i, want) in wants.iter().enumerate() {
                    let got = &decoder.logits()[i * vocabulary..][..vocabulary];
                    assert_same(got, want, &format!("{arch:?} {kv_type}, sequence {i}"));
                }
            }
        }
    }

    #[test]
    fn a_prompt_in_parts_is_the_same_as_in_one_piece() {
        let mut decoder = decoder(Arch::Qwen3, "f16");
        let text = tokens(3, 60);
        let want = alone(&mut decoder, &text);
        for (start, end) in [(0, 33), (33, 59), (59, 60)] {
            decoder.step(&[chunk(2, start as u32, &text[start..end])], false).unwrap();
        }
        assert_same(&decoder.logits()[..want.len()], &want, "three parts");
    }

    #[test]
    fn positions_beyond_the_cache_and_unknown_tokens_are_refused() {
        let mut decoder = decoder(Arch::Qwen2, "f16");
        for (chunk, words) in [
            (chunk(0, 120, &[1; 9]), "outside the cache"),
            (chunk(3, 0, &[1]), "outside the cache"),
            (chunk(0, 0, &[1024]), "outside the vocabulary"),
            (chunk(0, 0, &[1; 65]), "too many"),
        ] {
            let error = decoder.step(&[chunk], false).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
