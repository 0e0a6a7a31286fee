//! Where an engine's runner program lies.

use std::env;
use std::path::{Path, PathBuf};

/// The runner of `engine`: beside this program, then in `more` (where `bench setup` puts runners),
/// then on the search path.
pub fn locate(engine: &str, more: &Path) -> Option<PathBuf> {
    let name = program_name(engine);
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    let path = env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain([more.to_owned()])
        .chain(env::split_paths(&path))
        .map(|folder| folder.join(&name))
        .find(|candidate| candidate.is_file())
}

/// The name of an engine's runner program: `llama.cpp` has `bench-llama-cpp`.
pub fn program_name(engine: &str) -> String {
    format!("bench-{}{}", engine.replace('.', "-"), env::consts::EXE_SUFFIX)
}

/// The line to type where the runner is missing.
pub fn remedy(engine: &str) -> String {
    format!("make {}", engine.replace('.', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_in_an_engine_is_a_dash_in_its_program() {
        assert!(program_name("llama.cpp").starts_with("bench-llama-cpp"));
        assert_eq!(remedy("llama.cpp"), "make llama-cpp");
    }
}
