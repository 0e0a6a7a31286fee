//! A table that others measured, in its shape.

use crate::capacity::{Curve, Demand, Engine, Fleet, Routing, Span, StepTime, Who, simulate};
use crate::metrics::Limits;
use crate::units::{Nanos, Tokens};
use crate::workload::{Arrivals, Mix};

/// Users, tokens a second of all, and the 95th percentile of the time to first token in ms: an RTX
/// 5060 Laptop with Ollama and a model of 3 billion parameters, `OLLAMA_NUM_PARALLEL` at 1.
const PUBLISHED: [(u32, f64, f64); 4] =
    [(1, 87.0, 115.0), (2, 92.0, 744.0), (4, 93.0, 2125.0), (8, 93.0, 4826.0)];

/// Tokens of an answer and the pause of a user between two requests. Neither is published: they
/// follow from the first two rows. A second user waits for all of the first one's request that is
/// left, 744 − 115 ms and the pause; a single one gets 87 tokens a second with the pause and two 92
/// without it.
const ANSWER: u32 = 62;
const PAUSE: f64 = 0.040;

#[test]
fn one_request_at_a_time_queues_as_it_was_published_of_ollama() {
    let (_, speed, first) = PUBLISHED[0];
    let first = first / 1e3;
    let token = (f64::from(ANSWER) / speed - PAUSE - first) / f64::from(ANSWER - 1);
    let step = StepTime {
        decode: Curve::flat(token),
        prompt: Curve::flat(first),
        ..StepTime::constant(0.0)
    };
    let mut mix = Mix::fixed(Tokens(100), Tokens(ANSWER));
    mix.think = Nanos::from_seconds(PAUSE);
    let fleet = Fleet {
        engines: vec![Engine::ollama(step, 1, Tokens(4096))],
        routing: Routing::RoundRobin,
    };
    let span = Span { run_up: 50, requests: 500, time: None, day_second: 0.0, bins: 0 };
    for (users, tok_s, ttft_ms) in PUBLISHED {
        let demand = Demand {
            mix: mix.clone(),
            who: Who::Users { users },
            pauses: Arrivals::Constant,
            profile: None,
        };
        let outcome = simulate(&fleet, &demand, &Limits::default(), &span, 1).unwrap();
        let found = outcome.system_tok_s().unwrap();
        let ttft = outcome.ttft.percentile(95.0).unwrap().seconds() * 1e3;
        assert!((found / tok_s - 1.0).abs() < 0.03, "{users} users: {found} tok/s");
        assert!((ttft / ttft_ms - 1.0).abs() < 0.03, "{users} users: {ttft} ms");
    }
}
