//! The same file gives the same answer: logits of the two engines' programs, over their pipes, for
//! every architecture that both compute.
#![allow(missing_docs)]

use std::path::Path;
use std::time::Duration;

use bench::catalog::models::{Arch, Experts, ModelSpec, RopeFactors, RopeScaling};
use bench::model::quant::Quant;
use bench::model::synth;
use bench::runner::child::{Child, Failure};
use bench::runner::protocol::{Event, Job};
use bench::runner::{Fault, Model, Settings};

const CANDLE: &str = env!("CARGO_BIN_EXE_bench-candle");
const LLAMA_CPP: &str = env!("CARGO_BIN_EXE_bench-llama-cpp");
const LIMIT: Duration = Duration::from_secs(60);

/// Long enough that gemma3's window of 64 tokens hides the first ones.
const TOKENS: u32 = 96;

fn logits(program: &str, path: &Path) -> Result<Vec<Vec<f32>>, Failure> {
    let mut child = Child::start(Path::new(program), &[]).unwrap();
    child.hello(LIMIT)?;
    let model = Model { path: path.to_owned() };
    let settings = Settings { threads: Some(2), slots: 1, slot_tokens: 256, ..Settings::default() };
    child.ask(&Job::Load { model, settings }, LIMIT)?;
    let tokens = (0..TOKENS).map(|i| (i * i * 31 + 17 * i + 5) % 1024).collect();
    let answer = child.ask(&Job::Logits { tokens }, LIMIT)?;
    child.finish();
    match answer {
        Event::Logits { logits } => Ok(logits),
        other => panic!("{program} answers {other:?}"),
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The cosines of all positions, smallest first.
fn agreement(spec: &ModelSpec, quant: Quant) -> Vec<f64> {
    let dir = tempfile::tempdir().unwrap();
    let path = synth::ensure(spec, quant, 7, dir.path(), &mut |_, _| {}).unwrap();
    let ours = logits(CANDLE, &path).unwrap_or_else(|e| panic!("{} {quant}: {e}", spec.id));
    let theirs = logits(LLAMA_CPP, &path).unwrap_or_else(|e| panic!("{} {quant}: {e}", spec.id));
    assert_eq!(ours.len(), TOKENS as usize);
    assert_eq!((ours.len(), ours[0].len()), (theirs.len(), theirs[0].len()));
    let mut cosines: Vec<_> = ours.iter().zip(&theirs).map(|(a, b)| cosine(a, b)).collect();
    cosines.sort_by(f64::total_cmp);
    cosines
}

/// Positions that may be below the limit. Where two experts of a router score alike, the rounding
/// of quantised activations decides which one is taken, and each engine rounds in its own way: with
/// random routers, that happens now and then. What the chosen experts compute is checked by the
/// unquantised files and by the models that use all of their experts.
fn tolerated(spec: &ModelSpec, quant: Quant) -> usize {
    let chosen = spec.experts.as_ref().is_some_and(|experts| experts.active < experts.total);
    if chosen && !matches!(quant, Quant::F16 | Quant::BF16) { TOKENS as usize / 8 } else { 0 }
}

/// Fails with every model that is below its limit.
fn check(specs: &[ModelSpec], quants: &[(Quant, f64)]) {
    let mut wrong = Vec::new();
    for spec in specs {
        for &(quant, least) in quants {
            let cosines = agreement(spec, quant);
            let (smallest, tolerated) = (cosines[0], tolerated(spec, quant));
            println!("{} {quant}: {smallest:.6}, {:.6}", spec.id, cosines[tolerated]);
            // not `<`: a NaN is wrong too
            // A cosine that is no number agrees with nothing.
            let agrees = |c: f64| c.is_finite() && c >= least;
            if !agrees(cosines[tolerated]) {
                let far = cosines.iter().filter(|&&c| !agrees(c)).count();
                wrong.push(format!(
                    "{} {quant}: {far} positions below {least}, the worst {smallest:.6}",
                    spec.id
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn tiny(arch: Arch) -> ModelSpec {
    // llama.cpp looks for tokens of its own in files that are called phi-3
    ModelSpec { name: "A test".to_owned(), ..ModelSpec::tiny(arch) }
}

fn architectures() -> Vec<ModelSpec> {
    let mut gemma = tiny(Arch::Gemma3);
    // the sixth layer is the first that sees everything
    gemma.layers = 7;
    gemma.rope.base_sliding = Some(5_000.0);
    let archs = [Arch::Llama, Arch::Qwen2, Arch::Qwen3, Arch::Qwen3Moe, Arch::Phi3];
    archs.map(tiny).into_iter().chain([gemma]).collect()
}

#[test]
fn both_engines_compute_the_same_logits_for_every_architecture() {
    check(&architectures(), &[(Quant::F16, 0.9999), (Quant::Q8_0, 0.99), (Quant::Q4KM, 0.99)]);
}

#[test]
fn every_quantisation_that_candle_reads_gives_the_same_logits() {
    let quants = [
        (Quant::BF16, 0.999),
        (Quant::Q6K, 0.99),
        (Quant::Q5KM, 0.99),
        (Quant::Q4_0, 0.99),
        (Quant::Q3KM, 0.99),
        (Quant::Q2K, 0.99),
    ];
    check(&[tiny(Arch::Qwen3), tiny(Arch::Qwen3Moe)], &quants);
}

#[test]
fn variants_of_the_architectures_are_the_same_function() {
    let mut specs = Vec::new();
    let mut variant = |arch, name: &str, change: &dyn Fn(&mut ModelSpec)| {
        let mut spec = tiny(arch);
        spec.id = format!("{}-{name}", spec.id);
        change(&mut spec);
        specs.push(spec);
    };
    let scaling = |kind: &str, original| {
        Some(RopeScaling { kind: kind.to_owned(), factor: 4.0, original_context: original })
    };
    variant(Arch::Llama, "tied", &|s| s.tied = true);
    variant(Arch::Llama, "rope-freqs", &|s| s.rope.factors = RopeFactors::Freqs);
    variant(Arch::Llama, "linear", &|s| s.rope.scaling = scaling("linear", None));
    variant(Arch::Llama, "one-kv-head", &|s| s.kv_heads = 1);
    variant(Arch::Llama, "experts", &|s| {
        s.experts = Some(Experts {
            total: 8,
            active: 2,
            ffn: 512,
            shared: 0,
            dense_lead: 0,
            every: 1,
            scale: None,
            groups: None,
        });
    });
    variant(Arch::Qwen3Moe, "all-experts", &|s| {
        if let Some(experts) = &mut s.experts {
            experts.active = experts.total;
        }
    });
    variant(Arch::Qwen2, "yarn", &|s| s.rope.scaling = scaling("yarn", Some(64)));
    variant(Arch::Qwen3, "tied", &|s| s.tied = true);
    variant(Arch::Qwen3, "half-blocks", &|s| (s.hidden, s.ffn) = (288, Some(544)));
    variant(Arch::Phi3, "long", &|s| {
        s.rope.factors = RopeFactors::LongShort;
        s.rope.scaling = scaling("longrope", Some(128));
    });
    check(&specs, &[(Quant::F16, 0.9999), (Quant::Q8_0, 0.99)]);
}

#[test]
fn what_candle_cannot_read_is_unsupported_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    for (arch, quant, word) in [
        (Arch::Qwen3, Quant::Iq4Xs, "IQ4_XS"),
        (Arch::Qwen3Moe, Quant::Mxfp4, "MXFP4"),
        (Arch::Glm4Moe, Quant::Q8_0, "glm4moe"),
    ] {
        let spec = tiny(arch);
        let path = synth::ensure(&spec, quant, 7, dir.path(), &mut |_, _| {}).unwrap();
        match logits(CANDLE, &path) {
            Err(Failure::Reported(Fault::Unsupported, reason)) => {
                assert!(reason.contains(word), "{reason}");
            }
            other => panic!("{arch:?} {quant}: {other:?}"),
        }
    }
}
