//! A case's weights on this machine's disk: made, fetched or found.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::cases::Case;
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
    _cache: &Path,
    _progress: &mut dyn FnMut(u64, u64),
) -> Result<Weights, String> {
    let found = || -> anyhow::Result<Weights> {
        let Source::File(path) = &case.weights else { bail!("only files yet") };
        let path = scenario.path.parent().unwrap_or(Path::new(".")).join(path);
        std::fs::metadata(&path).with_context(|| format!("no weights at '{}'", path.display()))?;
        let h = crate::model::gguf::Header::read(&path)?;
        Ok(Weights {
            path,
            bytes: h.file_bytes.0,
            vocabulary: h.vocab().unwrap_or(1000) as u32,
            sha256: None,
        })
    };
    found().map_err(|error| format!("{error:#}"))
}
