//! The answer to one decision: sentences, tables, CSV, JSON and charts.

use std::io::{self, Write};

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::cmd::run::Format;
use crate::cost::{
    Assumptions, Basis, BreakEven, BreakEvenVolume, Comparison, Draws, Inputs, Range, Swing,
    compare, monte_carlo, tornado,
};
use crate::report::{Report, Section, Table};
use crate::units::{ABSENT, Kilograms, UsdPerMtok, grouped, or_absent};

use super::QuestionArgs;
use super::alternatives::Named;
use super::context::Context;
use super::settle::Foundation;
use super::split::{self, Divided, SplitArgs};

/// One alternative, worked out.
pub struct Worked {
    pub name: String,
    pub source: String,
    pub conflicts: Vec<String>,
    pub inputs: Inputs,
    pub comparison: Comparison,
    pub swings: Vec<Swing>,
    pub draws: Draws,
    pub ranges: Vec<Range>,
    pub hybrid: Option<Divided>,
}

/// A whole decision.
pub struct Answer {
    pub machine: String,
    pub workload: String,
    /// Why the machine cannot serve the workload, where it cannot.
    pub cannot: Option<String>,
    pub owning: Comparison,
    pub alternatives: Vec<Worked>,
    pub assumptions: Assumptions,
    pub carbon: Vec<crate::catalog::electricity::Carbon>,
    pub notes: Vec<String>,
}

impl Answer {
    pub fn work_out(
        machine: String,
        context: &Context,
        basis: Foundation,
        alternatives: Vec<Named>,
        args: &QuestionArgs,
        split: &SplitArgs,
    ) -> anyhow::Result<Self> {
        let Foundation { assumptions, cannot, notes } = basis;
        let base = assumptions.inputs();
        let owning = compare(&base)?;
        // A division may do with the devices that can be had; none makes a model fit.
        let is_divisible = cannot.is_none();
        let cannot = cannot.or_else(|| too_many(&owning, args.max_devices));
        let stated = Context::stated_workload(args, context.scenario.as_ref());
        let lengths = stated.and_then(|workload| workload.prompt_tokens.as_ref());
        let mut worked = Vec::new();
        for named in alternatives {
            let inputs = named.priced(base)?;
            let mut ranges = assumptions.ranges();
            // One of another alternative says nothing about this one, whose own price it may not hold.
            ranges.retain(|range| {
                let point = inputs.get(range.input);
                named.alternative.uses(range.input) && (range.low..=range.high).contains(&point)
            });
            for (input, low, high) in &named.spread {
                ranges.retain(|range| range.input != *input);
                ranges.push(Range::new(&inputs, *input, *low, *high, "other listings")?);
            }
            worked.push(Worked {
                comparison: compare(&inputs)?,
                swings: tornado(&inputs, &ranges),
                draws: monte_carlo(&inputs, &ranges, args.draws as usize, args.seed),
                hybrid: if is_divisible {
                    split.divide(&inputs, lengths, args.max_devices)?
                } else {
                    None
                },
                name: named.name,
                source: named.source,
                conflicts: named.conflicts,
                inputs,
                ranges,
            });
        }
        Ok(Self {
            machine,
            workload: context.workload.clone(),
            cannot,
            owning,
            alternatives: worked,
            assumptions,
            carbon: context.carbon.clone(),
            notes,
        })
    }

    pub fn print(&self, format: Format) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        match format {
            Format::Table | Format::Markdown => {
                drop(out);
                return crate::cmd::prices::render(format, &self.report());
            }
            Format::Csv => self.csv(&mut out)?,
            Format::Json => {
                serde_json::to_writer_pretty(&mut out, &self.json())?;
                writeln!(out)?;
            }
        }
        Ok(())
    }

    /// What a person should do about one alternative, and how sure that is.
    pub fn verdict(&self, worked: &Worked) -> String {
        let (own, cloud) = (worked.comparison.owning.total(), worked.comparison.cloud_per_month);
        if let Some(cannot) = &self.cannot {
            return format!("{} {cannot}; {} costs {cloud} a month.", self.machine, worked.name);
        }
        let compared = if own < cloud {
            format!("owning costs {own} a month and {} {cloud}: {} less", worked.name, cloud - own)
        } else {
            format!("owning costs {own} a month and {} {cloud}: {} more", worked.name, own - cloud)
        };
        let when = match &worked.comparison.break_even {
            BreakEven::After(months) => format!("it breaks even after {months}"),
            BreakEven::Never(reason) => format!("it {reason}"),
        };
        let what = worked.swings.first().map_or(String::new(), |swing| {
            let decides = if swing.is_decisive() { "alone decides" } else { "matters most" };
            format!("; {} {decides}", swing.input)
        });
        format!(
            "Against {}: {compared}; {when}; owning wins in {} of {} draws{what}.",
            worked.name,
            worked.draws.owning_wins,
            grouped(worked.draws.count as u64)
        )
    }

    pub fn report(&self) -> Report {
        let mut sections = vec![self.summary()];
        if !self.alternatives.is_empty() {
            sections.push(self.table());
        }
        sections.push(self.monthly());
        for worked in &self.alternatives {
            if !worked.swings.is_empty() && self.cannot.is_none() {
                sections.push(swings(worked));
            }
            if let Some(divided) = &worked.hybrid {
                sections.push(split::section(&worked.name, divided));
            }
        }
        sections.push(self.rests_on());
        let title = format!("Owning {} for {}", self.machine, self.workload);
        Report { title, sections }
    }

    fn summary(&self) -> Section {
        let mut text: Vec<String> =
            self.alternatives.iter().map(|worked| self.verdict(worked)).collect();
        if text.is_empty() {
            let price = self.owning.owning_per_mtok.blended;
            let cannot = self.cannot.as_ref().map_or(String::new(), |c| format!(" It {c}."));
            text.push(format!(
                "Owning costs {} a month, {} over all tokens.{cannot} Compare it with --against \
                 PROVIDER/MODEL, --rent or --bill.",
                self.owning.owning.total(),
                rounded(price)
            ));
        }
        text.extend(self.notes.iter().cloned());
        text.extend(self.basis_of_speed());
        Section { text, ..Section::default() }
    }

    /// Which numbers were measured, and which predicted.
    fn basis_of_speed(&self) -> Option<String> {
        let of = |basis: Basis| {
            let rows = self.assumptions.rows();
            let keys: Vec<_> =
                rows.iter().filter(|row| row.basis == basis).map(|row| row.input.key()).collect();
            (!keys.is_empty()).then(|| format!("{basis}: {}", keys.join(", ")))
        };
        let parts: Vec<String> = [Basis::Measured, Basis::Calibrated, Basis::Predicted]
            .into_iter()
            .filter_map(of)
            .collect();
        (!parts.is_empty()).then(|| {
            format!(
                "Of the inputs, {}; all others are listed, stated or assumed.",
                parts.join("; ")
            )
        })
    }

    fn table(&self) -> Section {
        let mut table = Table::new(&[
            "alternative",
            ">a month",
            ">per Mtok",
            ">break-even",
            ">from tokens/day",
            ">NPV P10",
            ">NPV",
            ">NPV P90",
            ">IRR",
            ">ROI",
            ">owning wins",
        ]);
        for worked in &self.alternatives {
            let c = &worked.comparison;
            let from = match &c.break_even_volume {
                BreakEvenVolume::From { tokens_per_day, .. } => {
                    grouped(tokens_per_day.to_u64().unwrap_or(u64::MAX))
                }
                BreakEvenVolume::Never(_) => "never".to_owned(),
                BreakEvenVolume::OfABill => ABSENT.to_owned(),
            };
            let months = match &c.break_even {
                BreakEven::After(months) => months.to_string(),
                BreakEven::Never(_) => "never".to_owned(),
            };
            let mut row = vec![
                worked.name.clone(),
                c.cloud_per_month.to_string(),
                rounded(c.cloud_per_mtok.blended),
                months,
                from,
                or_absent(worked.draws.npv.p10),
                c.npv.to_string(),
                or_absent(worked.draws.npv.p90),
                or_absent(c.irr),
                or_absent(c.roi),
                worked.draws.owning_wins.to_string(),
            ];
            if self.cannot.is_some() {
                // Owning is no alternative, so that nothing is compared.
                row[3..].fill(ABSENT.to_owned());
            }
            table.rows.push(row);
        }
        let mut notes = vec![
            "A month is the mean one of the life, with growth and with API prices that change."
                .to_owned(),
            "NPV: net present value of owning instead, over the life; its range is the 10th to \
             90th percentile of the draws."
                .to_owned(),
            "Prices are compared, not answers: whether a local model's answers do is not in these \
             figures."
                .to_owned(),
        ];
        for worked in &self.alternatives {
            if self.cannot.is_some() {
                notes.push(format!("{}: {}", worked.name, worked.source));
                continue;
            }
            match &worked.comparison.break_even_volume {
                BreakEvenVolume::Never(reason) => {
                    notes.push(format!("{}: no volume breaks even: {reason}.", worked.name));
                }
                BreakEvenVolume::OfABill => notes.push(format!(
                    "{}: paid for this workload, and taken to grow with it: what other volumes \
                     would cost is not known.",
                    worked.name
                )),
                BreakEvenVolume::From { .. } => {}
            }
            if let BreakEven::Never(reason) = &worked.comparison.discounted_payback {
                notes.push(format!("{}: {reason}.", worked.name));
            }
            notes.push(format!("{}: {}", worked.name, worked.source));
            for conflict in &worked.conflicts {
                notes.push(format!("{}: also listed: {conflict}", worked.name));
            }
        }
        Section { heading: "Alternatives".into(), table: Some(table), notes, ..Section::default() }
    }

    fn monthly(&self) -> Section {
        let mut table = Table::new(&["term", ">a month"]);
        for (name, amount) in self.owning.owning.terms() {
            if !amount.0.is_zero() {
                table.rows.push(vec![name.to_owned(), amount.to_string()]);
            }
        }
        table.rows.push(vec!["together".to_owned(), self.owning.owning.total().to_string()]);
        let price = &self.owning.owning_per_mtok;
        let mut notes = vec![
            format!(
                "{} device{} for {}, in use for {} months at {} utilisation; {} tokens a month.",
                self.owning.devices,
                if self.owning.devices == 1 { "" } else { "s" },
                self.owning.purchase,
                self.owning.months,
                self.owning.utilisation,
                grouped(
                    (self.owning.tokens / Decimal::from(self.owning.months))
                        .round()
                        .to_u64()
                        .unwrap_or(u64::MAX)
                )
            ),
            match (price.input, price.output) {
                (Some(_), Some(_)) => format!(
                    "{} of prompts, {} generated, {} over all tokens.",
                    rounded(price.input),
                    rounded(price.output),
                    rounded(price.blended)
                ),
                _ => format!(
                    "{} over all tokens; prompts and answers are not priced apart, as the time for \
                     prompts is not known apart.",
                    rounded(price.blended)
                ),
            },
        ];
        if self.carbon.is_empty() {
            notes.push(format!(
                "{} a month; the carbon intensity of this grid is not known.",
                self.owning.kwh_per_month
            ));
        }
        if !self.carbon.is_empty() {
            let each = self.carbon.iter().map(|carbon| {
                format!(
                    "{} CO2 at {} g/kWh ({}, {})",
                    Kilograms(self.owning.kwh_per_month.0 * carbon.g_per_kwh / 1000.0),
                    crate::units::significant(carbon.g_per_kwh, 3),
                    carbon.source,
                    carbon.year
                )
            });
            let each: Vec<String> = each.collect();
            notes.push(format!("{} a month: {}.", self.owning.kwh_per_month, each.join(", or ")));
        }
        Section {
            heading: "A month of owning".into(),
            table: Some(table),
            notes,
            ..Section::default()
        }
    }

    fn rests_on(&self) -> Section {
        let columns = ["input", ">value", ">range", "unit", "basis", ">from"];
        let mut table = Table::new(&columns);
        let mut sources: Vec<&str> = Vec::new();
        for row in self.assumptions.rows() {
            let range = if row.low == row.high {
                String::new()
            } else {
                format!("{}–{}", plain(row.low), plain(row.high))
            };
            let place = sources.iter().position(|source| *source == row.source);
            let place = place.unwrap_or_else(|| {
                sources.push(&row.source);
                sources.len() - 1
            });
            table.rows.push(vec![
                row.input.key().to_owned(),
                plain(row.likely),
                range,
                row.input.unit().to_owned(),
                row.basis.to_string(),
                (place + 1).to_string(),
            ]);
        }
        let numbered =
            sources.iter().enumerate().map(|(i, source)| format!("[{}] {source}", i + 1));
        let mut notes: Vec<String> = numbered.collect();
        notes.push(
            "Change any of them with --set INPUT=VALUE and --range INPUT=LOW..HIGH.".to_owned(),
        );
        Section {
            heading: "What this rests on".into(),
            table: Some(table),
            notes,
            ..Section::default()
        }
    }
}

fn swings(worked: &Worked) -> Section {
    let mut table =
        Table::new(&["input", ">from", ">to", "unit", ">NPV from", ">NPV to", "decides"]);
    for swing in &worked.swings {
        table.rows.push(vec![
            swing.input.to_owned(),
            plain(swing.low),
            plain(swing.high),
            swing.unit.to_owned(),
            swing.npv_at_low.to_string(),
            swing.npv_at_high.to_string(),
            if swing.is_decisive() { "yes" } else { "" }.to_owned(),
        ]);
    }
    let p = &worked.draws.break_even;
    let months = |m: Option<crate::units::Months>| m.map_or("never".to_owned(), |m| m.to_string());
    let notes = vec![format!(
        "Break-even in the draws: {} (P10), {} (P50), {} (P90); {} inputs are uncertain.",
        months(p.p10),
        months(p.p50),
        months(p.p90),
        worked.ranges.len()
    )];
    Section {
        heading: format!("What it hangs on, against {}", worked.name),
        table: Some(table),
        notes,
        ..Section::default()
    }
}

/// Why so many devices cannot be had, where that is so.
pub fn too_many(owning: &Comparison, most: Option<u32>) -> Option<String> {
    most.filter(|&most| owning.devices > most).map(|most| {
        format!(
            "cannot serve the workload: it needs {} devices at its peak, and {most} can be had",
            owning.devices
        )
    })
}

fn rounded(price: Option<UsdPerMtok>) -> String {
    or_absent(price.map(UsdPerMtok::rounded))
}

pub fn float(amount: Decimal) -> f64 {
    amount.to_f64().unwrap_or(f64::NAN)
}

/// A number as a person would write it, to six significant digits.
pub fn plain(number: Decimal) -> String {
    number.round_sf(6).unwrap_or(number).normalize().to_string()
}

/// A number as it is, but without digits that no division means: money to the millionth.
pub fn exact(number: Decimal) -> String {
    number.round_dp(6).normalize().to_string()
}
