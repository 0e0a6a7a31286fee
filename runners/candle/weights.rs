//! The tensors of a GGUF file, read straight into the layout of their kernels.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, anyhow, bail};
use bench::runner::Fault;
use candle_core::Device;
use candle_core::quantized::gguf_file::{Content, TensorInfo};
use candle_core::quantized::{GgmlDType, QStorage, QTensor};

use crate::matrix::Matrix;
use crate::shape::Shape;
use crate::threads::Threads;

/// Tensor types that a GGUF file can have and candle cannot read, by their numbers in the file.
const UNREAD_TYPES: [(u32, &str); 12] = [
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

/// An open GGUF file.
pub struct Weights {
    file: File,
    /// candle's reading of the header.
    pub content: Content,
    used: RefCell<HashSet<String>>,
}

impl Weights {
    /// Opens a file and reads its header.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let content = Content::read(&mut BufReader::with_capacity(1 << 20, &file))
            .map_err(|error| explain(&error.to_string()))
            .with_context(|| format!("{}: candle cannot read the header", path.display()))?;
        Ok(Self { file, content, used: RefCell::default() })
    }

    /// Whether the file has the tensor.
    pub fn has(&self, name: &str) -> bool {
        self.content.tensor_infos.contains_key(name)
    }

    fn info(&self, name: &str) -> anyhow::Result<&TensorInfo> {
        self.used.borrow_mut().insert(name.to_owned());
        self.content
            .tensor_infos
            .get(name)
            .ok_or_else(|| anyhow!("the file has no tensor '{name}'"))
    }

    /// Rows and columns of a tensor; the experts of a layer are one below the other.
    pub fn shape(&self, name: &str) -> anyhow::Result<(usize, usize)> {
        match *self.info(name)?.shape.dims() {
            [n, k] => Ok((n, k)),
            [experts, n, k] => Ok((experts * n, k)),
            ref dims => bail!("tensor '{name}' has the shape {dims:?}, which is no matrix"),
        }
    }

    /// Rows of a matrix.
    pub fn matrix(
        &self,
        threads: Threads,
        name: &str,
        rows: Range<usize>,
        k: usize,
    ) -> anyhow::Result<Matrix> {
        let info = self.info(name)?;
        let (all, columns) = self.shape(name)?;
        if columns != k || rows.end > all {
            bail!(
                "tensor '{name}' is {all} × {columns}, but the header asks for {} × {k}",
                rows.end
            );
        }
        let dtype = info.ggml_dtype;
        if !k.is_multiple_of(dtype.block_size()) {
            bail!("the rows of tensor '{name}' are no whole blocks of {dtype:?}");
        }
        let row_bytes = (k / dtype.block_size() * dtype.type_size()) as u64;
        let start = self.content.tensor_data_offset + info.offset;
        let (file, first) = (&self.file, rows.start);
        let read = |row: usize, bytes: &mut [u8]| {
            file.read_exact_at(bytes, start + (first + row) as u64 * row_bytes)
        };
        Matrix::load(threads, (rows.len(), k), dtype, &read)
            .with_context(|| format!("cannot load tensor '{name}'"))
    }

    /// A whole matrix with `n` rows.
    pub fn whole(
        &self,
        threads: Threads,
        name: &str,
        n: usize,
        k: usize,
    ) -> anyhow::Result<Matrix> {
        let (rows, _) = self.shape(name)?;
        if rows != n {
            bail!("tensor '{name}' has {rows} rows, but the header asks for {n}");
        }
        self.matrix(threads, name, 0..n, k)
    }

    /// The type of a tensor.
    pub fn dtype(&self, name: &str) -> anyhow::Result<GgmlDType> {
        Ok(self.info(name)?.ggml_dtype)
    }

    /// A tensor's type and its bytes, as the file has them.
    pub fn bytes(&self, name: &str, dims: &[usize]) -> anyhow::Result<(GgmlDType, Vec<u8>)> {
        let info = self.info(name)?;
        let dtype = info.ggml_dtype;
        if info.shape.dims() != dims {
            bail!("tensor '{name}' is {:?}, but the header asks for {dims:?}", info.shape.dims());
        }
        let mut bytes = vec![0; info.shape.elem_count() / dtype.block_size() * dtype.type_size()];
        self.file
            .read_exact_at(&mut bytes, self.content.tensor_data_offset + info.offset)
            .with_context(|| format!("cannot read tensor '{name}'"))?;
        Ok((dtype, bytes))
    }

    /// A vector of floats, such as the weights of a norm.
    pub fn vector(&self, name: &str, len: usize) -> anyhow::Result<Vec<f32>> {
        let info = self.info(name)?;
        let dtype = info.ggml_dtype;
        if info.shape.elem_count() != len {
            bail!("tensor '{name}' has {} values instead of {len}", info.shape.elem_count());
        }
        let mut bytes = vec![0; len / dtype.block_size() * dtype.type_size()];
        self.file
            .read_exact_at(&mut bytes, self.content.tensor_data_offset + info.offset)
            .with_context(|| format!("cannot read tensor '{name}'"))?;
        let storage = QStorage::from_data(bytes.into(), &Device::Cpu, dtype)?;
        Ok(QTensor::new(storage, len)?.dequantize(&Device::Cpu)?.to_vec1()?)
    }

    /// A vector that only some files have.
    pub fn optional_vector(&self, name: &str, len: usize) -> anyhow::Result<Option<Vec<f32>>> {
        self.has(name).then(|| self.vector(name, len)).transpose()
    }

    /// What divides the frequencies of rotary embeddings, for a context of `tokens`.
    pub fn rope_factors(&self, shape: &Shape, tokens: usize) -> anyhow::Result<Option<Vec<f32>>> {
        let half = shape.rope.dims / 2;
        let factors = |name: &str| self.optional_vector(&format!("{name}.weight"), half);
        let (long, short) = (factors("rope_factors_long")?, factors("rope_factors_short")?);
        let scaled = if tokens > shape.rope.original_tokens { long } else { short };
        Ok(factors("rope_freqs")?.or(scaled))
    }

    /// Fails where the file has tensors that nobody asked for: a model with parts that this engine
    /// does not know would be another function.
    pub fn all_used(&self) -> anyhow::Result<()> {
        let used = self.used.borrow();
        let mut unknown: Vec<_> =
            self.content.tensor_infos.keys().filter(|name| !used.contains(*name)).collect();
        unknown.sort();
        match unknown.first() {
            None => Ok(()),
            Some(first) => Err(anyhow!(
                "the file has {} tensors that this engine does not know, such as '{first}'",
                unknown.len()
            )
            .context(Fault::Unsupported)),
        }
    }
}

/// candle's error with the name of the tensor type that it cannot read.
fn explain(error: &str) -> anyhow::Error {
    let first = error.lines().next().unwrap_or(error);
    let number = first
        .split_once("unknown dtype for tensor ")
        .and_then(|(_, rest)| rest.split_whitespace().next()?.parse::<u32>().ok());
    match number {
        None => anyhow!("{first}"),
        Some(number) => {
            let name = UNREAD_TYPES.iter().find(|(n, _)| *n == number).map(|(_, name)| *name);
            let name = name.map_or_else(|| format!("number {number}"), str::to_owned);
            anyhow!("candle cannot read tensors of type {name}; take another quantisation")
                .context(Fault::Unsupported)
        }
    }
}
