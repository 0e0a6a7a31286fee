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
    let (path, sha256) = match &case.weights {
        Source::Synthetic if form == Synthetic::Config => {
            (hf::ensure(spec, case.quant.parse()?, cache)?, None)
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
        return Ok(Weights { path, bytes, stored, vocabulary: spec.vocab, sha256 });
    }
    let header = Header::read(&path)?;
    let vocabulary = header.vocab().and_then(|n| u32::try_from(n).ok()).unwrap_or(spec.vocab);
    Ok(Weights { path, bytes: header.file_bytes, stored: true, vocabulary, sha256 })
}

/// The size of a model's folder: of the files in it.
fn folder_bytes(folder: &Path) -> anyhow::Result<Bytes> {
    let failed = || folder.display().to_string();
    let mut bytes = 0;
    for file in std::fs::read_dir(folder).with_context(failed)? {
        bytes += file.and_then(|file| file.metadata()).with_context(failed)?.len();
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
    let name = case.settings.kv_type.as_deref().unwrap_or("f16");
    TensorType::all().find(|kind| kind.name().eq_ignore_ascii_case(name))
}
