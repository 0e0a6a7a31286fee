//! Decisions worked by hand to the cent, each term apart, and properties that hold for all inputs.

mod break_even;
mod cloud;
mod hybrid;
mod properties;
mod uncertainty;

use rust_decimal::Decimal;

use super::*;
use crate::units::{TokensPerSecond, Usd, UsdPerHour, UsdPerKwh, UsdPerMtok, Watts};

fn dec(text: &str) -> Decimal {
    text.parse().unwrap()
}

fn cents(amount: Usd) -> String {
    format!("{:.2}", amount.0.round_dp(2))
}

/// 1,000 requests on 20 days a month, 3.6 seconds each: an hour a day, 20 hours a month.
fn an_hour_a_day() -> Inputs {
    Inputs {
        requests_per_day: dec("1000"),
        working_days_per_month: dec("20"),
        new_tokens: dec("360"),
        output_tok_s: TokensPerSecond(100.0),
        ..Inputs::blank()
    }
}

#[test]
fn straight_line_depreciation() {
    // 3,000 + 600 over 36 months.
    let mut inputs = Inputs { device_usd: Usd(dec("3000")), ..Inputs::blank() };
    inputs.rest_usd = Usd(dec("600"));
    let owning = compare(&inputs).unwrap().owning;
    assert_eq!(cents(owning.depreciation), "100.00");
    assert_eq!(cents(owning.total()), "100.00");
}

#[test]
fn resale_lowers_depreciation() {
    // 3,600 less 25 % of it, over 36 months.
    let inputs =
        Inputs { device_usd: Usd(dec("3600")), resale_share: dec("0.25"), ..Inputs::blank() };
    assert_eq!(cents(compare(&inputs).unwrap().owning.total()), "75.00");
}

#[test]
fn a_loan_costs_its_interest() {
    // 3,000 at 1 % a month in 12 payments: 3000 x 0.01 / (1 - 1.01^-12) = 266.5464 each, 3,198.56
    // together, so 198.56 of interest, 16.55 a month.
    let mut inputs = Inputs {
        device_usd: Usd(dec("3000")),
        life_years: dec("1"),
        loan_share: dec("1"),
        loan_rate_per_year: dec("0.12"),
        loan_years: dec("1"),
        ..Inputs::blank()
    };
    let year = compare(&inputs).unwrap();
    assert_eq!(cents(year.owning.loan_interest), "16.55");
    assert_eq!(cents(year.owning.total()), "266.55");
    assert_eq!(year.irr, None, "nothing of one's own is paid in");
    // Sold after 12 of 24 payments of 141.2204: what is still owed, 141.2204 x 11.255077 =
    // 1,589.446, is paid then. Interest: 12 x 141.2204 + 1589.446 - 3000 = 284.09, 23.67 a month.
    inputs.loan_years = dec("2");
    assert_eq!(cents(compare(&inputs).unwrap().owning.loan_interest), "23.67");
}

#[test]
fn own_capital_costs_what_it_would_have_earned() {
    // 1,200 over 3 months at 1 % a month: 1200 x 0.01 / (1 - 1.01^-3) = 408.0265 a month, of which
    // 400 are depreciation.
    let inputs = Inputs {
        device_usd: Usd(dec("1200")),
        life_years: dec("0.25"),
        capital_cost_per_year: dec("0.12"),
        ..Inputs::blank()
    };
    let owning = compare(&inputs).unwrap().owning;
    assert_eq!(cents(owning.depreciation), "400.00");
    assert_eq!(cents(owning.own_capital), "8.03");
    assert_eq!(cents(owning.total()), "408.03");
}

#[test]
fn electricity_idle_and_active_with_the_building() {
    // Idle all month: 730.5 h x 40 W = 29.22 kWh; 20 h x 360 W more = 7.2 kWh; 36.42 kWh.
    let mut inputs = Inputs {
        active_watts: Watts(400.0),
        idle_watts: Watts(40.0),
        electricity_usd_per_kwh: UsdPerKwh(dec("0.25")),
        ..an_hour_a_day()
    };
    let compared = compare(&inputs).unwrap();
    assert_eq!(compared.kwh_per_month.0, 36.42);
    assert_eq!(compared.owning.electricity, Usd(dec("9.105")));
    // 20 of 730.5 hours.
    assert!((compared.utilisation.0 - 20.0 / 730.5).abs() < 1e-15);
    inputs.pue = dec("1.2");
    assert_eq!(compare(&inputs).unwrap().owning.electricity, Usd(dec("10.926")));
    // Switched on 10 hours a day: 304.375 h x 40 W = 12.175 kWh + 7.2 = 19.375 kWh x 1.2 x 0.25.
    inputs.active_hours_per_day = dec("10");
    inputs.powered_hours_per_day = dec("10");
    assert_eq!(compare(&inputs).unwrap().owning.electricity, Usd(dec("5.8125")));
}

#[test]
fn rack_maintenance_and_staff() {
    let inputs = Inputs {
        device_usd: Usd(dec("2400")),
        resale_share: dec("1"),
        rack_usd_per_month: Usd(dec("50")),
        maintenance_share_per_year: dec("0.1"),
        staff_hours_per_month: dec("2"),
        staff_usd_per_hour: UsdPerHour(dec("60")),
        ..Inputs::blank()
    };
    let owning = compare(&inputs).unwrap().owning;
    // 2,400 x 10 % / 12 = 20; 2 x 60 = 120.
    let terms: Vec<String> = owning.terms().into_iter().map(|(_, usd)| cents(usd)).collect();
    assert_eq!(terms, ["0.00", "0.00", "0.00", "0.00", "50.00", "20.00", "120.00"]);
    assert_eq!(cents(owning.total()), "190.00");
}

#[test]
fn the_peak_and_the_spare_capacity_decide_how_many_devices() {
    // One hour of work in eight, ten times as much at the peak: 1.25 devices; half of them kept
    // free: 2.5.
    let mut inputs = an_hour_a_day();
    inputs.active_hours_per_day = dec("8");
    assert_eq!(compare(&inputs).unwrap().devices, 1);
    inputs.peak_factor = dec("10");
    assert_eq!(compare(&inputs).unwrap().devices, 2);
    inputs.spare_share = dec("0.5");
    assert_eq!(compare(&inputs).unwrap().devices, 3);
    // What can wait is done off-peak.
    inputs.batch_share = dec("1");
    assert_eq!(compare(&inputs).unwrap().devices, 1);
    // Bought for the year with the most requests: 1.25 x 2 x 2 = 5, twice that with the spare.
    inputs.batch_share = dec("0");
    inputs.growth_per_year = dec("1");
    assert_eq!(compare(&inputs).unwrap().devices, 10);
}

#[test]
fn a_prompt_takes_time_too() {
    // 900 uncached tokens at 1,000 s a million = 0.9 s, with 3.6 s for the answer: 4.5 s, 1.25 h a
    // day, 25 h a month.
    let mut inputs = an_hour_a_day();
    inputs.prompt_tokens = dec("1800");
    inputs.cached_share = dec("0.5");
    inputs.prompt_s_per_mtok = dec("1000");
    inputs.device_usd = Usd(dec("3600"));
    let compared = compare(&inputs).unwrap();
    assert!((compared.utilisation.0 - 25.0 / 730.5).abs() < 1e-15);
    // 100 a month: a fifth for 36 M prompt tokens, four fifths for 7.2 M generated ones.
    let price = compared.owning_per_mtok;
    assert_eq!(price.input.unwrap().0.round_dp(6), dec("0.555556"));
    assert_eq!(price.output.unwrap().0.round_dp(6), dec("11.111111"));
    assert_eq!(price.blended.unwrap().0.round_dp(6), dec("2.314815"));
}

fn cached_calls() -> Inputs {
    Inputs {
        requests_per_day: dec("1000"),
        working_days_per_month: dec("20"),
        prompt_tokens: dec("10000"),
        cached_share: dec("0.6"),
        new_tokens: dec("500"),
        output_tok_s: TokensPerSecond(100.0),
        ..Inputs::blank()
    }
}

fn listed() -> ApiPrice {
    ApiPrice {
        input: UsdPerMtok(dec("3")),
        cached: Some(UsdPerMtok(dec("0.3"))),
        output: UsdPerMtok(dec("15")),
        batch_discount: Some(dec("0.5")),
    }
}
