//! The simulation: requests come, are routed to a device, wait, are computed step by step beside
//! others, and end.

use serde::Serialize;

use super::demand::Demand;
use super::engine::Engine;
use super::outcome::Outcome;
use crate::metrics::Limits;
use crate::units::Nanos;

/// Which device a request goes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Routing {
    /// One after the other.
    #[default]
    RoundRobin,
    /// The one with the fewest requests for its sequences, waiting or computed.
    LeastLoaded,
}

/// Devices that serve together, each with the model on its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fleet {
    /// They may differ.
    pub engines: Vec<Engine>,
    /// How requests are shared out.
    pub routing: Routing,
}

/// How much is simulated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// Requests that do not count: the queue is not yet what it will be.
    pub run_up: u64,
    /// Requests that count, at most.
    pub requests: u64,
    /// No request begins later.
    pub time: Option<Nanos>,
    /// The second of the day at which it begins.
    pub day_second: f64,
    /// Equal parts into which `time` is cut for `Outcome::bins`.
    pub bins: usize,
}

/// What comes of `demand` on `fleet`; the same for the same `seed`.
pub fn simulate(
    fleet: &Fleet,
    demand: &Demand,
    limits: &Limits,
    span: &Span,
    seed: u64,
) -> anyhow::Result<Outcome> {
    let _ = (fleet, demand, limits, span, seed);
    anyhow::bail!("being written")
}
