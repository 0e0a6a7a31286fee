//! The engines that a scenario may name, as data: nothing else in the harness names an engine.

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
}

/// All engines.
pub const ENGINES: &[Engine] = &[
    in_process("candle", &["threads", "gpu_layers", "kv_type", "batch_tokens"], &["f16", "f32"]),
    // No tensor_split: the bindings do not reach it, llama.cpp divides by free memory.
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
        ],
        GGUF_KV,
    ),
    in_process("mock", &["threads", "batch_tokens", "kv_type"], GGUF_KV),
    // What a server is started with: `[start.settings]` of its descriptor in `runners/openai`.
    server("vllm", &["kv_type", "batch_tokens"], &["auto", "fp8", "fp8_e4m3", "fp8_e5m2"]),
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
            ],
            GGUF_KV,
        )
    },
    server("ollama", &[], &[]),
    server("lm-studio", &[], &[]),
    server("lm-studio-v0", &[], &[]),
    server("lm-studio-v1", &[], &[]),
    server("mlx-lm-server", &[], &[]),
    server("openai", &[], &[]),
    server("openai-completions", &[], &[]),
    server("anthropic", &[], &[]),
];

const GGUF_KV: &[&str] = &["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"];

/// An engine with a runner of its own.
const fn in_process(
    name: &'static str,
    settings: &'static [&'static str],
    kv_types: &'static [&'static str],
) -> Engine {
    Engine { name, runner: name, server: false, settings, kv_types, in_process: None }
}

/// A server; what is no setting of it stands in `[servers.NAME] args`.
const fn server(
    name: &'static str,
    settings: &'static [&'static str],
    kv_types: &'static [&'static str],
) -> Engine {
    Engine { name, runner: "openai", server: true, settings, kv_types, in_process: None }
}

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
