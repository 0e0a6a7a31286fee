//! The runner of MLX over its real pipe: with a package that only plays MLX for what goes wrong,
//! and with MLX itself where `bench setup mlx` has installed it.
#![cfg(unix)]
#![allow(missing_docs)]

#[allow(dead_code, reason = "other tests use the rest")]
mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bench::catalog::models::{Arch, ModelSpec};
use bench::model::{cache, mlx};
use bench::record::{Outcome, Record};
use common::{Place, stderr};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/runners/mlx");
const FAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake_mlx");

/// A scenario of one small case with weights in a folder of its own.
fn scenario(rest: &str) -> Place {
    Place::with_scenario(&format!(
        "[trials]\nmin = 2\nmax = 2\n[limits]\ntrial_seconds = 20\n[[matrix]]\n\
         models = [\"qwen3-0.6b\"]\nquants = [\"Q4_K_M\"]\nengines = [\"mlx\"]\n\
         weights = \"./model\"\n{rest}"
    ))
}

/// Whether there is a Python to play MLX with.
fn python() -> bool {
    let found = Command::new("python3").arg("--version").output().is_ok();
    if !found {
        println!("skipped: no python3 on the search path");
    }
    found
}

/// Puts a runner into the place's cache whose MLX is the one that only plays.
fn install_fake(place: &Place) {
    let folder = place.path().join("model");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("config.json"), "{\"model_type\":\"x\",\"vocab_size\":100}")
        .unwrap();
    std::fs::write(folder.join("model.safetensors"), "0123456789").unwrap();
    let runners = place.path().join("cache/runners");
    std::fs::create_dir_all(&runners).unwrap();
    let program = runners.join("bench-mlx");
    // As the program that `bench setup` writes, but for the search path.
    let text = format!(
        "#!/bin/sh\nPYTHONDONTWRITEBYTECODE=1 PYTHONPATH='{SOURCE}:{FAKE}' \
         exec python3 -m bench_mlx\n"
    );
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// The row of one case whose MLX has this fault.
fn row_with(fault: &str) -> Record {
    let place = scenario("points = [{ prompt_tokens = 8, new_tokens = 4 }]\n");
    install_fake(&place);
    let text = std::fs::read_to_string(place.path().join("scenario.toml")).unwrap();
    let text = text.replace("trial_seconds = 20", "trial_seconds = 3");
    std::fs::write(place.path().join("scenario.toml"), text).unwrap();
    let output =
        place.bench(&["run", "scenario.toml"]).env("FAKE_MLX_FAULT", fault).output().unwrap();
    let records = place.records();
    assert_eq!(records.len(), 1, "{fault}: {}", stderr(&output));
    let measured = records[0].outcome == Outcome::Measured;
    assert_eq!(output.status.code(), Some(i32::from(!measured)), "{fault}: {}", stderr(&output));
    records[0].clone()
}

#[test]
fn each_failure_of_the_interpreter_is_an_outcome_with_its_reason() {
    if !python() {
        return;
    }
    for (fault, outcome, words) in [
        ("start-import", Outcome::NotInstalled, "libmlx.so: cannot open shared object file"),
        ("start-import", Outcome::NotInstalled, "type: bench setup mlx"),
        ("start-exit", Outcome::NotInstalled, "SystemExit: 3"),
        ("start-vanish", Outcome::Crashed, "exit code 3"),
        ("load-raise", Outcome::Failed, "RuntimeError: boom (faults.py:"),
        ("load-memory", Outcome::OutOfMemory, "Unable to allocate"),
        ("load-unsupported", Outcome::Unsupported, "Model type strange not supported"),
        ("load-kill", Outcome::Crashed, "signal 9"),
        ("load-hang", Outcome::TimedOut, "no answer within 3 s"),
        ("trial-raise", Outcome::Failed, "RuntimeError: boom"),
        ("trial-python-memory", Outcome::OutOfMemory, "MemoryError"),
        ("trial-exit", Outcome::Failed, "SystemExit: 3"),
        ("trial-kill", Outcome::Crashed, "signal 9"),
        ("trial-hang", Outcome::TimedOut, "no answer within 3 s"),
    ] {
        let row = row_with(fault);
        let reason = row.reason.unwrap_or_default();
        assert_eq!(row.outcome, outcome, "{fault}: {reason}");
        assert!(reason.contains(words), "{fault}: {reason}");
    }
}

#[test]
fn what_a_library_prints_does_not_reach_the_protocol() {
    if !python() {
        return;
    }
    let row = row_with("everywhere-print");
    assert_eq!(row.outcome, Outcome::Measured, "{:?}", row.reason);
    assert_eq!((row.trials, row.engine_peak_bytes), (2, Some(4096)));
    assert_eq!((row.model_bytes, row.bits_per_weight), (Some(10 + 35), Some(16.0)));
}

#[test]
fn a_runner_that_is_not_there_is_a_row_that_says_what_to_type() {
    let place = scenario("points = [{ prompt_tokens = 8, new_tokens = 4 }]\n");
    std::fs::create_dir_all(place.path().join("model")).unwrap();
    let output = place.bench(&["run", "scenario.toml"]).env("PATH", "").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let row = &place.records()[0];
    assert_eq!(row.outcome, Outcome::NotInstalled);
    assert_eq!(row.reason.as_deref(), Some("the runner is missing; type: bench setup mlx"));
}

/// Where `bench setup mlx` has put MLX.
fn runners() -> Option<PathBuf> {
    let folder = cache::runners(&cache::dir().ok()?);
    let found = folder.join("bench-mlx").is_file();
    if !found {
        println!("skipped: no MLX here; `bench setup mlx` installs it");
    }
    found.then_some(folder)
}

/// Gives the place the installed runner, and a small model in MLX's layout.
fn install_real(place: &Place, runners: &Path, storage: mlx::Storage) {
    let spec =
        ModelSpec { hf_class: "Qwen3ForCausalLM".to_owned(), ..ModelSpec::tiny(Arch::Qwen3) };
    let cache = place.path().join("cache");
    let folder = mlx::ensure(&spec, storage, 7, &cache, &mut |_, _| {}).unwrap();
    std::fs::rename(folder, place.path().join("model")).unwrap();
    std::os::unix::fs::symlink(runners, cache.join("runners")).unwrap();
}

#[test]
fn a_stream_a_depth_a_batch_and_users_are_all_measured() {
    let Some(runners) = runners() else { return };
    let place = scenario(
        "points = [{ prompt_tokens = 24, new_tokens = 6 }]\nbatch = [1, 3]\nconcurrency = [2]\n\
         [[matrix]]\nmodels = [\"qwen3-0.6b\"]\nquants = [\"Q4_K_M\"]\nengines = [\"mlx\"]\n\
         weights = \"./model\"\nbatch = [1, 3]\n\
         points = [{ prompt_tokens = 24, new_tokens = 6, depth = 40 }]\n",
    );
    install_real(&place, &runners, mlx::Storage::BF16);
    let output = place.run(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let records = place.records();
    assert_eq!(records.len(), 5);
    for row in records {
        assert_eq!(row.outcome, Outcome::Measured, "{}: {:?}", row.case_id, row.reason);
        assert_eq!((row.trials, row.bits_per_weight), (2, Some(16.0)), "{}", row.case_id);
        assert!(row.decode_tok_s_median > Some(0.0), "{}", row.case_id);
        assert!(row.engine_peak_bytes > row.weights_bytes, "{}", row.case_id);
        let effective = row.effective_settings.unwrap();
        assert!(effective.contains("quantisation=none"), "{effective}");
    }
}

#[test]
fn the_true_bits_of_each_quantisation_stand_in_the_row() {
    let Some(runners) = runners() else { return };
    // A group of weights has a scale and a bias of the float's width.
    for (bits, group, dtype, width) in [
        (4, 64, "bfloat16", 4.5),
        (4, 32, "bfloat16", 5.0),
        (6, 64, "bfloat16", 6.5),
        (8, 64, "float32", 9.0),
    ] {
        let point = "points = [{ prompt_tokens = 4, new_tokens = 2 }]\n";
        let place = scenario(&format!("{point}settings = {{ dtype = \"{dtype}\" }}\n"));
        install_real(&place, &runners, mlx::Storage::Affine { bits, group });
        let output = place.run(&[]);
        assert!(output.status.success(), "{}", stderr(&output));
        let row = &place.records()[0];
        let found = row.bits_per_weight.unwrap();
        // Norms, which are no part of a group, add a little.
        assert!((width..width * 1.03).contains(&found), "{bits} bits of {group}: {found}");
        let effective = row.effective_settings.as_deref().unwrap();
        let kind = format!("quantisation=affine-{bits}bit-g{group}");
        assert!(effective.contains(&kind) && effective.contains(dtype), "{effective}");
    }
}

/// Writes down what the model is given, and compares it with what the harness asked for.
const INPUTS: &str = r#"
import json, sys
from bench_mlx import engine
loaded = engine.Engine(sys.argv[1], {"slots": 2})
model, seen = loaded.model, []
class Noted:
    def __call__(self, inputs, cache=None):
        seen.append(inputs.tolist())
        return model(inputs, cache=cache)
    def __getattr__(self, name):
        return getattr(model, name)
loaded.model = Noted()
def request(n):
    return {"context": [1, 2, 3], "prompt": [4 + n, 5, 6], "output": [7, 8 + n, 9, 10]}
requests = [request(0), request(1)]
def flat(step):
    return [row[0] for row in step]
loaded.trial(requests[:1], "lockstep")
assert sum((step[0] for step in seen), [])[:9] == [1, 2, 3, 4, 5, 6, 7, 8, 9], seen
seen.clear()
loaded.trial(requests, "lockstep")
assert seen[0] == [[1, 2, 3], [1, 2, 3]] and seen[1] == [[4, 5], [5, 5]], seen
assert [flat(step) for step in seen[2:6]] == [[6, 6], [7, 7], [8, 9], [9, 9]], seen
seen.clear()
alone = [{**request, "context": []} for request in requests] * 2
loaded.trial(alone, "continuous")
fed = [token for step in seen for row in step for token in row]
assert fed.count(4) == 2 and fed.count(8) == 2, seen
"#;

#[test]
fn the_model_is_fed_the_given_ids_as_if_they_had_been_sampled() {
    let Some(runners) = runners() else { return };
    let place = scenario("points = []\n");
    install_real(&place, &runners, mlx::Storage::BF16);
    let program = std::fs::read_to_string(runners.join("bench-mlx")).unwrap();
    let python = program.split("python='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    let output = Command::new(python)
        .args(["-c", INPUTS])
        .arg(place.path().join("model"))
        .env("PYTHONPATH", SOURCE)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn an_installation_that_fails_says_why_and_leaves_no_runner() {
    if !python() {
        return;
    }
    let place = Place::with_scenario("");
    // As on a machine without a network.
    let output = place.bench(&["setup", "mlx"]).env("PIP_NO_INDEX", "1").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    let words = stderr(&output);
    let expected = ["type again: bench setup mlx", "python3-venv", "is Python 3."];
    assert!(expected.iter().any(|text| words.contains(text)), "{words}");
    assert!(!place.path().join("cache/runners/bench-mlx").exists());
}

/// What `src/runner/batching.rs` promises for the engines in Rust, asked of the same in Python.
const WAITING: &str = r#"
from bench_mlx.queue import Waiting
def samples(requests):
    return [{"token_ns": []} for _ in requests]
# A user asks again after the answer and a pause, and no earlier than its own start.
requests = [{"start_ns": 0}, {"start_ns": 5}, {"after": 0, "think_ns": 20}]
requests.append({"after": 1, "start_ns": 90})
waiting, made = Waiting(requests), samples(requests)
assert waiting.take(0, 2, made) == [0] and waiting.next_at() == 5
assert waiting.take(7, 1, made) == [1] and made[1]["sent_ns"] == 5
assert not waiting
waiting.ended(0, 30)
waiting.ended(1, 40)
assert waiting.next_at() == 50 and waiting.take(60, 2, made) == [2] and made[2]["intended_ns"] == 50
assert waiting.take(90, 2, made) == [3]
# The wait for a free slot is part of the time to first token.
waiting, made = Waiting([{"start_ns": 2}]), samples([0])
assert waiting.take(9, 0, made) == [] and waiting.take(11, 1, made) == [0]
assert made[0]["sent_ns"] == 2
# What is due after the time is over is left out with all that follows it.
late = [{}, {"after": 0, "think_ns": 10, "latest_ns": 5}, {"after": 1, "latest_ns": 5}]
waiting, made = Waiting(late), samples(late)
waiting.take(0, 1, made)
waiting.ended(0, 1)
assert waiting.take(99, 1, made) == [] and not waiting
assert [sample["served"]["error"]["kind"] for sample in made[1:]] == ["not-started"] * 2
try:
    Waiting([{"after": 0}])
    raise SystemExit("a request that waits for itself was accepted")
except ValueError as error:
    assert "request 0 waits for request 0" in str(error)
"#;

#[test]
fn requests_wait_for_each_other_as_in_the_engines_that_are_written_in_rust() {
    if !python() {
        return;
    }
    let output = Command::new("python3")
        .args(["-c", WAITING])
        .env("PYTHONPATH", SOURCE)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}
