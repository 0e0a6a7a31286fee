//! Model folders as Hugging Face lays them out: `config.json` and a tokenizer of a catalogued shape,
//! for engines that fill the weights in themselves.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::quant::Quant;
use super::vocab;
use crate::catalog::models::{ModelSpec, RopeFactors};
use crate::units::Tokens;

/// The file that makes a folder a model.
pub const CONFIG: &str = "config.json";

/// Part of every cached folder's name: raise it when the same arguments give another content.
const CONTENT_VERSION: u32 = 1;
/// Of every token, so that the tokenizer takes as few of them as it can.
const TOKEN_COST: f64 = 10.0;

/// The folder of this model's `config.json` and tokenizer in `cache_dir`, made there if it does not
/// exist yet. It holds no weights.
pub fn ensure(spec: &ModelSpec, quant: Quant, cache_dir: &Path) -> anyhow::Result<PathBuf> {
    let path = cached(spec, quant, cache_dir)?;
    if path.join(CONFIG).is_file() {
        return Ok(path);
    }
    let failed = || format!("the folder of '{}' could not be made in the cache", spec.id);
    fs::create_dir_all(cache_dir).with_context(failed)?;
    let making = tempfile::Builder::new()
        .prefix(".making-")
        .suffix(".tmp")
        .tempdir_in(cache_dir)
        .with_context(failed)?;
    write(spec, quant, making.path()).with_context(failed)?;
    // Whole or not at all; another run may have made it meanwhile.
    match fs::rename(making.path(), &path) {
        Err(_) if path.join(CONFIG).is_file() => {}
        renamed => renamed.with_context(failed)?,
    }
    Ok(path)
}

/// Where [`ensure`] keeps it.
pub fn cached(spec: &ModelSpec, quant: Quant, cache_dir: &Path) -> anyhow::Result<PathBuf> {
    let mut hash = Sha256::new();
    hash.update(CONTENT_VERSION.to_le_bytes());
    hash.update(config(spec, quant)?.to_string());
    let short: String = hash.finalize().iter().take(6).map(|b| format!("{b:02x}")).collect();
    Ok(cache_dir.join(format!("{}-{quant}-config-{short}", spec.id)))
}

/// Writes `config.json` and the tokenizer into `folder`.
pub fn write(spec: &ModelSpec, quant: Quant, folder: &Path) -> anyhow::Result<()> {
    let files = [
        ("tokenizer.json", tokenizer(spec.vocab)?),
        ("tokenizer_config.json", tokenizer_config(Tokens(spec.context_max))),
        (CONFIG, config(spec, quant)?),
    ];
    for (name, content) in files {
        let path = folder.join(name);
        fs::write(&path, content.to_string()).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Whether `folder` is a model without weights.
pub fn lacks_weights(folder: &Path) -> bool {
    let weights = |name: &str| {
        [".safetensors", ".bin", ".pt", ".gguf"].iter().any(|ending| name.ends_with(ending))
    };
    let Ok(files) = fs::read_dir(folder) else { return false };
    let mut names = files.filter_map(|file| Some(file.ok()?.file_name()));
    folder.join(CONFIG).is_file() && !names.any(|name| weights(&name.to_string_lossy()))
}

/// The model's `config.json`, with the names that transformers gives each architecture's sizes
/// (`src/transformers/models/<model_type>/configuration_<model_type>.py`, release 5.16).
pub fn config(spec: &ModelSpec, quant: Quant) -> anyhow::Result<Value> {
    let dtype = match quant {
        Quant::BF16 => "bfloat16",
        Quant::F16 => "float16",
        other => bail!("a model folder without quantisation is BF16 or F16, not {other}"),
    };
    let Some(model_type) = model_type(spec) else {
        bail!(
            "no config.json is known for '{}' ({}); known are Llama, Mistral, Mixtral, Qwen2, \
             Qwen3, Gemma 3 and Phi-3",
            spec.id,
            spec.hf_class
        );
    };
    if spec.rope.factors == RopeFactors::LongShort {
        bail!("no config.json for '{}': the catalogue lacks its rotary factors", spec.id);
    }
    let mut keys = Map::new();
    let mut set = |key: &str, value: Value| keys.insert(key.to_owned(), value);
    set("architectures", json!([spec.hf_class]));
    set("model_type", json!(model_type));
    set("torch_dtype", json!(dtype));
    set("vocab_size", json!(spec.vocab));
    set("max_position_embeddings", json!(spec.context_max));
    set("hidden_size", json!(spec.hidden));
    set("num_hidden_layers", json!(spec.layers));
    set("num_attention_heads", json!(spec.heads));
    set("num_key_value_heads", json!(spec.kv_heads));
    set("head_dim", json!(spec.head_dim));
    // With experts in all layers there is no dense feed-forward; loaders want a width all the same.
    let width = spec.ffn.or(spec.experts.as_ref().map(|experts| experts.ffn));
    set("intermediate_size", json!(width));
    set("rms_norm_eps", json!(short(spec.norm_eps)));
    set("tie_word_embeddings", json!(spec.tied));
    set("rope_theta", json!(short(spec.rope.base)));
    // The ids of our own tokenizer.
    set("bos_token_id", json!(1));
    set("eos_token_id", json!(2));
    set("attention_dropout", json!(0.0));
    let gelu = model_type == "gemma3_text";
    let activation = if gelu { "hidden_activation" } else { "hidden_act" };
    set(activation, json!(if gelu { "gelu_pytorch_tanh" } else { "silu" }));
    match model_type {
        "llama" | "qwen3" | "qwen3_moe" => drop(set("attention_bias", json!(spec.qkv_bias))),
        "phi3" => drop(set("pad_token_id", json!(2))),
        _ => {}
    }
    // Factors stored as tensors are 1 in synthetic weights, as if there were none.
    let scaling = spec.rope.scaling.as_ref();
    set(
        "rope_scaling",
        scaling.map_or(
            Value::Null,
            |s| json!({"rope_type": s.kind, "type": s.kind, "factor": short(s.factor)}),
        ),
    );
    if let Some(experts) = &spec.experts {
        match model_type {
            "mixtral" => {
                set("num_local_experts", json!(experts.total));
            }
            _ => {
                set("num_experts", json!(experts.total));
                set("moe_intermediate_size", json!(experts.ffn));
                set("decoder_sparse_step", json!(experts.every));
                set("norm_topk_prob", json!(true));
                set("mlp_only_layers", json!([]));
            }
        }
        set("num_experts_per_tok", json!(experts.active));
    }
    let window = spec.sliding.as_ref().map(|sliding| sliding.window);
    if !matches!(model_type, "llama" | "qwen2" | "qwen3" | "qwen3_moe") {
        set("sliding_window", json!(window));
    }
    if gelu {
        let kind = |il| if spec.is_sliding(il) { "sliding_attention" } else { "full_attention" };
        set("layer_types", (0..spec.layers).map(kind).collect());
        set("rope_local_base_freq", json!(spec.rope.base_sliding.map(short)));
        // It scales the scores and costs nothing: the width of a head, whatever the real model has.
        set("query_pre_attn_scalar", json!(spec.head_dim));
    }
    Ok(Value::Object(keys))
}

/// What transformers calls the architecture; none where its config would be a guess.
fn model_type(spec: &ModelSpec) -> Option<&'static str> {
    Some(match spec.hf_class.as_str() {
        "LlamaForCausalLM" => "llama",
        "MistralForCausalLM" => "mistral",
        "MixtralForCausalLM" => "mixtral",
        "Qwen2ForCausalLM" => "qwen2",
        "Qwen3ForCausalLM" => "qwen3",
        "Qwen3MoeForCausalLM" => "qwen3_moe",
        "Gemma3ForCausalLM" => "gemma3_text",
        "Phi3ForCausalLM" => "phi3",
        _ => return None,
    })
}

/// A 32-bit number as a person writes it: 1e-6, not 9.999999974752427e-7.
fn short(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

/// The same tokens as in our GGUF files, for the `tokenizers` library.
fn tokenizer(size: u32) -> anyhow::Result<Value> {
    let special: Vec<_> = vocab::SPECIAL
        .iter()
        .enumerate()
        .map(|(id, token)| {
            json!({
                "id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": true,
            })
        })
        .collect();
    let pieces: Vec<_> = vocab::tokens(size)?
        .into_iter()
        .enumerate()
        // A text costs most by its number of tokens; among as many, the earlier ones win.
        .map(|(id, token)| json!([token, -TOKEN_COST - id as f64 * 1e-6]))
        .collect();
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special,
        "normalizer": null,
        "pre_tokenizer": {
            "type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": true,
        },
        "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
        ]},
        "model": {"type": "Unigram", "unk_id": 0, "vocab": pieces, "byte_fallback": true},
    }))
}

fn tokenizer_config(longest: Tokens) -> Value {
    let [unknown, begin, end] = vocab::SPECIAL;
    // Without a template a chat endpoint refuses to work.
    let template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}";
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": unknown, "bos_token": begin, "eos_token": end,
        "add_bos_token": false, "add_eos_token": false,
        "clean_up_tokenization_spaces": false,
        "model_max_length": longest.0,
        "chat_template": template,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::models;

    #[test]
    fn a_config_says_the_catalogues_shape() {
        let spec = models::find("qwen3-0.6b").unwrap();
        let config = config(spec, Quant::BF16).unwrap();
        for (key, value) in [
            ("model_type", json!("qwen3")),
            ("torch_dtype", json!("bfloat16")),
            ("hidden_size", json!(1024)),
            ("head_dim", json!(128)),
            ("vocab_size", json!(151_936)),
            ("tie_word_embeddings", json!(true)),
            ("rms_norm_eps", json!(1e-6)),
            ("rope_theta", json!(1_000_000.0)),
        ] {
            assert_eq!(config[key], value, "{key}");
        }
    }

    #[test]
    fn a_folder_is_made_once_and_has_no_weights() {
        let cache = tempfile::tempdir().unwrap();
        let spec = models::find("smollm2-135m").unwrap();
        let path = ensure(spec, Quant::F16, cache.path()).unwrap();
        assert!(lacks_weights(&path));
        let made = fs::metadata(path.join(CONFIG)).unwrap().modified().unwrap();
        assert_eq!(ensure(spec, Quant::F16, cache.path()).unwrap(), path);
        assert_eq!(fs::metadata(path.join(CONFIG)).unwrap().modified().unwrap(), made);
        fs::write(path.join("model.safetensors"), "").unwrap();
        assert!(!lacks_weights(&path));
        assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn the_tokenizer_has_the_models_vocabulary() {
        let tokenizer = tokenizer(151_936).unwrap();
        let pieces = tokenizer["model"]["vocab"].as_array().unwrap();
        assert_eq!(pieces.len(), 151_936);
        assert_eq!(pieces[2][0], "</s>");
    }

    #[test]
    fn what_would_be_a_guess_is_refused_with_its_reason() {
        let error = |id: &str, quant| {
            format!("{:#}", config(models::find(id).unwrap(), quant).unwrap_err())
        };
        assert!(error("qwen3-0.6b", Quant::Q4KM).contains("BF16 or F16, not Q4_K_M"));
        assert!(error("kimi-k2", Quant::BF16).contains("no config.json is known"));
        assert!(error("phi-3-mini-128k", Quant::BF16).contains("rotary factors"));
    }

    #[test]
    fn every_model_of_a_known_class_has_a_config() {
        for spec in models::all() {
            let long_short = spec.rope.factors == RopeFactors::LongShort;
            if model_type(spec).is_some() && !long_short {
                let config = config(spec, Quant::BF16).unwrap();
                assert!(config["intermediate_size"].is_u64(), "{}", spec.id);
            }
        }
    }
}
