//! Matrices on a device, in the types of the file.

use std::sync::Arc;

use anyhow::bail;
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{DType, Device, Tensor};

use crate::weights::Weights;

/// A matrix with `n` rows of `k` values.
#[derive(Clone)]
pub enum Matrix {
    /// Blocks, which candle's quantised kernels read.
    Quantised(Arc<QTensor>),
    /// Plain values. candle would widen them to 32 bits: twice the bytes for each token.
    Plain(Tensor),
}

/// A matrix and what is added to its products.
pub struct Linear {
    /// The weights.
    pub matrix: Matrix,
    /// Added to each result.
    pub bias: Option<Tensor>,
}

/// Reads tensors onto one device and adds up their sizes.
pub struct Loader<'a> {
    /// The file.
    pub weights: &'a Weights,
    /// Where to.
    pub device: &'a Device,
    /// Bytes so far.
    pub bytes: usize,
}

impl Matrix {
    /// Rows × k times the matrix: rows × n, as 32-bit floats.
    pub fn forward(&self, x: &Tensor) -> anyhow::Result<Tensor> {
        Ok(match self {
            Self::Quantised(tensor) => x.contiguous()?.apply_op1_no_bwd(tensor.as_ref())?,
            Self::Plain(tensor) => {
                x.to_dtype(tensor.dtype())?.matmul(&tensor.t()?)?.to_dtype(DType::F32)?
            }
        })
    }

    /// The rows with these numbers, as 32-bit floats.
    pub fn rows(&self, numbers: &Tensor) -> anyhow::Result<Tensor> {
        Ok(match self {
            Self::Quantised(tensor) => tensor.embedding(numbers)?,
            Self::Plain(tensor) => tensor.index_select(numbers, 0)?.to_dtype(DType::F32)?,
        })
    }
}

impl Linear {
    /// Rows × k to rows × n.
    pub fn forward(&self, x: &Tensor) -> anyhow::Result<Tensor> {
        let result = self.matrix.forward(x)?;
        Ok(match &self.bias {
            Some(bias) => result.broadcast_add(bias)?,
            None => result,
        })
    }
}

impl Loader<'_> {
    /// A vector of floats.
    pub fn vector(&self, name: &str, len: usize) -> anyhow::Result<Tensor> {
        Ok(Tensor::from_vec(self.weights.vector(name, len)?, len, self.device)?)
    }

    /// A vector that only some files have.
    pub fn optional(&self, name: &str, len: usize) -> anyhow::Result<Option<Tensor>> {
        self.weights.has(name).then(|| self.vector(name, len)).transpose()
    }

    /// A tensor of the file with these dimensions, as one matrix.
    pub fn matrix(&mut self, name: &str, dims: &[usize]) -> anyhow::Result<Matrix> {
        let (dtype, bytes) = self.weights.bytes(name, dims)?;
        self.bytes += bytes.len();
        self.place(dtype, bytes, dims)
    }

    /// A layer's experts one by one.
    pub fn matrices(
        &mut self,
        name: &str,
        count: usize,
        (n, k): (usize, usize),
    ) -> anyhow::Result<Vec<Matrix>> {
        let (dtype, bytes) = self.weights.bytes(name, &[count, n, k])?;
        self.bytes += bytes.len();
        let each = bytes.len() / count;
        bytes.chunks_exact(each).map(|b| self.place(dtype, b.to_vec(), &[n, k])).collect()
    }

    fn place(&self, dtype: GgmlDType, bytes: Vec<u8>, dims: &[usize]) -> anyhow::Result<Matrix> {
        let plain = match dtype {
            GgmlDType::F32 => Some(DType::F32),
            GgmlDType::F16 => Some(DType::F16),
            GgmlDType::BF16 => Some(DType::BF16),
            _ => None,
        };
        Ok(match plain {
            Some(dtype) => {
                Matrix::Plain(Tensor::from_raw_buffer(&bytes, dtype, dims, self.device)?)
            }
            None => {
                let last = dims.last().copied().unwrap_or_default();
                if !last.is_multiple_of(dtype.block_size()) {
                    bail!("rows of {last} values are no whole blocks of {dtype:?}");
                }
                let storage =
                    candle_core::quantized::QStorage::from_data(bytes.into(), self.device, dtype)?;
                Matrix::Quantised(Arc::new(QTensor::new(storage, dims)?))
            }
        })
    }

    /// The matrix `name.weight` of `n` rows, with `name.bias` where the file has one.
    pub fn linear(&mut self, name: &str, n: usize, k: usize) -> anyhow::Result<Linear> {
        let matrix = self.matrix(&format!("{name}.weight"), &[n, k])?;
        Ok(Linear { matrix, bias: self.optional(&format!("{name}.bias"), n)? })
    }
}
