//! A case's weights on this machine's disk: made, fetched or found.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cases::Case;
use crate::catalog::models;
use crate::model::gguf::Header;
use crate::model::quant::Quant;
use crate::model::synth;
use crate::scenario::{Scenario, Weights as Source};

/// Weights that an engine can load.
#[derive(Clone, Debug)]
pub struct Weights {
    /// The file (the first one of a split model), or a folder.
    pub path: PathBuf,
    /// Its size, all parts together.
    pub bytes: u64,
    /// Token ids are below this.
    pub vocabulary: u32,
    /// The checksum, where one is known without reading the whole file.
    pub sha256: Option<String>,
}

impl Weights {
    /// Bytes that generating one token of `case` reads.
    pub fn bytes_per_token(&self, _: &Case) -> Option<u64> {
        None
    }
}

/// Makes, fetches or finds the weights of `case`; an error is the reason of its row.
pub fn resolve(
    scenario: &Scenario,
    case: &Case,
    cache: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Weights, String> {
    try_resolve(scenario, case, cache, progress).map_err(|error| format!("{error:#}"))
}

fn try_resolve(
    scenario: &Scenario,
    case: &Case,
    cache: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> anyhow::Result<Weights> {
    let spec = models::find(&case.model)?;
    let (path, sha256) = match &case.weights {
        Source::Synthetic => {
            let quant = case.quant.parse::<Quant>()?;
            (synth::ensure(spec, quant, case.seed, cache, progress)?, None)
        }
        Source::File(path) => {
            let folder = scenario.path.parent().unwrap_or(Path::new("."));
            (folder.join(path), None)
        }
        Source::Hub { .. } => anyhow::bail!("no hub yet"),
    };
    let metadata =
        std::fs::metadata(&path).with_context(|| format!("no weights at '{}'", path.display()))?;
    if !is_gguf(&path) {
        // A folder, or a file of another engine's: only that engine can say what is in it.
        let bytes = metadata.len();
        return Ok(Weights { path, bytes, vocabulary: spec.vocab, sha256 });
    }
    let header = Header::read(&path)?;
    let vocabulary = header.vocab().and_then(|n| u32::try_from(n).ok()).unwrap_or(spec.vocab);
    let bytes = header.file_bytes.0;
    Ok(Weights { path, bytes, vocabulary, sha256 })
}

fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
}
