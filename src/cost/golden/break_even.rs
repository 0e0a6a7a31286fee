//! Break-even, payback, value and return, by hand.

use super::*;

/// 1,200 against a bill of 500 a month, at 1 % a month.
fn three_months() -> Inputs {
    Inputs {
        device_usd: Usd(dec("1200")),
        life_years: dec("0.25"),
        capital_cost_per_year: dec("0.12"),
        api_usd_per_month: Usd(dec("500")),
        ..Inputs::blank()
    }
}

#[test]
fn break_even_payback_value_and_return() {
    let compared = compare(&three_months()).unwrap();
    // 1,200 / 500.
    assert_eq!(compared.break_even.months().unwrap().0, 2.4);
    // 500/1.01 + 500/1.01^2 = 985.1975; the missing 214.8025 of 500/1.01^3 = 485.2951.
    let payback = compared.discounted_payback.months().unwrap().0;
    assert!((payback - 2.442_622).abs() < 1e-5, "{payback}");
    // -1200 + 985.1975 + 485.2951.
    assert_eq!(cents(compared.npv), "270.49");
    assert_eq!(compared.roi.unwrap().0, 0.25);
    // One month: 1,000 becomes 1,100, 10 % a month, 1.1^12 - 1 a year.
    let month = Inputs {
        device_usd: Usd(dec("1000")),
        life_years: dec("0.1"),
        api_usd_per_month: Usd(dec("1100")),
        ..Inputs::blank()
    };
    let irr = compare(&month).unwrap().irr.unwrap().0;
    assert!((irr - 2.138_428_376_721).abs() < 1e-9, "{irr}");
}

#[test]
fn a_machine_that_only_its_resale_saves_breaks_even_when_it_is_sold() {
    let mut inputs = three_months();
    inputs.api_usd_per_month = Usd(dec("300"));
    inputs.resale_share = dec("0.25");
    inputs.capital_cost_per_year = Decimal::ZERO;
    let compared = compare(&inputs).unwrap();
    assert_eq!(compared.break_even.months().unwrap().0, 3.0);
    assert_eq!(compared.npv, Usd(Decimal::ZERO));
}

#[test]
fn never_is_a_sentence_with_its_reason() {
    let mut inputs = three_months();
    inputs.api_usd_per_month = Usd(dec("300"));
    assert_eq!(
        compare(&inputs).unwrap().break_even,
        BreakEven::Never(
            "never breaks even in its life of 3 months: it saves $300.00 a month and is $300.00 \
             short at the end"
                .into()
        )
    );
    inputs.rack_usd_per_month = Usd(dec("400"));
    assert_eq!(
        compare(&inputs).unwrap().break_even,
        BreakEven::Never(
            "never breaks even: running it costs $400.00 a month, the alternative $300.00".into()
        )
    );
    assert_eq!(compare(&inputs).unwrap().irr, None);
}

#[test]
fn the_volume_of_break_even_counts_whole_devices() {
    // 3,600 over 36 months against 5 USD a million tokens: 20 M a month, 1 M on each of 20 days.
    let mut inputs = Inputs {
        device_usd: Usd(dec("3600")),
        api_input_usd_per_mtok: UsdPerMtok(dec("5")),
        api_output_usd_per_mtok: UsdPerMtok(dec("5")),
        ..an_hour_a_day()
    };
    let from = |tokens, devices| BreakEvenVolume::From { tokens_per_day: dec(tokens), devices };
    assert_eq!(compare(&inputs).unwrap().break_even_volume, from("1000000", 1));
    // A device of 10 tok/s makes 864,000 a day: it is full before it has paid.
    inputs.output_tok_s = TokensPerSecond(10.0);
    assert_eq!(
        compare(&inputs).unwrap().break_even_volume,
        BreakEvenVolume::Never(
            "a device used to its full capacity saves $3,110.40 in its life and costs $3,600.00"
                .into()
        )
    );
    // 20 tok/s make 1,728,000 a day; with 180 a month for staff two devices must carry them:
    // (200 + 180) / 5 USD x 1 M / 20 days = 3.8 M needs 3 devices, (300 + 180) / 100 = 4.8 M.
    inputs.output_tok_s = TokensPerSecond(20.0);
    inputs.staff_hours_per_month = dec("3");
    inputs.staff_usd_per_hour = UsdPerHour(dec("60"));
    assert_eq!(compare(&inputs).unwrap().break_even_volume, from("4800000", 3));
}

#[test]
fn the_curves_of_paid_money_end_where_the_totals_do() {
    let mut inputs = three_months();
    inputs.resale_share = dec("0.1");
    inputs.rack_usd_per_month = Usd(dec("20"));
    let curves = cumulative(&inputs);
    let owning: Vec<String> = curves.owning.iter().map(|&usd| cents(usd)).collect();
    let cloud: Vec<String> = curves.cloud.iter().map(|&usd| cents(usd)).collect();
    assert_eq!(owning, ["1200.00", "1220.00", "1240.00", "1140.00"]);
    assert_eq!(cloud, ["0.00", "500.00", "1000.00", "1500.00"]);
}

#[test]
fn absurd_workloads_are_an_error_and_not_an_overflow() {
    let mut inputs = an_hour_a_day();
    inputs.requests_per_day = dec("1000000000");
    inputs.new_tokens = dec("1000000");
    inputs.growth_per_year = dec("3");
    inputs.life_years = dec("20");
    let error = compare(&inputs).unwrap_err().to_string();
    assert!(error.starts_with("the workload is absurd: 1000000000 requests a day"), "{error}");
}

#[test]
fn every_preset_can_be_decided_and_the_bill_of_coding_agents_is_what_it_says() {
    for preset in PRESETS {
        let inputs = Alternative::Api(listed()).of(preset.of(Inputs::blank())).unwrap();
        let compared = compare(&inputs).unwrap();
        assert!(compared.cloud_per_month.0 > Decimal::ZERO, "{}", preset.name);
        if preset.name == "coding-agents" {
            assert_eq!(cents(compared.cloud_per_month), "653.94");
        }
    }
    let error = Preset::find("chat-teem").unwrap_err().to_string();
    assert!(error.contains("did you mean 'chat-team'?"), "{error}");
}
