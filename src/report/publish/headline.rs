//! The answer: how fast each model is, with its interval and what speaks against it.

use crate::record::Outcome;
use crate::report::{Headline, Origin, Section};
use crate::units::{self, Bytes, Nanos, TokensPerSecond, significant};

use super::comparable::is_same_work;
use super::distinct;
use super::rows::{Row, Valued, work};

/// More models than these are left to the tables.
const MOST_MODELS: usize = 5;
/// More comparisons than these are left to the tables.
const MOST_SENTENCES: usize = 3;

/// The first section.
pub fn section(rows: &[Row]) -> Section {
    let models = distinct(rows.iter().map(Row::model));
    let fastest = |of: &dyn Fn(&&Row) -> bool, value: fn(&Row) -> Option<f64>| {
        let found = rows.iter().filter(of).filter_map(|row| Some((value(row)?, row)));
        found.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, row)| row)
    };
    let mut headlines = Vec::new();
    for model in models.iter().take(MOST_MODELS) {
        // The work that the results begin with: not the one that looks best.
        let of_model = |row: &&Row| row.is_single() && row.has_figures() && row.model() == *model;
        let Some(first) = rows.iter().find(of_model) else { continue };
        let is_of = |row: &&Row| is_same_work(&row.record, &first.record);
        if let Some(row) = fastest(&is_of, |row| row.record.decode_tok_s_median) {
            headlines.push(one_stream(row));
        }
    }
    let is_many = |row: &&Row| !row.is_single();
    if let Some(row) = fastest(&is_many, |row| row.record.system_tok_s_median) {
        headlines.push(many_streams(row));
    }
    let mut text = comparisons(rows);
    if headlines.is_empty() {
        text.push("No case of these results has a figure; see why below.".to_owned());
    }
    let mut notes = Vec::new();
    if models.len() > MOST_MODELS {
        let left = models.len() - MOST_MODELS;
        notes.push(format!("{left} more models and quantisations stand in the tables."));
    }
    let failed = rows.iter().filter(|row| row.record.outcome != Outcome::Measured).count();
    if failed > 0 {
        notes.push(format!("{failed} of {} cases have no full figures; see below.", rows.len()));
    }
    Section { heading: "In short".to_owned(), headlines, text, notes, ..Section::default() }
}

fn one_stream(row: &Row) -> Headline {
    let r = &row.record;
    let mut detail = vec![format!("{}, one stream, {} tokens", r.engine, work(r))];
    let mut facts = Vec::new();
    if let Some(ns) = r.ttft_ns_median {
        facts.push(format!("first token after {}", Nanos(ns.max(0.0) as u64)));
    }
    if let Some(bytes) = r.peak_vram_bytes.or(r.peak_memory_bytes) {
        facts.push(format!("{} of memory", Bytes(bytes)));
    }
    if !facts.is_empty() {
        detail.push(facts.join(", "));
    }
    headline(
        format!("{}: generation", row.model()),
        (r.decode_tok_s_median, r.decode_tok_s_low, r.decode_tok_s_high),
        detail,
        row,
    )
}

fn many_streams(row: &Row) -> Headline {
    let r = &row.record;
    let each = units::or_absent(r.decode_tok_s_median.map(TokensPerSecond));
    let detail = vec![
        format!("{}, {}, {} tokens", r.engine, row.model(), work(r)),
        format!("{each} for each stream"),
    ];
    let label = match r.concurrency {
        None if r.is_loaded() => format!("under load, {}, together", crate::report::load::load(r)),
        _ => format!("{} streams at once, together", row.streams()),
    };
    headline(label, (r.system_tok_s_median, r.system_tok_s_low, r.system_tok_s_high), detail, row)
}

fn headline(label: String, valued: Valued, mut detail: Vec<String>, row: &Row) -> Headline {
    let (value, low, high) = valued;
    detail.push(format!("{}, {}", row.host, row.date));
    let ends = low.zip(high);
    let remarks = row.remarks();
    Headline {
        label,
        value: units::or_absent(value.map(TokensPerSecond)),
        interval: Some(match ends {
            Some((low, high)) => {
                format!("95 % interval {} to {}", significant(low, 3), significant(high, 3))
            }
            None => "without an interval".to_owned(),
        }),
        origin: Some(Origin::Measured),
        detail,
        marks: (!remarks.is_empty()).then_some(remarks),
    }
}

/// A sentence for each work that several rows did, in the order of the rows.
fn comparisons(rows: &[Row]) -> Vec<String> {
    let singles = || rows.iter().filter(|row| row.is_single() && row.has_figures());
    let firsts = singles().enumerate().filter(|(at, row)| {
        !singles().take(*at).any(|before| is_same_work(&before.record, &row.record))
    });
    let mut sentences = Vec::new();
    for (_, first) in firsts {
        if sentences.len() == MOST_SENTENCES {
            break;
        }
        let same: Vec<_> = singles()
            .filter(|row| is_same_work(&row.record, &first.record) && row.doubts.is_empty())
            .filter_map(|row| Some((row.record.decode_tok_s_median?, row)))
            .collect();
        if same.len() > 1 {
            sentences.push(sentence(&same));
        }
    }
    sentences
}

fn sentence(same: &[(f64, &Row)]) -> String {
    let mut ranked = same.to_vec();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let is_one_host = distinct(ranked.iter().map(|(_, row)| &row.host)).len() == 1;
    let name = |row: &Row| match is_one_host {
        true => row.record.engine.clone(),
        false => format!("{} on {}", row.record.engine, row.host),
    };
    let figures: Vec<_> = ranked
        .iter()
        .map(|(_, row)| {
            let r = &row.record;
            let ends = r.decode_tok_s_low.zip(r.decode_tok_s_high);
            let value = r.decode_tok_s_median.unwrap_or_default();
            format!("{} {} tok/s", name(row), units::with_ends(value, ends))
        })
        .collect();
    let first = ranked[0].1;
    let (fastest, next) = (&first.record, &ranked[1].1.record);
    let verdict = match (fastest.decode_tok_s_low, next.decode_tok_s_high) {
        (Some(low), Some(high)) if low > high => format!(
            "The intervals of the first two lie apart, by a factor of {} in the medians.",
            significant(ranked[0].0 / ranked[1].0, 3)
        ),
        (Some(_), Some(_)) => {
            "The intervals of the first two overlap: no difference is shown.".to_owned()
        }
        _ => "Without intervals nothing is said of the difference.".to_owned(),
    };
    format!(
        "{}, generation for one stream, {} tokens: {}. {verdict}",
        first.model(),
        work(&first.record),
        figures.join(", ")
    )
}
