//! Puts the inputs of a decision together: ours, the scenario's, the catalogue's, the results', the flags'.

use anyhow::{bail, ensure};
use jiff::civil::Date;
use rust_decimal::Decimal;
use rust_decimal::prelude::FromPrimitive;

use crate::catalog::cloud_prices::PriceList;
use crate::catalog::electricity::{self, Carbon, ExchangeRate};
use crate::catalog::hardware::Device;
use crate::cost::{Assumptions, Basis, Input, Preset};
use crate::fit::machine::Machine;
use crate::scenario::{Estimate, Length, Scenario, Workload};

use super::QuestionArgs;
use super::plan::Plan;

/// What all machines of a decision have in common.
pub struct Context {
    pub today: Date,
    pub prices: PriceList,
    pub scenario: Option<Scenario>,
    pub carbon: Vec<Carbon>,
    pub workload: String,
    /// The user's own devices.
    pub own: Vec<Device>,
    /// What `bench capacity` found.
    pub plan: Option<Plan>,
}

impl Context {
    pub fn of(args: &QuestionArgs) -> anyhow::Result<Self> {
        let scenario = match &args.scenario {
            Some(path) => Some(Scenario::read(path, &crate::cmd::known())?),
            None => None,
        };
        let workload = Self::stated_workload(args, scenario.as_ref());
        let preset = args.workload.clone().or_else(|| workload.and_then(|w| w.preset.clone()));
        let place = Self::place(args, scenario.as_ref());
        Ok(Self {
            today: jiff::Zoned::now().date(),
            prices: crate::cmd::prices::list()?,
            workload: preset.unwrap_or_else(|| "the stated workload".to_owned()),
            carbon: electricity::carbon(&place),
            own: crate::cmd::own::catalog(args.catalog.as_deref())?.devices,
            scenario,
            plan: None,
        })
    }

    /// The scenario's own workload; a flag that names another one replaces it as a whole.
    pub fn stated_workload<'a>(
        args: &QuestionArgs,
        scenario: Option<&'a Scenario>,
    ) -> Option<&'a Workload> {
        scenario.and_then(|s| s.workload.as_ref()).filter(|_| args.workload.is_none())
    }

    fn place(args: &QuestionArgs, scenario: Option<&Scenario>) -> String {
        let stated = scenario.and_then(|s| s.prices.as_ref()).and_then(|p| p.tariff.clone());
        args.tariff.clone().or(stated).unwrap_or_else(|| "US".to_owned())
    }

    /// Everything but the machine: our assumptions, the workload, the tariff.
    pub fn common(&self, args: &QuestionArgs) -> anyhow::Result<Assumptions> {
        let mut all = Assumptions::default();
        let workload = Self::stated_workload(args, self.scenario.as_ref());
        let preset = args.workload.as_ref().or_else(|| workload.and_then(|w| w.preset.as_ref()));
        if let Some(name) = preset {
            preset_workload(&mut all, Preset::find(name)?, workload.and_then(|w| w.users))?;
        } else {
            usual_day(&mut all)?;
        }
        if let Some(workload) = workload {
            self.scenario_workload(&mut all, workload)?;
        }
        if let Some(plan) = &self.plan {
            plan.put(&mut all)?;
        }
        ensure!(
            all.get(Input::requests_per_day).is_some()
                || args.set.iter().any(|set| set.starts_with("requests")),
            "no workload: name one with --workload (chat-team, coding-agents, document-batch, \
             always-on-agent), give a scenario with [workload], or --set requests_per_day=…, \
             prompt_tokens=… and new_tokens=…"
        );

        let rate = args.exchange.as_deref().map(ExchangeRate::parse).transpose()?;
        let of_scenario = self.scenario.as_ref().and_then(|s| s.prices.as_ref());
        let is_tariff_stated = args.set.iter().any(|set| set.starts_with("electricity"))
            || (args.tariff.is_none()
                && of_scenario.is_some_and(|p| p.electricity_usd_per_kwh.is_some()));
        if !is_tariff_stated {
            let place = Self::place(args, self.scenario.as_ref());
            let is_assumed = place == "US" && args.tariff.is_none();
            put_tariff(&mut all, &place, &args.sector, rate.as_ref(), is_assumed)?;
        }
        Ok(all)
    }

    fn scenario_workload(&self, all: &mut Assumptions, workload: &Workload) -> anyhow::Result<()> {
        let source = self.scenario_path();
        let mut put = |input, estimate: Option<Estimate>| match estimate {
            Some(Estimate { low, likely, high }) => {
                all.put(input, (low, likely, high), Basis::Stated, source.clone())
            }
            None => Ok(()),
        };
        put(Input::peak_factor, workload.peak_factor)?;
        put(Input::growth_per_year, workload.growth_per_year)?;
        put(Input::new_tokens, workload.new_tokens.as_ref().map(mean_length))?;
        put(Input::prompt_tokens, workload.prompt_tokens.as_ref().map(mean_length))?;
        put(Input::requests_per_day, workload.requests_per_day)?;
        put(Input::working_days_per_month, workload.working_days_per_month.map(certain))?;
        let share = workload.cached_share.and_then(|share| Decimal::from_f64(share.0));
        put(Input::cached_share, share.map(certain))?;
        let stated = workload.prompt_tokens.is_some();
        if let Some(turns) = workload.turns.filter(|&turns| turns > 1 && stated) {
            with_turns(all, turns, &source, share.is_none())?;
        }
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

    pub fn scenario_path(&self) -> String {
        self.scenario.as_ref().map_or(String::new(), |s| s.path.display().to_string())
    }

    /// The machine of the flag, else the scenario's.
    pub fn machine(&self, flag: Option<&str>) -> anyhow::Result<Option<Machine>> {
        match (flag, &self.scenario) {
            (Some(word), _) => Ok(Some(Machine::parse(word, &self.own)?)),
            (None, Some(scenario)) => machine_of(scenario, &self.own),
            (None, None) => Ok(None),
        }
    }

    /// What the scenario says about owning `machine`; a tariff of the flags comes before its own.
    pub fn scenario_prices(
        &self,
        all: &mut Assumptions,
        machine: Option<&Machine>,
        args: &QuestionArgs,
    ) -> anyhow::Result<()> {
        let Some(scenario) = &self.scenario else { return Ok(()) };
        let its = machine_of(scenario, &self.own)?;
        let is_its = match (machine, its) {
            (Some(machine), Some(its)) => machine.devices == its.devices,
            _ => true,
        };
        put_scenario_prices(all, scenario, is_its, args.tariff.is_none())
    }
}

/// The machine that the scenario is about, where it names one.
pub fn machine_of(scenario: &Scenario, own: &[Device]) -> anyhow::Result<Option<Machine>> {
    machine_word(scenario).map(|word| Machine::parse(&word, own)).transpose()
}

/// The same as a flag would name it.
pub fn machine_word(scenario: &Scenario) -> Option<String> {
    let device = scenario.host.device.as_ref()?;
    Some(match scenario.host.gpus {
        Some(count) if count > 1 => format!("{count}x {device}"),
        _ => device.clone(),
    })
}

/// The price of electricity in a place.
pub fn put_tariff(
    all: &mut Assumptions,
    place: &str,
    sector: &str,
    rate: Option<&ExchangeRate>,
    is_assumed: bool,
) -> anyhow::Result<()> {
    let chosen = electricity::find(place, sector, rate)?;
    let tariff = chosen.tariff;
    let assumed = if is_assumed { "; country assumed: name yours with --tariff" } else { "" };
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
    all.put(Input::electricity_usd_per_kwh, (low, point, high), Basis::Listed, source)
}

/// What a scenario says about owning: price and power only where the machine `is_its`, and what
/// electricity costs where nothing else `has_its_tariff`.
pub fn put_scenario_prices(
    all: &mut Assumptions,
    scenario: &Scenario,
    is_its: bool,
    has_its_tariff: bool,
) -> anyhow::Result<()> {
    let Some(prices) = &scenario.prices else { return Ok(()) };
    let source = scenario.path.display().to_string();
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
        let holds = match input {
            Input::device_usd | Input::rest_usd | Input::idle_watts | Input::active_watts => is_its,
            Input::electricity_usd_per_kwh => has_its_tariff,
            _ => true,
        };
        if let Some(Estimate { low, likely, high }) = estimate.filter(|_| holds) {
            all.put(input, (low, likely, high), Basis::Stated, source.clone())?;
        }
    }
    Ok(())
}

fn certain(likely: Decimal) -> Estimate {
    Estimate { low: likely, likely, high: likely }
}

/// The mean of a distribution of lengths: costs are linear in them.
fn mean_length(length: &Length) -> Estimate {
    certain(Decimal::from_f64(length.mean()).unwrap_or_default().round_dp(1))
}

/// Each turn has all turns before it in its prompt: of the mean request, that is half of what the
/// other turns add. A cache may answer that half, where nothing else is said of one.
fn with_turns(
    all: &mut Assumptions,
    turns: u32,
    source: &str,
    is_share_assumed: bool,
) -> anyhow::Result<()> {
    let inputs = all.inputs();
    let more = Decimal::from(turns - 1) / Decimal::TWO;
    let repeated = more * (inputs.prompt_tokens + inputs.new_tokens);
    let prompt = inputs.prompt_tokens + repeated;
    let mean = format!("{source}: the mean of {turns} turns, each with all before in its prompt");
    all.put_point(Input::prompt_tokens, prompt, Basis::Stated, mean)?;
    if !is_share_assumed || prompt.is_zero() {
        return Ok(());
    }
    let share = (repeated / prompt).round_dp(4);
    let why = format!("what {turns} turns repeat, all from a cache; 0 where nothing is cached");
    all.put(Input::cached_share, (Decimal::ZERO, share, share), Basis::Assumed, why)
}

/// The day of requests of which nobody says when they come: that of an office, and nothing repeats.
fn usual_day(all: &mut Assumptions) -> anyhow::Result<()> {
    let office = Preset::find("chat-team")?.of(crate::cost::Inputs::blank());
    let whole = |low: i64, high: i64| (Decimal::from(low), Decimal::from(high));
    for (input, (low, high), why) in [
        (Input::working_days_per_month, whole(20, 23), "an office; 30.4 around the calendar"),
        (Input::active_hours_per_day, whole(8, 12), "an office; 24 around the clock"),
        (Input::peak_factor, whole(2, 5), "an office; 1 where requests come evenly"),
    ] {
        all.put(input, (low, office.get(input), high), Basis::Assumed, why)?;
    }
    for (input, why) in [
        (Input::cached_share, "no two prompts begin alike"),
        (Input::batch_share, "no request can wait"),
    ] {
        all.put_point(input, Decimal::ZERO, Basis::Assumed, why)?;
    }
    Ok(())
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
