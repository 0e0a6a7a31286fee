//! A case's weights on this machine's disk: made, fetched or found.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cases::Case;
use crate::catalog::models::{self, ModelSpec};
use crate::fit::memory::{self, Layout};
use crate::fit::work::{Work, value_bytes};
use crate::model;
use crate::model::gguf::Header;
use crate::model::hf;
use crate::model::hub::Hub;
use crate::model::mlx;
use crate::model::quant::{Quant, TensorType};
use crate::model::synth;
use crate::scenario::{Scenario, Synthetic, Weights as Source};
use crate::units::Bytes;

/// Weights that an engine can load.
#[derive(Clone, Debug)]
pub struct Weights {
    /// The file (the first one of a split model), or a folder.
    pub path: PathBuf,
    /// Its size, all parts together; of a folder without weights what they will take.
    pub bytes: Bytes,
    /// Whether there are weights: an engine may fill them in itself.
    pub stored: bool,
    /// Token ids are below this.
    pub vocabulary: u32,
    /// Bits that a weight takes in the file, where its header or our own layout says.
    pub bits_per_weight: Option<f64>,
    /// The checksum, where one is known without reading the whole file.
    pub sha256: Option<String>,
}

/// Makes, fetches or finds the weights of `case`, synthetic ones in this form; an error is the
/// reason of its row.
pub fn resolve(
    scenario: &Scenario,
    case: &Case,
    form: Synthetic,
    cache: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Weights, String> {
    try_resolve(scenario, case, form, cache, progress).map_err(|error| format!("{error:#}"))
}

fn try_resolve(
    scenario: &Scenario,
    case: &Case,
    form: Synthetic,
    cache: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> anyhow::Result<Weights> {
    let spec = models::find(&case.model)?;
    let mut bits_per_weight = None;
    let (path, sha256) = match &case.weights {
        Source::Synthetic if form == Synthetic::Config => {
            (hf::ensure(spec, case.quant.parse()?, cache)?, None)
        }
        Source::Synthetic if form == Synthetic::Mlx => {
            let group = case.settings.group_size.unwrap_or(mlx::GROUP);
            let storage = mlx::Storage::of(case.quant.parse()?, group)?;
            bits_per_weight = Some(storage.bits_per_weight());
            (mlx::ensure(spec, storage, case.seed, cache, progress)?, None)
        }
        Source::Synthetic => {
            (synth::ensure(spec, case.quant.parse()?, case.seed, cache, progress)?, None)
        }
        Source::File(path) => (scenario.path.parent().unwrap_or(Path::new(".")).join(path), None),
        source @ Source::Hub { .. } => {
            let file = source.to_string().parse()?;
            let fetched = Hub::from_env().fetch(&file, cache, progress)?;
            (fetched.path, Some(fetched.sha256))
        }
    };
    let metadata =
        std::fs::metadata(&path).with_context(|| format!("no weights at '{}'", path.display()))?;
    if !path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
        // A folder, or a file of another engine's: only that engine can say what is in it.
        let stored = !hf::lacks_weights(&path);
        let bytes = match metadata.is_dir() {
            true if stored => folder_bytes(&path)?,
            true => model::weight_bytes(spec, case.quant.parse()?)?,
            false => Bytes(metadata.len()),
        };
        let own = mlx::describe(&path).and_then(|description| description.vocabulary);
        let vocabulary = own.unwrap_or(spec.vocab);
        return Ok(Weights { path, bytes, stored, vocabulary, bits_per_weight, sha256 });
    }
    let header = Header::read(&path)?;
    let vocabulary = header.vocab().and_then(|n| u32::try_from(n).ok()).unwrap_or(spec.vocab);
    let bits = header.weight_bytes().0 as f64 * 8.0 / header.parameters() as f64;
    let (bytes, bits_per_weight) = (header.file_bytes, Some(bits).filter(|bits| bits.is_finite()));
    Ok(Weights { path, bytes, stored: true, vocabulary, bits_per_weight, sha256 })
}

/// The size of a model's folder: of the files in it.
fn folder_bytes(folder: &Path) -> anyhow::Result<Bytes> {
    let failed = || folder.display().to_string();
    let mut bytes = 0;
    for file in std::fs::read_dir(folder).with_context(failed)? {
        // Followed: the folders that hub programs keep hold links.
        let path = file.with_context(failed)?.path();
        bytes += std::fs::metadata(&path).with_context(|| path.display().to_string())?.len();
    }
    Ok(Bytes(bytes))
}

/// Bytes that generating one token of `case` reads: the weights in use once, and the cache at the
/// middle of the generation. `None` where the catalogue does not know the model's quantisation.
pub fn bytes_per_token(case: &Case) -> Option<Bytes> {
    let (spec, quant) = known(case)?;
    let work = Work::of(spec, quant).ok()?;
    let depth = case.depth.0 + case.prompt_tokens.0 + case.new_tokens.0 / 2;
    let cache = work.cache_read(f64::from(depth), value_bytes(kv_type(case)?));
    Some(Bytes((work.token_bytes() + cache) as u64))
}

/// The same where the engine holds every weight in `bits` bits and its cache in a type of its own.
pub fn bytes_per_token_at(case: &Case, bits: f64, own_kv_type: Option<&str>) -> Option<Bytes> {
    let (spec, quant) = known(case)?;
    let work = Work::of(spec, quant).ok()?.at_bits(bits);
    let depth = case.depth.0 + case.prompt_tokens.0 + case.new_tokens.0 / 2;
    let kind = own_kv_type.map_or_else(|| kv_type(case), tensor_type)?;
    let cache = work.cache_read(f64::from(depth), value_bytes(kind));
    Some(Bytes((work.token_bytes() + cache) as u64))
}

/// The same of these weights: a folder of MLX's has layouts of its own.
pub fn bytes_per_token_of(case: &Case, weights: &Weights) -> Option<Bytes> {
    match weights.bits_per_weight.filter(|_| weights.path.is_dir()) {
        Some(bits) => bytes_per_token_at(case, bits, None),
        None => bytes_per_token(case),
    }
}

/// Memory that the catalogue expects the case to need: weights, cache and compute buffers.
pub fn expected_memory(case: &Case) -> Option<Bytes> {
    let (spec, quant) = known(case)?;
    let defaults = Layout::default();
    let layout = Layout {
        slots: case.slots(),
        slot_tokens: case.slot_tokens(),
        kv_type: kv_type(case)?,
        micro_batch: case.settings.micro_batch.unwrap_or(defaults.micro_batch),
        flash_attention: case.settings.flash_attention.unwrap_or(defaults.flash_attention),
    };
    memory::estimate(spec, quant, &layout).ok().map(|memory| memory.in_one_place())
}

fn known(case: &Case) -> Option<(&'static ModelSpec, Quant)> {
    Some((models::find(&case.model).ok()?, case.quant.parse().ok()?))
}

/// The type of the case's KV cache; engines use F16 where nothing is said.
fn kv_type(case: &Case) -> Option<TensorType> {
    tensor_type(case.settings.kv_type.as_deref().unwrap_or("f16"))
}

fn tensor_type(name: &str) -> Option<TensorType> {
    TensorType::all().find(|kind| kind.name().eq_ignore_ascii_case(name))
}
