//! The messages between `bench` and a runner: one JSON object a line, jobs on the runner's
//! standard input, events on its standard output.

use serde::{Deserialize, Serialize};

use super::{Fault, LoadReport, Model, Request, Schedule, Settings, Version};

/// The protocol's version; a runner that speaks another is refused.
pub const PROTOCOL: u32 = 1;

/// What the harness asks of a runner. The end of standard input ends the runner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "kebab-case")]
pub enum Job {
    /// Load the model; answered by [`Event::Loaded`].
    Load {
        /// The weights.
        model: Model,
        /// The engine's switches.
        settings: Settings,
    },
    /// Run the requests once; answered by [`Event::Trial`].
    Trial {
        /// Sequences to run together.
        requests: Vec<Request>,
        /// How they share the engine.
        #[serde(default)]
        schedule: Schedule,
    },
    /// Compute the logits after each token; answered by [`Event::Logits`].
    Logits {
        /// Token ids from an empty cache.
        tokens: Vec<u32>,
    },
}

/// What a runner answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The first line, before any job.
    Hello {
        /// [`PROTOCOL`].
        protocol: u32,
        /// The engine's name.
        engine: String,
        /// Its receipt.
        #[serde(flatten)]
        version: Version,
    },
    /// The model is ready.
    Loaded {
        /// Nanoseconds of the engine's load call.
        load_ns: u64,
        /// What the engine says of itself.
        #[serde(flatten)]
        report: LoadReport,
    },
    /// A trial is over; nothing was written while it ran.
    Trial {
        /// One sample for each request, in their order.
        samples: Vec<Sample>,
    },
    /// Rows of logits.
    Logits {
        /// One row for each token.
        logits: Vec<Vec<f32>>,
    },
    /// The job failed; the runner is free to end or to go on.
    Failed {
        /// Its kind.
        kind: Fault,
        /// The whole chain of reasons.
        error: String,
    },
}

/// One generation's raw arrivals; nanoseconds since the trial's start on the runner's monotonic
/// clock.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When the schedule wanted it to start.
    pub intended_ns: u64,
    /// When the engine was called.
    pub sent_ns: u64,
    /// Prompt tokens processed inside the timed region.
    pub prompt_tokens: u32,
    /// Arrival of each token.
    pub token_ns: Vec<u64>,
}
