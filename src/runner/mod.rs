//! What an engine has to do to be measured, and everything a runner may see of this project.

pub mod batching;
pub mod child;
pub mod install;
pub mod locate;
pub mod protocol;
pub mod serve;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::units::{Bytes, Tokens};

/// An engine that can be measured. An implementor says how to load a model and when a token has
/// come; clocks, warm-up, repeats, memory and statistics belong to the harness, so that every
/// engine is measured alike.
pub trait Runner: Sized {
    /// The engine's name as scenarios and records spell it.
    const NAME: &'static str;

    /// The same for a program that stands for several engines, such as the client of servers.
    fn name() -> String {
        Self::NAME.to_owned()
    }

    /// What would be measured: no version, no numbers.
    fn version() -> anyhow::Result<Version>;

    /// Loads the model and makes room for `settings.slots` sequences; the harness times it.
    /// Fails with a [`Fault`] where the reason is one that a record's outcome tells apart.
    fn load(model: &Model, settings: &Settings) -> anyhow::Result<Self>;

    /// What the engine says of its own buffers and of the settings in force; asked once, after
    /// `load`.
    fn report(&self) -> LoadReport;

    /// When nobody waits any longer for the trial that comes next; none: at no time. One that can
    /// give up a request alone ends it before, so that the others count.
    fn give_up_at(&mut self, _end: Option<std::time::Instant>) {}

    /// Forgets all sequences, then puts each request's `context` into its sequence's KV cache.
    /// Not timed.
    fn prepare(&mut self, requests: &[Request]) -> anyhow::Result<()>;

    /// Processes each request's prompt and generates its tokens, stamping request `i`'s tokens in
    /// `sinks[i]` when their values (or their logits) are on the host.
    fn generate(
        &mut self,
        requests: &[Request],
        schedule: Schedule,
        sinks: &mut [TokenSink],
    ) -> anyhow::Result<()>;

    /// The logits after each of `tokens`, from an empty cache: `tokens.len()` rows of the
    /// vocabulary's length. For the check that two engines compute the same function.
    fn logits(&mut self, tokens: &[u32]) -> anyhow::Result<Vec<Vec<f32>>>;
}

/// The version receipt of an engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// The engine's own version, such as `b6123`.
    pub version: String,
    /// What it was built for: instruction sets on a CPU, architectures on a GPU.
    pub build: String,
    /// The devices it will compute on: `CPU`, `CUDA`, `Metal`, `Vulkan`.
    pub backend: String,
}

/// The weights to load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// The GGUF file, or the folder of a model in another format.
    pub path: PathBuf,
}

/// Switches of an engine; `None` is the engine's own default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Threads of generation and of prompt processing.
    pub threads: Option<u32>,
    /// Layers whose weights lie on a GPU; all of them where it is larger than their number.
    pub gpu_layers: Option<u32>,
    /// The fused attention kernel.
    pub flash_attention: Option<bool>,
    /// Element type of the KV cache, spelt as in GGUF: `f16`, `q8_0`.
    pub kv_type: Option<String>,
    /// Most tokens in one call of the engine.
    pub batch_tokens: Option<u32>,
    /// Most tokens that the engine computes at once.
    pub micro_batch: Option<u32>,
    /// Map the file instead of reading it.
    pub mmap: Option<bool>,
    /// How a model is split over several GPUs: `none`, `layer`, `row`.
    pub split_mode: Option<String>,
    /// Share of the model on each GPU.
    pub tensor_split: Option<Vec<f32>>,
    /// The type of the floats that it computes with: `float16`, `bfloat16`, `float32`.
    pub dtype: Option<String>,
    /// Weights that share a scale in a quantisation of the engine's own.
    pub group_size: Option<u32>,
    /// Sequences that are held at once.
    pub slots: u32,
    /// Tokens of KV cache for each of them.
    pub slot_tokens: u32,
    /// Switches that only this engine knows, such as a server's `url`; a runner refuses those that
    /// it does not know.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// What an engine reports after loading; absent where it does not say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadReport {
    /// Bytes of weights, in all memories.
    pub weights_bytes: Option<Bytes>,
    /// Bytes of KV cache, in all memories.
    pub kv_bytes: Option<Bytes>,
    /// Bytes of compute buffers, in all memories.
    pub compute_bytes: Option<Bytes>,
    /// Bits that a weight takes in memory, scales included, where the engine has a layout of its own;
    /// absent where it takes the file's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bits_per_weight: Option<f64>,
    /// The settings in force, read back from the engine.
    pub effective: BTreeMap<String, String>,
    /// Bytes that it takes of a device's memory, where it counts them itself.
    pub device_bytes: Option<Bytes>,
    /// Whose memory and CPU time are the engine's.
    #[serde(skip_serializing_if = "Process::is_own")]
    pub process: Process,
}

/// The processes that an engine consists of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Process {
    /// The runner and what it has started.
    #[default]
    Own,
    /// Also a server that somebody else has started on this machine.
    Listener {
        /// The TCP port on which it listens.
        port: u16,
        /// A word of its command line, in any case: something else may forward the port.
        programs: Vec<String>,
    },
    /// Processes of another machine, which cannot be watched.
    Elsewhere,
}

impl Process {
    fn is_own(&self) -> bool {
        *self == Self::Own
    }
}

/// How requests share the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// All prompts first, then all sequences token by token: a static batch.
    #[default]
    Lockstep,
    /// New prompts join while others generate: continuous batching.
    Continuous,
}

/// One sequence to process: what is in its cache already, its prompt, and its continuation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Token ids already in the KV cache when the clock starts (the depth); may be empty.
    #[serde(default)]
    pub context: Vec<u32>,
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// The ids fed back as if they had been sampled; their number is the number of new tokens.
    /// They are given, so that every engine (and every expert router) does the same work.
    pub output: Vec<u32>,
    /// When the request should start, in nanoseconds after the trial's start.
    #[serde(default)]
    pub start_ns: u64,
    /// The request, by its place in the trial, that must have ended before this one starts: the
    /// turn before of a conversation, or the same user's request before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u32>,
    /// Nanoseconds between that request's end and this one's start.
    #[serde(default)]
    pub think_ns: u64,
    /// A request that could not start by then is left out: a trial's limit by time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_ns: Option<u64>,
}

impl Request {
    /// The number of tokens to generate.
    pub fn new_tokens(&self) -> Tokens {
        Tokens(self.output.len() as u32)
    }
}

/// Where an engine says that a token has come. Between two tokens there is only the engine:
/// a stamp is one clock read and one store into room made beforehand.
#[derive(Debug)]
pub struct TokenSink {
    epoch: std::time::Instant,
    intended_ns: Option<u64>,
    sent_ns: Option<u64>,
    stamps: Vec<u64>,
    served: Option<protocol::Served>,
}

impl TokenSink {
    /// A sink with room for `capacity` tokens whose clock starts at `epoch`.
    pub fn new(epoch: std::time::Instant, capacity: usize) -> Self {
        Self {
            epoch,
            intended_ns: None,
            sent_ns: None,
            stamps: Vec::with_capacity(capacity),
            served: None,
        }
    }

    /// Nanoseconds since the trial's start.
    pub fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    /// The request has been the engine's since `at_ns`, whether it works on it or not.
    pub fn arrived(&mut self, at_ns: u64) {
        self.intended_ns = Some(at_ns);
        self.sent_ns = Some(at_ns);
    }

    /// The request was due after its latest start: it is not part of the trial.
    pub fn left_out(&mut self) {
        let error = protocol::ServedError {
            kind: protocol::ServedFault::NotStarted,
            reason: "the trial's time was over before the request could start".to_owned(),
        };
        self.served = Some(protocol::Served { error: Some(error), ..Default::default() });
    }

    /// A token's value is on the host now.
    pub fn token(&mut self) {
        self.stamps.push(self.now());
    }

    /// The trial's start, for a client that stamps what it reads and parses later.
    pub fn epoch(&self) -> std::time::Instant {
        self.epoch
    }

    /// What a server's client saw of a whole generation: when it should have started, when the
    /// first byte was written, when each token's bytes were read, and the rest.
    pub fn served(
        &mut self,
        intended_ns: u64,
        sent_ns: u64,
        token_ns: Vec<u64>,
        served: protocol::Served,
    ) {
        self.intended_ns = Some(intended_ns);
        self.sent_ns = Some(sent_ns);
        self.stamps = token_ns;
        self.served = Some(served);
    }

    /// The last token's stamp.
    pub fn last(&self) -> Option<u64> {
        self.stamps.last().copied()
    }

    /// Tokens stamped so far.
    pub fn len(&self) -> usize {
        self.stamps.len()
    }

    /// Whether no token has come.
    pub fn is_empty(&self) -> bool {
        self.stamps.is_empty()
    }

    /// What was stamped, as a sample of `request`.
    pub fn into_sample(self, request: &Request) -> protocol::Sample {
        protocol::Sample {
            intended_ns: self.intended_ns.unwrap_or(request.start_ns),
            sent_ns: self.sent_ns.unwrap_or(request.start_ns),
            prompt_tokens: self
                .served
                .as_ref()
                .and_then(|served| served.prompt_tokens)
                .unwrap_or(request.prompt.len() as u32),
            token_ns: self.stamps,
            served: self.served,
        }
    }
}

/// A failure whose kind a record's outcome tells apart; others are plain errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The model, its cache or its buffers do not fit.
    OutOfMemory,
    /// The engine cannot do what the case asks for.
    Unsupported,
    /// The engine itself is missing or broken; the reason says how to install it.
    NotInstalled,
    /// Anything else.
    Failed,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OutOfMemory => "out of memory",
            Self::Unsupported => "not supported by this engine",
            Self::NotInstalled => "not installed",
            Self::Failed => "failed",
        })
    }
}

impl std::error::Error for Fault {}
