//! How long a pass takes: the terms of the time for a new token and for a prompt.
//!
//! Generation reads every weight it needs and the whole cache once for each token, so bytes over
//! bandwidth lead, then a fixed time for each layer (launching kernels); a prompt multiplies
//! matrices, so operations over arithmetic speed lead. What the hardware loses against its data
//! sheet stands in factors that are fitted to published measurements (`fit::calibrate`).

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::LazyLock;

use crate::catalog::hardware::{Device, Family};

use super::posynomial::{Prior, Term};
use super::work::{Packing, Work};

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

/// A device, or a share of a model's layers on it, and how it is driven.
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
    /// The share of the model's layers that lie here.
    pub share: f64,
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
            share: 1.0,
        })
    }

    /// `apple-m4-max` is of generation 4.
    fn apple_generation(&self) -> Option<u32> {
        let rest = self.device.strip_prefix("apple-m")?;
        rest.chars().next()?.to_digit(10)
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

/// The terms of the seconds that one step of generation takes (a token for every stream).
pub fn step_terms(work: &Work, usage: &Usage, place: &Place) -> Vec<Term> {
    let has_experts = work.experts.is_some();
    let touched = work.touched_expert_bytes(usage.streams);
    let bytes = work.dense_bytes + touched;
    let mut weights = Factors::new("step.weights");
    weights.place(place, &["family", "engine", "memory", "device"]);
    weights.one("packing", work.packing.name());
    weights.scaled("experts", touched / bytes);
    weights.apple(place, work.packing);
    let mut layers = Factors::new("step.layer");
    layers.place(place, &["family", "engine", "api"]);
    layers.scaled("experts", f64::from(u8::from(has_experts)));
    layers.scaled("linear", work.linear_share);
    let mut cache = Factors::new("step.cache");
    cache.place(place, &["engine", "api"]);
    cache.scaled("stored-scores", f64::from(u8::from(!usage.flash_attention)));
    let cached = work.cache_read(usage.cached, usage.value_bytes) + work.state_bytes;
    let share = place.share;
    let mut terms = vec![
        weights.term(share * bytes / place.bandwidth),
        layers.term(share * work.layers),
        cache.term(share * usage.streams * cached / place.bandwidth),
    ];
    if let Some(fp16) = place.fp16 {
        if place.api == Api::Cpu {
            // Few cores unpack and multiply about as fast as memory delivers, and every head of a
            // query multiplies with the cache by itself.
            let mut compute = Factors::new("step.compute");
            compute.one("packing", work.packing.name());
            terms.push(compute.term(share * work.active_weights() / fp16));
            let operations = work.attention_operations(usage.cached, 0.0);
            let seconds = share * usage.streams * operations / fp16;
            terms.push(Factors::new("step.attention").term(seconds));
        }
        if place.family.is_apple() {
            let unpack = if is_k(work.packing) { "step.unpack-k" } else { "step.unpack" };
            let seconds = share * work.active_weights() / fp16;
            terms.push(Factors::new(unpack).term(seconds));
        }
        if usage.streams > 1.0 {
            let operations = 2.0 * work.active_weights() * usage.streams;
            let mut batch = Factors::new("step.batch");
            batch.place(place, &["engine"]);
            terms.push(batch.term(share * operations / fp16));
        }
    }
    terms
}

/// The terms of the seconds that a prompt takes; `None` where the arithmetic speed is unknown.
pub fn prompt_terms(work: &Work, usage: &Usage, place: &Place) -> Option<Vec<Term>> {
    let fp16 = place.fp16?;
    let tokens = usage.prompt;
    let together = usage.micro_batch.min(tokens);
    let chunks = (tokens / together).ceil();
    let share = place.share;
    let matrix = |name: &'static str| {
        let mut factors = Factors::new("prompt.matrix");
        factors.place(place, &["family", "engine", "api", "device"]);
        factors.one("packing", work.packing.name());
        factors.scaled("short", (512.0 / together.min(512.0)).ln());
        factors.scaled("narrow", (4096.0 / work.hidden).ln());
        if name != "dense" {
            factors.scaled("experts", 1.0);
        }
        if name == "scatter" {
            factors.base("prompt.scatter");
        }
        factors
    };
    let mut attention = Factors::new("prompt.attention");
    attention.place(place, &["api"]);
    attention.scaled("stored-scores", f64::from(u8::from(!usage.flash_attention)));
    let read = work.dense_bytes + work.touched_expert_bytes(together);
    let mut terms = vec![
        matrix("dense").term(share * 2.0 * work.dense_weights * tokens / fp16),
        attention.term(share * work.attention_operations(usage.cached, tokens) * tokens / fp16),
        Factors::new("prompt.read").term(share * chunks * read / place.bandwidth),
        Factors::new("prompt.layer").term(share * chunks * work.layers),
    ];
    if let Some((total, active)) = work.experts {
        let seconds = share * 2.0 * work.active_expert_weights() * tokens / fp16;
        terms.push(matrix("experts").term(seconds));
        // The fewer tokens an expert gets, the worse its matrices fill the hardware.
        let each = together * active / total;
        terms.push(matrix("scatter").term(seconds / each));
    }
    Some(terms)
}

fn is_k(packing: Packing) -> bool {
    matches!(packing, Packing::Q4K | Packing::OtherK)
}

/// Collects the factors of one term.
struct Factors {
    stem: &'static str,
    found: Vec<(usize, f64)>,
}

impl Factors {
    fn new(stem: &'static str) -> Self {
        let mut factors = Self { stem, found: Vec::new() };
        factors.base(stem);
        factors
    }

    fn base(&mut self, name: &str) {
        self.push(name, 1.0);
    }

    fn push(&mut self, name: &str, exponent: f64) {
        if exponent == 0.0 {
            return;
        }
        // A name that is not in the list has the factor one.
        if let Some(&i) = INDEX.get(name) {
            self.found.push((i, exponent));
        }
    }

    fn one(&mut self, group: &str, value: &str) {
        self.named(&[self.stem, group, value], 1.0);
    }

    fn scaled(&mut self, group: &str, exponent: f64) {
        self.named(&[self.stem, group], exponent);
    }

    /// One name is written over the other: a table of all devices and models asks for millions.
    fn named(&mut self, parts: &[&str], exponent: f64) {
        thread_local! {
            static NAME: RefCell<String> = const { RefCell::new(String::new()) };
        }
        NAME.with_borrow_mut(|name| {
            name.clear();
            for (i, part) in parts.iter().enumerate() {
                if i > 0 {
                    name.push('.');
                }
                name.push_str(part);
            }
            self.push(name, exponent);
        });
    }

    fn place(&mut self, place: &Place, groups: &[&str]) {
        for &group in groups {
            let value = match group {
                "family" => place.family.name(),
                "engine" => &place.engine,
                "api" => place.api.name(),
                "memory" => {
                    if place.shares_memory() {
                        "shared"
                    } else {
                        "own"
                    }
                }
                _ => &place.device,
            };
            self.one(group, value);
        }
    }

    fn apple(&mut self, place: &Place, packing: Packing) {
        let Some(generation) = place.apple_generation() else { return };
        if generation == 1 {
            self.scaled("apple-m1", 1.0);
            self.scaled("apple-m1-k", f64::from(u8::from(is_k(packing))));
        } else if generation >= 4 {
            self.scaled("apple-m4-on", 1.0);
        }
    }

    fn term(self, seconds: f64) -> Term {
        Term { seconds, factors: self.found }
    }
}

/// A factor: its name, and what is believed of it before measurements.
#[derive(Clone, Debug, PartialEq)]
pub struct Named {
    /// `term.group.value`.
    pub name: String,
    /// The belief.
    pub prior: Prior,
}

/// Every factor, in the order of θ.
pub fn factors() -> &'static [Named] {
    static ALL: LazyLock<Vec<Named>> = LazyLock::new(list);
    &ALL
}

static INDEX: LazyLock<HashMap<&'static str, usize>> =
    LazyLock::new(|| factors().iter().enumerate().map(|(i, f)| (f.name.as_str(), i)).collect());

/// Priors: bases from data sheets and first principles (nine tenths to half of the bandwidth is
/// reached, a layer costs tens of microseconds, a third to a half of the arithmetic speed is
/// reached); groups differ from their base by no more than the deviation, mostly.
fn list() -> Vec<Named> {
    let mut all = Vec::new();
    let mut add = |name: &str, mean: f64, deviation: f64| {
        all.push(Named { name: name.to_owned(), prior: Prior { mean, deviation } });
    };
    let devices = || crate::catalog::hardware::all().iter().map(|d| d.id.as_str());
    add("step.weights", (1.0_f64 / 0.8).ln(), 0.3);
    add("step.layer", 7e-5_f64.ln(), 1.0);
    add("step.cache", 2.0_f64.ln(), 0.7);
    add("step.unpack", 1.0_f64.ln(), 1.0);
    add("step.unpack-k", 3.0_f64.ln(), 1.0);
    add("step.batch", 5.0_f64.ln(), 0.7);
    add("step.compute", 1.0_f64.ln(), 0.7);
    add("step.attention", 4.0_f64.ln(), 1.0);
    add("prompt.matrix", (1.0_f64 / 0.4).ln(), 0.5);
    add("prompt.scatter", 20.0_f64.ln(), 1.0);
    add("prompt.attention", 4.0_f64.ln(), 1.0);
    add("prompt.read", (1.0_f64 / 0.75).ln(), 0.1);
    add("prompt.layer", 1e-4_f64.ln(), 1.0);
    for (stem, group, deviation) in [
        ("step.weights", "family", 0.2),
        ("step.layer", "family", 0.3),
        ("prompt.matrix", "family", 0.4),
    ] {
        for family in Family::ALL {
            add(&format!("{stem}.{group}.{}", family.name()), 0.0, deviation);
        }
    }
    for (stem, deviation) in [
        ("step.weights", 0.15),
        ("step.layer", 0.3),
        ("step.cache", 0.4),
        ("step.batch", 0.5),
        ("prompt.matrix", 0.3),
    ] {
        for engine in ENGINES {
            add(&format!("{stem}.engine.{engine}"), 0.0, deviation);
        }
    }
    for (stem, deviation) in [
        ("step.layer", 0.6),
        ("step.cache", 0.5),
        ("prompt.matrix", 0.4),
        ("prompt.attention", 0.4),
    ] {
        for api in Api::ALL {
            add(&format!("{stem}.api.{}", api.name()), 0.0, deviation);
        }
    }
    for (stem, deviation) in [("step.weights", 0.12), ("step.compute", 0.3), ("prompt.matrix", 0.2)]
    {
        for packing in Packing::ALL {
            add(&format!("{stem}.packing.{}", packing.name()), 0.0, deviation);
        }
    }
    for (stem, deviation) in [("step.weights", 0.1), ("prompt.matrix", 0.15)] {
        for device in devices() {
            add(&format!("{stem}.device.{device}"), 0.0, deviation);
        }
    }
    add("step.weights.memory.shared", 0.0, 0.1);
    add("step.weights.memory.own", 0.0, 0.1);
    add("step.weights.experts", 0.0, 0.5);
    add("step.weights.apple-m1", 0.0, 0.1);
    add("step.weights.apple-m1-k", 0.0, 0.3);
    add("step.weights.apple-m4-on", 0.0, 0.1);
    add("step.layer.experts", 0.0, 1.0);
    add("step.layer.linear", 0.0, 1.0);
    add("step.cache.stored-scores", 0.7, 1.0);
    add("prompt.matrix.experts", 0.0, 0.5);
    add("prompt.matrix.short", 0.0, 0.3);
    add("prompt.matrix.narrow", 0.0, 0.3);
    add("prompt.attention.stored-scores", 0.5, 1.0);
    all
}
