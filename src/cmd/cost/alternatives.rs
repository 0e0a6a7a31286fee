//! What owning is compared with: APIs, rented GPUs, today's bill, each with its price's source and age.

use anyhow::{Context as _, bail, ensure};
use rust_decimal::Decimal;
use rust_decimal::prelude::{FromPrimitive, ToPrimitive};

use crate::catalog::cloud_prices::Listing;
use crate::cost::{Alternative, ApiPrice, Assumption, Assumptions, Basis, Input, Inputs};
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
    /// What `machine` is compared with; each price with its source and age.
    pub fn alternatives(
        &self,
        args: &QuestionArgs,
        all: &Assumptions,
        machine: Option<&Machine>,
    ) -> anyhow::Result<Vec<Named>> {
        let prices = self.scenario.as_ref().and_then(|s| s.prices.as_ref());
        let mut keys = args.against.clone();
        if keys.is_empty() {
            keys = prices.map_or_else(Vec::new, |p| p.against.clone());
        }
        let prompt = all.inputs().prompt_tokens.to_u64().unwrap_or(u64::MAX);
        let mut found = Vec::new();
        let stated = |input| stated(all, input);
        // Rented around the clock, unless the user rents by the hour.
        let hours_per_day =
            stated(Input::rent_hours_per_day).map_or(Decimal::from(24), |row| row.likely);
        for key in &keys {
            let mut named = self.api(key, prompt)?;
            // What the user states comes before the list.
            if let Alternative::Api(price) = &mut named.alternative {
                let cached = stated(Input::api_cached_usd_per_mtok).map(|r| UsdPerMtok(r.likely));
                price.cached = cached.or(price.cached);
                if let Some(cached) = cached {
                    named.source.push_str(&format!("; cached {cached} (--set)"));
                }
                if price.cached.is_none() && args.no_cache_discount {
                    price.cached = Some(price.input);
                    named.source.push_str("; cached at the price of others (--no-cache-discount)");
                }
                let discount = stated(Input::api_batch_discount).map(|row| row.likely);
                price.batch_discount = discount.or(price.batch_discount);
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
        let rent = match stated(Input::rent_usd_per_gpu_hour) {
            Some(row) => Some((row.low, row.likely, row.high, "--set".to_owned())),
            None => prices
                .and_then(|p| p.rent_usd_per_gpu_hour)
                .map(|rent| (rent.low, rent.likely, rent.high, self.scenario_path())),
        };
        if let Some((low, likely, high, source)) = rent {
            // As fast as the own machine is one of as many GPUs.
            let own = machine.map_or(1, |machine| machine.devices.len());
            let (count, pace, speed) = match stated_pace(args, all)? {
                Some((pace, who)) => (Decimal::ONE, Some(pace), who),
                None if own == 1 => (Decimal::ONE, None, "as fast as the own device".to_owned()),
                None => (own.into(), None, format!("{own} as fast as the own machine")),
            };
            found.push(Named {
                name: "rented GPUs".into(),
                alternative: Alternative::Gpus {
                    price: UsdPerHour(likely * count),
                    hours_per_day,
                    tok_s: TokensPerSecond(pace.map_or(0.0, |pace| pace.tok_s[1])),
                    prompt_s_per_mtok: prompt_seconds(pace),
                },
                source: format!("{source}; {speed}"),
                conflicts: Vec::new(),
                spread: vec![(Input::rent_usd_per_gpu_hour, low * count, high * count)],
            });
        }
        let set = stated(Input::api_usd_per_month).map(|row| row.likely);
        ensure!(
            args.bill.is_none() || set.is_none(),
            "--bill and --set api_usd_per_month state the same bill: leave one of them out"
        );
        let bill = args.bill.or(set);
        let bill = bill.or_else(|| prices.and_then(|p| p.api_usd_per_month).map(|usd| usd.0));
        if let Some(bill) = bill {
            found.push(Named {
                name: "today's bill".into(),
                alternative: Alternative::Bill(Usd(bill)),
                source: "stated".into(),
                conflicts: Vec::new(),
                spread: Vec::new(),
            });
        }
        check_set(all, &found)?;
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
        let (count, pace, speed) = self.rented_pace(args, all)?;
        let gpus = Decimal::from(count);
        let together = match count {
            1 => String::new(),
            _ => format!(" each of {count} in one machine"),
        };
        let said = |o: &Listing, price: UsdPerHour| {
            format!("{price}{together} {}, {}", o.provisioning, o.as_of.marked(self.today))
        };
        let mut spread = spread(
            Input::rent_usd_per_gpu_hour,
            price.0 * gpus,
            quote.others.iter().filter_map(|o| o.gpu_hour.map(|p| p.0 * gpus)),
        );
        let [low, tok_s, high] = pace.tok_s;
        if low < tok_s || high > tok_s {
            let number =
                |value: f64| Decimal::from_f64(value).context("a rented GPU without a speed");
            spread.push((Input::rented_tok_s, number(low)?, number(high)?));
        }
        Ok(Named {
            name: match count {
                1 => quote.listing.key(),
                _ => format!("{count}x {}", quote.listing.key()),
            },
            alternative: Alternative::Gpus {
                price: UsdPerHour(price.0 * gpus),
                hours_per_day,
                tok_s: TokensPerSecond(tok_s),
                prompt_s_per_mtok: prompt_seconds(Some(pace)),
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

    /// How many GPUs a rented machine has, its pace, stated or predicted, and who says so.
    fn rented_pace(
        &self,
        args: &QuestionArgs,
        all: &Assumptions,
    ) -> anyhow::Result<(usize, Pace, String)> {
        if let Some((pace, who)) = stated_pace(args, all)? {
            return Ok((1, pace, who));
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
                let pace = *paces.last().context("a speed without a pace")?;
                Ok((machine.devices.len(), pace, source))
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

fn stated(all: &Assumptions, input: Input) -> Option<&Assumption> {
    all.get(input).filter(|row| row.basis == Basis::Stated)
}

/// The pace of one rented GPU that a flag states, and which one.
fn stated_pace(args: &QuestionArgs, all: &Assumptions) -> anyhow::Result<Option<(Pace, String)>> {
    let set = stated(all, Input::rented_tok_s).and_then(|row| row.likely.to_f64());
    let prompt = stated(all, Input::rented_prompt_s_per_mtok).and_then(|row| row.likely.to_f64());
    let (tok_s, who) = match (args.rent_tok_s, set) {
        (Some(_), Some(_)) => {
            bail!("--rent-tok-s and --set rented_tok_s state the same speed: leave one of them out")
        }
        (Some(tok_s), None) => (tok_s, "--rent-tok-s"),
        (None, Some(tok_s)) => (tok_s, "--set rented_tok_s"),
        (None, None) => {
            ensure!(
                prompt.is_none(),
                "'rented_prompt_s_per_mtok' is set without 'rented_tok_s': set both"
            );
            return Ok(None);
        }
    };
    ensure!(
        args.rent_device.is_none(),
        "{who} and --rent-device both say how fast the rented GPU is: leave one of them out"
    );
    ensure!(tok_s.is_finite() && tok_s > 0.0, "{who} {tok_s} cannot be: write tokens a second");
    let pace =
        Pace { streams: 1, tok_s: [tok_s; 3], prompt_s_per_mtok: [prompt.unwrap_or(0.0); 3] };
    Ok(Some((pace, who.to_owned())))
}

fn prompt_seconds(pace: Option<Pace>) -> Decimal {
    pace.and_then(|pace| Decimal::from_f64(pace.prompt_s_per_mtok[1])).unwrap_or_default()
}

/// No price that the user sets is passed over in silence.
fn check_set(all: &Assumptions, found: &[Named]) -> anyhow::Result<()> {
    let set = |input| stated(all, input).filter(|row| row.source.starts_with("--set"));
    let both = [Input::api_input_usd_per_mtok, Input::api_output_usd_per_mtok];
    if let [Some(one), None] | [None, Some(one)] = both.map(set) {
        bail!(
            "'{}' is set alone: set both '{}' and '{}', which are then an alternative of their own",
            one.input,
            both[0],
            both[1]
        );
    }
    for row in all.rows() {
        let is_of_alternative =
            row.input.key().starts_with("api_") || row.input.key().starts_with("rent");
        ensure!(
            !is_of_alternative
                || set(row.input).is_none()
                || found.iter().any(|named| named.alternative.uses(row.input)),
            "'{}' is set and nothing that it is a price of is compared: name it with --against, \
             --rent or --bill, or leave it out",
            row.input
        );
    }
    Ok(())
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
