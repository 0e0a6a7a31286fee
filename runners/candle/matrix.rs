//! Weight matrices in the layout of their kernels, and products of several of them with the same
//! activations in one go.

use anyhow::Context;
use candle_core::quantized::{GgmlDType, QMatMul, QStorage, QTensor};
use candle_core::{Device, Module, Tensor};
use half::{bf16, f16};

use crate::activations::{Activations, Forms, PANEL};
use crate::kernels::float::TileFloat;
use crate::kernels::{ROWS, Tile, multiply_panel};
#[cfg(all(target_feature = "avx512vnni", target_feature = "avx512bw"))]
use crate::kernels::{q4_k::TileQ4K, q6_k::TileQ6K, q8_0::TileQ8_0};
use crate::rows::Gate;
use crate::simd::Lanes;
use crate::threads::{Shared, Threads};

/// Panels whose activations stay in the second-level cache while the weights pass.
const PANELS_AT_ONCE: usize = 16;

/// Tiles of a matrix: those of rows 0 to 15 from left to right, then of rows 16 to 31 …
struct Tiles<T>(Vec<T>);

enum Store {
    #[cfg(all(target_feature = "avx512vnni", target_feature = "avx512bw"))]
    Q4K(Tiles<TileQ4K>),
    #[cfg(all(target_feature = "avx512vnni", target_feature = "avx512bw"))]
    Q6K(Tiles<TileQ6K>),
    #[cfg(all(target_feature = "avx512vnni", target_feature = "avx512bw"))]
    Q8_0(Tiles<TileQ8_0>),
    F32(Tiles<TileFloat<f32>>),
    F16(Tiles<TileFloat<f16>>),
    BF16(Tiles<TileFloat<bf16>>),
    /// Types and machines without tiles of ours: candle's own product.
    Candle(Box<QMatMul>, usize),
}

/// `n` rows of `k` weights, multiplied with rows of `k` activations.
pub struct Matrix {
    /// Rows: values of each result.
    pub n: usize,
    /// Columns.
    pub k: usize,
    store: Store,
}

/// Runs `$body` with `$tiles` as the tiles, or `$other` for a matrix of candle's.
macro_rules! with_tiles {
    ($store:expr, $tiles:ident => $body:expr, $candle:pat => $other:expr) => {
        match $store {
            #[cfg(all(target_feature = "avx512vnni", target_feature = "avx512bw"))]
            Store::Q4K($tiles) => $body,
            #[cfg(all(target_feature = "avx512vnni", target_feature = "avx512bw"))]
            Store::Q6K($tiles) => $body,
            #[cfg(all(target_feature = "avx512vnni", target_feature = "avx512bw"))]
            Store::Q8_0($tiles) => $body,
            Store::F32($tiles) => $body,
            Store::F16($tiles) => $body,
            Store::BF16($tiles) => $body,
            $candle => $other,
        }
    };
}

impl<T: Tile> Tiles<T> {
    /// Packs `n` rows of `k` values; `read` fills a buffer with the bytes of some rows.
    fn pack(
        threads: Threads,
        (n, k): (usize, usize),
        row_bytes: usize,
        read: &(impl Fn(usize, &mut [u8]) -> std::io::Result<()> + Sync),
    ) -> anyhow::Result<Self> {
        let columns = k.div_ceil(T::SPAN);
        let count = n.div_ceil(ROWS) * columns;
        let mut tiles: Vec<T> = Vec::with_capacity(count);
        advise_huge_pages(tiles.as_mut_ptr().cast(), count * size_of::<T>());
        let room = Shared::new(&mut tiles.spare_capacity_mut()[..count]);
        let failed = std::sync::Mutex::new(None);
        threads.share(n.div_ceil(ROWS), 1, |range| {
            let mut bytes = vec![0; ROWS * row_bytes];
            for band in range {
                let rows = ROWS.min(n - band * ROWS);
                let bytes = &mut bytes[..rows * row_bytes];
                if let Err(error) = read(band * ROWS, bytes) {
                    bytes.fill(0);
                    *failed.lock().unwrap_or_else(|e| e.into_inner()) = Some(error);
                }
                let rows: Vec<&[u8]> = bytes.chunks_exact(row_bytes).collect();
                // SAFETY: each band of rows has its own tiles.
                let part = unsafe { room.part(band * columns..(band + 1) * columns) };
                for (column, tile) in part.iter_mut().enumerate() {
                    tile.write(T::pack(&rows, column * T::SPAN));
                }
            }
        });
        // SAFETY: every band was written.
        unsafe { tiles.set_len(count) };
        match failed.into_inner() {
            Ok(None) => Ok(Self(tiles)),
            Ok(Some(error)) => Err(error.into()),
            Err(_) => anyhow::bail!("a thread panicked while it packed weights"),
        }
    }

    fn band(&self, band: usize, k: usize) -> &[T] {
        let columns = k.div_ceil(T::SPAN);
        &self.0[band * columns..(band + 1) * columns]
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.0[..])
    }

    /// The weights of one row.
    fn row(&self, row: usize, into: &mut [f32]) {
        let band = self.band(row / ROWS, into.len());
        for (tile, values) in band.iter().zip(into.chunks_mut(T::SPAN)) {
            tile.unpack(row % ROWS, values);
        }
    }
}

/// Asks for large pages: weights are read from end to end for every token, and 4 KiB pages would
/// miss the TLB all the way.
fn advise_huge_pages(start: *mut u8, len: usize) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 2 << 20;
        let first = (start as usize).next_multiple_of(PAGE);
        let end = (start as usize + len) / PAGE * PAGE;
        if first < end {
            // SAFETY: whole pages inside our allocation; the advice changes no contents, and a
            // system that refuses it only stays slower.
            unsafe { libc::madvise(first as *mut _, end - first, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, len);
}

impl Matrix {
    /// A matrix of `n` rows of `k` values of type `dtype`; `read(first, buffer)` fills the buffer
    /// with raw rows from row `first` on.
    pub fn load(
        threads: Threads,
        (n, k): (usize, usize),
        dtype: GgmlDType,
        read: &(impl Fn(usize, &mut [u8]) -> std::io::Result<()> + Sync),
    ) -> anyhow::Result<Self> {
        let row_bytes = k / dtype.block_size() * dtype.type_size();
        let shape = (n, k);
        let store = match dtype {
            GgmlDType::F32 => Store::F32(Tiles::pack(threads, shape, row_bytes, read)?),
            GgmlDType::F16 => Store::F16(Tiles::pack(threads, shape, row_bytes, read)?),
            GgmlDType::BF16 => Store::BF16(Tiles::pack(threads, shape, row_bytes, read)?),
            #[cfg(all(target_feature = "avx512vnni", target_feature = "avx512bw"))]
            GgmlDType::Q4K => Store::Q4K(Tiles::pack(threads, shape, row_bytes, read)?),
            #[cfg(all(target_feature = "avx512vnni", target_feature = "avx512bw"))]
            GgmlDType::Q6K => Store::Q6K(Tiles::pack(threads, shape, row_bytes, read)?),
            #[cfg(all(target_feature = "avx512vnni", target_feature = "avx512bw"))]
            GgmlDType::Q8_0 => Store::Q8_0(Tiles::pack(threads, shape, row_bytes, read)?),
            _ => {
                let mut bytes = vec![0; n * row_bytes];
                read(0, &mut bytes)?;
                let storage = QStorage::from_data(bytes.into(), &Device::Cpu, dtype)?;
                let tensor = QTensor::new(storage, shape)?;
                let size = tensor.storage_size_in_bytes();
                Store::Candle(Box::new(QMatMul::from_qtensor(tensor)?), size)
            }
        };
        Ok(Self { n, k, store })
    }

    /// Bytes of the weights as they lie in memory.
    pub fn bytes(&self) -> usize {
        with_tiles!(&self.store, tiles => tiles.bytes(), Store::Candle(_, size) => *size)
    }

    /// What products with this matrix need of their activations.
    pub fn forms(&self) -> Forms {
        let none = Forms::default();
        match &self.store {
            #[cfg(all(target_feature = "avx512vnni", target_feature = "avx512bw"))]
            Store::Q4K(_) | Store::Q6K(_) => Forms { by_256: true, ..none },
            #[cfg(all(target_feature = "avx512vnni", target_feature = "avx512bw"))]
            Store::Q8_0(_) => Forms { by_64: true, ..none },
            _ => Forms { floats: true, ..none },
        }
    }

    /// The weights of row `row`, for embeddings.
    pub fn row(&self, row: usize, into: &mut [f32]) -> anyhow::Result<()> {
        with_tiles!(&self.store, tiles => tiles.row(row, into), Store::Candle(product, _) => {
            let ids = Tensor::new(&[row as u32], &Device::Cpu)?;
            into.copy_from_slice(&product.embedding(&ids)?.flatten_all()?.to_vec1::<f32>()?);
        });
        Ok(())
    }

    /// The product of one band of sixteen weight rows with `rows` rows of a panel.
    #[inline]
    fn multiply_band(
        &self,
        band: usize,
        activations: &Activations,
        panel: usize,
        rows: usize,
        into: &mut [Lanes; PANEL],
    ) {
        fn tiles<T: Tile>(
            tiles: &[T],
            activations: &Activations,
            panel: usize,
            rows: usize,
            into: &mut [Lanes; PANEL],
        ) {
            multiply_panel(tiles, T::panel(activations, panel), rows, |row, sum| into[row] = sum);
        }
        with_tiles!(
            &self.store,
            t => tiles(t.band(band, self.k), activations, panel, rows, into),
            Store::Candle(..) => unreachable!("candle multiplies whole matrices")
        );
    }

    /// candle's product of `rows` rows from `first` on, `n` results for each.
    fn multiply_whole(
        &self,
        product: &QMatMul,
        activations: &Activations,
        first: usize,
        rows: usize,
    ) -> anyhow::Result<Vec<f32>> {
        let mut left = vec![0.0; rows * self.k];
        for (i, row) in left.chunks_exact_mut(self.k).enumerate() {
            activations.row(first + i, row);
        }
        let left = Tensor::from_vec(left, (rows, self.k), &Device::Cpu)?;
        product
            .forward(&left)
            .and_then(|result| result.flatten_all()?.to_vec1::<f32>())
            .context("candle cannot multiply")
    }
}

/// One product: rows of the activations times a matrix, written to `out`.
#[derive(Clone, Copy)]
pub struct Product<'a> {
    /// The weights.
    pub matrix: &'a Matrix,
    /// Weights whose product, through an activation function, multiplies this one.
    pub gate: Option<(&'a Matrix, Gate)>,
    /// Added to each result.
    pub bias: Option<&'a [f32]>,
    /// The panel of the first row.
    pub panel: usize,
    /// Rows.
    pub rows: usize,
    /// Where row 0's results go; row `i`'s go `i × stride` further.
    pub out: Shared<f32>,
    /// The first result's place in `out`.
    pub offset: usize,
    /// Distance of two rows' results.
    pub stride: usize,
    /// Whether results are added to what is there.
    pub add: bool,
}

impl Product<'_> {
    fn bands(&self) -> usize {
        self.matrix.n.div_ceil(ROWS)
    }

    /// # Safety
    /// No other thread writes these results.
    #[inline]
    unsafe fn put(&self, row: usize, column: usize, values: &[f32]) {
        let start = self.offset + row * self.stride + column;
        // SAFETY: the caller's promise.
        let out = unsafe { self.out.part(start..start + values.len()) };
        let bias = self.bias.map(|b| &b[column..column + values.len()]);
        for (i, (out, &value)) in out.iter_mut().zip(values).enumerate() {
            let value = value + bias.map_or(0.0, |b| b[i]);
            *out = if self.add { *out + value } else { value };
        }
    }

    /// One band of sixteen results for some panels.
    fn run(&self, activations: &Activations, band: usize, panels: std::ops::Range<usize>) {
        let mut sums = [Lanes::zero(); PANEL];
        let mut gates = [Lanes::zero(); PANEL];
        let column = band * ROWS;
        let width = ROWS.min(self.matrix.n - column);
        for panel in panels {
            let rows = PANEL.min(self.rows - panel * PANEL);
            let from = self.panel + panel;
            self.matrix.multiply_band(band, activations, from, rows, &mut sums);
            if let Some((gate, function)) = self.gate {
                gate.multiply_band(band, activations, from, rows, &mut gates);
                for (sum, gate) in sums.iter_mut().zip(gates).take(rows) {
                    *sum = sum.mul(function.apply(gate));
                }
            }
            for (row, sum) in sums.iter().enumerate().take(rows) {
                // SAFETY: each band of each product has its own results.
                unsafe { self.put(panel * PANEL + row, column, &sum.to_array()[..width]) };
            }
        }
    }

    /// The whole product by candle, where it is candle's; whether it was.
    fn run_whole(&self, activations: &Activations) -> anyhow::Result<bool> {
        let Store::Candle(product, _) = &self.matrix.store else { return Ok(false) };
        let (first, rows) = (self.panel * PANEL, self.rows);
        let mut result = self.matrix.multiply_whole(product, activations, first, rows)?;
        if let Some((gate, function)) = self.gate {
            let Store::Candle(product, _) = &gate.store else {
                anyhow::bail!("gate and up weights of different types are not supported");
            };
            let gates = gate.multiply_whole(product, activations, first, rows)?;
            function.multiply(&gates, &mut result);
        }
        for (row, values) in result.chunks_exact(self.matrix.n).enumerate() {
            // SAFETY: one thread, one product after the other.
            unsafe { self.put(row, 0, values) };
        }
        Ok(true)
    }
}

/// Computes all products in one parallel region. Their results must not overlap.
pub fn multiply(
    threads: Threads,
    activations: &Activations,
    products: &[Product<'_>],
) -> anyhow::Result<()> {
    let mut bands = 0;
    for product in products {
        if !product.run_whole(activations)? {
            bands += product.bands();
        }
    }
    threads.share(bands, 1, |range| {
        let mut first = 0;
        for product in products.iter().filter(|p| !matches!(p.matrix.store, Store::Candle(..))) {
            let end = first + product.bands();
            let mine = range.start.max(first)..range.end.min(end);
            let panels = product.rows.div_ceil(PANEL);
            for start in (0..panels).step_by(PANELS_AT_ONCE) {
                for band in mine.clone() {
                    let panels = start..panels.min(start + PANELS_AT_ONCE);
                    product.run(activations, band - first, panels);
                }
            }
            first = end;
        }
    });
    Ok(())
}
