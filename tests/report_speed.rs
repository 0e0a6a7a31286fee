//! Speed of a report: a thousand records as a page, Markdown, CSV and charts.

use std::hint::black_box;

use bench::record::{Outcome, Record};
use bench::report::Render;
use bench::report::html::Html;
use bench::report::markdown::Markdown;
use bench::report::publish::{Contents, Source, report};
use criterion::{Criterion, criterion_group, criterion_main};

/// A row with a value in every column that a run on a CPU fills.
fn record(number: u32) -> Record {
    let engine = if number.is_multiple_of(2) { "candle" } else { "llama.cpp" };
    Record {
        case_id: format!("model-{}-q4_k_m-{engine}-p512-n64-d{}", number / 20, number % 20 / 2),
        scenario: "thousand".to_owned(),
        engine: engine.to_owned(),
        model: format!("model-{}", number / 20),
        quant: "Q4_K_M".to_owned(),
        weights: "synthetic".to_owned(),
        prompt_tokens: 512,
        new_tokens: 64,
        depth: number % 20 / 2 * 1024,
        batch: 1,
        outcome: Outcome::Measured,
        marks: "probe-drift busy-cores".to_owned(),
        engine_version: Some("1.0".to_owned()),
        engine_build: Some("AVX512_VNNI AVX512_BF16 AVX512 AVX2 FMA F16C".to_owned()),
        effective_settings: Some("flash_attention=true kv_type=f16 threads=2".to_owned()),
        bench_version: "0.1.0".to_owned(),
        host: "host".to_owned(),
        started: "2026-11-21T08:46:05Z".to_owned(),
        token_hash: Some("2607737eab502604".to_owned()),
        trials: 7,
        ttft_ns_median: Some(1.022_974_709e9),
        ttft_ns_low: Some(9.99e8),
        ttft_ns_high: Some(1.04e9),
        prefill_tok_s_median: Some(500.501_132),
        prefill_tok_s_low: Some(494.178),
        prefill_tok_s_high: Some(512.512),
        decode_tok_s_median: Some(59.5 - f64::from(number % 20)),
        decode_tok_s_low: Some(30.0),
        decode_tok_s_high: Some(60.0),
        itl_ns_p50: Some(1.667e7),
        itl_ns_p95: Some(1.862e7),
        peak_memory_bytes: Some(501_714_944),
        weights_bytes: Some(398_129_152),
        kv_bytes: Some(66_060_288),
        compute_bytes: Some(26_560_000),
        bandwidth_share: Some(0.76),
        ..Record::default()
    }
}

fn thousand(c: &mut Criterion) {
    let records = (0..1000).map(record).collect();
    let source = Source { folder: "thousand".to_owned(), records, ..Source::default() };
    let contents = Contents { sources: vec![source], ..Contents::default() };
    let mut group = c.benchmark_group("report");
    group.sample_size(10);
    group.bench_function("1,000 records in every form (target: under 2 s)", |b| {
        b.iter(|| {
            let (report, csv) = report(&contents).unwrap();
            let mut text = Vec::new();
            Html.render(&report, &mut text).unwrap();
            Markdown.render(&report, &mut text).unwrap();
            for figure in report.sections.iter().flat_map(|section| &section.figures) {
                black_box(figure.plot.svg().unwrap());
            }
            black_box((csv, text))
        });
    });
    group.finish();
}

criterion_group!(speed, thousand);
criterion_main!(speed);
