//! Scenario → child → records, through the real programs, with the mock engine.

mod common;

use std::time::{Duration, Instant};

use bench::record::{Folder, Outcome};
use bench::runner::protocol::Sample;
use common::{Place, stderr, stdout};

/// A scenario with the mock engine whose weights are named so that they say how it behaves.
fn scenario(weights: &str) -> Place {
    scenario_with(weights, "")
}

fn scenario_with(weights: &str, more: &str) -> Place {
    let place = Place::with_scenario(&format!(
        r#"
[trials]
min = 5
max = 5
warm_up = 1

[limits]
case_seconds = 20
trial_seconds = 1
{more}

[[matrix]]
models = ["qwen3-0.6b"]
quants = ["Q8_0"]
engines = ["mock"]
weights = "{weights}"
points = [{{ prompt_tokens = 64, new_tokens = 16 }}]
"#
    ));
    place.write_header(weights);
    place
}

fn with_prompts(text: &str, prompts: &[u32]) -> String {
    let point = |p: &u32| format!("{{ prompt_tokens = {p}, new_tokens = 16 }}");
    let points: Vec<_> = prompts.iter().map(point).collect();
    text.replace(&point(&64), &points.join(", "))
}

#[test]
fn the_figures_of_an_engine_with_known_speeds_are_those_speeds() {
    let place = scenario("m@decode_tps=500,prefill_tps=4000.gguf");
    let output = place.run(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let record = &place.records()[0];
    assert_eq!(record.outcome, Outcome::Measured);
    assert_eq!(record.trials, 5);
    assert_eq!(record.warmup_trials, 1);
    let decode = record.decode_tok_s_median.unwrap();
    assert!((decode / 500.0 - 1.0).abs() < 0.02, "decode {decode}");
    let prefill = record.prefill_tok_s_median.unwrap();
    assert!((prefill / 4000.0 - 1.0).abs() < 0.05, "prefill {prefill}");
    assert!(record.peak_memory_bytes.is_some());
    assert!(record.itl_ns_p95.is_some());
    assert_eq!(record.itl_ns_p99, None, "75 gaps bear no 99th percentile");
}

#[test]
fn each_misbehaviour_is_one_row_with_its_outcome_and_the_run_goes_on() {
    for (fault, outcome) in [
        ("die-on-load", Outcome::Crashed),
        ("oom", Outcome::OutOfMemory),
        ("unsupported", Outcome::Unsupported),
        ("fail-on-load", Outcome::Failed),
        ("die-in-trial", Outcome::Crashed),
        ("exit-in-trial", Outcome::Crashed),
        ("oom-in-trial", Outcome::OutOfMemory),
        ("fail-in-trial", Outcome::Failed),
        ("nonsense", Outcome::Crashed),
        ("garbage-event", Outcome::Crashed),
        ("endless-line", Outcome::Crashed),
        ("early-end", Outcome::Crashed),
        ("hang", Outcome::TimedOut),
        ("hang-on-load", Outcome::TimedOut),
        ("chatty", Outcome::Measured),
    ] {
        let place = scenario(&format!("m@fault={fault}.gguf"));
        let start = Instant::now();
        let output = place.run(&[]);
        let code = i32::from(outcome != Outcome::Measured);
        assert_eq!(output.status.code(), Some(code), "{fault}: {}", stderr(&output));
        let records = place.records();
        assert_eq!(records[0].outcome, outcome, "{fault}: {:?}", records[0].reason);
        assert_eq!(records[0].reason.is_some(), outcome != Outcome::Measured, "{fault}");
        assert!(start.elapsed() < Duration::from_secs(60), "{fault} took too long");
    }
}

#[test]
fn an_engine_that_dies_in_a_later_trial_keeps_the_figures_of_the_earlier_ones() {
    let place = scenario("m@fault=die-in-trial,fault_trial=4.gguf");
    place.run(&[]);
    let record = &place.records()[0];
    assert_eq!(record.outcome, Outcome::Crashed);
    assert_eq!(record.trials, 2);
    assert!(record.decode_tok_s_median.is_some());
    let trials = Folder::open(&place.results()).unwrap().read_trials::<Sample>().unwrap();
    assert_eq!(trials.len(), 3, "the warm-up and two counted trials");
}

#[test]
fn a_missing_runner_is_a_row_that_says_what_to_type() {
    let place = scenario("m.gguf");
    let text = std::fs::read_to_string(place.path().join("scenario.toml")).unwrap();
    let text = text.replace("\"mock\"", "\"candle\", \"mock\"");
    std::fs::write(place.path().join("scenario.toml"), text).unwrap();
    // A program folder with the mock's runner alone.
    let programs = tempfile::tempdir().unwrap();
    for (name, path) in
        [("bench", env!("CARGO_BIN_EXE_bench")), ("bench-mock", env!("CARGO_BIN_EXE_bench-mock"))]
    {
        std::fs::copy(path, programs.path().join(name)).unwrap();
    }
    let output = std::process::Command::new(programs.path().join("bench"))
        .args(["run", "scenario.toml"])
        .current_dir(place.path())
        .env("PATH", "")
        .env("BENCH_CACHE", place.path().join("cache"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let records = place.records();
    assert_eq!(records[0].outcome, Outcome::NotInstalled);
    assert!(records[0].reason.as_ref().unwrap().contains("make candle"), "{:?}", records[0].reason);
    assert_eq!(records[1].outcome, Outcome::Measured);
}

/// What a program says whose libraries are missing, which is how a runner for CUDA fails without a
/// driver.
#[cfg(unix)]
#[test]
fn a_gpu_s_runner_that_does_not_start_is_named_and_the_cpu_s_measures() {
    use std::os::unix::fs::PermissionsExt;
    let place = scenario("m.gguf");
    let programs = tempfile::tempdir().unwrap();
    let program = programs.path().join("bench-mock-cuda");
    let text = "#!/bin/sh\necho 'libcuda.so.1: cannot open shared object file' >&2\nexit 127\n";
    std::fs::write(&program, text).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.path().display(), std::env::var("PATH").unwrap());
    let output = place.bench(&["run", "scenario.toml"]).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("not used: bench-mock-cuda: "), "{said}");
    assert!(said.contains("libcuda.so.1: cannot open"), "{said}");
    let record = &place.records()[0];
    assert_eq!(record.outcome, Outcome::Measured);
    assert_eq!((record.peak_vram_bytes, record.energy_decode_net_joules), (None, None));
}

#[test]
fn the_commands_of_the_prediction_for_an_h200_still_work() {
    let text = include_str!("../reports/h200-predicted.md");
    let commands: Vec<_> = text.lines().filter_map(|l| l.strip_prefix("    bench ")).collect();
    assert!(commands.len() > 3);
    let place = Place::with_scenario("");
    for command in commands {
        let args: Vec<_> = command.split(' ').collect();
        let output = place.bench(&args).output().unwrap();
        assert!(output.status.success(), "bench {command}: {}", stderr(&output));
        // Figures may have moved; what is asked may not.
        let written = text.split_once(command).unwrap().1;
        let head = stdout(&output).lines().next().unwrap().to_owned();
        assert!(written.trim_start().starts_with(&head), "bench {command}: {head}");
    }
}

#[test]
fn resume_measures_what_is_missing_and_nothing_twice() {
    let place = scenario("m.gguf");
    let text = std::fs::read_to_string(place.path().join("scenario.toml")).unwrap();
    let text = with_prompts(&text, &[32, 64]);
    std::fs::write(place.path().join("scenario.toml"), text).unwrap();
    assert!(place.run(&["--only", "p32"]).status.success());
    let first = place.records();
    assert_eq!(first.len(), 1);
    let output = place.run(&["--resume"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let both = place.records();
    assert_eq!(both.len(), 2);
    assert_eq!(both[0], first[0], "the first row stays as it was measured");
    assert_ne!(both[1].case_id, both[0].case_id);
}

#[test]
fn each_case_of_a_turn_has_its_own_weights() {
    let (slow, fast) = ("m@decode_tps=200.gguf", "m@decode_tps=800.gguf");
    let place = scenario(slow);
    let text = std::fs::read_to_string(place.path().join("scenario.toml")).unwrap();
    let matrix = text[text.find("[[matrix]]").unwrap()..].replace(slow, fast);
    let text = text.replace("[trials]\n", "[trials]\nin_turn = \"model\"\n") + &matrix;
    std::fs::write(place.path().join("scenario.toml"), text).unwrap();
    place.write_header(fast);
    let output = place.run(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let mut speeds: Vec<_> =
        place.records().iter().map(|r| r.decode_tok_s_median.unwrap()).collect();
    speeds.sort_by(f64::total_cmp);
    assert!(speeds.len() == 2 && speeds[0] < 250.0 && speeds[1] > 600.0, "{speeds:?}");
}

/// A run of an engine that needs about 0.2 s for a trial, never the same, whose time is over after
/// `seconds`.
fn short_of_time(seconds: &str, trials: &str) -> Place {
    let place = scenario_with(
        "m@decode_tps=80,prefill_tps=100000,jitter=0.3.gguf",
        &format!("scenario_seconds = {seconds}"),
    );
    let text = std::fs::read_to_string(place.path().join("scenario.toml")).unwrap();
    let text = text.replace("min = 5\nmax = 5", trials);
    std::fs::write(place.path().join("scenario.toml"), text).unwrap();
    place
}

#[test]
fn a_case_with_too_few_trials_when_the_time_is_over_has_no_row_and_is_resumed() {
    let place = short_of_time("2", "min = 40\nmax = 40");
    let output = place.run(&[]);
    assert!(stderr(&output).contains("cases without a row: 1;"), "{}", stderr(&output));
    assert_eq!(place.records(), []);
    let text = std::fs::read_to_string(place.path().join("scenario.toml")).unwrap();
    let text = text.replace("scenario_seconds = 2", "").replace("= 40", "= 2");
    std::fs::write(place.path().join("scenario.toml"), text).unwrap();
    let output = place.run(&["--resume"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert_eq!(place.records()[0].trials, 2);
}

#[test]
fn a_case_with_enough_trials_when_the_time_is_over_is_marked() {
    let place = short_of_time("4", "min = 2\nmax = 100\ninterval = 0.001");
    let output = place.run(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let record = &place.records()[0];
    assert!((2..100).contains(&record.trials), "{}", record.trials);
    assert!(record.marks.contains("timed-out"), "{}", record.marks);
}

#[test]
fn a_killed_run_leaves_whole_files_and_is_resumed() {
    let place = scenario("m@decode_tps=100.gguf");
    let text = std::fs::read_to_string(place.path().join("scenario.toml")).unwrap();
    let text = with_prompts(&text, &[16, 32, 64, 128]);
    std::fs::write(place.path().join("scenario.toml"), text).unwrap();
    let mut child = place.bench(&["run", "scenario.toml"]).spawn().unwrap();
    let start = Instant::now();
    let rows = || {
        // A folder that is still being made has a name that begins with a dot.
        let folder = std::fs::read_dir(place.path().join("results"))
            .ok()?
            .map(|entry| entry.unwrap().path())
            .find(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('.'))?;
        Some(bench::record::read_records(&folder.join("records.csv")).unwrap().len())
    };
    while rows().unwrap_or(0) < 1 {
        assert!(start.elapsed() < Duration::from_secs(60), "no row appeared");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let before = place.records();
    assert!(before.len() < 4, "the run was over before it was killed");
    let output = place.run(&["--resume"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let after = place.records();
    assert_eq!(after.len(), 4);
    assert_eq!(after[..before.len()], before[..]);
    let trials = Folder::open(&place.results()).unwrap().read_trials::<Sample>().unwrap();
    assert_eq!(trials.len(), 4 * 6, "five trials and a warm-up for each row, none twice");
}

#[test]
fn results_do_not_name_the_machine_or_its_user() {
    let place = scenario("m.gguf");
    let output = place
        .bench(&["run", "scenario.toml"])
        .env("USER", "alice-secret")
        .env("HOSTNAME", "box-secret")
        .output()
        .unwrap();
    assert!(output.status.success());
    let host = std::fs::read_to_string("/etc/hostname").unwrap_or_default();
    let mut secrets = vec!["alice-secret", "box-secret", place.path().to_str().unwrap()];
    if host.trim().len() > 3 {
        secrets.push(host.trim());
    }
    for file in ["records.csv", "samples.jsonl", "host.toml"] {
        let text = std::fs::read_to_string(place.results().join(file)).unwrap();
        for secret in &secrets {
            assert!(!text.contains(secret), "{file} names '{secret}'");
        }
    }
}

#[test]
fn each_format_is_what_it_says() {
    let place = scenario("m.gguf");
    let output = place.run(&["--format", "json"]);
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows[0]["outcome"], "measured");
    let output = place.run(&["--format", "csv", "--out", "more"]);
    assert!(stdout(&output).starts_with("case_id,scenario,engine"), "{}", stdout(&output));
    let output = place.run(&["--format", "markdown", "--out", "more"]);
    assert!(stdout(&output).contains("| --: |"), "{}", stdout(&output));
    let output = place.run(&["--out", "more"]);
    assert!(stdout(&output).contains("decode tok/s"), "{}", stdout(&output));
}

#[test]
fn a_dry_run_lists_the_cases_and_measures_nothing() {
    let place = scenario("m.gguf");
    let output = place.run(&["--dry-run"]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("qwen3-0.6b-q8_0-mock-p64-n16"), "{}", stdout(&output));
    assert!(!place.path().join("results").exists());
}

#[test]
fn another_machines_scenario_is_not_measured_under_its_name() {
    let place = scenario_with("m.gguf", "\n[host]\ngpu = \"RTX 9999\"\n");
    let output = place.run(&[]);
    assert_eq!(output.status.code(), Some(2));
    let text = stderr(&output);
    assert!(text.contains("RTX 9999") && text.contains("--anyway"), "{text}");
    assert!(!place.path().join("results").exists());
    assert!(place.run(&["--anyway"]).status.success());
    assert!(!place.results().to_str().unwrap().contains("9999"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = scenario("m.gguf");
    let script = format!("'{}' run scenario.toml --dry-run | true", env!("CARGO_BIN_EXE_bench"));
    let output = std::process::Command::new("bash")
        .args(["-c", &format!("set -o pipefail; {script}")])
        .current_dir(place.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}
