//! The tornado and the draws.

use super::*;

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
