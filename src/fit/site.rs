//! A machine prepared for many questions: its devices' factors, rooms and remarks, each once.

use std::sync::Arc;

use crate::catalog::hardware::{Device, Kind};
use crate::units::{Bytes, TokensPerSecond};

use super::answer::{Estimate, Question};
use super::basis::Basis;
use super::calibrate::{Class, Constants, Spread};
use super::machine::{Machine, USUAL_HOST, driver_share};
use super::posynomial::Term;
use super::serving::Serving;
use super::speed::{Paced, Place};
use super::split::{Rooms, Share, Split};
use super::vllm;
use super::work::Work;

/// Bytes a second between a card and the host or another card: PCIe 4.0 with 16 lanes carries
/// 16 GT/s × 16 × 128/130 bits = 31.5e9 bytes/s (PCI-SIG), of which four fifths are assumed.
pub const LINK: f64 = 0.8 * 31.5e9;
/// Seconds to hand a result from one device to another: assumed.
const HANDOVER: f64 = 15e-6;

/// A machine, an engine and the constants.
pub struct Site<'a> {
    /// The fitted constants.
    pub constants: &'a Constants,
    /// What the devices hold together, with the reason.
    pub usable: Option<(Bytes, &'static str)>,
    /// The same, device by device.
    pub rooms: Option<Rooms>,
    /// How many devices there are.
    pub count: usize,
    /// Whether they have memory of their own.
    pub has_own_memory: bool,
    /// Whether the engine is vLLM, which lays out memory in its own way.
    pub is_vllm: bool,
    /// The devices' speed; empty where a bandwidth is not known.
    pub devices: Vec<Paced>,
    /// The speed of the processor beside them.
    pub host: Option<Paced>,
    /// Whether something published tells how the devices gain from several streams.
    pub tells_streams: bool,
    /// Why there is no speed at all.
    pub no_speed: Option<Arc<str>>,
    /// Devices that nobody measured.
    pub unseen: Option<Arc<str>>,
    /// What is said of several cards.
    pub several: Arc<str>,
    /// What is said where the processor has a part.
    pub beside: Arc<str>,
    /// Why there is no speed of several streams.
    pub no_streams: Arc<str>,
    /// Why there is no speed of prompts.
    pub no_prefill: Arc<str>,
    /// What vLLM takes as limits on these devices.
    pub limits: vllm::Limits,
    /// What vLLM's numbers rest on.
    pub vllm_remark: Arc<str>,
    /// The steps of vLLM, where this machine has not shown its own.
    pub serving: Option<Serving>,
    /// Why there is no speed of several cards with vLLM.
    pub no_speed_of_several: Arc<str>,
    /// The interval's width over that of measured devices.
    widen: f64,
}

impl<'a> Site<'a> {
    /// That of `machine` with the engine of `question`.
    pub fn new(machine: &Machine, question: &Question, constants: &'a Constants) -> Self {
        let engine = question.engine.as_str();
        let is_vllm = engine == vllm::ENGINE;
        let theta = &constants.theta;
        let place = |device: &Device| Place::whole(device, engine);
        let places: Option<Vec<Place>> = machine.devices.iter().map(place).collect();
        let missing = machine.devices.iter().find(|d| d.bandwidth.is_none());
        let host = machine.host.as_ref().and_then(place);
        let known = places.unwrap_or_default();
        let mut unseen = known.iter().find(|p| !constants.has_seen(p.family)).map(|place| {
            let family = place.family.name();
            Arc::from(format!("no published measurement of '{family}': twice the interval"))
        });
        if is_vllm {
            unseen = Some(Arc::from(vllm::UNSEEN));
        }
        let beside = match &machine.host {
            Some(host) => {
                let memory = match (host.id.as_str(), host.memory) {
                    (USUAL_HOST, Some(memory)) => format!(" with {memory}, which is assumed"),
                    _ => String::new(),
                };
                format!(
                    "what is on the CPU at the speed of '{}'{memory}; of 32 tokens and more at once \
                     the first card fetches it and computes; {LINK_WORDS}",
                    host.id
                )
            }
            None => String::new(),
        };
        // What a machine has shown of itself tells nothing of cards that share a layer.
        let serving = (is_vllm && (constants.own.is_none() || machine.devices.len() > 1))
            .then(|| Serving::of(&machine.devices, constants.pace, constants.pace_spread))
            .flatten();
        Self {
            constants,
            serving,
            usable: usable(machine, question),
            rooms: rooms(machine),
            count: machine.devices.len(),
            has_own_memory: machine.has_own_memory(),
            is_vllm,
            // vLLM's gain is that of `serving`, and llama.cpp's is another.
            tells_streams: !is_vllm
                && known.iter().all(|p| p.fp16.is_some() && constants.has_seen(p.family)),
            no_speed: missing
                .map(|d| Arc::from(format!("the bandwidth of '{}' is not known", d.id))),
            widen: if unseen.is_some() { 2.0 } else { 1.0 },
            unseen,
            several: Arc::from(format!("several cards: layer after layer; {LINK_WORDS}")),
            beside: Arc::from(beside),
            no_streams: Arc::from(
                "no speed for all users together: nothing that was fitted tells how this device and \
                 engine gain from several streams",
            ),
            no_prefill: Arc::from("no prefill: the arithmetic speed is not known"),
            limits: vllm::Limits::of(machine),
            vllm_remark: Arc::from(vllm::remark(question.utilization)),
            no_speed_of_several: Arc::from(
                "no speed: the bandwidth or the arithmetic speed of one of the cards is not known",
            ),
            devices: known.into_iter().map(|p| Paced::new(p, theta)).collect(),
            host: host.map(|p| Paced::new(p, theta)),
        }
    }

    /// The interval of a class of predictions, `apart` times as wide, and on what they rest; the
    /// machine's own measurements tell it by what `terms` are made of.
    pub fn spread(
        &self,
        class: Class,
        apart: f64,
        terms: impl FnOnce() -> Vec<Term>,
    ) -> (Spread, Basis) {
        let basis = self.constants.basis(class);
        if basis == Basis::Calibrated {
            return (self.constants.spread(class, &terms()), basis);
        }
        let spread = self.constants.spreads[&class];
        let widen = self.widen * apart;
        (Spread { low: spread.low * widen, high: spread.high * widen }, basis)
    }

    /// Whether this machine's own measurements tell both speeds of a class of models.
    pub fn is_own(&self, single: Class) -> bool {
        [single, Class::Prefill].iter().all(|c| self.constants.basis(*c) == Basis::Calibrated)
    }

    /// The devices and the processor with what each of them does.
    pub fn parts<'s>(&'s self, split: &'s Split) -> impl Iterator<Item = (&'s Paced, Share)> {
        let devices = self.devices.iter().zip(split.devices.iter().copied());
        let host = self.host.iter().map(|h| (h, split.host));
        devices.chain(host).filter(|(_, share)| *share != Share::NONE)
    }

    /// How often a step hands its results from one device to another.
    pub fn crossings(&self, split: &Split, layers: f64) -> f64 {
        let between = split.devices.iter().filter(|s| **s != Share::NONE).count() as f64 - 1.0;
        // To the processor and back for every layer whose experts are there.
        let experts = if split.host.layers > 0.0 { 1.0 } else { 2.0 * split.host.experts * layers };
        between.max(0.0) + experts
    }

    /// Seconds of `crossings` for so many streams.
    pub fn crossing_seconds(&self, crossings: f64, streams: f64, work: &Work) -> f64 {
        crossings * (HANDOVER + streams * work.hidden * 4.0 / LINK)
    }
}

const LINK_WORDS: &str = "PCIe 4.0 x16 between them is assumed; half as wide an interval again";

/// The prediction `speed` with its interval, within what the bandwidth allows.
pub fn estimate(
    (spread, basis): (Spread, Basis),
    speed: f64,
    ceiling: Option<f64>,
) -> Estimate<TokensPerSecond> {
    let value = ceiling.map_or(speed, |c| speed.min(c));
    let (low, high) = spread.around(value, ceiling);
    Estimate {
        value: TokensPerSecond(value),
        low: TokensPerSecond(low),
        high: TokensPerSecond(high),
        basis,
    }
}

fn usable(machine: &Machine, question: &Question) -> Option<(Bytes, &'static str)> {
    if question.engine == vllm::ENGINE {
        return vllm::usable(machine, question.utilization);
    }
    machine.usable()
}

fn rooms(machine: &Machine) -> Option<Rooms> {
    let room = |d: &Device| Some(d.usable()?.0.0.saturating_sub(driver_share(d.family).0));
    let devices: Vec<u64> = machine.devices.iter().map(room).collect::<Option<_>>()?;
    let host = machine.host.as_ref().filter(|h| h.kind == Kind::Cpu);
    Some(Rooms {
        devices,
        has_host: machine.host.is_some(),
        host: host.and_then(|h| h.usable()).map(|(bytes, _)| bytes.0),
    })
}
