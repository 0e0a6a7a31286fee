//! The messages between `bench` and a runner: one JSON object a line, jobs on the runner's
//! standard input, events on its standard output.

use serde::{Deserialize, Serialize};

use crate::units::Bytes;

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
        /// Nanoseconds after which nobody waits for the answer; absent: any time will do.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limit_ns: Option<u64>,
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
        /// The most memory that the engine held at once while the clock ran, by its own account;
        /// absent where it has none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        engine_peak_bytes: Option<Bytes>,
        /// Nanoseconds since the trial's start, when this answer was ready: it puts the samples on
        /// the harness's clock, within a millisecond or two.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        age_ns: Option<u64>,
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
    /// Arrival of each token. Tokens that a server sent in one event have the same stamp.
    pub token_ns: Vec<u64>,
    /// What only the client of a server knows; absent for engines in process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served: Option<Served>,
}

impl Sample {
    /// Why the generation is not whole.
    pub fn error(&self) -> Option<&ServedError> {
        self.served.as_ref()?.error.as_ref()
    }

    /// Whether a limit by time left it out: it is neither a success nor a failure.
    pub fn is_left_out(&self) -> bool {
        self.error().is_some_and(|error| error.kind == ServedFault::NotStarted)
    }
}

/// What the client of a server saw of one generation beside its tokens; nanoseconds on the clock
/// of [`Sample`]. Absent is what the server does not say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Served {
    /// Tokens of each event that brought some, in order; their sum is the length of `token_ns`.
    pub event_tokens: Vec<u32>,
    /// Where the number of tokens comes from.
    pub counted: Counted,
    /// The first event of the stream, whatever it brought (TTFR: diagnostic only).
    pub first_event_ns: Option<u64>,
    /// The first event with visible content: not reasoning, not a tool call (TTFV).
    pub first_visible_ns: Option<u64>,
    /// The end of the stream.
    pub closed_ns: Option<u64>,
    /// Prompt tokens as the server counts them, cached ones included.
    pub prompt_tokens: Option<u32>,
    /// Prompt tokens that the server took from a cache.
    pub cached_tokens: Option<u32>,
    /// Generated tokens as the server counts them, hidden reasoning included.
    pub output_tokens: Option<u32>,
    /// Generated tokens of reasoning.
    pub reasoning_tokens: Option<u32>,
    /// The server's own duration of the uncached prompt.
    pub server_prompt_ns: Option<u64>,
    /// The server's own duration of the generation.
    pub server_decode_ns: Option<u64>,
    /// The server's own time to the first token.
    pub server_ttft_ns: Option<u64>,
    /// The server's own duration of loading the model for this request.
    pub server_load_ns: Option<u64>,
    /// The server's slot that computed it, where it has slots and says which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The server's durations are means over all requests of the trial.
    #[serde(skip_serializing_if = "is_false")]
    pub server_means: bool,
    /// Why the server ended: `length`, `stop`.
    pub finish: Option<String>,
    /// Why the generation is not whole; the stamps before it are kept.
    pub error: Option<ServedError>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Where a number of generated tokens comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counted {
    /// The server's usage, or its own counters.
    #[default]
    Usage,
    /// The token ids in the events.
    Ids,
    /// One for each event: nothing better was sent, and the number is a guess.
    Events,
}

/// Why a request to a server failed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServedError {
    /// What kind of failure.
    pub kind: ServedFault,
    /// The reason in words, with what the server said (at most 1 KiB, keys removed).
    pub reason: String,
}

/// Kinds of failure of a request to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServedFault {
    /// No connection: refused, unreachable, no such host.
    Connect,
    /// The encrypted connection could not be made.
    Tls,
    /// Another HTTP status than 200.
    Status,
    /// 429 or 503: the server asks to come back later.
    RateLimited,
    /// Nothing came for too long, or the trial's time was over.
    TimedOut,
    /// The connection ended before the generation.
    Disconnected,
    /// Bytes that are no stream of events.
    Malformed,
    /// The server reported an error inside the stream.
    Stream,
    /// Fewer tokens than were asked for, or more.
    EarlyEnd,
    /// The request could not start before its latest start.
    NotStarted,
}
