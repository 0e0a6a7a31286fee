//! A plan of `bench capacity` as inputs of a decision, and what owning its devices costs a month.

use std::path::Path;

use anyhow::Context as _;
use jiff::civil::Date;
use rust_decimal::Decimal;
use rust_decimal::prelude::FromPrimitive;
use serde::{Deserialize, Serialize};

use crate::catalog::electricity::ExchangeRate;
use crate::catalog::hardware::Device;
use crate::cost::{Assumptions, Basis, Input, compare};
use crate::fit::machine::Machine;
use crate::scenario::Scenario;
use crate::units::Usd;

use super::context::{put_scenario_prices, put_tariff};
use super::machine;

/// How many devices serve a workload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The machine as the catalogue names it; none where it is not of the catalogue.
    pub device: Option<String>,
    /// How many.
    pub devices: u32,
    /// As many with speeds at the fast end of their interval.
    pub devices_low: u32,
    /// As many at the slow end; none where none is known to do then.
    pub devices_high: Option<u32>,
    /// On what the speeds rest: measured, calibrated or predicted.
    pub basis: String,
    /// The workload in words.
    pub workload: String,
    /// Devices that are there already and serve beside them, a part of the load that is not in this
    /// plan.
    #[serde(default)]
    pub beside: u32,
    /// Requests on a working day that these devices serve.
    pub requests_per_day: f64,
    /// The mean prompt, with what a cache answers.
    pub prompt_tokens: f64,
    /// The share of prompts that the turn before already had.
    #[serde(default)]
    pub cached_share: f64,
    /// The mean answer.
    pub new_tokens: f64,
    /// Hours of a day in which requests come.
    pub active_hours_per_day: f64,
    /// The busiest hour over the mean of these.
    #[serde(default = "once")]
    pub peak_factor: f64,
    /// Times as long as at the peak that devices compute for the same work, over the day: with fewer
    /// requests at once each token takes longer.
    #[serde(default = "once")]
    pub busy_factor: f64,
    /// Days of a month.
    pub working_days_per_month: f64,
    /// Generated tokens a second of one device while it computes, the time for prompts included.
    pub tok_s_per_device: f64,
    /// What made it.
    pub command: String,
}

fn once() -> f64 {
    1.0
}

/// A file of `bench capacity`, of which the plan is read.
#[derive(Deserialize)]
struct File {
    plan: Option<Plan>,
    answer: String,
}

impl Plan {
    /// Of what `bench capacity --format json` wrote.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read '{shown}'"))?;
        let file: File = serde_json::from_str(&text).with_context(|| {
            format!("'{shown}' is no plan: write one with `bench capacity … --format json`")
        })?;
        file.plan.with_context(|| format!("'{shown}' has no plan to price: {}", file.answer))
    }

    /// Puts the workload, the speed and the number of devices.
    ///
    /// A plan of n devices says that n - 1 are too few: the need lies between, and is taken for
    /// n - 1/2, so that a growth or a draw of a few per cent does not buy one more.
    pub fn put(&self, all: &mut Assumptions) -> anyhow::Result<()> {
        let number = |name: &str, value: f64| {
            let number = Decimal::from_f64(value).and_then(|number| number.round_sf(6));
            number.with_context(|| format!("the plan's '{name}' of {value} cannot be"))
        };
        let basis = match self.basis.as_str() {
            "measured" => Basis::Measured,
            "calibrated" => Basis::Calibrated,
            _ => Basis::Predicted,
        };
        let source = format!("plan: {}", self.command);
        let requests = number("requests_per_day", self.requests_per_day)?;
        for (input, value) in [
            (Input::requests_per_day, requests),
            (Input::prompt_tokens, number("prompt_tokens", self.prompt_tokens)?),
            (Input::new_tokens, number("new_tokens", self.new_tokens)?),
            (
                Input::active_hours_per_day,
                number("active_hours_per_day", self.active_hours_per_day)?,
            ),
            (
                Input::working_days_per_month,
                number("working_days_per_month", self.working_days_per_month)?,
            ),
            (Input::cached_share, number("cached_share", self.cached_share)?),
            (Input::peak_factor, number("peak_factor", self.peak_factor)?),
        ] {
            all.put_point(input, value, Basis::Stated, source.clone())?;
        }
        let busy = number("busy_factor", self.busy_factor)?;
        all.put_point(Input::busy_factor, busy, Basis::Predicted, source.clone())?;
        let speed = number("tok_s_per_device", self.tok_s_per_device)?;
        all.put_point(Input::output_tok_s, speed, basis, source.clone())?;
        let each = |devices: u32| {
            let each = requests / (Decimal::from(devices.max(1)) - Decimal::new(5, 1));
            each.round_sf(12).unwrap_or(each)
        };
        let likely = each(self.devices);
        let low = each(self.devices_high.unwrap_or(self.devices)).min(likely);
        let range = (low, likely, each(self.devices_low).max(likely));
        let unsure = match self.devices_high {
            Some(_) => "",
            None => "; at the slow end of the speeds these are too few, which no cost here shows",
        };
        all.put(Input::requests_per_device, range, basis, format!("{source}{unsure}"))
    }
}

/// Prices that all devices of a question share.
pub struct Prices<'a> {
    /// The day of the question.
    pub today: Date,
    /// A scenario whose `[prices]` hold.
    pub scenario: Option<&'a Scenario>,
    /// The devices of its machine, of which alone it knows price and power; all, where it names none.
    pub its_devices: Option<Vec<Device>>,
    /// The country whose tariff holds; before one of the scenario.
    pub tariff: Option<&'a str>,
    /// Whose tariff.
    pub sector: &'a str,
    /// For tariffs in another currency.
    pub exchange: Option<ExchangeRate>,
}

/// What owning the devices of a plan costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Owning {
    /// In a mean month, at the likely price of the devices.
    pub usd_per_month: Usd,
    /// At the lowest price of the devices.
    pub usd_per_month_low: Usd,
    /// At the highest.
    pub usd_per_month_high: Usd,
    /// All devices with the rest of their machines.
    pub purchase_usd: Usd,
    /// Where the price of the devices comes from.
    pub price_source: String,
}

/// Prices a plan on `machine`.
///
/// # Errors
/// A price, a power or a tariff that is not known, with what to do.
pub fn owning(plan: &Plan, machine: &Machine, prices: &Prices<'_>) -> anyhow::Result<Owning> {
    let mut all = Assumptions::default();
    plan.put(&mut all)?;
    machine::put(&mut all, machine, prices.today)?;
    if let Some(scenario) = prices.scenario {
        let is_its = prices.its_devices.as_ref().is_none_or(|its| *its == machine.devices);
        put_scenario_prices(&mut all, scenario, is_its, prices.tariff.is_none())?;
    }
    let of_scenario = prices.scenario.and_then(|scenario| scenario.prices.as_ref());
    if all.get(Input::electricity_usd_per_kwh).is_none() {
        let place = prices.tariff.map(str::to_owned);
        let place = place.or_else(|| of_scenario.and_then(|prices| prices.tariff.clone()));
        let is_assumed = place.is_none();
        let place = place.unwrap_or_else(|| "US".to_owned());
        put_tariff(&mut all, &place, prices.sector, prices.exchange.as_ref(), is_assumed)?;
    }
    machine::check(&all)?;
    let price = all.get(Input::device_usd).context("a machine without a price")?.clone();
    let with = |usd: Decimal| {
        let mut inputs = all.inputs();
        inputs.set(Input::device_usd, usd);
        compare(&inputs)
    };
    let likely = with(price.likely)?;
    Ok(Owning {
        usd_per_month: likely.owning.total(),
        usd_per_month_low: with(price.low)?.owning.total(),
        usd_per_month_high: with(price.high)?.owning.total(),
        purchase_usd: likely.purchase,
        price_source: price.source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_of_four_devices_is_four_also_a_little_above_its_requests() {
        let plan = Plan {
            device: None,
            devices: 4,
            devices_low: 3,
            devices_high: Some(5),
            basis: "predicted".into(),
            workload: "test".into(),
            beside: 0,
            requests_per_day: 7000.0,
            prompt_tokens: 100.0,
            cached_share: 0.0,
            new_tokens: 100.0,
            active_hours_per_day: 24.0,
            peak_factor: 1.0,
            busy_factor: 1.0,
            working_days_per_month: 21.0,
            tok_s_per_device: 100.0,
            command: "bench capacity".into(),
        };
        let mut all = Assumptions::default();
        plan.put(&mut all).unwrap();
        // 7,000 / 3.5, between 7,000 / 4.5 and 7,000 / 2.5.
        let row = all.get(Input::requests_per_device).unwrap();
        assert_eq!((row.likely, row.high), (2000.into(), 2800.into()));
        assert_eq!(row.low.round(), Decimal::from(1556));
        let devices = |growth: i64| {
            let mut inputs = all.inputs();
            inputs.growth_per_year = Decimal::new(growth, 2);
            compare(&inputs).unwrap().devices
        };
        // Two years of growth: 3.5 x 1.05^2 = 3.86, and 3.5 x 1.1^2 = 4.24.
        assert_eq!((devices(0), devices(5), devices(10)), (4, 4, 5));
    }
}
