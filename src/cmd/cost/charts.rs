//! The charts of a decision: what is paid over the months, break-even by volume, the tornado.

use std::path::{Path, PathBuf};

use rust_decimal::Decimal;

use crate::cost::{BreakEvenVolume, Swing, compare, cumulative};
use crate::report::chart::{Bar, Chart, Curves, Line, Mark, Tornado};
use crate::units::Usd;

use super::answer::{Answer, Worked, float, plain};

impl Answer {
    /// Draws up to three charts for each alternative; gives their files.
    pub fn charts(&self, folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
        if let Some(cannot) = &self.cannot {
            eprintln!("no charts: {} {cannot}", self.machine);
            return Ok(Vec::new());
        }
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
        x: "months; the machine is sold in the last one".into(),
        y: "USD".into(),
        is_logarithmic: false,
        lines: vec![line("owning", &curves.owning), line(&worked.name, &curves.cloud)],
        marks,
    })
}

/// Months to break-even at a tenth to a hundred times the workload; none where there are none, or
/// where a bill does not say what other volumes cost.
fn by_volume(worked: &Worked) -> Option<Chart> {
    if worked.comparison.break_even_volume == BreakEvenVolume::OfABill {
        return None;
    }
    let inputs = &worked.inputs;
    let each = inputs.prompt_tokens + inputs.new_tokens;
    let mut points = Vec::new();
    for step in 0..=120 {
        let scale = Decimal::try_from(10f64.powf(f64::from(step) / 40.0 - 1.0)).ok()?;
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
    let mark = match worked.comparison.break_even.months() {
        Some(months) => Mark { at: (here, months.0), label: format!("this workload: {months}") },
        None => Mark { at: (here, 0.0), label: "this workload: never".into() },
    };
    (points.len() > 1).then(|| {
        Chart::Curves(Curves {
            title: format!("Break-even against {} by volume", worked.name),
            x: "tokens on a working day; a step up is one more device".into(),
            y: "months to break-even".into(),
            is_logarithmic: true,
            lines: vec![Line { name: "break-even".into(), points }],
            marks: vec![mark],
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
        x: "net present value of owning, USD; blue: at the lowest value, orange: at the highest"
            .into(),
        centre: float(worked.comparison.npv.0),
        bars: worked.swings.iter().map(bar).collect(),
    })
}
