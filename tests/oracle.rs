//! llama.cpp itself as the judge of our memory estimates: it loads headers with nothing behind them
//! and says what buffers it would make.
//!
//! `ORACLE_OUT=answers.csv cargo test --release --features llama-cpp --test oracle -- --nocapture`
//! writes its answers, to which the rules of `fit::memory` were fitted, and
//! `ORACLE_STREAMS=src/fit/streams.csv` the part that no rule foresees: how many copies of the
//! residual stream its allocator holds at a context.

use std::ffi::{CStr, c_char, c_void};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Mutex;

use bench::catalog::models::{self, ModelSpec};
use bench::fit::memory::{self, Layout, Plan};
use bench::model::arch;
use bench::model::gguf::{Value, encode, encoded_len};
use bench::model::quant::{Quant, TensorType};
use bench::units::{Bytes, Tokens};
use llama_cpp_2::context::params::{KvCacheType, LlamaContextParams};
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::model::params::LlamaModelParams;
use llama_cpp_sys_2 as sys;

const MIB: f64 = 1024.0 * 1024.0;

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

extern "C" fn keep(_: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    // SAFETY: llama.cpp passes a NUL-terminated string that lives for the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    LINES.lock().unwrap().push(text);
}

/// A header with a hole of the right length behind it.
fn hollow_file(spec: &ModelSpec, quant: Quant, path: &Path) {
    let mut metadata = arch::metadata(spec, quant);
    metadata.push(("tokenizer.ggml.model".to_owned(), Value::String("none".to_owned())));
    let tensors = memory::tensors(spec, quant).unwrap();
    let header = encode(&metadata, &tensors);
    let mut file = File::create(path).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(encoded_len(&header, &tensors)).unwrap();
}

/// How a context is made.
#[derive(Clone, Copy, Debug)]
struct Case {
    slots: u32,
    slot_tokens: u32,
    micro_batch: u32,
    kv: KvCacheType,
    flash: bool,
}

/// What llama.cpp would allocate, in MiB.
#[derive(Debug, Default)]
struct Answer {
    cache: f64,
    compute: f64,
    output: f64,
}

fn mib_after(line: &str, marker: &str) -> Option<f64> {
    let rest = &line[line.find(marker)? + marker.len()..];
    rest.split_whitespace().next()?.parse().ok()
}

fn ask(backend: &LlamaBackend, loaded: &LlamaModel, case: Case) -> Option<Answer> {
    LINES.lock().unwrap().clear();
    let params = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(case.slots * case.slot_tokens))
        .with_n_seq_max(case.slots)
        .with_n_ubatch(case.micro_batch)
        .with_n_batch(2048.max(case.micro_batch))
        .with_swa_full(false)
        .with_type_k(case.kv)
        .with_type_v(case.kv)
        .with_flash_attention_policy(if case.flash {
            sys::LLAMA_FLASH_ATTN_TYPE_ENABLED
        } else {
            sys::LLAMA_FLASH_ATTN_TYPE_DISABLED
        });
    let context = loaded.new_context(backend, params).ok();
    let lines = LINES.lock().unwrap();
    if std::env::var_os("ORACLE_LOG").is_some() {
        eprintln!("{}", lines.concat());
    }
    context?;
    let mut answer = Answer::default();
    for line in lines.iter() {
        let has = |what: &str| line.contains(what);
        if let Some(mib) = mib_after(line, "compute buffer size =") {
            answer.compute += mib;
        } else if has("output buffer size") {
            answer.output += mib_after(line, "buffer size =").unwrap_or(0.0);
        } else if has(": size =") && (has("kv_cache") || has("memory_recurrent")) {
            answer.cache += mib_after(line, ": size =").unwrap_or(0.0);
        } else if has("DSV4") && has("state buffer size =") {
            answer.cache += mib_after(line, "state buffer size =").unwrap_or(0.0);
        }
    }
    Some(answer)
}

/// Notes where our estimate is off by more than is allowed.
fn compare(
    spec: &ModelSpec,
    quant: Quant,
    case: Case,
    weights: f64,
    answer: &Answer,
    wrong: &mut Vec<String>,
) {
    let layout = Layout {
        slots: case.slots,
        slot_tokens: Tokens(case.slot_tokens),
        kv_type: if case.kv == KvCacheType::Q8_0 { TensorType::Q8_0 } else { TensorType::F16 },
        micro_batch: case.micro_batch,
        flash_attention: case.flash,
    };
    let ours = memory::estimate(spec, quant, &layout).unwrap();
    let mib = |bytes: Bytes| bytes.0 as f64 / MIB;
    let mut check = |what: &str, ours: f64, theirs: f64, allowed: f64| {
        if (ours - theirs).abs() > allowed {
            wrong.push(format!("{} {case:?} {what}: {ours:.1}, not {theirs:.1} MiB", spec.id));
        }
    };
    // A window's log rounds to a hundredth of a MiB.
    check("cache", mib(ours.cache), answer.cache, 0.005 * answer.cache + 0.02);
    check("compute", mib(ours.compute), answer.compute, (0.01 * answer.compute).max(16.0));
    check("weights", mib(ours.file), weights, 0.001 * weights);
    let (total, true_total) = (mib(ours.in_one_place()), weights + answer.cache + answer.compute);
    check("total, too low by", total.min(true_total), true_total, 0.01 * true_total);
}

fn cases() -> Vec<Case> {
    let base =
        Case { slots: 1, slot_tokens: 4096, micro_batch: 512, kv: KvCacheType::F16, flash: true };
    vec![
        base,
        Case { slot_tokens: 32_768, ..base },
        Case { slot_tokens: 131_072, ..base },
        Case { slots: 4, slot_tokens: 8192, ..base },
        Case { slots: 8, slot_tokens: 1000, ..base },
        Case { kv: KvCacheType::Q8_0, slot_tokens: 16_384, ..base },
        Case { micro_batch: 2048, slot_tokens: 8192, ..base },
        Case { micro_batch: 128, slot_tokens: 8192, ..base },
        Case { flash: false, ..base },
        Case { flash: false, slot_tokens: 32_768, ..base },
        Case { flash: false, slots: 4, slot_tokens: 2048, ..base },
    ]
}

/// How many copies of the residual stream explain the compute buffer at many contexts best.
fn streams_of(backend: &LlamaBackend, loaded: &LlamaModel, spec: &ModelSpec, out: &mut String) {
    if std::env::var_os("ORACLE_STREAMS").is_none() {
        return;
    }
    let mut context = 1024;
    while context <= spec.context_max.min(1 << 18) {
        for slot_tokens in [context, context + context / 2] {
            let case =
                Case { slots: 1, slot_tokens, micro_batch: 512, kv: KvCacheType::F16, flash: true };
            let Some(answer) = ask(backend, loaded, case) else { continue };
            let layout = Layout { slot_tokens: Tokens(slot_tokens), ..Layout::default() };
            let plan = Plan::new(spec, &layout);
            let off = |copies: u64| {
                let ours = plan.compute_with(Tokens(slot_tokens), copies).0 as f64 / MIB;
                (ours - answer.compute).abs()
            };
            let best = (3..=8).min_by(|&a, &b| off(a).total_cmp(&off(b))).unwrap();
            writeln!(
                out,
                "{},{},{},{},{slot_tokens},{best}",
                spec.arch.name(),
                spec.layers,
                spec.hidden,
                spec.vocab
            )
            .unwrap();
        }
        context *= 2;
    }
}

fn kv_name(kv: KvCacheType) -> &'static str {
    match kv {
        KvCacheType::Q8_0 => "q8_0",
        _ => "f16",
    }
}

#[test]
fn estimates_agree_with_what_llama_cpp_would_allocate() {
    // SAFETY: `keep` matches the callback's type and uses no user data.
    unsafe { sys::llama_log_set(Some(keep), std::ptr::null_mut()) };
    let backend = LlamaBackend::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut out = String::from(
        "model,arch,quant,slots,slot_tokens,micro_batch,kv,flash,weights_mib,cache_mib,compute_mib,output_mib\n",
    );
    let mut streams = String::from("architecture,layers,hidden,vocab,context,copies\n");
    let mut answered = 0;
    let mut wrong = Vec::new();
    let mut unanswered = Vec::new();
    for spec in models::all() {
        let quant = if spec.arch == models::Arch::GptOss { Quant::Mxfp4 } else { Quant::Q4KM };
        if memory::tensors(spec, quant).is_err() {
            continue;
        }
        let path = folder.path().join("model.gguf");
        hollow_file(spec, quant, &path);
        LINES.lock().unwrap().clear();
        let params = LlamaModelParams::default().with_no_alloc(true);
        let Ok(loaded) = LlamaModel::load_from_file(&backend, &path, &params) else {
            let lines = LINES.lock().unwrap();
            let end = &lines[lines.len().saturating_sub(4)..];
            unanswered.push(format!("{}: not loaded: {}", spec.id, end.concat()));
            continue;
        };
        // The log says 0 for buffers that are not made; this is the sum of all tensors.
        let weights = loaded.size() as f64 / MIB;
        streams_of(&backend, &loaded, spec, &mut streams);
        for case in cases() {
            let Some(answer) = ask(&backend, &loaded, case) else {
                unanswered.push(format!("{}: no context for {case:?}", spec.id));
                continue;
            };
            answered += 1;
            if case.slot_tokens <= spec.context_max {
                compare(spec, quant, case, weights, &answer, &mut wrong);
            }
            writeln!(
                out,
                "{},{},{quant},{},{},{},{},{},{weights},{},{},{}",
                spec.id,
                spec.arch.name(),
                case.slots,
                case.slot_tokens,
                case.micro_batch,
                kv_name(case.kv),
                case.flash,
                answer.cache,
                answer.compute,
                answer.output
            )
            .unwrap();
        }
    }
    if let Some(path) = std::env::var_os("ORACLE_OUT") {
        std::fs::write(path, &out).unwrap();
    }
    if let Some(path) = std::env::var_os("ORACLE_STREAMS") {
        std::fs::write(path, &streams).unwrap();
    }
    assert!(unanswered.is_empty(), "{}", unanswered.join("\n"));
    assert!(answered > 600, "{answered} answers");
    assert!(wrong.is_empty(), "{} of {answered}:\n{}", wrong.len(), wrong.join("\n"));
}
