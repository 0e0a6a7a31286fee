//! A plan of `bench capacity` as inputs of a decision, and what owning its devices costs a month.

use std::path::Path;

use anyhow::Context as _;
use jiff::civil::Date;
use rust_decimal::prelude::FromPrimitive;
use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Deserialize, Serialize};

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
    /// As many at the slow end; none where no number does then.
    pub devices_high: Option<u32>,
    /// On what the speeds rest: measured, calibrated or predicted.
    pub basis: String,
    /// The workload in words.
    pub workload: String,
    /// Requests on a working day.
    pub requests_per_day: f64,
    /// The mean prompt, with what a cache answers.
    pub prompt_tokens: f64,
    /// The mean answer.
    pub new_tokens: f64,
    /// Hours of a day in which requests come.
    pub active_hours_per_day: f64,
    /// Days of a month.
    pub working_days_per_month: f64,
    /// Generated tokens a second of one device while it computes, the time for prompts included.
    pub tok_s_per_device: f64,
    /// What made it.
    pub command: String,
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
        ] {
            all.put_point(input, value, Basis::Stated, source.clone())?;
        }
        let speed = number("tok_s_per_device", self.tok_s_per_device)?;
        all.put_point(Input::output_tok_s, speed, basis, source.clone())?;
        // Rounded up, so that the devices are not overrun by the last digit.
        let each = |devices: u32| {
            let each = requests / Decimal::from(devices.max(1));
            each.round_sf_with_strategy(12, RoundingStrategy::AwayFromZero).unwrap_or(each)
        };
        let likely = each(self.devices);
        let low = each(self.devices_high.unwrap_or(self.devices)).min(likely);
        let range = (low, likely, each(self.devices_low).max(likely));
        all.put(Input::requests_per_device, range, basis, source)
    }
}

/// Prices that all devices of a question share.
pub struct Prices<'a> {
    /// The day of the question.
    pub today: Date,
    /// A scenario whose `[prices]` hold.
    pub scenario: Option<&'a Scenario>,
    /// The country whose tariff holds.
    pub tariff: Option<&'a str>,
    /// Whose tariff.
    pub sector: &'a str,
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
    let of_scenario = prices.scenario.and_then(|scenario| scenario.prices.as_ref());
    if of_scenario.is_none_or(|prices| prices.electricity_usd_per_kwh.is_none()) {
        let place = prices.tariff.map(str::to_owned);
        let place = place.or_else(|| of_scenario.and_then(|prices| prices.tariff.clone()));
        let is_assumed = place.is_none();
        let place = place.unwrap_or_else(|| "US".to_owned());
        put_tariff(&mut all, &place, prices.sector, None, is_assumed)?;
    }
    machine::put(&mut all, machine, prices.today)?;
    if let Some(scenario) = prices.scenario {
        put_scenario_prices(&mut all, scenario)?;
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
