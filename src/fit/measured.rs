//! What records say of a machine's own speed, as plain data points.

use crate::model::quant::TensorType;
use crate::record::{Outcome, Record};

use super::evidence::Quantity;
use super::speed::Usage;
use super::work::value_bytes;

/// Marks that say that something else than the machine and the engine was measured. A drift of the
/// probe is none of them: some machines always drift, and the median of several cases bears it.
const DISTURBED: [&str; 7] = [
    "busy-cores",
    "clock-throttled",
    "thermal-throttled",
    "swap",
    "pages-not-resident",
    "timed-out",
    "on-battery",
];

/// A speed of one stream that a case has shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// The case.
    pub case_id: String,
    /// The folder of its record.
    pub folder: String,
    /// When it was measured.
    pub started: String,
    /// The engine.
    pub engine: String,
    /// Its version.
    pub version: String,
    /// What the engine computed on: `CPU`, or a GPU's interface.
    pub backend: String,
    /// The model's id in the catalogue.
    pub model: String,
    /// The quantisation.
    pub quant: String,
    /// What was measured.
    pub quantity: Quantity,
    /// The work.
    pub usage: Usage,
    /// The type of the cached keys and values.
    pub kv_type: TensorType,
    /// Tokens a second, the median of the trials.
    pub speed: f64,
    /// The ends of the median's 95 % interval, where there were enough trials for one.
    pub interval: Option<(f64, f64)>,
    /// What speaks against it.
    pub marks: String,
}

impl Point {
    /// Whether something else than the machine and the engine was measured.
    pub fn is_disturbed(&self) -> bool {
        self.marks.split_whitespace().any(|mark| DISTURBED.contains(&mark))
    }

    /// Whether it was measured on the processor alone.
    pub fn is_on_processor(&self) -> bool {
        self.backend == "CPU"
    }
}

/// The speeds of `record`, from the folder `folder`; none where it has none of a single stream
/// whose model lay in one place.
pub fn points(record: &Record, folder: &str) -> Vec<Point> {
    let single = record.batch == 1 && !record.is_loaded();
    let backend = record.backend.clone().unwrap_or_default();
    if record.outcome != Outcome::Measured || !single || backend.is_empty() {
        return Vec::new();
    }
    let setting = |key: &str| {
        let all = [record.effective_settings.as_deref(), Some(record.settings.as_str())];
        let mut words = all.into_iter().flatten().flat_map(str::split_whitespace);
        words.find_map(|word| word.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned)
    };
    let number = |key: &str| setting(key).and_then(|value| value.parse::<f64>().ok());
    let name = setting("kv_type").unwrap_or_else(|| "f16".to_owned());
    let Some(kv_type) = TensorType::all().find(|t| t.name().eq_ignore_ascii_case(&name)) else {
        return Vec::new();
    };
    let (depth, prompt) = (f64::from(record.depth), f64::from(record.prompt_tokens));
    let usage = Usage {
        cached: depth,
        streams: 1.0,
        prompt,
        micro_batch: number("micro_batch").unwrap_or(512.0),
        value_bytes: value_bytes(kv_type),
        flash_attention: setting("flash_attention").is_none_or(|value| value == "true"),
    };
    let point = |quantity, speed: Option<f64>, low: Option<f64>, high: Option<f64>, usage| {
        Some(Point {
            case_id: record.case_id.clone(),
            folder: folder.to_owned(),
            started: record.started.clone(),
            engine: record.engine.clone(),
            version: record.engine_version.clone().unwrap_or_default(),
            backend: backend.clone(),
            model: record.model.clone(),
            quant: record.quant.clone(),
            quantity,
            usage,
            kv_type,
            speed: speed.filter(|s| s.is_finite() && *s > 0.0)?,
            interval: low.zip(high),
            marks: record.marks.clone(),
        })
    };
    // While generating the cache is, on average, half an answer longer than after the prompt.
    let cached = depth + prompt + f64::from(record.new_tokens) / 2.0;
    let decode = point(
        Quantity::Decode,
        record.decode_tok_s_median,
        record.decode_tok_s_low,
        record.decode_tok_s_high,
        Usage { cached, ..usage },
    );
    let prefill = point(
        Quantity::Prefill,
        record.prefill_tok_s_median,
        record.prefill_tok_s_low,
        record.prefill_tok_s_high,
        usage,
    );
    decode.into_iter().chain(prefill).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record of a case on the processor.
    pub fn record(engine: &str, model: &str, quant: &str, prompt: u32) -> Record {
        Record {
            case_id: format!("{model}-{quant}-{engine}-p{prompt}"),
            engine: engine.to_owned(),
            model: model.to_owned(),
            quant: quant.to_owned(),
            prompt_tokens: prompt,
            new_tokens: 32,
            batch: 1,
            outcome: Outcome::Measured,
            backend: Some("CPU".to_owned()),
            effective_settings: Some("kv_type=q8_0 micro_batch=256 threads=2".to_owned()),
            decode_tok_s_median: Some(40.0),
            decode_tok_s_low: Some(38.0),
            decode_tok_s_high: Some(41.0),
            prefill_tok_s_median: Some(200.0),
            ..Record::default()
        }
    }

    #[test]
    fn a_record_shows_a_speed_of_generation_and_one_of_its_prompt() {
        let mut record = record("llama.cpp", "qwen3-0.6b", "Q4_K_M", 512);
        record.depth = 1000;
        let found = points(&record, "results/x");
        assert_eq!(found.len(), 2);
        let (decode, prefill) = (&found[0], &found[1]);
        assert_eq!((decode.quantity, decode.speed), (Quantity::Decode, 40.0));
        assert_eq!(decode.usage.cached, 1528.0);
        assert_eq!(decode.interval, Some((38.0, 41.0)));
        assert_eq!((prefill.usage.cached, prefill.usage.prompt), (1000.0, 512.0));
        assert_eq!((prefill.usage.micro_batch, prefill.kv_type), (256.0, TensorType::Q8_0));
        assert_eq!(prefill.interval, None);
    }

    #[test]
    fn what_was_not_measured_or_ran_as_a_batch_is_no_point() {
        let fine = record("llama.cpp", "qwen3-0.6b", "Q4_K_M", 512);
        for broken in [
            Record { outcome: Outcome::TimedOut, ..fine.clone() },
            Record { batch: 8, ..fine.clone() },
            Record { concurrency: Some(4), ..fine.clone() },
            Record { rate_per_s: Some(2.0), ..fine.clone() },
            Record { load: Some("trace".to_owned()), ..fine.clone() },
            Record { backend: None, ..fine.clone() },
        ] {
            assert!(points(&broken, "x").is_empty(), "{broken:?}");
        }
        let slow = Record { decode_tok_s_median: None, ..fine };
        assert_eq!(points(&slow, "x").len(), 1);
    }

    #[test]
    fn other_programs_disturb_and_a_drift_does_not() {
        let point = |marks: &str| {
            let mut record = record("llama.cpp", "qwen3-0.6b", "Q4_K_M", 512);
            record.marks = marks.to_owned();
            points(&record, "x").remove(0)
        };
        assert!(point("busy-cores probe-drift").is_disturbed());
        assert!(!point("probe-drift").is_disturbed() && !point("").is_disturbed());
    }
}
