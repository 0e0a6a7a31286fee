//! Whether a model fits on a machine, and how fast it will be there.

use std::sync::Arc;

use crate::catalog::models::ModelSpec;
use crate::model::quant::Quant;
use crate::units::{Bytes, Nanos, Tokens, TokensPerSecond};

use super::basis::Basis;
use super::calibrate::{Class, Constants, Spread};
use super::constants;
use super::machine::Machine;
use super::memory::{Layout, Memory, Plan};
use super::packed::{Packed, Weights};
use super::posynomial::Term;
use super::serving::{Serving, Step};
use super::site::{Site, estimate};
use super::speed::{self, Place, PromptTime, StepTime, Usage};
use super::split::{Share, Split, split};
use super::vllm::{self, Pool};
use super::work::{self, Work};

pub use super::split::Verdict;

/// Tokens of a batch from which a card fetches weights out of the host's memory and multiplies with
/// them itself: `op_offload_min_batch_size` of llama.cpp's backends, asked by
/// `ggml_backend_sched_backend_id_from_cur`.
const OFFLOADED: f64 = 32.0;

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
    /// Layers on each of several devices.
    pub counts: Vec<u32>,
    /// What the host's memory must hold besides: layers or experts on the processor.
    pub on_host: Bytes,
    /// vLLM's pool of cache blocks.
    pub pool: Option<Pool>,
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
    pub remarks: Vec<Arc<str>>,
}

impl Answer {
    /// Generation of each of `users` at once; `None` where what they get together is not known.
    pub fn decode_each(&self, users: u32) -> Option<Estimate<TokensPerSecond>> {
        if users == 1 {
            return self.decode;
        }
        let each = |all: TokensPerSecond| TokensPerSecond(all.0 / f64::from(users));
        self.system.map(|e| Estimate {
            value: each(e.value),
            low: each(e.low),
            high: each(e.high),
            basis: e.basis,
        })
    }
}

/// A model, ready to be asked about.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// Its shape.
    pub spec: &'a ModelSpec,
    /// Its weights in one quantisation.
    pub weights: &'a Weights,
    /// What it needs at any context.
    pub plan: &'a Plan,
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
    /// The share of a device's memory that vLLM takes.
    pub utilization: f64,
}

impl Question {
    /// With an engine's own defaults.
    pub fn new(layout: Layout, engine: &str) -> Self {
        Self { layout, engine: engine.to_owned(), utilization: vllm::UTILIZATION }
    }
}

/// Whether `spec` in `quant` fits on `machine` for this use, and how fast it is there: the short
/// way to one answer.
pub fn ask(
    machine: &Machine,
    spec: &ModelSpec,
    quant: Quant,
    question: &Question,
) -> anyhow::Result<Answer> {
    let mut packed = Packed::of(spec, quant)?;
    if question.engine == vllm::ENGINE {
        packed = packed.with_windows(spec);
    }
    let plan = Plan::new(spec, &question.layout);
    let candidate = Candidate { spec, weights: &packed.weights, plan: &plan, work: &packed.work };
    Ok(answer(&candidate, machine, question, constants::embedded()))
}

/// Whether `candidate` fits on `machine`, and how fast it is there.
pub fn answer(
    candidate: &Candidate<'_>,
    machine: &Machine,
    question: &Question,
    constants: &Constants,
) -> Answer {
    let site = Site::new(machine, question, constants);
    Pairing::new(candidate, &site, &question.layout).at(question.layout.slot_tokens)
}

/// A model on a machine, at any context: what does not depend on it is worked out once.
pub struct Pairing<'a> {
    candidate: &'a Candidate<'a>,
    site: &'a Site<'a>,
    layout: Layout,
    longest: Option<Tokens>,
    /// Of a step for one stream, of one for all slots, and of a prompt, with the whole model on
    /// the only device.
    whole: Option<(StepTime, Option<StepTime>, Option<PromptTime>)>,
}

impl<'a> Pairing<'a> {
    /// That of `candidate` at `site`.
    pub fn new(candidate: &'a Candidate<'a>, site: &'a Site<'a>, layout: &Layout) -> Self {
        let mut pairing = Self { candidate, site, layout: *layout, longest: None, whole: None };
        pairing.longest = pairing.longest_context();
        if let ([paced], false) = (site.devices.as_slice(), site.is_vllm) {
            let theta = &site.constants.theta;
            // Long enough for full micro-batches.
            let usage = pairing.usage(1e6, 1.0);
            let step = paced.step(candidate.work, &usage, Share::WHOLE, theta);
            let all = (layout.slots > 1).then(|| {
                let usage = Usage { streams: f64::from(layout.slots), ..usage };
                paced.step(candidate.work, &usage, Share::WHOLE, theta)
            });
            let before = Usage { cached: 0.0, ..usage };
            let prompt = paced.prompt(candidate.work, &before, Share::WHOLE, theta);
            pairing.whole = Some((step, all, prompt));
        }
        pairing
    }

    fn usage(&self, tokens: f64, streams: f64) -> Usage {
        Usage {
            cached: tokens,
            streams,
            prompt: tokens,
            micro_batch: f64::from(self.layout.micro_batch),
            value_bytes: work::value_bytes(self.layout.kv_type),
            flash_attention: self.layout.flash_attention,
        }
    }

    /// The answer with room for `tokens` in each slot.
    pub fn at(&self, tokens: Tokens) -> Answer {
        let (candidate, site) = (self.candidate, self.site);
        if site.is_vllm {
            return self.at_vllm(tokens);
        }
        let memory = candidate.plan.at(candidate.weights, tokens);
        let needed = self.needed(&memory);
        let mut answer = Answer {
            memory,
            needed,
            usable: site.usable,
            verdict: Verdict::Fits,
            counts: Vec::new(),
            on_host: Bytes(0),
            pool: None,
            longest_context: self.longest,
            prefill: None,
            ttft: None,
            decode: None,
            system: None,
            remarks: Vec::new(),
        };
        let Some(rooms) = &site.rooms else {
            answer.verdict = Verdict::Unknown("the device's memory is not known".to_owned());
            return answer;
        };
        let split = split(candidate.weights, candidate.plan, tokens, &memory, needed, rooms);
        answer.on_host = split.on_host;
        if !matches!(split.verdict, Verdict::DoesNotFit { .. }) {
            self.predict(&mut answer, &split, tokens);
        }
        if split.counts.len() > 1 {
            answer.counts.clone_from(&split.counts);
        }
        answer.verdict = split.verdict;
        answer
    }

    fn at_vllm(&self, tokens: Tokens) -> Answer {
        let (candidate, site) = (self.candidate, self.site);
        let memory = vllm::memory(candidate.spec, candidate.weights, &self.layout, tokens, site);
        let needed = memory.on_device();
        let uneven = vllm::uneven(candidate.spec, site.count as u32);
        let is_even = uneven.is_none();
        let pool = is_even
            .then(|| vllm::pool(candidate.spec, candidate.weights, &self.layout, tokens, site))
            .flatten();
        let verdict = match (uneven, site.usable) {
            (Some(why), _) => Verdict::Unknown(why),
            (None, None) => Verdict::Unknown("the device's memory is not known".to_owned()),
            (None, Some((usable, _))) if needed <= usable => Verdict::Fits,
            (None, Some((usable, _))) => {
                Verdict::DoesNotFit { short_by: Bytes(needed.0 - usable.0) }
            }
        };
        let mut answer = Answer {
            memory,
            needed,
            usable: site.usable,
            verdict,
            counts: Vec::new(),
            on_host: Bytes(0),
            pool,
            longest_context: self.longest.filter(|_| is_even),
            prefill: None,
            ttft: None,
            decode: None,
            system: None,
            remarks: vec![Arc::clone(&site.vllm_remark)],
        };
        if let (Verdict::Fits, Some(serving)) = (&answer.verdict, &site.serving) {
            self.predict_serving(&mut answer, serving, tokens);
        } else if answer.verdict == Verdict::Fits && site.devices.len() == 1 {
            let whole = Split::whole();
            self.predict(&mut answer, &whole, tokens);
        } else if answer.verdict == Verdict::Fits {
            answer.remarks.push(Arc::clone(&site.no_speed_of_several));
        }
        answer
    }

    /// What must lie in the machine's devices: every card has a compute buffer of its own.
    fn needed(&self, memory: &Memory) -> Bytes {
        if self.site.has_own_memory {
            let more = self.site.count.saturating_sub(1) as u64;
            Bytes(memory.on_device().0.saturating_add(more.saturating_mul(memory.compute.0)))
        } else {
            memory.in_one_place()
        }
    }

    /// The longest context that fits with everything on the devices, in steps of 256 tokens.
    fn longest_context(&self) -> Option<Tokens> {
        let rooms = self.site.rooms.as_ref()?;
        let (candidate, site) = (self.candidate, self.site);
        let fits = |steps: u32| {
            let tokens = Tokens(steps * 256);
            if site.is_vllm {
                let spec = candidate.spec;
                let memory = vllm::memory(spec, candidate.weights, &self.layout, tokens, site);
                return site.usable.is_some_and(|(usable, _)| memory.on_device() <= usable);
            }
            let memory = candidate.plan.at(candidate.weights, tokens);
            let needed = self.needed(&memory);
            let [room] = rooms.devices.as_slice() else {
                let (weights, plan) = (candidate.weights, candidate.plan);
                return split(weights, plan, tokens, &memory, needed, rooms).verdict
                    == Verdict::Fits;
            };
            needed.0 <= *room
        };
        let most = candidate.spec.context_max.div_ceil(256).max(1);
        if !fits(1) {
            return None;
        }
        if fits(most) {
            return Some(Tokens(candidate.spec.context_max));
        }
        let (mut good, mut bad) = (1, most);
        while bad - good > 1 {
            let middle = good + (bad - good) / 2;
            if fits(middle) {
                good = middle;
            } else {
                bad = middle;
            }
        }
        Some(Tokens(good * 256))
    }

    fn predict(&self, answer: &mut Answer, split: &Split, tokens: Tokens) {
        let (site, work) = (self.site, self.candidate.work);
        if let Some(missing) = &site.no_speed {
            answer.remarks.push(Arc::clone(missing));
            return;
        }
        let on_host = split.host.layers > 0.0 || split.host.experts > 0.0;
        if on_host && site.host.is_none() {
            return;
        }
        let context = f64::from(tokens.0);
        // Shares of different speed add uncertainty that no published measurement covers.
        let apart = if split.devices.len() > 1 || on_host { 1.5 } else { 1.0 };
        let step_spread = |class: Class, usage: &Usage| -> (Spread, Basis) {
            site.spread(class, apart, || self.terms(|p| Some(speed::step_terms(work, usage, p))))
        };
        if site.devices.len() > 1 && !site.is_vllm {
            answer.remarks.push(Arc::clone(&site.several));
        }
        if on_host {
            answer.remarks.push(Arc::clone(&site.beside));
        }
        let one = self.usage(context, 1.0);
        let single = if work.experts.is_some() { Class::DecodeExperts } else { Class::DecodeDense };
        if !site.is_own(single) {
            answer.remarks.extend(site.unseen.iter().map(Arc::clone));
        }
        let (seconds, ceiling) = self.step_seconds(split, &one);
        let decode = estimate(step_spread(single, &one), 1.0 / seconds, Some(ceiling));
        answer.decode = Some(decode);
        if self.layout.slots > 1 {
            let slots = f64::from(self.layout.slots);
            let all = Usage { streams: slots, ..one };
            let (together, ceiling) = self.step_seconds(split, &all);
            // Together is never slower than one after the other.
            let together = together.min(slots * seconds);
            if site.tells_streams && !on_host {
                let speed = slots / together;
                let spread = step_spread(Class::DecodeStreams, &all);
                answer.system = Some(estimate(spread, speed, Some(ceiling)));
            } else {
                answer.remarks.push(Arc::clone(&site.no_streams));
            }
        }
        let prompt = Usage { cached: 0.0, ..one };
        let Some(seconds) = self.prompt_seconds(split, &prompt) else {
            answer.remarks.push(Arc::clone(&site.no_prefill));
            return;
        };
        let spread = site.spread(Class::Prefill, apart, || {
            self.terms(|p| speed::prompt_terms(work, &prompt, p))
        });
        let prefill = estimate(spread, context / seconds, None);
        answer.ttft = Some(first_token(context, prefill, decode));
        answer.prefill = Some(prefill);
    }

    fn predict_serving(&self, answer: &mut Answer, serving: &Serving, tokens: Tokens) {
        let (work, context) = (self.candidate.work, f64::from(tokens.0));
        let value_bytes = work::value_bytes(self.layout.kv_type);
        let spread = (serving.spread(work), Basis::Predicted);
        let together = |sequences: f64| {
            let step = Step { sequences, cached: context, value_bytes, ..Step::default() };
            let (speed, ceiling) = serving.speed(work, &step);
            estimate(spread, speed, Some(ceiling))
        };
        answer.remarks.push(serving.remark(work));
        let decode = together(1.0);
        let prefill = estimate(spread, context / serving.prompt(work, context), None);
        answer.ttft = Some(first_token(context, prefill, decode));
        answer.decode = Some(decode);
        answer.prefill = Some(prefill);
        if self.layout.slots > 1 {
            answer.system = Some(together(f64::from(self.layout.slots)));
        }
    }

    /// The terms of a time on all devices.
    fn terms(&self, of: impl Fn(&Place) -> Option<Vec<Term>>) -> Vec<Term> {
        let devices = self.site.devices.iter().map(|paced| &paced.place);
        devices.filter_map(of).flatten().collect()
    }

    /// Seconds of a step, and the tokens a second that bandwidth alone allows.
    fn step_seconds(&self, split: &Split, usage: &Usage) -> (f64, f64) {
        let (site, work) = (self.site, self.candidate.work);
        let theta = &site.constants.theta;
        let cached = usage.streams * work.cache_read(usage.cached, usage.value_bytes);
        let touched = work.touched_expert_bytes(usage.streams);
        let least = |share: Share, bandwidth: f64| {
            (share.layers * (work.dense_bytes + cached) + share.experts * touched) / bandwidth
        };
        if let (Verdict::Fits, Some((one, all, _))) = (&split.verdict, &self.whole) {
            let time = if usage.streams > 1.0 { all.as_ref().unwrap_or(one) } else { one };
            let fastest = least(Share::WHOLE, site.devices[0].place.bandwidth);
            return (time.seconds(work, usage), usage.streams / fastest);
        }
        let (mut seconds, mut fastest) = (0.0, 0.0);
        for (paced, share) in site.parts(split) {
            seconds += paced.step(work, usage, share, theta).seconds(work, usage);
            fastest += least(share, paced.place.bandwidth);
        }
        let crossings = site.crossings(split, work.layers);
        (seconds + site.crossing_seconds(crossings, usage.streams, work), usage.streams / fastest)
    }

    /// Seconds of a prompt; `None` where an arithmetic speed is not known.
    fn prompt_seconds(&self, split: &Split, usage: &Usage) -> Option<f64> {
        let (site, work) = (self.site, self.candidate.work);
        let theta = &site.constants.theta;
        let full = usage.prompt >= usage.micro_batch;
        if let (Verdict::Fits, Some((.., time)), true) = (&split.verdict, &self.whole, full) {
            return Some(time.as_ref()?.seconds(work, usage));
        }
        let mut seconds = 0.0;
        if split.host != Share::NONE && usage.together() >= OFFLOADED {
            // The experts that the tokens use, the other weights, and half of the cache on average.
            let cached = work.cache_read(usage.cached + usage.prompt / 2.0, usage.value_bytes);
            let moved = split.host.experts * work.touched_expert_bytes(usage.together())
                + split.host.layers * (work.dense_bytes + cached);
            seconds += usage.chunks() * moved / super::site::LINK;
            let first = split.devices[0];
            let fetching = Share {
                layers: first.layers + split.host.layers,
                experts: first.experts + split.host.experts,
            };
            for (i, (paced, share)) in site.devices.iter().zip(&split.devices).enumerate() {
                let share = if i == 0 { fetching } else { *share };
                if share != Share::NONE {
                    seconds += paced.prompt(work, usage, share, theta)?.seconds(work, usage);
                }
            }
            return Some(seconds);
        }
        for (paced, share) in site.parts(split) {
            seconds += paced.prompt(work, usage, share, theta)?.seconds(work, usage);
        }
        Some(seconds)
    }
}

/// The time to the first token after a prompt of `context` tokens.
pub fn first_token(
    context: f64,
    prefill: Estimate<TokensPerSecond>,
    decode: Estimate<TokensPerSecond>,
) -> Estimate<Nanos> {
    let wait = |speed: TokensPerSecond, first: TokensPerSecond| {
        Nanos::from_seconds(context / speed.0 + 1.0 / first.0)
    };
    Estimate {
        value: wait(prefill.value, decode.value),
        low: wait(prefill.high, decode.high),
        high: wait(prefill.low, decode.low),
        basis: prefill.basis.min(decode.basis),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::models;

    fn ask(machine: &str, model: &str, tokens: u32, slots: u32) -> Answer {
        let layout = Layout { slot_tokens: Tokens(tokens), slots, ..Layout::default() };
        let machine = Machine::parse(machine, &[]).unwrap();
        let question = Question::new(layout, "llama.cpp");
        super::ask(&machine, models::find(model).unwrap(), Quant::Q4KM, &question).unwrap()
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
    fn the_assumed_computer_around_a_card_holds_192_gib() {
        let answer = ask("rtx-4090", "kimi-k2", 4096, 1);
        let Verdict::DoesNotFit { short_by } = answer.verdict else { panic!("{answer:?}") };
        // A tenth is the system's; the card takes up to 24 GiB of the rest.
        let beyond = answer.memory.file.gib() - 0.9 * 192.0;
        assert!((beyond - 24.0..beyond).contains(&short_by.gib()), "{short_by} {beyond}");
        let smaller = ask("rtx-4090", "gpt-oss-120b", 4096, 1);
        assert!(matches!(smaller.verdict, Verdict::ExpertsOnCpu { .. }));
        assert!(smaller.remarks.iter().any(|r| r.contains("with 192 GiB, which is assumed")));
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
    fn a_card_fetches_what_lies_in_the_hosts_memory_for_32_tokens_and_more() {
        let mut machine = Machine::parse("rtx-5090", &[]).unwrap();
        machine.host.as_mut().unwrap().fp16 = Some(crate::units::Tflops(1.0));
        let spec = models::find("llama-3.1-70b").unwrap();
        let layout = Layout { slot_tokens: Tokens(8192), ..Layout::default() };
        let question = Question::new(layout, "llama.cpp");
        let packed = Packed::of(spec, Quant::Q4KM).unwrap();
        let (weights, work) = (&packed.weights, &packed.work);
        let plan = Plan::new(spec, &layout);
        let candidate = Candidate { spec, weights, plan: &plan, work };
        let constants = constants::embedded();
        let site = Site::new(&machine, &question, constants);
        let pairing = Pairing::new(&candidate, &site, &layout);
        let half = Share { layers: 0.5, experts: 0.0 };
        let split = Split {
            verdict: Verdict::Partly { layers: 40, of: 80 },
            counts: vec![40],
            devices: vec![half],
            host: half,
            on_host: Bytes(0),
        };
        let seconds = |usage: &Usage| pairing.prompt_seconds(&split, usage).unwrap();
        let alone = |paced: &speed::Paced, usage: &Usage, share: Share| {
            paced.prompt(work, usage, share, &constants.theta).unwrap().seconds(work, usage)
        };
        let card = &site.devices[0];
        // 16 micro-batches fetch half of the weights, and of the cache of 4096 tokens on average:
        // 80 layers of 8 heads' keys and values, 128 wide, in two bytes.
        let long = Usage { cached: 0.0, ..pairing.usage(8192.0, 1.0) };
        let cache = 4096.0 * 80.0 * 2.0 * 8.0 * 128.0 * 2.0;
        let fetched = 16.0 * 0.5 * (work.dense_bytes + cache) / 25.2e9;
        let all = Share { layers: 1.0, experts: 0.0 };
        assert!((seconds(&long) / (alone(card, &long, all) + fetched) - 1.0).abs() < 1e-9);
        // Fewer tokens are multiplied where the weights lie.
        let short = Usage { cached: 0.0, ..pairing.usage(31.0, 1.0) };
        let apart = alone(card, &short, half) + alone(site.host.as_ref().unwrap(), &short, half);
        assert!((seconds(&short) / apart - 1.0).abs() < 1e-9);
    }

    #[test]
    fn each_of_many_users_gets_a_part_of_what_they_get_together() {
        let answer = ask("rtx-4090", "llama-3.1-8b", 4096, 8);
        let (system, each) = (answer.system.unwrap(), answer.decode_each(8).unwrap());
        assert_eq!(each.value.0, system.value.0 / 8.0);
        assert_eq!((each.low.0, each.high.0), (system.low.0 / 8.0, system.high.0 / 8.0));
        assert!(each.value.0 < answer.decode.unwrap().value.0);
        assert_eq!(answer.decode_each(1), answer.decode);
        // Nothing published tells how layers on the processor gain from several streams.
        let partly = ask("rtx-5090", "llama-3.1-70b", 4096, 8);
        assert!(partly.decode.is_some() && partly.decode_each(8).is_none());
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
