use crate::host::Host;
use crate::record::{Outcome, Record};
use crate::report::html::Html;
use crate::report::markdown::Markdown;
use crate::report::{Render, Report};

use super::{Contents, Source, report};

const HOST: &str = r#"
label = "amd-epyc-2c-24g"
[cpu]
model = "AMD EPYC"
logical_cores = 2
usable_threads = 2
instruction_sets = ["avx2"]
[memory]
total = 25276502016
swap = 0
[os]
name = "Linux"
architecture = "x86_64"
[limits]
"#;

fn host() -> Host {
    toml::from_str(HOST).unwrap()
}

fn record(engine: &str, decode: f64) -> Record {
    Record {
        case_id: format!("m-{engine}"),
        scenario: "golden".to_owned(),
        engine: engine.to_owned(),
        model: "qwen3-0.6b".to_owned(),
        quant: "Q4_K_M".to_owned(),
        weights: "synthetic".to_owned(),
        prompt_tokens: 512,
        new_tokens: 64,
        batch: 1,
        settings: "threads=2".to_owned(),
        outcome: Outcome::Measured,
        engine_version: Some("1.0".to_owned()),
        engine_build: Some("AVX2".to_owned()),
        backend: Some("CPU".to_owned()),
        effective_settings: Some("kv_type=f16 threads=2".to_owned()),
        bench_version: "0.1.0".to_owned(),
        host: "amd-epyc-2c-24g".to_owned(),
        started: "2026-11-21T08:46:05Z".to_owned(),
        token_hash: Some("2607737eab502604".to_owned()),
        trials: 7,
        ttft_ns_median: Some(1.02e9),
        ttft_ns_low: Some(1.0e9),
        ttft_ns_high: Some(1.04e9),
        prefill_tok_s_median: Some(500.5),
        prefill_tok_s_low: Some(494.2),
        prefill_tok_s_high: Some(512.5),
        decode_tok_s_median: Some(decode),
        decode_tok_s_low: Some(decode * 0.98),
        decode_tok_s_high: Some(decode * 1.01),
        itl_ns_p50: Some(1.6e7),
        peak_memory_bytes: Some(501_714_944),
        weights_bytes: Some(398_129_152),
        kv_bytes: Some(66_060_288),
        compute_bytes: Some(26_560_000),
        absent: Some("package_energy: no energy counter of the processor".to_owned()),
        ..Record::default()
    }
}

fn contents(records: Vec<Record>) -> Contents {
    let source = Source {
        folder: "2026-11-21-amd-epyc-2c-24g-golden".to_owned(),
        records,
        host: Some(host()),
        description: Some("A golden report".to_owned()),
    };
    Contents {
        sources: vec![source],
        command: "bench report results/golden --out reports/golden".to_owned(),
        ..Contents::default()
    }
}

fn golden() -> Contents {
    let deep = Record { depth: 4096, decode_tok_s_median: Some(41.6), ..record("candle", 41.6) };
    let many = Record {
        batch: 8,
        system_tok_s_median: Some(206.0),
        marks: "probe-drift".to_owned(),
        ..record("candle", 26.5)
    };
    let failed = Record {
        outcome: Outcome::OutOfMemory,
        reason: Some("no room for 4 GiB".to_owned()),
        trials: 0,
        depth: 131_072,
        ..Record { decode_tok_s_median: None, ..record("llama.cpp", 0.0) }
    };
    contents(vec![record("candle", 59.5), record("llama.cpp", 35.8), deep, many, failed])
}

fn rendered(form: &dyn Render, report: &Report) -> String {
    let mut text = Vec::new();
    form.render(report, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_report_is_written_as_it_was() {
    let (report, csv) = report(&golden()).unwrap();
    insta::assert_snapshot!("report.md", rendered(&Markdown, &report));
    insta::assert_snapshot!("results.csv", csv);
}

#[test]
fn the_answer_comes_first() {
    let (report, _) = report(&golden()).unwrap();
    assert_eq!(report.sections[0].heading, "In short");
    let first = &report.sections[0].headlines[0];
    assert_eq!(first.value, "59.5 tok/s");
    assert_eq!(first.interval.as_deref(), Some("95 % interval 58.3 to 60.1"));
}

#[test]
fn rows_that_did_other_work_are_marked_in_every_table_that_they_share() {
    let other = Record {
        token_hash: Some("another".to_owned()),
        engine_build: Some("AVX512".to_owned()),
        ..record("candle", 61.0)
    };
    let (report, _) = report(&contents(vec![record("candle", 59.5), other])).unwrap();
    for heading in ["Speed by engine", "Time to first token"] {
        let section = report.sections.iter().find(|s| s.heading == heading).unwrap();
        let table = section.table.as_ref().unwrap();
        assert!(table.rows[0].iter().all(|cell| !cell.text.contains('‡')));
        let second = &table.rows[1];
        assert!(second.iter().any(|cell| cell.text.ends_with('‡')), "{second:?}");
        let last = &second.last().unwrap().text;
        assert_eq!(last, "other token ids; other build of the engine");
    }
    assert!(report.sections[0].text.is_empty(), "and no sentence compares them");
}

#[test]
fn rows_of_several_machines_say_which_and_when() {
    let mut two = contents(vec![record("candle", 59.5)]);
    let mut other = two.sources[0].clone();
    other.host.as_mut().unwrap().label = "apple-m4-max-64g".to_owned();
    other.records[0].host = "apple-m4-max-64g".to_owned();
    other.records[0].started = "2026-11-20T00:00:00Z".to_owned();
    two.sources.push(other);
    let (report, _) = report(&two).unwrap();
    let speed = report.sections.iter().find(|s| s.heading == "Speed by engine").unwrap();
    let table = speed.table.as_ref().unwrap();
    for (row, words) in
        [(0, ["amd-epyc-2c-24g", "2026-11-21"]), (1, ["apple-m4-max-64g", "2026-11-20"])]
    {
        for word in words {
            assert!(table.rows[row].iter().any(|cell| cell.text == word), "{word}");
        }
    }
}

#[test]
fn hostile_names_do_no_harm_in_any_form() {
    let bad = "\"><script>alert(1)</script>|[x](javascript:alert(2))=1+1";
    let mut hostile = record(bad, 10.0);
    for text in
        [&mut hostile.model, &mut hostile.quant, &mut hostile.weights, &mut hostile.settings]
    {
        *text = bad.to_owned();
    }
    hostile.case_id = format!("={bad}");
    hostile.host = bad.to_owned();
    hostile.marks = "probe-drift".to_owned();
    hostile.engine_version = Some(bad.to_owned());
    hostile.effective_settings = Some(bad.to_owned());
    let failed =
        Record { reason: Some(bad.to_owned()), outcome: Outcome::Crashed, ..hostile.clone() };
    let mut contents = contents(vec![hostile, failed, record("candle", 5.0)]);
    contents.title = Some(bad.to_owned());
    contents.command = format!("bench report '{bad}'\n# x");
    contents.with_host_names = true;
    let (report, csv) = report(&contents).unwrap();
    let page = rendered(&Html, &report);
    assert_eq!(page.matches("<script").count(), 1, "ours alone");
    let markdown = rendered(&Markdown, &report);
    let outside = markdown.lines().filter(|line| !line.starts_with("    "));
    for line in outside.map(|line| line.replace("\\<", "").replace("\\]", "")) {
        assert!(!line.contains('<') && !line.contains("[x]("), "{line}");
    }
    assert!(!markdown.contains("\n# x"), "a command stays one line");
    assert!(csv.contains("'="), "{csv}");
    for figure in report.sections.iter().flat_map(|section| &section.figures) {
        assert!(!figure.plot.svg().unwrap().contains("<script"));
    }
}

#[test]
fn names_and_folders_of_people_are_in_no_form_unless_asked_for() {
    let mut private = record("candle", 59.5);
    private.host = "adas-macbook".to_owned();
    private.effective_settings = Some("model=/home/ada/x.gguf".to_owned());
    let failed = Record {
        outcome: Outcome::Failed,
        reason: Some("cannot read '/Users/ada/y.gguf' on adas-macbook".to_owned()),
        ..private.clone()
    };
    let mut contents = contents(vec![private, failed]);
    contents.command = "bench report results/2026-11-21-adas-macbook-x --out x".to_owned();
    let (closed, csv) = report(&contents).unwrap();
    let all = rendered(&Html, &closed) + &rendered(&Markdown, &closed) + &csv;
    assert!(!all.contains("ada"), "a name was left in");
    contents.with_host_names = true;
    let (open, csv) = report(&contents).unwrap();
    assert!(rendered(&Html, &open).contains("adas-macbook") && csv.contains("/home/ada"));
}

#[test]
fn a_thousand_records_make_less_than_three_megabytes() {
    let full = Record {
        ttft_ns_p95: Some(1.234_567_890_123e9),
        ttft_ns_p99: Some(1.234_567_890_123e9),
        itl_ns_p95: Some(1.234_567_89e7),
        itl_ns_p99: Some(1.234_567_89e7),
        itl_ns_max: Some(1.234_567_89e7),
        marks: "probe-drift busy-cores".to_owned(),
        effective_settings: Some("batch_tokens=512 flash_attention=true gpu_layers=0 ".repeat(3)),
        engine_build: Some("AVX512_VNNI AVX512_BF16 AVX512 AVX2 FMA F16C ".repeat(3)),
        absent: Some("package_energy: no energy counter of the processor; ".repeat(4)),
        ..record("llama.cpp", 35.788_995_526_486_91)
    };
    let records = (0..1000)
        .map(|n| Record {
            model: format!("model-number-{}", n / 20),
            depth: n % 10 * 1024,
            engine: if n % 20 < 10 { "candle".to_owned() } else { "llama.cpp".to_owned() },
            case_id: format!("a-case-with-a-name-of-usual-length-and-its-hash-{n}"),
            ..full.clone()
        })
        .collect();
    let (report, _) = report(&contents(records)).unwrap();
    let page = rendered(&Html, &report);
    assert!(page.len() < 3_000_000, "{} bytes", page.len());
}
