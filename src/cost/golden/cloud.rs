//! The bill of the cloud, by hand.

use super::*;

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
