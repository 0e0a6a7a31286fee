//! What holds for all inputs.

use proptest::prelude::*;

use super::super::ownership::live;
use super::*;

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
        let scale = crate::cost::number::Number::float(exact.purchase + exact.sum(|y| y.cloud)) + 1.0;
        let difference = crate::cost::number::Number::float(exact.npv()) - rough.npv();
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
                // Volumes are whole tokens, rounded up: one token less is too few.
                let (_, below) = at(tokens_per_day - Decimal::ONE);
                prop_assert!(needed <= devices);
                prop_assert!(there >= dec("-0.01"), "{}", there);
                prop_assert!(below <= dec("0.01"), "{}", below);
            }
        }
    }
}
