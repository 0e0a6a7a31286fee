//! The part of a report about what else its machines could run: predictions beside what was measured.

use crate::catalog::hardware::{self, Device, Family, Kind};
use crate::catalog::models;
use crate::fit::answer::{self, Answer, Candidate, Estimate, Question, Verdict};
use crate::fit::constants;
use crate::fit::machine::Machine;
use crate::fit::memory::{self, Layout, Plan, Weights};
use crate::fit::work::{Packing, Work};
use crate::host::Host;
use crate::model::quant::Quant;
use crate::record::{Outcome, Record};
use crate::report::publish::{Names, Source};
use crate::report::{Cell, Origin, Section, Table};
use crate::units::{ABSENT, Bytes, GbPerSecond, Tflops, Tokens, or_absent, significant, with_ends};

/// The engine that predictions are for.
const ENGINE: &str = "llama.cpp";
/// The quantisation and the context that all models are asked about.
const QUANT: Quant = Quant::Q4KM;
const CONTEXT: Tokens = Tokens(8192);

/// The sections, two for each machine that is described.
pub fn sections(sources: &[Source], with_host_names: bool) -> Vec<Section> {
    let names = Names::of(sources, with_host_names);
    let mut sections = Vec::new();
    let mut seen: Vec<&str> = Vec::new();
    for source in sources {
        let (Some(host), Some(first)) = (&source.host, source.records.first()) else { continue };
        if seen.contains(&first.host.as_str()) {
            continue;
        }
        seen.push(&first.host);
        let of_host = |r: &&Record| r.host == first.host;
        let records: Vec<&Record> =
            sources.iter().flat_map(|s| &s.records).filter(of_host).collect();
        let Some(machine) = machine(host, &records) else { continue };
        let name = names.host(&first.host);
        sections.push(beside(&name, &machine, &records));
        sections.push(others(&name, &machine, &records));
    }
    sections
}

/// The machine of the records: its GPUs where the catalogue knows them, else its processor at the
/// speed that the probes beside the cases measured.
fn machine(host: &Host, records: &[&Record]) -> Option<Machine> {
    let middle = |of: fn(&Record) -> [Option<f64>; 2]| {
        let mut values: Vec<f64> = records.iter().flat_map(|r| of(r)).flatten().collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let bandwidth =
        middle(|r| [r.probe_bandwidth_gb_s_before, r.probe_bandwidth_gb_s_after]).map(GbPerSecond);
    let compute = middle(|r| [r.probe_tflops_before, r.probe_tflops_after]).map(Tflops);
    let processor = Device {
        id: "its-processor".to_owned(),
        name: host.cpu.model.clone(),
        vendor: String::new(),
        kind: Kind::Cpu,
        family: Family::Cpu,
        memory: Some(host.memory.total),
        memory_label_gb: None,
        bandwidth,
        fp16: compute,
        gpu_cores: None,
        power: None,
        idle_power: None,
        list_price: None,
        street_price: None,
        source: "the probes beside the cases".to_owned(),
        notes: String::new(),
    };
    if host.gpus.is_empty() {
        return Some(Machine { name: host.label.clone(), devices: vec![processor], host: None });
    }
    let plain = |s: &str| s.to_lowercase().replace("nvidia ", "").replace(' ', "-");
    let devices: Vec<Device> = host
        .gpus
        .iter()
        .filter_map(|gpu| {
            let wanted = plain(&gpu.name).replace("geforce-", "");
            let known = hardware::all().iter().find(|d| d.id == wanted || plain(&d.name) == wanted);
            let mut device = known?.clone();
            device.memory = gpu.memory.or(device.memory);
            Some(device)
        })
        .collect();
    // Half of a machine is another machine.
    let is_whole = devices.len() == host.gpus.len();
    is_whole.then(|| Machine { name: host.label.clone(), devices, host: Some(processor) })
}

fn ask(machine: &Machine, model: &str, quant: Quant, context: Tokens) -> Option<Answer> {
    let spec = models::find(model).ok()?;
    let tensors = memory::tensors(spec, quant).ok()?;
    let work = Work::of_tensors(spec, &tensors, Packing::of(quant));
    let layout = Layout { slot_tokens: context, ..Layout::default() };
    let candidate = Candidate {
        spec,
        weights: Weights::of(&tensors),
        plan: Plan::new(spec, &layout),
        work: &work,
    };
    let question = Question { layout, engine: ENGINE.to_owned() };
    Some(answer::answer(&candidate, machine, &question, constants::embedded()))
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
        ">prefill tok/s, measured",
        ">prefill tok/s, predicted",
    ]);
    let is_wanted = |r: &&&Record| {
        r.outcome == Outcome::Measured
            && r.batch <= 1
            && r.concurrency.is_none_or(|users| users <= 1)
            && r.engine == ENGINE
    };
    for record in records.iter().filter(is_wanted) {
        let context = Tokens(record.prompt_tokens + record.new_tokens + record.depth);
        let Ok(quant) = record.quant.parse::<Quant>() else { continue };
        let Some(answer) = ask(machine, &record.model, quant, context) else { continue };
        let r = record;
        let ratio = answer.decode.zip(r.decode_tok_s_median).map(|(p, m)| p.value.0 / m);
        let peak = r.peak_vram_bytes.or(r.peak_memory_bytes);
        // Predictions of prefill are for the first tokens of a context.
        let is_first = r.depth == 0;
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
            estimate(answer.decode.map(|e| [e.value.0, e.low.0, e.high.0])),
            Cell::number(ratio.map_or(ABSENT.to_owned(), |r| significant(r, 3)), ratio),
            measured(r, [r.prefill_tok_s_median, r.prefill_tok_s_low, r.prefill_tok_s_high]),
            estimate(answer.prefill.filter(|_| is_first).map(|e| [e.value.0, e.low.0, e.high.0])),
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
    let _ = table.take_constant(&["engine"]);
    Section {
        heading: format!("What fits on {name}"),
        text,
        table: (!table.rows.is_empty()).then_some(table),
        ..Section::default()
    }
}

/// All models of the catalogue that the machine can hold.
fn others(name: &str, machine: &Machine, records: &[&Record]) -> Section {
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
        let Some(answer) = ask(machine, &spec.id, QUANT, CONTEXT) else { continue };
        asked += 1;
        let fits = match &answer.verdict {
            Verdict::Fits => "fully".to_owned(),
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
            estimate(answer.prefill.map(|e: Estimate<_>| [e.value.0, e.low.0, e.high.0])),
            estimate(answer.decode.map(|e| [e.value.0, e.low.0, e.high.0])),
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
             context. All speeds in this table are predicted, with llama.cpp, at a full context."
        )],
        table: (!table.rows.is_empty()).then_some(table),
        ..Section::default()
    }
}

/// A measured value with its interval, and `*` where something speaks against it.
fn measured(record: &Record, [value, low, high]: [Option<f64>; 3]) -> Cell {
    let Some(value) = value else { return ABSENT.into() };
    let mark = if record.marks.is_empty() { "" } else { "*" };
    let text = format!("{}{mark}", with_ends(value, low.zip(high)));
    Cell::number(text, Some(value)).from_origin(Origin::Measured)
}

/// A predicted value with its interval.
fn estimate(values: Option<[f64; 3]>) -> Cell {
    match values {
        Some([value, low, high]) => {
            let two = |v| significant(v, 2);
            let text = format!("{} [{}, {}]", significant(value, 3), two(low), two(high));
            Cell::number(text, Some(value)).from_origin(Origin::Predicted)
        }
        None => ABSENT.into(),
    }
}
