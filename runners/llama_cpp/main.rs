//! llama.cpp through `llama-cpp-2`, as a runner.

mod log;
mod settings;

use std::process::ExitCode;

use anyhow::{Context, anyhow, bail};
use bench::runner::batching::{self, Chunk, Stepper};
use bench::runner::serve::serve;
use bench::runner::{
    Fault, LoadReport, Model, Request, Runner, Schedule, Settings, TokenSink, Version,
};
use bench::units::Bytes;
use llama_cpp_2::context::LlamaContext;
use llama_cpp_2::llama_backend::LlamaBackend;
use llama_cpp_2::llama_batch::LlamaBatch;
use llama_cpp_2::model::LlamaModel;
use llama_cpp_2::token::LlamaToken;
use llama_cpp_2::{DecodeError, list_llama_ggml_backend_devices};

fn main() -> ExitCode {
    serve::<LlamaCpp>()
}

/// A loaded model with one context for all sequences.
struct LlamaCpp {
    context: LlamaContext<'static>,
    batch: LlamaBatch<'static>,
    vocabulary: usize,
    slots: usize,
    batch_tokens: usize,
    report: LoadReport,
}

impl Runner for LlamaCpp {
    const NAME: &'static str = "llama.cpp";

    fn version() -> anyhow::Result<Version> {
        let devices = list_llama_ggml_backend_devices();
        let mut backends: Vec<_> = devices.into_iter().map(|d| d.backend).collect();
        backends.dedup();
        Ok(Version { version: log::version(), build: log::features(), backend: backends.join(" ") })
    }

    fn load(model: &Model, settings: &Settings) -> anyhow::Result<Self> {
        log::collect();
        // A failure's reason stands only in the log; the last errors of it explain the null pointer.
        let explain = |what: &str, error: anyhow::Error| {
            let reasons = log::errors();
            let words = if reasons.is_empty() { "" } else { ": " };
            let error = error.context(format!("{what}{words}{}", reasons.join("; ")));
            if log::says_out_of_memory(&reasons) {
                error.context(bench::runner::Fault::OutOfMemory)
            } else {
                error
            }
        };
        let backend = Box::leak(Box::new(LlamaBackend::init().context("cannot start llama.cpp")?));
        // llama.cpp itself would compute on the CPU and say nothing.
        if settings.gpu_layers.is_some_and(|layers| layers > 0) && !backend.supports_gpu_offload() {
            return Err(anyhow!(
                "this build of llama.cpp sees no GPU; type `make cuda` (or `make vulkan`), or set \
                 gpu_layers to 0"
            )
            .context(Fault::Unsupported));
        }
        let loaded = settings::load_model(&model.path, settings)
            .map_err(|e| explain("llama.cpp cannot load the model", e))?;
        // The context borrows the model, and both live until the process ends: a runner loads
        // one model in its life.
        let loaded: &'static LlamaModel = Box::leak(Box::new(loaded));
        let params = settings::context_params(settings)?;
        let context = loaded
            .new_context(backend, params)
            .map_err(|e| explain("llama.cpp cannot make a context", e.into()))?;
        let batch_tokens = context.n_batch() as usize;
        let sizes = log::buffer_sizes();
        let report = LoadReport {
            weights_bytes: sizes.weights.map(Bytes),
            kv_bytes: sizes.kv.map(Bytes),
            compute_bytes: sizes.compute.map(Bytes),
            effective: settings::effective(&context, settings),
            ..LoadReport::default()
        };
        Ok(Self {
            batch: LlamaBatch::new(batch_tokens, 1),
            vocabulary: usize::try_from(loaded.n_vocab()).context("no vocabulary")?,
            slots: settings.slots.max(1) as usize,
            batch_tokens,
            context,
            report,
        })
    }

    fn report(&self) -> LoadReport {
        self.report.clone()
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
        self.context.clear_kv_cache();
        let mut rows = Vec::with_capacity(tokens.len());
        for (position, chunk) in tokens.chunks(self.batch_tokens).enumerate() {
            self.batch.clear();
            let first = position * self.batch_tokens;
            for (i, &token) in chunk.iter().enumerate() {
                self.batch.add(token_id(token)?, (first + i) as i32, &[0], true)?;
            }
            self.context.decode(&mut self.batch).map_err(decode_failure)?;
            for i in 0..chunk.len() {
                rows.push(self.context.get_logits_ith(i as i32)[..self.vocabulary].to_vec());
            }
        }
        Ok(rows)
    }
}

impl Stepper for LlamaCpp {
    fn batch_tokens(&self) -> usize {
        self.batch_tokens
    }

    fn slots(&self) -> usize {
        self.slots
    }

    fn forget(&mut self, sequence: u32) -> anyhow::Result<()> {
        if !self.context.clear_kv_cache_seq(Some(sequence), None, None)? {
            bail!("llama.cpp cannot clear sequence {sequence}");
        }
        Ok(())
    }

    fn step(&mut self, chunks: &[Chunk<'_>]) -> anyhow::Result<()> {
        self.batch.clear();
        for chunk in chunks {
            let last = chunk.tokens.len().saturating_sub(1);
            for (i, &token) in chunk.tokens.iter().enumerate() {
                let position = (chunk.position as usize + i) as i32;
                let wanted = chunk.logits && i == last;
                self.batch.add(token_id(token)?, position, &[chunk.sequence as i32], wanted)?;
            }
        }
        self.context.decode(&mut self.batch).map_err(decode_failure)?;
        // `decode` only queues the work on a GPU.
        self.context.synchronize();
        Ok(())
    }
}

fn token_id(token: u32) -> anyhow::Result<LlamaToken> {
    i32::try_from(token).map(LlamaToken).map_err(|_| anyhow!("token id {token} is too large"))
}

fn decode_failure(error: DecodeError) -> anyhow::Error {
    let reasons = log::errors();
    let out_of_memory = log::says_out_of_memory(&reasons);
    let error = anyhow!("llama.cpp cannot decode: {error}: {}", reasons.join("; "));
    if out_of_memory { error.context(bench::runner::Fault::OutOfMemory) } else { error }
}
