//! `bench` in the project's own folder, with nothing of the person who runs the tests.

use std::process::{Command, Output};

/// `bench` without catalogue, prices and results of a person.
pub fn bench(args: &[&str]) -> Output {
    let home = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(args)
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path())
        .env_remove("BENCH_PRICES")
        .env_remove("BENCH_CATALOG")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

/// What `bench` says to words that it takes.
pub fn answer(args: &[&str]) -> String {
    let output = bench(args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
