//! Whether a model fits on a machine, and how fast it will be there.

use crate::catalog::hardware::Device;
use crate::catalog::models::ModelSpec;
use crate::units::{Bytes, Nanos, Tokens, TokensPerSecond};

use super::calibrate::{Class, Constants, Spread};
use super::machine::Machine;
use super::memory::{Layout, Memory, Plan, Weights};
use super::posynomial;
use super::speed::{self, Place, Usage};
use super::work::{self, Work};

/// A predicted number and the interval that holds four of five measurements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate<T> {
    /// The most likely value.
    pub value: T,
    /// The lower end.
    pub low: T,
    /// The upper end.
    pub high: T,
}

/// Where the model's layers lie.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// All of it on the devices.
    Fits,
    /// So many of its layers on the devices, the others on the processor.
    Partly {
        /// Layers on the devices.
        layers: u32,
        /// All layers.
        of: u32,
    },
    /// Nowhere.
    DoesNotFit {
        /// What is lacking.
        short_by: Bytes,
    },
    /// A number that it takes is not known.
    Unknown(String),
}

/// A model on a machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What the model needs.
    pub memory: Memory,
    /// All of it where the machine holds models.
    pub needed: Bytes,
    /// What the machine has for models, with the reason.
    pub usable: Option<(Bytes, &'static str)>,
    /// Where it lies.
    pub verdict: Verdict,
    /// The longest context for each slot with all layers on the devices.
    pub longest_context: Option<Tokens>,
    /// Prompt processing.
    pub prefill: Option<Estimate<TokensPerSecond>>,
    /// Time to the first token.
    pub ttft: Option<Estimate<Nanos>>,
    /// Generation for one stream with a full context.
    pub decode: Option<Estimate<TokensPerSecond>>,
    /// Generation of all slots together.
    pub system: Option<Estimate<TokensPerSecond>>,
    /// Why a speed is missing or what it rests on.
    pub remarks: Vec<String>,
}

/// A model, ready to be asked about.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// Its shape.
    pub spec: &'a ModelSpec,
    /// Its weights in one quantisation.
    pub weights: Weights,
    /// What it needs at any context.
    pub plan: Plan,
    /// What it asks of a device.
    pub work: &'a Work,
}

/// How a model will be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// How it is loaded.
    pub layout: Layout,
    /// One of `speed::ENGINES`.
    pub engine: String,
}

/// Whether `candidate` fits on `machine`, and how fast it is there.
pub fn answer(
    candidate: &Candidate<'_>,
    machine: &Machine,
    question: &Question,
    constants: &Constants,
) -> Answer {
    let memory = candidate.plan.at(candidate.weights, question.layout.slot_tokens);
    let needed = needed(&memory, machine);
    let usable = machine.usable();
    let verdict = verdict(candidate, &memory, needed, usable, machine);
    let mut answer = Answer {
        memory,
        needed,
        usable,
        longest_context: longest_context(candidate, machine, usable),
        verdict,
        prefill: None,
        ttft: None,
        decode: None,
        system: None,
        remarks: Vec::new(),
    };
    let on_devices = match answer.verdict {
        Verdict::Fits => 1.0,
        Verdict::Partly { layers, of } => f64::from(layers) / f64::from(of),
        Verdict::DoesNotFit { .. } | Verdict::Unknown(_) => return answer,
    };
    let Some(places) = places(machine, on_devices, question, &mut answer.remarks) else {
        return answer;
    };
    predict(&mut answer, candidate.work, &places, question, constants);
    answer
}

/// What must lie in the machine's devices: every card has a compute buffer of its own.
fn needed(memory: &Memory, machine: &Machine) -> Bytes {
    if machine.has_own_memory() {
        let more = machine.devices.len() as u64 - 1;
        Bytes(memory.on_device().0 + more * memory.compute.0)
    } else {
        memory.in_one_place()
    }
}

fn verdict(
    candidate: &Candidate<'_>,
    memory: &Memory,
    needed: Bytes,
    usable: Option<(Bytes, &'static str)>,
    machine: &Machine,
) -> Verdict {
    let Some((usable, _)) = usable else {
        return Verdict::Unknown("the device's memory is not known".to_owned());
    };
    if needed <= usable {
        return Verdict::Fits;
    }
    let short_by = Bytes(needed.0 - usable.0);
    if machine.host.is_none() {
        return Verdict::DoesNotFit { short_by };
    }
    // Layers are alike enough to count them; the output projection goes with the last ones.
    let of = candidate.spec.layers;
    let fixed = memory.compute.0 * machine.devices.len() as u64;
    let layer = (memory.weights.0 + memory.cache.0) / u64::from(of).max(1);
    let room = usable.0.saturating_sub(fixed) / layer.max(1);
    match u32::try_from(room) {
        Ok(0) | Err(_) => Verdict::DoesNotFit { short_by },
        Ok(layers) => Verdict::Partly { layers: layers.min(of - 1), of },
    }
}

/// The longest context that fits with everything on the devices, in steps of 256 tokens.
fn longest_context(
    candidate: &Candidate<'_>,
    machine: &Machine,
    usable: Option<(Bytes, &'static str)>,
) -> Option<Tokens> {
    let (usable, _) = usable?;
    let fits = |steps: u32| {
        let parts = candidate.plan.at(candidate.weights, Tokens(steps * 256));
        needed(&parts, machine) <= usable
    };
    let most = candidate.spec.context_max.div_ceil(256).max(1);
    if !fits(1) {
        return None;
    }
    let (mut good, mut bad) = (1, most + 1);
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if fits(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Some(Tokens((good * 256).min(candidate.spec.context_max)))
}

/// The shares of the layers and where they lie; `None`, with a remark, where a bandwidth is missing.
fn places(
    machine: &Machine,
    on_devices: f64,
    question: &Question,
    remarks: &mut Vec<String>,
) -> Option<Vec<Place>> {
    let memory = |d: &Device| d.usable().map_or(0.0, |(b, _)| b.0 as f64);
    let total: f64 = machine.devices.iter().map(memory).sum();
    let mut places = Vec::new();
    for device in &machine.devices {
        let Some(mut place) = Place::whole(device, &question.engine) else {
            remarks.push(format!("the bandwidth of '{}' is not known", device.id));
            return None;
        };
        // llama.cpp gives each card layers in proportion to its free memory.
        place.share = on_devices * if total > 0.0 { memory(device) / total } else { 1.0 };
        places.push(place);
    }
    if machine.devices.len() > 1 {
        remarks.push("several cards: layer after layer, without their link's delay".to_owned());
    }
    if on_devices < 1.0 {
        let host = machine.host.as_ref()?;
        let mut place = Place::whole(host, &question.engine)?;
        place.share = 1.0 - on_devices;
        remarks.push(format!("the other layers at the speed of '{}'", host.id));
        places.push(place);
    }
    Some(places)
}

fn predict(
    answer: &mut Answer,
    work: &Work,
    places: &[Place],
    question: &Question,
    constants: &Constants,
) {
    let layout = &question.layout;
    let context = f64::from(layout.slot_tokens.0);
    let usage = Usage {
        cached: context,
        streams: 1.0,
        prompt: context,
        micro_batch: f64::from(layout.micro_batch),
        value_bytes: work::value_bytes(layout.kv_type),
        flash_attention: layout.flash_attention,
    };
    // Shares of different speed, and families that nobody measured, add uncertainty that no
    // published measurement covers.
    let mut widen = if places.len() > 1 { 1.5 } else { 1.0 };
    if let Some(unseen) = places.iter().find(|p| !constants.has_seen(p.family)) {
        widen *= 2.0;
        let family = unseen.family.name();
        answer.remarks.push(format!("no published measurement of '{family}': twice the interval"));
    }
    let spread = |class: Class| {
        let s = constants.spreads[&class];
        Spread { low: s.low * widen, high: s.high * widen }
    };
    let speed = |tokens: f64, seconds: f64, class: Class, ceiling: Option<f64>| {
        let value = ceiling.map_or(tokens / seconds, |c| (tokens / seconds).min(c));
        let (low, high) = spread(class).around(value, ceiling);
        Estimate {
            value: TokensPerSecond(value),
            low: TokensPerSecond(low),
            high: TokensPerSecond(high),
        }
    };
    let single = if work.experts.is_some() { Class::DecodeExperts } else { Class::DecodeDense };
    let step = |streams: f64| {
        let usage = Usage { streams, ..usage };
        let terms = places.iter().flat_map(|p| speed::step_terms(work, &usage, p));
        let terms: Vec<_> = terms.collect();
        let bytes = work.dense_bytes
            + work.touched_expert_bytes(streams)
            + streams * work.cache_read(context, usage.value_bytes);
        let fastest: f64 = places.iter().map(|p| p.share * bytes / p.bandwidth).sum();
        (posynomial::seconds(&terms, &constants.theta), streams / fastest)
    };
    let (seconds, ceiling) = step(1.0);
    answer.decode = Some(speed(1.0, seconds, single, Some(ceiling)));
    let slots = f64::from(layout.slots);
    if layout.slots > 1 {
        let (seconds, ceiling) = step(slots);
        if places.iter().all(|p| p.fp16.is_some()) {
            answer.system = Some(speed(slots, seconds, Class::DecodeStreams, Some(ceiling)));
        }
    }
    let prompt = Usage { cached: 0.0, ..usage };
    let terms: Option<Vec<Vec<_>>> =
        places.iter().map(|p| speed::prompt_terms(work, &prompt, p)).collect();
    let Some(terms) = terms else {
        answer.remarks.push("no prefill: the arithmetic speed is not known".to_owned());
        return;
    };
    let terms: Vec<_> = terms.into_iter().flatten().collect();
    let seconds = posynomial::seconds(&terms, &constants.theta);
    let prefill = speed(prompt.prompt, seconds, Class::Prefill, None);
    let wait = |speed: TokensPerSecond, first: TokensPerSecond| {
        Nanos::from_seconds(prompt.prompt / speed.0 + 1.0 / first.0)
    };
    if let Some(decode) = answer.decode {
        answer.ttft = Some(Estimate {
            value: wait(prefill.value, decode.value),
            low: wait(prefill.high, decode.high),
            high: wait(prefill.low, decode.low),
        });
    }
    answer.prefill = Some(prefill);
}
