//! The part of a report about what else its machines could run: predictions beside what was measured.

use std::path::PathBuf;

use crate::catalog::models;
use crate::cmd::own_results;
use crate::fit::answer::{self, Answer, Candidate, Estimate, Question, Verdict};
use crate::fit::basis::Basis;
use crate::fit::constants;
use crate::fit::machine::Machine;
use crate::fit::memory::{Layout, Plan};
use crate::fit::own::Own;
use crate::fit::packed::Packed;
use crate::model::quant::Quant;
use crate::record::{Outcome, Record};
use crate::report::publish::{Names, Source};
use crate::report::{Cell, Origin, Section, Table};
use crate::units::{
    ABSENT, Bytes, Share, Tokens, TokensPerSecond, or_absent, significant, with_ends,
};

/// The engine that predictions are for.
const ENGINE: &str = "llama.cpp";
/// The quantisation and the context that all models are asked about.
const QUANT: Quant = Quant::Q4KM;
const CONTEXT: Tokens = Tokens(8192);

/// The sections, two for each machine that is described; `folders` are those of `sources`.
pub fn sections(
    sources: &[Source],
    folders: &[PathBuf],
    with_host_names: bool,
) -> anyhow::Result<Vec<Section>> {
    let names = Names::of(sources, with_host_names);
    let mut sections = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for source in sources {
        let (Some(host), Some(first)) = (&source.host, source.records.first()) else { continue };
        if seen.contains(&first.host.as_str()) {
            continue;
        }
        seen.push(&first.host);
        let is_its = |s: &Source| {
            s.host.as_ref().is_some_and(|other| other.label == host.label)
                && s.records.first().is_some_and(|r| r.host == first.host)
        };
        let its: Vec<(&Source, &PathBuf)> =
            sources.iter().zip(folders).filter(|(source, _)| is_its(source)).collect();
        let records: Vec<&Record> = its.iter().flat_map(|(source, _)| &source.records).collect();
        let folders: Vec<PathBuf> = its.iter().map(|(_, folder)| (*folder).clone()).collect();
        let results = own_results::read(&folders)?;
        let machine = super::super::host::machine(&results.host, results.speeds.as_ref());
        let own = Own::of(&results.points, &machine, constants::embedded());
        let name = names.host(&first.host);
        sections.push(beside(&name, &machine, &records));
        sections.push(others(&name, &machine, &own, &records));
    }
    Ok(sections)
}

/// What is known of a model on the machine: with its own results, or from published ones alone.
fn ask(
    machine: &Machine,
    own: Option<&Own>,
    model: &str,
    quant: Quant,
    context: Tokens,
) -> Option<Answer> {
    let spec = models::find(model).ok()?;
    let Packed { weights, work } = &Packed::of(spec, quant).ok()?;
    let layout = Layout { slot_tokens: context, ..Layout::default() };
    let plan = Plan::new(spec, &layout);
    let candidate = Candidate { spec, weights, plan: &plan, work };
    let question = Question::new(layout, ENGINE);
    let published = constants::embedded();
    Some(match own {
        Some(own) => own.answer(&candidate, &quant.to_string(), machine, &question, published),
        None => answer::answer(&candidate, machine, &question, published),
    })
}

/// Predictions beside the measured cases, so that a reader sees how far they can be trusted.
fn beside(name: &str, machine: &Machine, records: &[&Record]) -> Section {
    let mut table = Table::new(&[
        "model",
        "quant",
        "engine",
        ">context",
        ">memory, measured",
        ">memory, predicted",
        ">decode tok/s, measured",
        ">decode tok/s, predicted",
        ">predicted / measured",
        ">of the card's bandwidth",
        ">prefill tok/s, measured",
        ">prefill tok/s, predicted",
    ]);
    let is_wanted = |r: &&&Record| {
        r.outcome == Outcome::Measured
            && r.batch <= 1
            && (!r.is_loaded() || r.concurrency == Some(1))
            && r.engine == ENGINE
    };
    for record in records.iter().filter(is_wanted) {
        let context = Tokens(record.prompt_tokens + record.new_tokens + record.depth);
        let Ok(quant) = record.quant.parse::<Quant>() else { continue };
        let Some(answer) = ask(machine, None, &record.model, quant, context) else { continue };
        let r = record;
        let ratio = answer.decode.zip(r.decode_tok_s_median).map(|(p, m)| p.value.0 / m);
        let peak = r.peak_vram_bytes.or(r.peak_memory_bytes);
        let share = bandwidth_share(machine, r);
        // Predictions of prefill are for the first tokens of a context: here for the prompt alone.
        let prompt = || ask(machine, None, &r.model, quant, Tokens(r.prompt_tokens));
        let prefill = (r.depth == 0).then(prompt).flatten().and_then(|answer| answer.prefill);
        table.rows.push(vec![
            r.model.as_str().into(),
            r.quant.as_str().into(),
            r.engine.as_str().into(),
            Cell::number(context.to_string(), Some(f64::from(context.0))),
            Cell::number(or_absent(peak.map(Bytes)), peak.map(|b| b as f64))
                .from_origin(Origin::Measured),
            Cell::number(answer.needed.to_string(), Some(answer.needed.0 as f64))
                .from_origin(Origin::Predicted),
            measured(r, [r.decode_tok_s_median, r.decode_tok_s_low, r.decode_tok_s_high]),
            estimate(answer.decode),
            Cell::number(ratio.map_or(ABSENT.to_owned(), |r| significant(r, 3)), ratio),
            Cell::number(or_absent(share), share.map(|share| share.0)),
            measured(r, [r.prefill_tok_s_median, r.prefill_tok_s_low, r.prefill_tok_s_high]),
            estimate(prefill),
        ]);
    }
    let mut text = vec![
        "bench predicts speed and memory from a model's shape and the machine's measured \
         bandwidth, with the interval that holds four of five measurements of devices that it has \
         not seen. Predictions are for llama.cpp."
            .to_owned(),
    ];
    if table.rows.is_empty() {
        text.push("No measured case here can be set beside one.".to_owned());
    }
    if table.rows.iter().any(|row| row[9].value.is_some()) {
        text.push(
            "Of the card's bandwidth: decode × the bytes that a token reads / what the data sheet \
             promises."
                .to_owned(),
        );
    }
    let _ = table.take_constant(&["engine"]);
    let _ = table.take_absent();
    Section {
        heading: format!("What fits on {name}"),
        text,
        table: (!table.rows.is_empty()).then_some(table),
        ..Section::default()
    }
}

/// All models of the catalogue that the machine can hold.
fn others(name: &str, machine: &Machine, own: &Own, records: &[&Record]) -> Section {
    let mut table = Table::new(&[
        "model",
        ">weights",
        ">memory in all",
        "fits",
        ">longest context",
        ">prefill tok/s",
        ">decode tok/s",
        ">measured",
    ]);
    let (mut asked, mut fitting) = (0, 0);
    for spec in models::all().iter().filter(|spec| spec.context_max >= CONTEXT.0) {
        let Some(answer) = ask(machine, Some(own), &spec.id, QUANT, CONTEXT) else { continue };
        asked += 1;
        let fits = match &answer.verdict {
            Verdict::Fits => "fully".to_owned(),
            Verdict::ExpertsOnCpu { layers, of } => {
                format!("experts of {layers} of {of} layers on the CPU")
            }
            Verdict::Partly { layers, of } => format!("{layers} of {of} layers on the GPU"),
            Verdict::DoesNotFit { .. } | Verdict::Unknown(_) => continue,
        };
        fitting += usize::from(answer.verdict == Verdict::Fits);
        let cases = records.iter().filter(|r| {
            r.model == spec.id && r.outcome == Outcome::Measured && r.quant == QUANT.to_string()
        });
        let cases = cases.count();
        table.rows.push(vec![
            spec.id.as_str().into(),
            Cell::number(answer.memory.weights.to_string(), Some(answer.memory.weights.0 as f64)),
            Cell::number(answer.needed.to_string(), Some(answer.needed.0 as f64)),
            fits.into(),
            Cell::number(
                or_absent(answer.longest_context),
                answer.longest_context.map(|t| f64::from(t.0)),
            ),
            estimate(answer.prefill),
            estimate(answer.decode),
            if cases == 0 { ABSENT.into() } else { format!("{cases} cases").into() },
        ]);
    }
    let all = table.take_constant(&["fits"]);
    let caption = all.first().map(|(_, how)| format!("All of these fit {how}."));
    table.caption = caption;
    Section {
        heading: format!("Other models on {name}"),
        is_part: true,
        text: vec![format!(
            "{fitting} of {asked} catalogued models fit wholly at {QUANT} with {CONTEXT} tokens of \
             context. Speeds are those of llama.cpp at a full context. Calibrated: from measurements \
             of other models on this machine; predicted: from data sheets and published measurements \
             alone (reports/accuracy.md says how far off each is)."
        )],
        table: (!table.rows.is_empty()).then_some(table),
        ..Section::default()
    }
}

/// How much of its data sheet's bandwidth a single card reached; a processor's is measured, and has a
/// column of its own.
fn bandwidth_share(machine: &Machine, record: &Record) -> Option<Share> {
    let [card] = machine.devices.as_slice() else { return None };
    let (speed, bytes) = record.decode_tok_s_median.zip(record.bytes_per_token)?;
    // What is read has to lie there.
    let is_on_card = machine.has_own_memory() && record.peak_vram_bytes? >= bytes;
    let share = speed * bytes as f64 / (card.bandwidth?.0 * 1e9);
    is_on_card.then_some(Share(share))
}

/// A measured value with its interval, and `*` where something speaks against it.
fn measured(record: &Record, [value, low, high]: [Option<f64>; 3]) -> Cell {
    let Some(value) = value else { return ABSENT.into() };
    let mark = if record.marks.is_empty() { "" } else { "*" };
    let text = format!("{}{mark}", with_ends(value, low.zip(high)));
    Cell::number(text, Some(value)).from_origin(Origin::Measured)
}

/// A value with its interval and what it rests on.
fn estimate(estimate: Option<Estimate<TokensPerSecond>>) -> Cell {
    let Some(e) = estimate else { return ABSENT.into() };
    let two = |v: TokensPerSecond| significant(v.0, 2);
    let text = format!("{} [{}, {}]", significant(e.value.0, 3), two(e.low), two(e.high));
    Cell::number(text, Some(e.value.0)).from_origin(match e.basis {
        Basis::Measured => Origin::Measured,
        Basis::Calibrated => Origin::Calibrated,
        Basis::Predicted => Origin::Predicted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_s_share_of_its_bandwidth_is_of_single_cards_that_computed() {
        let record = Record {
            peak_vram_bytes: Some(9_000_000_000),
            decode_tok_s_median: Some(300.0),
            bytes_per_token: Some(8_000_000_000),
            ..Record::default()
        };
        let share = |machine: &str, record: &Record| {
            bandwidth_share(&Machine::parse(machine, &[]).unwrap(), record)
        };
        assert_eq!(share("h200-sxm-141gb", &record), Some(Share(0.5)));
        assert_eq!(share("2x h200-sxm-141gb", &record), None);
        let on_cpu = Record { peak_vram_bytes: Some(500_000_000), ..record.clone() };
        assert_eq!(share("h200-sxm-141gb", &on_cpu), None);
        assert_eq!(share("cpu-ddr5-5600-2ch", &record), None);
    }
}
