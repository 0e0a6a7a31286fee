//! What a workload costs month by month, on machines that are owned and in the cloud.

use rust_decimal::Decimal;

use super::inputs::{Inputs, Numbers};
use super::number::Number;

/// Years that the longest life has.
const MAX_YEARS: usize = 20;

/// A month of one year of use: all months of a year are alike.
#[derive(Clone, Copy, Debug)]
pub(super) struct Year<N> {
    /// Months of use in this year; 12 but in the last one.
    pub months: u32,
    /// Tokens in and out, in a month.
    pub tokens: N,
    /// Hours that devices compute, summed over them.
    pub busy_hours: N,
    /// Energy from the meter.
    pub kwh: N,
    /// Its price.
    pub electricity: N,
    /// The bill of the cloud.
    pub cloud: N,
}

/// The whole life of a purchase, and of its alternative.
#[derive(Clone, Copy, Debug)]
pub(super) struct Life<N> {
    pub devices: u32,
    /// GPUs that are rented in the year that needs most.
    pub rented: u32,
    /// Months of use.
    pub months: u32,
    /// Hours a month that all devices together are switched on.
    pub powered_hours: N,
    pub purchase: N,
    pub resale: N,
    pub loan: N,
    pub loan_payment: N,
    pub loan_months: u32,
    /// What remains to be paid back when the machine is sold.
    pub loan_balance: N,
    pub rack: N,
    pub maintenance: N,
    pub staff: N,
    /// Monthly rate of the cost of capital.
    pub rate: N,
    years: [Year<N>; MAX_YEARS],
}

impl<N: Number> Life<N> {
    /// The years of use, the first one first.
    pub fn years(&self) -> &[Year<N>] {
        &self.years[..self.months.div_ceil(12).min(MAX_YEARS as u32) as usize]
    }

    /// What running the machine costs in a month of `year`.
    pub fn running(&self, year: &Year<N>) -> N {
        year.electricity + self.rack + self.maintenance + self.staff
    }

    /// The sum over all months of what `of` says about a month.
    pub fn sum(&self, of: impl Fn(&Year<N>) -> N) -> N {
        let mut total = N::whole(0);
        for year in self.years() {
            total += of(year) * N::whole(year.months);
        }
        total
    }
}

/// Seconds that one device is busy with one request.
fn seconds_per_request<N: Number>(x: &Numbers<N>, prompt_s_per_mtok: N, tok_s: N) -> N {
    let uncached = x.prompt_tokens * (N::whole(1) - x.cached_share);
    uncached * prompt_s_per_mtok / N::whole(1_000_000) + x.new_tokens / tok_s
}

/// Devices that `requests` a day fill, before they are rounded up to whole ones: those of the
/// busiest hour, or those that get through all work of the day, of which the patient share may be
/// done off-peak.
fn load<N: Number>(x: &Numbers<N>, requests: N, seconds: N, hours: N) -> N {
    let one = N::whole(1);
    let busy_hours = requests * seconds / N::whole(3600);
    let urgent = busy_hours * (one - x.batch_share) * x.peak_factor / x.active_hours_per_day;
    let all_day = busy_hours / hours;
    (if urgent > all_day { urgent } else { all_day }) / (one - x.spare_share)
}

/// Devices that `requests` a day fill on the own side, switched on for `hours` a day: as many as a
/// plan says, else by the load.
fn own_load<N: Number>(x: &Numbers<N>, requests: N, hours: N) -> N {
    if x.requests_per_device > N::whole(0) {
        return requests / x.requests_per_device;
    }
    let seconds = seconds_per_request(x, x.prompt_s_per_mtok, x.output_tok_s);
    load(x, requests, seconds, hours)
}

/// GPUs that are rented for `requests` a day; none for no request.
fn rented<N: Number>(x: &Numbers<N>, requests: N) -> u32 {
    if x.rent_usd_per_gpu_hour <= N::whole(0) || requests <= N::whole(0) {
        return 0;
    }
    let filled = if x.rented_tok_s > N::whole(0) {
        let seconds = seconds_per_request(x, x.rented_prompt_s_per_mtok, x.rented_tok_s);
        load(x, requests, seconds, x.rent_hours_per_day)
    } else {
        own_load(x, requests, x.rent_hours_per_day)
    };
    filled.count().max(1)
}

/// Requests on a working day of the year that has the most; the machine is bought once, for it.
fn most_requests<N: Number>(x: &Numbers<N>) -> N {
    let mut requests = x.requests_per_day;
    if x.growth_per_year > N::whole(0) {
        for _ in 1..life_months(x).div_ceil(12) {
            requests = requests * (N::whole(1) + x.growth_per_year);
        }
    }
    requests
}

fn life_months<N: Number>(x: &Numbers<N>) -> u32 {
    (x.life_years * N::whole(12)).nearest().clamp(1, 12 * MAX_YEARS as u32)
}

/// Devices that the workload fills in its busiest year, before they are rounded up.
pub(super) fn unrounded_devices<N: Number>(x: &Numbers<N>) -> N {
    own_load(x, most_requests(x), x.powered_hours_per_day)
}

/// Works the life of the purchase out. `devices` overrides how many are bought.
pub(super) fn live<N: Number>(x: &Numbers<N>, devices: Option<u32>) -> Life<N> {
    let (zero, one, twelve) = (N::whole(0), N::whole(1), N::whole(12));
    // Days in a mean month of the Gregorian calendar: 365.25 / 12 (leap centuries apart).
    let days = N::of(Decimal::new(304_375, 4));

    let months = life_months(x);
    let year_count = months.div_ceil(12);
    let seconds = seconds_per_request(x, x.prompt_s_per_mtok, x.output_tok_s);
    // A number of devices that is forced may be too small: what they would do if they could.
    let is_forced = devices.is_some();
    let devices = devices.unwrap_or_else(|| unrounded_devices(x).count().max(1));
    let count = N::whole(devices);

    let purchase = count * (x.device_usd + x.rest_usd);
    let loan = purchase * x.loan_share;
    let loan_months = (x.loan_years * twelve).nearest().max(1);
    let loan_rate = x.loan_rate_per_year / twelve;
    let loan_payment = annuity(loan, loan_rate, loan_months);
    let mut loan_balance = loan;
    for _ in 0..months.min(loan_months) {
        loan_balance = loan_balance + loan_balance * loan_rate - loan_payment;
    }
    if months >= loan_months {
        loan_balance = zero;
    }

    let million = N::whole(1_000_000);
    let batch_price = one - x.batch_share * x.api_batch_discount;
    let api_per_request = (x.prompt_tokens * (one - x.cached_share) * x.api_input_usd_per_mtok
        + x.prompt_tokens * x.cached_share * x.api_cached_usd_per_mtok
        + x.new_tokens * x.api_output_usd_per_mtok)
        * batch_price
        / million;
    let powered_hours = count * x.powered_hours_per_day * days;

    let blank = Year {
        months: 0,
        tokens: zero,
        busy_hours: zero,
        kwh: zero,
        electricity: zero,
        cloud: zero,
    };
    let mut years = [blank; MAX_YEARS];
    let (mut growth, mut api_level, mut most_rented) = (one, one, 0);
    for (index, year) in years.iter_mut().take(year_count as usize).enumerate() {
        if index > 0 {
            growth = growth * (one + x.growth_per_year);
            api_level = api_level * (one + x.api_change_per_year);
        }
        year.months = (months - 12 * index as u32).min(12);
        let a_day = x.requests_per_day * growth;
        let requests = a_day * x.working_days_per_month;
        year.tokens = requests * (x.prompt_tokens + x.new_tokens);
        let busy = requests * seconds / N::whole(3600) * x.busy_factor;
        year.busy_hours = if is_forced || busy < powered_hours { busy } else { powered_hours };
        let watt_hours =
            year.busy_hours * (x.active_watts - x.idle_watts) + powered_hours * x.idle_watts;
        year.kwh = watt_hours * x.pue / N::whole(1000);
        year.electricity = year.kwh * x.electricity_usd_per_kwh;
        let gpus = rented(x, a_day);
        most_rented = gpus.max(most_rented);
        let gpu_hours = N::whole(gpus) * x.rent_hours_per_day * days;
        // What is paid today is for the requests of today.
        year.cloud = (requests * api_per_request + x.api_usd_per_month * growth) * api_level
            + gpu_hours * x.rent_usd_per_gpu_hour;
    }

    Life {
        devices,
        rented: most_rented,
        months,
        powered_hours,
        purchase,
        resale: purchase * x.resale_share,
        loan,
        loan_payment,
        loan_months,
        loan_balance,
        rack: count * x.rack_usd_per_month,
        maintenance: purchase * x.maintenance_share_per_year / twelve,
        staff: x.staff_hours_per_month * x.staff_usd_per_hour,
        rate: x.capital_cost_per_year / twelve,
        years,
    }
}

/// The equal payment at the end of each of `months` months that pays `amount` back at the monthly
/// `rate`.
fn annuity<N: Number>(amount: N, rate: N, months: u32) -> N {
    if rate <= N::whole(0) {
        return amount / N::whole(months);
    }
    let mut discount = N::whole(1);
    for _ in 0..months {
        discount = discount / (N::whole(1) + rate);
    }
    amount * rate / (N::whole(1) - discount)
}

impl<N: Number> Life<N> {
    /// The cash of the owner compared with the cloud's customer: month 0 first, the last month
    /// with the resale and without what the loan still asks.
    pub fn cash(&self, mut each: impl FnMut(u32, N)) {
        each(0, self.loan - self.purchase);
        let mut month = 0;
        for year in self.years() {
            let saving = year.cloud - self.running(year);
            for _ in 0..year.months {
                month += 1;
                let mut cash = saving;
                if month <= self.loan_months {
                    cash = cash - self.loan_payment;
                }
                if month == self.months {
                    cash = cash + self.resale - self.loan_balance;
                }
                each(month, cash);
            }
        }
    }

    /// Net present value of owning instead of using the cloud.
    pub fn npv(&self) -> N {
        let (mut value, mut discount) = (N::whole(0), N::whole(1));
        let step = N::whole(1) / (N::whole(1) + self.rate);
        self.cash(|month, cash| {
            if month > 0 {
                discount = discount * step;
            }
            value += cash * discount;
        });
        value
    }

    /// Cost of the purchase and its financing over the life, at the cost of capital: what must be
    /// set aside each month, in equal amounts, for all payments less the resale.
    pub fn capital_per_month(&self) -> N {
        let one = N::whole(1);
        let step = one / (one + self.rate);
        let mut discount = one;
        let mut value = self.purchase - self.loan;
        for month in 1..=self.months {
            discount = discount * step;
            if month <= self.loan_months {
                value += self.loan_payment * discount;
            }
        }
        value += (self.loan_balance - self.resale) * discount;
        annuity(value, self.rate, self.months)
    }
}

/// The exact life of `inputs`.
pub(super) fn exact(inputs: &Inputs) -> Life<Decimal> {
    live(&inputs.numbers(), None)
}
