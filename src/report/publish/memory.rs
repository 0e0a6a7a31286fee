//! What lies where in memory, how long loading takes, and what energy it takes.

use crate::report::bars::{Bar, Bars, Group};
use crate::report::plot::Plot;
use crate::report::{Cell, Figure, Section};
use crate::units::{self, ABSENT, Bytes, Joules};

use super::distinct;
use super::rows::{Row, say_once, table, work};

/// A chart of more bars cannot be read; the table has all.
const MOST_BARS: usize = 16;
const GIB: f64 = 1024.0 * 1024.0 * 1024.0;

/// Memory, then energy.
pub fn sections(rows: &[Row]) -> Vec<Section> {
    vec![memory(rows), energy(rows)]
}

fn bytes(value: Option<u64>) -> Cell {
    Cell::number(units::or_absent(value.map(Bytes)), value.map(|b| b as f64))
}

fn memory(rows: &[Row]) -> Section {
    let has_vram = rows.iter().any(|row| row.record.peak_vram_bytes.is_some());
    let mut columns = vec![">weights", ">KV cache", ">compute", ">peak of the process"];
    if has_vram {
        columns.push(">peak on the GPU");
    }
    columns.extend([">load, cold", ">load, warm"]);
    let mut table = table(&columns);
    for row in rows.iter().filter(|row| row.has_figures()) {
        let r = &row.record;
        let mut cells = row.name();
        for part in [r.weights_bytes, r.kv_bytes, r.compute_bytes, r.peak_memory_bytes] {
            cells.push(bytes(part));
        }
        if has_vram {
            cells.push(bytes(r.peak_vram_bytes));
        }
        // Loading is not what the marks of the trials speak of.
        for ns in [r.load_cold_ns, r.load_warm_ns] {
            let shown = units::or_absent(ns.map(units::Nanos));
            cells.push(Cell::number(shown, ns.map(|ns| ns as f64)));
        }
        cells.push(row.remarks().into());
        table.rows.push(cells);
    }
    let has_rows = !table.rows.is_empty();
    let is_growth =
        rows.iter().any(|row| row.record.vram_basis.as_deref() == Some("device-growth"));
    let growth = is_growth.then(|| {
        "peak on the GPU: the driver lists no process of ours here, as in a container, so it is \
         what the whole card gained since the start; other programs' memory counts too."
            .to_owned()
    });
    table.caption = say_once(&mut table);
    Section {
        heading: "Memory".to_owned(),
        figures: split(rows).into_iter().collect(),
        table: has_rows.then_some(table),
        notes: vec![
            "weights, KV cache and compute are the engine's own account of its buffers; the peak \
             of the process is read from the system and counts mapped files as far as they are \
             resident, so the parts may exceed it. Cold: the file was not in the page cache; \
             measured once for each engine and file. An engine that maps the file reads most of \
             it later, so its load time is not comparable with that of one that reads it."
                .to_owned(),
        ]
        .into_iter()
        .chain(growth)
        .collect(),
        ..Section::default()
    }
}

fn split(rows: &[Row]) -> Option<Figure> {
    let whole: Vec<_> = rows
        .iter()
        .filter_map(|row| {
            let r = &row.record;
            Some((row, [r.weights_bytes?, r.kv_bytes?, r.compute_bytes?]))
        })
        .collect();
    let has_hosts = distinct(whole.iter().map(|(row, _)| &row.host)).len() > 1;
    let groups = whole.iter().take(MOST_BARS).map(|(row, parts)| {
        let host = if has_hosts { format!(", {}", row.host) } else { String::new() };
        let name = format!("{}, {}, {}{host}", row.record.engine, row.model(), work(&row.record));
        let bars = parts.iter().enumerate().map(|(series, bytes)| Bar {
            series,
            value: *bytes as f64 / GIB,
            interval: None,
            shown: Bytes(*bytes).to_string(),
        });
        Group { name, bars: bars.collect() }
    });
    let bars = Bars {
        title: "What the engines hold in memory".to_owned(),
        axis: "GiB".to_owned(),
        series: ["weights", "KV cache", "compute"].map(ToOwned::to_owned).to_vec(),
        groups: groups.collect(),
        is_stacked: true,
    };
    let note = (whole.len() > MOST_BARS)
        .then(|| format!("The first {MOST_BARS} of {} cases; the table has all.", whole.len()));
    (!bars.is_empty()).then(|| Figure { name: "memory".to_owned(), plot: Plot::Bars(bars), note })
}

fn energy(rows: &[Row]) -> Section {
    let heading = "Energy".to_owned();
    let has_counter = rows.iter().any(|row| row.record.energy_gross_joules.is_some());
    if !has_counter {
        let reasons: Vec<_> = rows
            .iter()
            .filter_map(|row| row.record.absent.as_deref())
            .flat_map(|absent| absent.split("; "))
            .filter_map(|word| word.split_once(": "))
            .filter(|(what, _)| what.contains("energy"))
            .map(|(what, why)| format!("{}: {why}", what.replace('_', " ")))
            .collect();
        let why = distinct(reasons.into_iter()).join("; ");
        let why = if why.is_empty() { String::new() } else { format!(" ({why})") };
        let is_counted = rows.iter().any(|row| row.record.energy_boundary.is_some());
        let what = if is_counted {
            "No figure: every case is too short for the energy counter"
        } else {
            "Not measured: no energy counter could be read"
        };
        return Section {
            heading,
            text: vec![format!(
                "{what}{why}. Power is never guessed from a \
                 data sheet."
            )],
            ..Section::default()
        };
    }
    let mut table = table(&[
        ">J a token, net",
        ">prefill, J a token",
        ">decode, J a token",
        ">net",
        ">gross",
        "boundary",
    ]);
    for row in rows.iter().filter(|row| row.record.energy_gross_joules.is_some()) {
        let r = &row.record;
        let joules = |value: Option<f64>| Cell::number(units::or_absent(value.map(Joules)), value);
        let mut cells = row.name();
        cells.push(row.cell((r.energy_per_token_joules, None, None)));
        cells.push(row.cell((r.energy_prefill_per_token_joules, None, None)));
        cells.push(row.cell((r.energy_decode_per_token_joules, None, None)));
        cells.push(joules(r.energy_net_joules));
        cells.push(joules(r.energy_gross_joules));
        cells.push(r.energy_boundary.as_deref().unwrap_or(ABSENT).into());
        cells.push(row.remarks().into());
        table.rows.push(cells);
    }
    table.caption = say_once(&mut table);
    Section {
        heading,
        table: Some(table),
        notes: vec![
            "From counters alone, over all counted trials. net: less the idle power of the same \
             device over the same time. J a token: of a trial's whole energy and its new tokens; \
             prefill: of the prompts' alone, a token of the prompts; decode: of the generation \
             alone. A figure is absent where its time is too short for the steps of the counter. \
             boundary: what the counter covers; a GPU's counter leaves \
             out the rest of the machine."
                .to_owned(),
        ],
        ..Section::default()
    }
}
