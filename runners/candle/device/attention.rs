//! Keys, values and attention of one layer, for prompts and for many sequences at once.

use std::ops::Range;

use bench::runner::batching::Chunk;
use candle_core::{D, DType, Device, Tensor};

/// Most bytes of scores at once: heads take turns at a long context.
const SCORES: usize = 512 << 20;

/// Rows of a step that are computed together: the tokens of one sequence, or one token of each of
/// several sequences that lie side by side in the cache.
pub struct Span {
    /// Their first row.
    row: usize,
    /// The first sequence, and how many.
    sequences: Range<usize>,
    /// Tokens of each.
    tokens: usize,
    /// Where all sequences' tokens go, if to the same position.
    position: Option<usize>,
    /// Where each sequence's token goes: sequences × heads × 1 × width.
    positions: Option<Tensor>,
    /// What a layer without a window sees, and one with.
    views: [View; 2],
}

/// Which positions are looked at.
struct View {
    positions: Range<usize>,
    /// Added to scores: minus infinity where a token must not look. `None`: every one looks at all.
    mask: Option<Tensor>,
}

/// What all layers share.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Query heads.
    pub queries: usize,
    /// Key and value heads.
    pub keys: usize,
    /// Width of a head.
    pub dim: usize,
    /// Factor of the products of queries and keys.
    pub scale: f64,
}

/// A layer's keys and values: sequences × heads × positions × width.
pub struct Cache {
    keys: Tensor,
    values: Tensor,
}

/// The order of a step's rows: chunks of one token first, by sequence, so that they are computed
/// together. Gives the chunks' places in the new order.
pub fn order(chunks: &[Chunk<'_>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..chunks.len()).collect();
    order.sort_by_key(|&i| (chunks[i].tokens.len() > 1, chunks[i].sequence));
    order
}

/// Cuts chunks in the order of [`order`] into spans.
pub fn spans(
    chunks: &[&Chunk<'_>],
    heads: Heads,
    window: Option<usize>,
    dtype: DType,
    device: &Device,
) -> anyhow::Result<Vec<Span>> {
    let mut spans = Vec::new();
    let (mut first, mut row) = (0, 0);
    while first < chunks.len() {
        let together = |i: usize| {
            chunks[i].tokens.len() == 1
                && chunks[i - 1].tokens.len() == 1
                && chunks[i].sequence == chunks[i - 1].sequence + 1
        };
        let end = (first + 1..chunks.len()).find(|&i| !together(i)).unwrap_or(chunks.len());
        let group = &chunks[first..end];
        let tokens = group[0].tokens.len();
        let sequence = group[0].sequence as usize;
        let same = group.iter().all(|c| c.position == group[0].position);
        let positions: Vec<u32> = group.iter().map(|c| c.position).collect();
        let count = positions.len();
        let positions = match same {
            true => None,
            false => Some(
                Tensor::from_vec(positions, (count, 1, 1, 1), device)?
                    .broadcast_as((count, heads.keys, 1, heads.dim))?
                    .contiguous()?,
            ),
        };
        spans.push(Span {
            row,
            sequences: sequence..sequence + count,
            tokens,
            position: same.then_some(group[0].position as usize),
            positions,
            views: [view(group, None, dtype, device)?, view(group, window, dtype, device)?],
        });
        row += count * tokens;
        first = end;
    }
    Ok(spans)
}

/// What the tokens of `group` look at.
fn view(
    group: &[&Chunk<'_>],
    window: Option<usize>,
    dtype: DType,
    device: &Device,
) -> anyhow::Result<View> {
    let tokens = group[0].tokens.len();
    let froms =
        || group.iter().flat_map(|c| c.position as usize..c.position as usize + c.tokens.len());
    let oldest = |from: usize| window.map_or(0, |w| (from + 1).saturating_sub(w));
    let start = froms().map(oldest).min().unwrap_or(0);
    let end = froms().max().map_or(0, |last| last + 1);
    let sees = |from: usize, to: usize| to <= from && to >= oldest(from);
    let mask = match froms().all(|from| (start..end).all(|to| sees(from, to))) {
        true => None,
        false => {
            let values: Vec<f32> = froms()
                .flat_map(|from| {
                    (start..end).map(move |to| if sees(from, to) { 0.0 } else { f32::NEG_INFINITY })
                })
                .collect();
            let shape = (group.len(), 1, tokens, end - start);
            Some(Tensor::from_vec(values, shape, device)?.to_dtype(dtype)?)
        }
    };
    Ok(View { positions: start..end, mask })
}

impl Cache {
    /// Room for `sequences` of `positions`.
    pub fn new(
        sequences: usize,
        heads: Heads,
        positions: usize,
        dtype: DType,
        device: &Device,
    ) -> anyhow::Result<Self> {
        let room = (sequences, heads.keys, positions, heads.dim);
        Ok(Self {
            keys: Tensor::zeros(room, dtype, device)?,
            values: Tensor::zeros(room, dtype, device)?,
        })
    }

    /// Bytes of both.
    pub fn bytes(&self) -> usize {
        2 * self.keys.elem_count() * self.keys.dtype().size_in_bytes()
    }

    /// Takes rows × heads × width of queries, keys and values of a span's step, and gives rows ×
    /// (heads × width) of what the span's queries find.
    pub fn attend(
        &self,
        span: &Span,
        heads: Heads,
        [query, key, value]: [&Tensor; 3],
        windowed: bool,
    ) -> anyhow::Result<Tensor> {
        let (count, tokens) = (span.sequences.len(), span.tokens);
        let rows = |x: &Tensor| x.narrow(0, span.row, count * tokens);
        // Sequences × heads × tokens × width.
        let apart = |x: Tensor, n: usize| {
            x.reshape((count, tokens, n, heads.dim))?.transpose(1, 2)?.contiguous()
        };
        let slots = |cache: &Tensor| cache.narrow(0, span.sequences.start, count);
        let dtype = self.keys.dtype();
        for (cache, new) in [(&self.keys, key), (&self.values, value)] {
            let (cache, new) = (slots(cache)?, apart(rows(new)?.to_dtype(dtype)?, heads.keys)?);
            match (span.position, &span.positions) {
                (Some(position), _) => cache.slice_set(&new, 2, position)?,
                (None, Some(positions)) => cache.scatter_set(positions, &new, 2)?,
                (None, None) => {}
            }
        }
        let query = (rows(query)? * heads.scale)?.to_dtype(dtype)?;
        let query = apart(query, heads.queries)?;
        let view = &span.views[usize::from(windowed)];
        let len = view.positions.len();
        let group = heads.queries / heads.keys;
        let seen = |cache: &Tensor, some: &Range<usize>| {
            slots(cache)?.narrow(1, some.start, some.len())?.narrow(2, view.positions.start, len)
        };
        let each = count * group * tokens * len * dtype.size_in_bytes();
        // Heads of several sequences have no common stride once they are cut.
        let together = if count > 1 { heads.keys } else { (SCORES / each.max(1)).max(1) };
        let mut found = Vec::new();
        for first in (0..heads.keys).step_by(together) {
            let some = first..(first + together).min(heads.keys);
            let queries = query.narrow(1, first * group, some.len() * group)?;
            let queries = queries.reshape((count, some.len(), group * tokens, heads.dim))?;
            let scores = queries.matmul(&seen(&self.keys, &some)?.t()?)?;
            let mut scores = scores.reshape((count, some.len() * group, tokens, len))?;
            if let Some(mask) = &view.mask {
                scores = scores.broadcast_add(mask)?;
            }
            let weights = candle_nn::ops::softmax_last_dim(&scores)?.reshape((
                count,
                some.len(),
                group * tokens,
                len,
            ))?;
            let result = weights.matmul(&seen(&self.values, &some)?)?;
            found.push(result.reshape((count, some.len() * group, tokens, heads.dim))?);
        }
        let found = match found.as_slice() {
            [all] => all.clone(),
            parts => Tensor::cat(parts, 1)?,
        };
        let width = heads.queries * heads.dim;
        Ok(found.transpose(1, 2)?.reshape((count * tokens, width))?.to_dtype(DType::F32)?)
    }
}

/// The results of all spans, one below the other.
pub fn join(spans: Vec<Tensor>) -> anyhow::Result<Tensor> {
    Ok(match spans.as_slice() {
        [all] => all.clone(),
        parts => Tensor::cat(parts, D::Minus2)?,
    })
}
