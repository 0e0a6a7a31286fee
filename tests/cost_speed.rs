//! Speed of decisions: one with 10,000 draws, and a sweep of all devices against 40 API models.

use std::hint::black_box;

use bench::cost::{
    Alternative, ApiPrice, Assumptions, Basis, DRAWS, Input, Inputs, PRESETS, compare, monte_carlo,
    tornado,
};
use bench::units::UsdPerMtok;
use criterion::{Criterion, criterion_group, criterion_main};
use rust_decimal::Decimal;

/// An ordinary decision: the chat team, our usual assumptions, 13 uncertain inputs.
fn ordinary() -> Assumptions {
    let mut all = Assumptions::default();
    let workload = PRESETS[0].of(Inputs::blank());
    for input in [
        Input::prompt_tokens,
        Input::new_tokens,
        Input::working_days_per_month,
        Input::active_hours_per_day,
        Input::peak_factor,
    ] {
        all.put_point(input, workload.get(input), Basis::Assumed, "preset").unwrap();
    }
    for (input, value) in [
        (Input::requests_per_day, workload.requests_per_day),
        (Input::device_usd, Decimal::from(2699)),
        (Input::output_tok_s, Decimal::from(2400)),
        (Input::electricity_usd_per_kwh, Decimal::new(1872, 4)),
    ] {
        all.put_about(input, value, Decimal::new(2, 1), Basis::Assumed, "test").unwrap();
    }
    all.put_point(Input::active_watts, Decimal::from(675), Basis::Listed, "").unwrap();
    all.put_point(Input::idle_watts, Decimal::from(70), Basis::Listed, "").unwrap();
    all
}

fn api(cents: u32) -> Alternative {
    let price = |cents: u32| UsdPerMtok(Decimal::new(cents.into(), 2));
    Alternative::Api(ApiPrice {
        input: price(cents),
        cached: None,
        output: price(4 * cents),
        batch_discount: None,
    })
}

fn one_decision(c: &mut Criterion) {
    let assumptions = ordinary();
    let inputs = api(300).of(assumptions.inputs()).unwrap();
    let ranges = assumptions.ranges();
    assert_eq!(ranges.len(), 13);
    c.bench_function("one decision with 10,000 draws (target: under 50 ms)", |b| {
        b.iter(|| {
            black_box(compare(&inputs).unwrap());
            black_box(tornado(&inputs, &ranges));
            black_box(monte_carlo(&inputs, &ranges, DRAWS, 1))
        });
    });
}

fn sweep(c: &mut Criterion) {
    let inputs = ordinary().inputs();
    let mut group = c.benchmark_group("sweep");
    group.sample_size(10);
    group.bench_function("75 devices × 40 API models (target: under 1 s)", |b| {
        b.iter(|| {
            for device in 0..75 {
                let mut owned = inputs;
                owned.device_usd = bench::units::Usd(Decimal::from(500 + 100 * device));
                for model in 0..40 {
                    let alternative = api(10 + 25 * model);
                    black_box(compare(&alternative.of(owned).unwrap()).unwrap());
                }
            }
        });
    });
    group.finish();
}

criterion_group!(speed, one_decision, sweep);
criterion_main!(speed);
