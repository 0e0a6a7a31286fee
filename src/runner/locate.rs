//! Where an engine's runner program lies.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::child::Child;

/// What a runner that was built for GPUs has behind its name, the preferred one first.
const GPU_BUILDS: [&str; 2] = ["-cuda", "-vulkan"];

/// How long a runner may take to say its version: a GPU's driver may have to wake.
const HELLO: Duration = Duration::from_secs(20);

/// A runner program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it lies.
    pub program: PathBuf,
    /// In words why runners that were built for a GPU were passed over: they do not start here.
    pub passed_over: Vec<String>,
}

/// The runner of `engine`: beside this program, then in `more` (where `bench setup` puts runners),
/// then on the search path. One that was built for a GPU comes first where it starts: without a
/// driver it does not. It is tried once.
pub fn locate(engine: &str, more: &Path) -> Option<Found> {
    static KNOWN: Mutex<BTreeMap<(String, PathBuf), Option<Found>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known
        .entry((engine.to_owned(), more.to_owned()))
        .or_insert_with(|| choose(engine, &folders(more), starts))
        .clone()
}

fn folders(more: &Path) -> Vec<PathBuf> {
    let beside = env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_owned()));
    let path = env::var_os("PATH").unwrap_or_default();
    beside.into_iter().chain([more.to_owned()]).chain(env::split_paths(&path)).collect()
}

fn choose(
    engine: &str,
    folders: &[PathBuf],
    starts: impl Fn(&Path) -> Result<(), String>,
) -> Option<Found> {
    let find = |build: &str| {
        let name = program_name(&format!("{engine}{build}"));
        folders.iter().map(|folder| folder.join(&name)).find(|candidate| candidate.is_file())
    };
    let mut passed_over = Vec::new();
    for build in GPU_BUILDS {
        let Some(program) = find(build) else { continue };
        match starts(&program) {
            Ok(()) => return Some(Found { program, passed_over }),
            Err(why) => {
                passed_over.push(format!("{}: {why}", program_name(&format!("{engine}{build}"))));
            }
        }
    }
    Some(Found { program: find("")?, passed_over })
}

/// Whether a runner that was built for a GPU says its version and sees one.
fn starts(program: &Path) -> Result<(), String> {
    let mut child = Child::start(program, &[]).map_err(|e| format!("{e:#}"))?;
    let hello = child.hello(HELLO).map_err(|e| e.to_string());
    child.finish();
    match hello {
        Ok((_, version)) if version.backend.split(' ').all(|device| device == "CPU") => {
            Err("it sees no GPU; is the driver there, and not older than the CUDA of this build?"
                .to_owned())
        }
        other => other.map(|_| ()),
    }
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

    #[test]
    fn a_gpu_s_runner_comes_first_where_it_starts_and_is_passed_over_where_not() {
        let folder = tempfile::tempdir().unwrap();
        let folders = [folder.path().to_owned()];
        let here = |name: &str| folder.path().join(program_name(name));
        let yes = |_: &Path| Ok(());
        let no = |_: &Path| Err("libcuda.so.1 is missing".to_owned());
        assert_eq!(choose("llama.cpp", &folders, yes), None);
        std::fs::write(here("llama.cpp"), "").unwrap();
        let cpu = Found { program: here("llama.cpp"), passed_over: Vec::new() };
        assert_eq!(choose("llama.cpp", &folders, no), Some(cpu.clone()));
        std::fs::write(here("llama.cpp-cuda"), "").unwrap();
        let cuda = Found { program: here("llama.cpp-cuda"), passed_over: Vec::new() };
        assert_eq!(choose("llama.cpp", &folders, yes), Some(cuda));
        let why = format!("{}: libcuda.so.1 is missing", program_name("llama.cpp-cuda"));
        let passed_over = Found { passed_over: vec![why], ..cpu };
        assert_eq!(choose("llama.cpp", &folders, no), Some(passed_over));
    }
}
