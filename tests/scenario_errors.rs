//! Wrong scenarios, through the real program: what is wrong, where, what to do, exit code 2, and
//! nothing measured.

#[allow(dead_code, reason = "other tests use the rest of it")]
mod common;

use std::path::{Path, PathBuf};
use std::process::Output;

use bench::scenario::Scenario;
use common::{Place, stderr, stdout};

/// A scenario of one case, in lines 1 to 5.
const RIGHT: &str = r#"[[matrix]]
models = ["qwen3-0.6b"]
quants = ["Q4_K_M"]
engines = ["mock"]
points = [{ prompt_tokens = 64, new_tokens = 16 }]
"#;

/// The scenarios that come with the project.
fn shipped() -> impl Iterator<Item = PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
}

/// What `bench run` says of a scenario, after it has refused it.
fn refusal(text: &str) -> String {
    let place = Place::with_scenario(text);
    let output = place.run(&[]);
    refused(&place, &output);
    stderr(&output)
}

fn refused(place: &Place, output: &Output) {
    assert_eq!(output.status.code(), Some(2), "{}", stderr(output));
    assert_eq!(stdout(output), "");
    assert!(!place.path().join("results").exists(), "a wrong scenario left results");
}

#[test]
fn each_error_names_file_line_offender_and_remedy() {
    for (from, to, error) in [
        ("models", "modells", "scenario.toml:2: unknown key 'modells'; did you mean 'models'?"),
        (
            "qwen3-0.6b",
            "qwen3-0.6",
            "scenario.toml:2: unknown model 'qwen3-0.6'; did you mean 'qwen3-0.6b'?",
        ),
        (
            "Q4_K_M",
            "Q4_K_N",
            "scenario.toml:3: unknown quantisation 'Q4_K_N'; did you mean 'Q4_K_M'?",
        ),
        ("mock", "vlm", "scenario.toml:4: unknown engine 'vlm'; did you mean 'vllm'?"),
        (
            "64",
            "0",
            "scenario.toml:5: 'prompt_tokens' must be from 1 to 16777216, not 0; for example \
             'prompt_tokens = 512'",
        ),
        (
            "64",
            "\"64\"",
            "scenario.toml:5: 'prompt_tokens' must be a whole number, not a text; for example \
             'prompt_tokens = 512'",
        ),
        (
            "64",
            "50000",
            "scenario.toml:5: a context of 50016 tokens (depth + prompt + new) is beyond the 40960 \
             of 'qwen3-0.6b'; shorten the point or leave the model out",
        ),
        (
            "[\"mock\"]",
            "[]",
            "scenario.toml:4: 'engines' is empty, so nothing would run; for example \
             'engines = [\"candle\", \"llama.cpp\"]'",
        ),
    ] {
        let said = refusal(&RIGHT.replace(from, to));
        assert!(said.contains(error), "expected\n{error}\nin\n{said}");
    }
}

#[test]
fn all_errors_are_told_at_once() {
    let text = format!("{RIGHT}batch = [0]\n[trials]\nmim = 5\n").replace("mock", "mokc");
    let said = refusal(&text);
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("scenario.toml:")).collect();
    assert_eq!(lines.len(), 3, "{said}");
    for (line, start) in
        lines.iter().zip(["scenario.toml:4:", "scenario.toml:6:", "scenario.toml:8:"])
    {
        assert!(line.contains(start), "{line}");
    }
}

#[test]
fn a_case_that_is_asked_for_twice_is_refused() {
    let said = refusal(&format!("{RIGHT}{RIGHT}"));
    assert!(
        said.contains("scenario.toml:6: case 'qwen3-0.6b-q4_k_m-mock-p64-n16-d0-b1-"),
        "{said}"
    );
    assert!(said.contains("is already in the [[matrix]] of line 1; remove one of them"), "{said}");
}

#[test]
fn a_file_that_is_no_scenario_is_refused_with_its_reason() {
    let place = Place::with_scenario("");
    for (name, bytes, reason) in [
        ("cut.toml", &b"[[matrix]]\nmodels = [\"qwen3"[..], "cut.toml:2: not TOML: "),
        ("picture.toml", &b"\x89PNG\r\n\x1a\n"[..], "picture.toml:1: not UTF-8; "),
        ("empty.toml", &b""[..], "empty.toml:1: no [[matrix]], so nothing would run; "),
    ] {
        std::fs::write(place.path().join(name), bytes).unwrap();
        let output = place.bench(&["run", name]).output().unwrap();
        refused(&place, &output);
        assert!(stderr(&output).contains(reason), "expected {reason} in {}", stderr(&output));
    }
    let output = place.bench(&["run", "absent.toml"]).output().unwrap();
    refused(&place, &output);
    assert!(stderr(&output).contains("cannot read scenario 'absent.toml'"), "{}", stderr(&output));
    let output = place.bench(&["run", "."]).output().unwrap();
    refused(&place, &output);
    assert!(stderr(&output).contains("'.' is not a file"), "{}", stderr(&output));
}

#[test]
fn on_another_machine_nothing_is_measured() {
    let place = Place::with_scenario(&format!("{RIGHT}[host]\ngpu = \"NoSuchGPU 9000\"\n"));
    let output = place.run(&[]);
    refused(&place, &output);
    let said = stderr(&output);
    assert!(said.contains("expects a GPU 'NoSuchGPU 9000', found"), "{said}");
    assert!(said.contains("--anyway"), "{said}");
    // Its cases can be listed all the same.
    let listed = place.run(&["--dry-run"]);
    assert!(listed.status.success(), "{}", stderr(&listed));
}

#[test]
fn every_shipped_scenario_compares_with_api_models_that_have_a_price() {
    let prices = bench::catalog::cloud_prices::embedded();
    let mut known = bench::cmd::known();
    known.api_models = Some(prices.listings.iter().map(|listing| listing.key()).collect());
    let mut compared = 0;
    for path in shipped() {
        let scenario = Scenario::read(&path, &known).unwrap();
        compared += scenario.prices.map_or(0, |prices| prices.against.len());
    }
    assert!(compared > 10, "only {compared}");
}

#[test]
fn every_shipped_scenario_can_be_listed_on_any_machine() {
    let place = Place::with_scenario(RIGHT);
    for path in shipped() {
        let output = place.bench(&["run", "--dry-run", path.to_str().unwrap()]).output().unwrap();
        assert!(output.status.success(), "{}: {}", path.display(), stderr(&output));
        assert!(!stdout(&output).is_empty());
    }
}
