//! How long a pass takes: the terms of the time for a new token and for a prompt.
//!
//! Generation reads every weight it needs and the whole cache once for each token, so bytes over
//! bandwidth lead, then a fixed time for each layer (launching kernels); a prompt multiplies
//! matrices, so operations over arithmetic speed lead. What the hardware loses against its data
//! sheet stands in factors that are fitted to published measurements (`fit::calibrate`).

use std::sync::LazyLock;

use crate::catalog::hardware::{Device, Family};

use super::factors;
use super::posynomial::Term;
use super::split::Share;
use super::work::{Packing, Work};

pub use super::factors::factors;

/// Through what an engine drives a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// NVIDIA's.
    Cuda,
    /// Apple's.
    Metal,
    /// Everybody's.
    Vulkan,
    /// AMD's.
    Rocm,
    /// Threads of a processor.
    Cpu,
}

impl Api {
    /// Every one.
    pub const ALL: [Self; 5] = [Self::Cuda, Self::Metal, Self::Vulkan, Self::Rocm, Self::Cpu];

    /// Its word in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Metal => "metal",
            Self::Vulkan => "vulkan",
            Self::Rocm => "rocm",
            Self::Cpu => "cpu",
        }
    }

    /// The one with this word.
    pub fn named(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|a| a.name() == word)
    }

    /// The one that people use with llama.cpp on such a device.
    pub fn usual(family: Family) -> Self {
        match family {
            Family::NvidiaAmpere
            | Family::NvidiaAda
            | Family::NvidiaBlackwell
            | Family::NvidiaHbm
            | Family::NvidiaGb10 => Self::Cuda,
            Family::AppleM1 | Family::Apple | Family::AppleUltra => Self::Metal,
            Family::AmdHbm => Self::Rocm,
            Family::AmdRdna | Family::AmdApu | Family::IntelXe => Self::Vulkan,
            Family::Cpu => Self::Cpu,
        }
    }
}

/// Engines whose speeds were published.
pub const ENGINES: [&str; 5] = ["llama.cpp", "llamafile", "ollama", "mlx", "vllm"];

/// A device and how it is driven.
#[derive(Clone, Debug, PartialEq)]
pub struct Place {
    /// The device's id in the catalogue.
    pub device: String,
    /// Whose constants it follows.
    pub family: Family,
    /// Bytes a second.
    pub bandwidth: f64,
    /// FP16 operations a second; `None`: unknown, and so is the time of a prompt.
    pub fp16: Option<f64>,
    /// Through what.
    pub api: Api,
    /// One of [`ENGINES`].
    pub engine: String,
}

impl Place {
    /// The whole of a model on `device` with `engine`, driven as is usual.
    pub fn whole(device: &Device, engine: &str) -> Option<Self> {
        Some(Self {
            device: device.id.clone(),
            family: device.family,
            bandwidth: device.bandwidth?.0 * 1e9,
            fp16: device.fp16.map(|f| f.0 * 1e12),
            api: Api::usual(device.family),
            engine: engine.to_owned(),
        })
    }

    /// `apple-m4-max` is of generation 4.
    fn apple_generation(&self) -> Option<u32> {
        let rest = self.device.strip_prefix("apple-m")?;
        rest.chars().next()?.to_digit(10)
    }

    /// The arithmetic speed where a processor's threads do the work.
    fn cpu_fp16(&self) -> Option<f64> {
        self.fp16.filter(|_| self.api == Api::Cpu)
    }

    fn shares_memory(&self) -> bool {
        self.family.is_apple()
            || matches!(self.family, Family::NvidiaGb10 | Family::AmdApu | Family::Cpu)
    }
}

/// How a model is used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Tokens in each stream's cache: mean while generating, or before the prompt.
    pub cached: f64,
    /// Streams that generate at once.
    pub streams: f64,
    /// Tokens of the prompt.
    pub prompt: f64,
    /// Tokens that are processed together at most.
    pub micro_batch: f64,
    /// Bytes of a cached value.
    pub value_bytes: f64,
    /// Attention without storing its scores.
    pub flash_attention: bool,
}

impl Default for Usage {
    fn default() -> Self {
        Self {
            cached: 0.0,
            streams: 1.0,
            prompt: 512.0,
            micro_batch: 512.0,
            value_bytes: 2.0,
            flash_attention: true,
        }
    }
}

impl Usage {
    /// Tokens of a micro-batch.
    pub fn together(&self) -> f64 {
        self.micro_batch.min(self.prompt)
    }

    /// Micro-batches of the prompt.
    pub fn chunks(&self) -> f64 {
        (self.prompt / self.together()).ceil()
    }
}

/// The terms of the seconds that one step of generation takes (a token for every stream).
pub fn step_terms(work: &Work, usage: &Usage, place: &Place) -> Vec<Term> {
    let known = Known::get();
    step(work, usage, place, Share::WHOLE)
        .into_iter()
        .flatten()
        .map(|(stem, seconds)| {
            let mut factors = Vec::new();
            stem.of_place(place, is_k(work.packing), &mut factors);
            stem.of_work(known, work, usage, Share::WHOLE, &mut factors);
            Term { seconds, factors }
        })
        .collect()
}

/// The terms of the seconds that a prompt takes; `None` where the arithmetic speed is unknown.
pub fn prompt_terms(work: &Work, usage: &Usage, place: &Place) -> Option<Vec<Term>> {
    let known = Known::get();
    let terms =
        prompt(work, usage, place, Share::WHOLE)?.into_iter().flatten().map(|(stem, seconds)| {
            let mut factors = Vec::new();
            stem.of_place(place, is_k(work.packing), &mut factors);
            stem.of_work(known, work, usage, Share::WHOLE, &mut factors);
            Term { seconds, factors }
        });
    Some(terms.collect())
}

/// A place whose factors are looked up and summed already: a table of all devices and models asks
/// for it a hundred thousand times.
#[derive(Clone, Debug)]
pub struct Paced {
    /// The place.
    pub place: Place,
    /// Logarithms of its factors for each stem, for plain packings and for k-quants.
    logs: [[f64; STEMS.len()]; 2],
}

impl Paced {
    /// That of `place` with the factors `theta`.
    pub fn new(place: Place, theta: &[f64]) -> Self {
        let logs = [false, true].map(|k| {
            STEMS.map(|stem| {
                let mut sum = Sum { theta, log: 0.0 };
                stem.of_place(&place, k, &mut sum);
                sum.log
            })
        });
        Self { place, logs }
    }

    fn seconds<const N: usize>(
        &self,
        work: &Work,
        usage: &Usage,
        share: Share,
        theta: &[f64],
        terms: [Option<(Stem, f64)>; N],
    ) -> [f64; N] {
        let known = Known::get();
        terms.map(|term| {
            let Some((stem, seconds)) = term.filter(|t| t.1 > 0.0) else { return 0.0 };
            let log = self.logs[usize::from(is_k(work.packing))][stem as usize];
            let mut sum = Sum { theta, log };
            stem.of_work(known, work, usage, share, &mut sum);
            seconds * sum.log.exp()
        })
    }

    /// The time of one step with `share` of the model here.
    pub fn step(&self, work: &Work, usage: &Usage, share: Share, theta: &[f64]) -> StepTime {
        let terms = step(work, usage, &self.place, share);
        let [weights, layers, _, compute, _, unpack, batch] =
            self.seconds(work, usage, share, theta, terms);
        // One byte of cache for each stream.
        let byte = (Stem::StepCache, share.layers * usage.streams / self.place.bandwidth);
        let each = share.layers * usage.streams;
        let operation = self.place.cpu_fp16().map(|fp16| (Stem::StepAttention, each / fp16));
        let [byte, operation] = self.seconds(work, usage, share, theta, [Some(byte), operation]);
        StepTime { fixed: weights + layers + compute + unpack + batch, byte, operation }
    }

    /// The time of a prompt; `None` where the arithmetic speed is unknown.
    pub fn prompt(
        &self,
        work: &Work,
        usage: &Usage,
        share: Share,
        theta: &[f64],
    ) -> Option<PromptTime> {
        let terms = prompt(work, usage, &self.place, share)?;
        let [dense, attention, read, layers, experts, scatter] =
            self.seconds(work, usage, share, theta, terms);
        let operations = work.attention_operations(usage.cached, usage.prompt) * usage.prompt;
        Some(PromptTime {
            token: (dense + experts + scatter) / usage.prompt,
            operation: if operations > 0.0 { attention / operations } else { 0.0 },
            chunk: (read + layers) / usage.chunks(),
        })
    }
}

/// Seconds of a step on one place, whatever is cached.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepTime {
    /// Whatever is cached.
    pub fixed: f64,
    /// For each byte of cache that one stream reads.
    pub byte: f64,
    /// For each operation of one stream's attention, where a processor does it.
    pub operation: f64,
}

/// Seconds of a prompt on one place, whose micro-batches are all full.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PromptTime {
    /// For each token.
    pub token: f64,
    /// For each operation of attention.
    pub operation: f64,
    /// For each micro-batch.
    pub chunk: f64,
}

impl PromptTime {
    /// Seconds of a prompt of `usage`.
    pub fn seconds(&self, work: &Work, usage: &Usage) -> f64 {
        let operations = work.attention_operations(usage.cached, usage.prompt) * usage.prompt;
        usage.prompt * self.token + operations * self.operation + usage.chunks() * self.chunk
    }
}

impl StepTime {
    /// Seconds with what `usage` has cached.
    pub fn seconds(&self, work: &Work, usage: &Usage) -> f64 {
        let cached = work.cache_read(usage.cached, usage.value_bytes) + work.state_bytes;
        let operations = work.attention_operations(usage.cached, 0.0);
        self.fixed + cached * self.byte + operations * self.operation
    }
}

/// The parts of a step: always the same ones, in this order.
fn step(work: &Work, usage: &Usage, place: &Place, share: Share) -> [Option<(Stem, f64)>; 7] {
    let bytes = local_bytes(work, usage.streams, share);
    let cached = work.cache_read(usage.cached, usage.value_bytes) + work.state_bytes;
    let weights = share.layers * (work.dense_weights + work.output_weights)
        + share.experts * work.active_expert_weights();
    let unpack = if is_k(work.packing) { Stem::StepUnpackK } else { Stem::StepUnpack };
    let unpacked = place.fp16.filter(|_| place.family.is_apple());
    let together = place.fp16.filter(|_| usage.streams > 1.0);
    [
        Some((Stem::StepWeights, bytes.0 / place.bandwidth)),
        Some((Stem::StepLayer, share.layers.max(share.experts) * work.layers)),
        Some((Stem::StepCache, share.layers * usage.streams * cached / place.bandwidth)),
        // Few cores unpack and multiply about as fast as memory delivers, and every head of a query
        // multiplies with the cache by itself.
        place.cpu_fp16().map(|fp16| (Stem::StepCompute, weights / fp16)),
        place.cpu_fp16().map(|fp16| {
            let operations = work.attention_operations(usage.cached, 0.0);
            (Stem::StepAttention, share.layers * usage.streams * operations / fp16)
        }),
        unpacked.map(|fp16| (unpack, weights / fp16)),
        together.map(|fp16| (Stem::StepBatch, 2.0 * weights * usage.streams / fp16)),
    ]
}

/// The parts of a prompt: always the same ones, in this order.
fn prompt(
    work: &Work,
    usage: &Usage,
    place: &Place,
    share: Share,
) -> Option<[Option<(Stem, f64)>; 6]> {
    let fp16 = place.fp16?;
    let (tokens, together, chunks) = (usage.prompt, usage.together(), usage.chunks());
    let (bytes, _) = local_bytes(work, together, share);
    let attention = work.attention_operations(usage.cached, tokens) * tokens;
    let experts = 2.0 * share.experts * work.active_expert_weights() * tokens / fp16;
    Some([
        Some((Stem::PromptMatrix, 2.0 * share.layers * work.dense_weights * tokens / fp16)),
        Some((Stem::PromptAttention, share.layers * attention / fp16)),
        Some((Stem::PromptRead, chunks * bytes / place.bandwidth)),
        Some((Stem::PromptLayer, share.layers.max(share.experts) * chunks * work.layers)),
        work.experts.map(|_| (Stem::PromptExperts, experts)),
        // The fewer tokens an expert gets, the worse its matrices fill the hardware.
        work.experts
            .map(|(total, active)| (Stem::PromptScatter, experts / (together * active / total))),
    ])
}

/// Bytes of weights that a pass over `tokens` tokens reads from a place, and of them experts'.
fn local_bytes(work: &Work, tokens: f64, share: Share) -> (f64, f64) {
    let touched = share.experts * work.touched_expert_bytes(tokens);
    (share.layers * work.dense_bytes + touched, touched)
}

fn is_k(packing: Packing) -> bool {
    matches!(packing, Packing::Q4K | Packing::OtherK)
}

/// What a term's time is spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stem {
    StepWeights,
    StepLayer,
    StepCache,
    StepUnpack,
    StepUnpackK,
    StepBatch,
    StepCompute,
    StepAttention,
    PromptMatrix,
    PromptExperts,
    PromptScatter,
    PromptAttention,
    PromptRead,
    PromptLayer,
}

const STEMS: [Stem; 14] = [
    Stem::StepWeights,
    Stem::StepLayer,
    Stem::StepCache,
    Stem::StepUnpack,
    Stem::StepUnpackK,
    Stem::StepBatch,
    Stem::StepCompute,
    Stem::StepAttention,
    Stem::PromptMatrix,
    Stem::PromptExperts,
    Stem::PromptScatter,
    Stem::PromptAttention,
    Stem::PromptRead,
    Stem::PromptLayer,
];

impl Stem {
    /// The first word of its factors.
    fn name(self) -> &'static str {
        match self {
            Self::StepWeights => "step.weights",
            Self::StepLayer => "step.layer",
            Self::StepCache => "step.cache",
            Self::StepUnpack => "step.unpack",
            Self::StepUnpackK => "step.unpack-k",
            Self::StepBatch => "step.batch",
            Self::StepCompute => "step.compute",
            Self::StepAttention => "step.attention",
            Self::PromptMatrix | Self::PromptExperts | Self::PromptScatter => "prompt.matrix",
            Self::PromptAttention => "prompt.attention",
            Self::PromptRead => "prompt.read",
            Self::PromptLayer => "prompt.layer",
        }
    }

    /// The factors that the place alone decides, by their names; `k`: the weights are k-quants.
    fn of_place(self, place: &Place, k: bool, out: &mut impl Collect) {
        let stem = self.name();
        out.named(stem);
        let groups: &[&str] = match self {
            Self::StepWeights => &["family", "engine", "memory", "device"],
            Self::StepLayer => &["family", "engine", "api"],
            Self::StepCache => &["engine", "api"],
            Self::StepBatch => &["engine"],
            Self::PromptMatrix | Self::PromptExperts | Self::PromptScatter => {
                &["family", "engine", "api", "device"]
            }
            Self::PromptAttention => &["api"],
            Self::StepUnpack
            | Self::StepUnpackK
            | Self::StepCompute
            | Self::StepAttention
            | Self::PromptRead
            | Self::PromptLayer => &[],
        };
        for &group in groups {
            let value = match group {
                "family" => place.family.name(),
                "engine" => &place.engine,
                "api" => place.api.name(),
                "memory" if place.shares_memory() => "shared",
                "memory" => "own",
                _ => &place.device,
            };
            out.named(&format!("{stem}.{group}.{value}"));
        }
        if self == Self::PromptScatter {
            out.named("prompt.scatter");
        }
        if self == Self::StepWeights {
            match place.apple_generation() {
                Some(1) => {
                    out.named("step.weights.apple-m1");
                    if k {
                        out.named("step.weights.apple-m1-k");
                    }
                }
                Some(4..) => out.named("step.weights.apple-m4-on"),
                _ => {}
            }
        }
    }

    /// The factors that follow from the model and its use.
    fn of_work(
        self,
        known: &Known,
        work: &Work,
        usage: &Usage,
        share: Share,
        out: &mut impl Collect,
    ) {
        let packing = work.packing as usize;
        let stored = f64::from(u8::from(!usage.flash_attention));
        match self {
            Self::StepWeights => {
                out.at(known.weights_packing[packing], 1.0);
                if work.experts.is_some() {
                    let (bytes, touched) = local_bytes(work, usage.streams, share);
                    out.at(known.weights_experts, touched / bytes);
                }
            }
            Self::StepLayer => {
                out.at(known.layer_experts, f64::from(u8::from(work.experts.is_some())));
                out.at(known.layer_linear, work.linear_share);
            }
            Self::StepCache => out.at(known.cache_stored, stored),
            Self::StepCompute => out.at(known.compute_packing[packing], 1.0),
            Self::PromptMatrix | Self::PromptExperts | Self::PromptScatter => {
                out.at(known.matrix_packing[packing], 1.0);
                out.at(known.matrix_short, (512.0 / usage.together().min(512.0)).ln());
                out.at(known.matrix_narrow, (4096.0 / work.hidden).ln());
                if self != Self::PromptMatrix {
                    out.at(known.matrix_experts, 1.0);
                }
            }
            Self::PromptAttention => out.at(known.attention_stored, stored),
            Self::StepUnpack
            | Self::StepUnpackK
            | Self::StepBatch
            | Self::StepAttention
            | Self::PromptRead
            | Self::PromptLayer => {}
        }
    }
}

/// Where factors go: into a list, to be fitted, or into their product, to predict.
trait Collect {
    /// Takes factor `i` with its exponent.
    fn push(&mut self, i: usize, exponent: f64);

    /// The same where the factor is known; one that is not in the list is one.
    fn at(&mut self, i: Option<usize>, exponent: f64) {
        if let Some(i) = i.filter(|_| exponent != 0.0) {
            self.push(i, exponent);
        }
    }

    /// The factor with this name.
    fn named(&mut self, name: &str) {
        self.at(factors::index(name), 1.0);
    }
}

impl Collect for Vec<(usize, f64)> {
    fn push(&mut self, i: usize, exponent: f64) {
        Vec::push(self, (i, exponent));
    }
}

/// The logarithm of a product.
struct Sum<'a> {
    theta: &'a [f64],
    log: f64,
}

impl Collect for Sum<'_> {
    fn push(&mut self, i: usize, exponent: f64) {
        self.log += exponent * self.theta[i];
    }
}

/// Indices of the factors that follow from a model, looked up once.
struct Known {
    weights_packing: [Option<usize>; Packing::ALL.len()],
    weights_experts: Option<usize>,
    layer_experts: Option<usize>,
    layer_linear: Option<usize>,
    cache_stored: Option<usize>,
    compute_packing: [Option<usize>; Packing::ALL.len()],
    matrix_packing: [Option<usize>; Packing::ALL.len()],
    matrix_short: Option<usize>,
    matrix_narrow: Option<usize>,
    matrix_experts: Option<usize>,
    attention_stored: Option<usize>,
}

impl Known {
    fn get() -> &'static Self {
        static KNOWN: LazyLock<Known> = LazyLock::new(|| {
            let at = factors::index;
            let packings = |stem: &str| {
                Packing::ALL.map(|packing| at(&format!("{stem}.packing.{}", packing.name())))
            };
            Known {
                weights_packing: packings("step.weights"),
                weights_experts: at("step.weights.experts"),
                layer_experts: at("step.layer.experts"),
                layer_linear: at("step.layer.linear"),
                cache_stored: at("step.cache.stored-scores"),
                compute_packing: packings("step.compute"),
                matrix_packing: packings("prompt.matrix"),
                matrix_short: at("prompt.matrix.short"),
                matrix_narrow: at("prompt.matrix.narrow"),
                matrix_experts: at("prompt.matrix.experts"),
                attention_stored: at("prompt.attention.stored-scores"),
            }
        });
        &KNOWN
    }
}
