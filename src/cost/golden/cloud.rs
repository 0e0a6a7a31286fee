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
fn a_bill_grows_with_the_use() {
    // 500, then 500 x 1.5 x 0.8 = 600; the mean of both.
    let mut inputs = Alternative::Bill(Usd(dec("500"))).of(cached_calls()).unwrap();
    inputs.life_years = dec("2");
    inputs.growth_per_year = dec("0.5");
    inputs.api_change_per_year = dec("-0.2");
    let compared = compare(&inputs).unwrap();
    assert_eq!(compared.cloud_per_month, Usd(dec("550")));
    assert_eq!(compared.break_even_volume, BreakEvenVolume::OfABill);
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
    // Twice the requests in the second of two years: 1.25 GPUs, then 2.5; 2 x 1,461 and 3 x 1,461.
    inputs.life_years = dec("2");
    inputs.growth_per_year = dec("1");
    let compared = compare(&inputs).unwrap();
    assert_eq!((compared.rented, compared.cloud_per_month), (3, Usd(dec("3652.5"))));
    // Rented while nobody asks.
    inputs.rent_hours_per_day = dec("7");
    assert!(
        compare(&inputs).unwrap_err().to_string().starts_with("'rent_hours_per_day' 7 is below")
    );
    inputs.rent_hours_per_day = dec("0");
    assert!(compare(&inputs).is_err());
}

#[test]
fn rented_gpus_that_are_as_fast_as_the_own_ones_stay_so() {
    let as_fast = Alternative::Gpus {
        price: UsdPerHour(dec("2")),
        hours_per_day: dec("24"),
        tok_s: TokensPerSecond(0.0),
        prompt_s_per_mtok: Decimal::ZERO,
    };
    let mut inputs = as_fast.of(an_hour_a_day()).unwrap();
    inputs.prompt_tokens = dec("1000");
    // 3.6 s at 100 tok/s, 36 s at 10, 360 s at 1: an hour, 10 and 100 hours a day.
    for (speed, count) in [(100.0, 1), (10.0, 1), (1.0, 5)] {
        inputs.output_tok_s = TokensPerSecond(speed);
        let compared = compare(&inputs).unwrap();
        assert_eq!((compared.rented, compared.devices), (count, count), "{speed}");
    }
    // 100 s more for the prompt of each: 27.8 hours more.
    inputs.prompt_s_per_mtok = dec("100000");
    assert_eq!(compare(&inputs).unwrap().rented, 6);
    inputs.requests_per_device = dec("400");
    assert_eq!(compare(&inputs).unwrap().rented, 3);
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
