//! How long a step of vLLM takes with many sequences at once: the weights are read once for all of
//! them while they are multiplied with every token, each sequence's cache is read, and a part is
//! the same whatever is computed.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::catalog::hardware::{Device, Family};

use super::calibrate::Spread;
use super::peers::Peers;
use super::vllm::Limits;
use super::work::{Packing, Work};

/// The card whose loads the factors were fitted to.
pub const FITTED: &str = "h100-sxm-80gb";
/// Interval there over that of loads of a shape that was held out: other models were not fitted.
const OTHER_MODELS: f64 = 2.0;
/// How far the factors carry to loads that had no part in them: speeds over those that the factors give.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Carried {
    /// The median.
    pub middle: f64,
    /// The slowest.
    pub low: f64,
    /// The fastest.
    pub high: f64,
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { middle, low, high } = self;
        write!(f, "{middle} of their speed, {low} to {high}")
    }
}

/// To dense models on other cards: the dense loads in `cmd/calibrate/elsewhere.csv`. The slowest is Qwen3
/// 8B on an RTX PRO 5000, which the catalogue does not have
/// (databasemart.com/blog/vllm-gpu-benchmark-pro5000: 50 requests of 100/600 tokens in 14.12 s); the
/// fastest load is Qwen3 30B-A3B on an RTX 5090.
const CARD: Carried = Carried { middle: 0.91, low: 0.7, high: 1.1 };
/// To mixtures of experts: the slowest is GLM-4.5-Air on an H200, by a vLLM of 2025.
const FAR: Carried = Carried { low: 0.4, ..CARD };
/// To dense models on several cards: those in `cmd/calibrate/together.csv`, of which each machine and
/// model counts once in the middle.
pub const TOGETHER: Carried = Carried { middle: 0.8, low: 0.54, high: 1.02 };
/// To mixtures of experts on several cards, of the same loads.
pub const TOGETHER_EXPERTS: Carried = Carried { middle: 0.43, low: 0.33, high: 0.92 };
/// To several cards of other makers than in these loads.
const TOGETHER_FAR: Carried = Carried { low: TOGETHER_EXPERTS.low, ..TOGETHER };

/// What scales the parts of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Factor {
    /// Seconds of a step for each layer: kernels that wait for each other, and the scheduler.
    Layer,
    /// Seconds of a step for each sequence: sampling, and telling the client.
    Sequence,
    /// Times what the data sheet's bandwidth takes for the weights.
    Weights,
    /// Times what it takes for the caches.
    Cache,
    /// Times what the data sheet's arithmetic speed takes for products with 16-bit floats.
    Matrix,
    /// The same with 8-bit floats, at twice the speed.
    MatrixFp8,
    /// The same for the attention of prompts.
    Attention,
    /// Seconds of a request's way to an idle engine and of its first token back.
    Entry,
}

/// How many factors there are.
pub const FACTORS: usize = 8;

impl Factor {
    /// Every one, in the order of [`Pace`].
    pub const ALL: [Self; FACTORS] = [
        Self::Layer,
        Self::Sequence,
        Self::Weights,
        Self::Cache,
        Self::Matrix,
        Self::MatrixFp8,
        Self::Attention,
        Self::Entry,
    ];

    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layer => "vllm.layer",
            Self::Sequence => "vllm.sequence",
            Self::Weights => "vllm.weights",
            Self::Cache => "vllm.cache",
            Self::Matrix => "vllm.matrix",
            Self::MatrixFp8 => "vllm.matrix-fp8",
            Self::Attention => "vllm.attention",
            Self::Entry => "vllm.entry",
        }
    }
}

/// The logarithms of the factors, in the order of [`Factor::ALL`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace(pub [f64; FACTORS]);

impl Pace {
    fn of(&self, factor: Factor) -> f64 {
        self.0[factor as usize].exp()
    }

    /// Seconds of a request's way to an idle engine and back.
    pub fn entry(&self) -> f64 {
        self.of(Factor::Entry)
    }
}

/// Weights are read while others are multiplied, so that the longer of the two counts, and nearly
/// both where they are as long: the norm of this order of the two times. 3 to 8 explain the loads
/// alike.
const OVERLAP: i32 = 4;

/// A card that vLLM runs on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Card {
    /// Bytes a second.
    bandwidth: f64,
    /// Operations a second with 16-bit floats whose sums have 32.
    fp16: f64,
    /// Whether it multiplies 8-bit floats, at twice the speed.
    has_fp8: bool,
    /// Those with which it shares every layer.
    peers: Option<Peers>,
}

impl Card {
    /// What the data sheet says; `None` where it does not.
    pub fn of(device: &Device) -> Option<Self> {
        // `hardware.csv` has GeForce's speed with 16-bit sums; vLLM's kernels sum with 32 bits, at
        // which these cards, and they alone, are half as fast (NVIDIA's architecture whitepapers).
        let is_geforce = device.name.starts_with("GeForce");
        let sums = if is_geforce { 0.5 } else { 1.0 };
        // From compute capability 8.9 on; older ones widen FP8 to 16 bits as they go
        // (docs.vllm.ai, quantization, fp8).
        let has_fp8 = match device.family {
            Family::NvidiaHbm => !["a100", "a30"].iter().any(|old| device.id.starts_with(old)),
            Family::NvidiaAda | Family::NvidiaBlackwell | Family::NvidiaGb10 | Family::AmdHbm => {
                true
            }
            _ => false,
        };
        Some(Self {
            bandwidth: device.bandwidth?.0 * 1e9,
            fp16: sums * device.fp16?.0 * 1e12,
            has_fp8,
            peers: None,
        })
    }

    /// Each of `devices` that share a model: all wait for the slowest. `None` where a data sheet
    /// lacks a speed.
    pub fn of_each(devices: &[Device]) -> Option<Self> {
        let cards: Vec<Self> = devices.iter().map(Self::of).collect::<Option<_>>()?;
        let slowest = |speed: fn(&Self) -> f64| cards.iter().map(speed).reduce(f64::min);
        Some(Self {
            bandwidth: slowest(|card| card.bandwidth)?,
            fp16: slowest(|card| card.fp16)?,
            has_fp8: cards.iter().all(|card| card.has_fp8),
            peers: Peers::of(devices),
        })
    }

    /// What it does itself of `work`.
    fn part<'w>(&self, work: &'w Work) -> Cow<'w, Work> {
        match &self.peers {
            Some(peers) => Cow::Owned(work.of_each(peers.cards)),
            None => Cow::Borrowed(work),
        }
    }

    /// Seconds of a step in which each of `sequences` with `cached` tokens generates one, beside
    /// `prompt` tokens of prompts; `work` is this card's.
    pub fn step(&self, work: &Work, pace: &Pace, load: &Step) -> f64 {
        let tokens = load.sequences + load.prompt;
        let bytes = work.dense_bytes + work.touched_expert_bytes(tokens);
        let read = pace.of(Factor::Weights) * bytes / self.bandwidth;
        let in_fp8 = self.has_fp8 && work.packing == Packing::Fp8;
        let (factor, speed) = if in_fp8 { (Factor::MatrixFp8, 2.0) } else { (Factor::Matrix, 1.0) };
        let weights = work.dense_weights + work.active_expert_weights();
        let layers = pace.of(factor) * 2.0 * weights * tokens / (speed * self.fp16);
        // The output projection stays in 16 bits, and is for tokens that are sampled.
        let output =
            pace.of(Factor::Matrix) * 2.0 * work.output_weights * load.sequences / self.fp16;
        let together = norm(read, layers + output);
        let cached = work.cache_read(load.cached, load.value_bytes) + work.state_bytes;
        let sums = |peers: Peers| peers.sums(work.layers, work.hidden, tokens);
        together
            + self.peers.map_or(0.0, sums)
            + pace.of(Factor::Layer) * work.layers
            + pace.of(Factor::Sequence) * load.sequences
            + pace.of(Factor::Cache) * load.sequences * cached / self.bandwidth
    }

    /// Seconds of the steps that compute a prompt of `tokens` alone, up to `most` in each.
    pub fn prompt(&self, work: &Work, pace: &Pace, tokens: f64, most: f64) -> f64 {
        self.chunks(work, pace, tokens, most) + self.attention(work, pace, tokens)
    }

    /// The same without the attention of tokens to those before.
    fn chunks(&self, work: &Work, pace: &Pace, tokens: f64, most: f64) -> f64 {
        let step = |prompt: f64| self.step(work, pace, &Step { prompt, ..Step::default() });
        let full = (tokens / most).floor();
        let rest = tokens - full * most;
        let last = if rest > 0.0 { step(rest) } else { 0.0 };
        full * step(most) + last
    }

    fn attention(&self, work: &Work, pace: &Pace, tokens: f64) -> f64 {
        let operations = work.attention_operations(0.0, tokens) * tokens;
        pace.of(Factor::Attention) * operations / self.fp16
    }

    /// Seconds in which users who begin together each get an answer: all prompts, then a step for
    /// each further token.
    pub fn round(&self, work: &Work, pace: &Pace, round: &Round) -> f64 {
        let prompts = self.chunks(work, pace, round.users * round.prompt, round.most)
            + round.users * self.attention(work, pace, round.prompt)
            + round.users * pace.of(Factor::Sequence);
        let step = Step {
            sequences: round.users,
            cached: round.prompt + round.answer / 2.0,
            ..Step::default()
        };
        pace.entry() + prompts + (round.answer - 1.0) * self.step(work, pace, &step)
    }
}

/// What one step computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Sequences that generate a token each.
    pub sequences: f64,
    /// Tokens in each one's cache.
    pub cached: f64,
    /// Tokens of prompts.
    pub prompt: f64,
    /// Bytes of a cached value.
    pub value_bytes: f64,
}

impl Default for Step {
    fn default() -> Self {
        Self { sequences: 0.0, cached: 0.0, prompt: 0.0, value_bytes: 2.0 }
    }
}

/// Users who begin together, with prompts and answers of the same lengths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Round {
    /// How many.
    pub users: f64,
    /// Tokens of each prompt.
    pub prompt: f64,
    /// Tokens of each answer.
    pub answer: f64,
    /// Tokens of a step at most.
    pub most: f64,
}

fn norm(a: f64, b: f64) -> f64 {
    (a.powi(OVERLAP) + b.powi(OVERLAP)).powf(1.0 / f64::from(OVERLAP))
}

/// vLLM on a card, or on several that share every layer.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Each of them.
    card: Card,
    pace: Pace,
    /// Of loads of a shape that was held out.
    spread: Spread,
    /// Tokens of a step at most.
    most: f64,
    /// Sequences of a step at most.
    sequences: f64,
    is_fitted: bool,
    is_nvidia: bool,
    /// Whether loads of several such cards were published.
    is_told_together: bool,
    /// What is said at each [`Distance`].
    remarks: [Arc<str>; 6],
}

/// How far a prediction is from what was fitted.
#[derive(Clone, Copy)]
enum Distance {
    /// Another model on the card that was fitted.
    Model,
    /// A dense model elsewhere.
    Card,
    /// A mixture of experts, or a card of another maker.
    Far,
    /// A dense model on several cards.
    Together,
    /// A mixture of experts on several cards.
    TogetherExperts,
    /// A dense model on several cards of which no load was published.
    TogetherFar,
}

impl Serving {
    /// That of `devices` with the constants; `None` where a data sheet lacks a speed.
    pub fn of(devices: &[Device], pace: Pace, spread: Spread) -> Option<Self> {
        let limits = Limits::of_device(devices.first()?);
        let said = |how: &str| -> Arc<str> {
            Arc::from(format!(
                "steps of vLLM: fitted to published loads of a dense 8B model on an H100 SXM (vLLM \
                 0.30.0, reports/accuracy.md); {how}"
            ))
        };
        Some(Self {
            card: Card::of_each(devices)?,
            pace,
            spread,
            most: limits.batch_tokens as f64,
            sequences: limits.requests as f64,
            is_fitted: devices.iter().all(|device| device.id == FITTED),
            is_nvidia: devices.iter().all(|device| is_nvidia(device.family)),
            is_told_together: devices
                .iter()
                .all(|device| is_nvidia(device.family) || device.family == Family::AmdHbm),
            remarks: [
                said("other models: twice the interval"),
                said(&format!("another card or packing: {CARD}, as was published elsewhere")),
                said(&format!(
                    "a mixture of experts, or a card of another maker: {FAR}, as was published of \
                     experts elsewhere"
                )),
                said(&together("dense models", TOGETHER)),
                said(&together("mixtures of experts", TOGETHER_EXPERTS)),
                said(&together("cards of other makers", TOGETHER_FAR)),
            ],
        })
    }

    fn distance(&self, work: &Work) -> Distance {
        let is_float = matches!(work.packing, Packing::F16 | Packing::BF16 | Packing::Fp8);
        match (self.card.peers.is_some(), work.experts.is_some()) {
            (true, true) => Distance::TogetherExperts,
            (true, false) if !self.is_told_together => Distance::TogetherFar,
            (true, false) => Distance::Together,
            (false, true) => Distance::Far,
            (false, false) if !self.is_nvidia => Distance::Far,
            (false, false) if self.is_fitted && is_float => Distance::Model,
            (false, false) => Distance::Card,
        }
    }

    /// What is known of loads as far away; `None` on the card that was fitted.
    fn carried(&self, work: &Work) -> Option<Carried> {
        match self.distance(work) {
            Distance::Model => None,
            Distance::Card => Some(CARD),
            Distance::Far => Some(FAR),
            Distance::Together => Some(TOGETHER),
            Distance::TogetherExperts => Some(TOGETHER_EXPERTS),
            Distance::TogetherFar => Some(TOGETHER_FAR),
        }
    }

    /// How far a measured speed may lie from the predicted one.
    pub fn spread(&self, work: &Work) -> Spread {
        match self.carried(work) {
            None => Spread {
                low: OTHER_MODELS * self.spread.low,
                high: OTHER_MODELS * self.spread.high,
            },
            Some(Carried { middle, low, high }) => {
                Spread { low: (low / middle).ln(), high: (high / middle).ln() }
            }
        }
    }

    /// The speed of `work` here over that which the factors give.
    pub fn elsewhere(&self, work: &Work) -> f64 {
        self.carried(work).map_or(1.0, |carried| carried.middle)
    }

    /// On what that rests.
    pub fn remark(&self, work: &Work) -> Arc<str> {
        Arc::clone(&self.remarks[self.distance(work) as usize])
    }

    /// Seconds of a step.
    pub fn step(&self, work: &Work, step: &Step) -> f64 {
        self.card.step(&self.card.part(work), &self.pace, step) / self.elsewhere(work)
    }

    /// Seconds of a prompt of `tokens` alone, in as many steps as it fills.
    pub fn prompt(&self, work: &Work, tokens: f64) -> f64 {
        let part = self.card.part(work);
        self.card.prompt(&part, &self.pace, tokens, self.most) / self.elsewhere(work)
    }

    /// Tokens of a step at most.
    pub fn most(&self) -> f64 {
        self.most
    }

    /// Tokens a second of `sequences` with `cached` tokens each, and those that the bandwidth allows;
    /// more sequences than a step takes wait.
    pub fn speed(&self, work: &Work, step: &Step) -> (f64, f64) {
        let step = Step { sequences: step.sequences.min(self.sequences), ..*step };
        let part = self.card.part(work);
        let cached = step.sequences * part.cache_read(step.cached, step.value_bytes);
        let bytes = part.dense_bytes + part.touched_expert_bytes(step.sequences) + cached;
        let least = bytes / self.card.bandwidth;
        (step.sequences / self.step(work, &step), step.sequences / least)
    }

    /// Seconds that a step is longer for each token in a cache, where each holds `cached`.
    pub fn cached_token(&self, work: &Work, cached: f64, value_bytes: f64) -> f64 {
        let bytes = self.card.part(work).cache_read(cached, value_bytes) / cached;
        self.pace.of(Factor::Cache) * bytes / self.card.bandwidth / self.elsewhere(work)
    }

    /// Seconds for each pair of a prompt's token and one before it, in a prompt of `tokens`.
    pub fn pair(&self, work: &Work, tokens: f64) -> f64 {
        let seconds = self.card.attention(&self.card.part(work), &self.pace, tokens);
        seconds / (tokens * tokens / 2.0) / self.elsewhere(work)
    }

    /// Seconds that a step is longer for each sequence, whatever is computed.
    pub fn sequence(&self, work: &Work) -> f64 {
        self.pace.of(Factor::Sequence) / self.elsewhere(work)
    }
}

fn together(what: &str, carried: Carried) -> String {
    format!(
        "every layer shared by all cards (tensor parallelism), {what}: {carried}, as was published \
         of 2 to 8 cards; PCIe 4.0 x16 between cards without a switch"
    )
}

fn is_nvidia(family: Family) -> bool {
    matches!(
        family,
        Family::NvidiaAmpere
            | Family::NvidiaAda
            | Family::NvidiaBlackwell
            | Family::NvidiaHbm
            | Family::NvidiaGb10
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{models, serving};
    use crate::fit::constants;
    use crate::fit::machine::Machine;
    use crate::fit::vllm::Checkpoint;

    fn serving(machine: &str) -> Serving {
        let constants = constants::embedded();
        let devices = Machine::parse(machine, &[]).unwrap().devices;
        Serving::of(&devices, constants.pace, constants.pace_spread).unwrap()
    }

    fn work(model: &str, kind: Checkpoint) -> Work {
        kind.packed(models::find(model).unwrap()).unwrap().work
    }

    #[test]
    fn the_fitted_card_is_that_of_all_loads() {
        assert!(serving::all().unwrap().iter().all(|load| load.device == FITTED));
    }

    #[test]
    fn more_sequences_gain_more_together_and_less_each() {
        let (card, work) = (serving("rtx-5090"), work("qwen3-8b", Checkpoint::Fp8));
        let speed = |sequences: f64| {
            card.speed(&work, &Step { sequences, cached: 1000.0, ..Step::default() }).0
        };
        for (few, many) in [(1.0, 8.0), (8.0, 64.0), (64.0, 256.0)] {
            assert!(speed(many) > speed(few) && speed(many) / many < speed(few) / few, "{many}");
        }
    }

    #[test]
    fn eight_bits_are_twice_as_fast_only_where_the_card_has_them() {
        let prompt = |device: &str, kind| serving(device).prompt(&work("qwen3-8b", kind), 8192.0);
        let gain =
            |device: &str| prompt(device, Checkpoint::Bf16) / prompt(device, Checkpoint::Fp8);
        assert!(gain("rtx-5090") > 1.2, "{}", gain("rtx-5090"));
        assert!(gain("a100-sxm-80gb") < 1.05, "{}", gain("a100-sxm-80gb"));
    }

    #[test]
    fn the_further_from_what_was_fitted_the_wider() {
        let dense = work("llama-3.1-8b", Checkpoint::Fp8);
        let experts = work("qwen3-30b-a3b", Checkpoint::Awq);
        let width = |device: &str, work: &Work| {
            let spread = serving(device).spread(work);
            spread.high - spread.low
        };
        assert!(width(FITTED, &dense) < width("rtx-5090", &dense));
        assert!(width("rtx-5090", &dense) < width("rtx-5090", &experts));
        let packed = work("llama-3.1-8b", Checkpoint::Awq);
        assert!(width(FITTED, &packed) > width(FITTED, &dense));
        assert!(width("mi300x", &dense) > width("h200-sxm-141gb", &dense));
        assert!(width("2x rtx-5090", &dense) > width("rtx-5090", &dense));
        assert_eq!(width("8x mi300x", &dense), width("2x rtx-5090", &dense));
        assert!(width("2x rx-7900-xtx", &dense) > width("8x mi300x", &dense));
    }

    #[test]
    fn cards_together_are_faster_than_one_and_slower_than_their_sum() {
        let work = work("llama-3.1-8b", Checkpoint::Bf16);
        let seconds = |machine: &str| {
            let serving = serving(machine);
            let step = Step { sequences: 16.0, cached: 1000.0, ..Step::default() };
            let own = serving.elsewhere(&work);
            (serving.step(&work, &step) * own, serving.prompt(&work, 2048.0) * own)
        };
        for (one, two) in [("rtx-4090", "2x rtx-4090"), (FITTED, "2x h100-sxm-80gb")] {
            let ((step, prompt), (step2, prompt2)) = (seconds(one), seconds(two));
            assert!(step2 < step && step2 > step / 2.0, "{two}: {step} {step2}");
            assert!(prompt2 < prompt && prompt2 > prompt / 2.0, "{two}: {prompt} {prompt2}");
        }
        // Cards wait for the slowest.
        let mixed = seconds("rtx-4090 + rtx-3090");
        assert!((mixed.0 / seconds("2x rtx-3090").0 - 1.0).abs() < 0.05, "{mixed:?}");
    }

    /// Llama 3.1 8B in FP16 on an H100 by vLLM 0.21.0: 6.48 ms for a further token of one user
    /// (yobitelcomm.github.io/bench/recipes/concurrency-sweep, 2026-05-16).
    #[test]
    fn another_model_on_the_fitted_card_is_within_its_interval() {
        let work = work("llama-3.1-8b", Checkpoint::Bf16);
        let card = serving(FITTED);
        let step = Step { sequences: 1.0, cached: 500.0, ..Step::default() };
        let (low, high) = card.spread(&work).around(1.0 / card.step(&work, &step), None);
        assert!((low..=high).contains(&(1.0 / 0.00648)), "{low} {high}");
    }
}
