//! What articles claim about the cost of local models, worked out with this model and this catalogue.

use anyhow::Context;
use jiff::civil::Date;
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::Serialize;

use super::hybrid::{Task, divide};
use super::{Alternative, ApiPrice, Comparison, Inputs, compare};
use crate::catalog::{cloud_prices, electricity, hardware};
use crate::units::{TokensPerSecond, Usd, UsdPerHour, UsdPerMtok, Watts, significant};

/// What our figure says about a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Our figure agrees.
    Holds,
    /// It agrees under the assumptions that stand beside it, and not otherwise.
    Partly,
    /// Our figure does not agree.
    Fails,
    /// Nothing that we have can tell; what is unknown.
    Unchecked(&'static str),
}

impl Serialize for Verdict {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Holds => f.pad("holds"),
            Self::Partly => f.pad("holds partly"),
            Self::Fails => f.pad("does not hold"),
            Self::Unchecked(unknown) => write!(f, "cannot be checked: {unknown}"),
        }
    }
}

/// A claim with our figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Claim {
    /// Its number in the list of claims.
    pub id: &'static str,
    /// What is claimed.
    pub claim: &'static str,
    /// What we find.
    pub figure: String,
    /// Under which assumptions.
    pub assumptions: String,
    /// What that says about the claim.
    pub verdict: Verdict,
}

const SONNET: &str = "anthropic/claude-sonnet-5.5";
const OPUS: &str = "anthropic/claude-opus-5.5";
const HOSTED: &str = "openrouter/openai/gpt-oss-120b";

/// A machine whose speed somebody published.
struct Machine {
    /// Generated tokens a second, all streams together.
    tok_s: f64,
    /// Prompt tokens a second.
    prompt_tok_s: f64,
    usd: u32,
    active_watts: f64,
    idle_watts: f64,
    /// What the figures are, and where they come from.
    basis: &'static str,
}

/// The machine that serves many streams of a large open model.
const SPARK: Machine = Machine {
    tok_s: 312.56,
    prompt_tok_s: 1983.16,
    usd: 6950,
    active_watts: 140.0,
    idle_watts: 4.0,
    basis: "DGX Spark, gpt-oss-120b, 32 streams: 312.56 tok/s generated, 1,983 tok/s of prompts \
            (ggml-org/llama.cpp benches/dgx-spark.md, 2025-11-02); $6,950 (2026-10-02), 140 W",
};

/// The machine of the break-even for 1,500 USD.
const GAMING_PC: Machine = Machine {
    tok_s: 67.95,
    prompt_tok_s: 3682.37,
    usd: 1500,
    active_watts: 300.0,
    idle_watts: 57.0,
    basis: "RTX 4070 Super (the bandwidth of an RTX 4070), Llama 3.1 8B Q4_K_M, one stream: 67.95 \
            tok/s generated, 3,682 tok/s of prompts (localscore.ai, read 2026-04-17); an RTX 4070's \
            200 W and 7 W, and 100 W and 50 W assumed for the rest",
};

/// The laptop with 128 GB.
const LAPTOP: Machine = Machine {
    tok_s: 141.1,
    prompt_tok_s: 1e9,
    usd: 4000,
    active_watts: 145.0,
    idle_watts: 6.0,
    basis: "M4 Max, Qwen3 30B-A3B, one stream: at most 141 tok/s, twice the 70.55 of an M4 Pro \
            (llmfit, 2026-07-29) as its memory has twice the bandwidth (546 to 273 GB/s); the time \
            for prompts not counted",
};

impl Machine {
    /// The machine with nothing but its price and electricity, for three years.
    fn inputs(&self) -> anyhow::Result<Inputs> {
        let us = electricity::find("US", "household", None)?;
        let seconds = Decimal::try_from(1e6 / self.prompt_tok_s)?;
        Ok(Inputs {
            device_usd: Usd(self.usd.into()),
            output_tok_s: TokensPerSecond(self.tok_s),
            prompt_s_per_mtok: seconds,
            active_watts: Watts(self.active_watts),
            idle_watts: Watts(self.idle_watts),
            electricity_usd_per_kwh: us.price,
            working_days_per_month: Decimal::new(304_375, 4),
            prompt_tokens: Decimal::from(3000),
            new_tokens: Decimal::from(1000),
            ..Inputs::blank()
        })
    }

    /// The same with so many million tokens a month, three of prompts for one generated.
    fn with_volume(&self, mtok: Decimal) -> anyhow::Result<Inputs> {
        let mut inputs = self.inputs()?;
        inputs.requests_per_day =
            mtok * Decimal::from(1_000_000) / Decimal::from(4000) / inputs.working_days_per_month;
        Ok(inputs)
    }
}

struct Prices {
    today: Date,
}

impl Prices {
    fn api(&self, key: &str) -> anyhow::Result<ApiPrice> {
        let quote = cloud_prices::embedded().api(key, 3000, self.today)?;
        Ok(ApiPrice {
            input: quote.listing.input.context("a list without an input price")?,
            cached: quote.listing.cached,
            output: quote.listing.output.context("a list without an output price")?,
            batch_discount: quote.batch_discount,
        })
    }

    /// For a million tokens, three of prompts for one generated.
    fn blended(&self, key: &str) -> anyhow::Result<UsdPerMtok> {
        let price = self.api(key)?;
        Ok(UsdPerMtok((price.input.0 * Decimal::from(3) + price.output.0) / Decimal::from(4)))
    }

    fn against(&self, inputs: Inputs, key: &str) -> anyhow::Result<Comparison> {
        compare(&Alternative::Api(self.api(key)?).of(inputs)?)
    }
}

/// All claims about cost, worked out with the prices that hold on `today`.
///
/// # Errors
/// A price that the catalogue no longer has.
pub fn claims(today: Date) -> anyhow::Result<Vec<Claim>> {
    let prices = Prices { today };
    let mut all = efficiency(&prices)?;
    all.extend(break_even_of_volume(&prices)?);
    all.extend(one_laptop(&prices)?);
    all.extend(agents(&prices)?);
    all.extend(people()?);
    all.sort_by_key(|claim| claim.id);
    Ok(all)
}

fn number(value: f64) -> String {
    significant(value, 2)
}

fn efficiency(prices: &Prices) -> anyhow::Result<Vec<Claim>> {
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

fn break_even_of_volume(prices: &Prices) -> anyhow::Result<Vec<Claim>> {
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

fn one_laptop(prices: &Prices) -> anyhow::Result<Vec<Claim>> {
    let compared = compare(&LAPTOP.with_volume(Decimal::from(1000))?)?;
    let mut generated = LAPTOP.inputs()?;
    generated.prompt_tokens = Decimal::ZERO;
    generated.requests_per_day = Decimal::from(1_000_000) / generated.working_days_per_month;
    let all_generated = compare(&generated)?;
    let seconds = 304_375.0 / 1e4 * 86_400.0;
    let at = |input: u32, output: u32| -> anyhow::Result<Usd> {
        let price = prices.api("anthropic/claude-3.5-sonnet")?;
        Ok(Usd(price.input.0 * Decimal::from(input) + price.output.0 * Decimal::from(output)))
    };
    let mut listed: Vec<Decimal> = cloud_prices::embedded()
        .listings
        .iter()
        .filter_map(|l| Some((l.input?.0 * Decimal::from(3) + l.output?.0) / Decimal::from(4)))
        .collect();
    listed.sort();
    let median = UsdPerMtok(listed[listed.len() / 2]);
    let above = listed.iter().filter(|price| **price >= Decimal::from(30)).count();
    Ok(vec![
        Claim {
            id: "S2-04",
            claim: "a laptop makes 1 billion tokens a month",
            figure: format!(
                "{} tok/s around the clock; at 3:1 the laptop generates {} % of the time and must read \
                 prompts at {} tok/s in all of the rest, and all generated it takes {} laptops",
                number(1e9 / seconds),
                number(compared.utilisation.0 * 100.0),
                number(750e6 / (seconds * (1.0 - compared.utilisation.0))),
                all_generated.devices
            ),
            assumptions: LAPTOP.basis.into(),
            verdict: Verdict::Partly,
        },
        Claim {
            id: "S2-05",
            claim: "1 billion tokens on Claude 3.5 Sonnet cost very much",
            figure: format!(
                "{} as prompts, {} at 3:1, {} all generated; {} on {HOSTED}",
                at(1000, 0)?,
                at(750, 250)?,
                at(0, 1000)?,
                Usd(prices.blended(HOSTED)?.0 * Decimal::from(1000))
            ),
            assumptions: "list prices, no cache, no batch".into(),
            verdict: Verdict::Holds,
        },
        Claim {
            id: "S2-06",
            claim: "a MacBook M4 Max with 128 GB costs 4,000 USD",
            figure: "no price of that MacBook is known; a Mac Studio with the chip and memory was \
                     listed at $3,499 (2025)"
                .into(),
            assumptions: "the catalogue's row apple-m4-max".into(),
            verdict: Verdict::Unchecked(
                "no price of a MacBook with that chip and memory has a source here",
            ),
        },
        Claim {
            id: "S2-08",
            claim: "cloud tokens cost 0.03 USD for a thousand",
            figure: format!(
                "$30 a million; the median of {} list prices is {} at 3:1, and {above} are at or \
                 above $30",
                listed.len(),
                median.rounded()
            ),
            assumptions: "all API rows of the catalogue, whatever their age".into(),
            verdict: Verdict::Fails,
        },
    ])
}

fn agents(prices: &Prices) -> anyhow::Result<Vec<Claim>> {
    let buys = |usd: u32| -> anyhow::Result<String> {
        let mtok = |key| -> anyhow::Result<String> {
            let volume = Decimal::from(usd) / prices.blended(key)?.0;
            Ok(number(volume.to_f64().unwrap_or(f64::NAN)))
        };
        Ok(format!("{} Mtok a month on Sonnet 5.5, {} on Opus 5.5", mtok(SONNET)?, mtok(OPUS)?))
    };
    let spend = |id, claim, usd| -> anyhow::Result<Claim> {
        Ok(Claim {
            id,
            claim,
            figure: buys(usd)?,
            assumptions: "3:1, list prices, no cache; a developer's agents reach it".into(),
            verdict: Verdict::Partly,
        })
    };
    // What 500 USD buy, on the machine for 1,500.
    let volume = Decimal::from(500) / prices.blended(SONNET)?.0;
    let inputs = GAMING_PC.with_volume(volume)?;
    let bill = |electricity: u32| -> anyhow::Result<f64> {
        let inputs = Inputs {
            device_usd: Usd(Decimal::from(1500)),
            rack_usd_per_month: Usd(electricity.into()),
            api_usd_per_month: Usd(Decimal::from(500)),
            ..Inputs::blank()
        };
        let months = compare(&inputs)?.break_even.months();
        months.map(|m| m.0).context("500 USD a month pay 1,500 back")
    };
    let modelled = compare(&Alternative::Bill(Usd(Decimal::from(500))).of(inputs)?)?;
    let mut office = inputs;
    office.working_days_per_month = Decimal::from(21);
    office.requests_per_day =
        inputs.requests_per_day * inputs.working_days_per_month / Decimal::from(21);
    office.active_hours_per_day = Decimal::from(10);
    office.peak_factor = Decimal::from(3);
    let office = compare(&office)?;
    let mut staffed = Alternative::Bill(Usd(Decimal::from(500))).of(inputs)?;
    staffed.staff_hours_per_month = Decimal::from(2);
    staffed.staff_usd_per_hour = UsdPerHour(Decimal::from(100));
    let staffed = compare(&staffed)?.break_even.months();
    let staffed = staffed.map_or("never".to_owned(), |months| months.to_string());

    let us = electricity::find("US", "household", None)?.price;
    let germany = electricity::find("DE", "household", None)?.price;
    // Hours of a mean month: 365.25 x 24 / 12.
    let watts = |usd: u32, tariff: crate::units::UsdPerKwh| {
        let kwh = Decimal::from(usd) / tariff.0;
        Watts((kwh * Decimal::from(1000) / Decimal::new(7305, 1)).to_f64().unwrap_or(f64::NAN))
    };
    let power = |usd| {
        format!(
            "{} around the clock at {us} (US), {} at {germany} (Germany)",
            watts(usd, us),
            watts(usd, germany)
        )
    };
    let bill_of_power = modelled.owning.electricity;
    let power_assumed = format!(
        "household tariffs; the machine below with the work of 500 USD at {} of its time: \
         {bill_of_power} a month. {}",
        modelled.utilisation, GAMING_PC.basis
    );
    let card = |id, claim| Claim {
        id,
        claim,
        figure: "list price $599 (2023-04-13), between the $500 and the $800 of the claim".into(),
        assumptions: "the catalogue's row rtx-4070".into(),
        verdict: Verdict::Unchecked("no price in shops has a source here, only the list price"),
    };
    Ok(vec![
        Claim {
            id: "S1-40",
            claim: "a hybrid agent's local model has 7 to 13 billion parameters",
            figure:
                "no cost follows from a size alone: `bench cost` needs the machine's speed with \
                     it"
                .into(),
            assumptions: "—".into(),
            verdict: Verdict::Unchecked("it states a size, and no cost"),
        },
        spend("S3-01", "agents use APIs for 500 USD a month", 500)?,
        spend("S3-02", "agents use APIs for 1,000 USD a month", 1000)?,
        card("S3-03", "an RTX 4070 costs 500 USD in shops"),
        card("S3-04", "an RTX 4070 costs 800 USD in shops"),
        Claim {
            id: "S3-08",
            claim: "a dedicated system costs 1,500 USD",
            figure: "a card at its list price of $599 leaves $901 for the rest".into(),
            assumptions: "the catalogue's row rtx-4070; prices of PCs are not in it".into(),
            verdict: Verdict::Unchecked(
                "no price of a whole PC has a source here, only that of its card",
            ),
        },
        Claim {
            id: "S3-09",
            claim: "an API bill of 500 USD a month is compared with it",
            figure: buys(500)?,
            assumptions: "3:1, list prices, no cache".into(),
            verdict: Verdict::Holds,
        },
        Claim {
            id: "S3-10",
            claim: "that system breaks even in a few months",
            figure: format!(
                "{} to {} months with 20 to 40 USD of electricity; {staffed} with two hours of work \
                 a month at $100; it makes what 500 USD buy in {} of its time, but in ten hours of \
                 21 days with three times the mean at the peak it takes {} systems",
                significant(bill(20)?, 3),
                significant(bill(40)?, 3),
                modelled.utilisation,
                office.devices
            ),
            assumptions: format!(
                "only if an 8B model replaces what the 500 USD pay for; {}",
                GAMING_PC.basis
            ),
            verdict: Verdict::Partly,
        },
        Claim {
            id: "S3-11",
            claim: "its electricity costs 20 USD a month",
            figure: power(20),
            assumptions: power_assumed.clone(),
            verdict: Verdict::Partly,
        },
        Claim {
            id: "S3-12",
            claim: "its electricity costs 40 USD a month",
            figure: power(40),
            assumptions: power_assumed,
            verdict: Verdict::Partly,
        },
        Claim {
            id: "S3-16",
            claim: "an agent makes 100 round trips",
            figure:
                "no cost follows from round trips: an API charges tokens; 100 × 30 ms are 3.0 s"
                    .into(),
            assumptions: "—".into(),
            verdict: Verdict::Unchecked("it states a count, and no cost"),
        },
    ])
}

fn people() -> anyhow::Result<Vec<Claim>> {
    let month = Decimal::from(200_000) / Decimal::from(12);
    let hour = Decimal::from(200_000) / Decimal::from(2000);
    // 500 USD less 30 of electricity and 1,500 over 36 months.
    let left = Decimal::from(500 - 30) - Decimal::from(1500) / Decimal::from(36);
    let hours = (left / hour).to_f64().context("a number of hours")?;
    Ok(vec![Claim {
        id: "S3-13",
        claim: "an ML engineer costs 200,000 USD a year, and owning takes half of one",
        figure: format!(
            "half of a salary is {} a month; the saving on a bill of 500 USD pays {} hours of work",
            Usd(month / Decimal::TWO),
            number(hours)
        ),
        assumptions:
            "2,000 hours a year, $100 an hour; a system for $1,500 over three years, 30 USD \
                      of electricity"
                .into(),
        verdict: Verdict::Partly,
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::civil::date;

    #[test]
    fn every_claim_about_cost_is_worked_out() {
        let all = claims(date(2026, 11, 21)).unwrap();
        let ids: Vec<_> = all.iter().map(|claim| claim.id).collect();
        assert_eq!(
            ids,
            [
                "S0-68", "S0-69", "S0-70", "S0-71", "S0-72", "S0-73", "S0-81", "S1-40", "S2-04",
                "S2-05", "S2-06", "S2-08", "S3-01", "S3-02", "S3-03", "S3-04", "S3-08", "S3-09",
                "S3-10", "S3-11", "S3-12", "S3-13", "S3-16",
            ]
        );
        for claim in &all {
            assert!(!claim.figure.is_empty() && !claim.assumptions.is_empty(), "{}", claim.id);
            assert!(!claim.figure.contains("NaN") && !claim.figure.contains("inf"), "{}", claim.id);
        }
        let figure = |id| &all.iter().find(|claim| claim.id == id).unwrap().figure;
        // 1,500 / 480 and 1,500 / 460.
        assert!(figure("S3-10").starts_with("3.12 to 3.26 months"), "{}", figure("S3-10"));
        // 20 / 0.1872 kWh over 730.5 h.
        assert!(figure("S3-11").starts_with("146 W"), "{}", figure("S3-11"));
        assert!(figure("S2-05").starts_with("$3,000.00 as prompts, $6,000.00 at 3:1, $15,000.00"));
    }
}
