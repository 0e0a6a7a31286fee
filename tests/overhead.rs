//! What the ruler itself costs: a token stamp, an event on its way through the pipe, the
//! statistics of a row, a sample of a process tree.

use std::hint::black_box;
use std::time::Instant;

use bench::compare::{self, Better, Pairing};
use bench::metrics::{self, Arrivals};
use bench::runner::TokenSink;
use bench::runner::protocol::{Event, Sample};
use bench::stats::{self, Summary};
use bench::watch::Watch;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

/// Trial values with some scatter.
fn values(count: u32) -> Vec<f64> {
    (0..count).map(|i| 100.0 + f64::from(i * 37 % 11) / 10.0).collect()
}

/// Arrivals of `count` tokens, 10 ms apart.
fn stamps(count: u64) -> Vec<u64> {
    (0..count).map(|i| 200_000_000 + i * 10_000_000 + i * 7919 % 1000).collect()
}

fn stamping(c: &mut Criterion) {
    c.bench_function("stamp a token", |b| {
        // The sink's room is made beforehand, as in a trial.
        b.iter_custom(|count| {
            let mut sink = TokenSink::new(Instant::now(), count as usize);
            let start = Instant::now();
            for _ in 0..count {
                sink.token();
            }
            let took = start.elapsed();
            black_box(sink.len());
            took
        });
    });
}

fn events(c: &mut Criterion) {
    let sample = Sample { token_ns: stamps(512), ..Sample::default() };
    let event = Event::Trial { samples: vec![sample], engine_peak_bytes: None, age_ns: None };
    let line = serde_json::to_string(&event).expect("JSON");
    c.bench_function("encode a trial of 512 tokens", |b| {
        b.iter(|| serde_json::to_string(black_box(&event)));
    });
    c.bench_function("decode a trial of 512 tokens", |b| {
        b.iter(|| serde_json::from_str::<Event>(black_box(&line)));
    });
}

fn statistics(c: &mut Criterion) {
    let (ten, thirty) = (values(10), values(30));
    c.bench_function("summary of 30 trials", |b| b.iter(|| Summary::of(black_box(&thirty))));
    c.bench_function("paired ratio of 10 trials", |b| {
        b.iter(|| stats::paired_ratio(black_box(&ten), black_box(&ten)));
    });
    c.bench_function("unpaired comparison of 30 trials", |b| {
        b.iter(|| {
            let (a, b) = (black_box(&thirty), black_box(&thirty));
            compare::compare(a, b, Pairing::Apart, Better::Higher)
        });
    });
    let token_ns = stamps(512);
    c.bench_function("gaps of 512 tokens", |b| {
        b.iter(|| {
            let arrivals = Arrivals {
                intended_ns: 0,
                sent_ns: 0,
                prompt_tokens: 512,
                token_ns: black_box(&token_ns),
            };
            metrics::summarise_gaps(&arrivals.gaps())
        });
    });
}

fn watching(c: &mut Criterion) {
    c.bench_function("sample this process", |b| {
        b.iter_batched_ref(
            || Watch::start(std::process::id()),
            |watch| watch.lap(),
            BatchSize::NumIterations(100),
        );
    });
}

criterion_group!(overhead, stamping, events, statistics, watching);
criterion_main!(overhead);
