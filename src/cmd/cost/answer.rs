//! The answer to one decision: sentences, tables, CSV, JSON and charts.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde_json::json;

use crate::cmd::run::Format;
use crate::cost::{
    Assumptions, BreakEven, BreakEvenVolume, Comparison, Draws, Hybrid, Input, Inputs, PRESETS,
    Range, Swing, compare, cumulative, monte_carlo, tornado,
};
use crate::report::chart::{Bar, Chart, Curves, Line, Mark, Tornado};
use crate::report::{Report, Section, Table};
use crate::units::{ABSENT, Kilograms, Tokens, Usd, UsdPerMtok, grouped, or_absent};

use super::QuestionArgs;
use super::question::{Context, Named};
use super::split::{self, SplitArgs};

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
    pub hybrid: Option<Hybrid>,
}

/// A whole decision.
pub struct Answer {
    pub machine: String,
    pub workload: String,
    /// Why the machine cannot serve the workload, where it cannot.
    pub cannot: Option<String>,
    pub owning: Comparison,
    pub alternatives: Vec<Worked>,
    assumptions: Assumptions,
    carbon: Vec<crate::catalog::electricity::Carbon>,
}

impl Answer {
    pub fn work_out(
        machine: String,
        context: &Context,
        assumptions: &Assumptions,
        alternatives: Vec<Named>,
        args: &QuestionArgs,
        split: &SplitArgs,
    ) -> anyhow::Result<Self> {
        let base = assumptions.inputs();
        let owning = compare(&base)?;
        let cannot = args.max_devices.filter(|&most| owning.devices > most).map(|most| {
            format!(
                "cannot serve the workload: it needs {} devices at its peak, and {most} can be had",
                owning.devices
            )
        });
        let mut worked = Vec::new();
        for named in alternatives {
            let inputs = named
                .alternative
                .of(base)
                .map_err(|error| error.context(format!("against {}", named.name)))?;
            let mut ranges = assumptions.ranges();
            for (input, low, high) in &named.spread {
                ranges.retain(|range| range.input != *input);
                ranges.push(Range::new(&inputs, *input, *low, *high, "other listings")?);
            }
            worked.push(Worked {
                comparison: compare(&inputs)?,
                swings: tornado(&inputs, &ranges),
                draws: monte_carlo(&inputs, &ranges, args.draws as usize, args.seed),
                hybrid: split.divide(&inputs)?,
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
            assumptions: assumptions.clone(),
            carbon: context.carbon.clone(),
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
    fn verdict(&self, worked: &Worked) -> String {
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

    fn report(&self) -> Report {
        let mut sections = vec![self.summary()];
        if !self.alternatives.is_empty() {
            sections.push(self.table());
        }
        sections.push(self.monthly());
        for worked in &self.alternatives {
            if !worked.swings.is_empty() {
                sections.push(swings(worked));
            }
            if let Some(hybrid) = &worked.hybrid {
                let (own, cloud) =
                    (worked.comparison.owning.total(), worked.comparison.cloud_per_month);
                sections.push(split::section(&worked.name, hybrid, own, cloud));
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
        Section { text, ..Section::default() }
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
            };
            let months = match &c.break_even {
                BreakEven::After(months) => months.to_string(),
                BreakEven::Never(_) => "never".to_owned(),
            };
            table.rows.push(vec![
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
                if self.cannot.is_some() {
                    ABSENT.to_owned()
                } else {
                    worked.draws.owning_wins.to_string()
                },
            ]);
        }
        let mut notes = vec![
            "NPV: net present value of owning instead, over the life; its range is the 10th to \
             90th percentile of the draws."
                .to_owned(),
            "Prices are compared, not answers: whether a local model's answers do is not in these \
             figures, nor whether the model fits the device (`bench fit`)."
                .to_owned(),
        ];
        for worked in &self.alternatives {
            if let BreakEvenVolume::Never(reason) = &worked.comparison.break_even_volume {
                notes.push(format!("{}: no volume breaks even: {reason}.", worked.name));
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
        for carbon in &self.carbon {
            notes.push(format!(
                "{} a month, {} CO2 at {} g/kWh ({}, {}).",
                self.owning.kwh_per_month,
                Kilograms(self.owning.kwh_per_month.0 * carbon.g_per_kwh / 1000.0),
                crate::units::significant(carbon.g_per_kwh, 3),
                carbon.source,
                carbon.year
            ));
        }
        Section {
            heading: "A month of owning".into(),
            table: Some(table),
            notes,
            ..Section::default()
        }
    }

    fn rests_on(&self) -> Section {
        let mut table = Table::new(&["input", ">value", ">range", "unit", "basis", "source"]);
        for row in self.assumptions.rows() {
            let range = if row.low == row.high {
                String::new()
            } else {
                format!("{} – {}", plain(row.low), plain(row.high))
            };
            table.rows.push(vec![
                row.input.key().to_owned(),
                plain(row.likely),
                range,
                row.input.unit().to_owned(),
                row.basis.to_string(),
                row.source.clone(),
            ]);
        }
        let notes = vec![
            "Change any of them with --set INPUT=VALUE and --range INPUT=LOW..HIGH.".to_owned(),
        ];
        Section {
            heading: "What this rests on".into(),
            table: Some(table),
            notes,
            ..Section::default()
        }
    }

    fn csv(&self, out: &mut dyn Write) -> anyhow::Result<()> {
        let mut out = csv::Writer::from_writer(out);
        out.write_record([
            "machine",
            "workload",
            "alternative",
            "cannot_serve",
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
        ])?;
        let text = |value: Option<String>| value.unwrap_or_default();
        let usd = |value: Option<Usd>| text(value.map(|usd| exact(usd.0)));
        let price = |value: Option<UsdPerMtok>| text(value.map(|price| exact(price.0)));
        let row = |c: &Comparison, worked: Option<&Worked>| {
            let with = |of: &dyn Fn(&Worked) -> String| text(worked.map(of));
            let volume = match &c.break_even_volume {
                BreakEvenVolume::From { tokens_per_day, .. } => tokens_per_day.to_string(),
                BreakEvenVolume::Never(_) => String::new(),
            };
            vec![
                self.machine.clone(),
                self.workload.clone(),
                with(&|w| w.name.clone()),
                text(self.cannot.clone()),
                c.devices.to_string(),
                c.months.to_string(),
                exact(c.tokens),
                c.utilisation.0.to_string(),
                exact(c.purchase.0),
                exact(c.owning.total().0),
                with(&|_| exact(c.cloud_per_month.0)),
                price(c.owning_per_mtok.blended),
                with(&|_| price(c.cloud_per_mtok.blended)),
                with(&|_| text(c.break_even.months().map(|m| m.0.to_string()))),
                with(&|_| text(c.discounted_payback.months().map(|m| m.0.to_string()))),
                with(&|_| volume.clone()),
                with(&|_| exact(c.npv.0)),
                with(&|w| usd(w.draws.npv.p10)),
                with(&|w| usd(w.draws.npv.p50)),
                with(&|w| usd(w.draws.npv.p90)),
                with(&|_| text(c.irr.map(|irr| irr.0.to_string()))),
                with(&|_| text(c.roi.map(|roi| roi.0.to_string()))),
                with(&|w| {
                    if self.cannot.is_some() {
                        String::new()
                    } else {
                        w.draws.owning_wins.0.to_string()
                    }
                }),
                c.kwh_per_month.0.to_string(),
                with(&|w| text(w.swings.first().map(|s| s.input.to_owned()))),
                with(&|w| w.source.clone()),
            ]
        };
        if self.alternatives.is_empty() {
            out.write_record(row(&self.owning, None))?;
        }
        for worked in &self.alternatives {
            out.write_record(row(&worked.comparison, Some(worked)))?;
        }
        out.flush()?;
        Ok(())
    }

    fn json(&self) -> serde_json::Value {
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
                json!({
                    "name": worked.name, "source": worked.source, "conflicts": worked.conflicts,
                    "verdict": self.verdict(worked), "comparison": worked.comparison,
                    "tornado": worked.swings, "draws": worked.draws,
                    "hybrid": worked.hybrid,
                })
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
            "inputs": inputs, "owning": {
                "per_month": self.owning.owning, "total_per_month": self.owning.owning.total(),
                "per_mtok": self.owning.owning_per_mtok, "devices": self.owning.devices,
                "months": self.owning.months, "tokens": self.owning.tokens,
                "utilisation": self.owning.utilisation, "purchase": self.owning.purchase,
                "kwh_per_month": self.owning.kwh_per_month, "carbon": carbon,
            },
            "alternatives": alternatives,
        })
    }

    /// Draws three charts for each alternative; gives their files.
    pub fn charts(&self, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for worked in &self.alternatives {
            let slug: String = worked
                .name
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' })
                .collect();
            let mut charts = vec![("paid", paid(&self.machine, worked))];
            if let Some(volume) = by_volume(worked) {
                charts.push(("volume", volume));
            }
            if !worked.swings.is_empty() {
                charts.push(("tornado", hangs_on(worked)));
            }
            for (kind, chart) in charts {
                for ending in ["svg", "png"] {
                    let path = folder.join(format!("cost-{slug}-{kind}.{ending}"));
                    chart.write(&path)?;
                    files.push(path);
                }
            }
        }
        Ok(files)
    }
}

fn paid(machine: &str, worked: &Worked) -> Chart {
    let curves = cumulative(&worked.inputs);
    let line = |name: &str, amounts: &[Usd]| Line {
        name: name.to_owned(),
        points: amounts.iter().enumerate().map(|(m, usd)| (m as f64, float(usd.0))).collect(),
    };
    let marks = worked.comparison.break_even.months().map_or_else(Vec::new, |months| {
        let (before, part) = (months.0.floor() as usize, months.0.fract());
        let at = |month: usize| curves.cloud.get(month).map_or(0.0, |usd| float(usd.0));
        let paid = at(before) + part * (at((before + 1).min(curves.cloud.len() - 1)) - at(before));
        vec![Mark { at: (months.0, paid), label: format!("break-even: {months}") }]
    });
    Chart::Curves(Curves {
        title: format!("Paid so far: owning {machine}, or {}", worked.name),
        x: "months".into(),
        y: "USD".into(),
        is_logarithmic: false,
        lines: vec![line("owning", &curves.owning), line(&worked.name, &curves.cloud)],
        marks,
    })
}

/// Months to break-even at a tenth to a hundred times the workload; none where there are none.
fn by_volume(worked: &Worked) -> Option<Chart> {
    let inputs = &worked.inputs;
    let each = inputs.prompt_tokens + inputs.new_tokens;
    let mut points = Vec::new();
    for step in 0..=60 {
        let scale = Decimal::try_from(10f64.powf(f64::from(step) / 20.0 - 1.0)).ok()?;
        let mut scaled = *inputs;
        scaled.requests_per_day = inputs.requests_per_day * scale;
        if scaled.check().is_err() {
            break;
        }
        if let Some(months) = compare(&scaled).ok()?.break_even.months() {
            points.push((float(scaled.requests_per_day * each), months.0));
        }
    }
    let here = float(inputs.requests_per_day * each);
    let marks = worked.comparison.break_even.months().map_or_else(Vec::new, |months| {
        vec![Mark { at: (here, months.0), label: "this workload".into() }]
    });
    (points.len() > 1).then(|| {
        Chart::Curves(Curves {
            title: format!("Break-even against {} by volume", worked.name),
            x: "tokens on a working day".into(),
            y: "months to break-even".into(),
            is_logarithmic: true,
            lines: vec![Line { name: "break-even".into(), points }],
            marks,
        })
    })
}

fn hangs_on(worked: &Worked) -> Chart {
    let bar = |swing: &Swing| Bar {
        name: swing.input.to_owned(),
        low: (plain(swing.low), float(swing.npv_at_low.0)),
        high: (plain(swing.high), float(swing.npv_at_high.0)),
    };
    Chart::Tornado(Tornado {
        title: format!("What owning instead of {} hangs on", worked.name),
        x: "net present value of owning, USD".into(),
        centre: float(worked.comparison.npv.0),
        bars: worked.swings.iter().map(bar).collect(),
    })
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
pub fn claims(on: jiff::civil::Date, format: Format) -> anyhow::Result<()> {
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

fn rounded(price: Option<UsdPerMtok>) -> String {
    or_absent(price.map(UsdPerMtok::rounded))
}

fn float(amount: Decimal) -> f64 {
    amount.to_f64().unwrap_or(f64::NAN)
}

/// A number as a person would write it, to six significant digits.
fn plain(number: Decimal) -> String {
    number.round_sf(6).unwrap_or(number).normalize().to_string()
}

/// A number as it is, but without digits that no division means: money to the millionth.
fn exact(number: Decimal) -> String {
    number.round_dp(6).normalize().to_string()
}
