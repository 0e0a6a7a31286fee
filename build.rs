//! Hands the versions of the engines' crates, as Cargo.lock has them, to the runners.

use std::fs;

fn main() {
    println!("cargo:rerun-if-changed=Cargo.lock");
    let lock = fs::read_to_string("Cargo.lock").unwrap_or_default();
    for (krate, variable) in
        [("llama-cpp-sys-2", "LLAMA_CPP_SYS_VERSION"), ("candle-core", "CANDLE_VERSION")]
    {
        let version = version_of(&lock, krate).unwrap_or("unknown");
        println!("cargo:rustc-env={variable}={version}");
    }
}

/// The version that stands below `name = "krate"`.
fn version_of<'a>(lock: &'a str, krate: &str) -> Option<&'a str> {
    let (_, entry) = lock.split_once(&format!("name = \"{krate}\"\n"))?;
    entry.lines().next()?.strip_prefix("version = \"")?.strip_suffix('"')
}
