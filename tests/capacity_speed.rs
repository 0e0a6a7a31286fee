//! How many requests a second the simulation of a serving engine gets through, on one core.

use bench::capacity::{
    Cache, Curve, Demand, Engine, Fleet, Objective, Routing, Span, StepTime, Who, in_parallel,
    simulate,
};
use bench::metrics::Limits;
use bench::units::{Nanos, Share, Tokens};
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
        cold: 0.0,
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

/// How many of each of twenty machines, of which the slowest takes four times as long as the fastest,
/// serve so many users: all that `bench capacity` simulates to find it.
fn search(c: &mut Criterion) {
    let scaled = |by: f64| {
        let Engine { step, .. } = engine();
        let times = |curve: &Curve| {
            let points = curve.points().iter().map(|(n, seconds)| (*n, seconds * by));
            Curve::new(points.collect()).expect("a curve")
        };
        let step = StepTime {
            decode: times(&step.decode),
            prompt: times(&step.prompt),
            cached_token: step.cached_token * by,
            pair: step.pair * by,
            ..step
        };
        Engine::llama_server(step, 16, Tokens(8192))
    };
    let engines: Vec<Engine> = (0..20).map(|i| scaled(1.0 + 3.0 * f64::from(i) / 19.0)).collect();
    let objective = Objective {
        limits: Limits { ttft: Some(Nanos(1_000_000_000)), tpot: None, end_to_end: None },
        attainment: Share(0.95),
        routing: Routing::Sticky,
        beside: Vec::new(),
        most: 64,
        seed: 1,
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut group = c.benchmark_group("capacity search over 20 machines");
    group.sample_size(10);
    for users in [40, 400] {
        let demand = Demand {
            mix: mix(4),
            who: Who::Users { users },
            pauses: Arrivals::Poisson,
            profile: None,
        };
        group.bench_function(format!("{users} users"), |b| {
            b.iter(|| {
                in_parallel(engines.len(), threads, |i| {
                    objective.size(&engines[i], &demand, None).expect("a size").count()
                })
            });
        });
    }
    group.finish();
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
        let demand = Demand { mix, who, pauses: Arrivals::Constant, profile: None };
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

criterion_group!(benches, requests_a_second, search);
criterion_main!(benches);
