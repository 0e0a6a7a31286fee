//! The simulation against what is known of queues, and against itself.

mod engines;
mod known;
mod size;
mod theory;

use crate::metrics::Limits;
use crate::units::{Nanos, Tokens};
use crate::workload::{Arrivals, Length, Mix};

use super::*;

/// Steps of 10 ms for any number of sequences, prompts in no time.
fn steady() -> StepTime {
    StepTime { prompt: Curve::flat(0.0), ..StepTime::constant(0.010) }
}

fn one(engine: Engine) -> Fleet {
    Fleet { engines: vec![engine], routing: Routing::RoundRobin }
}

fn rate(mix: Mix, per_second: f64) -> Demand {
    Demand {
        mix,
        who: Who::Rate { per_second, arrivals: Arrivals::Poisson },
        pauses: Arrivals::Constant,
        profile: None,
    }
}

fn users(mix: Mix, users: u32) -> Demand {
    Demand { mix, who: Who::Users { users }, pauses: Arrivals::Constant, profile: None }
}

fn span(run_up: u64, requests: u64) -> Span {
    Span { run_up, requests, time: None, day_second: 0.0, bins: 0 }
}

fn run(fleet: &Fleet, demand: &Demand, span: &Span) -> Outcome {
    simulate(fleet, demand, &Limits::default(), span, 7).expect("a demand that can be drawn")
}

fn seconds(time: Option<Nanos>) -> f64 {
    time.expect("a time").seconds()
}
