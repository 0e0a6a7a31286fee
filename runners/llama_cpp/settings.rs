//! A case's settings as llama.cpp's parameters, and the parameters in force read back.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use anyhow::{anyhow, bail};
use bench::runner::{Fault, Settings};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams};
use llama_cpp_2::model::params::{LlamaModelParams, LlamaSplitMode};
use llama_cpp_sys_2 as sys;

use crate::log;

/// llama.cpp's own default number of tokens in one call.
const BATCH_TOKENS: u32 = 2048;

pub fn model_params(settings: &Settings) -> anyhow::Result<LlamaModelParams> {
    let mut params = LlamaModelParams::default();
    if let Some(layers) = settings.gpu_layers {
        params = params.with_n_gpu_layers(layers);
    }
    if let Some(mmap) = settings.mmap {
        params = params.with_use_mmap(mmap);
    }
    if let Some(mode) = &settings.split_mode {
        params = params.with_split_mode(match mode.as_str() {
            "none" => LlamaSplitMode::None,
            "layer" => LlamaSplitMode::Layer,
            "row" => LlamaSplitMode::Row,
            other => bail!("unknown split mode '{other}'; use none, layer or row"),
        });
    }
    if settings.tensor_split.is_some() {
        return Err(anyhow!("llama-cpp-2 has no tensor_split; leave it out and llama.cpp divides")
            .context(Fault::Unsupported));
    }
    Ok(params)
}

pub fn context_params(settings: &Settings) -> anyhow::Result<LlamaContextParams> {
    let slots = settings.slots.max(1);
    let tokens = slots
        .checked_mul(settings.slot_tokens)
        .ok_or_else(|| anyhow!("{slots} slots of {} tokens are too many", settings.slot_tokens))?;
    let batch_tokens = settings.batch_tokens.unwrap_or(BATCH_TOKENS);
    let mut params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(tokens))
        .with_n_seq_max(slots)
        .with_n_batch(batch_tokens)
        // As llama-bench: a sliding window keeps the cells it needs, not the whole context.
        .with_swa_full(false)
        .with_no_perf(true);
    if let Some(micro_batch) = settings.micro_batch {
        params = params.with_n_ubatch(micro_batch);
    }
    if let Some(threads) = settings.threads {
        let threads = i32::try_from(threads)?;
        params = params.with_n_threads(threads).with_n_threads_batch(threads);
    }
    if let Some(flash) = settings.flash_attention {
        params = params.with_flash_attention_policy(if flash {
            sys::LLAMA_FLASH_ATTN_TYPE_ENABLED
        } else {
            sys::LLAMA_FLASH_ATTN_TYPE_DISABLED
        });
    }
    if let Some(name) = &settings.kv_type {
        let kv_type = kv_type(name)?;
        params = params.with_type_k(kv_type).with_type_v(kv_type);
    }
    Ok(params)
}

fn kv_type(name: &str) -> anyhow::Result<KvCacheType> {
    Ok(match name {
        "f32" => KvCacheType::F32,
        "f16" => KvCacheType::F16,
        "bf16" => KvCacheType::BF16,
        "q8_0" => KvCacheType::Q8_0,
        "q5_1" => KvCacheType::Q5_1,
        "q5_0" => KvCacheType::Q5_0,
        "q4_1" => KvCacheType::Q4_1,
        "q4_0" => KvCacheType::Q4_0,
        "iq4_nl" => KvCacheType::IQ4_NL,
        other => {
            let error = anyhow!("llama.cpp has no KV type '{other}'");
            return Err(error.context(Fault::Unsupported));
        }
    })
}

/// What llama.cpp says is in force, under the names that scenarios use.
pub fn effective(context: &LlamaContext<'_>, settings: &Settings) -> BTreeMap<String, String> {
    let mut effective = BTreeMap::new();
    let mut put = |key: &str, value: String| effective.insert(key.to_owned(), value);
    put("context_tokens", context.n_ctx().to_string());
    put("batch_tokens", context.n_batch().to_string());
    put("micro_batch", context.n_ubatch().to_string());
    if let Some(threads) = settings.threads {
        put("threads", threads.to_string());
    }
    put("kv_type", settings.kv_type.clone().unwrap_or_else(|| "f16".to_owned()));
    let flash = match log::value("flash_attn").as_deref() {
        Some("auto") if log::contains("Flash Attention enabled") => "true",
        Some("auto") if log::contains("Flash Attention not supported") => "false",
        Some("disabled") => "false",
        Some("enabled") => "true",
        _ => "unknown",
    };
    put("flash_attention", flash.to_owned());
    put("mmap", log::contains("_Mapped model buffer size").to_string());
    put("repack", log::contains("_REPACK model buffer size").to_string());
    effective
}
