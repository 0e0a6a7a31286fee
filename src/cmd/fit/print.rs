//! The answers of `bench fit` as a table, Markdown, CSV or JSON.

use std::io::Write;

use crate::cmd::run::Format;
use crate::fit::answer::{Answer, Estimate, Verdict};
use crate::fit::basis::Basis;
use crate::report::markdown::Markdown;
use crate::report::terminal::Terminal;
use crate::report::{Render, Report, Section, Table};
use crate::units::{self, Nanos, Tokens, TokensPerSecond, significant};

/// One line of the answer.
pub struct Line {
    /// The machine's name.
    pub machine: String,
    /// The model's id.
    pub model: String,
    /// Its quantisation.
    pub quant: String,
    /// Tokens for each user.
    pub context: Tokens,
    /// Users at once.
    pub users: u32,
    /// What came of it.
    pub answer: Answer,
}

/// `52.1 [44.0, 58.3]`.
fn shown<T: Copy>(estimate: Option<Estimate<T>>, number: impl Fn(T) -> f64) -> String {
    estimate.map_or_else(
        || units::ABSENT.to_owned(),
        |e| {
            let n = |v| significant(number(v), 2);
            format!("{} [{}, {}]", significant(number(e.value), 3), n(e.low), n(e.high))
        },
    )
}

/// On what the speeds rest: one word where it is the same for both.
fn basis(answer: &Answer) -> String {
    match (answer.prefill.map(|e| e.basis), answer.decode.map(|e| e.basis)) {
        (Some(prefill), Some(decode)) if prefill != decode => {
            format!("prefill {prefill}, decode {decode}")
        }
        (_, Some(basis)) | (Some(basis), None) => basis.to_string(),
        (None, None) => units::ABSENT.to_owned(),
    }
}

fn verdict_words(answer: &Answer) -> String {
    match &answer.verdict {
        Verdict::Fits if answer.counts.is_empty() => "fully".to_owned(),
        Verdict::Fits => {
            let counts: Vec<String> = answer.counts.iter().map(u32::to_string).collect();
            format!("fully ({} layers)", counts.join(" + "))
        }
        Verdict::ExpertsOnCpu { layers, of } => {
            format!("experts of {layers} of {of} layers on the CPU ({})", answer.on_host)
        }
        Verdict::Partly { layers, of } => {
            format!("{} of {of} layers on the CPU ({})", of - layers, answer.on_host)
        }
        Verdict::DoesNotFit { short_by } => format!("no, {short_by} short"),
        Verdict::Unknown(reason) => format!("unknown: {reason}"),
    }
}

/// Prints `lines`.
pub fn print(lines: &[Line], notes: &[String], format: Format) -> anyhow::Result<()> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match format {
        Format::Table => Terminal::default().render(&report(lines, notes), &mut out)?,
        Format::Markdown => Markdown.render(&report(lines, notes), &mut out)?,
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(&mut out);
            writer.write_record(COLUMNS)?;
            for line in lines {
                writer.write_record(cells(line))?;
            }
            writer.flush()?;
        }
        Format::Json => {
            let objects: Vec<serde_json::Map<String, serde_json::Value>> =
                lines.iter().map(object).collect();
            serde_json::to_writer_pretty(&mut out, &objects)?;
            out.write_all(b"\n")?;
        }
    }
    out.flush()?;
    Ok(())
}

fn report(lines: &[Line], here: &[String]) -> Report {
    let many = lines.iter().any(|l| l.users > 1);
    let pooled = lines.iter().any(|l| l.answer.pool.is_some());
    let mut columns = vec![
        "machine",
        "model",
        "quant",
        ">context",
        ">weights",
        ">KV",
        ">compute",
        ">total",
        "fits",
        ">longest",
        ">prefill tok/s",
        ">TTFT s",
        ">decode tok/s",
        "basis",
    ];
    if many {
        columns.push(">all users tok/s");
    }
    if pooled {
        columns.extend([">tokens in the pool", ">requests at once"]);
    }
    let mut table = Table::new(&columns);
    let mut remarks: Vec<&str> = Vec::new();
    for line in lines {
        let a = &line.answer;
        let mut row = vec![
            line.machine.clone(),
            line.model.clone(),
            line.quant.clone(),
            line.context.to_string(),
            a.memory.weights.to_string(),
            a.memory.cache.to_string(),
            a.memory.compute.to_string(),
            a.needed.to_string(),
            verdict_words(a),
            units::or_absent(a.longest_context),
            shown(a.prefill, |v| v.0),
            shown(a.ttft, Nanos::seconds),
            shown(a.decode, |v| v.0),
            basis(a),
        ];
        if many {
            row.push(shown(a.system, |v| v.0));
        }
        if pooled {
            let pool = a.pool.as_ref();
            row.push(pool.map_or_else(|| units::ABSENT.to_owned(), |p| units::grouped(p.tokens)));
            let absent = || units::ABSENT.to_owned();
            row.push(pool.map_or_else(absent, |p| significant(p.concurrency, 3)));
        }
        table.rows.push(row);
        for remark in &a.remarks {
            if !remarks.contains(&&**remark) {
                remarks.push(remark);
            }
        }
    }
    let mut notes = vec![
        "speeds are value [low, high], the interval that holds four of five measurements, at a full \
         context; predicted: from what others published, for devices that were not seen \
         (reports/accuracy.md); calibrated: by this machine's records of other cases; measured: the \
         very case was run here"
            .to_owned(),
    ];
    notes.extend_from_slice(here);
    notes.extend(room_note(lines));
    notes.extend(remarks.into_iter().map(str::to_owned));
    Report {
        title: String::new(),
        sections: vec![Section { table: Some(table), notes, ..Section::default() }],
    }
}

/// What each machine has for models, and why not more: the reason of every "no".
fn room_note(lines: &[Line]) -> Option<String> {
    const MOST: usize = 4;
    let mut rooms: Vec<String> = Vec::new();
    for line in lines {
        if let Some((bytes, why)) = line.answer.usable {
            let room = format!("{} {bytes} ({why})", line.machine);
            if !rooms.contains(&room) {
                rooms.push(room);
            }
        }
        if rooms.len() > MOST {
            return None;
        }
    }
    (!rooms.is_empty()).then(|| format!("room for models: {}", rooms.join("; ")))
}

const COLUMNS: [&str; 33] = [
    "machine",
    "model",
    "quant",
    "context_tokens",
    "users",
    "weights_bytes",
    "lookup_bytes",
    "kv_bytes",
    "compute_bytes",
    "total_bytes",
    "usable_bytes",
    "usable_reason",
    "host_bytes",
    "fits",
    "longest_context_tokens",
    "prefill_tok_s",
    "prefill_tok_s_low",
    "prefill_tok_s_high",
    "ttft_s",
    "ttft_s_low",
    "ttft_s_high",
    "decode_tok_s",
    "decode_tok_s_low",
    "decode_tok_s_high",
    "system_tok_s",
    "system_tok_s_low",
    "system_tok_s_high",
    "pool_tokens",
    "requests_at_once",
    "prefill_basis",
    "decode_basis",
    "system_basis",
    "remarks",
];

fn cells(line: &Line) -> Vec<String> {
    let a = &line.answer;
    let mut row = vec![
        line.machine.clone(),
        line.model.clone(),
        line.quant.clone(),
        line.context.0.to_string(),
        line.users.to_string(),
        a.memory.weights.0.to_string(),
        a.memory.lookup.0.to_string(),
        a.memory.cache.0.to_string(),
        a.memory.compute.0.to_string(),
        a.needed.0.to_string(),
        a.usable.map_or_else(String::new, |(b, _)| b.0.to_string()),
        a.usable.map_or_else(String::new, |(_, why)| why.to_owned()),
        if a.on_host.0 > 0 { a.on_host.0.to_string() } else { String::new() },
        verdict_words(a),
        a.longest_context.map_or_else(String::new, |t| t.0.to_string()),
    ];
    let mut three = |values: Option<[f64; 3]>| match values {
        Some(values) => row.extend(values.map(|v| significant(v, 4))),
        None => row.extend([const { String::new() }; 3]),
    };
    let speed = |e: Estimate<TokensPerSecond>| [e.value.0, e.low.0, e.high.0];
    three(a.prefill.map(speed));
    three(a.ttft.map(|e| [e.value.seconds(), e.low.seconds(), e.high.seconds()]));
    three(a.decode.map(speed));
    three(a.system.map(speed));
    let pool = a.pool.as_ref();
    row.push(pool.map_or_else(String::new, |p| p.tokens.to_string()));
    row.push(pool.map_or_else(String::new, |p| significant(p.concurrency, 4)));
    let basis = |basis: Option<Basis>| basis.map_or_else(String::new, |b| b.to_string());
    row.push(basis(a.prefill.map(|e| e.basis)));
    row.push(basis(a.decode.map(|e| e.basis)));
    row.push(basis(a.system.map(|e| e.basis)));
    row.push(a.remarks.join("; "));
    row
}

fn object(line: &Line) -> serde_json::Map<String, serde_json::Value> {
    COLUMNS
        .iter()
        .zip(cells(line))
        .filter(|(_, cell)| !cell.is_empty())
        .map(|(name, cell)| {
            let is_text = matches!(
                *name,
                "machine"
                    | "model"
                    | "quant"
                    | "usable_reason"
                    | "fits"
                    | "prefill_basis"
                    | "decode_basis"
                    | "system_basis"
                    | "remarks"
            );
            let value = match cell.parse::<serde_json::Number>() {
                Ok(number) if !is_text => serde_json::Value::Number(number),
                _ => serde_json::Value::String(cell),
            };
            ((*name).to_owned(), value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::models;
    use crate::fit::answer::{self, Question};
    use crate::fit::machine::Machine;
    use crate::fit::memory::Layout;
    use crate::model::quant::Quant;

    fn line(machine: &str, model: &str, engine: &str) -> Line {
        let machine = Machine::parse(machine, &[]).unwrap();
        let spec = models::find(model).unwrap();
        let question = Question::new(Layout::default(), engine);
        let answer = answer::ask(&machine, spec, Quant::Q4KM, &question).unwrap();
        Line {
            machine: machine.name,
            model: spec.id.clone(),
            quant: "Q4_K_M".to_owned(),
            context: Tokens(4096),
            users: 1,
            answer,
        }
    }

    #[test]
    fn every_line_has_a_cell_for_every_column() {
        let line = line("rtx-5090", "llama-3.1-70b", "llama.cpp");
        assert!(matches!(line.answer.verdict, Verdict::Partly { .. }), "{:?}", line.answer);
        assert_eq!(cells(&line).len(), COLUMNS.len());
        assert_eq!(object(&line)["decode_basis"], "predicted");
    }

    #[test]
    fn a_verdict_says_what_lies_where() {
        let words = |machine, model| verdict_words(&line(machine, model, "llama.cpp").answer);
        assert_eq!(words("rtx-4090", "qwen3-8b"), "fully");
        assert!(words("2x rtx-5090", "llama-3.1-70b").starts_with("fully (4"));
        assert!(words("rtx-4090", "gpt-oss-120b").starts_with("experts of "));
        let words_of = words("rtx-5090", "llama-3.1-70b");
        assert!(words_of.contains(" of 80 layers on the CPU ("), "{words_of}");
        assert!(words_of.ends_with(" GiB)"), "{words_of}");
        assert!(words("apple-m1", "llama-3.1-70b").starts_with("no, "));
    }

    #[test]
    fn a_pool_is_shown_with_its_tokens_and_requests() {
        let line = line("rtx-4090", "llama-3.1-8b", "vllm");
        let object = object(&line);
        assert!(object["pool_tokens"].as_u64().unwrap() > 50_000, "{object:?}");
        assert!(object["requests_at_once"].as_f64().unwrap() > 10.0);
        let report = report(&[line], &[]);
        let columns = &report.sections[0].table.as_ref().unwrap().columns;
        assert!(columns.iter().any(|c| c.name == "requests at once"));
    }
}
