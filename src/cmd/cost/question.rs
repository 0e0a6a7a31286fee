//! Puts the inputs of a decision together: ours, the scenario's, the catalogue's, the results', the flags'.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use jiff::civil::Date;
use rust_decimal::Decimal;
use rust_decimal::prelude::{FromPrimitive, ToPrimitive};

use crate::catalog::cloud_prices::{AsOf, PriceList};
use crate::catalog::electricity::{self, Carbon, ExchangeRate};
use crate::catalog::hardware::{self, Kind};
use crate::cost::{Alternative, ApiPrice, Assumptions, Basis, Input, Preset};
use crate::record::{Outcome, Record, read_records};
use crate::scenario::{Estimate, Length, Scenario};
use crate::units::{TokensPerSecond, Usd, UsdPerHour, UsdPerMtok};

use super::QuestionArgs;

/// What all machines of a decision have in common.
pub struct Context {
    pub today: Date,
    pub prices: PriceList,
    pub scenario: Option<Scenario>,
    pub carbon: Vec<Carbon>,
    pub workload: String,
}

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

impl Context {
    pub fn of(args: &QuestionArgs) -> anyhow::Result<Self> {
        let scenario = match &args.scenario {
            Some(path) => Some(Scenario::read(path, &crate::cmd::known())?),
            None => None,
        };
        let workload = scenario.as_ref().and_then(|s| s.workload.as_ref());
        let preset = args.workload.clone().or_else(|| workload.and_then(|w| w.preset.clone()));
        let place = Self::place(args, scenario.as_ref());
        Ok(Self {
            today: jiff::Zoned::now().date(),
            prices: crate::cmd::prices::list()?,
            workload: preset.unwrap_or_else(|| "the stated workload".to_owned()),
            carbon: electricity::carbon(&place),
            scenario,
        })
    }

    fn place(args: &QuestionArgs, scenario: Option<&Scenario>) -> String {
        let stated = scenario.and_then(|s| s.prices.as_ref()).and_then(|p| p.tariff.clone());
        args.tariff.clone().or(stated).unwrap_or_else(|| "US".to_owned())
    }

    /// Everything but the machine: our assumptions, the workload, the tariff.
    pub fn common(&self, args: &QuestionArgs) -> anyhow::Result<Assumptions> {
        let mut all = Assumptions::default();
        let workload = self.scenario.as_ref().and_then(|s| s.workload.as_ref());
        let preset = args.workload.as_ref().or_else(|| workload.and_then(|w| w.preset.as_ref()));
        if let Some(name) = preset {
            preset_workload(&mut all, Preset::find(name)?, workload.and_then(|w| w.users))?;
        }
        if let Some(workload) = workload {
            self.scenario_workload(&mut all, workload)?;
        }
        ensure!(
            all.get(Input::requests_per_day).is_some()
                || args.set.iter().any(|set| set.starts_with("requests")),
            "no workload: name one with --workload (chat-team, coding-agents, document-batch, \
             always-on-agent), give a scenario with [workload], or --set requests_per_day=…, \
             prompt_tokens=… and new_tokens=…"
        );

        let rate = args.exchange.as_deref().map(ExchangeRate::parse).transpose()?;
        let is_tariff_stated = args.set.iter().any(|set| set.starts_with("electricity"))
            || self
                .scenario
                .as_ref()
                .and_then(|s| s.prices.as_ref())
                .is_some_and(|p| p.electricity_usd_per_kwh.is_some());
        if !is_tariff_stated {
            let place = Self::place(args, self.scenario.as_ref());
            let chosen = electricity::find(&place, &args.sector, rate.as_ref())?;
            let tariff = chosen.tariff;
            let assumed = if place == "US" && args.tariff.is_none() {
                "; country assumed: name yours with --tariff"
            } else {
                ""
            };
            let source = format!(
                "{} {}, {}: {}{assumed}",
                tariff.country, tariff.sector, tariff.period, tariff.source
            );
            let point = chosen.price.0;
            let (low, high) = if chosen.spread.0 == chosen.spread.1 {
                (point * Decimal::new(8, 1), point * Decimal::new(12, 1))
            } else {
                (chosen.spread.0.0, chosen.spread.1.0)
            };
            let range = (low, point, high);
            all.put(Input::electricity_usd_per_kwh, range, Basis::Listed, source)?;
        }
        Ok(all)
    }

    fn scenario_workload(
        &self,
        all: &mut Assumptions,
        workload: &crate::scenario::Workload,
    ) -> anyhow::Result<()> {
        let source = self.scenario_path();
        let mut put = |input, estimate: Option<Estimate>| match estimate {
            Some(Estimate { low, likely, high }) => {
                all.put(input, (low, likely, high), Basis::Stated, source.clone())
            }
            None => Ok(()),
        };
        put(Input::peak_factor, workload.peak_factor)?;
        put(Input::growth_per_year, workload.growth_per_year)?;
        put(Input::prompt_tokens, workload.prompt_tokens.as_ref().map(mean_length))?;
        put(Input::new_tokens, workload.new_tokens.as_ref().map(mean_length))?;
        put(Input::requests_per_day, workload.requests_per_day)?;
        put(Input::working_days_per_month, workload.working_days_per_month.map(certain))?;
        let share = workload.cached_share.and_then(|share| Decimal::from_f64(share.0));
        put(Input::cached_share, share.map(certain))?;
        if let Some(tokens) = workload.tokens_per_day {
            let inputs = all.inputs();
            let each = inputs.prompt_tokens + inputs.new_tokens;
            ensure!(
                !each.is_zero(),
                "{source}: 'tokens_per_day' needs 'prompt_tokens' and 'new_tokens' of a request"
            );
            let range = (tokens.low / each, tokens.likely / each, tokens.high / each);
            all.put(Input::requests_per_day, range, Basis::Stated, source)?;
        }
        Ok(())
    }

    fn scenario_path(&self) -> String {
        self.scenario.as_ref().map_or(String::new(), |s| s.path.display().to_string())
    }

    /// What the scenario says about owning.
    pub fn scenario_prices(&self, all: &mut Assumptions) -> anyhow::Result<()> {
        let Some(prices) = self.scenario.as_ref().and_then(|s| s.prices.as_ref()) else {
            return Ok(());
        };
        let source = self.scenario_path();
        for (input, estimate) in [
            (Input::device_usd, prices.device_usd),
            (Input::rest_usd, prices.rest_usd),
            (Input::life_years, prices.life_years),
            (Input::resale_share, prices.resale_share),
            (Input::capital_cost_per_year, prices.capital_cost_per_year),
            (Input::electricity_usd_per_kwh, prices.electricity_usd_per_kwh),
            (Input::idle_watts, prices.idle_watts),
            (Input::active_watts, prices.active_watts),
            (Input::pue, prices.pue),
            (Input::rack_usd_per_month, prices.rack_usd_per_month),
            (Input::maintenance_share_per_year, prices.maintenance_share_per_year),
            (Input::staff_hours_per_month, prices.staff_hours_per_month),
            (Input::staff_usd_per_hour, prices.staff_usd_per_hour),
            (Input::spare_share, prices.spare_share),
            (Input::api_change_per_year, prices.api_change_per_year),
        ] {
            if let Some(Estimate { low, likely, high }) = estimate {
                all.put(input, (low, likely, high), Basis::Stated, source.clone())?;
            }
        }
        Ok(())
    }

    /// How fast the machine was in the newest results of the scenario.
    pub fn measured_speed(&self, all: &mut Assumptions, args: &QuestionArgs) -> anyhow::Result<()> {
        if args.set.iter().any(|set| set.starts_with("output_tok_s=")) {
            return Ok(());
        }
        let Some(scenario) = &self.scenario else {
            bail!(
                "how fast is the machine? State the tokens a second at its SLO with --tok-s, or \
                 give a scenario that `bench run` has measured"
            );
        };
        let Some(folder) = newest_results(&args.results, &scenario.name) else {
            bail!(
                "no results of '{}' in '{}': measure with `bench run {}`, or state the tokens a \
                 second at its SLO with --tok-s",
                scenario.name,
                args.results.display(),
                scenario.path.display()
            );
        };
        let records = read_records(&folder.join("records.csv"))?;
        let is_wanted = |r: &&Record| {
            r.outcome == Outcome::Measured
                && args.model.as_ref().is_none_or(|model| r.model.eq_ignore_ascii_case(model))
        };
        let speed = |r: &Record| r.system_tok_s_median.or(r.decode_tok_s_median);
        let best = records
            .iter()
            .filter(is_wanted)
            .filter_map(|r| Some((speed(r)?, r)))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let Some((tok_s, record)) = best else {
            bail!(
                "'{}' has no measured case{}: `bench run {}` says why",
                folder.display(),
                args.model.as_ref().map_or(String::new(), |m| format!(" of '{m}'")),
                scenario.path.display()
            );
        };
        let marks = if record.marks.is_empty() {
            String::new()
        } else {
            format!(", marked {}", record.marks)
        };
        let source = format!(
            "case {} of {}, the fastest of {}{marks}",
            record.case_id,
            folder.file_name().unwrap_or_default().to_string_lossy(),
            record.model
        );
        let (low, high) = if record.system_tok_s_median.is_some() {
            (record.system_tok_s_low, record.system_tok_s_high)
        } else {
            (record.decode_tok_s_low, record.decode_tok_s_high)
        };
        let number = |value: f64| Decimal::from_f64(value).context("a speed that is no number");
        let likely = number(tok_s)?;
        let range = (
            number(low.unwrap_or(tok_s))?.min(likely),
            likely,
            number(high.unwrap_or(tok_s))?.max(likely),
        );
        all.put(Input::output_tok_s, range, Basis::Measured, source.clone())?;
        if let Some(prefill) = record.prefill_tok_s_median {
            let seconds = number(1e6 / prefill)?;
            all.put_point(Input::prompt_s_per_mtok, seconds, Basis::Measured, source.clone())?;
        }
        if let Some(joules) = record.energy_per_token_joules
            && let Some(idle) = all.get(Input::idle_watts).cloned()
        {
            // Net energy: what the machine draws above its idle power.
            let watts = idle.likely + number(joules * tok_s)?;
            let boundary = record.energy_boundary.as_deref().unwrap_or("unknown");
            let source = format!("{source}: {joules} J a token above idle, boundary {boundary}");
            all.put_about(Input::active_watts, watts, Decimal::new(5, 2), Basis::Measured, source)?;
        }
        Ok(())
    }

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
        for key in &keys {
            let mut named = self.api(key, prompt)?;
            // What the list does not say the user can.
            if let Alternative::Api(price) = &mut named.alternative {
                let cached = stated(Input::api_cached_usd_per_mtok).map(|r| UsdPerMtok(r.likely));
                price.cached = price.cached.or(cached);
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
        if let (Some(key), Some(tok_s)) = (&args.rent, args.rent_tok_s) {
            let quote = self.prices.gpu(key, self.today)?;
            let price = quote.listing.gpu_hour.context("a rental without a price")?;
            found.push(Named {
                name: quote.listing.key(),
                alternative: Alternative::Gpus {
                    price,
                    hours_per_day: Decimal::from(24),
                    tok_s: TokensPerSecond(tok_s),
                    prompt_s_per_mtok: Decimal::ZERO,
                },
                source: format!(
                    "{price} {}, {}, {}",
                    quote.listing.provisioning,
                    quote.listing.as_of.marked(self.today),
                    quote.listing.source
                ),
                conflicts: quote
                    .others
                    .iter()
                    .filter_map(|o| Some((o.gpu_hour?, o)))
                    .filter(|(other, _)| *other != price)
                    .map(|(other, o)| {
                        format!("{other} {} {}", o.provisioning, o.as_of.marked(self.today))
                    })
                    .collect(),
                spread: spread(
                    Input::rent_usd_per_gpu_hour,
                    price.0,
                    quote.others.iter().filter_map(|o| o.gpu_hour.map(|p| p.0)),
                ),
            });
        }
        if let Some(rent) = prices.and_then(|p| p.rent_usd_per_gpu_hour) {
            found.push(Named {
                name: "rented GPUs".into(),
                alternative: Alternative::Gpus {
                    price: UsdPerHour(rent.likely),
                    hours_per_day: Decimal::from(24),
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

    /// The price of an API model.
    pub fn api(&self, key: &str, prompt_tokens: u64) -> anyhow::Result<Named> {
        let quote = self.prices.api(key, prompt_tokens, self.today)?;
        let listing = quote.listing;
        let (Some(input), Some(output)) = (listing.input, listing.output) else {
            bail!("no price of '{key}' for prompt or generated tokens is known");
        };
        // An older list may have the price that the newer one leaves out.
        let cached = listing.cached.or_else(|| {
            let is_same = |o: &&&crate::catalog::cloud_prices::Listing| {
                o.input == listing.input && o.output == listing.output
            };
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

fn certain(likely: Decimal) -> Estimate {
    Estimate { low: likely, likely, high: likely }
}

/// The mean of a distribution of lengths: costs are linear in them.
fn mean_length(length: &Length) -> Estimate {
    certain(Decimal::from_f64(length.mean()).unwrap_or_default().round_dp(1))
}

fn preset_workload(
    all: &mut Assumptions,
    preset: &Preset,
    users: Option<u32>,
) -> anyhow::Result<()> {
    let mut workload = preset.of(crate::cost::Inputs::blank());
    let mut source = format!("{}: {}", preset.name, preset.basis);
    if let Some(users) = users {
        let Some(of) = preset.users else {
            bail!("'users' has no meaning for the workload '{}'", preset.name);
        };
        workload.requests_per_day =
            workload.requests_per_day * Decimal::from(users) / Decimal::from(of);
        source = format!("{source}; for {users} instead of {of}");
    }
    let half = Decimal::new(5, 1);
    let requests = workload.requests_per_day;
    all.put_about(Input::requests_per_day, requests, half, Basis::Assumed, source.clone())?;
    for input in [
        Input::prompt_tokens,
        Input::new_tokens,
        Input::cached_share,
        Input::batch_share,
        Input::working_days_per_month,
        Input::active_hours_per_day,
        Input::peak_factor,
    ] {
        all.put_point(input, workload.get(input), Basis::Assumed, preset.name)?;
    }
    Ok(())
}

/// Price and power of a catalogued device.
pub fn device(all: &mut Assumptions, word: &str, today: Date) -> anyhow::Result<()> {
    let device = hardware::find(word, &[])?;
    let price = |price: &hardware::Price| -> anyhow::Result<(Decimal, String)> {
        let usd = price.usd.parse().ok().with_context(|| {
            format!("the catalogue's price of {} is '{}', no number", device.id, price.usd)
        })?;
        let when = AsOf(price.as_of.clone()).marked(today);
        Ok((usd, format!("{when}, {}", price.source)))
    };
    let list = device.list_price.as_ref().map(&price).transpose()?;
    let street = device.street_price.as_ref().map(&price).transpose()?;
    match (list, street) {
        (Some((list, listed)), Some((street, seen))) => {
            let source = format!("street price {seen}; list price {} {listed}", Usd(list));
            // The price in shops has moved by more than this within months.
            let most = list.max(street * Decimal::new(115, 2));
            let range = (list.min(street), street, most);
            all.put(Input::device_usd, range, Basis::Listed, source)?;
        }
        (Some((usd, source)), None) | (None, Some((usd, source))) => {
            let about = Decimal::new(15, 2);
            all.put_about(Input::device_usd, usd, about, Basis::Listed, source)?;
        }
        (None, None) => {}
    }
    let number = |value: f64| Decimal::from_f64(value).unwrap_or_default();
    let is_card = device.kind == Kind::Gpu;
    if is_card {
        all.put(
            Input::rest_usd,
            (Decimal::ZERO, Decimal::from(1200), Decimal::from(2000)),
            Basis::Assumed,
            "a plain PC around the card; 0 where one is at hand",
        )?;
    }
    let around = |watts: u32| if is_card { Decimal::from(watts) } else { Decimal::ZERO };
    if let Some(power) = device.power {
        let watts = number(power.0) + around(100);
        let source = if is_card {
            "board power of the data sheet, and 100 W assumed for the rest: an upper bound"
        } else {
            "system power of the data sheet: an upper bound"
        };
        let low = watts * Decimal::new(6, 1);
        all.put(Input::active_watts, (low, watts, watts), Basis::Listed, source)?;
        let (idle, source) = match device.idle_power {
            Some(idle) if is_card => (
                number(idle.0) + around(50),
                "idle power of the card, and 50 W assumed for the rest",
            ),
            Some(idle) => (number(idle.0), "idle power of the catalogue"),
            None => (watts * Decimal::new(15, 2), "15 % of the power at work assumed"),
        };
        all.put_about(Input::idle_watts, idle, Decimal::new(3, 1), Basis::Assumed, source)?;
    }
    Ok(())
}

/// A speed that the user states.
pub fn stated_speed(
    all: &mut Assumptions,
    tok_s: f64,
    prompt_tok_s: Option<f64>,
) -> anyhow::Result<()> {
    let number = |name: &str, value: f64| {
        let fine = value.is_finite() && value > 0.0;
        let value = fine.then(|| Decimal::from_f64(value)).flatten();
        value.with_context(|| format!("{name} {value:?} cannot be: write tokens a second"))
    };
    let fifth = Decimal::new(2, 1);
    all.put_about(
        Input::output_tok_s,
        number("--tok-s", tok_s)?,
        fifth,
        Basis::Stated,
        "--tok-s; a fifth to both sides assumed",
    )?;
    if let Some(prompt) = prompt_tok_s {
        let seconds = Decimal::from(1_000_000) / number("--prompt-tok-s", prompt)?;
        let source = "--prompt-tok-s";
        all.put_point(Input::prompt_s_per_mtok, seconds, Basis::Stated, source)?;
    }
    Ok(())
}

/// The flags --set and --range, in their order.
pub fn overrides(all: &mut Assumptions, args: &QuestionArgs) -> anyhow::Result<()> {
    for set in &args.set {
        let (input, value) = pair("--set", set, "VALUE")?;
        let value = decimal("--set", set, value)?;
        all.put_point(input, value, Basis::Stated, "--set")?;
    }
    for range in &args.range {
        let (input, value) = pair("--range", range, "LOW..HIGH")?;
        let (low, high) = value
            .split_once("..")
            .with_context(|| format!("--range {range}: write INPUT=LOW..HIGH"))?;
        all.put_range(input, decimal("--range", range, low)?, decimal("--range", range, high)?)?;
    }
    Ok(())
}

fn pair<'a>(flag: &str, text: &'a str, form: &str) -> anyhow::Result<(Input, &'a str)> {
    let (key, value) =
        text.split_once('=').with_context(|| format!("{flag} {text}: write INPUT={form}"))?;
    let input = key.parse().with_context(|| format!("{flag} {text}"))?;
    Ok((input, value.trim()))
}

fn decimal(flag: &str, text: &str, number: &str) -> anyhow::Result<Decimal> {
    let number = number.trim();
    number.parse().ok().with_context(|| {
        format!("{flag} {text}: '{number}' is no number; write it without its unit")
    })
}

/// The machine must be known: nothing that is missing is taken for zero.
pub fn check_machine(all: &Assumptions) -> anyhow::Result<()> {
    for input in [
        Input::requests_per_day,
        Input::prompt_tokens,
        Input::new_tokens,
        Input::output_tok_s,
        Input::device_usd,
        Input::active_watts,
        Input::idle_watts,
        Input::electricity_usd_per_kwh,
    ] {
        ensure!(
            all.get(input).is_some(),
            "'{input}' ({}) is not known: set it with --set {input}=…, in the scenario, or name a \
             --device whose row in the catalogue has it",
            input.meaning().to_lowercase()
        );
    }
    all.inputs().check()
}

/// The newest results of a scenario, from whatever machine.
fn newest_results(root: &Path, scenario: &str) -> Option<PathBuf> {
    let ending = format!("-{scenario}");
    let mut found: Vec<_> = fs::read_dir(root)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let counted = name.rsplit_once('-').filter(|(_, n)| n.parse::<u32>().is_ok());
            name.ends_with(&ending) || counted.is_some_and(|(stem, _)| stem.ends_with(&ending))
        })
        .filter_map(|path| Some((path.join("records.csv").metadata().ok()?.modified().ok()?, path)))
        .collect();
    found.sort();
    found.pop().map(|(_, path)| path)
}
