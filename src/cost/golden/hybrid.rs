//! Divisions between own machines and the cloud, by hand.

use super::*;

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
        cheapest(&for_hybrid(), &tasks(), routing, floor.map(dec), None).unwrap()
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
    let high = Some(dec("0.95"));
    let error = crate::cost::cheapest(&for_hybrid(), &tasks(), Routing::ByShare, high, None);
    assert!(error.unwrap_err().to_string().contains("above the cloud's own 0.9"));
}

#[test]
fn devices_are_filled_where_one_more_does_not_pay() {
    // 20 tok/s: 36,000 s x 5 = 2.08 devices. At 11,500 USD a device the last 0.08 is not worth one.
    let mut inputs = for_hybrid();
    inputs.output_tok_s = TokensPerSecond(20.0);
    inputs.device_usd = Usd(dec("11500"));
    let best = cheapest(&inputs, &tasks(), Routing::ByTask, None, None).unwrap();
    assert_eq!(best.devices, 2);
    assert!(best.local_share.0 > 0.9 && best.local_share.0 < 1.0, "{best:?}");
}

#[test]
fn the_devices_that_can_be_had_are_filled_and_the_rest_is_in_the_cloud() {
    // 20 tok/s at 100 a month each: all requests fill 2.0833 devices, of which the third does not pay.
    // One is full at 0.48 of the requests: 100 and 0.52 x 1,680.
    let mut inputs = for_hybrid();
    inputs.output_tok_s = TokensPerSecond(20.0);
    let best = |most| cheapest(&inputs, &tasks(), Routing::ByShare, None, most).unwrap();
    assert_eq!(best(None).devices, 2);
    let one = best(Some(1));
    assert_eq!((one.devices, one.local_share.0), (1, 0.48));
    assert_eq!(cents(one.total_per_month()), "973.60");
    assert_eq!(best(Some(0)).local_share.0, 0.0);
}

#[test]
fn a_bill_is_paid_for_what_stays_in_the_cloud() {
    let mut inputs = Alternative::Bill(Usd(dec("500"))).of(for_hybrid()).unwrap();
    let alike = [Task { share: Decimal::ONE, ..tasks().remove(1) }];
    let divided = |inputs: &Inputs, share| divide(inputs, &alike, &[dec(share)]).unwrap();
    assert_eq!(cents(divided(&inputs, "0").total_per_month()), "500.00");
    assert_eq!(cents(divided(&inputs, "0.5").cloud_per_month), "250.00");
    assert_eq!(cents(divided(&inputs, "1").total_per_month()), "100.00");
    let best = cheapest(&inputs, &alike, Routing::ByShare, None, None).unwrap();
    assert_eq!(cents(best.total_per_month()), "100.00");
    // 550 of the 2,720 tokens of both tasks are of the first: 500 x 2,170 / 2,720 remain.
    let first = divide(&inputs, &tasks(), &[dec("1"), dec("0")]).unwrap();
    assert_eq!(cents(first.cloud_per_month), "398.90");
    // No request rents no GPU.
    inputs.api_usd_per_month = Usd(Decimal::ZERO);
    inputs.rent_usd_per_gpu_hour = UsdPerHour(dec("2"));
    assert_eq!(cents(divided(&inputs, "1").cloud_per_month), "0.00");
    assert_eq!(cents(divided(&inputs, "0").cloud_per_month), "1461.00");
}
