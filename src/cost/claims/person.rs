//! Claims about one laptop, one system, one developer.

use anyhow::Context;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use super::machines::{GAMING_PC, HOSTED, LAPTOP, OPUS, Prices, SONNET};
use super::{Claim, Verdict, number};
use crate::catalog::{cloud_prices, electricity};
use crate::cost::{Alternative, Inputs, compare};
use crate::units::{Usd, UsdPerHour, UsdPerMtok, Watts, significant};

pub(super) fn one_laptop(prices: &Prices) -> anyhow::Result<Vec<Claim>> {
    let compared = compare(&LAPTOP.with_volume(Decimal::from(1000))?)?;
    let mut generated = LAPTOP.inputs()?;
    generated.prompt_tokens = Decimal::ZERO;
    generated.requests_per_day = Decimal::from(1_000_000) / generated.working_days_per_month;
    let all_generated = compare(&generated)?;
    let seconds = 304_375.0 / 1e4 * 86_400.0;
    let at = |input: u32, output: u32| -> anyhow::Result<Usd> {
        let price = prices.api("anthropic/claude-3.5-sonnet")?;
        Ok(Usd(price.input.0 * Decimal::from(input) + price.output.0 * Decimal::from(output)))
    };
    let mut listed: Vec<Decimal> = cloud_prices::embedded()
        .listings
        .iter()
        .filter_map(|l| Some((l.input?.0 * Decimal::from(3) + l.output?.0) / Decimal::from(4)))
        .collect();
    listed.sort();
    let median = UsdPerMtok(listed[listed.len() / 2]);
    let above = listed.iter().filter(|price| **price >= Decimal::from(30)).count();
    Ok(vec![
        Claim {
            id: "S2-04",
            claim: "a laptop makes 1 billion tokens a month",
            figure: format!(
                "{} tok/s around the clock; at 3:1 the laptop generates {} % of the time and must read \
                 prompts at {} tok/s in all of the rest, and all generated it takes {} laptops",
                number(1e9 / seconds),
                number(compared.utilisation.0 * 100.0),
                number(750e6 / (seconds * (1.0 - compared.utilisation.0))),
                all_generated.devices
            ),
            assumptions: LAPTOP.basis.into(),
            verdict: Verdict::Partly,
        },
        Claim {
            id: "S2-05",
            claim: "1 billion tokens on Claude 3.5 Sonnet cost very much",
            figure: format!(
                "{} as prompts, {} at 3:1, {} all generated; {} on {HOSTED}",
                at(1000, 0)?,
                at(750, 250)?,
                at(0, 1000)?,
                Usd(prices.blended(HOSTED)?.0 * Decimal::from(1000))
            ),
            assumptions: "list prices, no cache, no batch".into(),
            verdict: Verdict::Holds,
        },
        Claim {
            id: "S2-06",
            claim: "a MacBook M4 Max with 128 GB costs 4,000 USD",
            figure: "no price of that MacBook is known; a Mac Studio with the chip and memory was \
                     listed at $3,499 (2025)"
                .into(),
            assumptions: "the catalogue's row apple-m4-max".into(),
            verdict: Verdict::Unchecked(
                "no price of a MacBook with that chip and memory has a source here",
            ),
        },
        Claim {
            id: "S2-08",
            claim: "cloud tokens cost 0.03 USD for a thousand",
            figure: format!(
                "$30 a million; the median of {} list prices is {} at 3:1, and {above} are at or \
                 above $30",
                listed.len(),
                median.rounded()
            ),
            assumptions: "all API rows of the catalogue, whatever their age".into(),
            verdict: Verdict::Fails,
        },
    ])
}

pub(super) fn agents(prices: &Prices) -> anyhow::Result<Vec<Claim>> {
    let buys = |usd: u32| -> anyhow::Result<String> {
        let mtok = |key| -> anyhow::Result<String> {
            let volume = Decimal::from(usd) / prices.blended(key)?.0;
            Ok(number(volume.to_f64().unwrap_or(f64::NAN)))
        };
        Ok(format!("{} Mtok a month on Sonnet 5.5, {} on Opus 5.5", mtok(SONNET)?, mtok(OPUS)?))
    };
    let spend = |id, claim, usd| -> anyhow::Result<Claim> {
        Ok(Claim {
            id,
            claim,
            figure: buys(usd)?,
            assumptions: "3:1, list prices, no cache; a developer's agents reach it".into(),
            verdict: Verdict::Partly,
        })
    };
    // What 500 USD buy, on the machine for 1,500.
    let volume = Decimal::from(500) / prices.blended(SONNET)?.0;
    let inputs = GAMING_PC.with_volume(volume)?;
    let bill = |electricity: u32| -> anyhow::Result<f64> {
        let inputs = Inputs {
            device_usd: Usd(Decimal::from(1500)),
            rack_usd_per_month: Usd(electricity.into()),
            api_usd_per_month: Usd(Decimal::from(500)),
            ..Inputs::blank()
        };
        let months = compare(&inputs)?.break_even.months();
        months.map(|m| m.0).context("500 USD a month pay 1,500 back")
    };
    let modelled = compare(&Alternative::Bill(Usd(Decimal::from(500))).of(inputs)?)?;
    let mut office = inputs;
    office.working_days_per_month = Decimal::from(21);
    office.requests_per_day =
        inputs.requests_per_day * inputs.working_days_per_month / Decimal::from(21);
    office.active_hours_per_day = Decimal::from(10);
    office.peak_factor = Decimal::from(3);
    let office = compare(&office)?;
    let mut staffed = Alternative::Bill(Usd(Decimal::from(500))).of(inputs)?;
    staffed.staff_hours_per_month = Decimal::from(2);
    staffed.staff_usd_per_hour = UsdPerHour(Decimal::from(100));
    let staffed = compare(&staffed)?.break_even.months();
    let staffed = staffed.map_or("never".to_owned(), |months| months.to_string());

    let us = electricity::find("US", "household", None)?.price;
    let germany = electricity::find("DE", "household", None)?.price;
    // Hours of a mean month: 365.25 x 24 / 12.
    let watts = |usd: u32, tariff: crate::units::UsdPerKwh| {
        let kwh = Decimal::from(usd) / tariff.0;
        Watts((kwh * Decimal::from(1000) / Decimal::new(7305, 1)).to_f64().unwrap_or(f64::NAN))
    };
    let power = |usd| {
        format!(
            "{} around the clock at {us} (US), {} at {germany} (Germany)",
            watts(usd, us),
            watts(usd, germany)
        )
    };
    let bill_of_power = modelled.owning.electricity;
    let power_assumed = format!(
        "household tariffs; the machine below with the work of 500 USD at {} of its time: \
         {bill_of_power} a month. {}",
        modelled.utilisation, GAMING_PC.basis
    );
    let card = |id, claim| Claim {
        id,
        claim,
        figure: "list price $599 (2023-04-13), between the $500 and the $800 of the claim".into(),
        assumptions: "the catalogue's row rtx-4070".into(),
        verdict: Verdict::Unchecked("no price in shops has a source here, only the list price"),
    };
    Ok(vec![
        Claim {
            id: "S1-40",
            claim: "a hybrid agent's local model has 7 to 13 billion parameters",
            figure:
                "no cost follows from a size alone: `bench cost` needs the machine's speed with \
                     it"
                .into(),
            assumptions: "—".into(),
            verdict: Verdict::Unchecked("it states a size, and no cost"),
        },
        spend("S3-01", "agents use APIs for 500 USD a month", 500)?,
        spend("S3-02", "agents use APIs for 1,000 USD a month", 1000)?,
        card("S3-03", "an RTX 4070 costs 500 USD in shops"),
        card("S3-04", "an RTX 4070 costs 800 USD in shops"),
        Claim {
            id: "S3-08",
            claim: "a dedicated system costs 1,500 USD",
            figure: "a card at its list price of $599 leaves $901 for the rest".into(),
            assumptions: "the catalogue's row rtx-4070; prices of PCs are not in it".into(),
            verdict: Verdict::Unchecked(
                "no price of a whole PC has a source here, only that of its card",
            ),
        },
        Claim {
            id: "S3-09",
            claim: "an API bill of 500 USD a month is compared with it",
            figure: buys(500)?,
            assumptions: "3:1, list prices, no cache".into(),
            verdict: Verdict::Holds,
        },
        Claim {
            id: "S3-10",
            claim: "that system breaks even in a few months",
            figure: format!(
                "{} to {} months with 20 to 40 USD of electricity; {staffed} with two hours of work \
                 a month at $100; it makes what 500 USD buy in {} of its time, but in ten hours of \
                 21 days with three times the mean at the peak it takes {} systems",
                significant(bill(20)?, 3),
                significant(bill(40)?, 3),
                modelled.utilisation,
                office.devices
            ),
            assumptions: format!(
                "only if an 8B model replaces what the 500 USD pay for; {}",
                GAMING_PC.basis
            ),
            verdict: Verdict::Partly,
        },
        Claim {
            id: "S3-11",
            claim: "its electricity costs 20 USD a month",
            figure: power(20),
            assumptions: power_assumed.clone(),
            verdict: Verdict::Partly,
        },
        Claim {
            id: "S3-12",
            claim: "its electricity costs 40 USD a month",
            figure: power(40),
            assumptions: power_assumed,
            verdict: Verdict::Partly,
        },
        Claim {
            id: "S3-16",
            claim: "an agent makes 100 round trips",
            figure:
                "no cost follows from round trips: an API charges tokens; 100 × 30 ms are 3.0 s"
                    .into(),
            assumptions: "—".into(),
            verdict: Verdict::Unchecked("it states a count, and no cost"),
        },
    ])
}

pub(super) fn people() -> anyhow::Result<Vec<Claim>> {
    let month = Decimal::from(200_000) / Decimal::from(12);
    let hour = Decimal::from(200_000) / Decimal::from(2000);
    // 500 USD less 30 of electricity and 1,500 over 36 months.
    let left = Decimal::from(500 - 30) - Decimal::from(1500) / Decimal::from(36);
    let hours = (left / hour).to_f64().context("a number of hours")?;
    Ok(vec![Claim {
        id: "S3-13",
        claim: "an ML engineer costs 200,000 USD a year, and owning takes half of one",
        figure: format!(
            "half of a salary is {} a month; the saving on a bill of 500 USD pays {} hours of work",
            Usd(month / Decimal::TWO),
            number(hours)
        ),
        assumptions:
            "2,000 hours a year, $100 an hour; a system for $1,500 over three years, 30 USD \
                      of electricity"
                .into(),
        verdict: Verdict::Partly,
    }])
}
