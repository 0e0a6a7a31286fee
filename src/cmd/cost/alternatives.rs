//! What owning is compared with: APIs, rented GPUs, today's bill, each with its price's source and age.

use anyhow::{Context as _, bail};
use rust_decimal::Decimal;
use rust_decimal::prelude::{FromPrimitive, ToPrimitive};

use crate::catalog::cloud_prices::Listing;
use crate::cost::{Alternative, ApiPrice, Assumptions, Basis, Input, Inputs};
use crate::fit::machine::Machine;
use crate::units::{TokensPerSecond, Usd, UsdPerHour, UsdPerMtok};

use super::QuestionArgs;
use super::context::Context;
use super::demand::{self, Demand};
use super::predicted::Predictor;
use super::speed::{Pace, Speed};

/// An alternative with what makes its price uncertain.
pub struct Named {
    pub name: String,
    pub alternative: Alternative,
    /// Where its price comes from, and when.
    pub source: String,
    /// What other listings of the same thing say.
    pub conflicts: Vec<String>,
    /// Prices that those spread over.
    pub spread: Vec<(Input, Decimal, Decimal)>,
}

impl Named {
    /// `inputs` with this alternative and no other.
    pub fn priced(&self, inputs: Inputs) -> anyhow::Result<Inputs> {
        self.alternative.of(inputs).map_err(|error| error.context(format!("against {}", self.name)))
    }
}

impl Context {
    /// What the machine is compared with; each price with its source and age.
    pub fn alternatives(
        &self,
        args: &QuestionArgs,
        all: &Assumptions,
    ) -> anyhow::Result<Vec<Named>> {
        let prices = self.scenario.as_ref().and_then(|s| s.prices.as_ref());
        let mut keys = args.against.clone();
        if keys.is_empty() {
            keys = prices.map_or_else(Vec::new, |p| p.against.clone());
        }
        let inputs = all.inputs();
        let prompt = inputs.prompt_tokens.to_u64().unwrap_or(u64::MAX);
        let mut found = Vec::new();
        let stated = |input| all.get(input).filter(|row| row.basis == Basis::Stated);
        // Rented around the clock, unless the user rents by the hour.
        let hours_per_day =
            stated(Input::rent_hours_per_day).map_or(Decimal::from(24), |row| row.likely);
        for key in &keys {
            let mut named = self.api(key, prompt)?;
            // What the list does not say the user can.
            if let Alternative::Api(price) = &mut named.alternative {
                let cached = stated(Input::api_cached_usd_per_mtok).map(|r| UsdPerMtok(r.likely));
                price.cached = price.cached.or(cached);
                if price.cached.is_none() && args.no_cache_discount {
                    price.cached = Some(price.input);
                    named.source.push_str("; cached at the price of others (--no-cache-discount)");
                }
                let discount = stated(Input::api_batch_discount).map(|row| row.likely);
                price.batch_discount = price.batch_discount.or(discount);
            }
            found.push(named);
        }
        if let (Some(input), Some(output)) =
            (stated(Input::api_input_usd_per_mtok), stated(Input::api_output_usd_per_mtok))
        {
            found.push(Named {
                name: "stated API prices".into(),
                alternative: Alternative::Api(ApiPrice {
                    input: UsdPerMtok(input.likely),
                    cached: stated(Input::api_cached_usd_per_mtok).map(|r| UsdPerMtok(r.likely)),
                    output: UsdPerMtok(output.likely),
                    batch_discount: stated(Input::api_batch_discount).map(|row| row.likely),
                }),
                source: "--set".into(),
                conflicts: Vec::new(),
                spread: Vec::new(),
            });
        }
        if let Some(key) = &args.rent {
            found.push(self.rented(key, args, all, hours_per_day)?);
        }
        if let Some(rent) = prices.and_then(|p| p.rent_usd_per_gpu_hour) {
            found.push(Named {
                name: "rented GPUs".into(),
                alternative: Alternative::Gpus {
                    price: UsdPerHour(rent.likely),
                    hours_per_day,
                    tok_s: inputs.output_tok_s,
                    prompt_s_per_mtok: inputs.prompt_s_per_mtok,
                },
                source: format!("{}; as fast as the own device", self.scenario_path()),
                conflicts: Vec::new(),
                spread: vec![(Input::rent_usd_per_gpu_hour, rent.low, rent.high)],
            });
        }
        let bill = args.bill.or_else(|| prices.and_then(|p| p.api_usd_per_month).map(|usd| usd.0));
        if let Some(bill) = bill {
            found.push(Named {
                name: "today's bill".into(),
                alternative: Alternative::Bill(Usd(bill)),
                source: "stated".into(),
                conflicts: Vec::new(),
                spread: Vec::new(),
            });
        }
        Ok(found)
    }

    /// GPUs by the hour, of the offer that the flags name, else the newest.
    fn rented(
        &self,
        key: &str,
        args: &QuestionArgs,
        all: &Assumptions,
        hours_per_day: Decimal,
    ) -> anyhow::Result<Named> {
        let quote = self.prices.gpu(key, args.rent_offer.as_deref(), self.today)?;
        let price = quote.listing.gpu_hour.context("a rental without a price")?;
        let (pace, speed) = self.rented_pace(args, all)?;
        let said = |o: &Listing, price: UsdPerHour| {
            format!("{price} {}, {}", o.provisioning, o.as_of.marked(self.today))
        };
        let mut spread = spread(
            Input::rent_usd_per_gpu_hour,
            price.0,
            quote.others.iter().filter_map(|o| o.gpu_hour.map(|p| p.0)),
        );
        let [low, tok_s, high] = pace.tok_s;
        if low < tok_s || high > tok_s {
            let number =
                |value: f64| Decimal::from_f64(value).context("a rented GPU without a speed");
            spread.push((Input::rented_tok_s, number(low)?, number(high)?));
        }
        Ok(Named {
            name: quote.listing.key(),
            alternative: Alternative::Gpus {
                price,
                hours_per_day,
                tok_s: TokensPerSecond(tok_s),
                prompt_s_per_mtok: Decimal::from_f64(pace.prompt_s_per_mtok[1]).unwrap_or_default(),
            },
            source: format!("{}, {}; {speed}", said(quote.listing, price), quote.listing.source),
            conflicts: quote
                .others
                .iter()
                .filter_map(|o| Some((o.gpu_hour?, o)))
                .filter(|(other, _)| *other != price)
                .map(|(other, o)| said(o, other))
                .collect(),
            spread,
        })
    }

    /// The pace of a rented GPU, stated or predicted, and who says so.
    fn rented_pace(
        &self,
        args: &QuestionArgs,
        all: &Assumptions,
    ) -> anyhow::Result<(Pace, String)> {
        if let Some(tok_s) = args.rent_tok_s {
            let pace = Pace { streams: 1, tok_s: [tok_s; 3], prompt_s_per_mtok: [0.0; 3] };
            return Ok((pace, "--rent-tok-s".to_owned()));
        }
        let Some(word) = &args.rent_device else {
            bail!(
                "how fast is the rented GPU? Name it with --rent-device so that it is predicted, \
                 or state --rent-tok-s"
            );
        };
        let machine = Machine::parse(word, &self.own)?;
        let demand = Demand::of(args, self, all, true)?;
        let spec = demand.model.context("--rent-device needs a --model to predict")?;
        let quant = match demand.quant {
            Some(quant) => quant,
            None => demand::usual_quant(self.scenario.as_ref(), spec)?,
        };
        match Predictor::new(args, spec, quant)?.speed(&machine, &demand)? {
            Speed::Predicted { paces, source } => {
                Ok((*paces.last().context("a speed without a pace")?, source))
            }
            Speed::Cannot(reason) => bail!("the rented {} {reason}", machine.name),
            Speed::Measured { .. } => bail!("a prediction that was measured"),
        }
    }

    /// The price of an API model.
    pub fn api(&self, key: &str, prompt_tokens: u64) -> anyhow::Result<Named> {
        let quote = self.prices.api(key, prompt_tokens, self.today)?;
        let listing = quote.listing;
        let (Some(input), Some(output)) = (listing.input, listing.output) else {
            bail!("no price of '{key}' for prompt or generated tokens is known");
        };
        // An older list may have the price that the newer one leaves out.
        let cached = listing.cached.or_else(|| {
            let is_same = |o: &&&Listing| o.input == listing.input && o.output == listing.output;
            quote.others.iter().find(is_same).and_then(|o| o.cached)
        });
        let money = |price: Option<UsdPerMtok>| crate::units::or_absent(price);
        Ok(Named {
            name: listing.key(),
            alternative: Alternative::Api(ApiPrice {
                input,
                cached,
                output,
                batch_discount: quote.batch_discount,
            }),
            source: format!(
                "{input} in, {} cached, {output} out, {}, {}",
                money(cached),
                listing.as_of.marked(self.today),
                listing.source
            ),
            conflicts: quote
                .others
                .iter()
                .filter(|o| o.input != listing.input || o.output != listing.output)
                .map(|o| {
                    let when = o.as_of.marked(self.today);
                    format!("{} in, {} out, {when}, {}", money(o.input), money(o.output), o.source)
                })
                .collect(),
            spread: [
                spread(
                    Input::api_input_usd_per_mtok,
                    input.0,
                    quote.others.iter().filter_map(|o| o.input.map(|p| p.0)),
                ),
                spread(
                    Input::api_output_usd_per_mtok,
                    output.0,
                    quote.others.iter().filter_map(|o| o.output.map(|p| p.0)),
                ),
            ]
            .concat(),
        })
    }
}

fn spread(
    input: Input,
    point: Decimal,
    others: impl Iterator<Item = Decimal>,
) -> Vec<(Input, Decimal, Decimal)> {
    let (mut low, mut high) = (point, point);
    for other in others {
        (low, high) = (low.min(other), high.max(other));
    }
    if low == high { Vec::new() } else { vec![(input, low, high)] }
}
