//! The engines that a scenario may name, as data: nothing else in the harness names an engine.

use crate::runner::locate;

/// An engine, and what a scenario may ask of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine {
    /// As scenarios and records spell it.
    pub name: &'static str,
    /// The runner that measures it; many servers share one.
    pub runner: &'static str,
    /// Reached over HTTP.
    pub server: bool,
    /// The settings that it understands; a server those that it is started with.
    pub settings: &'static [&'static str],
    /// Element types that its KV cache may have; empty: not asked of it.
    pub kv_types: &'static [&'static str],
    /// Of a server: the engine in process that computes the same, to compare it with.
    pub in_process: Option<&'static str>,
    /// What it is given as synthetic weights.
    pub synthetic: Synthetic,
    /// Installed by `bench setup`, not built.
    pub setup: bool,
}

/// The form in which an engine takes synthetic weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Synthetic {
    /// A GGUF file.
    Gguf,
    /// A folder with a `config.json` and a tokenizer: it fills the weights in itself.
    Config,
    /// A folder with weights in the layouts of MLX.
    Mlx,
}

/// All engines.
pub const ENGINES: &[Engine] = &[
    in_process("candle", &["threads", "gpu_layers", "kv_type", "batch_tokens"], &["f16", "f32"]),
    in_process(
        "llama.cpp",
        &[
            "threads",
            "gpu_layers",
            "flash_attention",
            "kv_type",
            "batch_tokens",
            "micro_batch",
            "mmap",
            "split_mode",
            "tensor_split",
        ],
        GGUF_KV,
    ),
    Engine {
        synthetic: Synthetic::Mlx,
        setup: true,
        ..in_process("mlx", &["gpu_layers", "batch_tokens", "dtype", "group_size"], &[])
    },
    in_process("mock", &["threads", "batch_tokens", "kv_type"], GGUF_KV),
    // What a server is started with: `[start.settings]` of its descriptor in `runners/openai`.
    Engine {
        synthetic: Synthetic::Config,
        ..server("vllm", &["kv_type", "batch_tokens"], &["auto", "fp8", "fp8_e4m3", "fp8_e5m2"])
    },
    Engine {
        in_process: Some("llama.cpp"),
        ..server(
            "llama-server",
            &[
                "threads",
                "gpu_layers",
                "flash_attention",
                "kv_type",
                "batch_tokens",
                "micro_batch",
                "split_mode",
                "tensor_split",
            ],
            GGUF_KV,
        )
    },
    server("ollama", &[], &[]),
    server("lm-studio", &[], &[]),
    server("lm-studio-v0", &[], &[]),
    server("lm-studio-v1", &[], &[]),
    Engine {
        synthetic: Synthetic::Mlx,
        in_process: Some("mlx"),
        ..server("mlx-lm-server", &["batch_tokens", "group_size"], &[])
    },
    server("openai", &[], &[]),
    server("openai-completions", &[], &[]),
    server("anthropic", &[], &[]),
];

/// The line to type where the runner of `engine` is missing.
pub fn remedy(engine: &str) -> String {
    match ENGINES.iter().find(|known| known.name == engine) {
        Some(known) if known.setup => format!("bench setup {engine}"),
        _ => locate::remedy(engine),
    }
}

const GGUF_KV: &[&str] = &["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"];

/// An engine with a runner of its own.
const fn in_process(
    name: &'static str,
    settings: &'static [&'static str],
    kv_types: &'static [&'static str],
) -> Engine {
    Engine {
        name,
        runner: name,
        server: false,
        settings,
        kv_types,
        in_process: None,
        synthetic: Synthetic::Gguf,
        setup: false,
    }
}

/// A server; what is no setting of it stands in `[servers.NAME] args`.
const fn server(
    name: &'static str,
    settings: &'static [&'static str],
    kv_types: &'static [&'static str],
) -> Engine {
    Engine { runner: "openai", server: true, ..in_process(name, settings, kv_types) }
}

/// Servers that a run cannot start, but that take our weights over HTTP unless a scenario names a
/// model of theirs.
pub const TAKE_UPLOADS: &[&str] = &["ollama"];

/// Servers that a run cannot start: they are reached where they run, with weights of their own.
pub const NEVER_STARTED: &[&str] = &[
    "ollama",
    "lm-studio",
    "lm-studio-v0",
    "lm-studio-v1",
    "openai",
    "openai-completions",
    "anthropic",
];
