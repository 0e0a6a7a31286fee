//! Records as the table that ends a run.

use crate::record::{Outcome, Record};
use crate::units::{self, ABSENT, Bytes, Nanos, Share};

use super::{Report, Section, Table, load};

/// The report of one run: a section for each model and quantisation, in the order of the records.
pub fn report(title: &str, records: &[Record]) -> Report {
    let mut sections: Vec<Section> = Vec::new();
    let heading_of = |r: &Record| format!("{} {}, {} weights", r.model, r.quant, r.weights);
    let mut headings: Vec<String> = Vec::new();
    for record in records {
        let heading = heading_of(record);
        if !headings.contains(&heading) {
            headings.push(heading);
        }
    }
    for record in records.iter().filter(|record| !record.is_loaded()) {
        let heading = heading_of(record);
        let place = sections.iter().position(|s| s.heading == heading);
        let place = place.unwrap_or_else(|| {
            let table = Some(Table::new(&[
                "engine",
                "work",
                ">TTFT",
                ">prefill tok/s",
                ">decode tok/s",
                ">memory",
                ">bandwidth",
            ]));
            sections.push(Section { heading, table, ..Section::default() });
            sections.len() - 1
        });
        let section = &mut sections[place];
        if let Some(table) = &mut section.table {
            table.rows.push(row(record));
        }
        section.notes.extend(reason(record));
    }
    let mut all = Vec::new();
    for heading in headings {
        let of: Vec<_> = records.iter().filter(|record| heading_of(record) == heading).collect();
        all.extend(sections.iter().filter(|section| section.heading == heading).cloned());
        let mut loaded = load::sections(&heading, &of);
        if let Some(section) = loaded.first_mut() {
            let reasons = of.iter().filter(|record| record.is_loaded()).filter_map(|r| reason(r));
            section.notes.extend(reasons);
        }
        all.extend(loaded);
    }
    let mut sections = all;
    sections.push(legend(records));
    Report { title: title.to_owned(), sections }
}

/// Why a row is not whole.
fn reason(record: &Record) -> Option<String> {
    let reason = record.reason.as_ref()?;
    Some(format!("{}: {}: {reason}", record.case_id, record.outcome))
}

fn row(record: &Record) -> Vec<String> {
    let engine = match record.marks.is_empty() {
        true => record.engine.clone(),
        false => format!("{}*", record.engine),
    };
    if record.trials == 0 {
        let mut row = vec![engine, work(record), record.outcome.to_string()];
        row.resize(7, ABSENT.to_owned());
        return row;
    }
    // Of several sequences the speed of the whole batch is what was bought.
    let decode = if record.batch > 1 {
        (record.system_tok_s_median, record.system_tok_s_low, record.system_tok_s_high)
    } else {
        (record.decode_tok_s_median, record.decode_tok_s_low, record.decode_tok_s_high)
    };
    let prefill =
        (record.prefill_tok_s_median, record.prefill_tok_s_low, record.prefill_tok_s_high);
    vec![
        engine,
        work(record),
        units::or_absent(record.ttft_ns_median.map(|ns| Nanos(ns as u64))),
        with_interval(prefill),
        with_interval(decode),
        units::or_absent(record.peak_memory_bytes.map(Bytes)),
        units::or_absent(record.bandwidth_share.map(Share)),
    ]
}

/// Prompt + new tokens, the depth, and how many sequences: `512+64 @4096 ×8`.
fn work(record: &Record) -> String {
    let mut work = format!("{}+{}", record.prompt_tokens, record.new_tokens);
    if record.depth > 0 {
        work.push_str(&format!(" @{}", record.depth));
    }
    if record.batch > 1 {
        work.push_str(&format!(" ×{}", record.batch));
    }
    work
}

fn with_interval((median, low, high): (Option<f64>, Option<f64>, Option<f64>)) -> String {
    let Some(median) = median else { return ABSENT.to_owned() };
    units::with_interval(median, low.zip(high))
}

fn legend(records: &[Record]) -> Section {
    let mut notes = Vec::new();
    if records.iter().any(|record| !record.is_loaded()) {
        notes.push(
            "work: prompt + new tokens, @ depth already in the KV cache, × sequences in one batch. \
         ±: half of the 95 % interval of the median. Speeds of a batch are of all its sequences \
         together. memory: peak of the process. bandwidth: share of the machine's measured memory \
         bandwidth that decode reached."
                .to_owned(),
        );
    }
    let mut marks: Vec<_> = records.iter().flat_map(|r| r.marks.split_whitespace()).collect();
    marks.sort_unstable();
    marks.dedup();
    if !marks.is_empty() {
        notes.push(format!(
            "* marked: {} (results/README.md says what each means)",
            marks.join(", ")
        ));
    }
    let bad = records.iter().filter(|r| r.outcome != Outcome::Measured).count();
    if bad > 0 {
        notes.push(format!("{bad} of {} cases have no full figures; see above", records.len()));
    }
    Section { notes, ..Section::default() }
}
