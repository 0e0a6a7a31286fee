//! The engines that a scenario may name, as data: nothing else in the harness names an engine.

/// An engine, and what a scenario may ask of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Engine {
    /// As scenarios and records spell it.
    pub name: &'static str,
    /// Reached over HTTP, by the runner for servers.
    pub server: bool,
    /// The settings that it understands.
    pub settings: &'static [&'static str],
    /// Element types that its KV cache may have; empty: not asked of it.
    pub kv_types: &'static [&'static str],
}

/// All engines.
pub const ENGINES: &[Engine] = &[
    Engine {
        name: "candle",
        server: false,
        settings: &["threads", "gpu_layers", "kv_type", "batch_tokens"],
        kv_types: &["f16", "f32"],
    },
    Engine {
        name: "llama.cpp",
        server: false,
        // No tensor_split: the bindings do not reach it, llama.cpp divides by free memory.
        settings: &[
            "threads",
            "gpu_layers",
            "flash_attention",
            "kv_type",
            "batch_tokens",
            "micro_batch",
            "mmap",
            "split_mode",
        ],
        kv_types: LLAMA_CPP_KV,
    },
    Engine { name: "mlx", server: false, settings: &["batch_tokens"], kv_types: &[] },
    Engine {
        name: "mock",
        server: false,
        settings: &["threads", "batch_tokens", "kv_type"],
        kv_types: LLAMA_CPP_KV,
    },
    server("vllm"),
    server("llama-server"),
    server("ollama"),
    server("lm-studio"),
    server("lm-studio-v0"),
    server("lm-studio-v1"),
    server("mlx-lm-server"),
    server("openai"),
    server("openai-completions"),
    server("anthropic"),
];

const LLAMA_CPP_KV: &[&str] =
    &["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl"];

/// A server takes its switches from its own command line (`[servers.NAME] args`).
const fn server(name: &'static str) -> Engine {
    Engine { name, server: true, settings: &[], kv_types: &[] }
}
