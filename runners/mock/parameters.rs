//! How fast the mock is and what it does wrong: from the model's file name, a JSON file, or the
//! environment.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail};
use bench::runner::Settings;
use serde::{Deserialize, Serialize};

use crate::faults::Misbehaviour;

/// What names an environment variable of the mock: `BENCH_MOCK_DECODE_TPS`.
const PREFIX: &str = "BENCH_MOCK_";

/// The mock's behaviour. Every field has the same name in all three places: `decode_tps=200` after
/// an `@` in the model's file name (`tiny@decode_tps=200,fault=oom.gguf`), `"decode_tps": 200` in a
/// model file ending in `.json`, `BENCH_MOCK_DECODE_TPS=200` in the environment. The model's words
/// win over the environment's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Parameters {
    /// Tokens per second that one sequence generates alone.
    pub decode_tps: f64,
    /// Prompt tokens per second.
    pub prefill_tps: f64,
    /// Share of a round of generation that each further sequence adds.
    pub batch_cost: f64,
    /// Largest relative deviation of a step's time, uniform.
    pub jitter: f64,
    /// Seed of the deviations and of the logits.
    pub seed: u64,
    /// Milliseconds of the load call.
    pub load_ms: f64,
    /// Memory to hold, in MiB; reported as the weights' size.
    pub memory_mib: u64,
    /// Length of a row of logits.
    pub vocabulary: usize,
    /// What goes wrong.
    pub fault: Option<Misbehaviour>,
    /// The first trial, counted from one, in which it goes wrong.
    pub fault_trial: u32,
    /// The token of that trial, counted from one over all sequences, at which it goes wrong.
    pub fault_token: u32,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            decode_tps: 1000.0,
            prefill_tps: 20_000.0,
            batch_cost: 0.1,
            jitter: 0.0,
            seed: 1,
            load_ms: 0.0,
            memory_mib: 0,
            vocabulary: 64,
            fault: None,
            fault_trial: 1,
            fault_token: 1,
        }
    }
}

impl Parameters {
    /// The environment's words over the defaults.
    pub fn from_environment() -> anyhow::Result<Self> {
        let words = std::env::vars()
            .filter_map(|(key, value)| {
                key.strip_prefix(PREFIX).map(|key| (key.to_lowercase(), value))
            })
            .collect();
        Self::default().with(words).context("environment variables BENCH_MOCK_*")
    }

    /// What the model's name or JSON file says, over the environment.
    pub fn of(model: &Path) -> anyhow::Result<Self> {
        let parameters = Self::from_environment()?;
        if model.extension().is_some_and(|extension| extension == "json") {
            let text = std::fs::read_to_string(model).context("cannot read the parameters")?;
            let words: BTreeMap<String, serde_json::Value> =
                serde_json::from_str(&text).context("the parameters are no JSON object")?;
            return parameters.overlaid(words);
        }
        let name = model.file_name().unwrap_or_default().to_string_lossy();
        let name = name.strip_suffix(".gguf").unwrap_or(&name);
        let Some((_, list)) = name.split_once('@') else { return Ok(parameters) };
        let mut words = BTreeMap::new();
        for word in list.split(',') {
            let Some((key, value)) = word.split_once('=') else {
                bail!("'{word}' is no parameter; write key=value");
            };
            words.insert(key.to_owned(), value.to_owned());
        }
        parameters.with(words)
    }

    fn with(self, words: BTreeMap<String, String>) -> anyhow::Result<Self> {
        // `200` is a number and `oom` is text: JSON knows the one, the rest is the other.
        let value =
            |text: String| serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text));
        self.overlaid(words.into_iter().map(|(key, text)| (key, value(text))).collect())
    }

    fn overlaid(self, words: BTreeMap<String, serde_json::Value>) -> anyhow::Result<Self> {
        let serde_json::Value::Object(mut all) = serde_json::to_value(self)? else {
            bail!("the parameters are no object");
        };
        all.extend(words);
        let parameters: Self = serde_json::from_value(all.into())?;
        if !(parameters.decode_tps > 0.0 && parameters.prefill_tps > 0.0) {
            bail!("decode_tps and prefill_tps must be above 0");
        }
        if !(0.0..1.0).contains(&parameters.jitter) {
            bail!("jitter must be at least 0 and below 1");
        }
        Ok(parameters)
    }

    /// Factor of every duration.
    pub fn slowness(&self) -> f64 {
        if self.fault == Some(Misbehaviour::Slow) { 10.0 } else { 1.0 }
    }

    /// Duration of the load call.
    pub fn load_seconds(&self) -> f64 {
        self.load_ms / 1e3 * self.slowness()
    }

    /// What is in force, for the load report.
    pub fn effective(&self, settings: &Settings) -> BTreeMap<String, String> {
        let mut effective = BTreeMap::from([
            ("decode_tps".to_owned(), self.decode_tps.to_string()),
            ("prefill_tps".to_owned(), self.prefill_tps.to_string()),
            ("slots".to_owned(), settings.slots.to_string()),
        ]);
        if let Some(threads) = settings.threads {
            effective.insert("threads".to_owned(), threads.to_string());
        }
        effective
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_name_sets_parameters() {
        let parameters =
            Parameters::of(Path::new("/models/tiny@decode_tps=12.5,fault=oom.gguf")).unwrap();
        assert_eq!(parameters.decode_tps, 12.5);
        assert_eq!(parameters.fault, Some(Misbehaviour::Oom));
        assert_eq!(parameters.prefill_tps, Parameters::default().prefill_tps);
    }

    #[test]
    fn a_plain_name_leaves_the_defaults() {
        let parameters = Parameters::of(Path::new("Qwen3-0.6B-Q4_K_M.gguf")).unwrap();
        assert_eq!(parameters, Parameters::default());
    }

    #[test]
    fn unknown_words_and_impossible_values_are_errors() {
        for name in ["a@decode=1.gguf", "a@fault=burn.gguf", "a@decode_tps=0.gguf", "a@x.gguf"] {
            assert!(Parameters::of(Path::new(name)).is_err(), "{name}");
        }
    }
}
