//! MLX's folders hold the same function as the GGUF files: its logits and those of the engines that
//! read GGUF, for every architecture that both compute, where `bench setup mlx` has installed MLX.
#![allow(missing_docs)]

use std::path::Path;
use std::time::Duration;

use bench::catalog::models::{Arch, ModelSpec};
use bench::model::quant::Quant;
use bench::model::{cache, mlx, synth};
use bench::runner::child::Child;
use bench::runner::protocol::{Event, Job};
use bench::runner::{Model, Settings};

const CANDLE: &str = env!("CARGO_BIN_EXE_bench-candle");
const LLAMA_CPP: &str = env!("CARGO_BIN_EXE_bench-llama-cpp");
const LIMIT: Duration = Duration::from_secs(120);

/// Long enough that gemma3's window of 64 tokens hides the first ones.
const TOKENS: u32 = 96;

fn logits(program: &Path, path: &Path, settings: Settings) -> Vec<Vec<f32>> {
    let mut child = Child::start(program, &[]).unwrap();
    child.hello(LIMIT).unwrap_or_else(|e| panic!("{}: {e}", program.display()));
    let model = Model { path: path.to_owned() };
    child.ask(&Job::Load { model, settings }, LIMIT).unwrap_or_else(|e| panic!("load: {e}"));
    let tokens = (0..TOKENS).map(|i| (i * i * 31 + 17 * i + 5) % 1024).collect();
    let answer = child.ask(&Job::Logits { tokens }, LIMIT).unwrap_or_else(|e| panic!("{e}"));
    child.finish();
    match answer {
        Event::Logits { logits } => logits,
        other => panic!("{} answers {other:?}", program.display()),
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The smallest cosine of all positions.
fn agreement(ours: &[Vec<f32>], theirs: &[Vec<f32>]) -> f64 {
    assert_eq!((ours.len(), ours[0].len()), (theirs.len(), theirs[0].len()));
    ours.iter().zip(theirs).map(|(a, b)| cosine(a, b)).fold(1.0, |least, c| {
        // A cosine that is no number agrees with nothing.
        if c.is_finite() { c.min(least) } else { f64::NEG_INFINITY }
    })
}

/// Small shapes of the architectures that MLX, candle and llama.cpp compute.
fn architectures() -> Vec<ModelSpec> {
    let tiny = |arch, class: &str| ModelSpec {
        // llama.cpp looks for tokens of its own in files that are called phi-3
        name: "A test".to_owned(),
        hf_class: class.to_owned(),
        ..ModelSpec::tiny(arch)
    };
    let mut gemma = tiny(Arch::Gemma3, "Gemma3ForCausalLM");
    // the sixth layer is the first that sees everything
    gemma.layers = 7;
    gemma.rope.base_sliding = Some(5_000.0);
    let mut experts = tiny(Arch::Qwen3Moe, "Qwen3MoeForCausalLM");
    if let Some(experts) = &mut experts.experts {
        // Routers that are nearly undecided would choose by the last bit.
        experts.active = experts.total;
    }
    vec![
        tiny(Arch::Llama, "LlamaForCausalLM"),
        tiny(Arch::Llama, "MistralForCausalLM"),
        tiny(Arch::Qwen2, "Qwen2ForCausalLM"),
        tiny(Arch::Qwen3, "Qwen3ForCausalLM"),
        tiny(Arch::Phi3, "Phi3ForCausalLM"),
        experts,
        gemma,
    ]
}

#[test]
fn mlx_computes_the_logits_of_the_engines_that_read_the_same_weights() {
    let runner = cache::runners(&cache::dir().unwrap()).join("bench-mlx");
    if !runner.is_file() {
        println!("skipped: no MLX here; `bench setup mlx` installs it");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut wrong = Vec::new();
    for spec in architectures() {
        for (storage, quant, least) in
            [(mlx::Storage::F16, Quant::F16, 0.9999), (mlx::Storage::BF16, Quant::BF16, 0.999)]
        {
            let settings = Settings { slots: 1, slot_tokens: 256, ..Settings::default() };
            let folder = mlx::ensure(&spec, storage, 7, dir.path(), &mut |_, _| {}).unwrap();
            let dtype = Some("float32".to_owned());
            let ours = logits(&runner, &folder, Settings { dtype, ..settings.clone() });
            let file = synth::ensure(&spec, quant, 7, dir.path(), &mut |_, _| {}).unwrap();
            for program in [CANDLE, LLAMA_CPP] {
                let settings = Settings { threads: Some(2), ..settings.clone() };
                let cosine = agreement(&ours, &logits(Path::new(program), &file, settings));
                let name =
                    format!("{} {} {quant}", spec.hf_class, program.rsplit('/').next().unwrap());
                println!("{name}: {cosine:.6}");
                if cosine < least {
                    wrong.push(format!("{name}: {cosine:.6} is below {least}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
