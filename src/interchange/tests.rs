//! Each format's sample, hostile files, and the way out and back in.

use super::*;
use crate::compare::Values;
use crate::record::Record;

const SAMPLES: [(&str, Tool, &str); 9] = [
    ("a.json", Tool::LlamaBench, include_str!("../../tests/foreign/llama-bench.json")),
    ("a.jsonl", Tool::LlamaBench, include_str!("../../tests/foreign/llama-bench.jsonl")),
    ("a.csv", Tool::LlamaBench, include_str!("../../tests/foreign/llama-bench.csv")),
    ("a.sql", Tool::LlamaBench, include_str!("../../tests/foreign/llama-bench.sql")),
    ("b.json", Tool::Guidellm, include_str!("../../tests/foreign/guidellm.json")),
    ("c.json", Tool::Aiperf, include_str!("../../tests/foreign/aiperf.json")),
    ("d.json", Tool::VllmBench, include_str!("../../tests/foreign/vllm.json")),
    ("e.json", Tool::Localscore, include_str!("../../tests/foreign/localscore.json")),
    ("f.json", Tool::LlamaBenchy, include_str!("../../tests/foreign/llama-benchy.json")),
];

fn sample(name: &str) -> Imported {
    let (name, _, text) = SAMPLES.iter().find(|(n, _, _)| *n == name).unwrap();
    read(text.as_bytes(), name, None, &Known::default()).unwrap()
}

fn near(a: Option<f64>, b: f64) {
    let a = a.expect("a figure");
    assert!((a / b - 1.0).abs() < 1e-9, "{a} is not {b}");
}

#[test]
fn the_content_says_whose_results_they_are() {
    for (name, tool, _) in SAMPLES {
        assert_eq!(sample(name).tool, tool, "{name}");
    }
}

#[test]
fn every_imported_row_says_whose_it_is_and_is_not_clean() {
    for (name, tool, _) in SAMPLES {
        for record in sample(name).records {
            let source = record.source.clone().unwrap();
            assert!(source.starts_with(&format!("{tool}: {name}, sha256 ")), "{source}");
            assert!(record.marks.contains("foreign") && !record.is_clean(), "{}", record.marks);
            assert!(record.absent.unwrap().contains("memory, energy, probe"));
            assert!(record.trials > 0);
        }
    }
}

#[test]
fn llama_bench_has_a_result_for_the_prompt_one_for_generation_and_one_for_both() {
    for name in ["a.json", "a.jsonl"] {
        let imported = sample(name);
        let [prompt, generation, both] = imported.records.as_slice() else {
            panic!("{imported:?}")
        };
        assert_eq!((prompt.model.as_str(), prompt.quant.as_str()), ("qwen3-8b", "Q4_K_M"));
        assert_eq!(prompt.weights, "Qwen3-8B-Q4_K_M.gguf");
        assert_eq!(prompt.engine_version.as_deref(), Some("b7001 (ab12cd34)"));
        assert_eq!((prompt.host.as_str(), prompt.trials), ("example-gpu-42", 5));
        near(prompt.prefill_tok_s_median, 512.0 / 0.25);
        near(prompt.prefill_tok_s_low, 512.0 / 0.256);
        assert_eq!((prompt.decode_tok_s_median, prompt.ttft_ns_median), (None, None));
        near(generation.decode_tok_s_median, 100.0);
        assert_eq!((generation.prompt_tokens, generation.new_tokens), (0, 128));
        near(both.e2e_ns_median, 8e8);
        near(both.end_to_end_tok_s_median, 80.0);
        let settings = &prompt.settings;
        for word in ["threads=8", "kv_type=f16", "flash_attention=true", "gpu_layers=99"] {
            assert!(settings.split(' ').any(|w| w == word), "{settings}");
        }
        assert_eq!(imported.trials.len(), 15);
    }
}

#[test]
fn csv_and_sql_state_means_and_are_marked_so() {
    for name in ["a.csv", "a.sql"] {
        let imported = sample(name);
        assert_eq!(imported.records.len(), 3, "{name}");
        for record in &imported.records {
            assert!(record.marks.contains("mean-not-median"), "{name}: {}", record.marks);
            assert_eq!(record.prefill_tok_s_low, None);
        }
        near(imported.records[0].prefill_tok_s_median, 2140.8);
        assert!(imported.trials.is_empty());
        // The same test in another format is the same case.
        assert_eq!(imported.records[0].case_id, sample("a.json").records[0].case_id);
    }
}

#[test]
fn guidellm_gives_a_row_for_each_level_of_load() {
    let imported = sample("b.json");
    let [users, rate] = imported.records.as_slice() else { panic!("{imported:?}") };
    assert_eq!((users.model.as_str(), users.concurrency), ("qwen3-8b", Some(8)));
    assert_eq!((users.prompt_tokens, users.new_tokens), (512, 128));
    assert_eq!(users.started, "2026-03-04T05:06:07Z");
    near(users.ttft_ns_median, 2e8);
    near(users.ttft_ns_p99, 4e8);
    near(users.decode_tok_s_median, 50.0);
    near(users.system_tok_s_median, 372.5);
    assert_eq!(users.itl_ns_p50, None, "a mean of each request is no gap");
    assert!(users.absent.as_ref().unwrap().contains("2 of 122 failed"));
    assert_eq!((users.engine.as_str(), users.quant.as_str()), ("unknown", "unknown"));
    assert_eq!((rate.concurrency, rate.rate_per_s), (None, Some(2.5)));
    assert_eq!((rate.load.as_deref(), rate.settings.as_str()), (Some("r2.5"), "arrivals=poisson"));
    assert_eq!(rate.ttft_ns_p99, None, "50 requests bear no 99th percentile");
    assert!(rate.ttft_ns_p95.is_some());
}

#[test]
fn aiperf_s_units_are_read_and_its_warm_up_is_not_its_load() {
    let imported = sample("c.json");
    let record = &imported.records[0];
    assert_eq!((record.model.as_str(), record.concurrency), ("qwen3-8b", Some(8)));
    near(record.ttft_ns_median, 1.5e8);
    near(record.ttft_ns_p99, 2.4e8);
    near(record.decode_tok_s_median, 50.0);
    near(record.system_tok_s_median, 384.0);
    near(record.e2e_ns_median, 2.65e9);
    assert!(record.absent.as_ref().unwrap().contains("3 of 153 failed"));
    let text = SAMPLES[5].2.replace("\"ms\"", "\"fortnights\"");
    let error = read(text.as_bytes(), "x.json", None, &Known::default()).unwrap_err();
    assert!(error.to_string().contains("'fortnights' is no unit of time"), "{error}");
}

#[test]
fn a_load_without_a_limit_is_no_single_stream() {
    let text = include_str!("../../tests/foreign/vllm.json").lines().next().unwrap();
    let text = text.replace(r#""max_concurrency": 4"#, r#""max_concurrency": null"#);
    let record = &read(text.as_bytes(), "d.json", None, &Known::default()).unwrap().records[0];
    assert_eq!(record.load.as_deref(), Some("all-at-once"));
    assert!(record.is_loaded(), "{record:?}");
    // llama-bench's are batches.
    assert!(sample("a.json").records.iter().all(|record| !record.is_loaded()));
}

#[test]
fn vllm_s_client_of_chats_gives_no_time_to_first_token() {
    let imported = sample("d.json");
    let [completions, chat] = imported.records.as_slice() else { panic!("{imported:?}") };
    assert_eq!((completions.prompt_tokens, completions.new_tokens), (512, 128));
    assert_eq!((completions.concurrency, completions.trials), (Some(4), 1));
    assert_eq!(completions.started, "2026-03-04T05:06:07");
    near(completions.ttft_ns_median, 1e8);
    near(completions.decode_tok_s_median, 80.0);
    near(completions.itl_ns_p99, 2e7);
    near(completions.system_tok_s_median, 320.0);
    assert_eq!((chat.ttft_ns_median, chat.decode_tok_s_median), (None, None));
    assert_eq!((chat.rate_per_s, chat.concurrency), (Some(3.0), None));
    let absent = chat.absent.as_ref().unwrap();
    assert!(absent.contains("'openai-chat'") && absent.contains("5 of 105 failed"), "{absent}");
}

#[test]
fn localscore_states_means() {
    let imported = sample("e.json");
    let record = &imported.records[0];
    assert_eq!((record.model.as_str(), record.quant.as_str()), ("llama-3.1-8b", "Q4_K_M"));
    assert_eq!((record.engine.as_str(), record.host.as_str()), ("llamafile", "example-gpu-42"));
    assert!(record.marks.contains("mean-not-median"));
    near(record.prefill_tok_s_median, 1264.5);
    near(record.decode_tok_s_median, 53.9);
    near(record.ttft_ns_median, 828.4e6);
    near(record.e2e_ns_median, 1.1065e9);
    assert_eq!(record.energy_gross_joules, None, "0 W is no measurement");
}

#[test]
fn llama_benchy_s_prefill_is_not_taken_and_its_context_is_where_it_was() {
    let imported = sample("f.json");
    let [plain, filling, deep] = imported.records.as_slice() else { panic!("{imported:?}") };
    assert_eq!((plain.prompt_tokens, plain.depth, plain.trials), (2048, 0, 3));
    near(plain.ttft_ns_median, 2.076e9);
    near(plain.decode_tok_s_median, 50.0);
    assert_eq!(plain.prefill_tok_s_median, None);
    assert!(plain.absent.as_ref().unwrap().contains("first event of the stream"));
    assert_eq!((filling.prompt_tokens, filling.depth), (4096, 0));
    assert_eq!((deep.prompt_tokens, deep.depth, deep.concurrency), (2048, 4096, Some(2)));
    near(deep.system_tok_s_median, 81.0);
    let text = SAMPLES[8]
        .2
        .replace("\"prefix_caching_enabled\": true", "\"prefix_caching_enabled\": false");
    let imported = read(text.as_bytes(), "x.json", None, &Known::default()).unwrap();
    let sent = &imported.records[2];
    assert_eq!((sent.prompt_tokens, sent.depth), (6144, 0), "sent with the prompt, it is prompt");
}

#[test]
fn what_the_file_does_not_say_can_be_told() {
    let known = Known {
        engine: Some("vllm".to_owned()),
        model: Some("qwen3-32b".to_owned()),
        quant: Some("BF16".to_owned()),
        host: Some("h200".to_owned()),
    };
    let imported = read(SAMPLES[4].2.as_bytes(), "b.json", None, &known).unwrap();
    let record = &imported.records[0];
    assert_eq!(
        [&record.engine, &record.model, &record.quant, &record.host],
        ["vllm", "qwen3-32b", "BF16", "h200"]
    );
    assert!(!record.absent.as_ref().unwrap().contains("--engine"));
}

#[test]
fn hostile_files_are_errors_that_say_where() {
    let deep = "[".repeat(100_000);
    let huge = format!("[{{\"build_commit\":\"a\",\"n_gen\":{}1}}]", "9".repeat(400));
    let cases: [(&[u8], &str); 14] = [
        (b"", "x: the file is empty"),
        (b"  \n\t", "x: the file is empty"),
        (b"hello", "x: not the results of a known tool; --from names one of llama-bench,"),
        (b"{}", "x: not the results of a known tool"),
        (b"[]", "x: not the results of a known tool"),
        (b"[{\"build_commit\":\"a\",\n\"n_gen\": ]", "x:2:10: expected value"),
        (b"{\"benchmarks\":[],\"metadata\":1}", "x: there are no results in it"),
        (b"{\"benchmarks\":7,\"metadata\":1}", "x:1: 'benchmarks': 7 is not a list"),
        (b"\xff\xfe{}", "x: byte 0: not UTF-8 text"),
        (deep.as_bytes(), "x:1:128: recursion limit exceeded"),
        (huge.as_bytes(), "x:1:"),
        (
            b"[{\"build_commit\":\"a\",\"n_gen\":-5,\"n_prompt\":1}]",
            "x: result 1: 'n_gen': -5 is not a number of tokens",
        ),
        (
            b"INSERT INTO llama_bench (build_commit, n_gen) VALUES ('a', '",
            "x:1: not an INSERT as llama-bench writes it; is the line cut off?",
        ),
        (
            b"INSERT INTO llama_bench (build_commit, n_gen) VALUES ('a', 'b', 'c');",
            "x:1: 3 values for 2 columns",
        ),
    ];
    for (bytes, expected) in cases {
        let error = format!("{:#}", read(bytes, "x", None, &Known::default()).unwrap_err());
        assert!(error.starts_with(expected), "'{error}' is not '{expected}'");
    }
}

#[test]
fn a_cut_or_damaged_sample_is_an_error_or_fewer_rows_and_never_a_panic() {
    for (name, tool, text) in SAMPLES {
        let whole = sample(name).records.len();
        for end in (0..text.len()).step_by(7) {
            let Some(part) = text.get(..end) else { continue };
            if let Ok(imported) = read(part.as_bytes(), name, Some(tool), &Known::default()) {
                assert!(imported.records.len() <= whole, "{name} cut at {end}");
            }
        }
        for (from, to) in [(":", ":-"), ("0", "null"), ("[", "["), ("\"", ""), ("1", "1e308")] {
            let _ = read(text.replace(from, to).as_bytes(), name, Some(tool), &Known::default());
        }
    }
}

#[test]
fn the_same_test_twice_is_refused_as_one_would_hide_the_other() {
    let twice = SAMPLES[1].2.repeat(2);
    let error = read(twice.as_bytes(), "x", None, &Known::default()).unwrap_err().to_string();
    assert!(error.contains("two results of the same test"), "{error}");
}

fn trials_of(imported: &Imported) -> BTreeMap<String, Values> {
    let mut all: BTreeMap<String, Values> = BTreeMap::new();
    for trial in &imported.trials {
        for metric in Metric::ALL {
            if let Some(value) = trial.values.get(metric.column()) {
                let of_case = all.entry(trial.case_id.clone()).or_default();
                of_case.entry(metric).or_default().push((trial.trial, *value));
            }
        }
    }
    all
}

#[test]
fn what_is_exported_is_imported_as_it_was() {
    let first = sample("a.json");
    let tests: Vec<Record> = first.records[..2].to_vec();
    let host =
        HostFacts { cpu: "Example CPU 9000".to_owned(), gpus: vec!["Example GPU 42".to_owned()] };
    let exported = write_llama_bench(&tests, &trials_of(&first), &host).unwrap();
    assert_eq!((exported.results, exported.left_out.len()), (2, 0));
    let again = read(exported.json.as_bytes(), "a.json", None, &Known::default()).unwrap();
    for (before, after) in tests.iter().zip(&again.records) {
        let same = |r: &Record| {
            (
                [r.prompt_tokens, r.new_tokens, r.depth, r.batch, r.trials],
                [r.model.clone(), r.quant.clone(), r.weights.clone(), r.host.clone()],
                [r.engine_version.clone(), r.backend.clone(), Some(r.started.clone())],
                r.model_bytes,
            )
        };
        assert_eq!(same(before), same(after));
        for (a, b) in [
            (before.prefill_tok_s_median, after.prefill_tok_s_median),
            (before.prefill_tok_s_low, after.prefill_tok_s_low),
            (before.decode_tok_s_median, after.decode_tok_s_median),
            (before.decode_tok_s_mad, after.decode_tok_s_mad),
        ] {
            assert_eq!(a.is_some(), b.is_some());
            if let Some(b) = b.filter(|b| *b > 0.0) {
                near(a, b);
            }
        }
        let words =
            |r: &Record| -> BTreeSet<String> { r.settings.split(' ').map(str::to_owned).collect() };
        // 'use_mmap' is written for older readers beside 'load_mode'.
        let lost: Vec<_> = words(before).difference(&words(after)).cloned().collect();
        assert!(lost.is_empty(), "{lost:?}");
    }
}

#[test]
fn an_export_has_the_fields_of_llama_bench_in_their_order_and_types() {
    let original: Vec<serde_json::Value> = serde_json::from_str(SAMPLES[0].2).unwrap();
    let first = sample("a.json");
    let host = HostFacts::default();
    let exported = write_llama_bench(&first.records[..2], &trials_of(&first), &host).unwrap();
    let rows: Vec<serde_json::Value> = serde_json::from_str(&exported.json).unwrap();
    for (ours, theirs) in rows.iter().zip(&original) {
        for (key, value) in theirs.as_object().unwrap() {
            let kind = |v: &serde_json::Value| {
                (v.is_string(), v.is_boolean(), v.is_number(), v.is_array(), v.is_null())
            };
            assert_eq!(kind(&ours[key]), kind(value), "{key}");
        }
    }
    let order = |text: &str| -> Vec<String> {
        let keys = text.lines().filter_map(|l| l.trim().strip_prefix('"')?.split_once('"'));
        keys.map(|(key, _)| key.to_owned()).take(45).collect()
    };
    let ours: Vec<_> = order(&exported.json).into_iter().filter(|k| k != "use_mmap").collect();
    assert_eq!(ours[..44], order(SAMPLES[0].2)[..44]);
}

#[test]
fn what_llama_bench_cannot_hold_is_left_out_with_a_reason() {
    let batch = Record {
        case_id: "b".to_owned(),
        outcome: Outcome::Measured,
        batch: 8,
        ..Record::default()
    };
    let failed = Record { case_id: "f".to_owned(), ..Record::default() };
    let exported =
        write_llama_bench(&[batch, failed], &BTreeMap::new(), &HostFacts::default()).unwrap();
    assert_eq!(exported.results, 0);
    let reasons: Vec<_> = exported.left_out.iter().map(|(_, reason)| reason.as_str()).collect();
    assert_eq!(reasons, ["llama-bench knows a single stream only", "it has no figures"]);
}
