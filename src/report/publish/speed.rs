//! Speed and time to first token, by engine, with intervals.

use crate::record::Outcome;
use crate::report::bars::{Bar, Bars, Group};
use crate::report::plot::Plot;
use crate::report::{Cell, Figure, Section, Table};
use crate::units::{self, ABSENT, Nanos, Share, significant};

use super::comparable::is_same_work;
use super::distinct;
use super::rows::{Row, Valued, say_once, table, work};

/// A chart of more bars cannot be read; the table has all.
const MOST_BARS: usize = 24;

/// Speed, and time to first token.
pub fn sections(rows: &[Row]) -> Vec<Section> {
    vec![speed(rows), first_token(rows)]
}

fn decode(row: &Row) -> Valued {
    let r = &row.record;
    (r.decode_tok_s_median, r.decode_tok_s_low, r.decode_tok_s_high)
}

fn prefill(row: &Row) -> Valued {
    let r = &row.record;
    (r.prefill_tok_s_median, r.prefill_tok_s_low, r.prefill_tok_s_high)
}

fn system(row: &Row) -> Valued {
    let r = &row.record;
    (r.system_tok_s_median, r.system_tok_s_low, r.system_tok_s_high)
}

fn ttft(row: &Row) -> Valued {
    let r = &row.record;
    (r.ttft_ns_median, r.ttft_ns_low, r.ttft_ns_high)
}

fn speed(rows: &[Row]) -> Section {
    let has_many = rows.iter().any(|row| !row.is_single());
    let mut columns = vec![">prefill tok/s", ">decode tok/s"];
    if has_many {
        columns.push(">all streams tok/s");
    }
    columns.push(">bandwidth");
    let mut table = table(&columns);
    for row in rows {
        let mut cells = row.name();
        if row.has_figures() {
            cells.push(row.cell(prefill(row)));
            cells.push(row.cell(decode(row)));
            if has_many {
                cells.push(if row.is_single() { ABSENT.into() } else { row.cell(system(row)) });
            }
            let share = row.record.bandwidth_share;
            cells.push(Cell::number(units::or_absent(share.map(Share)), share));
        } else {
            cells.push(row.record.outcome.to_string().into());
            cells.resize(table.columns.len() - 1, ABSENT.into());
        }
        cells.push(row.remarks().into());
        table.rows.push(cells);
    }
    table.caption = say_once(&mut table);
    let text =
        |(value, low, high): Valued| units::with_interval(value.unwrap_or_default(), low.zip(high));
    let single = |row: &&Row| row.is_single();
    let figures = [
        bars("decode", "Generation, one stream", "tok/s", rows, &single, decode, text, 1.0),
        bars(
            "prefill",
            "Processing of the prompt, one stream",
            "tok/s",
            rows,
            &single,
            prefill,
            text,
            1.0,
        ),
    ];
    Section {
        heading: "Speed by engine".to_owned(),
        figures: figures.into_iter().flatten().collect(),
        notes: notes(rows),
        table: Some(table),
        ..Section::default()
    }
}

fn notes(rows: &[Row]) -> Vec<String> {
    let mut notes = vec![
        "Each figure is the median of the trials with its 95 % interval in brackets. work: prompt \
         + new tokens, @ depth already in the cache, × sequences in one batch. decode: of one \
         stream. bandwidth: share of the machine's measured memory bandwidth that generation \
         reached."
            .to_owned(),
    ];
    if rows.iter().any(|row| !row.record.marks.is_empty()) {
        notes.push(
            "* marked: something was noticed that speaks against the figure; the marks are \
             explained below."
                .to_owned(),
        );
    }
    if rows.iter().any(|row| !row.doubts.is_empty()) {
        notes.push(
            "‡ not comparable with the first row of the same work: the last column says what \
             differs."
                .to_owned(),
        );
    }
    notes
}

fn first_token(rows: &[Row]) -> Section {
    let mut table: Table = table(&[
        ">TTFT",
        ">95 % interval",
        ">TTFT p95",
        ">TTFT p99",
        ">gap p50",
        ">gap p95",
        ">gap p99",
        ">longest gap",
    ]);
    for row in rows.iter().filter(|row| row.has_figures()) {
        let r = &row.record;
        let mut cells = row.name();
        cells.push(row.duration(r.ttft_ns_median));
        cells.push(match r.ttft_ns_low.zip(r.ttft_ns_high) {
            Some((low, high)) => format!("{} to {}", nanos(low), nanos(high)).into(),
            None => ABSENT.into(),
        });
        for value in
            [r.ttft_ns_p95, r.ttft_ns_p99, r.itl_ns_p50, r.itl_ns_p95, r.itl_ns_p99, r.itl_ns_max]
        {
            cells.push(row.duration(value));
        }
        cells.push(row.remarks().into());
        table.rows.push(cells);
    }
    let has_rows = !table.rows.is_empty();
    table.caption = say_once(&mut table);
    let text = |(value, low, high): Valued| {
        let value = value.unwrap_or_default();
        match low.zip(high) {
            Some((low, high)) if value > 0.0 => format!(
                "{} ± {} %",
                nanos(value),
                significant((high - low) / 2.0 / value * 100.0, 2)
            ),
            _ => nanos(value).to_string(),
        }
    };
    let chart = bars(
        "ttft",
        "Time to first token, one stream",
        "seconds",
        rows,
        &|row: &&Row| row.is_single(),
        ttft,
        text,
        1e-9,
    );
    Section {
        heading: "Time to first token".to_owned(),
        figures: chart.into_iter().collect(),
        table: has_rows.then_some(table),
        notes: vec![
            "TTFT: from the call, or the first byte of the request, to the first generated token. \
             gap: between two tokens, pooled over all counted trials. A percentile is absent where \
             too few samples bear it: p95 takes 20, p99 takes 100."
                .to_owned(),
        ],
        ..Section::default()
    }
}

fn nanos(ns: f64) -> Nanos {
    Nanos(ns.max(0.0) as u64)
}

/// A chart with a group for every work and a bar for every engine or machine that did it.
#[allow(clippy::too_many_arguments, reason = "one for each thing that the charts differ in")]
fn bars(
    name: &str,
    title: &str,
    axis: &str,
    rows: &[Row],
    is_wanted: &dyn Fn(&&Row) -> bool,
    value: fn(&Row) -> Valued,
    shown: impl Fn(Valued) -> String,
    scale: f64,
) -> Option<Figure> {
    let wanted: Vec<_> = rows
        .iter()
        .filter(|row| row.record.outcome == Outcome::Measured && value(row).0.is_some())
        .filter(is_wanted)
        .collect();
    let drawn = &wanted[..wanted.len().min(MOST_BARS)];
    let has_hosts = distinct(wanted.iter().map(|row| &row.host)).len() > 1;
    let has_dates = distinct(wanted.iter().map(|row| (&row.host, row.source))).len()
        > distinct(wanted.iter().map(|row| &row.host)).len();
    let label = |row: &Row| {
        let mut label = row.record.engine.clone();
        if has_hosts {
            label = format!("{label}, {}", row.host);
        }
        if has_dates && has_hosts {
            label = format!("{label}, {}", row.date);
        }
        label
    };
    let series = distinct(drawn.iter().map(|row| label(row)));
    let mut groups: Vec<(&Row, Group)> = Vec::new();
    for row in drawn {
        let (median, low, high) = value(row);
        let bar = Bar {
            series: series.iter().position(|s| *s == label(row)).unwrap_or(0),
            value: median.unwrap_or_default() * scale,
            interval: low.zip(high).map(|(low, high)| (low * scale, high * scale)),
            shown: format!("{}{}", shown((median, low, high)), row.sign()),
        };
        match groups.iter_mut().find(|(first, _)| is_same_work(&first.record, &row.record)) {
            Some((_, group)) => group.bars.push(bar),
            None => {
                let name = format!("{}, {} tokens", row.model(), work(&row.record));
                groups.push((row, Group { name, bars: vec![bar] }));
            }
        }
    }
    let bars = Bars {
        title: title.to_owned(),
        axis: axis.to_owned(),
        series,
        groups: groups.into_iter().map(|(_, group)| group).collect(),
        is_stacked: false,
    };
    let mut note = vec![];
    if bars.groups.iter().flat_map(|g| &g.bars).any(|bar| bar.interval.is_some()) {
        note.push("The thin lines are 95 % intervals.".to_owned());
    }
    if wanted.len() > drawn.len() {
        note.push(format!(
            "The first {} of {} cases; the table has all.",
            drawn.len(),
            wanted.len()
        ));
    }
    let note = (!note.is_empty()).then(|| note.join(" "));
    (!bars.is_empty()).then(|| Figure { name: name.to_owned(), plot: Plot::Bars(bars), note })
}
