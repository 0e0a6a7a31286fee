//! Step times through the real programs: a sweep on an engine whose truth is known, and loads that
//! the step times foretell.

mod common;

use std::sync::{Mutex, MutexGuard, PoisonError};

use common::{Place, stderr, stdout};

/// Steps of 4,000 prompt tokens a second, and of 5 ms for a token of one sequence and a tenth of that
/// more for each further one.
const ENGINE: &str = "m@decode_tps=200,prefill_tps=4000,batch_cost=0.1.gguf";

/// Times are measured here, and these tests would take each other's cores.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn place() -> Place {
    let place = Place::with_scenario(&format!(
        r#"
[trials]
min = 1
max = 1
warm_up = 0

[workload]
prompt_tokens = {{ median = 40, p95 = 160 }}
new_tokens = {{ median = 20, p95 = 60 }}
context_tokens = 512

[[matrix]]
models = ["qwen3-0.6b"]
quants = ["Q8_0"]
engines = ["mock"]
weights = "{ENGINE}"
points = [{{ prompt_tokens = 256, new_tokens = 24 }}]
calibrate = true
slots = 4

[[matrix]]
models = ["qwen3-0.6b"]
quants = ["Q8_0"]
engines = ["mock"]
weights = "{ENGINE}"
points = "workload"
rates = [12]
slots = 4
requests = 60
"#
    ));
    place.write_header(ENGINE);
    place
}

/// The time in a table's row that begins with `words`, in ms.
fn time(text: &str, words: &str) -> f64 {
    let line = text.lines().find(|line| line.trim_start().starts_with(words));
    let line = line.unwrap_or_else(|| panic!("no '{words}' in {text}"));
    let cells: Vec<&str> = line.split_whitespace().collect();
    let (number, unit) = (cells[cells.len() - 2], cells[cells.len() - 1]);
    let scale = match unit {
        "s" => 1e3,
        "ms" => 1.0,
        "µs" => 1e-3,
        "ns" => 1e-6,
        other => panic!("'{other}' is no unit of {line}"),
    };
    number.parse::<f64>().unwrap() * scale
}

#[test]
fn a_sweep_finds_the_step_times_of_an_engine_and_they_foretell_its_load() {
    let _turn = turn();
    let place = place();
    let output = place.run(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let sweep = &place.records()[0];
    assert!(sweep.is_calibration() && sweep.requests > Some(50), "{sweep:?}");
    assert_eq!((sweep.decode_tok_s_median, sweep.requests_per_s), (None, None));
    assert!(stdout(&output).contains("a sweep for bench capacity"), "{}", stdout(&output));

    let results = place.results();
    let steps = ["calibrate", "--steps", results.to_str().unwrap()];
    let output = place.bench(&steps).output().unwrap();
    let text = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    // Other work on the machine makes single steps longer, not the middle of many.
    for (words, truth) in [("1 generating", 5.0), ("4 generating", 6.5), ("128 prompt", 32.0)] {
        let found = time(&text, words);
        assert!((found / truth - 1.0).abs() < 0.1, "{words}: {found} ms of {truth}\n{text}");
    }
    assert!(text.contains("Loads that had no part"), "{text}");
    for figure in ["TTFT P50", "TPOT P50", "E2E P95"] {
        assert!(text.contains(figure), "{text}");
    }

    let verified = place.bench(&["verify", results.to_str().unwrap()]).output().unwrap();
    assert!(verified.status.success(), "{}", stdout(&verified));
}

#[test]
fn results_without_a_sweep_say_how_to_get_one() {
    let _turn = turn();
    let place = place();
    let output = place.run(&["--only", "r12"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let results = place.results();
    let steps = ["calibrate", "--steps", results.to_str().unwrap()];
    let output = place.bench(&steps).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("calibrate = true"), "{}", stderr(&output));
}

#[test]
fn the_committed_proof_is_what_the_results_give() {
    let _turn = turn();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let committed = std::fs::read_to_string(root.join("reports/capacity-proof.md")).unwrap();
    let again = committed.lines().find(|line| line.trim().starts_with("bench calibrate --steps"));
    let folders = again.unwrap().split_whitespace().nth(3).unwrap();
    let place = Place::with_scenario("");
    let path = place.path().join("proof.md");
    let args = ["calibrate", "--steps", folders, "--report", path.to_str().unwrap()];
    let output = place.bench(&args).current_dir(root).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let made = std::fs::read_to_string(&path).unwrap();
    let body = |text: &str| text.split("## Again").next().unwrap().to_owned();
    assert_eq!(
        body(&made),
        body(&committed),
        "remake it: bench calibrate --steps {folders} --report reports/capacity-proof.md"
    );
}
