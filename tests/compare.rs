//! `bench compare` and `bench verify` on results that the mock engine gave, as they are and altered.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use bench::record::{Folder, Record, SUMS, Trial, read_records, write_sums};
use bench::run::summary;
use bench::runner::protocol::Sample;
use bench::scenario::Load;
use common::{Place, stderr, stdout};

/// A folder with results of the mock engine at known speeds.
fn measured() -> Place {
    measured_on("\"mock\"")
}

fn measured_on(engines: &str) -> Place {
    let place = Place::with_scenario(&format!(
        "[trials]\nmin = 6\nmax = 6\n[limits]\ncase_seconds = 60\ntrial_seconds = 10\n\
         [[matrix]]\nmodels = [\"qwen3-0.6b\"]\nquants = [\"Q8_0\"]\nengines = [{engines}]\n\
         weights = \"m@decode_tps=800,prefill_tps=8000.gguf\"\n\
         points = [{{ prompt_tokens = 64, new_tokens = 16 }}]\n"
    ));
    place.write_header("m@decode_tps=800,prefill_tps=8000.gguf");
    place
}

fn bench(place: &Place, args: &[&str]) -> Output {
    place.bench(args).output().unwrap()
}

/// The results again under another name, with the time between tokens stretched by `factor`.
fn stretched(place: &Place, name: &str, factor: f64) -> PathBuf {
    let original = Folder::open(&place.results()).unwrap();
    let mut trials: Vec<Trial<Sample>> = original.read_trials().unwrap();
    for sample in trials.iter_mut().flat_map(|trial| &mut trial.samples) {
        let first = sample.token_ns[0];
        for stamp in &mut sample.token_ns {
            *stamp = first + ((*stamp - first) as f64 * factor) as u64;
        }
    }
    let records: Vec<Record> = place
        .records()
        .into_iter()
        .map(|mut record| {
            let own: Vec<_> =
                trials.iter().filter(|t| t.case_id == record.case_id).cloned().collect();
            let bytes = record.bytes_per_token;
            summary::fill(&mut record, &own, Load::Batch(1), bytes);
            record
        })
        .collect();
    let mut folder = Folder::create(place.path(), name, "", "").unwrap();
    folder.add(records, &trials).unwrap();
    folder.path().to_owned()
}

#[test]
fn a_slow_down_is_found_and_ends_with_exit_code_1() {
    let place = measured();
    assert!(place.run(&[]).status.success());
    let results = place.results();
    let baseline = results.to_str().unwrap();

    let output = bench(&place, &["compare", baseline, baseline]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.starts_with("No regression beyond 3.0 %."), "{text}");
    assert!(text.contains("none seen"), "{text}");

    // Of another machine nothing is judged, which is no good news.
    let other = stretched(&place, "other", 3.0);
    rewrite(&other, |record| record.host = "another".to_owned());
    let output = bench(&place, &["compare", baseline, other.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2), "{}", stdout(&output));
    assert!(stdout(&output).starts_with("Nothing could be judged."), "{}", stdout(&output));

    // So much that no noise of a busy machine hides it.
    let slow = stretched(&place, "slow", 3.0);
    let slow = slow.to_str().unwrap();
    let output = bench(&place, &["compare", baseline, slow]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    let text = stdout(&output);
    assert!(text.starts_with("1 regression beyond 3.0 %."), "{text}");
    assert!(text.contains("regression "), "{text}");

    let output = bench(&place, &["compare", slow, baseline]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    assert!(stdout(&output).contains("faster"), "{}", stdout(&output));
    let output = bench(&place, &["compare", baseline, slow, "--threshold", "80%"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let output = bench(&place, &["compare", baseline, slow, "--metric", "prefill"]);
    assert_eq!(output.status.code(), Some(0), "the prompt is as fast: {}", stdout(&output));

    let output = bench(&place, &["compare", baseline, slow, "--format", "json"]);
    let lines: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let line = lines.iter().find(|line| line["metric"] == "decode_tok_s").unwrap();
    assert_eq!((&line["verdict"], &line["regression"]), (&"slower".into(), &true.into()));
    let ratio = line["ratio"].as_f64().unwrap();
    assert!((ratio * 3.0 - 1.0).abs() < 0.01, "{ratio}");
    assert_eq!(line["pairing"], "apart", "two folders, even with the same start");
    assert!(line["ratio_low"].as_f64().unwrap() <= ratio);
    let output = bench(&place, &["compare", baseline, slow, "--format", "csv"]);
    let text = stdout(&output);
    assert!(text.starts_with("model,quant,weights,prompt_tokens"), "{text}");
    assert_eq!(text.lines().count(), 3, "{text}");
    let output = bench(&place, &["compare", baseline, slow, "--format", "markdown"]);
    let text = stdout(&output);
    assert!(text.starts_with("<!-- bench compare -->\n"), "{text}");
    assert!(text.contains("| --: |") && text.contains("1 regression"), "{text}");
}

#[test]
fn engines_of_one_run_are_compared_in_the_pairs_that_they_ran_in() {
    let place = measured_on("\"candle\", \"mock\"");
    // The mock under two names.
    let programs = tempfile::tempdir().unwrap();
    for (name, path) in [
        ("bench", env!("CARGO_BIN_EXE_bench")),
        ("bench-mock", env!("CARGO_BIN_EXE_bench-mock")),
        ("bench-candle", env!("CARGO_BIN_EXE_bench-mock")),
    ] {
        fs::copy(path, programs.path().join(name)).unwrap();
    }
    let output = Command::new(programs.path().join("bench"))
        .args(["run", "scenario.toml"])
        .current_dir(place.path())
        .env("BENCH_CACHE", place.path().join("cache"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let results = place.results();
    let folder = results.to_str().unwrap();
    let args = ["compare", folder, "--by", "engine", "--format", "json"];
    let output = bench(&place, &args);
    let lines: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in &lines {
        assert_eq!(line["pairing"], "interleaved", "{line}");
        assert_eq!(
            (&line["baseline_engine"], &line["candidate_engine"]),
            (&"candle".into(), &"mock".into())
        );
        assert_eq!((&line["baseline_trials"], &line["candidate_trials"]), (&6.into(), &6.into()));
    }
    let output = bench(&place, &["compare", folder, "--by", "engine", "--baseline", "mock"]);
    assert!(stdout(&output).contains("candle 0."), "{}", stdout(&output));
    let output = bench(&place, &["compare", folder, "--by", "engine", "--baseline", "vllm"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("there are: candle, mock"), "{}", stderr(&output));
}

#[test]
fn several_runs_of_each_side_are_compared_as_one() {
    let place = measured();
    assert!(place.run(&[]).status.success());
    let results = place.results();
    let mut sides = [vec!["compare".to_owned()], vec!["--with".to_owned()]];
    for i in 0..5 {
        // Each start draws a speed of its own; the second side is 30 % slower.
        for (side, slower) in [(0, 1.0), (1, 1.3)] {
            let drawn = 1.0 + 0.01 * f64::from(i * 7 % 5);
            let folder = stretched(&place, &format!("run-{side}-{i}"), drawn * slower);
            sides[side].push(folder.to_str().unwrap().to_owned());
        }
    }
    let words = sides.concat();
    let args: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = bench(&place, &[&args, ["--format", "json"].as_slice()].concat());
    assert_eq!(output.status.code(), Some(1), "{}{}", stdout(&output), stderr(&output));
    let lines: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let line = lines.iter().find(|line| line["metric"] == "decode_tok_s").unwrap();
    assert_eq!((&line["baseline_trials"], &line["candidate_trials"]), (&5.into(), &5.into()));
    // Copies share their start: they did not take turns.
    assert_eq!((&line["verdict"], &line["pairing"]), (&"slower".into(), &"apart".into()));
    assert!(results.is_dir());
}

#[test]
fn wrong_usage_says_what_to_type() {
    let place = measured();
    assert!(place.run(&[]).status.success());
    let results = place.results();
    let folder = results.to_str().unwrap();
    Folder::create(place.path(), "empty", "", "").unwrap();
    for (args, expected) in [
        (vec!["compare", folder], "bench compare FOLDER --by engine"),
        (vec!["compare", folder, "nowhere"], "'nowhere' is no result folder"),
        (vec!["compare", folder, "empty"], "the two sides have no case in common"),
        (vec!["compare", folder, "--by", "engine"], "only one engine is there (mock)"),
        (vec!["compare", folder, folder, "--threshold", "3"], "such as 3% or 0.03"),
        (vec!["compare", folder, folder, "--baseline", "mock"], "it goes with --by engine"),
        (vec!["verify", "nowhere"], "'nowhere' is no result folder"),
    ] {
        let output = bench(&place, &args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(stderr(&output).contains(expected), "{args:?}: {}", stderr(&output));
    }
}

fn edit(path: &Path, change: impl Fn(&str) -> String) {
    let text = fs::read_to_string(path).unwrap();
    let changed = change(&text);
    assert_ne!(text, changed, "the change changes nothing");
    fs::write(path, changed).unwrap();
}

fn rewrite(folder: &Path, change: impl Fn(&mut Record)) {
    let path = folder.join("records.csv");
    let mut records = read_records(&path).unwrap();
    change(&mut records[0]);
    fs::write(path, bench::record::to_csv(&records).unwrap()).unwrap();
}

#[test]
fn results_as_they_were_measured_are_verified() {
    let place = measured();
    assert!(place.run(&[]).status.success());
    let results = place.results();
    let output = bench(&place, &["verify", results.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    assert!(stdout(&output).contains("45 figures of 1 row "), "{}", stdout(&output));
}

#[test]
fn every_way_of_tampering_is_found_and_named() {
    type Tamper = fn(&Path);
    let tampers: [(&str, Tamper, &str); 12] = [
        (
            "a figure",
            |f| rewrite(f, |r| r.decode_tok_s_median = Some(9999.0)),
            "records.csv:2: decode_tok_s_median is 9999.0, the samples give",
        ),
        (
            "an interval",
            |f| rewrite(f, |r| r.prefill_tok_s_low = None),
            "records.csv:2: prefill_tok_s_low is empty, the samples give",
        ),
        (
            "a percentile that the samples do not bear",
            |f| rewrite(f, |r| r.itl_ns_p99 = Some(1e6)),
            "records.csv:2: itl_ns_p99 is 1000000.0, the samples give empty",
        ),
        (
            "the number of trials",
            |f| rewrite(f, |r| r.trials = 60),
            "records.csv:2: trials is 60, the samples give 6",
        ),
        (
            "a mark",
            |f| rewrite(f, |r| r.marks = "client-lag".to_owned()),
            "records.csv:2: marks has 'client-lag', the samples do not give it",
        ),
        (
            "a mark that is none",
            |f| rewrite(f, |r| r.marks = "fine".to_owned()),
            "records.csv:2: marks: 'fine' is not a mark",
        ),
        (
            "a cut file of rows",
            |f| edit(&f.join("records.csv"), |text| text[..text.len() - 40].to_owned()),
            "records.csv: the last line has no end: the file is cut off",
        ),
        (
            "a cut file of samples",
            |f| edit(&f.join("samples.jsonl"), |text| text[..text.len() - 9].to_owned()),
            "samples.jsonl:7: not a trial",
        ),
        (
            "a lost trial",
            |f| {
                edit(&f.join("samples.jsonl"), |text| text.split_inclusive('\n').take(6).collect());
            },
            "records.csv:2: trials is 6, the samples give 5",
        ),
        (
            "a trial that is there twice",
            |f| {
                edit(&f.join("samples.jsonl"), |text| {
                    format!("{text}{}\n", text.lines().next_back().unwrap())
                });
            },
            "samples.jsonl:8: trial 6 of 'qwen3-0.6b-q8_0-mock",
        ),
        (
            "a trial of another case",
            |f| {
                edit(&f.join("samples.jsonl"), |text| text.replacen("qwen3-0.6b", "qwen3-9.9b", 1));
            },
            "samples.jsonl:1: 'qwen3-9.9b-q8_0-mock",
        ),
        (
            "times that run backwards",
            |f| {
                edit(&f.join("samples.jsonl"), |text| {
                    text.replacen("\"token_ns\":[", "\"token_ns\":[9999999999999,", 1)
                });
            },
            "samples.jsonl:1: sample 0: its times run backwards",
        ),
    ];
    let place = measured();
    assert!(place.run(&[]).status.success());
    let results = place.results();
    for (what, tamper, expected) in tampers {
        let copy = place.path().join("copy");
        fs::create_dir(&copy).unwrap();
        for entry in fs::read_dir(&results).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        tamper(&copy);
        // Also where the checksums were made anew, the samples tell.
        write_sums(&copy).unwrap();
        let output = bench(&place, &["verify", "copy"]);
        assert_eq!(output.status.code(), Some(1), "{what}: {}", stdout(&output));
        let text = stdout(&output);
        assert!(text.contains(expected), "{what}: '{expected}' is not in {text}");
        fs::remove_dir_all(&copy).unwrap();
    }
}

#[test]
fn what_no_sample_gives_is_protected_by_the_checksums() {
    let place = measured();
    assert!(place.run(&[]).status.success());
    let results = place.results();
    let folder = results.to_str().unwrap();
    rewrite(&results, |r| r.peak_memory_bytes = Some(1));
    let output = bench(&place, &["verify", folder]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert!(text.contains("records.csv: its content is not what SHA256SUMS:"), "{text}");
    fs::remove_file(results.join(SUMS)).unwrap();
    let output = bench(&place, &["verify", folder]);
    assert_eq!(output.status.code(), Some(0));
    assert!(stdout(&output).contains("note: there is no SHA256SUMS"), "{}", stdout(&output));
}
