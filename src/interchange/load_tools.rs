//! GuideLLM, AIPerf and vLLM's client: tools that put load on a server.

use anyhow::bail;
use serde_json::Value;

use super::Found;
use super::field::Field;
use crate::record::Record;
use crate::stats::values_needed;

/// A percentile that too few values bear is left out, as with our own.
fn borne(value: Option<f64>, percent: f64, count: Option<u64>) -> Option<f64> {
    value.filter(|_| count.is_some_and(|count| count >= values_needed(percent) as u64))
}

fn whole_run() -> &'static str {
    "system_tok_s: of the whole run, ramp-up and tail included"
}

/// What none of these files says.
fn absent() -> Vec<(&'static str, String)> {
    vec![
        ("engine_version, engine_build, settings", "the client does not know them".to_owned()),
        ("intervals", "the figures are of one run".to_owned()),
        ("prefill_tok_s", "the client's time holds network and queue".to_owned()),
    ]
}

/// Reads GuideLLM's report (`benchmarks.json`, versions 1 and 2 of its schema).
pub fn guidellm(documents: &[(usize, &Value)], name: &str) -> anyhow::Result<Vec<Found>> {
    let mut all = Vec::new();
    for (line, value) in documents {
        let root = Field::root(value, format!("{name}:{line}"));
        for run in root.list("benchmarks")? {
            let first = |paths: &[&str]| -> anyhow::Result<String> {
                for path in paths {
                    for field in [&run, &root] {
                        if let Some(text) = field.text(path)?.filter(|text| !text.is_empty()) {
                            return Ok(text.to_owned());
                        }
                    }
                }
                Ok(String::new())
            };
            let model = first(&[
                "config.backend.model",
                "config.spec.backend.model",
                "args.model",
                "args.backend_kwargs.model",
            ])?;
            let strategy = if run.at("config.strategy").is_some() {
                "config.strategy"
            } else {
                "args.strategy"
            };
            let kind = match run.text(&format!("{strategy}.type_"))? {
                Some(kind) => Some(kind),
                None => run.text(&format!("{strategy}.kind"))?,
            };
            let streams = run.tokens(&format!("{strategy}.streams"))?;
            let rate = run.number(&format!("{strategy}.rate"))?;
            let concurrency = if kind == Some("synchronous") { Some(1) } else { streams };
            let settings = match (concurrency, rate, kind) {
                (Some(_), _, _) | (None, None, None) => String::new(),
                (None, Some(_), kind) => format!("arrivals={}", kind.unwrap_or("rate")),
                (None, None, Some(kind)) => format!("load={kind}"),
            };
            let middle = |metric: &str| -> anyhow::Result<Option<f64>> {
                let path = format!("metrics.{metric}.successful");
                match run.figure(&format!("{path}.median"))? {
                    Some(median) => Ok(Some(median)),
                    None => run.figure(&format!("{path}.percentiles.p50")),
                }
            };
            let tail = |metric: &str, percent: f64| -> anyhow::Result<Option<f64>> {
                let path = format!("metrics.{metric}.successful");
                let count = run.whole(&format!("{path}.count"))?;
                let value = run.figure(&format!("{path}.percentiles.p{percent}"))?;
                Ok(borne(value, percent, count))
            };
            let mean = |metric: &str| run.figure(&format!("metrics.{metric}.successful.mean"));
            let size = |metric: &str| -> anyhow::Result<u32> {
                Ok(mean(metric)?.map_or(0, |tokens| tokens.round() as u32))
            };
            let ms = |value: Option<f64>| value.map(|ms| ms * 1e6);
            let record = Record {
                started: started(run.number("scheduler_metrics.start_time")?),
                prompt_tokens: size("prompt_token_count")?,
                new_tokens: size("output_token_count")?,
                batch: 1,
                concurrency,
                rate_per_s: rate.filter(|_| concurrency.is_none()),
                settings,
                ttft_ns_median: ms(middle("time_to_first_token_ms")?),
                ttft_ns_p95: ms(tail("time_to_first_token_ms", 95.0)?),
                ttft_ns_p99: ms(tail("time_to_first_token_ms", 99.0)?),
                decode_tok_s_median: middle("inter_token_latency_ms")?.map(|ms| 1e3 / ms),
                e2e_ns_median: middle("request_latency")?.map(|seconds| seconds * 1e9),
                system_tok_s_median: mean("output_tokens_per_second")?,
                slo_attainment: run.number("metrics.slo_attainment")?,
                goodput_per_s: mean("request_goodput")?,
                ..Record::default()
            };
            let mut absent = absent();
            absent.push((
                "itl_ns",
                "one value for each request is stated, which hides a pause".to_owned(),
            ));
            let totals = |status: &str| run.whole(&format!("metrics.request_totals.{status}"));
            failures(&mut absent, totals("errored")?, totals("total")?);
            all.push(Found {
                record,
                model,
                notes: vec![
                    "decode_tok_s: 1 / median of the requests' inter-token latencies",
                    whole_run(),
                ],
                absent,
                ..Found::default()
            });
        }
    }
    Ok(all)
}

/// Reads AIPerf's summary (`profile_export_aiperf.json`, schema 1).
pub fn aiperf(documents: &[(usize, &Value)], name: &str) -> anyhow::Result<Vec<Found>> {
    let mut all = Vec::new();
    for (line, value) in documents {
        let root = Field::root(value, format!("{name}:{line}"));
        // A time in nanoseconds, whatever the unit that the file states beside it.
        let time = |metric: &str, statistic: &str| -> anyhow::Result<Option<f64>> {
            let Some(value) = root.figure(&format!("{metric}.{statistic}"))? else {
                return Ok(None);
            };
            let unit = root.text(&format!("{metric}.unit"))?.unwrap_or_default();
            let factor = match unit {
                "ns" | "nanoseconds" => 1.0,
                "us" | "microseconds" => 1e3,
                "ms" | "milliseconds" => 1e6,
                "s" | "sec" | "seconds" => 1e9,
                _ => {
                    bail!("{name}:{line}: '{metric}.unit': '{unit}' is no unit of time known here")
                }
            };
            Ok(Some(value * factor))
        };
        let count = root.whole("request_count.avg")?;
        let tail = |metric: &str, percent: f64| -> anyhow::Result<Option<f64>> {
            let count = root.whole(&format!("{metric}.count"))?.or(count);
            Ok(borne(time(metric, &format!("p{percent}"))?, percent, count))
        };
        let mut model = root.text("input_config.model")?.map(str::to_owned);
        for path in ["input_config.models.items", "input_config.endpoint.model_names"] {
            if let (None, Some(item)) = (&model, root.list(path)?.first()) {
                model = Some(match item.text("name") {
                    Ok(Some(name)) => name.to_owned(),
                    _ => item.as_text()?.to_owned(),
                });
            }
        }
        let mut concurrency = root.tokens("input_config.loadgen.concurrency")?;
        let mut rate = root.number("input_config.loadgen.request_rate")?;
        for phase in root.list("input_config.phases")? {
            if phase.text("name")? != Some("warmup") && !phase.is_on("exclude_from_results")? {
                concurrency = concurrency.or(phase.tokens("concurrency")?);
                rate = rate.or(phase.number("rate")?);
            }
        }
        let size = |metric: &str| root.tokens(&format!("{metric}.avg"));
        let record = Record {
            started: root.text("start_time")?.unwrap_or_default().to_owned(),
            prompt_tokens: size("input_sequence_length")?.unwrap_or(0),
            new_tokens: size("output_sequence_length")?.unwrap_or(0),
            batch: 1,
            concurrency: concurrency.filter(|_| rate.is_none()),
            rate_per_s: rate,
            ttft_ns_median: time("time_to_first_token", "p50")?,
            ttft_ns_p95: tail("time_to_first_token", 95.0)?,
            ttft_ns_p99: tail("time_to_first_token", 99.0)?,
            decode_tok_s_median: root.figure("output_token_throughput_per_user.p50")?,
            e2e_ns_median: time("request_latency", "p50")?,
            system_tok_s_median: root.figure("output_token_throughput.avg")?,
            goodput_per_s: root.figure("goodput.avg")?,
            ..Record::default()
        };
        let mut absent = absent();
        absent.push(("itl_ns", "one value for each request is stated, which hides a pause".into()));
        let failed = root.whole("error_request_count.avg")?;
        failures(&mut absent, failed, count.zip(failed).map(|(a, b)| a + b));
        if root.at("is_complete").is_some() && !root.is_on("is_complete")? {
            absent.push(("requests", "the tool says that its run is not complete".to_owned()));
        }
        all.push(Found {
            record,
            model: model.unwrap_or_default(),
            notes: vec![whole_run()],
            absent,
            ..Found::default()
        });
    }
    Ok(all)
}

/// Reads what `vllm bench serve --save-result` writes: one object, or with `--append-result` several.
pub fn vllm(documents: &[(usize, &Value)], name: &str) -> anyhow::Result<Vec<Found>> {
    let mut all = Vec::new();
    for (line, value) in documents {
        let root = Field::root(value, format!("{name}:{line}"));
        let completed = root.needed("completed", root.whole("completed")?)?;
        let (input, output) =
            (root.figure("total_input_tokens")?, root.figure("total_output_tokens")?);
        let each = |total: Option<f64>| {
            total.filter(|_| completed > 0).map_or(0, |n| (n / completed as f64).round() as u32)
        };
        let gaps = output.map(|tokens| (tokens as u64).saturating_sub(completed));
        let ms =
            |key: &str| -> anyhow::Result<Option<f64>> { Ok(root.figure(key)?.map(|ms| ms * 1e6)) };
        let mut absent = absent();
        let client = root.text("backend")?.unwrap_or_default();
        // Its client of chats takes the first chunk, which may carry a role and no token, for the
        // first token: 2.6 ms for a true 200. That of completions has no such chunk.
        let completions = ["vllm", "openai"].contains(&client);
        if !completions {
            let reason = format!(
                "the client '{client}' may take a first chunk without a token for the first token"
            );
            absent.push(("ttft_ns, decode_tok_s", reason));
        }
        let first = |value: Option<f64>| value.filter(|_| completions);
        let rate = match root.at("request_rate") {
            Some(field) if field.as_text().is_ok_and(|text| text == "inf") => None,
            Some(field) => Some(field.as_number()?),
            None => None,
        };
        let concurrency = root.tokens("max_concurrency")?;
        let settings = match (rate, concurrency) {
            (Some(_), Some(users)) => format!("max_concurrency={users}"),
            (Some(_), None) | (None, Some(_)) => String::new(),
            (None, None) => "load=all-at-once".to_owned(),
        };
        let record = Record {
            started: date(root.text("date")?.unwrap_or_default()),
            prompt_tokens: each(input),
            new_tokens: each(output),
            batch: 1,
            concurrency: concurrency.filter(|_| rate.is_none()),
            rate_per_s: rate,
            settings,
            ttft_ns_median: first(ms("median_ttft_ms")?),
            ttft_ns_p95: first(borne(ms("p95_ttft_ms")?, 95.0, Some(completed))),
            ttft_ns_p99: first(borne(ms("p99_ttft_ms")?, 99.0, Some(completed))),
            decode_tok_s_median: first(root.figure("median_tpot_ms")?.map(|ms| 1e3 / ms)),
            e2e_ns_median: ms("median_e2el_ms")?,
            itl_ns_p50: ms("median_itl_ms")?,
            itl_ns_p95: borne(ms("p95_itl_ms")?, 95.0, gaps),
            itl_ns_p99: borne(ms("p99_itl_ms")?, 99.0, gaps),
            system_tok_s_median: root.figure("output_throughput")?,
            goodput_per_s: root.figure("request_goodput")?,
            ..Record::default()
        };
        let failed = root.whole("failed")?;
        failures(&mut absent, failed, failed.map(|failed| failed + completed));
        all.push(Found {
            record,
            model: root.text("model_id")?.unwrap_or_default().to_owned(),
            notes: vec!["decode_tok_s: 1 / median of the requests' TPOT", whole_run()],
            absent,
            ..Found::default()
        });
    }
    Ok(all)
}

fn failures(absent: &mut Vec<(&'static str, String)>, failed: Option<u64>, all: Option<u64>) {
    if let Some(failed) = failed.filter(|failed| *failed > 0) {
        let all = all.map_or_else(String::new, |all| format!(" of {all}"));
        absent.push(("requests", format!("{failed}{all} failed, and are in no figure")));
    }
}

/// Seconds since 1970 as the time of a row; empty where there are none.
fn started(seconds: Option<f64>) -> String {
    let time = seconds.and_then(|s| jiff::Timestamp::from_second(s as i64).ok());
    time.map_or_else(String::new, |t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// vLLM's `20261121-100043`, in the zone of its machine, with dashes and colons.
fn date(text: &str) -> String {
    let digits: Vec<char> = text.chars().filter(char::is_ascii_digit).collect();
    if digits.len() != 14 || text.len() != 15 {
        return text.to_owned();
    }
    let part = |range: std::ops::Range<usize>| digits[range].iter().collect::<String>();
    format!(
        "{}-{}-{}T{}:{}:{}",
        part(0..4),
        part(4..6),
        part(6..8),
        part(8..10),
        part(10..12),
        part(12..14)
    )
}
