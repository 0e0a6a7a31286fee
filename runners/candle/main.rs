//! candle, as a runner: one decoder over `candle-core` for all architectures it covers.

mod activations;
mod attention;
mod buffers;
mod cache;
mod decoder;
mod device;
mod experts;
mod kernels;
mod layer;
mod matrix;
mod rope;
mod rows;
mod shape;
mod simd;
mod threads;
mod weights;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use bench::runner::batching::{self, Chunk, Stepper};
use bench::runner::serve::serve;
use bench::runner::{
    Fault, LoadReport, Model, Request, Runner, Schedule, Settings, TokenSink, Version,
};
use bench::units::Bytes;
use candle_core::Device;
use candle_core::utils::{cuda_is_available, metal_is_available};

use crate::decoder::{Decoder, Sizes};
use crate::device::DeviceDecoder;
use crate::threads::Threads;
use crate::weights::Weights;

/// Most tokens of a step, as llama.cpp's default micro-batch.
const STEP_TOKENS: u32 = 512;

fn main() -> ExitCode {
    serve::<Candle>()
}

/// A loaded model.
struct Candle {
    engine: Engine,
    effective: BTreeMap<String, String>,
}

/// Where it computes.
enum Engine {
    /// On the CPU, with kernels of our own.
    Cpu(Box<Decoder>),
    /// On a GPU, with candle's operations.
    Gpu(Box<DeviceDecoder>),
}

/// Calls a method that both engines have.
macro_rules! engine {
    ($engine:expr, $decoder:ident => $call:expr) => {
        match $engine {
            Engine::Cpu($decoder) => $call,
            Engine::Gpu($decoder) => $call,
        }
    };
}

impl Engine {
    fn sizes(&self) -> Sizes {
        match self {
            Self::Cpu(decoder) => decoder.sizes(),
            Self::Gpu(decoder) => *decoder.sizes(),
        }
    }

    fn rows(&self) -> usize {
        engine!(self, decoder => decoder.rows())
    }

    fn step(&mut self, chunks: &[Chunk<'_>], all_logits: bool) -> anyhow::Result<()> {
        engine!(self, decoder => decoder.step(chunks, all_logits))
    }

    /// The rows of the last step's logits.
    fn logits(&self) -> impl Iterator<Item = &[f32]> {
        engine!(self, decoder => decoder.logits().chunks_exact(decoder.vocabulary()))
    }
}

/// The kind of GPU that this build computes on.
fn gpu() -> Option<&'static str> {
    if cuda_is_available() {
        Some("CUDA")
    } else if metal_is_available() {
        Some("Metal")
    } else {
        None
    }
}

fn open(gpu: &str) -> candle_core::Result<Device> {
    if gpu == "CUDA" { Device::new_cuda(0) } else { Device::new_metal(0) }
}

/// Layers on the GPU: all where there is one and the settings say nothing, as llama.cpp's default.
fn gpu_layers(settings: &Settings) -> u32 {
    settings.gpu_layers.unwrap_or(if gpu().is_some() { u32::MAX } else { 0 })
}

/// The GPU, where the settings ask for one.
fn device(settings: &Settings) -> anyhow::Result<Option<Device>> {
    if gpu_layers(settings) == 0 {
        return Ok(None);
    }
    let device = match gpu() {
        Some(gpu) => open(gpu),
        None => {
            return Err(anyhow!(
                "this build of candle sees no GPU; type `make cuda`, or set gpu_layers to 0"
            )
            .context(Fault::Unsupported));
        }
    };
    Ok(Some(device.context("candle cannot use the GPU")?))
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
            backend: match gpu() {
                // A build for a GPU sees one only where a driver answers.
                Some(gpu) if open(gpu).is_ok() => format!("CPU {gpu}"),
                _ => "CPU".to_owned(),
            },
        })
    }

    fn load(model: &Model, settings: &Settings) -> anyhow::Result<Self> {
        check(settings)?;
        let threads = Threads::new(settings.threads)?;
        let weights = Weights::open(&model.path)?;
        let batch = settings.batch_tokens.unwrap_or(STEP_TOKENS);
        let rows =
            settings.micro_batch.unwrap_or(STEP_TOKENS).min(batch).max(settings.slots.max(1));
        let (rows, device) = (rows as usize, device(settings)?);
        let on_gpu = device.is_some();
        let engine = match device {
            None => Engine::Cpu(Box::new(Decoder::load(&weights, settings, threads, rows)?)),
            Some(device) => {
                let decoder = DeviceDecoder::load(&weights, settings, rows, device)?;
                Engine::Gpu(Box::new(decoder))
            }
        };
        let mut effective = BTreeMap::new();
        let mut put = |key: &str, value: String| effective.insert(key.to_owned(), value);
        put("threads", threads.count().to_string());
        put("kv_type", settings.kv_type.clone().unwrap_or_else(|| "f16".to_owned()));
        put("batch_tokens", rows.to_string());
        put("micro_batch", rows.to_string());
        put("flash_attention", (!on_gpu).to_string());
        put("mmap", "false".to_owned());
        put("gpu_layers", if on_gpu { "all" } else { "0" }.to_owned());
        Ok(Self { engine, effective })
    }

    fn report(&self) -> LoadReport {
        let sizes = self.engine.sizes();
        LoadReport {
            weights_bytes: Some(Bytes(sizes.weights as u64)),
            kv_bytes: Some(Bytes(sizes.cache as u64)),
            compute_bytes: Some(Bytes(sizes.buffers as u64)).filter(|_| sizes.buffers > 0),
            effective: self.effective.clone(),
            ..LoadReport::default()
        }
    }

    fn prepare(&mut self, requests: &[Request]) -> anyhow::Result<()> {
        batching::prepare(self, requests)?;
        match &self.engine {
            Engine::Cpu(_) => Ok(()),
            // What is still computed for the caches is not the trial's.
            Engine::Gpu(decoder) => decoder.wait(),
        }
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
        let most = self.engine.rows();
        for (i, part) in tokens.chunks(most).enumerate() {
            let position = (i * most) as u32;
            let chunk = Chunk { sequence: 0, position, tokens: part, logits: true };
            self.engine.step(&[chunk], true)?;
            rows.extend(self.engine.logits().take(part.len()).map(<[f32]>::to_vec));
        }
        Ok(rows)
    }
}

/// Refuses what this engine would have to ignore.
fn check(settings: &Settings) -> anyhow::Result<()> {
    let refuse = |what: &str| Err(anyhow!("{what}").context(Fault::Unsupported));
    let on_gpu = gpu_layers(settings) > 0;
    if settings.flash_attention == Some(on_gpu) {
        return refuse("attention is always fused on the CPU and never on a GPU; leave it out");
    }
    if settings.tensor_split.is_some() || settings.split_mode.is_some() {
        return refuse("this engine computes on one device; leave split_mode and tensor_split out");
    }
    Ok(())
}

impl Stepper for Candle {
    fn batch_tokens(&self) -> usize {
        self.engine.rows()
    }

    fn slots(&self) -> usize {
        engine!(&self.engine, decoder => decoder.slots())
    }

    fn forget(&mut self, _sequence: u32) -> anyhow::Result<()> {
        // Positions beyond the current one are never read, so there is nothing to clear.
        Ok(())
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> anyhow::Result<()> {
        self.engine.step(chunks, false)
    }
}
