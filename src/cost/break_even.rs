//! The answer to "own or use the cloud": cost per token and month, break-even, payback, NPV, IRR, ROI.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::Serialize;

use super::inputs::{Inputs, Numbers};
use super::number::Number;
use super::ownership::{Life, Year, exact, live, unrounded_devices};
use crate::units::{KilowattHours, Months, Share, Usd, UsdPerMtok};

/// What owning costs in a mean month of the machine's life, each term apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct MonthlyCost {
    /// Purchase less resale, straight-line over the life.
    pub depreciation: Usd,
    /// Interest on the loan.
    pub loan_interest: Usd,
    /// What the money that is tied up would have earned elsewhere.
    pub own_capital: Usd,
    /// Electricity from the meter.
    pub electricity: Usd,
    /// Rack or colocation.
    pub rack: Usd,
    /// Maintenance.
    pub maintenance: Usd,
    /// Work of people.
    pub staff: Usd,
}

impl MonthlyCost {
    /// All terms together.
    pub fn total(&self) -> Usd {
        self.terms().into_iter().map(|(_, amount)| amount).sum()
    }

    /// The terms with their names.
    pub fn terms(&self) -> [(&'static str, Usd); 7] {
        [
            ("depreciation", self.depreciation),
            ("loan interest", self.loan_interest),
            ("cost of own capital", self.own_capital),
            ("electricity", self.electricity),
            ("rack", self.rack),
            ("maintenance", self.maintenance),
            ("staff", self.staff),
        ]
    }
}

/// When owning has cost less than the cloud, or why it never does.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakEven {
    /// After so many months, and from then on.
    After(Months),
    /// Not in its life; the reason is a sentence.
    Never(String),
}

impl BreakEven {
    /// The months, where there are any.
    pub fn months(&self) -> Option<Months> {
        if let Self::After(months) = self { Some(*months) } else { None }
    }
}

/// How many tokens a day make owning as cheap as the cloud.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakEvenVolume {
    /// So many tokens on a working day, in and out, on so many devices.
    From {
        /// Tokens in and out.
        tokens_per_day: Decimal,
        /// Devices that serve them.
        devices: u32,
    },
    /// At no volume; the reason is a sentence.
    Never(String),
    /// A bill does not say what another volume would cost.
    OfABill,
}

/// Prices for a million tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PerMtok {
    /// Prompt tokens; none where the time for prompts is not known apart.
    pub input: Option<UsdPerMtok>,
    /// Generated tokens; none as above.
    pub output: Option<UsdPerMtok>,
    /// All tokens, at the workload's own ratio; none where there are no tokens.
    pub blended: Option<UsdPerMtok>,
}

/// Owning and one alternative over the machine's life.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// Devices that the workload needs, with its peak and the spare capacity.
    pub devices: u32,
    /// GPUs that are rented, where GPUs are rented.
    pub rented: u32,
    /// Months of use.
    pub months: u32,
    /// Tokens in and out over the life.
    pub tokens: Decimal,
    /// Mean share of the time switched on in which the devices compute.
    pub utilisation: Share,
    /// Purchase of all devices with the rest of their machines.
    pub purchase: Usd,
    /// A mean month of owning.
    pub owning: MonthlyCost,
    /// A mean month of the alternative.
    pub cloud_per_month: Usd,
    /// Owning, for a million tokens.
    pub owning_per_mtok: PerMtok,
    /// The alternative, for a million tokens.
    pub cloud_per_mtok: PerMtok,
    /// When the cash that owning takes falls below the cloud's, and stays there.
    pub break_even: BreakEven,
    /// The same with all cash discounted at the cost of capital.
    pub discounted_payback: BreakEven,
    /// The volume from which owning costs no more over its life.
    pub break_even_volume: BreakEvenVolume,
    /// Net present value of owning instead.
    pub npv: Usd,
    /// Internal rate of return, a year; none where no rate makes the value zero.
    pub irr: Option<Share>,
    /// Gain over the life as a share of the purchase; none where nothing is bought.
    pub roi: Option<Share>,
    /// Energy in a mean month.
    pub kwh_per_month: KilowattHours,
}

/// Months and money, for the curves of a chart: what has been paid up to each month.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cumulative {
    /// Owning: purchase, running, loan, and the resale in the last month.
    pub owning: Vec<Usd>,
    /// The cloud.
    pub cloud: Vec<Usd>,
}

/// Compares owning with the alternative of `inputs`.
///
/// # Errors
/// An input that is out of its bounds or absurd together with others.
pub fn compare(inputs: &Inputs) -> anyhow::Result<Comparison> {
    inputs.check()?;
    // The decimal arithmetic stops at 28 digits; nobody's purchase comes near.
    let rough: Life<f64> = live(&inputs.numbers(), None);
    let largest = rough.sum(|y| y.tokens + y.cloud + rough.running(y)) + rough.purchase;
    anyhow::ensure!(
        largest.is_finite() && largest < 1e21 && rough.devices < u32::MAX,
        "the workload is absurd: {} requests a day growing by {} a year for {} years",
        inputs.requests_per_day.normalize(),
        inputs.growth_per_year.normalize(),
        inputs.life_years.normalize()
    );

    let life = exact(inputs);
    let months = Decimal::from(life.months);
    let mean = |of: &dyn Fn(&Year<Decimal>) -> Decimal| life.sum(of) / months;
    let tokens = life.sum(|y| y.tokens);
    let cloud = life.sum(|y| y.cloud);

    let depreciation = (life.purchase - life.resale) / months;
    let paid = life.loan_payment * Decimal::from(life.months.min(life.loan_months));
    let loan_interest = (paid + life.loan_balance - life.loan) / months;
    let owning = MonthlyCost {
        depreciation: Usd(depreciation),
        loan_interest: Usd(loan_interest),
        own_capital: Usd(life.capital_per_month() - depreciation - loan_interest),
        electricity: Usd(mean(&|y| y.electricity)),
        rack: Usd(life.rack),
        maintenance: Usd(life.maintenance),
        staff: Usd(life.staff),
    };

    let gain = life.sum(|y| y.cloud - life.running(y)) + life.resale
        - life.purchase
        - loan_interest * months;
    Ok(Comparison {
        devices: life.devices,
        rented: life.rented,
        months: life.months,
        tokens,
        utilisation: Share((life.sum(|y| y.busy_hours) / (life.powered_hours * months)).float()),
        purchase: Usd(life.purchase),
        cloud_per_month: Usd(cloud / months),
        owning_per_mtok: owning_per_mtok(inputs, owning.total().0 * months, tokens),
        cloud_per_mtok: cloud_per_mtok(inputs, cloud, tokens, life.rented),
        break_even: break_even(&life, Decimal::ONE, "breaks even"),
        discounted_payback: break_even(
            &life,
            Decimal::ONE / (Decimal::ONE + life.rate),
            "pays back at its cost of capital",
        ),
        break_even_volume: break_even_volume(inputs),
        npv: Usd(life.npv()),
        irr: irr(&life),
        roi: (!life.purchase.is_zero()).then(|| Share((gain / life.purchase).float())),
        kwh_per_month: KilowattHours(mean(&|y| y.kwh).float()),
        owning,
    })
}

/// What has been paid up to each month, on both sides.
pub fn cumulative(inputs: &Inputs) -> Cumulative {
    let life = exact(inputs);
    let (mut owned, mut rented) = (life.purchase - life.loan, Decimal::ZERO);
    let (mut owning, mut cloud) = (vec![Usd(owned)], vec![Usd(rented)]);
    let mut bills = life.years().iter().flat_map(|y| vec![y.cloud; y.months as usize]);
    life.cash(|month, cash| {
        if month > 0 {
            let bill = bills.next().unwrap_or_default();
            rented += bill;
            owned += bill - cash;
            owning.push(Usd(owned));
            cloud.push(Usd(rented));
        }
    });
    Cumulative { owning, cloud }
}

fn per_mtok(usd: Decimal, tokens: Decimal) -> Option<UsdPerMtok> {
    (!tokens.is_zero()).then(|| UsdPerMtok(usd / tokens * Decimal::from(1_000_000)))
}

/// The cost of owning is shared among prompt and generated tokens by the time that they take.
fn owning_per_mtok(inputs: &Inputs, usd: Decimal, tokens: Decimal) -> PerMtok {
    let x: Numbers<Decimal> = inputs.numbers();
    let blended = per_mtok(usd, tokens);
    let per_request = x.prompt_tokens + x.new_tokens;
    if x.prompt_s_per_mtok.is_zero() || per_request.is_zero() {
        return PerMtok { input: None, output: None, blended };
    }
    let prompt_s = x.prompt_tokens * (Decimal::ONE - x.cached_share) * x.prompt_s_per_mtok
        / Decimal::from(1_000_000);
    let output_s = x.new_tokens / x.output_tok_s;
    let seconds = prompt_s + output_s;
    if seconds.is_zero() {
        return PerMtok { input: None, output: None, blended };
    }
    PerMtok {
        input: per_mtok(usd * prompt_s / seconds, tokens * x.prompt_tokens / per_request),
        output: per_mtok(usd * output_s / seconds, tokens * x.new_tokens / per_request),
        blended,
    }
}

fn cloud_per_mtok(inputs: &Inputs, usd: Decimal, tokens: Decimal, rented: u32) -> PerMtok {
    let x: Numbers<Decimal> = inputs.numbers();
    let blended = per_mtok(usd, tokens);
    // A bill for the month or for GPUs does not say which tokens it is for.
    if rented > 0 || !x.api_usd_per_month.is_zero() {
        return PerMtok { input: None, output: None, blended };
    }
    let batch = Decimal::ONE - x.batch_share * x.api_batch_discount;
    let input = x.api_input_usd_per_mtok * (Decimal::ONE - x.cached_share)
        + x.api_cached_usd_per_mtok * x.cached_share;
    PerMtok {
        input: Some(UsdPerMtok(input * batch)),
        output: Some(UsdPerMtok(x.api_output_usd_per_mtok * batch)),
        blended,
    }
}

/// The month from which the cash saved stays above zero; `step` discounts each month.
fn break_even(life: &Life<Decimal>, step: Decimal, verb: &str) -> BreakEven {
    let (mut saved, mut discount) = (Decimal::ZERO, Decimal::ONE);
    let mut since: Option<Decimal> = None;
    life.cash(|month, cash| {
        if month > 0 {
            discount *= step;
        }
        let before = saved;
        saved += cash * discount;
        if saved < Decimal::ZERO {
            since = None;
        } else if since.is_none() {
            // The resale comes at the end of its month; all other cash in the course of it.
            let at_end =
                if month == life.months { life.resale - life.loan_balance } else { 0.into() };
            let flowing = saved - at_end * discount;
            since = Some(match month {
                0 => Decimal::ZERO,
                m if flowing >= Decimal::ZERO && flowing > before => {
                    Decimal::from(m - 1) - before / (flowing - before)
                }
                m => Decimal::from(m),
            });
        }
    });
    match since {
        Some(months) => BreakEven::After(Months(months.to_f64().unwrap_or(f64::NAN))),
        None => {
            let months = Decimal::from(life.months);
            let cloud = Usd(life.sum(|y| y.cloud) / months);
            let running = Usd(life.sum(|y| life.running(y)) / months);
            BreakEven::Never(if running >= cloud {
                format!("never {verb}: running it costs {running} a month, the alternative {cloud}")
            } else {
                format!(
                    "never {verb} in its life of {} months: it saves {} a month and is {} short at \
                     the end",
                    life.months,
                    cloud - running,
                    Usd(-saved)
                )
            })
        }
    }
}

/// The smallest volume at which owning costs no more over its life (at the cost of capital).
///
/// For a given number of devices both costs are straight lines in the volume, so that two points
/// make each line, and the number of devices is found from what one more costs and earns.
fn break_even_volume(inputs: &Inputs) -> BreakEvenVolume {
    let x: Numbers<Decimal> = inputs.numbers();
    if !x.api_usd_per_month.is_zero() {
        return BreakEvenVolume::OfABill;
    }
    let tokens_per_day = x.requests_per_day * (x.prompt_tokens + x.new_tokens);
    let need = unrounded_devices(&x);
    if tokens_per_day.is_zero() || need.is_zero() {
        return BreakEvenVolume::Never("there are no requests to scale".to_owned());
    }
    if x.rent_usd_per_gpu_hour > Decimal::ZERO {
        return rented_volume(&inputs.numbers(), tokens_per_day, need);
    }
    // Cost of owning less cost of the cloud, at `scale` times the workload on `devices`.
    let lag = |scale: u32, devices: u32| {
        let mut scaled = x;
        scaled.requests_per_day *= Decimal::from(scale);
        -live(&scaled, Some(devices)).npv()
    };
    let fixed = lag(0, 0);
    let idle = lag(0, 1);
    let for_device = idle - fixed;
    let earned = idle - lag(1, 1);
    if earned <= Decimal::ZERO {
        return BreakEvenVolume::Never(
            "the alternative charges no more for tokens than the electricity to make them costs"
                .to_owned(),
        );
    }
    let full = earned / need;
    if for_device >= full {
        return BreakEvenVolume::Never(format!(
            "a device used to its full capacity saves {} in its life and costs {}",
            Usd(full),
            Usd(for_device)
        ));
    }
    let devices = (fixed / (full - for_device)).ceil().max(Decimal::ONE);
    let scale = ((fixed + devices * for_device) / earned).max(Decimal::ZERO);
    BreakEvenVolume::From {
        tokens_per_day: (tokens_per_day * scale).ceil(),
        devices: devices.count(),
    }
}

/// Rented GPUs come in whole pieces too, so that neither cost is a straight line: walk up from the
/// smallest volume, in 32 steps for each device.
fn rented_volume(x: &Numbers<f64>, tokens_per_day: Decimal, need: Decimal) -> BreakEvenVolume {
    const DEVICES: u32 = 256;
    for devices in 1..=DEVICES {
        for step in 1..=32 {
            let scale = (f64::from(devices - 1) + f64::from(step) / 32.0) / need.float();
            let mut scaled = *x;
            scaled.requests_per_day *= scale;
            if live(&scaled, Some(devices)).npv() >= 0.0 {
                return match Decimal::try_from(scale) {
                    Ok(scale) => BreakEvenVolume::From {
                        tokens_per_day: (tokens_per_day * scale).ceil(),
                        devices,
                    },
                    Err(_) => BreakEvenVolume::Never("the volume is beyond all measure".into()),
                };
            }
        }
    }
    BreakEvenVolume::Never(format!("owning costs more than renting up to {DEVICES} devices"))
}

/// The yearly rate at which the net present value is zero, compounded from its monthly rate.
fn irr(life: &Life<Decimal>) -> Option<Share> {
    let mut flows = Vec::with_capacity(life.months as usize + 1);
    life.cash(|_, cash| flows.push(cash.float()));
    let value = |rate: f64| flows.iter().rev().fold(0.0, |later, cash| later / (1.0 + rate) + cash);
    // Between losing half of it each month and a hundredfold each month.
    let (mut low, mut high) = (-0.5, 100.0);
    if !(flows.first().is_some_and(|&cash| cash < 0.0) && value(low) > 0.0 && value(high) < 0.0) {
        return None;
    }
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if value(middle) > 0.0 { low = middle } else { high = middle }
    }
    let yearly = (1.0 + low).powi(12) - 1.0;
    yearly.is_finite().then_some(Share(yearly))
}
