//! Real servers that this machine has, started and measured by `bench run`: llama-server, vLLM and
//! mlx_lm.server. Where one is absent its test says so and does nothing.
//!
//! A server is looked for in `BENCH_TEST_LLAMA_SERVER` or `BENCH_TEST_VLLM` (paths of programs), then
//! on the search path; MLX's where `bench setup mlx` has installed it.

#[allow(dead_code, reason = "this test needs a part of what the tests share")]
mod common;

use std::path::PathBuf;

use bench::catalog::models::{Arch, ModelSpec};
use bench::model::{cache, mlx};
use bench::record::{Outcome, Record};
use common::{Place, stderr};

/// The program, or why its test is skipped.
fn program(variable: &str, name: &str) -> Option<PathBuf> {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = named
        .into_iter()
        .chain(std::env::split_paths(&folders).map(|folder| folder.join(name)))
        .find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: no {name} on the search path, and {variable} names none");
    }
    found
}

/// Measures a small model behind the server at two numbers of users.
fn measured(engine: &str, quant: &str, server: &str) -> Vec<Record> {
    let place = Place::with_scenario(&format!(
        "[trials]\nmin = 2\nmax = 2\n[limits]\ntrial_seconds = 300\ncase_seconds = 600\n\
         [[matrix]]\nmodels = [\"smollm2-135m\"]\nquants = [\"{quant}\"]\n\
         engines = [\"{engine}\"]\npoints = [{{ prompt_tokens = 48, new_tokens = 24 }}]\n\
         concurrency = [1, 4]\nrequests = 4\n[servers.{engine}]\n{server}\n"
    ));
    let output = place.run(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let records = place.records();
    assert_eq!(records.len(), 2, "{}", stderr(&output));
    for record in &records {
        assert_eq!(record.outcome, Outcome::Measured, "{:?}", record.reason);
        assert_eq!(record.trials, 2);
        assert!(record.decode_tok_s_median.unwrap() > 0.0);
        let version = record.engine_version.as_ref().unwrap();
        assert!(version.contains(|c: char| c.is_ascii_digit()), "{version}");
        let home = place.path().display().to_string();
        assert!(!format!("{record:?}").contains(&home), "a path got into {record:?}");
    }
    ended(&place);
    records
}

/// What was started has ended, with its children.
fn ended(place: &Place) {
    let home = place.path().display().to_string();
    let left = |pid: &std::fs::DirEntry| {
        let words = std::fs::read(pid.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&words).contains(&home)
    };
    if let Ok(processes) = std::fs::read_dir("/proc") {
        let left: Vec<_> = processes.flatten().filter(left).map(|pid| pid.file_name()).collect();
        assert!(left.is_empty(), "processes {left:?} are still there");
    }
}

/// The work was exactly the case's, and the server's own clock is there beside ours.
fn tells_its_own_times(record: &Record) {
    assert_eq!(record.cached_share_median, Some(0.0), "{record:?}");
    let (prompt, decode) = (record.server_prompt_ns_median, record.server_decode_ns_median);
    let (prompt, decode) = (prompt.unwrap(), decode.unwrap());
    assert!(prompt > 0.0 && prompt < record.ttft_ns_median.unwrap() * 1.5, "{record:?}");
    assert!(decode > 0.0 && decode < record.e2e_ns_median.unwrap() * 1.5, "{record:?}");
}

#[test]
fn llama_server_is_started_measured_and_ended() {
    let Some(path) = program("BENCH_TEST_LLAMA_SERVER", "llama-server") else { return };
    let records = measured("llama-server", "Q8_0", &format!("program = \"{}\"", path.display()));
    for record in &records {
        tells_its_own_times(record);
        let settings = record.effective_settings.as_ref().unwrap();
        let slots = record.concurrency.unwrap();
        assert!(settings.contains(&format!("total_slots={slots}")), "{settings}");
        // Weights of 135 M parameters at 8.5 bits.
        assert!(record.peak_memory_bytes.unwrap() > 130_000_000, "{record:?}");
    }
}

#[test]
fn vllm_is_started_without_weights_measured_and_ended_with_its_workers() {
    let Some(path) = program("BENCH_TEST_VLLM", "vllm") else { return };
    let args = "args = [\"--dtype\", \"bfloat16\", \"--enforce-eager\"]";
    let records = measured("vllm", "BF16", &format!("program = \"{}\"\n{args}", path.display()));
    for record in &records {
        tells_its_own_times(record);
        assert_eq!(record.model_bytes, None, "there is no file of weights");
        assert!(record.peak_memory_bytes.unwrap() > 270_000_000, "{record:?}");
    }
}

/// Where `bench setup mlx` has put its runner, and MLX's own server beside the interpreter of that.
#[cfg(unix)]
fn mlx_server() -> Option<(PathBuf, PathBuf)> {
    let runners = cache::runners(&cache::dir().ok()?);
    let script = std::fs::read_to_string(runners.join("bench-mlx")).ok();
    let python = script.as_ref().and_then(|text| text.split("python='").nth(1)?.split('\'').next());
    let server = python.map(|python| PathBuf::from(python).with_file_name("mlx_lm.server"));
    let found = server.filter(|server| server.is_file());
    if found.is_none() {
        eprintln!("skipped: no MLX here; `bench setup mlx` installs it");
    }
    Some((runners, found?))
}

#[test]
#[cfg(unix)]
fn mlx_lm_server_is_started_measured_beside_mlx_in_process_and_ended() {
    let Some((runners, server)) = mlx_server() else { return };
    let place = Place::with_scenario(&format!(
        "[trials]\nmin = 2\nmax = 2\n[limits]\ntrial_seconds = 120\n[[matrix]]\n\
         models = [\"qwen3-0.6b\"]\nquants = [\"BF16\"]\nweights = \"./model\"\n\
         engines = [\"mlx\", \"mlx-lm-server\"]\n\
         points = [{{ prompt_tokens = 48, new_tokens = 12 }}]\nconcurrency = [1, 3]\n\
         requests = 6\n[servers.mlx-lm-server]\nprogram = \"{}\"\n",
        server.display()
    ));
    let cache = place.path().join("cache");
    let spec = ModelSpec {
        hf_class: "Qwen3ForCausalLM".to_owned(),
        // An answer that hits the end of text is void: among so many tokens it is rare.
        vocab: 100_000,
        ..ModelSpec::tiny(Arch::Qwen3)
    };
    let folder = mlx::ensure(&spec, mlx::Storage::BF16, 7, &cache, &mut |_, _| {}).unwrap();
    std::fs::rename(folder, place.path().join("model")).unwrap();
    std::os::unix::fs::symlink(runners, cache.join("runners")).unwrap();
    let output = place.run(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let records = place.records();
    assert_eq!(records.len(), 4);
    for record in records.iter().filter(|record| record.engine == "mlx-lm-server") {
        assert_eq!(record.outcome, Outcome::Measured, "{:?}", record.reason);
        let version = record.engine_version.as_ref().unwrap();
        assert!(version.contains(|c: char| c.is_ascii_digit()), "{version}");
        assert_eq!(record.cached_share_median, Some(0.0), "{record:?}");
        assert!(record.in_process_decode_tok_s_median > Some(0.0), "{record:?}");
        let own = record.absent.as_ref().unwrap();
        assert!(own.contains("the server does not time its prompts"), "{own}");
        let home = place.path().display().to_string();
        assert!(!format!("{record:?}").contains(&home), "a path got into {record:?}");
    }
    ended(&place);
}
