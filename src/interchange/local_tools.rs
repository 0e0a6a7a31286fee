//! LocalScore and llama-benchy: tools that test one machine.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Found;
use super::field::Field;
use crate::compare::Metric;
use crate::record::Record;

/// Reads LocalScore's JSON (llamafile's `localscore -o json`): means over its repetitions.
pub fn localscore(documents: &[(usize, &Value)], name: &str) -> anyhow::Result<Vec<Found>> {
    let mut all = Vec::new();
    for (line, value) in documents {
        let root = Field::root(value, format!("{name}:{line}"));
        let runtime = root.text("runtime_info.name")?.unwrap_or_default();
        let version = root.text("runtime_info.version")?;
        let is_gpu = root.text("accelerator_info.type")? == Some("GPU");
        let device = if is_gpu { "accelerator_info.name" } else { "system_info.cpu_name" };
        let host = slug(root.text(device)?.unwrap_or_default());
        for test in root.list("results")? {
            let record = Record {
                engine: runtime.to_owned(),
                engine_version: version.map(str::to_owned),
                backend: root.text("accelerator_info.type")?.map(str::to_owned),
                host: host.clone(),
                started: test.text("test_time")?.unwrap_or_default().to_owned(),
                prompt_tokens: test.needed("n_prompt", test.tokens("n_prompt")?)?,
                new_tokens: test.needed("n_gen", test.tokens("n_gen")?)?,
                batch: 1,
                model_bytes: test.whole("model_size")?,
                prefill_tok_s_median: test.figure("prompt_tps")?,
                decode_tok_s_median: test.figure("gen_tps")?,
                ttft_ns_median: test.figure("ttft_ms")?.map(|ms| ms * 1e6),
                ..Record::default()
            };
            let model = match test.text("model_filename")? {
                Some(file) => file,
                None => test.text("model_name")?.unwrap_or_default(),
            };
            // Times of the whole test: the only values that are stated one by one.
            let mut trials = Vec::new();
            for sample in test.list("samples_ns")? {
                trials.push(BTreeMap::from([(Metric::E2eNs, sample.as_number()?)]));
            }
            all.push(Found {
                record,
                model: model.to_owned(),
                quant: test.text("model_quant_str")?.map(str::to_owned),
                notes: vec![
                    "prefill_tok_s and decode_tok_s: means over the repetitions",
                    "prefill_tok_s: without the first generated token",
                    "ttft_ns: mean of the prompt and one generated token",
                ],
                absent: vec![(
                    "itl_ns, intervals",
                    "the file states means and the time of each whole test".to_owned(),
                )],
                trials,
                is_mean: true,
            });
        }
    }
    Ok(all)
}

/// Reads llama-benchy's JSON: one result for each prompt, answer, depth and concurrency.
pub fn llama_benchy(documents: &[(usize, &Value)], name: &str) -> anyhow::Result<Vec<Found>> {
    let mut all = Vec::new();
    for (line, value) in documents {
        let root = Field::root(value, format!("{name}:{line}"));
        let model = root.text("model")?.unwrap_or_default();
        let cached = root.is_on("prefix_caching_enabled")?;
        for run in root.list("benchmarks")? {
            let prompt = run.needed("prompt_size", run.tokens("prompt_size")?)?;
            let context = run.tokens("context_size")?.unwrap_or(0);
            let users = run.needed("concurrency", run.tokens("concurrency")?)?;
            let filling = run.is_on("is_context_prefill_phase")?;
            // Without a prefix cache the context is sent with the prompt, inside the clock.
            let (prompt_tokens, depth) = match (filling, cached) {
                (true, _) => (context, 0),
                (false, true) => (prompt, context),
                (false, false) => (prompt.saturating_add(context), 0),
            };
            let record = Record {
                started: root.text("timestamp")?.unwrap_or_default().replace(' ', "T"),
                prompt_tokens,
                new_tokens: run.needed("response_size", run.tokens("response_size")?)?,
                depth,
                batch: 1,
                concurrency: Some(users),
                settings: if filling { "phase=context".to_owned() } else { String::new() },
                ..Record::default()
            };
            let mut trials = Vec::new();
            put(&mut trials, Metric::TtftNs, &run, "e2e_ttft", 1e6)?;
            put(&mut trials, Metric::DecodeTokS, &run, "tg_req_throughput", 1.0)?;
            put(&mut trials, Metric::SystemTokS, &run, "tg_throughput", 1.0)?;
            all.push(Found {
                record,
                model: model.to_owned(),
                notes: vec![
                    "trials: of ttft_ns and decode_tok_s each request is one",
                    "system_tok_s: from the first token of the first request to the last of the \
                     last, ramp-up and tail included",
                ],
                absent: vec![(
                    "prefill_tok_s",
                    "the tool derives it from the first event of the stream, whatever it carries"
                        .to_owned(),
                )],
                trials,
                ..Found::default()
            });
        }
    }
    Ok(all)
}

fn put(
    trials: &mut Vec<BTreeMap<Metric, f64>>,
    metric: Metric,
    run: &Field<'_>,
    key: &str,
    factor: f64,
) -> anyhow::Result<()> {
    for (i, value) in run.list(&format!("{key}.values"))?.iter().enumerate() {
        if trials.len() <= i {
            trials.push(BTreeMap::new());
        }
        trials[i].insert(metric, value.as_number()? * factor);
    }
    Ok(())
}

/// A machine's name as part of a label.
pub fn slug(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    words.collect::<Vec<_>>().join("-").to_lowercase()
}
