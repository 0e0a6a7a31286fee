//! Whether a model fits on a machine, and how fast it will be there.

use crate::catalog::hardware::Device;
use crate::catalog::models::ModelSpec;
use crate::units::{Bytes, Nanos, Tokens, TokensPerSecond};

use super::basis::Basis;
use super::calibrate::{Class, Constants, Spread};
use super::machine::Machine;
use super::memory::{Layout, Memory, Plan, Weights};
use super::posynomial::{self, Term};
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
    /// On what it rests.
    pub basis: Basis,
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
    let single = if work.experts.is_some() { Class::DecodeExperts } else { Class::DecodeDense };
    let is_own = |class| constants.basis(class) == Basis::Calibrated;
    let all_own = is_own(single) && is_own(Class::Prefill);
    if let Some(unseen) = places.iter().find(|p| !constants.has_seen(p.family) && !all_own) {
        widen *= 2.0;
        let family = unseen.family.name();
        answer.remarks.push(format!("no published measurement of '{family}': twice the interval"));
    }
    let spread = |class: Class, terms: &[Term]| {
        let s = constants.spread(class, terms);
        let widen = if is_own(class) { 1.0 } else { widen };
        Spread { low: s.low * widen, high: s.high * widen }
    };
    let speed = |terms: &[Term], tokens: f64, seconds: f64, class: Class, ceiling: Option<f64>| {
        let value = ceiling.map_or(tokens / seconds, |c| (tokens / seconds).min(c));
        let (low, high) = spread(class, terms).around(value, ceiling);
        Estimate {
            value: TokensPerSecond(value),
            low: TokensPerSecond(low),
            high: TokensPerSecond(high),
            basis: constants.basis(class),
        }
    };
    let step = |streams: f64| {
        let usage = Usage { streams, ..usage };
        let terms = places.iter().flat_map(|p| speed::step_terms(work, &usage, p));
        let terms: Vec<_> = terms.collect();
        let bytes = work.dense_bytes
            + work.touched_expert_bytes(streams)
            + streams * work.cache_read(context, usage.value_bytes);
        let fastest: f64 = places.iter().map(|p| p.share * bytes / p.bandwidth).sum();
        (posynomial::seconds(&terms, &constants.theta), streams / fastest, terms)
    };
    let (seconds, ceiling, terms) = step(1.0);
    answer.decode = Some(speed(&terms, 1.0, seconds, single, Some(ceiling)));
    let slots = f64::from(layout.slots);
    if layout.slots > 1 {
        let (together, ceiling, terms) = step(slots);
        // Together is never slower than one after the other.
        let seconds = together.min(slots * seconds);
        if places.iter().all(|p| p.fp16.is_some() && constants.has_seen(p.family)) {
            answer.system =
                Some(speed(&terms, slots, seconds, Class::DecodeStreams, Some(ceiling)));
        } else {
            let why = "no speed for all users together: nothing published tells how this device";
            answer.remarks.push(format!("{why} gains from several streams"));
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
    let prefill = speed(&terms, prompt.prompt, seconds, Class::Prefill, None);
    let wait = |speed: TokensPerSecond, first: TokensPerSecond| {
        Nanos::from_seconds(prompt.prompt / speed.0 + 1.0 / first.0)
    };
    if let Some(decode) = answer.decode {
        answer.ttft = Some(Estimate {
            value: wait(prefill.value, decode.value),
            low: wait(prefill.high, decode.high),
            high: wait(prefill.low, decode.low),
            basis: prefill.basis.min(decode.basis),
        });
    }
    answer.prefill = Some(prefill);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::models;
    use crate::fit::constants;
    use crate::fit::work::Packing;
    use crate::model::quant::Quant;

    fn ask(machine: &str, model: &str, tokens: u32, slots: u32) -> Answer {
        let spec = models::find(model).unwrap();
        let tensors = crate::model::tensors(spec, Quant::Q4KM).unwrap();
        let work = Work::of_tensors(spec, &tensors, Packing::Q4K);
        let layout = Layout { slot_tokens: Tokens(tokens), slots, ..Layout::default() };
        let candidate = Candidate {
            spec,
            weights: Weights::of(&tensors),
            plan: Plan::new(spec, &layout),
            work: &work,
        };
        let question = Question { layout, engine: "llama.cpp".to_owned() };
        let machine = Machine::parse(machine, &[]).unwrap();
        answer(&candidate, &machine, &question, constants::embedded())
    }

    #[test]
    fn two_cards_hold_what_one_cannot() {
        let one = ask("rtx-5090", "llama-3.1-70b", 8192, 1);
        assert!(matches!(one.verdict, Verdict::Partly { layers, of: 80 } if layers > 40));
        let two = ask("2x rtx-5090", "llama-3.1-70b", 8192, 1);
        assert_eq!(two.verdict, Verdict::Fits);
        assert!(two.decode.unwrap().value.0 > 3.0 * one.decode.unwrap().value.0);
    }

    #[test]
    fn what_fits_nowhere_says_by_how_much() {
        let answer = ask("apple-m1", "llama-3.1-70b", 8192, 1);
        let Verdict::DoesNotFit { short_by } = answer.verdict else { panic!("{answer:?}") };
        assert!((short_by.gib() - 31.7).abs() < 1.0, "{short_by}");
        assert!(answer.decode.is_none() && answer.longest_context.is_none());
    }

    #[test]
    fn a_longer_context_is_slower_and_needs_more() {
        let (short, long) =
            (ask("rtx-4090", "llama-3.1-8b", 1024, 1), ask("rtx-4090", "llama-3.1-8b", 65_536, 1));
        assert!(long.needed > short.needed);
        assert!(long.decode.unwrap().value.0 < short.decode.unwrap().value.0);
        assert!(long.prefill.unwrap().value.0 < short.prefill.unwrap().value.0);
        assert!(long.ttft.unwrap().value > short.ttft.unwrap().value);
    }

    #[test]
    fn the_longest_context_fits_and_the_next_step_does_not() {
        let longest = ask("rtx-4090", "llama-3.1-8b", 1024, 1).longest_context.unwrap();
        assert!(longest.0 > 65_536 && longest.0 <= 131_072);
        assert_eq!(ask("rtx-4090", "llama-3.1-8b", longest.0, 1).verdict, Verdict::Fits);
        if longest.0 < 131_072 {
            let next = ask("rtx-4090", "llama-3.1-8b", longest.0 + 256, 1);
            assert!(matches!(next.verdict, Verdict::Partly { .. }));
        }
    }

    #[test]
    fn many_users_get_more_together_and_less_each() {
        let eight = ask("dgx-spark-gb10", "llama-3.1-8b", 4096, 8);
        let (system, single) = (eight.system.unwrap().value.0, eight.decode.unwrap().value.0);
        assert!(system > 2.0 * single && system < 8.0 * single, "{system} {single}");
    }

    #[test]
    fn no_speed_is_above_what_the_bandwidth_allows() {
        for model in ["llama-3.2-1b", "llama-3.1-8b", "qwen3-30b-a3b", "gemma-3-27b"] {
            for device in crate::catalog::hardware::all() {
                let answer = ask(&device.id, model, 4096, 1);
                let Some(decode) = answer.decode else { continue };
                let spec = models::find(model).unwrap();
                let work = Work::of(spec, Quant::Q4KM).unwrap();
                let ceiling = device.bandwidth.unwrap().0 * 1e9 / work.token_bytes();
                assert!(decode.high.0 <= ceiling, "{model} on {}: {decode:?}", device.id);
                assert!(decode.low.0 < decode.value.0 && decode.value.0 <= decode.high.0);
            }
        }
    }
}
