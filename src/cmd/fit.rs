//! `bench fit`: which models fit on which machines, and how fast they are there.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail, ensure};

use crate::catalog::hardware::Device;
use crate::catalog::models::{self, ModelSpec};
use crate::catalog::own;
use crate::fit::answer::{self, Answer, Candidate, Estimate, Question, Verdict};
use crate::fit::basis::Basis;
use crate::fit::file;
use crate::fit::machine::Machine;
use crate::fit::memory::{self, Layout, Plan, Weights};
use crate::fit::work::Work;
use crate::fit::{claims, constants};
use crate::model::Tensor;
use crate::model::gguf::Header;
use crate::model::quant::{Quant, TensorType};
use crate::report::markdown::Markdown;
use crate::report::terminal::Terminal;
use crate::report::{Render, Report, Section, Table};
use crate::units::{self, Tokens, TokensPerSecond, significant};

use super::here::Here;
use super::run::Format;

/// Flags of `bench fit`.
#[derive(Debug, clap::Args)]
pub struct FitArgs {
    /// A machine: `rtx-5090`, `2x rtx-5090`, `rtx-4090 + rtx-3060-12gb`, or `all`; this machine
    /// where it is left out
    #[arg(long, short, value_name = "MACHINE", value_delimiter = ',')]
    device: Vec<String>,
    /// A model of the catalogue, or `all`
    #[arg(long, short, value_name = "MODEL", value_delimiter = ',', default_value = "all")]
    model: Vec<String>,
    /// A model file, of which only the header is read
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    gguf: Option<PathBuf>,
    /// Quantisations, or `all`
    #[arg(long, short, value_name = "QUANT", value_delimiter = ',', default_value = "Q4_K_M")]
    quant: Vec<String>,
    /// Tokens that each user has room for: `8k,32k,128k`
    #[arg(long, short, value_name = "TOKENS", value_delimiter = ',', default_value = "8k")]
    context: Vec<String>,
    /// Users at once, each with a slot of its own
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    users: u32,
    /// Type of cached keys and values
    #[arg(long, value_name = "TYPE", default_value = "f16")]
    kv_type: String,
    /// The engine: llama.cpp, ollama or mlx
    #[arg(long, value_name = "ENGINE", default_value = "llama.cpp")]
    engine: String,
    /// Results of this machine to calibrate by: folders that `bench run` made; all of this machine
    /// in results/ where it is left out, `none` for none
    #[arg(long, value_name = "DIR", value_delimiter = ',', conflicts_with = "device")]
    records: Vec<PathBuf>,
    /// Your own devices and prices, a TOML file
    #[arg(long, value_name = "FILE")]
    catalog: Option<PathBuf>,
    /// Leave out what generates more slowly
    #[arg(long, value_name = "TOK/S")]
    min_tok_s: Option<f64>,
    /// Leave out what does not fit completely
    #[arg(long)]
    fitting: bool,
    /// Check what articles claim about sizes and memory instead, as Markdown
    #[arg(long)]
    claims: bool,
    /// How to write the table
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

/// One line of the answer.
struct Line {
    machine: String,
    model: String,
    quant: String,
    context: Tokens,
    users: u32,
    answer: Answer,
}

/// A model with its tensors, made once for all machines.
struct Prepared {
    spec: ModelSpec,
    quant: String,
    weights: Weights,
    work: Work,
}

/// Runs the subcommand.
pub fn run(args: &FitArgs) -> anyhow::Result<ExitCode> {
    if args.claims {
        return print_claims();
    }
    let kv_type = kv_type(&args.kv_type)?;
    let here = args.device.is_empty().then(|| Here::look(&args.records)).transpose()?;
    let own = here.as_ref().map(|here| &here.own);
    ensure!(
        crate::fit::speed::ENGINES.contains(&args.engine.as_str())
            || own.is_some_and(|own| own.constants(&args.engine).is_some()),
        "unknown engine '{}'; predictions are for {}, and on this machine for those that \
         `bench run` has measured",
        args.engine,
        crate::fit::speed::ENGINES.join(", ")
    );
    let contexts: Vec<Tokens> =
        args.context.iter().map(|c| tokens(c)).collect::<anyhow::Result<_>>()?;
    let machines = match &here {
        Some(here) => vec![here.machine.clone()],
        None => machines(&args.device, &own_devices(args.catalog.as_deref())?)?,
    };
    let mut lines = Vec::new();
    for prepared in prepare(args)? {
        for &context in &contexts {
            if context.0 > prepared.spec.context_max {
                continue;
            }
            let layout =
                Layout { slots: args.users, slot_tokens: context, kv_type, ..Layout::default() };
            let candidate = Candidate {
                spec: &prepared.spec,
                weights: prepared.weights,
                plan: Plan::new(&prepared.spec, &layout),
                work: &prepared.work,
            };
            let question = Question { layout, engine: args.engine.clone() };
            for machine in &machines {
                let published = constants::embedded();
                let answer = match own {
                    Some(own) => {
                        own.answer(&candidate, &prepared.quant, machine, &question, published)
                    }
                    None => answer::answer(&candidate, machine, &question, published),
                };
                if is_wanted(&answer, args) {
                    lines.push(Line {
                        machine: machine.name.clone(),
                        model: prepared.spec.id.clone(),
                        quant: prepared.quant.clone(),
                        context,
                        users: args.users,
                        answer,
                    });
                }
            }
        }
    }
    if lines.is_empty() {
        eprintln!("nothing matches; try a shorter --context, another --quant or no --min-tok-s");
    }
    print(&lines, here.as_ref().map_or(&[], |here| &here.notes), args.format)?;
    Ok(ExitCode::SUCCESS)
}

fn print_claims() -> anyhow::Result<ExitCode> {
    let mut table = Table::new(&["claim", "", ">value", "unit", "we compute", "verdict"]);
    for checked in claims::check_all()? {
        let claim = checked.claim;
        table.rows.push(vec![
            claim.id,
            claim.claim,
            claim.value,
            claim.unit,
            checked.computed,
            checked.finding.name().to_owned(),
        ]);
    }
    let text = "Numbers that articles about local models state, and what this program computes for \
                them: right within 5 %, roughly within 20 %. Made by `bench fit --claims`.";
    let section = Section {
        heading: "Sizes and memory".to_owned(),
        text: vec![text.to_owned()],
        table: Some(table),
        ..Section::default()
    };
    let report = Report { title: "Claims".to_owned(), sections: vec![section] };
    Markdown.render(&report, &mut std::io::stdout().lock())?;
    Ok(ExitCode::SUCCESS)
}

fn is_wanted(answer: &Answer, args: &FitArgs) -> bool {
    let fast = args.min_tok_s.is_none_or(|least| {
        answer.decode.is_some_and(|d: Estimate<TokensPerSecond>| d.value.0 >= least)
    });
    fast && (!args.fitting || answer.verdict == Verdict::Fits)
}

/// `8k` is 8,192 tokens.
pub fn tokens(text: &str) -> anyhow::Result<Tokens> {
    let lower = text.trim().to_lowercase();
    let (digits, unit) = match lower.strip_suffix('k') {
        Some(digits) => (digits, 1024),
        None => match lower.strip_suffix('m') {
            Some(digits) => (digits, 1024 * 1024),
            None => (lower.as_str(), 1),
        },
    };
    let number: u32 = digits
        .parse()
        .with_context(|| format!("'{text}' is no number of tokens; write 8192 or 8k"))?;
    match number.checked_mul(unit) {
        Some(tokens) if tokens > 0 => Ok(Tokens(tokens)),
        _ => bail!("'{text}' is no number of tokens that a context can have; write 8192 or 8k"),
    }
}

fn kv_type(word: &str) -> anyhow::Result<TensorType> {
    Ok(match word.to_lowercase().as_str() {
        "f32" => TensorType::F32,
        "f16" => TensorType::F16,
        "bf16" => TensorType::BF16,
        "q8_0" => TensorType::Q8_0,
        "q5_1" => TensorType::Q5_1,
        "q5_0" => TensorType::Q5_0,
        "q4_1" => TensorType::Q4_1,
        "q4_0" => TensorType::Q4_0,
        "iq4_nl" => TensorType::Iq4Nl,
        _ => bail!("unknown KV type '{word}'; use f16, q8_0, q4_0, f32, bf16, q5_0, q5_1 or q4_1"),
    })
}

/// The devices of the user's own file.
pub fn own_devices(path: Option<&Path>) -> anyhow::Result<Vec<Device>> {
    let Some(path) = path else { return Ok(Vec::new()) };
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    own::read(path, &text)
}

fn machines(words: &[String], own: &[Device]) -> anyhow::Result<Vec<Machine>> {
    if words.iter().any(|w| w == "all") {
        let all = own.iter().chain(crate::catalog::hardware::all());
        return all.map(|d| Machine::parse(&d.id, own)).collect();
    }
    words.iter().map(|w| Machine::parse(w, own)).collect()
}

fn prepare(args: &FitArgs) -> anyhow::Result<Vec<Prepared>> {
    if let Some(path) = &args.gguf {
        let header = Header::read(path)?;
        let spec = file::spec(&header).with_context(|| path.display().to_string())?;
        let tensors: Vec<Tensor> = header.tensors.iter().map(|t| t.tensor.clone()).collect();
        let packing = file::packing(&tensors);
        let work = Work::of_tensors(&spec, &tensors, packing);
        let quant = packing.name().to_owned();
        return Ok(vec![Prepared { spec, quant, weights: Weights::of(&tensors), work }]);
    }
    let every = |words: &[String]| words.iter().any(|w| w == "all");
    let specs: Vec<&ModelSpec> = if every(&args.model) {
        models::all().iter().collect()
    } else {
        args.model.iter().map(|m| models::find(m)).collect::<anyhow::Result<_>>()?
    };
    let quants: Vec<Quant> = if every(&args.quant) {
        Quant::ALL.to_vec()
    } else {
        args.quant.iter().map(|q| q.parse()).collect::<anyhow::Result<_>>()?
    };
    let single = !every(&args.model) && args.model.len() == 1;
    let mut prepared = Vec::new();
    for spec in specs {
        for &quant in &quants {
            match memory::tensors(spec, quant) {
                Ok(tensors) => prepared.push(Prepared {
                    spec: spec.clone(),
                    quant: quant.to_string(),
                    weights: Weights::of(&tensors),
                    work: Work::of_tensors(spec, &tensors, file::packing(&tensors)),
                }),
                Err(error) if single && quants.len() == 1 => return Err(error),
                Err(error) => eprintln!("left out: {error:#}"),
            }
        }
    }
    Ok(prepared)
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

fn verdict_words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Fits => "fully".to_owned(),
        Verdict::Partly { layers, of } => format!("{} of {of} layers on the CPU", of - layers),
        Verdict::DoesNotFit { short_by } => format!("no, {short_by} short"),
        Verdict::Unknown(reason) => format!("unknown: {reason}"),
    }
}

fn print(lines: &[Line], notes: &[String], format: Format) -> anyhow::Result<()> {
    let out = &mut std::io::stdout().lock();
    match format {
        Format::Table => Terminal::default().render(&report(lines, notes), out)?,
        Format::Markdown => Markdown.render(&report(lines, notes), out)?,
        Format::Csv => {
            let mut writer = csv::Writer::from_writer(out);
            writer.write_record(COLUMNS)?;
            for line in lines {
                writer.write_record(cells(line))?;
            }
            writer.flush()?;
        }
        Format::Json => {
            let objects: Vec<serde_json::Map<String, serde_json::Value>> =
                lines.iter().map(object).collect();
            serde_json::to_writer_pretty(&mut *out, &objects)?;
            std::io::Write::write_all(out, b"\n")?;
        }
    }
    Ok(())
}

fn report(lines: &[Line], here: &[String]) -> Report {
    let many = lines.iter().any(|l| l.users > 1);
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
    let mut table = Table::new(&columns);
    let mut remarks: Vec<String> = Vec::new();
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
            verdict_words(&a.verdict),
            units::or_absent(a.longest_context),
            shown(a.prefill, |v| v.0),
            shown(a.ttft, units::Nanos::seconds),
            shown(a.decode, |v| v.0),
            basis(a),
        ];
        if many {
            row.push(shown(a.system, |v| v.0));
        }
        table.rows.push(row);
        for remark in &a.remarks {
            if !remarks.contains(remark) {
                remarks.push(remark.clone());
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
    notes.extend(remarks);
    Report {
        title: String::new(),
        sections: vec![Section { table: Some(table), notes, ..Section::default() }],
    }
}

const COLUMNS: [&str; 27] = [
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
    "prefill_basis",
    "decode_basis",
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
        verdict_words(&a.verdict),
        a.longest_context.map_or_else(String::new, |t| t.0.to_string()),
    ];
    let mut three = |values: Option<[f64; 3]>| match values {
        Some(values) => row.extend(values.map(|v| significant(v, 4))),
        None => row.extend([const { String::new() }; 3]),
    };
    three(a.prefill.map(|e| [e.value.0, e.low.0, e.high.0]));
    three(a.ttft.map(|e| [e.value.seconds(), e.low.seconds(), e.high.seconds()]));
    three(a.decode.map(|e| [e.value.0, e.low.0, e.high.0]));
    row.push(a.system.map_or_else(String::new, |e| significant(e.value.0, 4)));
    let basis = |basis: Option<Basis>| basis.map_or_else(String::new, |b| b.to_string());
    row.push(basis(a.prefill.map(|e| e.basis)));
    row.push(basis(a.decode.map(|e| e.basis)));
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
    use crate::fit::work::Packing;

    #[test]
    fn contexts_are_read_with_their_unit() {
        assert_eq!(tokens("8k").unwrap(), Tokens(8192));
        assert_eq!(tokens("128K").unwrap(), Tokens(131_072));
        assert_eq!(tokens("1000").unwrap(), Tokens(1000));
        for bad in ["", "0", "k", "-1", "99999999m", "8kk"] {
            assert!(tokens(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_line_has_a_cell_for_every_column() {
        let machine = Machine::parse("rtx-5090", &[]).unwrap();
        let spec = models::find("llama-3.1-70b").unwrap();
        let tensors = memory::tensors(spec, Quant::Q4KM).unwrap();
        let work = Work::of_tensors(spec, &tensors, Packing::Q4K);
        let layout = Layout::default();
        let weights = Weights::of(&tensors);
        let plan = Plan::new(spec, &layout);
        let candidate = Candidate { spec, weights, plan, work: &work };
        let question = Question { layout, engine: "llama.cpp".to_owned() };
        let answer = answer::answer(&candidate, &machine, &question, constants::embedded());
        assert!(matches!(answer.verdict, Verdict::Partly { .. }), "{answer:?}");
        let line = Line {
            machine: machine.name,
            model: spec.id.clone(),
            quant: "Q4_K_M".to_owned(),
            context: Tokens(4096),
            users: 1,
            answer,
        };
        assert_eq!(cells(&line).len(), COLUMNS.len());
        assert_eq!(object(&line)["decode_basis"], "predicted");
    }
}
