//! Synthetic weights: a model file of exact shape, quantisation and size with random content.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

use super::arch;
use super::gguf::{ALIGNMENT, Value, encode, encoded_len};
use super::quant::{Quant, TensorType};
use super::{Tensor, blocks, vocab};
use crate::catalog::models::{Arch, ModelSpec};
use crate::units::Bytes;

/// Part of every cached file's name: raise it when the same arguments give another content.
const CONTENT_VERSION: u32 = 1;
/// Bytes between two reports of progress.
const REPORT_EVERY: u64 = 64 << 20;
/// A tensor's random blocks are made for about its size, within these bounds, and then repeated.
const SMALLEST_POOL: u64 = 64 << 10;
const LARGEST_POOL: u64 = 8 << 20;
/// Free space that is left on the disk, whatever happens.
const KEEP_FREE: u64 = 512 << 20;

/// The path of a synthetic model in `cache_dir`, made there if it does not exist yet.
///
/// `progress` is called with the bytes written and the bytes to write.
pub fn ensure(
    spec: &ModelSpec,
    quant: Quant,
    seed: u64,
    cache_dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> anyhow::Result<PathBuf> {
    if let Some(reason) = &spec.not_synthesisable {
        bail!("no synthetic weights of '{}' can be made: {reason}", spec.id);
    }
    let plan = Plan::new(spec, quant, seed)?;
    let path = cache_dir.join(plan.file_name());
    if plan.is_whole(&path) {
        return Ok(path);
    }
    plan.write(&path, progress).with_context(|| {
        format!("the synthetic weights of '{}' in {quant} could not be made", spec.id)
    })?;
    Ok(path)
}

/// Writes the header of a synthetic model to `path`, with a file behind it that is as long as the
/// model and takes no room on the disk: enough for all that reads headers alone.
pub fn sparse(spec: &ModelSpec, quant: Quant, path: &Path) -> anyhow::Result<()> {
    let plan = Plan::new(spec, quant, 0)?;
    let header = plan.header()?;
    let mut file = File::create(path).with_context(|| format!("{}", path.display()))?;
    file.write_all(&header).with_context(|| format!("{}", path.display()))?;
    file.set_len(encoded_len(&header, &plan.tensors))
        .with_context(|| format!("{}", path.display()))?;
    Ok(())
}

/// Where [`ensure`] keeps this model, and whether it is there already.
pub fn cached(
    spec: &ModelSpec,
    quant: Quant,
    seed: u64,
    cache_dir: &Path,
) -> anyhow::Result<(PathBuf, bool)> {
    let plan = Plan::new(spec, quant, seed)?;
    let path = cache_dir.join(plan.file_name());
    let whole = plan.is_whole(&path);
    Ok((path, whole))
}

/// The size that the synthetic file has or will have, header included.
pub fn file_len(spec: &ModelSpec, quant: Quant) -> anyhow::Result<Bytes> {
    let plan = Plan::new(spec, quant, 0)?;
    Ok(Bytes(encoded_len(&plan.header()?, &plan.tensors)))
}

struct Plan<'a> {
    spec: &'a ModelSpec,
    quant: Quant,
    seed: u64,
    metadata: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
}

impl<'a> Plan<'a> {
    fn new(spec: &'a ModelSpec, quant: Quant, seed: u64) -> anyhow::Result<Self> {
        let metadata = arch::metadata(spec, quant);
        let tensors = super::tensors(spec, quant)?;
        Ok(Self { spec, quant, seed, metadata, tensors })
    }

    /// The vocabulary is made only when it is written: it is a function of its size.
    fn header(&self) -> anyhow::Result<Vec<u8>> {
        let mut metadata = self.metadata.clone();
        metadata.extend(vocab::tokenizer(self.spec.vocab)?);
        Ok(encode(&metadata, &self.tensors))
    }

    /// `qwen3-0.6b-Q4_K_M-s0-1f2e3d4c5b6a.gguf`: the last part stands for all that decides the content.
    fn file_name(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(CONTENT_VERSION.to_le_bytes());
        hash.update(self.seed.to_le_bytes());
        hash.update(encode(&self.metadata, &self.tensors));
        let digest = hash.finalize();
        let short: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{}-s{}-{short}.gguf", self.spec.id, self.quant, self.seed)
    }

    /// Files appear whole or not at all, so that the length is all there is to check; a header's
    /// length depends on nothing that the name does not say.
    fn is_whole(&self, path: &Path) -> bool {
        let data: u64 = self.tensors.iter().map(|t| t.bytes().next_multiple_of(ALIGNMENT)).sum();
        fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() > data)
    }

    fn write(&self, path: &Path, progress: &mut dyn FnMut(u64, u64)) -> anyhow::Result<()> {
        let dir = path.parent().context("the cache has no folder")?;
        fs::create_dir_all(dir).with_context(|| format!("{}", dir.display()))?;
        let header = self.header()?;
        let total = encoded_len(&header, &self.tensors);
        check_free(dir, total)?;
        let mut file = tempfile::Builder::new()
            .prefix(".making-")
            .suffix(".tmp")
            .tempfile_in(dir)
            .with_context(|| format!("{}", dir.display()))?;
        let mut out = Output::new(file.as_file_mut(), total, progress);
        out.write(&header)?;
        let mut pools = Pools::new(self.seed);
        for (i, tensor) in self.tensors.iter().enumerate() {
            self.write_tensor(tensor, i as u64, &mut pools, &mut out)?;
        }
        out.end();
        // Pages that are still dirty would be written back while something is being measured.
        file.as_file().sync_all().context("writing the file to the disk")?;
        file.persist(path).with_context(|| format!("{}", path.display()))?;
        Ok(())
    }

    fn write_tensor(
        &self,
        tensor: &Tensor,
        index: u64,
        pools: &mut Pools,
        out: &mut Output,
    ) -> anyhow::Result<()> {
        let bytes = tensor.bytes();
        match content(self.spec, tensor) {
            Content::Values(values) => {
                let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                ensure!(data.len() as u64 == bytes, "tensor '{}' has another size", tensor.name);
                out.write(&data)?;
            }
            Content::Indices(values) => {
                let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                out.write(&data)?;
            }
            Content::Random(deviation) => {
                pools.blocks(tensor, index, deviation)?.write(0..bytes, out)?;
            }
        }
        let padding = bytes.next_multiple_of(ALIGNMENT) - bytes;
        out.write(&[0; ALIGNMENT as usize][..padding as usize])
    }
}

/// What a tensor holds.
pub(super) enum Content {
    /// These values, in F32.
    Values(Vec<f32>),
    /// These indices, in I32.
    Indices(Vec<i32>),
    /// Random weights of this standard deviation.
    Random(f64),
}

/// Norms and scales are 1 and biases 0, as after initialisation; weights are random with variance
/// 1 / fan-in, so that activations neither vanish nor overflow from layer to layer.
pub(super) fn content(spec: &ModelSpec, tensor: &Tensor) -> Content {
    let name = tensor.name.as_str();
    let elements = tensor.elements() as usize;
    let constant = |value: f32| Content::Values(vec![value; elements]);
    if tensor.kind == TensorType::I32 {
        // token → its experts, as DeepSeek V4's first layers route: neighbours, all different
        let (each, experts) = (tensor.dims[0], spec.experts.as_ref().map_or(1, |e| e.total));
        let expert = |i: u64| ((i / each + i % each) % u64::from(experts)) as i32;
        return Content::Indices((0..tensor.elements()).map(expert).collect());
    }
    if tensor.kind == TensorType::F32 {
        if name.ends_with(".bias") || name.ends_with("attn_sinks.weight") {
            return constant(0.0);
        }
        if name == "rope_freqs.weight" && spec.arch == Arch::Gemma4 {
            // A quarter of the pairs rotates; the rest has an endless period.
            let rotated = elements / 4;
            let factor = |i| if i < rotated { 1.0 } else { 1e30 };
            return Content::Values((0..elements).map(factor).collect());
        }
        if name.ends_with("ssm_a") {
            return constant(-1.0); // the decay's exponent must be negative
        }
        let ones = ["norm", "scale", "rope_f"];
        if tensor.dims.len() == 1 && ones.iter().any(|part| name.contains(part)) {
            return constant(1.0);
        }
    }
    Content::Random(1.0 / (tensor.dims[0] as f64).sqrt())
}

/// Random blocks that are made once for each type, deviation and size.
pub(super) struct Pools {
    seed: u64,
    made: HashMap<(TensorType, u64, u64), Vec<u8>>,
}

impl Pools {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, made: HashMap::new() }
    }

    /// The data of the `index`-th tensor of a file.
    pub(super) fn blocks(
        &mut self,
        tensor: &Tensor,
        index: u64,
        deviation: f64,
    ) -> anyhow::Result<Blocks<'_>> {
        let pool = self.get(tensor.kind, deviation, tensor.bytes())?;
        // Each tensor begins at another block of its pool.
        let blocks = pool.len() as u64 / tensor.kind.block_bytes();
        let start = index.wrapping_mul(0x9E37_79B9_7F4A_7C15) % blocks;
        Ok(Blocks { pool, start: start * tensor.kind.block_bytes() })
    }

    /// `bytes` random bytes for the `index`-th tensor of a file.
    pub(super) fn bytes(&mut self, index: u64, bytes: u64) -> anyhow::Result<Blocks<'_>> {
        // Integers of one byte, all alike, are no more than that.
        let tensor = Tensor { name: String::new(), dims: vec![bytes], kind: TensorType::I8 };
        self.blocks(&tensor, index, 1.0)
    }

    fn get(&mut self, kind: TensorType, deviation: f64, bytes: u64) -> anyhow::Result<&[u8]> {
        // What a tensor holds depends on the tensor alone, not on which ones came before it.
        let size = bytes.clamp(SMALLEST_POOL, LARGEST_POOL).next_power_of_two();
        let key = (kind, deviation.to_bits(), size);
        if !self.made.contains_key(&key) {
            let seed = self.seed ^ (u64::from(kind.code()) << 32) ^ key.1.rotate_left(17);
            self.made.insert(key, blocks::pool(kind, deviation, seed, size)?);
        }
        Ok(&self.made[&key])
    }
}

/// A tensor's random data: its pool, over and over.
pub(super) struct Blocks<'a> {
    pool: &'a [u8],
    start: u64,
}

impl Blocks<'_> {
    /// Writes these bytes of the tensor's data.
    pub(super) fn write(&self, bytes: Range<u64>, out: &mut Output<'_>) -> anyhow::Result<()> {
        let mut at = ((self.start + bytes.start) % self.pool.len() as u64) as usize;
        let mut left = bytes.end - bytes.start;
        while left > 0 {
            let part = ((self.pool.len() - at) as u64).min(left) as usize;
            out.write(&self.pool[at..at + part])?;
            left -= part as u64;
            at = 0;
        }
        Ok(())
    }

    /// The first `count` bytes of the tensor's data.
    pub(super) fn first(&self, count: usize) -> impl Iterator<Item = u8> {
        self.pool.iter().cycle().skip(self.start as usize).take(count).copied()
    }
}

/// A file that is being written, and who wants to know how far it is.
pub(super) struct Output<'a> {
    file: &'a mut File,
    written: u64,
    reported: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl<'a> Output<'a> {
    /// Of `total` bytes.
    pub(super) fn new(
        file: &'a mut File,
        total: u64,
        progress: &'a mut dyn FnMut(u64, u64),
    ) -> Self {
        Self { file, written: 0, reported: 0, total, progress }
    }

    /// Nothing is left to write.
    pub(super) fn end(&mut self) {
        (self.progress)(self.total, self.total);
    }

    pub(super) fn write(&mut self, data: &[u8]) -> anyhow::Result<()> {
        self.file.write_all(data).context("writing the file")?;
        self.written += data.len() as u64;
        if self.written - self.reported >= REPORT_EVERY {
            self.reported = self.written;
            (self.progress)(self.written, self.total);
        }
        Ok(())
    }
}

/// Fails when the disk of `dir` has no room for a file of `bytes`.
pub fn check_free(dir: &Path, bytes: u64) -> anyhow::Result<()> {
    let Ok(disk) = rustix::fs::statvfs(dir) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if free < bytes.saturating_add(KEEP_FREE) {
        bail!(
            "{} has {} free and {} are needed; remove models with `bench model rm`, or set \
             BENCH_CACHE to a folder on a larger disk",
            dir.display(),
            Bytes(free),
            Bytes(bytes.saturating_add(KEEP_FREE))
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::gguf::Header;

    #[test]
    fn a_synthetic_file_is_what_its_header_says_and_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let spec = ModelSpec::tiny(Arch::Qwen3);
        let mut reports = Vec::new();
        let mut note = |done, total| reports.push((done, total));
        let path = ensure(&spec, Quant::Q4KM, 0, dir.path(), &mut note).unwrap();
        let header = Header::read(&path).unwrap();
        assert_eq!(header.file_bytes, file_len(&spec, Quant::Q4KM).unwrap());
        assert_eq!(header.vocab(), Some(1024));
        assert_eq!(reports.last(), Some(&(header.file_bytes.0, header.file_bytes.0)));
        let made = fs::metadata(&path).unwrap().modified().unwrap();
        let again = ensure(&spec, Quant::Q4KM, 0, dir.path(), &mut |_, _| {}).unwrap();
        assert_eq!(fs::metadata(again).unwrap().modified().unwrap(), made);
        // nothing temporary is left
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_same_seed_makes_the_same_file_and_another_seed_another() {
        let spec = ModelSpec::tiny(Arch::Llama);
        let make = |seed| {
            let dir = tempfile::tempdir().unwrap();
            let path = ensure(&spec, Quant::Q8_0, seed, dir.path(), &mut |_, _| {}).unwrap();
            fs::read(path).unwrap()
        };
        assert!(make(1) == make(1));
        assert!(make(1) != make(2));
    }

    #[test]
    fn every_architecture_and_quantisation_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        for arch in Arch::ALL {
            let spec = ModelSpec::tiny(arch);
            for quant in Quant::ALL {
                let skipped = spec.not_synthesisable.is_some()
                    || (quant == Quant::Mxfp4 && spec.experts.is_none());
                let made = ensure(&spec, quant, 0, dir.path(), &mut |_, _| {});
                assert_eq!(made.is_err(), skipped, "{arch:?} {quant}: {made:?}");
                if let Ok(path) = made {
                    Header::read(&path).unwrap();
                    fs::remove_file(path).unwrap();
                }
            }
        }
    }

    #[test]
    fn a_full_disk_is_noticed_before_anything_is_written() {
        let message = check_free(Path::new("/"), u64::MAX / 2).unwrap_err().to_string();
        assert!(message.contains("BENCH_CACHE"), "{message}");
    }
}
