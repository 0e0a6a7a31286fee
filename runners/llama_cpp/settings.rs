//! A case's settings as llama.cpp's parameters, and the parameters in force read back.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::num::NonZeroU32;
use std::path::Path;
use std::ptr::NonNull;

use anyhow::{Context, anyhow, bail};
use bench::runner::{Fault, Settings};
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams};
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::{LlamaBackendDeviceType, list_llama_ggml_backend_devices};
use llama_cpp_sys_2 as sys;

use crate::log;

/// llama.cpp's own default number of tokens in one call.
const BATCH_TOKENS: u32 = 2048;

/// Loads the model as the settings say; the error of the binding says no more than that it failed.
pub fn load_model(path: &Path, settings: &Settings) -> anyhow::Result<LlamaModel> {
    // SAFETY: the function only fills a structure with llama.cpp's defaults.
    let mut params = unsafe { sys::llama_model_default_params() };
    if let Some(layers) = settings.gpu_layers {
        params.n_gpu_layers = i32::try_from(layers).unwrap_or(i32::MAX);
    }
    if let Some(mmap) = settings.mmap {
        params.load_mode = if mmap { sys::LLAMA_LOAD_MODE_MMAP } else { sys::LLAMA_LOAD_MODE_NONE };
    }
    if let Some(mode) = &settings.split_mode {
        params.split_mode = match mode.as_str() {
            "none" => sys::LLAMA_SPLIT_MODE_NONE,
            "layer" => sys::LLAMA_SPLIT_MODE_LAYER,
            "row" => sys::LLAMA_SPLIT_MODE_ROW,
            other => bail!("unknown split mode '{other}'; use none, layer or row"),
        };
    }
    let gpus = list_llama_ggml_backend_devices()
        .iter()
        .filter(|device| device.device_type == LlamaBackendDeviceType::Gpu)
        .count();
    // SAFETY: the function has no arguments and changes nothing.
    let most = unsafe { sys::llama_max_devices() };
    let shares = shares(settings, gpus, most)?;
    if let Some(shares) = &shares {
        params.tensor_split = shares.as_ptr();
    }
    let path = path.to_str().with_context(|| format!("'{}' is not UTF-8", path.display()))?;
    let path = CString::new(path).context("a path with a NUL")?;
    // SAFETY: the path is NUL-terminated, and it and the shares, of which there are as many as
    // llama.cpp reads, live until the call returns.
    let model = unsafe { sys::llama_model_load_from_file(path.as_ptr(), params) };
    let model = NonNull::new(model).context("no model came")?;
    // SAFETY: LlamaModel is a transparent wrapper of exactly this pointer, whose model is ours alone.
    // The binding's own loading cannot be given a `tensor_split`.
    Ok(unsafe { std::mem::transmute::<NonNull<sys::llama_model>, LlamaModel>(model) })
}

/// The share of each GPU, in the room that llama.cpp reads.
fn shares(settings: &Settings, gpus: usize, most: usize) -> anyhow::Result<Option<Vec<f32>>> {
    let Some(shares) = &settings.tensor_split else { return Ok(None) };
    if shares.len() > gpus {
        // llama.cpp itself would take the first of them and say nothing.
        let error = anyhow!(
            "tensor_split has {} shares, llama.cpp sees {gpus} GPUs; give it a share for each of them",
            shares.len()
        );
        return Err(error.context(Fault::Unsupported));
    }
    let mut shares = shares.clone();
    shares.resize(most.max(shares.len()), 0.0);
    Ok(Some(shares))
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
    if let Some(mode) = &settings.split_mode {
        put("split_mode", mode.clone());
    }
    if let Some(shares) = &settings.tensor_split {
        let shares: Vec<_> = shares.iter().map(ToString::to_string).collect();
        put("tensor_split", shares.join(","));
    }
    put("repack", log::contains("_REPACK model buffer size").to_string());
    effective
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_fill_the_room_that_llama_cpp_reads_and_name_no_gpu_that_is_not_there() {
        let settings = Settings { tensor_split: Some(vec![3.0, 1.0]), ..Settings::default() };
        assert_eq!(shares(&settings, 2, 4).unwrap(), Some(vec![3.0, 1.0, 0.0, 0.0]));
        assert_eq!(shares(&Settings::default(), 0, 4).unwrap(), None);
        let error = shares(&settings, 1, 4).unwrap_err();
        assert_eq!(error.downcast_ref::<Fault>(), Some(&Fault::Unsupported));
        assert!(format!("{error:#}").contains("2 shares, llama.cpp sees 1 GPUs"), "{error:#}");
    }
}
