//! Claims about a firm that moves from APIs to its own machines.

use anyhow::Context;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use super::machines::{HOSTED, OPUS, Prices, SONNET, SPARK};
use super::{Claim, Verdict, number};
use crate::catalog::hardware;
use crate::cost::hybrid::{Task, divide};
use crate::cost::{Alternative, ApiPrice, Comparison, compare};
use crate::units::{Usd, UsdPerMtok};

pub(super) fn efficiency(prices: &Prices) -> anyhow::Result<Vec<Claim>> {
    // Full load: a request of 3,000 and 1,000 tokens after the other.
    let per_request = 3000.0 / SPARK.prompt_tok_s + 1000.0 / SPARK.tok_s;
    let at = |utilisation: f64| -> anyhow::Result<Comparison> {
        let mut inputs = SPARK.inputs()?;
        inputs.requests_per_day = Decimal::try_from(86_400.0 / per_request * utilisation)?;
        compare(&inputs)
    };
    let full = at(0.999)?;
    let own = full.owning_per_mtok.blended.context("a full machine makes tokens")?;
    let sonnet = prices.blended(SONNET)?;
    let hosted = prices.blended(HOSTED)?;
    let ratio = |cloud: UsdPerMtok| (cloud.0 / own.0).to_f64().unwrap_or(f64::NAN);
    let (mut low, mut high) = (0.001, 0.999);
    for _ in 0..40 {
        let middle = f64::midpoint(low, high);
        let price = at(middle)?.owning_per_mtok.blended.context("tokens")?;
        if sonnet.0 / price.0 > Decimal::from(18) { high = middle } else { low = middle }
    }
    let spend = UsdPerMtok(prices.blended(SONNET)?.0);
    let volume = Decimal::from(47_000) / spend.0;
    let mut inputs = SPARK.with_volume(volume)?;
    inputs.peak_factor = Decimal::from(2);
    let inputs = Alternative::Api(prices.api(SONNET)?).of(inputs)?;
    let task = Task {
        name: "all".into(),
        share: Decimal::ONE,
        prompt_tokens: Decimal::from(3000),
        new_tokens: Decimal::from(1000),
        local_quality: None,
        cloud_quality: None,
    };
    let share = Decimal::new(9, 1);
    let hybrid = divide(&inputs, std::slice::from_ref(&task), &[share])?;
    let spending = format!(
        "{} Mtok a month at {} (Sonnet 5.5, 3:1); nine tenths of it on machines of: {}; twice the \
         mean at the peak, no staff",
        number(volume.to_f64().unwrap_or(f64::NAN)),
        spend.rounded(),
        SPARK.basis
    );
    let after = format!(
        "nine tenths local: {} a month for {} machines and {} for the rest, {} together",
        hybrid.owning_per_month,
        hybrid.devices,
        hybrid.cloud_per_month,
        hybrid.total_per_month()
    );
    Ok(vec![
        Claim {
            id: "S0-68",
            claim: "local open weights cost up to 18 times less than a cloud API",
            figure: format!(
                "{} for a million tokens at full load: {} times less than Sonnet 5.5 ({}), 18 times \
                 from {} % utilisation; {} times the price of the same model hosted ({})",
                own.rounded(),
                number(ratio(sonnet)),
                sonnet.rounded(),
                number(high * 100.0),
                number(1.0 / ratio(hosted)),
                hosted.rounded()
            ),
            assumptions: format!("{}; 3:1, three years, no staff, US tariff", SPARK.basis),
            verdict: if ratio(sonnet) >= 18.0 { Verdict::Partly } else { Verdict::Fails },
        },
        Claim {
            id: "S0-69",
            claim: "a firm spent 47,000 USD a month on APIs",
            figure: format!("that buys {} Mtok a month", number(volume.to_f64().unwrap_or(0.0))),
            assumptions: spending.clone(),
            verdict: Verdict::Unchecked("the firm's bills are not public"),
        },
        Claim {
            id: "S0-70",
            claim: "it spends 8,000 USD a month after moving",
            figure: after,
            assumptions: spending,
            verdict: if hybrid.total_per_month().0 <= Decimal::from(8000) {
                Verdict::Partly
            } else {
                Verdict::Fails
            },
        },
        Claim {
            id: "S0-71",
            claim: "that saves 83 %",
            figure: format!("1 − 8,000 / 47,000 = {} %", number(100.0 * (1.0 - 8.0 / 47.0))),
            assumptions: "the two figures of the claim itself".into(),
            verdict: Verdict::Holds,
        },
    ])
}

pub(super) fn break_even_of_volume(prices: &Prices) -> anyhow::Result<Vec<Claim>> {
    let inputs = SPARK.with_volume(Decimal::from(2) * Decimal::new(304_375, 4))?;
    let mut saved = Vec::new();
    let mut budgets = Vec::new();
    let flat = ApiPrice {
        input: UsdPerMtok(Decimal::from(30)),
        cached: None,
        output: UsdPerMtok(Decimal::from(30)),
        batch_discount: None,
    };
    for (name, price) in [
        ("gpt-oss-120b hosted", prices.api(HOSTED)?),
        ("Sonnet 5.5", prices.api(SONNET)?),
        ("Opus 5.5", prices.api(OPUS)?),
        ("30 USD a million, the price of 2023", flat),
    ] {
        let compared = compare(&Alternative::Api(price).of(inputs)?)?;
        let saving = compared.cloud_per_month - compared.owning.electricity;
        saved.push(format!("{saving} against {name}"));
        let budget = saving * Decimal::from(4);
        budgets.push(if budget.0 > Decimal::ZERO {
            format!("{budget} against {name}")
        } else {
            format!("nothing against {name}")
        });
    }
    let months = prices.against(inputs, SONNET)?.break_even.months();
    let months = months.map_or("never".to_owned(), |months| months.to_string());
    let assumptions = format!("{}; 3:1, every day, US tariff, no staff", SPARK.basis);
    let list = hardware::find("rtx-5090", &[])?;
    let seen = |price: &Option<hardware::Price>| {
        price.as_ref().map_or("not known".to_owned(), |p| format!("${} ({})", p.usd, p.as_of))
    };
    Ok(vec![
        Claim {
            id: "S0-72",
            claim: "owning breaks even at 2 million tokens a day",
            figure: format!(
                "saved a month after electricity: {}; that machine breaks even against Sonnet 5.5 \
                 after {months}",
                saved.join(", ")
            ),
            assumptions: assumptions.clone(),
            verdict: Verdict::Partly,
        },
        Claim {
            id: "S0-73",
            claim: "it pays back in four months",
            figure: format!(
                "the machine may then cost at most: {}; the one that is able to do it costs {}",
                budgets.join(", "),
                Usd(SPARK.usd.into())
            ),
            assumptions,
            verdict: Verdict::Partly,
        },
        Claim {
            id: "S0-81",
            claim: "an RTX 5090 costs 1,999 USD",
            figure: format!(
                "list price {}, in shops {}",
                seen(&list.list_price),
                seen(&list.street_price)
            ),
            assumptions: "the catalogue's rows with their dates".into(),
            verdict: Verdict::Partly,
        },
    ])
}
