//! Decisions worked by hand to the cent, each term apart, and properties that hold for all inputs.

use proptest::prelude::*;
use rust_decimal::Decimal;

use super::ownership::live;
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

#[test]
fn cache_and_batch_prices() {
    // 4,000 x 3 + 6,000 x 0.30 + 500 x 15 = 21,300 millionths a request, 20,000 requests.
    let mut inputs = Alternative::Api(listed()).of(cached_calls()).unwrap();
    let compared = compare(&inputs).unwrap();
    assert_eq!(compared.cloud_per_month, Usd(dec("426")));
    assert_eq!(compared.cloud_per_mtok.input, Some(UsdPerMtok(dec("1.38"))));
    // 426 for 210 M tokens.
    assert_eq!(compared.cloud_per_mtok.blended.unwrap().0.round_dp(6), dec("2.028571"));
    // Half of the requests at half the price.
    inputs.batch_share = dec("0.5");
    assert_eq!(compare(&inputs).unwrap().cloud_per_month, Usd(dec("319.5")));
}

#[test]
fn growth_and_falling_prices_year_by_year() {
    // 426, then 426 x 1.5 x 0.8 = 511.20; the mean of both.
    let mut inputs = Alternative::Api(listed()).of(cached_calls()).unwrap();
    inputs.life_years = dec("2");
    inputs.growth_per_year = dec("0.5");
    inputs.api_change_per_year = dec("-0.2");
    assert_eq!(compare(&inputs).unwrap().cloud_per_month, Usd(dec("468.6")));
    // One and a half years: 12 x 426 and 6 x 511.20.
    inputs.life_years = dec("1.5");
    assert_eq!(compare(&inputs).unwrap().cloud_per_month, Usd(dec("454.4")));
}

#[test]
fn a_price_that_the_list_does_not_have_is_never_zero() {
    let without =
        |cached, batch_discount| Alternative::Api(ApiPrice { cached, batch_discount, ..listed() });
    let error = without(None, None).of(cached_calls()).unwrap_err().to_string();
    assert!(error.starts_with("no 'api_cached_usd_per_mtok' is known, and 60 %"), "{error}");
    let mut batch = cached_calls();
    batch.batch_share = dec("0.5");
    let error = without(listed().cached, None).of(batch).unwrap_err().to_string();
    assert!(error.starts_with("no 'api_batch_discount' is known"), "{error}");
    let mut fresh = cached_calls();
    fresh.cached_share = Decimal::ZERO;
    assert!(without(None, None).of(fresh).is_ok());
}

#[test]
fn rented_gpus_are_paid_by_the_hour_whether_they_work_or_not() {
    // 2 a GPU-hour x 730.5 h; two of them at a peak that fills 1.25.
    let gpus = Alternative::Gpus {
        price: UsdPerHour(dec("2")),
        hours_per_day: dec("24"),
        tok_s: TokensPerSecond(100.0),
        prompt_s_per_mtok: Decimal::ZERO,
    };
    let mut inputs = gpus.of(an_hour_a_day()).unwrap();
    assert_eq!(compare(&inputs).unwrap().cloud_per_month, Usd(dec("1461")));
    inputs.active_hours_per_day = dec("8");
    inputs.peak_factor = dec("10");
    let compared = compare(&inputs).unwrap();
    assert_eq!((compared.rented, compared.cloud_per_month), (2, Usd(dec("2922"))));
}

#[test]
fn the_method_of_inference_x_is_reproduced_within_a_thousandth() {
    // USD for a GPU-hour over tokens of an hour: 2.00 / (85 x 3,600) x 10^6 = 6.5359, and
    // 2.60 / (140 x 3,600) x 10^6 = 5.1587 (worked examples of GMI Cloud, 2026-05-28, rounded there
    // to 6.54 and 5.16).
    for (price, speed, hand) in [("2.00", 85.0, "6.535948"), ("2.60", 140.0, "5.158730")] {
        let direct = at_full_load(UsdPerHour(dec(price)), TokensPerSecond(speed)).unwrap();
        assert_eq!(direct.0.round_dp(6), dec(hand));
        // The whole model at full load: the busiest hour is every hour, nothing is kept free.
        let mut inputs = Inputs::blank();
        inputs.working_days_per_month = dec("30.4375");
        inputs.new_tokens = dec("1000");
        inputs.requests_per_day = Decimal::try_from(speed * 86.4).unwrap();
        inputs.output_tok_s = TokensPerSecond(speed);
        let gpus = Alternative::Gpus {
            price: UsdPerHour(dec(price)),
            hours_per_day: dec("24"),
            tok_s: TokensPerSecond(speed),
            prompt_s_per_mtok: Decimal::ZERO,
        };
        let compared = compare(&gpus.of(inputs).unwrap()).unwrap();
        assert_eq!(compared.rented, 1);
        let whole = compared.cloud_per_mtok.blended.unwrap().0;
        assert!(((whole - direct.0) / direct.0).abs() < dec("0.001"), "{whole} {direct}");
    }
    assert_eq!(at_full_load(UsdPerHour(dec("1")), TokensPerSecond(0.0)), None);
}

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

fn tasks() -> Vec<Task> {
    let task = |name: &str, share, prompt, new, local| Task {
        name: name.into(),
        share: dec(share),
        prompt_tokens: dec(prompt),
        new_tokens: dec(new),
        local_quality: Some(dec(local)),
        cloud_quality: Some(dec("0.9")),
    };
    vec![task("classify", "0.5", "500", "50", "0.88"), task("write", "0.5", "1500", "670", "0.7")]
}

fn for_hybrid() -> Inputs {
    let inputs = Inputs {
        requests_per_day: dec("10000"),
        working_days_per_month: dec("20"),
        output_tok_s: TokensPerSecond(100.0),
        device_usd: Usd(dec("3600")),
        ..Inputs::blank()
    };
    Alternative::Api(ApiPrice { cached: None, batch_discount: None, ..listed() })
        .of(inputs)
        .unwrap()
}

#[test]
fn a_hybrid_is_the_sum_of_its_parts() {
    // classify: 100,000 a month x (500 x 3 + 50 x 15) = 225; write: x (1,500 x 3 + 670 x 15) = 1,455.
    let none = divide(&for_hybrid(), &tasks(), &[dec("0"), dec("0")]).unwrap();
    assert_eq!((none.devices, cents(none.total_per_month())), (0, "1680.00".into()));
    let first = divide(&for_hybrid(), &tasks(), &[dec("1"), dec("0")]).unwrap();
    assert_eq!((first.devices, cents(first.cloud_per_month)), (1, "1455.00".into()));
    assert_eq!(cents(first.owning_per_month), "100.00");
    // 0.5 x 0.88 + 0.5 x 0.9.
    assert_eq!(first.quality, Some(dec("0.89")));
    let halves = divide(&for_hybrid(), &tasks(), &[dec("0.5"), dec("0.5")]).unwrap();
    assert_eq!(cents(halves.cloud_per_month), "840.00");
    assert!(divide(&for_hybrid(), &tasks(), &[dec("2"), dec("0")]).is_err());
}

#[test]
fn the_cheapest_division_keeps_the_quality_that_the_user_asks_for() {
    let cheapest = |routing, floor: Option<&str>| {
        cheapest(&for_hybrid(), &tasks(), routing, floor.map(dec)).unwrap()
    };
    // All local: 36,000 s of answers a day on 86,400 s of one device: 100 a month.
    let free = cheapest(Routing::ByTask, None);
    assert_eq!((free.local_share.0, cents(free.total_per_month())), (1.0, "100.00".into()));
    let floor = cheapest(Routing::ByTask, Some("0.8"));
    assert_eq!(floor.tasks[1].1.0, 0.0, "the local model writes too badly");
    assert_eq!(cents(floor.total_per_month()), "1555.00");
    assert_eq!(cheapest(Routing::ByLength, Some("0.8")).tasks, floor.tasks);
    // By share: 0.9 - s x 0.11 >= 0.845 allows one half.
    let half = cheapest(Routing::ByShare, Some("0.845"));
    assert_eq!(half.local_share.0, 0.5);
    assert_eq!(half.quality, Some(dec("0.845")));
    let error = super::cheapest(&for_hybrid(), &tasks(), Routing::ByShare, Some(dec("0.95")));
    assert!(error.unwrap_err().to_string().contains("above the cloud's own 0.9"));
}

#[test]
fn devices_are_filled_where_one_more_does_not_pay() {
    // 20 tok/s: 36,000 s x 5 = 2.08 devices. At 11,500 USD a device the last 0.08 is not worth one.
    let mut inputs = for_hybrid();
    inputs.output_tok_s = TokensPerSecond(20.0);
    inputs.device_usd = Usd(dec("11500"));
    let best = cheapest(&inputs, &tasks(), Routing::ByTask, None).unwrap();
    assert_eq!(best.devices, 2);
    assert!(best.local_share.0 > 0.9 && best.local_share.0 < 1.0, "{best:?}");
}

fn ranges(inputs: &Inputs) -> Vec<Range> {
    let spread = |input: Input, share: &str| {
        let point = inputs.get(input);
        let by = point.abs() * dec(share);
        Range::new(inputs, input, point - by, point + by, "test").unwrap()
    };
    vec![
        spread(Input::device_usd, "0.3"),
        spread(Input::requests_per_day, "0.5"),
        spread(Input::api_output_usd_per_mtok, "0.4"),
        spread(Input::electricity_usd_per_kwh, "0.2"),
        spread(Input::output_tok_s, "0.25"),
        spread(Input::life_years, "0.2"),
        spread(Input::staff_hours_per_month, "0"),
    ]
}

fn ordinary() -> Inputs {
    let inputs = Inputs {
        device_usd: Usd(dec("3000")),
        rest_usd: Usd(dec("1200")),
        resale_share: dec("0.2"),
        active_watts: Watts(600.0),
        idle_watts: Watts(80.0),
        electricity_usd_per_kwh: UsdPerKwh(dec("0.1872")),
        staff_hours_per_month: dec("1"),
        staff_usd_per_hour: UsdPerHour(dec("60")),
        capital_cost_per_year: dec("0.08"),
        api_change_per_year: dec("-0.2"),
        ..cached_calls()
    };
    Alternative::Api(listed()).of(inputs).unwrap()
}

#[test]
fn the_tornado_has_the_five_strongest_inputs_and_their_ends_are_exact() {
    let inputs = ordinary();
    let bars = tornado(&inputs, &ranges(&inputs));
    assert_eq!(bars.len(), STRONGEST);
    assert!(bars.windows(2).all(|pair| pair[0].width() >= pair[1].width()));
    assert!(bars.iter().all(|bar| bar.input != "staff_hours_per_month"));
    let price = bars.iter().find(|bar| bar.input == "device_usd").unwrap();
    let mut dear = inputs;
    dear.device_usd = Usd(dec("3900"));
    assert_eq!(price.npv_at_high, compare(&dear).unwrap().npv);
}

#[test]
fn the_draws_repeat_and_spread_around_the_point() {
    let inputs = ordinary();
    let ranges = ranges(&inputs);
    let draws = monte_carlo(&inputs, &ranges, 2000, 1);
    assert_eq!(draws, monte_carlo(&inputs, &ranges, 2000, 1));
    assert_ne!(draws.npv, monte_carlo(&inputs, &ranges, 2000, 2).npv);
    let (p10, p90) = (draws.npv.p10.unwrap(), draws.npv.p90.unwrap());
    let point = compare(&inputs).unwrap().npv;
    assert!(p10 < point && point < p90, "{p10} {point} {p90}");
    assert!(draws.owning_wins.0 > 0.5);
}

#[test]
fn the_median_of_draws_from_points_is_the_point() {
    let inputs = ordinary();
    let points: Vec<Range> = ranges(&inputs)
        .into_iter()
        .map(|r| {
            let point = inputs.get(r.input);
            Range { low: point, high: point, ..r }
        })
        .collect();
    assert!(tornado(&inputs, &points).is_empty());
    let draws = monte_carlo(&inputs, &points, 100, 1);
    let point = compare(&inputs).unwrap();
    assert_eq!(cents(draws.npv.p50.unwrap()), cents(point.npv));
    assert_eq!(draws.npv.p10, draws.npv.p90);
    let months = point.break_even.months().unwrap().0;
    assert!((draws.break_even.p50.unwrap().0 - months).abs() < 1e-9);
    let price = point.owning_per_mtok.blended.unwrap().0;
    assert_eq!(draws.owning_per_mtok.p50.unwrap().0.round_dp(9), price.round_dp(9));
}

prop_compose! {
    fn any_inputs()(
        requests in 0u32..200_000,
        prompt in 0u32..50_000,
        new in 1u32..5_000,
        percents in prop::array::uniform8(0u32..=100),
        prices in prop::array::uniform4(0u32..100_000),
        speed in 1.0f64..20_000.0,
        years in 1u32..=8,
        hours in 1u32..=24,
    ) -> Inputs {
        let percent = |at: usize| Decimal::new(percents[at].into(), 2);
        let price = |at: usize, scale: u32| Decimal::new(prices[at].into(), scale);
        Inputs {
            requests_per_day: requests.into(),
            prompt_tokens: prompt.into(),
            new_tokens: new.into(),
            cached_share: percent(0),
            batch_share: percent(1),
            active_hours_per_day: hours.into(),
            peak_factor: Decimal::ONE + percent(2) * dec("9"),
            growth_per_year: percent(3) - dec("0.5"),
            device_usd: Usd(price(0, 1)),
            resale_share: percent(4),
            life_years: years.into(),
            output_tok_s: TokensPerSecond(speed.round()),
            prompt_s_per_mtok: percent(5) * dec("1000"),
            active_watts: Watts(f64::from(percents[6]) * 10.0),
            spare_share: percent(6) * dec("0.9"),
            electricity_usd_per_kwh: UsdPerKwh(price(1, 5)),
            maintenance_share_per_year: percent(7) * dec("0.2"),
            capital_cost_per_year: percent(7) * dec("0.3"),
            loan_share: percent(5),
            loan_rate_per_year: percent(2) * dec("0.2"),
            loan_years: Decimal::from(1 + years / 2),
            api_input_usd_per_mtok: UsdPerMtok(price(2, 3)),
            api_cached_usd_per_mtok: UsdPerMtok(price(2, 4)),
            api_output_usd_per_mtok: UsdPerMtok(price(3, 3)),
            api_batch_discount: dec("0.5"),
            api_change_per_year: percent(1) - dec("0.7"),
            ..Inputs::blank()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn more_tokens_never_cost_less(inputs in any_inputs(), more in 1u32..100_000, which in 0..3) {
        let before = compare(&inputs).unwrap();
        let mut bigger = inputs;
        match which {
            0 => bigger.requests_per_day += Decimal::from(more),
            1 => bigger.prompt_tokens += Decimal::from(more),
            _ => bigger.new_tokens += Decimal::from(more),
        }
        let after = compare(&bigger).unwrap();
        prop_assert!(after.owning.total() >= before.owning.total());
        prop_assert!(after.cloud_per_month >= before.cloud_per_month);
        prop_assert!(after.devices >= before.devices);
    }

    #[test]
    fn break_even_is_monotone_in_the_price(inputs in any_inputs(), more in 1u32..50_000) {
        let before = compare(&inputs).unwrap();
        let mut dearer = inputs;
        dearer.device_usd = inputs.device_usd + Usd(more.into());
        let after = compare(&dearer).unwrap();
        let months = |c: &Comparison| c.break_even.months().map_or(f64::INFINITY, |m| m.0);
        // A loan at less than the cost of capital makes a dearer machine a better deal, so that
        // only what is paid in cash is compared.
        if inputs.loan_share.is_zero() {
            prop_assert!(months(&after) >= months(&before) - 1e-9);
            prop_assert!(after.npv <= before.npv);
        }
        prop_assert!(after.owning.depreciation >= before.owning.depreciation);
    }

    #[test]
    fn nothing_that_is_printed_is_infinite_or_no_number(inputs in any_inputs()) {
        let compared = compare(&inputs).unwrap();
        prop_assert!(compared.utilisation.0.is_finite() && compared.utilisation.0 <= 1.0);
        prop_assert!(compared.irr.is_none_or(|irr| irr.0.is_finite()));
        prop_assert!(compared.roi.is_none_or(|roi| roi.0.is_finite()));
        prop_assert!(compared.kwh_per_month.0.is_finite());
        for end in [&compared.break_even, &compared.discounted_payback] {
            if let BreakEven::After(months) = end {
                prop_assert!((0.0..=f64::from(compared.months)).contains(&months.0));
            }
        }
        let text = serde_json::to_string(&compared).unwrap();
        prop_assert!(!text.contains("NaN") && !text.contains("inf"));
    }

    #[test]
    fn floats_of_the_draws_follow_the_exact_decimals(inputs in any_inputs()) {
        let exact = live::<Decimal>(&inputs.numbers(), None);
        let rough = live::<f64>(&inputs.numbers(), None);
        prop_assert_eq!(exact.devices, rough.devices);
        let scale = super::number::Number::float(exact.purchase + exact.sum(|y| y.cloud)) + 1.0;
        let difference = super::number::Number::float(exact.npv()) - rough.npv();
        prop_assert!(difference.abs() < 1e-9 * scale, "{}", difference);
    }

    #[test]
    fn at_the_volume_of_break_even_neither_side_is_ahead(inputs in any_inputs()) {
        let compared = compare(&inputs).unwrap();
        if let BreakEvenVolume::From { tokens_per_day, devices } = compared.break_even_volume {
            let per_request = inputs.prompt_tokens + inputs.new_tokens;
            let at = |tokens: Decimal| {
                let mut scaled = inputs;
                scaled.requests_per_day = tokens / per_request;
                let life = live::<Decimal>(&scaled.numbers(), None);
                (life.devices, life.npv())
            };
            if tokens_per_day > Decimal::ONE && tokens_per_day < dec("1e12".replace("e12", "000000000000").as_str()) {
                let (needed, there) = at(tokens_per_day);
                let (_, below) = at(tokens_per_day * dec("0.999"));
                prop_assert!(needed <= devices);
                prop_assert!(there >= dec("-0.01"), "{}", there);
                prop_assert!(below <= dec("0.01"), "{}", below);
            }
        }
    }
}
