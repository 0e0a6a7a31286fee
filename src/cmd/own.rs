//! Which file a user's own devices, models and prices stand in.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::catalog::own::{self, Own};

/// Names a file with the user's own devices and models instead of the one in the configuration
/// folder.
const VARIABLE: &str = "BENCH_CATALOG";

/// What is the user's own: of the file `named` by a flag, of the variable's, else of `catalog.toml`
/// in the configuration folder, where there is one.
pub fn catalog(named: Option<&Path>) -> anyhow::Result<Own> {
    let asked = named.map(PathBuf::from).or_else(|| env::var_os(VARIABLE).map(PathBuf::from));
    let path = match asked {
        Some(path) => {
            ensure!(path.is_file(), "no catalogue '{}'; is its path right?", path.display());
            path
        }
        None => match directories::ProjectDirs::from("", "", "bench") {
            Some(folders) => folders.config_dir().join("catalog.toml"),
            None => return Ok(Own::default()),
        },
    };
    if !path.is_file() {
        return Ok(Own::default());
    }
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read '{}'", path.display()))?;
    own::read(&path, &text)
}
