//! Records made ready for a report: without private names, with their host, date and doubts.

use crate::record::{Outcome, Record};
use crate::report::{Cell, Table, load, results};
use crate::units::{self, ABSENT, Nanos};

use super::comparable::{differences, is_same_work};
use super::{Names, Source};

/// A record with what a report says about it.
#[derive(Clone, Debug)]
pub struct Row {
    /// The record, without private names.
    pub record: Record,
    /// Which of the sources it is from.
    pub source: usize,
    /// What its machine is called.
    pub host: String,
    /// The day it was measured on.
    pub date: String,
    /// Why it may not be compared with the first row of the same work.
    pub doubts: Vec<String>,
}

/// A value with the ends of its interval.
pub type Valued = (Option<f64>, Option<f64>, Option<f64>);

/// All rows, in the order of the sources.
pub fn prepare(sources: &[Source], names: &Names) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    // The first row of every work, so that a thousand records are not compared with each other.
    let mut firsts: Vec<usize> = Vec::new();
    for (source, of) in sources.iter().enumerate() {
        for record in &of.records {
            let record = anonymous(record, names);
            let is_first = |at: &&usize| is_same_work(&rows[**at].record, &record);
            let same: Vec<usize> = firsts.iter().filter(is_first).copied().collect();
            let mut doubts = Vec::new();
            let measured = |at: &&usize| rows[**at].record.outcome == Outcome::Measured;
            let kin =
                same.iter().filter(measured).find(|at| rows[**at].record.engine == record.engine);
            if let Some(first) = same.iter().find(measured) {
                let kin = kin.map(|at| &rows[*at].record);
                doubts = differences(&record, &rows[*first].record, kin);
            }
            if kin.is_none() {
                firsts.push(rows.len());
            }
            rows.push(Row {
                source,
                host: record.host.clone(),
                date: record.started.chars().take(10).collect(),
                doubts,
                record,
            });
        }
    }
    rows
}

fn anonymous(record: &Record, names: &Names) -> Record {
    let text = |text: &Option<String>| text.as_ref().map(|text| names.without(text));
    Record {
        host: names.host(&record.host),
        case_id: names.without(&record.case_id),
        scenario: names.without(&record.scenario),
        model: names.without(&record.model),
        weights: names.without(&record.weights),
        settings: names.without(&record.settings),
        reason: text(&record.reason),
        failure: text(&record.failure),
        workload: text(&record.workload),
        effective_settings: text(&record.effective_settings),
        backend: text(&record.backend),
        engine_version: text(&record.engine_version),
        engine_build: text(&record.engine_build),
        absent: text(&record.absent),
        ..record.clone()
    }
}

impl Row {
    /// Whether there are figures.
    pub fn has_figures(&self) -> bool {
        self.record.outcome == Outcome::Measured || self.record.trials > 0
    }

    /// Whether it is one request at a time, sent when the one before it has ended.
    pub fn is_single(&self) -> bool {
        self.record.batch <= 1 && !self.record.is_loaded()
    }

    /// How many run at a time.
    pub fn streams(&self) -> u32 {
        self.record.concurrency.unwrap_or(self.record.batch).max(1)
    }

    /// Marks and doubts, in words.
    pub fn remarks(&self) -> String {
        let marks = self.record.marks.split_whitespace().map(ToOwned::to_owned);
        marks.chain(self.doubts.iter().cloned()).collect::<Vec<_>>().join("; ")
    }

    /// The sign that follows its figures: `*` where a mark speaks against it, `‡` where it may not
    /// be compared with the first row of the same work.
    pub fn sign(&self) -> &'static str {
        match (self.record.marks.is_empty(), self.doubts.is_empty()) {
            (true, true) => "",
            (false, true) => "*",
            (true, false) => "‡",
            (false, false) => "*‡",
        }
    }

    /// The model with its quantisation.
    pub fn model(&self) -> String {
        format!("{} {}", self.record.model, self.record.quant)
    }

    /// A figure of this row with its interval and its signs.
    pub fn cell(&self, (value, low, high): Valued) -> Cell {
        match value {
            Some(value) => Cell::number(
                format!("{}{}", units::with_ends(value, low.zip(high)), self.sign()),
                Some(value),
            ),
            None => ABSENT.into(),
        }
    }

    /// A duration of this row with its signs.
    pub fn duration(&self, nanos: Option<f64>) -> Cell {
        match nanos {
            Some(ns) => {
                Cell::number(format!("{}{}", Nanos(ns.max(0.0) as u64), self.sign()), Some(ns))
            }
            None => ABSENT.into(),
        }
    }

    /// The cells that say which row it is; see [`table`].
    pub fn name(&self) -> Vec<Cell> {
        let r = &self.record;
        vec![
            r.engine.as_str().into(),
            r.model.as_str().into(),
            r.quant.as_str().into(),
            r.weights.as_str().into(),
            work(r).into(),
            self.host.as_str().into(),
            self.date.as_str().into(),
        ]
    }
}

/// What was asked for: `512+64 @4096 ×8`, under load with its users or requests a second.
pub fn work(record: &Record) -> String {
    let work = results::work(record);
    if !record.is_loaded() {
        return work;
    }
    let work = record.workload.clone().unwrap_or(work);
    format!("{work}, {}", load::load(record))
}

/// A table of rows: the columns that say which row it is, `columns`, and what speaks against it.
pub fn table(columns: &[&str]) -> Table {
    let mut names = vec!["engine", "model", "quant", "weights", "work", "host", "date"];
    names.extend(columns);
    names.push("marks");
    Table::new(&names)
}

/// Takes out what all rows have in common, and says it in a sentence for above the table.
pub fn say_once(table: &mut Table) -> Option<String> {
    let names = ["model", "quant", "weights", "work", "host", "date", "marks"];
    let taken = table.take_constant(&names);
    let words: Vec<_> = taken
        .iter()
        // A column without any mark says nothing.
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    let absent = table.take_absent();
    let mut said = Vec::new();
    if !words.is_empty() {
        said.push(format!("All rows: {}.", words.join("; ")));
    }
    if !absent.is_empty() {
        said.push(format!("Not in these results: {}.", absent.join(", ")));
    }
    (!said.is_empty()).then(|| said.join(" "))
}
