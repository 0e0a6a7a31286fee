//! Mixtures of experts on a device.

use anyhow::Context;
use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device, Tensor};

use super::gated;
use super::linear::{Loader, Matrix};
use crate::rows::Gate;
use crate::shape::Shape;

/// A layer's experts and the router that chooses among them.
pub struct Experts {
    router: Matrix,
    /// Experts of a token.
    used: usize,
    weights: Weights,
}

enum Weights {
    /// Gate, up and down of all experts: one kernel goes to each token's own, and the choice stays
    /// on the device.
    Together([Matrix; 3]),
    /// Gate, up and down of each: the choice comes to the host, once a layer.
    Apart(Vec<[Matrix; 3]>),
}

/// Types that candle's CUDA kernel over all experts reads.
const TOGETHER: [GgmlDType; 6] = [
    GgmlDType::Q2K,
    GgmlDType::Q3K,
    GgmlDType::Q4K,
    GgmlDType::Q5K,
    GgmlDType::Q6K,
    GgmlDType::Q8_0,
];

impl Experts {
    /// Reads layer `index`.
    pub fn load(
        loader: &mut Loader<'_>,
        shape: &Shape,
        index: usize,
        (count, used): (usize, usize),
    ) -> anyhow::Result<Self> {
        let name = |part: &str| format!("blk.{index}.{part}.weight");
        let (hidden, width) = (shape.hidden, shape.feed_forward);
        let parts = [
            (name("ffn_gate_exps"), (width, hidden)),
            (name("ffn_up_exps"), (width, hidden)),
            (name("ffn_down_exps"), (hidden, width)),
        ];
        let mut types = parts.iter().map(|(name, _)| loader.weights.dtype(name));
        let together = matches!(loader.device, Device::Cuda(_))
            && types.all(|dtype| dtype.is_ok_and(|dtype| TOGETHER.contains(&dtype)));
        let weights = if together {
            let [gate, up, down] = &parts;
            let mut all =
                |(name, (n, k)): &(String, (usize, usize))| loader.matrix(name, &[count, *n, *k]);
            Weights::Together([all(gate)?, all(up)?, all(down)?])
        } else {
            let [gate, up, down] = &parts;
            let mut each =
                |(name, shape): &(String, (usize, usize))| loader.matrices(name, count, *shape);
            let (gates, ups, downs) = (each(gate)?, each(up)?, each(down)?);
            let experts = gates.into_iter().zip(ups).zip(downs);
            Weights::Apart(experts.map(|((gate, up), down)| [gate, up, down]).collect())
        };
        let router = loader.matrix(&name("ffn_gate_inp"), &[count, hidden])?;
        Ok(Self { router, used, weights })
    }

    /// Rows through each row's own experts.
    pub fn forward(&self, x: &Tensor, gate: Gate) -> anyhow::Result<Tensor> {
        let scores = self.router.forward(x)?;
        let chosen = scores.arg_sort_last_dim(false)?.narrow(1, 0, self.used)?.contiguous()?;
        // The softmax over all experts, normalised over the chosen ones, is the softmax over those.
        let shares = candle_nn::ops::softmax_last_dim(&scores.gather(&chosen, 1)?)?;
        match &self.weights {
            Weights::Together(all) => together(all, x, gate, &chosen, &shares),
            Weights::Apart(experts) => apart(experts, x, gate, &chosen, &shares),
        }
    }
}

fn together(
    [gates, ups, downs]: &[Matrix; 3],
    x: &Tensor,
    gate: Gate,
    chosen: &Tensor,
    shares: &Tensor,
) -> anyhow::Result<Tensor> {
    let run = |matrix: &Matrix, x: &Tensor| -> anyhow::Result<Tensor> {
        match matrix {
            Matrix::Quantised(tensor) => Ok(tensor.indexed_moe_forward(x, chosen)?),
            Matrix::Plain(_) => anyhow::bail!("experts that lie together are quantised"),
        }
    };
    let rows = x.contiguous()?.unsqueeze(1)?;
    let wide = gated(&run(gates, &rows)?, &run(ups, &rows)?, gate)?;
    Ok(run(downs, &wide)?.broadcast_mul(&shares.unsqueeze(2)?)?.sum(1)?)
}

fn apart(
    experts: &[[Matrix; 3]],
    x: &Tensor,
    gate: Gate,
    chosen: &Tensor,
    shares: &Tensor,
) -> anyhow::Result<Tensor> {
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); experts.len()];
    let mut weights: Vec<Vec<f32>> = vec![Vec::new(); experts.len()];
    let shares: Vec<Vec<f32>> = shares.to_vec2()?;
    for (row, (chosen, shares)) in chosen.to_vec2::<u32>()?.iter().zip(&shares).enumerate() {
        for (&expert, &share) in chosen.iter().zip(shares) {
            rows.get_mut(expert as usize).context("an expert outside the layer")?.push(row as u32);
            weights[expert as usize].push(share);
        }
    }
    let mut sum = Tensor::zeros_like(x)?.to_dtype(DType::F32)?;
    for ((expert, rows), weights) in experts.iter().zip(rows).zip(weights) {
        let count = rows.len();
        if count == 0 {
            continue;
        }
        let rows = Tensor::from_vec(rows, count, x.device())?;
        let own = x.index_select(&rows, 0)?;
        let [gates, ups, downs] = expert;
        let wide = gated(&gates.forward(&own)?, &ups.forward(&own)?, gate)?;
        let weights = Tensor::from_vec(weights, (count, 1), x.device())?;
        sum = sum.index_add(&rows, &downs.forward(&wide)?.broadcast_mul(&weights)?, 0)?;
    }
    Ok(sum)
}
