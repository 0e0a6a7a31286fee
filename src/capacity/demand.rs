//! Who asks a fleet, how often, and at which hours of the day.

use anyhow::ensure;
use serde::Serialize;

use crate::workload::{Arrivals, Mix};

/// How the use of a day is spread over its hours, relative to the busiest one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Profile([f64; 24]);

impl Profile {
    /// From weights of the 24 hours, of which one must be above 0.
    pub fn new(weights: [f64; 24]) -> anyhow::Result<Self> {
        let most = weights.into_iter().fold(0.0, f64::max);
        let sound = weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0);
        ensure!(sound && most > 0.0, "a day needs 24 weights that are not negative, one above 0");
        Ok(Self(weights.map(|weight| weight / most)))
    }

    /// The share of the busiest hour's use at a second of the day.
    pub fn at(&self, second: f64) -> f64 {
        self.0[((second / 3600.0) as usize) % 24]
    }

    /// The hours, relative to the busiest.
    pub fn hours(&self) -> &[f64; 24] {
        &self.0
    }

    /// The busiest hour.
    pub fn peak(&self) -> usize {
        self.0.iter().position(|share| *share >= 1.0).unwrap_or(0)
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// People or agents, each of whom waits for the answer, thinks for as long as the mix says, and
    /// asks on; in a profile, so many at the busiest hour.
    Users {
        /// How many.
        users: u32,
    },
    /// Conversations that begin however long the answers take; in a profile, so many at the
    /// busiest hour.
    Rate {
        /// A second.
        per_second: f64,
        /// How they come.
        arrivals: Arrivals,
    },
    /// The requests of the mix's trace, as they were recorded, sped up so many times.
    Trace {
        /// 2: in half the time.
        speed: f64,
    },
}

/// What is asked of a fleet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Demand {
    /// The requests.
    pub mix: Mix,
    /// Who sends them.
    pub who: Who,
    /// How pauses vary around the mix's: as random arrivals do, or not at all, as those of the load
    /// generator. Users whose pauses and answers are all alike ask at the same moments.
    pub pauses: Arrivals,
    /// How the day goes; `None`: as in the busiest hour all the time.
    pub profile: Option<Profile>,
}

impl Demand {
    /// Whether anybody asks; the lengths are checked where they are drawn.
    pub fn check(&self) -> anyhow::Result<()> {
        match self.who {
            Who::Users { users } => ensure!(users > 0, "0 users ask nothing; state at least one"),
            Who::Rate { per_second, arrivals } => {
                ensure!(
                    per_second > 0.0 && per_second.is_finite(),
                    "a rate of {per_second} requests a second asks nothing; state one above 0"
                );
                arrivals.check()?;
            }
            Who::Trace { speed } => {
                ensure!(
                    speed > 0.0 && speed.is_finite(),
                    "a trace cannot be played at {speed} times"
                );
                ensure!(!self.mix.trace.is_empty(), "the trace has no request");
            }
        }
        Ok(())
    }
}
