//! candle, as a runner: one decoder over `candle-core` for all architectures it covers.

mod activations;
mod attention;
mod cache;
mod decoder;
mod experts;
mod kernels;
mod matrix;
mod rope;
mod rows;
mod shape;
mod simd;
mod threads;
mod weights;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::anyhow;
use bench::runner::batching::{self, Chunk, Stepper};
use bench::runner::serve::serve;
use bench::runner::{
    Fault, LoadReport, Model, Request, Runner, Schedule, Settings, TokenSink, Version,
};
use bench::units::Bytes;

use crate::decoder::Decoder;
use crate::threads::Threads;
use crate::weights::Weights;

/// Most tokens of a step, as llama.cpp's default micro-batch.
const STEP_TOKENS: u32 = 512;

fn main() -> ExitCode {
    serve::<Candle>()
}

/// A loaded model.
struct Candle {
    decoder: Decoder,
    effective: BTreeMap<String, String>,
}

/// The instruction sets of this build that the kernels use.
fn instruction_sets() -> String {
    macro_rules! built_with {
        ($($feature:literal => $name:literal),* $(,)?) => {
            [$((cfg!(target_feature = $feature), $name)),*]
        };
    }
    let sets = built_with!(
        "avx512vnni" => "AVX512_VNNI",
        "avx512bf16" => "AVX512_BF16",
        "avx512f" => "AVX512",
        "avxvnni" => "AVX_VNNI",
        "avx2" => "AVX2",
        "fma" => "FMA",
        "f16c" => "F16C",
        "neon" => "NEON",
        "dotprod" => "DOTPROD",
        "i8mm" => "I8MM",
        "bf16" => "BF16",
    );
    let built: Vec<_> = sets.iter().filter(|(built, _)| *built).map(|(_, name)| *name).collect();
    built.join(" ")
}

impl Runner for Candle {
    const NAME: &'static str = "candle";

    fn version() -> anyhow::Result<Version> {
        Ok(Version {
            version: env!("CANDLE_VERSION").to_owned(),
            build: instruction_sets(),
            backend: "CPU".to_owned(),
        })
    }

    fn load(model: &Model, settings: &Settings) -> anyhow::Result<Self> {
        check(settings)?;
        let threads = Threads::new(settings.threads)?;
        let weights = Weights::open(&model.path)?;
        let batch = settings.batch_tokens.unwrap_or(STEP_TOKENS);
        let rows =
            settings.micro_batch.unwrap_or(STEP_TOKENS).min(batch).max(settings.slots.max(1));
        let decoder = Decoder::load(&weights, settings, threads, rows as usize)?;
        let mut effective = BTreeMap::new();
        let mut put = |key: &str, value: String| effective.insert(key.to_owned(), value);
        put("threads", threads.count().to_string());
        put("kv_type", settings.kv_type.clone().unwrap_or_else(|| "f16".to_owned()));
        put("batch_tokens", rows.to_string());
        put("micro_batch", rows.to_string());
        put("flash_attention", "true".to_owned());
        put("mmap", "false".to_owned());
        put("gpu_layers", "0".to_owned());
        Ok(Self { decoder, effective })
    }

    fn report(&self) -> LoadReport {
        let sizes = self.decoder.sizes();
        LoadReport {
            weights_bytes: Some(Bytes(sizes.weights as u64)),
            kv_bytes: Some(Bytes(sizes.cache as u64)),
            compute_bytes: Some(Bytes(sizes.buffers as u64)),
            effective: self.effective.clone(),
        }
    }

    fn prepare(&mut self, requests: &[Request]) -> anyhow::Result<()> {
        batching::prepare(self, requests)
    }

    fn generate(
        &mut self,
        requests: &[Request],
        schedule: Schedule,
        sinks: &mut [TokenSink],
    ) -> anyhow::Result<()> {
        batching::generate(self, requests, schedule, sinks)
    }

    fn logits(&mut self, tokens: &[u32]) -> anyhow::Result<Vec<Vec<f32>>> {
        let mut rows = Vec::with_capacity(tokens.len());
        for (i, part) in tokens.chunks(self.decoder.rows()).enumerate() {
            let position = (i * self.decoder.rows()) as u32;
            let chunk = Chunk { sequence: 0, position, tokens: part, logits: true };
            self.decoder.step(&[chunk], true)?;
            let logits = self.decoder.logits().chunks_exact(self.decoder.vocabulary());
            rows.extend(logits.take(part.len()).map(<[f32]>::to_vec));
        }
        Ok(rows)
    }
}

/// Refuses what this engine would have to ignore.
fn check(settings: &Settings) -> anyhow::Result<()> {
    let refuse = |what: &str| Err(anyhow!("{what}").context(Fault::Unsupported));
    if settings.gpu_layers.is_some_and(|layers| layers > 0) {
        return refuse("this build computes on the CPU; leave gpu_layers out or set it to 0");
    }
    if settings.flash_attention == Some(false) {
        return refuse("attention is always the fused kernel here; leave flash_attention out");
    }
    if settings.tensor_split.is_some() || settings.split_mode.is_some() {
        return refuse("there is nothing to split on a CPU; leave split_mode and tensor_split out");
    }
    Ok(())
}

impl Stepper for Candle {
    fn batch_tokens(&self) -> usize {
        self.decoder.rows()
    }

    fn slots(&self) -> usize {
        self.decoder.slots()
    }

    fn forget(&mut self, _sequence: u32) -> anyhow::Result<()> {
        // Positions beyond the current one are never read, so there is nothing to clear.
        Ok(())
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> anyhow::Result<()> {
        self.decoder.step(chunks, false)
    }
}
