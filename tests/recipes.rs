//! Synthetic files against llama.cpp itself: does it load them, and would its quantiser have chosen
//! the same types?
#![allow(missing_docs)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Once;

use bench::catalog::models::{self, Arch, Experts, ModelSpec};
use bench::model::gguf::Header;
use bench::model::quant::{Quant, TensorType};
use bench::model::synth;
use llama_cpp_sys_2 as sys;
use tempfile::TempDir;

thread_local! {
    /// What llama.cpp logged on this thread.
    static LOG: RefCell<String> = const { RefCell::new(String::new()) };
}

extern "C" fn keep(_: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    // SAFETY: llama.cpp passes a NUL-terminated string that lives for the call.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    LOG.with_borrow_mut(|log| log.push_str(&text));
}

fn init() {
    static START: Once = Once::new();
    START.call_once(|| {
        // SAFETY: the callback has the type that llama.cpp asks for and lives for ever.
        unsafe {
            sys::llama_log_set(Some(keep), ptr::null_mut());
            sys::llama_backend_init();
        }
    });
    LOG.take();
}

fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().unwrap()).unwrap()
}

fn make(spec: &ModelSpec, quant: Quant, dir: &Path) -> PathBuf {
    synth::ensure(spec, quant, 0, dir, &mut |_, _| {}).unwrap()
}

fn applies(spec: &ModelSpec, quant: Quant) -> bool {
    spec.not_synthesisable.is_none() && (quant != Quant::Mxfp4 || spec.experts.is_some())
}

/// The logits after the last of a few tokens.
fn logits(path: &Path) -> Result<Vec<f32>, String> {
    init();
    // SAFETY: pointers are checked before use and freed once; the batch's tokens outlive the call.
    unsafe {
        let mut params = sys::llama_model_default_params();
        params.n_gpu_layers = 0;
        let model = sys::llama_model_load_from_file(c_path(path).as_ptr(), params);
        if model.is_null() {
            return Err(format!("llama.cpp does not load it: {}", LOG.take().trim_end()));
        }
        let mut settings = sys::llama_context_default_params();
        settings.n_ctx = 256;
        settings.n_batch = 64;
        settings.n_threads = 2;
        settings.n_threads_batch = 2;
        let context = sys::llama_init_from_model(model, settings);
        if context.is_null() {
            sys::llama_model_free(model);
            return Err("llama.cpp makes no context for it".to_owned());
        }
        let mut tokens: Vec<i32> = (0..24).map(|i| 300 + 7 * i).collect();
        let batch = sys::llama_batch_get_one(tokens.as_mut_ptr(), tokens.len() as i32);
        let mut code = sys::llama_decode(context, batch);
        // then one by one, as generation does
        for token in [400, 401, 402] {
            let mut one = [token];
            code |= sys::llama_decode(context, sys::llama_batch_get_one(one.as_mut_ptr(), 1));
        }
        let vocab = sys::llama_vocab_n_tokens(sys::llama_model_get_vocab(model)) as usize;
        let result = match (code, sys::llama_get_logits_ith(context, -1)) {
            (0, data) if !data.is_null() => Ok(std::slice::from_raw_parts(data, vocab).to_vec()),
            (code, _) => Err(format!("llama_decode answers {code}")),
        };
        sys::llama_free(context);
        sys::llama_model_free(model);
        result
    }
}

#[test]
fn llama_cpp_loads_every_architecture_in_every_quantisation_and_its_logits_are_finite() {
    let dir = TempDir::new().unwrap();
    let mut wrong = Vec::new();
    for arch in Arch::ALL {
        let spec = ModelSpec::tiny(arch);
        for quant in Quant::ALL.into_iter().filter(|&q| applies(&spec, q)) {
            let path = make(&spec, quant, dir.path());
            match logits(&path) {
                Ok(logits) => {
                    let finite = logits.iter().all(|v| v.is_finite());
                    let mean = logits.iter().sum::<f32>() / logits.len() as f32;
                    let square = logits.iter().map(|v| (v - mean).powi(2)).sum::<f32>();
                    let deviation = (square / logits.len() as f32).sqrt();
                    if logits.len() != 1024 || !finite || !(0.05..20.0).contains(&deviation) {
                        wrong.push(format!("{arch:?} {quant}: deviation of logits {deviation}"));
                    }
                }
                Err(e) => wrong.push(format!("{arch:?} {quant}: {e}")),
            }
            std::fs::remove_file(path).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Shapes that reach the rules which depend on layers, heads, experts and widths.
fn shapes() -> Vec<ModelSpec> {
    let mut list: Vec<_> = Arch::ALL.map(ModelSpec::tiny).into_iter().collect();
    let mut add = |arch, change: &dyn Fn(&mut ModelSpec)| {
        let mut spec = ModelSpec::tiny(arch);
        change(&mut spec);
        spec.id = format!("{}-{}", spec.id, list.len());
        list.push(spec);
    };
    for arch in Arch::ALL {
        add(arch, &|s| s.layers = 24);
    }
    for arch in [Arch::Llama, Arch::Qwen3, Arch::Gemma3, Arch::Phi3] {
        add(arch, &|s| (s.heads, s.kv_heads, s.layers) = (4, 1, 16));
    }
    // rows that are no whole number of blocks
    for arch in [Arch::Llama, Arch::Qwen3, Arch::Qwen3Moe, Arch::GptOss] {
        add(arch, &|s| (s.hidden, s.ffn, s.layers) = (288, Some(544), 18));
        add(arch, &|s| (s.hidden, s.ffn, s.layers) = (320, Some(520), 3));
    }
    // the 70B rule
    for arch in [Arch::Llama, Arch::Qwen2] {
        add(arch, &|s| s.layers = 80);
    }
    // Mixtral's rules
    let eight = Experts {
        total: 8,
        active: 2,
        ffn: 512,
        shared: 0,
        dense_lead: 0,
        every: 1,
        scale: None,
        groups: None,
    };
    add(Arch::Llama, &|s| (s.experts, s.layers) = (Some(eight.clone()), 12));
    add(Arch::Llama, &|s| s.tied = true);
    list.retain(|s| s.not_synthesisable.is_none());
    list
}

/// A file that has the header of this model in F16 and, on disk, nothing else: as long as the model.
fn sparse(spec: &ModelSpec, dir: &Path) -> PathBuf {
    let path = dir.join(format!("{}-sparse.gguf", spec.id));
    synth::sparse(spec, Quant::F16, &path).unwrap();
    path
}

fn quantise(source: &Path, out: &Path, quant: Quant, dry_run: bool) {
    init();
    // SAFETY: both paths and the parameters outlive the call.
    let code = unsafe {
        let mut params = sys::llama_model_quantize_default_params();
        params.ftype = quant.file_type() as sys::llama_ftype;
        params.nthread = 2;
        params.allow_requantize = true;
        params.dry_run = dry_run;
        sys::llama_model_quantize(c_path(source).as_ptr(), c_path(out).as_ptr(), &params)
    };
    assert_eq!(code, 0, "{} {quant}: {}", source.display(), LOG.take());
}

/// The types that `llama_model_quantize` chooses, by tensor name, without quantising anything: from
/// lines such as `[ 3/ 9] blk.0.attn_k.weight - [256, 64, 1, 1], type = f16, size = 1 MiB -> 0.3 MiB (q4_K)`.
fn types_chosen_by_llama_cpp(source: &Path, quant: Quant) -> HashMap<String, String> {
    quantise(source, Path::new("unused"), quant, true);
    LOG.take().lines().filter_map(chosen_type).collect()
}

fn chosen_type(line: &str) -> Option<(String, String)> {
    let (_, rest) = line.strip_prefix('[')?.split_once("] ")?;
    let (name, rest) = rest.split_once(" - [")?;
    let (_, rest) = rest.split_once("type = ")?;
    let (old, rest) = rest.split_once(',')?;
    let new = match rest.split_once("-> ") {
        // warnings about widths stand between, and have an arrow of their own
        Some(_) if rest.contains("MiB ->") => {
            rest.trim_end().strip_suffix(')')?.rsplit_once('(')?.1
        }
        _ => old.trim(),
    };
    Some((name.trim().to_owned(), new.to_owned()))
}

/// Tensors whose type differs between us and llama.cpp.
fn differences(
    spec: &ModelSpec,
    quant: Quant,
    chosen: &HashMap<String, String>,
) -> (usize, Vec<String>) {
    let ours = bench::model::tensors(spec, quant).unwrap();
    assert_eq!(ours.len(), chosen.len(), "{} {quant}", spec.id);
    let mut wrong = Vec::new();
    for tensor in &ours {
        let theirs = &chosen[&tensor.name];
        // The quantiser leaves this one as its source has it; ours is what converters write.
        let left = tensor.name == "per_layer_model_proj.weight";
        if !left && !theirs.eq_ignore_ascii_case(tensor.kind.name()) {
            wrong.push(format!(
                "{} {quant} {} {:?}: {} and not {theirs}",
                spec.id, tensor.name, tensor.dims, tensor.kind
            ));
        }
    }
    (ours.len(), wrong)
}

#[test]
fn tensor_types_of_every_model_are_those_that_llama_cpps_quantiser_chooses() {
    let dir = TempDir::new().unwrap();
    let (mut compared, mut wrong) = (0, Vec::new());
    let small = shapes();
    let known = models::all().iter().filter(|s| s.not_synthesisable.is_none());
    for spec in small.iter().chain(known) {
        let source = sparse(spec, dir.path());
        for quant in Quant::ALL.into_iter().filter(|&q| applies(spec, q)) {
            if spec.arch == Arch::GptOss && matches!(quant, Quant::F16 | Quant::BF16) {
                continue; // published with MXFP4 experts; sizes of those files are tested elsewhere
            }
            let chosen = types_chosen_by_llama_cpp(&source, quant);
            let (n, different) = differences(spec, quant, &chosen);
            compared += n;
            wrong.extend(different);
        }
        std::fs::remove_file(source).unwrap();
    }
    assert!(compared > 100_000, "{compared}");
    assert!(
        wrong.is_empty(),
        "{} differ\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n")
    );
}

#[test]
fn the_quantiser_writes_the_types_that_it_announces() {
    let dir = TempDir::new().unwrap();
    let spec = ModelSpec::tiny(Arch::Qwen3Moe);
    let source = make(&spec, Quant::F16, dir.path());
    let out = dir.path().join("quantised.gguf");
    for quant in [Quant::Q4KM, Quant::Iq4Xs, Quant::Mxfp4] {
        quantise(&source, &out, quant, false);
        let written = Header::read(&out).unwrap().tensors.into_iter();
        let written = written.map(|t| (t.tensor.name, t.tensor.kind.name().to_owned())).collect();
        assert_eq!(differences(&spec, quant, &written).1, Vec::<String>::new());
    }
}

#[test]
fn weights_have_the_deviation_that_keeps_activations_in_range() {
    init();
    let dir = TempDir::new().unwrap();
    let mut seen = std::collections::BTreeSet::new();
    let mut odd = ModelSpec::tiny(Arch::Llama);
    (odd.hidden, odd.ffn) = (288, Some(544));
    for spec in [ModelSpec::tiny(Arch::Qwen3Moe), odd] {
        for quant in Quant::ALL.into_iter().filter(|&q| applies(&spec, q)) {
            let path = make(&spec, quant, dir.path());
            let bytes = std::fs::read(&path).unwrap();
            for info in Header::read(&path).unwrap().tensors {
                let tensor = info.tensor;
                if !tensor.kind.is_quantised() {
                    continue;
                }
                let data = &bytes[info.offset as usize..(info.offset + tensor.bytes()) as usize];
                let mut values = vec![0f32; tensor.elements() as usize];
                // SAFETY: `data` holds as many whole blocks as `values` has room for.
                unsafe {
                    let traits = sys::ggml_get_type_traits(tensor.kind.code() as sys::ggml_type);
                    (*traits).to_float.unwrap()(
                        data.as_ptr().cast(),
                        values.as_mut_ptr(),
                        values.len() as i64,
                    );
                }
                let n = values.len() as f64;
                let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
                let square = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
                let ratio = square.sqrt() * (tensor.dims[0] as f64).sqrt();
                // MXFP4 knows only powers of two
                let room = if tensor.kind == TensorType::Mxfp4 { 1.5 } else { 1.1 };
                assert!(
                    (1.0 / room..room).contains(&ratio),
                    "{} {}: {ratio} of the wanted deviation",
                    tensor.name,
                    tensor.kind
                );
                seen.insert(tensor.kind);
            }
        }
    }
    for kind in "Q4_0 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4".split(' ') {
        assert!(seen.iter().any(|k| k.name() == kind), "{kind} was not seen in {seen:?}");
    }
}

#[test]
fn llama_cpp_accepts_the_header_of_every_model_in_the_catalogue() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.gguf");
    let mut wrong = Vec::new();
    let known = |s: &&ModelSpec| bench::model::arch::shapes(s).is_ok();
    for spec in models::all().iter().filter(known) {
        synth::sparse(spec, Quant::Q4KM, &path).unwrap();
        init();
        // SAFETY: the path outlives the call; the model is checked before it is freed.
        unsafe {
            let mut params = sys::llama_model_default_params();
            params.n_gpu_layers = 0;
            params.no_alloc = true;
            params.load_mode = sys::LLAMA_LOAD_MODE_NONE;
            let model = sys::llama_model_load_from_file(c_path(&path).as_ptr(), params);
            if model.is_null() {
                wrong.push(format!("{}: {}", spec.id, LOG.take().lines().last().unwrap_or("")));
            } else {
                let counted = sys::llama_model_n_params(model);
                if counted != bench::model::arch::parameters(spec).unwrap() {
                    wrong.push(format!("{}: llama.cpp counts {counted} parameters", spec.id));
                }
                sys::llama_model_free(model);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_largest_vocabulary_loads_in_a_moment() {
    init();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("model.gguf");
    let spec = models::find("gemma-3-1b").unwrap(); // 262,144 tokens
    synth::sparse(spec, Quant::Q4_0, &path).unwrap();
    let start = std::time::Instant::now();
    // SAFETY: the path outlives the call; the model is checked before it is freed.
    unsafe {
        let mut params = sys::llama_model_default_params();
        params.vocab_only = true;
        let model = sys::llama_model_load_from_file(c_path(&path).as_ptr(), params);
        assert!(!model.is_null());
        sys::llama_model_free(model);
    }
    let took = start.elapsed();
    println!("{took:?}");
    assert!(took.as_secs_f64() < 1.5, "{took:?}");
}

#[test]
fn text_is_tokenised_into_short_pieces_and_back() {
    init();
    let dir = TempDir::new().unwrap();
    let mut spec = ModelSpec::tiny(Arch::Llama);
    spec.vocab = 32_000;
    let path = make(&spec, Quant::Q4_0, dir.path());
    let text = "the quick brown fox: 42 naïve cafés\n";
    // SAFETY: the buffers have the lengths that are passed.
    unsafe {
        let mut params = sys::llama_model_default_params();
        params.vocab_only = true;
        let model = sys::llama_model_load_from_file(c_path(&path).as_ptr(), params);
        assert!(!model.is_null());
        let vocab = sys::llama_model_get_vocab(model);
        let mut tokens = [0i32; 64];
        let count = sys::llama_tokenize(
            vocab,
            text.as_ptr().cast(),
            text.len() as i32,
            tokens.as_mut_ptr(),
            64,
            false,
            false,
        );
        assert!((8..text.len() as i32).contains(&count), "{count} tokens");
        let mut back = vec![0u8; 256];
        let len = sys::llama_detokenize(
            vocab,
            tokens.as_ptr(),
            count,
            back.as_mut_ptr().cast(),
            256,
            false,
            false,
        );
        assert_eq!(String::from_utf8_lossy(&back[..len as usize]), text);
        sys::llama_model_free(model);
    }
}
