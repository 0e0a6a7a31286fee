//! How vLLM lays out a device's memory: weights, activations, and a pool of cache blocks in the rest.
//!
//! Defaults and arithmetic of v0.26.0 (docs.vllm.ai/en/v0.26.0/api/vllm/config/cache; sizes of a
//! request: `vllm/v1/kv_cache_interface.py`; batch defaults: `vllm/engine/arg_utils.py`
//! `get_batch_defaults`).

use anyhow::Context;

use crate::catalog::hardware::Device;
use crate::catalog::models::{Experts, ModelSpec};
use crate::model::quant::Quant;
use crate::units::{Bytes, Tokens};

use super::machine::Machine;
use super::memory::{self, Layout, Memory};
use super::packed::{Blueprint, Packed, Weights};
use super::site::Site;
use super::work::Packing;

/// Its name among the engines.
pub const ENGINE: &str = "vllm";
/// The version whose defaults these are.
pub const VERSION: &str = "0.26.0";
/// `--gpu-memory-utilization`: 0.92 in this version, 0.9 up to 0.11.
pub const UTILIZATION: f64 = 0.92;
/// `--block-size`: tokens in a block.
pub const BLOCK: u64 = 16;
/// The most cards of one machine (NVIDIA HGX, AMD's MI300X platform).
const MOST_CARDS: u32 = 8;
/// What a process takes outside its allocator: 0.35 GiB (github:vllm-project/vllm issue 10517, RTX
/// 3090).
const OUTSIDE: f64 = 0.35;

/// Why its speeds are uncertain where `fit::serving` cannot tell them.
pub const UNSEEN: &str =
    "vLLM's steps are not known for this device: llama.cpp's factors, twice the interval";

/// What its memory rests on.
pub fn remark(utilization: f64) -> String {
    format!(
        "vLLM {VERSION}: gpu_memory_utilization {utilization}, blocks of {BLOCK} tokens; activations \
         are estimated for its default batch"
    )
}

/// How a checkpoint's weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checkpoint {
    /// As trained.
    Bf16,
    /// One byte for each weight of the layers.
    Fp8,
    /// Four bits in groups of 128, by activation-aware rounding.
    Awq,
    /// Four bits in groups of 128.
    Gptq,
    /// Eight bits in groups of 128.
    Gptq8,
}

impl Checkpoint {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Bf16, Self::Fp8, Self::Awq, Self::Gptq, Self::Gptq8];

    /// Its word in flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "BF16",
            Self::Fp8 => "FP8",
            Self::Awq => "AWQ",
            Self::Gptq => "GPTQ",
            Self::Gptq8 => "GPTQ-8bit",
        }
    }

    /// The one with this word, in any case.
    pub fn named(word: &str) -> Option<Self> {
        let word = if word.eq_ignore_ascii_case("F16") { "BF16" } else { word };
        Self::ALL.into_iter().find(|c| c.name().eq_ignore_ascii_case(word))
    }

    /// The same, with the reason where there is none.
    pub fn parse(word: &str) -> anyhow::Result<Self> {
        Self::named(word).with_context(|| format!("no checkpoint is called '{word}'"))
    }

    /// `spec` stored so; bits for a weight: `catalog/quants.csv` (4 + 20/128 and 8 + 24/128 with groups of 128).
    pub fn packed(self, spec: &ModelSpec) -> anyhow::Result<Packed> {
        memory::ensure_known(spec)?;
        let blueprint = Blueprint::new(spec)?;
        let packed = match self {
            Self::Bf16 => blueprint.packed(Quant::BF16)?,
            Self::Fp8 => blueprint.flat(8.0, Packing::Fp8)?,
            Self::Awq | Self::Gptq => blueprint.flat(4.156_25, Packing::Q4)?,
            Self::Gptq8 => blueprint.flat(8.187_5, Packing::Q8)?,
        };
        Ok(packed.with_windows(spec))
    }
}

/// vLLM's pool of cache blocks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pool {
    /// Its size on all devices.
    pub bytes: Bytes,
    /// Tokens that it holds.
    pub tokens: u64,
    /// Requests of the asked length at once.
    pub concurrency: f64,
}

/// Tokens in a batch and requests at once by default: more with 70 GiB, but for the A100.
fn batch(device: &Device) -> (u64, u64) {
    let large = device.memory.is_some_and(|m| m.gib() >= 70.0) && !device.id.contains("a100");
    if large { (8192, 1024) } else { (2048, 256) }
}

/// Why so many cards cannot share the layers of a model: each has as many query heads as the others, and
/// as many key and value heads, or one of them that others have too (`vllm/config/model.py`
/// `verify_with_parallel_config`; `vllm/model_executor/models/llama.py` `LlamaAttention`).
pub fn uneven(spec: &ModelSpec, cards: u32) -> Option<String> {
    let cards = cards.max(1);
    if cards > MOST_CARDS {
        return Some(format!(
            "cards of several machines are not predicted, and none has more than {MOST_CARDS}"
        ));
    }
    let cannot = |heads: u32, what: &str| {
        format!("vLLM shares {heads} {what} heads evenly, which {cards} cards cannot")
    };
    if !spec.heads.is_multiple_of(cards) {
        return Some(cannot(spec.heads, "attention"));
    }
    let cached = spec.kv_heads.max(1);
    let is_even =
        spec.mla.is_some() || cached.is_multiple_of(cards) || cards.is_multiple_of(cached);
    (!is_even).then(|| cannot(cached, "key and value"))
}

/// What vLLM takes of the devices, with the reason.
pub fn usable(machine: &Machine, utilization: f64) -> Option<(Bytes, &'static str)> {
    let each = machine.devices.iter().map(|d| d.memory).collect::<Option<Vec<_>>>()?;
    // Every card holds as much as the smallest.
    let smallest = each.iter().map(|b| b.0).min()?;
    let all = smallest as f64 * each.len() as f64 * utilization;
    Some((Bytes(all as u64), "gpu_memory_utilization of what the driver reports"))
}

/// Limits that follow from the first of the devices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Tokens of a step at most.
    pub batch_tokens: u64,
    /// Requests at once at most.
    pub requests: u64,
    cards: u64,
}

impl Limits {
    /// Those of `machine`.
    pub fn of(machine: &Machine) -> Self {
        let (batch_tokens, requests) = machine.devices.first().map_or((2048, 256), batch);
        Self { batch_tokens, requests, cards: machine.devices.len() as u64 }
    }

    /// Those of one such card.
    pub fn of_device(device: &Device) -> Self {
        let (batch_tokens, requests) = batch(device);
        Self { batch_tokens, requests, cards: 1 }
    }
}

/// What a model needs with `tokens` in each slot: the cache is what these requests fill.
pub fn memory(
    spec: &ModelSpec,
    weights: &Weights,
    layout: &Layout,
    tokens: Tokens,
    site: &Site<'_>,
) -> Memory {
    let limits = site.limits;
    let request = request_bytes(spec, layout, tokens, limits);
    Memory {
        file: weights.file,
        weights: weights.file,
        lookup: Bytes(0),
        cache: Bytes(u64::from(layout.slots).saturating_mul(request)),
        compute: Bytes(limits.cards * overhead(spec, limits)),
    }
}

/// The pool that is left beside weights and activations; `None` where there is none.
pub fn pool(
    spec: &ModelSpec,
    weights: &Weights,
    layout: &Layout,
    tokens: Tokens,
    site: &Site<'_>,
) -> Option<Pool> {
    let limits = site.limits;
    let taken = weights.file.0 + limits.cards * overhead(spec, limits);
    let bytes = site.usable?.0.0.checked_sub(taken)?;
    let request = request_bytes(spec, layout, tokens, limits).max(1);
    let concurrency = bytes as f64 / request as f64;
    let blocks = (concurrency * f64::from(tokens.0) / BLOCK as f64) as u64;
    Some(Pool { bytes: Bytes(bytes), tokens: blocks * BLOCK, concurrency })
}

/// Bytes of cache on all cards that one request of `tokens` fills, in whole blocks.
fn request_bytes(spec: &ModelSpec, layout: &Layout, tokens: Tokens, limits: Limits) -> u64 {
    let tokens = u64::from(tokens.0);
    let blocks = tokens.div_ceil(BLOCK) * BLOCK;
    let in_window = |window: u64| {
        let seen = tokens.min(window - 1 + limits.batch_tokens);
        ((seen.div_ceil(BLOCK) + 1) * BLOCK).min(blocks)
    };
    let sliding = spec.sliding.as_ref().map_or(blocks, |s| in_window(u64::from(s.window.max(1))));
    let flat = Layout { flash_attention: true, ..*layout };
    let bytes = |il: u32| {
        let rows = memory::layer_rows(spec, il, &flat);
        let cells = if spec.is_sliding(il) { sliding } else { blocks };
        // Cards share the heads; where there are fewer heads than cards, each holds a whole one.
        let latent = spec.mla.is_some() || spec.compressed.is_some();
        let heads = if latent { 1 } else { u64::from(spec.kv_heads_of(il).max(1)) };
        let copies = limits.cards.div_ceil(heads).max(1);
        let seen = cells.saturating_mul(rows.seen);
        let cached = seen.saturating_add(blocks.saturating_mul(rows.compressed));
        cached.saturating_mul(copies).saturating_add(rows.state)
    };
    (0..spec.layers).map(bytes).fold(0, u64::saturating_add)
}

/// Activations of a full batch, or the logits of all requests while they are sampled from, and what
/// lies outside the allocator.
///
/// 2 bytes × 3 × (feed-forward + hidden) for a token: 110,592 bytes for Llama 3.1 8B, where 20,000
/// tokens took 2.07 GiB (github:vllm-project/vllm issue 10517). Four copies of the logits in F32:
/// gpt-oss-20b left 36.56 of 51.5 GiB beside 13.72 GiB of weights, Gemma 4 26B-A4B 21.5 of 71.3
/// beside 48.5, both on an A100 (myoceane.fr ai-vllm-a100-gemma-4, v0.19.0).
fn overhead(spec: &ModelSpec, limits: Limits) -> u64 {
    let ffn = |e: &Experts| (u64::from(e.active) + u64::from(e.shared)) * u64::from(e.ffn);
    let routed = spec.experts.as_ref().map_or(0, ffn);
    let width = u64::from(spec.ffn.unwrap_or(0)).max(routed) + u64::from(spec.hidden);
    let activations = limits.batch_tokens * 2 * 3 * width;
    let logits = limits.requests * u64::from(spec.vocab) * 4 * 4;
    Bytes::from_gib(OUTSIDE).0 + activations.max(logits) / limits.cards.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::models;
    use crate::catalog::quants;
    use crate::fit::answer::{self, Answer, Question, Verdict};

    fn ask(machine: &str, model: &str, utilization: f64, tokens: u32, slots: u32) -> Answer {
        let layout = Layout { slot_tokens: Tokens(tokens), slots, ..Layout::default() };
        let question = Question { utilization, ..Question::new(layout, ENGINE) };
        let machine = Machine::parse(machine, &[]).unwrap();
        answer::ask(&machine, models::find(model).unwrap(), Quant::BF16, &question).unwrap()
    }

    /// What start-up logs say is available for the cache (sources: see `overhead`).
    #[test]
    fn pools_are_near_those_of_published_logs() {
        for (model, utilization, gib) in
            [("gpt-oss-20b", 0.65, 36.56), ("gemma-4-26b-a4b", 0.9, 21.5)]
        {
            let pool = ask("a100-sxm-80gb", model, utilization, 8192, 1).pool.unwrap();
            let off = pool.bytes.gib() / gib - 1.0;
            assert!(off.abs() < 0.10, "{model}: {}, published {gib} GiB", pool.bytes);
        }
    }

    /// The tokens that vLLM 0.30.0 said at its start, of the runs in `serving.csv`.
    #[test]
    fn pools_hold_about_the_tokens_that_vllm_told() {
        for load in crate::catalog::serving::all().unwrap() {
            let layout = Layout { slot_tokens: Tokens(8192), ..Layout::default() };
            let question = Question { utilization: 0.9, ..Question::new(layout, ENGINE) };
            let machine = Machine::parse(&load.device, &[]).unwrap();
            let spec = models::find(&load.model_id).unwrap();
            let packed = Checkpoint::named(&load.checkpoint).unwrap().packed(spec).unwrap();
            let plan = memory::Plan::new(spec, &layout);
            let (weights, work) = (&packed.weights, &packed.work);
            let candidate = answer::Candidate { spec, weights, plan: &plan, work };
            let constants = crate::fit::constants::embedded();
            let pool = answer::answer(&candidate, &machine, &question, constants).pool.unwrap();
            let off = pool.tokens as f64 / load.cache_tokens.unwrap() as f64 - 1.0;
            assert!(off.abs() < 0.05, "{} {}: {off}", load.checkpoint, pool.tokens);
        }
    }

    #[test]
    fn checkpoints_have_the_bits_of_the_sourced_facts() {
        let facts = quants::all();
        let of = |id: &str| facts.iter().find(|q| q.id.starts_with(id)).unwrap().bpw_exact.unwrap();
        let spec = models::find("llama-3.1-8b").unwrap();
        let layers = |kind: Checkpoint| {
            let weights = kind.packed(spec).unwrap().weights;
            weights.layers.iter().map(|l| l.dense as f64 * 8.0).sum::<f64>()
        };
        for (kind, id) in
            [(Checkpoint::Awq, "AWQ 4-bit g128"), (Checkpoint::Gptq, "GPTQ 4-bit g128")]
        {
            let ratio = layers(kind) / layers(Checkpoint::Bf16) * 16.0;
            assert!((ratio / of(id) - 1.0).abs() < 1e-3, "{id}: {ratio}");
        }
        // Embedding and output stay 16 bits wide: 8.5 GiB and not 7.5.
        let fp8 = Checkpoint::Fp8.packed(spec).unwrap().weights.file;
        assert!((fp8.gib() - 8.46).abs() < 0.05, "{fp8}");
    }

    #[test]
    fn a_token_of_llama_8b_takes_128_kib() {
        let answer = ask("rtx-4090", "llama-3.1-8b", 0.9, 1000, 1);
        // 63 blocks of 16 tokens
        assert_eq!(answer.memory.cache, Bytes(63 * 16 * 131_072));
        let pool = answer.pool.unwrap();
        assert_eq!(pool.tokens % BLOCK, 0);
        assert!((pool.bytes.0 as f64 / pool.tokens as f64 / 131_072.0 - 1.0).abs() < 0.01);
    }

    #[test]
    fn compressed_rows_of_deepseek_v4_grow_with_the_context() {
        let cache = |tokens| {
            let answer = ask("h200-sxm-141gb", "deepseek-v4-flash", 0.9, tokens, 1);
            answer.memory.cache.0
        };
        // 43 layers: 21 from the third on with a row of 512 values for every fourth token and one
        // of the indexer's 128, 20 with one for every 128th; two bytes each.
        let token = 21 * (512 + 128) * 2 / 4 + 20 * 512 * 2 / 128;
        assert_eq!(cache(131_072) - cache(65_536), 65_536 * token);
    }

    #[test]
    fn cards_hold_each_layer_as_often_as_its_heads_are_fewer() {
        let cache = |machine| {
            let layout = Layout { slot_tokens: Tokens(65_536), ..Layout::default() };
            let limits = Limits::of(&Machine::parse(machine, &[]).unwrap());
            let spec = models::find("gemma-4-31b").unwrap();
            request_bytes(spec, &layout, layout.slot_tokens, limits)
        };
        // Of 60 layers every sixth is full: 4 heads of 512 values, keys and values in two bytes. Eight
        // cards hold them twice; the 16 heads of the others once.
        let full = 10 * 65_536 * 2 * 4 * 512 * 2;
        assert_eq!(cache("8x h100-sxm-80gb") - cache("h100-sxm-80gb"), full);
    }

    #[test]
    fn more_requests_than_the_pool_holds_do_not_fit() {
        let few = ask("rtx-4090", "llama-3.1-8b", 0.9, 8192, 4);
        let many = ask("rtx-4090", "llama-3.1-8b", 0.9, 8192, 64);
        assert_eq!(few.verdict, Verdict::Fits);
        let concurrency = many.pool.unwrap().concurrency;
        assert!((4.0..64.0).contains(&concurrency), "{concurrency}");
        assert!(matches!(many.verdict, Verdict::DoesNotFit { .. }));
    }

    #[test]
    fn two_cards_hold_a_larger_pool_together() {
        let one = ask("h100-sxm-80gb", "llama-3.1-8b", 0.9, 8192, 1).pool.unwrap();
        let two = ask("2x h100-sxm-80gb", "llama-3.1-8b", 0.9, 8192, 1).pool.unwrap();
        assert!(two.concurrency > 2.1 * one.concurrency, "{one:?} {two:?}");
    }

    #[test]
    fn cards_that_share_the_heads_evenly_have_a_speed() {
        let ask = |machine: &str| ask(machine, "llama-3.1-8b", 0.9, 8192, 4);
        let speed = |answer: &Answer| answer.decode.unwrap().value.0;
        let (one, two, three) = (ask("rtx-4090"), ask("2x rtx-4090"), ask("3x rtx-4090"));
        assert!(speed(&two) > 1.2 * speed(&one), "{one:?} {two:?}");
        let Verdict::Unknown(why) = &three.verdict else { panic!("{three:?}") };
        assert!(why.contains("32 attention heads"), "{why}");
        assert!(three.decode.is_none() && three.pool.is_none() && three.longest_context.is_none());
        // 28 query heads, 4 of keys and values.
        let spec = models::find("qwen2.5-7b").unwrap();
        let uneven = |cards| uneven(spec, cards);
        assert_eq!([1, 2, 4].map(uneven), [None, None, None]);
        assert!(uneven(28).is_some_and(|why| why.contains("several machines")));
        assert!(uneven(7).is_some_and(|why| why.contains("4 key and value heads")));
        // Every card holds all of a latent cache.
        assert_eq!(super::uneven(models::find("deepseek-v3").unwrap(), 8), None);
    }
}
