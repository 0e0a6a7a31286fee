//! Speeds that others measured and published, with their sources and the notices they ask for.
//!
//! Only rows whose licence permits copying stand in `published.csv`; see `published.md`.

use serde::Deserialize;

/// The rows, embedded so that the program needs no file beside it.
const ROWS: &str = include_str!("published.csv");
/// Shapes of models that only these rows name.
const MODELS: &str = include_str!("published_models.csv");

/// One published measurement.
#[derive(Clone, Debug, Deserialize)]
pub struct Published {
    /// Its device in `hardware.csv`.
    pub device: String,
    /// The device in the source's words.
    pub device_name: String,
    /// GPU cores, where the source says.
    pub gpu_cores: Option<u32>,
    /// llama.cpp, llamafile, ollama, mlx or vllm.
    pub engine: String,
    /// cuda, metal, vulkan or rocm.
    pub api: String,
    /// The engine's version, as the source writes it.
    pub version: String,
    /// The model in the source's words.
    pub model: String,
    /// Its id in `models.csv` or `published_models.csv`; empty: its shape is not known.
    pub model_id: String,
    /// The quantisation in the source's words.
    pub quant_label: String,
    /// The nearest one whose recipe is known; empty: not stated.
    pub quant: String,
    /// The file's size, where the source says.
    pub file_gib: Option<f64>,
    /// What was run, in the source's words.
    pub test: String,
    /// Prompt tokens.
    pub prompt_tokens: Option<f64>,
    /// Tokens in the cache before the prompt.
    pub depth: f64,
    /// New tokens.
    pub gen_tokens: Option<f64>,
    /// Mean tokens in the cache while it generated.
    pub kv_tokens: Option<f64>,
    /// Streams at once.
    pub streams: Option<f64>,
    /// llama.cpp's micro-batch, where it was not 512.
    pub micro_batch: Option<f64>,
    /// `on`, `off`, or empty: the engine's default.
    pub flash_attention: String,
    /// Devices together.
    pub gpus: u32,
    /// Prompt processing.
    pub prefill_tok_s: Option<f64>,
    /// Generation; of all streams together where `scope` says so.
    pub decode_tok_s: Option<f64>,
    /// Time to the first token.
    pub ttft_ms: Option<f64>,
    /// `single_stream` or `aggregate_output`.
    pub scope: String,
    /// When, as the source writes it.
    pub date: String,
    /// Why it cannot stand beside the others; empty: it can.
    pub aside: String,
    /// The source's remarks.
    pub notes: String,
    /// Where.
    pub source: String,
}

/// The embedded rows.
pub fn all() -> anyhow::Result<Vec<Published>> {
    read("published.csv", ROWS)
}

/// The rows of a CSV file with the columns of `published.csv`; `name` is for messages.
pub fn read(name: &str, rows: &str) -> anyhow::Result<Vec<Published>> {
    super::rows(name, rows)
}

/// A plain decoder whose shape is known only for these rows.
#[derive(Clone, Debug, Deserialize)]
pub struct PublishedModel {
    /// The word for it.
    pub id: String,
    /// Decoder layers.
    pub layers: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Width of the feed-forward.
    pub ffn: u32,
    /// Query heads.
    pub heads: u32,
    /// Key and value heads.
    pub kv_heads: u32,
    /// Values in a head.
    pub head_dim: u32,
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// The output projection is the token embedding.
    pub tied: bool,
    /// Tokens of the sliding window.
    pub window: Option<u32>,
    /// Every n-th layer sees everything.
    pub full_every: Option<u32>,
    /// Where the shape was read.
    pub source: String,
}

/// The shapes in `published_models.csv`.
pub fn models() -> anyhow::Result<Vec<PublishedModel>> {
    super::rows("published_models.csv", MODELS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_has_a_source_and_a_known_device() {
        let rows = all().unwrap();
        assert!(rows.len() > 700, "{}", rows.len());
        for row in rows {
            assert!(!row.source.is_empty());
            assert!(crate::catalog::hardware::find(&row.device, &[]).is_ok(), "{}", row.device);
        }
    }
}
