//! Tables of inputs, of workloads, and of what articles claim about cost.

use std::io::{self, Write};

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::cmd::run::Format;
use crate::cost::{Input, Inputs, PRESETS};
use crate::report::{Report, Section, Table};
use crate::units::Tokens;

use super::answer::plain;

/// All inputs and all workloads with a name.
pub fn inputs() -> Report {
    let mut table = Table::new(&["input", "unit", ">least", ">most", "meaning"]);
    for input in Input::ALL {
        let (low, high) = input.bounds();
        table.rows.push(vec![
            input.key().to_owned(),
            input.unit().to_owned(),
            plain(low),
            plain(high),
            input.meaning().to_owned(),
        ]);
    }
    let mut workloads = Table::new(&[
        "workload",
        "meaning",
        ">requests/day",
        ">prompt",
        ">new",
        "where its numbers come from",
    ]);
    for preset in PRESETS {
        let of = preset.of(Inputs::blank());
        let tokens = |value: Decimal| Tokens(value.to_u32().unwrap_or(u32::MAX)).to_string();
        workloads.rows.push(vec![
            preset.name.to_owned(),
            preset.meaning.to_owned(),
            plain(of.requests_per_day),
            tokens(of.prompt_tokens),
            tokens(of.new_tokens),
            preset.basis.to_owned(),
        ]);
    }
    let section = |heading: &str, table| Section {
        heading: heading.to_owned(),
        table: Some(table),
        ..Section::default()
    };
    Report {
        title: String::new(),
        sections: vec![section("Inputs", table), section("Workloads", workloads)],
    }
}

/// What articles claim, with our figures.
pub fn print(on: jiff::civil::Date, format: Format) -> anyhow::Result<()> {
    let all = crate::cost::claims(on)?;
    match format {
        Format::Table | Format::Markdown => {
            let mut table = Table::new(&["claim", "verdict", "our figure", "assumptions"]);
            for claim in &all {
                table.rows.push(vec![
                    format!("{}: {}", claim.id, claim.claim),
                    claim.verdict.to_string(),
                    claim.figure.clone(),
                    claim.assumptions.clone(),
                ]);
            }
            let section = Section {
                text: vec![format!(
                    "Made by `bench cost claims --on {on}` from the catalogue's prices; no figure \
                     here was measured by this project."
                )],
                table: Some(table),
                ..Section::default()
            };
            let title = "Claims about the cost of local models".to_owned();
            crate::cmd::prices::render(format, &Report { title, sections: vec![section] })
        }
        Format::Csv => {
            let mut out = csv::Writer::from_writer(io::stdout().lock());
            for claim in &all {
                out.serialize(claim)?;
            }
            out.flush()?;
            Ok(())
        }
        Format::Json => {
            let mut out = io::stdout().lock();
            serde_json::to_writer_pretty(&mut out, &all)?;
            writeln!(out)?;
            Ok(())
        }
    }
}
