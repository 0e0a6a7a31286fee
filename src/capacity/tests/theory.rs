//! Waiting times that queueing theory knows.

use rand::SeedableRng;
use rand_distr::{Distribution, Exp1};
use rand_xoshiro::Xoshiro256PlusPlus;

use super::*;
use crate::workload::Recorded;

const REQUESTS: usize = 60_000;
/// Student's t with 19 degrees of freedom, two-sided 99.9 %: the seeds are fixed, so a formula that
/// is right stays right, and one that is off by a few per cent fails.
const T: f64 = 3.883;
/// Of the steady engine: its steps are 10 ms.
const STEP: f64 = 0.010;
/// The mean service takes so many steps, so that their ends hardly matter.
const STEPS: f64 = 2000.0;

/// Arrivals of a Poisson process with exponential or fixed services, in units of the mean service.
fn trace(load: f64, exponential: bool, seed: u64) -> Mix {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut draw = || -> f64 { Exp1.sample(&mut random) };
    let mut at = 0.0;
    let recorded = |_| {
        at += draw() / load * STEPS * STEP;
        let service = if exponential { draw() } else { 1.0 };
        Recorded {
            start: Nanos::from_seconds(at),
            prompt_tokens: Tokens(1),
            // The first token comes with the prompt, in no time.
            new_tokens: Tokens((service * STEPS).round() as u32 + 1),
        }
    };
    let trace = (0..REQUESTS).map(recorded).collect();
    Mix { trace, ..Mix::fixed(Tokens(1), Tokens(1)) }
}

/// The mean wait in units of the mean service, with the half width of its interval, from 20 runs.
fn simulated_wait(servers: u32, load: f64, exponential: bool) -> (f64, f64) {
    let engine = Engine { sequences: servers, ..Engine::vllm(steady(), u64::MAX / 4) };
    let fleet = one(engine);
    let waits: Vec<f64> = (0..20)
        .map(|seed| {
            let demand = Demand {
                mix: trace(load, exponential, seed),
                who: Who::Trace { speed: 1.0 },
                pauses: Arrivals::Constant,
                profile: None,
            };
            let outcome = run(&fleet, &demand, &span(2000, u64::MAX));
            assert_eq!(outcome.finished as usize, REQUESTS - 2000);
            seconds(outcome.ttft.mean()) / (STEPS * STEP)
        })
        .collect();
    let mean = waits.iter().sum::<f64>() / 20.0;
    let variance = waits.iter().map(|wait| (wait - mean).powi(2)).sum::<f64>() / 19.0;
    (mean, T * (variance / 20.0).sqrt())
}

fn agrees(what: &str, (mean, half): (f64, f64), theory: f64) {
    // An arrival waits for the end of the step under way: half a step more, of 2,000.
    let grain = 1.0 / STEPS;
    assert!((mean - theory).abs() <= half + grain, "{what}: {mean} ± {half}, theory {theory}");
    // An interval that excludes nothing would agree with anything.
    assert!(half < 0.12 * theory, "{what}: {mean} ± {half}");
}

#[test]
fn one_server_with_exponential_services_waits_as_m_m_1() {
    for load in [0.5, 0.7, 0.85] {
        agrees("M/M/1", simulated_wait(1, load, true), load / (1.0 - load));
    }
}

#[test]
fn one_server_with_equal_services_waits_as_m_d_1() {
    // Pollaczek and Khinchine: half of what exponential services wait.
    for load in [0.5, 0.7, 0.85] {
        agrees("M/D/1", simulated_wait(1, load, false), load / (2.0 * (1.0 - load)));
    }
}

#[test]
fn several_sequences_at_the_same_speed_wait_as_m_m_c() {
    for (servers, share) in [(2, 0.7), (4, 0.8), (8, 0.85)] {
        let load = share * f64::from(servers);
        agrees("M/M/c", simulated_wait(servers, load, true), erlang_c(servers, load));
    }
}

/// The mean wait in M/M/c in units of the mean service (Erlang C over the spare servers).
fn erlang_c(servers: u32, load: f64) -> f64 {
    // Erlang B by its recursion.
    let blocked = (1..=servers).fold(1.0, |b, n| load * b / (f64::from(n) + load * b));
    let spare = f64::from(servers) - load;
    let waits = f64::from(servers) * blocked / (spare + load * blocked);
    waits / spare
}

#[test]
fn erlang_c_has_its_tabulated_answers() {
    // Two servers, load 1: a third of the requests wait; M/M/1 is its special case.
    assert!((erlang_c(2, 1.0) - 1.0 / 3.0).abs() < 1e-12);
    assert!((erlang_c(1, 0.5) - 1.0).abs() < 1e-12);
}

#[test]
fn littles_law_holds() {
    let mix = Mix::fixed(Tokens(1), Tokens(101));
    let engine = Engine { sequences: 4, ..Engine::vllm(steady(), u64::MAX / 4) };
    let outcome = run(&one(engine), &rate(mix, 3.0), &span(1000, 40_000));
    let per_second = outcome.asked as f64 / outcome.span.seconds();
    let inside = per_second * seconds(outcome.e2e.mean());
    let seen = outcome.waiting + outcome.running;
    assert!((seen / inside - 1.0).abs() < 0.01, "{seen} {inside}");
    assert!((outcome.running / 4.0 - 0.75).abs() < 0.02, "load {}", outcome.running);
}
