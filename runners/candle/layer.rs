//! The weights of a layer, whatever the architecture calls them.

use crate::activations::Forms;
use crate::experts::Experts;
use crate::matrix::{Matrix, Product};
use crate::shape::Shape;
use crate::threads::{Shared, Threads};
use crate::weights::Weights;

/// A matrix and what is added to its products.
pub struct Linear {
    /// The weights.
    pub matrix: Matrix,
    /// Added to each result.
    pub bias: Option<Vec<f32>>,
}

/// What stands between the second norm and the layer's end.
pub enum FeedForward {
    /// Every token goes through the same weights.
    Dense { gate: Matrix, up: Matrix, down: Matrix },
    /// Each token goes through a few of many.
    Experts(Experts),
}

/// The weights of a layer.
#[allow(missing_docs, reason = "the names are the field's own")]
pub struct Layer {
    pub attention_norm: Vec<f32>,
    /// Queries, keys and values: three matrices, or one with all of them.
    pub projections: Vec<Linear>,
    pub query_norm: Option<Vec<f32>>,
    pub key_norm: Option<Vec<f32>>,
    pub output: Linear,
    pub attention_post_norm: Option<Vec<f32>>,
    pub feed_forward_norm: Vec<f32>,
    pub feed_forward: FeedForward,
    pub feed_forward_post_norm: Option<Vec<f32>>,
}

impl Linear {
    /// The product with `rows` rows of activations, into `out`.
    pub fn product<'a>(&'a self, rows: usize, out: &mut [f32]) -> Product<'a> {
        Product {
            matrix: &self.matrix,
            gate: None,
            bias: self.bias.as_deref(),
            panel: 0,
            rows,
            out: Shared::new(out),
            offset: 0,
            stride: self.matrix.n,
            add: false,
        }
    }
}

impl Layer {
    /// Reads layer `index`.
    pub fn load(
        weights: &Weights,
        threads: Threads,
        shape: &Shape,
        index: usize,
    ) -> anyhow::Result<Self> {
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        let bias =
            |part: &str, len| weights.optional_vector(&format!("blk.{index}.{part}.bias"), len);
        let norm = |part: &str| weights.vector(&name(part), shape.hidden);
        let optional_norm = |part: &str, len| weights.optional_vector(&name(part), len);
        let whole = |part: &str, n, k| weights.whole(threads, &name(part), n, k);
        let linear = |part: &str, n, k| -> anyhow::Result<Linear> {
            Ok(Linear { matrix: whole(part, n, k)?, bias: bias(part, n)? })
        };
        let (hidden, dim) = (shape.hidden, shape.head_dim);
        let (queries, keys) = (shape.heads * dim, shape.kv_heads * dim);
        let projections = if weights.has(&name("attn_qkv")) {
            vec![linear("attn_qkv", queries + 2 * keys, hidden)?]
        } else {
            vec![
                linear("attn_q", queries, hidden)?,
                linear("attn_k", keys, hidden)?,
                linear("attn_v", keys, hidden)?,
            ]
        };
        Ok(Self {
            attention_norm: norm("attn_norm")?,
            projections,
            query_norm: optional_norm("attn_q_norm", dim)?,
            key_norm: optional_norm("attn_k_norm", dim)?,
            output: linear("attn_output", hidden, queries)?,
            attention_post_norm: optional_norm("post_attention_norm", hidden)?,
            feed_forward_norm: norm("ffn_norm")?,
            feed_forward: FeedForward::load(weights, threads, shape, index)?,
            feed_forward_post_norm: optional_norm("post_ffw_norm", hidden)?,
        })
    }
}

impl FeedForward {
    fn load(
        weights: &Weights,
        threads: Threads,
        shape: &Shape,
        index: usize,
    ) -> anyhow::Result<Self> {
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        let (hidden, width) = (shape.hidden, shape.feed_forward);
        let rows = |part: &str, rows, k| weights.matrix(threads, &name(part), rows, k);
        if let Some((count, used)) = shape.experts {
            let experts = (0..count)
                .map(|e| {
                    let wide = e * width..(e + 1) * width;
                    Ok([
                        rows("ffn_gate_exps", wide.clone(), hidden)?,
                        rows("ffn_up_exps", wide, hidden)?,
                        rows("ffn_down_exps", e * hidden..(e + 1) * hidden, width)?,
                    ])
                })
                .collect::<anyhow::Result<_>>()?;
            let router = weights.whole(threads, &name("ffn_gate_inp"), count, hidden)?;
            return Ok(Self::Experts(Experts { router, experts, used }));
        }
        let down = weights.whole(threads, &name("ffn_down"), hidden, width)?;
        if weights.has(&name("ffn_gate")) {
            let gate = weights.whole(threads, &name("ffn_gate"), width, hidden)?;
            let up = weights.whole(threads, &name("ffn_up"), width, hidden)?;
            return Ok(Self::Dense { gate, up, down });
        }
        // phi3 has the gate's rows above the others in one tensor.
        let gate = rows("ffn_up", 0..width, hidden)?;
        let up = rows("ffn_up", width..2 * width, hidden)?;
        Ok(Self::Dense { gate, up, down })
    }

    /// What the first products need.
    pub fn forms(&self) -> Forms {
        match self {
            Self::Dense { gate, up, .. } => gate.forms().or(up.forms()),
            Self::Experts(experts) => experts.router.forms(),
        }
    }

    /// Bytes of the weights.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Dense { gate, up, down } => gate.bytes() + up.bytes() + down.bytes(),
            Self::Experts(experts) => experts.bytes(),
        }
    }
}
