//! Loads of serving engines that others measured and published: closed loops of users without a
//! pause, every request as long as the next.
//!
//! Only rows whose licence permits copying stand in `serving.csv`; see `published.md`.

use serde::Deserialize;

/// The rows, embedded so that the program needs no file beside it.
const ROWS: &str = include_str!("serving.csv");

/// One published load.
#[derive(Clone, Debug, Deserialize)]
pub struct Load {
    /// Its device in `hardware.csv`.
    pub device: String,
    /// The engine.
    pub engine: String,
    /// Its version.
    pub version: String,
    /// The model's id in `models.csv`.
    pub model_id: String,
    /// How its weights are stored, in the engine's word.
    pub checkpoint: String,
    /// Tokens of each prompt.
    pub prompt_tokens: u32,
    /// Tokens of each answer.
    pub new_tokens: u32,
    /// Users who each send the next request when the last one ends; all begin at once.
    pub users: u32,
    /// Requests of all users.
    pub requests: u32,
    /// Tokens generated a second, for all users.
    pub output_tok_s: f64,
    /// The median of the gaps between tokens.
    pub itl_median_ms: f64,
    /// The 99th percentile of the time to the first token.
    pub ttft_p99_ms: Option<f64>,
    /// Tokens that the engine's cache holds, as it says at its start.
    pub cache_tokens: Option<u64>,
    /// When, as the source writes it.
    pub date: String,
    /// Where.
    pub source: String,
}

impl Load {
    /// `128/1024`: the lengths of prompts and answers.
    pub fn shape(&self) -> String {
        format!("{}/{}", self.prompt_tokens, self.new_tokens)
    }
}

/// The embedded rows.
pub fn all() -> anyhow::Result<Vec<Load>> {
    super::rows("serving.csv", ROWS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_has_a_source_a_known_device_and_a_known_model() {
        let rows = all().unwrap();
        assert!(rows.len() >= 60, "{}", rows.len());
        for row in rows {
            assert!(!row.source.is_empty() && !row.version.is_empty(), "{row:?}");
            assert!(crate::catalog::hardware::find(&row.device, &[]).is_ok(), "{}", row.device);
            assert!(crate::catalog::models::find(&row.model_id).is_ok(), "{}", row.model_id);
        }
    }
}
