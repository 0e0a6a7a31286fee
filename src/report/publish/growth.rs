//! Speed against context and against concurrency.

use crate::record::Record;
use crate::report::lines::{Lines, Point, Series};
use crate::report::plot::Plot;
use crate::report::{Figure, Section, load};
use crate::units::{self, Tokens};

use super::rows::{Row, Valued, say_once, table};

/// A chart of more lines cannot be read; the tables have all.
const MOST_LINES: usize = 7;

/// Speed against context, then against concurrency.
pub fn sections(rows: &[Row]) -> Vec<Section> {
    let mut sections = vec![context(rows), concurrency(rows)];
    sections.extend(loads(rows));
    sections
}

fn context(rows: &[Row]) -> Section {
    let heading = "Speed against context".to_owned();
    let at = |row: &Row| f64::from(row.record.prompt_tokens) + f64::from(row.record.depth);
    let lines = series(
        rows,
        &|row| row.is_single(),
        &at,
        |r| (r.decode_tok_s_median, r.decode_tok_s_low, r.decode_tok_s_high),
        |r| r.new_tokens,
    );
    if lines.is_empty() {
        return Section {
            heading,
            text: vec![
                "Not measured: no engine was run at two lengths of context. Generation slows down \
                 as the context grows, so the figures above hold for their own lengths alone."
                    .to_owned(),
            ],
            ..Section::default()
        };
    }
    let count = lines.len();
    let figure = Figure {
        name: "context".to_owned(),
        plot: Plot::Lines(Lines {
            title: "Generation against context, one stream".to_owned(),
            x: "tokens in the cache when generation starts".to_owned(),
            y: "tok/s".to_owned(),
            // The time for a token grows by as much with each token of context.
            is_logarithmic: false,
            series: lines.into_iter().take(MOST_LINES).collect(),
        }),
        note: first_of(count),
    };
    let mut table = table(&[">context when generation starts", ">decode tok/s", ">prefill tok/s"]);
    for row in rows.iter().filter(|row| row.is_single() && row.has_figures()) {
        let r = &row.record;
        let mut cells = row.name();
        let tokens = r.prompt_tokens.saturating_add(r.depth);
        cells
            .push(crate::report::Cell::number(Tokens(tokens).to_string(), Some(f64::from(tokens))));
        cells.push(row.cell((r.decode_tok_s_median, r.decode_tok_s_low, r.decode_tok_s_high)));
        cells.push(row.cell((r.prefill_tok_s_median, r.prefill_tok_s_low, r.prefill_tok_s_high)));
        cells.push(row.remarks().into());
        table.rows.push(cells);
    }
    table.caption = say_once(&mut table);
    Section { heading, figures: vec![figure], table: Some(table), ..Section::default() }
}

fn concurrency(rows: &[Row]) -> Section {
    let heading = "Speed against concurrency".to_owned();
    if rows.iter().all(|row| row.is_single() || !row.has_figures()) {
        return Section {
            heading,
            text: vec![
                "Not measured: every case ran one stream. One stream says nothing about several \
                 users at once."
                    .to_owned(),
            ],
            ..Section::default()
        };
    }
    let at = |row: &Row| f64::from(row.streams());
    let work = |r: &Record| {
        (r.prompt_tokens, r.new_tokens, r.depth, r.concurrency.is_some(), r.workload.clone())
    };
    let lines = series(
        rows,
        &|row| !row.record.is_loaded() || row.record.concurrency.is_some(),
        &at,
        |r| (r.system_tok_s_median, r.system_tok_s_low, r.system_tok_s_high),
        work,
    );
    let count = lines.len();
    let figures = (count > 0).then(|| Figure {
        name: "concurrency".to_owned(),
        plot: Plot::Lines(Lines {
            title: "All streams together against their number".to_owned(),
            x: "streams at once".to_owned(),
            y: "tok/s, all streams".to_owned(),
            is_logarithmic: true,
            series: lines.into_iter().take(MOST_LINES).collect(),
        }),
        note: first_of(count),
    });
    let mut table = table(&[
        ">streams",
        ">together tok/s",
        ">each tok/s",
        ">TTFT",
        ">TTFT p95",
        ">gap p95",
        ">SLO met",
        ">goodput /s",
    ]);
    for row in rows.iter().filter(|row| !row.is_single() && row.has_figures()) {
        let r = &row.record;
        let mut cells = row.name();
        let streams = row.streams();
        cells.push(if r.is_loaded() && r.concurrency.is_none() {
            crate::report::load::load(r).into()
        } else {
            crate::report::Cell::number(
                units::grouped(u64::from(streams)),
                Some(f64::from(streams)),
            )
        });
        cells.push(row.cell((r.system_tok_s_median, r.system_tok_s_low, r.system_tok_s_high)));
        cells.push(row.cell((r.decode_tok_s_median, r.decode_tok_s_low, r.decode_tok_s_high)));
        cells.push(row.duration(r.ttft_ns_median));
        cells.push(row.duration(r.ttft_ns_p95));
        cells.push(row.duration(r.itl_ns_p95));
        cells.push(crate::report::Cell::number(
            units::or_absent(r.slo_attainment.map(units::Share)),
            r.slo_attainment,
        ));
        cells.push(row.cell((r.goodput_per_s, None, None)));
        cells.push(row.remarks().into());
        table.rows.push(cells);
    }
    table.caption = say_once(&mut table);
    let text = if figures.is_some() {
        Vec::new()
    } else {
        vec![
            "No engine was run at two numbers of streams with the same work, so no line is drawn."
                .to_owned(),
        ]
    };
    Section {
        heading,
        text,
        figures: figures.into_iter().collect(),
        table: Some(table),
        ..Section::default()
    }
}

/// Servers and engines under load, the highest load that met the objective, and their clocks.
fn loads(rows: &[Row]) -> Vec<Section> {
    let key = |row: &Row| (row.host.clone(), row.source, row.model());
    let loaded: Vec<_> = rows.iter().filter(|row| row.record.is_loaded()).collect();
    let mut sections = Vec::new();
    for of in super::distinct(loaded.iter().map(|row| key(row))) {
        let its: Vec<_> =
            loaded.iter().filter(|row| key(row) == of).map(|row| &row.record).collect();
        let date = loaded.iter().find(|row| key(row) == of).map_or("", |row| row.date.as_str());
        let heading = format!("{}, {}, {date}", of.2, of.0);
        let parts = load::sections(&heading, &its);
        sections.extend(parts.into_iter().map(|part| Section { is_part: true, ..part }));
    }
    sections
}

fn first_of(count: usize) -> Option<String> {
    (count > MOST_LINES)
        .then(|| format!("The first {MOST_LINES} of {count} lines; the table has all."))
}

/// A line for each engine, model and machine that has values at two places; rows of different runs
/// or of other work are never on one line.
fn series<K: PartialEq>(
    rows: &[Row],
    is_wanted: &dyn Fn(&Row) -> bool,
    at: &dyn Fn(&Row) -> f64,
    value: fn(&Record) -> Valued,
    work: fn(&Record) -> K,
) -> Vec<Series> {
    let mut groups: Vec<(&Row, Vec<Point>)> = Vec::new();
    for row in rows.iter().filter(|row| is_wanted(row) && row.has_figures()) {
        let (Some(y), low, high) = value(&row.record) else { continue };
        let interval = low.zip(high);
        let shown = format!("{}{}", units::with_ends(y, interval), row.sign());
        let point = Point { x: at(row), y, interval, shown };
        let is_same = |first: &Row| {
            let (a, b) = (&first.record, &row.record);
            first.source == row.source
                && first.host == row.host
                && (&a.engine, &a.model, &a.quant, &a.weights, &a.settings)
                    == (&b.engine, &b.model, &b.quant, &b.weights, &b.settings)
                && work(a) == work(b)
        };
        match groups.iter_mut().find(|(first, _)| is_same(first)) {
            Some((_, points)) => points.push(point),
            None => groups.push((row, vec![point])),
        }
    }
    let has = |of: &dyn Fn(&Row) -> String| {
        let drawn: Vec<_> = groups.iter().map(|(row, _)| of(row)).collect();
        super::distinct(drawn.into_iter()).len() > 1
    };
    let (many_models, many_hosts) = (has(&|row| row.model()), has(&|row| row.host.clone()));
    let mut lines = Vec::new();
    for (row, mut points) in groups {
        points.sort_by(|a, b| a.x.total_cmp(&b.x));
        points.dedup_by(|a, b| a.x == b.x);
        if points.len() < 2 {
            continue;
        }
        let mut name = row.record.engine.clone();
        if many_models {
            name = format!("{name}, {}", row.model());
        }
        if many_hosts {
            name = format!("{name}, {}", row.host);
        }
        if !row.record.settings.is_empty() {
            let is_shown_twice = lines.iter().any(|line: &Series| line.name == name);
            if is_shown_twice {
                name = format!("{name}, {}", row.record.settings);
            }
        }
        lines.push(Series { name, points });
    }
    lines
}
