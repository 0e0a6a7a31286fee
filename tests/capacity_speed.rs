//! How many requests a second the simulation of a serving engine gets through, on one core.

use bench::capacity::{
    Cache, Curve, Demand, Engine, Fleet, Routing, Span, StepTime, Who, simulate,
};
use bench::metrics::Limits;
use bench::units::{Nanos, Tokens};
use bench::workload::{Arrivals, Length, Mix};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const REQUESTS: u64 = 100_000;

/// A card that computes 32 sequences in steps of 14 ms.
fn engine() -> Engine {
    let curve = |points: &[(f64, f64)]| Curve::new(points.to_vec()).expect("a curve");
    let step = StepTime {
        decode: curve(&[(1.0, 0.010), (8.0, 0.011), (32.0, 0.014)]),
        cached_token: 2e-8,
        prompt: curve(&[(0.0, 0.010), (2048.0, 0.120)]),
        pair: 1e-10,
        both: 0.0,
        beside: 1e-5,
        entry: 0.001,
    };
    let cache = Cache::Paged { tokens: 200_000, block: 16 };
    Engine { sequences: 32, cache, ..Engine::vllm(step, 0) }
}

fn mix(turns: u32) -> Mix {
    Mix {
        prompt: Length::LogNormal { median: 80.0, p95: 800.0 },
        answer: Length::LogNormal { median: 250.0, p95: 900.0 },
        turns,
        think: Nanos(30_000_000_000),
        context: Tokens(8192),
        trace: Vec::new(),
    }
}

fn requests_a_second(c: &mut Criterion) {
    let limits = Limits {
        ttft: Some(Nanos(1_000_000_000)),
        tpot: Some(Nanos(50_000_000)),
        end_to_end: None,
    };
    let span = Span { run_up: 100, requests: REQUESTS, time: None, day_second: 0.0, bins: 0 };
    let fleet = |count| Fleet { engines: vec![engine(); count], routing: Routing::LeastLoaded };
    let rate = |per_second| Who::Rate { per_second, arrivals: Arrivals::Poisson };
    let mut group = c.benchmark_group("capacity");
    group.sample_size(10).throughput(Throughput::Elements(REQUESTS));
    for (name, devices, who, turns) in [
        // 32 users without a pause: always 32 sequences.
        ("batch 32, always full", 1, Who::Users { users: 32 }, 1),
        ("batch 32, an open loop at four fifths", 1, rate(5.0), 1),
        ("eight devices, conversations of four turns", 8, rate(9.0), 4),
    ] {
        let mut mix = mix(turns);
        if matches!(who, Who::Users { .. }) {
            mix.think = Nanos(0);
        }
        let demand = Demand { mix, who, profile: None };
        let fleet = fleet(devices);
        // What is timed is what was meant.
        let outcome = simulate(&fleet, &demand, &limits, &span, 1).expect("an outcome");
        assert_eq!((outcome.asked, outcome.overload), (REQUESTS, None), "{name}");
        eprintln!("{name}: {:.1} sequences on average", outcome.running / devices as f64);
        group.bench_function(name, |b| {
            b.iter(|| simulate(&fleet, &demand, &limits, &span, 1).expect("an outcome").met);
        });
    }
    group.finish();
}

criterion_group!(benches, requests_a_second);
criterion_main!(benches);
