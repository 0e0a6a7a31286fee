//! `bench import`, `bench export`, completions and manual pages, through the real program.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use bench::record::{Record, read_records};
use common::{Place, stderr, stdout};

fn foreign(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/foreign").join(name);
    path.to_str().unwrap().to_owned()
}

fn place() -> Place {
    Place::with_scenario("")
}

fn bench(place: &Place, args: &[&str]) -> Output {
    place.bench(args).output().unwrap()
}

/// Imports a file into a folder of its own and gives the folder that was made.
fn import(place: &Place, file: &str, out: &str) -> PathBuf {
    let output = bench(place, &["import", file, "--out", out]);
    assert!(output.status.success(), "{}", stderr(&output));
    let mut folders = fs::read_dir(place.path().join(out)).unwrap();
    folders.next().unwrap().unwrap().path()
}

#[test]
fn imported_results_are_a_folder_that_is_reported_and_verified() {
    let place = place();
    let names =
        ["llama-bench.json", "llama-bench.csv", "guidellm.json", "aiperf.json", "vllm.json"];
    for (i, name) in names.into_iter().chain(["localscore.json", "llama-benchy.json"]).enumerate() {
        let folder = import(&place, &foreign(name), &format!("out{i}"));
        let source = fs::read_to_string(folder.join("source.toml")).unwrap();
        assert!(source.contains(&format!("file = \"{name}\"")), "{source}");
        assert!(!source.contains(env!("CARGO_MANIFEST_DIR")), "folders stay at home: {source}");
        let shown = folder.to_str().unwrap();
        let output = bench(&place, &["verify", shown]);
        assert_eq!(output.status.code(), Some(0), "{name}: {}", stdout(&output));
        let output = bench(&place, &["report", shown]);
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        assert!(stdout(&output).contains("foreign"), "{name}: {}", stdout(&output));
    }
}

#[test]
fn an_imported_figure_that_was_altered_is_found() {
    let place = place();
    let folder = import(&place, &foreign("llama-bench.json"), "out");
    let path = folder.join("records.csv");
    let mut records = read_records(&path).unwrap();
    records[1].decode_tok_s_median = Some(123.0);
    fs::write(&path, bench::record::to_csv(&records).unwrap()).unwrap();
    let output = bench(&place, &["verify", folder.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.contains("records.csv:3: decode_tok_s_median is 123.0"), "{text}");
    assert!(text.contains("SHA256SUMS"), "{text}");
}

#[test]
fn two_imported_runs_of_one_test_are_compared() {
    let place = place();
    let text = fs::read_to_string(foreign("llama-bench.jsonl")).unwrap();
    // Half as fast, by another build.
    let slow: String = text
        .lines()
        .map(|line| {
            let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
            row["build_commit"] = "ffff0000".into();
            for sample in row["samples_ns"].as_array_mut().unwrap() {
                *sample = (sample.as_u64().unwrap() * 2).into();
            }
            format!("{row}\n")
        })
        .collect();
    fs::write(place.path().join("slow.jsonl"), slow).unwrap();
    let (a, b) =
        (import(&place, &foreign("llama-bench.jsonl"), "a"), import(&place, "slow.jsonl", "b"));
    let output = bench(&place, &["compare", a.to_str().unwrap(), b.to_str().unwrap()]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}{}", stderr(&output));
    assert!(text.starts_with("2 regressions beyond 3.0 %."), "{text}");
    assert!(text.contains("ffff0000"), "the builds are named: {text}");
}

#[test]
fn a_wrong_file_is_an_error_and_leaves_nothing() {
    let place = place();
    fs::write(place.path().join("bad.json"), "{\"a\":\n 1,}").unwrap();
    let output = bench(&place, &["import", &foreign("aiperf.json"), "bad.json", "--out", "out"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("bad.json:2:4: trailing comma"), "{}", stderr(&output));
    assert!(!place.path().join("out").exists());
    for (args, expected) in [
        (vec!["import", "."], "is not a file"),
        (vec!["import", "none.json"], "cannot read 'none.json'"),
        (vec!["import", "bad.json", "--model", "qwen3-0.6c"], "did you mean 'qwen3-0.6b'"),
    ] {
        let output = bench(&place, &args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
    }
}

fn measured() -> Place {
    let place = Place::with_scenario(
        "[trials]\nmin = 5\nmax = 5\n[limits]\ncase_seconds = 60\ntrial_seconds = 10\n\
         [[matrix]]\nmodels = [\"qwen3-0.6b\"]\nquants = [\"Q8_0\"]\nengines = [\"mock\"]\n\
         weights = \"m@decode_tps=800,prefill_tps=8000.gguf\"\n\
         points = [{ prompt_tokens = 64, new_tokens = 16 }]\nbatch = [1, 2]\n",
    );
    place.write_header("m@decode_tps=800,prefill_tps=8000.gguf");
    assert!(place.run(&[]).status.success());
    place
}

#[test]
fn our_own_results_survive_the_way_out_and_back() {
    let place = measured();
    let results = place.results();
    let folder = results.to_str().unwrap();
    let args = ["export", folder, "--format", "llama-bench", "--out", "out.json"];
    let output = bench(&place, &args);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stderr(&output);
    assert!(text.contains("out.json: 2 results"), "{text}");
    assert!(text.contains("-b2-") && text.contains("a single stream only"), "{text}");

    let ours: Vec<Record> = place.records();
    let back = read_records(&import(&place, "out.json", "back").join("records.csv")).unwrap();
    let [prompt, generation] = back.as_slice() else { panic!("{back:?}") };
    assert_eq!((prompt.model.as_str(), prompt.quant.as_str()), ("qwen3-0.6b", "Q8_0"));
    assert_eq!((prompt.prompt_tokens, prompt.new_tokens, prompt.depth), (64, 0, 0));
    // From the first of 16 tokens on 15 are generated, behind the prompt.
    assert_eq!((generation.prompt_tokens, generation.new_tokens, generation.depth), (0, 15, 64));
    for (back, ours) in [
        (prompt.prefill_tok_s_median, ours[0].prefill_tok_s_median),
        (prompt.prefill_tok_s_high, ours[0].prefill_tok_s_high),
        (generation.decode_tok_s_median, ours[0].decode_tok_s_median),
        (generation.decode_tok_s_low, ours[0].decode_tok_s_low),
    ] {
        let (back, ours) = (back.unwrap(), ours.unwrap());
        assert!((back / ours - 1.0).abs() < 1e-6, "{back} is not {ours}");
    }
    assert_eq!((prompt.trials, generation.trials), (5, 5));

    // Printed, it can go through a pipe.
    let output = bench(&place, &["export", folder, folder, "--format", "llama-bench"]);
    let rows: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows.len(), 4);
}

#[test]
fn an_sqlite_file_is_one_and_is_not_overwritten() {
    let place = measured();
    let results = place.results();
    let folder = results.to_str().unwrap();
    let args = ["export", folder, "--format", "sqlite", "--out", "out.sqlite"];
    assert!(bench(&place, &args).status.success());
    let bytes = fs::read(place.path().join("out.sqlite")).unwrap();
    assert!(bytes.starts_with(b"SQLite format 3\0"));
    let output = bench(&place, &args);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("'out.sqlite' exists"), "{}", stderr(&output));
    let output = bench(&place, &["export", folder, "--format", "sqlite"]);
    assert!(stderr(&output).contains("--out FILE"), "{}", stderr(&output));
}

#[test]
fn completions_know_the_subcommands_of_every_shell() {
    let place = place();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = bench(&place, &["completions", shell]);
        assert!(output.status.success(), "{shell}");
        for word in ["compare", "threshold", "verify"] {
            assert!(stdout(&output).contains(word), "{shell}: {word}");
        }
    }
    assert_eq!(bench(&place, &["completions", "tcsh"]).status.code(), Some(2));
}

#[test]
fn each_subcommand_has_a_manual_page() {
    let place = place();
    assert!(bench(&place, &["man", "--out", "man1"]).status.success());
    for page in ["bench", "bench-run", "bench-compare", "bench-verify", "bench-import"] {
        let text = fs::read_to_string(place.path().join(format!("man1/{page}.1"))).unwrap();
        assert!(text.contains(".TH") && text.contains(".SH NAME"), "{page}: {text}");
    }
}
