//! A decision as CSV and JSON.

use std::io::{self, Write};

use serde_json::json;

use crate::cmd::run::Format;
use crate::cost::{BreakEvenVolume, Comparison, Input};
use crate::report::{Report, Section};
use crate::units::{Usd, UsdPerMtok};

use super::answer::{Answer, Worked, exact};

/// The columns of a decision as CSV.
const COLUMNS: [&str; 28] = [
    "machine",
    "workload",
    "alternative",
    "cannot_serve",
    "tok_s",
    "tok_s_basis",
    "devices",
    "months",
    "tokens",
    "utilisation",
    "purchase_usd",
    "owning_usd_per_month",
    "cloud_usd_per_month",
    "owning_usd_per_mtok",
    "cloud_usd_per_mtok",
    "break_even_months",
    "discounted_payback_months",
    "break_even_tokens_per_day",
    "npv_usd",
    "npv_usd_p10",
    "npv_usd_p50",
    "npv_usd_p90",
    "irr",
    "roi",
    "owning_wins",
    "kwh_per_month",
    "strongest_input",
    "price_source",
];

/// Says that a machine cannot serve a workload, where there is nothing to price.
pub fn refuse(format: Format, machine: &str, workload: &str, reason: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Table | Format::Markdown => {
            drop(out);
            let section =
                Section { text: vec![format!("{machine} {reason}.")], ..Section::default() };
            let title = format!("Owning {machine} for {workload}");
            crate::cmd::prices::render(format, &Report { title, sections: vec![section] })?;
        }
        Format::Csv => {
            let mut out = csv::Writer::from_writer(out);
            out.write_record(COLUMNS)?;
            let mut row = [""; COLUMNS.len()];
            row[..4].copy_from_slice(&[machine, workload, "", reason]);
            out.write_record(row)?;
            out.flush()?;
        }
        Format::Json => {
            let said = json!({"machine": machine, "workload": workload, "cannot_serve": reason});
            serde_json::to_writer_pretty(&mut out, &said)?;
            writeln!(out)?;
        }
    }
    Ok(())
}

impl Answer {
    pub fn csv(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut out = csv::Writer::from_writer(out);
        out.write_record(COLUMNS)?;
        if self.alternatives.is_empty() {
            out.write_record(self.cells(&self.owning, None))?;
        }
        for worked in &self.alternatives {
            out.write_record(self.cells(&worked.comparison, Some(worked)))?;
        }
        out.flush()?;
        Ok(())
    }

    fn cells(&self, c: &Comparison, worked: Option<&Worked>) -> Vec<String> {
        let text = |value: Option<String>| value.unwrap_or_default();
        let usd = |value: Option<Usd>| text(value.map(|usd| exact(usd.0)));
        let price = |value: Option<UsdPerMtok>| text(value.map(|price| exact(price.0)));
        let with = |of: &dyn Fn(&Worked) -> String| text(worked.map(of));
        // Owning that cannot serve is compared with nothing.
        let compared = |of: &dyn Fn(&Worked) -> String| match self.cannot {
            Some(_) => String::new(),
            None => text(worked.map(of)),
        };
        let volume = match &c.break_even_volume {
            BreakEvenVolume::From { tokens_per_day, .. } => tokens_per_day.to_string(),
            BreakEvenVolume::Never(_) | BreakEvenVolume::OfABill => String::new(),
        };
        let speed = self.assumptions.get(Input::output_tok_s);
        vec![
            self.machine.clone(),
            self.workload.clone(),
            with(&|w| w.name.clone()),
            text(self.cannot.clone()),
            text(speed.map(|row| exact(row.likely))),
            text(speed.map(|row| row.basis.to_string())),
            c.devices.to_string(),
            c.months.to_string(),
            exact(c.tokens),
            c.utilisation.0.to_string(),
            exact(c.purchase.0),
            exact(c.owning.total().0),
            with(&|_| exact(c.cloud_per_month.0)),
            price(c.owning_per_mtok.blended),
            with(&|_| price(c.cloud_per_mtok.blended)),
            compared(&|_| text(c.break_even.months().map(|m| m.0.to_string()))),
            compared(&|_| text(c.discounted_payback.months().map(|m| m.0.to_string()))),
            compared(&|_| volume.clone()),
            compared(&|_| exact(c.npv.0)),
            compared(&|w| usd(w.draws.npv.p10)),
            compared(&|w| usd(w.draws.npv.p50)),
            compared(&|w| usd(w.draws.npv.p90)),
            compared(&|_| text(c.irr.map(|irr| irr.0.to_string()))),
            compared(&|_| text(c.roi.map(|roi| roi.0.to_string()))),
            compared(&|w| w.draws.owning_wins.0.to_string()),
            c.kwh_per_month.0.to_string(),
            compared(&|w| text(w.swings.first().map(|s| s.input.to_owned()))),
            with(&|w| w.source.clone()),
        ]
    }

    pub fn json(&self) -> serde_json::Value {
        let inputs: Vec<_> = self
            .assumptions
            .rows()
            .into_iter()
            .map(|row| {
                json!({
                    "input": row.input.key(), "low": row.low, "likely": row.likely,
                    "high": row.high, "unit": row.input.unit(), "basis": row.basis,
                    "source": row.source,
                })
            })
            .collect();
        let alternatives: Vec<_> = self
            .alternatives
            .iter()
            .map(|worked| {
                let mut said = json!({
                    "name": worked.name, "source": worked.source, "conflicts": worked.conflicts,
                    "verdict": self.verdict(worked),
                    "hybrid": worked.hybrid.as_ref().map(|divided| &divided.best),
                    "cloud_per_month": worked.comparison.cloud_per_month,
                    "cloud_per_mtok": worked.comparison.cloud_per_mtok,
                });
                if self.cannot.is_none() {
                    said["comparison"] = json!(worked.comparison);
                    said["tornado"] = json!(worked.swings);
                    said["draws"] = json!(worked.draws);
                }
                said
            })
            .collect();
        let carbon: Vec<_> = self
            .carbon
            .iter()
            .map(|c| {
                json!({
                    "kg_per_month": self.owning.kwh_per_month.0 * c.g_per_kwh / 1000.0,
                    "g_per_kwh": c.g_per_kwh, "year": c.year, "source": c.source,
                })
            })
            .collect();
        json!({
            "machine": self.machine, "workload": self.workload, "cannot_serve": self.cannot,
            "notes": self.notes, "inputs": inputs, "owning": {
                "per_month": self.owning.owning, "total_per_month": self.owning.owning.total(),
                "per_mtok": self.owning.owning_per_mtok, "devices": self.owning.devices,
                "months": self.owning.months, "tokens": self.owning.tokens,
                "utilisation": self.owning.utilisation, "purchase": self.owning.purchase,
                "kwh_per_month": self.owning.kwh_per_month, "carbon": carbon,
            },
            "alternatives": alternatives,
        })
    }
}
