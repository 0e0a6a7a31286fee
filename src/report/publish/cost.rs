//! Break-even over a grid of volumes and prices, worked out before the report is written.

use rust_decimal::Decimal;
use rust_decimal::prelude::{FromPrimitive, ToPrimitive};

use crate::cost::{Inputs, compare};
use crate::report::chart::short;
use crate::report::explorer::{Answer, Axis, Explorer};
use crate::units::{Months, Usd, UsdPerKwh};

/// Steps of the volume for a factor of ten, and how many factors to each side.
const STEPS: i32 = 8;
const SIDES: f64 = 1.5;
/// Prices of electricity in cents, from where it is cheapest to where it is dearest.
const CENTS: [i64; 8] = [5, 10, 15, 20, 25, 30, 40, 50];
/// Prices of the hardware in per cent of the one that is stated.
const PER_CENT: [i64; 9] = [25, 50, 75, 100, 125, 150, 175, 200, 300];

/// The grid around the inputs of one alternative; none where a month has no tokens, or where a bill
/// does not say what other volumes cost.
pub fn explorer(against: &str, inputs: &Inputs) -> Option<Explorer> {
    let each = inputs.prompt_tokens + inputs.new_tokens;
    let here = (inputs.requests_per_day * each).to_f64().filter(|tokens| *tokens > 0.0)?;
    if inputs.device_usd.0.is_zero() || !inputs.api_usd_per_month.0.is_zero() {
        return None;
    }
    let half = (f64::from(STEPS) * SIDES) as i32;
    let volumes: Vec<f64> =
        (-half..=half).map(|step| here * 10f64.powf(f64::from(step) / f64::from(STEPS))).collect();
    let mut tariffs: Vec<Decimal> = CENTS.iter().map(|cents| Decimal::new(*cents, 2)).collect();
    tariffs.push(inputs.electricity_usd_per_kwh.0);
    tariffs.sort();
    tariffs.dedup();
    let prices: Vec<Usd> =
        PER_CENT.iter().map(|part| inputs.device_usd * Decimal::new(*part, 2)).collect();

    let mut answers = Vec::new();
    for tariff in &tariffs {
        for price in &prices {
            for volume in &volumes {
                let mut point = *inputs;
                point.electricity_usd_per_kwh = UsdPerKwh(*tariff);
                point.device_usd = *price;
                let scale = Decimal::from_f64(volume / here)?;
                point.requests_per_day = inputs.requests_per_day * scale;
                let comparison = compare(&point).ok()?;
                answers.push(Answer {
                    break_even: comparison.break_even.months(),
                    owning: comparison.owning.total(),
                    cloud: comparison.cloud_per_month,
                });
            }
        }
    }
    let start = |found: Option<usize>| found.unwrap_or_default();
    Some(Explorer {
        against: against.to_owned(),
        life: Months((inputs.life_years * Decimal::from(12)).round().to_f64()?),
        volume: Axis {
            name: "tokens on a working day".to_owned(),
            shown: volumes.iter().map(|v| format!("{} tokens", short(*v))).collect(),
            start: half as usize,
            values: volumes,
        },
        electricity: Axis {
            name: "price of electricity".to_owned(),
            start: start(tariffs.iter().position(|t| *t == inputs.electricity_usd_per_kwh.0)),
            shown: tariffs.iter().map(|tariff| UsdPerKwh(*tariff).to_string()).collect(),
            values: tariffs.iter().filter_map(ToPrimitive::to_f64).collect(),
        },
        hardware: Axis {
            name: "price of a device".to_owned(),
            start: start(PER_CENT.iter().position(|part| *part == 100)),
            shown: prices.iter().map(ToString::to_string).collect(),
            values: prices.iter().filter_map(|price| price.0.to_f64()).collect(),
        },
        answers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Preset;
    use crate::units::{TokensPerSecond, UsdPerMtok, Watts};

    fn inputs() -> Inputs {
        let workload = Preset::find("document-batch").unwrap().of(Inputs::blank());
        Inputs {
            device_usd: Usd(Decimal::from(500)),
            output_tok_s: TokensPerSecond(200.0),
            active_watts: Watts(40.0),
            idle_watts: Watts(10.0),
            electricity_usd_per_kwh: UsdPerKwh(Decimal::new(1872, 4)),
            api_input_usd_per_mtok: UsdPerMtok(Decimal::new(15, 2)),
            api_output_usd_per_mtok: UsdPerMtok(Decimal::new(6, 1)),
            ..workload
        }
    }

    #[test]
    fn every_point_of_the_grid_is_what_the_cost_model_says() {
        let inputs = inputs();
        let grid = explorer("a cloud", &inputs).unwrap();
        let (e, h, v) = (grid.electricity.start, grid.hardware.start, grid.volume.start);
        let here = compare(&inputs).unwrap();
        let answer = grid.at(e, h, v).unwrap();
        assert_eq!(answer.break_even, here.break_even.months());
        assert_eq!(answer.owning, here.owning.total());
        for (electricity, hardware, volume) in [(0, 0, 0), (2, 5, 20), (8, 8, 24)] {
            let mut point = inputs;
            point.electricity_usd_per_kwh =
                UsdPerKwh(Decimal::from_f64(grid.electricity.values[electricity]).unwrap());
            point.device_usd = Usd(Decimal::from_f64(grid.hardware.values[hardware]).unwrap());
            let tokens = grid.volume.values[volume];
            point.requests_per_day =
                Decimal::from_f64(tokens).unwrap() / (inputs.prompt_tokens + inputs.new_tokens);
            let expected = compare(&point).unwrap();
            let answer = grid.at(electricity, hardware, volume).unwrap();
            assert!((answer.cloud - expected.cloud_per_month).0.abs() < Decimal::new(1, 3));
            assert_eq!(
                answer.break_even.map(|m| m.to_string()),
                expected.break_even.months().map(|m| m.to_string())
            );
        }
    }

    #[test]
    fn dearer_hardware_never_pays_back_sooner() {
        let grid = explorer("a cloud", &inputs()).unwrap();
        for volume in 0..grid.volume.values.len() {
            let months: Vec<f64> = (0..grid.hardware.values.len())
                .map(|h| grid.at(grid.electricity.start, h, volume).unwrap().break_even)
                .map(|months| months.map_or(f64::INFINITY, |m| m.0))
                .collect();
            assert!(months.is_sorted(), "{months:?}");
        }
    }
}
