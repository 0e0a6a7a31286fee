//! Requests as somebody recorded them.

use anyhow::{Context, bail};
use serde::Deserialize;

use super::Recorded;
use crate::units::{Nanos, Tokens};

/// A line of a Mooncake trace: <https://github.com/kvcache-ai/Mooncake>, times in milliseconds.
#[derive(Deserialize)]
struct MooncakeLine {
    timestamp: f64,
    input_length: u32,
    output_length: u32,
}

/// A row of a CSV trace.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CsvLine {
    arrival_s: f64,
    prompt_tokens: u32,
    new_tokens: u32,
}

/// Reads a trace: Mooncake's JSON lines, or CSV with `arrival_s,prompt_tokens,new_tokens`. Errors
/// name the line.
pub fn read_trace(text: &str) -> anyhow::Result<Vec<Recorded>> {
    let mut rows = Vec::new();
    if text.trim_start().starts_with('{') {
        for (i, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let row: MooncakeLine = serde_json::from_str(line)
                .with_context(|| format!("line {}: no line of a Mooncake trace", i + 1))?;
            let seconds = row.timestamp / 1e3;
            rows.push(recorded(i + 1, seconds, row.input_length, row.output_length)?);
        }
    } else {
        let mut reader =
            csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
        for row in reader.deserialize() {
            let row: CsvLine = row.context("no trace of arrival_s,prompt_tokens,new_tokens")?;
            let line = rows.len() + 2;
            rows.push(recorded(line, row.arrival_s, row.prompt_tokens, row.new_tokens)?);
        }
    }
    if rows.is_empty() {
        bail!("the trace has no request");
    }
    Ok(rows)
}

fn recorded(line: usize, seconds: f64, prompt: u32, answer: u32) -> anyhow::Result<Recorded> {
    if !(0.0..=1e9).contains(&seconds) {
        bail!("line {line}: a time of {seconds} s; times are at least 0");
    }
    if prompt == 0 || answer == 0 {
        bail!("line {line}: {prompt} prompt tokens and {answer} new tokens; both must be above 0");
    }
    Ok(Recorded {
        start: Nanos::from_seconds(seconds),
        prompt_tokens: Tokens(prompt),
        new_tokens: Tokens(answer),
    })
}

#[cfg(test)]
mod tests {
    use super::super::{Length, Limit, Source, Workload};
    use super::*;

    #[test]
    fn both_forms_of_a_trace_say_the_same() {
        let csv = "arrival_s,prompt_tokens,new_tokens\n5.5,100,20\n 6.0, 7, 8\n";
        let jsonl = "{\"timestamp\": 5500, \"input_length\": 100, \"output_length\": 20, \
                     \"hash_ids\": [1]}\n{\"timestamp\": 6000, \"input_length\": 7, \
                     \"output_length\": 8, \"hash_ids\": []}\n";
        let rows = read_trace(csv).unwrap();
        assert_eq!(rows, read_trace(jsonl).unwrap());
        let plan = Workload {
            source: Source::Trace(rows),
            prompt: Length::Fixed(Tokens(1)),
            answer: Length::Fixed(Tokens(1)),
            turns: 1,
            context: Tokens(1000),
            limit: Limit::Requests(10),
        };
        let plan = plan.plan(1).unwrap();
        assert_eq!((plan[0].start, plan[1].start), (Nanos(0), Nanos(500_000_000)));
    }

    #[test]
    fn a_bad_line_of_a_trace_is_named() {
        let error = |text: &str| format!("{:#}", read_trace(text).unwrap_err());
        let head = "arrival_s,prompt_tokens,new_tokens\n";
        assert!(error(&format!("{head}1,2,3\n-1,2,3\n")).contains("line 3"));
        assert!(error(&format!("{head}1,0,3\n")).contains("line 2"));
        assert!(error(&format!("{head}1,x,3\n")).contains("line: 2"));
        assert!(error("{\"timestamp\": 1}\n").contains("line 1"));
        assert!(error("").contains("no request"));
    }
}
