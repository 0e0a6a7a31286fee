//! How far the answer moves with its assumptions: the tornado, and 10,000 draws from all ranges.

use rand::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;
use rust_decimal::Decimal;
use serde::Serialize;

use super::inputs::{Input, Inputs, Numbers, Range};
use super::number::Number;
use super::ownership::{Life, exact, live};
use crate::units::{Months, Share, Usd, UsdPerMtok};

/// Bars of a tornado.
pub const STRONGEST: usize = 5;
/// Draws of a Monte Carlo.
pub const DRAWS: usize = 10_000;

/// How far one input alone moves the net present value of owning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Swing {
    /// The input's key.
    pub input: &'static str,
    /// Its unit.
    pub unit: &'static str,
    /// The least that is plausible.
    pub low: Decimal,
    /// The most that is plausible.
    pub high: Decimal,
    /// Net present value of owning at `low`.
    pub npv_at_low: Usd,
    /// Net present value of owning at `high`.
    pub npv_at_high: Usd,
    /// Where the range comes from.
    pub basis: String,
}

impl Swing {
    /// The distance between the two ends.
    pub fn width(&self) -> Usd {
        Usd((self.npv_at_high - self.npv_at_low).0.abs())
    }

    /// Whether this input alone decides who wins.
    pub fn is_decisive(&self) -> bool {
        (self.npv_at_low.0 > Decimal::ZERO) != (self.npv_at_high.0 > Decimal::ZERO)
    }
}

/// The inputs that move the net present value most, the strongest first; at most [`STRONGEST`].
///
/// Each is moved alone from one end of its range to the other, all others at their point values.
pub fn tornado(inputs: &Inputs, ranges: &[Range]) -> Vec<Swing> {
    let at = |input: Input, number: Decimal| {
        let mut moved = *inputs;
        moved.set(input, number);
        Usd(exact(&moved).npv())
    };
    let mut swings: Vec<Swing> = ranges
        .iter()
        .filter(|range| !range.is_point())
        .map(|range| Swing {
            input: range.input.key(),
            unit: range.input.unit(),
            low: range.low,
            high: range.high,
            npv_at_low: at(range.input, range.low),
            npv_at_high: at(range.input, range.high),
            basis: range.basis.clone(),
        })
        .filter(|swing| !swing.width().0.is_zero())
        .collect();
    swings.sort_by_key(|swing| std::cmp::Reverse(swing.width()));
    swings.truncate(STRONGEST);
    swings
}

/// The 10th, 50th and 90th percentile of the draws; none where that draw has no such value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles<T> {
    /// One draw in ten is below.
    pub p10: Option<T>,
    /// Half of the draws are below.
    pub p50: Option<T>,
    /// One draw in ten is above.
    pub p90: Option<T>,
}

impl<T> Percentiles<T> {
    /// Nearest rank, so that each percentile is a draw that happened. What never happens in a draw
    /// (no break-even) is infinite there and sorts last.
    fn of(mut values: Vec<f64>, make: impl Fn(f64) -> Option<T>) -> Self {
        let mut at = |share: f64| {
            let rank = (share * values.len() as f64).ceil() as usize;
            let index = rank.clamp(1, values.len().max(1)) - 1;
            if values.is_empty() {
                return None;
            }
            let (_, value, _) = values.select_nth_unstable_by(index, f64::total_cmp);
            if value.is_finite() { make(*value) } else { None }
        };
        Self { p10: at(0.1), p50: at(0.5), p90: at(0.9) }
    }
}

/// What the draws say.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Draws {
    /// How many.
    pub count: usize,
    /// Share of draws in which owning has the higher net present value.
    pub owning_wins: Share,
    /// Net present value of owning instead of the alternative.
    pub npv: Percentiles<Usd>,
    /// Owning, for a million tokens.
    pub owning_per_mtok: Percentiles<UsdPerMtok>,
    /// The alternative, for a million tokens.
    pub cloud_per_mtok: Percentiles<UsdPerMtok>,
    /// Months to break-even; none where that draw never breaks even.
    pub break_even: Percentiles<Months>,
}

/// Draws all ranges at once, each from the triangle over its low, point and high value, and works
/// every draw out. The same seed gives the same answer.
pub fn monte_carlo(inputs: &Inputs, ranges: &[Range], draws: usize, seed: u64) -> Draws {
    let point: Numbers<f64> = inputs.numbers();
    let triangles: Vec<(Input, f64, f64, f64)> = ranges
        .iter()
        .map(|r| (r.input, r.low.float(), inputs.get(r.input).float(), r.high.float()))
        .collect();
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let mut npv = Vec::with_capacity(draws);
    let mut owning = Vec::with_capacity(draws);
    let mut cloud = Vec::with_capacity(draws);
    let mut months = Vec::with_capacity(draws);
    for _ in 0..draws {
        let mut x = point;
        for &(input, low, mode, high) in &triangles {
            // 53 random bits: as many as a float between 0 and 1 can hold.
            let uniform = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            x.set(input, triangular(low, mode, high, uniform));
        }
        let life = live(&x, None);
        npv.push(life.npv());
        let millions = life.sum(|year| year.tokens) / 1e6;
        let running = life.sum(|year| life.running(year));
        let total = life.capital_per_month() * f64::from(life.months) + running;
        owning.push(if millions > 0.0 { total / millions } else { f64::INFINITY });
        cloud.push(if millions > 0.0 {
            life.sum(|year| year.cloud) / millions
        } else {
            f64::INFINITY
        });
        months.push(months_to_break_even(&life));
    }
    let wins = npv.iter().filter(|&&value| value > 0.0).count();
    let money = |value: f64| Decimal::try_from(value).ok();
    Draws {
        count: draws,
        owning_wins: Share(wins as f64 / draws.max(1) as f64),
        npv: Percentiles::of(npv, |v| money(v).map(Usd)),
        owning_per_mtok: Percentiles::of(owning, |v| money(v).map(UsdPerMtok)),
        cloud_per_mtok: Percentiles::of(cloud, |v| money(v).map(UsdPerMtok)),
        break_even: Percentiles::of(months, |v| Some(Months(v))),
    }
}

/// The value below which a share `uniform` of the triangle over `low`, `mode`, `high` lies.
fn triangular(low: f64, mode: f64, high: f64, uniform: f64) -> f64 {
    let width = high - low;
    if width <= 0.0 {
        return mode;
    }
    if uniform < (mode - low) / width {
        low + (uniform * width * (mode - low)).sqrt()
    } else {
        high - ((1.0 - uniform) * width * (high - mode)).sqrt()
    }
}

/// As the exact break-even, without its sentence: infinite where there is none.
fn months_to_break_even(life: &Life<f64>) -> f64 {
    let (mut saved, mut since) = (0.0, f64::INFINITY);
    life.cash(|month, cash| {
        let before = saved;
        saved += cash;
        if saved < 0.0 {
            since = f64::INFINITY;
        } else if since.is_infinite() {
            let at_end = if month == life.months { life.resale - life.loan_balance } else { 0.0 };
            let flowing = saved - at_end;
            since = if month > 0 && flowing >= 0.0 && flowing > before {
                f64::from(month - 1) - before / (flowing - before)
            } else {
                f64::from(month)
            };
        }
    });
    since
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_triangle_is_drawn_from_end_to_end_with_its_median_where_the_area_is_half() {
        assert_eq!(triangular(1.0, 2.0, 4.0, 0.0), 1.0);
        assert!((triangular(1.0, 2.0, 4.0, 1.0 / 3.0) - 2.0).abs() < 1e-12);
        assert!((triangular(0.0, 1.0, 2.0, 0.5) - 1.0).abs() < 1e-12);
        assert!((triangular(1.0, 2.0, 4.0, 1.0) - 4.0).abs() < 1e-12);
        assert_eq!(triangular(3.0, 3.0, 3.0, 0.7), 3.0);
    }

    #[test]
    fn a_percentile_without_a_value_is_absent() {
        let values = vec![1.0, 2.0, 3.0, f64::INFINITY, f64::INFINITY];
        let percentiles = Percentiles::of(values, |v| Some(Months(v)));
        assert_eq!(percentiles.p10, Some(Months(1.0)));
        assert_eq!(percentiles.p50, Some(Months(3.0)));
        assert_eq!(percentiles.p90, None);
        let none = Percentiles::of(vec![], |v| Some(Months(v)));
        assert_eq!(none.p50, None);
    }
}
