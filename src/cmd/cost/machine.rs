//! Price, power and stated speed of a machine.

use anyhow::{Context as _, ensure};
use jiff::civil::Date;
use rust_decimal::Decimal;
use rust_decimal::prelude::FromPrimitive;

use crate::catalog::cloud_prices::AsOf;
use crate::catalog::hardware::{Device, Kind, Price};
use crate::cost::{Assumptions, Basis, Input};
use crate::fit::machine::Machine;
use crate::units::Usd;

/// Price and power of a catalogued machine, which may have several devices.
pub fn put(all: &mut Assumptions, machine: &Machine, today: Date) -> anyhow::Result<()> {
    price(all, &machine.devices, today)?;
    power(all, &machine.devices)
}

/// A dollar amount of the catalogue with its age and source.
fn listed(device: &Device, price: &Price, today: Date) -> anyhow::Result<(Decimal, String)> {
    let usd: Decimal = price.usd.parse().ok().with_context(|| {
        format!("the catalogue's price of {} is '{}', no number", device.id, price.usd)
    })?;
    let when = AsOf(price.as_of.clone()).marked(today);
    Ok((usd, format!("{} {when}, {}", Usd(usd), price.source)))
}

fn price(all: &mut Assumptions, devices: &[Device], today: Date) -> anyhow::Result<()> {
    let (mut low, mut likely, mut high) = (Decimal::ZERO, Decimal::ZERO, Decimal::ZERO);
    let mut sources: Vec<String> = Vec::new();
    for device in devices {
        let list = device.list_price.as_ref().map(|p| listed(device, p, today)).transpose()?;
        let street = device.street_price.as_ref().map(|p| listed(device, p, today)).transpose()?;
        let source = match (list, street) {
            (Some((list, listed)), Some((street, seen))) => {
                low += list.min(street);
                likely += street;
                // The price in shops has moved by more than this within months.
                high += list.max(street * Decimal::new(115, 2));
                format!("street price {seen}; list price {listed}")
            }
            (Some((usd, source)), None) | (None, Some((usd, source))) => {
                low += usd * Decimal::new(85, 2);
                likely += usd;
                high += usd * Decimal::new(115, 2);
                let kind = if device.list_price.is_some() { "list" } else { "street" };
                format!("{kind} price {source}")
            }
            // One price that is missing makes the sum unknown.
            (None, None) => return Ok(()),
        };
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    if devices.len() > 1 {
        sources.insert(0, format!("{} devices", devices.len()));
    }
    all.put(Input::device_usd, (low, likely, high), Basis::Listed, sources.join("; "))?;
    if devices[0].kind == Kind::Gpu {
        all.put(
            Input::rest_usd,
            (Decimal::ZERO, Decimal::from(1200), Decimal::from(2000)),
            Basis::Assumed,
            "a plain PC around the card; 0 where one is at hand",
        )?;
    }
    Ok(())
}

fn power(all: &mut Assumptions, devices: &[Device]) -> anyhow::Result<()> {
    let number = |value: f64| Decimal::from_f64(value).unwrap_or_default();
    let is_card = devices[0].kind == Kind::Gpu;
    let Some(watts) = devices.iter().map(|d| d.power.map(|p| p.0)).sum::<Option<f64>>() else {
        return Ok(());
    };
    let (rest_active, rest_idle) = if is_card { (100.0, 50.0) } else { (0.0, 0.0) };
    let active = number(watts + rest_active);
    let source = if is_card {
        "board power of the data sheet, and 100 W assumed for the rest: an upper bound"
    } else {
        "system power of the data sheet: an upper bound"
    };
    let low = active * Decimal::new(6, 1);
    all.put(Input::active_watts, (low, active, active), Basis::Listed, source)?;
    let idle = devices.iter().map(|d| d.idle_power.map(|p| p.0)).sum::<Option<f64>>();
    let (idle, source) = match idle {
        Some(idle) if is_card => (
            number(idle + rest_idle),
            "idle power of the card in the catalogue, and 50 W assumed for the rest",
        ),
        Some(idle) => (number(idle), "idle power of the catalogue"),
        None => (active * Decimal::new(15, 2), "15 % of the power at work assumed"),
    };
    all.put_about(Input::idle_watts, idle, Decimal::new(3, 1), Basis::Assumed, source)
}

/// A speed that the user states.
pub fn stated_speed(
    all: &mut Assumptions,
    tok_s: f64,
    prompt_tok_s: Option<f64>,
) -> anyhow::Result<()> {
    let number = |name: &str, value: f64| {
        let fine = value.is_finite() && value > 0.0;
        let number = fine.then(|| Decimal::from_f64(value)).flatten();
        number.with_context(|| format!("{name} {value} cannot be: write tokens a second"))
    };
    let fifth = Decimal::new(2, 1);
    all.put_about(
        Input::output_tok_s,
        number("--tok-s", tok_s)?,
        fifth,
        Basis::Stated,
        "--tok-s; a fifth to both sides assumed",
    )?;
    if let Some(prompt) = prompt_tok_s {
        let seconds = Decimal::from(1_000_000) / number("--prompt-tok-s", prompt)?;
        let source = "--prompt-tok-s";
        all.put_point(Input::prompt_s_per_mtok, seconds, Basis::Stated, source)?;
    }
    Ok(())
}

/// The machine must be known: nothing that is missing is taken for zero.
pub fn check(all: &Assumptions) -> anyhow::Result<()> {
    for input in [
        Input::requests_per_day,
        Input::prompt_tokens,
        Input::new_tokens,
        Input::output_tok_s,
        Input::device_usd,
        Input::active_watts,
        Input::idle_watts,
        Input::electricity_usd_per_kwh,
    ] {
        ensure!(
            all.get(input).is_some(),
            "'{input}' ({}) is not known: set it with --set {input}=…, in the scenario, or name a \
             --device whose row in the catalogue has it",
            input.meaning().to_lowercase()
        );
    }
    all.inputs().check()
}
