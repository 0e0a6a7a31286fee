//! How engines share their time and memory between requests: what a scheduler may put into a step,
//! how the cache is handed out, and what waits or is refused.

use serde::Serialize;

use super::pieces::MICRO_BATCH;
use super::step::StepTime;
use crate::units::Tokens;

/// How the memory of caches is shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cache {
    /// In blocks, as requests grow: a request is put out again when they run out.
    Paged {
        /// All blocks together.
        tokens: u64,
        /// A block.
        block: u32,
    },
    /// In equal parts, one for each sequence, whether it is used or not.
    Slots {
        /// A part: the longest prompt with its answer.
        tokens: Tokens,
        /// Whether they are parts of one cache (llama.cpp's `--kv-unified`), so that a batch is
        /// computed whole. Each for itself, it is cut into [pieces](super::pieces()).
        unified: bool,
    },
}

/// A serving engine with a model on a device.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Engine {
    /// As reports call it: `vLLM`, `llama-server`.
    pub name: String,
    /// How long its steps take.
    pub step: StepTime,
    /// Sequences that are computed at once.
    pub sequences: u32,
    /// The most tokens of a step, of prompts and generation together.
    pub step_tokens: u32,
    /// The most tokens of a piece, where a step is computed in pieces.
    pub micro_batch: u32,
    /// Where its caches lie.
    pub cache: Cache,
    /// Requests that may wait; one more is refused. `None`: as many as come.
    pub queue: Option<u32>,
    /// Whether a further turn finds the cache of the turns before, while it lasts.
    pub reuses_prefix: bool,
}

impl Engine {
    /// vLLM's scheduler (v1): first come, first served; prompts are cut to what is left of
    /// `max_num_batched_tokens` in a step, blocks of 16 tokens, prefix caching on. Its defaults for
    /// an API server: 256 sequences (1,024 on large cards), 2,048 tokens a step (8,192 there).
    /// Source: vllm/engine/arg_utils.py, vllm/v1/core/sched/scheduler.py, v0.26.
    pub fn vllm(step: StepTime, cache_tokens: u64) -> Self {
        Self {
            name: "vLLM".to_owned(),
            step,
            sequences: 256,
            step_tokens: 2048,
            micro_batch: MICRO_BATCH,
            cache: Cache::Paged { tokens: cache_tokens, block: 16 },
            queue: None,
            reuses_prefix: true,
        }
    }

    /// llama-server with `--parallel` slots of `slot_tokens`, and without `--kv-unified`: a step takes
    /// a token of every slot that generates and fills up to `n_batch` (2,048) with prompts, in the
    /// order of slots; what finds no slot waits. A slot keeps its cache until another conversation
    /// takes it. Source: tools/server/README.md and `update_slots` of llama.cpp.
    pub fn llama_server(step: StepTime, parallel: u32, slot_tokens: Tokens) -> Self {
        Self {
            name: "llama-server".to_owned(),
            step,
            sequences: parallel,
            step_tokens: 2048,
            micro_batch: MICRO_BATCH,
            cache: Cache::Slots { tokens: slot_tokens, unified: false },
            queue: None,
            reuses_prefix: true,
        }
    }

    /// The same with one cache for all its slots.
    pub fn unified(self) -> Self {
        let cache = match self.cache {
            Cache::Slots { tokens, .. } => Cache::Slots { tokens, unified: true },
            paged @ Cache::Paged { .. } => paged,
        };
        Self { cache, ..self }
    }

    /// Ollama with `OLLAMA_NUM_PARALLEL` (default 1) and `OLLAMA_MAX_QUEUE` (default 512, then it
    /// answers 503); batches of 512 tokens. Source: Ollama's FAQ and envconfig/config.go. Its own
    /// engine keeps all sequences in one cache and computes a batch whole (kvcache/causal.go). Its
    /// other one, on llama.cpp, does not set `kv_unified` (llama/llama.go), and would compute in
    /// pieces as llama-server does; which of the two runs a model is Ollama's choice, and the first
    /// is simulated.
    pub fn ollama(step: StepTime, parallel: u32, slot_tokens: Tokens) -> Self {
        Self {
            name: "Ollama".to_owned(),
            step,
            sequences: parallel,
            step_tokens: 512,
            micro_batch: MICRO_BATCH,
            cache: Cache::Slots { tokens: slot_tokens, unified: true },
            queue: Some(512),
            reuses_prefix: true,
        }
    }

    /// One request after the other, each whole: candle, MLX, a program of one's own.
    pub fn one_at_a_time(name: &str, step: StepTime, context: Tokens) -> Self {
        Self {
            name: name.to_owned(),
            step,
            sequences: 1,
            step_tokens: 512,
            micro_batch: MICRO_BATCH,
            // Nothing is beside the one sequence.
            cache: Cache::Slots { tokens: context, unified: true },
            queue: None,
            reuses_prefix: false,
        }
    }

    /// Whether a request of so many tokens, prompt and answer, can ever be served.
    pub fn can_hold(&self, tokens: u64) -> bool {
        match self.cache {
            Cache::Paged { tokens: all, block } => {
                tokens.div_ceil(u64::from(block)) * u64::from(block) <= all
            }
            Cache::Slots { tokens: slot, .. } => tokens <= u64::from(slot.0),
        }
    }

    /// All tokens that its caches hold.
    pub fn cache_tokens(&self) -> u64 {
        match self.cache {
            Cache::Paged { tokens, .. } => tokens,
            Cache::Slots { tokens, .. } => u64::from(tokens.0) * u64::from(self.sequences),
        }
    }
}
